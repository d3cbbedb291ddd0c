"""Exit times, committors, quasi-stationary laws: closed forms, dense matrices, differences."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

import thalweg as tw
from chains_on_grids import (
    dense,
    double_well,
    gibbs_chain,
    line_exit_times,
    of_matrix,
    random_chain,
)
from thalweg.errors import InputError
from thalweg.markov.exits import committor, exit_time
from thalweg.markov.generator import generator
from thalweg.markov.grid import Grid
from thalweg.markov.quasistationary import quasi_stationary

EPS = np.finfo(float).eps


def flat(points):
    return 0 * points[:, 0]


def brownian(cells=64, length=2.0, diffusivity=0.7):
    """Brownian motion between absorbing ends."""
    grid = Grid(0.0, length, cells, boundary="absorbing")
    return gibbs_chain(grid, flat, diffusivity, step=0.01)


def walk(count, up=0.5, stay=0.0, *, step=1.0):
    """A gambler's fortune from 0 to count, at whose ends the game is over."""
    matrix = np.zeros((count + 1, count + 1))
    for k in range(1, count):
        matrix[k, k + 1], matrix[k, k - 1] = (1 - stay) * up, (1 - stay) * (1 - up)
    grid = Grid(-0.5, count + 0.5, count + 1)
    return of_matrix(grid, matrix / step, step=step, discrete=True)


def everywhere(jumps):
    return np.ones(jumps.grid.shape, bool)


# Mean exit times and their variances.


def test_brownian_motion_leaves_an_interval_after_a_parabola():
    jumps = brownian()
    found = exit_time(jumps, everywhere(jumps))
    x, h = jumps.grid.centres[0], 2.0 / 64
    # Differences of a parabola are exact; the ends half a cell out add h^2/8 D.
    expected = (x * (2 - x) + h**2 / 4) / (2 * 0.7)
    np.testing.assert_allclose(found.time, expected, rtol=1e-12)
    np.testing.assert_allclose(found.steps, expected / 0.01, rtol=1e-12)
    assert found.error is None
    middle = exit_time(jumps, everywhere(jumps)).at([1.0])
    assert float(middle) == pytest.approx(expected[31], rel=1e-12)
    # E tau^2 in closed form: (x^4 - 2 L x^3 + L^3 x) / 12 D^2; the grid is of second order.
    moment = (x**4 - 4 * x**3 + 8 * x) / (12 * 0.7**2)
    variance = moment - np.square(x * (2 - x) / 1.4)
    np.testing.assert_allclose(found.variance, variance, atol=h**2)


@pytest.mark.parametrize("discrete", [False, True])
def test_variances_are_those_of_dense_second_moments(discrete):
    jumps = random_chain(20, seed=4, discrete=discrete)
    inside = np.arange(20) % 4 > 0
    found = exit_time(jumps, inside)
    part = dense(jumps)[np.ix_(inside, inside)]
    if discrete:
        # N = sum_n P(tau >= n): E tau(tau - 1) = 2 P (I - P)^-2 1, in steps.
        step = np.eye(inside.sum()) + jumps.step * part
        inverse = np.linalg.inv(np.eye(len(step)) - step)
        mean = inverse.sum(axis=1)
        moment = 2 * (step @ inverse @ mean) + mean
        mean, moment = mean * jumps.step, moment * jumps.step**2
    else:
        inverse = np.linalg.inv(-part)
        mean = inverse.sum(axis=1)
        moment = 2 * inverse @ mean
    # Rounding times the condition number, below a thousand, twice.
    np.testing.assert_allclose(found.time[inside], mean, rtol=1e-11)
    np.testing.assert_allclose(found.variance[inside], moment - mean**2, rtol=1e-9)
    assert not np.asarray(found.time)[~inside].any()
    assert not np.asarray(found.variance)[~inside].any()


@pytest.mark.parametrize("step", [1.0, 0.1])
def test_a_gambler_is_ruined_or_rich_in_the_known_time(step):
    n = 20
    jumps = walk(n, step=step)
    game = np.zeros(n + 1, bool)
    game[1:n] = True
    found = exit_time(jumps, game)
    k = np.arange(n + 1)
    np.testing.assert_allclose(found.steps, k * (n - k), atol=1e-9)
    np.testing.assert_allclose(found.time, step * k * (n - k), atol=1e-9)
    variance = k * (n - k) * (k**2 + (n - k) ** 2 - 2) / 3
    np.testing.assert_allclose(found.variance, step**2 * variance, rtol=1e-9, atol=1e-9)


def test_an_unfair_game_has_its_own_times_and_odds():
    n, up, stay = 12, 0.4, 0.25
    jumps = walk(n, up, stay)
    k, ratio = np.arange(n + 1), (1 - up) / up
    rich = (1 - ratio**k) / (1 - ratio**n)
    found = committor(jumps, k == 0, k == n)
    np.testing.assert_allclose(found.probability, rich, atol=1e-14)
    steps = (k - n * rich) / (1 - 2 * up) / (1 - stay)
    times = exit_time(jumps, (k > 0) & (k < n))
    np.testing.assert_allclose(times.steps, steps, atol=1e-11)
    # Staying takes geometric times: V/q^2 + (1 - q)/q^2 E N, with q = 1 - stay.
    bold = exit_time(walk(n, up), (k > 0) & (k < n))
    expected = (bold.variance + stay * bold.steps) / (1 - stay) ** 2
    np.testing.assert_allclose(times.variance, expected, rtol=1e-11)


def test_a_certain_way_takes_a_certain_time():
    matrix = np.diag(np.ones(7), 1)
    jumps = of_matrix(Grid(0.0, 8.0, 8), matrix / 0.1, step=0.1, discrete=True)
    found = exit_time(jumps, np.arange(8) < 7)
    np.testing.assert_allclose(found.steps[:7], np.arange(7, 0, -1), rtol=1e-12)
    # A variance of zero, to the rounding of the squares of steps.
    np.testing.assert_allclose(found.variance, 0.0, atol=1e-14)


@given(st.integers(0, 1000), st.integers(3, 30), st.floats(0.5, 12.0))
@settings(deadline=None, max_examples=20)
def test_times_of_birth_death_chains_are_exact(seed, count, spread):
    rng = np.random.default_rng(seed)
    up, down = np.exp(spread * rng.normal(size=(2, count)))
    matrix = np.diag(up[:-1], 1) + np.diag(down[:-1], -1)
    leaving = np.zeros(count)
    leaving[-1] = up[-1]
    found = exit_time(of_matrix(Grid(0.0, 1.0, count), matrix, leaving), np.ones(count, bool)).time
    # Sums of positive numbers against a solve that is proven to 1e-7 at worst.
    expected = line_exit_times(up, down, count)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_time_out_of_an_ornstein_uhlenbeck_well_is_of_second_order():
    # u' = -int_{-inf}^x m / (D m): from zero past one, with all of the left side to wander.
    law = lambda x: np.exp(-np.square(x))  # noqa: E731
    exact = quad(lambda x: 2 * quad(law, -8, x)[0] / law(x), 0, 1)[0]

    def error(cells):
        jumps = gibbs_chain(
            Grid(-6.0, 1.0, cells, boundary=[("reflecting", "absorbing")]),
            lambda p: np.square(p[:, 0]) / 2,
            0.5,
        )
        return float(exit_time(jumps, everywhere(jumps)).at([0.0])) - exact

    coarse, fine = error(70), error(140)
    assert abs(fine) < 3e-3 * exact
    assert coarse / fine == pytest.approx(4.0, rel=0.1)


def test_where_leaving_is_not_certain_the_mean_is_infinite():
    # 0 -> 1 -> out; 2 -> 1 or 3; 3 <-> 4 stay for ever.
    matrix = np.zeros((6, 6))
    for i, j in ((0, 1), (1, 5), (2, 1), (2, 3), (3, 4), (4, 3)):
        matrix[i, j] = 2.0
    jumps = of_matrix(Grid(0.0, 6.0, 6), matrix)
    found = exit_time(jumps, np.arange(6) < 5)
    assert found.time.tolist() == [1.0, 0.5, np.inf, np.inf, np.inf, 0.0]
    assert found.variance.tolist() == [0.5, 0.25, np.inf, np.inf, np.inf, 0.0]
    assert float(found.at([1.5])) == 0.5  # its neighbours have no weight
    assert float(found.at([2.0])) == np.inf
    # A region that is all of a closed grid is never left.
    closed = exit_time(gibbs_chain(Grid(0.0, 1.0, 4), flat), np.ones(4, bool))
    assert closed.time.tolist() == [np.inf] * 4
    assert closed.variance.tolist() == [np.inf] * 4


def test_bad_regions_are_refused():
    jumps = brownian(8)
    with pytest.raises(InputError, match="holds no cell"):
        exit_time(jumps, lambda p: p[0] > 5)
    with pytest.raises(InputError, match=r"of shape \(7,\)"):
        exit_time(jumps, np.ones(7, bool))
    with pytest.raises(InputError, match="1 cells in common"):
        committor(jumps, lambda p: p[0] < 1, lambda p: p[0] > 0.8)
    with pytest.raises(InputError, match="region b holds no cell"):
        committor(jumps, lambda p: p[0] < 1, lambda p: p[0] > 5)
    with pytest.raises(InputError, match="outside of the grid"):
        exit_time(jumps, everywhere(jumps)).at([3.0])


# Committors.


def test_brownian_motion_reaches_an_end_with_linear_odds():
    jumps = gibbs_chain(Grid(0.0, 1.0, 40), flat)
    found = committor(jumps, lambda p: p[0] < 0.1, lambda p: p[0] > 0.9)
    x = jumps.grid.centres[0]
    # Linear between the cells next to the regions, whose centres are at .0875 and .9125.
    np.testing.assert_allclose(found.probability, np.clip((x - 0.0875) / 0.825, 0, 1), atol=1e-13)
    assert float(found.at([0.5])) == pytest.approx(0.5, abs=1e-13)


def test_odds_over_a_barrier_are_those_of_its_integral():
    jumps = gibbs_chain(Grid(-2.0, 2.0, 64), double_well, 0.02)
    x = jumps.grid.centres[0]
    found = committor(jumps, x < -1, x > 1)
    # 1/(m_i r_{i,i+1}) is the resistance of a step; they add up.
    heights = double_well(jumps.grid.points) / 0.02
    resistance = 1 / jumps.rates[:63] * np.exp(heights[:-1] - heights.max())
    first, last = np.flatnonzero(x < -1)[-1], np.flatnonzero(x > 1)[0]
    expected = np.zeros(64)
    expected[first + 1 : last + 1] = np.cumsum(resistance[first:last])
    expected /= expected[last]
    expected[last:] = 1.0
    # Odds of 1e-20 keep their digits, those of 1e-30 some.
    assert expected[first + 1] < 1e-18
    np.testing.assert_allclose(found.probability, expected, rtol=1e-9, atol=1e-18)


def test_ways_that_reach_neither_count_as_lost():
    # From 2 to a = {0}, b = {1}, the side, or 3, which is never left; 4 goes to 3.
    matrix = np.zeros((5, 5))
    for i, j, rate in ((2, 0, 1.0), (2, 1, 2.0), (2, 3, 3.0), (4, 3, 1.0)):
        matrix[i, j] = rate
    jumps = of_matrix(Grid(0.0, 5.0, 5), matrix, [0, 0, 4.0, 0, 0])
    cells = np.arange(5)
    found = committor(jumps, cells == 0, cells == 1)
    np.testing.assert_allclose(found.probability, [0.0, 1.0, 0.2, 0.0, 0.0], rtol=4 * EPS)
    # Nothing between: no system.
    neighbours = committor(jumps, cells < 2, cells >= 2)
    assert neighbours.probability.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]


# Quasi-stationary laws.


def test_brownian_motion_decays_at_its_first_eigenvalue():
    jumps = brownian(64, 2.0, 0.7)
    found = quasi_stationary(jumps, everywhere(jumps))
    x, h = jumps.grid.centres[0], 2.0 / 64
    # Sines are eigenvectors of the differences, too; (pi/2)^2 D is the limit.
    rate = 4 * 0.7 / h**2 * np.sin(np.pi * h / 4) ** 2
    assert rate == pytest.approx(np.square(np.pi / 2) * 0.7, rel=1e-3)
    assert found.rate == pytest.approx(rate, rel=1e-10)
    assert found.time == pytest.approx(1 / rate, rel=1e-10)
    assert found.steps == pytest.approx(100 / rate, rel=1e-10)
    assert found.per_step == pytest.approx(1 - np.exp(-rate / 100), rel=1e-10)
    sine = np.sin(np.pi * x / 2)
    np.testing.assert_allclose(found.density, sine / (sine.sum() * h), rtol=1e-8)
    assert found.error is None


@pytest.mark.parametrize("discrete", [False, True])
def test_quasi_stationary_laws_are_dense_eigenvectors(discrete):
    jumps = random_chain(20, seed=6, discrete=discrete)
    inside = np.arange(20) != 7
    found = quasi_stationary(jumps, inside)
    values, vectors = np.linalg.eig(dense(jumps)[np.ix_(inside, inside)].T)
    first = np.argmax(values.real)
    law = vectors[:, first].real / vectors[:, first].real.sum()
    eigenvalue = -values[first].real
    step = jumps.step
    rate = -np.log1p(-step * eigenvalue) / step if discrete else eigenvalue
    per_step = step * eigenvalue if discrete else -np.expm1(-step * eigenvalue)
    assert found.rate == pytest.approx(rate, rel=1e-9)
    assert found.per_step == pytest.approx(per_step, rel=1e-9)
    mass = np.asarray(found.density * jumps.grid.volumes)
    np.testing.assert_allclose(mass[inside], law, atol=1e-9)
    assert mass[7] == 0
    # Started in the law, the mean time to leave is 1/lambda: a geometric law has the mean 1/p.
    mean = float(np.sum(mass * np.asarray(exit_time(jumps, inside).steps)))
    expected = 1 / found.per_step if discrete else found.steps
    assert mean == pytest.approx(expected, rel=1e-8)


def test_a_basin_empties_at_the_rate_of_the_second_mode():
    def wells(points):
        return np.square(np.square(points[:, 0]) - 1)

    whole = gibbs_chain(Grid(-2.0, 2.0, 64), wells, 0.1)
    half = gibbs_chain(Grid(-2.0, 0.0, 32, boundary=[("reflecting", "absorbing")]), wells, 0.1)
    found = quasi_stationary(half, everywhere(half))
    modes = np.sort(-np.linalg.eigvals(dense(whole)).real)
    # The second mode is odd: it vanishes half a cell beyond the middle cells, as at the side. A
    # dense eigenvalue is right to rounding of the largest, some 1e3, or 1e-8 of this one.
    assert found.rate == pytest.approx(modes[1], rel=1e-7)
    assert found.rate < 1e-4 * modes[2]


def test_deep_basins_and_nearly_equal_modes_converge():
    # Two wells whose barrier is as high as the ways out: the two slowest modes are close.
    jumps = gibbs_chain(
        Grid(-2.0, 2.0, 64, boundary="absorbing"), lambda p: 3 * np.cos(1.5 * np.pi * p[:, 0]), 0.4
    )
    found = quasi_stationary(jumps, everywhere(jumps))
    values, vectors = np.linalg.eig(dense(jumps).T)
    order = np.argsort(-values.real)
    assert values.real[order[1]] / values.real[order[0]] < 4
    assert found.rate == pytest.approx(-values[order[0]].real, rel=1e-9)
    law = vectors[:, order[0]].real / vectors[:, order[0]].real.sum()
    np.testing.assert_allclose(found.density * jumps.grid.volumes, law, atol=1e-9)


def test_a_chain_that_leaves_at_once_has_no_time():
    jumps = of_matrix(Grid(0.0, 2.0, 2), [[0.0, 1.0], [1.0, 0.0]], step=1.0, discrete=True)
    found = quasi_stationary(jumps, np.array([True, False]))
    assert (found.rate, found.per_step, found.time) == (np.inf, 1.0, 0.0)


def test_regions_that_may_be_kept_have_no_quasi_stationary_law():
    jumps = gibbs_chain(Grid(0.0, 1.0, 6), flat)
    with pytest.raises(InputError, match="from 6 cells the region may never be left"):
        quasi_stationary(jumps, np.ones(6, bool))
    with pytest.raises(InputError, match="not differentiable"):
        jax.grad(lambda r: quasi_stationary(replace(jumps, rates=r), np.arange(6) < 3).rate)(
            jnp.asarray(jumps.rates)
        )


# Derivatives through the generator.


class Tilted(eqx.Module):
    """The drift of a double well and a force."""

    tilt: jax.Array

    def __call__(self, x):
        return -jnp.stack([4 * x[0] * (x[0] ** 2 - 1) + self.tilt, 2 * x[1]])


@pytest.mark.slow
def test_exits_have_derivatives_with_respect_to_noise_and_loss():
    grid = Grid([-1.6, -1.0], [1.6, 1.0], (16, 10))
    left, right, start = grid.centres[0] < -1, grid.centres[0] > 1, grid.centres[0] < 0.5
    left, right, start = (np.repeat(x[:, None], 10, axis=1) for x in (left, right, start))

    def answers(point):
        jumps = generator(tw.Diffusion(Tilted(point[1]), point[0], 0.01), grid)
        found = exit_time(jumps, start)
        odds = committor(jumps, left, right).at([0.0, 0.05])
        return jnp.stack([found.at([-1.0, 0.05]), jnp.sum(found.variance), odds])

    point, size = jnp.array([0.5, 0.2]), 1e-4
    gradients = [jax.grad(lambda p, k=k: answers(p)[k])(point) for k in range(3)]
    for which in range(2):
        moved = [answers(point.at[which].add(s * size)) for s in (2, 1, -1, -2)]
        # The four-point formula: fifth derivatives, of some 1e4 of the value, times 1e-17.
        differences = (-moved[0] + 8 * moved[1] - 8 * moved[2] + moved[3]) / (12 * size)
        for k in range(3):
            assert float(gradients[k][which]) == pytest.approx(float(differences[k]), rel=1e-6)
