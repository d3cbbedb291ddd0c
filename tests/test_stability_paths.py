"""Almost-sure stability, passes over the data, and the noise around a regular minimum."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg import stability
from thalweg.errors import InputError

FEATURES = jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0], [1.0, -1.0]])
OUTER = FEATURES[:, :, None] * FEATURES[:, None, :]
TOY = jnp.array([0.2, 3.8])[:, None, None]
KEY = jax.random.key(7)


def test_toy_pair_almost_surely():
    # (1 - .2 eta)(1 - 3.8 eta) = -1.
    found = stability.almost_sure_threshold(TOY, 1, key=KEY)
    assert found.value == pytest.approx((4 - math.sqrt(9.92)) / 1.52, rel=1e-12)
    assert found.error == 0
    exponent = stability.lyapunov_exponent(TOY, 0.7, 1, key=KEY)
    assert exponent.value == pytest.approx(0.177997, abs=5e-7)


@pytest.mark.parametrize("replace", [False, True])
def test_scalar_exponent_sums_over_all_batches(replace):
    h = np.array([0.3, 1.0, 2.5, 4.0])
    draws = itertools.product(h, repeat=2) if replace else itertools.combinations(h, 2)
    expected = np.mean([math.log(abs(1 - 0.6 * np.mean(draw))) for draw in draws])
    found = stability.lyapunov_exponent(jnp.asarray(h[:, None, None]), 0.6, 2, replace, key=KEY)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.error == 0


def test_simulated_exponent_of_commuting_hessians():
    # Diagonal Hessians: the exponent is the largest of the scalar ones, of the second here.
    h = np.array([[0.5, 0.2], [0.7, 3.8], [0.6, 3.0]])
    rates = np.log(np.abs(1 - 0.55 * h)).mean(axis=0)
    assert rates[1] > rates[0] + 0.2
    found = stability.lyapunov_exponent(
        jnp.asarray(h[:, :, None] * np.eye(2)), 0.55, 1, key=KEY, chains=256, steps=1000
    )
    # The other direction is forgotten at e^-.2 a step, long before a tenth of the steps.
    assert found.value == pytest.approx(rates[1], abs=4 * found.error)
    spread = np.log(np.abs(1 - 0.55 * h[:, 1])).std()
    assert found.error == pytest.approx(spread / math.sqrt(256 * 900), rel=0.2)


def test_almost_sure_threshold_of_matrices():
    found = stability.almost_sure_threshold(OUTER, 1, key=KEY)
    assert found.value > stability.mean_square_threshold(OUTER, 1)
    # Asked with other draws: the exponents on both sides of the threshold have their signs.
    other = jax.random.key(8)
    reach = 6 * found.error
    below = stability.lyapunov_exponent(OUTER, found.value - reach, 1, key=other)
    above = stability.lyapunov_exponent(OUTER, found.value + reach, 1, key=other)
    assert below.value < -2 * below.error
    assert above.value > 2 * above.error


def test_directions_that_nothing_moves_are_left_out():
    flat = jnp.zeros((2, 2, 2)).at[:, 0, 0].set(TOY[:, 0, 0])
    found = stability.almost_sure_threshold(flat, 1, key=KEY)
    assert found.value == pytest.approx(0.5594716, abs=5e-8)
    assert stability.almost_sure_threshold(jnp.zeros((2, 2, 2)), 1, key=KEY).value == math.inf
    assert stability.lyapunov_exponent(jnp.zeros((2, 2, 2)), 1.0, 1, key=KEY).value == 0
    assert stability.almost_sure_threshold(-TOY, 1, key=KEY).value == 0


def test_a_mean_of_zero_is_almost_surely_stable_and_in_mean_square_not():
    # E log|1 - eta h| = log(1 - eta^2)/2 for h = +-1: negative up to sqrt 2.
    signs = jnp.array([1.0, -1.0])[:, None, None]
    assert stability.mean_square_threshold(signs, 1) == 0
    found = stability.almost_sure_threshold(signs, 1, key=KEY)
    assert found.value == pytest.approx(math.sqrt(2), rel=1e-12)


def _all_orders(hessians, step, size):
    H, n = np.asarray(hessians), len(hessians)
    total = 0
    for order in itertools.permutations(range(n)):
        A = np.eye(H.shape[1])
        for first in range(0, n, size):
            A = A - step * H[list(order[first : first + size])].mean(0) @ A
        total = total + np.kron(A, A)
    return total / math.factorial(n)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_reshuffled_radius_is_that_of_all_orders(size):
    # Size 3 of 4 samples leaves a last batch of one.
    found = stability.reshuffled_radius(OUTER, 0.3, size, key=KEY)
    expected = np.abs(np.linalg.eigvals(_all_orders(OUTER, 0.3, size))).max()
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.error == 0


def test_thresholds_of_passes():
    # A pass of two scalars is (1 - .2 eta)(1 - 3.8 eta) in either order.
    root = (4 - math.sqrt(9.92)) / 1.52
    assert stability.reshuffled_threshold(TOY, 1, key=KEY).value == pytest.approx(root, rel=1e-9)
    assert stability.cyclic_threshold(TOY, 1) == pytest.approx(root, rel=1e-9)
    # One batch of all is descent.
    assert stability.cyclic_threshold(OUTER, 4) == pytest.approx(0.714759, abs=5e-7)
    for size in (1, 2):
        random = stability.reshuffled_threshold(OUTER, size, key=KEY).value
        assert stability.reshuffled_radius(OUTER, random, size, key=KEY).value == pytest.approx(1)
        cyclic = stability.cyclic_threshold(OUTER, size)
        assert stability.cyclic_radius(OUTER, 0.999 * cyclic, size) < 1
        assert stability.cyclic_radius(OUTER, 1.001 * cyclic, size) > 1
    assert stability.cyclic_threshold(-TOY, 1) == 0
    assert stability.cyclic_threshold(0 * TOY, 1) == math.inf


def test_cyclic_radius_is_that_of_the_simulated_pass():
    step = 0.5
    problem = tw.FiniteSum(lambda theta, H: jnp.dot(theta, H @ theta) / 2, OUTER)
    columns = tw.simulate(
        tw.Descent(problem, tw.Cyclic(1), step),
        jnp.eye(2),
        per_chain=True,
        chains=2,
        steps=4,
        key=KEY,
    ).params
    expected = np.abs(np.linalg.eigvals(np.asarray(columns).T)).max()
    assert stability.cyclic_radius(OUTER, step, 1) == pytest.approx(expected, rel=1e-12)


def test_sampled_orders_agree_with_all_of_them(monkeypatch):
    from thalweg.stability import orders

    exact = stability.reshuffled_radius(OUTER, 0.3, 1, key=KEY).value
    threshold = stability.reshuffled_threshold(OUTER, 1, key=KEY).value
    monkeypatch.setattr(orders, "_SUMMED", 0.0)
    found = stability.reshuffled_radius(OUTER, 0.3, 1, key=KEY)
    assert 0 < found.error < 0.05 * exact
    assert found.value == pytest.approx(exact, abs=4 * found.error)
    root = stability.reshuffled_threshold(OUTER, 1, key=KEY)
    assert 0 < root.error < 0.05 * threshold
    assert root.value == pytest.approx(threshold, abs=4 * root.error)


def _regular(n=6, d=3):
    R = np.random.default_rng(3)
    factors = R.standard_normal((n, d, 2))
    slopes = R.standard_normal((n, d))
    return jnp.asarray(factors @ factors.transpose(0, 2, 1)), jnp.asarray(slopes - slopes.mean(0))


@pytest.mark.parametrize(("size", "replace"), [(1, False), (2, False), (2, True)])
def test_limit_covariance_is_the_fixed_point_over_all_batches(size, replace):
    hessians, slopes = _regular()
    step = 0.6 * stability.mean_square_threshold(hessians, size, replace)
    M = np.asarray(
        stability.limit_covariance(hessians, slopes, step=step, batch_size=size, replace=replace)
    )
    picks = itertools.product(range(6), repeat=size) if replace else None
    picks = list(picks or itertools.combinations(range(6), size))
    total = 0
    for pick in map(list, picks):
        A = np.eye(3) - step * np.asarray(hessians)[pick].mean(0)
        g = step * np.asarray(slopes)[pick].mean(0)
        total = total + A @ M @ A.T + np.outer(g, g)
    assert np.abs(total / len(picks) - M).max() < 1e-10 * np.abs(M).max()
    height = stability.excess_loss(hessians, slopes, step=step, batch_size=size, replace=replace)
    assert height == pytest.approx(np.trace(np.asarray(hessians).mean(0) @ M) / 2, rel=1e-12)


def test_noise_ball_of_three_unit_parabolas():
    # Three unit equilateral centres, gamma = 1/3: E|x|^2 = .2, a quarter of it for B = 2.
    angles = 2 * np.pi * np.arange(3) / 3
    slopes = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    hessians = jnp.broadcast_to(jnp.eye(2), (3, 2, 2))
    for size, expected in [(1, 0.2), (2, 0.05)]:
        M = stability.limit_covariance(hessians, slopes, step=1 / 3, batch_size=size)
        assert float(jnp.trace(M)) == pytest.approx(expected, rel=1e-12)


def test_noise_has_no_bound_above_the_threshold():
    hessians, slopes = _regular()
    step = 1.001 * stability.mean_square_threshold(hessians, 1)
    assert stability.excess_loss(hessians, slopes, step=step, batch_size=1) == math.inf
    below = stability.excess_loss(hessians, slopes, step=0.99 * step, batch_size=1)
    assert 0 < below < math.inf
    # An interpolating minimum has no noise to amplify.
    assert stability.excess_loss(hessians, 0 * slopes, step=step, batch_size=1) == 0


def test_batch_sharpness_of_quadratics():
    # f_i = h_i |x|^2/2: every batch's gradient is an eigenvector of its Hessian, the mean of h.
    h = jnp.array([1.0, 2.0, 6.0])
    problem = tw.FiniteSum(lambda p, c: c * jnp.sum(p**2) / 2, h)
    found = stability.batch_sharpness(problem, jnp.ones(2), batch_size=1, key=KEY, batches=400)
    assert found.value == pytest.approx(3, abs=4 * found.error)
    assert found.error == pytest.approx(float(jnp.std(h)) / 20, rel=0.15)
    whole = stability.batch_sharpness(problem, jnp.ones(2), batch_size=3, key=KEY)
    assert whole.value == pytest.approx(3, rel=1e-12)
    assert whole.error < 1e-12


def test_batch_sharpness_is_the_mean_of_the_definition():
    problem = tw.FiniteSum(lambda p, x: (jnp.tanh(jnp.dot(x, p)) - x[0]) ** 2, FEATURES)
    at = jnp.array([0.3, -0.2])
    values = []
    for pick in itertools.combinations(range(4), 2):
        data = FEATURES[jnp.array(pick)]
        f = lambda p, data=data: jnp.mean(jax.vmap(lambda x: problem.loss(p, x))(data))  # noqa: E731
        g, H = np.asarray(jax.grad(f)(at)), np.asarray(jax.hessian(f)(at))
        values.append(g @ H @ g / (g @ g))
    found = stability.batch_sharpness(problem, at, batch_size=2, key=KEY, batches=400)
    assert found.value == pytest.approx(np.mean(values), abs=4 * found.error)
    assert found.error == pytest.approx(np.std(values) / 20, rel=0.15)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: stability.lyapunov_exponent(OUTER, 0.1, 1, key=KEY, chains=1),
            "chains=1, steps=2000; expected at least 2 chains",
        ),
        (lambda: stability.almost_sure_threshold(OUTER, 9, key=KEY), "batch_size=9 of n=4"),
        (lambda: stability.cyclic_threshold(OUTER, 9), "batch_size=9 of n=4"),
        (lambda: stability.reshuffled_radius(OUTER, 0.0, 1, key=KEY), "step=0.0; expected"),
        (
            lambda: stability.limit_covariance(-TOY, jnp.zeros((2, 1)), step=0.1, batch_size=1),
            r"H has the eigenvalue -2: no minimum; expected a positive",
        ),
        (
            lambda: stability.limit_covariance(TOY, jnp.ones((2, 1)), step=0.1, batch_size=1),
            "the mean of the gradients is 1 where the largest is 1; expected a minimum",
        ),
        (
            lambda: stability.limit_covariance(
                jnp.zeros((2, 1, 1)), jnp.array([[1.0], [-1.0]]), step=0.1, batch_size=1
            ),
            "along directions in which H vanishes",
        ),
        (
            lambda: stability.batch_sharpness(
                tw.FiniteSum(lambda p, c: c * jnp.sum(p**2), jnp.ones(3)),
                jnp.zeros(2),
                batch_size=1,
                key=KEY,
            ),
            "the gradients of 64 of 64 batches vanish",
        ),
    ],
)
def test_requests_that_make_no_sense(call, match):
    with pytest.raises(InputError, match=match):
        call()
