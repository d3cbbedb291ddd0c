"""The law of Eyring and Kramers against integrals, grids and its own next order."""

import math
from dataclasses import replace
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.escape import exit_time_on_line, eyring_kramers, in_parallel, kramers_law
from thalweg.noise_models import isotropic


def well(x):
    return (x**2 - 1) ** 2 / 4


def quartic(t):
    return t - t**3


def beta(t):
    """Dai and Zhu's noise, larger on the way than at the minimum."""
    return 1 + 0.5 * (t[0] + 1) ** 2


LEFT, TOP = jnp.array([-1.0]), jnp.array([0.0])
LEFT_2, TOP_2 = jnp.array([-1.0, 0.0]), jnp.array([0.0, 0.0])


@pytest.fixture(scope="module")
def points():
    """Minimum and top of the double well, described."""
    problem = tw.landscapes.double_well().problem
    return [tw.critical_point(problem, place) for place in (LEFT, TOP)]


# Constant noise.


def test_the_law_is_the_formula_and_to_the_saddle_is_half(points):
    rate = kramers_law(*points, temperature=0.05, step=0.1)
    assert rate.time == pytest.approx(math.sqrt(2) * math.pi * math.exp(5), rel=1e-12)
    assert rate.steps == pytest.approx(10 * rate.time)
    assert rate.to_saddle == pytest.approx(rate.time / 2)
    assert rate.exponent == pytest.approx(5)
    assert rate.prefactor == pytest.approx(math.sqrt(2) * math.pi, rel=1e-12)
    assert rate.valid
    assert kramers_law(*points, temperature=0.05).steps is None


def test_a_dynamics_has_the_same_law_as_its_temperature(points):
    expected = kramers_law(*points, temperature=0.05, step=0.1)
    landscape = tw.landscapes.double_well()
    for dynamics in (
        tw.Diffusion(quartic, 0.1, 0.1),
        tw.Descent(landscape.problem, tw.Minibatch(1), 0.1),
    ):
        for ends in ((LEFT, TOP), points):
            found = eyring_kramers(dynamics, *ends)
            assert found.log_time == pytest.approx(expected.log_time, abs=1e-9)
            assert found.steps == pytest.approx(expected.steps, rel=1e-9)
            # 3 T / 2; differences of a quartic are exact, their rounding is 1e-16/.1^3 and some.
            assert found.correction == pytest.approx(0.075, abs=1e-9)
            assert found.valid


# Noise that depends on the place.


def with_beta(D):
    return tw.Diffusion(quartic, isotropic(beta, 2 * D, 1.0), 0.1)


def test_noise_by_place_changes_exponent_and_prefactor():
    at = {D: eyring_kramers(with_beta(D), LEFT, TOP) for D in (0.01, 0.005)}
    assert at[0.01].exponent * 0.01 == pytest.approx(0.2225185, abs=5e-8)
    # sqrt(beta(0) / beta(-1)) of the constant one.
    assert at[0.01].prefactor == pytest.approx(math.pi * math.sqrt(2 * 1.5), rel=1e-9)
    gaps = {}
    for D, rate in at.items():
        exact = exit_time_on_line(with_beta(D), -1.0, -math.inf, 1.0).log_time
        gaps[D] = math.expm1(exact - rate.log_time) / D
        # The correction is the gap up to the next order, some 35 D^2: 3.5e-3 and 8.7e-4.
        assert gaps[D] * D == pytest.approx(rate.correction, abs=40 * D**2)
    # Richardson: to the limit c/D, 2.24306 by derivatives written out, up to O(D^2).
    limit = 2 * gaps[0.005] - gaps[0.01]
    assert limit == pytest.approx(2.243056, abs=0.15)


def test_with_the_other_prefactor_the_ratio_would_not_tend_to_one():
    ratios = [
        math.exp(
            exit_time_on_line(with_beta(D), -1.0, -math.inf, 1.0).log_time
            - eyring_kramers(with_beta(D), LEFT, TOP).log_time
        )
        for D in (0.05, 0.01, 0.002)
    ]
    # 1 + 2.24 D + 35 D^2 + ...; without the factor, or with its inverse, it tends to 1.22 or 1.5.
    assert np.all(np.diff(ratios) < 0)
    assert ratios[-1] == pytest.approx(1.0, abs=0.006)


def valley(t):
    """A double well in a valley of varying width."""
    return well(t[0]) + (1 + 0.3 * t[0] + 0.5 * t[0] ** 2) * t[1] ** 2


def down_the_valley(t):
    return -jax.grad(valley)(t)


def warm_valley(t):
    return 1 + 4 * valley(t)


def time_on_grid(diffusion, width, cells=128):
    """The mean time from (-1, 0) to x = 1, extrapolated from two grids, and their difference."""
    box, boundary = ([-1.9, -width], [1.0, width]), (("reflecting", "absorbing"), "reflecting")
    coarse, fine = (
        tw.discretise(diffusion, tw.Grid(*box, n, boundary=boundary))
        .exit_time(lambda t: t[0] < 5)
        .at(LEFT_2)
        for n in (cells // 2, cells)
    )
    return float(fine + (fine - coarse) / 3), abs(float(fine - coarse))


@pytest.mark.parametrize("constant", [True, False])
def test_in_the_plane_the_prefactor_has_no_factor_and_the_next_order_is_right(constant):
    # The noise grows with f, so that there is detailed balance; by 2 to the saddle. The factor of
    # the line, sqrt(c_*/c_1), would be 1.41 here, and is (c_*/c_1)^(1 - d/2) = 1.
    slopes, corrections, temperatures = [], [], (0.02, 0.01)
    for T in temperatures:
        noise = isotropic(1.0 if constant else warm_valley, 2 * T, 1.0)
        diffusion = tw.Diffusion(down_the_valley, noise, 0.1)
        rate = eyring_kramers(diffusion, LEFT_2, TOP_2)
        time, difference = time_on_grid(diffusion, 0.9)
        assert rate.valid
        assert difference < 0.02 * time
        slopes.append((time / rate.time - 1) / T)
        corrections.append(rate.correction / T)
    # The gap is c T + c_2 T^2 + c_3 T^3: c is left by extrapolation up to 2 c_3 T^2, with c_3 some
    # 200, and twice the error of the grid over T, .04 if it is a fiftieth of the difference.
    assert corrections[0] == pytest.approx(corrections[1], rel=0.02)
    assert 2 * slopes[1] - slopes[0] == pytest.approx(corrections[1], abs=0.1)


# Two dimensions and one: f = L(x) + s k(x) y^2 / 2.


def width_of(x):
    return 1 + 0.8 * jnp.tanh(2 * x)


class Channel(eqx.Module):
    """A double well whose walls have the stiffness s k(x)."""

    stiffness: jax.Array

    def __call__(self, t):
        return -jax.grad(lambda t: well(t[0]) + self.stiffness * width_of(t[0]) * t[1] ** 2 / 2)(t)


class Effective(eqx.Module):
    """The drift of V = L/T + log(k)/2, times T."""

    temperature: jax.Array

    def __call__(self, t):
        return -jax.grad(lambda t: well(t[0]) + self.temperature * jnp.log(width_of(t[0])) / 2)(t)


def channel(stiffness, T):
    return tw.Diffusion(Channel(jnp.asarray(stiffness)), 2 * T, 0.1)


def effective_time(T):
    diffusion = tw.Diffusion(Effective(jnp.asarray(T)), 2 * T, 0.1)
    return exit_time_on_line(diffusion, -1.0, -math.inf, 1.0)


def test_kramers_in_the_plane_tends_to_the_integral_over_the_effective_potential():
    # sqrt(|det H_*|/det H_1) holds sqrt(k_*/k_1), which is e^{log(k)/2}, for every stiffness.
    for stiffness in (1.0, 16.0):
        gaps = []
        for T in (0.02, 0.005):
            rate = eyring_kramers(channel(stiffness, T), LEFT_2, TOP_2)
            gaps.append(math.expm1(effective_time(T).log_time - rate.log_time))
        # First order in T: a quarter, and some from the second.
        assert 0.15 < gaps[1] / gaps[0] < 0.3
        assert abs(gaps[1]) < 0.005
    # Stiff walls make the next order that of the line, too: 1/s away from it.
    assert rate.correction == pytest.approx(gaps[1], rel=0.15)


def test_the_plane_is_slower_than_the_line_and_as_fast_if_the_walls_are_stiff():
    # Committors of x alone bound the flow from above (Dirichlet's principle), so that the plane is
    # slower; how much slower falls like 1/s, as across the valley it takes 1/(s k) to balance.
    T, gaps = 0.08, []
    line = effective_time(T).time
    for stiffness in (1.0, 4.0, 16.0):
        time, difference = time_on_grid(channel(stiffness, T), 6 * math.sqrt(T / (0.2 * stiffness)))
        assert difference < 4e-3 * time
        gaps.append(time / line - 1)
    assert gaps[0] == pytest.approx(0.0238, abs=1e-3)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    # In the limit a quarter; a grid's error of 3e-4 is a tenth of the last.
    assert gaps[2] / gaps[1] == pytest.approx(0.25, abs=0.06)


# Kinks.


class Kinked(eqx.Module):
    """The drift of a well and a top made of straight lines, at -1 and 0, and a well at 1."""

    slopes: jax.Array

    def __call__(self, t):
        a, b, c, e = self.slopes
        return jnp.where(t < -1, -a, jnp.where(t < 0, -b, jnp.where(t < 1, -c, -e)))


def kinked_point(place, value, slopes):
    return SimpleNamespace(params=jnp.array([place]), value=value, slopes=slopes)


def test_kinks_have_a_law_of_their_own():
    # Slopes -2, 1 at the minimum and 1, -1.5 at the top; steeper beyond. All within e^{-1/T}.
    diffusion = tw.Diffusion(Kinked(jnp.array([-2.0, 1.0, -1.5, 4.0])), 2 * 0.05, 0.1)
    ends = kinked_point(-1.0, 0.0, (-2.0, 1.0)), kinked_point(0.0, 1.0, (1.0, -1.5))
    rate = kramers_law(*ends, temperature=0.05, step=0.1)
    assert rate.time == pytest.approx(0.05 * (1 / 2 + 1) * (1 + 1 / 1.5) * math.exp(20), rel=1e-12)
    same = eyring_kramers(diffusion, *ends)
    assert same.log_time == pytest.approx(rate.log_time, abs=1e-9)
    exact = exit_time_on_line(diffusion, -1.0, -math.inf, 1.0)
    # Straight lines have no next order: what is left is cut off at their ends, 20 T e^{-20} or so.
    assert exact.log_time == pytest.approx(rate.log_time, abs=1e-7)
    # At a kink more than half of the way over lies on the flatter side.
    there = exit_time_on_line(diffusion, -1.0, -math.inf, 0.0)
    assert rate.to_saddle == pytest.approx(there.time, rel=1e-7)
    assert rate.to_saddle == pytest.approx(0.6 * rate.time)
    assert same.to_saddle == pytest.approx(rate.to_saddle, rel=1e-9)
    back = eyring_kramers(diffusion, kinked_point(1.0, -0.5, (-1.5, 4.0)), ends[1])
    home = exit_time_on_line(diffusion, 1.0, 0.0, math.inf)
    assert back.to_saddle == pytest.approx(home.time, rel=1e-7)


def test_noise_that_jumps_at_a_kink():
    # An and Ying's piecewise lines: three kinks, and the variance of gradients jumps at each. With
    # slopes a_1 - eps a_2 and K a_2 - eps a_1 towards the top and the variances a_1 a_2 (1 + eps)^2
    # and a_1 a_2 (K + eps)^2 the exponents times the step are
    expected = {"left": 2 * 0.34 / (0.24 * 1.1**2), "right": 2 * 0.592 / (0.24 * 5.1**2)}
    landscape, step = tw.landscapes.piecewise_linear(), 0.02
    limit = tw.diffusion_limit(tw.Descent(landscape.problem, tw.Minibatch(1), step))
    places = {"left": -1.0, "right": 0.2}
    for side, place in places.items():
        ends = kinked_point(place, 0.0, (0.0, 0.0)), kinked_point(0.0, 0.0, (0.0, 0.0))
        rate = eyring_kramers(limit, *ends)
        assert rate.exponent * step == pytest.approx(expected[side], rel=1e-9)
        assert rate.valid
        sign = math.copysign(1, place)
        other = places["left" if side == "right" else "right"]
        lower, upper = sorted((sign * math.inf, other))
        exact = exit_time_on_line(limit, place, lower, upper)
        # The other minimum is not reached with the top: down there it takes 1/.34 or .2/2.96. Lines
        # end after x in the exponent, 9.5 at the lower barrier, so that (1 + x) e^-x is missing.
        slide = 1 / 0.34 if side == "right" else 0.2 / 2.96
        assert exact.time == pytest.approx(rate.time + slide, rel=1e-3)
    assert expected == pytest.approx({"left": 2.342, "right": 0.1897}, abs=5e-4)


# Several ways.


def test_rates_over_several_saddles_add():
    one = eyring_kramers(tw.Diffusion(quartic, 0.1, 0.1), LEFT, TOP)
    both = in_parallel(one, one)
    assert both.time == pytest.approx(one.time / 2)
    assert both.to_saddle == pytest.approx(one.to_saddle / 2)
    assert both.steps == pytest.approx(one.steps / 2)
    assert both.log_time == pytest.approx(one.log_time - math.log(2))
    assert both.correction == pytest.approx(one.correction)
    # What is never used does not matter, valid or not.
    never = replace(one, time=math.inf, log_time=900.0, to_saddle=math.inf, valid=False, reason="?")
    assert in_parallel(one, never).valid
    assert in_parallel(one, never).time == pytest.approx(one.time)
    assert in_parallel(one, replace(one, valid=False, reason="hot")).reason == "hot"
    endless = replace(never, valid=True, steps=math.inf)
    assert in_parallel(endless, endless).log_time == pytest.approx(900 - math.log(2))
    assert in_parallel(endless, endless).to_saddle == math.inf
    with pytest.raises(tw.InputError, match="at least one"):
        in_parallel()


# Noise that is not isotropic.


def skewed(t):
    """The drift of x, y in a tilted valley, whose axes are not those of the noise."""
    return -jax.grad(lambda t: well(t[0]) + (t[1] - 0.5 * t[0]) ** 2)(t)


def upright(t):
    return -jax.grad(lambda t: well(t[0]) + t[1] ** 2)(t)


def test_anisotropic_noise_along_the_axes_of_the_drift_keeps_detailed_balance():
    T = 0.04
    rate = eyring_kramers(tw.Diffusion(upright, jnp.array([2 * T, 0.5 * T]), 0.1), LEFT_2, TOP_2)
    line = kramers_on_line(T)
    assert rate.valid
    assert rate.log_time == pytest.approx(line.log_time, abs=1e-9)
    assert rate.correction == pytest.approx(line.correction, abs=1e-6)


def kramers_on_line(T):
    return eyring_kramers(tw.Diffusion(quartic, 2 * T, 0.1), LEFT, TOP)


def test_noise_without_detailed_balance_is_flagged_and_has_the_action_of_the_path():
    T, ends = 0.04, (jnp.array([-1.0, -0.5]), TOP_2)
    rate = eyring_kramers(tw.Diffusion(skewed, jnp.array([2 * T, 0.5 * T]), 0.1), *ends)
    assert not rate.valid
    assert "factor 4" in rate.reason
    assert "action along the path" in rate.reason
    # Along the straight line, in the metric of the noise, of v = (1, .5) and b = (x - x^3, 0).
    metric = np.array([1 / T, 4 / T])
    x = np.linspace(-1, 0, 100_001)
    b = np.stack([x - x**3, 0 * x], axis=1)
    size = np.sqrt((b**2 @ metric) * (np.array([1, 0.25]) @ metric))
    action = np.trapezoid(size - b @ (metric * np.array([1, 0.5])), x) / 2
    assert rate.exponent == pytest.approx(action, rel=1e-7)
    assert rate.correction is None
    # Constant noise leaves the ratio of det H = 4 and -2; H_* has the eigenvalue -.8508.
    assert rate.prefactor == pytest.approx(2 * math.pi / 0.850781 / math.sqrt(2), rel=1e-5)
    # A rotation on top of a gradient moves the points: they are asked for.
    rotated = tw.Diffusion(lambda t: upright(t) + jnp.array([-t[1], t[0] + 1]) * 0.2, 2 * T, 0.1)
    with pytest.raises(tw.InputError, match="expected a critical point"):
        eyring_kramers(rotated, LEFT_2, TOP_2)


def test_the_prefactor_without_detailed_balance_is_a_guess_and_no_nonsense():
    # Mueller-Brown with the noise of single terms, along the straight line: an integral of the
    # noise's divergence would give factors of e^{-400}.
    landscape = tw.landscapes.mueller_brown()
    descent = tw.Descent(landscape.problem, tw.Minibatch(1), landscape.step)
    rate = eyring_kramers(descent, landscape.minima[0].params, landscape.saddles[1].params)
    assert not rate.valid
    assert 1e-3 < rate.prefactor < 1


def test_noise_that_varies_across_the_path_is_seen_beside_it():
    # On y = 0 the noise is that of the line, its gradient along the path; beside it it is not.
    def across(t):
        return 0.08 * (1 + 10 * t[1] ** 2)

    rate = eyring_kramers(tw.Diffusion(upright, across, 0.1), LEFT_2, TOP_2)
    assert not rate.valid
    assert "varies across the path" in rate.reason
    assert rate.exponent == pytest.approx(0.25 / 0.04, rel=1e-9)


def test_a_path_is_cut_at_the_saddle_and_its_images_need_not_be_even():
    T = 0.02
    bent = tw.Diffusion(bent_valley, 2 * T, 0.1)
    s = np.linspace(-1, 1, 31)
    path = np.stack([s, s**2 - 1], axis=1)
    ends = jnp.array([-1.0, 0.0]), jnp.array([0.0, -1.0])
    straight, curved = (eyring_kramers(bent, *ends, path=p) for p in (None, path))
    # The drift is a gradient and the noise constant: every path has the same integral.
    assert curved.log_time == pytest.approx(straight.log_time, abs=1e-8)
    assert curved.exponent == pytest.approx(0.25 / T, rel=1e-9)
    for wrong in (path[::-1] + 0.3, path[:5], path[:, :1]):
        with pytest.raises(tw.InputError, match="path"):
            eyring_kramers(bent, *ends, path=wrong)


def bent_valley(t):
    """Along y = x^2 - 1."""
    return -jax.grad(lambda t: well(t[0]) + (t[1] - t[0] ** 2 + 1) ** 2)(t)
