"""Minima and basins of problems whose minima are known, or found by other solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from thalweg import critical, flow
from thalweg.errors import InputError
from thalweg.problem import FiniteSum

A = jnp.array([-150.0, -100.0, -170.0, 15.0]), jnp.array([-1.0, -1.0, -6.5, 0.7])
B = jnp.array([0.0, 0.0, 11.0, 0.6]), jnp.array([-10.0, -10.0, -6.5, 0.7])
CENTRE = jnp.array([1.0, 0.0, -0.5, -1.0]), jnp.array([0.0, 0.5, 1.5, 1.0])


def _term(p, term):
    (height, a), (b, c), (x, y) = term
    dx, dy = p[0] - x, p[1] - y
    return height * jnp.exp(a * dx**2 + b * dx * dy + c * dy**2)


MUELLER_BROWN = FiniteSum(_term, (A, B, CENTRE))
BOX = jnp.array([-1.5, -0.3]), jnp.array([1.2, 2.0])
# Printed digits of V/4 with A_1 = -150.
KNOWN = [(-0.5582, 1.4417, -36.675), (-0.0717, 0.4790, -19.760), (0.5426, 0.0471, -16.644)]


def _line(function, n=1):
    """A problem of one parameter with n equal terms."""
    return FiniteSum(lambda p, c: function(p[0]) + 0 * c, jnp.zeros(n))


WELL = _line(lambda x: (x**2 - 1) ** 2 / 4)
# Slopes -1, 1, -2, 2 with kinked minima at -1 and 1/2 and a kinked maximum at 0.
KINKED = _line(lambda x: jnp.where(x < 0, jnp.abs(x + 1) - 1, 2 * jnp.abs(x - 0.5) - 1))


def _ends(lower, upper):
    return jnp.array([float(lower)]), jnp.array([float(upper)])


def _points(*where):
    """Minima as known beforehand: only their location is used."""
    return [
        critical.CriticalPoint(jnp.asarray(w), 0.0, jnp.ones(len(w)), 1.0, 0.0, 0.0, 2.0)
        for w in where
    ]


def _assert_known(points):
    # Four digits are printed of a location, three of a value.
    got = np.array([(*map(float, point.params), point.value) for point in points])
    np.testing.assert_array_less(abs(got - np.array(KNOWN)), [[6e-5, 6e-5, 6e-4]] * 3)


@pytest.fixture(scope="module")
def wells():
    return critical.minima(MUELLER_BROWN, *BOX, key=jax.random.key(0))


@pytest.mark.parametrize("seed", range(1, 6))
def test_mueller_brown_from_random_starts(wells, seed):
    found = critical.minima(MUELLER_BROWN, *BOX, key=jax.random.key(seed))
    for points in (found, wells):
        _assert_known(points)
        assert sum(point.hits for point in points) == 64
    # Newton steps below 1e-10 of the diagonal, 3.5.
    for one, other in zip(found, wells, strict=True):
        np.testing.assert_allclose(one.params, other.params, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_points_describe_themselves(wells):
    deep = wells[0]
    hessian = jax.hessian(MUELLER_BROWN.value)(deep.params)
    np.testing.assert_allclose(deep.eigenvalues, jnp.linalg.eigvalsh(hessian), rtol=1e-10)
    assert deep.sharpness == float(deep.eigenvalues[-1])
    # A Newton step of 1e-10 times the diagonal times the sharpness.
    assert deep.residual < 3.5e-10 * deep.sharpness
    assert deep.index == 0
    each = jax.vmap(jax.hessian(_term), in_axes=(None, 0))(deep.params, MUELLER_BROWN.data)
    spread = jnp.mean(each @ each, axis=0) - hessian @ hessian
    expected = float(jnp.sqrt(jnp.linalg.eigvalsh(spread)[-1]))
    assert deep.nonuniformity == pytest.approx(expected, rel=1e-9)


def test_saddle_has_index_one():
    # The saddle between the two deeper wells, value -10.157.
    field = jax.jit(MUELLER_BROWN.gradient)
    newton = jnp.array([-0.81, 0.62])
    for _ in range(20):
        newton = newton - jnp.linalg.solve(jax.jacfwd(field)(newton), field(newton))
    saddle = critical.critical_point(MUELLER_BROWN, newton, name="pass")
    assert saddle.value == pytest.approx(-10.157, abs=6e-4)
    assert (saddle.index, saddle.name, saddle.hits) == (1, "pass", None)
    assert saddle.residual < 1e-9


def test_toy_pair():
    terms = [lambda p, c=c: jnp.minimum(p[0] ** 2, c * (p[0] - 1) ** 2) for c in (0.1, 1.9)]
    found = critical.minima(FiniteSum.of(*terms), *_ends(-1, 2), key=jax.random.key(0))
    found.sort(key=lambda point: float(point.params[0]))
    np.testing.assert_allclose([float(p.params[0]) for p in found], [0, 1], rtol=0, atol=1e-9)
    # Second derivatives (2, 2) on the left, (.2, 3.8) on the right.
    np.testing.assert_allclose([p.sharpness for p in found], [2, 2], rtol=1e-12)
    np.testing.assert_allclose([p.nonuniformity for p in found], [0, 1.8], rtol=1e-12, atol=1e-12)
    # In one dimension (4) is 2 h/(h^2 + s^2) with h = 2.
    np.testing.assert_allclose([p.largest_step for p in found], [1, 4 / 7.24], rtol=1e-9)


def test_minima_outside_the_box_are_dropped():
    found = critical.minima(WELL, *_ends(0.2, 3), key=jax.random.key(0), starts=16)
    assert [float(point.params[0]) for point in found] == pytest.approx([1], abs=1e-9)
    assert found[0].hits == 16


def test_nothing_to_find():
    hill = _line(lambda x: -(x**2))
    assert critical.minima(hill, *_ends(-1, 1), key=jax.random.key(0), starts=8) == []


@pytest.mark.slow
def test_minima_in_float32():
    problem = FiniteSum(_term, jax.tree.map(lambda x: x.astype(jnp.float32), (A, B, CENTRE)))
    box = [corner.astype(jnp.float32) for corner in BOX]
    found = critical.minima(problem, *box, key=jax.random.key(0))
    _assert_known(found)


@pytest.mark.parametrize(
    ("function", "reason"),
    [("kinked", "kinks"), ("quartic", "continuum"), ("valley", "continuum")],
)
def test_minima_without_a_hessian(function, reason):
    problem, d = {
        "kinked": (KINKED, 1),
        "quartic": (_line(lambda x: x**4), 1),
        "valley": (FiniteSum(lambda p, c: (jnp.dot(p, p) - 1) ** 2 + 0 * c, jnp.zeros(1)), 2),
    }[function]
    corner = jnp.full(d, 2.0)
    with pytest.raises(InputError, match=f"no isolated smooth minimum.*{reason}"):
        critical.minima(problem, -corner, corner, key=jax.random.key(0), starts=8)


def test_flow_passes_a_stiff_curved_valley():
    # Condition 1e4: the last steps are Newton's all the same.
    problem = FiniteSum(
        lambda p, c: 0.5 * (1e4 * (p[0] - p[1] ** 2) ** 2 + p[1] ** 2) + 0 * c, jnp.zeros(1)
    )
    starts = jax.random.uniform(jax.random.key(0), (16, 2), minval=-1.0, maxval=1.0)
    never = lambda point: jnp.asarray(False)  # noqa: E731
    run = jax.jit(
        jax.vmap(lambda s: flow.follow(problem, s, jnp.zeros(2), jnp.asarray(2.0), never))
    )
    ends = run(starts)
    assert bool(ends.at_rest.all())
    np.testing.assert_allclose(ends.point, 0, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_basins_agree_with_an_implicit_solver(wells):
    # Against LSODA at 1e-9. A step errs by 1e-4 of the distance of the wells, so points as near as
    # that to a basin's boundary may differ: of 60 at random fewer than one.
    field = jax.jit(MUELLER_BROWN.gradient)
    starts = jax.random.uniform(jax.random.key(3), (60, 2), minval=BOX[0], maxval=BOX[1])
    expected = []
    for start in np.asarray(starts):
        end = solve_ivp(
            lambda _, p: -np.asarray(field(p)), (0, 5), start, method="LSODA", rtol=1e-9, atol=1e-9
        )
        distances = [np.linalg.norm(end.y[:, -1] - np.asarray(p.params)) for p in wells]
        assert min(distances) < 1e-3
        expected.append(int(np.argmin(distances)))
    np.testing.assert_array_equal(critical.basin(MUELLER_BROWN, wells, starts), expected)


@pytest.mark.slow
def test_basins_of_many_points_and_of_none(wells):
    noise = 0.05 * jax.random.normal(jax.random.key(0), (1000, 3, 2))
    ends = (jnp.stack([p.params for p in wells]) + noise).reshape(-1, 2)
    ends = ends.at[5].set(jnp.nan).at[6].set(jnp.inf)
    expected = np.tile([0, 1, 2], 1000)
    expected[5:7] = -1
    # Two standard deviations of the noise are .1; the nearest boundary is .2 away.
    np.testing.assert_array_equal(critical.basin(MUELLER_BROWN, wells, ends), expected)


def test_basin_needs_no_exact_location():
    rounded = _points(*(known[:2] for known in KNOWN))
    ends = jnp.array([[-0.6, 1.3], [0.0, 0.4], [0.6, 0.1]])
    assert critical.basin(MUELLER_BROWN, rounded, ends).tolist() == [0, 1, 2]


def test_basins_on_a_line():
    left_right = _points([-1.0], [1.0])
    ends = jnp.array([[-9.0], [-1.0], [-1e-9], [0.0], [1e-9], [0.5], [1.0], [50.0], [jnp.nan]])
    # The maximum at 0 belongs to neither.
    expected = [0, 0, 0, -1, 1, 1, 1, 1, -1]
    assert critical.basin(WELL, left_right, ends).tolist() == expected
    assert critical.basin(WELL, left_right[::-1], ends).tolist() == [
        -1 if owner < 0 else 1 - owner for owner in expected
    ]


def test_basins_of_kinked_minima():
    ends = jnp.array([[-3.0], [-1.0], [-0.01], [0.01], [0.5], [9.0]])
    got = critical.basin(KINKED, _points([-1.0], [0.5]), ends)
    assert got.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.slow
def test_basins_of_kinked_minima_in_the_plane():
    # Two cones, |p - c| with the lower one counting: the boundary is the line x = 0.
    cone = FiniteSum(
        lambda p, c: jnp.minimum(jnp.linalg.norm(p - c), jnp.linalg.norm(p + c)),
        jnp.array([[1.0, 0.0]]),
    )
    ends = jax.random.uniform(jax.random.key(0), (200, 2), minval=-2.0, maxval=2.0)
    got = critical.basin(cone, _points([1.0, 0.0], [-1.0, 0.0]), ends)
    np.testing.assert_array_equal(got, np.where(ends[:, 0] > 0, 0, 1))


def test_whoever_flows_away_is_in_no_basin():
    # One minimum at 0 with a pass at (0, 1) and a slope to infinity behind it.
    problem = FiniteSum(
        lambda p, c: p[0] ** 2 + p[1] ** 2 / 2 - p[1] ** 3 / 3 + 0 * c, jnp.zeros(1)
    )
    ends = jnp.array([[0.3, 0.9], [0.3, 1.1], [0.0, -1.0], [2.0, 0.2]])
    assert critical.basin(problem, _points([0.0, 0.0]), ends).tolist() == [0, -1, 0, 0]
    # A point that is no minimum owns nobody: all rest elsewhere, or leave.
    assert critical.basin(problem, _points([0.5, 0.5]), ends).tolist() == [-1, -1, -1, -1]


def test_requests_that_make_no_sense(wells):
    key = jax.random.key(0)
    with pytest.raises(InputError, match="expected finite corners, lower < upper"):
        critical.minima(WELL, *_ends(1, -1), key=key)
    with pytest.raises(InputError, match="starts=0; expected at least 1"):
        critical.minima(WELL, *_ends(-1, 1), key=key, starts=0)
    with pytest.raises(InputError, match="points is empty"):
        critical.basin(WELL, [], jnp.zeros((2, 1)))
    with pytest.raises(InputError, match=r"points have shape \(2,\) and end points \(3,\)"):
        critical.basin(MUELLER_BROWN, wells, jnp.zeros((2, 3)))
    with pytest.raises(InputError, match=r"2000 parameters.*use thalweg\.stability\.assess"):
        critical.critical_point(
            FiniteSum(lambda p, c: jnp.sum(p**2) + c, jnp.zeros(2)), jnp.zeros(2000)
        )
    with pytest.raises(InputError, match="the Hessian is not finite"):
        critical.critical_point(_line(lambda x: jnp.abs(x) ** 1.5), jnp.zeros(1))
