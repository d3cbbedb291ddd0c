r"""Step-size rules, as Optax schedules and transformations.

Wherever a step is asked for, a number, any Optax schedule (a function of the iteration) or any
Optax transformation (momentum, Adam, ...) is accepted. Here are the rules of Giselsson's slides.
The iteration k counts from 0; ``steps_per_epoch`` turns it into the epoch the slides count in.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from thalweg.errors import InputError, known
from thalweg.gradnorms import squared_norm

Step: TypeAlias = float | Callable[[Any], Any] | optax.GradientTransformation
_ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "ceil": jnp.ceil,
    "floor": jnp.floor,
    "continuous": lambda x: x,
}


def inverse_time(
    initial: float, period: float, *, rounding: str = "ceil", steps_per_epoch: int = 1
) -> optax.Schedule:
    r"""The schedule :math:`\gamma_k = \gamma_0 / (1 + \lceil k/K \rceil)`.

    Its sum diverges and the sum of its squares does not.

    Args:
        initial: :math:`\gamma_0`, which ``ceil`` uses in epoch 0 only.
        period: K, in epochs.
        rounding: "ceil" as the slides have it, "floor", or "continuous" (no rounding).
        steps_per_epoch: Iterations an epoch; k is the number of the epoch, from 0.
    """
    return _decreasing(initial, period, lambda x: x, rounding, steps_per_epoch)


def inverse_sqrt_time(
    initial: float, period: float, *, rounding: str = "ceil", steps_per_epoch: int = 1
) -> optax.Schedule:
    r"""The schedule :math:`\gamma_k = \gamma_0 / (1 + \sqrt{\lceil k/K \rceil})`.

    Neither its sum nor the sum of its squares converges, but their ratio diverges. Arguments as in
    :func:`inverse_time`.
    """
    return _decreasing(initial, period, jnp.sqrt, rounding, steps_per_epoch)


def damped(
    initial: float,
    alpha: float,
    *,
    psi: Callable[[Array], Array] | None = None,
    warmup: int = 0,
    steps_per_epoch: int = 1,
) -> optax.GradientTransformation:
    r"""The step :math:`\gamma_k = \gamma_0 / ((1 + \psi(k)) (\alpha |\hat g| + 1))`.

    Steps are short where the stochastic gradient is large, and decrease with the epoch k by
    :math:`\psi`, which starts after the warm-up. The slides' table has
    :math:`\psi(k) = \tfrac12 \sqrt k` for k > 50 and 0 before, :math:`\alpha = \gamma_0 = 0.1`.

    Damping by the *stochastic* norm is biased: the fixed points of the mean step are not the
    critical points of f.

    Args:
        initial: :math:`\gamma_0`.
        alpha: :math:`\alpha`, at least 0.
        psi: A function of the epoch, 0 unless given.
        warmup: The last epoch in which :math:`\psi` is still taken as 0.
        steps_per_epoch: Iterations an epoch; k is the number of the epoch, from 0.
    """
    _check_step("initial", initial)
    _check_epoch(steps_per_epoch)
    if not (math.isfinite(alpha) and alpha >= 0):
        raise InputError(f"alpha must be a finite number, at least 0; got {alpha!r}")

    def init(params: Any) -> Array:
        return jnp.zeros((), dtype=jnp.int32)

    def update(gradient: Any, count: Array, params: Any = None) -> tuple[Any, Array]:
        norm = jnp.sqrt(squared_norm(gradient))
        epoch = (count // steps_per_epoch).astype(norm.dtype)
        slowed = jnp.zeros_like(norm) if psi is None else psi(epoch)
        slowed = jnp.where(epoch > warmup, slowed, jnp.zeros_like(slowed))
        step = initial / ((1 + slowed) * (alpha * norm + 1))
        return jax.tree.map(lambda g: -step.astype(g.dtype) * g, gradient), count + 1

    return optax.GradientTransformation(init, update)


def as_transformation(step: Any) -> optax.GradientTransformation:
    """A number, schedule or transformation as an Optax transformation."""
    if isinstance(step, optax.GradientTransformation):
        return step
    return optax.sgd(step)


def check_step(step: Any) -> None:
    """Raise InputError unless ``step`` can be used as one; numbers must be positive and finite."""
    if isinstance(step, optax.GradientTransformation) or callable(step):
        return
    # A step that one differentiates by is checked where it is a number.
    if not isinstance(step, jax.core.Tracer):
        _check_step("step", step)


def _check_step(name: str, value: Any) -> None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"{name} is {value!r}; expected a positive number, an Optax schedule or an Optax "
            "transformation"
        ) from None
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{name} must be positive and finite, got {number!r}")


def _check_epoch(steps_per_epoch: Any) -> None:
    if isinstance(steps_per_epoch, bool) or not isinstance(steps_per_epoch, int):
        raise InputError(f"steps_per_epoch must be a whole number, got {steps_per_epoch!r}")
    if steps_per_epoch < 1:
        raise InputError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")


def _decreasing(
    initial: float,
    period: float,
    growth: Callable[[Array], Array],
    rounding: str,
    steps_per_epoch: int,
) -> optax.Schedule:
    _check_step("initial", initial)
    _check_step("period", period)
    _check_epoch(steps_per_epoch)
    rounded = _ROUNDINGS[known(rounding, _ROUNDINGS, "rounding")]

    def schedule(count: Any) -> Array:
        epoch = jnp.asarray(count // steps_per_epoch, dtype=jnp.result_type(float))
        return initial / (1 + growth(rounded(epoch / period)))

    return schedule
