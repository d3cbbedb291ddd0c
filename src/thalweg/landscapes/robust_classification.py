"""Robust classification of two groups of unlike feature size."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.optimize import brentq

from thalweg.errors import known
from thalweg.landscapes.base import KnownPoint, Landscape
from thalweg.problem import FiniteSum

_SIZES = (800, 4000)
_DEVIATIONS = {"variance": 0.5, "deviation": 0.25}
# The stationary points move by less than .1 from one draw of the data to the next.
_BRACKETS = {"sharp, global": (0.0, 0.1), "top": (0.1, 0.3), "flat": (0.3, 1.5)}


def robust_classification(
    *, key: PRNGKeyArray | None = None, spread: str = "variance"
) -> Landscape:
    r"""Robust classification, a sensitive minority makes the sharp minimum (d = 1).

    The Welsch loss of n = 4800 samples in two groups,

    .. math::

        l_i(\theta) = 1 - e^{-(y_i - \theta x_i)^2 / 2}, \qquad
        x_i \sim 20 + N(0, 1) \ (800),\quad x_i \sim 0.5 + N(0, 1/4) \ (4000),

    with :math:`y_i \in \{0, 1\}` at even odds, drawn once. The first group makes a sharp global
    minimum near :math:`\theta = .028` (L = .18, L'' = 44), the second a flat one near .49
    (L = .30, L'' = .26); where exactly depends on the data and is computed from them.

    Args:
        key: Draws the data, the same in 32 and 64 bits; ``jax.random.key(0)`` unless given.
        spread: What the 1/4 of :math:`N(0, 1/4)` is: "variance" (the standard deviation is 1/2) or
            "deviation". With the latter the flat minimum lies near .8.

    Raises:
        InputError: Another ``spread``.

    Source: An and Ying, section 4.1, equation (14), figure 2.
    """
    deviation = _DEVIATIONS[known(spread, _DEVIATIONS, "spread")]
    x, y = _data(generator(key), deviation)
    sharp, top, flat = (_stationary(name, x, y) for name in _BRACKETS)
    return Landscape(
        name="robust-classification",
        problem=FiniteSum(welsch, (x, y), groups=np.repeat([1, 2], _SIZES)),
        start=jnp.array([-0.5]),
        step=0.015,
        steps=3000,
        lower=jnp.array([-1.0]),
        upper=jnp.array([1.5]),
        source="An and Ying, section 4.1, figure 2",
        minima=(sharp, flat),
        saddles=(top,),
        reading={"spread": f"the 1/4 of N(0, 1/4) is read as the {spread}"},
    )


def welsch(theta: Float[Array, " d"], sample: tuple[Array, Array]) -> Float[Array, ""]:
    r"""The loss :math:`1 - \exp(-(y - \theta^T x)^2/2)` of a sample (x, y), x of shape (d,).

    Bounded by 1; its gradient has at most the norm :math:`|x| e^{-1/2}`. Source: equation (14).
    """
    x, y = (part.astype(theta.dtype) for part in sample)
    # 1 - exp(-z) without the loss of digits at small z.
    return -jnp.expm1(-0.5 * (y - jnp.dot(theta, x)) ** 2)


def generator(key: PRNGKeyArray | None) -> np.random.Generator:
    """NumPy's generator, seeded by the bits of a key, ``jax.random.key(0)`` if None.

    Its draws are the same whether JAX runs in 32 or 64 bits, as those of ``jax.random`` are not.
    """
    key = jax.random.key(0) if key is None else key
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _data(
    rng: np.random.Generator, deviation: float
) -> tuple[Float[np.ndarray, "n 1"], Float[np.ndarray, " n"]]:
    n = sum(_SIZES)
    x = rng.normal(np.repeat([20.0, 0.5], _SIZES), np.repeat([1.0, deviation], _SIZES))
    y = rng.integers(2, size=n).astype(float)
    return x[:, None], y


def _stationary(name: str, x: Float[np.ndarray, "n 1"], y: Float[np.ndarray, " n"]) -> KnownPoint:
    """The zero of L' in the bracket of that name."""

    def slope(theta: float) -> float:
        r = y - theta * x[:, 0]
        return -float(np.mean(x[:, 0] * r * np.exp(-(r**2) / 2)))

    theta = brentq(slope, *_BRACKETS[name], xtol=1e-15, rtol=1e-14)
    value = float(np.mean(-np.expm1(-((y - theta * x[:, 0]) ** 2) / 2)))
    return KnownPoint(name, jnp.array([theta]), value)
