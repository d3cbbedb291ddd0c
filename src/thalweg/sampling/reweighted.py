"""Resampling-reweighting by gradient norms: An & Ying's section 3."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg.errors import InputError
from thalweg.gradnorms import problem_gradient_norms
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import (
    Draw,
    Moments,
    check_size,
    one_a_group,
)
from thalweg.sampling.outcomes import (
    Outcomes,
    check_listed,
    independent,
    multisets,
    products,
)
from thalweg.sampling.scored import (
    AbstractKept,
    Rounds,
    check_options,
    draw_of_rounds,
    inverse,
    mean_ratio,
)
from thalweg.sampling.sums import Scores


class Reweighted(AbstractKept):
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
        uniform: The share u of draws from the population, from 0 to 1; not with fresh scores by
            group.
        smoothing: The weight of a kept score's square when a new one is taken, below 1; needs
            ``refresh`` above 1.

    Raises:
        InputError: An unknown option, or a number outside its range.
    """

    size: int = eqx.field(static=True)
    by: str = eqx.field(static=True)
    refresh: int = eqx.field(static=True)  # type: ignore[misc]
    stale: str = eqx.field(static=True)
    uniform: float = eqx.field(static=True)
    smoothing: float = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        by: str = "sample",
        refresh: int = 1,
        stale: str = "unbiased",
        *,
        uniform: float = 0.0,
        smoothing: float = 0.0,
    ):
        check_size("Reweighted", size)
        check_options("Reweighted", by, stale, uniform, smoothing)
        if isinstance(refresh, bool) or not isinstance(refresh, int) or refresh < 1:
            raise InputError(
                f"refresh must be a whole number of steps, at least 1; got {refresh!r}"
            )
        if by == "group" and refresh == 1 and uniform > 0:
            raise InputError(
                "mixing fresh scores with uniform draws needs by='sample', and by='group' was "
                "asked for; use refresh above 1, or none"
            )
        if refresh == 1 and smoothing > 0:
            raise InputError("smoothing needs kept scores, and refresh=1 keeps none; use refresh>1")
        self.size = size
        self.by = by
        self.refresh = refresh
        self.stale = stale
        self.uniform = float(uniform)
        self.smoothing = float(smoothing)

    @property
    def keeps(self) -> bool:  # type: ignore[override]
        """Whether scores are kept: not if they are always fresh."""
        return self.refresh > 1

    @property
    def needs_current(self) -> bool:  # type: ignore[override]
        """Whether kept scores are corrected by current ones."""
        return self.keeps and self.stale == "fixed-length"

    def refreshed(self, problem: FiniteSum, stream: Stream) -> Int[Array, " m"] | None:
        """All samples; by group one of each group, for each of the B draws if scores are fresh."""
        if self.by == "sample":
            return None
        if self.keeps:
            return one_a_group(problem, stream.folded(0))
        rounds = jax.vmap(lambda k: one_a_group(problem, stream.folded(1).folded(k).folded(0)))
        return rounds(jnp.arange(self.size)).reshape(-1)

    def told(
        self,
        problem: FiniteSum,
        state: Any,
        index: Int[Array, " m"] | None,
        scores: Float[Array, " m"],
    ) -> Scores | Rounds:
        """The table with these scores; fresh by group, the samples of the groups with theirs."""
        if self.keeps or index is None:
            return super().told(problem, state, index, scores)
        shape = self.size, problem.n_groups
        return Rounds(index.reshape(shape), scores.reshape(shape))

    def drawn(self, problem: FiniteSum, state: Any, stream: Stream, step: Any) -> Draw:
        """B draws with these scores."""
        if not isinstance(state, Rounds):
            return super().drawn(problem, state, stream, step)
        proportions = problem.group_weights.astype(state.scores.dtype)
        draw = draw_of_rounds(stream.folded(1), state, proportions)
        zero = draw.stationary & self._shows_all(problem)
        return Draw(draw.index, draw.weights, zero)

    def moments(self, problem: FiniteSum, params: Params, state: Any = None) -> Moments:
        r"""First :math:`a_i r_i/r_i'`, second :math:`a_i r_i/r_i'^2` (r': current norms if biased).

        By group with fresh scores the second is :math:`a_i (A_j + (S - A_j \bar s_j)/s_i)` with the
        group's mean norm :math:`\bar s_j`: the expectation over what the other groups drew. (With
        ``refresh > 1`` by group every draw uses kept scores; give them as ``state``.)
        """
        if state is not None or self.by == "sample":
            return super().moments(problem, params, state)
        norms = problem_gradient_norms(problem, params)
        return _group_moments(problem, problem.weights.astype(norms.dtype), norms)

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
            ratio = self.keep(problem, norms).ratio(norms, self.uniform)
            inverses = inverse(ratio)[listed] / self.size
            return independent(listed, listed, inverses, (weights * ratio)[listed])
        drawn, group = listed[..., :-1], listed[..., -1:]
        groups = problem.require_groups()
        together = jnp.prod(_within(weights, groups, problem.n_groups)[drawn], axis=-1)
        proportions = problem.group_weights.astype(norms.dtype)
        ratio = mean_ratio(norms[drawn], jnp.dot(norms[drawn], proportions)[..., None])
        chosen = jnp.take_along_axis(ratio, group, axis=-1)[..., 0]
        index = jnp.take_along_axis(drawn, group, axis=-1)[..., 0]
        probabilities = together * chosen * proportions[group[..., 0]]
        return independent(listed, index, inverse(chosen) / self.size, probabilities)

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

    def _still(self, problem: FiniteSum, state: Scores) -> Any:
        """A fixed point, where the scores are of all samples and vanish."""
        # All are taken at once: if the first is known, they are.
        return self._shows_all(problem) & (state.total == 0) & (state.norms[0] >= 0)


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
    return Moments(weights, weights * (group_weights[groups] + others * inverse(norms)))
