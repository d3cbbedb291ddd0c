r"""Second moments of the samples' gradients: empirical Fisher matrix and covariance."""

from copy import copy
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from thalweg.curvature.operator import Operator, check_point
from thalweg.curvature.sums import Source, stacked, summed
from thalweg.errors import InputError
from thalweg.problem import FiniteSum, Loss, Params
from thalweg.sampling.base import AbstractMemoryless, AbstractSampler, centred


def fisher(problem: Source, params: Params) -> Operator:
    r"""The empirical Fisher matrix :math:`\sum_i a_i g_i g_i^\top`, :math:`g_i = \nabla f_i`.

    With the labels of the data, and hence "empirical": Fisher's own has labels drawn from the
    model. About two gradients a product.

    Raises:
        InputError: Parameters that the loss does not take.
    """
    size, dtype = check_point(problem, params)
    return Operator(
        lambda vector: summed(_square_term, problem, params, vector),
        size,
        dtype,
        lambda vector: _squares(problem, params, vector),
    )


def gradient_covariance(
    problem: FiniteSum, params: Params, sampler: AbstractSampler, state: Any = None
) -> Operator:
    r"""The covariance :math:`C(\theta)` of one stochastic gradient, the batch included.

    For any sampler without memory between draws: with :func:`thalweg.sampling.base.centred`,

    .. math:: C = \kappa \Big[ \sum_i p_i (w_i g_i - m)(w_i g_i - m)^\top + r\,m m^\top \Big],
        \qquad m = E[\hat g],

    with :math:`\kappa = 1/B`, or :math:`(n - B)/(B (n - 1))` without replacement. Nothing cancels
    where C is small against :math:`m m^\top`. It is the operator of
    ``sampler.covariance(problem, params)``; ``state`` are scores that it keeps, as there. About two
    gradients a product.

    Raises:
        InputError: Parameters that the loss does not take, a sampler that cannot draw from the
            problem, or one whose draws depend on earlier ones (a pass, a cycle).
    """
    if not isinstance(sampler, AbstractMemoryless):
        raise InputError(
            f"{type(sampler).__name__} draws depending on earlier draws and has no covariance of "
            "one step; expected a sampler without memory, such as Minibatch or Reweighted"
        )
    size, dtype = check_point(problem, params)
    sampler.check(problem)
    moments = sampler.moments(problem, params, state)
    law = jax.tree.map(lambda x: x.astype(dtype), centred(moments))
    mean = ravel_pytree(problem.gradient(params, weights=moments.first))[0]
    factor = sampler.variance_factor(problem)
    # A copy, for a new problem would look through all data again.
    pairs = copy(problem)
    pairs.loss, pairs.data = _Weighted(problem.loss), (problem.data, law.weights)
    pairs.weights = law.probabilities

    def apply(vector: Array) -> Array:
        squares = summed(_deviation_term, pairs, params, mean, vector)
        return factor * (squares + law.rest * mean * jnp.dot(mean, vector))

    return Operator(apply, size, dtype)


def _squares(problem: Source, params: Params, vector: Array) -> tuple[Array, Array]:
    slopes, weights = stacked(_slopes, problem, params, vector)
    return jnp.square(slopes), weights


def _slopes(loss: Loss, params: Params, data: Any, vector: Array) -> Array:
    flat, unravel = ravel_pytree(params)
    return jax.jvp(partial(_losses, loss, unravel, data), (flat,), (vector,))[1]


def _square_term(loss: Loss, params: Params, data: Any, weights: Array, vector: Array) -> Array:
    flat, unravel = ravel_pytree(params)
    losses = partial(_losses, loss, unravel, data)
    slopes = jax.jvp(losses, (flat,), (vector,))[1]
    return jax.vjp(losses, flat)[1](weights.astype(slopes.dtype) * slopes)[0]


def _deviation_term(
    loss: Loss, params: Params, data: Any, weights: Array, mean: Array, vector: Array
) -> Array:
    """The sum of p_i (w_i g_i - m) (w_i g_i - m).v; the loss is already times w_i."""
    flat, unravel = ravel_pytree(params)
    losses = partial(_losses, loss, unravel, data)
    slopes = jax.jvp(losses, (flat,), (vector,))[1] - jnp.dot(mean, vector)
    drawn = weights.astype(slopes.dtype) * slopes
    return jax.vjp(losses, flat)[1](drawn)[0] - jnp.sum(drawn) * mean


def _losses(loss: Loss, unravel: Any, data: Any, flat: Array) -> Array:
    return jax.vmap(loss, in_axes=(None, 0))(unravel(flat), data)


class _Weighted:
    """The loss of a sample times a number that comes with it."""

    def __init__(self, loss: Loss):
        self._loss = loss

    def __call__(self, params: Params, sample: Any) -> Array:
        inner, weight = sample
        value = self._loss(params, inner)
        return weight.astype(value.dtype) * value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Weighted) and self._loss == other._loss

    def __hash__(self) -> int:
        return hash(self._loss)
