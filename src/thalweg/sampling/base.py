r"""The protocol of samplers: how a stochastic gradient is drawn, and its exact covariance.

A sampler draws indices :math:`i_b` and weights :math:`w_b`; the stochastic gradient is
:math:`\hat g = \sum_b w_b \nabla f_{i_b}(\theta)`. Its draws are functions of the problem, the
parameters, its own state, a stream and the number of the step, and of nothing else.
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Shaped

from thalweg.alias import draw_in_groups
from thalweg.errors import InputError
from thalweg.gradnorms import gradients_at_once, problem_gradient_norms, squared_norm
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream

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

        Rows are the parameters in the order of ``jax.flatten_util.ravel_pytree``. Cost: n gradients
        and n P^2 operations; memory a chunk of gradients and P^2.

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

        def part(data: Any, coefficients: Array) -> Array:
            def flat(sample: Any) -> Array:
                return ravel_pytree(jax.grad(problem.loss)(params, sample))[0]

            rows = jax.vmap(flat)(data)
            return jnp.einsum("i,ij,ik->jk", coefficients.astype(rows.dtype), rows, rows)

        second = problem.sum_over_chunks(
            part, problem.data, moments.second, gradients_at_once(params)
        )
        mean, _ = ravel_pytree(problem.gradient(params, weights=moments.first))
        return self.variance_factor(problem) * (second - jnp.outer(mean, mean))

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
