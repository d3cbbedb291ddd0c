"""Paths of least action against closed forms, shooting and dynamic programming."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq

import thalweg as tw
from thalweg.errors import InputError
from thalweg.paths.action_path import minimum_action_path
from thalweg.paths.discrete_path import minimum_discrete_path


class Polynomial(eqx.Module):
    """A drift of third degree in the plane: one program for all of them."""

    linear: jax.Array
    square: jax.Array
    cube: jax.Array

    def __call__(self, p):
        flat = jnp.outer(p, p)
        cubes = jnp.einsum("ijkl,j,k,l->i", self.cube, p, p, p)
        return self.linear @ p + jnp.einsum("ijk,jk->i", self.square, flat) + cubes


class Noise(eqx.Module):
    """A covariance times 1 + slope (x + 1)^2, times (x - zero)^2 if it vanishes."""

    base: jax.Array
    slope: jax.Array
    zero: jax.Array
    vanishes: jax.Array

    def __call__(self, p):
        factor = 1 + self.vanishes * ((p[0] - self.zero) ** 2 - 1)
        return self.base * (1 + self.slope * (p[0] + 1) ** 2) * factor


def diffusion(terms, covariance=1.0, *, slope=0.0, zero=None, step=0.01):
    """Terms: the coefficient of x^m y^n in the i-th component, by (i, m, n)."""
    parts = [np.zeros((2,) * (degree + 1)) for degree in (1, 2, 3)]
    for (i, m, n), value in terms.items():
        parts[m + n - 1][(i, *[0] * m, *[1] * n)] = value
    vanishes = 0.0 if zero is None else 1.0
    numbers = (jnp.asarray(x) for x in (slope, zero or 0.0, vanishes))
    noise = Noise(jnp.asarray(covariance * np.eye(2)), *numbers)
    return tw.Diffusion(Polynomial(*map(jnp.asarray, parts)), noise, step)


def linear(B, covariance, step=0.01):
    terms = {(i, 1 - j, j): B[i][j] for i in range(2) for j in range(2)}
    noise = Noise(jnp.asarray(covariance), *map(jnp.asarray, (0.0, 0.0, 0.0)))
    return tw.Diffusion(diffusion(terms).drift, noise, step)


# x - x^3 along x, y decays.
WELL = {(0, 1, 0): 1.0, (0, 3, 0): -1.0, (1, 0, 1): -1.0}
LEFT, TOP, RIGHT = (np.array([x, 0.0]) for x in (-1.0, 0.0, 1.0))
DECAY = np.array([[-1.0, 1.5], [0.0, -2.0]])
SPIRAL = np.array([[-1.0, 2.0], [-1.0, -1.5]])
UNEQUAL = np.array([[1.0, 0.3], [0.3, 0.5]]) / 10


@pytest.mark.slow
def test_gradient_drift_climbs_the_path_of_minimum_energy():
    # f = (x^2 - 1)^2/4 + 2 (y - x^2)^2, noise c I: V = 2 (f - f_min)/c, and p its gradient.
    c = 0.2
    terms = {(0, 1, 0): 1.0, (0, 3, 0): -9.0, (0, 1, 1): 8.0, (1, 0, 1): -4.0, (1, 2, 0): 4.0}
    field = diffusion(terms, c)
    path = minimum_action_path(field, np.array([-1.0, 1.0]), TOP)
    assert abs(path.action - 2 * 0.25 / c) < path.error < 1e-3
    slopes = np.array([-field.drift(jnp.asarray(x)) for x in path.points])
    np.testing.assert_allclose(path.momenta, 2 * slopes / c, rtol=0, atol=1e-2)
    x, y = path.points.T
    heights = (x**2 - 1) ** 2 / 4 + 2 * (y - x**2) ** 2
    # A path of energy bends: the straight line would pass at y = -x.
    assert np.abs(y + x).max() > 0.1
    np.testing.assert_allclose(path.spent, 2 * heights / c, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "drift", [DECAY, pytest.param(SPIRAL, marks=pytest.mark.slow)], ids=["decay", "spiral"]
)
def test_linear_drift(drift):
    S = scipy.linalg.solve_continuous_lyapunov(drift, -UNEQUAL)
    end = np.array([1.0, 0.7])
    path = minimum_action_path(linear(drift, UNEQUAL), np.zeros(2), end)
    exact = end @ np.linalg.solve(S, end) / 2
    assert abs(path.action - exact) < path.error < 1e-4 * exact
    # p = S^-1 x is the gradient; the way is that of the time-reversed drift.
    outside = np.linalg.norm(path.points, axis=1) > 0.1
    points, momenta = path.points[outside], path.momenta[outside]
    expected = np.linalg.solve(S, points.T).T
    np.testing.assert_allclose(momenta, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    moves = np.diff(points, axis=0)
    middle = (points[1:] + points[:-1]) / 2
    onwards = middle @ drift.T + np.linalg.solve(S, middle.T).T @ UNEQUAL
    across = moves[:, 0] * onwards[:, 1] - moves[:, 1] * onwards[:, 0]
    sizes = np.linalg.norm(moves, axis=1) * np.linalg.norm(onwards, axis=1)
    assert np.abs(across / sizes).max() < 2e-2


@pytest.mark.slow
def test_the_action_is_of_fourth_order():
    S = scipy.linalg.solve_continuous_lyapunov(DECAY, -UNEQUAL)
    end = np.array([1.0, -0.7])
    exact = end @ np.linalg.solve(S, end) / 2
    found = [
        minimum_action_path(linear(DECAY, UNEQUAL), np.zeros(2), end, images=n) for n in (32, 64)
    ]
    errors = [abs(path.action - exact) for path in found]
    assert np.log2(errors[0] / errors[1]) / np.log2(63 / 31) == pytest.approx(4, abs=1)


def _maier_stein(alpha, c=0.1):
    """x - x^3 - alpha x y^2, -(1 + x^2) y: a gradient for alpha = 1."""
    terms = {(0, 1, 0): 1.0, (0, 3, 0): -1.0, (0, 1, 2): -alpha, (1, 0, 1): -1.0, (1, 2, 1): -1.0}
    return diffusion(terms, c)


@pytest.mark.parametrize(("alpha", "on_axis"), [(1.0, True), (3.5, True), (4.5, False)])
def test_maier_stein_leaves_the_axis(alpha, on_axis):
    # R. S. Maier and D. L. Stein, Phys. Rev. Lett. 71 (1993): the path is the axis up to alpha = 4,
    # with V = 2/c int (x - x^3); beyond, cheaper ways lead around it on either side.
    path = minimum_action_path(_maier_stein(alpha), LEFT, RIGHT)
    np.testing.assert_allclose(path.rests, [LEFT, TOP, RIGHT], rtol=0, atol=1e-9)
    # Down from the saddle nothing is spent.
    top = np.linalg.norm(path.points, axis=1).argmin()
    np.testing.assert_allclose(path.spent[top:], path.action, rtol=1e-12)
    np.testing.assert_array_equal(path.momenta[top + 1 :], 0)
    if on_axis:
        # The action is stationary: quadratic in what is left of the first bend.
        assert path.action == pytest.approx(5, abs=1e-9)
        assert np.abs(path.points[:, 1]).max() < 1e-4
    else:
        assert path.action < 4.96
        assert np.abs(path.points[:, 1]).max() > 0.1


def _shot(alpha, c, angle, distance=1e-3):
    """Hamilton's equations from beside (-1, 0), where V = 2 |d|^2/c; the last is the action."""

    def field(_, z):
        x, y, p, q, _ = z
        bx, by = x - x**3 - alpha * x * y**2, -(1 + x**2) * y
        dp = -((1 - 3 * x**2 - alpha * y**2) * p - 2 * x * y * q)
        dq = -(-2 * alpha * x * y * p - (1 + x**2) * q)
        return bx + c * p, by + c * q, dp, dq, c * (p**2 + q**2) / 2

    def arrived(_, z):
        return min(z[0] + 1e-3, 1 - abs(z[1]))

    def crossed(_, z):
        return z[1]

    arrived.terminal = crossed.terminal = True
    d = distance * np.array([np.cos(angle), np.sin(angle)])
    start = [-1 + d[0], d[1], *(4 * d / c), 2 * d @ d / c]
    return solve_ivp(field, (0, 30), start, rtol=1e-10, atol=1e-12, events=[arrived, crossed]).y


def test_maier_stein_against_shooting():
    c, alpha = 0.1, 10.0
    low, high = 1.1871, 1.235
    for _ in range(30):
        middle = (low + high) / 2
        crosses = _shot(alpha, c, middle)[1, -1] < 1e-9
        low, high = (middle, high) if crosses else (low, middle)
    ray = _shot(alpha, c, high)
    nearest = np.hypot(ray[0], ray[1]).argmin()
    # What is missing up to the saddle is p x/2 to leading order, as V is quadratic around it.
    x, p = ray[:2, nearest], ray[2:4, nearest]
    shot = ray[4, nearest] - p @ x / 2
    path = minimum_action_path(_maier_stein(alpha, c), LEFT, TOP)
    # p x/2 is 7e-6 there, at a distance of 1e-3, and good to a hundredth; the path to its error.
    assert np.hypot(*x) < 2e-3
    assert abs(path.action - shot) < path.error + 1e-6
    assert path.error < 5e-5


def test_state_dependent_noise():
    # Dai and Zhu with beta = 1 + (x + 1)^2/2 and L = (x^2 - 1)^2/4: the exponent int L'/beta.
    field = diffusion(WELL, 2.0, slope=0.5)
    exact = quad(lambda x: (x**3 - x) / (1 + 0.5 * (x + 1) ** 2), -1, 0, epsabs=1e-13)[0]
    assert exact == pytest.approx(0.2225185, abs=5e-8)
    for end in (TOP, RIGHT):
        assert minimum_action_path(field, LEFT, end).action == pytest.approx(exact, abs=1e-9)
    # Any point of the basin has its quasi-potential, beside the axis more than on it.
    exact = quad(lambda x: (x**3 - x) / (1 + 0.5 * (x + 1) ** 2), -1, -0.5)[0]
    assert minimum_action_path(field, LEFT, np.array([-0.5, 0.0])).action == pytest.approx(exact)
    assert minimum_action_path(field, LEFT, np.array([-0.5, 0.3])).action > exact + 0.03


def _wells(sigma, step, **sampler):
    return tw.Descent(
        tw.landscapes.double_well(sigma=sigma).problem, tw.Minibatch(1, **sampler), step
    )


A, O, B = (np.array([x]) for x in (-1.0, 0.0, 1.0))


def test_descent_itself():
    # One draw is f' + sigma or f' - sigma: exp(-q f') cosh(q sigma) = 1 for q = eta p.
    def q(x, sigma):
        slope = x**3 - x
        # q f' = log cosh(q sigma) lies between the parabola and the wedge.
        return brentq(
            lambda q: np.logaddexp(q * sigma, -q * sigma) - np.log(2) - q * slope, 1e-9, 1e3
        )

    step, values = 0.1, {}
    for sigma in (1.0, 4.0):
        exact = quad(lambda x, s=sigma: q(x, s), -1 + 1e-9, -1e-9, epsabs=1e-10)[0] / step
        for end in (O, B):
            path = minimum_action_path(_wells(sigma, step), A, end)
            assert path.action == pytest.approx(exact, rel=1e-7)
        values[sigma] = path.action
    # The diffusion's exponent is (f(0) - f(-1))/T. With cosh to fourth order SGD's is more by the
    # share (2/3) int f'^3 / (sigma^2 int f') = (2/3) (1/40) / (sigma^2/4).
    diffusion_limit = [0.25 / (step * sigma**2 / 2) for sigma in values]
    more = np.array(list(values.values())) / diffusion_limit - 1
    assert more[1] == pytest.approx((2 / 3) / 10 / 16, rel=0.03)
    assert more[0] > 0.07


def test_the_step_sets_the_scale_and_the_batch():
    one = minimum_action_path(_wells(1.0, 0.1), A, O).action
    # Slow walks: the exponent is 1/step times a number.
    assert minimum_action_path(_wells(1.0, 0.05), A, O).action == pytest.approx(2 * one, rel=1e-9)


@pytest.mark.parametrize("step", [pytest.param(0.05, marks=pytest.mark.slow), 0.5])
def test_linear_chain(step):
    S = scipy.linalg.solve_discrete_lyapunov(np.eye(2) + step * SPIRAL, step * UNEQUAL)
    end = np.array([1.0, 0.7])
    path = minimum_discrete_path(linear(SPIRAL, UNEQUAL, step), np.zeros(2), end)
    exact = end @ np.linalg.solve(S, end) / 2
    # A quadratic problem, solved to a foreseen gain of 1e-11 of itself.
    assert path.action == pytest.approx(exact, rel=1e-9)
    assert path.spent[-1] == pytest.approx(path.action, rel=1e-12)
    slow = end @ np.linalg.solve(scipy.linalg.solve_continuous_lyapunov(SPIRAL, -UNEQUAL), end) / 2
    assert slow > (1.05 if step < 0.1 else 3) * exact


def _programmed(cost, points=801):
    """The least cost of a chain on a grid, from -1 to 1, by iteration over its steps."""
    x = np.linspace(-1.7, 1.7, points)
    costs = cost(x[:, None], x[None])
    value = np.where(np.arange(points) == np.abs(x + 1).argmin(), 0, np.inf)
    for _ in range(200):
        value = np.minimum(value, (value[:, None] + costs).min(axis=0))
    return value[np.abs(x - 1).argmin()]


def test_a_chain_overshoots():
    # At a step of 1/2 the cheapest way out of the left well is up its steep side, away from the
    # pass, and from there over everything: 4.19 against 4.85 the other way and 5 for the diffusion.
    step, c = 0.5, 0.1
    programmed = _programmed(lambda x, y: (y - x + step * (x**3 - x)) ** 2 / (2 * step * c))
    path = minimum_discrete_path(diffusion(WELL, c, step=step), LEFT, RIGHT)
    # Chains on a grid are dearer: each of about ten steps by the square of half a cell, 2e-3, over
    # twice the variance of a step, .1, at most, and 1e-4 is left of doubling the steps.
    assert -1e-4 * path.action - 1e-3 < path.action - programmed < 1e-4 * path.action
    assert path.points[:, 0].min() < -1.5
    assert path.action < 4.3


def test_descent_at_a_finite_step():
    step, sigma = 0.5, 1.0

    def cost(x, y):
        # The draw has to be u = +-1 on the mean: its rate is that of a coin.
        u = (x - y) / step - (x**3 - x)
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = ((1 + u) * np.log1p(u) + (1 - u) * np.log1p(-u)) / 2
        return np.where(np.abs(u) < 1, rate, np.inf)

    programmed = _programmed(cost)
    path = minimum_discrete_path(_wells(sigma, step), A, B)
    # As above; a coin's rate has a curvature of one at u = 0 and more beside it.
    assert -1e-4 * path.action - 1e-3 < path.action - programmed < 1e-4 * path.action
    # Slow walks at this step, and the diffusion: 1.075 and 1.
    assert path.action < 0.97


@pytest.mark.parametrize(
    ("dynamics", "ends", "options", "message"),
    [
        (diffusion(WELL, zero=-1.0), (LEFT, TOP), {}, "noise at the point of rest.*vanishes"),
        (diffusion(WELL, zero=-0.503), (LEFT, TOP), {}, "grows without end near.*vanishes there"),
        (diffusion(WELL, 0.0), (LEFT, TOP), {}, "noise at the point of rest.*vanishes"),
        (diffusion(WELL), (LEFT, LEFT), {}, "expected two different points"),
        (diffusion(WELL), (LEFT, np.zeros(3)), {}, r"shapes \(2,\) and \(3,\)"),
        (diffusion(WELL), (LEFT, TOP), {"images": 8}, "images is 8; expected a whole number"),
    ],
)
def test_requests_that_make_no_sense(dynamics, ends, options, message):
    with pytest.raises(InputError, match=message):
        minimum_action_path(dynamics, *ends, **options)


def test_chains_that_are_refused():
    with pytest.raises(InputError, match=r"not stable at a.*expected a step below 2/sharpness"):
        minimum_discrete_path(diffusion(WELL, step=1.1), LEFT, TOP)
    with pytest.raises(InputError, match=r"takes \d+ steps; expected at most 4096"):
        minimum_discrete_path(diffusion(WELL, step=1e-3), LEFT, TOP)


@pytest.mark.slow
def test_mueller_brown():
    # The four gradients often do not reach in the direction of the path of minimum energy: SGD and
    # RR climb elsewhere, and all four exponents differ. The quasi-potential on a grid is dearer.
    landscape = tw.landscapes.mueller_brown()
    saddle = landscape.saddles[1]
    found = {}
    for sampler in (tw.Minibatch(1), tw.Reweighted(1)):
        for images in (64, 128):
            descent = tw.Descent(landscape.problem, sampler, 0.002)
            path = minimum_action_path(descent, landscape.minima[0], saddle, images=images)
            found[type(sampler).__name__, images] = path
    for name in ("Minibatch", "Reweighted"):
        few, many = found[name, 64], found[name, 128]
        assert abs(few.action - many.action) < few.error < 0.01
    assert found["Minibatch", 128].action == pytest.approx(10.47, abs=0.01)
    assert found["Reweighted", 128].action == pytest.approx(11.90, abs=0.01)
