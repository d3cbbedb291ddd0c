"""What is left, from where and how, and how long that takes by the exact chain or the grid."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import thalweg
from thalweg.landscapes import mueller_brown, piecewise_linear
from thalweg.markov import elimination
from thalweg.markov.lattice import lattice
from thalweg.markov.transfer import transfer

jax.config.update("jax_enable_x64", True)


@dataclass(frozen=True)
class Case:
    """A dynamics, its start and exit, and its mean exit time in steps."""

    dynamics: Any
    start: Any
    exit: Any
    steps: float


def plane(temperature: float = 0.035) -> Case:
    """A diffusion with two passes in the plane, by the grid."""
    exit = thalweg.stopping.LeftBox(jnp.array([-1.5, -jnp.inf]), jnp.array([1.5, jnp.inf]))
    diffusion = thalweg.Diffusion(_two_passes, 2 * temperature, 0.02, method="heun")
    box = thalweg.Grid((-1.7, -1.2), (1.7, 2.6), (272, 152))
    return _by_grid(diffusion, jnp.zeros(2), exit, box)


def mueller() -> Case:
    """Mueller-Brown, V/16, from the deep well past the middle one to the right one, by the grid."""
    landscape = mueller_brown(scale=0.25)
    start, target = (landscape.minima[k].params for k in (0, 2))

    def drift(theta: jax.Array) -> jax.Array:
        return -landscape.problem.gradient(theta)

    diffusion = thalweg.Diffusion(drift, 2 * 0.475, 1e-3, method="heun")
    box = thalweg.Grid((-1.6, -0.5), (1.2, 2.3), (384, 384))
    return _by_grid(diffusion, start, thalweg.stopping.EnteredBall(target, 0.2), box)


def sgd(step: float = 0.0314) -> Case:
    """SGD out of the sharp well of An and Ying's example, by its exact chain."""
    return _by_lattice(thalweg.Minibatch(1, replace=True), step)


def population(step: float = 0.04) -> Case:
    """Population RR out of the same well."""
    return _by_lattice(thalweg.Resampled(1, lipschitz=(1.0, 5.0)), step)


def _by_grid(diffusion: Any, start: Any, exit: Callable[[Any], Any], box: Any) -> Case:
    times = thalweg.discretise(diffusion, box).exit_time(lambda theta: ~exit(theta))
    return Case(diffusion, start, exit, float(times.at(start)) / float(diffusion.step))


def _by_lattice(sampler: Any, step: float) -> Case:
    landscape = piecewise_linear()
    descent = thalweg.Descent(landscape.problem, sampler, step)
    own = lattice(descent, -2.0, 1.0, 0.25)
    times = elimination.mean_times(transfer(descent, own), own.positions >= -0.5)
    at = int(np.argmin(np.abs(own.positions - 0.25)))
    exit = thalweg.stopping.LeftBox(-0.5, jnp.inf)
    return Case(descent, landscape.start, exit, float(times[at]) / step)


def _two_passes(theta: jax.Array) -> jax.Array:
    x, y = theta
    aside = 1.5 * (y - 0.5 * x * x)
    return jnp.stack([-2.0 * (x - x**3) + 0.016 + aside * x, -aside])


CASES = {
    "plane": plane,
    "plane-cold": lambda: plane(0.0175),
    "mueller": mueller,
    "sgd": sgd,
    "population": population,
}
