"""Stationary laws: dense null vectors, Gibbs laws, other routes, differences, known tails."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gamma

import thalweg as tw
from chains_on_grids import dense, double_well, gibbs_chain, of_matrix, random_chain
from thalweg.errors import InputError
from thalweg.markov import stationary as module
from thalweg.markov.generator import generator
from thalweg.markov.grid import Grid
from thalweg.markov.stationary import average, closed_classes, masses, stationary
from thalweg.markov.tails import check_tails

EPS = np.finfo(float).eps


def null_vector(jumps):
    """The law by a dense solve: the balance of all states but one, and the sum."""
    matrix = dense(jumps).T
    matrix[0] = 1.0
    return np.linalg.solve(matrix, np.eye(len(matrix))[0])


def law(jumps, **options):
    """The masses of the only law."""
    found = stationary(jumps, check=False, **options)
    return np.asarray(found.density * found.grid.volumes)


# Against dense matrices.


@given(st.integers(0, 10_000), st.integers(2, 12), st.booleans())
@settings(deadline=None, max_examples=25)
def test_laws_of_random_chains_agree_with_dense_solves(seed, count, discrete):
    jumps = random_chain(count, seed, leaving=False, discrete=discrete, spread=2.0)
    # The dense solve loses the condition number, at most some 1e6 here, to rounding.
    np.testing.assert_allclose(law(jumps), null_vector(jumps), rtol=1e-8, atol=1e-12)


def test_each_closed_class_has_its_law():
    # 0 <-> 1 and 3 -> 4 -> 5 -> 3 are closed, 2 and 6 go to either; 7 is closed on its own.
    matrix = np.zeros((8, 8))
    for i, j, rate in (
        (0, 1, 2.0),
        (1, 0, 6.0),
        (2, 0, 1.0),
        (2, 3, 1.0),
        (3, 4, 1.0),
        (4, 5, 2.0),
        (5, 3, 4.0),
        (6, 2, 1.0),
        (6, 7, 1.0),
    ):
        matrix[i, j] = rate
    jumps = of_matrix(Grid(0.0, 4.0, 8), matrix)
    found = stationary(jumps, check=False)
    at = np.asarray(found.densities) / 2  # cells are half wide
    laws = {tuple(np.flatnonzero(c)): at[k] for k, c in enumerate(found.classes)}
    assert sorted(laws) == [(0, 1), (3, 4, 5), (7,)]
    np.testing.assert_allclose(laws[0, 1][:2], [3 / 4, 1 / 4], rtol=4 * EPS)
    np.testing.assert_allclose(laws[3, 4, 5][3:6], [4 / 7, 2 / 7, 1 / 7], rtol=8 * EPS)
    assert laws[7,][7] == pytest.approx(1.0)
    assert all(not at[k][~c].any() for k, c in enumerate(found.classes))
    with pytest.raises(InputError, match=r"3 closed classes .*2 cells around \[0.5\].*densities"):
        _ = found.density
    with pytest.raises(InputError, match="3 closed classes of cells and so many averages"):
        average(jumps, jnp.ones(8))


def test_absorbing_sides_leave_no_law_unless_they_are_out_of_reach():
    jumps = gibbs_chain(Grid(0.0, 1.0, 6, boundary="absorbing"), lambda p: p[:, 0])
    with pytest.raises(InputError, match=r"absorbing boundaries.*quasi_stationary"):
        stationary(jumps)
    # 0 <-> 1 is never left, what starts in 2 may leave.
    matrix = np.array([[0, 1, 0], [3, 0, 0], [0, 1, 0]])
    jumps = of_matrix(Grid(0.0, 3.0, 3), matrix, [0.0, 0.0, 1.0])
    np.testing.assert_allclose(law(jumps), [0.75, 0.25, 0.0], rtol=4 * EPS)


# Laws with detailed balance.


def test_gibbs_laws_are_exact():
    grid = Grid([-2.0, -1.5], [2.0, 1.5], (48, 40))
    heights = double_well(grid.points).reshape(grid.shape) / 0.05
    expected = np.exp(heights.min() - heights)
    expected /= np.sum(expected * grid.volumes)
    found = stationary(gibbs_chain(grid, double_well, 0.05)).density
    assert float(grid.integrate(jnp.abs(found - expected))) <= 1e-12
    # Each entry: logarithms of up to 260 with a rounding on each of some ten sums.
    np.testing.assert_allclose(found, expected, rtol=260 * EPS * 40)


def test_deep_wells_do_not_underflow():
    # Two wells with a barrier of 600 and a difference of 600 between them.
    def potential(points):
        x = points[:, 0]
        return 600 * np.square(np.sin(np.pi * x)) + 600 * x

    jumps = gibbs_chain(Grid(-0.25, 1.25, 300), potential)
    found = law(jumps)
    centres = jumps.grid.points
    deep, shallow = np.argmin(np.abs(centres[:, 0])), np.argmin(np.abs(centres[:, 0] - 1.0))
    expected = potential(centres[[deep]])[0] - potential(centres[[shallow]])[0]
    assert np.log(found[shallow] / found[deep]) == pytest.approx(expected, abs=1e-9)
    assert expected < -590


# Laws without.


def test_all_routes_agree_on_a_law_with_circulation(monkeypatch):
    grid = Grid([-2.0, -1.5], [2.0, 1.5], (40, 40))
    jumps = gibbs_chain(grid, double_well, 0.1, circulation=2.0)
    by_elimination = law(jumps)
    monkeypatch.setattr(module, "_QUICK", 0.0)
    pinned = law(jumps)
    # Entry by entry to the tolerance of 1e-10, small ones to 1e-18 of the largest.
    np.testing.assert_allclose(pinned, by_elimination, rtol=1e-9, atol=1e-17 * by_elimination.max())
    flows = pinned.ravel() @ dense(jumps)
    gross = pinned.ravel() * -dense(jumps).diagonal()
    assert np.abs(flows).sum() <= 1e-9 * gross.sum()
    # The circulation is felt: this is not the Gibbs law.
    assert np.abs(pinned - law(gibbs_chain(grid, double_well, 0.1))).sum() > 0.1


def test_a_pin_in_a_rare_cell_is_moved(monkeypatch):
    grid = Grid([-2.0, -1.5], [2.0, 1.5], (24, 24))
    jumps = gibbs_chain(grid, double_well, 0.1, circulation=2.0)
    expected = law(jumps)
    monkeypatch.setattr(module, "_QUICK", 0.0)
    monkeypatch.setattr(module, "_attracting", lambda jumps, inside: 0)
    assert expected.ravel()[0] < 1e-12
    np.testing.assert_allclose(law(jumps), expected, rtol=1e-9, atol=1e-17 * expected.max())


def test_a_law_without_closed_form_has_the_known_moments():
    # State-dependent noise of strength beta = 1 + .8 tanh(x + y), gamma/M = .6, in x^2/2 + y^2.
    def drift(x):
        return -jnp.stack([x[0], 2 * x[1]])

    def covariance(x):
        return 0.6 * (1 + 0.8 * jnp.tanh(x[0] + x[1]))

    def moments(cells):
        grid = Grid([-5.0, -5.0], [5.0, 5.0], (cells, cells))
        jumps = generator(tw.Diffusion(drift, covariance, 0.01), grid)
        squares = np.square(grid.points).reshape(*grid.shape, 2)
        return np.array([average(jumps, jnp.asarray(squares[..., k])) for k in (0, 1)])

    coarse, fine = moments(40), moments(80)
    known = np.array([0.29312, 0.14656])  # to all digits given
    # Of second order: a quarter, and what extrapolation leaves is of fourth.
    assert (np.abs(fine - known) < 0.3 * np.abs(coarse - known)).all()
    np.testing.assert_allclose((4 * fine - coarse) / 3, known, atol=2e-5)


# Derivatives.


def differences(value, point, which, size=1e-5):
    moved = [value(point.at[which].add(s * point[which])) for s in (size, -size)]
    return (moved[0] - moved[1]) / (2 * size * point[which])


@pytest.mark.parametrize("kind", ["irreversible", "reversible", "pinned"])
def test_averages_and_densities_have_derivatives(kind, monkeypatch):
    if kind == "pinned":
        monkeypatch.setattr(module, "_QUICK", 0.0)
    if kind == "reversible":
        jumps = gibbs_chain(Grid(-1.5, 1.5, 12), double_well, 0.5)
    else:
        jumps = random_chain(12, seed=3, leaving=False)
    rng = np.random.default_rng(0)
    values, cotangent = jnp.asarray(rng.normal(size=(2, 12)))

    def mean(rates):
        return average(replace(jumps, rates=rates), values)

    def overlap(rates):
        return jnp.vdot(cotangent, stationary(replace(jumps, rates=rates), check=False).density)

    rates = jnp.asarray(jumps.rates)
    for value in (mean, overlap):
        found = jax.grad(value)(rates)
        for which in rng.choice(rates.size, size=6, replace=False):
            # Third derivatives times 1e-10, and rounding of 1e-15 over 1e-6.
            expected = float(differences(value, rates, which))
            assert float(found[which]) == pytest.approx(expected, rel=1e-6, abs=1e-8)
        # Laws do not depend on the unit of time.
        assert float(found @ rates) == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(
        jax.grad(lambda v: average(jumps, v))(values), masses(jumps, np.ones(12, bool)), rtol=1e-14
    )


def test_a_single_cell_has_a_law_without_derivative():
    jumps = of_matrix(Grid(0.0, 2.0, 2), [[0.0, 0.0], [1.0, 0.0]])
    (only,) = closed_classes(jumps)
    assert only.tolist() == [True, False]
    gradient = jax.grad(lambda r: average(replace(jumps, rates=r), jnp.arange(2.0)))
    assert gradient(jnp.asarray(jumps.rates)).tolist() == [0.0]


def test_laws_are_refused_inside_of_jit():
    jumps = random_chain(4, leaving=False)
    with pytest.raises(InputError, match=r"outside of jax.jit"):
        jax.jit(lambda r: average(replace(jumps, rates=r), jnp.ones(4)))(jnp.asarray(jumps.rates))


# What the grid cuts off.


def power(side, cells, dimension, alpha):
    """The density (1 + r^2)^-alpha on a cube."""
    grid = Grid(-side * np.ones(dimension), side * np.ones(dimension), [cells] * dimension)
    square = np.square(grid.points).sum(axis=1).reshape(grid.shape)
    return grid, (1 + square) ** -alpha


@pytest.mark.parametrize("side", [5.0, 50.0])
@pytest.mark.parametrize(("dimension", "alpha"), [(1, 0.4), (1, 0.5), (2, 0.9), (2, 1.0), (3, 1.4)])
def test_laws_without_an_integral_are_refused(side, dimension, alpha):
    with pytest.raises(InputError, match=r"falls only like r\^-.*check=False"):
        check_tails(*power(side, 24, dimension, alpha))


@pytest.mark.parametrize(
    ("side", "dimension", "alpha"),
    [(10.0, 1, 0.75), (10.0, 1, 1.5), (50.0, 1, 0.75), (10.0, 2, 1.5), (8.0, 3, 2.0)],
)
def test_the_mass_beyond_heavy_tails_is_warned_of(side, dimension, alpha):
    grid, density = power(side, 60 if dimension < 3 else 20, dimension, alpha)
    with pytest.warns(UserWarning, match="cuts off about") as caught:
        check_tails(grid, density)
    said = float(str(caught[0].message).split("about ")[1].split(" ")[0])
    # All mass in closed form, that of the cube by a fine midpoint rule.
    whole = np.pi ** (dimension / 2) * gamma(alpha - dimension / 2) / gamma(alpha)
    fine, values = power(side, 800 if dimension < 3 else 120, dimension, alpha)
    inner = np.sum(values * fine.volumes)
    # The exponent is fitted near the sides, where it is not yet the last one, and along the axes.
    assert said == pytest.approx((whole - inner) / inner, rel=0.2)


@pytest.mark.parametrize(
    ("grid", "heights"),
    [
        (Grid(-4.0, 4.0, 50), lambda p: np.square(p[:, 0]) / 2),
        (Grid([-4.2, -4.0], [4.0, 5.0], (40, 40)), lambda p: np.square(p).sum(axis=1) / 2),
        (Grid(-1.5, 1.5, 60), lambda p: double_well(p) / 0.1),
        (Grid([-1.6, -1.0], [1.6, 1.0], (30, 30)), lambda p: double_well(p) / 0.1),
        (Grid(-10.0, 10.0, 100), lambda p: 5 * np.log1p(np.square(p[:, 0]))),
        (Grid(-30.0, 30.0, 90), lambda p: np.abs(p[:, 0])),
    ],
    ids=["normal", "plane", "tight wells", "tight wells in a plane", "f^-5", "exponential"],
)
def test_usual_laws_pass_in_silence(grid, heights):
    check_tails(grid, np.exp(-heights(grid.points)).reshape(grid.shape))


def test_walls_of_a_model_are_asked_for():
    jumps = gibbs_chain(Grid([0.0, 0.0], [1.0, 2.0], (6, 8)), lambda p: 0 * p[:, 0])
    with pytest.raises(InputError, match=r"axis 0 the density (does not fall|falls only like)"):
        stationary(jumps)
    uniform = stationary(jumps, check=False).density
    np.testing.assert_allclose(uniform, 0.5, rtol=20 * EPS)


def test_sides_are_looked_at_one_by_one():
    # Half a normal law: the wall at zero is the model's, and so is said of it alone.
    grid = Grid(0.0, 6.0, 60)
    with pytest.raises(InputError, match="lower side of axis 0"):
        check_tails(grid, np.exp(-np.square(grid.centres[0]) / 2))
    # The same for absorbing sides is no question: nothing is there.
    open_below = Grid(0.0, 6.0, 60, boundary=[("absorbing", "reflecting")])
    check_tails(open_below, np.exp(-np.square(grid.centres[0]) / 2))


def test_a_law_that_is_cut_off_is_warned_of_with_the_number():
    jumps = gibbs_chain(Grid(-3.0, 3.0, 60), lambda p: np.square(p[:, 0]) / 2)
    with pytest.warns(UserWarning, match="cuts off about 0.004") as caught:
        stationary(jumps)
    assert "check=False" in str(caught[0].message)  # the truth is .0027
