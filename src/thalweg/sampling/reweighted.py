"""Resampling-reweighting by gradient norms: An & Ying's section 3."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg.errors import InputError, known
from thalweg.gradnorms import problem_gradient_norms, sample_gradient_norms
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import (
    AbstractMemoryless,
    Draw,
    Moments,
    check_size,
    entries_of,
    index_below,
    one_a_group,
    running_sums,
    weighted_index,
)
from thalweg.sampling.outcomes import (
    Outcomes,
    check_listed,
    independent,
    multisets,
    products,
)


class Scores(NamedTuple):
    """What :class:`Reweighted` keeps between refreshes.

    Attributes:
        norms: Gradient norms when they were taken, one a sample or one a group.
        total: Their mean S over the population.
        cumulative: Running sums of the samples' probabilities, so that a draw costs log n.
    """

    norms: Float[Array, " scores"]
    total: Float[Array, ""]
    cumulative: Float[Array, " n"]


class Reweighted(AbstractMemoryless):
    r"""Samples drawn with probabilities from gradient norms, reweighted to keep the mean.

    ``by="sample"``: with scores :math:`s_i = |\nabla f_i|` and :math:`S = \sum_i a_i s_i`, sample i
    is drawn with probability :math:`p_i = a_i r_i` and weight :math:`1/(B r_i)`, where
    :math:`r_i = (1-u) s_i/S + u` and u is the share of uniform draws mixed in. With u = 0 every
    step has the length :math:`\eta S`, and

    .. math:: C = \frac1B \Big(\sum_i \frac{a_i}{r_i} g_i g_i^\top - \nabla f \nabla f^\top\Big),

    whose trace is at most SGD's (equation (7) and section 3 of An & Ying; Zhao & Zhang 2015).

    ``by="group"``: one sample :math:`i_j` is drawn in each group, then group j with probability
    :math:`f_j \propto A_j |\nabla f_{i_j}|`, and the gradient of *that* sample has the weight
    :math:`A_j/(f_j B)` (An & Ying, section 4.1).

    **Stale scores.** With ``refresh=k`` the scores are taken every k steps (by group: one sample a
    group) and kept; by group, the sample is then drawn in its group anew at each step. The drawn
    sample's weight is either

    - ``stale="unbiased"``: from the probability it was drawn with. The mean stays
      :math:`\nabla f` wherever no score is zero, but a sample whose gradient has grown since is
      stepped on with a large weight, and the noise may exceed SGD's;
    - ``stale="fixed-length"``: with its *current* norm instead of the kept one, a step of the kept
      length :math:`\eta S` in its direction. **Biased**: :math:`E[\hat g] = \sum_i a_i s_i^{old}
      g_i/|g_i|`.

    Neither is right everywhere. A sample with zero gradient is never divided by: it has weight
    zero. If the gradients of all samples vanish the parameters are a fixed point; the draw says so
    (by group, it knows only if every group is a single sample).

    Args:
        size: The batch size B; draws are independent.
        by: "sample" or "group".
        refresh: Steps between scores, at least 1.
        stale: "unbiased" or "fixed-length"; without effect if ``refresh`` is 1.
        uniform: The share u of draws from the population, from 0 to 1; by sample only.

    Raises:
        InputError: An unknown option, or a number outside its range.
    """

    size: int = eqx.field(static=True)
    by: str = eqx.field(static=True)
    refresh: int = eqx.field(static=True)
    stale: str = eqx.field(static=True)
    uniform: float = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        by: str = "sample",
        refresh: int = 1,
        stale: str = "unbiased",
        *,
        uniform: float = 0.0,
    ):
        check_size("Reweighted", size)
        known(by, ("sample", "group"), "way of drawing (by=)")
        known(stale, ("unbiased", "fixed-length"), "treatment of stale scores (stale=)")
        if isinstance(refresh, bool) or not isinstance(refresh, int) or refresh < 1:
            raise InputError(
                f"refresh must be a whole number of steps, at least 1; got {refresh!r}"
            )
        if not 0 <= uniform <= 1:
            raise InputError(f"uniform is a share of the draws, expected 0 to 1; got {uniform!r}")
        if by == "group" and uniform > 0:
            raise InputError("mixing with uniform draws needs by='sample'; by='group' has none")
        self.size = size
        self.by = by
        self.refresh = refresh
        self.stale = stale
        self.uniform = float(uniform)

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """Whether the mean is the gradient (wherever no kept score is zero)."""
        return self.refresh == 1 or self.stale == "unbiased"

    def check(self, problem: FiniteSum) -> None:
        """Groups, if drawn by group."""
        if self.by == "group":
            problem.require_groups()

    def init(self, problem: FiniteSum, params: Params) -> Scores | None:
        """Room for the scores, taken at step 0; nothing to keep if they are always fresh."""
        if self.refresh == 1:
            return None
        count = problem.n if self.by == "sample" else problem.n_groups
        return self.keep(problem, jnp.zeros(count, jnp.result_type(*jax.tree.leaves(params))))

    def keep(self, problem: FiniteSum, norms: Float[Array, " scores"]) -> Scores:
        """The state with these norms, one a sample or one a group."""
        of_samples = norms if self.by == "sample" else norms[problem.require_groups()]
        weights = problem.weights.astype(norms.dtype)
        total = jnp.dot(weights, of_samples)
        return Scores(norms, total, running_sums(weights * self._ratio(of_samples, total)))

    def draw(
        self,
        problem: FiniteSum,
        params: Params,
        state: Scores | None,
        stream: Stream,
        step: Any,
    ) -> tuple[Draw, Scores | None]:
        """B draws; scores are taken where ``step`` is a multiple of ``refresh``."""
        for_scores, for_draw = stream.folded(0), stream.folded(1)
        if state is None and self.by == "group":
            return self._draw_of_groups(problem, params, for_draw), None
        if state is None:
            fresh = self.keep(problem, problem_gradient_norms(problem, params))
            return self._draw_of_samples(problem, params, fresh, for_draw), None
        scores = jax.lax.cond(
            step % self.refresh == 0,
            lambda: self.keep(problem, self._take_norms(problem, params, for_scores)),
            lambda: state,
        )
        return self._draw_of_samples(problem, params, scores, for_draw), scores

    def moments(self, problem: FiniteSum, params: Params, state: Any = None) -> Moments:
        r"""First :math:`a_i r_i/r_i'`, second :math:`a_i r_i/r_i'^2` (r': current norms if biased).

        By group with fresh scores the second is :math:`a_i (A_j + (S - A_j \bar s_j)/s_i)` with the
        group's mean norm :math:`\bar s_j`: the expectation over what the other groups drew. (With
        ``refresh > 1`` by group every draw uses kept scores; give them as ``state``.)
        """
        norms = problem_gradient_norms(problem, params)
        weights = problem.weights.astype(norms.dtype)
        if state is None and self.by == "group":
            return _group_moments(problem, weights, norms)
        scores = self.keep(problem, norms) if state is None else state
        ratio = self._kept_ratio(problem, scores, jnp.arange(problem.n))
        keeps_weights = state is None or self.stale == "unbiased"
        used = ratio if keeps_weights else self._ratio(norms, scores.total)
        inverse = _inverse(used)
        return Moments(weights * ratio * inverse, weights * ratio * jnp.square(inverse))

    def outcomes(
        self,
        problem: FiniteSum,
        params: Params,
        draws: Int[Array, "outcomes draws ..."] | None = None,
    ) -> Outcomes:
        r"""Multisets of single draws with fresh scores.

        By sample these are samples with probability :math:`a_i r_i` and weight :math:`1/(B r_i)`;
        by group, one sample of each group together with the group chosen: the product of the
        groups' sizes times the number of groups.
        """
        self._require_fresh()
        listed = self.listed(problem, draws)
        norms = problem_gradient_norms(problem, params)
        weights = problem.weights.astype(norms.dtype)
        if self.by == "sample":
            ratio = self._ratio(norms, jnp.dot(weights, norms))
            inverse = _inverse(ratio)[listed] / self.size
            return independent(listed, listed, inverse, (weights * ratio)[listed])
        drawn, group = listed[..., :-1], listed[..., -1:]
        groups = problem.require_groups()
        together = jnp.prod(_within(weights, groups, problem.n_groups)[drawn], axis=-1)
        proportions = problem.group_weights.astype(norms.dtype)
        ratio = self._ratio(norms[drawn], jnp.dot(norms[drawn], proportions)[..., None])
        chosen = jnp.take_along_axis(ratio, group, axis=-1)[..., 0]
        index = jnp.take_along_axis(drawn, group, axis=-1)[..., 0]
        probabilities = together * chosen * proportions[group[..., 0]]
        return independent(listed, index, _inverse(chosen) / self.size, probabilities)

    def outcome_count(self, problem: FiniteSum) -> int:
        """Multisets of single draws."""
        return math.comb(self._single_count(problem) + self.size - 1, self.size)

    def all_draws(self, problem: FiniteSum) -> Int[np.ndarray, "outcomes draws ..."]:
        """Multisets of samples, or of rows of one sample a group and the number of a group."""
        self._require_fresh()
        if self.by == "sample":
            return multisets(problem.n, self.size)
        check_listed(self.outcome_count(problem))
        groups = np.asarray(problem.require_groups())
        members = [np.flatnonzero(groups == j) for j in range(problem.n_groups)]
        single = products([*members, np.arange(problem.n_groups)])
        return single[multisets(len(single), self.size)]

    def evaluations(self, problem: FiniteSum) -> float:
        """B gradients, the norms for the scores, and B current norms where these are used."""
        if self.by == "group" and self.refresh == 1:
            return float(self.size * (problem.n_groups + 1))
        scored = problem.n if self.by == "sample" else problem.n_groups
        drawn = self.size if self.unbiased else 2 * self.size
        return drawn + scored / self.refresh

    def _require_fresh(self) -> None:
        if self.refresh > 1:
            raise InputError(
                f"with refresh={self.refresh} the draws depend on kept scores and not on the "
                "parameters alone; use refresh=1"
            )

    def _single_count(self, problem: FiniteSum) -> int:
        if self.by == "sample":
            return problem.n
        sizes = np.bincount(np.asarray(problem.require_groups()))
        return math.prod(sizes.tolist()) * problem.n_groups

    def _shows_all(self, problem: FiniteSum) -> bool:
        """Whether the scores are of all samples: by group they are of one in each."""
        return self.by == "sample" or problem.n == problem.n_groups

    def _take_norms(
        self, problem: FiniteSum, params: Params, stream: Stream
    ) -> Float[Array, " scores"]:
        if self.by == "sample":
            return problem_gradient_norms(problem, params)
        return _norms_of(problem, params, one_a_group(problem, stream))

    def _ratio(self, norms: Array, total: Array) -> Array:
        """The ratio r = (1-u) s/S + u; draws from the population where all scores vanish."""
        safe = jnp.where(total > 0, total, jnp.ones_like(total))
        mixed = (1 - self.uniform) * norms / safe + self.uniform
        return jnp.where(total > 0, mixed, jnp.ones_like(mixed))

    def _kept_ratio(self, problem: FiniteSum, scores: Scores, index: Int[Array, " draws"]) -> Array:
        """The ratio of some samples, from the scores."""
        at = index
        if self.by == "group":
            at = jnp.take(problem.require_groups(), index, mode="clip")
        return self._ratio(entries_of(scores.norms, at), scores.total)

    def _draw_of_samples(
        self, problem: FiniteSum, params: Params, scores: Scores, stream: Stream
    ) -> Draw:
        index = index_below(stream, scores.cumulative, self.size)
        if self.unbiased:
            ratio = self._kept_ratio(problem, scores, index)
        else:
            ratio = self._ratio(_norms_of(problem, params, index), scores.total)
        zero = self._shows_all(problem) & (scores.total == 0)
        return Draw(index, _inverse(ratio) / self.size, zero)

    def _draw_of_groups(self, problem: FiniteSum, params: Params, stream: Stream) -> Draw:
        def one(number: Array) -> tuple[Array, Array, Array]:
            own = stream.folded(number)
            drawn = one_a_group(problem, own.folded(0))
            norms = _norms_of(problem, params, drawn)
            proportions = problem.group_weights.astype(norms.dtype)
            total = jnp.dot(proportions, norms)
            ratio = self._ratio(norms, total)
            group = weighted_index(own.folded(1), proportions * ratio, 1)
            weights = _inverse(entries_of(ratio, group)) / self.size
            return entries_of(drawn, group)[0], weights[0], total == 0

        index, weights, zero = jax.vmap(one)(jnp.arange(self.size))
        return Draw(index, weights, self._shows_all(problem) & zero[0])


def _within(weights: Array, groups: Array, count: int) -> Array:
    """Probabilities of the samples in their groups; equal in a group without weight."""
    total = jax.ops.segment_sum(weights, groups, count)[groups]
    size = jax.ops.segment_sum(jnp.ones_like(weights), groups, count)[groups]
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 1 / size)


def _group_moments(problem: FiniteSum, weights: Array, norms: Array) -> Moments:
    groups = problem.require_groups()
    group_weights = problem.group_weights.astype(norms.dtype)
    # A_j times the group's mean norm.
    group_scores = jax.ops.segment_sum(weights * norms, groups, problem.n_groups)
    others = (jnp.sum(group_scores) - group_scores)[groups]
    # A sample without gradient is not stepped on: its coefficients are those of no draw.
    weights = jnp.where(norms > 0, weights, 0)
    return Moments(weights, weights * (group_weights[groups] + others * _inverse(norms)))


def _norms_of(problem: FiniteSum, params: Params, index: Int[Array, " draws"]) -> Array:
    return sample_gradient_norms(problem.loss, params, problem.samples(index))


def _inverse(ratio: Array) -> Array:
    """1/r, and 0 where r is 0: such a sample is not stepped on."""
    positive = ratio > 0
    return jnp.where(positive, 1 / jnp.where(positive, ratio, jnp.ones_like(ratio)), 0.0)
