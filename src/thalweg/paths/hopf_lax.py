r"""The quasi-potential on a plane, by Hopf and Lax's formula on rings of cells.

A path to a cell x crosses the square ring of cells around it, at some y: :math:`V(x) = \min_y V(y)
+ S(y \to x)` with the action S of the last piece. Here the ring has the radius of two cells, V is
interpolated along it to third order, and the last piece is a parabola with Gauss's two-point rule,
of fourth order. The ordered line integral methods (D. Dahiya and M. Cameron, 2018) take straight
pieces from cells much further away, linear interpolation, and each cell once, in the order of V;
here all cells at once take the minimum over y and the bend of the parabola, until nothing changes.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from thalweg.markov.chunks import in_chunks, width
from thalweg.markov.grid import Grid
from thalweg.paths.attractor import Near
from thalweg.paths.hamiltonian import AbstractHamiltonian

_RADIUS = 2
# Stands for infinity where differences are taken.
_FAR = 1e200
# Changes of V, as shares of its largest value, that end passes, and those of half of the cells and
# of most that end rounds: near walls, last pieces are passed on from cell to cell, one a round.
_PASSED, _HALF, _MOST = 1e-10, 1e-8, 1e-6
_ROUNDS = 40
# A change that is worth a warning if rounds have not ended before.
_UNSETTLED = 1e-4
# Distances of the stencils of Newton's steps: of the place on the ring in cells, of the bend in
# lengths of the piece.
_STENCILS = ((0.1, 0.03), (0.02, 0.01), (0.02, 0.01))
_PATTERN = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1))
_LARGEST_BEND = 0.3
# Newton's steps: of place and bend at most, and the least curvature.
_LONGEST = np.array([0.5, 0.1])
_LEAST = 1e-12
# Second differences of a smooth function differ by no more than this factor.
_SMOOTH = 4.0
# Passes at most, for each cell along the longer side.
_PASSES = 8


def _ring(radius: int) -> np.ndarray:
    """The cells of the ring in order, as seen from its middle."""
    up, down = np.arange(-radius, radius), np.arange(radius, -radius, -1)
    low, high = np.full(2 * radius, -radius), np.full(2 * radius, radius)
    sides = ((up, low), (high, up), (down, high), (low, down))
    return np.concatenate([np.stack(side, axis=1) for side in sides])


_RING = _ring(_RADIUS)
_ALONG = np.roll(_RING, -1, axis=0) - _RING
_GAUSS = 0.5 - 0.5 / np.sqrt(3), 0.5 + 0.5 / np.sqrt(3)


class Plane(eqx.Module):
    """A grid of equal cells in two dimensions.

    Attributes:
        first: The centre of cell (0, 0).
        widths: The widths of a cell.
        inside: The cells of the domain.
    """

    first: Float[Array, " 2"]
    widths: Float[Array, " 2"]
    inside: Bool[Array, "n m"]

    @staticmethod
    def of(grid: Grid) -> "Plane":
        """The plane of a grid."""
        first = jnp.asarray([x[0] for x in grid.centres])
        return Plane(first, jnp.asarray([w[0] for w in grid.widths]), jnp.asarray(grid.inside))

    def has(self, cell: Array) -> Bool[Array, ""]:
        """Whether a cell is one of the domain."""
        near = jnp.clip(cell, 0, jnp.asarray(self.inside.shape) - 1)
        return jnp.all(near == cell) & self.inside[near[0], near[1]]


class Policy(NamedTuple):
    """The last piece of the path to each cell.

    Attributes:
        place: Where on the ring it begins: the number of a cell of the ring and the share of the
            way to the next one.
        bend: How far its middle is to the side, as a share of its length.
        cost: Its action.
    """

    place: Float[Array, " cells"]
    bend: Float[Array, " cells"]
    cost: Float[Array, " cells"]


def hopf_lax(H: AbstractHamiltonian, grid: Grid, start: Near) -> Float[np.ndarray, "n m"]:
    r"""The quasi-potential on a grid of equal cells, infinite where no path leads.

    Cells within two of the rest point have the value of the power series. A first solution is that
    of Dijkstra's algorithm on the cells of the rings; rounds follow of Newton's steps for place and
    bend, from the best of a cell's own last piece, its neighbours' and the straight ones, and of
    passes that update V with these until it stays, until a round changes V by less than 1e-8 of its
    largest value in half of the cells and 1e-6 in nearly all.

    Cost: some 50 lengths a cell and round, 5 to 10 rounds.
    """
    plane = Plane.of(grid)
    cells = jnp.asarray(np.indices(grid.shape).reshape(2, -1).T)
    away = np.abs(grid.points - start.point) / np.asarray(plane.widths)
    fixed = (away.max(axis=1) <= _RADIUS * (1 + 1e-9)) & grid.inside.ravel()
    known = np.zeros(fixed.size)
    known[fixed] = start.values(grid.points[fixed])
    number = 4 * len(_RING) * width(H.length, jnp.zeros(2), jnp.ones(2))
    costs = in_chunks(lambda c: _straight(H, plane, c), (cells,), number)
    values = _shortest(grid, costs, fixed, known)
    policy = _first(plane, cells, values, jnp.asarray(costs))
    for _ in range(_ROUNDS):
        finite = values < _FAR / 2
        scale = jnp.max(jnp.where(finite, values, 0))
        rows = (
            cells,
            jnp.asarray(costs),
            *(_around(jnp.asarray(x).reshape(grid.shape)) for x in policy[:2]),
        )
        policy = Policy(*in_chunks(partial(_improved, H, plane, values, scale), rows, number))
        before = values
        values = _passed(
            plane, cells, policy, values, scale, jnp.asarray(fixed), jnp.asarray(known)
        )
        change = np.asarray(jnp.where(finite, jnp.abs(values - before), 0) / scale)
        half, most = np.quantile(change, [0.5, 0.97])
        if half <= _HALF and most <= _MOST:
            break
    if most > _UNSETTLED:
        warnings.warn(
            f"after {_ROUNDS} rounds the quasi-potential still changes by {most:.1e} of its "
            "largest value; compare with another grid",
            stacklevel=3,
        )
    found = np.where(np.asarray(finite) & grid.inside.ravel(), np.asarray(values), np.inf)
    return found.reshape(grid.shape)


def _shortest(
    grid: Grid,
    costs: Float[np.ndarray, "cells ring"],
    fixed: Bool[np.ndarray, " cells"],
    known: Float[np.ndarray, " cells"],
) -> Float[Array, " cells"]:
    """By straight pieces between cells."""
    count = fixed.size
    cells = np.indices(grid.shape).reshape(2, -1).T
    # The source is one more node, a path of known action away from the cells near the rest point.
    near = np.flatnonzero(fixed)
    sources, targets, lengths = [np.full(near.size, count)], [near], [known[fixed]]
    for offset, cost in zip(_RING, costs.T, strict=True):
        other = cells + offset
        there = ((other >= 0) & (other < grid.shape)).all(axis=1) & ~fixed & (cost < _FAR / 2)
        targets.append(np.flatnonzero(there))
        sources.append(np.ravel_multi_index(tuple(other[there].T), grid.shape))
        lengths.append(cost[there])
    edges = np.concatenate(sources), np.concatenate(targets)
    graph = csr_array((np.concatenate(lengths), edges), shape=(count + 1, count + 1))
    found = dijkstra(graph, indices=count)[:count]
    return jnp.asarray(np.where(np.isfinite(found), found, _FAR))


@eqx.filter_jit
def _straight(H: AbstractHamiltonian, plane: Plane, cells: Array) -> Float[Array, "cells ring"]:
    """The action of straight pieces from the cells of the ring."""

    def one(cell: Array, place: Array) -> Array:
        return _action(H, plane, cell, _offset(place), jnp.zeros(()))

    places = jnp.arange(len(_RING), dtype=float)
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(cells, places)


@eqx.filter_jit
def _first(
    plane: Plane, cells: Array, values: Float[Array, " cells"], costs: Float[Array, "cells ring"]
) -> Policy:
    """The best straight pieces from cells of the ring."""
    field = values.reshape(plane.inside.shape)

    def one(cell: Array, cost: Array) -> Policy:
        number = jnp.argmin(_of_ring(plane, field, cell) + cost)
        return Policy(number.astype(float), jnp.zeros(()), cost[number])

    return jax.vmap(one)(cells, costs)


@eqx.filter_jit
def _improved(
    H: AbstractHamiltonian,
    plane: Plane,
    values: Float[Array, " cells"],
    scale: Float[Array, ""],
    cells: Array,
    costs: Float[Array, "some ring"],
    places: Float[Array, "some 5"],
    bends: Float[Array, "some 5"],
) -> Policy:
    """Better last pieces of the paths to some cells: see :func:`hopf_lax`."""
    field = values.reshape(plane.inside.shape)

    def one(cell: Array, cost: Array, place: Array, bend: Array) -> Policy:
        def total(choice: Float[Array, " 2"]) -> tuple[Array, Array]:
            cost = _action(H, plane, cell, _offset(choice[0]), choice[1])
            return _on_ring(plane, field, cell, choice[0]) + cost, cost

        number = jnp.argmin(_of_ring(plane, field, cell) + cost)
        straight = jnp.stack([number.astype(float), jnp.zeros(())])
        choices = jnp.concatenate([jnp.stack([place, bend], axis=1), straight[None]])
        return _descended(total, choices, _PASSED * scale)

    return jax.vmap(one)(cells, costs, places, bends)


def _descended(
    total: Callable[[Float[Array, " 2"]], tuple[Array, Array]],
    choices: Float[Array, "6 2"],
    gain: Float[Array, ""],
) -> Policy:
    """The best of choices and of Newton's steps from it; the first, if it is as good to a gain."""
    State = tuple[Array, Array, Array, Array]

    def stage(state: State, given: tuple[Array, Array]) -> tuple[State, None]:
        points, best, least, cost = state
        first, stencil = given
        found, costs = jax.vmap(total)(points)
        # To be replaced, what a cell has must be worse by the gain: rounds come to an end.
        ranked = found.at[0].add(jnp.where(first, -gain, 0))
        k = jnp.argmin(ranked)
        better = ranked[k] < least
        best = jnp.where(better, points[k], best)
        least, cost = jnp.where(better, ranked[k], least), jnp.where(better, costs[k], cost)
        # The choices are no stencil.
        centre = jnp.where(first, best, _newton(points, found))
        return (centre + stencil * jnp.asarray(_PATTERN, float), best, least, cost), None

    # One program for all stages; what the last Newton step finds is looked at, too.
    stencils = jnp.asarray((*_STENCILS, _STENCILS[-1]))
    firsts = jnp.arange(len(stencils)) == 0
    start = choices, choices[0], jnp.asarray(jnp.inf), jnp.asarray(_FAR)
    (_, best, _, cost), _ = jax.lax.scan(stage, start, (firsts, stencils))
    return Policy(best[0], best[1], cost)


def _newton(points: Float[Array, "6 2"], found: Float[Array, " 6"]) -> Float[Array, " 2"]:
    """Newton's step from the first point, by differences over the pattern of the others."""
    a, b = points[1, 0] - points[0, 0], points[3, 1] - points[0, 1]
    here, right, left, up, down, corner = found
    slope = jnp.stack([(right - left) / (2 * a), (up - down) / (2 * b)])
    along = jnp.maximum((right + left - 2 * here) / a**2, _LEAST)
    across = jnp.maximum((up + down - 2 * here) / b**2, _LEAST)
    # As near to singular as a convex function may be.
    largest = 0.9 * jnp.sqrt(along * across)
    mixed = jnp.clip((corner - right - up + here) / (a * b), -largest, largest)
    step = jnp.stack(
        [across * slope[0] - mixed * slope[1], along * slope[1] - mixed * slope[0]]
    ) / (along * across - mixed**2)
    step = jnp.where(jnp.isfinite(step), jnp.clip(step, -_LONGEST, _LONGEST), 0)
    place, bend = points[0] - step
    return jnp.stack([place, jnp.clip(bend, -_LARGEST_BEND, _LARGEST_BEND)])


@eqx.filter_jit
def _passed(
    plane: Plane,
    cells: Array,
    policy: Policy,
    values: Float[Array, " cells"],
    scale: Float[Array, ""],
    fixed: Bool[Array, " cells"],
    known: Float[Array, " cells"],
) -> Float[Array, " cells"]:
    """V when it stays with these last pieces."""
    shape = plane.inside.shape

    def update(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        values, _, count = state
        field = values.reshape(shape)

        def one(cell: Array, place: Array, cost: Array) -> Array:
            return jnp.minimum(_on_ring(plane, field, cell, place) + cost, _FAR)

        new = jnp.where(fixed, known, jax.vmap(one)(cells, policy.place, policy.cost))
        return new, jnp.max(jnp.abs(new - values)), count + 1

    def going(state: tuple[Array, Array, Array]) -> Array:
        _, change, count = state
        return (change > _PASSED * scale) & (count < _PASSES * max(shape))

    start = values, jnp.asarray(jnp.inf), jnp.asarray(0)
    return jax.lax.while_loop(going, update, start)[0]


def _action(
    H: AbstractHamiltonian, plane: Plane, cell: Array, offset: Float[Array, " 2"], bend: Array
) -> Float[Array, ""]:
    """The action from an offset, in cells, to a cell, along a parabola."""
    cell = cell.astype(float)
    place = plane.first + cell * plane.widths
    whole = -offset * plane.widths
    # A right angle in cells: lengths along the axes need not have the same unit.
    beside = bend * jnp.stack([offset[1], -offset[0]]) * plane.widths

    def density(share: Array) -> Array:
        point = place - (1 - share) * whole + 4 * share * (1 - share) * beside
        return H.length(point, whole + 4 * (1 - 2 * share) * beside)

    action = jnp.mean(jax.vmap(density)(jnp.asarray(_GAUSS)))
    # A piece is longer than a cell: it must not pass over one that is no part of the domain.
    middle = jnp.round(cell + offset / 2).astype(int)
    return jnp.where(jnp.isfinite(action) & plane.has(middle), action, _FAR)


def _on_ring(plane: Plane, field: Float[Array, "n m"], cell: Array, place: Array) -> Array:
    """V on the ring around a cell, by a cubic through four cells of its side.

    Across a ridge, where second differences differ, by what the smaller of them allows.
    """
    number, share = _located(place)
    offset, along = jnp.asarray(_RING)[number], jnp.asarray(_ALONG)[number]
    found = [_value(plane, field, cell + offset + k * along) for k in (-1, 0, 1, 2)]
    (before, has_before), (low, _), (high, _), (after, has_after) = found
    one, two = before - 2 * low + high, low - 2 * high + after
    one, two = (
        jnp.where(has_before, one, jnp.where(has_after, two, 0)),
        jnp.where(has_after, two, jnp.where(has_before, one, 0)),
    )
    small = jnp.where(jnp.abs(one) < jnp.abs(two), one, two)
    small = jnp.where(one * two > 0, small, 0)
    large = jnp.maximum(jnp.abs(one), jnp.abs(two))
    smooth = large <= _SMOOTH * jnp.abs(small)
    one, two = jnp.where(smooth, one, small), jnp.where(smooth, two, small)
    bulge = share * (1 - share) / 6 * ((2 - share) * one + (1 + share) * two)
    return low + share * (high - low) - bulge


def _offset(place: Array) -> Float[Array, " 2"]:
    """A place on the ring as seen from its middle, in cells."""
    number, share = _located(place)
    return jnp.asarray(_RING, float)[number] + share * jnp.asarray(_ALONG, float)[number]


def _located(place: Array) -> tuple[Array, Array]:
    """The cell of the ring and the share of the way to the next."""
    place = jnp.mod(place, len(_RING))
    number = jnp.clip(jnp.floor(place), 0, len(_RING) - 1).astype(int)
    return number, place - number.astype(place.dtype)


def _value(plane: Plane, field: Float[Array, "n m"], cell: Array) -> tuple[Array, Array]:
    """V of a cell, and whether it has one."""
    near = jnp.clip(cell, 0, jnp.asarray(field.shape) - 1)
    value = jnp.where(plane.has(cell), field[near[0], near[1]], _FAR)
    return value, value < _FAR / 2


def _of_ring(plane: Plane, field: Float[Array, "n m"], cell: Array) -> Float[Array, " ring"]:
    """V of the cells of the ring."""
    return jax.vmap(lambda offset: _value(plane, field, cell + offset)[0])(jnp.asarray(_RING))


def _around(field: Float[Array, "n m"]) -> Float[Array, "cells 5"]:
    """The numbers of each cell and its four neighbours."""
    wide = jnp.pad(field, 1, mode="edge")
    shifted = (
        wide[1:-1, 1:-1],
        wide[2:, 1:-1],
        wide[:-2, 1:-1],
        wide[1:-1, 2:],
        wide[1:-1, :-2],
    )
    return jnp.stack(shifted, axis=-1).reshape(-1, len(shifted))
