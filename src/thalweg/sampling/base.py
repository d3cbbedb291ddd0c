r"""The protocol of samplers: how a stochastic gradient is drawn, and its exact covariance.

A sampler draws indices :math:`i_b` and weights :math:`w_b`; the stochastic gradient is
:math:`\hat g = \sum_b w_b \nabla f_{i_b}(\theta)`. Its draws are functions of the problem, the
parameters, its own state, a stream and the number of the step, and of nothing else.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Shaped

from thalweg.alias import draw_in_groups
from thalweg.errors import InputError
from thalweg.gradnorms import gradients_at_once, problem_gradient_norms, squared_norm
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.outcomes import Outcomes, multisets

# A covariance is a dense P x P matrix: 4096**2 float64 are 128 MiB.
_DENSE_PARAMETERS = 4096
# Entries up to which comparing with all of them beats a search and loads from a table.
COMPARED = 32


class Draw(eqx.Module):
    r"""What was drawn: the estimate is :math:`\sum_b w_b \nabla f_{i_b}`.

    Attributes:
        index: The samples; None means all of them.
        weights: Their weights; None means the problem's own :math:`a_i`.
        stationary: True if the draw shows that every sample's gradient vanishes: a fixed point.
    """

    index: Int[Array, " draws"] | None
    weights: Float[Array, " draws"] | None
    stationary: Bool[Array, ""] | bool = False


class Moments(NamedTuple):
    r"""One draw's first two moments as coefficients of the samples.

    Mean :math:`\sum_i c^{(1)}_i g_i`, second moment :math:`\sum_i c^{(2)}_i g_i g_i^\top` with
    :math:`g_i = \nabla f_i(\theta)`.
    """

    first: Float[Array, " n"]
    second: Float[Array, " n"]


class Centred(NamedTuple):
    r"""One draw's covariance as a sum of squares, which cannot cancel.

    With the mean m it is :math:`\sum_i p_i (w_i g_i - m)(w_i g_i - m)^\top + r\,m m^\top`.

    Attributes:
        probabilities: :math:`p_i`.
        weights: :math:`w_i`.
        rest: r, what the probabilities lack of one.
    """

    probabilities: Float[Array, " n"]
    weights: Float[Array, " n"]
    rest: Float[Array, ""]


def centred(moments: Moments) -> Centred:
    r"""The sum of squares of one draw's moments.

    :math:`p_i = (c^{(1)}_i)^2/c^{(2)}_i` and :math:`w_i = c^{(2)}_i/c^{(1)}_i`.
    Where a draw is one sample with a weight that depends on the sample alone, these are its
    probability and weight, and r is zero. Where the weight is random given the sample (one draw a
    group), Cauchy and Schwarz leave :math:`r \ge 0`. Multiplying out gives the difference of
    moments, whose terms may be larger than itself by any factor.
    """
    first, second = moments
    drawn = (first > 0) & (second > 0)
    weights = jnp.where(drawn, second / jnp.where(drawn, first, 1), 0)
    probabilities = jnp.where(drawn, first / jnp.where(drawn, weights, 1), 0)
    rest = 1 - jnp.sum(probabilities)
    # A sum of n numbers is one to so much.
    rounding = 8 * first.size * float(jnp.finfo(first.dtype).eps)
    return Centred(probabilities, weights, jnp.where(rest > rounding, rest, 0))


class AbstractSampler(eqx.Module):
    """Any sampler. Subclasses are final; each is one file."""

    def check(self, problem: FiniteSum) -> None:
        """Raise InputError if the sampler cannot draw from this problem."""
        return

    def init(self, problem: FiniteSum, params: Params) -> Any:
        """The state before the first step; None for a sampler without memory."""
        return

    @abstractmethod
    def draw(
        self, problem: FiniteSum, params: Params, state: Any, stream: Stream, step: Any
    ) -> tuple[Draw, Any]:
        """Draw for step number ``step`` (from 0); returns the draw and the next state.

        ``step`` must not be batched under ``jax.vmap``: what happens every so many steps is a
        branch on it, taken for all chains together.
        """

    @abstractmethod
    def evaluations(self, problem: FiniteSum) -> float:
        """Per-sample gradients (or their norms) evaluated in a step, on average."""


class AbstractMemoryless(AbstractSampler):
    r"""A sampler whose draws are independent, given the parameters (and scores it may keep).

    It knows the exact mean and covariance of its estimate :math:`\hat g`, batch included: the
    :math:`C(\theta)` of the diffusion limit. ``state`` is the sampler's own state as ``init`` and
    ``draw`` return it (stale scores); None means a fresh one.
    """

    size: eqx.AbstractVar[int]
    unbiased: ClassVar[bool]

    @abstractmethod
    def moments(self, problem: FiniteSum, params: Params, state: Any = None) -> Moments:
        """The coefficients of one draw."""

    @abstractmethod
    def outcomes(
        self,
        problem: FiniteSum,
        params: Params,
        draws: Int[Array, "outcomes draws ..."] | None = None,
    ) -> Outcomes:
        r"""Every estimate :math:`\hat g` that a step with fresh scores can make: its exact law.

        Its mean and covariance are :meth:`mean` and :meth:`covariance`.

        Args:
            problem: The objective.
            params: Where.
            draws: :meth:`all_draws` of the problem, which are listed here unless given. Given them
                the method is traceable in everything else.

        Raises:
            InputError: More draws than can be listed; kept scores, on which the draws depend.

        Cost: m B numbers for m outcomes of B draws, and n gradients if probabilities need norms.
        """

    def outcome_count(self, problem: FiniteSum) -> int:
        """The number of :meth:`all_draws`, which may be huge."""
        return math.comb(problem.n + self.size - 1, self.size)

    def all_draws(self, problem: FiniteSum) -> Int[np.ndarray, "outcomes draws ..."]:
        """All draws of a step whatever their order: here B of n samples with replacement.

        Raises:
            InputError: More than a million of them.
        """
        return multisets(problem.n, self.size)

    def listed(self, problem: FiniteSum, draws: Array | None) -> Int[Array, "outcomes draws ..."]:
        """The draws given, or all of them."""
        return jnp.asarray(self.all_draws(problem)) if draws is None else draws

    def variance_factor(self, problem: FiniteSum) -> float:
        """The covariance of the batch's estimate over a single draw's: 1/B if independent."""
        return 1.0 / self.size

    def mean(self, problem: FiniteSum, params: Params, state: Any = None) -> Params:
        r"""The expectation :math:`E[\hat g]`, a pytree like params."""
        return problem.gradient(params, weights=self.moments(problem, params, state).first)

    def covariance(
        self, problem: FiniteSum, params: Params, state: Any = None
    ) -> Float[Array, "P P"]:
        r"""The covariance :math:`C = E[\hat g \hat g^\top] - E[\hat g] E[\hat g]^\top`.

        Rows are the parameters in the order of ``jax.flatten_util.ravel_pytree``. It is a sum of
        squares (:func:`centred`): positive semidefinite and right to rounding of itself also where
        it is tiny against the mean. Cost: 2 n gradients and n P^2 operations; memory a chunk of
        gradients and P^2.

        Raises:
            InputError: More than 4096 parameters; use :meth:`trace`.
        """
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        if count > _DENSE_PARAMETERS:
            raise InputError(
                f"the covariance of {count} parameters would be a dense {count} x {count} matrix; "
                f"expected at most {_DENSE_PARAMETERS} parameters (trace() has no such limit)"
            )
        moments = self.moments(problem, params, state)
        mean, _ = ravel_pytree(problem.gradient(params, weights=moments.first))
        law = jax.tree.map(lambda x: x.astype(mean.dtype), centred(moments))

        def part(data: Any, coefficients: Array) -> Array:
            def deviation(sample: Any, probability: Array, weight: Array) -> Array:
                gradient = ravel_pytree(jax.grad(problem.loss)(params, sample))[0]
                return jnp.sqrt(probability) * (weight * gradient - mean)

            rows = jax.vmap(deviation)(data, coefficients[:, 0], coefficients[:, 1])
            return jnp.dot(rows.T, rows, precision="highest")

        pairs = jnp.stack([law.probabilities, law.weights], axis=1)
        squares = problem.sum_over_chunks(part, problem.data, pairs, gradients_at_once(params))
        return self.variance_factor(problem) * (squares + law.rest * jnp.outer(mean, mean))

    def trace(self, problem: FiniteSum, params: Params, state: Any = None) -> Float[Array, ""]:
        """The trace of :meth:`covariance`, from per-sample norms: any number of parameters."""
        moments = self.moments(problem, params, state)
        norms = problem_gradient_norms(problem, params)
        mean = problem.gradient(params, weights=moments.first)
        second = jnp.dot(moments.second.astype(norms.dtype), jnp.square(norms))
        return self.variance_factor(problem) * (second - squared_norm(mean))


def check_size(name: str, size: int, problem: FiniteSum | None = None) -> None:
    """Raise InputError unless ``size`` is a whole number from 1 to n."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"{name} needs a whole batch size of at least 1, got {size!r}")
    if problem is not None and size > problem.n:
        raise InputError(
            f"{name} has batch size {size} but the problem has n = {problem.n} samples; "
            f"expected at most {problem.n}"
        )


def weighted_index(stream: Stream, weights: Float[Array, " n"], size: int) -> Int[Array, " size"]:
    """Independent indices with probabilities proportional to ``weights``."""
    return index_below(stream, running_sums(weights), size)


def running_sums(weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """The sums for :func:`index_below`: monotone, and constant over entries of weight zero."""
    # XLA adds in a tree: its sums wobble by rounding, also where the weight is zero.
    return jax.lax.cummax(jnp.where(weights > 0, jnp.cumsum(weights), 0))


def index_below(stream: Stream, cumulative: Float[Array, " n"], size: int) -> Int[Array, " size"]:
    """Independent indices by inverting the running sums of weights.

    An entry of zero weight is never drawn; all zero gives the last index. Cost: log n operations
    each, or n if n is at most 32.
    """
    total = cumulative[-1]
    # Rounding must not reach the end: the first sum above the target has a positive weight.
    target = stream.uniform(size, cumulative.dtype) * total
    target = jnp.minimum(target, jnp.nextafter(total, jnp.zeros_like(total)))
    if cumulative.shape[0] <= COMPARED:
        index = jnp.sum(cumulative <= target[:, None], axis=1, dtype=jnp.int32)
    else:
        index = jnp.searchsorted(cumulative, target, side="right").astype(jnp.int32)
    return jnp.minimum(index, cumulative.shape[0] - 1)


def entries_of(values: Shaped[Array, " n"], index: Int[Array, " m"]) -> Shaped[Array, " m"]:
    """The values at some places, where values differ from chain to chain."""
    n = values.shape[0]
    if n > COMPARED:
        return values[index]
    here = index[:, None] == jnp.arange(n, dtype=index.dtype)
    return jnp.sum(jnp.where(here, values, jnp.zeros_like(values)), axis=1, dtype=values.dtype)


def one_a_group(problem: FiniteSum, stream: Stream) -> Int[Array, " n_groups"]:
    r"""One sample of every group: i of group j with probability :math:`a_i/A_j`."""
    return sample_in(problem, stream, jnp.arange(problem.n_groups, dtype=jnp.int32))


def sample_in(
    problem: FiniteSum, stream: Stream, group: Int[Array, " draws"]
) -> Int[Array, " draws"]:
    r"""Independent samples of these groups: i of group j with probability :math:`a_i/A_j`."""
    table = problem.require_group_table()
    if problem.n == problem.n_groups:
        # Nothing is left to chance.
        return jnp.take(table.columns[:, 1].astype(jnp.int32), group, mode="clip")
    return draw_in_groups(stream, table, group)


def population_index(problem: FiniteSum, stream: Stream, size: int) -> Int[Array, " size"]:
    r"""Independent samples of the population: i with probability :math:`a_i`."""
    if problem.uniform:
        return stream.below(problem.n, size)
    if problem.n <= COMPARED:
        return weighted_index(stream, problem.weights, size)
    return draw_in_groups(stream, problem.require_table(), jnp.zeros(size, dtype=jnp.int32))


def constant_weights(problem: FiniteSum, value: float, size: int) -> Float[Array, " size"]:
    """The same weight for every draw."""
    return jnp.full(size, value, dtype=problem.weights.dtype)
