"""All draws of a step with their probabilities, against the samplers' own moments and draws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import enumeration
import thalweg as tw
from helpers import bowl_gradients, bowls
from thalweg.errors import InputError

LABELS = ["b", "a", "b", "c", "a"]
GROUPS = np.array([1, 0, 1, 2, 0])
A = np.array([0.1, 0.3, 0.2, 0.25, 0.15])
UNEQUAL = bowls(5, weights=A, groups=LABELS)
EQUAL = bowls(5, groups=LABELS)
# The third group has no weight: nothing is ever drawn from it.
EMPTY = bowls(5, weights=[0.4, 0.1, 0.2, 0.3, 0.0], groups=[0, 0, 1, 1, 2])
THETA = jnp.asarray([0.4, -0.7])
CENTRE = UNEQUAL.data["centre"][0]
F = (0.2, 0.7, 0.1)

# Sampler, problem, params and the number of outcomes.
TABLE = {
    "full": (tw.Full(), UNEQUAL, THETA, 1),
    "one": (tw.Minibatch(1), UNEQUAL, THETA, 5),
    "subset of 3": (tw.Minibatch(3), EQUAL, THETA, 10),
    "all at once": (tw.Minibatch(5), EQUAL, THETA, 1),
    "replaced 3": (tw.Minibatch(3, replace=True), UNEQUAL, THETA, 35),
    "proportions 2": (tw.Resampled(2, proportions=F), UNEQUAL, THETA, 15),
    "lipschitz 1": (tw.Resampled(1, lipschitz=(3.0, 1.0, 0.5)), UNEQUAL, THETA, 5),
    "norms 1": (tw.Reweighted(1), UNEQUAL, THETA, 5),
    "norms 3": (tw.Reweighted(3), UNEQUAL, THETA, 35),
    "norms 2, uniform": (tw.Reweighted(2, uniform=0.3), UNEQUAL, THETA, 15),
    "norms 2, one gradient zero": (tw.Reweighted(2), UNEQUAL, CENTRE, 15),
    "norms 2, zero and uniform": (tw.Reweighted(2, uniform=0.3), UNEQUAL, CENTRE, 15),
    "groups 1": (tw.Reweighted(1, by="group"), UNEQUAL, THETA, 12),
    "groups 2": (tw.Reweighted(2, by="group"), UNEQUAL, THETA, 78),
    "groups 1, one gradient zero": (tw.Reweighted(1, by="group"), UNEQUAL, CENTRE, 12),
    "groups 1, one without weight": (tw.Reweighted(1, by="group"), EMPTY, THETA, 12),
}


@jax.jit
def law(sampler, problem, params, draws):
    """Probabilities and estimates, with problem and parameters traced."""
    outcomes = sampler.outcomes(problem, params, draws)
    gradients = problem.gradients(params)
    estimates = jnp.einsum("ob,obi->oi", outcomes.weights, gradients[outcomes.index])
    mean = sampler.mean(problem, params)
    return outcomes.probabilities, estimates, mean, sampler.covariance(problem, params)


def law_of(sampler, problem, params):
    draws = jnp.asarray(sampler.all_draws(problem))
    return [np.asarray(x) for x in law(sampler, problem, params, draws)]


@pytest.mark.parametrize("name", TABLE)
def test_outcomes_have_the_moments_of_the_sampler(name):
    sampler, problem, params, count = TABLE[name]
    probabilities, estimates, mean, covariance = law_of(sampler, problem, params)
    assert sampler.outcome_count(problem) == len(probabilities) == count
    assert (probabilities >= 0).all()
    assert probabilities.sum() == pytest.approx(1, abs=1e-14)
    enumerated = enumeration.moments((probabilities, estimates))
    # Some hundred numbers of size below 10, squared and cancelled, with roundings of 2e-16.
    np.testing.assert_allclose(enumerated[0], mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(enumerated[1], covariance, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["groups 1", "groups 2"])
def test_outcomes_by_group_are_those_of_an_enumeration(name):
    # Moments alone would not tell apart laws of the same covariance.
    sampler, problem, params, _ = TABLE[name]
    probabilities, estimates, *_ = law_of(sampler, problem, params)
    one = enumeration.by_group(A, bowl_gradients(problem, params), GROUPS)
    expected = enumeration.mean_of(one, sampler.size)
    # The characteristic function at a few places determines so small a law: 200 terms of size 1.
    at = np.random.default_rng(0).normal(size=(2, 7))
    got = probabilities @ np.exp(1j * estimates @ at)
    want = expected[0] @ np.exp(1j * expected[1] @ at)
    np.testing.assert_allclose(got, want, atol=1e-13)


def test_where_all_gradients_vanish_every_outcome_stands_still():
    data = {"centre": np.ones((3, 2)), "curvature": np.ones((3, 2))}
    problem = tw.FiniteSum(UNEQUAL.loss, data, groups=[0, 0, 1])
    for sampler in (tw.Reweighted(2), tw.Reweighted(1, by="group")):
        probabilities, estimates, *_ = law_of(sampler, problem, jnp.ones(2))
        assert probabilities.sum() == pytest.approx(1, abs=1e-15)
        assert (estimates == 0).all()


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(1, 7), st.integers(1, 6), st.booleans())
def test_all_draws_are_listed_once(count, size, replace):
    problem = bowls(count)
    sampler = tw.Minibatch(size if replace else min(size, count), replace=replace)
    rows = sampler.all_draws(problem)
    assert len({tuple(sorted(row)) for row in rows.tolist()}) == len(rows)
    assert len(rows) == sampler.outcome_count(problem)
    assert rows.dtype == np.int32
    assert ((rows >= 0) & (rows < count)).all()


def test_too_many_draws_are_counted_and_refused():
    problem = bowls(400)
    sampler = tw.Minibatch(100)
    assert sampler.outcome_count(problem) == math.comb(400, 100)
    with pytest.raises(InputError, match="has about 1e96 possible draws; expected at most 1000000"):
        sampler.all_draws(problem)
    with pytest.raises(InputError, match=r"has 2672670 possible draws.*smaller batch"):
        tw.Minibatch(4, replace=True).outcomes(bowls(88), THETA)


def test_kept_scores_are_refused():
    with pytest.raises(InputError, match="refresh=5 the draws depend on kept scores"):
        tw.Reweighted(1, refresh=5).outcomes(UNEQUAL, THETA)
    with pytest.raises(InputError, match="use refresh=1"):
        tw.Reweighted(1, "group", refresh=5).all_draws(UNEQUAL)
