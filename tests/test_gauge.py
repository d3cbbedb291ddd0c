"""The gauge against exact covariances, and the rule that follows it."""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg import models
from thalweg.errors import InputError
from thalweg.sampling import Presampled, Rolling
from thalweg.train.auto import Auto, Choice
from thalweg.train.gauge import gauge
from thalweg.train.objective import Objective

# A net on samples of unequal scale, so that norms differ a lot.
N, SIZE, DRAWN, REPEATS = 150, 8, 256, 300
MODEL = models.mlp([4, 6, 2])
LOSS = models.supervised(MODEL, models.squared_error)
OBJECTIVE = Objective.of(LOSS)
GENERATOR = np.random.default_rng(5)
X = GENERATOR.normal(size=(N, 4)) * GENERATOR.lognormal(0, 0.3, size=(N, 1))
Y = GENERATOR.normal(size=(N, 2))
PROBLEM = tw.FiniteSum(LOSS, (X, Y))
PARAMS = MODEL.init(jax.random.key(6), jnp.float64)
KEPT = GENERATOR.lognormal(0, 1.0, N)
KEPT[:30] = -1

ROLLING = Rolling(SIZE, uniform=0.2)
SAMPLERS = {
    "fresh": (tw.Reweighted(SIZE), None),
    "mixed": (tw.Reweighted(SIZE, uniform=0.3), None),
    "kept": (ROLLING, ROLLING.keep(PROBLEM, jnp.asarray(KEPT))),
    "candidates": (Presampled(SIZE, 3), None),
}


def one_gauge(name, index, **options):
    sampler, state = SAMPLERS[name]
    kept = None if state is None else sampler.kept_at(PROBLEM, state, jnp.asarray(index))
    options = {"cost_ratio": 1.25, "step": 0, "kept": kept, **options}
    return gauge(OBJECTIVE, PARAMS, (), (X[index], Y[index]), sampler=sampler, **options)


@cache
def repeated(name):
    """Gauges of many independent draws of samples, as arrays by field."""
    generator = np.random.default_rng(7)
    many = [one_gauge(name, generator.integers(0, N, DRAWN)) for _ in range(REPEATS)]
    fields = [field for field in many[0]._fields if field != "sentence"]
    return {field: np.array([getattr(one, field) for one in many]) for field in fields}


@cache
def exact(name):
    sampler, state = SAMPLERS[name]

    @jax.jit
    def traces():
        sgd = tw.Minibatch(SIZE, replace=True).trace(PROBLEM, PARAMS)
        fresh = sampler.trace(PROBLEM, PARAMS)
        gradient = jax.tree.leaves(PROBLEM.gradient(PARAMS))
        squared = sum(jnp.sum(jnp.square(g)) for g in gradient)
        return sgd, fresh, sampler.trace(PROBLEM, PARAMS, state), squared

    return dict(zip(("sgd", "fresh", "rr", "gradient"), map(float, traces()), strict=True))


def covers(values, errors, true):
    """Two errors cover .95 of normal estimates. Squares of norms are skewed: here .86 to .94."""
    return np.mean(np.abs(values - true) < 2 * errors) > 0.8


# The kept row, too, has a share of uniform draws.
ROWS = [
    pytest.param(name, marks=pytest.mark.slow) if name == "mixed" else name for name in SAMPLERS
]


@pytest.mark.parametrize("name", ROWS)
def test_traces_are_unbiased_with_honest_errors(name):
    found, true = repeated(name), exact(name)
    for what in ("sgd", "fresh", "rr"):
        values, errors = found[f"trace_{what}"], found[f"trace_{what}_error"]
        # Five standard errors of the mean; a share of uniform draws leaves a bias of order 1/m.
        slack = 5 * values.std() / np.sqrt(REPEATS)
        assert abs(values.mean() - true[what]) < slack + (name == "mixed") * values.mean() / DRAWN
        # The spread of 300 long-tailed values is known to some 6 per cent.
        assert errors.mean() == pytest.approx(values.std(), rel=0.2)
        assert covers(values, errors, true[what])
    squared = found["gradient_norm_squared"]
    assert abs(squared.mean() - true["gradient"]) < 5 * squared.std() / np.sqrt(REPEATS)


@pytest.mark.parametrize("name", ROWS)
def test_ratios_cover_the_true_one(name):
    found, true = repeated(name), exact(name)
    for what, trace in (("variance", "rr"), ("fresh", "fresh")):
        ratio, error = found[f"{what}_ratio"], found[f"{what}_ratio_error"]
        assert covers(ratio, error, true["sgd"] / true[trace])
    np.testing.assert_allclose(found["speed_up"], found["variance_ratio"] / 1.25, rtol=1e-15)
    assert (found["pays"] == (found["variance_ratio"] > 1.25)).all()
    assert found["known"].mean() == pytest.approx(120 / N if name == "kept" else 1, abs=0.02)


def test_all_samples_give_the_exact_traces():
    # As drawn, with the factor m/(m - 1) of a sample's variance.
    found, true = one_gauge("fresh", np.arange(N), n=N), exact("fresh")
    assert found.trace_fresh == pytest.approx(true["fresh"] * N / (N - 1), rel=1e-10)
    subset = float(tw.Minibatch(SIZE).trace(PROBLEM, PARAMS))
    assert found.trace_sgd == pytest.approx(subset * N / (N - 1), rel=1e-10)


def test_errors_are_those_of_leaving_samples_out():
    index = np.arange(20)
    for name in ("mixed", "candidates"):
        whole = one_gauge(name, index)
        parts = [one_gauge(name, np.delete(index, i)) for i in index]
        for value in ("trace_sgd", "trace_rr", "variance_ratio"):
            left = np.array([getattr(part, value) for part in parts])
            error = np.sqrt(19 / 20 * np.sum(np.square(left - left.mean())))
            assert getattr(whole, f"{value}_error") == pytest.approx(error, rel=1e-8)


def test_other_scores_are_measured_by_what_they_are_worth():
    generator = np.random.default_rng(8)
    values = [
        one_gauge("fresh", generator.integers(0, N, DRAWN), scores="loss").trace_rr
        for _ in range(REPEATS)
    ]
    norms = np.asarray(tw.sample_gradient_norms(LOSS, PARAMS, (X, Y)))
    losses = np.asarray(PROBLEM.losses(PARAMS))
    true = (np.mean(losses) * np.mean(norms**2 / losses) - exact("fresh")["gradient"]) / SIZE
    # Unbiased; five standard errors.
    assert abs(np.mean(values) - true) < 5 * np.std(values) / np.sqrt(REPEATS)
    assert true > exact("fresh")["rr"]


SAME = Objective.of(lambda params, sample: params * sample)


@pytest.mark.parametrize(
    ("samples", "ratio", "sentence"),
    [
        (np.ones(16), 1.0, "RR would not pay here: 1.00 ± 0.00 times less variance for 2.00"),
        (np.arange(1.0, 17), np.inf, "RR would pay here: no variance at all for 2.00 times"),
    ],
)
def test_gradients_along_a_line(samples, ratio, sentence):
    # Slopes of one sign: steps of one length are all the same.
    found = gauge(
        SAME, jnp.asarray(1.0), (), samples, sampler=tw.Reweighted(2), cost_ratio=2.0, step=3
    )
    assert found.trace_rr == 0
    assert found.variance_ratio == ratio
    assert re.match(sentence, found.sentence)


def test_the_sentence():
    found = one_gauge("kept", np.arange(N), cost_ratio=1.5)
    ratio, error = found.variance_ratio, found.variance_ratio_error
    assert ratio < 1
    assert found.sentence == (
        f"RR would not pay here: {1 / ratio:.2f} times more variance for 1.50 times the time"
    )
    found = one_gauge("fresh", np.arange(N), cost_ratio=1.1)
    ratio, error = found.variance_ratio, found.variance_ratio_error
    assert found.sentence == (
        f"RR would pay here: {ratio:.2f} ± {error:.2f} times less variance for 1.10 times the time"
    )


# The rule.


def at(fresh, error=0.1, cost=1.25, own=None, known=1.0):
    """A gauge with these ratios."""
    own = fresh if own is None else own
    return one_gauge("fresh", np.arange(20))._replace(
        fresh_ratio=fresh,
        fresh_ratio_error=error,
        variance_ratio=own,
        variance_ratio_error=error,
        trace_fresh=1 / fresh,
        trace_rr=1 / own,
        known=known,
        cost_ratio=cost,
    )


def test_auto_switches_by_two_errors():
    auto = Auto(SIZE)
    off, on = auto.first, Choice(True)
    assert not off.active
    assert not auto.decide(at(1.44), off).active
    assert auto.decide(at(1.46), off).active
    assert auto.decide(at(1.06), on).active
    assert not auto.decide(at(1.04), on).active
    assert auto.decide(at(np.inf), off).active


def test_auto_goes_by_kept_scores_once_there_are_some():
    auto = Auto(SIZE)
    # A table that is still being filled is no reason to switch off.
    assert auto.decide(at(2.0, own=1.0, known=0.9), Choice(True)) == Choice(True, 1.0)
    choice = auto.decide(at(2.0, own=1.0), Choice(True))
    assert not choice.active
    assert choice.staleness == pytest.approx(2.0)
    # What fresh scores promise was not kept: not again, unless they promise more.
    assert not auto.decide(at(2.0), choice).active
    assert auto.decide(at(3.1), choice).active


def test_auto_assumes_a_cost():
    assert Auto(128).assumed_cost(PROBLEM) == pytest.approx(1 + 0.6 / 4)
    assert Auto(8, Presampled(8, 3)).assumed_cost(PROBLEM) == pytest.approx(1 + 0.6 * 3)
    assert Auto(8, tw.Reweighted(8, refresh=10)).assumed_cost(PROBLEM) == pytest.approx(
        1 + 0.6 * (N / 10) / 8
    )


REFUSED = {
    "few": (lambda: one_gauge("fresh", np.arange(15)), "got 15 samples; expected at least 16"),
    "cost": (lambda: one_gauge("fresh", np.arange(20), cost_ratio=0.0), "above 0; got 0.0"),
    "sampler": (lambda: Auto(8, tw.Minibatch(8)), "got Minibatch; expected Reweighted, Rolling"),
    "biased": (lambda: Auto(8, Rolling(8, stale="fixed-length")), "is biased"),
    "group": (lambda: Auto(8, tw.Reweighted(8, by="group")), "take by='sample'"),
    "sizes": (lambda: Auto(8, Rolling(4)), "batch size 4, and Auto 8"),
    "every": (lambda: Auto(8, every=0), "every is a whole number, at least 1; got 0"),
    "samples": (lambda: Auto(8, samples=8), "at least 16; got 8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make()


def test_refuses_a_run_that_has_diverged():
    samples = np.where(np.arange(20) == 4, np.inf, 1.0)
    with pytest.raises(InputError, match="of 1 of 20 samples are not finite at step 7"):
        gauge(SAME, jnp.asarray(1.0), (), samples, sampler=tw.Reweighted(2), cost_ratio=2.0, step=7)
