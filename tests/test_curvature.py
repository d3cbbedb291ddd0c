"""Curvature operators against dense Hessians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from thalweg import curvature, reference
from thalweg.curvature import Operator
from thalweg.errors import InputError
from thalweg.problem import FiniteSum


def _loss(params, sample):
    x, y = sample
    hidden = jnp.tanh(x @ params["first"]["W"] + params["first"]["b"])
    return jnp.sum((hidden @ params["W"] - y) ** 2)


UNEVEN = np.arange(1.0, 12) / 66


def _net(dtype=jnp.float64, chunk_size=4096):
    """A net with P = 24 parameters in a nested pytree, n = 11 samples of unequal weight."""
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = {"first": {"W": (3, 4), "b": (4,)}, "W": (4, 2)}
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda s: isinstance(s, tuple))
    normal = [jax.random.normal(k, s, dtype) for k, s in zip(keys, leaves, strict=False)]
    data = (jax.random.normal(keys[3], (11, 3), dtype), jax.random.normal(keys[4], (11, 2), dtype))
    problem = FiniteSum(_loss, data, weights=UNEVEN, chunk_size=chunk_size)
    return problem, jax.tree.unflatten(tree, normal)


def _dense(problem, params):
    hessians = reference.sample_hessians(problem, params)
    return (
        hessians,
        reference.mean_matrix(hessians, problem.weights),
        reference.nonuniformity_matrix(hessians, problem.weights),
    )


def test_products_equal_dense_matrices():
    problem, params = _net()
    _, H, Sigma = _dense(problem, params)
    v = jax.random.normal(jax.random.key(7), (24,))
    # Sums of some 1e3 numbers of order 10 in double precision: 1e-16 * 1e4 < 1e-9.
    for operator, matrix in [
        (curvature.hessian(problem, params), H),
        (curvature.nonuniformity_operator(problem, params), Sigma),
    ]:
        np.testing.assert_allclose(operator.matvec(v), matrix @ v, rtol=0, atol=1e-9)
        np.testing.assert_allclose(operator.dense(), matrix, rtol=0, atol=1e-9)


def test_products_in_chunks_with_a_smaller_last_one(monkeypatch):
    # 11 = 4 + 4 + 3, for the gradient and for the per-sample products, whose budget of memory is
    # no argument of what operators have compiled: hence the functions themselves.
    monkeypatch.setattr("thalweg.gradnorms._BUDGET", 4 * 24 * 4)
    problem, params = _net(chunk_size=4)
    _, H, Sigma = _dense(problem, params)
    v = jax.random.normal(jax.random.key(7), (24,))
    got = jax.jit(curvature.hessian_product)(problem, params, v)
    np.testing.assert_allclose(got, H @ v, rtol=0, atol=1e-9)
    got = jax.jit(curvature.nonuniformity_product)(problem, params, v)
    np.testing.assert_allclose(got, Sigma @ v, rtol=0, atol=1e-9)


def test_products_are_symmetric_and_linear():
    problem, params = _net()
    u, v = jax.random.normal(jax.random.key(1), (2, 24))
    for operator in (
        curvature.hessian(problem, params),
        curvature.nonuniformity_operator(problem, params),
    ):
        Au, Av = operator.matvec(u), operator.matvec(v)
        np.testing.assert_allclose(v @ Au, u @ Av, rtol=1e-12)
        both = operator.matvec(2 * u - 3 * v)
        np.testing.assert_allclose(both, 2 * Au - 3 * Av, rtol=0, atol=1e-9)


def test_samples_that_agree_have_no_nonuniformity():
    # Quartic, so that the second derivatives are numbers with rounding.
    problem = FiniteSum(lambda p, c: jnp.sum((p / 3) ** 4) + c * p[0], jnp.array([0.1, 0.7]))
    params = jnp.array([1.1, 2.3])
    np.testing.assert_array_less(
        abs(curvature.nonuniformity_operator(problem, params).dense()), 1e-15
    )
    assert float(curvature.nonuniformity(problem, params)) < 1e-7


def test_sample_curvatures_equal_dense():
    problem, params = _net()
    hessians, _, _ = _dense(problem, params)
    v = jax.random.normal(jax.random.key(3), (24,))
    expected = jnp.einsum("a,nab,b->n", v, hessians, v)
    got = curvature.sample_curvatures(problem, params, v)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


def test_sharpness_and_nonuniformity_are_the_largest_eigenvalues():
    problem, params = _net()
    _, H, Sigma = _dense(problem, params)
    top = float(jnp.linalg.eigvalsh(H)[-1])
    assert float(curvature.sharpness(problem, params)) == pytest.approx(top, rel=1e-12)
    spread = float(jnp.sqrt(jnp.linalg.eigvalsh(Sigma)[-1]))
    assert float(curvature.nonuniformity(problem, params)) == pytest.approx(spread, rel=1e-12)


def test_nonuniformity_has_a_closed_form_in_one_dimension():
    # h = 0.2 and 3.8: mean of squares 7.24 minus 4, square root 1.8.
    problem = FiniteSum(lambda p, h: 0.5 * h * p[0] ** 2, jnp.array([0.2, 3.8]))
    assert float(curvature.nonuniformity(problem, jnp.ones(1))) == pytest.approx(1.8, rel=1e-14)
    assert float(curvature.sharpness(problem, jnp.ones(1))) == pytest.approx(2.0, rel=1e-14)


def test_float32_products():
    problem, params = _net(jnp.float32)
    exact = FiniteSum(_loss, jax.tree.map(lambda x: x.astype(float), problem.data), UNEVEN)
    _, _, Sigma = _dense(exact, jax.tree.map(lambda x: x.astype(float), params))
    v = jax.random.normal(jax.random.key(5), (24,), jnp.float32)
    got = curvature.nonuniformity_operator(problem, params).matvec(v)
    assert got.dtype == jnp.float32
    # Products of matrices of size 1e2, some 1e2 roundings of 6e-8 each.
    expected = Sigma @ v.astype(float)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * abs(expected).max())


def _matrix_product(matrix, vector):
    return matrix @ vector


def _operator(values, dtype=jnp.float64):
    """A symmetric matrix with the eigenvalues asked for, above the size treated densely."""
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((len(values),) * 2))[0]
    matrix = jnp.asarray((rotation * values) @ rotation.T, dtype)
    return Operator(_matrix_product, (matrix,), len(values), dtype), rotation


SPECTRUM = np.concatenate([np.linspace(-1, 1, 117), [5.0, 4.0, -3.0]])


@pytest.mark.parametrize(("largest", "expected"), [(True, [5, 4]), (False, [-3, -1])])
def test_lanczos_finds_the_ends_of_the_spectrum(largest, expected):
    operator, rotation = _operator(SPECTRUM)
    found = curvature.top_eigenvalues(operator, 2, rtol=1e-6, largest=largest)
    # The distance to an eigenvalue is at most the residual.
    np.testing.assert_array_less(found.residuals, 1e-5)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-5)
    products = np.asarray(operator.arguments[0] @ found.vectors)
    misses = np.linalg.norm(products - found.vectors * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, misses, rtol=1e-6, atol=1e-14)
    exact = rotation[:, 117 if largest else 119]
    assert abs(float(exact @ found.vectors[:, 0])) == pytest.approx(1, abs=1e-9)


def test_lanczos_residual_obeys_the_tolerance():
    operator, _ = _operator(np.linspace(0, 1, 200))
    found = curvature.top_eigenvalues(operator, rtol=1e-2)
    assert float(found.residuals[0]) <= 1e-2 * float(found.values[0])


def test_lanczos_is_deterministic_and_takes_a_start():
    operator, rotation = _operator(SPECTRUM)
    first, second = (curvature.top_eigenvalues(operator).vectors for _ in range(2))
    np.testing.assert_array_equal(first, second)
    start = jnp.asarray(rotation[:, 117])
    # An eigenvector as start spans its own Krylov space: the residual is rounding.
    assert float(curvature.top_eigenvalues(operator, start=start).residuals[0]) < 1e-12


def test_zero_matrix_has_eigenvalue_zero():
    operator = Operator(_matrix_product, (jnp.zeros((100, 100)),), 100, jnp.float64)
    assert float(curvature.top_eigenvalues(operator).values[0]) == pytest.approx(0, abs=1e-15)


def test_lanczos_in_float32_agrees_with_float64():
    exact, _ = _operator(SPECTRUM)
    rounded, _ = _operator(SPECTRUM, jnp.float32)
    found = curvature.top_eigenvalues(rounded, 3, rtol=1e-4)
    expected = curvature.top_eigenvalues(exact, 3, rtol=1e-4).values
    # Values err by the square of the residual over the gap, 1e-8, and by float32's 6e-8 times 5.
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=5e-6)


def test_a_network_beyond_the_dense_size():
    def loss(p, s):
        return jnp.sum((jnp.tanh(s @ p["U"]) @ p["w"] - jnp.sin(s[0])) ** 2)

    keys = jax.random.split(jax.random.key(2), 3)
    problem = FiniteSum(loss, jax.random.normal(keys[0], (30, 6)))
    params = {"U": jax.random.normal(keys[1], (6, 12)), "w": jax.random.normal(keys[2], (12,))}
    assert ravel_pytree(params)[0].size == 84
    _, H, Sigma = _dense(problem, params)
    exact = np.linalg.eigvalsh(H)
    found = curvature.top_eigenvalues(curvature.hessian(problem, params), 3, rtol=1e-5)
    # Second order in the residual: rtol**2 * |lambda|**2 / gap, with room.
    np.testing.assert_allclose(found.values, exact[:-4:-1], rtol=1e-7)
    spread = float(jnp.sqrt(jnp.linalg.eigvalsh(Sigma)[-1]))
    got = float(curvature.nonuniformity(problem, params, rtol=1e-5))
    assert got == pytest.approx(spread, rel=1e-7)


def test_a_second_point_compiles_nothing():
    problem, params = _net()
    v = jnp.ones(24)
    curvature.nonuniformity_operator(problem, params).matvec(v)
    compiled = curvature._apply._cache_size()
    other = jax.tree.map(lambda x: 2 * x, params)
    curvature.nonuniformity_operator(problem, other).matvec(v)
    assert curvature._apply._cache_size() == compiled


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 0}, r"k=0 .*expected 1\.\.size"),
        ({"k": 121}, "k=121 eigenvalues of a matrix of size 120"),
        ({"start": jnp.ones(3)}, r"shape \(3,\); expected \(120,\)"),
        ({"rtol": 0.0}, "rtol=0.0 is out of reach of products in float64"),
    ],
)
def test_requests_that_make_no_sense(options, match):
    with pytest.raises(InputError, match=match):
        curvature.top_eigenvalues(_operator(SPECTRUM)[0], **options)


def test_float32_products_refuse_a_tolerance_they_cannot_reach():
    with pytest.raises(InputError, match="rtol=1e-08 is out of reach of products in float32"):
        curvature.top_eigenvalues(_operator(SPECTRUM, jnp.float32)[0], rtol=1e-8)


@pytest.mark.parametrize("size", [10, 100])
def test_products_that_are_not_finite(size):
    matrix = jnp.full((size, size), jnp.nan)
    operator = Operator(_matrix_product, (matrix,), size, jnp.float64)
    with pytest.raises(InputError, match="products are not finite"):
        curvature.top_eigenvalues(operator)


def test_vectors_of_another_size():
    problem, params = _net()
    with pytest.raises(InputError, match=r"vector has shape \(23,\); expected \(24,\)"):
        curvature.hessian(problem, params).matvec(jnp.ones(23))
    with pytest.raises(InputError, match=r"vector has shape \(23,\); expected \(24,\)"):
        curvature.sample_curvatures(problem, params, jnp.ones(23))


def test_params_the_loss_does_not_take():
    problem, _ = _net()
    with pytest.raises(InputError, match="the loss cannot be evaluated"):
        curvature.hessian(problem, {"W": jnp.ones((4, 2))})
