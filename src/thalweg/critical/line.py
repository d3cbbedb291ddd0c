"""Critical points on a line, kinks included, by changes of sign of the derivative."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.critical.box import Box
from thalweg.critical.graph import CriticalGraph
from thalweg.critical.point import CriticalPoint, critical_point
from thalweg.critical.search import Search
from thalweg.errors import InputError
from thalweg.flow import in_blocks
from thalweg.problem import FiniteSum

# Halvings of a cell, down to neighbouring numbers.
_HALVINGS = 64
# Brackets are refined so many at once.
_AT_ONCE = 32
# What a change of slope at a point has to be of that across three cells for a kink, and what the
# curvature has to explain of the latter at a smooth point that is not degenerate.
_KINK, _CURVED = 1e-2, 1e-3


def on_line(problem: FiniteSum, box: Box, cells: int) -> CriticalGraph:
    """The graph of a problem of one parameter; see :func:`thalweg.critical_points`.

    Raises:
        InputError: A derivative that is not finite in the box or vanishes on an interval, or a
            smooth critical point without curvature.
    """
    lower, upper = (float(corner[0]) for corner in box.enlarged())
    grid = jnp.asarray(np.linspace(lower, upper, cells + 1), box.lower.dtype)
    left, right = _brackets(np.asarray(grid), np.asarray(_slopes(problem, grid)), box)
    width = (upper - lower) / cells
    points = [_describe(problem, c, width) for c in _refined(problem, left, right, grid)]
    minima = [i for i, point in enumerate(points) if point.index == 0]
    deepest = sorted(minima, key=lambda i: points[i].value)
    place = {old: new for new, old in enumerate(deepest)}
    tops = sorted(set(range(len(points))) - set(minima), key=lambda i: points[i].value)
    # Minima and maxima alternate: the neighbours of a maximum are what it joins.
    joins = [sorted((place.get(i - 1, -1), place.get(i + 1, -1))) for i in tops]
    return CriticalGraph(
        minima=tuple(points[i] for i in deepest),
        saddles=tuple(points[i] for i in tops),
        joins=tuple((a, b) for a, b in joins),
        search=Search(
            box=box,
            descents=0,
            climbs=0,
            minima=len(minima),
            hits=(),
            joined=True,
            cells=cells,
        ),
    )


class _Crossing(NamedTuple):
    """Changes of sign of f', refined to neighbouring numbers: arrays, or one of them.

    Attributes:
        left: The number before it; f' has its sign from the left there.
        right: The number after it.
        at_left: f' at ``left``.
        at_right: f' at ``right``.
        before: The derivative from the left, a few units of rounding away.
        after: The derivative from the right.
        across: The sum of |f'| one cell to either side.
        value: f at ``left``.
    """

    left: Any
    right: Any
    at_left: Any
    at_right: Any
    before: Any
    after: Any
    across: Any
    value: Any


def _brackets(grid: np.ndarray, slopes: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the cells in which the sign changes; a grid point with f' = 0 is left out."""
    finite = np.isfinite(slopes)
    wrong = ~finite & (grid >= float(box.lower[0])) & (grid <= float(box.upper[0]))
    if wrong.any():
        raise InputError(
            f"the derivative is {slopes[wrong][0]} at {grid[wrong][0]}; expected finite numbers in "
            "the box: make it smaller"
        )
    kept = np.flatnonzero(finite & (slopes != 0))
    changes = np.flatnonzero(np.diff(slopes[kept] > 0))
    left, right = kept[changes], kept[changes + 1]
    flat = np.flatnonzero(right - left > 2)
    if flat.size:
        raise InputError(
            f"the derivative vanishes from {grid[left[flat[0]] + 1]} to "
            f"{grid[right[flat[0]] - 1]}: a continuum of critical points; expected isolated ones"
        )
    return grid[left], grid[right]


def _refined(
    problem: FiniteSum, left: np.ndarray, right: np.ndarray, grid: Float[Array, " points"]
) -> Iterator[_Crossing]:
    """The crossings in all brackets."""
    for first in range(0, len(left), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        count = len(left[part])
        ends = (np.resize(x[part], _AT_ONCE) for x in (left, right))
        found = _bisect(problem, *(jnp.asarray(x, grid.dtype) for x in ends), grid)
        columns = [np.asarray(x) for x in found]
        yield from (_Crossing(*(x[i] for x in columns)) for i in range(count))


def _describe(problem: FiniteSum, crossing: _Crossing, width: float) -> CriticalPoint:
    if abs(crossing.after - crossing.before) > _KINK * crossing.across:
        return _kink(problem, crossing)
    smaller = abs(crossing.at_left) < abs(crossing.at_right)
    place = crossing.left if smaller else crossing.right
    point = critical_point(problem, jnp.asarray(place[None]))
    # The only eigenvalue.
    if 2 * width * abs(point.sharpness) < _CURVED * crossing.across:
        raise InputError(
            f"f'' is {point.sharpness:.3g} at the critical point {place}, less than the slopes "
            "around it ask for: it is degenerate; expected minima and maxima with a second "
            "derivative"
        )
    return point


def _kink(problem: FiniteSum, crossing: _Crossing) -> CriticalPoint:
    slopes = float(crossing.before), float(crossing.after)
    params = jnp.asarray(crossing.left[None])
    curvature = math.copysign(math.inf, slopes[1] - slopes[0])
    return CriticalPoint(
        params=params,
        value=float(crossing.value),
        eigenvalues=jnp.array([curvature], params.dtype),
        sharpness=curvature,
        nonuniformity=math.inf,
        residual=0.0,
        largest_step=0.0,
        slopes=slopes,
    )


@jax.jit
def _slopes(problem: FiniteSum, places: Float[Array, " n"]) -> Float[Array, " n"]:
    return in_blocks(problem, problem.gradient, places[:, None])[:, 0]


@jax.jit
def _bisect(problem: FiniteSum, left: Array, right: Array, grid: Array) -> _Crossing:
    rising = _slopes(problem, left) > 0

    def halve(_: Array | int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = ends[0] + (ends[1] - ends[0]) / 2
        slopes = _slopes(problem, middle)
        before = ((slopes > 0) == rising) & (slopes != 0)
        return jnp.where(before, middle, ends[0]), jnp.where(before, ends[1], middle)

    left, right = jax.lax.fori_loop(0, _HALVINGS, halve, (left, right))
    beside = 4 * float(jnp.finfo(grid.dtype).eps) * (grid[-1] - grid[0])
    width = grid[1] - grid[0]
    before, after, earlier, later = (
        _slopes(problem, jnp.clip(place, grid[0], grid[-1]))
        for place in (left - beside, right + beside, left - width, right + width)
    )
    return _Crossing(
        left=left,
        right=right,
        at_left=_slopes(problem, left),
        at_right=_slopes(problem, right),
        before=before,
        after=after,
        across=jnp.abs(earlier) + jnp.abs(later),
        value=in_blocks(problem, problem.value, left[:, None]),
    )
