r"""A table of scores with running sums on two levels: cheap draws and cheap changes, any size.

Entries stand in blocks; of every block the sums are kept. A draw takes a block and then an entry in
it; a change of some scores forms the sums of their blocks anew, so that nothing drifts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from thalweg.random import Stream
from thalweg.sampling.base import COMPARED, entries_of, index_below, running_sums

# The score of an entry that has not been scored yet.
UNKNOWN = -1.0


class Parts(NamedTuple):
    r"""Sums over entries, or entries themselves.

    Attributes:
        scored: :math:`\sum a_i s_i` over the known entries.
        known: :math:`\sum a_i` over the known entries.
        unknown: :math:`\sum a_i` over the others.
    """

    scored: Float[Array, "..."]
    known: Float[Array, "..."]
    unknown: Float[Array, "..."]


class Scores(NamedTuple):
    r"""Scores :math:`s_i` of the m entries of a population with weights :math:`a_i`.

    Attributes:
        norms: The scores; negative where not yet known.
        total: The mean score :math:`S` of the known entries; zero if there are none.
        sums: How often the blocks are drawn, up to a factor; for a single block, the running sums
            of its entries.
        parts: What the sums are made of, by blocks; None for a single one.
    """

    norms: Float[Array, " m"]
    total: Float[Array, ""]
    sums: Float[Array, " sums"]
    parts: Parts | None

    def ratio(self, norms: Float[Array, "..."], uniform: float) -> Float[Array, "..."]:
        r"""How much more often than in the population: :math:`r = (1-u) s/S + u`.

        With s/S replaced by one for an unknown entry, and for all where every known score is zero:
        the probabilities :math:`a_i r_i` add up to one in any case.
        """
        of_scores = norms / jnp.where(self.total > 0, self.total, jnp.ones_like(self.total))
        one = (norms < 0) | ~(self.total > 0)
        return (1 - uniform) * jnp.where(one, jnp.ones_like(norms), of_scores) + uniform


def scores_of(
    norms: Float[Array, " m"],
    weights: Float[Array, " m"],
    uniform: float,
    *,
    complete: bool = False,
) -> Scores:
    """The table of all these scores; ``complete`` if none is unknown. Cost: m operations."""
    m, weights = norms.shape[0], weights.astype(norms.dtype)
    width = _width(m)
    if width == m:
        entries = _parts(norms, weights, complete)
        total = _mean(entries)
        return Scores(norms, total, running_sums(_often(entries, total, uniform)), None)
    pad = (0, -m % width)
    rows = [jnp.pad(x, pad).reshape(-1, width) for x in (norms, weights)]
    return _of_blocks(norms, _sums(_parts(rows[0], rows[1], complete)), uniform)


def with_changed(
    scores: Scores,
    weights: Float[Array, " m"],
    index: Int[Array, " changed"],
    norms: Float[Array, " changed"],
    uniform: float,
) -> Scores:
    r"""The table with other scores at some entries; equal ones at entries that occur twice.

    Cost: :math:`\sqrt m` operations each.
    """
    m, width = scores.norms.shape[0], _width(scores.norms.shape[0])
    all_norms = scores.norms.at[index].set(norms)
    if width == m:
        return scores_of(all_norms, weights, uniform)
    block = index // width
    rows = _rows(all_norms, block, width), _rows(weights, block, width).astype(norms.dtype)
    new = _sums(_parts(rows[0], rows[1], False))
    assert scores.parts is not None
    changed = (x.at[block].set(y) for x, y in zip(scores.parts, new, strict=True))
    return _of_blocks(all_norms, Parts(*changed), uniform)


def draw_scored(
    stream: Stream, scores: Scores, weights: Float[Array, " m"], uniform: float, size: int
) -> Int[Array, " size"]:
    r"""Independent entries with probabilities :math:`a_i r_i` (:meth:`Scores.ratio`).

    An entry of zero probability is never drawn. Cost: :math:`\sqrt m` operations each.
    """
    m, width = scores.norms.shape[0], _width(scores.norms.shape[0])
    if width == m:
        return index_below(stream, scores.sums, size)
    block = _chosen(stream.folded(0), scores.sums[None], size)
    rows = _rows(scores.norms, block, width), _rows(weights, block, width)
    parts = _parts(rows[0], rows[1].astype(rows[0].dtype), False)
    often = _often(parts, scores.total, uniform)
    return _first(m, block, width) + _chosen(stream.folded(1), often, size)


def scores_at(scores: Scores, index: Int[Array, " draws"]) -> Float[Array, " draws"]:
    """The scores of some entries."""
    return entries_of(scores.norms, index)


def _width(m: int) -> int:
    """Entries of a block: all of a few, or some sqrt(m), of which more are read than summed."""
    if m <= COMPARED:
        return m
    width = COMPARED
    while 16 * width * width < m:
        width *= 2
    return width


def _parts(norms: Float[Array, "..."], weights: Float[Array, "..."], complete: bool) -> Parts:
    zero = jnp.zeros_like(weights)
    if complete:
        return Parts(weights * norms, weights, zero)
    unknown = norms < 0
    known = jnp.where(unknown, zero, weights)
    return Parts(
        jnp.where(unknown, zero, weights * norms), known, jnp.where(unknown, weights, zero)
    )


def _sums(rows: Parts) -> Parts:
    return Parts(*(jnp.sum(x, axis=1) for x in rows))


def _of_blocks(norms: Float[Array, " m"], blocks: Parts, uniform: float) -> Scores:
    total = _mean(blocks)
    return Scores(norms, total, _often(blocks, total, uniform), blocks)


def _mean(parts: Parts) -> Float[Array, ""]:
    weight = jnp.sum(parts.known)
    return jnp.sum(parts.scored) / jnp.where(weight > 0, weight, jnp.ones_like(weight))


def _often(parts: Parts, total: Float[Array, ""], uniform: float) -> Float[Array, "..."]:
    """Probabilities times the mean score; or the weights themselves, where that is zero."""
    scored, known, unknown = parts
    often = (1 - uniform) * (scored + total * unknown) + uniform * total * (known + unknown)
    return jnp.where(total > 0, often, known + unknown)


def _first(m: int, block: Int[Array, " k"], width: int) -> Int[Array, " k"]:
    """Where the rows of some blocks begin: the last one so early that it is full."""
    return jnp.minimum(block * width, m - width)


def _rows(x: Float[Array, " m"], block: Int[Array, " k"], width: int) -> Float[Array, "k width"]:
    """The entries of some blocks from their :func:`_first`; zeros before the block itself."""
    first = _first(x.shape[0], block, width)
    rows = jax.vmap(lambda at: jax.lax.dynamic_slice(x, (at,), (width,)))(first)
    before = (block * width - first)[:, None]
    own = jnp.arange(width, dtype=before.dtype) >= before
    return jnp.where(own, rows, jnp.zeros_like(rows))


def _chosen(stream: Stream, weights: Float[Array, "rows m"], size: int) -> Int[Array, " size"]:
    """A place in each row (or ``size`` places in the only one), by sums of 32 and sums of these.

    Running sums of long rows are slow on all devices. Every level has a uniform number of its own:
    one of 23 bits could not tell ten million entries apart.
    """
    m = weights.shape[1]
    if m <= COMPARED:
        return _below(stream.uniform(size, weights.dtype), weights)
    parts = jnp.pad(weights, ((0, 0), (0, -m % COMPARED)))
    parts = parts.reshape(len(weights), -1, COMPARED)
    part = _chosen(stream.folded(0), jnp.sum(parts, axis=2), size)
    row = jnp.arange(size, dtype=jnp.int32) if len(weights) > 1 else jnp.zeros_like(part)
    inside = stream.folded(1).uniform(size, weights.dtype)
    return part * COMPARED + _below(inside, parts[row, part])


def _below(uniform: Float[Array, " size"], weights: Any) -> Int[Array, " size"]:
    """The first place of positive weight whose running sum is above that part of the total."""
    m = weights.shape[1]
    # All running sums by one product: a scan takes many times as long.
    upper = jnp.triu(jnp.ones((m, m), weights.dtype))
    sums = jnp.dot(weights, upper, precision="highest")
    positive, place = weights > 0, jnp.arange(m, dtype=jnp.int32)
    above = positive & (sums > uniform[:, None] * sums[:, -1:])
    first = jnp.min(jnp.where(above, place, m), axis=1)
    # Rounding may leave no sum above the target: then it is the last entry.
    last = jnp.max(jnp.where(positive, place, 0), axis=1)
    return jnp.where(first < m, first, last)
