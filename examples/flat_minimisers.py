"""Which solution of an underdetermined problem does noise select?

Four bounded coefficients w = sin(theta) and three data: the solutions are a curve. Constant noise
and noise that vanishes with the loss select its points by det(H)^(-1/2), H across the curve.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg import manifolds
from thalweg.report.style import Drawing

jax.config.update("jax_enable_x64", True)

x = jnp.array([[1.0, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
centre = jnp.array([0.6, -0.5, 0.1, -0.1])
data = (x, x @ centre)
problem = tw.FiniteSum(lambda p, xy: jnp.square(jnp.dot(xy[0], jnp.sin(p)) - xy[1]) / 2, data)
curve = jax.vmap(lambda u: jnp.arcsin(centre - 0.05 + 0.45 * jnp.sin(u[0])))
unseen = jax.vmap(lambda p: jnp.mean(jnp.sin(p) - centre))  # what no datum says

law = manifolds.chart_selection(problem, lambda u: curve(u[None])[0], -np.pi / 2, np.pi / 2)
print(f"selection density: E s^2 = {law.probabilities @ unseen(law.points) ** 2:.4f}")
scaled = tw.noise_models.loss_scaled(problem, 0.5, 16.0, convention="sde")
runs = {"constant noise": (0.006, 0.2, "heun"), "noise ∝ loss": (scaled, 0.01, "euler-maruyama")}
bins, found = np.linspace(-0.5, 0.4, 13), {}
for name, (noise, step, method) in runs.items():
    sde = tw.Diffusion(lambda p: -problem.gradient(p), noise, step, method=method)
    starts = jax.random.uniform(jax.random.key(1), (4096, 4), maxval=2 * np.pi)
    run = tw.simulate(sde, starts, steps=2500, key=jax.random.key(0), per_chain=True)
    low = jax.vmap(problem.value)(run.params) < 0.01
    s = np.asarray(unseen(manifolds.project(problem, run.params[low]).points))
    print(f"{name}: E s^2 = {np.mean(s**2):.4f} +- {np.std(s**2) / np.sqrt(len(s)):.4f}")
    found[name] = np.histogram(s, bins)[0] / len(s), len(s)

if len(sys.argv) > 1:
    u = (jnp.arange(4000.0)[:, None] + 0.5) * np.pi / 4000 - np.pi / 2
    points, density = curve(u), law.density(u)
    length = density * jnp.exp(-manifolds.selection_log_density(problem, points))

    def draw(figure):
        """The shares of chains, and those by the density and by the length of the curve alone."""
        axes, middle = figure.subplots(), (bins[1:] + bins[:-1]) / 2
        for label, w, style in (("det(H)^(-1/2)", density, "-"), ("length alone", length, ":")):
            shares = np.histogram(unseen(points), bins, weights=w / w.sum())[0]
            axes.stairs(shares, bins, label=label, color="#444444", linestyle=style)
        for (label, (p, n)), look in zip(found.items(), ("o#0072B2", "^#D55E00"), strict=True):
            errors = {"yerr": np.sqrt(p * (1 - p) / n), "fmt": look[0], "color": look[1:]}
            axes.errorbar(middle, p, label=label, markersize=3, **errors)
        axes.set(xlabel="s, where no datum says anything", ylabel="share of chains", ylim=(0, 0.3))
        axes.legend(loc="upper center", ncols=2)

    drawing = Drawing("flat", "Where noise leaves three equations in four unknowns.", 60, draw)
    Path(sys.argv[1]).write_bytes(drawing.render(Path(sys.argv[1]).suffix[1:]))
