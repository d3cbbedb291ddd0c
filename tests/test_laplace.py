"""Laplace weights of minima: against quadrature and grids, and where they break down."""

import math
from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import thalweg as tw
from thalweg.escape import box_probabilities, laplace_weights
from thalweg.noise_models import isotropic


def three_wells(t):
    """Dai and Zhu's example 1: f'' = 4.5, 12.5 and 28.125 at 0, -1 and 1.5."""
    (w,) = t
    return (w + 1) ** 2 * w**2 * (w - 1.5) ** 2


PROBLEM = tw.FiniteSum.of(three_wells)
PLACES = (0.0, -1.0, 1.5)


@pytest.fixture(scope="module")
def wells():
    return [tw.critical_point(PROBLEM, jnp.array([place])) for place in PLACES]


@pytest.fixture(scope="module")
def masses():
    """The mass of each basin, and of [-.1, .1] around each minimum, as a function of T."""
    tops = [-1.5, *sorted(np.roots(np.polyder(_POLYNOMIAL)).real)[1:4:2], 2.0]

    def at(T):
        def law(w):
            return math.exp(-three_wells((w,)) / T)

        basins = [quad(law, tops[k], tops[k + 1], epsabs=1e-13)[0] for k in (1, 0, 2)]
        boxes = [quad(law, w - 0.1, w + 0.1, epsabs=1e-13)[0] for w in PLACES]
        return np.array(basins) / sum(basins), np.array(boxes) / sum(basins)

    return at


_POLYNOMIAL = np.poly1d([-1, -1, 0, 0, 1.5, 1.5], r=True)


def test_basins_share_by_the_roots_of_determinants(wells, masses):
    # 1/sqrt(4.5) : 1/sqrt(12.5) : 1/sqrt(28.125) is 5 : 3 : 2, at every temperature.
    for T in (0.5, 0.005):
        found = laplace_weights(PROBLEM, wells, temperature=T)
        assert found.weights == pytest.approx([0.5, 0.3, 0.2], abs=1e-9)
    # The masses get there as the temperature falls, at first order.
    gaps = [np.abs(masses(T)[0] - [0.5, 0.3, 0.2]).max() for T in (0.004, 0.002, 0.001)]
    ratios = np.array(gaps[1:]) / gaps[:-1]
    assert np.all(np.abs(ratios - 0.5) < 0.06)


def test_the_next_order_is_that_of_the_masses(wells, masses):
    T = 0.002
    found = laplace_weights(PROBLEM, wells, temperature=T)
    exact = masses(T)[0]
    # What is left is of second order, the square of the largest correction.
    left = float(found.corrections.max()) ** 2
    assert found.corrected == pytest.approx(exact, abs=left)
    assert np.abs(found.weights - exact).max() > 20 * left
    # By hand, with derivatives of order 2 (4.5), 3 and 4: 5 f3^2/(24 f2^3) - f4/(8 f2^2).
    # Differences over a tenth of a width add a share of the order of T.
    third, fourth = (np.polyder(_POLYNOMIAL, k)(0) for k in (3, 4))
    by_hand = 5 * third**2 / (24 * 4.5**3) - fourth / (8 * 4.5**2)
    assert found.corrections[0] == pytest.approx(T * by_hand, rel=5e-3)


def test_the_breakdown_is_said(wells, masses):
    # Barriers are .258 and 1.05. At T = .5 the next order makes it worse; at T = .05 it is right.
    hot, mild = (laplace_weights(PROBLEM, wells, temperature=T) for T in (0.5, 0.05))
    assert not hot.valid
    assert "the next order changes the mass around minimum 1 by +42 %" in hot.reason
    assert "ask the grid" in hot.reason
    assert mild.valid
    assert mild.reason == ""
    gaps = {
        T: [np.abs(masses(T)[0] - shares).max() for shares in (found.weights, found.corrected)]
        for T, found in ((0.5, hot), (0.05, mild))
    }
    assert gaps[0.5][1] > gaps[0.5][0] > 0.015
    assert gaps[0.05][1] < 0.4 * gaps[0.05][0] < 0.003


def test_small_boxes_have_their_law_and_break_down_as_well(wells, masses):
    # Dai and Zhu's M/gamma = 100, 10 and 1 with beta = 1: T = 1/200, 1/20 and 1/2.
    documented = {
        100: (0.49841, 0.30038, 0.19961),
        10: (0.31640, 0.25588, 0.18962),
        1: (0.11075, 0.10783, 0.10263),
    }
    for ratio, expected in documented.items():
        assert masses(0.5 / ratio)[1] == pytest.approx(expected, abs=1e-5)
    worst = {
        ratio: np.abs(
            box_probabilities(PROBLEM, wells, temperature=0.5 / ratio, radius=0.1) / expected - 1
        ).max()
        for ratio, expected in documented.items()
    }
    # .2 %, 4 %, 6.5 %: the higher the temperature, the worse.
    assert worst[100] < 0.003 < worst[10] < 0.042 < worst[1] < 0.07


def test_the_limits_do_not_commute(wells):
    # Equal depth: 1 as the box shrinks, up to eps^2 (12.5 - 4.5)/(6 T); 5/3 as T does.
    shrinking = box_probabilities(PROBLEM, wells, temperature=0.005, radius=1e-3)
    assert shrinking[0] / shrinking[1] == pytest.approx(1, abs=1e-6 * 8 / (6 * 0.005) * 1.1)
    cooling = box_probabilities(PROBLEM, wells, temperature=1e-5, radius=0.1)
    assert cooling[0] / cooling[1] == pytest.approx(5 / 3, abs=1e-6)


def skewed(t):
    x, y = t
    return 2 * x**2 + y**2 / 2 + 0.3 * x * y + 0.5 * x**2 * y + x**4 / 3 + x * y**3 / 4 + y**4 / 2


def test_the_next_order_in_the_plane():
    problem = tw.FiniteSum.of(skewed)
    minimum = tw.critical_point(problem, jnp.zeros(2))
    gaps = []
    for T in (0.01, 0.005):
        # The sum over a lattice has no error but e^-(pi width/h)^2 for what is nearly Gaussian.
        x, h = np.linspace(-9 * math.sqrt(T), 9 * math.sqrt(T), 301, retstep=True)
        mass = np.exp(-skewed(np.meshgrid(x, x)) / T).sum() * h * h
        first = 2 * math.pi * T / math.sqrt(float(jnp.prod(minimum.eigenvalues)))
        correction = laplace_weights(problem, [minimum], temperature=T).corrections[0]
        gaps.append(mass / first - 1 - correction)
        assert abs(correction) > 10 * abs(gaps[-1])
    # What is left is of second order.
    assert gaps[1] / gaps[0] == pytest.approx(0.25, abs=0.04)


def test_kinks_share_by_their_slopes():
    landscape = tw.landscapes.piecewise_linear()
    # Slopes (a_1 + eps a_2, a_1 - eps a_2) and (K a_2 - eps a_1, K a_2 + eps a_1).
    slopes = ((-0.46, 0.34), (-2.96, 3.04))
    minima = [
        SimpleNamespace(params=point.params, value=point.value, slopes=pair)
        for point, pair in zip(landscape.minima, slopes, strict=True)
    ]
    T = 0.02
    found = laplace_weights(landscape.problem, minima, temperature=T)

    def law(x):
        first, second = (abs(x + 1) - 1, -0.1 * x) if x <= 0 else (0.1 * x, abs(5 * x - 1) - 1)
        return math.exp(-(0.4 * first + 0.6 * second + 0.592) / T)

    left, right = quad(law, -3, 0, points=[-1])[0], quad(law, 0, 1, points=[0.2])[0]
    # Lines end at the top, .34 / T = 17 in the exponent.
    assert np.log(found.weights[0] / found.weights[1]) == pytest.approx(
        math.log(left / right), abs=1e-6
    )
    assert found.corrections == pytest.approx([0, 0], abs=1e-12)
    with pytest.raises(tw.InputError, match="kink"):
        box_probabilities(landscape.problem, minima, temperature=T, radius=0.1)


def bent(t):
    """A kink with curvature beside it: |x| + x^2 to the left, 2 x + x^2 to the right of 0."""
    (x,) = t
    return jnp.where(x < 0, -x, 2 * x) + x**2


def test_the_next_order_at_a_kink():
    problem, T = tw.FiniteSum.of(bent), 0.01
    kink = SimpleNamespace(params=jnp.zeros(1), value=0.0, slopes=(-1.0, 2.0))
    # int_0^inf e^{-(s x + x^2)/T} dx = T/s (1 - 2 T/s^2 + 12 T^2/s^4 ...).
    correction = laplace_weights(problem, [kink], temperature=T).corrections[0]
    assert correction == pytest.approx(-2 * T * (1 + 1 / 8) / (1 + 1 / 2), rel=1e-6)
    mass = sum(
        quad(lambda x, s=s: math.exp(-(s * x + x * x) / T), 0, 0.5, epsabs=1e-14)[0] for s in (1, 2)
    )
    assert mass / (T * 1.5) - 1 == pytest.approx(correction, abs=12 * T**2)


def test_depths_beyond_the_range_of_numbers(wells):

    deep = [wells[0], replace(wells[1], value=5.0)]
    found = laplace_weights(PROBLEM, deep, temperature=0.005)
    assert found.log_weights[1] == pytest.approx(-1000 + math.log(3 / 5), abs=1e-9)
    assert found.weights[1] == 0
    # What has no mass is not asked whether it is Gaussian.
    assert found.valid


def test_requests_that_make_no_sense(wells):
    with pytest.raises(tw.InputError, match="at least one"):
        laplace_weights(PROBLEM, [], temperature=0.1)
    with pytest.raises(tw.InputError, match="above 0"):
        laplace_weights(PROBLEM, wells, temperature=0.0)
    top = tw.critical_point(PROBLEM, jnp.array([-0.5]))
    with pytest.raises(tw.InputError, match="expected a minimum"):
        laplace_weights(PROBLEM, [top], temperature=0.1)
    with pytest.raises(tw.InputError, match="radius"):
        box_probabilities(PROBLEM, wells, temperature=0.1, radius=0.0)


def test_the_masses_of_the_grid_are_those_of_quadrature(masses):
    # The breakdown is one against the law of the diffusion, not against a formula.
    diffusion = tw.Diffusion(lambda t: -PROBLEM.gradient(t), isotropic(1.0, 1.0, 10.0), 0.1)
    grid = tw.Grid(-1.5, 2.0, 700)
    law = tw.discretise(diffusion, grid).stationary(check=False).density
    left, right = sorted(np.roots(np.polyder(_POLYNOMIAL)).real)[1:4:2]
    x = grid.centres[0]
    basins = (x > left) & (x < right), x < left, x > right
    found = [float(grid.integrate(law, basin)) for basin in basins]
    # Cells cut by a top: half a cell of .005 where the density is .3 at most.
    assert found == pytest.approx(masses(0.05)[0], abs=2e-3)
