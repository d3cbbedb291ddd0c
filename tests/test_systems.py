"""Linear systems of chains: against dense matrices, exact sums, identities, differences."""

from dataclasses import replace
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from chains_on_grids import (
    dense,
    double_well,
    gibbs_chain,
    line_exit_times,
    of_matrix,
    random_chain,
)
from thalweg.errors import InputError
from thalweg.markov import multigrid, systems
from thalweg.markov.grid import Grid
from thalweg.markov.multigrid import Chain, Multigrid, NoInverseError, dense_inverse
from thalweg.markov.refinement import Equations, SolveError, refined
from thalweg.markov.systems import System, can_leave, must_leave, restricted, solve_transposed

EPS = np.finfo(float).eps


@pytest.fixture
def multigrid_only(monkeypatch):
    """Multigrid from the first state on, and nothing behind it."""
    monkeypatch.setattr(systems, "_DIRECT", dict.fromkeys((1, 2, 3), (0, 0)))
    monkeypatch.setattr(systems, "_AFFORDABLE", 0.0)


def plane(cells, temperature=0.3, circulation=0.0):
    """A double well in the plane, and the states left of x = .9."""
    grid = Grid([-2.0, -1.5], [2.0, 1.5], (cells, cells))
    jumps = gibbs_chain(grid, double_well, temperature, circulation)
    return jumps, grid.points[:, 0] < 0.9


def sgd_like(cells, seed=0):
    """Long jumps in discrete time: a quarter each to four places, shared by nine cells."""
    grid = Grid([0.0, 0.0], [1.0, 1.0], (cells, cells))
    places = np.stack(np.unravel_index(np.arange(cells**2), grid.shape), axis=-1)
    centres = np.random.default_rng(seed).uniform(0.1, 0.9, size=(4, 2)) * cells
    matrix = np.zeros((cells**2, cells**2))
    for centre in centres:
        goal = places + 0.2 * (centre - places)
        for way in np.ndindex(3, 3):
            to = np.clip(np.floor(goal).astype(int) + np.array(way) - 1, 0, cells - 1)
            np.add.at(matrix, (np.arange(cells**2), np.ravel_multi_index(to.T, grid.shape)), 1 / 36)
    np.fill_diagonal(matrix, 0.0)
    step = 0.05
    return of_matrix(grid, matrix / step, step=step, discrete=True), grid.points[:, 0] < 0.55


# Against dense matrices.


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_random_chains_agree_with_dense_solves(discrete, transposed):
    jumps = random_chain(40, seed=1, discrete=discrete)
    inside = np.arange(40) % 3 > 0
    right = np.where(inside, np.random.default_rng(2).normal(size=40), 5.0)
    system = System(jumps, inside)
    x = system.solve_transposed(right) if transposed else system.solve(right)
    matrix = -dense(jumps)[np.ix_(inside, inside)]
    expected = np.linalg.solve(matrix.T if transposed else matrix, right[inside])
    # Rounding times the condition number, which is below a thousand.
    assert np.linalg.cond(matrix) < 1e3
    np.testing.assert_allclose(x[inside], expected, rtol=0, atol=1e3 * EPS * abs(expected).max())
    assert not np.asarray(x)[~inside].any()


@given(st.integers(0, 10_000), st.integers(2, 12), st.booleans())
@settings(deadline=None, max_examples=25)
def test_a_probability_spends_as_long_as_the_mean_time_says(seed, count, discrete):
    jumps = random_chain(count, seed=seed, density=0.5, discrete=discrete, spread=2.0)
    inside = np.ones(count, bool)
    start = np.random.default_rng(seed).uniform(size=count)
    times = systems.solve(jumps, inside, np.ones(count))
    spent = solve_transposed(jumps, inside, start)
    assert (np.asarray(times) > 0).all()
    assert (np.asarray(spent) >= 0).all()
    # Both sums are right to the tolerance of 1e-10.
    assert float(spent.sum()) == pytest.approx(float(start @ times), rel=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: plane(64),
        lambda: plane(64, 0.06),
        lambda: plane(64, 0.1, 3.0),
        lambda: plane(64, 0.01, 10.0),
        lambda: sgd_like(40),
    ],
    ids=["reversible", "deep", "circulating", "drifting", "long jumps"],
)
def test_multigrid_and_direct_solves_agree(make, monkeypatch):
    jumps, inside = make()
    ones = np.ones(jumps.count)
    start = np.where(inside, np.exp(-np.square(jumps.grid.points[jumps.grid.cells, 0])), 0.0)

    def answers():
        system = System(jumps, inside)
        return np.asarray(system.solve(ones)), np.asarray(system.solve_transposed(start))

    times, spent = answers()
    monkeypatch.setattr(systems, "_DIRECT", {2: (0, 0)})
    monkeypatch.setattr(systems, "_PATIENCE", 0)
    monkeypatch.setattr(systems, "_AFFORDABLE", 0.0)
    by_multigrid = answers()
    # Both are right to the tolerance of 1e-10, entry by entry; masses below 1e-8 of the largest to
    # that share of it.
    np.testing.assert_allclose(by_multigrid[0], times, rtol=1e-8)
    np.testing.assert_allclose(by_multigrid[1], spent, rtol=1e-8, atol=1e-16 * spent.max())


def test_states_of_one_colour_and_single_states_are_solved():
    jumps, _ = plane(8)
    out = -dense(jumps).diagonal()
    for cells in ([0], [1], [0, 2], [9, 11, 25]):
        inside = np.zeros(64, bool)
        inside[cells] = True
        x = systems.solve(jumps, inside, np.ones(64))
        np.testing.assert_allclose(x[inside], 1 / out[inside], rtol=4 * EPS)


# Times beyond the rounding of a matrix.


@pytest.mark.parametrize("temperature", [0.1, 0.05, 0.03])
@pytest.mark.parametrize("route", ["direct", "multigrid"])
def test_deep_wells_keep_their_times(temperature, route, request):
    if route == "multigrid":
        request.getfixturevalue("multigrid_only")
    jumps, inside = plane(32, temperature)
    # The potential is a sum over the axes: the times depend on x alone, and are those of a line.
    line = gibbs_chain(Grid(-2.0, 2.0, 32), double_well, temperature)
    cells = int((line.grid.centres[0] < 0.9).sum())
    expected = np.repeat(line_exit_times(line.rates[:31], line.rates[31:], cells), 32)
    system = System(jumps, inside)
    times = np.asarray(system.solve(np.ones(jumps.count)))[inside]
    # Without a proof 1e-10; with one, from 1e-3 / eps jumps on, 1e-7.
    longest = expected.max() * -dense(jumps).diagonal().min()
    np.testing.assert_allclose(times, expected, rtol=1e-9 if longest < 1e-3 / EPS else 1e-7)
    # By detailed balance -A^T (m u) = m (-A u): started from m, m u is spent.
    law = np.exp(-(lambda u: u - u.min())(double_well(jumps.grid.points)) / temperature)
    spent = np.asarray(system.solve_transposed(np.where(inside, law, 0.0)))[inside]
    wanted = law[inside] * expected
    np.testing.assert_allclose(spent, wanted, rtol=1e-6, atol=1e-14 * wanted.max())
    if temperature == 0.03:
        # A dense solve, with its diagonal, has lost such times.
        assert longest > 1e20
        wrong = np.linalg.solve(-dense(jumps)[np.ix_(inside, inside)], np.ones(inside.sum()))
        assert not np.allclose(wrong, expected, rtol=0.5)


def test_wells_too_deep_for_a_proof_are_eliminated_or_refused(monkeypatch):
    jumps, inside = plane(24, 0.015)
    line = gibbs_chain(Grid(-2.0, 2.0, 24), double_well, 0.015)
    cells = int((line.grid.centres[0] < 0.9).sum())
    expected = np.repeat(line_exit_times(line.rates[:23], line.rates[23:], cells), 24)
    assert expected.max() > 1e37
    times = np.asarray(systems.solve(jumps, inside, np.ones(jumps.count)))[inside]
    # Nothing is subtracted: a few roundings for each of the 576 eliminations.
    np.testing.assert_allclose(times, expected, rtol=1e-11)
    monkeypatch.setattr(systems, "_AFFORDABLE", 0.0)
    with pytest.raises(SolveError, match=r"no solver .*direct: .*elimination: would take"):
        systems.solve(jumps, inside, np.ones(jumps.count))


def test_a_chain_that_cannot_leave_has_no_solution():
    jumps = of_matrix(Grid(0.0, 1.0, 3), [[0, 1, 0], [2, 0, 0], [0, 1, 0]])
    with pytest.raises((SolveError, InputError), match=r"no solver|never left"):
        systems.solve(jumps, np.array([True, True, False]), np.ones(3))


# The parts.


def test_residuals_are_exact_to_the_square_of_rounding():
    rng = np.random.default_rng(0)
    jumps = random_chain(12, seed=3, spread=3.0)
    chain = restricted(jumps, np.ones(12, bool))
    x, rest = 1e9 + rng.normal(size=12), 1e-8 * rng.normal(size=12)
    right = rng.normal(size=12)
    rates = [[Fraction(r) for r in row] for row in chain.rates.toarray()]
    whole = [Fraction(a) + Fraction(b) for a, b in zip(x, rest, strict=True)]
    leaving = [Fraction(v) for v in chain.leaving]
    for transposed in (False, True):
        found = Equations(chain, transposed).residual(right, x, rest)
        for i in range(12):
            flows = (
                [rates[i][j] * whole[i] - rates[j][i] * whole[j] for j in range(12)]
                if transposed
                else [rates[i][j] * (whole[i] - whole[j]) for j in range(12)]
            )
            exact = Fraction(right[i]) - sum(flows) - leaving[i] * whole[i]
            gross = float(sum(abs(f) for f in flows))
            # One rounding of the result, and the square of one of what cancels in it.
            assert abs(found[i] - float(exact)) <= 4 * EPS * abs(float(exact)) + EPS**2 * gross * 40


@pytest.mark.parametrize("balanced", [True, False])
def test_coarse_chains_are_galerkin_products(balanced):
    jumps, inside = plane(16, 0.5)
    chain = restricted(jumps, inside)
    kept, strong = multigrid._split(chain)
    coarse, part = multigrid._coarser(chain, kept, strong, balanced)
    fine = chain.matrix.toarray()
    prolong = np.zeros((chain.count, coarse.count))
    prolong[part.kept, np.arange(coarse.count)] = 1.0
    prolong[part.gone] = part.interpolation.toarray()
    restrict = np.zeros((coarse.count, chain.count))
    restrict[np.arange(coarse.count), part.kept] = 1.0
    restrict[:, part.gone] = part.restriction.toarray()
    product = restrict @ fine @ prolong
    # No entry of this product has the wrong sign, so that none is dropped.
    assert (product - np.diag(product.diagonal()) <= 1e-12 * abs(product).max()).all()
    np.testing.assert_allclose(coarse.matrix.toarray(), product, atol=1e-12 * abs(product).max())


def test_levels_are_chains_and_their_transposes_transpose():
    jumps, inside = plane(32, 0.1, 5.0)
    chain = restricted(jumps, inside)
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, chain.count))
    for balanced in (True, False):
        inverse = Multigrid.of(chain, balanced=balanced)
        assert len(inverse.levels) > 1
        for matrix, _ in inverse.levels:
            rates = matrix.toarray()
            assert (rates - np.diag(rates.diagonal()) <= 0).all()
            assert (rates.sum(axis=1) >= -1e-13 * rates.diagonal()).all()
        # The approximate inverse of positive numbers is positive, as the inverse is.
        assert (inverse.coarsest >= 0).all()
        # (M u, v) = (u, M' v), to rounding of products of size |M|.
        left, right = v @ inverse(u), inverse.transposed(v) @ u
        assert left == pytest.approx(right, rel=1e-10)


def test_elimination_of_half_the_states_is_exact():
    jumps, inside = plane(12, 0.05)
    chain = restricted(jumps, inside)
    colour = systems._colours(jumps.grid)[inside]
    smaller, part = chain.censored(colour)
    right = np.random.default_rng(0).uniform(size=chain.count)
    for transposed, way in ((False, part), (True, part.transposed)):
        matrix, small = chain.matrix.toarray(), smaller.matrix.toarray()
        if transposed:
            matrix, small = matrix.T, small.T
        x = way.solution(np.linalg.solve(small, way.restrict(right)), right)
        # Residuals of a dense solve: rounding times |A| |x|.
        gross = abs(matrix) @ abs(x)
        assert (abs(matrix @ x - right) <= 100 * EPS * gross).all()


def test_dense_inverses_keep_small_entries():
    # Two wells a rate of 1e-30 apart from each other and from the way out: exact in closed form.
    a, b = 1e-30, 1e-25
    chain = Chain(sp.csr_array(np.array([[0.0, a], [3.0, 0.0]])), np.array([0.0, b]))
    # -A = [[a, -a], [-3, 3 + b]] has the determinant a b.
    expected = np.array([[3 + b, a], [3.0, a]]) / (a * b)
    np.testing.assert_allclose(dense_inverse(chain), expected, rtol=8 * EPS)


def test_chains_without_small_coarse_ones_are_refused():
    count = 600
    chain = restricted(random_chain(count, density=0.0), np.ones(count, bool))
    lonely = Chain(0 * chain.rates, np.ones(count))
    with pytest.raises(NoInverseError, match="600 states"):
        Multigrid.of(lonely, balanced=False)


def cycles(cells):
    """Multigrid cycles that a mean exit time takes."""
    jumps, inside = plane(cells, 0.3)
    chain = restricted(jumps, inside)
    chain = chain.censored(systems._colours(jumps.grid)[inside])[0]
    inverse = Multigrid.of(chain, balanced=True)
    return refined(Equations(chain), inverse, np.ones(chain.count), noise=1e-9)[1]


def test_cycles_hardly_grow_with_the_grid():
    few, many = cycles(64), cycles(256)
    assert few >= 8  # this is not a direct solve
    assert many < 1.4 * few


@pytest.mark.slow
def test_cycles_grow_by_less_than_half_from_256_to_1024():
    assert cycles(1024) < 1.5 * cycles(256)


def test_what_can_and_what_must_leave():
    # 0 <-> 1 -> 2 (left), 1 -> 3 <-> 4 (never left), 5 -> 0, 6 leaves through the side.
    matrix = np.zeros((7, 7))
    for i, j in ((0, 1), (1, 0), (1, 2), (1, 3), (3, 4), (4, 3), (5, 0)):
        matrix[i, j] = 1.0
    leaving = np.zeros(7)
    leaving[6] = 1.0
    jumps = of_matrix(Grid(0.0, 1.0, 7), matrix, leaving)
    inside = np.array([True, True, False, True, True, True, True])
    assert can_leave(jumps, inside).tolist() == [True, True, False, False, False, True, True]
    assert must_leave(jumps, inside).tolist() == [False] * 6 + [True]
    inside[3:5] = False
    assert must_leave(jumps, inside).tolist() == [True, True, False, False, False, True, True]


# Derivatives.


def gradients(jumps, inside, right, weights, transposed):
    """The derivatives of (w, x) with respect to rates, leaving and right-hand side."""

    def value(rates, leaving, right):
        system = System(replace(jumps, rates=rates, leaving=leaving), inside)
        return weights @ (system.solve_transposed if transposed else system.solve)(right)

    arguments = tuple(jnp.asarray(x) for x in (jumps.rates, jumps.leaving, right))
    return value, arguments, jax.grad(value, argnums=(0, 1, 2))(*arguments)


@pytest.mark.parametrize("transposed", [False, True])
def test_derivatives_agree_with_central_differences(transposed):
    jumps = random_chain(15, seed=5)
    inside = np.arange(15) != 4
    rng = np.random.default_rng(1)
    right, weights = rng.normal(size=(2, 15))
    value, arguments, found = gradients(jumps, inside, right, weights, transposed)
    for which in range(3):
        for k in rng.choice(arguments[which].size, size=6, replace=False):
            size = 1e-5 * max(float(arguments[which][k]), 0.1)
            moved = [
                value(*(a.at[k].add(s) if i == which else a for i, a in enumerate(arguments)))
                for s in (size, -size)
            ]
            difference = (moved[0] - moved[1]) / (2 * size)
            # Third derivatives times 1e-10, and rounding of 1e-14 over 1e-6.
            assert float(found[which][k]) == pytest.approx(float(difference), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("temperature", [0.3, 0.04])
def test_derivatives_of_long_times_obey_eulers_theorem(temperature, multigrid_only):
    jumps, inside = plane(32, temperature)
    start = np.zeros(jumps.count)
    start[np.argmin(np.square(jumps.grid.points + np.array([1.0, 0.0])).sum(axis=1))] = 1.0
    value, arguments, found = gradients(jumps, inside, np.ones(jumps.count), start, False)
    time = float(value(*arguments))
    # Times are homogeneous in the rates, of degree -1, and linear in the right-hand side.
    by_rates = float(found[0] @ arguments[0] + found[1] @ arguments[1])
    assert by_rates == pytest.approx(-time, rel=1e-6)
    assert float(found[2].sum()) == pytest.approx(time, rel=1e-6)


def test_compiled_and_second_derivatives_are_refused():
    jumps = random_chain(6)
    inside = np.arange(6) > 0

    def time(rates):
        return systems.solve(replace(jumps, rates=rates), inside, jnp.ones(6)).sum()

    rates = jnp.asarray(jumps.rates)
    for refused in (jax.jit(time), lambda r: jax.vmap(time)(r[None]), jax.hessian(time)):
        with pytest.raises((InputError, TypeError), match=r"jax.jit and jax.vmap|custom_vjp"):
            refused(rates)
    with pytest.raises(InputError, match="differentiate once"):
        jax.grad(lambda r: jax.grad(time)(r).sum())(rates)
