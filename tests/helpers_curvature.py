"""What the tests of curvature share: a net with dense truths, matrices of known spectra."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import thalweg as tw
from thalweg import curvature, reference

# n = 11 samples of unequal weight, P = 24 parameters.
WEIGHTS = np.arange(1.0, 12) / 66
SIZE = 24


def outputs(params, sample):
    """A net with one hidden layer, in a nested pytree."""
    hidden = jnp.tanh(sample[0] @ params["first"]["W"] + params["first"]["b"])
    return hidden @ params["W"]


def cost(z, sample):
    """The squared error."""
    return jnp.sum((z - sample[1]) ** 2)


def loss(params, sample):
    """The two together."""
    return cost(outputs(params, sample), sample)


def net(dtype=jnp.float64, chunk_size=4096, weights=WEIGHTS):
    """The problem and a point."""
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = {"first": {"W": (3, 4), "b": (4,)}, "W": (4, 2)}
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda s: isinstance(s, tuple))
    normal = [jax.random.normal(k, s, dtype) for k, s in zip(keys, leaves, strict=False)]
    data = (jax.random.normal(keys[3], (11, 3), dtype), jax.random.normal(keys[4], (11, 2), dtype))
    groups = np.arange(11) % 3
    problem = tw.FiniteSum(loss, data, weights=weights, groups=groups, chunk_size=chunk_size)
    return problem, jax.tree.unflatten(tree, normal)


def direction(seed=7, size=SIZE):
    """A normal vector."""
    return jax.random.normal(jax.random.key(seed), (size,))


def dense(problem, params):
    """The samples' Hessians, H and Sigma."""
    hessians = reference.sample_hessians(problem, params)
    return (
        hessians,
        reference.mean_matrix(hessians, problem.weights),
        reference.nonuniformity_matrix(hessians, problem.weights),
    )


def sample_gradients(problem, params):
    """All gradients, shape (n, P)."""
    flat, unravel = ravel_pytree(params)
    one = jax.grad(lambda p, s: problem.loss(unravel(p), s))
    return jax.jit(jax.vmap(one, (None, 0)))(flat, problem.data)


def dense_gauss_newton(problem, params):
    """sum a_i J_i' (2 I) J_i: the cost is the sum of squares."""
    flat, unravel = ravel_pytree(params)
    one = jax.jacobian(lambda p, s: outputs(unravel(p), s))
    jacobians = jax.jit(jax.vmap(one, (None, 0)))(flat, problem.data)
    return 2 * jnp.einsum("n,nka,nkb->ab", problem.weights, jacobians, jacobians)


def matrix_operator(values, dtype=jnp.float64, along=None):
    """A symmetric matrix with the eigenvalues asked for, and its eigenvectors as columns."""
    size = len(values)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((size, size)))[0]
    matrix = jnp.asarray((rotation * values) @ rotation.T, dtype)
    return curvature.Operator(lambda v: matrix @ v, size, dtype, along), rotation
