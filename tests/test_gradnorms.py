"""Per-sample gradient norms against dense gradients, and their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from helpers import bowl_gradients, bowls
from thalweg.gradnorms import gradients_at_once, squared_norm


def net(params, sample):
    """A small tanh net with a pytree of parameters; half the squared error."""
    x, y = sample
    hidden = jnp.tanh(x @ params["in"]["W"] + params["in"]["b"])
    return 0.5 * jnp.square(hidden @ params["out"] - y)


def net_problem(dtype=float):
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=s) for s in ((7, 4), (4,), (4,), (23, 7), (23,))]
    W, b, out, x, y = (jnp.asarray(a, dtype) for a in arrays)
    return {"in": {"W": W, "b": b}, "out": out}, (x, y)


@pytest.mark.parametrize("chunk_size", [None, 22, 5])
def test_norms_of_a_net_equal_dense_gradients(chunk_size):
    params, data = net_problem()
    gradient = jax.jit(lambda sample: ravel_pytree(jax.grad(net)(params, sample))[0])
    expected = [np.linalg.norm(gradient((data[0][i], data[1][i]))) for i in range(23)]
    norms = jax.jit(lambda p: tw.sample_gradient_norms(net, p, data, chunk_size=chunk_size))(params)
    # The same products in another order: a few roundings each.
    np.testing.assert_allclose(norms, expected, rtol=1e-13)


def test_norms_of_quadratics_in_closed_form():
    problem, params = bowls(6, 3), jnp.asarray([0.3, -2.0, 1.0])
    expected = np.linalg.norm(bowl_gradients(problem, params), axis=1)
    norms = tw.sample_gradient_norms(problem.loss, params, problem.data)
    np.testing.assert_allclose(norms, expected, rtol=1e-14)


def test_a_sample_at_its_own_minimum_has_norm_zero():
    problem = bowls(6, 3)
    norms = tw.sample_gradient_norms(problem.loss, problem.data["centre"][2], problem.data)
    assert norms[2] == 0
    assert (np.delete(np.asarray(norms), 2) > 0).all()


def test_single_precision():
    params, data = net_problem(jnp.float32)
    norms = jax.jit(lambda p: tw.sample_gradient_norms(net, p, data))(params)
    assert norms.dtype == jnp.float32
    double_params, double_data = net_problem()
    expected = jax.jit(lambda p: tw.sample_gradient_norms(net, p, double_data))(double_params)
    # Some 30 operations of relative error 6e-8 each, with mild cancellation in the error.
    np.testing.assert_allclose(norms, expected, rtol=2e-5)


def test_budget_of_memory():
    assert gradients_at_once({"a": jnp.ones(2**10)}) == 2**8
    # A gradient beyond the budget is taken one at a time.
    assert gradients_at_once(jax.ShapeDtypeStruct((2**25,), jnp.float32)) == 1


def test_squared_norm_goes_over_all_leaves():
    assert float(squared_norm({"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)})) == 14.0


def temporary_bytes(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_nothing_of_size_samples_times_parameters_is_made():
    # n x P is 2^16 x 2^12 numbers, 2 GiB; the budget is 2^18 numbers, 2 MiB in double precision.
    # A gradient is squared before it is summed: two or three of the size of the budget at most,
    # and the data, once more. The mean gradient in a trace runs in chunks of 4096 x 512 numbers.
    def loss(params, x):
        return jnp.sum(jnp.square(jnp.tanh(x @ params)))

    problem = tw.FiniteSum(loss, np.ones((2**16, 8)))
    params = jnp.ones((8, 512))
    budget, data = 8 * 2**18, 8 * 8 * 2**16
    everything = 8 * problem.n * params.size
    norms = temporary_bytes(lambda p: tw.sample_gradient_norms(loss, p, problem.data), params)
    assert norms < 3 * budget + 2 * data
    for sampler in (tw.Minibatch(4, replace=True), tw.Reweighted(4)):
        assert temporary_bytes(lambda p, s=sampler: s.trace(problem, p), params) < everything / 16
    small = temporary_bytes(
        lambda p: tw.sample_gradient_norms(loss, p, problem.data, chunk_size=64), params
    )
    # The data (4 MiB), a copy of it and 64 gradients of 32 KiB, some times over.
    assert small < 2 * 8 * 8 * 2**16 + 8 * 64 * params.nbytes
