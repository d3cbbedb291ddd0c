"""Minima, maxima and kinks on a line against roots of polynomials and known landscapes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thalweg import landscapes
from thalweg.critical import critical_points
from thalweg.errors import InputError
from thalweg.problem import FiniteSum

# Polynomials with kinks share one compiled program.


def _curve(params, sample):
    coefficients, (weights, places) = sample
    smooth = jnp.polyval(coefficients.astype(params.dtype), params[0])
    return smooth + jnp.dot(weights, jnp.abs(params[0] - places))


def curve(coefficients, kinks=()):
    padded = np.zeros((1, 8))
    padded[0, 8 - len(coefficients) :] = coefficients
    weights, places = np.zeros((2, 1, 2))
    for i, (weight, place) in enumerate(kinks):
        weights[0, i], places[0, i] = weight, place
    return FiniteSum(_curve, (padded, (weights, places)))


def on_line(problem, lower, upper):
    ends = jnp.array([float(lower)]), jnp.array([float(upper)])
    return critical_points(problem, *ends, key=jax.random.key(0))


def explored(landscape):
    return critical_points(
        landscape.problem, landscape.lower, landscape.upper, key=jax.random.key(0)
    )


def where(points):
    return np.sort([float(point.params[0]) for point in points])


def test_minima_and_maxima_alternate_on_a_line():
    roots = np.array([-1.7, -0.9, -0.2, 0.35, 1.1, 1.65])
    coefficients = np.polyint(np.poly(roots))
    graph = on_line(curve(coefficients), -2, 2)
    # f' is of degree 6 with a leading 1: it falls through the first root, a maximum. Rounding of f'
    # is some 20 units, and the curvatures at the roots are above 1.
    np.testing.assert_allclose(where(graph.minima), roots[1::2], rtol=0, atol=1e-14)
    np.testing.assert_allclose(where(graph.saddles), roots[::2], rtol=0, atol=1e-14)

    def number(point):
        return int(np.abs(roots - float(point.params[0])).argmin())

    place = {number(minimum): i for i, minimum in enumerate(graph.minima)}
    for saddle, joins in zip(graph.saddles, graph.joins, strict=True):
        top = number(saddle)
        assert joins == tuple(sorted((place.get(top - 1, -1), place[top + 1])))
        curvature = np.polyval(np.polyder(coefficients, 2), roots[top])
        assert float(saddle.eigenvalues[0]) == pytest.approx(curvature, rel=1e-9)
        assert (saddle.index, saddle.slopes) == (1, None)
    assert "4096 cells of the box" in graph.search.confidence


def test_kinks_on_a_line():
    # x^2/2 + |x| - 2 |x - 1| has the slope x + 1 up to 0, x + 3 up to 1, then x - 1: one change of
    # sign, at no kink.
    graph = on_line(curve([0.5, 0.0, 0.0], [(1.0, 0.0), (-2.0, 1.0)]), -4, 4)
    assert [(float(p.params[0]), p.slopes) for p in graph.minima] == [(-1.0, None)]
    assert graph.saddles == ()
    # |x| - x^2/2 + x^4/40 has kinks where jnp.abs has the derivative 0.
    graph = on_line(curve([1 / 40, 0.0, -0.5, 0.0, 0.0], [(1.0, 0.0)]), -2, 2)
    (bottom,) = graph.minima
    assert abs(float(bottom.params[0])) < 1e-15
    np.testing.assert_allclose(bottom.slopes, (-1, 1), rtol=0, atol=1e-14)
    assert (bottom.index, bottom.sharpness, bottom.residual) == (0, math.inf, 0.0)
    # 1 - x + x^3/10 = 0 on the right.
    top = np.roots([0.1, 0.0, -1.0, 1.0]).real
    top = float(top[(top > 0) & (top < 2)][0])
    np.testing.assert_allclose(where(graph.saddles), [-top, top], rtol=0, atol=1e-14)
    assert graph.joins == ((-1, 0), (-1, 0))


def test_the_piecewise_linear_landscape():
    landscape = landscapes.piecewise_linear()
    graph = explored(landscape)
    sharp, flat = graph.minima
    (top,) = graph.saddles
    # To rounding of the box, 3.
    for point, where, value, slopes in (
        (sharp, 0.2, -0.592, (0.4 * 0.1 - 0.6 * 5, 0.4 * 0.1 + 0.6 * 5)),
        (flat, -1.0, -0.34, (-0.4 - 0.6 * 0.1, 0.4 - 0.6 * 0.1)),
        (top, 0.0, 0.0, (0.4 - 0.6 * 0.1, 0.4 * 0.1 - 0.6 * 5)),
    ):
        assert float(point.params[0]) == pytest.approx(where, abs=1e-15)
        assert point.value == pytest.approx(value, abs=4e-15)
        np.testing.assert_allclose(point.slopes, slopes, rtol=1e-14)
        assert (point.hits, point.residual, point.largest_step) == (None, 0.0, 0.0)
    assert [point.index for point in (sharp, flat, top)] == [0, 0, 1]
    assert graph.joins == ((0, 1),)
    assert graph.barrier(0, 1) == pytest.approx(0.592, abs=4e-15)
    assert graph.barrier(1, 0) == pytest.approx(0.34, abs=4e-15)


def test_a_kinked_top_between_smooth_minima():
    landscape = landscapes.toy_pair()
    graph = explored(landscape)
    assert sorted(float(p.params[0]) for p in graph.minima) == pytest.approx([0, 1], abs=1e-15)
    assert [p.sharpness for p in graph.minima] == [2, 2]
    (top,) = graph.saddles
    x = float(landscape.saddles[0].params[0])
    assert float(top.params[0]) == pytest.approx(x, abs=1e-15)
    # The mean of x^2 and .1 (x - 1)^2 on the left, of .1 and 1.9 (x - 1)^2 on the right.
    np.testing.assert_allclose(top.slopes, (x + 0.1 * (x - 1), 2 * (x - 1)), rtol=1e-12)


def test_lines_that_are_refused():
    with pytest.raises(InputError, match=r"f'' is .* it is degenerate"):
        on_line(curve([1.0, 0.0, 0.0, 0.0, 0.0]), -1, 1.5)
    # |x + 1| + |x - 1| is flat in between.
    with pytest.raises(InputError, match=r"vanishes from -0\.99.* to 0\.99.*a continuum"):
        on_line(curve([0.0], [(1.0, -1.0), (1.0, 1.0)]), -2, 2)
    pole = FiniteSum(lambda p, c: jnp.log(p[0]) ** 2 + 0 * c, jnp.zeros(1))
    with pytest.raises(InputError, match=r"the derivative is nan at .*make it smaller"):
        on_line(pole, -1, 2)
    with pytest.raises(InputError, match="starts=0; expected at least 1"):
        critical_points(pole, jnp.zeros(1), jnp.ones(1), key=jax.random.key(0), starts=0)
