"""Eigenvalues, traces, norms and densities to an accuracy asked for, against known spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers_curvature import dense, matrix_operator, net
from thalweg import curvature, stability
from thalweg.curvature import Operator, eigenvalues
from thalweg.curvature.krylov import Krylov
from thalweg.errors import InputError
from thalweg.problem import FiniteSum

SPECTRUM = np.concatenate([np.linspace(-1, 1, 117), [5.0, 4.0, -3.0]])
KEY = jax.random.key(0)


def _counted(operator):
    """The same operator, and a list with an entry for each product."""
    calls = []

    def apply(vector):
        calls.append(1)
        return operator.apply(vector)

    return Operator(apply, operator.size, operator.dtype), calls


@pytest.mark.parametrize(("largest", "expected"), [(True, [5, 4]), (False, [-3, -1])])
def test_both_ends_of_the_spectrum(largest, expected):
    operator, rotation = matrix_operator(SPECTRUM)
    counted, calls = _counted(operator)
    found = curvature.top_eigenvalues(counted, 2, rtol=1e-6, largest=largest)
    assert len(calls) == found.products
    # The distance to an eigenvalue is at most the residual, rtol times 5 or the spread 8.
    np.testing.assert_array_less(found.residuals, 8e-6)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=8e-6)
    products = operator.matmat(np.asarray(found.vectors))
    misses = np.linalg.norm(products - np.asarray(found.vectors * found.values), axis=0)
    np.testing.assert_allclose(found.residuals, misses, rtol=1e-6, atol=1e-14)
    exact = rotation[:, 117 if largest else 119]
    # The angle is at most the residual over the gap, which is 1 at least: 1 - cos < 32e-12.
    assert abs(float(exact @ found.vectors[:, 0])) == pytest.approx(1, abs=1e-10)
    assert np.isnan(found.data_errors).all()


@pytest.mark.parametrize("rtol", [1e-1, 1e-2, 1e-4, 1e-8])
def test_an_accuracy_asked_for_is_certified_by_the_residual(rtol):
    # Gaps of 1/200 at the end, harder than what networks have.
    operator, _ = matrix_operator(np.linspace(0, 1, 200))
    found = curvature.top_eigenvalues(operator, rtol=rtol)
    assert float(found.residuals[0]) <= rtol * float(found.values[0])
    # Values are below the largest by no more than an eigenvalue's distance.
    assert abs(float(found.values[0]) - 1) <= max(rtol, 1e-14)


def test_accuracy_is_what_products_are_spent_on():
    operator, _ = matrix_operator(SPECTRUM)
    spent = [curvature.top_eigenvalues(operator, rtol=r).products for r in (1e-1, 1e-3, 1e-8)]
    assert spent[0] < spent[1] < spent[2]


def test_restarts_keep_the_memory_bounded_and_the_answer(monkeypatch):
    # More products than the 32 vectors that are kept: at least two restarts.
    operator, _ = matrix_operator(np.linspace(0, 1, 200) ** 0.5)
    found = curvature.top_eigenvalues(operator, rtol=1e-4)
    assert found.products > 60
    assert float(found.values[0]) == pytest.approx(1, abs=1e-4)
    # With room for all vectors there is no restart; the same value, no more products.
    monkeypatch.setattr(eigenvalues, "_ROOM", 200)
    whole = curvature.top_eigenvalues(operator, rtol=1e-4)
    assert whole.products <= found.products
    # Both below 1 by at most residual^2 / gap = 1e-8 / 2.5e-3.
    np.testing.assert_allclose(whole.values, found.values, rtol=0, atol=8e-6)


def test_eigenvectors_nearby_as_start_save_products():
    operator, rotation = matrix_operator(SPECTRUM)
    noise = np.random.default_rng(2).standard_normal((120, 2)) * 1e-3
    cold = curvature.top_eigenvalues(operator, 2, rtol=1e-3)
    warm = curvature.top_eigenvalues(
        operator, 2, rtol=1e-3, start=jnp.asarray(rotation[:, 117:119] + noise)
    )
    assert warm.products < cold.products
    np.testing.assert_allclose(warm.values, [5, 4], rtol=1e-5)
    # One that has been overtaken does not hide the largest, if the next one is given, too; alone,
    # it takes more accuracy.
    overtaken = jnp.asarray(rotation[:, 118:116:-1] + noise)
    for start, rtol in ((overtaken, 1e-3), (overtaken[:, 0], 1e-5)):
        found = curvature.top_eigenvalues(operator, rtol=rtol, start=start)
        assert float(found.values[0]) == pytest.approx(5, rel=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_basis_stays_orthogonal(dtype):
    # Couplings as large as what is left: each product doubles errors that are not taken care of.
    operator, _ = matrix_operator(np.linspace(0, 1, 150), dtype)
    space = Krylov(operator, np.ones(150), 100)
    for _ in range(150):
        if space.full:
            space.restart(np.arange(80, 100))
        space.extend()
    vectors = space.vectors(np.eye(space.count)).astype(float)
    # Some 1e2 roundings of each product.
    np.testing.assert_allclose(
        vectors.T @ vectors, np.eye(space.count), atol=100 * float(jnp.finfo(dtype).eps)
    )


def test_the_same_request_has_the_same_answer():
    operator, _ = matrix_operator(SPECTRUM)
    first, second = (curvature.top_eigenvalues(operator).vectors for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_repeated_eigenvalues():
    operator, _ = matrix_operator(np.concatenate([np.linspace(-1, 1, 97), [3.0, 3.0, 3.0]]))
    found = curvature.top_eigenvalues(operator, rtol=1e-10)
    assert float(found.values[0]) == pytest.approx(3, abs=1e-9)


def test_spaces_that_close_after_a_few_products():
    # Two eigenvalues: the second product is in the span. And none at all.
    operator, _ = matrix_operator(np.repeat([2.0, -1.0], 50))
    found = curvature.top_eigenvalues(operator, 2, rtol=1e-8)
    assert float(found.values[0]) == pytest.approx(2, abs=1e-13)
    assert float(found.residuals[0]) < 1e-13
    zero, _ = matrix_operator(np.zeros(100))
    top = curvature.top_eigenvalues(zero)
    assert float(top.values[0]) == float(top.residuals[0]) == 0
    identity = Operator(lambda v: v, 100, jnp.float64)
    assert float(curvature.top_eigenvalues(identity, 3).values[2]) == pytest.approx(1, abs=1e-14)


def test_single_precision_agrees_with_double():
    exact, _ = matrix_operator(SPECTRUM)
    rounded, _ = matrix_operator(SPECTRUM, jnp.float32)
    found = curvature.top_eigenvalues(rounded, 3, rtol=1e-4)
    assert found.values.dtype == jnp.float32
    expected = curvature.top_eigenvalues(exact, 3, rtol=1e-4).values
    # Two values err by the square of the residual over the gap, 1e-7, and by float32's 6e-8 times
    # 5; the third, of 117 with gaps of 1/58, by less than its residual of 1e-4.
    np.testing.assert_allclose(found.values[:2], expected[:2], rtol=0, atol=5e-6)
    np.testing.assert_allclose(found.values[2], expected[2], rtol=0, atol=2e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_beyond_the_budget_the_answer_is_a_bracket_and_says_so(dtype):
    operator, _ = matrix_operator(SPECTRUM, dtype)
    counted, calls = _counted(operator)
    found = curvature.top_eigenvalues(counted, 2, rtol=1e-6, budget=7)
    # In single precision 1e-6 is ten roundings, and two products measure the residuals.
    assert found.products == len(calls) == (9 if dtype == jnp.float32 else 7)
    assert not found.reached
    assert float(found.residuals.max()) > 1e-6 * 4
    for low, high in np.asarray(found.brackets):
        assert any(low <= value <= high for value in SPECTRUM)
    low, high = map(float, found.brackets[int(jnp.argmax(found.residuals))])
    with pytest.raises(InputError, match=r"after \d products eigenvalue") as raised:
        found.checked()
    assert f"between {low:.6g} and {high:.6g}" in str(raised.value)
    # More products close it.
    assert curvature.top_eigenvalues(operator, 2, rtol=1e-5).checked().reached


def test_answers_that_need_the_accuracy_raise_without_it(monkeypatch):
    monkeypatch.setattr(eigenvalues, "_BUDGET", 3)
    problem, _ = _quadratics()
    point = jnp.zeros(80)
    for ask in (
        lambda: curvature.sharpness(problem, point, rtol=1e-10),
        lambda: curvature.nonuniformity(problem, point, rtol=1e-10),
        lambda: stability.assess(problem, point, batch_size=2, step=0.1),
        lambda: stability.follow(problem, [(0, point)], batch_size=2, budget=1.0),
        lambda: stability.sufficient_condition(problem, point, batch_size=2, step=0.1, rtol=1e-9),
        lambda: stability.mean_square_bracket(problem, point, batch_size=2),
    ):
        with pytest.raises(InputError, match="which is not the accuracy asked for"):
            ask()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_recurrence_knows_the_residuals(dtype):
    # Through restarts, down to the least accuracy at which it is believed.
    rounding = float(jnp.finfo(dtype).eps)
    for spectrum in (SPECTRUM, np.linspace(0, 1, 200), np.linspace(0, 1, 200) ** 0.5):
        operator, _ = matrix_operator(spectrum, dtype)
        for k, rtol in ((1, 1e-2), (3, 1e-3), (2, 1001 * rounding)):
            found = curvature.top_eigenvalues(operator, k, rtol=rtol)
            vectors = np.asarray(found.vectors)
            misses = operator.matmat(vectors) - vectors * np.asarray(found.values, dtype=float)
            measured = np.linalg.norm(misses, axis=0)
            # What rounding adds, of some hundred products: a tenth of the least that is believed.
            believed = np.asarray(found.residuals, dtype=float)
            assert np.abs(believed - measured).max() < 100 * rounding * spectrum.max()


def test_the_gradient_saves_products_and_hides_nothing():
    h = np.concatenate([[5.0, 4.0], np.linspace(0, 1, 198)])
    problem = FiniteSum(lambda p, h: 0.5 * jnp.sum(h * p**2), jnp.asarray(h)[None])

    def found(point):
        operator = curvature.hessian(problem, point)
        blind = Operator(operator.apply, operator.size, operator.dtype, operator.along)
        return [curvature.top_eigenvalues(x, rtol=1e-6) for x in (operator, blind)]

    # The gradient h p: along the first two directions, along the second alone, and none.
    for place, saves in (([1.0, 1.0], True), ([0.0, 1.0], False), ([0.0, 0.0], False)):
        own, random = found(jnp.zeros(200).at[:2].set(jnp.array(place)))
        assert float(own.values[0]) == pytest.approx(5, rel=1e-10)
        assert own.products < random.products if saves else own.products <= random.products + 1


def _quadratics(n=40, size=80, seed=0):
    """Samples with the Hessians diag(h_i); the first entry is the largest in the mean."""
    h = np.random.default_rng(seed).normal(size=(n, size))
    h[:, 0] += 20
    return FiniteSum(lambda p, h: 0.5 * jnp.sum(h * p**2), jnp.asarray(h)), h


def test_data_errors_are_those_of_the_mean():
    problem, h = _quadratics()
    operator = curvature.hessian(problem, jnp.zeros(80))
    found = curvature.top_eigenvalues(operator, rtol=1e-6)
    closed = h[:, 0].std(ddof=1) / np.sqrt(40)
    # The vector differs from the first unit vector by 1e-6 at most.
    assert float(found.data_errors[0]) == pytest.approx(closed, rel=1e-4)
    resampled = np.random.default_rng(1).integers(0, 40, size=(4000, 40))
    bootstrap = h[resampled].mean(axis=1).max(axis=1).std()
    # The bootstrap's is smaller by sqrt(39/40) = 1.3 per cent, and itself right to 1.1 per cent.
    assert float(found.data_errors[0]) == pytest.approx(bootstrap, rel=0.05)


def test_data_errors_of_weighted_samples():
    h = np.array([1.0, 5.0, 2.0])
    weights = np.array([0.5, 0.3, 0.2])
    problem = FiniteSum(lambda p, h: 0.5 * h * p[0] ** 2, jnp.asarray(h), weights=weights)
    found = curvature.top_eigenvalues(curvature.hessian(problem, jnp.ones(1)))
    mean = weights @ h
    expected = np.sqrt(weights**2 @ (h - mean) ** 2 / (1 - weights @ weights))
    assert float(found.data_errors[0]) == pytest.approx(expected, rel=1e-12)


def test_sharpness_and_nonuniformity_are_the_largest_eigenvalues():
    problem, params = net()
    _, H, Sigma = dense(problem, params)
    top = float(jnp.linalg.eigvalsh(H)[-1])
    assert float(curvature.sharpness(problem, params)) == pytest.approx(top, rel=1e-12)
    spread = float(jnp.sqrt(jnp.linalg.eigvalsh(Sigma)[-1]))
    assert float(curvature.nonuniformity(problem, params)) == pytest.approx(spread, rel=1e-12)


def test_a_network_beyond_the_dense_size():
    def loss(p, s):
        return jnp.sum((jnp.tanh(s @ p["U"]) @ p["w"] - jnp.sin(s[0])) ** 2)

    keys = jax.random.split(jax.random.key(2), 3)
    problem = FiniteSum(loss, jax.random.normal(keys[0], (30, 6)))
    params = {"U": jax.random.normal(keys[1], (6, 12)), "w": jax.random.normal(keys[2], (12,))}
    hessians, H, Sigma = dense(problem, params)
    assert len(H) == 84
    exact, vectors = np.linalg.eigh(H)
    found = curvature.top_eigenvalues(curvature.hessian(problem, params), 3, rtol=1e-5)
    # Second order in the residual: rtol**2 * |lambda|**2 / gap, with room.
    np.testing.assert_allclose(found.values, exact[:-4:-1], rtol=1e-7)
    along = np.einsum("ak,nab,bk->nk", vectors[:, :-4:-1], hessians, vectors[:, :-4:-1])
    expected = along.std(axis=0, ddof=1) / np.sqrt(30)
    np.testing.assert_allclose(found.data_errors, expected, rtol=1e-3)
    spread = float(jnp.sqrt(jnp.linalg.eigvalsh(Sigma)[-1]))
    got = float(curvature.nonuniformity(problem, params, rtol=1e-5))
    assert got == pytest.approx(spread, rel=1e-7)


ESTIMATORS = {
    "trace": (curvature.trace, SPECTRUM.sum()),
    "frobenius": (curvature.frobenius, np.linalg.norm(SPECTRUM)),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.slow
def test_standard_errors_cover(name):
    estimator, exact = ESTIMATORS[name]
    operator, _ = matrix_operator(SPECTRUM)
    # A fixed number of probes: the accuracy is never reached.
    found = [
        estimator(operator, rtol=1e-9, key=jax.random.fold_in(KEY, k), budget=40) for k in range(60)
    ]
    z = np.array([(x.value - exact) / x.error for x in found])
    assert not any(x.reached for x in found)
    assert {x.probes for x in found} == {40}
    # 60 numbers with Student's law of 39 degrees: their root mean square is 1.03 +- .10, and
    # the share inside of +-2 is .948 +- .029; four deviations.
    assert 0.63 < np.sqrt(np.mean(z**2)) < 1.43
    assert np.mean(abs(z) < 2) > 0.83


def test_the_error_of_a_trace_is_known():
    operator, rotation = matrix_operator(SPECTRUM)
    found = curvature.trace(operator, rtol=1e-9, key=KEY, budget=400)
    matrix = (rotation * SPECTRUM) @ rotation.T
    variance = 2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2))
    # A deviation from 400 numbers, to four of its own errors of 3.5 per cent.
    assert found.error == pytest.approx(np.sqrt(variance / 400), rel=0.14)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_probes_are_taken_until_the_error_is_small(name):
    estimator, exact = ESTIMATORS[name]
    operator, _ = matrix_operator(np.abs(SPECTRUM))
    exact = np.abs(SPECTRUM).sum() if name == "trace" else exact
    coarse, fine = (estimator(operator, rtol=rtol, key=KEY) for rtol in (0.1, 0.01))
    assert coarse.probes < fine.probes < 1000
    for found, rtol in ((coarse, 0.1), (fine, 0.01)):
        assert found.reached
        assert found.error <= rtol * found.value
        assert abs(found.value - exact) < 4 * found.error


@pytest.mark.parametrize("name", ESTIMATORS)
def test_small_matrices_are_exact(name):
    estimator, _ = ESTIMATORS[name]
    operator, _ = matrix_operator(SPECTRUM[-40:])
    found = estimator(operator, key=KEY)
    exact = {"trace": SPECTRUM[-40:].sum(), "frobenius": np.linalg.norm(SPECTRUM[-40:])}[name]
    assert found.value == pytest.approx(exact, rel=1e-13)
    assert (found.error, found.probes, found.reached) == (0, 0, True)


@pytest.mark.parametrize("size", [10, 80])
def test_data_error_of_a_trace(size):
    problem, h = _quadratics(size=size)
    found = curvature.trace(curvature.hessian(problem, jnp.zeros(size)), key=KEY)
    # Diagonal: every probe gives the trace of every sample.
    assert found.value == pytest.approx(h.sum(axis=1).mean(), rel=1e-12)
    assert found.data_error == pytest.approx(h.sum(axis=1).std(ddof=1) / np.sqrt(40), rel=1e-12)


@pytest.mark.parametrize("options", [{"rtol": 0.0}, {"rtol": float("nan")}, {"budget": 9}])
def test_estimates_that_make_no_sense(options):
    operator, _ = matrix_operator(SPECTRUM)
    for estimator in (curvature.trace, curvature.frobenius):
        with pytest.raises(InputError, match=r"expected (a positive number|at least 10)"):
            estimator(operator, key=KEY, **options)


def test_density_has_the_moments_of_the_probe():
    operator, rotation = matrix_operator(SPECTRUM)
    steps = 8
    found = curvature.spectral_density(operator, steps=steps, key=KEY)
    assert found.nodes.shape == found.weights.shape == (1, steps)
    z = np.asarray(curvature.traces.signs(jax.random.fold_in(KEY, 0), operator))
    shares = (rotation.T @ z) ** 2 / len(z)
    for power in range(2 * steps):
        exact = shares @ SPECTRUM**power
        # Gauss quadrature: exact to rounding up to degree 2m - 1, on numbers up to 5**15.
        assert found.weights[0] @ found.nodes[0] ** power == pytest.approx(
            exact, rel=1e-11, abs=1e-12
        )
    missed = found.weights[0] @ found.nodes[0] ** (2 * steps)
    assert missed != pytest.approx(shares @ SPECTRUM ** (2 * steps), rel=1e-11)


def test_density_of_many_probes():
    operator, _ = matrix_operator(SPECTRUM)
    found = curvature.spectral_density(operator, steps=30, probes=40, key=KEY)
    at = np.array([-2.0, 0.0, 2.0, 4.5])
    share, error = found.cumulative(at)
    exact = (SPECTRUM[:, None] <= at).mean(axis=0)
    # Away from the nodes the quadrature of a step errs by exp(-steps) or less; at 0 by 1/steps.
    far = np.array([0, 2, 3])
    np.testing.assert_array_less(abs(share - exact)[far], 4 * error[far] + 1e-12)
    assert abs(share[1] - exact[1]) < 4 * error[1] + 1 / 30
    smooth, error = found.smoothed(np.array([0.0, 4.0]), 0.5)
    bells = np.exp(-(((np.array([0.0, 4.0]) - SPECTRUM[:, None]) / 0.5) ** 2) / 2)
    exact = bells.mean(axis=0) / (0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_array_less(abs(smooth - exact), 4 * error + 1e-10)
    for estimate, value in (
        (found.trace, SPECTRUM.sum()),
        (found.frobenius, np.linalg.norm(SPECTRUM)),
    ):
        assert abs(estimate.value - value) < 4 * estimate.error
    # 40 probes in 120 dimensions: a relative error of the norm of about 2 per cent.
    assert found.frobenius.error < 0.05 * found.frobenius.value
    for end, value in ((found.largest, 5.0), (found.smallest, -3.0)):
        assert abs(end.value - value) <= end.error + 1e-12
        assert end.error < 1e-6


def test_density_of_a_space_that_closes():
    operator, _ = matrix_operator(np.repeat([2.0, -1.0], [30, 70]))
    found = curvature.spectral_density(operator, steps=10, probes=20, key=KEY)
    share, error = found.cumulative(np.array([0.0]))
    assert abs(share[0] - 0.7) < 4 * error[0]
    heavy = found.weights > 1e-12
    distance = np.minimum(abs(found.nodes - 2), abs(found.nodes + 1))
    assert distance[heavy].max() < 1e-10
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-12)


def test_density_of_one_probe_has_no_error():
    operator, _ = matrix_operator(SPECTRUM[:5])
    found = curvature.spectral_density(operator, steps=50, key=KEY)
    # As many steps as rows: the eigenvalues themselves.
    np.testing.assert_allclose(found.nodes[0], SPECTRUM[:5], atol=1e-12)
    assert np.isnan(found.trace.error)
    assert np.isnan(found.cumulative(np.zeros(1))[1]).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 0}, r"k=0 .*expected 1\.\.size"),
        ({"k": 121}, "k=121 eigenvalues of a matrix of size 120"),
        ({"start": jnp.ones(3)}, r"shape \(3,\); expected \(120,\)"),
        ({"start": jnp.full(120, jnp.nan)}, "start is not finite"),
        ({"k": 4, "budget": 3}, "budget=3 products for k=4; expected at least 3 and k"),
        ({"rtol": 0.0}, "rtol=0.0 is out of reach of products in float64"),
        ({"rtol": float("nan")}, "rtol=nan is out of reach"),
    ],
)
def test_requests_that_make_no_sense(options, match):
    with pytest.raises(InputError, match=match):
        curvature.top_eigenvalues(matrix_operator(SPECTRUM)[0], **options)


def test_density_requests_that_make_no_sense():
    operator, _ = matrix_operator(SPECTRUM)
    for options in ({"steps": 1}, {"probes": 0}):
        with pytest.raises(InputError, match="at least 2 steps and 1 probe"):
            curvature.spectral_density(operator, key=KEY, **options)
    with pytest.raises(InputError, match="width=0; expected a positive standard deviation"):
        curvature.spectral_density(operator, steps=2, key=KEY).smoothed(np.zeros(1), 0)


def test_single_precision_refuses_a_tolerance_it_cannot_reach():
    with pytest.raises(InputError, match="rtol=1e-08 is out of reach of products in float32"):
        curvature.top_eigenvalues(matrix_operator(SPECTRUM, jnp.float32)[0], rtol=1e-8)
