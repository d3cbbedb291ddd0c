"""Where a step of SGD goes from many points: exactly, or by its mean and covariance."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg.dynamics import Descent
from thalweg.errors import InputError
from thalweg.markov.chunks import in_chunks
from thalweg.sampling.base import AbstractMemoryless

Draws = Int[Array, "outcomes draws ..."]


def checked_step(descent: Descent) -> float:
    """The step; InputError unless it is a number, and nothing is being differentiated by."""
    if not eqx.is_array(descent.step):
        raise InputError(
            "SGD's transition matrix needs a number as the step: with a schedule the chain changes "
            "from step to step, and an optimiser has memory; simulate it"
        )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(descent)):
        raise InputError(
            "SGD's transition matrix is not differentiable (the cells that are reached change in "
            "jumps) and cannot be compiled; differentiate that of diffusion_limit(descent)"
        )
    return float(descent.step)


def checked_sampler(descent: Descent, dimension: int) -> AbstractMemoryless:
    """The sampler; InputError unless the chain is Markov in parameters of shape (dimension,)."""
    sampler, name = descent.sampler, type(descent.sampler).__name__
    params = jnp.zeros(dimension)
    descent.problem.check_params(params)
    if not isinstance(sampler, AbstractMemoryless):
        raise InputError(
            f"{name} is not Markov in the parameters: the draws of a pass depend on those before, "
            "so there is no transition matrix; use Minibatch, or simulate it"
        )
    if sampler.init(descent.problem, params) is not None:
        raise InputError(
            f"{name} keeps scores between its steps and is not Markov in the parameters, so there "
            "is no transition matrix; use refresh=1, or simulate it"
        )
    return sampler


class Images:
    r"""The moves :math:`-\eta \hat g` of all draws of a step, with their probabilities.

    Attributes:
        outcomes: The number m of draws.
        numbers: Numbers held for each point.
    """

    def __init__(self, descent: Descent, sampler: AbstractMemoryless, dimension: int):
        self._descent, self._sampler = descent, sampler
        self._draws: Draws | None = None
        self.outcomes = sampler.outcome_count(descent.problem)
        self.numbers = descent.problem.n * dimension
        if self.outcomes > 1:
            self._draws = jnp.asarray(sampler.all_draws(descent.problem))
            self.numbers += self._draws.size * (dimension + 1)

    def moves(
        self, points: Float[np.ndarray, "points d"]
    ) -> tuple[Float[np.ndarray, "points outcomes d"], Float[np.ndarray, "points outcomes"]]:
        """Moves from points and their probabilities.

        Raises:
            InputError: Gradients that are not finite.
        """

        def function(x: Any) -> Any:
            return _moves(self._descent, self._sampler, self._draws, x)

        moves, probabilities = in_chunks(function, (points,), self.numbers)
        _check_finite(points, moves, probabilities)
        return moves, probabilities


def image_moments(
    descent: Descent, sampler: AbstractMemoryless, points: Float[np.ndarray, "points d"]
) -> tuple[Float[np.ndarray, "points d"], Float[np.ndarray, "points d d"]]:
    """Mean and covariance of where a step goes from points.

    Raises:
        InputError: Gradients that are not finite.
    """

    def function(x: Any) -> Any:
        return _moments(descent, sampler, x)

    numbers = 3 * descent.problem.n * points.shape[1]
    mean, covariance = in_chunks(function, (points,), numbers)
    _check_finite(points, mean, covariance)
    return mean, covariance


@eqx.filter_jit
def _moves(
    descent: Descent,
    sampler: AbstractMemoryless,
    draws: Draws | None,
    points: Float[Array, "points d"],
) -> tuple[Float[Array, "points outcomes d"], Float[Array, "points outcomes"]]:
    problem = descent.problem

    def of_point(x: Float[Array, " d"]) -> tuple[Array, Array]:
        if draws is None:
            return -descent.step * sampler.mean(problem, x)[None], jnp.ones(1, x.dtype)
        outcomes = sampler.outcomes(problem, x, draws)
        gradients = problem.gradients(x)[outcomes.index]
        estimates = jnp.einsum("ob,obi->oi", outcomes.weights, gradients)
        return -descent.step * estimates, outcomes.probabilities

    return jax.vmap(of_point)(points)


@eqx.filter_jit
def _moments(
    descent: Descent, sampler: AbstractMemoryless, points: Float[Array, "points d"]
) -> tuple[Float[Array, "points d"], Float[Array, "points d d"]]:
    def of_point(x: Float[Array, " d"]) -> tuple[Array, Array]:
        mean = x - descent.step * sampler.mean(descent.problem, x)
        return mean, jnp.square(descent.step) * sampler.covariance(descent.problem, x)

    return jax.vmap(of_point)(points)


def _check_finite(points: Float[np.ndarray, "points d"], *values: np.ndarray) -> None:
    for value in values:
        bad = ~np.isfinite(value.reshape(len(points), -1)).all(axis=1)
        if bad.any():
            place = [float(f"{x:.6g}") for x in points[int(np.argmax(bad))]]
            raise InputError(
                f"the gradient at {place} is not finite; expected numbers on the whole grid, so "
                "take a smaller box, or leave these cells out by a mask"
            )
