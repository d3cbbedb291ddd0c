"""Which route a step takes and why, and that both give the same chains."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from helpers import bowls
from thalweg import engine
from thalweg.errors import InputError
from thalweg.models import mlp

KEY = jax.random.key(3)
START = jnp.asarray([1.0, -0.5])
# Twenty steps of numbers of size one, none of which depends on the rounding of the one before by
# more than a factor of two: some thousand roundings of 2^-53.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def all_batched(monkeypatch):
    """A function after which every step is too large for lanes."""

    def from_now_on():
        monkeypatch.setattr(engine, "_LANES_COST", 0)
        engine._chosen.cache_clear()

    yield from_now_on
    engine._chosen.cache_clear()


def stats(descent, start=START):
    return tw.simulate(descent, start, steps=0, key=KEY).stats


# A newcomer's losses, without any hint.


def test_rosenbrock_with_noise_in_the_data():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(1000, 2))

    def loss(params, sample):
        x, y = params
        valley = (1 - x + 0.1 * sample[0]) ** 2
        return valley + 10 * (y - x**2 + 0.1 * sample[1]) ** 2

    descent = tw.Descent(tw.FiniteSum(loss, data), tw.Minibatch(1), 1e-3)
    run = tw.simulate(descent, jnp.asarray([-1.0, 1.0]), steps=50, key=KEY, chains=20)
    assert run.stats["route"] == "lanes"
    # Threefry twenty rounds, the row of one sample, and a gradient of ten operations.
    assert 100 < int(run.stats["reason"].split()[3]) < 400
    assert run.stats["block_size"] >= 128


LOSSES = {
    "vectors": lambda x, s: jnp.log1p(jnp.sum(jnp.square(x - s))),
    "products": lambda x, s: jnp.square(jnp.tanh(jnp.outer(x, s)) @ x - s).sum(),
    "one class of three": lambda x, s: -jax.nn.log_softmax(jnp.append(x, 0.0))[jnp.int32(s[0] > 0)],
    "pairs": lambda x, s: jnp.sum(jnp.square(x[jnp.triu_indices(2)[0]] - s[0])),
    "set": lambda x, s: jnp.prod(jnp.zeros(2).at[0].set(x[1]).at[1].set(s[1] + x[0])),
    "short loop": lambda x, s: jax.lax.fori_loop(0, 4, lambda i, y: y - 0.1 * (y**3 - s[0]), x[0]),
    "branch": lambda x, s: jax.lax.cond(x[0] > s[0], jnp.sum, lambda x: jnp.prod(x + s), x),
}


@pytest.mark.parametrize("name", LOSSES)
def test_ordinary_losses_take_lanes(name):
    problem = tw.FiniteSum(LOSSES[name], np.random.default_rng(1).normal(size=(20, 2)))
    assert stats(tw.Descent(problem, tw.Minibatch(1), 0.01))["route"] == "lanes"


def test_unlike_terms_take_lanes():
    terms = (lambda x: x[0] ** 4, lambda x: jnp.cos(x[1]), lambda x: jnp.linalg.norm(x - 1))
    for sampler in (tw.Minibatch(1), tw.Resampled(2, lipschitz=(1, 2, 3)), tw.Reweighted(1)):
        assert stats(tw.Descent(tw.FiniteSum.of(*terms), sampler, 0.01))["route"] == "lanes"


# What takes the general route.


@pytest.mark.parametrize(
    ("widths", "size", "reason"),
    [
        # 65 parameters: tracing tells. Some ten operations for every product of weights alone.
        ((2, 16, 1), 16, r"a step has \d{4,5} operations on lanes"),
        # 1185 parameters and two samples: known without tracing.
        ((2, 32, 32, 1), 2, "a step has 2370 components of gradients"),
    ],
)
def test_a_network_is_batched_for_its_size(widths, size, reason):
    net = mlp(widths, "tanh")
    data = {"x": np.ones((32, 2)), "y": np.zeros(32)}
    problem = tw.FiniteSum(lambda p, s: jnp.square(net.apply(p, s["x"])[0]), data)
    descent = tw.Descent(problem, tw.Minibatch(size, replace=True), 0.01)
    seen = stats(descent, net.init(KEY))
    assert seen["route"] == "batched"
    assert re.fullmatch(reason, seen["reason"])


@jax.custom_jvp
def called_sine(x):
    return jax.pure_callback(
        np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims"
    )


@called_sine.defjvp
def _(primals, tangents):
    (x,), (tangent,) = primals, tangents
    # The derivative is called, too: -sin(x - pi/2) is the cosine.
    return called_sine(x), -called_sine(x - jnp.pi / 2) * tangent


def test_a_host_callback_is_batched_and_says_so_once():
    def descent(sine):
        problem = tw.FiniteSum(lambda x, s: jnp.sum(sine(x) * s), np.eye(2))
        return tw.Descent(problem, tw.Minibatch(1), 0.1)

    called, options = descent(called_sine), {"steps": 20, "key": KEY, "chains": 3}
    with pytest.warns(UserWarning, match="host callback .pure_callback.*slower") as said:
        run = tw.simulate(called, START, **options)
    assert len(said) == 1
    assert run.stats["route"] == "batched"
    assert run.stats["reason"] == "a step holds the operation pure_callback"
    expected = tw.simulate(descent(jnp.sin), START, **options)
    assert expected.stats["route"] == "lanes"
    np.testing.assert_allclose(run.params, expected.params, **CLOSE)
    # Warnings are errors here.
    again = tw.simulate(called, START, **options)
    np.testing.assert_array_equal(again.params, run.params)


def test_an_operation_without_a_rule_is_batched():
    problem = tw.FiniteSum(lambda x, s: jnp.median(jnp.abs(x - s)), np.eye(2))
    seen = stats(tw.Descent(problem, tw.Minibatch(1), 0.1))
    assert (seen["route"], seen["reason"]) == ("batched", "a step holds the operation sort")


def test_parameters_without_entries_are_batched():
    problem = tw.FiniteSum(lambda p, s: jnp.sum((p["w"] - s) ** 2) + jnp.sum(p["b"]), np.eye(2))
    start = {"w": START, "b": jnp.zeros((0, 2))}
    run = tw.simulate(tw.Descent(problem, tw.Full(), 0.25), start, steps=1, key=KEY)
    assert run.stats["route"] == "batched"
    # A quarter of the gradient 2 (x - mean) is half the way.
    np.testing.assert_allclose(run.params["w"], [(START + 0.5) / 2], rtol=1e-15)
    assert run.params["b"].shape == (1, 0, 2)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, s: jnp.sum(x[x > 0]),
        lambda x, s: x[0] if x[0] > 0 else x[1],
        lambda x, s: jnp.sum(jnp.unique(x)),
    ],
    ids=["mask", "if", "unique"],
)
def test_a_shape_or_branch_that_depends_on_the_numbers_is_refused(loss):
    descent = tw.Descent(tw.FiniteSum(loss, np.ones(3)), tw.Minibatch(1), 0.1)
    with pytest.raises(InputError, match=r"use jnp\.where"):
        tw.simulate(descent, START, steps=1, key=KEY)


# Both routes give the same chains.

# One parameter is enough and compiles sooner; by group, in the plane, or all steps are alike.
BOWLS = bowls(3, 1, groups=["a", "b", "b"], weights=[0.5, 0.2, 0.3])
EVEN = bowls(4, 1)
GROUPS = bowls(2, 2, groups=["a", "b"], weights=[0.3, 0.7])
DYNAMICS = {
    "full": tw.Descent(BOWLS, tw.Full(), 0.1),
    "minibatch": tw.Descent(EVEN, tw.Minibatch(2), 0.1),
    "replaced": tw.Descent(BOWLS, tw.Minibatch(2, replace=True), 0.1),
    "resampled": tw.Descent(BOWLS, tw.Resampled(1, proportions=(0.3, 0.7)), 0.1),
    "norms": tw.Descent(BOWLS, tw.Reweighted(1), 0.1),
    "kept norms": tw.Descent(
        BOWLS, tw.Reweighted(1, refresh=3, stale="fixed-length", uniform=0.1), 0.1
    ),
    "groups": tw.Descent(GROUPS, tw.Reweighted(1, by="group"), 0.1),
    "kept groups": tw.Descent(GROUPS, tw.Reweighted(1, by="group", refresh=3), 0.1),
    "cyclic": tw.Descent(EVEN, tw.Cyclic(2), 0.1),
    "reshuffled": tw.Descent(EVEN, tw.Reshuffled(2), 0.1),
    "adam": tw.Descent(EVEN, tw.Minibatch(1), optax.adam(0.05)),
    "diffusion": tw.Diffusion(lambda x: -x, lambda x: 1 + x**2, 0.01, method="milstein"),
}
SORTING = {"reshuffled"}


# Draws by group are the largest programs: ten seconds each to compile.
DEAR = {"groups", "kept groups"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in DEAR else name for name in DYNAMICS],
)
def test_both_routes_give_the_same_paths(name, all_batched):
    options = {"steps": 20, "key": KEY, "chains": 40}
    start = START if "groups" in name else START[:1]
    lanes = tw.simulate(DYNAMICS[name], start, **options)
    assert lanes.stats["route"] == ("batched" if name in SORTING else "lanes")
    all_batched()
    batched = tw.simulate(DYNAMICS[name], start, **options)
    assert batched.stats["route"] == "batched"
    np.testing.assert_allclose(lanes.params, batched.params, **CLOSE)
    # Chains differ (steps of one length meet again).
    assert len(np.unique(lanes.params[:, 0])) > (0 if name in ("full", "cyclic") else 10)


def test_both_routes_stop_average_and_record_alike(all_batched):
    record = tw.Record(
        7,
        {"norm": jnp.linalg.norm, "params": lambda x: x},
        means={"right": lambda x: x[0] > 0, "square": lambda x: jnp.outer(x, x)},
        burn_in=5,
    )
    # Single precision beside the means' double.
    options = {"steps": 25, "key": KEY, "chains": 40, "record": record}
    options["exit"] = lambda x: x[0] < 0
    dynamics = tw.Descent(bowls(3, 2, dtype=np.float32), tw.Minibatch(1), 0.1)
    start = START.astype(jnp.float32)
    lanes = tw.simulate(dynamics, start, **options)
    all_batched()
    batched = tw.simulate(dynamics, start, **options)
    assert (lanes.stats["route"], batched.stats["route"]) == ("lanes", "batched")
    assert lanes.exit_step.tolist() == batched.exit_step.tolist()
    assert 0 < np.mean(lanes.exited) < 1
    assert lanes.params.dtype == lanes.records["norm"].dtype == jnp.float32
    assert lanes.means["right"].dtype == jnp.float64
    # As CLOSE, for roundings of 2^-24.
    for ours, theirs in zip(
        jax.tree.leaves(found(lanes)), jax.tree.leaves(found(batched)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def found(run):
    return run.params, run.records, run.means


@pytest.mark.parametrize("route", ["lanes", "batched"])
def test_a_chain_that_is_not_a_number_stops_alone(route, all_batched):
    if route == "batched":
        all_batched()
    problem = tw.FiniteSum(lambda x, s: (x * jnp.sqrt(x) - s * x).sum(), np.array([1.0, 2.0]))
    descent, options = tw.Descent(problem, tw.Minibatch(1), 0.01), {"steps": 30, "key": KEY}
    starts = jnp.asarray([1.0, -1.0, 2.0, 0.005])
    run = tw.simulate(descent, starts, per_chain=True, **options)
    assert run.stats["route"] == route
    # The root of -1 at once; the others have drifts of about one and reach no boundary but 0.
    assert run.diverged_step.tolist()[:3] == [-1, 1, -1]
    assert float(run.params[1]) == -1.0
    fine = tw.simulate(descent, starts.at[1].set(3.0), per_chain=True, **options)
    for j in (0, 2, 3):
        assert float(run.params[j]) == float(fine.params[j])
        assert int(run.diverged_step[j]) == int(fine.diverged_step[j])
