"""The slowest modes: against dense eigenvalues, closed forms, known gaps and resistances."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import eigvals, expm

import thalweg as tw
from chains_on_grids import dense, double_well, gibbs_chain, of_matrix, random_chain
from test_evolution import mueller_brown, well
from thalweg.errors import InputError
from thalweg.markov import modes as module
from thalweg.markov import resolvent
from thalweg.markov.distances import weighted_l2
from thalweg.markov.evolution import evolve
from thalweg.markov.exits import exit_time
from thalweg.markov.generator import generator
from thalweg.markov.grid import Grid
from thalweg.markov.modes import gap, modes
from thalweg.markov.refinement import SolveError


def by_size(rates):
    """Rates ascending in their real parts, of a pair the upper one first; roundings are equal."""
    return sorted(rates, key=lambda r: (round(r.real, 6), -r.imag))


def products(found):
    """The integrals of all densities times all functions."""
    grid = found.grid
    return np.einsum(
        "kc,lc->kl",
        (np.asarray(found.left) * grid.volumes).reshape(len(found.rates), -1),
        np.asarray(found.right).reshape(len(found.rates), -1),
    )


def assert_modes(jumps, found, tolerance):
    """Functions and densities solve their equations and are biorthonormal."""
    count, grid = len(found.rates), jumps.grid
    matrix = jumps.matrix()
    values = -found.rates
    if jumps.discrete:
        values = np.expm1(-float(jumps.step) * found.rates) / float(jumps.step)
    right = np.asarray(found.right).reshape(count, -1)[:, grid.cells]
    left = (np.asarray(found.left) * grid.volumes).reshape(count, -1)[:, grid.cells]
    for value, function, masses in zip(values, right, left, strict=True):
        assert np.abs(matrix @ function - value * function).max() < tolerance
        assert np.abs(matrix.T @ masses - value * masses).sum() < tolerance * np.abs(masses).sum()
    np.testing.assert_allclose(np.abs(right).max(axis=1), 1.0, rtol=1e-13)
    np.testing.assert_allclose(products(found), np.eye(count), atol=tolerance)


# Against dense eigenvalues.


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("leaving", [False, True])
def test_small_chains_have_the_eigenvalues_of_their_matrix(leaving, discrete):
    jumps = random_chain(30, 7, leaving=leaving, discrete=discrete)
    values = eigvals(dense(jumps))
    exact = -np.log(1 + jumps.step * values) / jumps.step if discrete else -values
    found = modes(jumps, 7)
    np.testing.assert_allclose(
        by_size(found.rates), by_size(exact[np.argsort(exact.real)][:7]), atol=1e-11
    )
    assert_modes(jumps, found, 1e-11)
    if not leaving:
        assert found.rates[0] == 0
        assert found.time[0] == np.inf
        np.testing.assert_array_equal(found.right[0], np.ones(30))


@pytest.mark.parametrize("discrete", [False, True])
def test_all_modes_together_are_the_exponential(discrete):
    jumps = random_chain(12, 1, leaving=False, discrete=discrete)
    found = modes(jumps, 12)
    decay = np.exp(-found.rates * 2.0)
    power = np.einsum("k,ki,kj->ij", decay, np.asarray(found.right), np.asarray(found.left) / 12)
    if discrete:
        exact = np.linalg.matrix_power(np.eye(12) + jumps.step * dense(jumps), 4)
    else:
        exact = expm(2.0 * dense(jumps))
    np.testing.assert_allclose(power, exact, atol=1e-11)


CHAINS = {
    "in balance": lambda: gibbs_chain(Grid([-2, -2], [2, 2], [9, 8]), double_well),
    "in balance, leaving": lambda: gibbs_chain(
        Grid([-2, -2], [2, 2], [9, 8], boundary="absorbing"), double_well
    ),
    "turning": lambda: gibbs_chain(Grid([-2, -2], [2, 2], [9, 8]), double_well, circulation=3.0),
    "random": lambda: random_chain(70, 2),
    "in discrete time": lambda: random_chain(70, 2, discrete=True),
}


@pytest.mark.parametrize("name", CHAINS)
def test_arnoldi_finds_what_all_eigenvalues_find(monkeypatch, name):
    jumps = CHAINS[name]()
    exact = modes(jumps, 6)
    assert_modes(jumps, exact, 1e-9)
    monkeypatch.setattr(module, "_DENSE", 20)
    found = modes(jumps, 6)
    np.testing.assert_allclose(by_size(found.rates), by_size(exact.rates), rtol=1e-9, atol=1e-10)
    assert_modes(jumps, found, 1e-9)


def test_multigrid_finds_them_as_well(monkeypatch):
    jumps = CHAINS["in balance"]()
    exact = modes(jumps, 4)
    monkeypatch.setattr(module, "_DENSE", 20)
    monkeypatch.setattr(resolvent, "_DIRECT", (0, 0, 0))
    np.testing.assert_allclose(modes(jumps, 4).rates, exact.rates, rtol=1e-10)


# Closed forms.


def test_two_states():
    jumps = of_matrix(Grid(0, 1, 2), [[0, 3.0], [0.5, 0]], step=0.1)
    found = modes(jumps, 2)
    np.testing.assert_allclose(found.rates, [0, 3.5], rtol=1e-15)
    np.testing.assert_allclose(found.left[0], [2 / 7, 12 / 7], rtol=1e-14)
    np.testing.assert_allclose(np.abs(found.right[1]), [1.0, 1 / 6], rtol=1e-14)
    slowest = gap(jumps)
    np.testing.assert_allclose(
        [slowest.rate, slowest.time, slowest.steps], [3.5, 1 / 3.5, 10 / 3.5], rtol=1e-14
    )
    assert slowest.error is None


def test_two_states_that_change_places_have_a_negative_eigenvalue():
    jumps = of_matrix(Grid(0, 1, 2), [[0, 1.8], [1.8, 0]], step=0.5, discrete=True)
    found = modes(jumps, 2)
    np.testing.assert_allclose(found.rates[1].real, -2 * np.log(0.8), rtol=1e-14)
    np.testing.assert_allclose(np.abs(found.rates[1].imag), 2 * np.pi, rtol=1e-14)
    np.testing.assert_allclose(gap(jumps).rate, -2 * np.log(0.8), rtol=1e-14)


def test_independent_draws_forget_at_once():
    # The transition matrix has rank one; rounding of 1e-16 may stand for its zero eigenvalues.
    law = np.array([0.2, 0.3, 0.5])
    jumps = of_matrix(Grid(0, 1, 3), np.outer(np.ones(3), law) - np.diag(law), discrete=True)
    assert gap(jumps).rate > 30


def test_heat_between_absorbing_ends():
    # Sines with the rates (2 n sin(k pi / 2n))^2.
    n = 40
    jumps = gibbs_chain(Grid(0.0, 1.0, n, boundary="absorbing"), lambda x: np.zeros(len(x)))
    found = modes(jumps, 3)
    k = np.arange(1, 4)
    np.testing.assert_allclose(found.rates, (2 * n * np.sin(k * np.pi / 2 / n)) ** 2, rtol=1e-12)
    sine = np.sin(np.pi * jumps.grid.centres[0])
    np.testing.assert_allclose(np.abs(found.right[0]), sine / sine.max(), atol=1e-12)
    assert gap(jumps).rate == found.rates[0]


def test_the_rates_of_a_quadratic_well_are_multiples_of_its_curvature():
    # dX = -theta X dt + noise: k theta, whatever the noise; to second order in the cells.
    errors = []
    for n in (120, 240):
        grid = Grid(-7.0, 7.0, n)
        found = modes(gibbs_chain(grid, lambda x: 1.5 * x[:, 0] ** 2, 2.0), 4)
        errors.append(np.abs(found.rates[1:] - 3.0 * np.arange(1, 4)))
    assert (errors[1] < 2e-2).all()
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, rtol=0.05)


def test_equal_rates_have_as_many_modes():
    grid = Grid([-5, -5], [5, 5], [24, 24])
    jumps = gibbs_chain(grid, well)
    found = modes(jumps, 6)
    assert_modes(jumps, found, 1e-9)
    line = modes(gibbs_chain(Grid(-5.0, 5.0, 24), well), 3).rates
    # Rates of the axes add.
    exact = [0, line[1], line[1], line[2], 2 * line[1], line[2]]
    np.testing.assert_allclose(found.rates, sorted(exact), rtol=1e-10, atol=1e-13)


def test_a_rotation_gives_complex_pairs():
    # b = -(I + a R) x: rates (n + m) +- i a (n - m), the noise has no part in them.
    turn = jnp.asarray([[1.0, -2.0], [2.0, 1.0]])
    errors = []
    for n in (16, 32):
        diffusion = tw.Diffusion(lambda x: -turn @ x, 2.0, 0.1)
        jumps = generator(diffusion, Grid([-5, -5], [5, 5], [n, n]))
        found = modes(jumps, 6)
        exact = [0, 1 + 2j, 1 - 2j, 2, 2 + 4j, 2 - 4j]
        errors.append(np.abs(np.array(by_size(found.rates))[[1, 2]] - exact[1:3]).max())
        assert_modes(jumps, found, 1e-8)
        assert gap(jumps).rate == pytest.approx(found.rates[1].real, rel=1e-10)
    nearest = [np.abs(found.rates - rate).min() for rate in exact]
    assert max(nearest) < 0.25
    assert errors[1] < 0.04
    assert 3 < errors[0] / errors[1] < 5


@pytest.mark.parametrize(("s", "expected"), [(0.5, [2.0]), (0.1, [2.0, 3.8, 5.4])])
def test_noise_that_grows_with_the_loss_has_its_known_gap(s, expected):
    # Wojtowytsch: f = 1 + x^2 and D = s f; polynomials are eigenfunctions, 2 k - s k (k - 1), as
    # long as they are square integrable under f^(-1 - 1/s).
    edges = np.sinh(np.linspace(-5.0, 5.0, 801))
    diffusion = tw.Diffusion(lambda x: -2 * x, lambda x: 2 * s * (1 + x[0] ** 2), 1.0)
    jumps = generator(diffusion, Grid.of_edges(edges))
    rates = modes(jumps, len(expected) + 1).rates
    # (h^2 = 1.6e-4 on the stretched axis; what is beyond 74 has 74^-3 of x^2 for s = .5.)
    np.testing.assert_allclose(rates[1:], expected, rtol=1e-3)


def test_the_weighted_norm_decays_at_twice_the_gap():
    # Wojtowytsch, s = .5: rate 4 for the square; Dai and Zhu, theorem 2.4, for constant noise, with
    # the Poincare constant of the law, here 1, and not of exp(-L).
    grid = Grid(-8.0, 8.0, 161)
    jumps = gibbs_chain(grid, well, 0.5)
    law = grid.normalise(np.exp(-well(grid.points) / 0.5))
    start = grid.normalise(np.exp(-((grid.centres[0] - 0.5) ** 2)))
    found = evolve(jumps, start, [8.0, 9.0])
    early, late = (weighted_l2(grid, p, law, law) ** 2 for p in found.densities)
    # The next mode has decayed by e^{-8} more, in the square by e^{-16}; the norm, e^{-8}, is right
    # to 1e-10.
    np.testing.assert_allclose(np.log(early / late), 2 * gap(jumps).rate, rtol=1e-6)
    np.testing.assert_allclose(gap(jumps).rate, 1.0, rtol=1e-2)


# Metastability.


def resistance_rate(jumps, law):
    """The rate between two equal wells at -1 and 1 by resistances in series."""
    up = jumps.target == jumps.source + 1
    here = np.abs(jumps.grid.centres[0][jumps.source[up]] + jumps.grid.widths[0][0] / 2) < 1
    return 4 / np.sum(1 / (law[jumps.source[up]] * np.asarray(jumps.rates)[up])[here])


@pytest.mark.parametrize(("n", "temperature"), [(300, 0.02), (1000, 0.01)])
def test_tiny_gaps_are_right_in_relative_terms(n, temperature):
    grid = Grid(-2.0, 2.0, n)
    jumps = gibbs_chain(grid, lambda x: np.square(x[:, 0] ** 2 - 1) / 4, temperature)
    law = np.exp(-np.square(grid.centres[0] ** 2 - 1) / 4 / temperature)
    found = modes(jumps, 3)
    # Resistances leave out what is beyond the wells' bottoms and the rate over those within wells:
    # relative errors like e^{-1/(4T)} and the gap itself, 1e-5 and 1e-10, with their factors.
    exact = resistance_rate(jumps, law / law.sum())
    np.testing.assert_allclose(found.rates[1], exact, rtol=20 * np.exp(-1 / (4 * temperature)))
    assert 0.5 < found.rates[2] < 1.5
    # The second function tells the wells apart.
    second = np.asarray(found.right[1]) * np.sign(found.right[1][-1])
    np.testing.assert_allclose(second[[n // 4, 3 * n // 4]], [-1, 1], atol=1e-4)
    np.testing.assert_allclose(found.left[0], law / law.sum() / grid.volumes, rtol=1e-11)


def test_the_gap_of_mueller_brown():
    # .2257735 on grids of 256 and 512 cells a side; second order: 16 times 2.6e-7 from 256 to 64.
    jumps = gibbs_chain(Grid([-1.5, -0.4], [1.1, 2.0], [64, 64]), mueller_brown)
    assert gap(jumps).rate == pytest.approx(0.2257735, abs=6e-6)


@pytest.mark.parametrize("temperature", [0.15, 0.12])
def test_gaps_that_rounding_drowns_are_refused(temperature):
    # Here the law falls by more than e^500, and modes are sought as without detailed balance. The
    # gap is the rate from the second deepest minimum to the deepest and the rate back, which is
    # e^(-1.92/.15) = 2.7e-6 of it; and some units of rounding of jumps, 1e-15 of 2e-9.
    grid = Grid([-1.7, -0.6], [1.3, 2.2], [48, 48])
    jumps = gibbs_chain(grid, mueller_brown, temperature)
    if temperature == 0.15:
        deepest = jnp.array([-0.558, 1.442])
        left = exit_time(jumps, lambda x: jnp.sum((x - deepest) ** 2) > 0.1)
        time = float(left.at(jnp.array([0.623, 0.028])))
        assert gap(jumps).rate == pytest.approx(1 / time, rel=5e-6)
        return
    with pytest.raises(SolveError, match=r"rate of about .* rounding of the jumps .*exit_time"):
        gap(jumps)


# What makes no sense.


def two_rooms():
    grid = Grid(-1.0, 1.0, 6, mask=lambda x: jnp.abs(x[0]) > 0.2)
    return gibbs_chain(grid, well)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: gap(two_rooms()), "2 closed classes"),
        (lambda: modes(two_rooms(), 2), "the rate 0 is repeated"),
        (lambda: modes(random_chain(10), 0), "expected 1 to 10 modes"),
        (lambda: modes(random_chain(10), 11), "expected 1 to 10 modes"),
        (
            lambda: jax.grad(lambda r: gap(dataclasses.replace(random_chain(5), rates=r)).rate)(
                jnp.asarray(random_chain(5).rates)
            ),
            "being differentiated",
        ),
    ],
)
def test_modes_that_make_no_sense_are_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


def test_no_convergence_is_said(monkeypatch):
    monkeypatch.setattr(module, "_DENSE", 20)
    monkeypatch.setattr(module, "_RESTARTS", 1)
    grid = Grid(-5.0, 5.0, 2000)
    chain = gibbs_chain(grid, well)
    step = 0.2 / np.max(-chain.matrix().diagonal())
    slow = dataclasses.replace(chain, step=step, discrete=True)
    with pytest.raises(SolveError, match="modes converged in 1 restarts"):
        modes(slow, 3)


def test_wrong_modes_are_not_returned(monkeypatch):
    monkeypatch.setattr(module, "_RESIDUAL", 1e-30)
    with pytest.raises(SolveError, match="solves its equation"):
        modes(random_chain(10), 3)
