"""Two functions that agree on one minimum and quarrel about the other."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.landscapes.base import KnownPoint, Landscape
from thalweg.problem import FiniteSum

_CURVATURES = (0.1, 1.9)
# Where x^2 = 1.9 (x - 1)^2 between the minima.
_KINK = math.sqrt(1.9) / (1 + math.sqrt(1.9))


def toy_pair() -> Landscape:
    r"""Two equally sharp minima, one of them non-uniform; SGD leaves that one (d = 1).

    .. math::

        f_1 = \min(x^2, .1 (x - 1)^2), \qquad f_2 = \min(x^2, 1.9 (x - 1)^2), \qquad
        f = \tfrac12 (f_1 + f_2).

    Both minima have f = 0 and f'' = 2. At 0 the second derivatives of the two are (2, 2), at 1
    they are (.2, 3.8), the non-uniformity 1.8. The right one loses mean-square stability at the
    step 4/7.24 = .552, SGD almost surely leaves it beyond .559, gradient descent only beyond 1. The
    branches at 1 hold on (.5796, 3.6427); both terms have kinks, none of them at a minimum. Where
    :math:`x^2` equals the other branch, the derivative is that of :math:`x^2`.

    Source: Wu, Ma and E, poster "How SGD selects the global minima", toy example.
    """
    return Landscape(
        name="toy-pair",
        problem=FiniteSum(_term, np.array(_CURVATURES), groups=np.arange(2)),
        start=jnp.array([1.1]),
        step=0.7,
        steps=200,
        lower=jnp.array([-1.0]),
        upper=jnp.array([2.0]),
        source="Wu, Ma and E, toy example",
        minima=(
            KnownPoint("left, uniform", jnp.array([0.0]), 0.0),
            KnownPoint("right, non-uniform", jnp.array([1.0]), 0.0),
        ),
        saddles=(KnownPoint("top, a kink", jnp.array([_KINK]), (1 - _KINK) ** 2),),
        reading={
            "start": "1.1, near the right minimum; none is stated",
            "kinks": "where the branches meet, the derivative is that of x^2",
        },
    )


def _term(position: Float[Array, " 1"], curvature: Float[Array, ""]) -> Float[Array, ""]:
    (x,) = position
    left, right = x * x, curvature.astype(x.dtype) * (x - 1.0) ** 2
    return jnp.where(left <= right, left, right)
