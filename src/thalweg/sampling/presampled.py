"""Resampling-reweighting among a few candidates."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg.errors import InputError
from thalweg.gradnorms import problem_gradient_norms
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import Draw, Moments, check_size, population_index
from thalweg.sampling.outcomes import Outcomes, check_listed, independent, multisets, products
from thalweg.sampling.scored import (
    AbstractScored,
    Rounds,
    draw_of_rounds,
    inverse,
    mean_ratio,
)


class Presampled(AbstractScored):
    r"""For each draw c candidates of the population are scored, and one of them is taken.

    Candidate k of the c is taken with probability :math:`s_k/\sum_l s_l` and weight
    :math:`\sum_l s_l/(c B s_k)`. Scores are never stale, nothing is kept, and the mean is
    :math:`\nabla f`. The draws of a batch are independent, and each sample's expected weight is
    known in closed form: with SGD's and fresh RR's covariances of one draw,

    .. math:: C = \frac1B \Big(\frac1c\, C_{SGD} + \Big(1 - \frac1c\Big) C_{RR}\Big), \qquad
              C_{RR} = S \sum_i \frac{a_i}{s_i} g_i g_i^\top - \nabla f \nabla f^\top.

    For c = 1 that is SGD, for large c RR; never more than 1 - 1/c of SGD's variance is saved.

    Katharopoulos & Fleuret (2018, "Not all samples are created equal", section 3.3) draw all B,
    with replacement, from one pool of cB candidates, which has :math:`C_{SGD}/(cB) + (1 -
    \frac1{cB}) C_{RR}/B`: as much noise from the pool, and more from drawing from it by
    :math:`(\frac1c - \frac1{cB}) C_{RR}/B`. (With c = 1 it has almost twice SGD's noise.)

    Args:
        size: The batch size B; draws are independent.
        candidates: c, at least 1.

    Raises:
        InputError: Numbers below 1.
    """

    size: int = eqx.field(static=True)
    candidates: int = eqx.field(static=True)
    refresh: ClassVar[None] = None
    keeps: ClassVar[bool] = False
    needs_current: ClassVar[bool] = False
    unbiased: ClassVar[bool] = True

    def __init__(self, size: int, candidates: int = 3):
        check_size("Presampled", size)
        if isinstance(candidates, bool) or not isinstance(candidates, int) or candidates < 1:
            raise InputError(
                f"candidates is a whole number for each draw, at least 1; got {candidates!r}"
            )
        self.size = size
        self.candidates = candidates

    def asks(
        self, problem: FiniteSum, state: Any, stream: Stream, step: Any
    ) -> Int[Array, " candidates"]:
        """Candidates of all draws, from the population."""
        return population_index(problem, stream.folded(0), self.size * self.candidates)

    def told(
        self,
        problem: FiniteSum,
        state: Any,
        index: Int[Array, " m"] | None,
        scores: Float[Array, " m"],
    ) -> Rounds:
        """The candidates of each draw, with their scores."""
        assert index is not None
        shape = self.size, self.candidates
        return Rounds(index.reshape(shape), scores.reshape(shape))

    def drawn(self, problem: FiniteSum, state: Any, stream: Stream, step: Any) -> Draw:
        """One of the candidates of each draw."""
        share = jnp.full(self.candidates, 1.0 / self.candidates, state.scores.dtype)
        draw = draw_of_rounds(stream.folded(1), state, share)
        # A few candidates say nothing of the others.
        return Draw(draw.index, draw.weights)

    def moments(self, problem: FiniteSum, params: Params, state: Any = None) -> Moments:
        r"""First :math:`a_i`, second :math:`a_i (1/c + (1 - 1/c) S/s_i)`.

        The weight of i among c candidates is :math:`(s_i + s_2 + \dots + s_c)/(c s_i)`, and its
        expectation over the others, of the mean S, comes in once it is drawn with the inverse.
        """
        norms = problem_gradient_norms(problem, params)
        weights = problem.weights.astype(norms.dtype)
        share = 1.0 / self.candidates
        total = jnp.dot(weights, norms)
        # A sample without gradient is not stepped on: its coefficients are those of no draw.
        weights = jnp.where(norms > 0, weights, 0)
        return Moments(weights, weights * (share + (1 - share) * total * inverse(norms)))

    def outcomes(
        self,
        problem: FiniteSum,
        params: Params,
        draws: Int[Array, "outcomes draws ..."] | None = None,
    ) -> Outcomes:
        """Multisets of single draws: candidates in order, and which of them is taken."""
        listed = self.listed(problem, draws)
        norms = problem_gradient_norms(problem, params)
        candidates, choice = listed[..., :-1], listed[..., -1:]
        together = jnp.prod(problem.weights.astype(norms.dtype)[candidates], axis=-1)
        scores = norms[candidates]
        ratio = mean_ratio(scores, jnp.mean(scores, axis=-1, keepdims=True))
        chosen = jnp.take_along_axis(ratio, choice, axis=-1)[..., 0]
        index = jnp.take_along_axis(candidates, choice, axis=-1)[..., 0]
        probabilities = together * chosen / self.candidates
        return independent(listed, index, inverse(chosen) / self.size, probabilities)

    def outcome_count(self, problem: FiniteSum) -> int:
        """Multisets of single draws."""
        single = problem.n**self.candidates * self.candidates
        return math.comb(single + self.size - 1, self.size)

    def all_draws(self, problem: FiniteSum) -> Int[np.ndarray, "outcomes draws ..."]:
        """Multisets of rows of c samples and the place of one of them."""
        check_listed(self.outcome_count(problem))
        samples = np.arange(problem.n)
        single = products([*[samples] * self.candidates, np.arange(self.candidates)])
        return single[multisets(len(single), self.size)]

    def evaluations(self, problem: FiniteSum) -> float:
        """B gradients and c B norms."""
        return float(self.size * (1 + self.candidates))
