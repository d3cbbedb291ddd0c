r"""Samplers that draw by per-sample scores: what a loop asks of them, and kept tables of scores.

A loop that has a scorer of its own (or data that are not in memory) takes a step so:

.. code-block:: python

    if sampler.refresh is not None and step % sampler.refresh == 0:
        index = sampler.refreshed(problem, stream)           # None: all samples
        state = sampler.told(problem, state, index, score(index))
    draw, state = sampler.sampled(problem, score, state, stream, step)
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from thalweg.errors import InputError, known
from thalweg.gradnorms import problem_gradient_norms, sample_gradient_norms
from thalweg.gradnorms.squares import norm_dtype
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import (
    AbstractMemoryless,
    Draw,
    Moments,
    entries_of,
    sample_in,
    weighted_index,
)
from thalweg.sampling.outcomes import Outcomes
from thalweg.sampling.sums import UNKNOWN, Scores, draw_scored, scores_at, scores_of, with_changed

# The scores of some samples, or (None) of all.
Score = Callable[[Int[Array, " samples"] | None], Float[Array, " samples"]]


class AbstractScored(AbstractMemoryless):
    """A sampler that draws from scores it is told, whoever computes them.

    The methods from :meth:`refreshed` to :meth:`corrected` use the problem's size, weights, groups
    and tables alone, never its data or loss. All can be traced, and mapped over members with one
    step number.

    Attributes:
        refresh: Every so many steps (at multiples) scores are taken anew; None: never.
        keeps: Whether scores are kept from step to step. Otherwise ``init`` is None and the state
            lives from :meth:`told` to :meth:`drawn`.
        needs_current: Whether :meth:`corrected` wants the current scores of what was drawn.
    """

    refresh: ClassVar[int | None]
    keeps: ClassVar[bool]
    needs_current: ClassVar[bool]

    def refreshed(self, problem: FiniteSum, stream: Stream) -> Int[Array, " m"] | None:
        """The samples to score where scores are taken anew; None for all, in order."""
        return None

    def asks(
        self, problem: FiniteSum, state: Any, stream: Stream, step: Any
    ) -> Int[Array, " m"] | None:
        """Samples whose scores are wanted before this step's draw, or None."""
        return None

    @abstractmethod
    def told(
        self,
        problem: FiniteSum,
        state: Any,
        index: Int[Array, " m"] | None,
        scores: Float[Array, " m"],
    ) -> Any:
        """The state with current scores of these samples; ``index`` None: of all, in order."""

    @abstractmethod
    def drawn(self, problem: FiniteSum, state: Any, stream: Stream, step: Any) -> Draw:
        """Samples and weights from the scores in the state."""

    def corrected(
        self, problem: FiniteSum, state: Any, draw: Draw, scores: Float[Array, " draws"]
    ) -> Draw:
        """The draw with weights from its samples' current scores, if ``needs_current``."""
        return draw

    def sampled(
        self, problem: FiniteSum, score: Score, state: Any, stream: Stream, step: Any
    ) -> tuple[Draw, Any]:
        """A step's draw with all scores it asks for, and the state to keep."""
        index = self.asks(problem, state, stream, step)
        if index is not None:
            state = self.told(problem, state, index, score(index))
        draw = self.drawn(problem, state, stream, step)
        if self.needs_current:
            draw = self.corrected(problem, state, draw, score(draw.index))
        return draw, state if self.keeps else None

    def draw(
        self, problem: FiniteSum, params: Params, state: Any, stream: Stream, step: Any
    ) -> tuple[Draw, Any]:
        """The draw by the norms of the problem's gradients."""

        def score(index: Array | None) -> Array:
            if index is None:
                return problem_gradient_norms(problem, params)
            return sample_gradient_norms(problem.loss, params, problem.samples(index))

        def anew() -> Any:
            index = self.refreshed(problem, stream)
            return self.told(problem, state, index, score(index))

        if self.refresh == 1:
            state = anew()
        elif self.refresh is not None:
            state = jax.lax.cond(step % self.refresh == 0, anew, lambda: state)
        return self.sampled(problem, score, state, stream, step)


class Kept(NamedTuple):
    """How some samples are drawn with kept scores.

    Attributes:
        ratio: How much more often than in the population.
        known: Whether they have a score.
    """

    ratio: Float[Array, " m"]
    known: Bool[Array, " m"]


class AbstractKept(AbstractScored):
    r"""A table of scores :math:`s_i`, one a sample or one a group, kept from step to step.

    With the mean score S an entry (a sample, or a group and in it sample i with probability
    :math:`a_i/A_j`) is drawn with :math:`r_i = (1-u) s_i/S + u` times its probability in the
    population, and its gradient has the weight :math:`1/(B r_i)`. Subclasses say when which scores
    are taken.

    A new score is mixed with the old one by their squares,
    :math:`s^2 \leftarrow \lambda s_{old}^2 + (1-\lambda) s_{new}^2`, for the best probabilities go
    with the root of the expected square; a group's is the root mean square of what is told of it.

    Attributes:
        by: "sample" or "group".
        stale: "unbiased" or "fixed-length".
        uniform: The share u of draws from the population.
        smoothing: :math:`\lambda`.
    """

    by: eqx.AbstractVar[str]
    stale: eqx.AbstractVar[str]
    uniform: eqx.AbstractVar[float]
    smoothing: eqx.AbstractVar[float]

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """Whether the mean is the gradient (wherever no kept score is zero)."""
        return not self.needs_current

    def check(self, problem: FiniteSum) -> None:
        """Groups, if drawn by group."""
        if self.by == "group":
            problem.require_groups()

    def init(self, problem: FiniteSum, params: Params) -> Scores | None:
        """A table without a known score, in single precision at least; None if nothing is kept."""
        if not self.keeps:
            return None
        return self._nothing_known(problem, norm_dtype(*jax.tree.leaves(params)))

    def keep(self, problem: FiniteSum, norms: Float[Array, " m"]) -> Scores:
        """The state with these scores, one a sample or one a group."""
        return scores_of(norms, self._weights(problem), self.uniform)

    def told(
        self,
        problem: FiniteSum,
        state: Any,
        index: Int[Array, " m"] | None,
        scores: Float[Array, " m"],
    ) -> Any:
        """The table with these scores."""
        if state is None:
            state = self._nothing_known(problem, scores.dtype)
        scores = scores.astype(state.norms.dtype)
        if self.by == "group":
            return self._told_of_groups(problem, state, index, scores)
        if index is None:
            mixed = self._mixed(state.norms, scores)
            return scores_of(mixed, problem.weights, self.uniform, complete=not self.keeps)
        mixed = self._mixed(scores_at(state, index), scores)
        return with_changed(state, problem.weights, index, mixed, self.uniform)

    def drawn(self, problem: FiniteSum, state: Any, stream: Stream, step: Any) -> Draw:
        """B draws with the kept scores."""
        stream = stream.folded(1)
        args = state, self._weights(problem), self.uniform, self.size
        if self.by == "group":
            entry = draw_scored(stream.folded(0), *args)
            index = sample_in(problem, stream.folded(1), entry)
        else:
            entry = index = draw_scored(stream, *args)
        ratio = state.ratio(scores_at(state, entry), self.uniform)
        return Draw(index, inverse(ratio) / self.size, self._still(problem, state))

    def corrected(
        self, problem: FiniteSum, state: Any, draw: Draw, scores: Float[Array, " draws"]
    ) -> Draw:
        """Steps of the kept length: the current scores instead of those drawn with.

        A sample without a known score keeps its weight.
        """
        assert draw.index is not None
        kept = scores_at(state, self._entries(problem, draw.index))
        used = jnp.where(kept < 0, kept, scores.astype(kept.dtype))
        weights = inverse(state.ratio(used, self.uniform)) / self.size
        return Draw(draw.index, weights, draw.stationary)

    def moments(self, problem: FiniteSum, params: Params, state: Any = None) -> Moments:
        r"""First :math:`a_i r_i/r_i'`, second :math:`a_i r_i/r_i'^2` (r': current norms if biased).

        ``state`` is the table; without one, that of all samples' current norms.
        """
        norms = problem_gradient_norms(problem, params)
        weights = problem.weights.astype(norms.dtype)
        scores = self.told(problem, None, None, norms) if state is None else state
        kept = scores.norms if self.by == "sample" else scores.norms[problem.require_groups()]
        ratio = scores.ratio(kept, self.uniform)
        used = ratio
        if self.needs_current and state is not None:
            used = scores.ratio(jnp.where(kept < 0, kept, norms), self.uniform)
        first = weights * ratio * inverse(used)
        return Moments(first, first * inverse(used))

    def kept_at(self, problem: FiniteSum, state: Any, index: Int[Array, " m"]) -> Kept:
        r"""The ratios :math:`r_i` at which some samples are drawn with the table's scores."""
        scores = scores_at(state, self._entries(problem, index))
        return Kept(state.ratio(scores, self.uniform), scores >= 0)

    def outcomes(
        self,
        problem: FiniteSum,
        params: Params,
        draws: Int[Array, "outcomes draws ..."] | None = None,
    ) -> Outcomes:
        """Refused: a step with kept scores has no law of its own.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"the draws of {type(self).__name__} depend on kept scores and not on the parameters "
            "alone; use Reweighted with refresh=1"
        )

    def _still(self, problem: FiniteSum, state: Scores) -> Any:
        """Whether the scores show that all gradients vanish: taken in turn, they never do."""
        return False

    def _nothing_known(self, problem: FiniteSum, dtype: Any) -> Scores:
        return self.keep(problem, jnp.full(self._count(problem), UNKNOWN, dtype))

    def _count(self, problem: FiniteSum) -> int:
        return problem.n if self.by == "sample" else problem.n_groups

    def _weights(self, problem: FiniteSum) -> Float[Array, " m"]:
        return problem.weights if self.by == "sample" else problem.group_weights

    def _entries(self, problem: FiniteSum, index: Int[Array, " k"]) -> Int[Array, " k"]:
        if self.by == "sample":
            return index
        return jnp.take(problem.require_groups(), index, mode="clip")

    def _mixed(self, old: Array, new: Array) -> Array:
        if self.smoothing == 0:
            return new
        squares = self.smoothing * jnp.square(old) + (1 - self.smoothing) * jnp.square(new)
        return jnp.where(old < 0, new, jnp.sqrt(squares))

    def _told_of_groups(
        self, problem: FiniteSum, state: Scores, index: Array | None, scores: Array
    ) -> Scores:
        groups, weights = problem.require_groups(), problem.weights.astype(scores.dtype)
        if index is not None:
            # These are drawn with their probabilities in the group.
            groups, weights = self._entries(problem, index), jnp.ones_like(scores)

        def sums(x: Array) -> Array:
            return jax.ops.segment_sum(x, groups, problem.n_groups)

        weight = sums(weights)
        told = weight > 0
        mean = sums(weights * jnp.square(scores)) / jnp.where(told, weight, 1)
        mixed = self._mixed(state.norms, jnp.sqrt(mean))
        return self.keep(problem, jnp.where(told, mixed, state.norms))


class Rounds(NamedTuple):
    """For each of B draws some samples to choose from, and their scores."""

    samples: Int[Array, "size choices"]
    scores: Float[Array, "size choices"]


def draw_of_rounds(stream: Stream, rounds: Rounds, proportions: Float[Array, " choices"]) -> Draw:
    r"""One sample k of each round, with probability :math:`A_k s_k/S`, :math:`S = \sum_k A_k s_k`.

    Its weight is :math:`S/(B s_k)`. The draw is stationary if all scores of the first round vanish.
    """
    size = rounds.scores.shape[0]

    def one(number: Array, index: Array, scores: Array) -> tuple[Array, Array, Array]:
        total = jnp.dot(proportions, scores)
        ratio = mean_ratio(scores, total)
        own = stream.folded(number).folded(1)
        choice = weighted_index(own, proportions * ratio, 1)
        weights = inverse(entries_of(ratio, choice)) / size
        return entries_of(index, choice)[0], weights[0], total == 0

    index, weights, zero = jax.vmap(one)(jnp.arange(size), *rounds)
    return Draw(index, weights, zero[0])


def mean_ratio(scores: Float[Array, "..."], total: Float[Array, "..."]) -> Float[Array, "..."]:
    """The ratio s/S, and one where all scores vanish."""
    ratio = scores / jnp.where(total > 0, total, jnp.ones_like(total))
    return jnp.where(total > 0, ratio, jnp.ones_like(ratio))


def inverse(ratio: Float[Array, "..."]) -> Float[Array, "..."]:
    """1/r, and 0 where r is 0: such a sample is not stepped on."""
    positive = ratio > 0
    return jnp.where(positive, 1 / jnp.where(positive, ratio, jnp.ones_like(ratio)), 0.0)


def check_options(name: str, by: str, stale: str, uniform: float, smoothing: float) -> None:
    """Raise InputError unless the options of a kept table make sense."""
    known(by, ("sample", "group"), "way of drawing (by=)")
    known(stale, ("unbiased", "fixed-length"), "treatment of stale scores (stale=)")
    check_share(uniform)
    if not 0 <= smoothing < 1:
        raise InputError(
            f"smoothing is the weight of {name}'s old scores, expected 0 to below 1; "
            f"got {smoothing!r}"
        )


def check_share(uniform: float) -> None:
    """Raise InputError unless the share of uniform draws is one."""
    if not 0 <= uniform <= 1:
        raise InputError(f"uniform is a share of the draws, expected 0 to 1; got {uniform!r}")
