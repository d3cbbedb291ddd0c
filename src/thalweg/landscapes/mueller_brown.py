"""The Mueller-Brown potential, one Gaussian a term."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.landscapes.base import KnownPoint, Landscape, positive
from thalweg.problem import FiniteSum

# Amplitude (the first is an option), a, b, c, x, y of the four terms.
_TERMS = (
    (-1.0, 0.0, -10.0, 1.0, 0.0),
    (-1.0, 0.0, -10.0, 0.0, 0.5),
    (-6.5, 11.0, -6.5, -0.5, 1.5),
    (0.7, 0.6, 0.7, -1.0, 1.0),
)
_AMPLITUDES = (-100.0, -170.0, 15.0)
# Stationary points of the mean of the four terms, by A_1: three minima, two saddles.
_NAMES = ("global", "middle", "right", "middle to right", "global to middle")
_STATIONARY = {
    -150.0: (
        (-0.5582236345195007, 1.441725841950845, -36.67487930145267),
        (-0.0717269421403535, 0.4789686131402427, -19.759833816837535),
        (0.5426022077872583, 0.0470942335324963, -16.643564911141294),
        (0.2946377610944731, 0.2203592225384619, -14.392868068340108),
        (-0.8212491422154996, 0.6243760149381798, -10.157030156865972),
    ),
    -200.0: (
        (-0.5582236346330243, 1.4417258418046686, -36.6748793024885),
        (-0.0500108229982061, 0.4666941048719721, -20.19195453241476),
        (0.6234994049308765, 0.0280377585286857, -27.04168102921309),
        (0.2124865820006619, 0.2929883251073678, -18.062235028081307),
        (-0.8220015587327322, 0.6243128028148713, -10.16621087716435),
    ),
}


def mueller_brown(*, a1: float = -150.0, scale: float = 1.0) -> Landscape:
    r"""The Mueller-Brown potential, four terms and three minima (d = 2).

    .. math::

        l_i = s\, A_i e^{a_i (x - x_i)^2 + b_i (x - x_i)(y - y_i) + c_i (y - y_i)^2}, \qquad
        f = \tfrac14 \sum_{i=1}^4 l_i,

    so f is V/4 for s = 1 and V/16 for s = 1/4, V being the potential. Its global minimum is at
    (-.5582, 1.4417), where V/4 = -36.675. Each term is a group of its own.

    Args:
        a1: The amplitude :math:`A_1`: -150 as the document prints, or -200 as the potential is
            usually given. The global minimum and the outcome are the same.
        scale: The factor s of the terms: 1 takes :math:`l_i = V_i`; 1/4 :math:`l_i = V_i/4`, a step
            four times smaller, at which no sampler leaves the basin.

    Raises:
        InputError: Another ``a1`` or a scale that is not above zero.

    Source: An and Ying, section 4.2, figure 4 (1) and appendix C, equation (20); Mueller and Brown
    (1979), Theor. Chim. Acta 53, 75-93.
    """
    if a1 not in _STATIONARY:
        raise InputError(f"a1 is {a1}; expected -150 (as printed) or -200 (as usual)")
    amplitudes = positive(scale, "scale") * np.array([a1, *_AMPLITUDES])
    rows = np.column_stack([amplitudes, np.array(_TERMS)])
    points = tuple(
        KnownPoint(name, jnp.array([x, y]), scale * value)
        for name, (x, y, value) in zip(_NAMES, _STATIONARY[a1], strict=True)
    )
    return Landscape(
        name="mueller-brown",
        problem=FiniteSum(gaussian_term, rows, groups=np.arange(4)),
        start=jnp.array([-0.8, 1.0]),
        step=0.002,
        steps=1000,
        lower=jnp.array([-1.5, -0.5]),
        upper=jnp.array([1.25, 2.25]),
        source="An and Ying, section 4.2, figure 4 (1), equation (20)",
        minima=points[:3],
        saddles=points[3:],
        reading={
            "a1": f"A_1 = {a1:g}; -150 is printed, -200 usual",
            "scale": f"the terms are {scale:g} V_i, and the objective is their mean",
        },
    )


def gaussian_term(position: Float[Array, " 2"], row: Float[Array, " 6"]) -> Float[Array, ""]:
    r"""The term :math:`A e^{a\,dx^2 + b\,dx\,dy + c\,dy^2}` of a row (A, a, b, c, x, y).

    :math:`dx, dy` is the position less (x, y). Negative a and c with :math:`b^2 < 4ac` make it
    a bump that decays. Source: equation (20).
    """
    amplitude, a, b, c, x, y = row.astype(position.dtype)
    dx, dy = position - jnp.stack([x, y])
    return amplitude * jnp.exp(a * dx * dx + b * dx * dy + c * dy * dy)
