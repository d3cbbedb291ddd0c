"""The mean exit time on a line: an integral that has to agree with everything else."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import dblquad, quad

import thalweg as tw
from thalweg.escape import exit_time_on_line
from thalweg.stopping import LeftBox


def quartic(t):
    """The drift of L = (x^2 - 1)^2 / 4."""
    return t - t**3


def still(t):
    return jnp.zeros_like(t)


def towards_zero(t):
    return -t


def sharply(t):
    """The drift of V = |x - .1234|."""
    return -jnp.sign(t - 0.1234)


_LOWER, _SMALL = (0.1, 0.05, 0.02, 0.01), (0.002, 0.001)
_REFLECTING = ("reflecting", "absorbing")
KRAMERS = math.log(math.sqrt(2) * math.pi)


def from_left_to(end, D):
    return exit_time_on_line(tw.Diffusion(quartic, 2 * D, 0.1), -1.0, -math.inf, end)


# Closed forms. The tolerance is a thousand roundings, for some hundred panels are summed.


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        ("absorbing", 1.2 * 0.8 / 0.6),
        (("reflecting", "absorbing"), (2.0**2 - 1.2**2) / 0.6),
        (("absorbing", "reflecting"), (2.0**2 - 0.8**2) / 0.6),
    ],
)
def test_brownian_motion(boundary, expected):
    # -D T'' = 1 with D = .3 on (-1, 1), from .2.
    found = exit_time_on_line(tw.Diffusion(still, 0.6, 0.1), 0.2, -1.0, 1.0, boundary=boundary)
    assert found.time == pytest.approx(expected, rel=2e-13)
    assert found.steps == pytest.approx(10 * expected, rel=2e-13)
    assert found.error < 1e-12


def test_a_kink_is_found_and_resolved():
    # V = |x - c|, from c to c + 1: int_0^1 e^{y/D} (1 + (1 - e^{-y/D})) dy = 2 D (e^{1/D} - 1) - 1.
    D = 0.01
    diffusion = tw.Diffusion(sharply, 2 * D, 0.1)
    found = exit_time_on_line(diffusion, 0.1234, -math.inf, 1.1234)
    assert found.time == pytest.approx(2 * D * math.expm1(1 / D) - 1, rel=1e-11)
    # From elsewhere the kink is on no edge. From c - .2 it takes the time down the slope, .2 by
    # Dynkin's formula up to D e^{-.2/D} ~ 1e-11, longer: 1e-42 of the whole.
    beside = exit_time_on_line(diffusion, 0.1234 - 0.2, -math.inf, 1.1234)
    assert beside.log_time == pytest.approx(found.log_time, abs=1e-11)
    assert beside.error < 1e-11


def test_both_ends_from_a_well_agree_with_scipy():
    # The Green function: 1 / D int m(z) S(l, min) S(max, u) / S(l, u), with D = .25 for dx = -x dt.
    D, start, lower, upper = 0.25, 0.3, -0.8, 1.1
    found = exit_time_on_line(tw.Diffusion(towards_zero, 2 * D, 0.1), start, lower, upper)

    def up(x):
        return math.exp(x * x / (2 * D))

    def scale(a, b):
        return quad(up, a, b)[0]

    below = dblquad(lambda y, z: up(y) / up(z) / D, lower, start, lower, lambda z: z)[0]
    beyond = dblquad(lambda y, z: up(y) / up(z) / D, start, upper, lambda z: z, upper)[0]
    whole = scale(lower, upper)
    expected = scale(start, upper) / whole * below + scale(lower, start) / whole * beyond
    # SciPy's own tolerance is 1.5e-8.
    assert found.time == pytest.approx(expected, rel=1e-7)


def test_noise_that_depends_on_the_place_agrees_with_scipy():
    # b = -x, D = (1 + x^2)/2: Phi = log(1 + x^2), with a density of algebraic tails to integrate.
    found = exit_time_on_line(
        tw.Diffusion(towards_zero, lambda t: 1 + t**2, 0.1), 0.0, -math.inf, 2.0
    )

    def integrand(z, y):
        return (1 + y * y) * 2 / (1 + z * z) ** 2

    expected = dblquad(integrand, 0, 2, -math.inf, lambda y: y, epsabs=1e-10)[0]
    assert found.time == pytest.approx(expected, rel=1e-7)


def test_a_mirror_changes_nothing():
    def tilted(t):
        return t - t**3 + 0.1

    def mirrored(t):
        return t - t**3 - 0.1

    one = exit_time_on_line(tw.Diffusion(tilted, 0.1, 0.1), -1.0, -math.inf, 1.0)
    two = exit_time_on_line(tw.Diffusion(mirrored, 0.1, 0.1), 1.0, -1.0, math.inf)
    assert one.log_time == pytest.approx(two.log_time, abs=1e-12)


# The double well.


@pytest.mark.parametrize(("D", "expected"), [(0.1, 1.2244), (0.05, 1.1066)])
def test_the_quartic_well_against_kramers_law(D, expected):
    # Dai and Zhu's theorem 2.2: four digits, as given.
    found = from_left_to(1.0, D)
    assert math.exp(found.log_time - KRAMERS - 0.25 / D) == pytest.approx(expected, abs=5e-5)


def test_the_error_of_kramers_law_begins_with_three_halves_of_the_temperature():
    slopes = [math.expm1(from_left_to(1.0, D).log_time - KRAMERS - 0.25 / D) / D for D in _SMALL]
    # The next terms are 7 D and some 60 D^2: the first goes by extrapolation, the second is 1e-4.
    assert 2 * slopes[1] - slopes[0] == pytest.approx(1.5, abs=5e-4)
    assert abs(slopes[0] - 1.5) > 5e-3


def test_half_of_the_time_goes_by_before_the_saddle():
    gaps = np.array(
        [0.5 - math.exp(from_left_to(0, D).log_time - from_left_to(1, D).log_time) for D in _LOWER]
    )
    assert gaps[0] == pytest.approx(0.0349, abs=1e-4)
    # Back or on from the saddle are alike but for what is near it or beyond: e^{-1/(4D)} of the
    # mass, times less than 1 here.
    bounds = np.exp(-0.25 / np.array(_LOWER))
    assert np.all((gaps > 0.4 * bounds) & (gaps < bounds))


def test_exponents_of_thousands_keep_their_digits():
    found = from_left_to(1.0, 2.5e-4)
    # 1.5 D + 7 D^2 + ...: relative rounding of 1000 is 1e-13.
    assert found.log_time == pytest.approx(KRAMERS + 1000 + 1.5 * 2.5e-4, abs=1e-6)
    assert found.error < 1e-10
    assert math.isinf(found.time)
    # Walls a million higher than the barrier cost no digits.
    far = exit_time_on_line(
        tw.Diffusion(quartic, 5e-4, 0.1), -1.0, -50.0, 1.0, boundary=("reflecting", "absorbing")
    )
    assert far.log_time == pytest.approx(found.log_time, abs=1e-10)


def test_simulation_agrees():
    D, dt = 0.1, 0.04
    diffusion = tw.Diffusion(quartic, 2 * D, dt, method="heun")
    run = tw.simulate(
        diffusion,
        jnp.array([-1.0]),
        steps=20_000,
        key=jax.random.key(0),
        chains=1800,
        exit=LeftBox(-jnp.inf, 1.0),
    )
    mean, error = run.mean_exit_step()
    # Chains are looked at once a step: as if the end were .5826 sqrt(2 D dt) = .052 farther. Heun's
    # weak error is of the order dt^2 = 2e-3. The standard error is 1/42 of the mean.
    exact = exit_time_on_line(diffusion, -1.0, -math.inf, 1.0 + 0.5826 * math.sqrt(2 * D * dt))
    assert abs(mean - exact.steps) < 3 * error
    assert error < 0.03 * mean


def jumping_drift(t):
    return jnp.where(t < 0, -0.34, jnp.where(t < 0.2, 2.96, -3.04))


def jumping_noise(t):
    return jnp.where(t < 0, 0.03, 0.6)


def test_the_grid_agrees_where_drift_and_noise_jump():
    diffusion = tw.Diffusion(jumping_drift, jumping_noise, 0.1)
    found = exit_time_on_line(diffusion, 0.25, -0.5, 1.2, boundary=("absorbing", "reflecting"))
    grid = tw.Grid(-0.5, 1.2, 850, boundary=(("absorbing", "reflecting"),))
    own = tw.discretise(diffusion, grid).exit_time(lambda t: t[0] < 2, error=True)
    # Jumps lie on edges of cells; a third of the difference to the coarser grid is the error.
    difference = float(grid.interpolate(own.error, np.array([0.25])))
    assert abs(float(own.at([0.25])) - found.time) < difference
    assert difference < 5e-3 * found.time


def rough_noise(t):
    return 0.2 * (1 + 0.1 * jnp.abs(jnp.sin(300 * t)))


def test_kinks_everywhere_are_passed_over_and_cost_little():
    # 300 kinks between the wells: every panel holds one.
    found = exit_time_on_line(
        tw.Diffusion(quartic, rough_noise, 0.1), -1.0, -2.0, 1.0, boundary=_REFLECTING
    )
    x, h = np.linspace(-2, 1, 1_000_001, retstep=True)
    D = np.asarray(rough_noise(x)) / 2
    slope = (x**3 - x) / D
    potential = np.append(0.0, np.cumsum((slope[1:] + slope[:-1]) / 2) * h)
    spent = np.exp(-potential) / D
    before = np.append(0.0, np.cumsum((spent[1:] + spent[:-1]) / 2) * h)
    expected = np.trapezoid((np.exp(potential) * before)[x >= -1], dx=h)
    # The trapezoidal rule is off by h^2 300^2 = 1e-6 at a kink.
    assert found.time == pytest.approx(expected, rel=1e-5)
    assert found.error < 1e-5
    assert found.points < 40_000


# Requests that make no sense.


@pytest.mark.parametrize(
    ("drift", "covariance", "place", "options", "message"),
    [
        (still, 1.0, (2.0, -1.0, 1.0), {}, "expected a finite start between them"),
        (still, 1.0, (0.0, -math.inf, math.inf), {}, "cannot be left through"),
        (still, 1.0, (0.0, -1.0, 1.0), {"boundary": "reflecting"}, "cannot be left through"),
        (still, 1.0, (0.0, -1.0, 1.0), {"boundary": "open"}, "expected 'absorbing'"),
        (still, 1.0, (0.0, -math.inf, 1.0), {}, "does not confine the process towards -inf"),
        (quartic, 0.0, (-1.0, -2.0, 1.0), {}, "noise that does not vanish"),
        (towards_zero, lambda t: t**2, (1.0, -0.5, 3.0), {}, "do not resolve"),
        (towards_zero, lambda t: jnp.abs(t), (1.0, -0.5, 3.0), {}, "do not resolve"),
        (lambda t: jnp.log(t), 1.0, (1.0, -1.0, 2.0), {}, "the drift is nan"),
        (lambda t: jnp.zeros(2), 1.0, (0.0, -1.0, 1.0), {}, "drift must return"),
    ],
)
def test_what_has_no_mean_time_is_refused(drift, covariance, place, options, message):
    with pytest.raises(tw.InputError, match=message):
        exit_time_on_line(tw.Diffusion(drift, covariance, 0.1), *place, **options)


def test_only_steady_equations_have_one():
    changing = tw.Diffusion(still, 1.0, 0.1).scheduled(lambda t: 1 + t)
    with pytest.raises(tw.InputError, match="varies in time"):
        exit_time_on_line(changing, 0.0, -1.0, 1.0)
