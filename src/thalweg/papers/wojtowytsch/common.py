"""What several experiments of this document share."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw

# SGD on two summands h x^2/2 with h = 1 + r, 1 - r and r^2 = 1/2: f = x^2/2 and the variance of a
# draw is f, so that Lambda = 2, C_L = 1 and sigma = 1 with equality in all three hypotheses.
HALVES = np.array([1 + np.sqrt(0.5), 1 - np.sqrt(0.5)])


def quadratics(curvatures: Any = HALVES) -> tw.FiniteSum:
    """The mean of quadratics in one variable that vanish together."""
    return tw.FiniteSum(_quadratic, jnp.asarray(curvatures))


def _quadratic(x: Float[Array, " 1"], h: Float[Array, ""]) -> Float[Array, ""]:
    return h * jnp.sum(x**2) / 2


def two_factors() -> tw.FiniteSum:
    r"""The objective with :math:`f_i = x_i^2 (ab - 1)^2/2`: its minimisers are a hyperbola."""
    return tw.FiniteSum(_factors, jnp.array([0.5, 1.5]))


def _factors(p: Float[Array, " 2"], x: Float[Array, ""]) -> Float[Array, ""]:
    return (x * (p[0] * p[1] - 1)) ** 2 / 2


def slope(x: Any, y: Any) -> float:
    """The slope of the line through points, by least squares."""
    return float(np.polyfit(np.asarray(x, dtype=float), np.asarray(y, dtype=float), 1)[0])


@functools.cache
def downhill(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The drift of an objective; the same function each time, so that programs are shared."""
    return lambda theta: -jax.grad(f)(theta)
