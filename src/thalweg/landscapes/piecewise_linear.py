"""Two wells made of straight lines."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.landscapes.base import KnownPoint, Landscape, positive
from thalweg.problem import FiniteSum


def piecewise_linear(*, a1: float = 0.4, epsilon: float = 0.1, K: float = 5.0) -> Landscape:
    r"""A flat and a sharp well of straight lines; SGD leaves the sharp, global one.

    :math:`V = a_1 V_1 + a_2 V_2` with :math:`a_2 = 1 - a_1` and

    .. math::

        V_1 = \begin{cases} |\theta + 1| - 1 & \theta \le 0 \\ \epsilon \theta & \theta > 0
        \end{cases}, \qquad
        V_2 = \begin{cases} -\epsilon \theta & \theta \le 0 \\ |K \theta - 1| - 1 & \theta > 0
        \end{cases}.

    The minima are :math:`V(-1) = -a_1 + \epsilon a_2` and :math:`V(1/K) = -a_2 + \epsilon a_1 / K`
    (-.34 and -.592 by default), with the top :math:`V(0) = 0` between them. All three are kinks.
    At a kink, the derivative is that of the piece on the left, as the case :math:`\theta \le 0` of
    the document has it at 0: it is never the zero of the subdifferential, and no step stands still.

    Args:
        a1: The proportion :math:`a_1` of the first term, between 0 and 1.
        epsilon: The slope :math:`\epsilon` by which each term pulls out of the other's well.
        K: The slope of the second term, and with it its Lipschitz constant.

    Raises:
        InputError: An option out of range, or slopes with which one of the wells is none:
            :math:`a_1 > \epsilon a_2` and :math:`K a_2 > \epsilon a_1` are needed.

    Source: An and Ying, section 2, figure 1.
    """
    a2 = _second_proportion(a1, positive(epsilon, "epsilon"), positive(K, "K"))
    left, right = -a1 + epsilon * a2, -a2 + epsilon * a1 / K
    left_name, right_name = _well_names(left, right, sharper_right=K * a2 > a1)

    def first(theta: Float[Array, " 1"]) -> Float[Array, ""]:
        (x,) = theta
        return jnp.where(x <= -1.0, -x - 2.0, jnp.where(x <= 0.0, x, epsilon * x))

    def second(theta: Float[Array, " 1"]) -> Float[Array, ""]:
        (x,) = theta
        return jnp.where(x <= 0.0, -epsilon * x, jnp.where(x <= 1.0 / K, -K * x, K * x - 2.0))

    return Landscape(
        name="piecewise-linear",
        problem=FiniteSum.of(first, second, weights=(a1, a2)),
        start=jnp.array([0.25]),
        step=0.04,
        steps=10_000,
        lower=jnp.array([-2.0]),
        upper=jnp.array([1.0]),
        source="An and Ying, section 2, figure 1",
        lipschitz=(1.0, float(K)),
        minima=(
            KnownPoint(left_name, jnp.array([-1.0]), left),
            KnownPoint(right_name, jnp.array([1.0 / K]), right),
        ),
        saddles=(KnownPoint("top", jnp.array([0.0]), 0.0),),
        smooth=False,
        reading={"kinks": "at a kink the derivative is that of the piece on the left"},
    )


def _second_proportion(a1: float, epsilon: float, K: float) -> float:
    """The proportion a_2; InputError unless there are two wells."""
    if not 0 < a1 < 1:
        raise InputError(f"a1 is {a1}; expected a proportion between 0 and 1")
    a2 = 1 - a1
    if not (a1 > epsilon * a2 and K * a2 > epsilon * a1):
        raise InputError(
            f"a1 = {a1}, epsilon = {epsilon}, K = {K} leave one well only; expected "
            "a1 > epsilon (1 - a1) and K (1 - a1) > epsilon a1 (make epsilon smaller)"
        )
    return a2


def _well_names(left: float, right: float, *, sharper_right: bool) -> tuple[str, str]:
    names = ("flat", "sharp") if sharper_right else ("sharp", "flat")
    lowest = min(left, right)
    marks = tuple(", global" if value == lowest else "" for value in (left, right))
    return names[0] + marks[0], names[1] + marks[1]
