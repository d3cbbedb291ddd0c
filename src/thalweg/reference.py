"""The slow truth: dense and obviously right, for small problems, tests and examples."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg.problem import FiniteSum, Params


@jax.jit
def sample_hessians(problem: FiniteSum, params: Params) -> Float[Array, "n size size"]:
    r"""The Hessians :math:`H_i` of all samples: n x P x P numbers."""
    flat, unravel = ravel_pytree(params)
    return jax.vmap(jax.hessian(lambda v, s: problem.loss(unravel(v), s)), in_axes=(None, 0))(
        flat, problem.data
    )


def mean_matrix(
    matrices: Float[Array, "n size size"], weights: Float[Array, " n"]
) -> Float[Array, "size size"]:
    r""":math:`H = \sum_i a_i H_i`."""
    return jnp.tensordot(weights.astype(matrices.dtype), matrices, axes=1)


def nonuniformity_matrix(
    matrices: Float[Array, "n size size"], weights: Float[Array, " n"]
) -> Float[Array, "size size"]:
    r""":math:`\Sigma = \sum_i a_i (H_i - H)^2 = \sum_i a_i H_i^2 - H^2`."""
    deviations = matrices - mean_matrix(matrices, weights)
    return mean_matrix(deviations @ deviations, weights)


def sufficient_matrix(
    matrices: Float[Array, "n size size"],
    weights: Float[Array, " n"],
    step: float,
    factor: float,
) -> Float[Array, "size size"]:
    r"""The matrix :math:`(I - \eta H)^2 + \eta^2 p \Sigma` of Wu, Ma and E, equation (4)."""
    contraction = jnp.eye(matrices.shape[1], dtype=matrices.dtype) - step * mean_matrix(
        matrices, weights
    )
    return contraction @ contraction + step**2 * factor * nonuniformity_matrix(matrices, weights)
