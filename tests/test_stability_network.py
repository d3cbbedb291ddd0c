"""Thresholds of networks, matrix-free, against dense matrices and against SGD that starts there."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from thalweg import datasets, models, reference, stability
from thalweg.errors import InputError
from thalweg.stability.moments import largest_eigenvalue

KEY = jax.random.key(3)


def _loss(p, sample):
    x, y = sample
    return jnp.sum((jnp.tanh(x @ p["U"]) @ p["w"] - y) ** 2)


def _half_squared_error(outputs, target):
    return jnp.sum((outputs - target) ** 2) / 2


def _fitted(residuals, flat, tolerance, rounds):
    """Levenberg and Marquardt's steps until every residual vanishes."""
    jacobian, damping = jax.jit(jax.jacfwd(residuals)), 1.0
    r = np.asarray(residuals(flat))
    for _ in range(rounds):
        if np.square(r).sum() < tolerance:
            return flat
        J = np.asarray(jacobian(flat))
        step = J.T @ np.linalg.solve(J @ J.T + damping * np.eye(len(r)), r)
        new = np.asarray(residuals(flat - step))
        if np.square(new).sum() < np.square(r).sum():
            flat, r, damping = flat - step, new, damping / 5
        else:
            damping *= 5
    raise AssertionError("the net does not fit its data")


@pytest.fixture(scope="module")
def net():
    """84 parameters trained until 40 samples with random labels are fitted to rounding."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, y = jax.random.normal(keys[0], (40, 6)), jax.random.normal(keys[3], (40,)) / 2
    start = {
        "U": jax.random.normal(keys[1], (6, 12)) / 2,
        "w": jax.random.normal(keys[2], (12,)) / 4,
    }
    flat, unravel = ravel_pytree(start)

    def residuals(v):
        p = unravel(v)
        return jnp.tanh(x @ p["U"]) @ p["w"] - y

    params = unravel(_fitted(jax.jit(residuals), flat, 1e-24, 500))
    problem = tw.FiniteSum(_loss, (x, y))
    return problem, params, reference.sample_hessians(problem, params)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_bracket_closes_on_the_dense_threshold(net, batch_size):
    problem, params, hessians = net
    exact = stability.mean_square_threshold(hessians, batch_size)
    found = stability.mean_square_bracket(problem, params, batch_size=batch_size)
    assert found.closed
    assert not found.whole
    # The upper end is a proof, up to rounding; the lower end holds on the span, and two rounds that
    # moved it by less than a hundredth have found the threshold to the accuracy asked for.
    assert exact * (1 - 1e-9) <= found.upper <= 1.02 * exact
    assert 0.98 * found.upper <= found.lower <= found.upper
    assert found.upper < stability.largest_step(problem, params, batch_size=4).descent


def test_bracket_that_does_not_close_says_so(net):
    problem, params, hessians = net
    exact = stability.mean_square_threshold(hessians, 1)
    found = stability.mean_square_bracket(
        problem, params, batch_size=1, directions=2, largest_span=6
    )
    assert not found.closed
    assert found.directions <= 6
    assert found.upper >= exact
    assert "not closed" in str(found)


def test_bracket_of_full_descent_needs_no_enlargement(net):
    problem, params, hessians = net
    found = stability.mean_square_bracket(problem, params, batch_size=40)
    top = float(jnp.linalg.eigvalsh(hessians.mean(0))[-1])
    assert found.closed
    # The leading eigenvector is found to a residual of 1e-3, its eigenvalue to the square of it.
    assert found.upper == pytest.approx(2 / top, rel=1e-5)


def test_bracket_of_a_small_problem_is_that_of_the_whole_space():
    x = jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0], [1.0, -1.0]])
    problem = tw.FiniteSum(lambda p, x: jnp.dot(x, p) ** 2 / 2, x)
    found = stability.mean_square_bracket(problem, jnp.zeros(2), batch_size=1)
    assert found.whole
    assert found.closed
    assert found.lower <= 0.2616426832 * (1 + 1e-9)
    assert found.upper >= 0.2616426832 * (1 - 1e-9)
    # The lower end is certified a ten-thousandth below.
    assert found.upper / found.lower - 1 < 2e-4
    # Unequal weights are probabilities: 2 E h / E h^2 = 3/3 for a = (3/4, 1/4), h = (1, 3).
    pair = tw.FiniteSum(
        lambda p, c: c * jnp.sum(p**2) / 2, jnp.array([1.0, 3.0]), weights=[0.75, 0.25]
    )
    assert stability.mean_square_bracket(pair, jnp.zeros(1), batch_size=1).upper == pytest.approx(1)


@pytest.mark.parametrize("share", [0.97, 1.03])
def test_sgd_of_the_trained_net_grows_above_and_shrinks_below(net, share):
    r"""As for quadratics: starts have the second moment X that neither grows nor shrinks between.

    tr(X E x x') after k steps is <X, Q^k X>, with the map Q of the step itself (whose own radius at
    .97 is that of flat directions). They are 1e-6 long, so that what the loss is beyond quadratic
    is a millionth. Batches of 30 keep the tails light enough for the sample's standard error.
    """
    problem, params, hessians = net
    size, chains, steps = 30, 4_000, 6
    threshold = stability.mean_square_threshold(hessians, size)
    step = share * threshold
    H = np.asarray(hessians)
    mean, p = H.mean(0), stability.batch_factor(40, size)
    values, axes = np.linalg.eigh(mean)
    V = axes[:, values > 1e-9 * values[-1]]
    h, m = V.T @ H @ V, np.diag(values[values > 1e-9 * values[-1]])

    def moved(M, eta):
        spread = (1 - p) * m @ M @ m + p * (h @ M @ h).mean(0)
        return M - eta * (m @ M + M @ m) + eta**2 * spread

    radius, X = largest_eigenvalue(lambda M: moved(M, threshold), len(m))
    assert radius == pytest.approx(1, abs=1e-9)
    later = X
    for _ in range(steps):
        later = moved(later, step)
    expected = np.sum(X * later) / np.sum(X * X)
    sizes, vectors = np.linalg.eigh(X)
    shares = np.maximum(sizes, 0) / np.maximum(sizes, 0).sum()
    counts = np.diff(np.floor(np.cumsum(shares) * chains + 0.5).astype(int), prepend=0)
    starts = 1e-6 * np.repeat((V @ vectors).T, counts, axis=0)
    flat, unravel = ravel_pytree(params)
    run = tw.simulate(
        tw.Descent(problem, tw.Minibatch(size), step),
        jax.vmap(unravel)(flat + jnp.asarray(starts)),
        per_chain=True,
        chains=chains,
        steps=steps,
        key=KEY,
    )
    ends = np.asarray(jax.vmap(lambda q: ravel_pytree(q)[0])(run.params)) - np.asarray(flat)
    heights = np.einsum("na,ab,nb->n", ends @ V, X, ends @ V)
    heights /= np.einsum("na,ab,nb->n", starts @ V, X, starts @ V).mean()
    error = heights.std() / math.sqrt(chains)
    assert heights.mean() == pytest.approx(expected, abs=4 * error)
    assert heights.mean() < 1 - 5 * error if share < 1 else heights.mean() > 1 + 5 * error


def test_assessment_of_an_interpolating_net(net):
    problem, params, hessians = net
    exact = stability.mean_square_threshold(hessians, 4)
    found = stability.assess(problem, params, batch_size=4, step=0.01, key=KEY)
    assert found.interpolates
    assert found.remarks == ()
    # On 16 directions, an upper bound and no more; it is close.
    assert exact * (1 - 1e-9) <= found.mean_square.upper <= 1.1 * exact
    assert found.largest_step <= found.mean_square.upper <= found.largest_step_gd
    assert found.critical_batch == 1
    # Residuals of 1e-12 leave a noise of their square.
    assert found.excess_loss < 1e-20
    above = stability.reassess(problem, found, batch_size=4, step=1.01 * found.mean_square.upper)
    assert above.stable is False
    assert above.critical_batch > 4


def test_assessment_where_the_samples_disagree():
    # Three centres of curvature 1: C = 14/3 for one draw; E x^2 = eta C/(2 - eta), halved.
    problem = tw.FiniteSum(lambda p, c: jnp.sum((p - c) ** 2) / 2, jnp.array([[0.0], [1.0], [5.0]]))
    found = stability.assess(problem, jnp.array([2.0]), batch_size=1, step=0.1, key=KEY)
    assert not found.interpolates
    assert found.excess_loss == pytest.approx(0.1 * 14 / 3 / 1.9 / 2, rel=1e-10)
    assert found.batch_sharpness.value == pytest.approx(1, rel=1e-12)
    assert "the norms of their gradients are 2 in the mean, 3 at most" in found.remarks[0]
    assert "mean height above the minimum is 0.1228" in found.remarks[0]
    beyond = stability.reassess(problem, found, batch_size=1, step=2.1)
    assert beyond.stable is False
    assert beyond.critical_batch is None
    assert beyond.excess_loss == math.inf
    assert "height" not in beyond.remarks[0]


def test_a_point_that_is_no_minimum_is_told_so():
    problem = tw.FiniteSum(lambda p, c: (c * p[0] ** 2 - p[1] ** 2 / 4) / 2, jnp.array([1.0, 2.0]))
    found = stability.assess(problem, jnp.zeros(2), batch_size=1, step=0.1)
    assert found.smallest_eigenvalue == pytest.approx(-0.25, rel=1e-14)
    assert found.remarks == ("H has the eigenvalue -0.25: no minimum, and no step is stable",)
    assert found.stable is False
    assert found.mean_square == (0, 0)
    bracket = stability.mean_square_bracket(problem, jnp.zeros(2), batch_size=1)
    assert (bracket.upper, bracket.lowest) == (0, found.smallest_eigenvalue)


def test_one_sample():
    problem = tw.FiniteSum(lambda p, c: c * jnp.sum(p**2) / 2, jnp.array([4.0]))
    found = stability.assess(problem, jnp.zeros(2), batch_size=1, step=0.4)
    assert found.mean_square.upper == pytest.approx(0.5, rel=1e-12)
    assert found.nonuniformity == 0
    assert found.stable is True


def test_requests_that_make_no_sense(net):
    problem, params, _ = net
    with pytest.raises(InputError, match=r"rtol=2.0; expected an accuracy between 0 and 1"):
        stability.mean_square_bracket(problem, params, batch_size=1, rtol=2.0)
    with pytest.raises(InputError, match=r"batch_size=41 of n=40"):
        stability.mean_square_bracket(problem, params, batch_size=41)
    with pytest.raises(InputError, match=r"batches=1; expected at least 2"):
        stability.batch_sharpness(problem, params, batch_size=1, key=KEY, batches=1)


@pytest.mark.slow
def test_sgd_at_an_interpolating_digits_net_stays_and_leaves():
    """910 parameters fitted to 50 digits, single samples, 32 paths from 1e-4 away.

    At .8 of the threshold no path's loss rises; at 1.25 every path leaves, and full descent with
    that very step stays: it is SGD's threshold that is met, not descent's.
    """
    data = datasets.load("digits").train
    x, y = jnp.asarray(data.x[:50], float).reshape(50, -1), jnp.eye(10)[data.y[:50]]
    model = models.mlp((64, 12, 10), "tanh")
    flat, unravel = ravel_pytree(model.init(jax.random.key(0), jnp.float64))

    def residuals(v):
        return (jax.vmap(lambda a: model.apply(unravel(v), a))(x) - y).ravel()

    flat = _fitted(jax.jit(residuals), flat, 1e-10, 100)
    problem = tw.FiniteSum(models.supervised(model, _half_squared_error), (x, y))
    bracket = stability.mean_square_bracket(problem, unravel(flat), batch_size=1, largest_span=96)
    assert bracket.closed
    assert bracket.upper <= 1.02 * bracket.lower
    away = 1e-4 * jax.random.normal(KEY, (32, flat.size)) / math.sqrt(flat.size)
    starts = jax.vmap(unravel)(flat + away)
    before = float(jax.vmap(problem.value)(starts).max())
    one = tw.Minibatch(1)
    for sampler, share, leaves in [(one, 0.8, False), (one, 1.25, True), (tw.Full(), 1.25, False)]:
        run = tw.simulate(
            tw.Descent(problem, sampler, share * bracket.upper),
            starts,
            per_chain=True,
            chains=32,
            steps=400,
            key=jax.random.key(1),
        )
        losses = np.asarray(jax.vmap(problem.value)(run.params))
        assert losses.min() > 1e4 * before if leaves else losses.max() < before
