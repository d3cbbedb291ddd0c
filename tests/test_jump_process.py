"""The jump process between minima against linear algebra, grids and the limits of its words."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.critical import critical_points
from thalweg.escape import eyring_kramers, jump_process, laplace_weights

SCALE, T, COLDER = 0.1, 0.06, 0.04


def a_minimum(value, *curvatures):
    return SimpleNamespace(value=value, eigenvalues=np.array(curvatures))


def chain_of_wells(seed, count, depth=1.0):
    """Random wells in a row, and one more saddle between the first two."""
    rng = np.random.default_rng(seed)
    minima = [a_minimum(depth * v, *rng.uniform(0.5, 2, 2)) for v in rng.uniform(-1, 0, count)]
    heights = depth * rng.uniform(0.2, 1, count)
    saddles = [a_minimum(h, -rng.uniform(0.5, 2), rng.uniform(0.5, 2)) for h in heights]
    joins = [(i, i + 1) for i in range(count - 1)] + [(0, 1)]
    return SimpleNamespace(minima=tuple(minima), saddles=tuple(saddles), joins=tuple(joins))


@pytest.fixture(scope="module")
def mueller_brown():
    """Its points, a tenth as high: barriers .537 and .225 between the last two, 2.65 and .96."""
    landscape = tw.landscapes.mueller_brown(scale=SCALE)
    minima, saddles = (
        tuple(tw.critical_point(landscape.problem, point.params) for point in points)
        for points in (landscape.minima, landscape.saddles)
    )
    graph = SimpleNamespace(minima=minima, saddles=saddles, joins=((1, 2), (0, 1)))
    return landscape.problem, graph


# The chain itself.


def test_two_wells_have_the_times_of_kramers_law():
    graph = SimpleNamespace(
        minima=(a_minimum(0.0, 2.0), a_minimum(0.0, 2.0)),
        saddles=(a_minimum(0.25, -1.0),),
        joins=((0, 1),),
    )
    process = jump_process(graph, temperature=0.05, step=0.1)
    expected = math.sqrt(2) * math.pi * math.exp(5)
    assert process.times_to(1) == pytest.approx([expected, 0])
    assert process.steps_to(1) == pytest.approx([10 * expected, 0])
    # Both rates bring the law nearer to the stationary one.
    assert process.relaxation_time == pytest.approx(expected / 2)
    assert process.law == pytest.approx([0.5, 0.5])
    assert process.valid


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_those_of_dense_linear_algebra(seed):
    process = jump_process(chain_of_wells(seed, 5), temperature=0.4)
    rates, law = process.rates, process.law
    # The condition of the matrices is 1e3; the rest is rounding.
    assert rates.sum(axis=1) == pytest.approx(0, abs=1e-14)
    assert law @ rates == pytest.approx(0, abs=1e-14)
    flow = law[:, None] * rates
    assert flow == pytest.approx(flow.T, abs=1e-15)
    values = np.sort(-np.linalg.eigvals(rates).real)
    assert process.relaxation_time == pytest.approx(1 / values[1], rel=1e-10)
    for target in (0, [2], [1, 4]):
        others = np.setdiff1d(np.arange(5), target)
        times = np.zeros(5)
        times[others] = np.linalg.solve(-rates[np.ix_(others, others)], np.ones(others.size))
        assert process.times_to(target) == pytest.approx(times, rel=1e-10)


def test_rates_over_two_saddles_add():
    graph = chain_of_wells(0, 2)
    single = replace_joins(graph, ((0, 1), (-1, 1)))
    other = replace_joins(graph, ((1, 1), (0, 1)))
    total, one, two = (jump_process(g, temperature=0.3).rates for g in (graph, single, other))
    assert total == pytest.approx(one + two, rel=1e-12)


def replace_joins(graph, joins):
    return SimpleNamespace(minima=graph.minima, saddles=graph.saddles, joins=joins)


def test_the_law_is_that_of_laplace(mueller_brown):
    problem, graph = mueller_brown
    process = jump_process(graph, temperature=T)
    weights = laplace_weights(problem, graph.minima, temperature=T)
    assert process.log_law == pytest.approx(weights.log_weights, abs=1e-12)


def test_times_of_a_thousand_in_the_exponent_keep_their_digits():
    # Birth and death: the time from 0 to n is the sum over j of sum_{i <= j} pi_i / (pi_j k_j), of
    # which the largest term is known to the last digit as everything is a sum of exponents.
    graph, count = chain_of_wells(7, 6), 6
    graph = replace_joins(graph, (*graph.joins[:-1], (-1, 0)))
    process = jump_process(graph, temperature=1e-3)
    logs, law = process.log_rates, process.log_law
    expected = np.logaddexp.reduce(
        [np.logaddexp.reduce(law[: j + 1]) - law[j] - logs[j, j + 1] for j in range(count - 1)]
    )
    found = process.log_times_to(count - 1)
    assert expected > 709
    assert found[0] == pytest.approx(expected, rel=1e-13)
    assert math.isinf(process.times_to(count - 1)[0])
    # The slowest time of two wells, between which the others do not count, is 1/(k + k').
    assert np.isfinite(process.log_relaxation_time)
    assert process.log_relaxation_time < max(process.log_times_to(j).max() for j in range(count))


def test_the_slowest_time_is_right_beside_times_beyond_rounding():
    # Three wells in a row, the last two exchange e^40 times as fast as the first two.
    graph = SimpleNamespace(
        minima=(a_minimum(0.0, 1.0), a_minimum(0.5, 1.0), a_minimum(0.5, 1.0)),
        saddles=(a_minimum(0.6, -1.0), a_minimum(1.0, -1.0)),
        joins=((1, 2), (0, 1)),
    )
    process = jump_process(graph, temperature=0.01)
    slow, back = process.log_rates[0, 1], process.log_rates[1, 0]
    # Half of the time the pair is in the one that leads on.
    expected = -np.logaddexp(slow, back - math.log(2))
    # The pair balances first up to e^-40.
    assert process.log_relaxation_time == pytest.approx(expected, abs=1e-12)


def test_minima_that_are_not_joined_wait_for_ever():
    graph = replace_joins(chain_of_wells(1, 4), ((0, 1), (2, 3), (-1, 2), (3, 3)))
    process = jump_process(graph, temperature=0.2)
    assert process.times_to(0)[[2, 3]] == pytest.approx(math.inf)
    assert np.all(np.isfinite(process.times_to(0)[[0, 1]]))
    assert process.relaxation_time == math.inf
    lonely = SimpleNamespace(minima=graph.minima[:1], saddles=(), joins=())
    assert jump_process(lonely, temperature=0.2).relaxation_time == 0


# Against the diffusion.


@pytest.fixture(scope="module")
def on_grid(mueller_brown):
    """The chain on a grid by temperature."""
    problem, _ = mueller_brown

    def drift(t):
        return -problem.gradient(t)

    grid = tw.Grid([-1.35, -0.35], [1.0, 1.95], 96)
    return {t: tw.discretise(tw.Diffusion(drift, 2 * t, 0.01), grid) for t in (T, COLDER)}


def outside(graph, *numbers):
    """Not in a disc of radius .1 around any of some minima."""
    places = jnp.stack([graph.minima[number].params for number in numbers])
    return lambda t: jnp.all(jnp.sum((t - places) ** 2, axis=1) > 0.1**2)


def test_mueller_brown_has_the_slowest_mode_and_the_passage_times_of_the_grid(
    mueller_brown, on_grid
):
    _, graph = mueller_brown
    chain, process = on_grid[T], jump_process(graph, temperature=T)
    assert process.valid
    # The next order of the way from the middle over the upper saddle; what is left is of second
    # order, .05^2, and the grid's error: twice as fine it moves by 3e-4.
    rate = eyring_kramers(chain.dynamics, graph.minima[1], graph.saddles[1])
    assert rate.correction == pytest.approx(0.0506, abs=1e-3)
    expected = pytest.approx(1 + rate.correction, abs=0.01)
    assert chain.gap().time / process.relaxation_time == expected
    deepest = chain.exit_time(outside(graph, 0))
    for start in (1, 2):
        assert (
            float(deepest.at(graph.minima[start].params)) / process.times_to(0)[start] == expected
        )


def test_times_to_a_shallow_minimum_belong_to_what_misses_it(mueller_brown, on_grid):
    # From the right well one in a million paths misses a small disc around the middle minimum, goes
    # on to the deepest and stays there for 1e19: that makes up the mean, and no jump describes it.
    _, graph = mueller_brown
    start, left = graph.minima[2].params, {}
    disc = on_grid[T].exit_time(outside(graph, 1))
    assert float(disc.at(start)) > 1e4 * jump_process(graph, temperature=T).times_to(1)[2]
    # To the middle or the deepest it is as said, with the next order, up to the one after that.
    for t, chain in on_grid.items():
        process = jump_process(graph, temperature=t)
        time = float(chain.exit_time(outside(graph, 0, 1)).at(start))
        rate = eyring_kramers(chain.dynamics, graph.minima[2], graph.saddles[0])
        left[t] = time / process.times_to([0, 1])[2] - 1 - rate.correction
    assert abs(left[COLDER]) < 0.055
    # The grid's error of .003 is a fifteenth of it.
    assert left[COLDER] / left[T] == pytest.approx((COLDER / T) ** 2, abs=0.06)


def test_the_graph_of_a_landscape_of_kinks():
    landscape = tw.landscapes.piecewise_linear()
    graph = critical_points(
        landscape.problem, landscape.lower, landscape.upper, key=jax.random.key(0)
    )
    process = jump_process(graph, temperature=0.03)
    # Both wells have the kinked top in common; slopes (2.96, 3.04) and (.46, .34).
    mass = 0.03 * (1 / 2.96 + 1 / 3.04)
    top = 1 / 0.34 + 1 / 2.96
    assert process.times_to(1)[0] == pytest.approx(mass * top * math.exp(0.592 / 0.03), rel=1e-6)
    assert process.law[1] / process.law[0] == pytest.approx(
        (1 / 0.46 + 1 / 0.34) / (1 / 2.96 + 1 / 3.04) * math.exp(-0.252 / 0.03), rel=1e-6
    )


# What it says.


def test_hot_passages_are_named(mueller_brown):
    _, graph = mueller_brown
    process = jump_process(graph, temperature=0.15)
    assert not process.valid
    assert process.reason.startswith("from minimum 2 over saddle 0 the barrier is 1.5")
    assert process.passages[0, 1, 2].valid


def test_requests_that_make_no_sense():
    graph = chain_of_wells(0, 3)
    process = jump_process(graph, temperature=0.3)
    for target in (3, -1, [], 0.5):
        with pytest.raises(tw.InputError, match="numbers of minima from 0 to 2"):
            process.times_to(target)
    with pytest.raises(tw.InputError, match="no step"):
        process.steps_to(0)
    with pytest.raises(tw.InputError, match="above 0"):
        jump_process(graph, temperature=0.0)
    empty = SimpleNamespace(minima=(), saddles=(), joins=())
    with pytest.raises(tw.InputError, match="no minima"):
        jump_process(empty, temperature=0.3)
    high = replace_minimum(graph, a_minimum(9.0, 1.0, 1.0))
    with pytest.raises(tw.InputError, match="the saddle to be higher"):
        jump_process(high, temperature=0.3)


def replace_minimum(graph, minimum):
    return SimpleNamespace(
        minima=(minimum, *graph.minima[1:]), saddles=graph.saddles, joins=graph.joins
    )
