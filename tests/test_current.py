"""Currents and fluxes: closed forms to second order, balance, and mass that is accounted for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from chains_on_grids import dense, double_well, gibbs_chain, of_matrix, random_chain
from thalweg.errors import InputError
from thalweg.markov.current import current, flux
from thalweg.markov.evolution import evolve
from thalweg.markov.generator import generator
from thalweg.markov.grid import Grid
from thalweg.markov.modes import modes

CIRCULATION = 1.5


def turning(x):
    return jnp.stack([-x[0] + CIRCULATION * x[1], -x[1] - CIRCULATION * x[0]])


@pytest.fixture(scope="module")
def rotating():
    """The grids, chains and stationary laws of dX = -(I + a R) X dt + sqrt(2) dW."""
    found = []
    for n in (24, 48):
        grid = Grid([-6, -6], [6, 6], [n, n])
        jumps = generator(tw.Diffusion(turning, 2.0, 0.1), grid)
        found.append((grid, jumps, modes(jumps, 1).left[0]))
    return found


def test_a_law_in_detailed_balance_has_no_current():
    grid = Grid([-2, -2], [2, 2], [12, 10])
    jumps = gibbs_chain(grid, double_well)
    law = grid.normalise(np.exp(-double_well(grid.points)).reshape(grid.shape))
    gross = np.abs(grid.masses(law)[jumps.source] * jumps.rates).max() * 0.4
    # Two roundings of jumps either way, over the volume of a cell.
    bound = 8 * np.finfo(float).eps * gross / grid.volumes.min()
    assert np.abs(current(jumps, law)).max() < bound


def test_the_current_of_a_rotation_in_closed_form(rotating):
    # J = (b + x) p = a (y, -x) p: the part of the drift along circles.
    errors = []
    for grid, jumps, law in rotating:
        x, y = grid.points.T.reshape(2, *grid.shape)
        exact = CIRCULATION * np.stack([y, -x]) * np.exp(-(x**2 + y**2) / 2) / (2 * np.pi)
        found = current(jumps, law)
        assert found.shape == (2, *grid.shape)
        errors.append(np.abs(found - exact).max() / np.abs(exact).max())
    # h^2 / 3 for h = 1/4, as the gradient of the density by differences suggests.
    assert errors[1] < 0.025
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_a_stationary_current_neither_fills_nor_empties_a_region(rotating):
    _, jumps, law = rotating[0]
    for region in (lambda x: x[0] > 0.3, lambda x: jnp.sum(x**2) < 2, lambda x: x[0] * x[1] > 1):
        found = flux(jumps, law, region)
        assert found.out > 0.1
        # The law is stationary to 1e-12 of rates up to some tens.
        assert abs(found.net) < 1e-10
        assert found.net == found.out - found.into
        assert found.error is None


@pytest.mark.parametrize("stretched", [False, True])
def test_drift_and_diffusion_of_any_density(stretched):
    # J = b p - D p', here with b = -x and D = .7.
    errors = []
    for n in (100, 200):
        edges = np.linspace(-1.0, 1.0, n + 1)
        grid = Grid.of_edges(6 * (edges + edges**3) / 2 if stretched else 6 * edges)
        x = grid.centres[0]
        density = np.exp(-((x - 0.5) ** 2))
        exact = -x * density + 0.7 * 2 * (x - 0.5) * density
        found = current(gibbs_chain(grid, lambda p: p[:, 0] ** 2 / 2, 0.7), density)
        errors.append(np.abs(found[0] - exact).max())
    assert errors[1] < 2e-3
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, rtol=0.05)


def test_the_net_flux_is_the_current_through_the_border():
    # To the right of 1 in one dimension: minus the current at the edge there.
    errors = []
    for n in (96, 192):
        grid = Grid(-6.0, 6.0, n)
        x = grid.centres[0]
        jumps = gibbs_chain(grid, lambda p: p[:, 0] ** 2 / 2, 0.7)
        found = flux(jumps, np.exp(-((x - 0.5) ** 2)), lambda p: p[0] > 1)
        exact = (-1 + 0.7 * 2 * 0.5) * np.exp(-0.25)
        errors.append(abs(found.net + exact))
        # One way alone grows like D p over the width of a cell.
        assert found.out == pytest.approx(0.7 * np.exp(-0.25) * n / 12, rel=0.1)
    assert errors[1] < 1e-3
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, rtol=0.05)


@pytest.mark.parametrize("discrete", [False, True])
def test_what_leaves_a_region_is_missing_there(discrete):
    jumps = random_chain(12, 4, discrete=discrete)
    density = np.random.default_rng(0).uniform(size=12)
    region = np.arange(12) % 3 == 0
    found = flux(jumps, density, region)
    change = (density / 12) @ dense(jumps)
    np.testing.assert_allclose(found.net, -change[region].sum(), rtol=1e-12)
    everywhere = flux(jumps, density, np.ones(12, bool))
    np.testing.assert_allclose(everywhere.out, (density / 12) @ jumps.leaving, rtol=1e-12)
    assert everywhere.into == 0.0
    if discrete:
        after = evolve(jumps, density, jumps.step).densities[0]
        lost = (density - np.asarray(after))[region].sum() / 12
        np.testing.assert_allclose(found.net * jumps.step, lost, rtol=1e-12)


def test_three_states_in_a_circle():
    # Each third moves on at rate 6 and back at 0: flows of 2 between neighbours.
    matrix = [[0, 6, 0], [0, 0, 6], [6, 0, 0]]
    for discrete in (False, True):
        jumps = of_matrix(Grid(0.0, 3.0, 3), matrix, step=0.1, discrete=discrete)
        found = current(jumps, np.full(3, 1 / 3))
        # Halves of 2 * 1, 2 * 1 and 2 * (-2) at their ends.
        np.testing.assert_allclose(found, [[-1.0, 2.0, -1.0]], atol=1e-14)


def test_masked_cells_have_no_current():
    grid = Grid([-2, -2], [2, 2], [8, 8], mask=lambda x: jnp.sum(x**2) < 4)
    found = current(gibbs_chain(grid, double_well), grid.delta([0.7, 0.7]))
    assert not np.asarray(found)[:, ~grid.inside].any()
    assert np.asarray(found).any()


LINE = random_chain(4)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: current(LINE, np.ones(5)), "density has shape"),
        (lambda: current(LINE, -np.ones(4)), "negative"),
        (lambda: flux(LINE, np.ones(4), lambda x: x[0] > 2), "region holds no cell"),
        (
            lambda: jax.grad(
                lambda r: current(dataclasses.replace(LINE, rates=r), np.ones(4))[0, 0]
            )(jnp.asarray(LINE.rates)),
            "being differentiated",
        ),
    ],
)
def test_questions_that_make_no_sense_are_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask()
