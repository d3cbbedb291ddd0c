"""Curvature operators and the numbers of single samples against dense matrices."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from helpers import counted_compilations
from helpers_curvature import (
    SIZE,
    cost,
    dense,
    dense_gauss_newton,
    direction,
    loss,
    matrix_operator,
    net,
    outputs,
    sample_gradients,
)
from thalweg import curvature
from thalweg.curvature import hessians, sums
from thalweg.errors import InputError
from thalweg.models import cross_entropy, mlp, supervised
from thalweg.problem import FiniteSum

# Compiled for running once.
QUICKLY = {"xla_backend_optimization_level": 0}
# Sums of some 1e3 numbers of order 10 in double precision err by less than 1e-16 * 1e4.
CLOSE = {"rtol": 0, "atol": 1e-9}


def _gauss_newton(problem, params):
    return curvature.gauss_newton(problem, params, outputs=outputs, cost=cost)


OPERATORS = {
    "hessian": curvature.hessian,
    "gauss_newton": _gauss_newton,
    "fisher": curvature.fisher,
    "nonuniformity": curvature.nonuniformity_operator,
    "covariance": lambda problem, params: curvature.gradient_covariance(
        problem, params, tw.Minibatch(3, replace=True)
    ),
}


def _matrices(problem, params):
    _, H, Sigma = dense(problem, params)
    gradients = sample_gradients(problem, params)
    return {
        "hessian": H,
        "nonuniformity": Sigma,
        "gauss_newton": dense_gauss_newton(problem, params),
        "fisher": jnp.einsum("n,na,nb->ab", problem.weights, gradients, gradients),
        "covariance": tw.Minibatch(3, replace=True).covariance(problem, params),
    }


@pytest.fixture(scope="module")
def truth():
    return _matrices(*net())


@pytest.mark.parametrize("name", OPERATORS)
def test_products_equal_dense_matrices(name, truth):
    problem, params = net()
    operator, matrix = OPERATORS[name](problem, params), truth[name]
    assert (operator.size, operator.dtype) == (SIZE, jnp.float64)
    found = operator.dense()
    np.testing.assert_allclose(found, matrix, **CLOSE)
    u, v = direction(1), direction(2)
    Au, Av = operator.matvec(u), operator.matvec(v)
    np.testing.assert_allclose(Av, matrix @ v, **CLOSE)
    np.testing.assert_allclose(v @ Au, u @ Av, **CLOSE)
    np.testing.assert_allclose(operator.matvec(2 * u - 3 * v), 2 * Au - 3 * Av, **CLOSE)
    np.testing.assert_allclose(
        operator.matmat(np.stack([u, v], 1)), matrix @ np.stack([u, v], 1), **CLOSE
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_products_under_transformations_and_in_chunks(name, truth):
    # 11 = 4 + 4 + 3 samples.
    problem, params = net(chunk_size=4)
    vectors = jnp.stack([direction(1), direction(2)])
    operator = OPERATORS[name](problem, params)
    np.testing.assert_allclose(operator.matvec(vectors[0]), truth[name] @ vectors[0], **CLOSE)
    found = jax.jit(jax.vmap(operator.matvec))(vectors)
    np.testing.assert_allclose(found, vectors @ truth[name], **CLOSE)


@pytest.mark.parametrize("name", ["hessian", "nonuniformity"])
def test_halves_of_an_odd_number_of_samples(name, truth, monkeypatch):
    # 11 = 6 + 6 samples, one of which is in both halves, with the weight zero in the second.
    monkeypatch.setattr(sums, "_HALVED", 11)
    monkeypatch.setattr(hessians, "holds_convolution", lambda *_: True)
    problem, params = net()
    assert [part.data[0].shape[0] for part in sums.parts(sums.halved(problem))] == [6, 6]
    operator, v = OPERATORS[name](problem, params), direction()
    np.testing.assert_allclose(operator.matvec(v), truth[name] @ v, **CLOSE)
    if name == "hessian":
        gradient = ravel_pytree(problem.gradient(params))[0]
        np.testing.assert_allclose(operator.guess(), gradient, **CLOSE)


def test_what_is_kept_of_a_linearisation_are_no_constants():
    model = mlp([5, 7, 6, 3], activation="relu")
    params = model.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    data = jnp.asarray(rng.random((20, 5))), jnp.asarray(rng.integers(0, 3, 20))
    kept = hessians._linearised(supervised(model, cross_entropy), params, data, jnp.ones(20) / 20)
    arrays = [x for x in jax.tree.leaves(kept[1]) if x.shape[:1] == (20,) and x.dtype != bool]
    assert arrays
    # JAX itself keeps the zeros of each ReLU, twice.
    assert not any((x == x.ravel()[0]).all() for x in arrays if x.size > 20)


def test_the_matrices_may_depend_on_traced_parameters():
    problem, params = net()
    v = direction()
    both = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    for product, place in ((curvature.hessian_product, 1), (curvature.nonuniformity_product, 2)):
        found = jax.vmap(lambda p, product=product: product(problem, p, v))(both)
        for k, factor in enumerate((1, 2)):
            matrix = dense(problem, jax.tree.map(lambda x, f=factor: f * x, params))[place]
            # Four times the weights make numbers a hundred times larger.
            np.testing.assert_allclose(found[k], matrix @ v, rtol=1e-12, atol=1e-9)


def test_batches_of_any_sizes_are_the_same_data():
    problem, params = net(weights=None)
    cuts = [slice(0, 4), slice(4, 8), slice(8, 11)]
    parts = [jax.tree.map(lambda x, c=cut: np.asarray(x)[c], problem.data) for cut in cuts]
    stream, v = curvature.Batches(loss, parts), direction()
    for name in ("hessian", "gauss_newton", "fisher", "nonuniformity"):
        whole, split = (OPERATORS[name](source, params) for source in (problem, stream))
        np.testing.assert_allclose(split.matvec(v), whole.matvec(v), **CLOSE)
        if whole.along is not None:
            for found, expected in zip(split.along(v), whole.along(v), strict=True):
                np.testing.assert_allclose(found, expected, **CLOSE)
    for numbers in (curvature.sample_curvatures, curvature.sample_hessian_norms):
        np.testing.assert_allclose(numbers(stream, params, v), numbers(problem, params, v), **CLOSE)


def test_streams_that_cannot_be_gone_through():
    problem, params = net()
    with pytest.raises(InputError, match="batches is a generator, which is empty after one pass"):
        curvature.Batches(loss, (problem.data for _ in range(2)))
    with pytest.raises(InputError, match="holds no batch; expected at least one"):
        curvature.hessian(curvature.Batches(loss, []), params)


@pytest.mark.parametrize(
    "sampler",
    [
        tw.Full(),
        tw.Minibatch(3),
        tw.Minibatch(11),
        tw.Minibatch(3, replace=True),
        tw.Reweighted(2),
        tw.Reweighted(2, by="group"),
        tw.Resampled(2, proportions=(0.2, 0.5, 0.3)),
    ],
    ids=str,
)
def test_covariance_of_one_step(sampler):
    plain = isinstance(sampler, tw.Minibatch) and not sampler.replace
    problem, params = net(chunk_size=4, weights=None if plain else np.arange(1.0, 12) / 66)
    operator = curvature.gradient_covariance(problem, params, sampler)
    np.testing.assert_allclose(operator.dense(), sampler.covariance(problem, params), **CLOSE)


def test_covariance_of_draws_that_remember():
    problem, params = net(weights=None)
    with pytest.raises(InputError, match="Reshuffled draws depending on earlier draws"):
        curvature.gradient_covariance(problem, params, tw.Reshuffled(3))


def test_numbers_along_a_direction(truth):
    problem, params = net(chunk_size=4)
    hessians, _, _ = dense(problem, params)
    v = direction()
    along = jnp.einsum("a,nab,b->n", v, hessians, v)
    np.testing.assert_allclose(curvature.sample_curvatures(problem, params, v), along, **CLOSE)
    norms = jnp.linalg.norm(hessians @ v, axis=1)
    np.testing.assert_allclose(curvature.sample_hessian_norms(problem, params, v), norms, **CLOSE)
    found = jax.jit(jax.vmap(lambda u: curvature.sample_hessian_norms(problem, params, u)))(
        jnp.stack([v, -2 * v])
    )
    np.testing.assert_allclose(found, jnp.stack([norms, 2 * norms]), **CLOSE)
    for name in ("hessian", "gauss_newton", "fisher"):
        numbers, weights = OPERATORS[name](problem, params).along(v)
        assert numbers.shape == weights.shape == (11,)
        np.testing.assert_allclose(weights @ numbers, v @ truth[name] @ v, **CLOSE)
    gradients = sample_gradients(problem, params)
    squares = OPERATORS["fisher"](problem, params).along(v)[0]
    np.testing.assert_allclose(squares, (gradients @ v) ** 2, **CLOSE)


def test_traces_and_norms_of_the_samples():
    problem, params = net()
    hessians, _, _ = dense(problem, params)
    probes = 100
    for function, exact in (
        (curvature.sample_traces, jnp.trace(hessians, axis1=1, axis2=2)),
        (curvature.sample_frobenius, jnp.linalg.norm(hessians, axis=(1, 2))),
    ):
        found = function(problem, params, key=jax.random.key(3), probes=probes)
        z = (found.values - np.asarray(exact)) / found.errors
        # Eleven correlated numbers of deviation 1, normal with so many probes: beyond 4 one of
        # them is with probability 7e-4. Errors ten times too large would leave all below .4.
        assert 0.4 < abs(z).max() < 4
    # A quadratic form in signs has the variance 2 (|A|_F^2 - |diag A|^2).
    offdiagonal = hessians - jnp.einsum("naa->na", hessians)[:, :, None] * jnp.eye(SIZE)
    errors = jnp.linalg.norm(offdiagonal, axis=(1, 2)) * np.sqrt(2 / probes)
    found = curvature.sample_traces(problem, params, key=jax.random.key(3), probes=probes)
    # A deviation from 100 numbers errs by 7 per cent for normal ones, more for heavy tails.
    np.testing.assert_allclose(found.errors, errors, rtol=0.4)
    with pytest.raises(InputError, match="probes=1; expected at least 2"):
        curvature.sample_traces(problem, params, key=jax.random.key(0), probes=1)


def test_gauss_newton_of_a_model_knows_its_parts():
    model = mlp([5, 4, 3], activation="tanh")
    params = model.init(jax.random.key(0), jnp.float64)
    x = jax.random.normal(jax.random.key(1), (7, 5))
    problem = FiniteSum(supervised(model, cross_entropy), (x, jnp.arange(7) % 3))
    operator = curvature.gauss_newton(problem, params)
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def term(sample):
        jacobian = jax.jacobian(lambda p: model.apply(unravel(p), sample[0]))(flat)
        share = jax.nn.softmax(model.apply(params, sample[0]))
        return jacobian.T @ (jnp.diag(share) - jnp.outer(share, share)) @ jacobian

    expected = jnp.mean(jax.jit(jax.vmap(term))(problem.data), axis=0)
    np.testing.assert_allclose(operator.dense(), expected, **CLOSE)
    v = direction(size=operator.size)
    numbers, weights = operator.along(v)
    np.testing.assert_allclose(weights @ numbers, v @ expected @ v, **CLOSE)


def test_gauss_newton_refuses_parts_that_are_not_the_loss():
    problem, params = net()
    with pytest.raises(InputError, match="pass outputs="):
        curvature.gauss_newton(problem, params)
    with pytest.raises(InputError, match="expected the same number"):
        curvature.gauss_newton(problem, params, outputs=outputs, cost=lambda z, s: jnp.sum(z))


def test_samples_that_agree_have_no_nonuniformity():
    # Quartic, so that the second derivatives are numbers with rounding.
    problem = FiniteSum(lambda p, c: jnp.sum((p / 3) ** 4) + c * p[0], jnp.array([0.1, 0.7]))
    params = jnp.array([1.1, 2.3])
    np.testing.assert_array_less(
        abs(curvature.nonuniformity_operator(problem, params).dense()), 1e-15
    )
    assert float(curvature.nonuniformity(problem, params)) < 1e-7


def test_nonuniformity_has_a_closed_form_in_one_dimension():
    # h = 0.2 and 3.8: mean of squares 7.24 minus 4, square root 1.8.
    problem = FiniteSum(lambda p, h: 0.5 * h * p[0] ** 2, jnp.array([0.2, 3.8]))
    assert float(curvature.nonuniformity(problem, jnp.ones(1))) == pytest.approx(1.8, rel=1e-14)
    assert float(curvature.sharpness(problem, jnp.ones(1))) == pytest.approx(2.0, rel=1e-14)


def test_one_sample_has_neither_nonuniformity_nor_data_error():
    problem = FiniteSum(lambda p, h: 0.5 * h * jnp.sum(p**2), jnp.array([3.0]))
    assert float(curvature.nonuniformity(problem, jnp.ones(2))) == 0
    top = curvature.top_eigenvalues(curvature.hessian(problem, jnp.ones(2)))
    assert float(top.values[0]) == 3
    assert np.isnan(top.data_errors[0])


@pytest.mark.parametrize("name", ["hessian", "nonuniformity"])
def test_products_in_single_precision(name, truth):
    problem, params = jax.tree.map(lambda x: x.astype(jnp.float32), net())
    v = direction().astype(jnp.float32)
    got = OPERATORS[name](problem, params).matvec(v)
    assert got.dtype == jnp.float32
    expected = truth[name] @ v.astype(float)
    # Some 1e2 roundings of 6e-8 each, of the data and the weights as well.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_a_second_point_compiles_nothing():
    problem, params = net()
    v = direction()
    other = jax.tree.map(lambda x: 2 * x, params)

    def products(point):
        for build in OPERATORS.values():
            build(problem, point).matvec(v)
        curvature.sample_curvatures(problem, point, v)
        curvature.sample_hessian_norms(problem, point, v)

    products(params)
    with counted_compilations() as compiled:
        products(other)
    assert compiled() == 0


def _image_loss(params, sample):
    image = jax.lax.conv_general_dilated(
        sample[None], params, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.sum(jnp.tanh(image) ** 2)


def _loops_of(jaxpr):
    """For each loop of a program that is not written out the convolutions inside of it."""
    found = []
    for equation in jaxpr.eqns:
        options = equation.params
        written_out = options.get("unroll", 0) >= options.get("length", 1)
        loop = equation.primitive.name in ("scan", "while") and not written_out
        for part in jax.extend.core.jaxprs_in_params(options):
            if loop:
                found.append(str(part).count("conv_general_dilated"))
            found += _loops_of(part)
    return found


@pytest.mark.parametrize("product", ["hessian_product", "nonuniformity_product"])
def test_convolutions_are_in_no_loop_on_a_cpu(product):
    # A hundred chunks.
    product = getattr(curvature, product)
    kernel, images = jnp.ones((3, 3, 1, 2)), jnp.ones((100, 4, 4, 1))
    problem = FiniteSum(_image_loss, images, chunk_size=1)
    program = jax.make_jaxpr(lambda v: product(problem, kernel, v))(jnp.ones(18)).jaxpr
    assert "conv_general_dilated" in str(program)
    assert sum(_loops_of(program)) == 0


@pytest.mark.parametrize(
    ("strides", "padding", "window"),
    [
        ((2, 3), [(2, 1), (0, 3)], 4),
        pytest.param((2, 2), "SAME", 3, marks=pytest.mark.slow),
        pytest.param((1, 2), "VALID", 3, marks=pytest.mark.slow),
    ],
)
def test_nonuniformity_of_strided_convolutions(strides, padding, window):
    def loss(params, image):
        layers = zip(params, ((1, 1), strides), ("SAME", padding), strict=True)
        for kernel, strides_, padding_ in layers:
            image = jnp.tanh(
                jax.lax.conv_general_dilated(
                    image, kernel, strides_, padding_, dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
            )
        return jnp.sum(image**2)

    params = (
        0.3 * direction(1, 18).reshape(3, 3, 1, 2),
        0.3 * direction(2, window**2 * 4).reshape(window, window, 2, 2),
    )
    problem = FiniteSum(loss, direction(3, 3 * 81).reshape(3, 1, 9, 9, 1))
    v = direction(4, 18 + window**2 * 4)
    product = jax.jit(
        lambda v: curvature.nonuniformity_product(problem, params, v), compiler_options=QUICKLY
    )
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    @partial(jax.jit, compiler_options=QUICKLY)
    def expected(v):
        def one(u, sample):
            slope = jax.grad(lambda p: loss(unravel(p), sample))
            return jax.jvp(slope, (flat,), (u,))[1]

        first = jax.vmap(one, (None, 0))(v, problem.data)
        away = first - jnp.mean(first, axis=0)
        return jnp.mean(jax.vmap(one)(away, problem.data), axis=0)

    np.testing.assert_allclose(product(v), expected(v), **CLOSE)
    # Where there are gaps in what is convolved, the kernel is one, not an image of 9 x 9.
    gaps = [
        line.rsplit(" : (", 1)[1].split("tensor<")[2]
        for line in product.lower(v).as_text().splitlines()
        if re.search(r"lhs_dilate = \[(?!1, 1\])", line)
    ]
    assert gaps
    assert not any("9x9" in kernel for kernel in gaps)


def test_dense_layers_are_in_a_loop():
    problem = FiniteSum(lambda p, s: jnp.tanh(p @ s) ** 2, jnp.ones((100, 3)), chunk_size=1)
    program = jax.make_jaxpr(lambda v: curvature.hessian_product(problem, jnp.ones(3), v))(
        jnp.ones(3)
    ).jaxpr
    assert _loops_of(program)
    assert str(program).count("dot_general") < 20


def test_vectors_of_another_size():
    problem, params = net()
    with pytest.raises(InputError, match=r"vector has shape \(23,\); expected \(24,\)"):
        curvature.hessian(problem, params).matvec(jnp.ones(23))
    for numbers in (curvature.sample_curvatures, curvature.sample_hessian_norms):
        with pytest.raises(InputError, match=r"vector has shape \(23,\); expected \(24,\)"):
            numbers(problem, params, jnp.ones(23))


@pytest.mark.parametrize(
    "build", [curvature.hessian, curvature.fisher, curvature.nonuniformity_operator]
)
def test_params_the_loss_does_not_take(build):
    problem, _ = net()
    with pytest.raises(InputError, match="the loss cannot be evaluated"):
        build(problem, {"W": jnp.ones((4, 2))})


def test_a_loss_that_can_be_differentiated_once():
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
    problem = FiniteSum(lambda p, s: jnp.sum(square(p * s)), jnp.ones(3))
    point, v = jnp.ones(2), jnp.array([1.0, 2.0])
    # The squares' Hessian needs no derivative along a direction, and has no data error then.
    found = curvature.top_eigenvalues(curvature.hessian(problem, point))
    assert float(found.values[0]) == 2
    assert np.isnan(found.data_errors[0])
    for product in (
        lambda: curvature.fisher(problem, point).matvec(v),
        lambda: curvature.sample_curvatures(problem, point, v),
        lambda: curvature.sample_hessian_norms(problem, point, v),
        lambda: curvature.nonuniformity_operator(problem, point).matvec(v),
    ):
        with pytest.raises(InputError, match=r"custom_vjp function.*jax.custom_jvp rule"):
            product()


@pytest.mark.parametrize("size", [3, 70])
def test_second_derivatives_that_are_not_finite(size):
    # |p|^1.5 has the slope zero and no curvature at 0.
    problem = FiniteSum(lambda p, s: s * jnp.sum(jnp.sqrt(p**2) ** 1.5), jnp.array([1.0, 2.0]))
    zero, key = jnp.zeros(size), jax.random.key(0)
    operator = curvature.hessian(problem, zero)
    for question in (
        lambda: curvature.top_eigenvalues(operator),
        lambda: curvature.trace(operator, key=key),
        lambda: curvature.frobenius(operator, key=key),
        lambda: curvature.spectral_density(operator, key=key),
        lambda: curvature.sample_traces(problem, zero, key=key),
        lambda: curvature.sample_frobenius(problem, zero, key=key),
    ):
        with pytest.raises(InputError, match="products are not finite"):
            question()


def test_the_size_of_columns():
    operator, _ = matrix_operator(np.arange(5.0))
    with pytest.raises(InputError, match=r"vector has shape \(4,\); expected \(5,\)"):
        operator.matmat(np.ones((4, 2)))
