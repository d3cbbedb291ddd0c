"""Exact mean-square thresholds against published numbers, two derivations and SGD itself."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import thalweg as tw
from thalweg import stability
from thalweg.errors import InputError

FEATURES = jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0], [1.0, -1.0]])
OUTER = FEATURES[:, :, None] * FEATURES[:, None, :]
TOY = jnp.array([0.2, 3.8])[:, None, None]


def _family(seed, n=8, d=3, rank=1):
    factors = np.random.default_rng(seed).standard_normal((n, d, rank))
    return jnp.asarray(factors @ factors.transpose(0, 2, 1))


def _outcomes(n, size, replace):
    """All batches of equal probability."""
    if replace:
        return list(itertools.product(range(n), repeat=size))
    return list(itertools.combinations(range(n), size))


def _second(hessians, step, size, replace=False):
    """The map of second moments, from all batches: nothing but its definition."""
    H = np.asarray(hessians)
    maps = [
        np.eye(H.shape[1]) - step * H[list(b)].mean(0) for b in _outcomes(len(H), size, replace)
    ]
    return np.mean([np.kron(A, A) for A in maps], axis=0), maps


@pytest.mark.parametrize(
    ("batch_size", "exact", "sufficient"),
    [(1, 0.261643, 0.2500), (2, 0.457655, 0.4423), (4, 0.714759, 0.714759)],
)
def test_four_outer_products(batch_size, exact, sufficient):
    # The published numbers are those of batches without replacement, p = 1/3 for B = 2; with it,
    # p = 1/2, they would be .385756 and .371099. B = 4 is full descent.
    assert stability.mean_square_threshold(OUTER, batch_size) == pytest.approx(exact, abs=5e-7)
    assert stability.sufficient_threshold(OUTER, batch_size) == pytest.approx(sufficient, abs=5e-5)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("rank", [1, 2])
def test_both_derivations_agree(rank, batch_size, replace):
    hessians = _family(rank, n=4, rank=rank)
    threshold = stability.mean_square_threshold(hessians, batch_size, replace)

    def excess(step):
        return stability.mean_square_radius(hessians, step, batch_size, replace) - 1

    # The radius is convex in the step and 1 at 0: one root beyond the sufficient threshold.
    low = 0.9 * stability.sufficient_threshold(hessians, batch_size, replace)
    high = 1.1 * 2 / float(jnp.linalg.eigvalsh(hessians.mean(0))[-1])
    root = brentq(excess, low, high, xtol=1e-14)
    assert threshold == pytest.approx(root, rel=1e-10)
    # The radius itself, against the Kronecker products of all batches and a solver of general
    # matrices, at a step on neither side.
    step = 1.2 * threshold
    second, _ = _second(hessians, step, batch_size, replace)
    radius = np.abs(np.linalg.eigvals(second)).max()
    assert excess(step) + 1 == pytest.approx(radius, rel=1e-12)


@pytest.mark.parametrize(("d", "n"), [(16, 10), (16, 40)])
def test_iteration_agrees_with_the_matrix_written_out(d, n):
    # Above 12 rows eigenvalues are iterated; n above and below d take the two ways to sum.
    hessians = _family(5, n=n, d=d, rank=2)
    step = stability.mean_square_threshold(hessians, 2)
    H = np.asarray(hessians)
    mean, p, eye = H.mean(0), stability.batch_factor(n, 2), np.eye(d)
    Q = np.kron(eye - step * mean, eye - step * mean)
    Q += step**2 * p * (np.mean([np.kron(h, h) for h in H], axis=0) - np.kron(mean, mean))
    assert np.linalg.eigvalsh(Q)[-1] == pytest.approx(1, abs=1e-10)


def test_thresholds_are_in_order():
    for seed, size in itertools.product(range(3), (1, 3)):
        hessians = _family(seed, rank=2)
        four = stability.sufficient_threshold(hessians, size)
        exact = stability.mean_square_threshold(hessians, size)
        assert four < exact < 2 / float(jnp.linalg.eigvalsh(hessians.mean(0))[-1])
        # The whole space is safe up to here if all H_i >= 0: the bound of the bracket's page.
        p = stability.batch_factor(8, size)
        largest = float(jnp.linalg.eigvalsh(hessians).max())
        mean = float(jnp.linalg.eigvalsh(hessians.mean(0))[-1])
        assert 2 / ((1 - p) * mean + p * largest) <= four


def test_toy_pair():
    # 2 E h / E h^2 = 4/7.24; E (1 - .7 h)^2 = 1 - 2.8 + .49 * 7.24.
    assert stability.mean_square_threshold(TOY, 1) == pytest.approx(0.5524862, abs=5e-8)
    assert stability.mean_square_radius(TOY, 0.7, 1) == pytest.approx(1.7476, rel=1e-12)


def test_null_directions():
    flat = jnp.zeros((2, 2, 2)).at[:, 0, 0].set(TOY[:, 0, 0])
    assert stability.mean_square_threshold(flat, 1) == pytest.approx(4 / 7.24, rel=1e-14)
    # v = e_2 is null for H; each H_i moves it, once along itself, once along e_1 alone.
    for noisy in (
        flat.at[:, 1, 1].set(jnp.array([1.0, -1.0])),
        flat.at[:, 0, 1].set(jnp.array([1.0, -1.0])).at[:, 1, 0].set(jnp.array([1.0, -1.0])),
    ):
        assert stability.mean_square_threshold(noisy, 1) == 0
        # Indeed every small step grows. The second by way of e_1 alone: E v^2 grows by step^2 E u^2
        # a step, and E u^2 follows at step^2 / (2 step E h) of E v^2: 1 + step^3 / 4 = 1 + 2.5e-7.
        assert stability.mean_square_radius(noisy, 1e-2, 1) > 1 + 2e-7
        assert stability.mean_square_threshold(noisy, 2) == pytest.approx(1, rel=1e-14)
    assert stability.mean_square_threshold(flat.at[:, 1, 1].set(-1.0), 2) == 0
    assert stability.mean_square_threshold(jnp.zeros((3, 2, 2)), 1) == math.inf


def test_one_sample_is_full_descent():
    one = OUTER.sum(0)[None]
    top = float(jnp.linalg.eigvalsh(one[0])[-1])
    for size, replace in [(1, False), (3, True)]:
        # Draws of the only sample never differ, with replacement either.
        assert stability.mean_square_threshold(one, size, replace) == pytest.approx(2 / top)
    assert stability.critical_batch(one, 1 / top) == 1


def test_threshold_in_float32():
    exact = stability.mean_square_threshold(OUTER, 2)
    got = stability.mean_square_threshold(OUTER.astype(jnp.float32), 2)
    assert got == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("replace", [False, True])
def test_critical_batch(replace):
    # Thresholds .2616, .4577 (.3858), .6057 (.4577), .7148 (.5043) for B = 1, ..., 4.
    for step in (0.2, 0.3, 0.45, 0.5, 0.7):
        size = stability.critical_batch(OUTER, step, replace)
        assert size is not None
        assert step <= stability.mean_square_threshold(OUTER, size, replace)
        assert size == 1 or step > stability.mean_square_threshold(OUTER, size - 1, replace)
    assert stability.critical_batch(OUTER, 0.72, replace) is None


def _quadratic(theta, H):
    return jnp.dot(theta, H @ theta) / 2


def _spread_of(moment, chains):
    """Starts whose second moment is a positive semidefinite matrix over its trace."""
    values, vectors = np.linalg.eigh(moment)
    shares = np.maximum(values, 0) / np.maximum(values, 0).sum()
    counts = np.floor(np.cumsum(shares) * chains + 0.5).astype(int)
    return np.repeat(vectors.T, np.diff(counts, prepend=0), axis=0), shares, vectors


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_simulated_sgd_grows_above_and_shrinks_below(seed, size):
    r"""tr(X E x x') after k steps is rho^k of its start, for the eigenmatrix X of the map.

    Starts with the second moment X leave no transient. The tails are heavy (the fourth moment
    grows faster than the square of the second), so the standard error is not taken from the
    sample: E (x'Xx)^2 is <X x X, (E A^(x4))^k x_0^(x4)> exactly, over all batches. Four steps are
    few enough that 250000 chains see growth and decay with more than ten of these errors.
    """
    steps, chains = 4, 250_000
    hessians = _family(seed)
    threshold = stability.mean_square_threshold(hessians, size)
    for share in (0.97, 1.03):
        second, maps = _second(hessians, share * threshold, size)
        values, vectors = np.linalg.eigh((second + second.T) / 2)
        X = vectors[:, -1].reshape(3, 3) * np.sign(np.trace(vectors[:, -1].reshape(3, 3)))
        starts, shares, axes = _spread_of(X, chains)
        run = tw.simulate(
            tw.Descent(tw.FiniteSum(_quadratic, hessians), tw.Minibatch(size), share * threshold),
            jnp.asarray(starts),
            per_chain=True,
            chains=chains,
            steps=steps,
            key=jax.random.key(seed),
        )
        ends = np.asarray(run.params)
        heights = np.einsum("ni,ij,nj->n", ends, X, ends)
        begin = np.einsum("ni,ij,nj->n", starts, X, starts).mean()
        fourth = np.mean([np.kron(np.kron(A, A), np.kron(A, A)) for A in maps], axis=0)
        fours = [np.kron(np.kron(v, v), np.kron(v, v)) for v in axes.T]
        later = np.linalg.matrix_power(fourth, steps) @ (shares @ np.stack(fours))
        square = np.kron(X.ravel(), X.ravel()) @ later
        expected = values[-1] ** steps
        error = math.sqrt((square / begin**2 - expected**2) / chains)
        found = heights.mean() / begin
        assert found == pytest.approx(expected, abs=4 * error)
        assert found < 1 - 5 * error if share < 1 else found > 1 + 5 * error


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: stability.mean_square_threshold(OUTER, 5), r"batch_size=5 of n=4 .*1 to n=4"),
        (
            lambda: stability.mean_square_threshold(OUTER.at[0, 0, 1].set(1), 1),
            "not finite and symmetric",
        ),
        (lambda: stability.mean_square_radius(OUTER, -1.0, 1), "step=-1.0; expected a positive"),
        (lambda: stability.critical_batch(OUTER, math.nan), "step=nan; expected a positive"),
    ],
)
def test_requests_that_make_no_sense(call, match):
    with pytest.raises(InputError, match=match):
        call()
