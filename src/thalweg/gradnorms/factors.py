r"""Gradients as sums of few outer products, and their norms.

A use of a parameter with positions p (of an image, of a sequence, the turns of a scan) has the
gradient :math:`G = \sum_p r_p c_p^T`: of :math:`r_p` and :math:`c_p` one is what met the parameter
there and the other the derivative by the result. Uses of one parameter add their terms. Then

.. math:: |G|^2 = \sum_{p, q} (r_p \cdot r_q) (c_p \cdot c_q),

which takes :math:`P^2 (R + C)` multiplications for P positions, against :math:`P R C` for G itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneHot:
    """Unit vectors, or zeros.

    Attributes:
        index: Which entry is one, shape (blocks, positions).
        within: Whether there is one, the same shape.
    """

    index: Array
    within: Array


# Vectors of all positions: an array of shape (blocks, positions, size), or unit vectors.
Side: TypeAlias = Array | OneHot


class Factors(NamedTuple):
    """The vectors r and c of all positions, for each block of the parameter."""

    rows: Side
    columns: Side


class Size(NamedTuple):
    """How large factors are; ``one_hot`` says whether one side is unit vectors."""

    blocks: int
    positions: int
    rows: int
    columns: int
    one_hot: bool


def gram_cost(sizes: Sequence[Size]) -> int:
    """Multiplications for the norm by inner products, over all pairs of uses."""
    total = 0
    for k, one in enumerate(sizes):
        for other in sizes[k:]:
            hot = one.one_hot or other.one_hot
            length = min(one.rows, one.columns) if hot else one.rows + one.columns
            total += one.blocks * one.positions * other.positions * (length + 1)
    return total


def explicit_cost(sizes: Sequence[Size]) -> int:
    """Multiplications for the norm by the gradient itself."""
    entries = sizes[0].blocks * sizes[0].rows * sizes[0].columns
    return entries + sum(
        s.blocks * s.positions * (min(s.rows, s.columns) if s.one_hot else s.rows * s.columns)
        for s in sizes
    )


def gram_norm(factors: Sequence[Factors]) -> Float[Array, ""]:
    """The squared norm of the sum by inner products of all pairs of positions."""
    total: Array | None = None
    for k, one in enumerate(factors):
        for other in factors[k:]:
            dtype = _dtype(one)
            rows, columns = zip(one, other, strict=True)
            term = jnp.sum(_inner(*rows, dtype) * _inner(*columns, dtype))
            term = term if other is one else 2 * term
            total = term if total is None else total + term
    assert total is not None
    return total


def explicit_norm(factors: Sequence[Factors], rows: int, columns: int) -> Float[Array, ""]:
    """The squared norm of the sum by the gradient, of the given number of rows and columns."""
    total: Array | None = None
    for own in factors:
        term = _gradient(own, rows, columns)
        total = term if total is None else total + term
    assert total is not None
    return jnp.sum(jnp.square(total))


def _dtype(factors: Factors) -> Any:
    return next(side.dtype for side in factors if not isinstance(side, OneHot))


def _inner(one: Side, other: Side, dtype: Any) -> Float[Array, "blocks positions others"]:
    """The inner products of the vectors of one side with those of another."""
    if isinstance(one, OneHot):
        if isinstance(other, OneHot):
            same = one.index[:, :, None] == other.index[:, None, :]
            return (same & one.within[:, :, None] & other.within[:, None, :]).astype(dtype)
        return jnp.swapaxes(_inner(other, one, dtype), 1, 2)
    if isinstance(other, OneHot):
        chosen = jnp.take_along_axis(one, other.index[:, None, :], axis=2)
        return jnp.where(other.within[:, None, :], chosen, 0)
    if one.shape[1] == other.shape[1] == 1:
        # A product and a sum: faster than many products of matrices with one row.
        return jnp.sum(one * other, axis=2)[:, :, None]
    return jnp.einsum("bpk,bqk->bpq", one, other)


def _gradient(factors: Factors, rows: int, columns: int) -> Float[Array, "blocks rows columns"]:
    own, other = factors
    if isinstance(other, OneHot):
        assert not isinstance(own, OneHot)
        return jnp.swapaxes(_gradient(Factors(other, own), columns, rows), 1, 2)
    if isinstance(own, OneHot):
        values = jnp.where(own.within[:, :, None], other, 0)
        return jax.vmap(lambda v, k: jax.ops.segment_sum(v, k, rows))(values, own.index)
    return jnp.einsum("bpr,bpc->brc", own, other)
