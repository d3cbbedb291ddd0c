"""Two functions taken in turn."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.landscapes.base import KnownPoint, Landscape, positive
from thalweg.problem import FiniteSum


def cyclic_pair(*, g0: float = 0.83) -> Landscape:
    r"""Two quadratics that pull apart; taken in turn they end in a cycle (d = 1).

    .. math::

        f_{1,2}(x) = \tfrac12 x^2 \pm g_0 x, \qquad f = \tfrac12 x^2.

    With a constant step :math:`\gamma` and cyclic order, SGD ends in the exact two-cycle
    :math:`\pm \gamma g_0 / (2 - \gamma)`: .0301036 with the default :math:`g_0` and
    :math:`\gamma = .07`, and .00072539 with :math:`g_0 = .02`.

    Args:
        g0: The size :math:`g_0` of the two gradients at the minimum; the slides have .83 and .02.

    Raises:
        InputError: A ``g0`` that is not above zero.

    Source: Giselsson, slides on the norm of individual gradients and local convergence.
    """
    slopes = positive(g0, "g0") * np.array([1.0, -1.0])
    return Landscape(
        name="cyclic-pair",
        problem=FiniteSum(_term, slopes, groups=np.arange(2)),
        start=jnp.array([1.0]),
        step=0.07,
        steps=400,
        lower=jnp.array([-2.0]),
        upper=jnp.array([2.0]),
        source="Giselsson, convergence and solution norms",
        minima=(KnownPoint("minimum", jnp.array([0.0]), 0.0),),
        reading={
            "curvature": "both second derivatives are 1; none is stated",
            "start": "1; none is stated",
        },
    )


def _term(position: Float[Array, " 1"], slope: Float[Array, ""]) -> Float[Array, ""]:
    (x,) = position
    return 0.5 * x * x + slope.astype(x.dtype) * x
