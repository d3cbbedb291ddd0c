"""Robust regression of two groups of unlike feature size."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from thalweg.errors import known
from thalweg.landscapes.base import Landscape
from thalweg.landscapes.robust_classification import generator, welsch
from thalweg.problem import FiniteSum

_DIMENSION = 10
_SIZES = (2000, 800)
# Shift along the ones vector and size of the random part, both relative to beta*.
_STARTS = {"literal": (5.0, 1.0), "near": (0.0, 0.1)}


def robust_regression(*, key: PRNGKeyArray | None = None, start: str = "literal") -> Landscape:
    r"""Robust regression, corrupted responses of two groups (d = 10).

    The Welsch loss of n = 2800 samples in two groups,

    .. math::

        l_i(\beta) = 1 - e^{-(y_i - \beta^T x_i)^2 / 2}, \qquad
        x_i = 20 e + N(0, I) \ (2000),\quad x_i = \tfrac14 e + \tfrac12 N(0, I) \ (800),

    :math:`y_i = x_i^T \beta^* + u_i + \epsilon_i`, :math:`\beta^* \sim N(0, I)`,
    :math:`\epsilon_i \sim N(0, 1)/10`, :math:`u_i` uniform on
    :math:`\pm 3 \max_k |x_k^T \beta^*|`.

    The recipe is degenerate, and kept as it is: **every** response is corrupted, over a range wide
    against the width 1 of the loss, so L is within a few hundredths of 1 and :math:`\beta^*` is no
    special point of it; and at the literal start the residuals of group 1 are in the hundreds, so
    that the group has no gradient there at all. No minimum is known beforehand.

    Args:
        key: Draws :math:`\beta^*`, the data and the start; the same in 32 and 64 bits;
            ``jax.random.key(0)`` unless given.
        start: "literal", :math:`\beta^* + 5e + N(0, I)`, or "near", :math:`\beta^* + N(0, I)/10`,
            from where both groups have a gradient.

    Raises:
        InputError: Another ``start``.

    Source: An and Ying, section 4.1, figure 3.
    """
    shift, size = _STARTS[known(start, _STARTS, "start")]
    rng = generator(key)
    beta = rng.normal(size=_DIMENSION)
    data = _data(rng, beta)
    begin = beta + shift + size * rng.normal(size=_DIMENSION)
    return Landscape(
        name="robust-regression",
        problem=FiniteSum(welsch, data, groups=np.repeat([1, 2], _SIZES)),
        start=jnp.asarray(begin),
        step=10.0,
        steps=3000,
        lower=jnp.asarray(beta - 10.0),
        upper=jnp.asarray(beta + 10.0),
        source="An and Ying, section 4.1, figure 3",
        reading={
            "e": "the vector of ones",
            "noise": "the factors 1/2 and 1/10 before N(0, .) are standard deviations",
            "u": "the largest |y*| is taken over both groups, and every response is corrupted",
            "start": f"beta* + {shift:g} e + {size:g} N(0, I); 5 e + N(0, I) is printed",
            "steps": "neither step nor iterations are stated; RR gains at large steps only",
        },
    )


def _data(
    rng: np.random.Generator, beta: Float[np.ndarray, " d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    n = sum(_SIZES)
    centre, deviation = (np.repeat(pair, _SIZES)[:, None] for pair in ([20.0, 0.25], [1.0, 0.5]))
    x = rng.normal(centre, deviation, (n, len(beta)))
    exact = x @ beta
    reach = 3 * np.abs(exact).max()
    return x, exact + rng.uniform(-reach, reach, n) + rng.normal(0.0, 0.1, n)
