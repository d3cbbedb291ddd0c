"""What becomes of mass that moves on a grid: cells, sides and masks."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from thalweg.markov.grid import Grid

# Roundings of a coordinate that a share of a box may be wrong by.
_ROUNDINGS = 8 * np.finfo(float).eps
# The largest share that is taken for rounding, on cells hardly wider than that.
_SLIVER = 1e-3
# Overlaps held at once.
_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a transition matrix.

    Attributes:
        matrix: The rows, each with sum one; the last column is for what leaves.
        clamped: The part of each row that went beyond a reflecting side.
    """

    matrix: sp.csr_array
    clamped: Float[np.ndarray, " rows"]

    def taken(self, order: Int[np.ndarray, " rows"]) -> "Rows":
        """The rows in another order."""
        return Rows(self.matrix[order], self.clamped[order])


def stacked(pieces: Sequence[Rows]) -> Rows:
    """Rows below rows."""
    if len(pieces) == 1:
        return pieces[0]
    matrix = sp.vstack([rows.matrix for rows in pieces], format="csr")
    return Rows(matrix, np.concatenate([rows.clamped for rows in pieces]))


class SubCells:
    """The cells of a grid's domain, cut into equal parts along each axis."""

    def __init__(self, grid: Grid, parts: int):
        self.grid, self.parts, self.dimension = grid, parts, grid.dimension
        inner = [(np.arange(parts) + 0.5) / parts - 0.5] * grid.dimension
        self._offsets = np.stack([x.ravel() for x in np.meshgrid(*inner, indexing="ij")], axis=-1)

    @property
    def count(self) -> int:
        """Parts of a cell."""
        return len(self._offsets)

    def points(self, states: Int[np.ndarray, " states"]) -> Float[np.ndarray, "states parts d"]:
        """The centres of the parts."""
        centres = self.grid.points[self.grid.cells[states]]
        return centres[:, None] + self._offsets * self._widths(states)

    def sizes(self, states: Int[np.ndarray, " states"]) -> Float[np.ndarray, "states 1 d"]:
        """The widths of the parts."""
        return self._widths(states) / self.parts

    def _widths(self, states: Int[np.ndarray, " states"]) -> Float[np.ndarray, "states 1 d"]:
        at = np.unravel_index(self.grid.cells[states], self.grid.shape)
        widths = [w[i] for w, i in zip(self.grid.widths, at, strict=True)]
        return np.stack(widths, axis=-1)[:, None]


class Landing:
    r"""Where mass ends that arrives in a cell.

    The cells are extended: along each axis cell 0 lies below the box, cells 1 to n are the grid's
    and cell n + 1 lies above it; a cell's *place* is its number in ``ravel()``. Mass beyond a
    reflecting side goes to the nearest cell of the box, mass beyond an absorbing side leaves, and
    mass that arrives in a masked cell stays where it came from.

    Attributes:
        edges: The edges of the extended cells along each axis, from :math:`-\infty` to
            :math:`\infty`.
        shape: Extended cells along each axis.
        target: For each place the state that gets the mass, the number of states if it leaves, -1
            if it stays.
        clamped: Whether a place is beyond a reflecting side.
    """

    edges: tuple[Float[np.ndarray, " edges"], ...]
    shape: tuple[int, ...]
    target: Int[np.ndarray, " places"]
    clamped: Bool[np.ndarray, " places"]

    def __init__(self, grid: Grid):
        self.count = grid.cells.size
        self.edges = tuple(np.concatenate([[-np.inf], e, [np.inf]]) for e in grid.edges)
        self.shape = tuple(n + 2 for n in grid.shape)
        nearest = [np.clip(np.arange(-1, n + 1), 0, n - 1) for n in grid.shape]
        target = grid.numbers[np.ix_(*nearest)]
        outside, gone = np.zeros(self.shape, dtype=bool), np.zeros(self.shape, dtype=bool)
        for axis, sides in enumerate(grid.boundary):
            for end, side in zip((0, -1), sides, strict=True):
                beyond = (slice(None),) * axis + (end,)
                outside[beyond] = True
                gone[beyond] |= side == "absorbing"
        target[gone] = self.count
        self.target = target.ravel().astype(np.int32)
        self.clamped = (outside & ~gone).ravel()

    def along(self, axis: int, x: Float[np.ndarray, "*points"]) -> Int[np.ndarray, "*points"]:
        """The extended cells of coordinates; a coordinate on an edge belongs to the upper one."""
        return np.searchsorted(self.edges[axis][1:-1], x, side="right")

    def place(self, cells: tuple[Int[np.ndarray, "*points"], ...]) -> Int[np.ndarray, "*points"]:
        """The places of extended cells given along each axis."""
        return np.ravel_multi_index(cells, self.shape)

    def widths(self, points: Float[np.ndarray, "points d"]) -> Float[np.ndarray, "points d"]:
        """The widths of the cells that hold points, or are the nearest to them."""
        columns = []
        for axis, edges in enumerate(self.edges):
            inner = np.diff(edges[1:-1])
            at = np.clip(self.along(axis, points[:, axis]) - 1, 0, inner.size - 1)
            columns.append(inner[at])
        return np.stack(columns, axis=-1)

    def window(
        self, first: Int[np.ndarray, "states d"], window: Sequence[int]
    ) -> tuple[tuple[Float[np.ndarray, "states _"], ...], Int[np.ndarray, "states cells"]]:
        """So many extended cells along each axis from the first on: their edges and places.

        Beyond the last cell they are empty: between infinity and infinity.
        """
        edges, cells = [], []
        for axis, inner in enumerate(np.meshgrid(*map(np.arange, window), indexing="ij")):
            along = first[:, axis, None] + np.arange(window[axis] + 1)
            edges.append(self.edges[axis][np.minimum(along, self.shape[axis])])
            cells.append(np.minimum(first[:, axis, None] + inner.ravel(), self.shape[axis] - 1))
        return tuple(edges), np.ravel_multi_index(tuple(cells), self.shape)

    def rows(
        self,
        states: Int[np.ndarray, " states"],
        places: Int[np.ndarray, "states entries"],
        masses: Float[np.ndarray, "states entries"],
    ) -> Rows:
        """Rows of the transition matrix from the masses that land at places."""
        masses = masses / masses.sum(axis=1, keepdims=True)
        clamped = np.sum(masses * self.clamped[places], axis=1)
        target = self.target[places]
        target = np.where(target < 0, states[:, None].astype(np.int32), target)
        kept = masses > 0
        starts = np.append(0, np.cumsum(kept.sum(axis=1)))
        shape = (len(states), self.count + 1)
        matrix = sp.csr_array((masses[kept], target[kept], starts), shape=shape)
        matrix.sum_duplicates()
        return Rows(matrix, clamped)

    def boxes(
        self,
        states: Int[np.ndarray, " states"],
        centres: Float[np.ndarray, "states boxes d"],
        sizes: Float[np.ndarray, "states 1 d"],
        masses: Float[np.ndarray, "states boxes"],
    ) -> Rows:
        """Rows from boxes of evenly spread masses: the cells that a box overlaps share its mass."""
        spans = [self._span(k, centres[..., k], sizes[..., k]) for k in range(len(self.shape))]
        cells = math.prod(int(count.max()) for *_, count in spans)
        if len(states) > 1 and masses.size * cells > _AT_ONCE:
            half = len(states) // 2
            parts = slice(None, half), slice(half, None)
            return stacked([self.boxes(states[p], centres[p], sizes[p], masses[p]) for p in parts])
        axes = [self._shares(k, *span) for k, span in enumerate(spans)]
        places, shares = [], []
        for corner in itertools.product(*(range(share.shape[-1]) for _, share in axes)):
            at = [
                (where[..., c], share[..., c])
                for (where, share), c in zip(axes, corner, strict=True)
            ]
            places.append(np.ravel_multi_index(tuple(where for where, _ in at), self.shape))
            shares.append(math.prod((share for _, share in at), start=masses))
        count = len(states)
        return self.rows(
            states,
            np.stack(places, axis=-1).reshape(count, -1),
            np.stack(shares, axis=-1).reshape(count, -1),
        )

    def _span(
        self,
        axis: int,
        centre: Float[np.ndarray, "states boxes"],
        size: Float[np.ndarray, "states 1"],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Along one axis: the ends of intervals, the first cell and the number of cells."""
        lower, upper = centre - size / 2, centre + size / 2
        first = self.along(axis, lower)
        last = np.searchsorted(self.edges[axis][1:-1], upper, side="left")
        return lower, upper, first, np.maximum(last - first, 0) + 1

    def _shares(
        self,
        axis: int,
        lower: Float[np.ndarray, "states boxes"],
        upper: Float[np.ndarray, "states boxes"],
        first: Int[np.ndarray, "states boxes"],
        count: Int[np.ndarray, "states boxes"],
    ) -> tuple[Int[np.ndarray, "states boxes cells"], Float[np.ndarray, "states boxes cells"]]:
        """Along one axis: the cells that intervals overlap, and shares of their length."""
        edges = self.edges[axis]
        more = np.arange(count.max())
        inside = more < count[..., None]
        cells = np.where(inside, first[..., None] + more, first[..., None])
        lower, upper = lower[..., None], upper[..., None]
        length = np.maximum(upper - lower, np.finfo(float).tiny)
        overlap = np.minimum(edges[cells + 1], upper) - np.maximum(edges[cells], lower)
        share = np.where(inside, overlap, 0.0) / length
        # Slivers made by rounding would join cells that no move joins.
        sliver = np.minimum(_ROUNDINGS * np.abs(edges[1:-1]).max() / length, _SLIVER)
        share = np.where(share > sliver, share, 0.0)
        # An interval too short to have a length lies in its first cell.
        share[..., 0] = np.where(share.sum(axis=-1) > 0, share[..., 0], 1.0)
        return cells, share
