"""Two like minima of the mean, of which one is a minimum of every term."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.landscapes.base import KnownPoint, Landscape
from thalweg.problem import FiniteSum

_LEFT, _RIGHT, _HEIGHT = 0.8, 2.4, 0.39
_HALF_WIDTH = 0.7
_SLOPES = np.array([1.0, 1.0, 1.0, -3.0]) * 2.77 / 3


def flat_or_not() -> Landscape:
    r"""Two like minima, only one of them a minimum of every term; SGD finds it (d = 1).

    .. math::

        f_i = F + s_i \varphi, \quad F = .39 (x - .8)^2 (x - 2.4)^2, \quad
        \varphi' = \cos^2(\pi (x - .8) / 1.4) \text{ where } |x - .8| < .7, \text{ else } 0,

    with :math:`s = (1, 1, 1, -3) \cdot 2.77/3`, hence f = F. At the left minimum, .8, the terms
    have the gradients :math:`s_i`: one step of .5 with the fourth, -2.77, lands at 2.185. At the
    right one, 2.4, all four vanish, and SGD stays there. With batches of two and more, drawn
    without replacement, it stays at the left one, too.

    Source: Giselsson, slides "Flatness of minima". They show a figure and three numbers (the start
    .8, the step .5, one step to 2.18 with the gradient -2.77); the formulas are a construction that
    reproduces them.
    """
    return Landscape(
        name="flat-or-not",
        problem=FiniteSum(_term, _SLOPES, groups=np.arange(4)),
        start=jnp.array([_LEFT]),
        step=0.5,
        steps=100,
        lower=jnp.array([-0.5]),
        upper=jnp.array([3.5]),
        source="Giselsson, escaping not individually flat minima",
        minima=(
            KnownPoint("left, not individually flat", jnp.array([_LEFT]), 0.0),
            KnownPoint("right, individually flat", jnp.array([_RIGHT]), 0.0),
        ),
        saddles=(KnownPoint("top", jnp.array([1.6]), _HEIGHT * 0.8**4),),
        reading={
            "terms": "a construction that reproduces the slides' numbers; no formula is given"
        },
    )


def _term(position: Float[Array, " 1"], slope: Float[Array, ""]) -> Float[Array, ""]:
    (x,) = position
    return _HEIGHT * (x - _LEFT) ** 2 * (x - _RIGHT) ** 2 + slope.astype(x.dtype) * _phi(x)


def _phi(x: Float[Array, ""]) -> Float[Array, ""]:
    """The integral of the cosine squared; constant, with both derivatives zero, outside."""
    u = jnp.clip(x - _LEFT, -_HALF_WIDTH, _HALF_WIDTH)
    return 0.5 * u + _HALF_WIDTH / (2 * jnp.pi) * jnp.sin(jnp.pi / _HALF_WIDTH * u)
