"""Per-sample gradient norms against dense gradients, and their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from helpers import bowl_gradients, bowls
from helpers_gradnorms import dense_squares
from thalweg.errors import InputError
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


def dense_norms(loss, params, data):
    return np.sqrt(np.sum(dense_squares(loss, params, data), axis=0))


@pytest.mark.parametrize("chunk_size", [None, 22, 5])
def test_norms_of_a_net_equal_dense_gradients(chunk_size):
    params, data = net_problem()
    expected = dense_norms(net, params, data)
    norms = jax.jit(lambda p: tw.sample_gradient_norms(net, p, data, chunk_size=chunk_size))(params)
    # The same products in another order: a few roundings each.
    np.testing.assert_allclose(norms, expected, rtol=1e-13)


def test_without_jit_and_for_many_parameters():
    params, data = net_problem()
    norms = tw.sample_gradient_norms(net, params, data)
    np.testing.assert_allclose(norms, dense_norms(net, params, data), rtol=1e-13)
    several = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    mapped = jax.vmap(lambda p: tw.sample_gradient_norms(net, p, data))(several)
    np.testing.assert_allclose(mapped[0], norms, rtol=1e-13)


def test_groups_of_leaves():
    params, data = net_problem()
    squares = dense_squares(net, params, data)  # in/W, in/b, out

    def norms(groups):
        return tw.sample_gradient_norms(net, params, data, groups=groups)

    by_leaf, by_layer = norms("leaf"), norms("layer")
    assert list(by_leaf) == ["in/W", "in/b", "out"]
    assert list(by_layer) == ["in", ""]
    np.testing.assert_allclose(np.square(by_leaf["in/b"]), squares[1], rtol=1e-13)
    np.testing.assert_allclose(np.square(by_layer["in"]), squares[0] + squares[1], rtol=1e-13)
    # Labels of unlike types, and a prefix of the pytree.
    by_kind = norms(lambda leaf: "matrix" if leaf.endswith("W") else 1)
    np.testing.assert_allclose(np.square(by_kind[1]), squares[1] + squares[2], rtol=1e-13)
    by_label = norms({"in": 7, "out": "last"})
    np.testing.assert_allclose(by_label[7], by_layer["in"], rtol=1e-13)
    np.testing.assert_allclose(by_label["last"], by_layer[""], rtol=1e-13)


def test_explanation():
    params, data = net_problem()
    params["in"]["W"] = jnp.tile(params["in"]["W"], (1, 4))
    params["in"]["b"], params["out"] = jnp.zeros(16), jnp.ones(16)
    params["more"] = jnp.zeros(3)
    _, explanation = tw.sample_gradient_norms(net, params, data, explain=True)
    assert str(explanation) == (
        "in/W (7x16): factors, product of two norms (one use, 1 position)\n"
        "in/b (16): differentiated, for it enters add\n"
        "more (3): unused, its gradient is zero\n"
        "out (16): differentiated, for it is small\n"
        "samples at once: 23"
    )


def test_convolutions_are_kept_out_of_loops():
    def loss(params, x):
        h = jnp.convolve(x, params["w"][:3], mode="valid")
        return jnp.sum(jnp.tanh(h @ params["w"].reshape(3, -1)[:, :4].T))

    rng = np.random.default_rng(2)
    params, x = {"w": jnp.asarray(rng.normal(size=21))}, jnp.asarray(rng.normal(size=(7, 6)))

    def norms(params):
        return tw.sample_gradient_norms(loss, params, x, chunk_size=3)

    expected = dense_norms(loss, params, x)
    np.testing.assert_allclose(jax.jit(norms)(params), expected, rtol=1e-13)
    # Python's loop.
    np.testing.assert_allclose(norms(params), expected, rtol=1e-13)
    written_out = str(jax.make_jaxpr(norms)(params))
    assert "conv_general" in written_out
    assert "while" not in written_out
    assert "scan" not in written_out
    # What holds no convolution is a loop.
    own, data = net_problem()
    looped = jax.make_jaxpr(lambda p: tw.sample_gradient_norms(net, p, data, chunk_size=5))(own)
    assert "scan" in str(looped)


def linear(params, x):
    return jnp.sum(jnp.tanh(x @ params["w"]))


LINEAR = {"w": jnp.ones((4, 20))}
POINTS = jnp.ones((3, 4))


@pytest.mark.parametrize(
    ("loss", "params", "data", "message"),
    [
        (linear, LINEAR, POINTS[:0], r"n at least 1; got float64\[0, 4\]"),
        (linear, LINEAR, jnp.ones(()), r"one sample x is x\[None\]"),
        (linear, LINEAR, (POINTS, jnp.ones(2)), r"common leading axis"),
        (linear, {}, POINTS, r"params holds no arrays"),
        (linear, {"w": jnp.ones((4, 20), int)}, POINTS, r"params\['w'\] is of type int64.*1\.0"),
        (linear, {"w": "no array"}, POINTS, r"params\['w'\] is of type str.*equinox\.partition"),
        (lambda p, x: x @ p["w"], LINEAR, POINTS, r"must return one.*float64\[20\]; reduce it"),
        (lambda p, x: (linear(p, x), x), LINEAR, POINTS, r"new state.*inference mode"),
        (lambda p, x: jnp.argmax(x @ p["w"]), LINEAR, POINTS, r"floating point, got int64"),
        (lambda p, x: linear(p, x[0]), LINEAR, POINTS, r"one sample, float64\[4\], failed.*batch"),
        (lambda p, x: 1.0 if x[0] > 0 else linear(p, x), LINEAR, POINTS, r"jnp\.where"),
        (lambda p, x: linear(p, x - jax.lax.pmean(x, "b")), LINEAR, POINTS, r"batch statistics"),
    ],
)
def test_what_makes_no_sense(loss, params, data, message):
    with pytest.raises(InputError, match=message):
        tw.sample_gradient_norms(loss, params, data)


def test_bad_options():
    with pytest.raises(InputError, match=r"chunk_size must be at least 1, got 0"):
        tw.sample_gradient_norms(linear, LINEAR, POINTS, chunk_size=0)
    with pytest.raises(InputError, match=r"groups is 'layers'; expected 'leaf', 'layer'"):
        tw.sample_gradient_norms(linear, LINEAR, POINTS, groups="layers")
    with pytest.raises(InputError, match=r"another shape than params"):
        tw.sample_gradient_norms(linear, LINEAR, POINTS, groups={"v": 1})


def test_losses_with_a_hidden_state_are_refused():
    rng = np.random.default_rng(0)

    def dropout(params, x):
        return linear(params, x * (np.sign(rng.random(4) - 0.5)))

    with pytest.raises(InputError, match=r"not deterministic.*key part of the sample"):
        tw.sample_gradient_norms(dropout, LINEAR, POINTS)
    statistics = jax.new_ref(jnp.zeros(4))

    def counted(params, x):
        statistics[...] += x
        return linear(params, x)

    with pytest.raises(InputError, match=r"effects"):
        tw.sample_gradient_norms(counted, LINEAR, POINTS)

    # A key of one's own is data.
    def noisy(params, sample):
        x, key = sample
        return linear(params, x + jax.random.normal(key, x.shape))

    keys = jax.random.split(jax.random.key(1), 3)
    norms = tw.sample_gradient_norms(noisy, LINEAR, (POINTS, keys))
    np.testing.assert_allclose(norms, dense_norms(noisy, LINEAR, (POINTS, keys)), rtol=1e-13)


def test_one_sample_and_a_leaf_without_use():
    params = LINEAR | {"unused": jnp.ones(3)}
    norms = tw.sample_gradient_norms(linear, params, POINTS[:1], groups="leaf")
    assert norms["unused"] == 0
    np.testing.assert_allclose(norms["w"], dense_norms(linear, LINEAR, POINTS[:1]), rtol=1e-13)


def test_half_precision_is_squared_in_single():
    # Gradients of 1e3 have squares beyond the largest half, 65504.
    params = {"w": jnp.full((4, 20), 0.125, jnp.float16)}
    x = jnp.full((2, 4), 1000.0, jnp.float16)
    norms = tw.sample_gradient_norms(lambda p, x: jnp.sum(x @ p["w"]), params, x)
    assert norms.dtype == jnp.float32
    # Exact numbers but for the root: 80 entries of 1000.
    np.testing.assert_allclose(norms, np.sqrt(80) * 1000, rtol=2**-22)


def test_a_new_loss_is_not_taken_for_an_old_one():
    for factor in (1.0, 2.0):
        norms = tw.sample_gradient_norms(lambda p, x, f=factor: f * linear(p, x), LINEAR, POINTS)
        expected = factor * dense_norms(linear, LINEAR, POINTS)
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
