"""Samplers against the enumeration of all their draws; one row in TABLE is one more sampler."""

from functools import cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.stats import chisquare

import enumeration
import thalweg as tw
from helpers import bowl_gradients, bowls
from thalweg.errors import InputError
from thalweg.landscapes import piecewise_linear
from thalweg.random import Stream
from thalweg.sampling import base
from thalweg.sampling import minibatch as minibatch_module

LABELS = ["b", "a", "b", "c", "a"]
GROUPS = np.array([1, 0, 1, 2, 0])
A = np.array([0.1, 0.3, 0.2, 0.25, 0.15])
UNEQUAL = bowls(5, weights=A, groups=LABELS)
EQUAL = bowls(5, groups=LABELS)
PAIRED = bowls(4, groups=[0, 0, 1, 1], weights=[0.4, 0.1, 0.2, 0.3])
# Too many to be compared with one by one.
A40 = np.arange(40.0) / 780
GROUPS40 = np.arange(40) % 3
LARGE40 = bowls(40, weights=A40, groups=GROUPS40)
KEY = jax.random.key(11)
THETA = jnp.asarray([0.4, -0.7])
# Where the gradients of the kept scores were taken.
EARLIER = jnp.asarray([1.5, 0.2])
# Scores kept by group: one a group, of no particular sample.
KEPT = jnp.asarray([0.7, 1.9, 0.4])


class Row(NamedTuple):
    """A sampler, a problem, kept scores if any, and the law by enumeration from (a, g)."""

    sampler: base.AbstractMemoryless
    problem: tw.FiniteSum
    law: object
    state: object = None
    params: object = THETA


def independent(size, one):
    return lambda a, g: enumeration.mean_of(one(a, g), size)


def population(a, g):
    return enumeration.one_sample(a, np.ones_like(a), g)


def norms_at(problem, params):
    return jnp.asarray(enumeration.norms(bowl_gradients(problem, params)))


def stale(size, uniform, treatment):
    scores = norms_at(UNEQUAL, EARLIER)
    sampler = tw.Reweighted(size, refresh=10, stale=treatment, uniform=uniform)
    current = treatment == "fixed-length"

    def law(a, g):
        return enumeration.by_sample(a, g, uniform, scores, current=current)

    return Row(sampler, UNEQUAL, independent(size, law), sampler.keep(UNEQUAL, scores))


def stale_groups(size, treatment):
    def law(a, g):
        scores = np.asarray(KEPT)[GROUPS]
        return enumeration.by_sample(a, g, 0.0, scores, current=treatment == "fixed-length")

    sampler = tw.Reweighted(size, by="group", refresh=10, stale=treatment)
    return Row(sampler, UNEQUAL, independent(size, law), sampler.keep(UNEQUAL, KEPT))


def reweighted(size, uniform=0.0, problem=UNEQUAL, params=THETA):
    one = independent(size, lambda a, g: enumeration.by_sample(a, g, uniform))
    return Row(tw.Reweighted(size, uniform=uniform), problem, one, None, params)


def grouped(size, problem=UNEQUAL, params=THETA):
    groups = np.asarray(problem.groups)
    one = independent(size, lambda a, g: enumeration.by_group(a, g, groups))
    return Row(tw.Reweighted(size, by="group"), problem, one, None, params)


def resampled(size, f, **options):
    one = independent(size, lambda a, g: enumeration.fixed_groups(a, g, GROUPS, f))
    return Row(tw.Resampled(size, **options), UNEQUAL, one)


def minibatch(size, replace, problem):
    law = independent(size, population) if replace else lambda a, g: enumeration.subsets(g, size)
    return Row(tw.Minibatch(size, replace=replace), problem, law)


F = np.array([0.2, 0.7, 0.1])
L = np.array([3.0, 1.0, 0.5])
FL = enumeration.group_sums(A, GROUPS) * L


def lipschitz_of_40():
    f = enumeration.group_sums(A40, GROUPS40) * L

    def law(a, g):
        return enumeration.fixed_groups(a, g, GROUPS40, f / f.sum())

    return Row(tw.Resampled(1, lipschitz=L), LARGE40, law)


TABLE = {
    "full": Row(tw.Full(), UNEQUAL, enumeration.full),
    "subset of 2": minibatch(2, False, EQUAL),
    "subset of 4": minibatch(4, False, EQUAL),
    "replaced 2, unequal": minibatch(2, True, UNEQUAL),
    "one of unequal": Row(tw.Minibatch(1), UNEQUAL, population),
    "replaced 2, equal": minibatch(2, True, EQUAL),
    "proportions 2": resampled(2, F, proportions=F),
    "lipschitz 2": resampled(2, FL / FL.sum(), lipschitz=L),
    "one of 40 unequal": Row(tw.Minibatch(1), LARGE40, population),
    "lipschitz 1 of 40": lipschitz_of_40(),
    "norms 1 of 40": reweighted(1, problem=LARGE40),
    "norms 1": reweighted(1),
    "norms 2": reweighted(2),
    "norms 2, uniform .3": reweighted(2, 0.3),
    "norms 2, one gradient zero": reweighted(2, 0.0, UNEQUAL, UNEQUAL.data["centre"][0]),
    "norms 2, zero and uniform": reweighted(2, 0.3, UNEQUAL, UNEQUAL.data["centre"][0]),
    "groups 1": grouped(1),
    "groups 2": grouped(2),
    "two groups 2": grouped(2, PAIRED),
    "groups 2, one gradient zero": grouped(2, UNEQUAL, UNEQUAL.data["centre"][0]),
    "stale 2, uniform .3": stale(2, 0.3, "unbiased"),
    "fixed length 1": stale(1, 0.0, "fixed-length"),
    "fixed length 2, uniform .3": stale(2, 0.3, "fixed-length"),
    "stale groups 2": stale_groups(2, "unbiased"),
    "fixed length groups 2": stale_groups(2, "fixed-length"),
}


DRAWING = [name for name in TABLE if name != "full"]
DRAWS = 100_000


def enumerated(row):
    g = bowl_gradients(row.problem, row.params)
    return row.law(np.asarray(row.problem.weights), g)


def moments(sampler, problem, params, state):
    args = problem, params, state
    return sampler.mean(*args), sampler.covariance(*args), sampler.trace(*args)


@eqx.filter_jit
def draws(sampler, problem, params, state, count=DRAWS, key=KEY):
    """One draw a chain; at step 1 kept scores are used, fresh samplers keep none."""

    def one(chain):
        return sampler.draw(problem, params, state, Stream.of(key, chain, 1), 1)[0]

    return jax.vmap(one)(jnp.arange(count))


@cache
def drawn(name):
    """Estimates, indices and weights of many independent draws of a row."""
    row = TABLE[name]
    many = draws(row.sampler, row.problem, row.params, row.state, key=jax.random.key(5))
    index, weights = np.asarray(many.index), np.asarray(many.weights)
    assert not np.asarray(many.stationary).any()
    g = bowl_gradients(row.problem, row.params)
    return np.einsum("nb,nbi->ni", weights, g[index]), index, weights


@pytest.mark.parametrize("name", TABLE)
def test_moments_equal_enumeration(name):
    row = TABLE[name]
    mean, covariance = enumeration.moments(enumerated(row))
    got = moments(row.sampler, row.problem, row.params, row.state)
    for value, expected in zip(got, (mean, covariance, np.trace(covariance)), strict=True):
        # Some ten numbers of size below 10, squared and cancelled: 100 roundings of 2e-16 x 100.
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    bias = np.abs(mean - full_gradient(row)).max()
    assert (bias < 1e-14) if row.sampler.unbiased else (bias > 1e-2)


@pytest.mark.parametrize("name", DRAWING)
def test_draws_have_the_enumerated_law(name):
    # Pearson's test over all distinct estimates; outcomes expected less than 5 times are pooled.
    # With 23 rows and a fixed key the smallest p of sound samplers is below 1e-4 once in 400.
    p, estimates = enumerated(TABLE[name])
    estimates, which = np.unique(np.round(estimates, 9), axis=0, return_inverse=True)
    p = np.bincount(which.ravel(), weights=p)
    distance, nearest = cKDTree(estimates[p > 0]).query(drawn(name)[0])
    assert distance.max() < 1e-8
    seen, expected = np.bincount(nearest, minlength=(p > 0).sum()), DRAWS * p[p > 0]
    rare = expected < 5
    seen = np.append(seen[~rare], seen[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert chisquare(seen[expected > 0], expected[expected > 0]).pvalue > 1e-4


@pytest.mark.parametrize("name", DRAWING)
def test_mean_of_draws(name):
    mean, covariance = enumeration.moments(enumerated(TABLE[name]))
    estimates, index, weights = drawn(name)
    # Five standard errors.
    error = np.sqrt(np.diag(covariance) / DRAWS)
    assert (np.abs(estimates.mean(axis=0) - mean) <= 5 * error).all()
    assert index.shape == weights.shape == (DRAWS, TABLE[name].sampler.size)
    assert index.dtype == np.int32
    if "zero" in name and "uniform" not in name:
        # The sample whose gradient vanishes is never drawn.
        assert not (index == 0).any()


def full_gradient(row):
    return np.asarray(row.problem.weights) @ bowl_gradients(row.problem, row.params)


SAMPLERS = {
    "full": tw.Full(),
    "subset": tw.Minibatch(2),
    "replaced": tw.Minibatch(2, replace=True),
    "reshuffled": tw.Reshuffled(2),
    "cyclic": tw.Cyclic(2),
    "resampled": tw.Resampled(2, lipschitz=(1.0, 2.0, 3.0)),
    "norms": tw.Reweighted(2),
    "groups": tw.Reweighted(2, by="group"),
    "fixed length": tw.Reweighted(2, refresh=2, stale="fixed-length", uniform=0.1),
    "fixed length groups": tw.Reweighted(2, by="group", refresh=2, stale="fixed-length"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_single_precision_stays_single(name):
    # Types are settled while tracing, where strict promotion raises on any mixture.
    problem = bowls(5, groups=LABELS, dtype=np.float32)
    descent = tw.Descent(problem, SAMPLERS[name], 0.1)
    before = jax.eval_shape(descent.init, jnp.ones(2, jnp.float32))
    after = jax.eval_shape(descent.advance, before, Stream.of(KEY), jnp.asarray(0))
    assert before.params.dtype == jnp.float32
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(
        lambda x: (x.shape, x.dtype), after
    )


COSTS = {
    "full": (tw.Full(), 5),
    "subset": (tw.Minibatch(3), 3),
    "reshuffled": (tw.Reshuffled(2), 5 / 3),
    "cyclic": (tw.Cyclic(2), 5 / 3),
    "resampled": (tw.Resampled(3, lipschitz=(1.0, 1.0, 1.0)), 3),
    "norms": (tw.Reweighted(2), 2 + 5),
    "kept norms": (tw.Reweighted(2, refresh=10), 2 + 0.5),
    "fixed length": (tw.Reweighted(2, refresh=10, stale="fixed-length"), 4 + 0.5),
    "groups": (tw.Reweighted(2, by="group"), 2 * 3 + 2),
    "kept groups": (tw.Reweighted(2, by="group", refresh=10), 2 + 0.3),
}


@pytest.mark.parametrize("name", COSTS)
def test_evaluations_a_step(name):
    sampler, cost = COSTS[name]
    assert sampler.evaluations(EQUAL) == pytest.approx(cost, rel=1e-15)


# The trace inequality of resampling-reweighting.


def traces(centres, weights, params):
    data = {"centre": centres, "curvature": np.ones_like(centres)}
    problem = tw.FiniteSum(UNEQUAL.loss, data, weights=weights)
    return problem, _traces(problem, params)


@jax.jit
def _traces(problem, params):
    samplers = tw.Minibatch(1, replace=True), tw.Reweighted(1), tw.Reweighted(1, uniform=0.5)
    return [sampler.trace(problem, params) for sampler in samplers]


components = st.floats(-10, 10).map(lambda x: round(x, 6))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(components, min_size=8, max_size=8),
    st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
)
def test_trace_is_never_above_that_of_sgd(centres, weights):
    # Cauchy and Schwarz: (sum a s)^2 <= sum a s^2; half of each is in between.
    weights = np.array(weights) / sum(weights)
    _, (sgd, rr, mixed) = traces(np.reshape(centres, (4, 2)), weights, jnp.zeros(2))
    slack = 1e-12 * (1 + float(sgd))
    assert rr <= sgd + slack
    assert rr - slack <= mixed <= sgd + slack


def test_trace_equals_that_of_sgd_for_equal_norms():
    angles = np.array([0.1, 1.0, 2.5, 4.0])
    circle = 3.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    _, (sgd, rr, _) = traces(circle, np.array([0.1, 0.2, 0.3, 0.4]), jnp.zeros(2))
    # Numbers of size 9.
    assert float(abs(sgd - rr)) < 1e-14
    _, (sgd, rr, _) = traces(circle, np.array([0.1, 0.2, 0.3, 0.4]), jnp.asarray([0.5, 0.0]))
    assert float(sgd - rr) > 0.1


# Zero gradients.


def test_a_drawn_sample_whose_current_gradient_is_zero_has_weight_zero():
    # Kept scores draw it; in fixed-length steps it would be divided by.
    sampler = tw.Reweighted(1, refresh=10, stale="fixed-length")
    scores = sampler.keep(UNEQUAL, norms_at(UNEQUAL, EARLIER))
    many = draws(sampler, UNEQUAL, UNEQUAL.data["centre"][3], scores, 1000)
    index, weights = np.asarray(many.index), np.asarray(many.weights)
    assert (index == 3).any()
    assert (weights[index == 3] == 0).all()
    assert (weights[index != 3] > 0).all()
    assert np.isfinite(weights).all()


def test_kept_scores_that_are_all_zero_draw_from_the_population():
    sampler = tw.Reweighted(2, refresh=10)
    many = draws(sampler, UNEQUAL, THETA, sampler.keep(UNEQUAL, jnp.zeros(5)))
    seen = np.bincount(np.asarray(many.index).ravel(), minlength=5)
    assert chisquare(seen, 2 * DRAWS * A).pvalue > 1e-4
    assert (np.asarray(many.weights) == 0.5).all()


STILL = {
    "norms": (tw.Reweighted(2), True),
    "kept norms": (tw.Reweighted(2, refresh=3), True),
    "fixed length": (tw.Reweighted(2, refresh=3, stale="fixed-length"), True),
    # One sample a group says nothing of the others.
    "groups": (tw.Reweighted(2, by="group"), False),
    "kept groups": (tw.Reweighted(2, by="group", refresh=3), False),
}


@pytest.mark.parametrize("name", STILL)
def test_a_common_minimum_is_reported_as_a_fixed_point(name):
    sampler, reported = STILL[name]
    centre = np.array([0.25, -1.5])
    data = {"centre": np.tile(centre, (5, 1)), "curvature": np.ones((5, 2))}
    problem = tw.FiniteSum(UNEQUAL.loss, data, weights=A, groups=LABELS)
    for params, expected in ((centre, reported), (centre + 1.0, False)):
        state = sampler.init(problem, jnp.asarray(params))
        one = first_draw(sampler, problem, jnp.asarray(params), state)
        assert bool(one.stationary) == expected
        estimate = np.asarray(one.weights) @ bowl_gradients(problem, params)[np.asarray(one.index)]
        assert np.isfinite(estimate).all()
        assert (np.abs(estimate).max() == 0) == (params is centre)


@eqx.filter_jit
def first_draw(sampler, problem, params, state):
    return sampler.draw(problem, params, state, Stream.of(KEY), 0)[0]


def test_a_chain_at_a_common_minimum_stays():
    problem = tw.FiniteSum.of(lambda x: jnp.sum(x**2), lambda x: jnp.sum(x**4))
    descent = tw.Descent(problem, tw.Reweighted(2, by="group"), 0.1)
    starts = jnp.asarray([[0.0], [1.0]])
    run = tw.simulate(descent, starts, per_chain=True, steps=4, key=KEY)
    assert jax.vmap(descent.stationary)(run.params).tolist() == [True, False]
    assert run.params[0].tolist() == [0.0]


def test_a_zero_gradient_of_one_in_each_group_is_no_fixed_point():
    # The first of each group is at its minimum, the second is not: with scores of the first ones
    # kept nothing may be claimed.
    centre = np.array([[0.0], [1.0], [0.0], [1.0]])
    data = {"centre": centre, "curvature": np.ones_like(centre)}
    problem = tw.FiniteSum(UNEQUAL.loss, data, groups=[0, 0, 1, 1])
    sampler = tw.Reweighted(1, by="group", refresh=10)
    kept = sampler.keep(problem, jnp.zeros(2))
    many = draws(sampler, problem, jnp.zeros(1), kept, 10)
    assert not np.asarray(many.stationary).any()


# When scores are taken.


@pytest.mark.parametrize("by", ["sample", "group"])
def test_scores_are_taken_every_refresh_steps(by):
    sampler = tw.Reweighted(1, by=by, refresh=3)
    kept = sampler.init(UNEQUAL, THETA)
    norms, taken = norms_at(UNEQUAL, THETA), []
    stream = Stream.of(KEY)
    step_of = jax.jit(lambda state, step: sampler.draw(UNEQUAL, THETA, state, stream, step)[1])
    for step in range(7):
        old = sampler.keep(UNEQUAL, jnp.full_like(kept.norms, 0.125))
        new = step_of(old, jnp.asarray(step)).norms
        taken.append(bool(jnp.any(new != 0.125)))
    assert taken == [True, False, False, True, False, False, True]
    if by == "sample":
        np.testing.assert_allclose(new, norms, rtol=1e-14)
    else:
        for j, score in enumerate(np.asarray(new)):
            assert np.isclose(score, np.asarray(norms)[j == GROUPS], rtol=1e-14).any()


# Passes.


def stream_at(k):
    return Stream.of(KEY, 0, k)


def passes(sampler, problem, count):
    """The (index, weights) of every batch of so many passes, missing places left out."""
    draw_at = jax.jit(lambda state, k: sampler.draw(problem, THETA, state, stream_at(k), k))
    state, batches = sampler.init(problem, THETA), []
    for k in range(count * -(-problem.n // sampler.size)):
        one, state = draw_at(state, jnp.asarray(k))
        present = np.asarray(one.weights) > 0
        batches.append((np.asarray(one.index)[present], np.asarray(one.weights)[present]))
    return batches


@pytest.mark.parametrize("kind", [tw.Reshuffled, tw.Cyclic])
@pytest.mark.parametrize(("n", "size"), [(7, 3), (6, 2), (5, 5)])
def test_every_pass_goes_over_all_samples_once(kind, n, size):
    weights = np.arange(1.0, n + 1) / (n * (n + 1) / 2)
    problem = bowls(n, weights=weights)
    sampler, batches = kind(size), passes(kind(size), problem, 3)
    a_pass = -(-n // size)
    orders = [np.concatenate([b[0] for b in batches[p : p + a_pass]]) for p in (0, a_pass)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(n))
    if kind is tw.Cyclic:
        assert orders[0].tolist() == orders[1].tolist() == list(range(n))
    elif n > 5:
        assert orders[0].tolist() != orders[1].tolist()
    for k, (index, w) in enumerate(batches):
        held = size if (k + 1) % a_pass or n % size == 0 else n % size
        assert len(index) == held
        np.testing.assert_allclose(w, n * weights[index] / held, rtol=1e-14)
    assert sampler.evaluations(problem) == n / a_pass


@pytest.mark.parametrize("kind", [tw.Reshuffled, tw.Cyclic])
def test_a_pass_in_whole_batches_averages_to_the_full_gradient(kind):
    weights = np.arange(1.0, 7) / 21
    problem = bowls(6, weights=weights)
    g = bowl_gradients(problem, THETA)
    estimates = [w @ g[index] for index, w in passes(kind(2), problem, 1)]
    np.testing.assert_allclose(np.mean(estimates, axis=0), weights @ g, rtol=1e-13)


def test_all_permutations_are_equally_likely():
    # So a batch at a fixed place of the pass is a uniform subset: unbiased, the last one, too.
    problem, sampler = bowls(4), tw.Reshuffled(3)
    state = sampler.init(problem, THETA)

    def order(chain):
        return sampler.draw(problem, THETA, state, Stream.of(KEY, chain), 0)[1]

    orders = np.asarray(jax.jit(jax.vmap(order))(jnp.arange(24_000)))
    _, seen = np.unique(orders @ [64, 16, 4, 1], return_counts=True)
    assert len(seen) == 24
    assert chisquare(seen).pvalue > 1e-4


def test_the_last_smaller_batch_is_unbiased():
    # Enumerated: the batch after three of four is any one sample with weight n a_i.
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    problem, sampler = bowls(4, weights=weights), tw.Reshuffled(3)
    orders = jnp.asarray([[1, 2, 3, 0], [0, 2, 3, 1], [0, 1, 3, 2], [0, 1, 2, 3]], jnp.int32)

    def second(order):
        return sampler.draw(problem, THETA, order, stream_at(1), 1)[0]

    many, g = jax.jit(jax.vmap(second))(orders), bowl_gradients(problem, THETA)
    estimates = np.einsum("nb,nbi->ni", many.weights, g[np.asarray(many.index)])
    np.testing.assert_allclose(np.mean(estimates, axis=0), weights @ g, rtol=1e-13)


# Drawing with probabilities.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [32, 5000])
def test_no_entry_of_weight_zero_is_drawn_however_sums_round(dtype, n, monkeypatch):
    # The uniform numbers that hit the running sums, their neighbours and both ends, exactly.
    rng = np.random.default_rng(0)
    weights = np.where(rng.random(n) < 0.5, 0, rng.random(n)).astype(dtype)
    weights[:2] = weights[-3:] = 0
    sums = np.asarray(jnp.cumsum(jnp.asarray(weights)))
    targets = (sums / sums[-1]).astype(dtype)
    below, above = np.nextafter(targets, dtype(0)), np.nextafter(targets, dtype(1))
    numbers = np.concatenate([targets, below, above])
    numbers = jnp.asarray(numbers[(numbers >= 0) & (numbers < 1)])
    monkeypatch.setattr(Stream, "uniform", lambda self, count, dtype: numbers)
    index = base.weighted_index(Stream.of(KEY), jnp.asarray(weights), len(numbers))
    assert weights[np.asarray(index)].min() > 0


@pytest.mark.parametrize("n", [7, 40])
def test_many_draws_in_single_precision_follow_the_weights(n):
    weights = np.zeros(n, np.float32)
    weights[[1, 4, 5]] = [3, 1, 6]
    draws = base.weighted_index(Stream.of(KEY), jnp.asarray(weights), 1_000_000)
    seen = np.bincount(np.asarray(draws), minlength=n)
    assert (seen[weights == 0] == 0).all()
    kept = weights > 0
    assert chisquare(seen[kept], 1e5 * weights[kept]).pvalue > 1e-4


def test_entries_of_short_and_long_arrays():
    for n in (5, 100):
        values, index = jnp.linspace(0.0, 1.0, n), jnp.asarray([n - 1, 0, 3], jnp.int32)
        assert base.entries_of(values, index).tolist() == np.asarray(values)[[-1, 0, 3]].tolist()


def test_subsets_drawn_in_a_loop_are_those_written_out(monkeypatch):
    many = jax.vmap(lambda chain: minibatch_module._subset(Stream.of(KEY, chain), 40, 20))
    looped = np.asarray(many(jnp.arange(1000)))
    monkeypatch.setattr(minibatch_module, "_WRITTEN_OUT", 20)
    assert looped.tolist() == np.asarray(many(jnp.arange(1000))).tolist()
    assert all(len(set(subset)) == 20 for subset in looped.tolist())
    # 500 of each sample are expected with the standard deviation sqrt(1000/4) = 16.
    seen = np.bincount(looped.ravel(), minlength=40)
    assert seen.size == 40
    assert np.abs(seen - 500).max() < 5 * 16


def test_one_of_each_group_in_proportion_to_its_weights():
    problem = bowls(6, weights=[0.1, 0.0, 0.3, 0.25, 0.35, 0.0], groups=list("babbab"))
    many = jax.jit(jax.vmap(lambda chain: base.one_a_group(problem, Stream.of(KEY, chain))))
    drawn = np.asarray(many(jnp.arange(50_000)))
    first, second = (np.bincount(drawn[:, j], minlength=6) for j in (0, 1))
    # Group a is samples 1 and 4, of which 1 has weight zero; b is 0, 2, 3 and 5.
    assert first.tolist() == [0, 0, 0, 0, 50_000, 0]
    assert second[[1, 4, 5]].tolist() == [0, 0, 0]
    assert chisquare(second[[0, 2, 3]], 50_000 * np.array([0.1, 0.3, 0.25]) / 0.65).pvalue > 1e-4


# An and Ying, section 2.


@pytest.mark.parametrize(("a1", "epsilon", "K"), [(0.4, 0.1, 5.0), (0.3, 0.01, 2.0)])
def test_variances_of_the_two_wells(a1, epsilon, K):
    # Section 2: with proportions f1, f2 the variances in the four regions, left to right.
    problem, a2 = piecewise_linear(a1=a1, epsilon=epsilon, K=K).problem, 1 - a1
    sampler = tw.Resampled(1, lipschitz=(1.0, K))
    f1 = a1 / (a1 + K * a2)
    f2 = 1 - f1
    np.testing.assert_allclose(sampler.group_proportions(problem), [f1, f2], rtol=1e-15)
    up, down = np.sqrt(f2 / f1), np.sqrt(f1 / f2)
    expected = {
        -1.5: (a1 * up - epsilon * a2 * down) ** 2,
        -0.5: (a1 * up + epsilon * a2 * down) ** 2,
        0.5 / K: (epsilon * a1 * up + K * a2 * down) ** 2,
        1.5 / K: (epsilon * a1 * up - K * a2 * down) ** 2,
    }
    got = covariances(sampler, problem, jnp.asarray(list(expected)))
    np.testing.assert_allclose(got, list(expected.values()), rtol=1e-13)
    # Balanced up to the slopes epsilon: a1 sqrt(f2/f1) = K a2 sqrt(f1/f2).
    np.testing.assert_allclose(a1 * up, K * a2 * down, rtol=1e-14)


def test_variances_of_sgd_on_the_two_wells():
    # a1 a2 (difference of the slopes)^2 in each region.
    slopes = {-1.5: (-1, -0.1), -0.5: (1, -0.1), 0.1: (0.1, -5), 0.3: (0.1, 5)}
    got = covariances(tw.Minibatch(1), piecewise_linear().problem, jnp.asarray(list(slopes)))
    expected = [0.24 * (first - second) ** 2 for first, second in slopes.values()]
    np.testing.assert_allclose(got, expected, rtol=1e-13)


@jax.jit
def covariances(sampler, problem, positions):
    return jax.vmap(lambda x: sampler.covariance(problem, x[None])[0, 0])(positions)


def test_lipschitz_constants_of_the_two_wells():
    points = jnp.linspace(-2.0, 1.0, 31)[:, None]
    assert tw.lipschitz_constants(piecewise_linear(K=7.0).problem, points) == (1.0, 7.0)


def test_lipschitz_constants_are_maxima_over_points_and_samples():
    points = jnp.asarray([[0.0, 0.0], [2.0, -1.0], [-3.0, 0.5]])
    norms = np.stack([norms_at(UNEQUAL, point) for point in points])
    expected = [norms[:, j == GROUPS].max() for j in range(3)]
    np.testing.assert_allclose(tw.lipschitz_constants(UNEQUAL, points), expected, rtol=1e-14)


# Bad input.

LARGE = tw.FiniteSum(lambda p, s: jnp.sum(p) * s, np.ones(3))

REFUSED = {
    "batch above n": (
        lambda: tw.Minibatch(6).check(EQUAL),
        "Minibatch has batch size 6 but the problem has n = 5",
    ),
    "pass above n": (lambda: tw.Reshuffled(6).check(EQUAL), "Reshuffled has batch size 6"),
    "cycle above n": (lambda: tw.Cyclic(6).check(EQUAL), "Cyclic has batch size 6"),
    "at construction": (lambda: tw.Descent(EQUAL, tw.Minibatch(6), 0.1), "batch size 6"),
    "size 0": (lambda: tw.Minibatch(0), "whole batch size of at least 1, got 0"),
    "size 0, pass": (lambda: tw.Reshuffled(0), "Reshuffled needs a whole batch size"),
    "size 0, cycle": (lambda: tw.Cyclic(-1), "Cyclic needs a whole batch size"),
    "size 0, norms": (lambda: tw.Reweighted(0), "Reweighted needs a whole batch size"),
    "size 0, groups": (
        lambda: tw.Resampled(0, lipschitz=(1.0,)),
        "Resampled needs a whole batch size",
    ),
    "size True": (lambda: tw.Minibatch(True), "got True"),
    "unequal subset": (
        lambda: tw.Minibatch(2).check(UNEQUAL),
        "needs equal weights.*use replace=True",
    ),
    "unknown by": (
        lambda: tw.Reweighted(1, by="samples"),
        "unknown way of drawing .* 'samples'; did you mean 'sample'.*: group, sample",
    ),
    "unknown stale": (
        lambda: tw.Reweighted(1, stale="fixed_length"),
        "'fixed_length'; did you mean 'fixed-length'",
    ),
    "refresh 0": (lambda: tw.Reweighted(1, refresh=0), "refresh .* at least 1; got 0"),
    "uniform 1.5": (lambda: tw.Reweighted(1, uniform=1.5), "expected 0 to 1; got 1.5"),
    "uniform nan": (lambda: tw.Reweighted(1, uniform=float("nan")), "expected 0 to 1; got nan"),
    "uniform groups": (
        lambda: tw.Reweighted(1, by="group", uniform=0.1),
        "needs by='sample'",
    ),
    "no groups": (
        lambda: tw.Reweighted(1, by="group").check(bowls()),
        "the problem has none; pass groups=",
    ),
    "no groups, fixed": (
        lambda: tw.Resampled(1, lipschitz=(1.0,)).check(bowls()),
        "the problem has none; pass groups=",
    ),
    "neither": (lambda: tw.Resampled(1), "either proportions= or lipschitz="),
    "both": (
        lambda: tw.Resampled(1, proportions=(1.0,), lipschitz=(1.0,)),
        "either proportions= or lipschitz=",
    ),
    "proportion zero": (
        lambda: tw.Resampled(1, proportions=(0.0, 1.0)),
        "proportions must be positive finite",
    ),
    "lipschitz nan": (
        lambda: tw.Resampled(1, lipschitz=(1.0, float("nan"))),
        "lipschitz must be positive finite",
    ),
    "proportions sum": (
        lambda: tw.Resampled(1, proportions=(0.5, 0.6)),
        "proportions sum to 1.1; expected 1",
    ),
    "one a group": (
        lambda: tw.Resampled(1, lipschitz=(1.0, 2.0)).check(UNEQUAL),
        "has 2 group constants but the problem has 3 groups",
    ),
    "empty group": (
        lambda: tw.Resampled(1, lipschitz=(1.0, 2.0)).check(
            bowls(3, weights=[0.5, 0.5, 0.0], groups=[0, 0, 1])
        ),
        "group 1 has total weight zero",
    ),
    "dense covariance": (
        lambda: tw.Minibatch(1).covariance(LARGE, jnp.ones(4097)),
        "4097 x 4097 matrix; expected at most 4096",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make()


def test_trace_has_no_limit_on_parameters():
    # Gradients s_i (1, ..., 1): variance of (1, 2, 6) is 14/3, times P.
    problem = tw.FiniteSum(lambda p, s: jnp.sum(p) * s, np.array([1.0, 2.0, 6.0]))
    trace = jax.jit(lambda params: tw.Minibatch(1).trace(problem, params))(jnp.ones(5000))
    np.testing.assert_allclose(trace, 5000 * 14 / 3, rtol=1e-12)
