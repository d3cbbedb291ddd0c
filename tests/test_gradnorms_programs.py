"""Norms of per-sample gradients of many kinds of programs, against dense gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_gradnorms import QUICKLY, dense_squares, norms_of_leaves
from programs_gradnorms import CASES, all_in_one, arrays
from thalweg.gradnorms import squared_gradient_norms

# Cases whose leaves have uses of their own in a derivative; all that have one in the slow test.
FEW = ["tied", "conv", "tied-embedding", "recurrent"]
# A rule of one's own for reverse mode cannot be differentiated along a direction.
ALL = [name for name in CASES if name != "custom"]


def assert_close(own, expected, leaf, scale=0.0):
    # Sums of at most some 1e4 products of either sign, each right to a few roundings: of single
    # precision where there is a cast to it, for dense gradients are rounded to that.
    digits = 2**-23 / 2**-52 if "cast" in leaf else 1.0
    np.testing.assert_allclose(
        own, expected, rtol=1e-11 * digits, atol=1e-13 * digits * scale, err_msg=leaf
    )


@pytest.fixture(scope="module")
def first_order():
    loss, params, data = all_in_one(CASES)
    norms, explanation = norms_of_leaves(loss, params, data)
    routes = {route.leaf: route for route in explanation.routes}
    expected = dense_squares(loss, params, data)
    return norms, dict(zip(routes, expected, strict=True)), routes


@pytest.mark.parametrize("name", CASES)
def test_norms_and_routes(first_order, name):
    norms, expected, routes = first_order
    ways = jax.tree_util.tree_leaves_with_path(CASES[name].ways)
    for path, way in ways:
        leaf = f"{name}/" + jax.tree_util.keystr(path, simple=True, separator="/")
        assert_close(np.square(norms[leaf]), expected[leaf], leaf, np.max(expected[leaf]))
        assert (np.max(expected[leaf]) > 0) == (way != "unused")
        assert routes[leaf].way == way, str(routes[leaf])


def test_reasons(first_order):
    routes = first_order[2]
    reasons = {leaf: str(route) for leaf, route in routes.items()}
    assert reasons["cast/w"].endswith("factors, product of two norms (one use, 1 position)")
    assert "inner products (3 uses, 3 positions)" in reasons["tied/w"]
    assert reasons["split/of_weight"].count("one use, 3 positions") == 3
    assert "shapes that do not fit together" in reasons["split/overlap"]
    assert "enters cond" in reasons["nested/branch"]
    assert "enters custom_vjp_call" in reasons["custom/custom"]
    assert "carried by a scan" in reasons["recurrent/start"]
    assert reasons["mixed/scale"] == "mixed/scale (scalar): differentiated, for it enters mul"


def along(loss, v):
    """The derivative of a loss along v."""
    return lambda params, sample: jax.jvp(lambda p: loss(p, sample), (params,), (v,))[1]


@pytest.mark.parametrize("names", [FEW, pytest.param(ALL, marks=pytest.mark.slow)])
def test_squared_norms_of_hessian_products_and_their_gradient(names):
    # Every weight enters at least two products here: W a and W a' with a' the tangent of a.
    loss, params, data = all_in_one(names)
    v = jax.tree.map(lambda x: 0.3 * jnp.cos(7 * x), params)
    weights = jnp.linspace(0.1, 0.4, 4)

    @partial(jax.jit, compiler_options=QUICKLY)
    def ours(v):
        def half(v):
            squares = squared_gradient_norms(along(loss, v), params, data, groups="leaf")
            return 0.5 * sum(weights @ s for s in squares.values()), squares

        return jax.grad(half, has_aux=True)(v)

    @partial(jax.jit, compiler_options=QUICKLY)
    def dense(v):
        # H_i v by forward over reverse mode, and H_i (H_i v) by another one.
        def product(sample, v):
            return jax.jvp(lambda p: jax.grad(loss)(p, sample), (params,), (v,))[1]

        once = jax.vmap(product, (0, None))(data, v)
        twice = jax.vmap(product)(data, once)
        squares = [jnp.sum(x.reshape(4, -1) ** 2, axis=1) for x in jax.tree.leaves(once)]
        return jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), twice), squares

    own, expected = ours(v), dense(v)
    leaves = [leaf for leaf, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path in leaves]
    scale = max(float(jnp.max(x)) for x in expected[1])
    for leaf, square in zip(names, expected[1], strict=True):
        assert_close(own[1][leaf], square, leaf, scale)
    products = map(jax.tree.leaves, (own[0], expected[0]))
    for leaf, a, b in zip(names, *products, strict=True):
        assert_close(a, b, leaf, max(scale, float(jnp.max(jnp.abs(b)))))


# What a random program does to a vector of length 6 with a matrix of 6 x 6 or a vector of 6, and
# the number of its parameter: parameters are few, so that some have several uses.
def _scanned(h, w):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), h, None, length=2)[0]


STEPS = {
    "left": lambda h, w, b: w @ h,
    "right": lambda h, w, b: h @ w,
    "transposed": lambda h, w, b: w.T @ jnp.tanh(h),
    "reshaped": lambda h, w, b: (w.reshape(12, 3)[::-1] @ h[:3])[3:9],
    "sliced": lambda h, w, b: jnp.concatenate([w[:3] @ h, h[3:]]),
    "scaled": lambda h, w, b: h @ (w * 0.5),
    "positions": lambda h, w, b: jnp.tanh(jnp.stack([h, h * h]) @ w).sum(0),
    "window": lambda h, w, b: jnp.convolve(h, b[:3], mode="same"),
    "looked up": lambda h, w, b: w[jnp.argmax(h)] + h,
    "scanned": lambda h, w, b: _scanned(h, w),
    "bias": lambda h, w, b: h + b,
    "gain": lambda h, w, b: jnp.tanh(h) * b,
    "squared": lambda h, w, b: h @ (w @ w),
    "checkpoint": lambda h, w, b: jax.checkpoint(lambda h: jnp.sin(h @ w))(h),
    "branch": lambda h, w, b: jax.lax.cond(h[0] > 0, lambda: w @ h, lambda: h),
}


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 1)), min_size=1, max_size=5
    )
)
def test_random_compositions(steps):
    def loss(params, h):
        for name, which in steps:
            h = STEPS[name](h, params["w"][which], params["b"][which])
        return jnp.sum(jnp.sin(h)) + 0.0 * jnp.sum(params["b"][0])

    params = arrays({"w": [(6, 6)] * 2, "b": [(6,)] * 2}, 3)
    data = arrays((4, 6), 4)
    norms, explanation = norms_of_leaves(loss, params, data)
    expected = dense_squares(loss, params, data)
    scale = max(map(np.max, expected))
    for route, square in zip(explanation.routes, expected, strict=True):
        assert_close(np.square(norms[route.leaf]), square, f"{route} in {steps}", scale)
