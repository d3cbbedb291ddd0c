"""Three quadratics around a triangle."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import known
from thalweg.landscapes.base import KnownPoint, Landscape
from thalweg.problem import FiniteSum

_CENTRES = ((1.0, 0.0), (-0.5, math.sqrt(0.75)), (-0.5, -math.sqrt(0.75)))
_STARTS = {"far": (5.0, 0.0), "minimum": (0.0, 0.0)}


def three_quadratics(*, start: str = "far") -> Landscape:
    r"""Three quadratics around a triangle: fast from afar, a noise ball inside (d = 2).

    .. math::

        f_i(x) = \tfrac12 |x - c_i|^2, \qquad f = \tfrac13 \sum_i f_i = \tfrac12 |x|^2 + \tfrac12,

    with :math:`c_i` the unit vectors at 0, 120 and 240 degrees. From SGD's exact recursion with
    step :math:`\gamma` and one draw, :math:`E|x|^2 \to \gamma / (2 - \gamma)`, .2 at 1/3.

    Args:
        start: "far", (5, 0), where the gradients of the three agree, or "minimum", 0, where they
            cancel.

    Raises:
        InputError: Another ``start``.

    Source: Giselsson, slides "SGD - Example", plain and zoomed out.
    """
    begin = _STARTS[known(start, _STARTS, "start")]
    return Landscape(
        name="three-quadratics",
        problem=FiniteSum(_term, np.array(_CENTRES), groups=np.arange(3)),
        start=jnp.array(begin),
        step=1 / 3,
        steps=1000,
        lower=jnp.array([-6.0, -6.0]),
        upper=jnp.array([6.0, 6.0]),
        source="Giselsson, SGD example",
        minima=(KnownPoint("minimum", jnp.array([0.0, 0.0]), 0.5),),
        reading={
            "mean": "the objective is the mean of the three; the slides write their sum",
            "centres": "a triangle on the unit circle; c_1 + c_2 + c_3 = 0 is stated",
            "start": f"{begin}; none is stated",
        },
    )


def _term(x: Float[Array, " 2"], centre: Float[Array, " 2"]) -> Float[Array, ""]:
    return 0.5 * jnp.sum((x - centre.astype(x.dtype)) ** 2)
