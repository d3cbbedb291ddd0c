"""Distances between laws: closed forms, linear programs, scipy, and what must be refused."""

import sys

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import erf
from scipy.stats import wasserstein_distance

from thalweg.errors import InputError
from thalweg.markov import distances
from thalweg.markov.distances import total_variation, wasserstein, weighted_l2
from thalweg.markov.grid import Grid

EDGES = np.array([0.0, 0.1, 0.3, 0.7, 1.5, 1.6])


def gaussian(grid, mean, variance=1.0):
    squares = np.sum((grid.points - np.asarray(mean)) ** 2, axis=1)
    return grid.normalise(np.exp(-squares / (2 * variance)).reshape(grid.shape))


def any_density(grid, seed):
    values = np.random.default_rng(seed).uniform(size=grid.shape) ** 3
    return grid.normalise(np.where(values < 0.1, 0.0, values))


def by_linear_program(grid, p, q):
    """The least cost of all plans between the masses."""
    first, second, n = grid.masses(p), grid.masses(q), grid.cells.size
    places = grid.points[grid.cells]
    costs = np.linalg.norm(places[:, None] - places[None], axis=-1)
    rows, columns = np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))
    found = linprog(
        costs.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=np.concatenate([first, second])
    )
    assert found.success
    return found.fun


# Total variation.


@pytest.mark.parametrize("shift", [0.3, 2.0])
def test_total_variation_of_shifted_gaussians(shift):
    grid = Grid(-8.0, 8.0 + shift, 4000)
    found = total_variation(grid, gaussian(grid, [0.0]), gaussian(grid, [shift]))
    # |p - q| has a kink, in whose cell the midpoint rule is wrong by at most h^2 |p'| / 4 = 1e-6.
    assert abs(found - erf(shift / np.sqrt(8))) < 1e-6


def test_total_variation_of_points_apart_is_one():
    grid = Grid([0, 0], [1, 1], [4, 4])
    p, q = grid.delta([0.2, 0.2]), grid.delta([0.8, 0.9])
    assert total_variation(grid, p, q) == pytest.approx(1.0, abs=1e-15)
    assert total_variation(grid, p, p) == 0.0
    assert total_variation(grid, p, 3 * np.asarray(p)) == pytest.approx(1.0, abs=1e-15)


# Wasserstein.


def test_points_on_a_line_are_as_far_as_they_are():
    grid = Grid.of_edges(EDGES)
    # Shared between two cells with the right mean, one point does not pass the other.
    found = wasserstein(grid, grid.delta(0.11), grid.delta(1.3))
    assert found == pytest.approx(1.19, abs=1e-14)


def test_on_a_line_it_is_that_of_scipy():
    grid = Grid.of_edges(EDGES)
    p, q = any_density(grid, 0), any_density(grid, 1)
    exact = wasserstein_distance(grid.centres[0], grid.centres[0], grid.masses(p), grid.masses(q))
    assert wasserstein(grid, p, q) == pytest.approx(exact, rel=1e-13)
    assert wasserstein(grid, q, p) == pytest.approx(exact, rel=1e-13)


def test_a_shift_costs_its_length():
    # No plan does better than the difference of the means.
    line = Grid(-9.0, 10.0, 400)
    found = wasserstein(line, gaussian(line, [0.0]), gaussian(line, [1.0]))
    # The means of truncated Gaussians by the midpoint rule, which converges exponentially.
    assert found == pytest.approx(1.0, abs=1e-10)
    plane = Grid([0, 0], [8, 8], [16, 16])
    values = np.zeros((16, 16))
    values[2:6, 3:7] = np.random.default_rng(0).uniform(size=(4, 4))
    p, q = plane.normalise(values), plane.normalise(np.roll(values, (6, 8), axis=(0, 1)))
    assert wasserstein(plane, p, q) == pytest.approx(5.0, rel=1e-12)


@pytest.mark.parametrize(
    "grid",
    [
        Grid([0, 0], [1, 2], [4, 4]),
        Grid([0, 0], [1, 1], [5, 5], mask=lambda x: x[0] + x[1] > 0.5),
        Grid.of_edges(EDGES[:4], EDGES[:3], EDGES[2:5]),
    ],
    ids=["plane", "mask", "space"],
)
def test_in_plane_and_space_it_is_the_value_of_the_linear_program(grid):
    p, q = any_density(grid, 2), any_density(grid, 3)
    # HiGHS solves to 1e-7 of feasibility, in units of masses about .05.
    assert wasserstein(grid, p, q) == pytest.approx(by_linear_program(grid, p, q), rel=1e-6)
    assert wasserstein(grid, p, p) == 0.0


def test_distances_bound_each_other():
    grid = Grid([-4, -4], [4, 4], [12, 12])
    law = gaussian(grid, [0.0, 0.0])
    p = gaussian(grid, [0.4, -0.3], 0.7)
    far = np.hypot(8, 8)
    assert wasserstein(grid, p, law) <= far * total_variation(grid, p, law)
    assert 2 * total_variation(grid, p, law) <= weighted_l2(grid, p, law, law)
    # The distance is that of the means at least.
    assert wasserstein(grid, p, law) >= 0.49


# Weighted L2.


def test_the_weighted_distance_of_shifted_gaussians():
    # The integral of p^2 / pi is e^{m^2}; the midpoint rule converges exponentially.
    grid = Grid(-12.0, 12.0, 600)
    law = gaussian(grid, [0.0])
    found = weighted_l2(grid, gaussian(grid, [0.7]), law, law)
    assert found == pytest.approx(np.sqrt(np.expm1(0.49)), rel=1e-10)


def test_where_the_law_is_zero_equal_densities_are_no_distance_apart():
    grid = Grid(0.0, 1.0, 4)
    law, p = np.array([0.0, 2.0, 1.0, 1.0]), np.array([0.0, 1.0, 2.0, 1.0])
    # Masses .25 |p - law| on masses .5 and .25.
    exact = np.sqrt(0.25**2 / 0.5 + 0.25**2 / 0.25)
    assert weighted_l2(grid, p, law, law) == pytest.approx(exact, rel=1e-14)
    with pytest.raises(InputError, match=r"zero in 1 cells.* by 0\.025 of mass"):
        weighted_l2(grid, p + 0.1 * (np.arange(4) == 0), law, law)


# What makes no sense.


LINE, PLANE = Grid(0.0, 1.0, 4), Grid([0, 0], [1, 1], [3, 3])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: total_variation(LINE, np.ones(4), np.ones(5)), "second has shape"),
        (lambda: total_variation(LINE, -np.ones(4), np.ones(4)), "first has negative"),
        (lambda: wasserstein(LINE, np.ones(4), 2 * np.ones(4)), "masses 1 and 2"),
        (lambda: wasserstein(LINE, np.zeros(4), np.zeros(4)), "masses 0 and 0"),
        (lambda: weighted_l2(LINE, np.ones(4), np.ones(4), np.ones(3)), "law has shape"),
    ],
)
def test_distances_that_make_no_sense_are_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


def test_too_many_pairs_are_refused_with_the_number(monkeypatch):
    monkeypatch.setattr(distances, "_PAIRS", 10)
    p = PLANE.normalise(np.arange(9.0).reshape(3, 3))
    with pytest.raises(InputError, match=r"4 cells have more mass and 4 less: 1\.6e\+01 pairs"):
        wasserstein(PLANE, p, PLANE.normalise(np.ones((3, 3))))


def test_without_pot_the_way_to_install_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(InputError, match=r"pip install 'thalweg\[transport\]'"):
        wasserstein(PLANE, PLANE.delta([0.2, 0.2]), PLANE.delta([0.8, 0.8]))
