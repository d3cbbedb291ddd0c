"""When a chain stops: predicates on its parameters, for ``simulate(exit=...)``.

Any function from params to a boolean will do; these compile once for all boxes and balls.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from thalweg.errors import InputError
from thalweg.problem import describe


def check_exit(exit: Any, params: Any) -> None:
    """Raise InputError unless ``exit`` gives one boolean a chain (params: chains first)."""
    if exit is None:
        return
    chain = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    try:
        out = jax.eval_shape(exit, chain)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise InputError(
            f"exit= cannot be evaluated on these parameters ({describe(chain)}): "
            f"{str(error).splitlines()[0]}"
        ) from error
    if getattr(out, "shape", None) != () or out.dtype != bool:
        raise InputError(
            f"exit= must return one boolean, got {describe(out)}; "
            "reduce it over the components (jnp.any or jnp.all)"
        )


class LeftBox(eqx.Module):
    r"""True outside the closed box :math:`lower \le \theta \le upper` (arrays of shape (d,)).

    One-sided regions have an infinite corner: ``LeftBox(-0.5, jnp.inf)`` stops below -0.5.
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]

    def __init__(self, lower: Any, upper: Any):
        self.lower = jnp.asarray(lower, dtype=jnp.result_type(float))
        self.upper = jnp.asarray(upper, dtype=jnp.result_type(float))
        if bool(jnp.any(jnp.isnan(self.lower) | jnp.isnan(self.upper) | (self.lower > self.upper))):
            raise InputError(f"the box from {lower} to {upper} is empty; lower must be below upper")

    def __call__(self, params: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether params are outside."""
        lower, upper = self.lower.astype(params.dtype), self.upper.astype(params.dtype)
        return jnp.any((params < lower) | (params > upper))


class EnteredBall(eqx.Module):
    r"""True where :math:`|\theta - c| \le r`, or in one of several such balls.

    Args:
        center: The centre c of shape (d,), or one a row, (balls, d).
        radius: The radius r, a number or one for each ball.
    """

    center: Float[Array, "..."]
    radius: Float[Array, "..."]

    def __init__(self, center: Any, radius: Any):
        self.center = jnp.asarray(center, dtype=jnp.result_type(float))
        self.radius = jnp.asarray(radius, dtype=jnp.result_type(float))
        if not bool(jnp.all(self.radius > 0)):
            raise InputError(f"the radius of a ball must be positive, got {radius}")
        if self.radius.shape not in ((), self.center.shape[:-1]):
            raise InputError(
                f"radius has shape {self.radius.shape} and center {self.center.shape}; expected "
                "one radius, or one for each row of center"
            )

    def __call__(self, params: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether params are inside."""
        offset = params - self.center.astype(params.dtype)
        return jnp.any(
            jnp.sum(jnp.square(offset), axis=-1) <= jnp.square(self.radius).astype(params.dtype)
        )
