"""Functions of the parameters that grow on the way from a start to an exit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg.chains import Exit
from thalweg.errors import InputError
from thalweg.escape.excursions import Coordinate
from thalweg.problem import Params, describe
from thalweg.stopping import EnteredBall, LeftBox


class ToSides(eqx.Module):
    r"""The way from a point to the sides of a box around it: 0 at the point, 1 on the sides.

    :math:`\max_i \max\big((\theta_i - s_i)/(u_i - s_i),\ (s_i - \theta_i)/(s_i - l_i)\big)`, sides
    at infinity left out.
    """

    start: Float[Array, "..."]
    lower: Float[Array, "..."]
    upper: Float[Array, "..."]

    def __call__(self, params: Params) -> Float[Array, ""]:
        """The largest share over the sides."""
        start, lower, upper = (x.astype(params.dtype) for x in (self.start, self.lower, self.upper))
        shares = jnp.maximum((params - start) / (upper - start), (start - params) / (start - lower))
        return jnp.max(shares)


class Between(eqx.Module):
    r"""How much farther from the start than from a ball, :math:`|\theta - s| - |\theta - c| + r`.

    Of several balls the nearest counts. Far from the target it is the way from the start, in
    whatever direction, and close to it the way to the target: where the path has a bend, minus the
    distance alone would first send chains up the slope that faces the target.
    """

    start: Float[Array, "..."]
    center: Float[Array, "..."]
    radius: Float[Array, "..."]

    def __call__(self, params: Params) -> Float[Array, ""]:
        """The difference of the distances."""
        start, center, radius = (
            x.astype(params.dtype) for x in (self.start, self.center, self.radius)
        )
        gone = jnp.sqrt(jnp.sum(jnp.square(params - start)))
        return gone - jnp.min(jnp.sqrt(jnp.sum(jnp.square(params - center), axis=-1)) - radius)


class AwayFrom(eqx.Module):
    r"""The distance from a point, :math:`|\theta - s|`, over all parameters."""

    start: Params

    def __call__(self, params: Params) -> Float[Array, ""]:
        """The distance."""
        offset = jax.tree.map(lambda a, b: a - b, params, self.start)
        return jnp.sqrt(jnp.sum(jnp.square(ravel_pytree(offset)[0])))


def coordinate_to(exit: Exit, start: Params) -> Coordinate:
    """A coordinate for an exit: to the sides of a box, to a ball, or away from the start."""
    if isinstance(exit, LeftBox):
        shape = jnp.shape(start)
        lower, upper = (jnp.broadcast_to(side, shape) for side in (exit.lower, exit.upper))
        return ToSides(jnp.asarray(start), lower, upper)
    if isinstance(exit, EnteredBall):
        return Between(jnp.asarray(start), exit.center, exit.radius)
    return AwayFrom(start)


def check_coordinate(coordinate: Any, start: Params) -> None:
    """Raise InputError unless the coordinate is one finite number at the start."""
    try:
        out = jax.eval_shape(coordinate, start)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise InputError(
            f"coordinate= cannot be evaluated on these parameters ({describe(start)}): "
            f"{str(error).splitlines()[0]}"
        ) from error
    real = hasattr(out, "dtype") and jnp.issubdtype(out.dtype, jnp.floating)
    if getattr(out, "shape", None) != () or not real:
        raise InputError(f"coordinate= must return one real number, got {describe(out)}")
    value = float(eqx.filter_jit(coordinate)(start))
    if not np.isfinite(value):
        raise InputError(f"coordinate= is {value} at the start; expected a finite number")
