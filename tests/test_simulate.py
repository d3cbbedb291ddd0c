"""The loop over chains: against a plain loop, the same whatever runs beside it, and known laws."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from helpers import assert_same_run, bowls, bytes_of, counted_compilations, outcome
from thalweg.errors import InputError
from thalweg.landscapes import cyclic_pair, three_quadratics
from thalweg.random import Stream

KEY = jax.random.key(0)
LABELS = ["b", "a", "b", "c", "a", "c", "b"]
CHEAP = bowls(7, 2, groups=LABELS, weights=np.arange(1, 8) / 28)
MANY = bowls(500, 2)
# 500 gradients of 10 numbers in a step of per-sample norms: blocks of 8 chains, not of 128.
DEAR = bowls(500, 10)
START = jnp.asarray([1.0, -0.5])

SAMPLERS = {
    "sgd": tw.Minibatch(2, replace=True),
    "population": tw.Resampled(2, lipschitz=(1.0, 2.0, 3.0)),
    "norms": tw.Reweighted(2),
    "kept norms": tw.Reweighted(2, refresh=7, stale="fixed-length", uniform=0.1),
    "groups": tw.Reweighted(2, by="group"),
    "kept groups": tw.Reweighted(2, by="group", refresh=5),
    "reshuffled": tw.Reshuffled(2),
}


def total(params):
    return jnp.sum(params)


def is_right(params):
    return params[0] > 0


# Names out of order, an event, and a matrix.
MEANS = {"z": total, "right": is_right, "a": lambda x: jnp.outer(x, x)}
RECORD = tw.Record(3, {"total": total, "params": lambda x: x}, means=MEANS, burn_in=4)


# Against a plain loop.


@eqx.filter_jit
def plain_step(descent, params, state, key, j, k):
    """Step k of chain j with the stream (key, j, k), from all gradients."""
    stream = Stream.of(key, j, k)
    one, state = descent.sampler.draw(descent.problem, params, state, stream, k)
    estimate = one.weights @ descent.problem.gradients(params)[one.index]
    return params - descent.step * estimate, state


def plain_chain(descent, start, key, j, steps):
    """The path of chain j, shape (steps + 1, d)."""
    params, state = start, descent.sampler.init(descent.problem, start)
    path = [start]
    for k in range(steps):
        params, state = plain_step(descent, params, state, key, jnp.asarray(j), jnp.asarray(k))
        path.append(params)
    return np.array(path)


def slowly(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["sgd", "kept norms", slowly("groups"), "reshuffled"])
def test_chains_equal_a_plain_loop(name):
    descent, steps = tw.Descent(CHEAP, SAMPLERS[name], 0.1), 11
    run = tw.simulate(descent, START, steps=steps, key=KEY, chains=3, record=RECORD)
    assert run.steps == steps
    assert run.record_steps.tolist() == [0, 3, 6, 9]
    for j in (0, 2):
        path = plain_chain(descent, START, KEY, j, steps)
        seen = path[5:]
        # Eleven steps of numbers of size one: a hundred roundings.
        close = {"rtol": 1e-13, "atol": 1e-13}
        np.testing.assert_allclose(run.params[j], path[-1], **close)
        np.testing.assert_allclose(run.records["params"][j], path[::3], **close)
        np.testing.assert_allclose(run.records["total"][j], path[::3].sum(axis=1), **close)
        np.testing.assert_allclose(run.means["z"][j], seen.sum(axis=1).mean(), **close)
        np.testing.assert_allclose(run.means["a"][j], seen.T @ seen / len(seen), **close)
        # The share of steps at which the event held, exactly.
        assert float(run.means["right"][j]) == np.mean(seen[:, 0] > 0)


def test_one_start_a_chain_and_trees_of_params():
    problem = tw.FiniteSum(
        lambda p, s: 0.5 * jnp.sum(jnp.square(p["w"] - s)) + 0.5 * jnp.square(p["b"] - s[0]),
        np.array([[1.0, 2.0], [3.0, 4.0]]),
    )
    starts = {"w": jnp.asarray([[0.0, 0.0], [1.0, 5.0], [2.0, 3.0]]), "b": jnp.arange(3.0)}
    run = tw.simulate(tw.Descent(problem, tw.Full(), 0.5), starts, per_chain=True, steps=3, key=KEY)
    # Gradient descent halves the distance to the mean in each step.
    mean = {"w": np.array([2.0, 3.0]), "b": 2.0}
    for name, centre in mean.items():
        expected = centre + (np.asarray(starts[name]) - centre) / 8
        np.testing.assert_allclose(run.params[name], expected, rtol=1e-15)


def test_a_plain_number_as_start_and_a_raw_key():
    problem = tw.FiniteSum(lambda x, s: 0.5 * jnp.square(x - s), np.array([1.0, 3.0]))
    run = tw.simulate(tw.Descent(problem, tw.Full(), 0.5), 0.0, steps=2, key=jax.random.PRNGKey(0))
    np.testing.assert_allclose(run.params, [1.5], rtol=1e-15)


def test_no_steps_at_all():
    run = tw.simulate(descent_of("sgd"), START, steps=0, key=KEY, chains=2, record=RECORD)
    assert run.params.tolist() == [START.tolist()] * 2
    assert run.record_steps.tolist() == [0]
    assert np.isnan(run.means["z"]).all()


def descent_of(name):
    return tw.Descent(CHEAP, SAMPLERS[name], 0.1)


# The same whatever runs beside it.

BESIDE = {
    **{name: (descent_of(name), 20) for name in SAMPLERS},
    "norms of 500": (tw.Descent(MANY, tw.Reweighted(2), 0.1), 5),
    "reshuffled 500": (tw.Descent(MANY, tw.Reshuffled(32), 0.1), 5),
    "dear norms of 500": (tw.Descent(DEAR, tw.Reweighted(2), 0.1), 5),
}


# Of the others each has the route of one of these; kept scores are for the slow run.
USUAL = {"sgd", "norms", "reshuffled 500", "dear norms of 500"}


@pytest.mark.parametrize("name", [name if name in USUAL else slowly(name) for name in BESIDE])
def test_chain_7_of_10_is_chain_7_of_10000(name):
    descent, steps = BESIDE[name]
    start = jnp.ones(descent.problem.data["centre"].shape[1])
    options = {"steps": steps, "key": KEY, "record": RECORD}
    beside = 1000 if descent.problem is DEAR else 10_000
    few, many = (tw.simulate(descent, start, chains=chains, **options) for chains in (10, beside))
    seventh = [jax.tree.map(lambda leaf: leaf[7], outcome(run)) for run in (few, many)]
    assert bytes_of(seventh[0]) == bytes_of(seventh[1])
    # Chains differ from each other.
    assert len(np.unique(np.asarray(many.params)[:, 0])) > 100


def test_the_route_depends_on_the_work_of_a_step():
    def stats(descent, start):
        return tw.simulate(descent, start, steps=0, key=KEY).stats

    cheap = stats(descent_of("norms"), START)
    assert cheap["route"] == "lanes"
    assert "operations on lanes" in cheap["reason"]
    # Blocks get shorter with the work of a step; beyond some thousand operations it is vmapped.
    longer = stats(tw.Descent(bowls(7, 6), SAMPLERS["norms"], 0.1), jnp.ones(6))
    assert longer["route"] == "lanes"
    assert cheap["block_size"] > longer["block_size"] >= 16
    many = stats(tw.Descent(MANY, tw.Minibatch(1), 0.1), START)
    assert many["route"] == "lanes"
    dear = stats(tw.Descent(DEAR, tw.Reweighted(2), 0.1), jnp.ones(10))
    assert (dear["route"], dear["block_size"]) == ("batched", 8)
    assert "5020 components of gradients" in dear["reason"]
    sorting = stats(descent_of("reshuffled"), START)
    assert (sorting["route"], sorting["block_size"]) == ("batched", 128)


# The same after an interruption.


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("sgd", optax.adam(0.05)),
        ("kept norms", optax.sgd(tw.steps.inverse_time(0.2, 50), momentum=0.5)),
        slowly("kept groups", 0.1),
        ("reshuffled", 0.1),
    ],
)
def test_a_continued_run_equals_an_uninterrupted_one(name, rule):
    # 101 steps: inside a pass, between refreshes, and between records.
    descent, options = tw.Descent(CHEAP, SAMPLERS[name], rule), {"record": RECORD, "exit": near}
    run = whole = tw.simulate(descent, START, steps=400, key=KEY, chains=5, **options)
    for steps in (101, 250, 250, 400):
        start = {"start": START, "key": KEY, "chains": 5} if steps == 101 else {"start": run}
        run = tw.simulate(descent, **start, steps=steps, **options)
        assert run.steps == steps
    assert_same_run(run, whole)


def near(params):
    return jnp.sum(jnp.square(params)) < 1e-4


def test_a_run_of_many_records_and_no_means_continues():
    # 16 records are made in one call; here 401 of them, some of which end a call.
    descent, record = descent_of("sgd"), tw.Record(1)
    whole = tw.simulate(descent, START, steps=400, key=KEY, chains=2, record=record)
    begun = tw.simulate(descent, START, steps=39, key=KEY, chains=2, record=record)
    assert begun.record_steps.tolist() == list(range(40))
    assert_same_run(tw.simulate(descent, begun, steps=400, record=record), whole)
    assert whole.records["params"].shape == (2, 401, 2)
    assert whole.records["params"][:, -1].tolist() == whole.params.tolist()


def test_progress_is_told_and_never_changes_the_numbers():
    told = []
    run, other = (
        tw.simulate(descent_of("sgd"), START, steps=5000, key=KEY, progress=progress)
        for progress in (lambda done, steps: told.append((done, steps)), None)
    )
    assert_same_run(run, other)
    done = [d for d, _ in told]
    assert done == sorted(set(done))
    assert told[-1] == (5000, 5000)


def test_another_step_start_and_length_do_not_compile():
    def go(step, start, steps, key):
        descent = tw.Descent(CHEAP, SAMPLERS["sgd"], step)
        run = tw.simulate(descent, start, steps=steps, key=key, chains=4, record=RECORD)
        return jax.block_until_ready(run.params)

    go(0.1, START, 30, KEY)
    start, key = START + 1.0, jax.random.key(9)
    with counted_compilations() as count:
        go(0.2, start, 47, key)
    assert count() == 0


# Known laws.


@cache
def time_means(size):
    """Time means of |x|^2 of 128 chains on the three quadratics, gamma = 1/3."""
    landscape = three_quadratics()
    descent = tw.Descent(landscape.problem, tw.Minibatch(size), 1 / 3)
    record = tw.Record(means={"square": lambda x: jnp.sum(jnp.square(x))}, burn_in=100)
    run = tw.simulate(descent, landscape.start, steps=1100, key=KEY, chains=128, record=record)
    means = np.asarray(run.means["square"])
    return means.mean(), means.std(ddof=1) / np.sqrt(len(means))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_noise_ball_of_three_quadratics(size):
    # x -> (1 - gamma) x + gamma c with |c| = 1: E|x|^2 = gamma/(2 - gamma) E|c|^2 = .2 for one
    # draw; two of three without replacement have a quarter of its variance, (3-2)/(2 (3-1)).
    # From 5 the memory of the start, 25 (4/9)^k, is gone after a hundred steps.
    mean, error = time_means(size)
    exact = {1: 0.2, 2: 0.05, 3: 0.0}[size]
    assert error < 0.01 * exact if exact else error < 1e-20
    assert abs(mean - exact) <= 3 * error + 1e-20


@pytest.mark.parametrize(("g0", "printed"), [(0.83, "0.0301036"), (0.02, "0.00072539")])
def test_two_cycle_of_two_functions_in_turn(g0, printed):
    descent = tw.Descent(cyclic_pair(g0=g0).problem, tw.Cyclic(1), 0.07)
    record = tw.Record(1)
    run = tw.simulate(descent, jnp.asarray([1.0]), steps=600, key=KEY, record=record)
    first, second = run.records["params"][0, -2:, 0]
    # The start is forgotten as .93^600 = 1e-19; the first function ends at -gamma g0/(2 - gamma).
    np.testing.assert_allclose([first, second], [-0.07 * g0 / 1.93, 0.07 * g0 / 1.93], rtol=1e-6)
    assert f"{second:.{len(printed) - 2}f}" == printed


# Bad input.


def bad(start=START, dynamics=None, **options):
    options = {"steps": 10, "key": KEY, **options}
    return tw.simulate(dynamics or descent_of("sgd"), start, **options)


def finished(record=None):
    return bad(record=record, chains=2)


REFUSED = {
    "steps negative": (lambda: bad(steps=-1), "steps must be a whole number .* got -1"),
    "steps huge": (lambda: bad(steps=2**31), "steps must be a whole number"),
    "chains": (lambda: bad(chains=0), "chains must be at least 1, got 0"),
    "bound": (lambda: bad(bound=0.0), "bound must be positive, got 0"),
    "bound nan": (lambda: bad(bound=float("nan")), "bound must be positive, got nan"),
    "no key": (lambda: bad(key=None), r"one key=, for example jax.random.key\(0\); got None"),
    "keys": (lambda: bad(key=jax.random.split(KEY)), "needs one key="),
    "start nan": (
        lambda: bad(jnp.asarray([0.0, jnp.nan])),
        "start is not finite; expected numbers",
    ),
    "leaf nan": (lambda: bad({"w": jnp.asarray([jnp.inf])}), r"start\['w'\] is not finite"),
    "start shape": (lambda: bad(jnp.ones(3)), r"cannot be evaluated on these .*float64\[3\]"),
    "start integer": (lambda: bad(jnp.asarray([1, 2])), "has type int64; expected floating"),
    "starts uneven": (
        lambda: bad({"a": jnp.ones((3, 2)), "b": jnp.ones(2)}, per_chain=True),
        r"one leading axis of all chains .*\['b'\]: float64\[2\]",
    ),
    "starts scalar": (lambda: bad(jnp.asarray(1.0), per_chain=True), "one leading axis"),
    "starts and chains": (
        lambda: bad(jnp.ones((3, 2)), per_chain=True, chains=4),
        r"one leading axis of 4 chains .*float64\[3, 2\]",
    ),
    "vector exit": (lambda: bad(exit=lambda x: x > 0), r"one boolean, got bool\[2\]; reduce it"),
    "number exit": (lambda: bad(exit=lambda x: x[0]), r"one boolean, got float64\[\]"),
    "exit shape": (
        lambda: bad(exit=tw.stopping.LeftBox(jnp.zeros(3), jnp.ones(3))),
        r"exit= cannot be evaluated on these parameters \(float64\[2\]\)",
    ),
    "continued key": (
        lambda: bad(finished(), steps=20),
        "a continued run has its own key and chains",
    ),
    "continued chains": (
        lambda: bad(finished(), steps=20, key=None, chains=2),
        "a continued run has its own key and chains",
    ),
    "continued backwards": (
        lambda: bad(finished(), steps=9, key=None),
        "the run has taken 10 steps and steps= is 9",
    ),
    "continued otherwise": (
        lambda: bad(finished(tw.Record(5)), steps=20, key=None),
        r"the run recorded \['params'\] and this record= has \[\]",
    ),
    "record every": (lambda: tw.Record(0), "record every 0 steps: expected at least 1"),
    "record when": (lambda: tw.Record(values={"x": total}), "need every="),
    "burn in": (lambda: tw.Record(burn_in=-1), "burn_in is a number of steps, got -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make()
