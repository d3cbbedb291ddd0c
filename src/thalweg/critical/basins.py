"""Whose basin of the gradient flow a point is in."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg.critical.box import SAME
from thalweg.errors import InputError
from thalweg.flow import STEPS, Ends, follow, in_blocks
from thalweg.problem import FiniteSum

# A lone minimum at the origin has no length of its own: it is taken as this.
_SMALLEST = 1e-3
# Radii around a minimum, as shares of the largest, and directions for each dimension.
_RADII = 1.5 ** np.arange(-19.0, 1.0)
_DIRECTIONS = 32
# Steps of the flow in the first round; each round takes twice as many as the last.
_FIRST_ROUND = 32
# A flow that comes to rest this near to a minimum (a share of half the way to the next) is its own.
_NEAR = 1e-2


def basin(
    problem: FiniteSum, points: Sequence[Any], params: Float[Array, "chains d"]
) -> Int[Array, " chains"]:
    r"""Whose basin of the gradient flow each end point is in: an index into ``points``, or -1.

    On a line that is the next minimum in the direction in which f falls: one gradient a point.
    In more dimensions, a point near a minimum needs no flow either. Around each minimum the largest
    ellipsoid is taken (in the metric of the Hessian there, a ball at a kink; up to half the
    distance to the next minimum) out to which f rises, judged at 20 radii and 34 d directions; who
    is inside, and lower than half the rim, cannot cross the rim by going down. The others follow
    the flow (:mod:`thalweg.flow`) until they are. -1 is for points that are not finite, flow away,
    rest elsewhere, or do not arrive in a thousand steps.

    ``points`` should hold all minima: one that is missing has its basin, or a part of it, counted
    as -1 or as a neighbour's.

    Args:
        problem: The objective.
        points: The minima; anything with ``params`` of shape (d,), such as what :func:`minima`
            returns or a landscape's known points. Kinked minima will do.
        params: The end points.

    Raises:
        InputError: No points, or points of another dimension than ``params``.
    """
    if not points:
        raise InputError("points is empty; expected at least one minimum")
    centres = jnp.stack([jnp.asarray(point.params, params.dtype) for point in points])
    if centres.shape[1:] != params.shape[1:]:
        raise InputError(
            f"points have shape {centres.shape[1:]} and end points {params.shape[1:]}; "
            "expected the same dimension"
        )
    problem.check_params(centres[0])
    owner = _already_there(np.asarray(centres), np.asarray(params))
    away = np.flatnonzero((owner < 0) & np.isfinite(np.asarray(params)).all(axis=1))
    if away.size:
        owner[away] = _by_descent(problem, centres, params[away])
    return jnp.asarray(owner)


def _already_there(centres: np.ndarray, params: np.ndarray) -> np.ndarray:
    """The minimum that a point cannot be told from, or -1.

    Minima are known to a few digits only: this close to one, f may fall to the wrong side.
    """
    distances = np.linalg.norm(params[:, None] - centres, axis=2)
    nearest = distances.argmin(axis=1)
    size = np.linalg.norm(np.ptp(centres, axis=0)) + np.abs(centres).max()
    there = distances.min(axis=1) <= SAME * max(size, _SMALLEST)
    return np.where(there, nearest, -1).astype(np.int32)


def _by_descent(
    problem: FiniteSum, centres: Float[Array, "minima d"], params: Float[Array, "chains d"]
) -> np.ndarray:
    if params.shape[1] == 1:
        return np.asarray(_basin_on_line(problem, centres[:, 0], params[:, 0]))
    hoods = _neighbourhoods(problem, centres, _reach(centres, params))
    owner = np.array(_owners(problem, hoods, params))
    waiting = np.flatnonzero(owner < 0)
    owner[waiting] = _arrivals(problem, hoods, params[waiting])
    return owner


class _Neighbourhoods(NamedTuple):
    """Ellipsoids around minima that the flow cannot leave from below the barrier.

    Inside ellipsoid j are the points with ``|inverses[j] @ (point - centres[j])| < radii[j]``.
    """

    centres: Float[Array, "minima d"]
    inverses: Float[Array, "minima d d"]
    radii: Float[Array, " minima"]
    barriers: Float[Array, " minima"]
    reach: Float[Array, " minima"]


def _reach(centres: Array, params: Array) -> Array:
    """Half the distance from each minimum to the next; for a lone one, to the farthest chain."""
    if len(centres) == 1:
        farthest = jnp.max(jnp.linalg.norm(params - centres[0], axis=1), keepdims=True)
        return jnp.maximum(farthest, jnp.finfo(params.dtype).eps)
    apart = jnp.linalg.norm(centres[:, None] - centres, axis=2)
    return jnp.min(jnp.where(jnp.eye(len(centres), dtype=bool), jnp.inf, apart), axis=1) / 2


def _padded(points: Array) -> Array:
    """64, 256, 1024, ... points, the last repeated: few shapes are compiled."""
    length = 64
    while length < len(points):
        length *= 4
    return jnp.concatenate([points, jnp.repeat(points[-1:], length - len(points), axis=0)])


@jax.jit
def _basin_on_line(problem: FiniteSum, centres: Array, points: Array) -> Array:
    """The next minimum in the direction in which f falls."""
    order = jnp.argsort(centres)
    slopes = in_blocks(problem, problem.gradient, points[:, None])[:, 0]
    left = jnp.searchsorted(centres[order], points, side="right") - 1
    right = jnp.searchsorted(centres[order], points, side="left")
    place = jnp.where(slopes > 0, left, right)
    # A gradient of zero away from all minima is that of a maximum or a plateau.
    lands = (place >= 0) & (place < centres.size) & (slopes != 0)
    owner = jnp.where(lands & jnp.isfinite(points), order[place], -1)
    return owner.astype(jnp.int32)


@jax.jit
def _neighbourhoods(problem: FiniteSum, centres: Array, reach: Array) -> _Neighbourhoods:
    d = centres.shape[1]
    directions = _directions(d).astype(centres.dtype)

    def one(centre: Array, reach: Array) -> tuple[Array, Array, Array]:
        frame, inverse = _frame(jax.jacfwd(problem.gradient)(centre))
        radii = reach * jnp.asarray(_RADII, centres.dtype)
        rim = centre + radii[:, None, None] * (directions @ frame.T)
        values = in_blocks(problem, problem.value, rim.reshape(-1, d)).reshape(len(radii), -1)
        radius, barrier = _rise(problem.value(centre), jnp.min(values, axis=1), radii)
        return inverse, radius, barrier

    inverses, radii, barriers = jax.lax.map(lambda x: one(*x), (centres, reach))
    return _Neighbourhoods(centres, inverses, radii, barriers, reach)


def _directions(d: int) -> Array:
    random = jax.random.normal(jax.random.key(0), (_DIRECTIONS * d, d))
    axes = jnp.eye(d, dtype=random.dtype)
    return jnp.concatenate([axes, -axes, random / jnp.linalg.norm(random, axis=1, keepdims=True)])


def _frame(H: Array) -> tuple[Array, Array]:
    """H^(-1/2) with a longest axis of 1, and its inverse; the identity if H is no metric."""
    curvatures, vectors = jnp.linalg.eigh(H)
    axes = jnp.sqrt(curvatures / curvatures[0])
    good = (curvatures[0] > 0) & (axes[-1] < 1e4)
    axes = jnp.where(good, axes, 1)
    vectors = jnp.where(good, vectors, jnp.eye(len(H), dtype=H.dtype))
    return vectors / axes, axes[:, None] * vectors.T


def _rise(bottom: Array, lowest: Array, radii: Array) -> tuple[Array, Array]:
    """The radius out to which f rises, and half its height there; radius 0 if it does not."""
    before = jnp.concatenate([bottom[None], lowest[:-1]])
    # A location that is known to a few digits only is not the lowest point of its surroundings.
    inexact = jnp.cumprod(lowest <= bottom).astype(bool)
    last = jnp.sum(jnp.cumprod(inexact | (lowest > before))) - 1
    rises = (last >= 0) & (lowest[last] > bottom)
    return jnp.where(rises, radii[last], 0), (bottom + lowest[last]) / 2


def _owner(problem: FiniteSum, hoods: _Neighbourhoods, point: Array) -> Array:
    """The minimum whose neighbourhood holds the point for good, or -1."""
    offsets = jnp.einsum("jab,jb->ja", hoods.inverses, point - hoods.centres)
    held = jnp.linalg.norm(offsets, axis=1) < hoods.radii
    held &= problem.value(point) < hoods.barriers
    return jnp.where(jnp.any(held), jnp.argmax(held), -1)


@jax.jit
def _owners(problem: FiniteSum, hoods: _Neighbourhoods, points: Array) -> Array:
    return in_blocks(problem, partial(_owner, problem, hoods), points)


def _arrivals(problem: FiniteSum, hoods: _Neighbourhoods, points: Array) -> np.ndarray:
    """The minimum that the flow from each point comes to, or -1.

    In rounds, so that the many do not wait for the few that pass near a saddle.
    """
    owner = np.full(len(points), -1, dtype=np.int32)
    going, times, steps = np.arange(len(points)), jnp.zeros_like(points[:, 0]), _FIRST_ROUND
    while going.size and steps <= STEPS:
        ends, owners = _round(problem, hoods, _padded(points), _padded(times), steps)
        owner[going] = owners[: going.size]
        kept = np.flatnonzero(ends.going[: going.size])
        going, points, times = going[kept], ends.point[kept], ends.time[kept]
        steps *= 2
    return owner


@jax.jit
def _round(
    problem: FiniteSum,
    hoods: _Neighbourhoods,
    starts: Array,
    times: Array,
    steps: int | Int[Array, ""],
) -> tuple[Ends, Array]:
    centre, scale = jnp.mean(hoods.centres, axis=0), 2 * jnp.max(hoods.reach)

    def one(start: Array, time: Array) -> tuple[Ends, Array]:
        def held(point: Array) -> Array:
            return _owner(problem, hoods, point) >= 0

        end = follow(problem, start, centre, scale, held, time, steps)
        distances = jnp.linalg.norm(end.point - hoods.centres, axis=1) / hoods.reach
        near = end.at_rest & (jnp.min(distances) < _NEAR)
        owner = _owner(problem, hoods, end.point)
        return end, jnp.where((owner < 0) & near, jnp.argmin(distances), owner)

    return in_blocks(problem, one, starts, times)
