"""Dynamics: what moves the parameters from one step to the next."""

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from thalweg.errors import InputError
from thalweg.gradnorms import problem_gradient_norms
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling import AbstractSampler
from thalweg.steps import as_transformation, check_step


class AbstractDynamics(eqx.Module):
    """One chain: an initial state and a step. :func:`thalweg.simulate` runs many of them."""

    @abstractmethod
    def check(self, start: Params) -> None:
        """Raise InputError if the dynamics cannot run from this start."""

    @abstractmethod
    def init(self, start: Params) -> Any:
        """The state of a chain before its first step; it has an attribute ``params``."""

    @abstractmethod
    def advance(self, state: Any, stream: Stream, step: Any) -> Any:
        """The state after step number ``step`` (from 0), with randomness from ``stream`` alone."""

    @abstractmethod
    def evaluations(self) -> float:
        """Per-sample gradients evaluated in a step, on average."""


class DescentState(NamedTuple):
    """What stochastic gradient descent keeps from step to step.

    Attributes:
        params: The parameters.
        sampler: The sampler's state.
        optimiser: The Optax state.
    """

    params: Params
    sampler: Any
    optimiser: Any


class Descent(AbstractDynamics):
    r"""Stochastic gradient descent, :math:`\theta_{k+1} = \theta_k - \eta \hat g_k(\theta_k)`.

    Args:
        problem: The objective.
        sampler: How the gradient :math:`\hat g` is drawn.
        step: :math:`\eta`, or an Optax schedule of k, or any Optax transformation, which then maps
            the gradients to the updates. Time is t = eta k.

    Raises:
        InputError: A step that is not positive and finite, or a sampler that cannot draw from the
            problem (batch above n, groups missing).
    """

    problem: FiniteSum
    sampler: AbstractSampler
    step: Any

    def __init__(self, problem: FiniteSum, sampler: AbstractSampler, step: Any):
        check_step(step)
        sampler.check(problem)
        self.problem = problem
        self.sampler = sampler
        is_rule = callable(step) or isinstance(step, optax.GradientTransformation)
        # An array, so that another step does not compile anew.
        self.step = step if is_rule else jnp.asarray(step, dtype=jnp.result_type(float))

    def check(self, start: Params) -> None:
        """The loss on these parameters is a scalar, and the objective finite."""
        self.problem.check_params(start)
        value = float(_objective(self.problem, start))
        if not math.isfinite(value):
            raise InputError(
                f"the objective at the start is {value}; expected a finite number, so start inside "
                "the domain of the loss"
            )

    def init(self, start: Params) -> DescentState:
        """Parameters at the start; sampler and optimiser fresh."""
        return DescentState(
            start,
            self.sampler.init(self.problem, start),
            self._transformation(start).init(start),
        )

    def advance(self, state: DescentState, stream: Stream, step: Any) -> DescentState:
        """One draw, one gradient, one update."""
        draw, sampler = self.sampler.draw(self.problem, state.params, state.sampler, stream, step)
        gradient = self.problem.gradient(state.params, draw.index, draw.weights)
        # Optax relies on standard promotion (Adam raises a number to the power of an integer).
        with jax.numpy_dtype_promotion("standard"):
            updates, optimiser = self._transformation(state.params).update(
                gradient, state.optimiser, state.params
            )
            params = optax.apply_updates(state.params, updates)
        return DescentState(params, sampler, optimiser)

    def evaluations(self) -> float:
        """The sampler's."""
        return self.sampler.evaluations(self.problem)

    def stationary(self, params: Params) -> Bool[Array, ""]:
        """Whether the gradient of every sample vanishes: a fixed point, however one draws."""
        return jnp.all(problem_gradient_norms(self.problem, params) == 0)

    def _transformation(self, params: Params) -> optax.GradientTransformation:
        if isinstance(self.step, jax.Array):
            return as_transformation(self.step.astype(jnp.result_type(*jax.tree.leaves(params))))
        return as_transformation(self.step)


@eqx.filter_jit
def _objective(problem: FiniteSum, params: Params) -> Array:
    return problem.value(params)
