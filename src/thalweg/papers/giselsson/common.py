"""What several experiments of the slides share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw


def step_size(landscape: tw.Landscape) -> float:
    """The constant step of a landscape."""
    assert not callable(landscape.step)
    return landscape.step


def square(x: Float[Array, " d"]) -> Float[Array, ""]:
    """The squared distance from a solution at the origin."""
    return jnp.sum(x**2)


def norm(tree: Any) -> Float[Array, ""]:
    """The Euclidean norm of a pytree, as of a gradient."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def batch_gradients(
    problem: tw.FiniteSum, batch: int, point: Float[Array, " d"]
) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of every batch without replacement, and the samples in it."""
    outcomes = tw.Minibatch(batch).outcomes(problem, point)
    gradients = np.asarray(problem.gradients(point))
    index = np.asarray(outcomes.index)
    return np.einsum("ob,obd->od", np.asarray(outcomes.weights), gradients[index]), index


def least_product(gradients: Float[np.ndarray, "m d"]) -> float:
    r"""The largest :math:`\mu` with :math:`g_i \cdot g_j \ge \mu` for all i and j, i = j too."""
    return float((gradients @ gradients.T).min())


def losses_on(problem: tw.FiniteSum, x: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m n"]:
    """The terms of a problem of one variable on a grid."""
    return np.asarray(jax.jit(jax.vmap(problem.losses))(jnp.asarray(x)[:, None]))


def slopes_on(problem: tw.FiniteSum, x: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """The derivative of an objective of one variable on a grid."""
    return np.asarray(jax.jit(jax.vmap(problem.gradient))(jnp.asarray(x)[:, None]))[:, 0]
