"""Flat minimisers: the selection density against closed forms, and what noise really selects."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.integrate import dblquad, quad, solve_ivp

import thalweg as tw
from thalweg import manifolds
from thalweg.errors import InputError
from thalweg.noise_models import loss_scaled

KEY = jax.random.key(5)
TURN = 2 * np.pi


def of(f):
    """The objective f as a sum of one term."""
    return tw.FiniteSum(lambda p, _: f(p), jnp.zeros(1))


# f = s g^2 / 2 vanishes where g does, with the Hessian s grad g grad g' there.
ELLIPSE = of(lambda p: jnp.exp(2 * p[0]) * (p[0] ** 2 + 4 * p[1] ** 2 - 1) ** 2 / 2)


def tube(p, a):
    """Zero on an ellipsoid, or for a = 0 on a cylinder."""
    return jnp.exp(2 * p[2]) * (p[0] ** 2 + p[1] ** 2 + a * p[2] ** 2 - 1) ** 2 / 2


ELLIPSOID, CYLINDER = (tw.FiniteSum(tube, jnp.array([a])) for a in (4.0, 0.0))
# Two factors: the minimisers are a hyperbola.
FACTORS = of(lambda p: (p[0] * p[1] - 1) ** 2 / 2)


def ellipse(u):
    return jnp.concatenate([jnp.cos(u), jnp.sin(u) / 2])


def ellipsoid(u):
    r, z = jnp.sin(u[0]), jnp.cos(u[0]) / 2
    return jnp.stack([r * jnp.cos(u[1]), r * jnp.sin(u[1]), z])


def hyperbola(u):
    return jnp.concatenate([u, 1 / u])


def two_zeros(p):
    """Zeros with the Hessians I and diag(1, 2, 4); all params angles."""
    first = jnp.sum(2 * jnp.sin(p / 2) ** 2)
    second = jnp.sum(jnp.array([1.0, 2, 4]) * 2 * jnp.cos(p / 2) ** 2)
    return first * second / (first + second)


TWO_ZEROS = of(two_zeros)

# Least squares with more coefficients than data, w_j = sin(theta_j) between -1 and 1: X w = y with
# three rows orthogonal to (1, 1, 1, 1) leaves w = c + s for -.5 < s < .4.
ROWS = jnp.array([[1.0, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
CENTRE = jnp.array([0.6, -0.5, 0.1, -0.1])
LEAST_SQUARES = tw.FiniteSum(
    lambda p, xy: jnp.square(jnp.dot(xy[0], jnp.sin(p)) - xy[1]) / 2, (ROWS, ROWS @ CENTRE)
)


# The mean of s^2 by the selection density.
SELECTED = 0.1122735


def along(p):
    """The free coordinate s: the part of the coefficients that no datum sees."""
    return jnp.mean(jnp.sin(p) - CENTRE)


def coefficients(u):
    return jnp.arcsin(CENTRE - 0.05 + 0.45 * jnp.sin(u[0]))


def valley(p):
    """Zero for p[1:] = 0, with the Hessian diag(1, 1, exp(cos p[0])) across; all params angles."""
    weights = jnp.stack([jnp.ones_like(p[0]), jnp.ones_like(p[0]), jnp.exp(jnp.cos(p[0]))])
    return jnp.sum(weights * 2 * jnp.sin(p[1:] / 2) ** 2)


@functools.cache
def downhill(f):
    return lambda p: -jax.grad(f)(p)


def uniform(chains, d):
    return jax.random.uniform(jax.random.key(1), (chains, d), maxval=TURN)


def mean_and_error(values):
    values = np.asarray(values)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


# Spaces and projection.


def test_normal_space_of_an_ellipse():
    u = jnp.linspace(0, 6, 250)[:, None]
    points = jax.vmap(ellipse)(u)
    space = manifolds.normal_space(ELLIPSE, points.reshape(5, 50, 2))
    slopes = jnp.stack([2 * points[:, 0], 8 * points[:, 1]], axis=1)
    lengths = jnp.linalg.norm(slopes, axis=1)
    # On the ellipse to rounding, so is what is derived, times the condition of the eigenvectors.
    expected = 2 * points[:, 0] + 2 * jnp.log(lengths)
    assert space.codimension == 1
    np.testing.assert_allclose(space.log_det.ravel(), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(space.curvatures.ravel(), jnp.exp(expected), rtol=1e-13)
    normal = space.normal.reshape(250, 2)
    np.testing.assert_allclose(abs(jnp.sum(normal * slopes, axis=1)), lengths, rtol=1e-13)
    np.testing.assert_allclose(jnp.sum(space.tangent.reshape(250, 2) * slopes, 1), 0, atol=1e-13)
    assert space.gap > 1e12


def test_projection_is_the_limit_of_the_gradient_flow():
    # The flow of two factors keeps a^2 - b^2 and ends at a b = 1.
    starts = jnp.array([[3.0, 0.1], [0.2, 0.1], [-1.0, -2.0], [2.0, 2.0]])
    ends = manifolds.project(FACTORS, starts)
    assert bool(ends.arrived.all())
    np.testing.assert_allclose(ends.points[:, 0] * ends.points[:, 1], 1, rtol=0, atol=1e-11)
    np.testing.assert_allclose(ends.values, 0, atol=1e-22)
    kept = starts[:, 0] ** 2 - starts[:, 1] ** 2
    # A step errs by 1e-4, which counts 2 |theta| = 6 times, and there are some ten.
    np.testing.assert_allclose(ends.points[:, 0] ** 2 - ends.points[:, 1] ** 2, kept, atol=6e-3)


def test_projection_of_what_does_not_come_down():
    # At (0, 0), where nothing moves, is a saddle.
    ends = manifolds.project(FACTORS, jnp.array([[0.0, 0.0], [1.0, 1.0]]))
    assert ends.arrived.tolist() == [False, True]
    np.testing.assert_allclose(ends.values, [0.5, 0])


def test_isolated_minimisers_have_the_weights_of_laplace():
    zeros = jnp.array([[0.0, 0.0, 0.0], [np.pi, np.pi, np.pi]])
    log_weights = manifolds.selection_log_density(TWO_ZEROS, zeros)
    np.testing.assert_allclose(jnp.exp(log_weights), [1, 8**-0.5], rtol=1e-13)
    assert manifolds.normal_space(TWO_ZEROS, zeros).tangent.shape == (2, 3, 0)


# What the theory says, by quadrature.


def test_the_arithmetic_geometric_mean_is_another_integral():
    # Codimension 2, H = diag(1, .1): the power k/2 = 1 of v'Hv, not of its root.
    weights = np.array([1.0, 0.1])

    def form(t):
        return weights[0] * np.cos(t) ** 2 + weights[1] * np.sin(t) ** 2

    whole = quad(lambda t: 1 / form(t), 0, TURN)[0]
    assert whole == pytest.approx(TURN / np.sqrt(0.1), rel=1e-9)
    assert whole == pytest.approx(19.869177, abs=1e-6)
    root = quad(lambda t: (np.cos(t) ** 2 + 0.01 * np.sin(t) ** 2) ** -0.5, 0, TURN)[0]
    assert root == pytest.approx(TURN / special.agm(1, 0.1), rel=1e-9)
    assert root == pytest.approx(14.782549, abs=1e-6)


@pytest.mark.parametrize(("alpha", "expected"), [(1.49, 2.8115278), (1.499, 2.8267342)])
def test_masses_of_two_zeros_tend_to_the_ratio_of_determinants(alpha, expected):
    # Masses of f^-alpha in balls around zeros with H = I and diag(1, 2, 4): the radius cancels.
    def form(t, z):
        return (1 - z * z) * (np.cos(t) ** 2 + 2 * np.sin(t) ** 2) + 4 * z * z

    mass = dblquad(lambda t, z: form(t, z) ** -alpha, -1, 1, 0, TURN)[0]
    assert 4 * np.pi / mass == pytest.approx(expected, abs=1e-6)
    # The difference from sqrt 8 is of the first order: .0169 at .01, .00169 at .001.
    assert (8**0.5 - expected) / (1.5 - alpha) == pytest.approx(1.69, abs=0.01)


def marginal_of_gibbs(temperature):
    """The law exp(-f/T) of the valley: mean of cos p[0]."""
    u = TURN * np.arange(256) / 256
    weights = special.i0e(np.exp(np.cos(u)) / temperature)
    return float(np.sum(weights * np.cos(u)) / np.sum(weights))


def marginal_of_power(alpha):
    r"""The law f^-alpha of the valley: mean of cos p[0].

    f^-alpha = int t^(alpha - 1) e^(-t f) dt / Gamma(alpha), and the integral of e^(-t f) across is
    a product of Bessel functions, which falls like t^(-3/2).
    """
    u, log_t = TURN * np.arange(64) / 64, np.linspace(-15, 25, 4001)
    c, t = np.exp(np.cos(u))[:, None], np.exp(log_t)
    inner = np.trapezoid(special.i0e(t) ** 2 * special.i0e(c * t) * t**alpha, log_t, axis=1)
    beyond = TURN**-1.5 * c[:, 0] ** -0.5 * np.exp(25 * (alpha - 1.5)) / (1.5 - alpha)
    weights = inner + beyond
    return float(np.sum(weights * np.cos(u)) / np.sum(weights))


def test_both_laws_tend_to_the_same_density():
    # det(H)^{-1/2} = exp(-cos u / 2), and both differ from it by the first order.
    limit = -special.iv(1, 0.5) / special.iv(0, 0.5)
    constant = [marginal_of_gibbs(t) - limit for t in (0.02, 0.01, 0.005)]
    scaled = [marginal_of_power(1.5 - a) - limit for a in (0.04, 0.02, 0.01)]
    for differences in (constant, scaled):
        ratios = np.array(differences[:-1]) / np.array(differences[1:])
        # The second order adds its own share, T/lambda = .02 e and half of it.
        np.testing.assert_allclose(ratios, 2, rtol=0.05)
    assert abs(constant[-1]) < 5e-4
    assert abs(scaled[-1]) < 2e-3


# Charts.


def test_chart_of_an_ellipse():
    # The lengths of grad g and of the tangent cancel: p(u) ~ exp(-cos u).
    chart = manifolds.chart_selection(ELLIPSE, ellipse, 0.0, TURN, periodic=True)
    mean = -special.iv(1, 1) / special.iv(0, 1)
    # Periodic and smooth: exact to rounding.
    assert float(chart.average(lambda p: p[0])) == pytest.approx(mean, abs=1e-13)
    total = np.pi * special.iv(0, 1) / 2
    assert np.exp(chart.log_normaliser) == pytest.approx(total, rel=1e-13)
    assert chart.error < 1e-10
    density = chart.density(jnp.array([[0.0], [1.0]]))
    expected = np.exp(-np.cos([0.0, 1.0])) / (TURN * special.iv(0, 1))
    np.testing.assert_allclose(density, expected, rtol=1e-12)


def means_on_the_curve(function, first=-np.pi / 2):
    """The mean of a function of s on the curve of least squares, given u > first.

    Uniform angles have independent coefficients of density (1 - w^2)^{-1/2} / pi; given X w = y
    they have the density prod_j (1 - (c_j + s)^2)^{-1/2} of s. The other mean is by the length of
    the curve alone. The midpoint rule of 200,000 nodes: errors of the order of their square.
    """
    u = first + (np.pi / 2 - first) * (np.arange(200_000) + 0.5) / 200_000
    s = -0.05 + 0.45 * np.sin(u)
    squares = 1 - (np.asarray(CENTRE)[:, None] + s) ** 2
    given = np.prod(squares, axis=0) ** -0.5 * np.cos(u)
    length = np.sum(1 / squares, axis=0) ** 0.5 * np.cos(u)
    return [np.sum(weights * function(s)) / np.sum(weights) for weights in (given, length)]


def test_chart_of_least_squares_is_the_conditional_law():
    chart = manifolds.chart_selection(LEAST_SQUARES, coefficients, -np.pi / 2, np.pi / 2)
    for power in (1, 2):
        expected, other = means_on_the_curve(lambda s, power=power: s**power)
        found = float(chart.average(lambda p, power=power: along(p) ** power))
        assert found == pytest.approx(expected, abs=1e-10)
    assert expected == pytest.approx(SELECTED, abs=1e-6)
    # The determinant matters.
    assert other == pytest.approx(0.0943, abs=1e-4)


def test_charts_that_are_refused():
    for ends, end in (((0.0, 1.0), "0"), ((1.0, np.inf), "inf")):
        # The density of two factors is dt/t: as much in every octave.
        with pytest.raises(InputError, match=f"not integrable towards u = {end}.*no law"):
            manifolds.chart_selection(FACTORS, hyperbola, *ends)
    part = manifolds.chart_selection(FACTORS, hyperbola, 0.2, 5.0)
    assert part.log_normaliser == pytest.approx(np.log(np.log(25)), abs=1e-10)
    with pytest.raises(InputError, match="does not keep to smooth minimisers: 256 of 256 points"):
        manifolds.chart_selection(FACTORS, lambda u: 1.01 * hyperbola(u), 1.0, 2.0)
    with pytest.raises(InputError, match="2 coordinates and the minimisers have the dimension 1"):
        manifolds.chart_selection(FACTORS, lambda u: hyperbola(u[:1]), [1.0, 1.0], [2.0, 2.0])
    with pytest.raises(InputError, match="from 2 to 1; expected lower < upper"):
        manifolds.chart_selection(FACTORS, hyperbola, 2.0, 1.0)
    with pytest.raises(InputError, match="finite ends where it is periodic"):
        manifolds.chart_selection(FACTORS, hyperbola, 0.0, np.inf, periodic=True)
    with pytest.raises(InputError, match=r"one or two coordinates.*sample_selection"):
        manifolds.chart_selection(FACTORS, hyperbola, [0.0] * 3, 1.0)
    with pytest.raises(InputError, match=r"expected params of shape \(d,\)"):
        manifolds.chart_selection(FACTORS, lambda u: u[0], 1.0, 2.0)
    with pytest.raises(InputError, match="cannot be evaluated on 1 coordinates"):
        manifolds.chart_selection(FACTORS, lambda u: u @ jnp.ones((2, 2)), 1.0, 2.0)


def test_a_chart_across_a_crossing_is_refused():
    # x y = 0: two lines; on the one the density is 1/|x|, which has no integral.
    with pytest.raises(InputError, match=r"still changes by .* at 1024 nodes"):
        manifolds.chart_selection(
            bad("crossing"), lambda u: jnp.concatenate([u, jnp.zeros(1)]), -1.0, 1.5
        )


# Samples.


def walk_on(problem, start):
    return manifolds.sample_selection(problem, start, key=KEY, chains=256, steps=100)


@pytest.mark.slow
def test_samples_of_a_surface():
    surface = manifolds.chart_selection(
        ELLIPSOID, ellipsoid, [0.0, 0.0], [np.pi, TURN], periodic=[False, True]
    )
    starts = surface.points[::16]
    walk = walk_on(ELLIPSOID, starts)

    def moments(p):
        return jnp.stack([p[2], p[2] ** 2, p[0] ** 2, p[0]])

    # The Lebesgue measure on the ellipsoid is uniform in z, times e^{-z}.
    z, weights = np.polynomial.legendre.leggauss(20)
    weights = weights * np.exp(-z / 2) / np.sum(weights * np.exp(-z / 2))
    square = weights @ z**2
    expected = np.array([weights @ z / 2, square / 4, (1 - square) / 2, 0])
    np.testing.assert_allclose(surface.average(moments), expected, rtol=0, atol=1e-12)
    found, error = map(np.asarray, walk.average(moments))
    # Four moments at 3.5 standard errors; by the surface measure alone the first would be 0.
    assert (abs(found - expected) < 3.5 * error).all()
    assert error[0] < 0.15 * abs(expected[0])
    assert 0.3 < float(walk.acceptance.mean()) < 0.4
    # Chain 0 knows nothing of where the others started.
    other = walk_on(ELLIPSOID, jnp.repeat(starts[:1], 256, axis=0))
    np.testing.assert_array_equal(walk.points[0], other.points[0])
    assert not np.array_equal(walk.points[1], other.points[1])
    # On the cylinder the density is e^{-z}, for all z.
    with pytest.raises(InputError, match=r"still spread.*not compact.*no law"):
        walk_on(CYLINDER, jnp.repeat(jnp.array([[1.0, 0.0, 0.0]]), 256, axis=0))


@pytest.mark.slow
def test_samples_within_a_region():
    # Least squares with s > -.2, which is sin u > -1/3 on the chart.
    first = -np.arcsin(1 / 3)
    expected, other = means_on_the_curve(lambda s: s, first)
    u = jnp.linspace(first + 0.1, 1.5, 128)[:, None]
    points = jax.vmap(coefficients)(u)
    # The curve turns back where w_1 = 1, with another angle for it.
    starts = jnp.concatenate([points, points.at[:, 0].set(np.pi - points[:, 0])])
    walk = manifolds.sample_selection(
        LEAST_SQUARES,
        starts,
        key=KEY,
        chains=512,
        steps=150,
        within=lambda p: along(p) > -0.2,
        period=TURN,
    )
    assert float(walk.points.min()) >= 0
    assert float(walk.points.max()) <= TURN
    found, error = walk.average(along)
    assert abs(found - expected) < 3.5 * error
    # By the length of the curve alone.
    assert abs(found - other) > 5 * error


@pytest.mark.slow
def test_samples_in_single_precision():
    # Roots that lie close together must not pass for one: the mean would be -.33.
    circle = tw.FiniteSum(
        lambda p, _: jnp.exp(p[0]) * (p[0] ** 2 + p[1] ** 2 - 1) ** 2 / 2,
        jnp.zeros(1, jnp.float32),
    )
    start = jnp.array([[1.0, 0.0]], jnp.float32)
    walk = manifolds.sample_selection(circle, start, key=KEY)
    assert walk.points.dtype == jnp.float32
    found, error = walk.average(lambda p: p[0])
    assert abs(found + special.iv(1, 0.5) / special.iv(0, 0.5)) < 3.5 * error


# Bad points.

# One program for all: the sample says how much there is of each term.
TERMS = {
    "x^2": lambda x, y: x**2,
    "y": lambda x, y: y,
    "y^2": lambda x, y: y**2,
    "y^4": lambda x, y: y**4,
    "y^6": lambda x, y: y**6,
    "x^2 y^2": lambda x, y: x**2 * y**2,
    "two zeros": lambda x, y: x**2 * (x - 1) ** 2,
    # Minima at 1 and -1, .267 higher.
    "two heights": lambda x, y: x**4 / 4 - x**3 / 15 - x**2 / 2 + x / 5,
    "kink at 5": lambda x, y: jnp.abs(x - 5) ** 1.5,
}
BAD = {
    "slope": ({"x^2": 1, "y": 1}, r"256 of 256 points are no.*manifolds\.project"),
    "saddle": ({"x^2": 1, "y^2": -1}, "no minimiser, with the curvature -2"),
    "nearly flat": ({"x^2": 1, "y^2": 1e-7}, "no gap between zero and the rest"),
    "crossing": ({"x^2 y^2": 1}, "is zero; expected minimisers across which"),
    "fourth power": ({"x^2": 1, "y^4": 1}, "leads off the minimisers"),
    "sixth power": ({"x^2": 1, "y^6": 1}, "leads off the minimisers"),
    "kink": ({"kink at 5": 1, "y^2": 1}, "not finite; expected minimisers"),
    "two heights": ({"two heights": 1}, r"differ in height by 0\.267"),
    "two manifolds": ({"two zeros": 1, "x^2 y^2": 1}, "ranks from 1 to 2"),
}


def terms(p, sizes):
    return jnp.dot(sizes, jnp.stack([term(*p) for term in TERMS.values()]))


def bad(name):
    return tw.FiniteSum(terms, jnp.array([[BAD[name][0].get(t, 0.0) for t in TERMS]], float))


@pytest.mark.parametrize("name", BAD)
def test_points_that_are_refused(name):
    # As many as of a chart, for one program.
    points = {
        "kink": [[5.0, 0.0]] * 2,
        # Lines at x = 1 and -1.
        "two heights": [[1.0, 0.0], [-1.0, 0.0]],
        # A line, and beside it a single one.
        "two manifolds": [[0.0, 0.5], [1.0, 0.0]],
    }.get(name, [[0.0, 0.0]] * 2) * 128
    with pytest.raises(InputError, match=BAD[name][1]):
        manifolds.sample_selection(bad(name), jnp.array(points), key=KEY)


def test_requests_that_make_no_sense():
    problem = bad("saddle")
    with pytest.raises(InputError, match="points are not finite"):
        manifolds.selection_log_density(problem, jnp.array([np.nan, 0.0]))
    with pytest.raises(InputError, match=r"points have shape \(0,\)"):
        manifolds.selection_log_density(problem, jnp.array([]))
    with pytest.raises(InputError, match="must return one floating-point number"):
        manifolds.selection_log_density(of(lambda p: p), jnp.zeros(2))
    with pytest.raises(InputError, match="scale is 0; expected a positive length"):
        manifolds.project(problem, jnp.zeros(2), scale=0)
    with pytest.raises(InputError, match="expected at least 2 chains of 8 steps"):
        manifolds.sample_selection(problem, jnp.zeros(2), key=KEY, chains=1)
    line, start = bad("two heights"), jnp.array([[1.0, 0.0]] * 256)
    with pytest.raises(InputError, match="not within the region"):
        manifolds.sample_selection(line, start, key=KEY, within=lambda p: p[0] < 0)
    with pytest.raises(InputError, match="period is -1; expected a positive number"):
        manifolds.sample_selection(line, start, key=KEY, period=-1)
    with pytest.raises(InputError, match="isolated, and there is nothing to walk along"):
        manifolds.sample_selection(TWO_ZEROS, jnp.zeros((2, 3)), key=KEY)
    with pytest.raises(InputError, match="codimension is 0"):
        manifolds.collapse_threshold(0, convention="sde")
    with pytest.raises(InputError, match="unknown convention"):
        manifolds.collapse_threshold(3, convention="ito")


# What simulations find.


def gibbs_of_least_squares(temperature):
    """The mean of s^2 under exp(-f/T), by the trapezoidal rule over the angles.

    f and s depend on sines alone: half the circle, its ends at half weight. 33 nodes are .1 apart,
    and 49 have the same six digits at T = .01.
    """
    half = np.linspace(-np.pi / 2, np.pi / 2, 33)
    edge = np.where(np.arange(33) % 32, 1.0, 0.5)
    w = np.stack(np.meshgrid(*[np.sin(half)] * 4, indexing="ij"), axis=-1) - np.asarray(CENTRE)
    f = np.sum((w @ np.asarray(ROWS).T) ** 2, axis=-1) / 6
    weights = np.exp(-f / temperature) * np.einsum("i,j,k,l->ijkl", *[edge] * 4)
    return float(np.sum(weights * w.mean(axis=-1) ** 2) / np.sum(weights))


def test_constant_noise_selects_among_the_solutions_of_least_squares():
    exact = [gibbs_of_least_squares(t) for t in (0.02, 0.01)]
    # Towards the selection density: .139, .124.
    assert SELECTED < exact[1] < exact[0]
    diffusion = tw.Diffusion(lambda p: -LEAST_SQUARES.gradient(p), 0.02, 0.2, method="heun")
    # Heun's variance across is (lambda dt)^2/4 = 1.8 % low, a change of T by so much: 3e-4.
    run = tw.simulate(
        diffusion,
        uniform(1536, 4),
        steps=2000,
        key=KEY,
        per_chain=True,
        record=tw.Record(means={"s2": lambda p: along(p) ** 2}, burn_in=1000),
    )
    found, error = mean_and_error(run.means["s2"])
    assert abs(found - exact[1]) < 3.5 * error + 3e-4
    assert error < 0.004


@pytest.mark.slow
def test_noise_scaled_by_the_loss_selects_the_same():
    # The law f^-alpha of the valley with alpha = 1.25, and of its share of low loss.
    noise = loss_scaled(valley, 0.5, 16.0, convention="sde")
    run = tw.simulate(
        tw.Diffusion(downhill(valley), noise, 0.005),
        uniform(4096, 4),
        steps=2400,
        key=KEY,
        per_chain=True,
    )
    cosines = np.cos(np.asarray(run.params[:, 0]))
    found, error = mean_and_error(cosines)
    assert abs(found - marginal_of_power(1.25)) < 3.5 * error
    # Given f < e, every law g(f) has the selection density up to O(e), whatever alpha is.
    low = np.asarray(jax.vmap(valley)(run.params)) < 0.05
    found, error = mean_and_error(cosines[low])
    limit = -special.iv(1, 0.5) / special.iv(0, 0.5)
    assert low.sum() > 500
    assert abs(found - limit) < 3.5 * error
    assert error < 0.1 * abs(limit)


def bent_valley(p):
    """Zero for p[1:] = 0 with the Hessian diag(1, 10^cos p[0]) across: codimension 2."""
    return (p[1] ** 2 + 10 ** jnp.cos(p[0]) * p[2] ** 2) / 2


def shares_of_sixteenths():
    """By the selection density, and by the arithmetic-geometric mean of the slides."""
    u = TURN * (np.arange(4096) + 0.5) / 4096
    densities = 10 ** (-np.cos(u) / 2), 1 / special.agm(1, 10 ** np.cos(u))
    return [d.reshape(16, -1).sum(axis=1) / d.sum() for d in densities]


def chi_square(run, shares):
    angles = np.mod(np.asarray(run.params[:, 0]), TURN)
    counts = np.histogram(angles, 16, (0, TURN))[0]
    expected = counts.sum() * shares
    return float(np.sum((counts - expected) ** 2 / expected))


def across(radii, key):
    """Starts with p[0] uniform and (p[1], p[2]) at these radii in the metric of the Hessian."""
    u, turn = jax.random.uniform(key, (2, len(radii)), maxval=TURN)
    sharp = radii * jnp.sin(turn) / jnp.sqrt(10 ** jnp.cos(u))
    return jnp.stack([u, radii * jnp.cos(turn), sharp], axis=1)


@pytest.mark.slow
def test_the_arithmetic_geometric_mean_is_rejected():
    # Constant noise, T = 4: f is quadratic across, so that the law of p[0] is the selection
    # density at any T.
    shares, by_mean = shares_of_sixteenths()
    starts = across(jnp.sqrt(8 * jax.random.exponential(KEY, (16384,))), KEY)
    diffusion = tw.Diffusion(downhill(bent_valley), 8.0, 0.02, method="heun")
    run = tw.simulate(diffusion, starts, steps=400, key=KEY, per_chain=True)
    # Fifteen degrees of freedom: 37.7 at one in a thousand.
    assert chi_square(run, shares) < 37.7
    assert chi_square(run, by_mean) > 100


@pytest.mark.slow
def test_the_arithmetic_geometric_mean_is_rejected_by_noise_that_vanishes():
    # D = 8 sqrt f has the law f^{-1/2} exp(-sqrt f / 2): r = sqrt(2 f) is exponential.
    shares, by_mean = shares_of_sixteenths()
    starts = across(8**0.5 * jax.random.exponential(KEY, (16384,)), KEY)
    diffusion = tw.Diffusion(downhill(bent_valley), lambda p: 8 * jnp.sqrt(bent_valley(p)), 0.0025)
    run = tw.simulate(diffusion, starts, steps=6000, key=KEY, per_chain=True)
    assert chi_square(run, shares) < 37.7
    assert chi_square(run, by_mean) > 100


# Collapse.


def exponent_of_the_chain(curvature, strength, d, step):
    """E log of the growth of |theta| in a step of Euler's chain, for H = curvature I, over dt.

    The square is noncentral chi-squared: a Poisson mixture of central ones, E log chi2_m =
    log 2 + digamma(m/2).
    """
    size = strength * curvature * step / 2
    shift = (1 - curvature * step) ** 2 / size
    j = np.arange(int(shift / 2 + 60 * np.sqrt(shift / 2) + 200))
    weights = np.exp(-shift / 2 + j * np.log(shift / 2) - special.gammaln(j + 1))
    return (np.log(2 * size) + weights @ special.digamma(d / 2 + j)) / 2 / step


@pytest.mark.parametrize(("strength", "factor"), [(2.0, -0.5), (4.0, 0.0), (6.0, 0.5)])
def test_exponent_of_noise_scaled_by_the_loss(strength, factor):
    # Wojtowytsch's equation near a zero in three dimensions: lambda (-1 + (eta sigma/4)(m - 2)),
    # with the sign of what is left of the collapse threshold.
    curvature, step, steps = 0.7, 0.01, 300
    expected = curvature * factor
    exact = [exponent_of_the_chain(curvature, strength, 3, h) for h in (step, step / 2)]
    # Euler's chain is off by the first order in the step; extrapolated, by the second.
    assert 2 * exact[1] - exact[0] == pytest.approx(expected, abs=2e-3)
    threshold = manifolds.collapse_threshold(3, convention="sde")
    assert np.sign(strength - threshold) == np.sign(factor)
    noise = loss_scaled(bowl, 1.0, strength, convention="sde")
    run = tw.simulate(
        tw.Diffusion(downhill(bowl), noise, step),
        jnp.full(3, 1 / np.sqrt(3)),
        steps=steps,
        key=KEY,
        chains=4096,
        bound=1e100,
    )
    logs = np.log(np.linalg.norm(np.asarray(run.params), axis=1)) / (steps * step)
    found, error = mean_and_error(logs)
    assert abs(found - exact[0]) < 3.5 * error
    assert error < 0.015


@pytest.mark.slow
@pytest.mark.parametrize(("strength", "sign"), [(3.0, -1), (4.0, 0), (5.5, 1)])
def test_the_threshold_is_the_same_for_any_hessian(strength, sign):
    # H = diag(1, 2, 4). The growth of log |theta| from t = 2 to 8, the angles at rest.
    def form(p):
        return jnp.sum(jnp.array([1.0, 2.0, 4.0]) * jnp.square(p)) / 2

    run = tw.simulate(
        tw.Diffusion(downhill(form), loss_scaled(form, 1.0, strength, convention="sde"), 0.001),
        jnp.full(3, 1 / np.sqrt(3)),
        steps=8000,
        key=KEY,
        chains=8192,
        bound=1e100,
        record=tw.Record(every=2000, values={"log": lambda p: jnp.log(jnp.linalg.norm(p))}),
    )
    logs = run.records["log"]
    found, error = mean_and_error((logs[:, 4] - logs[:, 1]) / 6)
    # For H = I Euler's chain is too fast by .0126 at s = 4 and lambda dt = .007, here .004 at most.
    assert abs(found) < 3.5 * error + 0.05 if sign == 0 else sign * found > 10 * error


def bowl(p):
    return 0.35 * jnp.sum(jnp.square(p))


def test_collapse_thresholds():
    assert manifolds.collapse_threshold(4, convention="sde") == 2
    assert manifolds.collapse_threshold(4, convention="fokker-planck") == 1
    assert manifolds.collapse_threshold(2, convention="sde") == np.inf
    assert manifolds.collapse_threshold(1, convention="fokker-planck") == np.inf


# Least squares without bounds, and SGD itself, whose noise vanishes at every minimiser.

LINEAR = tw.FiniteSum(
    lambda p, xy: jnp.square(jnp.dot(xy[0], p) - xy[1]) / 2,
    (jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]), jnp.array([1.0, -1.0])),
)
# The direction that no datum sees.
KERNEL = np.array([2.0, -1.0, -1.0]) / np.sqrt(6)
START = jnp.array([1.0, 0.5, 2.0])


def test_linear_least_squares_selects_nothing():
    # H is the same everywhere: constant noise makes free diffusion of variance 2 T t along M, and
    # there is no law.
    temperature, time = 0.1, 4.0
    diffusion = tw.Diffusion(lambda p: -LINEAR.gradient(p), 2 * temperature, 0.02, method="heun")
    run = tw.simulate(diffusion, START, steps=200, key=KEY, chains=4096)
    moved = (np.asarray(run.params) - np.asarray(START)) @ KERNEL
    # A normal variable: s/(2 T t) has the error sqrt(2/N) = .022.
    assert moved.var() / (2 * temperature * time) == pytest.approx(1, abs=3.5 * 0.022)
    assert abs(moved.mean()) < 3.5 * np.sqrt(2 * temperature * time / 4096)

    def solutions(u):
        return jnp.array([1.0, 0.0, 1.0]) + u[0] * jnp.asarray(KERNEL)

    with pytest.raises(InputError, match="not integrable towards u = -inf"):
        manifolds.chart_selection(LINEAR, solutions, -np.inf, np.inf)


def test_sgd_on_linear_least_squares_ends_where_its_start_is_projected():
    # Steps are combinations of the samples: the limit is not even random.
    descent = tw.Descent(LINEAR, tw.Minibatch(1), 0.2)
    run = tw.simulate(descent, START, steps=1000, key=KEY, chains=64)
    x, y = LINEAR.data
    expected = START + jnp.linalg.pinv(x) @ (y - x @ START)
    np.testing.assert_allclose(run.params, jnp.tile(expected, (64, 1)), atol=1e-13)


def test_sgd_on_two_factors_ends_beside_the_flow():
    # f_i = x_i^2 (a b - 1)^2 / 2: a step multiplies D = a^2 - b^2 by 1 - (eta x_i^2 r)^2 with
    # r = a b - 1, where the flow keeps it: log D falls by eta E[x^4] int r^2 dt + O(eta^2), and its
    # deviation is of the order eta^(3/2).
    inputs = jnp.array([0.5, 1.5])
    factors = tw.FiniteSum(lambda p, x: jnp.square(x * (p[0] * p[1] - 1)) / 2, inputs)
    start = np.array([2.0, 0.1])
    second, fourth = (float(jnp.mean(inputs**power)) for power in (2, 4))

    def rates(_, state):
        a, b, _ = state
        r = a * b - 1
        return [-second * r * b, -second * r * a, r * r]

    flow = solve_ivp(rates, (0, 40), [*start, 0.0], rtol=1e-10, atol=1e-12)
    slope = fourth * flow.y[2, -1]
    means, spreads = [], []
    for step in (0.02, 0.01):
        run = tw.simulate(
            tw.Descent(factors, tw.Minibatch(1), step),
            jnp.asarray(start),
            steps=int(20 / step),
            key=KEY,
            chains=2048,
        )
        a, b = np.asarray(run.params).T
        np.testing.assert_allclose(a * b, 1, atol=1e-12)
        logs = np.log((start[0] ** 2 - start[1] ** 2) / (a**2 - b**2))
        means.append(logs.mean() / step)
        spreads.append(logs.std(ddof=1))
    # Extrapolated to second order; the error of the mean is spread/step/45.
    error = 3.5 * spreads[1] / 0.01 / np.sqrt(2048)
    assert abs(2 * means[1] - means[0] - slope) < 2 * error + 0.01 * slope
    # The limits are random, by the power 3/2: 2.83.
    assert spreads[0] / spreads[1] == pytest.approx(2**1.5, rel=0.15)


# Where it takes minutes.


def net(p, x):
    """Three hidden units with normalised weights, tanh(2 (x cos b + sin b)), and sin a after."""
    return jnp.sum(jnp.sin(p[:3]) * jnp.tanh(2 * (jnp.cos(p[3:]) * x + jnp.sin(p[3:]))))


INPUTS = jnp.array([-1.5, 0.0, 1.5])
TARGETS = jnp.array([0.6, 0.1, 0.6])
NET = tw.FiniteSum(lambda p, xy: jnp.square(net(p, xy[0]) - xy[1]) / 2, (INPUTS, TARGETS))


def slopes(p):
    """The trace of the Hessian at a minimiser: mean squared gradients of the outputs."""
    gradients = jax.vmap(lambda x: jax.grad(net)(p, x))(INPUTS)
    return jnp.sum(jnp.square(gradients)) / 3


def interpolating(points):
    """The projections of points that fit the data, and which ones these are."""
    ends = manifolds.project(NET, points)
    fits = np.asarray(ends.arrived) & (np.asarray(ends.values) < 1e-20)
    return ends.points[fits], fits


@functools.cache
def selected_slopes():
    """The mean of ``slopes`` by the selection density, its error, and by the surface alone.

    The density is that of uniform angles given the outputs y. These are linear in sin a, h = T(b)
    sin a: given the b the solution sin a = T^-1 y has the density of sines of uniform angles over
    |det T|. So uniform b are weighted with that.
    """

    @jax.jit
    def sums(key):
        def one(b):
            hidden = jnp.tanh(2 * (jnp.cos(b) * INPUTS[:, None] + jnp.sin(b)))
            sines = jnp.linalg.solve(hidden, TARGETS)
            inside = jnp.all(jnp.abs(sines) < 1)
            sines = jnp.where(inside, sines, 0.0)
            size = jnp.abs(jnp.linalg.det(hidden)) * jnp.sqrt(jnp.prod(1 - sines**2))
            p = jnp.concatenate([jnp.arcsin(sines), b])
            rows = jax.vmap(lambda x: jax.grad(net)(p, x))(INPUTS)
            plain = jnp.sqrt(jnp.abs(jnp.linalg.det(rows @ rows.T)))
            terms = jnp.stack([jnp.ones(()), slopes(p), plain, plain * slopes(p)])
            return jnp.where(inside, terms / size, 0.0)

        return jnp.sum(jax.vmap(one)(jax.random.uniform(key, (200_000, 3), maxval=TURN)), axis=0)

    parts = np.array([sums(key) for key in jax.random.split(KEY, 40)])
    total, first, plain, plain_first = parts.sum(axis=0)
    mean = first / total
    error = np.std(parts[:, 1] - mean * parts[:, 0], ddof=1) * np.sqrt(len(parts)) / total
    return mean, error, plain_first / plain


@pytest.mark.slow
def test_samples_of_the_minimisers_of_a_net():
    mean, error, plain = selected_slopes()
    starts, fits = interpolating(uniform(1024, 6))
    # The others are local minima.
    assert fits.mean() > 0.75
    walk = manifolds.sample_selection(NET, starts, key=KEY, chains=512, steps=800, period=TURN)
    found, found_error = map(float, walk.average(slopes))
    assert abs(found - mean) < 3.5 * np.hypot(error, found_error)
    assert abs(found - plain) > 20 * found_error


@pytest.mark.slow
def test_constant_noise_selects_among_the_minimisers_of_a_net():
    mean, _, plain = selected_slopes()
    found = []
    for temperature, steps in ((0.016, 4000), (0.004, 8000)):
        diffusion = tw.Diffusion(lambda p: -NET.gradient(p), 2 * temperature, 0.1, method="heun")
        run = tw.simulate(diffusion, uniform(2048, 6), steps=steps, key=KEY, per_chain=True)
        points, _ = interpolating(run.params)
        found.append(mean_and_error(jax.vmap(slopes)(points)))
    # Towards the selection density as T falls, and away from the measure of the surface.
    (warm, _), (cold, error) = found
    assert abs(cold - mean) < 3.5 * error
    assert abs(cold - mean) < abs(warm - mean)
    assert abs(cold - plain) > 10 * error


@pytest.mark.slow
def test_noise_scaled_by_the_loss_selects_the_same_minimisers_of_a_net():
    mean, _, plain = selected_slopes()
    # alpha = 1.25 < k/2; of low loss, whatever alpha is.
    noise = loss_scaled(NET, 0.5, 16.0, convention="sde")
    run = tw.simulate(
        tw.Diffusion(lambda p: -NET.gradient(p), noise, 0.005),
        uniform(4096, 6),
        steps=12000,
        key=KEY,
        per_chain=True,
    )
    losses = np.asarray(jax.vmap(NET.value)(run.params))
    found = []
    for level in (0.1, 0.01):
        points, _ = interpolating(run.params[losses < level])
        found.append(mean_and_error(jax.vmap(slopes)(points)))
    (high, _), (low, error) = found
    assert abs(low - mean) < 3.5 * error
    assert abs(low - mean) < abs(high - mean)
    assert abs(low - plain) > 7 * error


@pytest.mark.slow
def test_sgd_on_a_net_ends_beside_the_flow_and_not_by_the_selection_density():
    mean, _, _ = selected_slopes()
    start = jnp.array([0.3, -0.2, 0.5, 0.2, 1.0, 2.0])
    flow = manifolds.project(NET, start)
    assert float(flow.values) < 1e-20
    spreads = []
    for step in (0.1, 0.05):
        run = tw.simulate(
            tw.Descent(NET, tw.Minibatch(1), step),
            start,
            steps=int(800 / step),
            key=KEY,
            chains=1024,
        )
        assert float(jnp.max(jax.vmap(NET.value)(run.params))) < 1e-28
        ends = np.asarray(jax.vmap(slopes)(run.params))
        spreads.append(ends.std(ddof=1))
        # Within some spreads of the limit of the flow, and far from what noise would select.
        assert abs(ends.mean() - float(slopes(flow.points))) < 3 * spreads[-1]
        assert abs(ends.mean() - mean) > 10 * spreads[-1]
    # Random limits: the variance is of the order of the step.
    assert spreads[0] / spreads[1] == pytest.approx(np.sqrt(2), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("scaled", [False, True])
def test_both_noises_select_among_the_solutions_of_least_squares(scaled):
    if scaled:
        noise = loss_scaled(LEAST_SQUARES, 0.5, 16.0, convention="sde")
        diffusion = tw.Diffusion(lambda p: -LEAST_SQUARES.gradient(p), noise, 0.005)
    else:
        diffusion = tw.Diffusion(lambda p: -LEAST_SQUARES.gradient(p), 0.002, 0.2, method="heun")
    run = tw.simulate(diffusion, uniform(8192, 4), steps=16000, key=KEY, per_chain=True)
    low = np.asarray(jax.vmap(LEAST_SQUARES.value)(run.params)) < 0.005
    ends = manifolds.project(LEAST_SQUARES, run.params[low])
    assert bool(ends.arrived.all())
    found, error = mean_and_error(jax.vmap(lambda p: along(p) ** 2)(ends.points))
    assert abs(found - SELECTED) < 3.5 * error
    # By the length of the curve alone .0943.
    assert abs(found - 0.0943) > 4 * error


@pytest.mark.slow
def test_two_zeros_have_the_weights_of_their_determinants():
    # Constant noise by quadrature: the shares tend to sqrt 8 : 1.
    nodes = TURN * np.arange(96) / 96
    points = jnp.asarray(np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1))
    points = points.reshape(-1, 3)
    values = np.asarray(jax.lax.map(two_zeros, points, batch_size=2**15))
    first = np.asarray(jax.vmap(nearer_the_first)(points))
    goal = 8**0.5 / (1 + 8**0.5)
    shares = [
        np.sum(np.exp(-values / t) * first) / np.sum(np.exp(-values / t)) for t in (0.1, 0.05)
    ]
    assert 0 < goal - shares[1] < goal - shares[0]
    assert shares[1] == pytest.approx(goal, abs=0.0025)
    # Noise scaled by the loss, which goes from one to the other: of low loss.
    noise = loss_scaled(two_zeros, 0.5, 16.0, convention="sde")
    run = tw.simulate(
        tw.Diffusion(downhill(two_zeros), noise, 0.0025),
        uniform(16384, 3),
        steps=4000,
        key=KEY,
        per_chain=True,
    )
    low = np.asarray(jax.vmap(two_zeros)(run.params)) < 0.05
    found, error = mean_and_error(np.asarray(jax.vmap(nearer_the_first)(run.params))[low])
    assert abs(found - goal) < 3.5 * error
    # Half and half, and the ratio of the roots' mean, would be 25 and more errors away.
    assert error < 0.01


def nearer_the_first(p):
    first = jnp.sum(2 * jnp.sin(p / 2) ** 2)
    return (first < jnp.sum(jnp.array([1.0, 2, 4]) * 2 * jnp.cos(p / 2) ** 2)).astype(float)
