"""A thousand fixed atoms that attract one more."""

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from thalweg.errors import known
from thalweg.landscapes.base import KnownPoint, Landscape
from thalweg.landscapes.mueller_brown import gaussian_term
from thalweg.problem import FiniteSum

_STEPS = 5000
_FIRST_STEP, _LAST_STEP = 2e-3, 1e-5
# Where k counts from on the second branch, and the upper corner of the box.
_BRANCHES = {"repaired": (500, (3.5, 2.5)), "literal": (0, (5.0, 5.5))}
# Two minima, then the saddle between them: name, x, y, value.
_SHALLOW = ("shallow", -0.6076723159930775, -0.5913765656642389, -8.42815901394415)
_STATIONARY = {
    "repaired": (
        ("deep, global", 2.750885570309742, 1.2967671150135556, -24.27067250298088),
        _SHALLOW,
        ("saddle", 2.22387174071935, 1.7331231009366312, -2.493823816605989),
    ),
    "literal": (
        ("deep, global", 3.94926798186043, 4.289242039384129, -24.238637873782203),
        _SHALLOW,
        ("saddle", 2.5376269086421774, 1.8955001625006591, -1.1067949629987905),
    ),
}


def atoms(*, second_branch: str = "repaired") -> Landscape:
    r"""One atom among 1000 fixed ones, a deep sharp well and a shallow wide one (d = 2).

    The energy is the mean :math:`f = \frac1{1000} \sum_k V_k` of

    .. math::

        V_k = A_k e^{a_k (x - x_k)^2 + b_k (x - x_k)(y - y_k) + c_k (y - y_k)^2},

    with :math:`A_k = -50 - .15k`, :math:`a_k = -2 - .018k`, :math:`b_k = -.1 + .0002k`,
    :math:`c_k = -10 + .009k`, :math:`1 \le k \le 1000`, and the atoms on two straight branches:
    :math:`x_k = y_k = 2 - .006k` up to k = 500, then :math:`x_k = 1.8 + .0024 k'`,
    :math:`y_k = -1 + .006 k'`. The step falls geometrically from .002 to 1e-5 in 5000 iterations.

    Args:
        second_branch: "repaired", :math:`k' = k - 500`: the second branch crosses the region of the
            first, SGD mostly leaves the deep well, in which all start, and RR stays. "literal",
            :math:`k' = k` as printed: the deep well is at (3.95, 4.29), and SGD mostly finds it.

    Raises:
        InputError: Another ``second_branch``.

    Source: An and Ying, section 4.2, figure 4 (2) and appendix C.2.
    """
    offset, upper = _BRANCHES[known(second_branch, _BRANCHES, "second branch")]
    deep, shallow, saddle = (
        KnownPoint(name, jnp.array([x, y]), value)
        for name, x, y, value in _STATIONARY[second_branch]
    )
    return Landscape(
        name="atoms",
        problem=FiniteSum(gaussian_term, _rows(offset)),
        start=jnp.array([3.0, 1.0]),
        step=optax.exponential_decay(_FIRST_STEP, _STEPS, _LAST_STEP / _FIRST_STEP),
        steps=_STEPS,
        lower=jnp.array([-1.5, -1.5]),
        upper=jnp.array(upper),
        source="An and Ying, section 4.2, figure 4 (2), appendix C.2",
        minima=(deep, shallow),
        saddles=(saddle,),
        reading={
            "second_branch": f"k' = k - {offset} on the second branch; k is printed",
            "sign": "exponents as in the appendix (a, c < 0), where the text has exp(-z'Mz)",
            "k = 500": "belongs to the first branch; it is printed in both",
            "terms": "m - 1 = 1000 of them, averaged",
            "step": "falls geometrically; only its ends are stated",
        },
    )


def _rows(offset: int) -> Float[np.ndarray, "1000 6"]:
    """The rows (A, a, b, c, x, y) of the atoms, k' = k - offset on the second branch."""
    k = np.arange(1, 1001, dtype=float)
    first, along = k <= 500, k - offset
    x = np.where(first, 2 - 0.006 * k, 1.8 + 0.0024 * along)
    y = np.where(first, 2 - 0.006 * k, -1 + 0.006 * along)
    shapes = (-50 - 0.15 * k, -2 - 0.018 * k, -0.1 + 0.0002 * k, -10 + 0.009 * k)
    return np.column_stack([*shapes, x, y])
