r"""Draws with fixed probabilities, however many entries, for one look-up in a table.

A. J. Walker's aliases (ACM Transactions on Mathematical Software 3, 1977): of n columns of equal
probability each belongs to one or two entries, up to a threshold to the one and beyond it to the
other.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from thalweg.random import Stream


class AliasTable(NamedTuple):
    r"""Entries in groups; a draw is from one group, with probabilities proportional to weights.

    A group of m entries has m columns of the probability 1/m. Thresholds are whole multiples of
    :math:`2^{-32}`: the probabilities in a group differ from those of the weights by
    :math:`2^{-33}` in all, and those of entries of weight zero are zero. (If all weights of a
    group are zero its entries are equally likely.)

    Attributes:
        columns: Threshold, the entry below it and the entry beyond it.
        start: The first column of each group.
        size: The number of columns of each group.
    """

    columns: UInt32[Array, "n 3"]
    start: Int[Array, " groups"]
    size: Int[Array, " groups"]


def alias_table(weights: np.ndarray, groups: np.ndarray) -> AliasTable:
    """The table for weights of shape (n,) and numbers of groups 0, 1, ..., none of them empty.

    Cost: a sort, on the host.
    """
    order = np.lexsort((weights, groups))
    size = np.bincount(groups)
    start = np.cumsum(size) - size
    units = _units(weights[order].astype(np.float64), groups[order], start, size)
    threshold, other = _aliases(units - 2**32)
    columns = np.stack([threshold, order, order[other]], axis=1).astype(np.uint32)
    ends = jnp.asarray(start, dtype=jnp.int32), jnp.asarray(size, dtype=jnp.int32)
    return AliasTable(jnp.asarray(columns), *ends)


def draw_in_groups(
    stream: Stream, table: AliasTable, group: Int[Array, " draws"]
) -> Int[Array, " draws"]:
    """An entry of each of these groups, all independent: one pair of words each."""
    start, size = (jnp.take(x, group, mode="clip") for x in (table.start, table.size))
    place, rest = stream.below_and_rest(size, group.shape[0])
    column = jnp.take(table.columns, start + place, axis=0, mode="clip")
    return jnp.where(rest < column[:, 0], column[:, 1], column[:, 2]).astype(jnp.int32)


def _units(
    weights: np.ndarray, groups: np.ndarray, start: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Weights as whole numbers, 2^32 a column; sorted in each group, whose last takes the rest."""
    total = np.add.reduceat(weights, start)[groups]
    scale = np.divide(size[groups], total, out=np.zeros_like(total), where=total > 0)
    units = np.rint(np.where(total > 0, weights * scale, 1) * 2.0**32).astype(np.int64)
    units[start + size - 1] += (size << 32) - np.add.reduceat(units, start)
    return units


def _aliases(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, and the column whose entry is beyond; ``excess`` adds up to zero in a group.

    Columns that lack something are filled in turn from those in excess, each of which, once it
    lacks something itself, is filled from the next: both orders are running sums, which meet at
    the end of every group.
    """
    threshold, other = np.zeros_like(excess), np.arange(excess.size)
    lacking, giving = np.flatnonzero(excess < 0), np.flatnonzero(excess > 0)
    demand, supply = np.cumsum(-excess[lacking]), np.cumsum(excess[giving])
    before = demand + excess[lacking]
    threshold[lacking] = excess[lacking] + 2**32
    other[lacking] = giving[np.searchsorted(supply, before, side="right")]
    # The column whose demand a giving one cannot meet in full, if it has begun to.
    last = np.searchsorted(demand, supply, side="right")
    emptied = np.flatnonzero(last < lacking.size)
    emptied = emptied[before[last[emptied]] < supply[emptied]]
    missing = demand[last[emptied]] - supply[emptied]
    threshold[giving[emptied]] = 2**32 - missing
    other[giving[emptied]] = giving[emptied + 1]
    return threshold, other
