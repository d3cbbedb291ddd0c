"""The quartic double well with noise of a constant size."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.landscapes.base import KnownPoint, Landscape, positive
from thalweg.problem import FiniteSum


def double_well(*, sigma: float = 1.0) -> Landscape:
    r"""The quartic double well with noise of one size: a test of Kramers' law (d = 1).

    .. math::

        f_{1,2}(x) = \tfrac14 (x^2 - 1)^2 \pm \sigma x, \qquad f = \tfrac14 (x^2 - 1)^2,

    so one draw has the variance :math:`\sigma^2` everywhere, and with the step :math:`\eta` the
    temperature is :math:`T = \eta \sigma^2 / 2`, .05 by default. Minima at -1 and 1, f'' = 2; the
    top at 0, height 1/4, f'' = -1. Kramers' time from one minimum to the other is
    :math:`\sqrt2\, \pi\, e^{1/(4T)}` in time, :math:`1/\eta` as many iterations, 6594 by default.

    The noise of one draw has two values, hence SGD itself takes longer: about 9700 iterations. The
    force towards a minimum reaches :math:`2/(3 \sqrt3) = .385`: with a smaller :math:`\sigma` and a
    small step no chain ever leaves. Kramers' law is the limit of small steps at fixed T, that is,
    of large :math:`\sigma`.

    The gradient grows like a cube: beyond :math:`x^2 = 1 + 2/\eta` the iteration overshoots and
    diverges. So at a large step there is no stationary law; nor is there one at any step with
    unbounded noise, as of a diffusion that is simulated by the method of Euler.

    Args:
        sigma: The standard deviation :math:`\sigma` of one gradient.

    Raises:
        InputError: A ``sigma`` that is not above zero.

    Source: the standard test of the law of Eyring and Kramers, as in Dai and Zhu, theorem 2.2.
    """
    slopes = positive(sigma, "sigma") * np.array([1.0, -1.0])
    return Landscape(
        name="double-well",
        problem=FiniteSum(_term, slopes, groups=np.arange(2)),
        start=jnp.array([-1.0]),
        step=0.1,
        steps=10_000,
        lower=jnp.array([-2.0]),
        upper=jnp.array([2.0]),
        source="the law of Eyring and Kramers; Dai and Zhu, theorem 2.2",
        minima=(
            KnownPoint("left", jnp.array([-1.0]), 0.0),
            KnownPoint("right", jnp.array([1.0]), 0.0),
        ),
        saddles=(KnownPoint("top", jnp.array([0.0]), 0.25),),
    )


def _term(position: Float[Array, " 1"], slope: Float[Array, ""]) -> Float[Array, ""]:
    (x,) = position
    return 0.25 * (x * x - 1.0) ** 2 + slope.astype(x.dtype) * x
