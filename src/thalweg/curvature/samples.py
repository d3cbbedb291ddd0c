r"""The Hessians :math:`H_i` of the samples: their sizes, and how much they differ."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from thalweg.curvature.convolutions import with_small_kernels
from thalweg.curvature.hessians import curvatures, hessian
from thalweg.curvature.operator import Operator, check_finite, check_point, check_size
from thalweg.curvature.sums import Source, Term, halved, stacked, summed
from thalweg.errors import InputError
from thalweg.gradnorms import squared_gradient_norms
from thalweg.problem import Loss, Params


class SampleEstimates(NamedTuple):
    """A number for each sample, by random probes.

    Attributes:
        values: The estimates, shape (n,).
        errors: Their standard errors over the probes, shape (n,).
    """

    values: Float[np.ndarray, " n"]
    errors: Float[np.ndarray, " n"]


def nonuniformity_operator(problem: Source, params: Params) -> Operator:
    r""":math:`\Sigma = \sum_i a_i H_i^2 - H^2`, how much the samples' Hessians differ.

    It is positive semidefinite. The Hessian of sample i makes of v the gradient :math:`H_i v` of
    the slope :math:`v \cdot \nabla f_i(\theta)`, whose norm is known without :math:`H_i v` itself
    (:func:`thalweg.gradnorms.squared_gradient_norms`), and

    .. math:: \sum_i a_i H_i^2 v = \nabla_v \sum_i a_i \tfrac12 |H_i v|^2 .

    A product is right to rounding of :math:`H^2 v`: where :math:`\Sigma` is less than about
    :math:`10^{-6}` of that in single precision (:math:`10^{-15}` in double) it is rounding.

    Cost: about 5.5 gradients a product on dense layers, 8.5 on convolutions (on a CPU).

    Source: Wu, Ma and E, "How SGD selects the global minima" (2018), below equation (4).

    Raises:
        InputError: Parameters that the loss does not take.
    """
    size, dtype = check_point(problem, params)
    mean = hessian(problem, params)

    pieces = halved(problem)

    def apply(vector: Array) -> Array:
        return summed(_square_term, pieces, params, vector) - mean.apply(mean.apply(vector))

    return Operator(apply, size, dtype)


def nonuniformity_product(
    problem: Source, params: Params, vector: Float[Array, " size"]
) -> Float[Array, " size"]:
    """The product of :func:`nonuniformity_operator` with a flat vector."""
    return nonuniformity_operator(problem, params).apply(vector)


def sample_hessian_norms(
    problem: Source, params: Params, vector: Float[Array, " size"]
) -> Float[Array, " n"]:
    r"""The norms :math:`|H_i v|` of all samples, shape (n,).

    About 1.3 gradients of all samples together on dense layers, 2 on convolutions, and nothing of
    size n x P.

    Raises:
        InputError: Parameters that the loss does not take, or a vector of another size.
    """
    size, _ = check_point(problem, params)
    check_size(vector, size, "vector")
    return jnp.sqrt(jnp.maximum(stacked(_squares, problem, params, vector)[0], 0))


def sample_traces(
    problem: Source, params: Params, *, key: Key[Array, ""], probes: int = 10
) -> SampleEstimates:
    r"""The traces :math:`\mathrm{Tr} H_i` of all samples, by Hutchinson's estimator.

    The mean of :math:`z^\top H_i z` over vectors z of independent signs, the same for all samples.

    Raises:
        InputError: Parameters that the loss does not take, or fewer than 2 probes.

    Cost: about 1.4 gradients a probe.
    """
    return _probed(curvatures, problem, params, key, probes)


def sample_frobenius(
    problem: Source, params: Params, *, key: Key[Array, ""], probes: int = 10
) -> SampleEstimates:
    r"""The Frobenius norms :math:`|H_i|_F` of all samples.

    The root of the mean of :math:`|H_i z|^2` over vectors z of independent signs. Errors and cost
    as for :func:`sample_traces`.
    """
    squares = _probed(_squares, problem, params, key, probes)
    norms = np.sqrt(squares.values)
    return SampleEstimates(norms, squares.errors / np.where(norms > 0, 2 * norms, 1.0))


def _probed(
    numbers: Term, problem: Source, params: Params, key: Key[Array, ""], probes: int
) -> SampleEstimates:
    if probes < 2:
        raise InputError(f"probes={probes}; expected at least 2, whose spread is the error")
    size, dtype = check_point(problem, params)
    drawn = (jax.random.rademacher(one, (size,), dtype) for one in jax.random.split(key, probes))
    found = np.stack(
        [np.asarray(stacked(numbers, problem, params, z)[0], dtype=float) for z in drawn]
    )
    check_finite(found)
    return SampleEstimates(found.mean(axis=0), found.std(axis=0, ddof=1) / probes**0.5)


def _squares(loss: Loss, params: Params, data: Any, vector: Array) -> Array:
    """All |H_i v|^2 of a batch."""
    direction = ravel_pytree(params)[1](vector)

    def slope(p: Params, sample: Any) -> Array:
        return jax.jvp(lambda q: loss(q, sample), (p,), (direction,))[1]

    return squared_gradient_norms(slope, params, data)


def _square_term(loss: Loss, params: Params, data: Any, weights: Array, vector: Array) -> Array:
    def half(v: Array) -> Array:
        squares = _squares(loss, params, data, v)
        return jnp.dot(weights.astype(squares.dtype), squares) / 2

    return with_small_kernels(jax.grad(half))(vector)
