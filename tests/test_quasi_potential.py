"""Quasi-potentials on grids against closed forms, integrals, roots and paths of least action."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.integrate import quad
from scipy.optimize import brentq

import thalweg as tw
from thalweg.errors import InputError
from thalweg.paths import minimum_action_path, quasi_potential
from thalweg.paths.quasi_potential import Barrier

ZERO = np.zeros((2, 2))


def landscape(p):
    """Wells at (-1, 0) and (1, 0), and a bent valley between them over (0, -.3), where it is 1."""
    x, y = p
    return (x**2 - 1) ** 2 + 2 * (y - 0.3 * (x**2 - 1)) ** 2


class Drift(eqx.Module):
    """One program for all drifts in the plane."""

    slopes: jax.Array
    linear: jax.Array
    maier_stein: jax.Array
    alpha: jax.Array

    def __call__(self, p):
        x, y = p
        field = jnp.stack([x - x**3 - self.alpha * x * y**2, -(1 + x**2) * y])
        return self.slopes @ jax.grad(landscape)(p) + self.linear @ p + self.maier_stein * field


def plane(covariance, *, slopes=ZERO, linear=ZERO, maier_stein=0.0, alpha=0.0):
    numbers = (jnp.asarray(x) for x in (slopes, linear, maier_stein, alpha))
    return tw.Diffusion(Drift(*numbers), covariance, 0.01)


def grid_of(cells):
    """One box for all, for the sake of compiled programs."""
    return tw.Grid([-1.5, -1.0], [1.5, 1.0], (cells, cells))


LEFT = np.array([-1.0, 0.0])
NOISE = np.array([[1.0, 0.3], [0.3, 0.5]])
TURN = np.array([[0.0, 0.4], [-0.4, 0.0]])
# With b = (-Sigma/2 + A) grad U and any antisymmetric A, H(x, grad U) = b grad U + |grad U|^2/2 in
# the norm of Sigma vanishes: U is the quasi-potential, of a gradient drift or none.
KNOWN = {
    "isotropic": (np.eye(2), -np.eye(2) / 2),
    "anisotropic": (NOISE, -NOISE / 2),
    "turning": (NOISE, -NOISE / 2 + TURN),
}


def _known(name, cells):
    """The quasi-potential around (-1, 0), and its errors on the left below the saddle."""
    covariance, slopes = KNOWN[name]
    grid = grid_of(cells)
    found = quasi_potential(plane(covariance, slopes=slopes), grid, LEFT)
    exact = np.asarray(jax.vmap(landscape)(jnp.asarray(grid.points))).reshape(grid.shape)
    basin = (exact < 0.9) & (grid.points[:, 0].reshape(grid.shape) < 0)
    return found, np.abs(found.values - exact)[basin]


@pytest.mark.parametrize("name", KNOWN)
def test_closed_forms_in_the_plane(name):
    coarse, fine = (_known(name, cells) for cells in (32, 64))
    # Of third to fourth order, which these grids come near to: 3.3, 3.8 and 2.5. The mean, for the
    # largest error is that of a few cells around the steepest place.
    assert 2.3 < np.log2(coarse[1].mean() / fine[1].mean()) < 4.2
    assert fine[1].mean() < 1e-4
    # U is 1 at the saddle and beyond, where errors are of second order: that of the straight line
    # across a cell of h = 3/64 is h^2 U''/8 = 1.1e-3 along the path.
    found = fine[0]
    assert found.at([0.0, -0.3]) == pytest.approx(1, abs=1.1e-3)
    assert found.at([1.0, 0.0]) == pytest.approx(1, abs=1.1e-3)
    barrier = found.barrier(lambda p: p[0] < 0)
    assert barrier.exponent == pytest.approx(1, abs=1.1e-3)
    # Next to the saddle, to a cell.
    np.testing.assert_allclose(barrier.point, [0, -0.3], rtol=0, atol=2 / 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_the_order_on_finer_grids(name):
    coarse, fine = (_known(name, cells)[1].mean() for cells in (48, 96))
    assert 3 < np.log2(coarse / fine) < 4


@pytest.mark.slow
def test_the_error_that_is_estimated():
    covariance, slopes = KNOWN["isotropic"]
    found = quasi_potential(plane(covariance, slopes=slopes), grid_of(64), LEFT, error=True)
    _, errors = _known("isotropic", 64)
    basin = (found.values < 0.9) & (found.grid.points[:, 0].reshape(found.grid.shape) < 0)
    # It is that of half as many cells, seven times as large or more, and on most cells an upper
    # bound: at a change of sign it may vanish.
    estimated = found.error[basin]
    assert 4 < estimated.mean() / errors.mean() < 30
    barrier = found.barrier(lambda p: p[0] < 0)
    assert abs(barrier.exponent - 1) < 2 * barrier.error < 0.01


def test_linear_drift_has_lyapunovs_quasi_potential():
    drift = np.array([[-1.0, -0.8], [0.8, -0.5]])
    S = scipy.linalg.solve_continuous_lyapunov(drift, -NOISE)
    grid = grid_of(64)
    found = quasi_potential(plane(NOISE, linear=drift), grid, np.zeros(2))
    exact = np.einsum("ni,ij,nj->n", grid.points, np.linalg.inv(S), grid.points) / 2
    exact = exact.reshape(grid.shape)
    # Beyond the lowest value at the border the best paths may lead through outside.
    border = min(exact[0].min(), exact[-1].min(), exact[:, 0].min(), exact[:, -1].min())
    # Second order, which cubic steps reproduce: what is left is the iteration, to 1e-6 at most.
    assert np.abs(found.values - exact)[exact < 0.7 * border].max() < 1e-6


def test_maier_stein_agrees_with_the_paths_of_least_action():
    # Beyond alpha = 4 the path over the saddle leaves the axis, along which V is 2/c int (x - x^3).
    c, alpha = 0.1, 10.0
    field = plane(c * np.eye(2), maier_stein=1.0, alpha=alpha)
    found = quasi_potential(field, grid_of(64), LEFT)
    # At the saddle two ways are equal: first order across the ridge, where V falls by
    # 2 x .15 a unit of length on both sides; a quarter of a cell off it is .25/32 away.
    for end, tolerance in (([0.0, 0.0], 2.5e-3), ([-0.5, 0.3], 5e-4)):
        path = minimum_action_path(field, LEFT, np.array(end))
        assert path.error < tolerance / 10
        assert found.at(end) == pytest.approx(path.action, abs=tolerance)
    assert found.at([0.0, 0.0]) < 0.7 * (2 / c) * 0.25


WELL = tw.landscapes.double_well(sigma=1.0).problem


def _line(step):
    return tw.Descent(WELL, tw.Minibatch(1), step)


LINE = tw.Grid(-1.5, 1.5, 300)
A = np.array([-1.0])


def test_state_dependent_noise_on_a_line():
    # Dai and Zhu with beta = 1 + (x + 1)^2/2 and L = (x^2 - 1)^2/4: V = int L'/beta.
    field = tw.Diffusion(
        lambda x: x - x**3, lambda x: (2 * (1 + 0.5 * (x + 1) ** 2)).reshape(1, 1), 0.01
    )
    found = quasi_potential(field, LINE, A)
    for end in (-1.4, -0.5, 0.0):
        exact = quad(lambda x: (x**3 - x) / (1 + 0.5 * (x + 1) ** 2), -1, end, epsabs=1e-13)[0]
        # Gauss's rule on half cells of .005 is exact to rounding.
        assert found.at([end]) == pytest.approx(exact, abs=1e-12)
    assert found.at([0.0]) == pytest.approx(0.2225185, abs=5e-8)
    # Downhill nothing is spent.
    assert found.at([1.0]) == pytest.approx(found.at([0.0]), abs=1e-12)


def test_the_chains_own_on_a_line():
    # One draw is f' + 1 or f' - 1: exp(-q f') cosh q = 1 for q = step p.
    def q(x):
        slope = x**3 - x
        # Between the parabola and the wedge; downwards q has the sign of the way.
        low, high = (1e-9, 1e3) if slope > 0 else (-1e3, -1e-9)
        return brentq(lambda q: np.logaddexp(q, -q) - np.log(2) - q * slope, low, high)

    step = 0.1
    found = quasi_potential(_line(step), LINE, A)
    for end in (-1.3, -0.6, 0.0):
        near = -1 + 1e-7 * np.sign(end + 1)
        exact = quad(q, near, end - 1e-9, epsabs=1e-10)[0] / step
        # Both ends are left out, 1e-13 and 1e-8 of it.
        assert found.at([end]) == pytest.approx(exact, rel=1e-6)
    assert found.barrier(lambda x: x[0] < 0).exponent == pytest.approx(found.at([0.0]), rel=1e-12)
    # Larger than the diffusion's 2 (f(0) - f(-1))/(step c) = 5.
    assert found.at([0.0]) > 5.3
    # Slow walks: the exponent is 1/step times a number.
    half = quasi_potential(_line(step / 2), LINE, A)
    np.testing.assert_allclose(half.values, 2 * found.values, rtol=1e-9)


def test_places_out_of_reach():
    # Where |f'| > 1 no draw goes up: beyond the roots of x^3 - x = 1. Nor over a missing cell.
    whole = quasi_potential(_line(0.1), LINE, A)
    centres = LINE.centres[0]
    np.testing.assert_array_equal(np.isinf(whole.values), np.abs(centres) > 1.3247)
    confined = tw.Grid(-1.5, 1.5, 300, mask=centres != centres[100])
    found = quasi_potential(_line(0.1), confined, A)
    np.testing.assert_array_equal(found.values[:100], whole.values[:100])
    assert np.isinf(found.values[100:]).all()
    assert found.barrier(lambda x: x[0] < 0) == Barrier(np.inf, None)


@pytest.mark.parametrize(
    ("field", "grid", "at", "message"),
    [
        (plane(NOISE), tw.Grid([-1.0] * 3, [1.0] * 3, 16), np.zeros(3), "3 dimensions; expected"),
        (plane(NOISE), tw.Grid([-1.0] * 2, [1.0] * 2, (15, 20)), np.zeros(2), "at least 16"),
        (plane(NOISE, linear=-np.eye(2)), grid_of(32), np.zeros(1), r"expected a point of shape"),
        (plane(NOISE, linear=-np.eye(2)), grid_of(32), [np.nan, 0.0], "expected finite numbers"),
        (plane(NOISE, linear=-np.eye(2)), grid_of(32), [0.5, 0.0], "away from rest"),
        (plane(NOISE, linear=np.eye(2)), grid_of(32), np.zeros(2), "real part 1 "),
        (
            plane(np.diag([1.0, 0.0]), linear=-np.eye(2)),
            grid_of(32),
            np.zeros(2),
            "vanishes in some direction",
        ),
        (_line(0.1), LINE, np.zeros(1), "does not lead back"),
        (_line(lambda k: 0.1 / (k + 1)), LINE, A, "needs a number as the step"),
    ],
)
def test_requests_that_make_no_sense(field, grid, at, message):
    with pytest.raises(InputError, match=message):
        quasi_potential(field, grid, at)


def test_regions_that_make_no_sense():
    found = quasi_potential(_line(0.1), LINE, A)
    with pytest.raises(InputError, match="does not hold the cell of the rest point"):
        found.barrier(lambda x: x[0] > 0)
    with pytest.raises(InputError, match="the region is all of the grid"):
        found.barrier(lambda x: x[0] < 2)
