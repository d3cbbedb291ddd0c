"""Least actions: closed forms, the documents' barriers, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import thalweg as tw
from thalweg.errors import InputError
from thalweg.paths import (
    hamiltonian,
    minimum_action_path,
    minimum_discrete_path,
    minimum_energy_path,
    quasi_potential,
)

TURNING = np.array([[1.0, 0.8], [-0.8, 0.5]])
NOISE = np.diag([0.2, 0.1])


def turning_drift(x):
    return -jnp.asarray(TURNING) @ x


LINEAR = tw.Diffusion(turning_drift, jnp.asarray(NOISE), 0.01)


def linear_potential(points):
    """x' S^-1 x / 2 with A S + S A' = Sigma: minus the logarithm of the Gaussian law of the OU."""
    S = scipy.linalg.solve_continuous_lyapunov(TURNING, NOISE)
    return np.einsum("...i,ij,...j->...", points, np.linalg.inv(S), points) / 2


def test_the_hamiltonian_of_sgd_is_that_of_all_its_draws():
    problem = tw.landscapes.mueller_brown().problem
    descent = tw.Descent(problem, tw.Reweighted(1), 0.002)
    theta, p = jnp.array([-0.6, 1.3]), jnp.array([0.3, -0.2])
    outcomes = descent.sampler.outcomes(problem, theta)
    gradients = np.asarray(problem.gradients(theta))[np.asarray(outcomes.index)]
    moves = -0.002 * np.einsum("ob,obd->od", np.asarray(outcomes.weights), gradients)
    probabilities = np.asarray(outcomes.probabilities)
    expected = np.log(probabilities @ np.exp(moves @ np.asarray(p))) / 0.002
    H = hamiltonian(descent)
    assert float(H.value(theta, p)) == pytest.approx(expected, rel=1e-10)
    # To second order in p it is that of the diffusion limit; the third is 1e-4 of it here.
    limit = hamiltonian(tw.diffusion_limit(descent))
    small = 1e-4 * p
    assert float(H.value(theta, small)) == pytest.approx(float(limit.value(theta, small)), rel=1e-6)


def test_the_length_is_the_largest_product_on_the_level_zero():
    descent = tw.Descent(tw.landscapes.mueller_brown().problem, tw.Minibatch(1), 0.002)
    H, theta = hamiltonian(tw.diffusion_limit(descent)), jnp.array([-0.6, 1.3])
    v = jnp.array([0.4, 0.3])
    p = H.momentum(theta, v)
    assert float(H.length(theta, v)) == pytest.approx(float(p @ v), rel=1e-10)
    # H(p) = 0 is the difference of terms of the size of the drift's.
    assert abs(float(H.value(theta, p))) < 1e-9 * abs(float(jax.grad(H.value, 1)(theta, 0 * p) @ p))
    assert float(H.length(theta, 3 * v)) == pytest.approx(3 * float(H.length(theta, v)), rel=1e-9)


@pytest.mark.parametrize(
    ("start", "chain", "equation"), [(-1.0, 5.083, 2.3419), (0.2, 1.8326, 0.18967)]
)
def test_barriers_of_an_and_ying(start, chain, equation):
    # Gradients are constant on each side, so that V is the length of the way times p with
    # .4 e^(-p g_1) + .6 e^(-p g_2) = 1, and p = 2 b/C for the equation. On the right, uphill
    # from .2, g = (.1, -5): p = log(1/.4)/.1 a unit, 1.8326 in all, for e^(-5p) is below 1e-19.
    # At the step 1, the exponent of smaller ones is this over the step.
    problem = tw.landscapes.piecewise_linear().problem
    descent = tw.Descent(problem, tw.Minibatch(1), 1.0)
    grid = tw.Grid(-3.0, 2.0, 1000)
    for dynamics, expected in ((descent, chain), (tw.diffusion_limit(descent), equation)):
        found = quasi_potential(dynamics, grid, start)
        assert found.at([0.0]) == pytest.approx(expected, abs=1e-3)
        barrier = found.barrier(lambda x: (x[0] < 0) == (start < 0))
        assert barrier.exponent == pytest.approx(found.at([0.0]), rel=1e-9)
        assert barrier.point == pytest.approx([0.0], abs=1e-9)


def test_quasi_potentials_of_the_classification_problem():
    # The diffusion's are integrals of 2 f'/C: .0425 for SGD, ten times that for RR. The chains'
    # differ by a factor of two only.
    landscape = tw.landscapes.robust_classification()
    sharp, top = landscape.minima[0].params, landscape.saddles[0].params
    grid = tw.Grid(-0.5, 1.0, 300)
    found = {}
    for name, sampler in (("sgd", tw.Minibatch(1)), ("rr", tw.Reweighted(1))):
        descent = tw.Descent(landscape.problem, sampler, 1.0)
        found[name] = [
            quasi_potential(dynamics, grid, sharp).at(top)
            for dynamics in (descent, tw.diffusion_limit(descent))
        ]
    assert found["sgd"][1] == pytest.approx(0.0425, abs=5e-5)
    assert found["rr"][1] == pytest.approx(0.4386, abs=5e-5)
    assert found["rr"][0] / found["sgd"][0] < 2


def test_a_linear_drift_that_turns():
    grid = tw.Grid([-1.0, -1.0], [1.0, 1.0], (64, 64))
    found = quasi_potential(LINEAR, grid, [0.0, 0.0])
    exact = linear_potential(grid.points).reshape(64, 64)
    # Beyond the lowest value at the border the best paths may lead through outside.
    border = min(exact[0].min(), exact[-1].min(), exact[:, 0].min(), exact[:, -1].min())
    inside = exact < 0.7 * border
    # V is a polynomial of second order, which cubic steps reproduce: what is left is the iteration.
    assert np.abs(found.values - exact)[inside].max() < 1e-6
    end = np.array([0.5, 0.3])
    path = minimum_action_path(LINEAR, jnp.zeros(2), jnp.asarray(end))
    assert path.action == pytest.approx(linear_potential(end), abs=max(3 * path.error, 1e-4))
    assert found.at(end) == pytest.approx(linear_potential(end), rel=1e-6)


def test_the_action_up_a_gradient_is_the_barrier_over_the_temperature():
    # 2 (f(0) - f(-1))/c = 2 .25/.1; the spline through 65 images errs in the fourth order.
    diffusion = tw.Diffusion(lambda t: -(t**2 - 1) * t, 0.1, 0.01)
    path = minimum_action_path(diffusion, jnp.array([-1.0]), jnp.array([0.0]))
    assert path.action == pytest.approx(5.0, rel=1e-6)


def test_a_chain_of_finite_steps_has_an_action_of_its_own():
    # x' = (1 - eta h) x + noise of variance eta c: the stationary variance is
    # eta c/(1 - (1 - eta h)^2), and W = x^2/(2 var); the equation's variance is c/(2 h).
    eta, h, c = 0.5, 1.0, 0.1
    diffusion = tw.Diffusion(lambda t: -h * t, c, eta)
    found = minimum_discrete_path(diffusion, jnp.array([0.0]), jnp.array([1.0])).action
    variance = eta * c / (1 - (1 - eta * h) ** 2)
    # It stops when twice the steps change less than 1e-4.
    assert found == pytest.approx(1 / (2 * variance), rel=1e-3)
    assert abs(found - h / c) > 0.2 * h / c


def test_mueller_brown_from_end_to_end():
    landscape = tw.landscapes.mueller_brown()
    deep, _, right = (point.params for point in landscape.minima)
    path = minimum_energy_path(landscape.problem, deep, right)
    heights = [saddle.value for saddle in path.saddles]
    expected = sorted(point.value for point in landscape.saddles)
    # The rounded digits of the landscape's own table.
    assert sorted(heights) == pytest.approx(expected, abs=1e-6)
    assert all(saddle.index == 1 for saddle in path.saddles)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: quasi_potential(LINEAR, tw.Grid([-1.0] * 3, [1.0] * 3, 16), jnp.zeros(3)),
            "dimension",
        ),
        (
            lambda: quasi_potential(
                tw.Descent(
                    tw.landscapes.toy_pair().problem, tw.Minibatch(1), lambda k: 0.1 / (k + 1)
                ),
                tw.Grid(-1.0, 2.0, 64),
                1.0,
            ),
            "step",
        ),
        (
            lambda: minimum_action_path(
                tw.Descent(tw.landscapes.toy_pair().problem, tw.Minibatch(1), 0.1),
                jnp.array([1.0]),
                tw.landscapes.toy_pair().saddles[0].params,
            ),
            "noise at the point of rest .* vanishes",
        ),
        (
            lambda: minimum_energy_path(
                tw.landscapes.mueller_brown().problem, jnp.zeros(2), jnp.ones(2)
            ),
            "minimum",
        ),
    ],
)
def test_refusals(ask, message):
    with pytest.raises(InputError, match=message):
        ask()
