"""Linear stability against closed forms, dense matrices and the second moments of SGD itself."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thalweg import reference, stability
from thalweg.curvature import nonuniformity, sharpness
from thalweg.errors import InputError
from thalweg.problem import FiniteSum

FEATURES = jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0], [1.0, -1.0]])
OUTER = FEATURES[:, :, None] * FEATURES[:, None, :]


def _least_squares(features=FEATURES, weights=None):
    return FiniteSum(lambda p, x: 0.5 * jnp.dot(x, p) ** 2, features, weights=weights)


def _toy(h=(0.2, 3.8)):
    return FiniteSum(lambda p, c: 0.5 * c * jnp.sum(p**2), jnp.array(h))


@pytest.mark.parametrize(
    ("n", "batch_size", "replace", "factor"),
    [
        (4, 1, False, 1),
        (4, 2, False, 1 / 3),
        (4, 4, False, 0),
        (4, 8, True, 1 / 8),
        (1, 1, False, 0),
    ],
)
def test_batch_factor(n, batch_size, replace, factor):
    assert stability.batch_factor(n, batch_size, replace) == pytest.approx(factor, rel=1e-15)


@pytest.mark.parametrize(("replace", "size"), [(False, 1), (False, 3), (True, 2)])
def test_batch_factor_is_the_variance_of_a_batch_mean(replace, size):
    x = np.array([1.0, 4.0, -2.0, 7.0])
    draws = itertools.product(x, repeat=size) if replace else itertools.combinations(x, size)
    variance = np.var([np.mean(draw) for draw in draws])
    assert variance == pytest.approx(
        stability.batch_factor(4, size, replace) * np.var(x), rel=1e-12
    )


@pytest.mark.parametrize(("batch_size", "expected"), [(1, 0.2500), (2, 0.4423)])
def test_sufficient_threshold_of_four_outer_products(batch_size, expected):
    threshold = stability.sufficient_threshold(OUTER, batch_size)
    assert threshold == pytest.approx(expected, abs=5e-5)
    # The definition itself: the left side of (4) passes 1 there.
    p = stability.batch_factor(4, batch_size)
    for share, holds in [(1 - 1e-9, True), (1 + 1e-9, False)]:
        matrix = reference.sufficient_matrix(OUTER, jnp.full(4, 0.25), share * threshold, p)
        assert (float(jnp.linalg.eigvalsh(matrix)[-1]) <= 1) is holds


def test_sufficient_threshold_in_one_dimension():
    hessians = jnp.array([[[0.2]], [[3.8]]])
    # E h / (E h^2 / 2): 2 * 2 / 7.24.
    assert stability.sufficient_threshold(hessians, 1) == pytest.approx(4 / 7.24, rel=1e-14)
    # A batch of both is full descent: 2/2. With replacement p = 1/2: 4 / (4 + 3.24/2).
    assert stability.sufficient_threshold(hessians, 2) == pytest.approx(1, rel=1e-14)
    both = stability.sufficient_threshold(hessians, 2, replace=True)
    assert both == pytest.approx(4 / 5.62, rel=1e-14)


def test_below_the_threshold_second_moments_of_sgd_shrink():
    # (4) is sufficient: the exact map of E[x x'] over all batches has spectral radius below 1.
    eta = 0.999 * stability.sufficient_threshold(OUTER, 2)
    batches = [OUTER[jnp.array(pair)].mean(0) for pair in itertools.combinations(range(4), 2)]
    steps = [jnp.eye(2) - eta * H for H in batches]
    second = sum(jnp.kron(A, A) for A in steps) / len(steps)
    assert abs(np.linalg.eigvals(second)).max() < 1


def test_thresholds_of_degenerate_hessians():
    flat = jnp.zeros((2, 2, 2)).at[:, 0, 0].set(jnp.array([0.2, 3.8]))
    # A flat direction that no sample sees changes nothing.
    assert stability.sufficient_threshold(flat, 1) == pytest.approx(4 / 7.24, rel=1e-14)
    # One whose curvature cancels in the mean only is unstable for every step.
    noisy = flat.at[:, 1, 1].set(jnp.array([1.0, -1.0]))
    assert stability.sufficient_threshold(noisy, 1) == 0
    assert stability.sufficient_threshold(noisy, 2) == pytest.approx(1, rel=1e-14)
    assert stability.sufficient_threshold(flat.at[:, 1, 1].set(-1.0), 1) == 0
    assert stability.sufficient_threshold(jnp.zeros((3, 2, 2)), 1) == math.inf


@pytest.mark.parametrize("batch_size", [1, 2])
def test_threshold_in_float32(batch_size):
    exact = stability.sufficient_threshold(OUTER, batch_size)
    got = stability.sufficient_threshold(OUTER.astype(jnp.float32), batch_size)
    assert got == pytest.approx(exact, rel=1e-6)


def _net(n=40):
    def loss(p, s):
        x, y = s
        return jnp.sum((jnp.tanh(x @ p["U"]) @ p["w"] - y) ** 2)

    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (n, 6))
    params = {
        "U": jax.random.normal(keys[1], (6, 12)) / 2,
        "w": jax.random.normal(keys[2], (12,)) / 4,
    }
    # Labels of the net itself: every sample is fitted, the point is an interpolating minimum.
    labels = jax.vmap(lambda s: jnp.tanh(s @ params["U"]) @ params["w"])(x)
    return FiniteSum(loss, (x, labels)), params


@pytest.fixture(scope="module")
def net():
    problem, params = _net()
    return problem, params, reference.sample_hessians(problem, params)


def test_sufficient_condition_equals_dense(net):
    problem, params, hessians = net
    # A step large enough that the largest eigenvalue is isolated, above 1.
    got = stability.sufficient_condition(problem, params, batch_size=4, step=0.5, rtol=1e-6)
    p = stability.batch_factor(40, 4)
    matrix = reference.sufficient_matrix(hessians, problem.weights, 0.5, p)
    assert got == pytest.approx(float(jnp.linalg.eigvalsh(matrix)[-1]), rel=1e-9)


def test_sufficient_condition_is_one_where_flat_directions_remain(net):
    problem, params, hessians = net
    # 84 parameters, 40 samples of rank one each: at a small step (4) is 1, in the flat directions.
    step = 0.1 * stability.sufficient_threshold(hessians, 4)
    got = stability.sufficient_condition(problem, params, batch_size=4, step=step)
    assert got == pytest.approx(1, abs=1e-3)


def test_sufficient_condition_of_a_small_problem_is_exact():
    got = stability.sufficient_condition(_toy(), jnp.zeros(1), batch_size=1, step=0.7)
    # E (1 - .7 h)^2 = 1 - 2.8 + .49 * 7.24
    assert got == pytest.approx(1.7476, rel=1e-12)


def test_largest_step_of_small_problems_is_exact():
    bounds = stability.largest_step(_least_squares(), jnp.zeros(2), batch_size=2)
    assert bounds.sufficient == pytest.approx(stability.sufficient_threshold(OUTER, 2), rel=1e-12)
    # The documented numbers of this example: .473706 by the top direction, .714759 for descent
    # (its sharpness is that of the mean of OUTER).
    assert bounds.necessary == pytest.approx(0.473706, abs=1e-6)
    assert bounds.descent == pytest.approx(0.714759, abs=1e-6)


def test_largest_step_on_a_span_comes_down_to_the_threshold(net):
    problem, params, hessians = net
    exact = stability.sufficient_threshold(hessians, 4)
    found = [
        stability.largest_step(problem, params, batch_size=4, directions=k).sufficient
        for k in (1, 8, 24)
    ]
    # Restriction is an upper bound, up to rounding; nested spans come down. Vectors are accurate to
    # 1e-3, which matters little to a span.
    assert found[0] >= found[1] * (1 - 1e-3)
    assert found[1] >= found[2] * (1 - 1e-3)
    assert min(found) >= exact * (1 - 1e-9)
    assert found[1] < 1.05 * exact


def test_bounds_are_in_order_and_agree_with_sharpness(net):
    problem, params, _ = net
    bounds = stability.largest_step(problem, params, batch_size=4)
    assert bounds.sufficient <= bounds.necessary <= bounds.descent
    top = float(sharpness(problem, params))
    assert bounds.descent == pytest.approx(2 / top, rel=1e-5)


def test_assess_a_network(net):
    problem, params, hessians = net
    found = stability.assess(problem, params, batch_size=4, step=0.01)
    H = reference.mean_matrix(hessians, problem.weights)
    eigenvalues = np.linalg.eigvalsh(H)
    # Second order in the residual of 1e-3, over gaps of a tenth of the spectrum.
    assert found.sharpness == pytest.approx(eigenvalues[-1], rel=1e-5)
    assert found.nonuniformity == pytest.approx(float(nonuniformity(problem, params)), rel=1e-5)
    assert found.smallest_eigenvalue == pytest.approx(0, abs=1e-3 * eigenvalues[-1])
    assert found.stable is True
    assert found.loss == pytest.approx(0, abs=1e-25)
    assert found.max_sample_gradient < 1e-12
    again = stability.assess(problem, params, batch_size=4, step=0.01, previous=found)
    assert again.largest_step == pytest.approx(found.largest_step, rel=1e-4)


@pytest.mark.parametrize(("step", "stable"), [(0.4576, True), (0.4577, False)])
def test_verdict_is_that_of_the_exact_threshold(step, stable):
    # (4) holds up to .4423, no step beyond .4737 is stable by the top direction; the threshold is
    # .457655, certified from below to within a ten-thousandth: .457609.
    problem = _least_squares()
    assert stability.assess(problem, jnp.zeros(2), batch_size=2, step=step).stable is stable


def test_assess_measures_gradients_where_samples_disagree():
    problem = FiniteSum(lambda p, c: 0.5 * jnp.sum((p - c) ** 2), jnp.array([[0.0], [1.0], [5.0]]))
    found = stability.assess(problem, jnp.array([2.0]), batch_size=1, step=0.1)
    assert found.gradient_norm == pytest.approx(0, abs=1e-15)
    assert found.mean_sample_gradient == pytest.approx(2, rel=1e-15)
    assert found.max_sample_gradient == pytest.approx(3, rel=1e-15)
    assert found.loss == pytest.approx((4 + 1 + 9) / 6, rel=1e-15)


def test_a_maximum_allows_no_step():
    found = stability.assess(_toy((-1.0, -2.0)), jnp.zeros(1), batch_size=1, step=0.1)
    assert found.smallest_eigenvalue == pytest.approx(-1.5, rel=1e-15)
    assert (found.largest_step, found.largest_step_necessary, found.largest_step_gd) == (0, 0, 0)
    assert found.stable is False


def test_weights_count_as_probabilities():
    # a = (3/4, 1/4), h = (1, 3): 2 E h / E h^2 = 3 / 3 for one draw.
    problem = FiniteSum(
        lambda p, c: 0.5 * c * jnp.sum(p**2), jnp.array([1.0, 3.0]), weights=[0.75, 0.25]
    )
    bounds = stability.largest_step(problem, jnp.zeros(1), batch_size=1)
    assert bounds.sufficient == pytest.approx(1, rel=1e-14)
    assert bounds.necessary == pytest.approx(1, rel=1e-14)
    with pytest.raises(InputError, match="without replacement need equal weights"):
        stability.largest_step(problem, jnp.zeros(1), batch_size=2)


@pytest.mark.slow
def test_float32_network_is_assessed():
    problem, params = _net(10)
    problem = FiniteSum(problem.loss, jax.tree.map(lambda x: x.astype(jnp.float32), problem.data))
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    found = stability.assess(problem, params, batch_size=2, step=0.01, directions=3)
    assert 0 < found.largest_step <= found.largest_step_necessary <= found.largest_step_gd
    got = stability.sufficient_condition(problem, params, batch_size=2, step=0.01)
    assert got == pytest.approx(1, abs=1e-2)


def test_rectangle():
    corner = stability.rectangle(4, batch_size=2, step=0.1)
    assert corner.sharpness == pytest.approx(20, rel=1e-15)
    assert corner.nonuniformity == pytest.approx(10 * math.sqrt(3), rel=1e-15)
    assert stability.rectangle(4, batch_size=4, step=0.1).nonuniformity == math.inf


def test_rectangle_is_not_sufficient():
    # h = (.2, 3.8): a = 2, s = 1.8. At eta = .554 the rectangle is 3.6 by 1.805, and 4/7.24 < .554.
    corner = stability.rectangle(2, batch_size=1, step=0.554)
    assert corner.sharpness > 2
    assert corner.nonuniformity > 1.8
    found = stability.assess(_toy(), jnp.zeros(1), batch_size=1, step=0.554)
    assert found.stable is False


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: stability.batch_factor(4, 5), r"batch_size=5 of n=4 .*1 to n=4"),
        (lambda: stability.batch_factor(4, 0, True), "batch_size=0 of n=4 samples; expected at"),
        (lambda: stability.rectangle(4, batch_size=1, step=0.0), "step=0.0; expected a positive"),
        (
            lambda: stability.assess(_toy(), jnp.zeros(1), batch_size=1, step=math.nan),
            "step=nan; expected a positive",
        ),
        (
            lambda: stability.largest_step(_toy(), jnp.zeros(1), batch_size=1, directions=0),
            "directions=0; expected at least 1",
        ),
        (
            lambda: stability.sufficient_threshold(jnp.array([[[0.0, 1.0], [0.0, 0.0]]]), 1),
            "not finite and symmetric",
        ),
        (
            lambda: stability.sufficient_threshold(jnp.full((2, 1, 1), jnp.nan), 1),
            "not finite and symmetric",
        ),
    ],
)
def test_requests_that_make_no_sense(call, match):
    with pytest.raises(InputError, match=match):
        call()
