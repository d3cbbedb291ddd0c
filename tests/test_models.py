"""Models and losses against NumPy, SciPy and formulas done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from thalweg import models
from thalweg.errors import InputError
from thalweg.problem import FiniteSum

ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": scipy.special.expit,
}
KEY = jax.random.key(0)
# Sums of at most a few hundred products of numbers near one, each exact to 1.1e-16.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def filled(params, seed=0):
    """Float64 parameters of the same shapes with no zeros, so that biases and scales matter."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf) + 0.3 * generator.normal(size=leaf.shape)), params
    )


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def numpy_mlp(params, x, activation, residual):
    h = np.asarray(x).reshape(-1)
    for layer in params[:-1]:
        w, b = np.asarray(layer["w"]), np.asarray(layer["b"])
        a = ACTIVATIONS[activation](np.einsum("i,io->o", h, w) + b)
        h = h + a if residual and a.size == h.size else a
    return h @ np.asarray(params[-1]["w"]) + np.asarray(params[-1]["b"])


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("residual", [False, True])
def test_mlp_is_the_numpy_net(activation, residual):
    model = models.mlp((6, 5, 5, 6, 3), activation, residual)
    params = filled(model.init(KEY, jnp.float64))
    x = normal(1, 7, 2, 3)
    expected = [numpy_mlp(params, sample, activation, residual) for sample in x]
    one_by_one = jax.jit(jax.vmap(model.apply, (None, 0)))(params, x)
    batch, state = model.apply_batch(params, model.init_state(), x, train=True)
    np.testing.assert_allclose(one_by_one, expected, **ROUNDING)
    np.testing.assert_allclose(batch, expected, **ROUNDING)
    assert state == ()


def test_parameter_counts():
    assert count(models.mlp((64, 32, 10)).init(KEY)) == 64 * 32 + 32 + 32 * 10 + 10
    wide = models.mlp((784, 500, 500, 500, 10)).init(KEY)
    assert count(wide) == 784 * 500 + 2 * 500 * 500 + 500 * 10 + 3 * 500 + 10
    normalised = models.mlp((4, 3, 2), batch_norm=True).init(KEY)
    assert count(normalised) == 4 * 3 + 3 * 2 + 2 + 2 * 3
    convolutions = 9 * (3 * 16 + 16 * 16 + 16 * 32 + 32 * 64 + 64 * 64) + 16 + 16 + 32 + 64 + 64
    dense = 64 * 128 + 128 + 128 * 2 + 2
    assert count(models.vgg11_small().init(KEY)) == convolutions + dense == 71410


def test_residual_net_of_17_layers():
    model = models.mlp((2, *15 * [25], 2, 1), residual=True)
    params = model.init(KEY, jnp.float64)
    assert len(params) == 17
    # With zero weights the 14 layers between equal widths are the identity: the first layer's
    # value passes through them, which it would not without the connections.
    inner = jax.tree.map(jnp.zeros_like, params[1:15])
    x = jnp.array([0.3, -1.2])
    got = jax.jit(model.apply)((params[0], *inner, *params[15:]), x)
    first = np.maximum(x @ params[0]["w"], 0)
    second = np.maximum(first @ params[15]["w"], 0)
    np.testing.assert_allclose(got, second @ params[16]["w"], **ROUNDING)
    plain = models.mlp((2, *15 * [25], 2, 1))
    assert jax.jit(plain.apply)((params[0], *inner, *params[15:]), x) == 0
    # The output layer has no connection, even between equal widths.
    line = models.mlp((2, 2), residual=True)
    params = filled(line.init(KEY, jnp.float64))
    np.testing.assert_allclose(
        line.apply(params, x), x @ params[0]["w"] + params[0]["b"], **ROUNDING
    )


@pytest.mark.parametrize(
    ("init", "activation", "variance"),
    [
        (None, "relu", 2 / 400),
        (None, "tanh", 1 / 400),
        ("lecun", "relu", 1 / 400),
        ("he", "sigmoid", 2 / 400),
        ("normal", "sigmoid", 1.0),
    ],
)
def test_initialisation(init, activation, variance):
    first, last = models.mlp((400, 500, 1), activation, init=init).init(KEY, jnp.float64)
    # The relative standard error of a variance of n normal numbers is sqrt(2/n) = .0032 for
    # n = 200,000, less for truncated ones; of a mean of deviation one .0022. Five of each.
    assert np.var(first["w"]) == pytest.approx(variance, rel=5 * np.sqrt(2 / 200_000))
    assert abs(np.mean(first["w"])) < 5 * np.sqrt(variance / 200_000)
    assert not first["b"].any()
    assert not last["b"].any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_type_follows_the_parameters(dtype, batch_norm):
    model = models.mlp((4, 3, 3, 2), residual=True, batch_norm=batch_norm)
    params, state = model.init(KEY, dtype), model.init_state(dtype)
    for x in (np.arange(8, dtype=np.uint8), np.linspace(0, 1, 8, dtype=np.float32)):
        out, new = model.apply_batch(params, state, x.reshape(2, 4), train=True)
        alone = model.apply(params, x[:4], state)
        assert {leaf.dtype for leaf in jax.tree.leaves((out, new, alone))} == {jnp.dtype(dtype)}


def test_batch_norm_standardises_the_batch():
    model = models.mlp((5, 4, 4), "tanh", batch_norm=True)
    params = model.init(KEY, jnp.float64)
    # The identity as output layer shows the hidden one.
    params = (params[0], {"w": jnp.eye(4), "b": jnp.zeros(4)})
    x = normal(2, 50, 5)
    out, _ = model.apply_batch(params, model.init_state(jnp.float64), x, train=True)
    z = np.arctanh(out)
    v = np.var(np.asarray(x) @ np.asarray(params[0]["w"]), axis=0)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.var(axis=0), v / (v + 1e-5), rtol=1e-12)


def test_batch_norm_against_numpy_in_training_and_inference():
    model = models.mlp((5, 4, 4, 2), batch_norm=True, residual=True)
    params = filled(model.init(KEY, jnp.float64))
    state = filled(model.init_state(jnp.float64), 3)
    x = normal(4, 9, 5)

    def forward(statistics):
        h, seen = np.asarray(x), []
        for layer, given in zip(params[:-1], state, strict=True):
            w, b, scale = (np.asarray(layer[name]) for name in ("w", "b", "scale"))
            z = h @ w
            mean, variance = statistics(z, given)
            seen.append((z.mean(axis=0), z.var(axis=0, ddof=1)))
            a = np.maximum(scale * (z - mean) / np.sqrt(variance + 1e-5) + b, 0)
            h = h + a if a.shape == h.shape else a
        return h @ np.asarray(params[-1]["w"]) + np.asarray(params[-1]["b"]), seen

    expected, seen = forward(lambda z, _: (z.mean(axis=0), z.var(axis=0)))
    out, new = model.apply_batch(params, state, x, train=True)
    np.testing.assert_allclose(out, expected, **ROUNDING)
    for old, got, (mean, variance) in zip(state, new, seen, strict=True):
        np.testing.assert_allclose(got["mean"], 0.9 * old["mean"] + 0.1 * mean, **ROUNDING)
        np.testing.assert_allclose(
            got["variance"], 0.9 * old["variance"] + 0.1 * variance, **ROUNDING
        )

    expected, _ = forward(lambda _, given: (given["mean"], given["variance"]))
    out, same = model.apply_batch(params, state, x, train=False)
    alone = jax.vmap(model.apply, (None, 0, None))(params, x, state)
    np.testing.assert_allclose(out, expected, **ROUNDING)
    np.testing.assert_allclose(alone, expected, **ROUNDING)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, state))


def numpy_vgg(params, image):
    h = np.asarray(image)
    for layer in params[:5]:
        w, b = np.asarray(layer["w"]), np.asarray(layer["b"])
        padded = np.pad(h, ((1, 1), (1, 1), (0, 0)))
        size = len(h)
        patches = np.stack(
            [padded[i : i + size, j : j + size] for i in range(3) for j in range(3)], axis=2
        )
        h = np.maximum(np.einsum("hwpi,pio->hwo", patches, w.reshape(9, *w.shape[2:])) + b, 0)
        h = h.reshape(size // 2, 2, size // 2, 2, -1).max(axis=(1, 3))
    h = np.maximum(h.reshape(-1) @ np.asarray(params[5]["w"]) + np.asarray(params[5]["b"]), 0)
    return h @ np.asarray(params[6]["w"]) + np.asarray(params[6]["b"])


def test_vgg_is_the_numpy_net():
    model = models.vgg11_small()
    params = filled(model.init(KEY, jnp.float64))
    assert [layer["w"].shape[-1] for layer in params] == [16, 16, 32, 64, 64, 128, 2]
    images = np.random.default_rng(1).uniform(size=(2, 32, 32, 3))
    got = jax.jit(jax.vmap(model.apply, (None, 0)))(params, images)
    expected = np.array([numpy_vgg(params, image) for image in images])
    # The filled weights make outputs of 1e5 and more; rounding is relative to them.
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


@pytest.mark.slow
def test_vgg_derivatives_are_those_of_differences():
    model = models.vgg11_small()
    params = model.init(KEY, jnp.float64)
    loss = models.supervised(model, models.cross_entropy)
    sample = (np.random.default_rng(1).uniform(size=(32, 32, 3)), jnp.int32(1))
    direction = jax.tree.map(lambda leaf: 0.01 * normal(5, *leaf.shape), params)

    def inner(tree):
        return float(sum(jax.tree.leaves(jax.tree.map(np.vdot, direction, tree))))

    value_and_gradient = jax.jit(jax.value_and_grad(loss))
    hessian_vector = jax.jit(
        lambda p, v: jax.jvp(lambda q: jax.grad(loss)(q, sample), (p,), (v,))[1]
    )
    # h = 1e-5 crosses no kink here; a central difference errs by h^2 f'''/6, and 1e-11 by rounding.
    h = 1e-5

    def at(t):
        moved = jax.tree.map(lambda p, d: p + t * d, params, direction)
        return value_and_gradient(moved, sample)

    (above, uphill), (below, downhill), (_, gradient) = at(h), at(-h), at(0.0)
    slope, bend = inner(gradient), inner(hessian_vector(params, direction))
    assert min(abs(slope), abs(bend)) > 1e-4
    assert slope == pytest.approx(float(above - below) / (2 * h), rel=1e-7, abs=1e-9)
    assert bend == pytest.approx((inner(uphill) - inner(downhill)) / (2 * h), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (models.mlp((64, 32, 10)), (8, 8)),
        (models.mlp((2, *15 * [25], 2, 1), residual=True), (2,)),
        (models.vgg11_small(), (32, 32, 3)),
    ],
)
def test_in_a_finite_sum(model, shape):
    n = 5
    x = np.random.default_rng(1).uniform(size=(n, *shape))
    params = model.init(KEY, jnp.float64)
    outputs = jax.jit(jax.vmap(model.apply, (None, 0)))(params, x)
    loss = models.supervised(model, models.squared_error)
    problem = FiniteSum(loss, (x, np.ones(outputs.shape)))
    problem.check_params(params)
    value, gradient = jax.jit(jax.value_and_grad(problem.value))(params)
    assert value == pytest.approx(np.mean((np.asarray(outputs) - 1) ** 2), rel=1e-12)
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))
    # Equal models make equal losses, which share one compilation.
    assert hash(loss) == hash(models.supervised(model, models.squared_error))


def test_batch_norm_in_a_finite_sum_with_frozen_statistics():
    model = models.mlp((3, 4, 2), batch_norm=True)
    params = filled(model.init(KEY, jnp.float64))
    state = filled(model.init_state(jnp.float64), 3)
    x, y = normal(5, 6, 3), jnp.array([0, 1, 1, 0, 1, 0])
    problem = FiniteSum(models.supervised(model, models.cross_entropy, state), (x, y))
    out, _ = model.apply_batch(params, state, x, train=False)
    expected = jnp.mean(jax.vmap(models.cross_entropy)(out, y))
    assert jax.jit(problem.value)(params) == pytest.approx(float(expected), rel=1e-12)


def test_squared_error():
    outputs, target = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.5, 2.0, 1.0])
    assert models.squared_error(outputs, target) == pytest.approx((0.25 + 4) / 3, rel=1e-15)
    assert models.squared_error(outputs, target, "sum") == 4.25
    assert models.squared_error(jnp.array([3.0]), np.float32(1)) == 4
    with pytest.raises(InputError, match=r"outputs have shape \(3,\) and the target \(\).*one_hot"):
        models.squared_error(outputs, jnp.int32(2))
    with pytest.raises(InputError, match=r"unknown reduction 'men'; did you mean 'mean'"):
        models.squared_error(outputs, target, "men")


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_cross_entropy(scale):
    logits = scale * np.random.default_rng(0).normal(size=(20, 7))
    labels = np.arange(20) % 7
    got = jax.jit(jax.vmap(models.cross_entropy))(jnp.asarray(logits), jnp.asarray(labels))
    expected = -scipy.special.log_softmax(logits, axis=1)[np.arange(20), labels]
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * scale)
    gradient = jax.jit(jax.grad(models.cross_entropy))(jnp.asarray(logits[0]), 3)
    np.testing.assert_allclose(
        gradient, scipy.special.softmax(logits[0]) - np.eye(7)[3], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("label", [-1, 7])
def test_cross_entropy_of_no_class_is_not_a_number(label):
    assert jnp.isnan(models.cross_entropy(jnp.zeros(7), label))
    assert models.cross_entropy(jnp.zeros(7), 6) == pytest.approx(np.log(7))


def test_logistic():
    logits = np.array([-800.0, -3.0, 0.0, 0.7, 800.0])
    for label in (0, 1):
        margin = (2 * label - 1) * logits
        got = [models.logistic(jnp.array([logit]), label) for logit in logits]
        np.testing.assert_allclose(got, np.logaddexp(0, -margin), rtol=1e-14, atol=0)
    slope = jax.grad(models.logistic)(jnp.float64(0.7), np.int32(1))
    assert slope == pytest.approx(scipy.special.expit(0.7) - 1, rel=1e-14)
    with pytest.raises(InputError, match=r"one output, got the shape \(2,\); use cross_entropy"):
        models.logistic(jnp.zeros(2), 1)


@pytest.mark.parametrize("chunk_size", [1, 7, 20, 1000])
def test_accuracy_counts(chunk_size):
    model = models.mlp((4, 5, 3))
    params = filled(model.init(KEY))
    x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    y = np.random.default_rng(2).integers(0, 3, 20).astype(np.int32)
    outputs = np.asarray(jax.vmap(model.apply, (None, 0))(params, x))
    hits = outputs.argmax(axis=1) == y
    assert 0 < sum(hits) < 20
    got = models.accuracy(model, params, x, y, chunk_size=chunk_size)
    assert got == pytest.approx(sum(hits) / 20, rel=1e-6)


def test_accuracy_of_one_output_and_with_a_state():
    line = models.mlp((1, 1))
    params = ({"w": jnp.ones((1, 1)), "b": jnp.array([-0.5])},)
    assert models.accuracy(line, params, jnp.array([[0.0], [1.0], [2.0], [3.0]]), [0, 1, 1, 0]) == (
        pytest.approx(0.75)
    )
    model = models.mlp((1, 1, 2), "tanh", batch_norm=True)
    identity = {"w": jnp.ones((1, 1)), "b": jnp.zeros(1), "scale": jnp.ones(1)}
    params = (identity, {"w": jnp.array([[-1.0, 1.0]]), "b": jnp.zeros(2)})
    x, y = jnp.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    for mean, expected in ((1.5, 1.0), (2.5, 0.75)):
        state = ({"mean": jnp.array([mean]), "variance": jnp.ones(1)},)
        assert models.accuracy(model, params, x, y, state) == pytest.approx(expected)


def test_equal_models_are_one():
    assert models.mlp([3, 2]) == models.mlp((3, 2), "relu", init="he")
    assert models.mlp((3, 2)) != models.mlp((3, 2), "tanh")
    assert models.vgg11_small() == models.vgg11_small()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.mlp((3, 2), "rellu"), "unknown activation 'rellu'; did you mean 'relu'"),
        (lambda: models.mlp((3, 2), init="hee"), "unknown initialisation 'hee'; did you mean 'he'"),
        (lambda: models.mlp((3,)), r"widths is \(3,\); expected at least two positive numbers"),
        (lambda: models.mlp((3, 0, 2)), r"widths is \(3, 0, 2\); expected at least two positive"),
    ],
)
def test_bad_models(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_bad_samples():
    model = models.mlp((3, 4, 2), batch_norm=True)
    params, state = model.init(KEY), model.init_state()
    with pytest.raises(InputError, match=r"a sample has 4 numbers; expected 3, the first width"):
        model.apply(params, np.zeros((2, 2), np.float32), state)
    with pytest.raises(InputError, match="one sample with running statistics"):
        model.apply(params, np.zeros(3, np.float32))
    with pytest.raises(InputError, match="two samples at least, got a batch of one"):
        model.apply_batch(params, state, np.zeros((1, 3), np.float32), train=True)
    vgg = models.vgg11_small()
    with pytest.raises(InputError, match=r"a sample has shape \(28, 28\); expected \(32, 32, 3\)"):
        vgg.apply(vgg.init(KEY), np.zeros((28, 28), np.float32))
    line = models.mlp((1, 2))
    for x, y in ((np.zeros((2, 1)), np.zeros(3)), (np.zeros((2, 1)), np.zeros((2, 2)))):
        with pytest.raises(InputError, match="got 2 samples and labels of shape"):
            models.accuracy(line, line.init(KEY), x, y)
