"""A stationary law with a current: noise that grows across the valley of L = x^2/2 + y^2.

Where the gradients of the loss and of the noise's variance are not parallel there is no closed
form (Dai and Zhu's open case): the law is stationary, and yet probability flows round.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

import thalweg as tw
from thalweg.report.grid_figure import grid_figure

jax.config.update("jax_enable_x64", True)

drift = jax.grad(lambda t: -(t[0] ** 2 / 2 + t[1] ** 2))
noise = tw.noise_models.isotropic(lambda t: 1 + 0.8 * jnp.tanh(t[0] + t[1]), 0.6, 1.0)
chain = tw.discretise(tw.Diffusion(drift, noise, 0.1), tw.Grid(-4.0, 4.0, (256, 256)))

law = chain.stationary(error=True)
flow = chain.current(law.density)
for name, axis in (("x", 0), ("y", 1)):
    print(f"E {name}^2 = {float(chain.average(lambda t, axis=axis: t[axis] ** 2)):.5f}")
print(f"largest current {float(jnp.max(jnp.hypot(*flow))):.4f}; error of the law {law.error:.0e}")

if len(sys.argv) > 1:
    drawing = grid_figure(chain.grid, law.density, current=flow, name="current")
    Path(sys.argv[1]).write_bytes(drawing.render(Path(sys.argv[1]).suffix[1:]))
