"""Samplers that draw by scores: tables and candidates, against enumeration of all their draws."""

import itertools
from functools import cache, partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

import enumeration
import thalweg as tw
from helpers import bowl_gradients, bowls
from thalweg.errors import InputError
from thalweg.random import Stream
from thalweg.sampling import Presampled, Rolling, base
from thalweg.sampling.sums import draw_scored, scores_of, with_changed

LABELS = ["b", "a", "b", "c", "a"]
GROUPS = np.array([1, 0, 1, 2, 0])
A = np.array([0.1, 0.3, 0.2, 0.25, 0.15])
UNEQUAL = bowls(5, weights=A, groups=LABELS)
THETA = jnp.asarray([0.4, -0.7])
# Kept scores of some other point; -1 stands for a sample that has not been scored.
KEPT = np.array([0.7, 1.9, 0.4, 2.5, 1.1])
PARTIAL = np.array([0.7, -1.0, 0.4, 0.0, -1.0])
KEPT_GROUPS = np.array([0.7, -1.0, 0.4])
KEY = jax.random.key(3)
DRAWS = 100_000


def ratios(scores, a, uniform):
    """What the docstring promises, in plain words of NumPy."""
    known = scores >= 0
    mean = a[known] @ scores[known] / a[known].sum()
    return (1 - uniform) * np.where(known, scores / mean, 1.0) + uniform


def by_table(scores, uniform, current, a, g):
    ratio = used = ratios(scores, a, uniform)
    if current:
        norms = enumeration.norms(g)
        mean = a[scores >= 0] @ scores[scores >= 0] / a[scores >= 0].sum()
        used = np.where(scores < 0, 1.0, (1 - uniform) * norms / mean + uniform)
    return enumeration.one_sample(a * ratio, enumeration.inverse(used), g)


def by_group_table(uniform, a, g):
    weights = enumeration.group_sums(a, GROUPS)
    ratio = ratios(KEPT_GROUPS, weights, uniform)[GROUPS]
    return enumeration.one_sample(a * ratio, enumeration.inverse(ratio), g)


def among_candidates(count, a, g):
    """Candidates in order, one of them taken by its norm, reweighted."""
    probabilities, estimates = [], []
    for drawn in itertools.product(range(len(a)), repeat=count):
        drawn = list(drawn)
        scores = enumeration.norms(g[drawn])
        share = scores / scores.sum() if scores.sum() > 0 else np.full(count, 1 / count)
        for k, i in enumerate(drawn):
            probabilities.append(np.prod(a[drawn]) * share[k])
            estimates.append(g[i] / (count * share[k]) if share[k] > 0 else 0 * g[i])
    return np.array(probabilities), np.array(estimates)


class Row(NamedTuple):
    """A sampler, its table if any, and the law of one draw from (a, g)."""

    sampler: base.AbstractMemoryless
    law: object
    state: object = None
    params: object = THETA


def rolling(size, scores, uniform=0.1, stale="unbiased"):
    sampler = Rolling(size, slice=2, uniform=uniform, stale=stale)
    law = partial(by_table, scores, uniform, stale == "fixed-length")
    return Row(sampler, law, sampler.keep(UNEQUAL, jnp.asarray(scores)))


def rolling_groups(size, uniform=0.1):
    sampler = Rolling(size, by="group", uniform=uniform)
    kept = sampler.keep(UNEQUAL, jnp.asarray(KEPT_GROUPS))
    return Row(sampler, partial(by_group_table, uniform), kept)


def presampled(size, candidates, params=THETA):
    return Row(Presampled(size, candidates), partial(among_candidates, candidates), None, params)


TABLE = {
    "rolling 1": rolling(1, KEPT),
    "rolling 2, no uniform": rolling(2, KEPT, 0.0),
    "rolling 2, unknown ones": rolling(2, PARTIAL),
    "rolling 1, fixed length": rolling(1, KEPT, 0.2, "fixed-length"),
    "rolling 1, fixed length, unknown ones": rolling(1, PARTIAL, 0.2, "fixed-length"),
    "rolling groups 2": rolling_groups(2),
    "presampled 1 of 2": presampled(1, 2),
    "presampled 1 of 3": presampled(1, 3),
    "presampled 2 of 2": presampled(2, 2),
    "presampled 1 of 2, one gradient zero": presampled(1, 2, UNEQUAL.data["centre"][0]),
}


def enumerated(row):
    g = bowl_gradients(UNEQUAL, row.params)
    return enumeration.mean_of(row.law(A, g), row.sampler.size)


@eqx.filter_jit
def moments(sampler, *args):
    return sampler.mean(*args), sampler.covariance(*args), sampler.trace(*args)


@pytest.mark.parametrize("name", TABLE)
def test_moments_equal_enumeration(name):
    row = TABLE[name]
    args = UNEQUAL, row.params, row.state
    mean, covariance = enumeration.moments(enumerated(row))
    got = moments(row.sampler, *args)
    for value, expected in zip(got, (mean, covariance, np.trace(covariance)), strict=True):
        # Some ten numbers of size below 10, squared and cancelled: 100 roundings of 2e-16 x 100.
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    # A zero score with u > 0 loses nothing; the fixed length is biased, and says so.
    bias = np.abs(mean - A @ bowl_gradients(UNEQUAL, row.params)).max()
    assert (bias < 1e-14) if row.sampler.unbiased else (bias > 1e-2)


@eqx.filter_jit
def outcomes(sampler, params, draws):
    return sampler.outcomes(UNEQUAL, params, draws)


@pytest.mark.parametrize("name", [name for name in TABLE if "presampled" in name])
def test_outcomes_equal_enumeration(name):
    row = TABLE[name]
    found = outcomes(row.sampler, row.params, jnp.asarray(row.sampler.all_draws(UNEQUAL)))
    assert found.index.shape[0] == row.sampler.outcome_count(UNEQUAL)
    g = bowl_gradients(UNEQUAL, row.params)
    law = found.probabilities, np.einsum("ob,obi->oi", found.weights, g[np.asarray(found.index)])
    assert float(jnp.sum(found.probabilities)) == pytest.approx(1, abs=1e-13)
    for got, expected in zip(
        enumeration.moments(law), enumeration.moments(enumerated(row)), strict=True
    ):
        # As above.
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@eqx.filter_jit
def draws(sampler, problem, params, state, count=DRAWS):
    """What is drawn by scores that are there already: the slice of the step is not told."""

    def score(index):
        g = jax.vmap(jax.grad(problem.loss), (None, 0))(params, problem.samples(index))
        return jnp.linalg.norm(g, axis=1)

    def one(chain):
        stream = Stream.of(KEY, chain, 1)
        own = state
        if own is None:
            index = sampler.asks(problem, None, stream, 1)
            own = sampler.told(problem, None, index, score(index))
        draw = sampler.drawn(problem, own, stream, 1)
        if sampler.needs_current:
            draw = sampler.corrected(problem, own, draw, score(draw.index))
        return draw.index, draw.weights

    return jax.vmap(one)(jnp.arange(count))


@pytest.mark.parametrize("name", TABLE)
def test_draws_have_the_enumerated_law(name):
    # Pearson's test over all distinct estimates; with 10 rows and a fixed key the smallest p of
    # sound samplers is below 1e-4 once in 1000.
    row = TABLE[name]
    index, weights = map(np.asarray, draws(row.sampler, UNEQUAL, row.params, row.state))
    assert index.shape == weights.shape == (DRAWS, row.sampler.size)
    assert index.dtype == np.int32
    g = bowl_gradients(UNEQUAL, row.params)
    p, estimates = enumerated(row)
    drawn = np.einsum("nb,nbi->ni", weights, g[index])
    both = np.round(np.concatenate([estimates, drawn]), 9) + 0.0
    distinct, which = np.unique(both, axis=0, return_inverse=True)
    which = which.ravel()
    expected = DRAWS * np.bincount(which[: len(p)], weights=p, minlength=len(distinct))
    seen = np.bincount(which[len(p) :], minlength=len(distinct))
    assert (seen[expected == 0] == 0).all()
    rare = expected < 5
    seen = np.append(seen[~rare], seen[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert chisquare(seen[expected > 0], expected[expected > 0]).pvalue > 1e-4


def test_one_candidate_is_sgd_and_many_are_rr():
    sgd = tw.Minibatch(3, replace=True).covariance(UNEQUAL, THETA)
    rr = tw.Reweighted(3).covariance(UNEQUAL, THETA)
    np.testing.assert_allclose(Presampled(3, 1).covariance(UNEQUAL, THETA), sgd, atol=1e-14)
    many = Presampled(3, 10**6).covariance(UNEQUAL, THETA)
    # The law is linear in 1/c.
    np.testing.assert_allclose(many, rr + 1e-6 * (sgd - rr), atol=1e-14)


def test_a_pool_for_all_draws_has_more_noise_than_one_for_each():
    # Two draws with replacement from a pool of four, against two candidates for each of two draws.
    g = bowl_gradients(UNEQUAL, THETA)
    second, B, K = 0.0, 2, 4
    for drawn in itertools.product(range(5), repeat=K):
        scores = enumeration.norms(g[list(drawn)])
        share = scores / scores.sum()
        estimates = g[list(drawn)] / (K * share)[:, None]
        mean = share @ estimates
        spread = share @ np.square(estimates).sum(axis=1) - mean @ mean
        second += np.prod(A[list(drawn)]) * (spread / B + mean @ mean)
    f = A @ g
    pooled = second - f @ f
    sgd = float(tw.Minibatch(1).trace(UNEQUAL, THETA))
    rr = float(tw.Reweighted(1).trace(UNEQUAL, THETA))
    # Rounding.
    assert pooled == pytest.approx(sgd / K + (1 - 1 / K) * rr / B, rel=1e-12)
    ours = float(Presampled(2, 2).trace(UNEQUAL, THETA))
    assert ours == pytest.approx(pooled - (1 / 2 - 1 / K) * rr / B, rel=1e-12)


# Tables on two levels.

LARGE = 1_000_000


@cache
def large():
    """A million weights and scores, among them zeros, unknown ones and whole blocks of zeros."""
    generator = np.random.default_rng(1)
    scores = generator.lognormal(size=LARGE)
    scores[::7] = 0
    scores[5000:9000] = 0
    scores[1::11] = -1
    weights = generator.uniform(0.5, 1.5, LARGE)
    weights[2::13] = 0
    return scores, weights / weights.sum()


@pytest.mark.parametrize("uniform", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_draws_of_a_million_scores(uniform):
    scores, weights = large()
    table = scores_of(jnp.asarray(scores, jnp.float32), jnp.asarray(weights, jnp.float32), uniform)

    @jax.jit
    def many(table, weights):
        def some(k):
            return draw_scored(Stream.of(KEY, 0, k), table, weights, uniform, 20_000)

        return jax.lax.map(some, jnp.arange(5))

    drawn = np.asarray(many(table, jnp.asarray(weights, jnp.float32))).ravel()
    p = weights * ratios(scores, weights, uniform)
    assert (p[drawn] > 0).all()
    # By place (which block, which entry of it), and by size.
    for label, kinds in (
        (np.arange(LARGE) // 5000, 200),
        (np.arange(LARGE) % 256, 256),
        (np.argsort(np.argsort(p)) * 100 // LARGE, 100),
    ):
        expected = drawn.size * np.bincount(label, weights=p, minlength=kinds)
        seen = np.bincount(label[drawn], minlength=kinds)
        some = expected > 5
        # Single precision moves probabilities by 1e-7: nothing against 100,000 draws.
        expected *= seen[some].sum() / expected[some].sum()
        assert chisquare(seen[some], expected[some]).pvalue > 1e-4


@pytest.mark.parametrize("m", [1, 32, 33, 5000])
def test_a_single_positive_score_is_always_drawn(m):
    weights = jnp.full(m, 1 / m)

    @jax.jit
    def drawn(place):
        table = scores_of(jnp.where(jnp.arange(m) == place, 0.3, 0.0), weights, 0.0)
        return draw_scored(Stream.of(KEY), table, weights, 0.0, 500)

    for place in {0, m // 2, m - 1}:
        assert np.unique(drawn(place)).tolist() == [place]


def test_without_a_positive_score_the_population_is_drawn():
    weights = np.arange(100.0) / 4950

    @jax.jit
    def many(weights):
        table = scores_of(jnp.zeros(100), weights, 0.0)
        return draw_scored(Stream.of(KEY), table, weights, 0.0, 50_000)

    drawn = np.asarray(many(jnp.asarray(weights)))
    seen = np.bincount(drawn, minlength=100)
    assert seen[0] == 0
    assert chisquare(seen[1:], 50_000 * weights[1:]).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_table_changed_ten_thousand_times_is_that_made_anew(dtype):
    m, changed = 3001, 7
    weights = jnp.full(m, 1 / m, dtype)

    @jax.jit
    def run(table):
        def body(table, k):
            stream = Stream.of(KEY, 0, k)
            index = (k * changed + jnp.arange(changed)) % m
            # Over six orders of magnitude, so that sums kept by differences would drift.
            norms = 10 ** (6 * stream.uniform(changed, dtype) - 3)
            return with_changed(table, weights, index, norms, 0.2), None

        return jax.lax.scan(body, table, jnp.arange(10_000))[0]

    table = run(scores_of(jnp.full(m, -1.0, dtype), weights, 0.2))
    anew = scores_of(table.norms, weights, 0.2)
    assert float(table.parts.unknown.sum()) == 0
    for got, expected in zip(jax.tree.leaves(table), jax.tree.leaves(anew), strict=True):
        # Sums of 32 numbers, perhaps in another order.
        np.testing.assert_allclose(got, expected, rtol=32 * np.finfo(dtype).eps)


# What is told, and when.


def test_every_sample_has_its_turn():
    sampler, asked = Rolling(4, slice=3), []
    for step in range(14):
        index = sampler.asks(LARGE40, None, Stream.of(KEY), step)
        assert index.shape == (3,)
        asked.append(np.asarray(index))
    assert set(np.concatenate(asked).tolist()) == set(range(40))
    assert np.bincount(np.concatenate(asked), minlength=40).max() <= 2
    traced = jax.jit(lambda step: sampler.asks(LARGE40, None, Stream.of(KEY), step))
    assert traced(jnp.uint32(13 + 14)).tolist() == asked[13].tolist()


LARGE40 = bowls(40, groups=np.arange(40) % 3)


def test_groups_have_their_turn_with_samples_of_theirs():
    sampler = Rolling(8, by="group")
    groups = np.asarray(LARGE40.groups)
    asks = jax.jit(lambda k: sampler.asks(LARGE40, None, Stream.of(KEY, 0, k), k))
    asked = [np.asarray(asks(k)) for k in range(400)]
    assert [groups[index].tolist() for index in asked[:3]] == [[0, 1], [2, 0], [0, 1]]
    # Whoever is asked is any member of the group: 14, 13 and 13 of them.
    assert len(np.unique(np.concatenate(asked))) == 40


def test_scores_are_smoothed_by_squares():
    sampler = Rolling(1, slice=2, smoothing=0.75)
    table = sampler.keep(UNEQUAL, jnp.asarray(PARTIAL))
    after = sampler.told(UNEQUAL, table, jnp.asarray([0, 1]), jnp.asarray([2.0, 5.0]))
    # The first was known, the second was not.
    expected = [np.sqrt(0.75 * 0.7**2 + 0.25 * 4), 5.0, 0.4, 0.0, -1.0]
    np.testing.assert_allclose(after.norms, expected, rtol=1e-15)
    anew = scores_of(after.norms, UNEQUAL.weights, sampler.uniform)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-15), after, anew)
    kept = tw.Reweighted(1, refresh=2, smoothing=0.75)
    all_told = kept.told(UNEQUAL, after, None, jnp.ones(5))
    squares = np.where(after.norms < 0, 1, 0.75 * np.square(after.norms) + 0.25)
    np.testing.assert_allclose(all_told.norms, np.sqrt(squares), rtol=1e-15)


def test_scores_of_groups_are_root_mean_squares():
    sampler = Rolling(1, slice=2, by="group")
    table = sampler.keep(UNEQUAL, jnp.asarray(KEPT_GROUPS))
    index = jnp.asarray([0, 2, 4])
    after = sampler.told(UNEQUAL, table, index, jnp.asarray([1.0, 3.0, 2.0]))
    np.testing.assert_allclose(after.norms, [2.0, np.sqrt(5), 0.4], rtol=1e-15)
    scores = np.arange(1.0, 6.0)
    told = sampler.told(UNEQUAL, None, None, jnp.asarray(scores))
    sums = enumeration.group_sums(A * scores**2, GROUPS) / enumeration.group_sums(A, GROUPS)
    np.testing.assert_allclose(told.norms, np.sqrt(sums), rtol=1e-15)


def test_the_ratios_of_samples_are_those_of_the_draws():
    for row in (TABLE["rolling 2, unknown ones"], TABLE["rolling groups 2"]):
        found = row.sampler.kept_at(UNEQUAL, row.state, jnp.arange(5))
        p, _ = row.law(A, np.ones((5, 1)))
        np.testing.assert_allclose(found.ratio, p / A, rtol=1e-14)
        grouped = row.sampler.by == "group"
        known = (KEPT_GROUPS[GROUPS] if grouped else PARTIAL) >= 0
        assert np.asarray(found.known).tolist() == known.tolist()


def test_draws_need_no_data_and_no_loss():
    def no_loss(params, sample):
        raise AssertionError

    bare = tw.FiniteSum(no_loss, np.arange(5), weights=A, groups=LABELS)
    samplers = [
        Rolling(2, slice=2),
        Rolling(2, slice=2, by="group", stale="fixed-length"),
        Presampled(2),
        tw.Reweighted(2, refresh=3),
        tw.Reweighted(2, by="group"),
    ]
    for sampler in samplers:
        draw, kept = jax.jit(partial(step_of_equal_scores, sampler, bare))()
        # Equal scores: every weight is SGD's.
        np.testing.assert_allclose(draw.weights, [0.5, 0.5], rtol=1e-14)
        assert (kept is None) == (not sampler.keeps)


def step_of_equal_scores(sampler, problem):
    def score(index):
        return jnp.ones(5 if index is None else index.shape[0])

    stream, state = Stream.of(KEY), sampler.init(problem, jnp.zeros(1))
    if sampler.refresh is not None:
        index = sampler.refreshed(problem, stream)
        state = sampler.told(problem, state, index, score(index))
    return sampler.sampled(problem, score, state, stream, 1)


# In the loop over chains.


PAIR = np.array([-1.0, 1.0])
SHARES = np.array([0.3, 0.7])
ETA = 0.6


def steps_of_rolling(x, kept, k):
    """All steps of Rolling(1, slice=1, uniform=.1): the slice is scored, then a sample drawn."""
    norms = np.abs(x - PAIR)
    kept = np.where(np.arange(2) == k % 2, norms, kept)
    ratio = ratios(kept, SHARES, 0.1)
    return [(SHARES[i] * ratio[i], (x - PAIR[i]) / ratio[i], kept) for i in range(2)]


def steps_of_presampled(x, kept, k):
    p, estimates = among_candidates(2, SHARES, (x - PAIR)[:, None])
    return [(q, g[0], kept) for q, g in zip(p, estimates, strict=True)]


@pytest.mark.parametrize(
    ("sampler", "steps_of"),
    [(Rolling(1, slice=1), steps_of_rolling), (Presampled(1, 2), steps_of_presampled)],
    ids=["rolling", "presampled"],
)
def test_chains_follow_the_enumerated_paths(sampler, steps_of):
    # Three steps of a chain on (x - c)^2/2 with c = -1, 1: all paths, tables included.
    paths = [(1.0, 0.2, np.full(2, -1.0))]
    for k in range(3):
        paths = [
            (p * q, x - ETA * g, new) for p, x, kept in paths for q, g, new in steps_of(x, kept, k)
        ]
    p, ends = np.array([p for p, _, _ in paths]), np.array([x for _, x, _ in paths])
    problem = tw.FiniteSum(lambda x, c: (x - c) ** 2 / 2, PAIR, weights=SHARES)
    chains = 100_000
    descent = tw.Descent(problem, sampler, ETA)
    run = tw.simulate(descent, jnp.asarray(0.2), steps=3, key=KEY, chains=chains)
    both = np.round(np.concatenate([ends, np.asarray(run.params)]), 9)
    distinct, which = np.unique(both, return_inverse=True)
    expected = chains * np.bincount(which[: len(p)], weights=p, minlength=len(distinct))
    seen = np.bincount(which[len(p) :], minlength=len(distinct))
    assert (seen[expected == 0] == 0).all()
    rare = expected < 5
    seen, expected = (
        np.append(seen[~rare], seen[rare].sum()),
        np.append(expected[~rare], expected[rare].sum()),
    )
    assert chisquare(seen[expected > 0], expected[expected > 0]).pvalue > 1e-4


@pytest.mark.parametrize(
    "sampler", [Rolling(2), Rolling(2, by="group", stale="fixed-length"), Presampled(2)], ids=str
)
def test_single_precision_stays_single(sampler):
    # Types are settled while tracing, where strict promotion raises on any mixture.
    problem = bowls(5, groups=LABELS, dtype=np.float32)
    descent = tw.Descent(problem, sampler, 0.1)
    before = jax.eval_shape(descent.init, jnp.ones(2, jnp.float32))
    after = jax.eval_shape(descent.advance, before, Stream.of(KEY), jnp.asarray(0))
    assert before.params.dtype == jnp.float32
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(
        lambda x: (x.shape, x.dtype), after
    )


def test_evaluations_a_step():
    assert Rolling(8).evaluations(UNEQUAL) == 8 + 2
    assert Rolling(2, stale="fixed-length").evaluations(UNEQUAL) == 2 + 1 + 2
    assert Presampled(4).evaluations(UNEQUAL) == 4 + 12


REFUSED = {
    "slice 0": (lambda: Rolling(1, slice=0), "slice is a whole number .* at least 1; got 0"),
    "slice beyond n": (
        lambda: tw.Descent(UNEQUAL, Rolling(1, slice=6), 0.1),
        "slice of 6 samples .* n = 5",
    ),
    "share": (lambda: Rolling(1, uniform=1.5), "uniform is a share .* got 1.5"),
    "smoothing": (lambda: Rolling(1, smoothing=1.0), "smoothing .* below 1; got 1.0"),
    "smoothing fresh": (lambda: tw.Reweighted(1, smoothing=0.5), "refresh=1 keeps none"),
    "treatment": (lambda: Rolling(1, stale="unbaised"), "did you mean 'unbiased'"),
    "groups": (lambda: tw.Descent(bowls(5), Rolling(1, by="group"), 0.1), "pass groups="),
    "candidates": (lambda: Presampled(1, 0), "candidates .* at least 1; got 0"),
    "law": (lambda: Rolling(1).outcomes(UNEQUAL, THETA), "depend on kept scores"),
    "many": (lambda: Presampled(8, 3).all_draws(UNEQUAL), "possible draws"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make()
