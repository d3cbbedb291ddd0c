"""The generator on a grid against closed forms: laws, exit times, upwind limits, derivatives."""

import contextlib
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from scipy.sparse.csgraph import connected_components

import thalweg as tw
from thalweg.markov import chunks, memory
from thalweg.markov.fluxes import bernoulli, flux
from thalweg.markov.generator import generator
from thalweg.markov.grid import Grid

POTENTIAL = tw.landscapes.mueller_brown(a1=-200.0).problem


def law(jumps):
    """The stationary density, by a direct solve with the middle cell pinned."""
    matrix = jumps.matrix().T.tocsc()
    pinned = jumps.count // 2
    rest = np.delete(np.arange(jumps.count), pinned)
    mass = np.ones(jumps.count)
    column = matrix[rest][:, [pinned]].toarray().ravel()
    mass[rest] = sp.linalg.spsolve(sp.csc_matrix(matrix[rest][:, rest]), -column)
    volumes = jumps.grid.volumes.ravel()[jumps.grid.cells]
    return mass / mass.sum() / volumes


def imbalance(jumps, log_density):
    """The largest relative difference of the flows of a pair of cells in detailed balance."""
    volumes = jumps.grid.volumes.ravel()[jumps.grid.cells]
    logs = log_density + np.log(volumes)
    count = jumps.count
    shape = (count, count)
    flow = sp.csr_array((jumps.rates, (jumps.source, jumps.target)), shape=shape)
    back = sp.csr_array(flow.T)
    flow = sp.csr_array(back.T)
    assert (flow.indices == back.indices).all()
    assert (flow.indptr == back.indptr).all()
    source = np.repeat(np.arange(count), np.diff(flow.indptr))
    return np.abs(flow.data * np.exp(logs[source] - logs[flow.indices]) / back.data - 1).max()


def centres(jumps):
    """The centres of the states."""
    return jumps.grid.points[jumps.grid.cells]


def over(function, points):
    """The values of a function at points."""
    return np.asarray(jax.jit(jax.vmap(function))(points))


def slope(errors):
    """The order, from errors on grids of which each has twice the cells of the one before."""
    return np.log2(np.asarray(errors)[:-1] / np.asarray(errors)[1:])


# Bernoulli's function


def test_bernoulli_is_exact_with_a_finite_derivative():
    z = np.concatenate([-np.logspace(-12, 2.8, 300), [0.0], np.logspace(-12, 2.8, 300)])
    wide = z.astype(np.longdouble)
    exact = np.where(z == 0, 1, wide / np.where(z == 0, 1, np.expm1(wide))).astype(float)
    value, slopes = jax.jit(jax.vmap(jax.value_and_grad(bernoulli)))(z)
    # A few roundings, and that of z in the exponential.
    assert (np.abs(value - exact) <= 1e-15 * (4 + np.abs(z)) * exact).all()
    square = z.astype(np.longdouble) ** 2
    series = -0.5 + wide / 6 - wide * square / 180 + wide * square**2 / 5040
    closed = (np.expm1(wide) - wide * np.exp(wide)) / np.where(z == 0, 1, np.expm1(wide)) ** 2
    expected = np.where(np.abs(z) < 0.01, series, closed).astype(float)
    # The closed form cancels to eps/z, at .1 and beyond; the series' next term is 1e-18 at .01.
    np.testing.assert_allclose(slopes, expected, rtol=0, atol=2e-14)


def test_bernoulli_of_large_numbers():
    z = jnp.array([-1e300, -1e4, 1e4, 1e300])
    value, slopes = jax.jit(jax.vmap(jax.value_and_grad(bernoulli)))(z)
    assert value.tolist() == [1e300, 1e4, 0.0, 0.0]
    assert slopes.tolist() == [-1.0, -1.0, 0.0, 0.0]


def test_flux_without_noise_is_upwind():
    y = jnp.array([-2.0, 0.0, 3.0, -2.0, 3.0])
    D = jnp.array([0.0, 0.0, 0.0, 1e-320, 1e-3])
    found = jax.jit(flux)(D, y, y, jnp.zeros(5, bool))
    assert found[:4].tolist() == [2.0, 0.0, 0.0, 2.0]
    assert found[4] == 0.0  # e^-3000
    slopes = jax.jit(jax.vmap(jax.grad(flux, argnums=(0, 2))))(D, y, y, jnp.zeros(5, bool))
    assert np.isfinite(np.asarray(slopes)).all()


# Laws


def test_gibbs_law_on_a_smooth_landscape_is_exact():
    diffusion = tw.Diffusion(lambda x: -0.2 * POTENTIAL.gradient(x), 2.0, 1e-3)
    jumps = generator(diffusion, Grid([-1.5, -0.4], [1.1, 2.0], (96, 96)))
    energy = over(lambda x: 0.2 * POTENTIAL.value(x), centres(jumps))
    # Rounding of energies up to 1600 in the exponent (3e-13), twice; the quadrature is below.
    assert np.abs(energy).max() < 1600
    assert imbalance(jumps, -energy) < 1e-12
    A = jumps.matrix()
    # Rows sum to zero up to the rounding of their terms.
    assert np.abs(A.sum(axis=1)).max() <= 1e-15 * 4 * np.abs(A.diagonal()).max()
    assert (jumps.rates > 0).all()
    assert (jumps.leaving == 0).all()
    mass = np.exp(energy.min() - energy)
    heavy = mass > 1e-250
    residual = (mass @ A) / (mass * np.abs(A.diagonal()) + 1e-300)
    assert np.abs(residual[heavy]).max() < 1e-12


def test_gibbs_law_in_three_dimensions_on_stretched_masked_cells():
    def energy(x):
        return (x[0] ** 2 - 1) ** 2 + 0.5 * (x[1] - x[0]) ** 2 + x[2] ** 4 / 4 + x[1] * x[2]

    edges = [1.5 * np.sinh(np.linspace(-1, 1, n + 1)) for n in (16, 13, 12)]
    grid = Grid.of_edges(*edges, mask=lambda x: jnp.sum(x * x) < 2.5)
    jumps = generator(tw.Diffusion(lambda x: -jax.grad(energy)(x), 1.0, 1e-2), grid)
    assert jumps.count < np.prod(grid.shape)
    assert jumps.source.dtype == np.int32
    values = over(energy, centres(jumps))
    # The quadrature is exact for a quartic; V = 2 dU, energies up to 40 in the exponent.
    assert imbalance(jumps, -2 * values) < 1e-13


@pytest.mark.parametrize(("factor", "power"), [(1.0, 2.0), (2.0, 1.0)])
@pytest.mark.parametrize("stretch", [False, True])
def test_noise_scaled_by_the_loss(factor, power, stretch):
    # Wojtowytsch: dX = -f' dt + sqrt(factor eta sigma f) dW has the law f^(-1 - power/(eta sigma)).
    eta_sigma = 0.5
    diffusion = tw.Diffusion(lambda x: -2 * x, lambda x: factor * eta_sigma * (1 + x[0] ** 2), 0.1)
    if stretch:
        grid = Grid.of_edges(6 * np.tanh(np.linspace(-1, 1, 241)) / np.tanh(1))
    else:
        grid = Grid(-6.0, 6.0, 240)
    jumps = generator(diffusion, grid)
    f = 1 + grid.points[:, 0] ** 2
    log_density = -(1 + power / eta_sigma) * np.log(f)
    # The quadrature: the integrand's poles are at i, some twenty times the distance of nodes away.
    assert imbalance(jumps, log_density) < 1e-12
    exact = np.asarray(grid.normalise(np.exp(log_density)))
    # The solve's rounding.
    assert grid.integrate(np.abs(law(jumps) - exact)) < 1e-12
    wrong = np.asarray(grid.normalise(f ** (-power / eta_sigma)))
    assert grid.integrate(np.abs(wrong - exact)) > 0.05


def test_midpoint_fluxes_are_of_second_order():
    diffusion = tw.Diffusion(lambda x: -2 * x, lambda x: 0.5 * (1 + x[0] ** 2), 0.1)
    errors = []
    for cells in (30, 60, 120):
        grid = Grid(-4.0, 4.0, cells)
        exact = grid.normalise((1 + grid.points[:, 0] ** 2) ** -5.0)
        found = law(generator(diffusion, grid, quadrature=1))
        errors.append(float(grid.integrate(np.abs(found - exact))))
    assert errors[-1] > 1e-5
    assert ((slope(errors) > 1.8) & (slope(errors) < 2.2)).all()


def straight_lines(K, cells):
    """Two wells of An and Ying with eta = 1: chain, exact law, and slopes and D of the cells."""
    problem, sampler = tw.landscapes.piecewise_linear(K=K, epsilon=0.01).problem, tw.Minibatch(1)
    diffusion = tw.Diffusion(
        lambda x: -problem.gradient(x), lambda x: sampler.covariance(problem, x), 1.0
    )
    grid = Grid(-6.0, 6.0, cells)  # kinks at -1, 0 and 1/K are faces
    tensor = over(lambda x: sampler.covariance(problem, x)[0, 0] / 2, grid.points)
    slopes = over(lambda x: problem.gradient(x)[0], grid.points)
    # The potential of q is piecewise linear, with half of the slope of either cell.
    steps = slopes / tensor * 6 / cells
    log_density = -np.concatenate([[0], np.cumsum(steps[1:] + steps[:-1])]) - np.log(tensor)
    return generator(diffusion, grid), log_density, slopes, tensor


def test_density_jumps_where_the_noise_does():
    # An and Ying, lemma 1: q = D p is continuous, and D jumps at 0 with the slopes of both terms.
    jumps, log_density, slopes, tensor = straight_lines(2.0, 480)
    grid = jumps.grid
    # Rounding of sums of 480 steps.
    assert imbalance(jumps, log_density) < 1e-13
    exact = grid.normalise(np.exp(log_density))
    found = law(jumps)
    assert grid.integrate(np.abs(found - exact)) < 1e-12
    # Up to zero from both sides; the solve's rounding over the lowest density, .003 of the highest.
    zero = np.searchsorted(grid.points[:, 0], 0.0)
    extrapolated = (1.5 * np.log(found[zero - 1]) - 0.5 * np.log(found[zero - 2])) - (
        1.5 * np.log(found[zero]) - 0.5 * np.log(found[zero + 1])
    )
    assert math.exp(extrapolated) == pytest.approx((2.01 / 1.01) ** 2, rel=1e-9)
    # The integrals of the four exponentials, on the whole line; the sums miss h^2 r^2/24 of the
    # masses for rates r <= 4: 4e-4 of the smaller side, which has .04.
    rates, sizes = np.unique(slopes / tensor), np.unique(tensor)
    assert np.abs(rates).max() < 4
    assert len(sizes) == len(rates) == 4
    assert float(grid.integrate(found, lambda x: x[0] < 0)) == pytest.approx(0.9616337, abs=2e-5)


@pytest.mark.slow
def test_noise_that_jumps_by_more_than_a_hundred():
    # K = 20: D jumps by (20.01/1.01)^2 = 393, so that one face is not fitted: first order.
    errors = []
    for cells in (240, 480, 960):
        jumps, log_density, _, _ = straight_lines(20.0, cells)
        exact = jumps.grid.normalise(np.exp(log_density))
        errors.append(float(jumps.grid.integrate(np.abs(law(jumps) - exact))))
    assert ((slope(errors) > 0.9) & (slope(errors) < 1.5)).all()
    assert errors[-1] < 1e-3


def test_law_without_gradient_structure():
    # Dai and Zhu, L = x^2/2 + y^2 and beta = 1 + .8 tanh(x + y), gamma/M = .6: a current remains.
    diffusion = tw.Diffusion(
        lambda x: -jnp.array([1.0, 2.0]) * x,
        lambda x: 0.6 * (1 + 0.8 * jnp.tanh(x[0] + x[1])),
        0.6,
    )
    moments = []
    for cells in (40, 80):
        grid = Grid(-5.0, 5.0, (cells, cells))
        density = law(generator(diffusion, grid)).reshape(grid.shape)
        moments.append(
            [float(grid.integrate(density * x**2)) for x in grid.points.T.reshape(2, *grid.shape)]
        )
    coarse, fine = np.array(moments)
    # Five digits are published, and the rest of the error after one extrapolation is of order h^4.
    np.testing.assert_allclose(fine + (fine - coarse) / 3, [0.29312, 0.14656], rtol=0, atol=2e-5)
    assert np.abs(fine - [0.29312, 0.14656]).max() > 1e-4


# Other drifts and noises: boundaries, singular and correlated noise


def test_exit_time_of_brownian_motion():
    # The mean exit time from (a, b) is (x - a)(b - x)/(2D). A wall half a cell beyond the centre
    # costs h^2/(8D) in all cells, and nothing else is inexact for a parabola.
    D, h = 0.7, 1 / 16
    grid = Grid(-1.0, 2.0, 48, boundary="absorbing")
    jumps = generator(tw.Diffusion(lambda x: 0 * x, 2 * D, 0.1), grid)
    x = grid.points[:, 0]
    time = scipy.linalg.solve(-jumps.matrix().toarray(), np.ones(48))
    np.testing.assert_allclose(time, (x + 1) * (2 - x) / (2 * D) + h**2 / (8 * D), rtol=1e-12)


@pytest.mark.parametrize(
    "noise", [1.4, jnp.array([[1.4, 0.0, 0.0], [0.0, 0.5, 0.1], [0.0, 0.1, 0.3]])]
)
def test_only_absorbing_sides_lose_mass(noise):
    grid = Grid(
        0.0, 1.0, (4, 5, 6), boundary=[("reflecting", "absorbing"), "reflecting", "reflecting"]
    )
    jumps = generator(tw.Diffusion(lambda x: jnp.array([2.0, 0.0, 0.0]), noise, 0.1), grid)
    # D B(V)/(half a cell times a cell), V = -b/D of half a cell.
    D, h = 0.7, 0.25
    V = -2.0 / D * h / 2
    expected = np.zeros(grid.shape)
    expected[-1] = D * V / math.expm1(V) / (h * h / 2)
    np.testing.assert_allclose(jumps.leaving.reshape(grid.shape), expected, rtol=1e-14)


def test_drift_without_noise_is_upwinded():
    grid = Grid(-1.0, 2.0, (6, 3))
    speed = jnp.array([1.5, -0.5])
    jumps = generator(tw.Diffusion(lambda x: speed, 0.0, 0.1), grid)
    expected = np.zeros((18, 18))
    number = grid.numbers
    expected[number[:-1], number[1:]] = 1.5 / 0.5
    expected[number[:, 1:], number[:, :-1]] = 0.5 / 1.0
    found = sp.csr_array((jumps.rates, (jumps.source, jumps.target))).toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_noise_that_vanishes_with_the_drift_keeps_the_state():
    # Wu, Ma and E's toy pair at eta = .7: about x = 1 drift and noise are linear in y = x - 1, and
    # y^p is a martingale for p = 1 + 2/(eta 1.8^2/2): from y = .1 the end of the branches at Y =
    # 2.6426721 is ever reached with the probability (.1/Y)^p = 1.2e-4. SGD leaves in ten steps.
    problem, sampler, eta = tw.landscapes.toy_pair().problem, tw.Minibatch(1), 0.7
    diffusion = tw.Diffusion(
        lambda x: -problem.gradient(x), lambda x: eta * sampler.covariance(problem, x), eta
    )
    Y, p = 2.6426721, 1 + 2 / (eta * 1.8**2 / 2)
    errors = []
    for cells in (101, 201, 401):  # the first is centred at 1
        h = Y / (cells - 0.5)
        grid = Grid(1 - h / 2, 1 + Y, cells, boundary=[("reflecting", "absorbing")])
        jumps = generator(diffusion, grid)
        assert (jumps.rates[jumps.source == 0] == 0).all()
        A = jumps.matrix().toarray()[1:, 1:]
        found = np.append(0, scipy.linalg.solve(-A, jumps.leaving[1:]))
        exact = (0.1 / Y) ** p
        errors.append(float(grid.interpolate(found, [[1.1]])[0]) / exact - 1)
    assert exact < 1.3e-4
    assert (slope(np.abs(errors)) > 1.8).all()
    assert abs(errors[-1]) < 0.01


# Correlated noise

CORRELATED = np.array([[2.0, 0.8], [0.8, 1.0]])
SPREAD = np.array([[1.0, 0.3, -0.2], [0.3, 0.8, 0.25], [-0.2, 0.25, 0.6]])


@pytest.mark.parametrize("covariance", [CORRELATED, SPREAD, np.eye(2) + 1e-13], ids=str)
def test_gibbs_law_with_correlated_noise_is_exact(covariance):
    # b = -D grad U with constant D: exact for a quartic, whatever the offsets. V up to 60.
    d = len(covariance)

    def energy(x):
        return jnp.sum(x**4) / 4 + x[0] * x[1] - x[-1]

    drift = Partial(lambda D, x: -D @ jax.grad(energy)(x) / 2, jnp.asarray(covariance))
    grid = Grid(-2.0, 2.5, (24, 18, 16)[:d])
    jumps = generator(tw.Diffusion(drift, covariance, 0.1), grid)
    values = over(energy, grid.points)
    assert imbalance(jumps, -values) < 1e-13
    if covariance[0, 1] > 1e-3:
        assert len(jumps.rates) > 2 * d * jumps.count
        return
    # All but diagonal: the scheme along the axes, up to 1e-13 and jumps with rates so small.
    plain = generator(tw.Diffusion(drift, np.diag(covariance), 0.1), grid)
    np.testing.assert_allclose(
        jumps.matrix().toarray(), plain.matrix().toarray(), rtol=1e-12, atol=1e-10
    )


def test_ornstein_uhlenbeck_process_with_rotation():
    # dX = -K X dt + Sigma^(1/2) dW with K C + C K' = Sigma, and a current.
    K = np.array([[1.0, 1.2], [-0.7, 0.9]])
    exact = scipy.linalg.solve_continuous_lyapunov(K, CORRELATED)
    diffusion = tw.Diffusion(lambda x: -jnp.asarray(K) @ x, CORRELATED, 0.1)
    errors = []
    for cells in (24, 48, 96):
        grid = Grid(-6.5, 6.5, (cells, cells))
        x, mass = grid.points, law(generator(diffusion, grid)) * grid.volumes.ravel()
        errors.append(np.abs(np.einsum("n,ni,nj->ij", mass, x, x) - exact).max())
    # Six standard deviations wide: what is beyond has 1e-8 of the mass.
    assert (slope(errors) > 1.9).all()
    assert errors[-1] < 0.01


def test_correlated_noise_that_varies():
    # b = -D grad U + div D has the law e^-U without a current, here with a D that turns.
    def tensor(x):
        angle = 0.6 * jnp.tanh(x[0] - x[1]) + 0.4
        v = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return 0.3 * jnp.eye(2) + (0.6 + 0.3 * jnp.sin(x[0])) * v[:, None] * v

    def energy(x):
        return x @ x + 0.3 * x[0] * x[1] + 0.2 * x[1] ** 4

    def drift(x):
        divergence = jnp.einsum("ijj->i", jax.jacfwd(tensor)(x))
        return divergence - tensor(x) @ jax.grad(energy)(x)

    diffusion = tw.Diffusion(drift, lambda x: 2 * tensor(x), 0.1)
    errors = []
    for cells in (24, 48):
        grid = Grid(-3.5, 3.5, (cells, cells))
        x = grid.points
        exact = np.exp(-over(energy, x))
        density = law(generator(diffusion, grid))
        difference = density - exact / exact.sum() / np.prod([w[0] for w in grid.widths])
        assert (density > 0).all()
        errors.append(np.abs(np.einsum("n,ni,nj->ij", difference, x, x)) * grid.volumes[0, 0])
    # The moments of a Gaussian of variance .5, exp(-24) of which is beyond the grid.
    order = np.log2(errors[0] / errors[1])
    assert ((order > 1.9) & (order < 2.1)).all()
    assert errors[1].max() < 4e-4


def test_exit_time_with_correlated_noise():
    # T = sin(pi x) sin(2 pi y), zero on the sides of the square, solves D:grad grad T = -f with
    # this f; every jump that would leave is cut off at the side it meets.
    (xx, xy), (_, yy) = CORRELATED / 2
    errors = []
    for cells in (16, 32, 64):
        grid = Grid(0.0, 1.0, (cells, cells), boundary="absorbing")
        jumps = generator(tw.Diffusion(lambda x: 0 * x, CORRELATED, 0.1), grid)
        x, y = np.pi * grid.points.T
        exact = np.sin(x) * np.sin(2 * y)
        right = np.pi**2 * ((xx + 4 * yy) * exact - 4 * xy * np.cos(x) * np.cos(2 * y))
        found = sp.linalg.spsolve(sp.csc_array(-jumps.matrix()), right)
        errors.append(np.abs(found - exact).max())
    assert (slope(errors) > 1.8).all()
    assert errors[-1] < 0.01


def first_moments(jumps, values):
    """The rate at which the mean of functions of the state grows, at each state."""
    return jumps.matrix() @ values


@pytest.mark.parametrize(("angle", "warned"), [(0.1, True), (0.5, False), (1.1, False)])
def test_strong_anisotropy_stays_monotone(angle, warned):
    # Eigenvalues 100 : 1. The thin ellipse at .1 needs offsets such as (10, 1).
    v = np.array([math.cos(angle), math.sin(angle)])
    covariance = 0.01 * np.eye(2) + 0.99 * outer(v)

    def drift(x, strength):
        return strength * jnp.asarray(covariance) @ (jnp.array([0.3, 1.0]) - x)

    grid = Grid(-2.0, 2.0, (20, 20))
    x = grid.points
    for strength in (0.0, 50.0):
        diffusion = tw.Diffusion(Partial(drift, strength=strength), covariance, 0.1)
        expected = pytest.warns(UserWarning, match="in 400 of 400 cells the covariance is too thin")
        with expected if warned else contextlib.nullcontext():
            jumps = generator(diffusion, grid)
        assert (jumps.rates >= 0).all()
        if strength and not warned:
            # b = -D grad U: V up to 500, each of them with a relative rounding of 1e-15.
            energy = strength * np.sum((x - [0.3, 1.0]) ** 2, axis=1)
            assert imbalance(jumps, -energy) < 1e-12
        if not strength:
            # The covariance of the state grows by Sigma, and 1 % is added to each variance.
            squares = first_moments(jumps, (x[:, :, None] * x[:, None, :]).reshape(-1, 4))
            inner = np.abs(x).max(axis=1) < 1
            difference = squares[inner].reshape(-1, 2, 2) - covariance
            scale = difference[0, 0, 0]
            np.testing.assert_allclose(difference, scale * np.eye(2) + 0 * difference, atol=1e-12)
            assert 0.002 < scale < 0.0155 if warned else abs(scale) < 1e-13


def test_low_rank_noise_runs_and_says_what_is_singular():
    # Two terms: the noise of one draw is along the difference of their gradients.
    def first(x):
        return jnp.sum((x - 1) ** 2) + 0.5 * x[0] * x[1]

    def second(x):
        return jnp.sum(x**4) / 8 + x[0]

    problem, sampler = tw.FiniteSum.of(first, second), tw.Minibatch(1)
    diffusion = tw.Diffusion(
        lambda x: -problem.gradient(x), lambda x: 0.5 * sampler.covariance(problem, x), 0.5
    )
    grid = Grid(-2.0, 2.0, (24, 24), boundary=["absorbing", "reflecting"])
    with pytest.warns(UserWarning, match="rank 1 in 576 of 576 cells.*at most 3.1 % of its trace"):
        jumps = generator(diffusion, grid)
    assert (jumps.rates >= 0).all()
    assert (jumps.leaving >= 0).all()
    keys = jumps.source.astype(int) * jumps.count + jumps.target
    assert len(np.unique(keys)) == len(keys)
    # The drift is exact, with or without a range to be in: rounding of rates up to 400.
    inner = np.abs(grid.points).max(axis=1) < 1.3
    drift = over(diffusion.drift, grid.points)
    np.testing.assert_allclose(first_moments(jumps, grid.points)[inner], drift[inner], atol=1e-12)


def test_noise_in_one_of_two_parameters():
    # Langevin's equation, dx = v dt, dv = -(x + v) dt + (2T)^(1/2) dW: the law is Gaussian with
    # variance T for both. Without noise in x that axis is upwinded, of first order; no warning.
    T = 0.5
    diffusion = tw.Diffusion(
        lambda z: jnp.array([z[1], -z[0] - z[1]]), jnp.array([0.0, 2 * T]), 0.1
    )
    errors = []
    for cells in (30, 60, 120):
        grid = Grid(-5.0, 5.0, (cells, cells))
        mass = law(generator(diffusion, grid)) * grid.volumes.ravel()
        errors.append(mass @ grid.points**2 - T)
    # One extrapolation leaves second order: a quarter and a quarter of that.
    order = slope(np.abs(errors))
    assert ((order > 0.8) & (order < 1.2)).all()
    assert (np.abs(2 * errors[2] - errors[1]) < 0.2 * np.abs(errors[2])).all()


@pytest.mark.parametrize("shape", ["diagonal", "tensor"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.floats(0.01, 300.0))
def test_rates_are_not_negative_and_mass_is_conserved(shape, seed, size):
    random = np.random.default_rng(seed)
    grid = Grid(-1.0, 1.5, (7, 6))
    coefficients = jnp.asarray(random.normal(size=(4, 2, 4)))
    drift = Partial(lambda c, s, x: s * waves(c[0], x), coefficients, jnp.asarray(size))
    if shape == "diagonal":
        noise = Partial(lambda c, x: jnp.maximum(waves(c[1], x), 0.0), coefficients)
    else:
        noise = Partial(lambda c, x: 0.3 * jnp.eye(2) + outer(waves(c[1], x)), coefficients)
    jumps = generator(tw.Diffusion(drift, noise, 0.1), grid)
    A = jumps.matrix()
    assert (jumps.rates >= 0).all()
    assert (jumps.source != jumps.target).all()
    # Rounding of the sum of up to twelve rates.
    assert (np.abs(A.sum(axis=1)) <= 12 * 2.3e-16 * np.abs(A.diagonal())).all()


def waves(coefficients, x):
    """A smooth random vector field."""
    return jnp.sin(coefficients[:, :2] @ x + coefficients[:, 2]) * coefficients[:, 3]


def outer(v):
    """A tensor of rank one."""
    return v[:, None] * v


# Derivatives


def noise_of(kind, level, x):
    """A covariance that depends on a level."""
    scale = level * (1 + x[0] ** 2 / 4)
    if kind == "diagonal":
        return jnp.array([1.0, 0.5]) * scale
    # Of full rank on the right, of rank one on the left, and thin.
    small = jnp.where(x[0] > 0, 0.4, 0.0)
    v = jnp.stack([0.2 + level / 10, jnp.ones_like(level)])
    return (small * jnp.eye(2) + outer(v)) * scale


@pytest.mark.parametrize("kind", ["diagonal", pytest.param("tensor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:the covariance:UserWarning")
def test_rates_are_differentiable(kind):
    grid = Grid(-1.0, 1.0, (6, 5), boundary="absorbing")

    def smooth(parameters):
        level, strength = parameters
        drift = Partial(lambda s, x: -s * x**3 + jnp.stack([x[1], -s * x[0]]), strength)
        diffusion = tw.Diffusion(drift, Partial(partial(noise_of, kind), level), 0.1)
        jumps = generator(diffusion, grid)
        weights = jnp.sin(jnp.arange(1.0, len(jumps.rates) + 1))
        return jnp.sum(weights * jumps.rates) + jnp.sum(jnp.asarray(jumps.leaving) ** 2)

    at = jnp.array([0.8, 1.3])
    found = jax.grad(smooth)(at)
    step = 1e-5
    for k, direction in enumerate(np.eye(2)):
        expected = (smooth(at + step * direction) - smooth(at - step * direction)) / (2 * step)
        # Third derivatives of the order of the value times step^2, rounding 1e-16 of it over step.
        assert float(found[k]) == pytest.approx(float(expected), rel=1e-7)


# Bad input


def plain(drift=lambda x: -x, noise=1.0):
    return tw.Diffusion(drift, noise, 0.1)


@pytest.mark.parametrize(
    ("diffusion", "words"),
    [
        (plain(drift=lambda x: -x[:1]), "drift must return"),
        (plain(noise=jnp.ones(3)), r"covariance of 2 parameters"),
        (
            plain(drift=lambda x: -jnp.sqrt(x + 0.4)),
            r"the drift is not a finite number at the point",
        ),
        (plain(noise=lambda x: 1 / (x[0] - x[0])), "the covariance is not a finite number at"),
        (plain(noise=lambda x: x), r"has the eigenvalue -0.75 at the point \[-0.75, -0.75\] \(and"),
        (
            plain(noise=lambda x: jnp.array([[1.0, 2.0], [2.0, 1.0]]) + 0 * x),
            "eigenvalue -1 at the",
        ),
        (
            plain(noise=lambda x: jnp.array([[1.0, 0.2], [0.1, 1.0]]) + 0 * x),
            "not symmetric at the",
        ),
        (
            plain(drift=lambda x: jnp.where(jnp.abs(x) < 0.1, jnp.nan, -x)),
            "on the way to a neighbour",
        ),
        (
            plain(noise=lambda x: jnp.where(jnp.abs(x) < 0.1, -1.0, 1.0)),
            "on the way to a neighbour",
        ),
    ],
)
def test_what_is_no_diffusion_is_refused(diffusion, words):
    with pytest.raises(tw.InputError, match=words):
        generator(diffusion, Grid(-1.0, 1.0, (4, 4)))


def test_requests_that_make_no_sense_are_refused(monkeypatch):
    grid = Grid(-1.0, 1.0, (4, 4))
    for quadrature in (0, True):
        with pytest.raises(tw.InputError, match="positive whole number of points"):
            generator(plain(), grid, quadrature=quadrature)
    stretched = Grid.of_edges([0.0, 1.0, 3.0], [0.0, 1.0, 2.0])
    with pytest.raises(tw.InputError, match="equally wide"):
        generator(plain(noise=CORRELATED), stretched)
    with pytest.raises(tw.InputError, match=r"inside of jax\.jit"):
        jax.jit(lambda s: generator(plain(noise=s), grid).rates)(1.0)
    monkeypatch.setattr(memory, "available_memory", lambda: 4000)
    with pytest.raises(tw.InputError, match="too many cells for memory"):
        generator(plain(), grid)


def test_noise_outside_of_a_mask_is_not_asked():
    grid = Grid(-1.0, 1.0, (8, 8), mask=lambda x: x[0] > 0)
    jumps = generator(plain(noise=lambda x: jnp.sqrt(x[0])), grid)
    assert jumps.count == 32
    assert (jumps.rates > 0).all()


def test_the_size_of_chunks_makes_no_difference(monkeypatch):
    # Terms of 3000 samples at once, or seven points at a time.
    samples = np.random.default_rng(0).normal(size=(3000, 2))
    problem = tw.FiniteSum(lambda x, sample: jnp.sum(jnp.cos(x - sample)), samples)
    diffusion = plain(drift=lambda x: -problem.gradient(x), noise=CORRELATED)
    grid = Grid(-1.0, 1.0, (12, 11), boundary="absorbing")
    assert chunks.width(diffusion.drift, jnp.zeros(2)) >= 6000
    one = generator(diffusion, grid)
    monkeypatch.setattr(chunks, "_SIZES", (7,))
    other = generator(diffusion, grid)
    # Sums of 3000 terms may be taken in another order.
    np.testing.assert_allclose(one.rates, other.rates, rtol=1e-12)
    np.testing.assert_allclose(one.leaving, other.leaving, rtol=1e-12)


def test_available_memory_is_that_of_the_machine():
    available = memory.available_memory()
    assert available is None or 2**20 < available < 2**50


@pytest.mark.parametrize("cells", [20, 33])
def test_corners_of_a_box_are_not_cut_off_by_thin_noise(cells):
    # Correlation .95: jumps are long and all lead out of two of the corners.
    covariance = 0.2 * np.array([[1.0, 0.95], [0.95, 1.0]])
    diffusion = tw.Diffusion(lambda t: -t, covariance, 0.1)
    jumps = generator(diffusion, Grid([-2.0, -1.5], [2.0, 1.5], (cells, cells)))
    shape = (jumps.count, jumps.count)
    graph = sp.csr_array((jumps.rates, (jumps.source, jumps.target)), shape=shape)
    assert connected_components(graph, directed=True, connection="strong")[0] == 1
    pairs = jumps.source.astype(np.int64) * jumps.count + jumps.target
    assert np.unique(pairs).size == pairs.size
