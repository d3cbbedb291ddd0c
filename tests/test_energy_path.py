"""Minimum energy paths against known saddles, a path in closed form and lines of the flow."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from thalweg import landscapes
from thalweg.errors import InputError
from thalweg.paths.curves import bent_line
from thalweg.paths.energy_path import minimum_energy_path
from thalweg.paths.strings import string
from thalweg.problem import FiniteSum

MUELLER_BROWN = landscapes.mueller_brown()
# Half the angle between the minima of the arc.
ANGLE = 1.2
TURN = jnp.asarray(np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0])
STIFFNESS = jnp.asarray(10.0 ** np.linspace(0, 3, 8))


def _arc(x, y):
    """Two wells on the unit circle around (0, -6), in coordinates that keep right angles.

    log r + i phi is a conformal map of the plane, so the circle r = 1, on which f has no slope
    outwards, is a line of its flow: the path is an arc of the circle.
    """
    along = jnp.arctan2(x, y + 6) / ANGLE
    out = jnp.log(jnp.hypot(x, y + 6)) / ANGLE
    return (along**2 - 1) ** 2 / 4 + 10 * out**2


def _family(p, share):
    """Several landscapes in one program: a weighted sum of terms in a rotated plane.

    In the eight other directions the curvature is 1 to 1000.
    """
    z = TURN @ p
    x, y = z[0], z[1]
    well, r2 = (x**2 - 1) ** 2 / 4, x**2 + y**2
    terms = (
        (r2 - 1) ** 2 / 4 + 0.1 * y**2,  # a ring: two ways around a hill
        well + 2.5e5 * (y - jnp.sin(3 * x)) ** 2,  # a valley of condition 5e5
        x**2 * (x - 1) ** 2 * (x - 2.5) ** 2 + y**2 / 2,  # three wells
        well + (x**2 - 0.25) * y**2,  # a ridge that falls
        well / (1 + y**2) + 0.02 * jnp.tanh(y**2) * jnp.exp(-32 * well),  # one that levels out
        jnp.abs(jnp.abs(x) - 1) + y**2,  # kinks
        _arc(x, y),
    )
    beside = jnp.dot(STIFFNESS, jnp.square(z[2:])) / 2
    return sum(s * term for s, term in zip(share, terms, strict=True)) + beside


def _at(x, y):
    """The point of the rotated plane."""
    return np.asarray(TURN).T @ np.array([x, y, *np.zeros(8)])


def _one(number):
    shares = np.zeros((1, 7))
    shares[0, number] = 1
    return FiniteSum(_family, shares)


RING, VALLEY, THREE, FALLING, LEVEL, KINKED, ARC = map(_one, range(7))
LEFT, RIGHT = _at(-1.0, 0.0), _at(1.0, 0.0)


def _monotone_between_critical_points(path):
    """Up to each saddle and down from it, in turn."""
    points = [
        point.params for pair in zip(path.minima, path.saddles, strict=False) for point in pair
    ]
    places = [
        np.linalg.norm(path.points - point, axis=1).argmin()
        for point in (*points, path.minima[-1].params)
    ]
    signs = [np.sign(np.diff(path.values[i : j + 1])) for i, j in itertools.pairwise(places)]
    return all(np.all(s == (-1) ** number) for number, s in enumerate(signs))


def _distances(points, line):
    """Of points to a polygon."""
    ahead = np.diff(line, axis=0)
    away = points[:, None] - line[:-1]
    share = np.clip(np.sum(away * ahead, axis=2) / np.sum(ahead**2, axis=1), 0, 1)
    return np.linalg.norm(away - share[..., None] * ahead, axis=2).min(axis=1)


def _seen(points):
    """In the unrotated coordinates; beside the plane there is nothing."""
    seen = np.atleast_2d(points) @ np.asarray(TURN).T
    # Sums of products of ten rounded numbers, and lines integrated to 1e-10 a step.
    np.testing.assert_allclose(seen[:, 2:], 0, rtol=0, atol=1e-8)
    return seen[:, :2]


@pytest.mark.parametrize("a1", [-150.0, -200.0])
def test_mueller_brown(a1):
    landscape = landscapes.mueller_brown(a1=a1)
    ends = landscape.minima[0], landscape.minima[2]
    path = minimum_energy_path(landscape.problem, *ends)
    known = {saddle.name: saddle for saddle in landscape.saddles}
    order = known["global to middle"], known["middle to right"]
    # Newton's method ends at rounding; the known values are printed to 1e-14 of themselves.
    for got, expected in zip(path.saddles, order, strict=True):
        assert got.index == 1
        assert got.residual < 1e-11
        assert got.value == pytest.approx(expected.value, abs=1e-9)
    for got, expected in zip(path.minima, landscape.minima, strict=True):
        assert got.value == pytest.approx(expected.value, abs=1e-9)
    top = known["global to middle"].value
    assert path.barriers == pytest.approx((top - ends[0].value, top - ends[1].value), abs=1e-9)
    assert _monotone_between_critical_points(path)
    if a1 == -150:
        assert [round(s.value, 3) for s in path.saddles] == [-10.157, -14.393]


def test_points_lie_on_lines_of_the_flow():
    # The line from the saddle at unit speed, by another solver at 1e-11, up to a hundredth of its
    # length before the minimum; the chords of 3000 pieces, 4e-4 long, sag by 1e-7 where the radius
    # of the curve is .2.
    problem, saddle = MUELLER_BROWN.problem, np.asarray(MUELLER_BROWN.saddles[1].params)
    field = jax.jit(problem.gradient)
    side = np.linalg.eigh(jax.jacfwd(field)(saddle))[1][:, 0]

    def speed(_, x):
        slope = np.asarray(field(x))
        return -slope / np.linalg.norm(slope)

    path = minimum_energy_path(problem, MUELLER_BROWN.minima[0], MUELLER_BROWN.minima[1])
    top = np.argmax(path.values)
    for part in (path.points[: top + 1][::-1], path.points[top:]):
        start = saddle + 1e-7 * side * np.sign(side @ (part[1] - part[0]))
        length = np.linalg.norm(np.diff(part, axis=0), axis=1).sum()
        where = np.linspace(0, 0.99 * length, 3000)
        line = solve_ivp(
            speed, (0, where[-1]), start, "DOP853", rtol=1e-11, atol=1e-12, t_eval=where
        )
        assert _distances(part[: int(0.98 * len(part))], line.y.T).max() < 2e-7


ARC_ENDS = [_at(s * np.sin(ANGLE), np.cos(ANGLE) - 6) for s in (-1, 1)]


def test_a_path_in_closed_form():
    path = minimum_energy_path(ARC, *ARC_ENDS)
    x, y = _seen(path.points).T
    angle = np.arctan2(x, y + 6)
    # The lines are integrated to 1e-10 a step, in some hundred steps, towards an attracting line.
    np.testing.assert_allclose(np.hypot(x, y + 6), 1, rtol=0, atol=1e-8)
    np.testing.assert_allclose(path.arc, angle + ANGLE, rtol=0, atol=1e-8)
    np.testing.assert_allclose(path.values, ((angle / ANGLE) ** 2 - 1) ** 2 / 4, atol=1e-8)
    # 63 pieces, 31 on the first side of the top.
    np.testing.assert_allclose(np.diff(path.arc)[:31], ANGLE / 31, rtol=1e-7)
    assert path.barriers == pytest.approx((0.25, 0.25), abs=1e-12)
    np.testing.assert_allclose(_seen(path.saddles[0].params), [[0, -5]], rtol=0, atol=1e-12)
    # On a circle the chord of equal neighbours is parallel to the tangent.
    assert path.residual < 1e-7


@pytest.mark.slow
def test_the_string_cuts_corners():
    # Each iteration draws it inwards by a share of the square of the distance of the images, and
    # the valley pushes it back, wholly if it is steep and by a share like that distance if not: the
    # order is between one and two.
    inside = []
    for images in (32, 64):
        found = string(ARC, jnp.asarray(bent_line(*ARC_ENDS, images)))
        assert found.at_rest
        x, y = (np.asarray(found.points) @ np.asarray(TURN).T)[:, :2].T
        inside.append(np.max(1 - np.hypot(x, y + 6)))
    assert 0 < inside[1] < inside[0] < (2 * ANGLE / 31) ** 2
    assert 1 < np.log2(inside[0] / inside[1]) / np.log2(63 / 31) < 2


def test_the_residual_falls_with_the_square_of_the_distance():
    few, many = (minimum_energy_path(RING, LEFT, RIGHT, images=n).residual for n in (32, 64))
    assert np.log2(few / many) / np.log2(63 / 31) == pytest.approx(2, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["repaired", "literal"])
def test_atoms(branch):
    landscape = landscapes.atoms(second_branch=branch)
    path = minimum_energy_path(landscape.problem, *landscape.minima, images=32)
    assert [s.value for s in path.saddles] == pytest.approx([landscape.saddles[0].value], abs=1e-9)
    np.testing.assert_allclose(
        path.saddles[0].params, landscape.saddles[0].params, rtol=0, atol=1e-9
    )
    assert _monotone_between_critical_points(path)


def test_a_ridge_of_symmetry_is_left():
    # The straight line from minimum to minimum is a line of the flow over the hill, at 1/4; the
    # saddles are beside it, where y^2 = .8, at .09.
    path = minimum_energy_path(RING, LEFT, RIGHT)
    (saddle,) = path.saddles
    assert saddle.value == pytest.approx(0.09, abs=1e-12)
    np.testing.assert_allclose(np.abs(_seen(saddle.params)), [[0, np.sqrt(0.8)]], rtol=0, atol=1e-9)
    assert np.abs(_seen(path.points)[:, 1]).max() == pytest.approx(np.sqrt(0.8), abs=1e-9)


def test_a_stiff_curved_valley():
    path = minimum_energy_path(VALLEY, *(_at(x, np.sin(3 * x)) for x in (-1.0, 1.0)))
    assert path.barriers == pytest.approx((0.25, 0.25), abs=1e-9)
    # Off its floor by the slope along it over the curvature across it, at most .4 / 5e5 times the
    # slope of the curve, 3, and its curvature.
    x, y = _seen(path.points).T
    assert np.abs(y - np.sin(3 * x)).max() < 1e-5


def test_a_minimum_on_the_way():
    path = minimum_energy_path(THREE, _at(0, 0), _at(2.5, 0))
    places = _seen(np.array([m.params for m in path.minima]))
    np.testing.assert_allclose(places, [[0, 0], [1, 0], [2.5, 0]], rtol=0, atol=1e-9)
    assert [m.value for m in path.minima] == pytest.approx([0, 0, 0], abs=1e-15)
    # The zeros of q' with f = q^2 along the line, q = x (x - 1) (x - 2.5).
    tops = np.polyder(np.poly([0, 1, 2.5]))
    saddles = _seen(np.array([s.params for s in path.saddles]))
    np.testing.assert_allclose(saddles[:, 0], np.sort(np.roots(tops)), rtol=0, atol=1e-9)
    assert _monotone_between_critical_points(path)


@pytest.mark.parametrize(
    ("problem", "a", "b", "options", "message"),
    [
        (RING, LEFT, 0.9 * RIGHT, {}, r"b = .* is no smooth minimum: the gradient there has"),
        (KINKED, LEFT, RIGHT, {}, r"a = .* is no smooth minimum.*kinked minima there is no such"),
        (RING, LEFT, LEFT, {}, "expected two different points"),
        (RING, LEFT, np.zeros(3), {}, r"shapes \(10,\) and \(3,\); expected \(d,\)"),
        (RING, LEFT, RIGHT, {"images": 7}, "images is 7; expected a whole number, at least 8"),
    ],
)
def test_requests_that_make_no_sense(problem, a, b, options, message):
    with pytest.raises(InputError, match=message):
        minimum_energy_path(problem, a, b, **options)


def test_a_path_through_infinity():
    # The ridge between the wells becomes the lower the farther one goes beside the straight line.
    with pytest.raises(InputError, match=r"went away.*the lowest path leads through infinity"):
        minimum_energy_path(LEVEL, LEFT, RIGHT)
    # It falls like -y^2: the saddles beside it lead from a minimum to infinity.
    with pytest.raises(InputError, match=r"no path from.*lines to two minima are: none; expected"):
        minimum_energy_path(FALLING, LEFT, RIGHT)
