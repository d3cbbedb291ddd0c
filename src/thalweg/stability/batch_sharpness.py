"""The curvature that the batches of SGD see along their own gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from thalweg.errors import InputError
from thalweg.estimate import Estimate
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.minibatch import Minibatch
from thalweg.stability.batches import problem_factor


def batch_sharpness(
    problem: FiniteSum,
    params: Params,
    *,
    batch_size: int,
    key: Array,
    replace: bool = False,
    batches: int = 64,
) -> Estimate:
    r"""Batch sharpness: the mean over batches of :math:`g_B^\top H_B g_B / |g_B|^2`.

    :math:`g_B, H_B` are gradient and Hessian of the batch's mean loss, away from minima. Under SGD
    with a constant step it is this number that rises to and settles at :math:`2/\eta`, where
    :math:`\lambda_{\max}(H)` stays below. The mean over drawn batches with its standard error.

    Cost: ``batches`` products with a batch's Hessian, about three gradients of B samples each.

    Source: A. Andreyev and P. Beneventano, "Edge of stochastic stability: revisiting the edge of
    stability for SGD" (2024).

    Raises:
        InputError: A batch size out of range, unequal weights without replacement for B > 1, fewer
            than two batches, or a point where a drawn batch's gradient vanishes (an interpolating
            minimum), where the quotient has no meaning.
    """
    problem_factor(problem, batch_size, replace)
    problem.check_params(params)
    if batches < 2:
        raise InputError(f"batches={batches}; expected at least 2, for an error")
    values = np.asarray(_quotients(problem, params, key, Minibatch(batch_size, replace), batches))
    if not np.isfinite(values).all():
        raise InputError(
            f"the gradients of {int((~np.isfinite(values)).sum())} of {batches} batches vanish or "
            "are not finite; expected a point away from interpolating minima"
        )
    error = float(values.std(ddof=1) / np.sqrt(batches))
    return Estimate(float(values.mean()), error, batches)


@partial(jax.jit, static_argnames=("sampler", "batches"))
def _quotients(
    problem: FiniteSum, params: Params, key: Array, sampler: Minibatch, batches: int
) -> Array:
    def quotient(number: Array) -> Array:
        draw = sampler.draw(problem, params, None, Stream.of(key, number), 0)[0]
        slope = partial(problem.gradient, index=draw.index, weights=draw.weights)
        gradient = slope(params)
        product = jax.jvp(slope, (params,), (gradient,))[1]
        g, Hg = ravel_pytree(gradient)[0], ravel_pytree(product)[0]
        return jnp.dot(g, Hg) / jnp.dot(g, g)

    return jax.lax.map(quotient, jnp.arange(batches, dtype=jnp.uint32))
