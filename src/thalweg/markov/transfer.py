"""SGD's own transition matrix on a grid."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from thalweg.dynamics import Descent
from thalweg.errors import InputError, known
from thalweg.markov.gaussian_kernel import cell_masses, unbinned, windows
from thalweg.markov.grid import Grid
from thalweg.markov.images import Images, checked_sampler, checked_step, image_moments
from thalweg.markov.jumps import Jumps
from thalweg.markov.landing import Landing, Rows, SubCells, stacked
from thalweg.markov.lattice import Lattice
from thalweg.markov.memory import check_memory
from thalweg.sampling.base import AbstractMemoryless

DRAWS = ("auto", "exact", "gaussian")
# Where the mass of some states goes in a step.
Kernel = Callable[[Int[np.ndarray, " states"]], Rows]
# Up to so many possible draws they are summed over.
_ENUMERATED = 300
# Sub-cells along an axis, by the number of axes: see transfer.
_OF_DRAWS = {1: 8, 2: 2, 3: 1}
_OF_NORMAL_LAWS = {1: 8, 2: 4, 3: 2}
# Numbers held at once: 2**20 doubles are 8 MiB.
_AT_ONCE = 2**20
# As many as stay in the cache.
_IN_CACHE = 2**17
# Bytes at the peak for each entry of the matrix: as rows, in one piece, and as jumps.
_BYTES = 48
_PROBED = 64
# What an image may be beside the centre of a lattice's cell, in units.
_BESIDE = 1e-6


@dataclass(frozen=True, eq=False)
class Transfer(Jumps):
    r"""SGD's chain on a grid, in discrete time: see :class:`Jumps`.

    Attributes:
        clamped: For each state the probability that a step goes beyond a reflecting side; such
            mass is put into the nearest cell of the box.
    """

    clamped: Float[np.ndarray, " cells"]


def transfer(
    descent: Descent, grid: Grid, *, subcells: int | None = None, draws: str = "auto"
) -> Transfer:
    r"""The transition matrix of SGD between the cells of a grid (Ulam's method).

    Entry (i, j) is the probability that a point evenly distributed in cell i is in cell j after the
    step :math:`x \to x - \eta \hat g(x)`. Rates are :math:`P_{ij}/\eta`, so that times come out as
    :math:`t = \eta k`. Rows sum to one to rounding.

    **Draws.** ``"exact"`` sums over all draws of the sampler (its ``outcomes``). A cell is cut into
    ``subcells`` parts along each axis; each moves as a whole, by the step from its centre, and the
    cells it then overlaps share its mass. ``"gaussian"`` takes a normal variable of the same mean
    and covariance instead, and starts from centres; a direction without noise is moved without.
    ``"auto"`` is exact up to 300 draws.

    **Cells.** With exact draws the mean step is that of the sub-cells' centres, and each step gains
    a variance of a sixth of the cell's width squared, on average over places, because a part that
    moves by a fraction of a cell is shared by two. The cells must be small against the noise,
    :math:`h \ll \eta \sqrt{C}`, or the chain is hotter than SGD: errors are of second order
    in :math:`h/(\eta \sqrt{C})`, of first order where kinks or the border of a region cut cells.
    Normal draws are corrected for the cells (Sheppard): where the noise has a deviation of at least
    one cell, mean and covariance of a step are right to 1e-8 of a cell squared, laws are of fourth
    order and exit times of second. Where it has less the cells are cut, and a move of less than
    half a sub-cell is lost.

    **Sub-cells** are for moves that differ within a cell. Unless given they are 8, 2 and 1 along
    each axis in one, two and three dimensions for exact draws (a matter of cost: a part overlaps up
    to 2, 4 and 8 cells), and 8, 4 and 2 for normal ones where the noise is less than a cell.

    **Sides.** Beyond a reflecting side mass goes to the nearest cell of the box (:attr:`clamped`
    says how much), beyond an absorbing one it leaves. What would arrive in a masked cell stays
    where it is.

    On a :func:`lattice` the chain is exact: points move from centre to centre.

    Args:
        descent: SGD with a number as its step and a sampler without memory.
        grid: The grid; params are arrays of shape (d,).
        subcells: Parts of a cell along each axis; one on a lattice.
        draws: "exact", "gaussian" or "auto".

    Raises:
        InputError: A schedule or an Optax transformation, a sampler with memory, numbers that are
            being differentiated by, gradients that are not finite somewhere on the grid, more draws
            than can be listed, more jumps than memory holds; on a lattice a move that is no
            multiple of its unit.

    Cost: n gradients and m outcomes for each sub-cell; for normal draws the cells within eight
    standard deviations instead, 0.1 us each. With four terms on 256 x 256 cells one second.
    """
    step, sampler = checked_step(descent), checked_sampler(descent, grid.dimension)
    kind = known(draws, DRAWS, "kind of draws (draws=)")
    exact = kind == "exact" or (
        kind == "auto" and sampler.outcome_count(descent.problem) <= _ENUMERATED
    )
    parts = _checked_parts(subcells, grid, exact)
    if isinstance(grid, Lattice) and not exact:
        raise InputError(
            "draws on a lattice must be exact, and these are Gaussian; use draws='exact' (with a "
            "small batch) or another grid"
        )
    cells, landing = SubCells(grid, parts), Landing(grid)
    if exact:
        drawn = _Enumerated(descent, sampler, cells, landing)
        return _assembled(grid, step, drawn, drawn.at_once)
    normal = _Normal(descent, sampler, cells, landing, always=subcells is not None)
    return _assembled(grid, step, normal, normal.at_once)


def _assembled(grid: Grid, step: float, kernel: Kernel, at_once: int) -> Transfer:
    """All rows, a chunk of states at a time, as jumps."""
    states = np.arange(grid.cells.size, dtype=np.int32)
    probe = states[np.linspace(0, states.size - 1, min(_PROBED, states.size)).astype(int)]
    entries = sum(rows.matrix.nnz for rows in _chunks(kernel, probe, at_once)) / probe.size
    check_memory(entries * states.size * _BYTES, f"a matrix of {entries * states.size:.2g} entries")
    rows = stacked(list(_chunks(kernel, states, at_once)))
    matrix = rows.matrix
    source = np.repeat(states, np.diff(matrix.indptr))
    leaves = matrix.indices == states.size
    jumps = ~leaves & (matrix.indices != source)
    leaving = np.zeros(states.size)
    leaving[source[leaves]] = matrix.data[leaves]
    return Transfer(
        grid=grid,
        source=source[jumps],
        target=matrix.indices[jumps].astype(np.int32),
        rates=matrix.data[jumps] / step,
        leaving=leaving / step,
        step=step,
        discrete=True,
        clamped=rows.clamped,
    )


def _chunks(kernel: Kernel, states: Int[np.ndarray, " states"], at_once: int) -> Iterator[Rows]:
    for start in range(0, len(states), at_once):
        yield kernel(states[start : start + at_once])


class _Enumerated:
    """Sums over all draws: every part of a cell moves as a whole."""

    def __init__(
        self, descent: Descent, sampler: AbstractMemoryless, cells: SubCells, landing: Landing
    ):
        self.cells, self.landing = cells, landing
        self.images = Images(descent, sampler, cells.dimension)
        self.at_once = max(1, _AT_ONCE // (self.images.numbers * cells.count))

    def __call__(self, states: Int[np.ndarray, " states"]) -> Rows:
        """Rows of the matrix."""
        points = self.cells.points(states)
        shape = (len(states), self.cells.count * self.images.outcomes)
        moves, probabilities = self.images.moves(points.reshape(-1, self.cells.dimension))
        images = points[:, :, None] + moves.reshape(*points.shape[:2], *moves.shape[1:])
        images = images.reshape(*shape, self.cells.dimension)
        masses = probabilities.reshape(shape) / self.cells.count
        if isinstance(self.cells.grid, Lattice):
            _check_on(self.cells.grid, points[:, 0, 0], images[..., 0], masses)
            return self.landing.rows(states, self.landing.along(0, images[..., 0]), masses)
        return self.landing.boxes(states, images, self.cells.sizes(states), masses)


class _Normal:
    """Normal draws with the mean and the covariance of the sampler's."""

    def __init__(
        self,
        descent: Descent,
        sampler: AbstractMemoryless,
        cells: SubCells,
        landing: Landing,
        *,
        always: bool,
    ):
        self.descent, self.sampler, self.landing = descent, sampler, landing
        self.cells, self.always = cells, always
        self.centres = SubCells(cells.grid, 1)
        self.at_once = max(1, 2**15 // cells.count)

    def __call__(self, states: Int[np.ndarray, " states"]) -> Rows:
        """Rows of the matrix; cells are cut where their noise is less than a cell wide."""
        if self.always:
            return self._of_laws(states, self._laws(states, self.cells))
        laws = self._laws(states, self.centres)
        wide = laws.deviations >= 1

        def rows(group: Int[np.ndarray, " group"]) -> Rows:
            if wide[group[0]]:
                return self._of_laws(states[group], laws.taken(group))
            return self._of_laws(states[group], self._laws(states[group], self.cells))

        return _in_groups([np.flatnonzero(wide), np.flatnonzero(~wide)], rows)

    def _laws(self, states: Int[np.ndarray, " states"], cells: SubCells) -> "_Laws":
        points = cells.points(states)
        d = cells.dimension
        mean, covariance = image_moments(self.descent, self.sampler, points.reshape(-1, d))
        covariance, deviations = unbinned(covariance, self.landing.widths(mean))
        return _Laws(
            mean.reshape(points.shape),
            covariance.reshape(*points.shape, d),
            deviations.reshape(points.shape[:2]).min(axis=1),
        )

    def _of_laws(self, states: Int[np.ndarray, " states"], laws: "_Laws") -> Rows:
        """Rows; states whose windows are of about the same size go together."""
        first, window = windows(laws.mean, laws.covariance, self.landing.edges)
        sizes, which = np.unique(window, axis=0, return_inverse=True)

        def rows(group: Int[np.ndarray, " group"]) -> Rows:
            own = tuple(window[group[0]].tolist())
            return self._windowed(states[group], laws.taken(group), first[group], own)

        return _in_groups([np.flatnonzero(which.ravel() == k) for k in range(len(sizes))], rows)

    def _windowed(
        self,
        states: Int[np.ndarray, " states"],
        laws: "_Laws",
        first: Int[np.ndarray, "states d"],
        window: tuple[int, ...],
    ) -> Rows:
        """Rows of states with windows of one size."""
        chunk = max(1, _IN_CACHE // (laws.mean.shape[1] * math.prod(window)))
        pieces = []
        for start in range(0, len(states), chunk):
            own = slice(start, start + chunk)
            edges, places = self.landing.window(first[own], window)
            of_points = tuple(e[:, None] for e in edges)
            masses = cell_masses(laws.mean[own], laws.covariance[own], of_points).mean(axis=1)
            pieces.append(self.landing.rows(states[own], places, masses.reshape(places.shape)))
        return stacked(pieces)


class _Laws(NamedTuple):
    """Means, covariances, and the least standard deviation of each state in cells."""

    mean: Float[np.ndarray, "states parts d"]
    covariance: Float[np.ndarray, "states parts d d"]
    deviations: Float[np.ndarray, " states"]

    def taken(self, group: Int[np.ndarray, " group"]) -> "_Laws":
        return _Laws(*(x[group] for x in self))


def _in_groups(
    groups: Sequence[Int[np.ndarray, " _"]], rows: Callable[[Int[np.ndarray, " _"]], Rows]
) -> Rows:
    """Rows made group by group, in the order of the numbers in the groups."""
    some = [group for group in groups if group.size]
    return stacked([rows(group) for group in some]).taken(np.argsort(np.concatenate(some)))


def _check_on(
    lattice: Lattice,
    points: Float[np.ndarray, " points"],
    images: Float[np.ndarray, "points images"],
    masses: Float[np.ndarray, "points images"],
) -> None:
    beside = np.where(masses > 0, np.abs(lattice.beside(images)), 0.0)
    if beside.max() > _BESIDE:
        point, image = np.unravel_index(int(np.argmax(beside)), beside.shape)
        raise InputError(
            f"from {points[point]:g} a step goes to {images[point, image]:.10g}, which is "
            f"{beside[point, image]:.2g} units beside the lattice of unit {lattice.unit:g}; the "
            "chain is not exact on it, take a Grid"
        )


def _checked_parts(subcells: int | None, grid: Grid, exact: bool) -> int:
    if isinstance(grid, Lattice):
        if subcells not in (None, 1):
            raise InputError(
                f"subcells is {subcells!r}; on a lattice, where the chain is exact, expected 1"
            )
        return 1
    if subcells is None:
        return (_OF_DRAWS if exact else _OF_NORMAL_LAWS)[grid.dimension]
    if isinstance(subcells, bool) or not isinstance(subcells, int) or subcells < 1:
        raise InputError(f"subcells is {subcells!r}; expected a whole number of at least 1")
    return subcells
