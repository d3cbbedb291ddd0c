"""Gradient descent."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp

from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import AbstractMemoryless, Draw, Moments


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

    def variance_factor(self, problem: FiniteSum) -> float:
        """Zero."""
        return 0.0

    def evaluations(self, problem: FiniteSum) -> float:
        """All n."""
        return float(problem.n)
