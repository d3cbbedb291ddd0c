"""Chains that leave a minimum by one large step: from its far side, over everything, into another.

At a step that is not small the cheapest way out may be up the steep side of a valley, away from the
pass, from where the next step overshoots. No path of a flow is near it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.paths.fields import Field, Matrix, Point
from thalweg.paths.hamiltonian import AbstractHamiltonian

# Distances from the minimum that are tried, as shares of that of the two minima, ...
_DISTANCES = np.linspace(0.1, 3.0, 59)
# ... and on how many lines, along the steepest directions.
_LINES = 8
# Steps without noise, after which a chain is close to the minimum or will not come there.
_STEPS = 256
# A chain this close to the end has come, as a share of the distance of the minima.
_CLOSE = 1e-2

Points = Float[np.ndarray, "steps d"]


def overshoots(
    field: Field, a: Point, b: Point, metric: Matrix, step: float
) -> list[Float[np.ndarray, "_ d"]]:
    """One chain for each line through a, on either side, from which steps alone lead to b.

    Up to the nearest such point the chain comes as the linear one around a would.
    """
    _, vectors = np.linalg.eigh(field.jacobian(a) + field.jacobian(a).T)
    lines = vectors.T[:_LINES]
    starts = a + _DISTANCES[:, None, None] * field.scale * np.concatenate([lines, -lines])
    orbits = np.asarray(_orbits(field.H, jnp.asarray(step), starts.reshape(-1, a.size)))
    with np.errstate(over="ignore", invalid="ignore"):
        there = np.linalg.norm(orbits - b, axis=2) <= _CLOSE * field.scale
    comes = there[:, -1].reshape(len(_DISTANCES), -1)
    chains = []
    for line in np.flatnonzero(comes.any(axis=0)):
        first = int(np.argmax(comes[:, line])) * comes.shape[1] + line
        last = int(np.argmax(there[first])) + 1
        before = ascent(field, a, orbits[first, 0], metric, step, last)
        chains.append(np.vstack([a, before[:-1], orbits[first, :last], b]))
    return chains


def ascent(field: Field, a: Point, point: Point, metric: Matrix, step: float, steps: int) -> Points:
    r"""The points by which the linear chain around a comes to a point, most probably.

    With its map M and covariance S it came to x from :math:`S M^\top S^{-1} x`.
    """
    move = np.eye(a.size) + step * field.jacobian(a)
    back = np.linalg.solve(metric, move.T @ metric)
    found = [point - a]
    for _ in range(steps):
        found.append(back @ found[-1])
    return a + np.array(found[::-1])


@eqx.filter_jit
def _orbits(H: AbstractHamiltonian, step: Array, starts: Array) -> Array:
    """The chains without noise, shape (starts, steps, d)."""

    def move(points: Array, _: None) -> tuple[Array, Array]:
        return points + step * jax.vmap(H.drift)(points), points

    _, orbits = jax.lax.scan(move, starts, None, length=_STEPS)
    return jnp.swapaxes(orbits, 0, 1)
