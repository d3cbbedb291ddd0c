"""All draws a sampler can make in a step, with their probabilities."""

import itertools
import math
from collections.abc import Iterable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg.errors import InputError

# A million draws of four samples and their weights are some 50 MB.
_LISTED = 1_000_000


class Outcomes(eqx.Module):
    r"""A law: :math:`\sum_b w_{ob} \nabla f_{i_{ob}}` with probability :math:`P_o`.

    Outcomes that cannot occur at these parameters have probability zero.

    Attributes:
        index: The samples :math:`i_{ob}`.
        weights: Their weights.
        probabilities: :math:`P_o`, with sum one.
    """

    index: Int[Array, "outcomes draws"]
    weights: Float[Array, "outcomes draws"]
    probabilities: Float[Array, " outcomes"]


def independent(
    draws: Int[Array, "outcomes draws *drawn"],
    index: Int[Array, "outcomes draws"],
    weights: Float[Array, "outcomes draws"],
    probabilities: Float[Array, "outcomes draws"],
) -> Outcomes:
    r"""Independent draws whatever their order: :math:`P = B!/\prod_k c_k! \prod_b p_b`.

    Args:
        draws: What was drawn; the :math:`c_k` count the equal ones among the B of an outcome.
        index: The sample of each draw.
        weights: Its weight in the mean of the batch.
        probabilities: The probability :math:`p_b` of the draw alone.
    """
    rows = draws.reshape(*draws.shape[:2], -1)
    size = rows.shape[1]
    equal = jnp.all(rows[:, :, None] == rows[:, None], axis=-1)
    # B!/prod c_k! draw by draw: (b + 1) over how often this one has occurred up to here.
    so_far = jnp.sum(jnp.tril(equal), axis=-1, dtype=probabilities.dtype)
    orders = jnp.arange(1, size + 1, dtype=probabilities.dtype) / so_far
    return Outcomes(index, weights, jnp.prod(probabilities * orders, axis=-1))


def multisets(count: int, size: int) -> Int[np.ndarray, "outcomes size"]:
    """All ways to choose ``size`` of ``count`` things with replacement, in ascending rows."""
    many = math.comb(count + size - 1, size)
    return _rows(itertools.combinations_with_replacement(range(count), size), many, size)


def subsets(count: int, size: int) -> Int[np.ndarray, "outcomes size"]:
    """All ways to choose ``size`` of ``count`` things without replacement, in ascending rows."""
    return _rows(itertools.combinations(range(count), size), math.comb(count, size), size)


def products(lists: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, "outcomes lists"]:
    """All ways to choose one of each of some lists."""
    return _rows(itertools.product(*lists), math.prod(map(len, lists)), len(lists))


def check_listed(count: int) -> None:
    """Raise InputError if there are too many draws to list."""
    if count > _LISTED:
        number = str(count) if count < 10**12 else f"about 1e{len(str(count)) - 1}"
        raise InputError(
            f"a step has {number} possible draws; expected at most {_LISTED} for listing them, so "
            "use a smaller batch, or Gaussian draws"
        )


def _rows(
    rows: Iterable[tuple[int, ...]], count: int, size: int
) -> Int[np.ndarray, "outcomes size"]:
    check_listed(count)
    flat = itertools.chain.from_iterable(rows)
    return np.fromiter(flat, np.int32, count * size).reshape(count, size)
