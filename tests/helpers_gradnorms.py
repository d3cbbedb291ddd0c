"""What the tests of gradient norms share: the dense truth, leaf by leaf."""

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw

# Compiled for running once.
QUICKLY = {"xla_backend_optimization_level": 0}


def dense_squares(loss, params, data):
    """The squared norm of each leaf's gradient for each sample: a list of arrays."""

    def squares(params, sample):
        gradient = jax.grad(loss)(params, sample)
        return [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient)]

    return jax.jit(jax.vmap(squares, (None, 0)), compiler_options=QUICKLY)(params, data)


def norms_of_leaves(loss, params, data):
    """The norms of all leaves and the explanation."""
    explanations = []

    def norms(params, data):
        norms, explanation = tw.sample_gradient_norms(
            loss, params, data, groups="leaf", explain=True
        )
        explanations.append(explanation)
        return norms

    norms = jax.jit(norms, compiler_options=QUICKLY)(params, data)
    return norms, explanations[-1]


def assert_norms_equal(loss, params, data):
    """Compare the norms of all leaves with those of dense gradients; returns the explanation."""
    norms, explanation = norms_of_leaves(loss, params, data)
    expected = dense_squares(loss, params, data)
    scale = np.max([np.max(x) for x in expected])
    for route, square in zip(explanation.routes, expected, strict=True):
        leaf, own = route.leaf, norms[route.leaf]
        # Squares are sums of at most some 1e5 products, of either sign, each right to a few
        # roundings of 1e-16 relative to the largest gradients: 1e-13 of these is ample.
        np.testing.assert_allclose(
            np.square(own), square, rtol=1e-11, atol=1e-13 * scale, err_msg=leaf
        )
    return explanation


def ways(explanation):
    """The way of each leaf, by its path."""
    return {route.leaf: route.way for route in explanation.routes}
