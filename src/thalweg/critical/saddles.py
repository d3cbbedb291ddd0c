r"""Uphill searches: eigenvector following to saddles of index one, and to maxima.

In the eigenvectors :math:`v_i` of the Hessian, with curvatures :math:`\lambda_i` and slopes
:math:`g_i`, a step is

.. math::

    \delta_i = \pm \frac{2 g_i}{|\lambda_i| + \sqrt{\lambda_i^2 + 4 g_i^2 / R^2}},

uphill (+) along one mode and downhill (-) along all others; for a maximum uphill along all. Near a
point of the right index it is Newton's step; far from one no component exceeds the trust radius R.
The mode is the one of lowest curvature at the start and from then on the one that turned least:
searches that take the lowest mode at each step go in circles where two curvatures cross. Points of
any other index are repellent.

Sources: Cerjan and Miller, J. Chem. Phys. 75, 2800 (1981); Wales, J. Chem. Phys. 101, 3750 (1994),
whose steps have R = 1.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from thalweg.critical.box import DEGENERATE, Box
from thalweg.flow import in_blocks
from thalweg.problem import FiniteSum

_STEPS = 200
# Bounds of the trust radius, shares of the diagonal of the box.
_LONGEST, _SHORTEST = 0.1, 1e-5
# A search may leave the box by this share of its diagonal and come back.
_MARGIN = 0.05
# Shares of the gradient that the Hessian did not foresee, after steps good, fair and to be undone.
_GOOD, _FAIR, _BAD = 0.3, 0.7, 1.0


class Climbs(NamedTuple):
    """Where uphill searches ended.

    Attributes:
        point: The last point.
        direction: The unit eigenvector followed there.
        arrived: Whether it is a critical point of the index sought, in the box: the Newton step is
            negligible and no curvature is.
        stuck: Whether it is in the box, and the gradient jumps there however short the steps: at a
            kink.
    """

    point: Float[Array, "*batch d"]
    direction: Float[Array, "*batch d"]
    arrived: Bool[Array, "*batch"]
    stuck: Bool[Array, "*batch"]


class _State(NamedTuple):
    """A point, slopes and curvatures in the eigenvectors there, and how the search goes on."""

    point: Array
    slopes: Array
    curvatures: Array
    vectors: Array
    followed: Array
    radius: Array
    steps: Array


@jax.jit
def climb(
    problem: FiniteSum, starts: Float[Array, "n d"], box: Box, index: int | Int[Array, ""]
) -> Climbs:
    """Search from each start for a saddle (index 1) or a maximum (index d).

    A search ends at a critical point of that index, well outside the box, where all curvatures are
    below 1e-9 of the usual one (the median of Hessian norms at the starts), or after 200 steps. A
    step costs a gradient, a d x d Hessian and its eigenvectors.
    """
    slopes, curvatures, vectors = in_blocks(problem, partial(_local, problem), starts)
    flat = DEGENERATE * jnp.median(jnp.linalg.norm(curvatures, axis=1))
    begin = _State(
        point=starts,
        slopes=slopes,
        curvatures=curvatures,
        vectors=vectors,
        followed=vectors[:, :, 0],
        radius=jnp.full(len(starts), _LONGEST / 2 * box.diagonal),
        steps=jnp.zeros(len(starts), jnp.int32),
    )
    return in_blocks(problem, lambda *x: _search(problem, _State(*x), box, flat, index), *begin)


def _search(problem: FiniteSum, begin: _State, box: Box, flat: Array, index: int | Array) -> Climbs:
    longest, shortest = _LONGEST * box.diagonal, _SHORTEST * box.diagonal

    def arrived(state: _State) -> Array:
        newton = jnp.linalg.norm(state.slopes / state.curvatures)
        sought = jnp.sum(state.curvatures < 0) == index
        return sought & (newton <= box.rest) & (jnp.min(jnp.abs(state.curvatures)) > flat)

    def going(state: _State) -> Array:
        moves = (jnp.max(jnp.abs(state.curvatures)) > flat) & jnp.any(state.slopes != 0)
        return box.enlarged(_MARGIN).holds(state.point) & moves & ~arrived(state)

    def step(state: _State) -> _State:
        mode = _mode(state)
        delta = _step(state, mode, index)
        moved = state.point + state.vectors @ delta
        slopes, curvatures, vectors = _local(problem, moved)
        foreseen = state.vectors @ (state.slopes + state.curvatures * delta)
        surprise = jnp.linalg.norm(vectors @ slopes - foreseen) / jnp.linalg.norm(state.slopes)
        factor = jnp.where(surprise < _GOOD, 2.0, jnp.where(surprise < _FAIR, 1.0, 0.5))
        radius = jnp.clip(state.radius * factor.astype(moved.dtype), shortest, longest)
        taken = (surprise < _BAD) | (state.radius <= shortest)
        followed = state.vectors[:, mode]
        there = _State(moved, slopes, curvatures, vectors, followed, state.radius, state.steps)
        kept = jax.tree.map(partial(jnp.where, taken), there, state)
        return kept._replace(radius=radius, steps=state.steps + 1)

    end = jax.lax.while_loop(lambda state: going(state) & (state.steps < _STEPS), step, begin)
    inside = box.enlarged().holds(end.point)
    stuck = inside & going(end) & (end.radius <= 4 * shortest)
    return Climbs(end.point, end.vectors[:, _mode(end)], inside & arrived(end), stuck)


def _local(problem: FiniteSum, point: Array) -> tuple[Array, Array, Array]:
    curvatures, vectors = jnp.linalg.eigh(jax.jacfwd(problem.gradient)(point))
    return vectors.T @ problem.gradient(point), curvatures, vectors


def _mode(state: _State) -> Array:
    """The eigenvector that turned least from the one followed."""
    return jnp.argmax(jnp.abs(state.vectors.T @ state.followed))


def _step(state: _State, mode: Array, index: int | Array) -> Array:
    d = state.slopes.size
    uphill = (jnp.arange(d) == mode) | (index == d)
    root = jnp.sqrt(state.curvatures**2 + 4 * (state.slopes / state.radius) ** 2)
    # Neither a slope nor a curvature: no step.
    divisor = jnp.maximum(jnp.abs(state.curvatures) + root, jnp.finfo(root.dtype).tiny)
    delta = jnp.where(uphill, 2, -2) * state.slopes / divisor
    return delta * jnp.minimum(1, state.radius / jnp.linalg.norm(delta))
