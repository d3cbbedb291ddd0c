"""Laws from detailed balance: Gibbs, components, large spans, and chains without."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from chains_on_grids import double_well, gibbs_chain, of_matrix, random_chain
from thalweg.markov.grid import Grid
from thalweg.markov.reversible import log_masses


def steep(points):
    return 600 * np.sum(points**2, axis=1)


@pytest.mark.parametrize(
    ("potential", "grid"),
    [
        (double_well, Grid([-2, -2], [2, 2], [40, 30])),
        (double_well, Grid([-2, -2], [2, 2], [12, 12], mask=lambda x: jnp.sum(x**2) < 4)),
        (double_well, Grid([-2] * 3, [2] * 3, [8, 9, 10], boundary="absorbing")),
        (steep, Grid([-1, -1], [1, 1], [300, 300])),
    ],
    ids=["plane", "mask", "space, leaving", "span of 1200"],
)
def test_a_gradient_has_the_law_of_gibbs(potential, grid):
    jumps = gibbs_chain(grid, potential)
    logs = log_masses(jumps)
    exact = -potential(grid.points[grid.cells])
    # The rounding of some hundred logarithms and of potentials up to the span.
    np.testing.assert_allclose(logs, exact - exact.max(), atol=2e-15 * (100 + np.ptp(exact)))
    assert logs.max() == 0.0


def test_parts_that_are_not_joined_have_constants_of_their_own():
    grid = Grid(-1.0, 1.0, 7, mask=lambda x: jnp.abs(x[0]) > 0.1)
    logs = log_masses(gibbs_chain(grid, double_well))
    exact = -double_well(grid.points[grid.cells]).reshape(2, 3)
    np.testing.assert_allclose(
        logs.reshape(2, 3), exact - exact.max(axis=1, keepdims=True), atol=1e-14
    )


def test_states_that_nothing_leads_to_or_from_have_mass_one():
    jumps = of_matrix(Grid(0, 1, 3), [[0, 2.0, 0], [1.0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(log_masses(jumps), [-np.log(2), 0.0, 0.0], atol=1e-15)
    np.testing.assert_array_equal(log_masses(of_matrix(Grid(0, 1, 3), np.zeros((3, 3)))), 0.0)


@pytest.mark.parametrize(
    "jumps",
    [
        random_chain(20),
        gibbs_chain(Grid([-2, -2], [2, 2], [12, 12]), double_well, circulation=1e-6),
        of_matrix(Grid(0, 1, 3), [[0, 1.0, 0], [1.0, 0, 1.0], [0, 0, 0]]),
        of_matrix(Grid(0, 1, 3), [[0, 1.0, 1.0], [1.0, 0, 1.0], [1.0, 1.0 + 1e-11, 0]]),
    ],
    ids=["random", "slowly turning", "one way", "a little uneven"],
)
def test_chains_without_detailed_balance_have_no_such_law(jumps):
    assert log_masses(jumps) is None


def test_rates_of_zero_are_no_jumps():
    jumps = of_matrix(Grid(0, 1, 3), [[0, 2.0, 1e-300], [1.0, 0, 4.0], [1e-300, 2.0, 0]])
    none = np.where(np.asarray(jumps.rates) < 1e-200, 0.0, jumps.rates)
    found = log_masses(dataclasses.replace(jumps, rates=none))
    np.testing.assert_allclose(found, np.log([0.25, 0.5, 1.0]), atol=1e-15)
