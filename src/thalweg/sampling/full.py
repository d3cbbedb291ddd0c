"""Gradient descent."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import AbstractMemoryless, Draw, Moments
from thalweg.sampling.outcomes import Outcomes


class Full(AbstractMemoryless):
    r"""The whole gradient :math:`\nabla f`: no noise, :math:`C = 0`. Cost: n gradients a step."""

    size: int = eqx.field(static=True, default=1, init=False)
    unbiased: ClassVar[bool] = True

    def draw(
        self, problem: FiniteSum, params: Params, state: None, stream: Stream, step: Any
    ) -> tuple[Draw, None]:
        """All samples with the problem's own weights."""
        return Draw(None, None), None

    def moments(self, problem: FiniteSum, params: Params, state: Any = None) -> Moments:
        """The weights themselves; the second moment is not used, for the factor is zero."""
        return Moments(problem.weights, jnp.zeros_like(problem.weights))

    def outcomes(
        self,
        problem: FiniteSum,
        params: Params,
        draws: Int[Array, "outcomes draws ..."] | None = None,
    ) -> Outcomes:
        """The one of all samples."""
        weights = problem.weights[None]
        return Outcomes(self.listed(problem, draws), weights, jnp.ones(1, weights.dtype))

    def outcome_count(self, problem: FiniteSum) -> int:
        """One."""
        return 1

    def all_draws(self, problem: FiniteSum) -> Int[np.ndarray, "outcomes draws ..."]:
        """The one of all samples."""
        return np.arange(problem.n, dtype=np.int32)[None]

    def variance_factor(self, problem: FiniteSum) -> float:
        """Zero."""
        return 0.0

    def evaluations(self, problem: FiniteSum) -> float:
        """All n."""
        return float(problem.n)
