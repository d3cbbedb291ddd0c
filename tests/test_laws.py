"""What many chains find against grid solutions and exact laws of the chain itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from helpers import bowls
from thalweg.landscapes import mueller_brown

KEY = jax.random.key(11)
POTENTIAL = mueller_brown(a1=-200.0).problem


def drift(position):
    """Minus the gradient of the potential over twenty: the mean of the four terms is V/4."""
    return -0.2 * POTENTIAL.gradient(position)


def exits(steps, chains=10_240):
    """Chains of the reference set-up: from the deep minimum to a disc about another."""
    # Single precision, as such runs are made.
    start = jnp.asarray([-0.5582236, 1.4417258], jnp.float32)
    diffusion = tw.Diffusion(drift, 2.0, 1e-3, method="heun")
    ball = tw.stopping.EnteredBall([0.6234994, 0.0280378], 0.2)
    return tw.simulate(diffusion, start, steps=steps, key=KEY, chains=chains, exit=ball)


@pytest.mark.slow
def test_mean_exit_time_is_that_of_the_grid():
    # The backward equation on grids of 256 and 512 cells a side: 26.782 and 26.774 units of time.
    # Seen only once a step, the disc is smaller by .5826 sqrt(2 dt) = .026 (D. Siegmund 1979),
    # which adds .12 (the grid has 27.22 at a radius of .1): half a standard error. Heun's scheme,
    # for Euler's is 2 % low at this step (benchmarks/README.md).
    run = exits(100_000)
    assert run.stats["route"] == "lanes"
    assert 0.96 < float(np.mean(run.exited)) < 0.99
    mean, error = (1e-3 * x for x in run.mean_exit_step())
    assert error < 0.3
    assert abs(mean - 26.782) < 3 * error


def test_a_short_horizon_is_warned_of():
    with pytest.warns(UserWarning, match="from a run of 5000; run longer"):
        mean, error = exits(5000).mean_exit_step()
    # Nobody leaves in the first unit of time: the estimate is too large by far more than its error.
    assert mean * 1e-3 - 26.782 > 3 * error * 1e-3


def test_stationary_covariance_of_the_chain_on_quadratics():
    # x -> x - eta H_i (x - c_i): mean m and second moments M solve linear equations,
    # M = E[A M A' + A m b' + b m' A' + b b'] with A = 1 - eta H_i and b = eta H_i c_i.
    problem, eta, chains = bowls(6, 2), 0.4, 20_000
    curvature, centre = (np.asarray(problem.data[name]) for name in ("curvature", "centre"))
    A = np.eye(2) - eta * np.einsum("ni,ij->nij", curvature, np.eye(2))
    b = eta * curvature * centre
    m = np.linalg.solve(np.eye(2) - A.mean(axis=0), b.mean(axis=0))
    cross = np.einsum("nij,j,nk->ik", A, m, b) / len(b)
    rest = cross + cross.T + b.T @ b / len(b)
    linear = np.mean([np.kron(a, a) for a in A], axis=0)
    second = np.linalg.solve(np.eye(4) - linear, rest.reshape(-1)).reshape(2, 2)
    exact = second - np.outer(m, m)
    # The start is forgotten at the rate .8 a step: 1e-19 after two hundred.
    run = tw.simulate(
        tw.Descent(problem, tw.Minibatch(1), eta), jnp.zeros(2), steps=200, key=KEY, chains=chains
    )
    x = np.asarray(run.params) - m
    products = x[:, :, None] * x[:, None, :]
    error = products.std(axis=0, ddof=1) / np.sqrt(chains)
    assert (np.abs(x.mean(axis=0)) < 4 * x.std(axis=0) / np.sqrt(chains)).all()
    assert (np.abs(products.mean(axis=0) - exact) < 4 * error).all()
    assert (error < 0.03 * np.abs(np.diag(exact)).min()).all()
