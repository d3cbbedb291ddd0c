"""Exit times with censoring and exit points, against SciPy, closed forms and known laws."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import thalweg as tw
from thalweg.errors import InputError
from thalweg.escape.exits import ExitPoints, exit_points
from thalweg.escape.survival import exit_times
from thalweg.run import Run


def run_with(taken, how, steps, params=None):
    """A run with chains that left ("L"), diverged ("D") or stayed ("S") after so many steps."""
    taken, how = np.asarray(taken), np.array(list(how))
    return Run(
        params=jnp.zeros((taken.size, 1)) if params is None else params,
        steps=steps,
        exit_step=jnp.asarray(np.where(how == "L", taken, -1)),
        diverged_step=jnp.asarray(np.where(how == "D", taken, -1)),
        record_steps=np.zeros(0, int),
        records={},
        means={},
        stats={},
        key=jax.random.key(0),
        state=None,
    )


def geometric(rate, chains, steps, seed, wait=0):
    """Chains that leave with a constant probability a step once they have waited."""
    times = np.random.default_rng(seed).geometric(rate, chains) + wait
    how = np.where(times <= steps, "L", "S")
    return run_with(np.minimum(times, steps), how, steps)


def test_survival_is_that_of_scipy_and_its_error_greenwoods():
    taken, how = [3, 3, 5, 8, 8, 8, 12, 20, 20, 7], "LLDLLDLSSL"
    found = exit_times(run_with(taken, how, 20))
    left = np.array(list(how)) == "L"
    data = stats.CensoredData(uncensored=np.array(taken)[left], right=np.array(taken)[~left])
    known = stats.ecdf(data).sf
    np.testing.assert_allclose(found.survival, known.evaluate(found.steps), rtol=1e-14)
    # SciPy's interval is the survival -+ z errors, where it is not clipped.
    level = 0.2
    interval = known.confidence_interval(level)
    half = (interval.high.evaluate(found.steps) - interval.low.evaluate(found.steps)) / 2
    np.testing.assert_allclose(
        found.survival_error, half / stats.norm.ppf((1 + level) / 2), rtol=1e-12
    )
    assert (found.exits, found.censored, found.diverged) == (6, 2, 2)
    assert found.survived(2) == (1.0, 0.0)
    assert found.survived(4) == found.survived(3) == (0.8, pytest.approx(np.sqrt(0.016)))
    assert found.survived(20)[0] == found.survival[-1]


def test_without_censoring_the_mean_is_the_mean():
    taken = np.array([4, 9, 1, 30, 2])
    found = exit_times(run_with(taken, "LLLLL", 40))
    mean, error = found.mean()
    assert mean == pytest.approx(taken.mean(), rel=1e-14)
    assert error == pytest.approx(taken.std(ddof=1) / np.sqrt(5), rel=1e-14)
    assert found.survival[-1] == 0.0
    assert found.survival_error[-1] == 0.0
    # And wherever exits count as exponential, for all have left.
    assert found.mean(2)[0] == pytest.approx(taken.mean(), rel=1e-14)


def test_censored_means_agree_with_those_of_the_run():
    run = run_with([10, 30, 100, 40], "LLSD", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert exit_times(run).mean()[0] == run.mean_exit_step()[0] == 90.0


def test_the_error_of_the_mean_is_right():
    # 400 runs of 200 chains, of which two thirds have left at the end; the deviation of z over the
    # runs has itself the error 1/sqrt(800).
    rate, wait, steps = 0.01, 30, 140
    z = []
    for seed in range(400):
        mean, error = exit_times(geometric(rate, 200, steps, seed, wait)).mean(wait)
        z.append((mean - wait - 1 / rate) / error)
    # Three standard errors, and a twentieth for the skewness of a ratio of 130 exits.
    assert abs(np.mean(z)) < 3 / np.sqrt(400) + 0.1
    assert abs(np.std(z) - 1) < 3 / np.sqrt(800) + 0.05


def test_a_wait_biases_the_plain_mean_and_not_the_settled_one():
    found = exit_times(geometric(0.002, 4000, 400, 1, wait=100))
    plain, error = found.mean()
    # All steps over all exits: the wait counts for those alone that leave, 1 - .998^300 of all.
    assert abs(plain - (500 + 100 / (1 - 0.998**300))) < 3 * error
    assert plain - 600 > 6 * error
    settled, error = found.mean(100)
    assert abs(settled - 600) < 3 * error


def test_exponential_exits_pass_the_test_and_others_fail():
    # Of 300 p-values that are uniform, three in a hundred are below .03: 9 with a deviation of 3.
    values = np.array(
        [exit_times(geometric(0.001, 300, 800, seed)).exponential() for seed in range(300)]
    )
    assert stats.kstest(values, "uniform").pvalue > 0.01
    whole = [exit_times(geometric(0.001, 100, 10**6, seed)).exponential() for seed in range(300)]
    assert stats.kstest(whole, "uniform").pvalue > 0.01
    waited = exit_times(geometric(0.002, 1000, 400, 5, wait=100))
    assert waited.exponential() < 1e-6
    assert waited.exponential(100) > 0.01


def test_exit_points_of_a_run():
    points = jnp.arange(11.0)[:, None]
    run = run_with(np.arange(11), "LLLLLLLLDSS", 20, points)
    found = exit_points(run)
    share, error = found.probability(lambda theta: theta[0] < 3.5)
    # 0, 1, 2 and 3 of the eight that left.
    assert share == 0.5
    assert error == pytest.approx(np.sqrt(0.25 / 7), rel=1e-14)
    shares, errors = found.histogram(lambda theta: theta[0], [0.0, 2.0, 3.5, 7.0])
    # Edges belong to the bin above, the last one to its own; 7 is the last that left.
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.5], rtol=1e-14)
    np.testing.assert_allclose(errors, np.sqrt(shares * (1 - shares) / 7), rtol=1e-13)


def test_groups_of_weighted_points_have_the_error_of_a_ratio():
    # Groups with gamma weights, of which a share around .3 is in the region: the deviation over
    # many trials against the mean of the errors given.
    rng, count, found = np.random.default_rng(0), 40, []
    for _ in range(400):
        weight = rng.gamma(3.0, size=count)
        share = rng.beta(3.0, 7.0, size=count)
        points = ExitPoints(
            jnp.asarray(np.repeat([0.0, 1.0], count))[:, None],
            np.concatenate([weight * share, weight * (1 - share)]),
            np.tile(np.arange(count), 2),
            count,
        )
        found.append(points.probability(lambda theta: theta[0] < 0.5))
    shares, errors = np.array(found).T
    assert abs(shares.mean() - 0.3) < 3 * shares.std() / np.sqrt(400)
    # A deviation from 400 trials is right to 1/sqrt(800), the linearised error to 1/count.
    assert errors.mean() == pytest.approx(shares.std(), rel=3 / np.sqrt(800) + 1 / count)


STAYED = run_with([9, 9], "SS", 9)
FEW = exit_times(run_with([3, 5, 9], "LLS", 9))
REFUSED = {
    "times": (lambda: exit_times(STAYED), "none of 2 chains left within 9 steps; run longer"),
    "points": (lambda: exit_points(STAYED), "none of 2 chains left within 9 steps; run longer"),
    "step": (lambda: FEW.survived(10), "step 10 is outside of the run, which has 9 steps"),
    "settled": (lambda: FEW.mean(9), "settled is 9; expected 0 to 8 steps"),
    "late": (lambda: FEW.mean(5), "none of 3 chains left from step 5 to 9"),
    "test": (lambda: FEW.exponential(), "2 chains left after step 0; expected at least ten"),
    "edges": (
        lambda: exit_points(run_with([1], "L", 9)).histogram(lambda theta: theta[0], [0.0, 0.0]),
        "expected two or more increasing numbers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make()


def test_exit_times_of_a_simulation_agree_with_the_exact_ones():
    # A bounded walk: theta moves by -+ 1/4 with equal probability (two samples, SGD with the step
    # 1/4) and leaves at 0 or beyond 3/4: from 1/2, of the places 1/4, 1/2 and 3/4 that remain.
    problem = tw.FiniteSum(lambda theta, s: s * theta[0], np.array([1.0, -1.0]))
    walk = tw.Descent(problem, tw.Minibatch(1), 0.25)
    box = tw.stopping.LeftBox(0.125, 0.875)
    run = tw.simulate(walk, jnp.array([0.5]), steps=9, key=jax.random.key(0), chains=4000, exit=box)
    found = exit_times(run)
    stay = np.array([[0, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0]])
    exact = [(np.linalg.matrix_power(stay, k)[1]).sum() for k in found.steps]
    # Exits are at even steps only; four standard errors for four of them.
    assert found.steps.tolist() == [2, 4, 6, 8]
    np.testing.assert_array_less(np.abs(found.survival - exact), 4 * found.survival_error)
    share, error = exit_points(run).probability(lambda theta: theta[0] > 0.5)
    assert abs(share - 0.5) < 3 * error
