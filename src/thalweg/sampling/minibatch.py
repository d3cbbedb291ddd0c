"""Stochastic gradient descent as most people mean it."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from thalweg.errors import InputError
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import (
    AbstractMemoryless,
    Draw,
    Moments,
    check_size,
    constant_weights,
    population_index,
)
from thalweg.sampling.outcomes import Outcomes, independent, multisets, subsets

# Batches up to this size are drawn without a loop.
_WRITTEN_OUT = 8


class Minibatch(AbstractMemoryless):
    r"""A batch of B samples of the population, :math:`\hat g = \frac1B \sum_b \nabla f_{i_b}`.

    With ``replace=True`` the :math:`i_b` are independent, i with probability :math:`a_i`, and

    .. math:: C = \frac1B \Big(\sum_i a_i g_i g_i^\top - \nabla f \nabla f^\top\Big).

    With ``replace=False`` (equal weights, or B = 1) they are a uniformly random subset and the
    factor 1/B becomes :math:`(n-B)/(B(n-1))`.

    Args:
        size: The batch size B.
        replace: Whether a sample may be drawn twice in a batch.

    Raises:
        InputError: B below 1; B > n, or unequal weights and B > 1, without replacement.
    """

    size: int = eqx.field(static=True)
    replace: bool = eqx.field(static=True, default=False)
    unbiased: ClassVar[bool] = True

    def __check_init__(self) -> None:
        check_size("Minibatch", self.size)

    def check(self, problem: FiniteSum) -> None:
        """The size against n, and equal weights for a subset."""
        if self.replace:
            return
        check_size("Minibatch", self.size, problem)
        if self.size > 1 and not problem.uniform:
            raise InputError(
                f"Minibatch({self.size}) without replacement needs equal weights, and they "
                "differ; use replace=True (draws with the weights as probabilities)"
            )

    def draw(
        self, problem: FiniteSum, params: Params, state: None, stream: Stream, step: Any
    ) -> tuple[Draw, None]:
        """B samples, each with weight 1/B."""
        if self._replaced:
            index = population_index(problem, stream, self.size)
        else:
            index = _subset(stream, problem.n, self.size)
        return Draw(index, constant_weights(problem, 1.0 / self.size, self.size)), None

    def moments(self, problem: FiniteSum, params: Params, state: Any = None) -> Moments:
        r"""Both coefficients are :math:`a_i`."""
        return Moments(problem.weights, problem.weights)

    def outcomes(
        self,
        problem: FiniteSum,
        params: Params,
        draws: Int[Array, "outcomes draws ..."] | None = None,
    ) -> Outcomes:
        r"""Subsets of equal probability, or multisets with probabilities from the :math:`a_i`."""
        index = self.listed(problem, draws)
        weights = jnp.full(index.shape, 1.0 / self.size, problem.weights.dtype)
        if self._replaced:
            return independent(index, index, weights, problem.weights[index])
        count = len(index)
        return Outcomes(index, weights, jnp.full(count, 1.0 / count, weights.dtype))

    def outcome_count(self, problem: FiniteSum) -> int:
        """Subsets, or multisets if a sample may be drawn twice."""
        if self._replaced:
            return math.comb(problem.n + self.size - 1, self.size)
        return math.comb(problem.n, self.size)

    def all_draws(self, problem: FiniteSum) -> Int[np.ndarray, "outcomes draws ..."]:
        """Subsets, or multisets if a sample may be drawn twice."""
        listing = multisets if self._replaced else subsets
        return listing(problem.n, self.size)

    def variance_factor(self, problem: FiniteSum) -> float:
        r"""1/B with replacement, :math:`(n-B)/(B(n-1))` without."""
        if self._replaced:
            return 1.0 / self.size
        return (problem.n - self.size) / (self.size * (problem.n - 1))

    def evaluations(self, problem: FiniteSum) -> float:
        """B."""
        return float(self.size)

    @property
    def _replaced(self) -> bool:
        return self.replace or self.size == 1


def _subset(stream: Stream, n: int, size: int) -> Int[Array, " size"]:
    """A uniformly random subset by Floyd's algorithm: size^2 operations, whatever n.

    R. W. Floyd, in J. Bentley, "Programming pearls: a sample of brilliance", CACM 30 (1987).
    A permutation of all n costs a sort a step, some hundred times as much.
    """
    last = np.arange(n - size, n, dtype=np.int32)
    tries = stream.below(last + 1, size)
    if size > _WRITTEN_OUT:
        places = jnp.arange(size, dtype=jnp.int32)

        def place(b: Any, chosen: Array) -> Array:
            taken = jnp.any(chosen == tries[b])
            return jnp.where(places == b, jnp.where(taken, jnp.asarray(last)[b], tries[b]), chosen)

        return jax.lax.fori_loop(0, size, place, jnp.full(size, -1, dtype=jnp.int32))
    chosen: list[Array] = []
    for b in range(size):
        taken = jnp.any(jnp.stack([c == tries[b] for c in chosen])) if chosen else False
        chosen.append(jnp.where(taken, last[b], tries[b]))
    return jnp.stack(chosen)
