"""Step rules against the slides' tables, closed forms, and plain Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq

import thalweg as tw
from helpers import bowls
from thalweg.errors import InputError


def slowly(epoch):
    return 0.5 * jnp.sqrt(epoch)


# Giselsson, "Step-size rules and convergence": epoch, batch norm, the step as printed.
COMBINED = [
    (0, 2.1e7, "4.8e-08"),
    (10, 7.2e4, "1.4e-05"),
    (50, 0.31, "0.097"),
    (100, 0.28, "0.016"),
    (200, 6.8e-5, "0.012"),
    (300, 0.33, "0.01"),
    (500, 0.0, "0.008"),
    (700, 1.2e-6, "0.007"),
    (1000, 3.1e-6, "0.006"),
]
NOT_DAMPED = [(1, 1.2e6, "0.1")]
NOT_SLOWED = [
    (0, 7.0e6, "1.4e-07"),
    (10, 257.0, "0.004"),
    (50, 6.2e-10, "0.10"),
    (100, 1.5, "0.087"),
    (200, 1.2, "0.089"),
    (300, 2.0e-12, "0.1"),
    (500, 5.1e-12, "0.1"),
    (700, 2.4e-13, "0.1"),
    (1000, 1.5, "0.087"),
]
TABLES = {
    "combined": (tw.steps.damped(0.1, 0.1, psi=slowly, warmup=50), COMBINED),
    "alpha 0": (tw.steps.damped(0.1, 0.0, psi=slowly, warmup=50), NOT_DAMPED),
    "psi 0": (tw.steps.damped(0.1, 0.1), NOT_SLOWED),
}


def step_at(rule, count, norm):
    """The step a transformation takes with a gradient of that norm, spread over two leaves."""
    gradient = {"a": jnp.asarray([0.6 * norm]), "b": jnp.asarray(-0.8 * norm)}
    updates, after = rule.update(gradient, jnp.asarray(count, jnp.int32))
    assert int(after) == count + 1
    steps = [
        -np.asarray(u) / np.asarray(g)
        for u, g in zip(jax.tree.leaves(updates), jax.tree.leaves(gradient), strict=True)
    ]
    assert np.allclose(steps[0], steps[1], rtol=1e-14)
    return float(steps[1])


def as_printed(value, like):
    """A number with as many digits as the printed one."""
    return f"{value:.1e}" if "e" in like else f"{value:.{len(like.partition('.')[2])}f}"


@pytest.mark.parametrize(
    ("table", "epoch", "norm", "printed"),
    [(name, *row) for name, (_, rows) in TABLES.items() for row in rows],
)
def test_tables_of_the_slides_to_all_printed_digits(table, epoch, norm, printed):
    # A gradient of norm 0 does not move at all: the printed 0 is below 5e-9 in its table.
    step = step_at(TABLES[table][0], epoch, norm or 1e-9)
    assert as_printed(step, printed) == printed


def test_epochs_of_the_damped_rule():
    # Epoch 51 begins at count 510 and is the first with psi.
    rule = tw.steps.damped(0.1, 0.0, psi=slowly, warmup=50, steps_per_epoch=10)
    np.testing.assert_allclose(step_at(rule, 509, 1.0), 0.1, rtol=1e-15)
    np.testing.assert_allclose(step_at(rule, 510, 1.0), 0.1 / (1 + 0.5 * 51**0.5), rtol=1e-15)
    np.testing.assert_allclose(step_at(rule, 519, 1.0), 0.1 / (1 + 0.5 * 51**0.5), rtol=1e-15)


def test_a_zero_gradient_stays():
    updates, _ = tw.steps.damped(0.1, 0.1).update(jnp.zeros(3), jnp.zeros((), jnp.int32))
    assert updates.tolist() == [0.0, 0.0, 0.0]


# gamma_0 / (1 + k/K) with K = 50: count, ceil, floor, continuous.
SCHEDULES = [
    (0, 1, 1, 1.0),
    (1, 2, 1, 1.02),
    (25, 2, 1, 1.5),
    (50, 2, 2, 2.0),
    (51, 3, 2, 2.02),
    (99, 3, 2, 2.98),
    (100, 3, 3, 3.0),
    (5000, 101, 101, 101.0),
]


@pytest.mark.parametrize(("count", "ceil", "floor", "continuous"), SCHEDULES)
def test_schedules(count, ceil, floor, continuous):
    for rounding, divisor in (("ceil", ceil), ("floor", floor), ("continuous", continuous)):
        inverse = tw.steps.inverse_time(0.3, 50, rounding=rounding)
        root = tw.steps.inverse_sqrt_time(0.3, 50, rounding=rounding)
        for k in (count, jnp.asarray(count, jnp.int32)):
            np.testing.assert_allclose(inverse(k), 0.3 / divisor, rtol=1e-14)
            np.testing.assert_allclose(root(k), 0.3 / (1 + (divisor - 1) ** 0.5), rtol=1e-14)


def test_ceil_is_the_default_and_epochs_have_steps():
    schedule = tw.steps.inverse_time(1.0, 2, steps_per_epoch=3)
    # Epoch 0 is counts 0 to 2; epochs 1 and 2 have ceil(k/2) = 1; epochs 3 and 4 have 2.
    got = [float(schedule(count)) for count in range(10)]
    np.testing.assert_allclose(got, [1] * 3 + [1 / 2] * 6 + [1 / 3], rtol=1e-15)


def test_damping_by_the_stochastic_norm_is_biased():
    # f_i = (x - c_i)^2/2, c = +1 with probability .9 and -9 with .1: the minimiser is 0.
    problem = tw.FiniteSum(
        lambda x, c: 0.5 * jnp.sum(jnp.square(x - c)), np.array([1.0, -9.0]), weights=(0.9, 0.1)
    )
    assert float(problem.gradient(jnp.zeros(1))[0]) == pytest.approx(0, abs=1e-15)
    rule = tw.steps.damped(0.1, 0.1)

    def mean_move(x):
        moves = [
            float(rule.update(problem.gradient(jnp.asarray([x]), jnp.asarray([i]), jnp.ones(1)),
                              jnp.asarray(0, jnp.int32))[0][0])
            for i in range(2)
        ]  # fmt: skip
        return 0.9 * moves[0] + 0.1 * moves[1]

    fixed_point = brentq(mean_move, -1.0, 1.0, xtol=1e-6)
    # .9 (1-x) (1.9 + .1x) = .1 (9+x) (1.1 - .1x), that is x^2 + 20.5 x - 9 = 0.
    by_hand = (np.sqrt(20.5**2 + 36) - 20.5) / 2
    assert fixed_point == pytest.approx(by_hand, abs=1e-5)
    assert f"{fixed_point:.2f}" == "0.43"


OPTIMISERS = {
    "number": 0.1,
    "schedule": optax.warmup_cosine_decay_schedule(0.01, 0.2, 3, 10),
    "inverse time": tw.steps.inverse_time(0.2, 3),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(optax.exponential_decay(0.1, 5, 0.5)),
    "lion": optax.lion(0.01),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
    "damped": tw.steps.damped(0.1, 0.1, psi=slowly, warmup=2),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, np.float32) for name in OPTIMISERS]
    + [(name, np.float64) for name in ("number", "schedule", "adam", "damped")],
)
def test_any_optax_rule_moves_as_in_optax(name, dtype):
    rule, problem = OPTIMISERS[name], bowls(5, 3, dtype=dtype)
    start = jnp.asarray([1.0, -2.0, 0.5], dtype)
    run = tw.simulate(tw.Descent(problem, tw.Full(), rule), start, steps=8, key=jax.random.key(0))
    assert run.params.dtype == dtype

    plain = rule if isinstance(rule, optax.GradientTransformation) else optax.sgd(rule)
    with jax.numpy_dtype_promotion("standard"):
        state, params = plain.init(start), start

        @jax.jit
        def step(params, state):
            updates, state = plain.update(problem.gradient(params), state, params)
            return optax.apply_updates(params, updates), state

        for _ in range(8):
            params, state = step(params, state)
    # The same operations compiled in other surroundings: some roundings a step, which division by
    # small second moments enlarges at the start (gradients here are of size one).
    np.testing.assert_allclose(run.params[0], params, rtol=1e3 * np.finfo(dtype).eps)


REFUSED = {
    "zero": (lambda: descent(0.0), "step must be positive and finite, got 0.0"),
    "negative": (lambda: descent(-0.1), "step must be positive and finite, got -0.1"),
    "nan": (lambda: descent(float("nan")), "step must be positive and finite, got nan"),
    "infinite": (lambda: descent(float("inf")), "step must be positive and finite, got inf"),
    "text": (lambda: descent("fast"), "step is 'fast'; expected a positive number, an Optax"),
    "array": (lambda: descent(jnp.ones(2)), "expected a positive number, an Optax"),
    "none": (lambda: descent(None), "step is None; expected a positive number"),
    "initial": (lambda: tw.steps.inverse_time(0.0, 5), "initial must be positive"),
    "period": (lambda: tw.steps.inverse_sqrt_time(0.1, -5), "period must be positive"),
    "rounding": (
        lambda: tw.steps.inverse_time(0.1, 5, rounding="ceiling"),
        "unknown rounding 'ceiling'; did you mean 'ceil'.*: ceil, continuous, floor",
    ),
    "epochs": (
        lambda: tw.steps.inverse_time(0.1, 5, steps_per_epoch=0),
        "steps_per_epoch must be at least 1, got 0",
    ),
    "damped": (lambda: tw.steps.damped(-1.0, 0.1), "initial must be positive"),
    "alpha": (lambda: tw.steps.damped(0.1, -0.1), "alpha must be a finite number, at least 0"),
    "alpha nan": (lambda: tw.steps.damped(0.1, float("nan")), "alpha must be a finite number"),
    "damped epochs": (
        lambda: tw.steps.damped(0.1, 0.1, steps_per_epoch=-2),
        "steps_per_epoch must be at least 1, got -2",
    ),
}


def descent(step):
    return tw.Descent(bowls(), tw.Full(), step)


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make()
