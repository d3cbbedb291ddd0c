"""Jumps by whole numbers of cells on a uniform grid: where they end, or which wall they meet."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from thalweg.markov.grid import Grid


class Steps(NamedTuple):
    """Jumps from cells by an offset or its negative, a row each.

    Attributes:
        source: The cell, as a state.
        target: The cell it leads to; -1 for one through an absorbing side.
        term: Which of the offsets of the cell.
        move: The offset with its sign, in cells along each axis.
        share: The part of the way up to the wall; 1 for jumps between cells.
    """

    source: Int[np.ndarray, " steps"]
    target: Int[np.ndarray, " steps"]
    term: Int[np.ndarray, " steps"]
    move: Int[np.ndarray, "steps d"]
    share: Float[np.ndarray, " steps"]

    def only(self, which: np.ndarray) -> "Steps":
        """Some of the rows: truth values or places."""
        return Steps(*(column[which] for column in self))


def steps(
    grid: Grid,
    cells: Int[np.ndarray, " cells"],
    offsets: Int[np.ndarray, "cells terms d"],
    used: Bool[np.ndarray, "cells terms"],
) -> Steps:
    """The jumps by offsets from states that stay in the domain or leave through absorbing sides.

    Jumps into masked cells and through reflecting sides are left out. A jump that would pass
    several sides passes the one it meets first.

    Args:
        grid: A uniform grid.
        cells: The states.
        offsets: In cells; no two of a cell parallel.
        used: Which of them to use.
    """
    place = np.stack(np.unravel_index(grid.cells[cells], grid.shape), axis=-1)
    found = [
        _by_one_offset(grid, cells, place, term, sign * offsets[:, term], used[:, term])
        for term in range(offsets.shape[1])
        for sign in (1, -1)
    ]
    return Steps(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _by_one_offset(
    grid: Grid,
    cells: Int[np.ndarray, " cells"],
    place: Int[np.ndarray, "cells d"],
    term: int,
    move: Int[np.ndarray, "cells d"],
    used: Bool[np.ndarray, " cells"],
) -> Steps:
    shape = np.array(grid.shape)
    to = place + move
    out = (to < 0) | (to >= shape)
    within = ~out.any(axis=1)
    number = grid.numbers.ravel()[np.ravel_multi_index(to.T, grid.shape, mode="clip")]
    # Walls are half a cell beyond the outer centres.
    distance = np.where(to < 0, place + 0.5, shape - 0.5 - place)
    parts = np.divide(distance, np.abs(move), out=np.full(to.shape, np.inf), where=out)
    axis = parts.argmin(axis=1)
    rows = np.arange(len(cells))
    side = (move[rows, axis] > 0).astype(int)
    absorbing = np.array(grid.boundary) == "absorbing"
    kept = used & np.where(within, number >= 0, absorbing[axis, side])
    return Steps(
        cells[kept].astype(np.int32),
        np.where(within, number, -1)[kept].astype(np.int32),
        np.full(kept.sum(), term, np.int32),
        move[kept],
        np.where(within, 1.0, parts[rows, axis])[kept],
    )
