"""Densities at later times: against dense exponentials and powers, closed forms, and limits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from chains_on_grids import dense, double_well, gibbs_chain, of_matrix, random_chain
from thalweg.errors import InputError
from thalweg.markov import exponential, resolvent
from thalweg.markov.distances import total_variation, weighted_l2
from thalweg.markov.evolution import _mixed, _step, evolve, evolve_through
from thalweg.markov.exponential import Exponential
from thalweg.markov.grid import Grid
from thalweg.markov.resolvent import Flows, Resolvent

# Two approximations agree to 1e-10 in L1; the second, which is kept, is closer than that.
KRYLOV = 2e-10

# Mueller-Brown over twenty: a span of 123 between the lowest place and the corners.
TERMS = np.array(
    [
        (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
        (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
        (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
        (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
    ]
)


def mueller_brown(points):
    x, y = points.T
    height, a, b, c, x0, y0 = TERMS.T[:, :, None]
    dx, dy = x - x0, y - y0
    return 0.05 * (height * np.exp(a * dx**2 + b * dx * dy + c * dy**2)).sum(axis=0)


def well(points):
    return np.sum(points**2, axis=1) / 2


def by_squaring(jumps, time):
    """The transition matrix, every entry with relative accuracy: products of positive numbers."""
    matrix = dense(jumps) * time
    halvings = max(0, int(np.ceil(np.log2(np.abs(matrix).max()))))
    power = expm(matrix / 2**halvings)
    for _ in range(halvings):
        power = power @ power
    return power


def masses(evolution):
    return np.asarray(evolution.densities * evolution.grid.volumes).reshape(
        len(evolution.times), -1
    )[:, evolution.grid.cells]


def distance(found, exact):
    return np.abs(found - exact).sum(axis=-1).max()


def gaussian(x, mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


# Continuous time.


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("leaving", [False, True])
def test_any_chain_follows_its_exponential(seed, leaving):
    jumps = random_chain(40, seed, leaving=leaving, spread=2.0)
    start = np.random.default_rng(seed).uniform(size=40)
    times = np.array([0.01, 0.1, 1.0, 10.0])
    found = masses(evolve(jumps, start, times))
    exact = np.array([(start / 40) @ expm(dense(jumps) * t) for t in times])
    assert distance(found, exact) < KRYLOV * start.sum() / 40


def test_two_states_in_closed_form():
    up, down = 3.0, 0.5
    jumps = of_matrix(Grid(0, 1, 2), [[0, up], [down, 0]])
    times = np.geomspace(1e-3, 10.0, 9)
    found = masses(evolve(jumps, [2.0, 0.0], times))
    first = (down + up * np.exp(-(up + down) * times)) / (up + down)
    # The Krylov space is everything: rounding alone.
    np.testing.assert_allclose(found, np.stack([first, 1 - first], axis=1), atol=1e-14)


@pytest.fixture(scope="module")
def hilly():
    grid = Grid([-1.5, -0.4], [1.1, 2.0], [20, 20])
    jumps = gibbs_chain(grid, mueller_brown)
    times = [1e-3, 3e-2, 1.0]
    return jumps, times, [by_squaring(jumps, t) for t in times]


@pytest.mark.parametrize("start", ["deepest well", "hill", "everywhere", "top corner"])
def test_starts_on_hills_are_as_accurate_as_in_wells(hilly, start):
    # In the norm of detailed balance a start in the top corner has length e^50: solvers that work
    # in it lose everything.
    jumps, times, exact = hilly
    grid = jumps.grid
    density = {
        "deepest well": lambda: grid.delta([-0.558, 1.442]),
        "hill": lambda: grid.delta([0.9, 1.9]),
        "everywhere": lambda: grid.normalise(np.ones(grid.shape)),
        "top corner": lambda: grid.delta(grid.points[np.argmax(mueller_brown(grid.points))]),
    }[start]()
    found = evolve(jumps, density, times)
    powers = np.array([grid.masses(density) @ power for power in exact])
    assert distance(masses(found), powers) < KRYLOV
    np.testing.assert_allclose(grid.integrate(found.densities), 1.0, rtol=1e-12)
    assert (np.asarray(found.densities) >= 0).all()


def test_circulation_is_no_obstacle(hilly):
    grid = hilly[0].grid
    jumps = gibbs_chain(grid, mueller_brown, circulation=20.0)
    start = grid.delta([0.6, 0.0])
    found = masses(evolve(jumps, start, [0.02, 0.5]))
    exact = [grid.masses(start) @ by_squaring(jumps, t) for t in (0.02, 0.5)]
    assert distance(found, np.array(exact)) < KRYLOV


def test_cells_of_unequal_width():
    edges = np.sinh(np.linspace(-2.0, 2.0, 61))
    grid = Grid.of_edges(edges, np.linspace(-2, 2, 5) ** 3 / 2)
    jumps = gibbs_chain(grid, double_well, 0.3)
    start = grid.delta([2.5, 1.0])
    found = masses(evolve(jumps, start, [0.1, 3.0]))
    exact = [grid.masses(start) @ by_squaring(jumps, t) for t in (0.1, 3.0)]
    assert distance(found, np.array(exact)) < KRYLOV


def test_a_gaussian_in_a_quadratic_well_stays_gaussian():
    # Mean e^{-t}, variance T (1 - e^{-2t}) + v e^{-2t}; the scheme is of second order.
    errors = []
    for n in (100, 200):
        grid = Grid(-5.0, 5.0, n)
        start = grid.normalise(gaussian(grid.centres[0], 1.5, 0.2))
        found = evolve(gibbs_chain(grid, well, 0.7), start, [0.3, 1.0])
        exact = [
            gaussian(grid.centres[0], 1.5 * np.exp(-t), 0.7 - 0.5 * np.exp(-2 * t))
            for t in (0.3, 1.0)
        ]
        errors.append([total_variation(grid, *p) for p in zip(found.densities, exact, strict=True)])
    assert max(errors[1]) < 1e-3
    np.testing.assert_allclose(np.array(errors[0]) / errors[1], 4.0, rtol=0.05)


def test_times_come_back_in_the_order_asked_for():
    grid = Grid(-3.0, 3.0, 30)
    jumps = gibbs_chain(grid, well, step=0.25)
    start = grid.delta(1.0)
    found = evolve(jumps, start, [2.0, 0.0, 0.5, 2.0])
    np.testing.assert_array_equal(found.times, [2.0, 0.0, 0.5, 2.0])
    np.testing.assert_array_equal(found.steps, [8.0, 0.0, 2.0, 8.0])
    np.testing.assert_array_equal(found.densities[1], start)
    np.testing.assert_array_equal(found.densities[0], found.densities[3])
    assert found.error is None
    alone = evolve(jumps, start, 0.5)
    assert alone.densities.shape == (1, 30)
    assert distance(masses(alone), masses(found)[2:3]) < KRYLOV


def test_what_is_stationary_stays():
    grid = Grid([-2, -2], [2, 2], [16, 16])
    law = grid.normalise(np.exp(-double_well(grid.points)).reshape(grid.shape))
    found = evolve(gibbs_chain(grid, double_well), law, [1e-4, 1.0, 1e4])
    assert max(total_variation(grid, p, law) for p in found.densities) < 1e-13


def test_nothing_stays_nothing():
    grid = Grid(0.0, 1.0, 4)
    assert not np.asarray(evolve(gibbs_chain(grid, well), np.zeros(4), [1.0]).densities).any()


def test_mass_leaves_through_absorbing_sides():
    # Heat in [0, 1]: sin(pi x) decays at the rate pi^2, on the grid at (2/h sin(pi h/2))^2.
    n = 50
    grid = Grid(0.0, 1.0, n, boundary="absorbing")
    jumps = gibbs_chain(grid, lambda x: np.zeros(len(x)))
    rate = (2 * n * np.sin(np.pi / (2 * n))) ** 2
    start = np.sin(np.pi * grid.centres[0])
    found = evolve(jumps, start, [0.1, 1.0])
    exact = np.exp(-rate * found.times[:, None]) * start
    np.testing.assert_allclose(found.densities, exact, atol=2e-14)
    gone = evolve(jumps, start, [30.0, 1e4]).densities
    assert (np.asarray(gone) >= 0).all()
    np.testing.assert_allclose(gone, 0.0, atol=KRYLOV)


def test_walls_of_a_mask_are_not_passed():
    grid = Grid([-2, 0], [2, 1], [20, 4], mask=lambda x: jnp.abs(x[0]) > 0.2)
    density = np.where(grid.points[:, 0] > 0, 3.0, 1.0).reshape(grid.shape)
    start = grid.normalise(density)
    found = evolve(gibbs_chain(grid, well), start, [0.1, 100.0])
    right = grid.integrate(found.densities, lambda x: x[0] > 0)
    np.testing.assert_allclose(right, 0.75, rtol=1e-12)


def test_tails_have_their_own_size_near_the_law():
    # In the norm of the law a perturbation by the second mode decays by e^{-2t}, far below the
    # rounding of the density in its centre: the law is 1e-29 at the ends of the grid.
    grid = Grid(-11.5, 11.5, 120)
    jumps = gibbs_chain(grid, well)
    x = grid.centres[0]
    law = grid.normalise(np.exp(-(x**2) / 2))
    start = grid.normalise(gaussian(x, 0.0, 0.8))
    found = evolve(jumps, start, [1.0, 3.0])
    transition = [by_squaring(jumps, t) for t in (1.0, 3.0)]
    for density, power in zip(found.densities, transition, strict=True):
        exact = grid.spread(grid.masses(start) @ power) / grid.volumes
        assert weighted_l2(grid, density, exact, law) < 1e-9


def test_the_last_of_mass_between_deep_wells_is_right():
    # Wells at a depth of 25 D: the slow rate is 6e-12 of rates of 600. By reversibility the mass on
    # the right relaxes from 0 as (1 - e^{-rate t}) / 2, the rate from resistances in series (up to
    # terms of its own size over rates of order one).
    n, temperature = 400, 0.01
    grid = Grid(-2.0, 2.0, n)
    jumps = gibbs_chain(grid, lambda x: np.square(x[:, 0] ** 2 - 1) / 4, temperature)
    law = np.exp(-np.square(grid.centres[0] ** 2 - 1) / 4 / temperature)
    law /= law.sum()
    up = jumps.target == jumps.source + 1
    middle = (jumps.source[up] >= n // 4) & (jumps.source[up] < 3 * n // 4)
    resistance = np.sum(1 / (law[jumps.source[up]] * np.asarray(jumps.rates)[up])[middle])
    rate = 4 / resistance
    times = np.array([0.01, 0.1, 1.0, 10.0]) / rate
    start = np.where(np.arange(n) < n // 2, law, 0.0) / grid.volumes
    right = masses(evolve(jumps, 2 * start, times))[:, n // 2 :].sum(axis=1)
    np.testing.assert_allclose(right, -np.expm1(-rate * times) / 2, rtol=1e-9)


def test_times_at_which_rounding_decides_are_refused():
    grid = Grid(-2.0, 2.0, 50)
    jumps = gibbs_chain(grid, double_well, 0.1)
    with pytest.raises(InputError, match="ask for the stationary law"):
        evolve(jumps, grid.delta(1.0), 1e20)


@pytest.mark.parametrize("vectors", [15, 24])
@pytest.mark.slow
def test_intervals_are_halved_where_the_krylov_space_is_too_small(monkeypatch, vectors):
    monkeypatch.setattr(exponential, "_VECTORS", vectors)
    grid = Grid(-4.0, 4.0, 60)
    jumps = gibbs_chain(grid, lambda x: 0.5 * (x[:, 0] - 1) ** 2, 0.01)
    start = grid.delta(-3.0)
    times = np.array([0.05, 0.4, 1.0, 2.0])
    found = masses(evolve(jumps, start, times))
    exact = np.array([grid.masses(start) @ by_squaring(jumps, t) for t in times])
    # Errors of some tens of intervals add up.
    assert distance(found, exact) < 30 * KRYLOV


def test_multigrid_gives_what_factors_give(monkeypatch):
    grid = Grid([-2.0] * 3, [2.0] * 3, [9, 9, 9])
    jumps = gibbs_chain(grid, double_well)
    start = grid.delta([1.0, 0.5, 0.0])
    factored = evolve(jumps, start, [0.1, 1.0])
    monkeypatch.setattr(resolvent, "_DIRECT", (0, 0, 0))
    assert not Resolvent(Flows(jumps), 1.0).direct
    assert distance(masses(evolve(jumps, start, [0.1, 1.0])), masses(factored)) < KRYLOV


@pytest.mark.slow
def test_a_fine_grid_is_as_accurate_as_a_coarse_one():
    # 512 x 512 cells: the same by two spaces, one from where the other ends.
    grid = Grid([-1.5, -0.4], [1.1, 2.0], [512, 512])
    jumps = gibbs_chain(grid, mueller_brown)
    start = grid.delta([-0.5582236, 1.4417258])
    once = evolve(jumps, start, 1.0)
    halves = evolve(jumps, evolve(jumps, start, 0.37).densities[0], 0.63)
    assert distance(masses(once), masses(halves)) < 2 * KRYLOV
    np.testing.assert_allclose(grid.integrate(once.densities), 1.0, rtol=1e-12)


def test_one_factorisation_serves_a_decade(monkeypatch):
    made = []
    original = exponential.Resolvent
    monkeypatch.setattr(exponential, "Resolvent", lambda *a: made.append(a) or original(*a))
    grid = Grid(-3.0, 3.0, 100)
    evolve(gibbs_chain(grid, well), grid.delta(1.0), np.linspace(0.2, 1.0, 30))
    assert len(made) == 1


def test_the_generator_acts_the_same_by_pairs_as_by_its_matrix():
    jumps = random_chain(30, 5)
    flows, matrix = Flows(jumps), dense(jumps)
    values = np.random.default_rng(1).normal(size=30)
    # Thirty products of numbers up to some tens.
    np.testing.assert_allclose(flows.on_function(values), matrix @ values, atol=1e-11)
    np.testing.assert_allclose(flows.on_masses(values), values @ matrix, atol=1e-11)
    assert flows.fastest == -matrix.diagonal().min()


def test_the_law_is_used_as_a_weight_only_where_it_is_safe():
    grid = Grid(-11.5, 11.5, 120)
    flow = Exponential(gibbs_chain(grid, well))
    near, far = grid.masses(grid.delta(0.5)), grid.masses(grid.delta(9.0))
    assert flow._scale(near) is not flow.root_volumes
    assert flow._scale(far) is flow.root_volumes
    assert Exponential(random_chain(20))._scale(np.ones(20)).shape == (20,)


# Discrete time.


@pytest.mark.parametrize("leaving", [False, True])
def test_discrete_time_takes_powers(monkeypatch, leaving):
    jumps = random_chain(30, 3, leaving=leaving, discrete=True)
    power = np.eye(30) + jumps.step * dense(jumps)
    start = np.random.default_rng(3).uniform(size=30)
    steps = np.array([7, 0, 1, 1000, 40])
    exact = np.array([start / 30 @ np.linalg.matrix_power(power, k) for k in steps])
    by_squares = evolve(jumps, start, steps * jumps.step)
    np.testing.assert_array_equal(by_squares.steps, steps)
    # A thousand products, each right to the unit of rounding times thirty terms at worst.
    np.testing.assert_allclose(masses(by_squares), exact, atol=1e-12)
    monkeypatch.setattr("thalweg.markov.evolution._DENSE", 0)
    one_by_one = evolve(jumps, start, steps * jumps.step)
    np.testing.assert_allclose(masses(one_by_one), exact, atol=1e-12)


def test_ten_million_steps_end_in_the_stationary_law():
    jumps = random_chain(30, 3, leaving=False, discrete=True)
    values, vectors = np.linalg.eig(dense(jumps).T)
    law = vectors[:, np.argmin(np.abs(values))].real
    found = masses(evolve(jumps, np.ones(30), 1e7 * jumps.step))[0]
    np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-14)
    np.testing.assert_allclose(found, law / law.sum(), atol=1e-13)


def test_a_probability_to_stay_of_zero_is_no_negative_mass():
    jumps = of_matrix(
        Grid(0, 1, 3),
        np.array([[0, 0.7, 0.3], [0.1, 0, 0.9], [1, 0, 0]]) / 0.1,
        step=0.1,
        discrete=True,
    )
    found = masses(evolve(jumps, [3.0, 0.0, 0.0], [0.1, 0.2]))
    np.testing.assert_allclose(found, [[0, 0.7, 0.3], [0.37, 0, 0.63]], atol=1e-15)
    assert (found >= 0).all()


def test_times_between_steps_name_the_nearest():
    jumps = random_chain(10, 0, discrete=True)
    with pytest.raises(InputError, match=r"1\.2 is 2\.4 steps of 0\.5.* at 1 and 1\.5"):
        evolve(jumps, np.ones(10), [0.5, 1.2])


# Coefficients that depend on time.


def cooling(t):
    """Temperature 1/eta(t) for eta = 2 (1 + 1/(1 + t))."""
    return (1 + t) / (2 * (2 + t))


@pytest.mark.slow
def test_the_weighted_norm_decays_like_a_power_when_the_noise_settles_slowly():
    # Dai and Zhu, theorem 2.4, say e^{-2 C t/eta}. With L = x^2/2 the law stays Gaussian and its
    # variance obeys v' = -2 v + 2 T(t), T = 1/2 - 1/(2 (2 + t)): v - 1/2 ~ -1/(2t), and the square
    # of the weighted norm, (v - 1/2)^2 (1 + o(1)) / (2 (1/2)^2), decays like t^-2.
    grid = Grid(-6.0, 6.0, 120)
    x = grid.centres[0]
    limit = grid.normalise(np.exp(-(x**2)))
    times = np.array([0.5, 1.0, 40.0, 160.0])
    start = grid.normalise(gaussian(x, 0.0, 0.4))
    found = evolve_through(
        lambda t: gibbs_chain(grid, well, cooling(t)), start, times, tolerance=1e-4
    )
    fine = np.linspace(0, 160.0, 640_001)
    integrand = np.exp(2 * (fine - 160.0)) * 2 * cooling(fine)
    inner = np.concatenate([[0], np.cumsum((integrand[1:] + integrand[:-1]) / 2 * np.diff(fine))])
    variance = np.exp(-2 * times) * 0.4 + np.exp(2 * (160.0 - times)) * np.interp(
        times, fine, inner
    )
    for density, v in zip(found.densities, variance, strict=True):
        # Second order in space: h^2/12 of curvature at a standard deviation of seven cells.
        assert total_variation(grid, density, gaussian(x, 0.0, v)) < 2e-3
    norms = [weighted_l2(grid, p, limit, limit) ** 2 for p in found.densities]
    slope = np.log(norms[3] / norms[2]) / np.log(160.0 / 40.0)
    # v - 1/2 = -1/(2t) (1 + O(1/t)): up to some 3/40.
    assert abs(slope + 2) < 0.15


def swinging(t):
    return gibbs_chain(Grid(-4.0, 4.0, 24), double_well, 0.5 + 0.4 * np.cos(3 * t))


@pytest.fixture(scope="module")
def swung():
    """Masses at times .3 and 1 from a point: midpoint steps with dense exponentials."""
    grid = Grid(-4.0, 4.0, 24)
    start = grid.delta(1.0)
    coarse, fine = (
        np.array([by_steps(swinging, grid.masses(start), t, n) for t in (0.3, 1.0)])
        for n in (200, 400)
    )
    return start, (4 * fine - coarse) / 3


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_steps_in_time_are_as_fine_as_the_tolerance_asks(swung, tolerance):
    start, exact = swung
    asked = []

    def make(t):
        asked.append(t)
        return swinging(t)

    found = evolve_through(make, start, [0.3, 1.0], tolerance=tolerance)
    assert distance(masses(found), exact) < tolerance
    np.testing.assert_allclose(found.grid.integrate(found.densities), 1.0, rtol=1e-12)
    assert (np.asarray(found.densities) >= 0).all()
    # Six chains a step, tolerance^(-1/4) steps, and no more than five times that.
    assert len(asked) < 30 * tolerance ** (-1 / 4)


def test_steps_in_time_are_of_fourth_order(swung):
    start, exact = swung
    errors = []
    for steps in (8, 16):
        density = np.asarray(start) / 3.0  # the width of the cells is 1/3
        for k in range(steps):
            density = _step(swinging, density, k * 0.3 / steps, 0.3 / steps)
        errors.append(np.abs(density - exact[0]).sum())
    # 2^4 up to terms of the next order, an eighth of a step's change of the temperature.
    assert 11 < errors[0] / errors[1] < 23


def test_chains_need_not_have_the_same_jumps():
    grid = Grid(0.0, 1.0, 3)
    first = of_matrix(grid, [[0, 1, 0], [2, 0, 0], [0, 3, 0]])
    second = of_matrix(grid, [[0, 0, 4], [2, 0, 0], [0, 3.5, 0]])
    mixed = dense(_mixed(first, second))
    high, low = 0.5 + np.sqrt(1 / 3), 0.5 - np.sqrt(1 / 3)
    exact = np.array([[0, high, 0], [2, 0, 0], [0, 3 * high + 3.5 * low, 0]])
    np.testing.assert_allclose(mixed, exact - np.diag(exact.sum(axis=1)), atol=1e-14)


def by_steps(make, start, time, steps):
    length = time / steps
    for k in range(steps):
        start = start @ expm(length * dense(make((k + 0.5) * length)))
    return start


def test_constant_coefficients_are_no_special_case():
    grid = Grid(-3.0, 3.0, 40)
    jumps = gibbs_chain(grid, well)
    start = grid.delta(2.0)
    varying = evolve_through(lambda t: jumps, start, [0.0, 0.1, 1.0])
    constant = evolve(jumps, start, [0.0, 0.1, 1.0])
    # At most some tens of steps.
    assert distance(masses(varying), masses(constant)) < 30 * KRYLOV
    np.testing.assert_array_equal(varying.steps, constant.steps)


def test_in_discrete_time_the_matrices_follow_each_other():
    chains = [random_chain(12, seed, leaving=False, discrete=True) for seed in range(5)]
    start = np.random.default_rng(0).uniform(size=12)
    found = evolve_through(lambda t: chains[round(t / 0.5)], start, [2.5, 1.0])
    exact = [start / 12]
    for jumps in chains:
        exact.append(exact[-1] @ (np.eye(12) + 0.5 * dense(jumps)))
    np.testing.assert_allclose(masses(found), [exact[5], exact[2]], rtol=1e-13)


# What makes no sense.


LINE = gibbs_chain(Grid(0.0, 1.0, 4), well)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: evolve(LINE, np.ones(5), 1.0), "density has shape"),
        (lambda: evolve(LINE, -np.ones(4), 1.0), "negative or infinite"),
        (lambda: evolve(LINE, np.ones(4), -1.0), "none negative"),
        (lambda: evolve(LINE, np.ones(4), []), "one or more"),
        (lambda: evolve(LINE, np.ones(4), [[1.0]]), "one or more"),
        (lambda: evolve(LINE, np.ones(4), np.nan), "finite"),
        (lambda: evolve_through(lambda t: LINE, np.ones(4), 1.0, tolerance=0.0), "tolerance"),
        (
            lambda: jax.grad(
                lambda r: evolve(dataclasses.replace(LINE, rates=r), np.ones(4), 1.0).densities[
                    0, 0
                ]
            )(jnp.asarray(LINE.rates)),
            "being differentiated",
        ),
    ],
)
def test_evolutions_that_make_no_sense_are_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask()
