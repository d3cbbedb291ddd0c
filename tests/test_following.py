"""Following sharpness and thresholds along training within a budget of products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg import reference, stability
from thalweg.errors import InputError


def loss(p, sample):
    x, y = sample
    return (jnp.tanh(x @ p["W"]) @ p["w"] - y) ** 2 / 2


@pytest.fixture(scope="module")
def training():
    """A net of 84 parameters on 20 samples, and points late in gradient descent."""
    rng = np.random.default_rng(0)
    problem = tw.FiniteSum(loss, (rng.standard_normal((20, 6)), rng.standard_normal(20)))
    params = {"W": jnp.asarray(rng.standard_normal((6, 12))), "w": jnp.ones(12) / 4}
    step = jax.jit(lambda p: jax.tree.map(lambda a, g: a - 0.05 * g, p, problem.gradient(p)))
    params = jax.lax.fori_loop(0, 3000, lambda _, p: step(p), params)
    path = []
    for k in range(60):
        if k % 10 == 0:
            path.append((k, params))
        params = step(params)
    return problem, path


def test_all_points_with_a_large_budget(training):
    problem, path = training
    found = stability.follow(problem, path, batch_size=2, budget=1e6)
    np.testing.assert_array_equal(found.steps, [0, 10, 20, 30, 40, 50])
    for place, (_, params) in enumerate(path):
        hessians = np.asarray(reference.sample_hessians(problem, params))
        H = hessians.mean(axis=0)
        Sigma = np.einsum("nab,nbc->ac", hessians, hessians) / 20 - H @ H
        # Vectors are right to 1 %, values to its square over the relative gaps.
        sharpness = np.linalg.eigvalsh(H)[-1]
        assert found.sharpness[place] == pytest.approx(sharpness, rel=2e-3)
        spread = np.linalg.eigvalsh(Sigma)[-1] ** 0.5
        assert found.nonuniformity[place] == pytest.approx(spread, rel=2e-3)
        # An upper end on the whole space, as long as it is curved where the span is.
        bracket = stability.mean_square_bracket(problem, params, batch_size=2)
        assert bracket.lower < found.threshold[place] * (1 + 1e-3)
        assert found.threshold[place] < 1.15 * bracket.upper


def test_a_budget_is_kept_to_one_look(training):
    problem, path = training
    whole = stability.follow(problem, path, batch_size=2, budget=1e6)
    one = whole.products / len(path)
    found = stability.follow(problem, path, batch_size=2, budget=one / 25)
    assert found.steps[0] == 0
    assert 1 < len(found.steps) < len(path)
    assert found.products <= one / 25 * found.steps[-1] + 2 * one


def test_requests_that_make_no_sense(training):
    problem, path = training
    with pytest.raises(InputError, match="budget=0 products a step"):
        stability.follow(problem, path, batch_size=2, budget=0)
    with pytest.raises(InputError, match="path holds no points"):
        stability.follow(problem, [], batch_size=2, budget=1.0)
    with pytest.raises(InputError, match="batch_size=21"):
        stability.follow(problem, path, batch_size=21, budget=1.0)
