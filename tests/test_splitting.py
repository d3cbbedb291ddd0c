"""Splitting against exact chains on lattices, against grids, and against itself interrupted."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from helpers import bytes_of, counted_compilations
from thalweg.errors import InputError
from thalweg.escape import replications
from thalweg.escape.coordinates import coordinate_to
from thalweg.escape.estimate import jackknife, mean_exit
from thalweg.escape.excursions import Excursions
from thalweg.escape.levels import Plan, chosen
from thalweg.escape.rounds import Rows, advance, begin
from thalweg.escape.splitting import splitting
from thalweg.landscapes import piecewise_linear
from thalweg.markov.lattice import lattice
from thalweg.markov.transfer import transfer

KEY = jax.random.key(0)

# An and Ying's section 2: from .25 until theta < -.5.
LANDSCAPE = piecewise_linear()
START = LANDSCAPE.start
EXIT = tw.stopping.LeftBox(-0.5, jnp.inf)
SGD = tw.Minibatch(1, replace=True)
POPULATION = tw.Resampled(1, lipschitz=(1.0, 5.0))


def descent(sampler, step):
    return tw.Descent(LANDSCAPE.problem, sampler, step)


@cache
def exact(sampler, step):
    """Places, the transition matrix among those inside, that to those outside, the start."""
    own = lattice(descent(sampler, step), -0.9, 1.0, float(START[0]))
    jumps, x = transfer(descent(sampler, step), own), own.positions
    matrix = np.zeros((x.size, x.size))
    np.add.at(matrix, (jumps.source, jumps.target), jumps.rates * step)
    matrix[np.diag_indices(x.size)] = 1 - matrix.sum(axis=1)
    inside = x >= -0.5
    begins = np.zeros(inside.sum())
    begins[np.argmin(np.abs(x[inside] - START[0]))] = 1
    return x, matrix[np.ix_(inside, inside)], matrix[np.ix_(inside, ~inside)], begins


def exact_mean(sampler, step):
    _, stay, _, begins = exact(sampler, step)
    return float(begins @ np.linalg.solve(np.eye(len(stay)) - stay, np.ones(len(stay))))


def share_left(x):
    """The default coordinate of this exit."""
    return (0.25 - x) / 0.75


def exact_averages(sampler, step, lower, upper, settled):
    """What a replication measures on average: waited, stayed, left, exits, transit, their place.

    By the chain in (place, whether the lower level was met since the last passage).
    """
    x, stay, out, law = exact(sampler, step)
    inside = x >= -0.5
    height, ends = share_left(x[inside]), x[~inside]
    low, high = height <= lower, height >= upper
    # From a place on an excursion: to the exit before back, its steps, where.
    free = np.where(low[:, None], 0.0, stay)
    system = np.eye(len(stay)) - free * ~low
    to_exit = np.where(low, 0.0, out.sum(axis=1))
    success = np.linalg.solve(system, to_exit)
    steps = np.linalg.solve(system, np.where(low, 0.0, success))
    place = np.linalg.solve(system, np.where(low, 0.0, out @ ends))
    armed, free = law * low, law * ~low
    waited, found = 0.0, np.zeros(3)
    for k in range(2 * settled):
        if k < settled:
            waited += (armed + free).sum()
        passing, leaving = armed @ stay, armed @ out
        if k >= settled:
            found += [
                passing @ (high * success),
                passing @ (high * steps),
                passing @ (high * place),
            ]
            found += [leaving.sum(), 0.0, leaving @ ends]
        if k == settled:
            stayed = (armed + free).sum()
        free = free @ stay
        armed, free = passing * ~high + free * low, free * ~low + passing * high
    return np.array([waited, stayed, 1 - stayed, *found])


# Levels between the places of the lattice, two of its units apart where SGD has to drift, one at a
# time, to the top at the 69th; its jumps are of fifty.
STEP, SETTLED, UNIT = 0.036, 128, 0.1 * 0.036 / 0.75
HEIGHTS = UNIT * (np.array([17, 40, 55, 58, 60, 62, 64, 66, 68, 70, 85, 120]) + 0.5)


def replicated(count, chains, key):
    """Replications with levels that were given beforehand."""
    excursions = Excursions(descent(SGD, STEP), EXIT, coordinate_to(EXIT, START), 1e10, 1e12)
    plan = Plan(np.array(SETTLED), HEIGHTS, np.full(HEIGHTS.size - 1, 20.0))
    now = begin(excursions, plan, START, jax.random.fold_in(key, 0), count, chains)
    while int(now.stage) > 0:
        now = advance(excursions, plan, now, jax.random.fold_in(key, int(now.stage)))
    return now


@pytest.fixture(scope="module")
def many():
    """4096 replications of 16 chains: as many small independent splittings."""
    return replicated(4096, 16, KEY)


def test_averages_over_many_small_splittings_are_the_exact_ones(many):
    rows, points = many.rows, many.points
    assert np.count_nonzero(rows.weights[:, -1] == 0) > 200  # extinct ones are part of the mean
    x = np.bincount(points.groups, points.weights * points.params[:, 0] * ~points.early, 4096)
    own = np.stack(
        [rows.waited, rows.stayed, rows.left, rows.weights[:, -1], rows.transit, x], axis=1
    )
    expected = exact_averages(SGD, STEP, HEIGHTS[0], HEIGHTS[1], SETTLED)
    error = own.std(axis=0, ddof=1) / np.sqrt(4096)
    assert (error[3:] < 0.04 * np.abs(expected[3:])).all()
    assert (np.abs(own.mean(axis=0) - expected) < 3 * error).all()


def test_standard_errors_cover(many):
    # 64 runs of 64 replications. The mean exit is a function of averages that are known; z has the
    # deviation 1 up to three standard errors, 1/sqrt(128), and up to the skewness of replications
    # that differ by their mean, a tenth.
    averages = exact_averages(SGD, STEP, HEIGHTS[0], HEIGHTS[1], SETTLED)
    waited, stayed, left, exits, transit, _ = averages
    one = Rows(*np.array([[waited, stayed, left, 0.0, transit]]).T, np.array([[1.0, exits]]))
    truth = float(mean_exit(one, SETTLED)[0])
    z = []
    for group in np.split(np.arange(4096), 64):
        part = Rows(*(x[group] for x in many.rows))
        value, error = jackknife(lambda rows: mean_exit(rows, SETTLED), part)
        z.append((value - truth) / error)
    assert abs(np.mean(z)) < 3 / np.sqrt(64) + 0.1
    assert abs(np.std(z) - 1) < 3 / np.sqrt(128) + 0.1


def test_several_levels_are_passed_at_once(many):
    # Over the top SGD jumps by ten units: nearly all that pass it are beyond what is above.
    passed = many.rows.weights[:, 1:].mean(axis=0) / many.rows.weights[:, :-1].mean(axis=0)
    assert (passed[4:8] < 0.3).all()
    assert (passed[-2:] > 0.99).all()


@pytest.mark.slow
def test_sgd_and_population_rr_at_the_documents_step():
    # 340.26 and 1.62347e7 steps, exact (tests/test_elimination.py). SGD leaves before it has
    # settled, and its chains simply run. Of RR it is known besides how many leave from M to 2M: its
    # classes of places, which change at rare excursions only, are not forgotten by then, and the
    # mean is 8 per cent above the exact one, within the 10 that are asked for.
    sgd = splitting(descent(SGD, 0.04), START, exit=EXIT, key=KEY)
    assert sgd.levels.size == 0
    assert sgd.probability is None
    assert sgd.error < 0.02 * sgd.mean_exit_steps
    assert abs(sgd.mean_exit_steps - exact_mean(SGD, 0.04)) < 3 * sgd.error
    rr = splitting(descent(POPULATION, 0.04), START, exit=EXIT, key=KEY)
    assert rr.reached
    assert rr.error <= 0.1 * rr.mean_exit_steps
    assert abs(rr.mean_exit_steps - exact_mean(POPULATION, 0.04)) < 3 * rr.error
    _, stay, _, law = exact(POPULATION, 0.04)
    inside = [law @ np.linalg.matrix_power(stay, k * rr.settled).sum(axis=1) for k in (1, 2)]
    error = rr.replicated.std(ddof=1) / np.sqrt(rr.replications)
    assert abs(rr.replicated.mean() - (inside[0] - inside[1])) < 3 * error


def test_sgd_that_leaves_after_two_hundred_million_steps():
    found = splitting(descent(SGD, 0.0314), START, exit=EXIT, key=KEY)
    known = exact_mean(SGD, 0.0314)
    assert known > 1.7e8
    assert found.reached
    assert abs(found.mean_exit_steps - known) < 3 * found.error
    # What a direct simulation would take for the same error, over what this took.
    assert known * (found.mean_exit_steps / found.error) ** 2 > 50 * found.cost


@pytest.mark.slow
def test_a_coordinate_of_few_values_is_as_good():
    # Ties everywhere: three or four places of the lattice have one value. Levels are among these.
    def steps_of_a_64th(theta):
        return jnp.floor(64 * share_left(theta[0]) + 0.037) / 64

    found = splitting(descent(SGD, STEP), START, exit=EXIT, key=KEY, coordinate=steps_of_a_64th)
    assert (np.diff(found.levels) > 0).all()
    assert np.array_equal(64 * found.levels, np.round(64 * found.levels))
    assert abs(found.mean_exit_steps - exact_mean(SGD, STEP)) < 3 * found.error
    assert found.error <= 0.1 * found.mean_exit_steps


def test_systematic_resampling_is_unbiased():
    weights = np.array([[0.0, 3.0, 1.0, 0.0, 2.5], [0.0, 0.0, 0.0, 0.0, 0.0]])
    generator, counts = np.random.default_rng(0), np.zeros((2, 5))
    for _ in range(4000):
        index = chosen(weights, generator)
        own = np.array([np.bincount(row, minlength=5) for row in index])
        # Each is taken as often as it should be, or once more.
        assert (own[0] >= np.floor(5 * weights[0] / 6.5)).all()
        assert (own[0] <= np.ceil(5 * weights[0] / 6.5)).all()
        counts += own
    # Deviations are below a half a draw.
    np.testing.assert_allclose(counts[0] / 4000, 5 * weights[0] / 6.5, atol=4 * 0.5 / 4000**0.5)
    assert (counts[1] == 4000).all()


# A well with two passes, at x = -+1, in the plane.


def two_passes(theta):
    x, y = theta
    aside = 1.5 * (y - 0.5 * x * x)
    return jnp.stack([-2.0 * (x - x**3) + 0.016 + aside * x, -aside])


SIDES = tw.stopping.LeftBox(jnp.array([-1.5, -jnp.inf]), jnp.array([1.5, jnp.inf]))


@pytest.mark.slow
def test_a_diffusion_in_the_plane_against_the_grid():
    # f = x^2 - x^4/2 - .016 x + .75 (y - x^2/2)^2 at the temperature .035: the pass on the right is
    # lower by .032. Beyond the passes the way goes downwards to the sides. Grid and step of time
    # are right to a per mille, by halving either.
    dt, start = 0.02, jnp.zeros(2)
    diffusion = tw.Diffusion(two_passes, 2 * 0.035, dt, method="heun")
    grid = tw.discretise(diffusion, tw.Grid((-1.7, -1.2), (1.7, 2.6), (136, 76)))
    known = float(grid.exit_time(lambda theta: ~SIDES(theta)).at(start)) / dt
    assert known > 1e8
    found = splitting(diffusion, start, exit=SIDES, key=KEY)
    assert found.reached
    assert found.error <= 0.1 * found.mean_exit_steps
    assert abs(found.mean_exit_steps - known) < 3 * found.error
    assert found.diverged == (0.0, 0.0)

    def low_right(theta):
        return (theta[0] > 0) & (theta[1] < 0.75)

    for where in (lambda theta: theta[0] > 0, low_right):
        there = lambda theta, where=where: SIDES(theta) & where(theta)  # noqa: E731
        others = lambda theta, where=where: SIDES(theta) & ~where(theta)  # noqa: E731
        exact_share = float(grid.committor(others, there).at(start))
        share, error = found.exit_points.probability(where)
        assert 0.01 < error < 0.08
        assert abs(share - exact_share) < 3 * error
    shares, _ = found.exit_points.histogram(lambda theta: theta[0], [-5.0, 0.0, 5.0])
    assert shares[1] == pytest.approx(
        found.exit_points.probability(lambda theta: theta[0] > 0)[0], rel=1e-12
    )
    assert shares.sum() == pytest.approx(1.0, rel=1e-12)


def downhill_on_both_sides(theta):
    return -theta + theta**3


@pytest.mark.slow
def test_chains_that_diverge_are_no_exits_and_are_told():
    # Left and right are alike; on the right chains exit, on the left they go to infinity. All steps
    # over all exits are twice the mean time to either; all is decided at 1.4. The step changes it
    # by a per cent.
    dt, start = 0.01, jnp.zeros(1)
    diffusion = tw.Diffusion(downhill_on_both_sides, 2 * 0.025, dt)
    grid = tw.discretise(diffusion, tw.Grid(-1.6, 1.6, 320))
    either = float(grid.exit_time(lambda theta: jnp.abs(theta[0]) < 1.4).at(start)) / dt
    with pytest.warns(UserWarning, match="chains diverge for one that leaves, and the mean is"):
        found = splitting(diffusion, start, exit=right, key=KEY)
    assert abs(found.mean_exit_steps - 2 * either) < 3 * found.error
    times, error = found.diverged
    assert 0.01 < error < 0.3
    assert abs(times - 1) < 3 * error
    # The same without noise goes nowhere.
    with pytest.raises(InputError, match="for all of 1024 chains that have settled; the noise van"):
        splitting(tw.Diffusion(downhill_on_both_sides, 0.0, dt), start, exit=right, key=KEY)


def right(theta):
    return theta[0] > 1.4


# From replications to estimates.


def test_the_mean_exit_of_a_chain_without_memory_is_exact():
    # Exit and divergence with fixed probabilities a step: all steps over all exits are 1/rate.
    rate, wrong, settled = 0.002, 0.003, 100
    both = rate + wrong
    stayed = (1 - both) ** settled
    gone = np.array([1 - stayed])
    exits = stayed * gone * rate / both
    rows = Rows(
        gone / both,
        1 - gone,
        gone * rate / both,
        exits * wrong / rate,
        np.zeros(1),
        np.stack([np.ones(1), exits], axis=1),
    )
    assert mean_exit(rows, settled)[0] == pytest.approx(1 / rate, rel=1e-12)


def test_the_jackknife_of_a_mean_is_the_mean():
    x = np.random.default_rng(0).exponential(size=30)
    rows = Rows(x, x, x, x, x, x[:, None])
    value, error = jackknife(lambda rows: rows.left, rows)
    assert value == pytest.approx(x.mean(), rel=1e-13)
    assert error == pytest.approx(x.std(ddof=1) / np.sqrt(30), rel=1e-12)
    # Of the reciprocal it takes the bias, var/(30 mean^3), up to its square.
    plain = 1 / x.mean()
    value, _ = jackknife(lambda rows: 1 / rows.left, rows)
    bias = x.var(ddof=1) / 30 / x.mean() ** 3
    assert plain - value == pytest.approx(bias, rel=0.15)
    assert jackknife(lambda rows: rows.left, Rows(*(x[:1] for x in rows)))[1] == np.inf


# Killed, and out of budget.


def small(temperature=0.035, **options):
    diffusion = tw.Diffusion(two_passes, 2 * temperature, 0.02, method="heun")
    options = {"relative_error": 0.12, "chains": 64, **options}
    return splitting(diffusion, jnp.zeros(2), exit=SIDES, key=KEY, **options)


def numbers(found):
    """All that was found, as arrays."""
    names = ("mean_exit_steps", "error", "probability", "passages", "transit_steps", "levels")
    points = found.exit_points
    own = [getattr(found, name) for name in (*names, "passed", "settled", "cost", "replicated")]
    return bytes_of(
        [*map(np.asarray, jax.tree.leaves(own)), points.params, points.weights, points.groups]
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    whole, path = small(), tmp_path / "run.npz"
    assert whole.replications > 32  # more than a round
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) in (4, 13):
            raise KeyboardInterrupt("from the test")
        return advance(*arguments)

    monkeypatch.setattr(replications, "advance", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt, match="from the test"):
            small(checkpoint=path)
    with counted_compilations() as compiled:
        assert numbers(small(checkpoint=path)) == numbers(whole)
        assert compiled() == 0
    before = len(calls)
    assert numbers(small(checkpoint=path)) == numbers(whole)
    assert len(calls) == before
    # More of the same goes on from it, anything else is refused.
    more = small(checkpoint=path, relative_error=0.09)
    assert more.replications > whole.replications
    assert np.array_equal(more.replicated[: whole.replications], whole.replicated)
    with pytest.raises(InputError, match="belongs to a run with other arguments"):
        small(checkpoint=path, temperature=0.04)


@pytest.mark.slow
def test_a_budget_that_ends_is_told():
    with pytest.warns(UserWarning, match="the budget ended after .* replications at a relative er"):
        found = small(relative_error=0.01, budget=4e6)
    assert not found.reached
    assert found.replications >= 32
    assert found.cost <= 4e6
    assert found.error > 0.01 * found.mean_exit_steps
    with pytest.raises(InputError, match=r"budget of 1e\+05 chain-steps ends in the well: 1024 ch"):
        small(budget=1e5)


def test_excursions_that_do_not_end_are_told():
    excursions = Excursions(descent(SGD, STEP), EXIT, coordinate_to(EXIT, START), 1e10, 5e5)
    starts = np.full((1024, 1), 0.25)
    with pytest.raises(
        InputError, match=r"of 1024 excursions were still on the way after up to .* steps"
    ):
        excursions.climb(starts, KEY, lower=-10.0, upper=10.0, first=256)


# Bad input.


def test_a_target_that_is_never_reached():
    # Every step from the right of the well goes to the left: no chain comes beyond 1/5 + .036 * 5.
    beyond = tw.stopping.LeftBox(-jnp.inf, 0.5)
    with pytest.raises(InputError, match=r"no chain of 8192 passed the level .* of the coordinate"):
        splitting(descent(SGD, STEP), START, exit=beyond, key=KEY)


MOVING = tw.Diffusion(downhill_on_both_sides, 0.1, 0.1)
FORGETFUL = descent(SGD, 0.04)
REFUSED = {
    "exited": ({"start": jnp.array([-0.6])}, "the start is at the exit already"),
    "shape": ({"coordinate": lambda theta: theta}, "coordinate= must return one real number"),
    "kind": ({"coordinate": EXIT}, "coordinate= must return one real number"),
    "broken": ({"coordinate": lambda theta: theta[3, 1]}, "coordinate= cannot be evaluated"),
    "nan": ({"coordinate": lambda theta: jnp.log(-theta[0])}, "coordinate= is nan at the start"),
    "exit": ({"exit": lambda theta: theta}, "exit= must return one boolean"),
    "key": ({"key": 0}, "splitting needs one key="),
    "error": ({"relative_error": 0.0}, "relative_error is 0.0; expected a share of the mean"),
    "chains": ({"chains": 1}, "chains of a replication must be at least 2"),
    "budget": ({"budget": float("nan")}, "budget is a number of chain-steps, got nan"),
    "passes": (
        {"dynamics": descent(tw.Reshuffled(1), 0.04)},
        "Reshuffled passes over the data and remembers where it is",
    ),
    "scores": (
        {"dynamics": descent(tw.Reweighted(1, refresh=5), 0.04)},
        "Reweighted keeps scores between its steps",
    ),
    "schedule": (
        {"dynamics": descent(SGD, optax.constant_schedule(0.04))},
        "splitting needs a number as the step",
    ),
    "momentum": ({"dynamics": descent(SGD, optax.sgd(0.04, 0.9))}, "an optimiser has memory"),
    "varying": ({"dynamics": MOVING.scheduled(lambda t: 1 + t)}, "the noise varies in time"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    changed, message = REFUSED[case]
    arguments = {"dynamics": FORGETFUL, "start": START, "exit": EXIT, "key": KEY, **changed}
    with pytest.raises(InputError, match=message):
        splitting(arguments.pop("dynamics"), arguments.pop("start"), **arguments)


def test_a_coordinate_that_is_no_number_on_the_way_is_told():
    excursions = Excursions(FORGETFUL, EXIT, lambda theta: jnp.sqrt(theta[0]), 1e10, 1e10)
    with pytest.raises(
        InputError, match=r"coordinate is nan at the params \[-1.0\]; expected a fi"
    ):
        excursions.heights(np.array([[1.0], [-1.0]]))


def test_coordinates_of_the_exits():
    start = jnp.array([1.0, 2.0])
    box = coordinate_to(tw.stopping.LeftBox(jnp.array([0.0, -jnp.inf]), 4.0), start)
    assert float(box(start)) == 0.0
    assert float(box(jnp.array([0.0, 2.0]))) == 1.0
    assert float(box(jnp.array([2.5, 3.5]))) == 0.75
    ball = coordinate_to(tw.stopping.EnteredBall(jnp.array([4.0, 6.0]), 1.0), start)
    assert float(ball(start)) == -4.0
    # On the border of the ball: 4 of 5 on the way.
    assert float(ball(jnp.array([3.4, 5.2]))) == pytest.approx(4.0, rel=1e-14)
    other = coordinate_to(lambda theta: theta[0] > 9.0, start)
    assert float(other(jnp.array([4.0, 6.0]))) == 5.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_mueller_brown_over_the_middle_well(seed):
    # From the global minimum past the middle one into the right one: f = V/16 at the temperature
    # .55, 1.45e7 steps. The coordinate is that of the ball.
    landscape = tw.landscapes.mueller_brown(scale=0.25)
    start, ball = (
        landscape.minima[0].params,
        tw.stopping.EnteredBall(landscape.minima[2].params, 0.2),
    )

    def drift(theta):
        return -landscape.problem.gradient(theta)

    diffusion = tw.Diffusion(drift, 1.1, 1e-3, method="heun")
    grid = tw.discretise(diffusion, tw.Grid((-1.6, -0.5), (1.2, 2.3), (384, 384)))
    known = float(grid.exit_time(lambda theta: ~ball(theta)).at(start)) / 1e-3
    found = splitting(diffusion, start, exit=ball, key=jax.random.key(seed))
    assert abs(found.mean_exit_steps - known) < 3 * found.error
    assert found.error <= 0.1 * found.mean_exit_steps
