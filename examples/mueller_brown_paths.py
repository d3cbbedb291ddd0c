"""Ways out of the global minimum of Mueller and Brown's surface.

The path of minimum energy is the way of a diffusion with constant noise. SGD's noise is that of its
four terms: its most probable way to the same pass is another one.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.report.path_figure import path_figure

jax.config.update("jax_enable_x64", True)

landscape = tw.landscapes.mueller_brown()
problem, (deep, _, right) = landscape.problem, [point.params for point in landscape.minima]
energy = tw.minimum_energy_path(problem, deep, right)
print("passes at " + ", ".join(f"{saddle.value:.3f}" for saddle in energy.saddles))

sgd = tw.Descent(problem, tw.Minibatch(1), landscape.step)
chain = tw.minimum_action_path(sgd, deep, energy.saddles[0].params)
print(f"SGD's action to the first pass: {chain.action:.2f} +- {chain.error:.1g}")

if len(sys.argv) > 1:
    ends = [*(("minimum", m) for m in energy.minima), *(("saddle", s) for s in energy.saddles)]
    arc = [energy.arc[np.linalg.norm(energy.points - p.params, axis=1).argmin()] for _, p in ends]
    marks = [
        {"kind": kind, "params": point.params.tolist(), "arc": float(at), "value": point.value}
        for (kind, point), at in zip(ends, arc, strict=True)
    ]
    heights = [float(problem.value(jnp.asarray(point))) for point in chain.points]
    paths = [
        {"label": "minimum energy", "family": None, "marks": marks, "points": energy.points}
        | {"arc": energy.arc, "values": energy.values},
        {"label": "SGD, least action", "family": "sgd", "marks": [], "points": chain.points}
        | {"arc": chain.arc, "values": heights},
    ]
    x, y = np.linspace(-1.5, 1.25, 100), np.linspace(-0.5, 2.25, 100)
    plane = jnp.stack(jnp.meshgrid(jnp.asarray(x), jnp.asarray(y)), axis=-1)
    f = jax.vmap(jax.vmap(problem.value))(plane)
    surface = {"kind": "plane", "x": x, "y": y, "f": f, "x_label": "θ₁", "y_label": "θ₂"}
    drawing = path_figure(surface, paths)
    Path(sys.argv[1]).write_bytes(drawing.render(Path(sys.argv[1]).suffix[1:]))
