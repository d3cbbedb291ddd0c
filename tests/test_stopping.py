"""When chains stop: exits exact to the step, divergence, and An and Ying's times."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from helpers import bytes_of, outcome
from thalweg.errors import InputError
from thalweg.landscapes import piecewise_linear
from thalweg.run import Run

KEY = jax.random.key(0)


def parabola(x, centre):
    return 0.5 * jnp.sum(jnp.square(x - centre))


def quartic(x, centre):
    """x^4/4, whose gradient descent diverges from afar."""
    return 0.25 * jnp.sum((x - centre) ** 4)


# Of two equal samples, so that gradient descent and SGD agree.
BOWL = tw.FiniteSum(parabola, np.zeros((2, 1)))
STEEP = tw.FiniteSum(quartic, np.array([[0.1], [-0.1]]))


def simulate(problem, starts, step, steps, **options):
    descent = tw.Descent(problem, options.pop("sampler", tw.Full()), step)
    starts = jnp.asarray(starts)[:, None]
    return tw.simulate(descent, starts, per_chain=True, steps=steps, key=KEY, **options)


def test_exits_are_exact_to_the_step():
    # x_k = x_0 .9^k enters |x| <= .1 at the first k >= log(x_0/.1)/log(1/.9); none is a tie.
    starts = np.array([0.05, 0.1, 0.11, 1.0, -3.0, 17.0, 1e4])
    expected = [max(0, math.ceil(math.log(abs(x) / 0.1) / -math.log(0.9))) for x in starts]
    run = simulate(BOWL, starts, 0.1, 100, exit=tw.stopping.EnteredBall(jnp.zeros(1), 0.1))
    expected[-1] = -1  # it would take 110
    assert expected[:3] == [0, 0, 1]
    assert run.exit_step.tolist() == expected
    assert run.exited.tolist() == [k >= 0 for k in expected]
    # The parameters are those at the exit.
    taken = np.array([100 if k < 0 else k for k in expected])
    np.testing.assert_allclose(run.params[:, 0], starts * 0.9**taken, rtol=1e-13)


def test_exits_do_not_depend_on_how_the_run_is_cut():
    starts, ball = np.linspace(0.2, 5000.0, 50), tw.stopping.EnteredBall(jnp.zeros(1), 0.1)
    whole = simulate(BOWL, starts, 0.01, 2000, exit=ball)
    cut = simulate(BOWL, starts, 0.01, 333, exit=ball)
    descent = tw.Descent(BOWL, tw.Full(), 0.01)
    cut = tw.simulate(descent, cut, steps=2000, exit=ball)
    assert bytes_of(outcome(cut)) == bytes_of(outcome(whole))
    expected = np.ceil(np.log(starts / 0.1) / -np.log(0.99))
    assert whole.exit_step.tolist() == expected.tolist()


def test_records_and_means_of_a_chain_that_left():
    record = tw.Record(2, means={"x": lambda x: x[0]})
    ball = tw.stopping.EnteredBall(jnp.zeros(1), 0.3)
    run = simulate(BOWL, [1.0, 0.2], 0.5, 8, exit=ball, record=record)
    # 1, .5, .25: out at step 2, where it stays; means are over the steps taken.
    assert run.exit_step.tolist() == [2, 0]
    assert run.records["params"][0, :, 0].tolist() == [1.0, 0.25, 0.25, 0.25, 0.25]
    assert float(run.means["x"][0]) == 0.375
    assert math.isnan(float(run.means["x"][1]))


def test_boxes_are_closed_and_balls_too():
    box = tw.stopping.LeftBox(jnp.asarray([0.0, -1.0]), jnp.asarray([1.0, jnp.inf]))
    for point, outside in (
        ([0.0, -1.0], False),
        ([1.0, 1e9], False),
        ([1.0 + 1e-9, 0.0], True),
        ([0.5, -1.1], True),
    ):
        assert bool(box(jnp.asarray(point))) == outside
    ball = tw.stopping.EnteredBall(jnp.asarray([1.0, 1.0]), 5.0)
    assert bool(ball(jnp.asarray([4.0, 5.0])))
    assert not bool(ball(jnp.asarray([4.0, 5.001])))
    single = jnp.asarray([4.0, 5.0], jnp.float32)
    assert bool(ball(single))
    assert not bool(box(jnp.asarray([0.5, 0.0], jnp.float32)))


# Divergence.


def plain_path(x, step, bound, steps=60):
    """Gradient descent on the steep problem until it leaves the bound: (last good x, step)."""
    for k in range(steps):
        with np.errstate(over="ignore", invalid="ignore"):
            new = x - step * 0.5 * ((x - 0.1) ** 3 + (x + 0.1) ** 3)
        if not (np.isfinite(new) and abs(new) <= bound):
            return x, k + 1
        x = new
    return x, -1


@pytest.mark.parametrize("bound", [1e10, 50.0, math.inf])
def test_divergence_is_told_with_its_step_and_the_last_good_point(bound):
    starts = np.array([0.5, 4.0, 1.0, 5.0, 40.0])
    run = simulate(STEEP, starts, 0.2, 60, bound=bound)
    expected = [plain_path(x, 0.2, bound) for x in starts]
    assert run.diverged_step.tolist() == [k for _, k in expected]
    assert run.diverged.tolist() == [False, True, False, True, True]
    assert bool(jnp.all(jnp.isfinite(run.params)))
    np.testing.assert_allclose(run.params[:, 0], [x for x, _ in expected], rtol=1e-10)
    assert not bool(jnp.any(run.exited))


def test_divergence_in_single_precision():
    # The bound 1e300 is infinite in float32, where 1e38 cubed is.
    problem = tw.FiniteSum(quartic, np.array([[0.1], [-0.1]], np.float32))
    starts = jnp.asarray([[40.0], [1.0]], jnp.float32)
    descent = tw.Descent(problem, tw.Full(), 0.2)
    run = tw.simulate(descent, starts, per_chain=True, steps=30, key=KEY, bound=1e300)
    assert run.diverged.tolist() == [True, False]
    assert bool(jnp.all(jnp.isfinite(run.params)))


def test_divergence_does_not_spread():
    record = tw.Record(5, means={"x": lambda x: x[0]})
    options = {"sampler": tw.Minibatch(1), "record": record}
    starts = np.linspace(-1.5, 1.5, 9)
    spoilt = starts.copy()
    spoilt[4] = 1e6
    good, bad = (simulate(STEEP, s, 0.2, 40, **options) for s in (starts, spoilt))
    assert bad.diverged.tolist() == [j == 4 for j in range(9)]
    others = np.delete(np.arange(9), 4)
    good, bad = (jax.tree.map(lambda x: x[others], outcome(run)) for run in (good, bad))
    assert bytes_of(good) == bytes_of(bad)


# Exit times and their errors.


def run_with(exit_step, diverged_step, steps):
    """A run of which only the exits matter."""
    exit_step, diverged_step = jnp.asarray(exit_step), jnp.asarray(diverged_step)
    empty = {"record_steps": np.zeros(0, int), "records": {}, "means": {}, "stats": {}}
    return Run(
        params=jnp.zeros(len(exit_step)),
        steps=steps,
        exit_step=exit_step,
        diverged_step=diverged_step,
        key=KEY,
        state=None,
        **empty,
    )


def test_fractions_and_their_errors():
    run = run_with([10, 20, 30, -1], [-1] * 4, 50)
    assert run.exited_by(9) == (0.0, 0.0)
    assert run.exited_by(10) == (0.25, math.sqrt(0.25 * 0.75 / 4))
    assert run.exited_by(50) == (0.75, math.sqrt(0.25 * 0.75 / 4))


def test_mean_exit_of_chains_that_all_left_is_their_mean():
    mean, error = run_with([10, 20, 60], [-1] * 3, 100).mean_exit_step()
    assert mean == 30.0
    assert error == pytest.approx(math.sqrt(1400 / 2 / 3), rel=1e-14)


def test_mean_exit_of_censored_chains_is_the_exponential_estimate():
    # 10 + 30 + 100 (never left) + 40 (diverged) steps and two exits.
    mean, error = run_with([10, 30, -1, -1], [-1, -1, -1, 40], 100).mean_exit_step()
    assert mean == 90.0
    assert error == pytest.approx(90 / math.sqrt(2), rel=1e-14)
    assert run_with([-1, -1], [-1, -1], 100).mean_exit_step() == (math.inf, math.inf)


# An and Ying, figure 1: eta = .04 from .25, left when below -.5; 4000 chains.

EXIT = tw.stopping.LeftBox(-0.5, jnp.inf)
SAMPLERS = {
    "sgd": tw.Minibatch(1),
    "population": tw.Resampled(1, lipschitz=(1.0, 5.0)),
    "norms": tw.Reweighted(1),
}


@cache
def escapes(name, steps):
    landscape = piecewise_linear()
    descent = tw.Descent(landscape.problem, SAMPLERS[name], landscape.step)
    return tw.simulate(descent, landscape.start, steps=steps, key=KEY, chains=4000, exit=EXIT)


@pytest.mark.parametrize(
    ("name", "steps", "fraction", "error"),
    [
        ("sgd", 100, 0.318, 0.007),
        ("sgd", 1000, 0.951, 0.003),
        ("population", 100, 0.0, 0.0),
        ("population", 1000, 0.0, 0.0),
        ("norms", 100, 0.009, 0.002),
        ("norms", 1000, 0.081, 0.004),
    ],
)
@pytest.mark.slow
def test_fractions_that_left_the_sharp_well(name, steps, fraction, error):
    # Four standard errors of the difference; the reference has its own.
    got, own = escapes(name, 10_000 if name == "sgd" else 1000).exited_by(steps)
    assert abs(got - fraction) <= 4 * math.hypot(own, error)


def test_mean_exit_of_sgd_from_the_sharp_well():
    # 340.3 is exact: SGD moves on a lattice here and its mean exit time solves a linear system.
    run = escapes("sgd", 10_000)
    assert bool(jnp.all(run.exited))
    mean, error = run.mean_exit_step()
    assert error < 6
    assert abs(mean - 340.3) <= 3 * error


REFUSED = {
    "empty box": (
        lambda: tw.stopping.LeftBox(1.0, 0.0),
        "box from 1.0 to 0.0 is empty; lower must be below upper",
    ),
    "box nan": (lambda: tw.stopping.LeftBox(float("nan"), 0.0), "is empty"),
    "radius": (lambda: tw.stopping.EnteredBall(jnp.zeros(2), 0.0), "radius .* must be positive"),
    "radius nan": (
        lambda: tw.stopping.EnteredBall(jnp.zeros(2), float("nan")),
        "radius .* must be positive, got nan",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make()
