"""FiniteSum against dense closed forms, its memory, and what it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from helpers import bowls, counted_compilations
from thalweg.errors import InputError

N = 101
# One chunk; exactly n; one and a rest of 41; 8 unrolled ones and a rest; a loop of 14 and a rest.
CHUNK_SIZES = [4096, 101, 60, 12, 7]
# Sums of 101 terms of size below 100 round by less than 101 * 100 * 2.2e-16 = 2.3e-12.
TOLERANCE = {"rtol": 1e-12, "atol": 2.5e-12}


def linear_regression(params, sample):
    """Half the squared residual of y = x W + b, per sample."""
    residual = sample["x"] @ params["W"] + params["b"] - sample["y"]
    return 0.5 * jnp.sum(jnp.square(residual))


def regression_data(dtype=float):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 3)), rng.normal(size=(N, 2))
    return {"x": x.astype(dtype), "y": y.astype(dtype)}


def unequal_weights(n=N):
    weights = np.arange(1.0, n + 1)
    return weights / weights.sum()


def params_at(seed, dtype=float):
    rng = np.random.default_rng(seed)
    return {
        "W": jnp.asarray(rng.normal(size=(3, 2)), dtype),
        "b": jnp.asarray(rng.normal(size=2), dtype),
    }


def dense(params, index=slice(None)):
    """Losses and gradients of samples, by numpy; the gradients stacked."""
    data = regression_data()
    x, y = data["x"][index], data["y"][index]
    residual = x @ np.asarray(params["W"]) + np.asarray(params["b"]) - y
    gradients = {"W": x[:, :, None] * residual[:, None, :], "b": residual}
    return 0.5 * np.sum(residual**2, axis=1), gradients


def combination(weights, gradients):
    return {name: np.tensordot(weights, g, axes=1) for name, g in gradients.items()}


def assert_close(tree, expected, **tolerance):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, wanted, **(tolerance or TOLERANCE))


def regression(chunk_size=4096):
    return tw.FiniteSum(
        linear_regression, regression_data(), unequal_weights(), chunk_size=chunk_size
    )


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_sums_equal_dense_formulas(chunk_size):
    problem, params = regression(chunk_size), params_at(1)
    # 15 draws with repetition: one chunk, and several with a rest for the small chunk sizes.
    index, drawn = jnp.asarray([3, 100, 3, 0, 50, *range(10)]), np.linspace(-1.0, 2.0, 15)
    others = np.linspace(0.0, 1.0, N)

    @jax.jit
    def everything(params):
        return {
            "value": problem.value(params),
            "losses": problem.losses(params),
            "gradient": problem.gradient(params),
            "derivative": jax.grad(problem.value)(params),
            "estimate": problem.gradient(params, index, jnp.asarray(drawn)),
            "other weights": problem.gradient(params, weights=jnp.asarray(others)),
            "gradients": problem.gradients(params),
            "drawn": problem.gradients(params, index),
        }

    losses, gradients = dense(params)
    _, chosen = dense(params, np.asarray(index))
    full = combination(unequal_weights(), gradients)
    expected = {
        "value": unequal_weights() @ losses,
        "losses": losses,
        "gradient": full,
        "derivative": full,
        "estimate": combination(drawn, chosen),
        "other weights": combination(others, gradients),
        "gradients": gradients,
        "drawn": chosen,
    }
    assert_close(everything(params), expected)


@pytest.mark.parametrize("chunk_size", [4096, 12])
def test_vmap_and_second_derivatives(chunk_size):
    problem, points = regression(chunk_size), [params_at(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *points)
    both = jax.vmap(lambda p: (problem.gradient(p), jax.jacfwd(problem.gradient)(p)))
    gradients, hessians = jax.jit(both)(stacked)
    mean_x = unequal_weights() @ regression_data()["x"]
    for j, params in enumerate(points):
        expected = combination(unequal_weights(), dense(params)[1])
        assert_close(jax.tree.map(lambda g, j=j: g[j], gradients), expected)
        # The residual is linear: H_bb = I, H_Wb = mean of x times I.
        assert_close(hessians["b"]["b"][j], np.eye(2))
        assert_close(hessians["W"]["b"][j], np.multiply.outer(mean_x, np.eye(2)))


@pytest.mark.parametrize("size", [4096, 10])
def test_sum_over_samples_of_any_function(size):
    x, coefficients = regression_data()["x"], np.linspace(0.0, 1.0, N)
    got = regression().sum_over_samples(
        lambda s: {"outer": jnp.outer(s["x"], s["x"])}, jnp.asarray(coefficients), size
    )
    assert_close(got, {"outer": np.einsum("i,ij,ik->jk", coefficients, x, x)})


def test_equal_weights_make_a_mean():
    problem = tw.FiniteSum(linear_regression, regression_data())
    assert problem.uniform
    assert not tw.FiniteSum(linear_regression, regression_data(), unequal_weights()).uniform
    assert_close(problem.value(params_at(0)), dense(params_at(0))[0].mean())


def test_single_precision_stays_single():
    problem = tw.FiniteSum(linear_regression, regression_data(np.float32), unequal_weights())
    params = params_at(1, jnp.float32)
    value, gradient = problem.value(params), problem.gradient(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((value, gradient))} == {jnp.dtype("float32")}
    losses, gradients = dense(params_at(1))
    # Sums of 101 terms below 100 in single precision: 101 * 100 * 6e-8 at the very worst.
    assert_close(value, unequal_weights() @ losses, atol=6e-4)
    assert_close(gradient, combination(unequal_weights(), gradients), atol=6e-4)


def test_second_call_does_not_compile():
    problem = regression(12)
    value, gradient = jax.jit(problem.value), jax.jit(problem.gradient)
    points = [params_at(1), params_at(2)]
    jax.block_until_ready((value(points[0]), gradient(points[0])))
    with counted_compilations() as count:
        jax.block_until_ready((value(points[1]), gradient(points[1])))
        # A bound method is a new object each time; it must be recognised.
        jax.block_until_ready(jax.jit(problem.value)(points[1]))
    assert count() == 0


def test_compilations_are_counted():
    with counted_compilations() as count:
        jax.jit(lambda x: x * 3.25 + 1.5)(jnp.ones(13)).block_until_ready()
    assert count() >= 1


def test_groups_are_numbered_in_sorted_order():
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    problem = bowls(4, weights=weights, groups=["sea", "air", "sea", "land"])
    assert problem.n_groups == 3
    assert problem.groups.tolist() == [2, 0, 2, 1]
    np.testing.assert_allclose(problem.group_weights, [0.2, 0.4, 0.4], rtol=1e-15)


def test_a_finite_sum_of_terms():
    problem = tw.FiniteSum.of(
        lambda x: jnp.sum(x**2), lambda x: jnp.sin(x[0]), jnp.prod, weights=(0.5, 0.25, 0.25)
    )
    x = np.array([0.3, -1.7])
    terms = np.array([x @ x, np.sin(x[0]), x[0] * x[1]])
    gradients = np.array([2 * x, [np.cos(x[0]), 0.0], x[::-1]])
    assert (problem.n, problem.n_groups) == (3, 3)
    weights = np.array([0.5, 0.25, 0.25])

    @jax.jit
    def everything(x):
        index = jnp.asarray([2, 0])
        return [
            problem.losses(x),
            problem.value(x),
            problem.gradient(x),
            problem.gradients(x, index),
        ]

    expected = [terms, weights @ terms, weights @ gradients, gradients[[2, 0]]]
    assert_close(everything(jnp.asarray(x)), expected)


def test_is_a_pytree_with_the_data_as_leaves():
    problem = bowls(4, groups=[0, 1, 0, 1])
    params = jnp.asarray([0.5, -0.5])
    again = jax.tree.unflatten(jax.tree.structure(problem), jax.tree.leaves(problem))
    assert_close(again.gradient(params), problem.gradient(params))
    assert_close(jax.jit(lambda p: p.value(params))(problem), problem.value(params))


def test_a_module_with_arrays_can_be_the_loss():
    class Scaled(eqx.Module):
        scale: jax.Array

        def __call__(self, params, sample):
            return self.scale * jnp.sum(jnp.square(params - sample))

    problem = tw.FiniteSum(Scaled(jnp.asarray(3.0)), np.array([[0.0], [2.0]]))
    # (3/2) (1 + 1) at x = 1.
    assert_close(jax.jit(problem.value)(jnp.asarray([1.0])), 3.0)


def test_memory_of_sums_is_bounded_by_a_chunk():
    # n x P would be 2^16 x 2^12 numbers, 2 GiB. The gradient needs the data (4 MiB) cut into
    # chunks, a loop's copy of it, and activations of a chunk (256 x 512 numbers, 1 MiB each).
    n, width, chunk = 2**16, 512, 256

    def loss(params, x):
        return jnp.sum(jnp.square(jnp.tanh(x @ params)))

    problem = tw.FiniteSum(loss, np.ones((n, 8)), chunk_size=chunk)
    params = jnp.ones((8, width))
    for function in (problem.value, problem.gradient):
        analysis = jax.jit(function).lower(params).compile().memory_analysis()
        data, activations = 8 * n * 8, 8 * chunk * width
        assert analysis.temp_size_in_bytes < 3 * data + 16 * activations


def bad_data(leaf, value):
    data = regression_data()
    data[leaf][17, 1] = value
    return data


def scaled(total):
    return np.full(N, total / N)


REFUSED = {
    "nan": (lambda: tw.FiniteSum(bowl_loss, bad_data("x", np.nan)), r"data\['x'\].*\[17, 1\]"),
    "inf": (lambda: tw.FiniteSum(bowl_loss, bad_data("y", -np.inf)), r"data\['y'\].*1 places"),
    "negative weight": (
        lambda: tw.FiniteSum(bowl_loss, np.ones(3), [0.6, -0.1, 0.5]),
        r"weights\[1\] is -0\.1",
    ),
    "weight nan": (
        lambda: tw.FiniteSum(bowl_loss, np.ones(2), [np.nan, 1.0]),
        r"weights\[0\] is nan",
    ),
    "weights sum": (
        lambda: tw.FiniteSum(bowl_loss, regression_data(), scaled(2.0)),
        r"weights sum to 2; .*divide them",
    ),
    "weights shape": (
        lambda: tw.FiniteSum(bowl_loss, regression_data(), scaled(1.0)[1:]),
        r"weights has shape \(100,\); expected \(101,\)",
    ),
    "groups shape": (
        lambda: tw.FiniteSum(bowl_loss, np.ones(3), groups=["a", "b"]),
        r"groups has shape \(2,\); expected \(3,\)",
    ),
    "leading axes": (
        lambda: tw.FiniteSum(bowl_loss, {"x": np.ones((3, 2)), "y": np.ones(4)}),
        r"differ \(data\['x'\]: 3, data\['y'\]: 4\)",
    ),
    "scalar leaf": (
        lambda: tw.FiniteSum(bowl_loss, {"x": np.ones(3), "t": 2.0}),
        r"data\['t'\] is a scalar",
    ),
    "no samples": (lambda: tw.FiniteSum(bowl_loss, np.ones((0, 2))), "no samples"),
    "no arrays": (lambda: tw.FiniteSum(bowl_loss, {}), "no arrays"),
    "chunk size": (
        lambda: tw.FiniteSum(bowl_loss, np.ones(3), chunk_size=0),
        "chunk_size must be at least 1, got 0",
    ),
    "no terms": (lambda: tw.FiniteSum.of(), "at least one term"),
    "no groups": (lambda: bowls().group_weights, "pass groups="),
    "no group table": (lambda: bowls().require_group_table(), "pass groups="),
    "vector loss": (
        lambda: tw.FiniteSum(lambda p, s: p - s, np.ones((3, 2))).check_params(jnp.ones(2)),
        r"one floating-point number, got float64\[2\]; reduce it",
    ),
    "integer loss": (
        lambda: tw.FiniteSum(lambda p, s: s, np.arange(3)).check_params(jnp.ones(2)),
        r"one floating-point number, got int64\[\]",
    ),
    "tuple loss": (
        lambda: tw.FiniteSum(lambda p, s: (s, s), np.ones(3)).check_params(jnp.ones(2)),
        "one floating-point number",
    ),
    "integer params": (
        lambda: bowls().check_params({"a": jnp.ones(2), "b": jnp.arange(2)}),
        r"params\['b'\] has type int64; expected floating point",
    ),
    "empty params": (lambda: bowls().check_params({}), "params holds no arrays"),
    "wrong params": (
        lambda: bowls().check_params(jnp.ones(3)),
        r"cannot be evaluated on these parameters \(float64\[3\]\).*'centre'\]: float64\[2\]",
    ),
    "missing leaf": (
        lambda: tw.FiniteSum(linear_regression, regression_data()).check_params(
            {"W": jnp.ones((3, 2))}
        ),
        r"cannot be evaluated on these parameters \(\['W'\]",
    ),
}


def bowl_loss(params, sample):
    raise AssertionError("refused before the loss is called")


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make()


def test_weights_are_mended_to_rounding():
    # Off by 3e-7 in all, which is accepted: the sum is then one to rounding.
    problem = tw.FiniteSum(linear_regression, regression_data(), scaled(1 + 3e-7))
    assert abs(float(jnp.sum(problem.weights)) - 1) < 1e-14


def test_good_params_are_accepted():
    tw.FiniteSum(linear_regression, regression_data()).check_params(params_at(0))
