"""State reduction against rational arithmetic, other solvers, and closed forms of rare events."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg as tw
from thalweg.errors import InputError
from thalweg.landscapes import piecewise_linear
from thalweg.markov import elimination
from thalweg.markov.grid import Grid
from thalweg.markov.jumps import Jumps
from thalweg.markov.lattice import lattice
from thalweg.markov.transfer import transfer

EPS = np.finfo(float).eps


def chain(rates, leaving=None):
    """Jumps in one dimension from a dense matrix of rates, whose diagonal does not count."""
    rates = np.array(rates, dtype=float)
    np.fill_diagonal(rates, 0)
    source, target = (x.astype(np.int32) for x in np.nonzero(rates))
    count = len(rates)
    leaving = np.zeros(count) if leaving is None else np.asarray(leaving, dtype=float)
    values = rates[source, target]
    return Jumps(Grid(0.0, 1.0, count), source, target, values, leaving, 1.0, False)


def banded(count, band, seed=0):
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.1, 1, (count, count))
    return np.where(np.abs(np.subtract.outer(range(count), range(count))) <= band, rates, 0)


def birth_and_death(up, down):
    return chain(np.diag(up, 1) + np.diag(down, -1))


def rational(matrix, right):
    """Gauss's elimination with fractions, for one right-hand side."""
    rows = [
        [Fraction(x) for x in row] + [Fraction(b)] for row, b in zip(matrix, right, strict=True)
    ]
    for k in range(len(rows)):
        rows[k], *rows[k + 1 :] = sorted(rows[k:], key=lambda r: r[k] == 0)
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(len(rows)):
            if i != k and rows[i][k]:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


def generator(rates, leaving):
    """A with its diagonal in fractions, where no digit is lost."""
    rates = [[Fraction(x) for x in row] for row in rates]
    for i, row in enumerate(rates):
        row[i] = -sum((x for j, x in enumerate(row) if j != i), Fraction(leaving[i]))
    return rates


def tiny(count, seed, decades=200):
    """Rates spread evenly over so many decades."""
    rng = np.random.default_rng(seed)
    return 10.0 ** rng.uniform(-decades, 0, (count, count))


def agree(got, expected, count):
    # An elimination costs each entry a few roundings, of which count eliminations add up.
    for value, exact in zip(got, expected, strict=True):
        if float(exact) == 0:
            assert value == 0
        else:
            assert abs(Fraction(float(value)) / exact - 1) < 20 * count * EPS


@pytest.mark.parametrize("seed", range(4))
def test_every_mass_is_right_however_small(seed):
    count = 7
    rates = tiny(count, seed)
    A = generator(rates, [0] * count)
    # Columns of A transposed, one equation replaced by the sum.
    equations = [[A[j][i] for j in range(count)] for i in range(count)]
    equations[0] = [Fraction(1)] * count
    exact = rational(equations, [1] + [0] * (count - 1))
    agree(elimination.stationary_masses(chain(rates)), exact, count)
    assert min(exact) < 1e-30


@pytest.mark.parametrize("seed", range(4))
def test_every_exit_time_is_right_however_long(seed):
    count = 6
    rates, leaving = tiny(count, seed, 100), np.zeros(count)
    leaving[seed] = 1e-100
    jumps = chain(rates, leaving)
    A = generator(rates, leaving)
    inside = np.ones(count, dtype=bool)
    exact = rational([[-x for x in row] for row in A], [1] * count)
    assert max(exact) > 1e100
    agree(elimination.mean_times(jumps, inside), exact, count)
    # Until two of the states are left: much shorter.
    inside[1:5] = False
    part = [[-A[i][j] for j in (0, 5)] for i in (0, 5)]
    agree(elimination.mean_times(jumps, inside)[inside], rational(part, [1, 1]), count)
    start = np.array([0.25, 0.75])
    turned = [list(row) for row in zip(*part, strict=True)]
    occupied = elimination.reduction(jumps, inside).occupation(start)
    agree(occupied, rational(turned, start), count)


def test_the_exit_time_of_a_deep_well_is_its_closed_form():
    # From 0 to N at the rates 1 up and a down: E tau = sum over k < N of sum over j <= k of a^j.
    a, count = 30.0, 40
    jumps = birth_and_death(np.ones(count), np.full(count, a))
    inside = np.arange(count + 1) < count
    times = elimination.mean_times(jumps, inside)
    exact = sum(Fraction(30) ** j * (count - j) for j in range(count))
    assert float(exact) > 1e57
    agree(times[:1], [exact], count)
    assert times[-1] == 0


def test_masses_beyond_the_range_of_numbers_become_zero():
    # Ratios of 1e20 from state to state, over two thousand decades.
    masses = elimination.stationary_masses(birth_and_death(np.full(100, 1e20), np.ones(100)))
    assert masses[-1] == pytest.approx(1, rel=1e-15)
    np.testing.assert_allclose(masses[-5:-1] / masses[-4:], 1e-20, rtol=1e-14)
    assert (masses[:50] == 0).all()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(2, 75), st.integers(1, 80), st.integers(0, 1000))
def test_reduction_agrees_with_dense_solvers(count, band, seed):
    rates = banded(count, band, seed)
    rng = np.random.default_rng(seed)
    leaving = rng.uniform(0, 0.1, count)
    jumps = chain(rates, leaving)
    inside = rng.random(count) < 0.8
    inside[rng.integers(count)] = True
    A = jumps.matrix().toarray()[np.ix_(inside, inside)]
    right = rng.random((count, 2))
    # Conditions are below a hundred states over a rate of some hundredths: 1e4 roundings.
    expected = np.linalg.solve(-A, right[inside])
    got = elimination.solve(jumps, inside, right)
    np.testing.assert_allclose(got[inside], expected, rtol=1e-11)
    assert (got[~inside] == 0).all()
    occupied = elimination.reduction(jumps, inside).occupation(right[inside, 0])
    np.testing.assert_allclose(occupied, np.linalg.solve(-A.T, right[inside, 0]), rtol=1e-11)
    closed = chain(rates)
    masses = elimination.stationary_masses(closed)
    assert masses.sum() == pytest.approx(1, rel=1e-14)
    balance = masses @ closed.matrix().toarray()
    assert np.abs(balance).max() < 1e-13 * np.abs(closed.matrix().toarray()).max()


def test_second_moments_come_from_a_second_solve():
    # A state that is left with probability p a step: geometric, E N^2 = (2 - p)/p^2.
    p, step = 0.25, 0.5
    grid = Grid(0.0, 1.0, 2)
    none = np.zeros(0, np.int32)
    leaving = np.array([p / step, 1.0])
    jumps = Jumps(grid, none, none, np.zeros(0), leaving, step, True)
    inside = np.array([True, False])
    mean = elimination.mean_times(jumps, inside)
    second = 2 * elimination.solve(jumps, inside, mean) - step * mean
    assert mean[0] == pytest.approx(step / p, rel=1e-15)
    assert second[0] == pytest.approx(step**2 * (2 - p) / p**2, rel=1e-15)


def test_transient_states_have_no_mass():
    rates = np.zeros((4, 4))
    rates[0, 1] = rates[3, 2] = 1
    rates[1, 2], rates[2, 1] = 2, 1
    masses = elimination.stationary_masses(chain(rates))
    np.testing.assert_allclose(masses, [0, 1 / 3, 2 / 3, 0], rtol=1e-15)
    own = elimination.stationary_masses(chain(rates), np.array([False, True, True, False]))
    np.testing.assert_array_equal(own, masses)


# An and Ying's section 2, on the lattices where the chains are exact.

PROBLEM = piecewise_linear().problem
SGD = tw.Minibatch(1, replace=True)
POPULATION = tw.Resampled(1, lipschitz=(1.0, 5.0))


def on_lattice(sampler, step, lower=-2.0):
    descent = tw.Descent(PROBLEM, sampler, step)
    own = lattice(descent, lower, 1.0, 0.25)
    return transfer(descent, own), own.positions


def test_mean_exit_times_of_sgd_and_population_rr():
    # 340.3 and 1.6e7 iterations from .25 until theta < -.5.
    expected = {SGD: 340.2614, POPULATION: 1.62347e7}
    for sampler, steps in expected.items():
        jumps, x = on_lattice(sampler, 0.04)
        time = elimination.mean_times(jumps, x >= -0.5)[np.argmin(np.abs(x - 0.25))]
        # To the digits written.
        assert time / 0.04 == pytest.approx(steps, rel=3e-6)


def test_population_rr_prefers_the_flat_well_in_the_end():
    jumps, x = on_lattice(POPULATION, 0.04)
    masses = elimination.stationary_masses(jumps)
    # A wider box changes nothing: the ends are never reached.
    wider, y = on_lattice(POPULATION, 0.04, lower=-3.0)
    ratio = np.log(masses[x < 0].sum() / masses[x > 0].sum())
    assert ratio == pytest.approx(28, abs=0.05)
    again = elimination.stationary_masses(wider)
    assert np.log(again[y < 0].sum() / again[y > 0].sum()) == pytest.approx(ratio, rel=1e-12)


def test_barriers_of_the_chain():
    # Inside the left well the law falls as exp(-k x / eta) with .4 e^-k + .6 e^(.1 k) = 1, over a
    # width of one; on the way out of the right well k solves .4 e^(.1 k) + .6 e^(-5 k) = 1, over
    # .2. They are 5.08 and 1.83, where the diffusion limit has 2.83 and .20.
    jumps, x = on_lattice(SGD, 0.04)
    masses = elimination.stationary_masses(jumps)
    k = -np.log(masses[np.argmin(np.abs(x + 0.25))] / masses[np.argmin(np.abs(x + 0.65))]) / 10
    assert 0.4 * np.exp(-k) + 0.6 * np.exp(0.1 * k) == pytest.approx(1, abs=1e-9)
    assert k == pytest.approx(5.08, abs=0.005)
    times = []
    for step in (0.004, 0.003):
        own, y = on_lattice(SGD, step, lower=-0.6)
        at = np.argmin(np.abs(y - 0.25))
        times.append(elimination.mean_times(own, y >= -0.5)[at])
    barrier = np.log(times[1] / times[0]) / (1 / 0.003 - 1 / 0.004)
    assert barrier == pytest.approx(1.83, abs=0.01)


def test_cost_counts_the_band():
    jumps = chain(banded(50, 3))
    assert elimination.cost(jumps) == 50 * 9
    inside = np.arange(50) % 2 == 0
    assert elimination.cost(jumps, inside) == 25 * 1


def test_what_has_no_answer_is_refused():
    two = np.zeros((4, 4))
    two[0, 1] = two[1, 0] = two[2, 3] = two[3, 2] = 1
    everything = np.ones(4, dtype=bool)
    with pytest.raises(InputError, match="2 closed classes; expected one"):
        elimination.stationary_masses(chain(two))
    with pytest.raises(InputError, match="hold several closed classes"):
        elimination.stationary_masses(chain(two), everything)
    with pytest.raises(InputError, match="no stationary law; expected a closed class"):
        elimination.stationary_masses(chain(two), np.array([True, False, False, False]))
    with pytest.raises(InputError, match="0 closed classes"):
        elimination.stationary_masses(chain(banded(4, 1), np.ones(4)))
    with pytest.raises(InputError, match="never left"):
        elimination.mean_times(chain(two, [0, 0, 0, 1]), everything)
    with pytest.raises(InputError, match="beyond 1e308"):
        elimination.mean_times(chain(banded(4, 1) * 1e-300, np.full(4, 1e-310)), everything)
    with pytest.raises(InputError, match="none of them negative"):
        elimination.solve(chain(banded(4, 1), np.ones(4)), everything, -np.ones(4))
    with pytest.raises(InputError, match=r"expected truth values of shape \(4,\)"):
        elimination.cost(chain(two), np.ones(3, dtype=bool))
