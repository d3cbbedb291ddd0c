"""The noise of an Ito equation as a user gives it: a covariance, or its factor."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from thalweg import roots
from thalweg.errors import InputError
from thalweg.problem import Params, describe
from thalweg.schemes import Additive, Diagonal, Field, Full, Noise

Unravel = Callable[[Float[Array, " d"]], Params]


class AbstractNoise(eqx.Module):
    """An array, or a function of params that returns one.

    Attributes:
        value: What was given.
    """

    value: eqx.AbstractVar[Any]

    @abstractmethod
    def check(self, theta: Float[Array, " d"], unravel: Unravel) -> None:
        """Raise InputError unless the shape fits the parameters."""

    @abstractmethod
    def on(self, theta: Float[Array, " d"], unravel: Unravel, smooth: bool) -> Noise:
        """The noise of flat parameters; ``smooth`` if its root is to be differentiated."""

    @abstractmethod
    def dense(self, theta: Float[Array, " d"], unravel: Unravel) -> Float[Array, "d d"]:
        """The covariance as a matrix."""

    @abstractmethod
    def symmetric(self, theta: Float[Array, " d"], unravel: Unravel) -> Bool[Array, ""]:
        """Whether the covariance is."""

    @property
    def constant(self) -> bool:
        """Whether an array was given."""
        return not callable(self.value)

    def field(self, unravel: Unravel) -> Field:
        """The value as a function of flat parameters, in their type."""

        def field(theta: Float[Array, " d"]) -> Array:
            value = self.value if self.constant else self.value(unravel(theta))
            return jnp.asarray(value).astype(theta.dtype)

        return field

    def shape(self, theta: Float[Array, " d"], unravel: Unravel) -> tuple[int, ...]:
        """The shape of the value."""
        try:
            return jax.eval_shape(self.field(unravel), theta).shape
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise InputError(
                f"the noise cannot be evaluated on these parameters ({describe(unravel(theta))}): "
                f"{str(error).splitlines()[0]}"
            ) from error


class Covariance(AbstractNoise):
    """A covariance: a number for all parameters, a diagonal, or a matrix."""

    value: Any
    root: Array | None

    def __init__(self, value: Any):
        self.value = value if callable(value) else _constant(value, "covariance")
        self.root = None if callable(value) else _constant_root(self.value)

    def check(self, theta: Float[Array, " d"], unravel: Unravel) -> None:
        """A number or an array of shape (d,) or (d, d)."""
        d, shape = theta.size, self.shape(theta, unravel)
        if shape not in ((), (d,), (d, d)):
            raise InputError(
                f"the covariance of {d} parameters must be a number or have shape ({d},) or "
                f"({d}, {d}), got {shape}; a factor of shape ({d}, m) goes to Diffusion.from_factor"
            )

    def on(self, theta: Float[Array, " d"], unravel: Unravel, smooth: bool) -> Noise:
        """Diagonal unless the covariance is a matrix."""
        if self.root is not None:
            return Additive(self.root, theta.size)
        field = self.field(unravel)
        if len(self.shape(theta, unravel)) < 2:
            return Diagonal(field, theta.size)
        if smooth and theta.size > roots.UNROLLED:
            raise InputError(
                f"method 'milstein' takes a full covariance of up to {roots.UNROLLED} parameters "
                f"and there are {theta.size}; give its factor to Diffusion.from_factor"
            )
        root = roots.cholesky if smooth else roots.factor
        return Full(lambda theta: root(field(theta)), theta.size)

    def dense(self, theta: Float[Array, " d"], unravel: Unravel) -> Float[Array, "d d"]:
        """The covariance as a matrix."""
        value = self.field(unravel)(theta)
        return value if value.ndim == 2 else jnp.diag(jnp.broadcast_to(value, theta.shape))

    def symmetric(self, theta: Float[Array, " d"], unravel: Unravel) -> Bool[Array, ""]:
        """A matrix may not be."""
        value = self.field(unravel)(theta)
        return roots.is_symmetric(value) if value.ndim == 2 else jnp.asarray(True)


class Factor(AbstractNoise):
    """A factor of shape (d, m): the covariance is the factor times its transpose."""

    value: Any

    def __init__(self, value: Any):
        self.value = value if callable(value) else _constant(value, "factor")

    def check(self, theta: Float[Array, " d"], unravel: Unravel) -> None:
        """An array of shape (d, m)."""
        d, shape = theta.size, self.shape(theta, unravel)
        if len(shape) != 2 or shape[0] != d or shape[1] == 0:
            raise InputError(
                f"the factor of the noise of {d} parameters must have shape ({d}, m), got {shape}"
            )

    def on(self, theta: Float[Array, " d"], unravel: Unravel, smooth: bool) -> Noise:
        """The factor itself."""
        if self.constant:
            return Additive(self.value, theta.size)
        return Full(self.field(unravel), self.shape(theta, unravel)[1])

    def dense(self, theta: Float[Array, " d"], unravel: Unravel) -> Float[Array, "d d"]:
        """The factor times its transpose."""
        factor = self.field(unravel)(theta)
        return jnp.dot(factor, factor.T, precision="highest")

    def symmetric(self, theta: Float[Array, " d"], unravel: Unravel) -> Bool[Array, ""]:
        """By construction."""
        return jnp.asarray(True)


def _constant(value: Any, name: str) -> Array:
    """The array that was given, of its own floating type or the default one."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        array = None
    if array is None or not jnp.issubdtype(array.dtype, jnp.number) or jnp.iscomplexobj(array):
        raise InputError(f"{name} is {value!r}; expected real numbers or a function of params")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(jnp.result_type(float))
    if _known(array) and not np.isfinite(array).all():
        raise InputError(f"{name} is not finite; expected numbers")
    return array


def _constant_root(covariance: Array) -> Array:
    if covariance.ndim < 2:
        root, lowest = jnp.sqrt(covariance), jnp.min(covariance)
    elif covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1]:
        if _known(covariance) and not bool(roots.is_symmetric(covariance)):
            raise InputError("the covariance is not symmetric; expected a symmetric matrix")
        root, lowest = jax.jit(roots.factor)(covariance), jnp.linalg.eigvalsh(covariance)[0]
    else:
        raise InputError(
            "a covariance is a number or has shape (d,) or (d, d), got "
            f"{covariance.shape}; a factor of shape (d, m) goes to Diffusion.from_factor"
        )
    if _known(root) and not np.isfinite(root).all():
        raise InputError(
            f"the covariance has the eigenvalue {float(lowest):g}; expected none below zero"
        )
    return root


def _known(array: Array) -> bool:
    """False inside a transformation, for the covariance may be what one differentiates by."""
    return not isinstance(array, jax.core.Tracer)
