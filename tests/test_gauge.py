"""The gauge against exact covariances, and the rule that follows it."""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg import models
from thalweg.errors import InputError
from thalweg.sampling import Presampled, Rolling
from thalweg.steps import as_transformation
from thalweg.train.advance import Advance, judged, promise
from thalweg.train.auto import Auto, Choice
from thalweg.train.gauge import gauge
from thalweg.train.gauging import Gauging
from thalweg.train.objective import Objective
from thalweg.train.step import Carry, Member, Work

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
        (
            np.ones(16),
            1.0,
            "would not pay here: 1.00 ± 0.00 times less variance for 2.00",
        ),
        (
            np.arange(1.0, 17),
            np.inf,
            "would pay here: no variance at all for 2.00 times",
        ),
    ],
)
def test_gradients_along_a_line(samples, ratio, sentence):
    # Slopes of one sign: steps of one length are all the same.
    found = gauge(
        SAME, jnp.asarray(1.0), (), samples, sampler=tw.Reweighted(2), cost_ratio=2.0, step=3
    )
    assert found.trace_rr == 0
    assert found.variance_ratio == ratio
    assert re.match(f"by variance RR {sentence}", found.sentence)


def test_the_sentence():
    found = one_gauge("kept", np.arange(N), cost_ratio=1.5)
    ratio, error = found.variance_ratio, found.variance_ratio_error
    assert ratio < 1
    assert found.sentence == (
        f"by variance RR would not pay here: {1 / ratio:.2f} times more variance for 1.50 times "
        "the time"
    )
    found = one_gauge("fresh", np.arange(N), cost_ratio=1.1)
    ratio, error = found.variance_ratio, found.variance_ratio_error
    assert found.sentence == (
        f"by variance RR would pay here: {ratio:.2f} ± {error:.2f} times less variance for 1.10 "
        "times the time"
    )


# What noise takes, on isotropic quadratics: nothing is left out there.

SHAPE = 3.0
CENTRES = GENERATOR.normal(size=(N, 5)) * GENERATOR.lognormal(0, 1.0, size=(N, 1))
QUADRATIC = Objective.of(lambda x, c: SHAPE / 2 * jnp.sum(jnp.square(x - c)))
AT = jnp.full(5, 2.0)
STEP = 0.4


def work(rule):
    plain = tw.Minibatch(SIZE, replace=True)
    return Work(QUADRATIC, plain, None, True, rule, False, 1, False, False)


def carried(rule, optimizer=None):
    member = Member(jnp.uint32(0), {})
    state = as_transformation(rule).init(AT) if optimizer is None else optimizer
    return member, Carry(AT, (), state, None, jnp.zeros(1), jnp.int32(-1), jnp.asarray(True))


def quadratic_gauge(index, cost_ratio=1.25):
    return gauge(
        QUADRATIC,
        AT,
        (),
        CENTRES[index],
        sampler=tw.Reweighted(SIZE),
        cost_ratio=cost_ratio,
        step=0,
    )


def test_what_the_gradient_promises_is_unbiased():
    generator = np.random.default_rng(9)
    rule = optax.sgd(STEP)
    member, carry = carried(rule)
    promises = []
    for _ in range(REPEATS):
        index = generator.integers(0, N, 16)
        promises.append(promise(work(rule), member, carry, CENTRES[index], quadratic_gauge(index)))
    values = np.array([p.decrease for p in promises])
    true = STEP * SHAPE**2 * float(jnp.sum(jnp.square(AT - CENTRES.mean(0))))
    # Five standard errors of the mean; the squared norm of the mean of 16 samples is larger by
    # the trace over 16, which is more than that.
    error = values.std() / np.sqrt(REPEATS)
    assert abs(values.mean() - true) < 5 * error
    assert STEP * SHAPE**2 * CENTRES.var(0).sum() / 16 > 5 * error
    assert np.mean([p.error for p in promises]) == pytest.approx(values.std(), rel=0.2)


def test_momentum_promises_what_it_carries():
    rule = optax.sgd(STEP, momentum=0.9)
    velocity = jnp.arange(5.0)
    member, carry = carried(rule)
    trace = carry.optimizer[0]._replace(trace=velocity)
    carry = carry._replace(optimizer=(trace, *carry.optimizer[1:]))
    found = quadratic_gauge(np.arange(N))
    here = promise(work(rule), member, carry, CENTRES, found)
    mean = SHAPE * (AT - CENTRES.mean(0))
    true = STEP * (0.9 * mean @ velocity + found.gradient_norm_squared)
    assert here.decrease == pytest.approx(float(true), rel=1e-10)


@pytest.mark.parametrize("scored", [False, True])
def test_what_less_noise_gains_in_a_step_is_exact(scored):
    found = quadratic_gauge(np.arange(N))._replace(step=1)
    squared = found.gradient_norm_squared
    promised = STEP * squared

    def falls(trace):
        return promised - STEP**2 * SHAPE / 2 * (squared + trace)

    sgd, rr = falls(found.trace_sgd), falls(found.trace_rr)
    # A rate at which nothing is levelled off yet.
    seen = Advance(promised, 0.0, 10.0, rr if scored else sgd, 0.0)
    judgement = judged(found, seen, draws_by_scores=scored, trace_rr=found.trace_rr)
    assert judgement.gain == pytest.approx(rr - sgd - 0.25 * max(seen.made, 0.0), rel=1e-10)
    lead = (rr - sgd) / seen.made
    assert judgement.speed_up == pytest.approx((1 + lead) / 1.25 if lead > 0 else np.inf, rel=1e-10)


def test_noise_lifts_the_loss_by_a_quarter_of_step_and_trace():
    # SGD's law on a quadratic: E|x|^2 = step Tr C/(h (2 - step h)), half of it times h the loss.
    step = 0.01
    stationary = step * CENTRES.var(0).sum() * SHAPE**2 / (SHAPE * (2 - step * SHAPE))
    found = quadratic_gauge(np.arange(N), cost_ratio=1.5)._replace(step=10**6)
    seen = Advance(1.0, 0.0, step, 0.0, 0.0)
    judgement = judged(found, seen, draws_by_scores=False, trace_rr=0.0)
    # Up to half of step and curvature; the trace is that of one draw, and of a sample of 150.
    lifted = SHAPE / 2 * stationary / SIZE * N / (N - 1)
    assert judgement.gain == pytest.approx(lifted, rel=step * SHAPE)
    assert judgement.pays
    assert judgement.sentence.endswith("SGD does not descend any more, and is above RR")


def test_less_variance_gains_nothing_where_noise_takes_nothing():
    found = quadratic_gauge(np.arange(N), cost_ratio=1.1)._replace(step=100)
    assert found.pays
    seen = Advance(1.0, 0.0, STEP, 1.0, 0.0)
    judgement = judged(found, seen, draws_by_scores=False, trace_rr=0.0)
    assert not judgement.pays
    assert judgement.gain == pytest.approx(-0.1 * 100)
    assert judgement.speed_up == pytest.approx(1 / 1.1)
    assert judgement.sentence.endswith("it would be 0 steps ahead of SGD's 100, 0.91 times as fast")


def test_a_gain_within_its_errors_is_none():
    found = quadratic_gauge(np.arange(N), cost_ratio=1.0)._replace(step=3)
    seen = Advance(1.0, 0.5, 10.0, 0.5, 0.5)
    judgement = judged(found, seen, draws_by_scores=False, trace_rr=found.trace_rr)
    # Both errors move what is lost, 1 - .5, by as much as it is.
    assert judgement.gain_error == pytest.approx(np.sqrt(2) * judgement.gain)
    assert not judgement.pays
    assert judgement.sentence.startswith("RR would not clearly pay here: ")


def test_gauges_of_auto_take_a_hundredth_of_the_time(monkeypatch):
    gauging = Gauging(Auto(SIZE, every=10), 10, "gradient")
    monkeypatch.setattr(gauging, "_cost", 1.0)
    gauging.timed(99.0, 50)
    assert not gauging.due(50)
    gauging.timed(1.0, 1)
    assert gauging.due(60)
    assert not gauging.due(61)


# The rule.


def at(gain, error=0.1, own=1.0, known=1.0):
    """A gauge with this gain, and a variance so many times that of fresh scores."""
    found = quadratic_gauge(np.arange(20))
    return found._replace(gain=gain, gain_error=error, trace_fresh=1.0, trace_rr=own, known=known)


def test_auto_switches_by_two_errors():
    auto = Auto(SIZE)
    off, on = auto.first, Choice(True)
    assert not off.active
    assert not auto.decide(at(0.19), off).active
    assert auto.decide(at(0.21), off).active
    assert auto.decide(at(-0.19), on).active
    assert not auto.decide(at(-0.21), on).active
    for choice in (off, on):
        assert auto.decide(at(np.nan), choice) == choice


def test_auto_learns_what_kept_scores_are_worth():
    auto = Auto(SIZE)
    # A table that is still being filled says nothing yet.
    assert auto.expected(at(0.0, own=2.0, known=0.9), Choice(True)) == (1.0, Choice(True, 1.0))
    assert auto.expected(at(0.0, own=2.0), Choice(True)) == (2.0, Choice(True, 2.0))
    assert auto.expected(at(0.0, own=1.0), Choice(False, 2.0)) == (2.0, Choice(False, 2.0))


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
