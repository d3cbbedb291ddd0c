"""What several experiments of this document share: ends, and the lattice of section 2."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.estimates import Share

# Having left the sharp well of section 2 is theta < -1/2, half way down the other well.
LEFT = -0.5
POPULATION = tw.Resampled(1, lipschitz=(1.0, 5.0))


def values(problem: tw.FiniteSum, points: Any) -> Float[np.ndarray, " points"]:
    """The objective at points, shape (points, d)."""
    return np.asarray(_values(problem, jnp.asarray(points)))


@jax.jit
def _values(problem: tw.FiniteSum, points: Float[Array, "points d"]) -> Float[Array, " points"]:
    return jax.lax.map(problem.value, points, batch_size=128)


def ends_in(landscape: tw.Landscape, params: Float[Array, "chains d"], minimum: int = 0) -> Share:
    """The share of chains that ended in the basin of a known minimum."""
    return Share.of(np.asarray(tw.basin(landscape.problem, landscape.minima, params)) == minimum)


class Kept(NamedTuple):
    """What is left of chains from theta = .25 after some steps, exactly.

    Attributes:
        left: The shares that have left by then.
        spread: The root of the mean square distance from the minimum, of those that have not.
    """

    left: Float[np.ndarray, " steps"]
    spread: Float[np.ndarray, " steps"]


def kept_on_lattice(sampler: Any, step: float, steps: Any) -> Kept:
    """Section 2 at a step: the chain from .25 moves on a lattice, where its law is exact."""
    landscape = tw.landscapes.piecewise_linear()
    descent = tw.Descent(landscape.problem, sampler, step)
    sides = [("absorbing", "reflecting")]
    lattice = tw.markov.lattice(descent, LEFT, 1.0, 0.25, boundary=sides)
    law = np.zeros(lattice.shape)
    law[np.argmin(np.abs(lattice.positions - 0.25))] = 1.0
    later = tw.discretise(descent, lattice).evolve(law, step * np.asarray(steps, dtype=float))
    masses = np.asarray(later.densities) * lattice.widths[0]
    # At steps at which all have left nothing is left to have a distance.
    within = np.maximum(masses.sum(axis=1), np.finfo(float).tiny)
    square = masses @ (lattice.positions - 0.2) ** 2
    return Kept(1 - within, np.sqrt(square / within))
