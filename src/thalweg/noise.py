"""The noise of an Ito equation as a user gives it: a covariance, or its factor, and its course."""

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
from thalweg.problem import FiniteSum, Params, describe
from thalweg.schemes import Additive, Diagonal, Field, Full, Noise

Unravel = Callable[[Float[Array, " d"]], Params]
Schedule = Callable[[Float[Array, ""]], Any]


class AbstractNoise(eqx.Module):
    """An array, or a function of params that returns one.

    Attributes:
        value: What was given; of noise that varies in time, at the time 0.
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

    @abstractmethod
    def scaled(self, factor: Float[Array, ""]) -> "AbstractNoise":
        """The same noise, its covariance times a number that is not negative."""

    @property
    def constant(self) -> bool:
        """Whether the noise is the same for all parameters."""
        return not callable(self.value)

    @property
    def varies(self) -> bool:
        """Whether the noise varies in time."""
        return False

    def at(self, time: Any) -> "AbstractNoise":
        """The noise at a time."""
        return self

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

    def scaled(self, factor: Float[Array, ""]) -> "Covariance":
        """The covariance times a number, its root times the number's root."""
        if self.root is None:
            return Covariance(Scaled(self.value, factor))
        both = Scaled.product(self.value, factor), Scaled.product(self.root, jnp.sqrt(factor))
        return eqx.tree_at(lambda noise: (noise.value, noise.root), self, both)


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

    def scaled(self, factor: Float[Array, ""]) -> "Factor":
        """The factor times the root of a number."""
        root = jnp.sqrt(factor)
        return Factor((Scaled if callable(self.value) else Scaled.product)(self.value, root))


class Scheduled(AbstractNoise):
    r"""Noise times a function of time: :math:`\Sigma(\theta, t) = s(t)\,\Sigma_0(\theta)`.

    Attributes:
        noise: :math:`\Sigma_0`.
        schedule: s, from the time to a number that is not negative.
    """

    noise: AbstractNoise
    schedule: Schedule

    def __init__(self, noise: AbstractNoise, schedule: Any):
        if not callable(schedule):
            raise InputError(f"schedule must be a function of time, got {schedule!r}")
        self.noise = noise
        self.schedule = schedule

    @property  # type: ignore[misc]
    def value(self) -> Any:
        """At the time 0, as is what the methods below return."""
        return self.at(0.0).value

    @property
    def constant(self) -> bool:
        """Whether the noise that is scheduled is."""
        return self.noise.constant

    @property
    def varies(self) -> bool:
        """It does."""
        return True

    def at(self, time: Any) -> AbstractNoise:
        """The noise of the kind that is scheduled, times s(t)."""
        time = jnp.asarray(time, jnp.result_type(float))
        factor = jnp.asarray(self.schedule(time)).astype(jnp.result_type(float))
        if _known(factor) and not 0 <= float(factor) < np.inf:
            raise InputError(
                f"the schedule is {float(factor):g} at the time {float(time):g}; expected a finite "
                "number, at least 0"
            )
        return self.noise.at(time).scaled(factor)

    def check(self, theta: Float[Array, " d"], unravel: Unravel) -> None:
        """A schedule that returns a number, and a value of the right shape."""
        try:
            out = jax.eval_shape(lambda time: jnp.asarray(self.schedule(time)), jnp.zeros(()))
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(
                "the schedule cannot be evaluated on a time (an array of shape ()): "
                f"{str(error).splitlines()[0]}"
            ) from error
        real = jnp.issubdtype(out.dtype, jnp.integer) or jnp.issubdtype(out.dtype, jnp.floating)
        if out.shape != () or not real:
            raise InputError(f"the schedule must return one real number, got {describe(out)}")
        self.at(0.0).check(theta, unravel)

    def on(self, theta: Float[Array, " d"], unravel: Unravel, smooth: bool) -> Noise:
        """That of the noise at the time 0."""
        return self.at(0.0).on(theta, unravel, smooth)

    def dense(self, theta: Float[Array, " d"], unravel: Unravel) -> Float[Array, "d d"]:
        """That of the noise at the time 0."""
        return self.at(0.0).dense(theta, unravel)

    def symmetric(self, theta: Float[Array, " d"], unravel: Unravel) -> Bool[Array, ""]:
        """Whether the noise is that is scheduled."""
        return self.noise.symmetric(theta, unravel)

    def scaled(self, factor: Float[Array, ""]) -> "Scheduled":
        """The scheduled noise times a number."""
        return Scheduled(self.noise.scaled(factor), self.schedule)


class Scaled(eqx.Module):
    """A function of params times a number."""

    function: Callable[[Any], Any]
    factor: Float[Array, ""]

    def __call__(self, params: Params) -> Array:
        """The product, in the function's own floating type or that of the number."""
        return self.product(self.function(params), self.factor)

    @staticmethod
    def product(value: Any, factor: Float[Array, ""]) -> Array:
        """The product of two numbers or arrays."""
        value = jnp.asarray(value)
        inexact = jnp.issubdtype(value.dtype, jnp.floating)
        dtype = value.dtype if inexact else factor.dtype
        return value.astype(dtype) * factor.astype(dtype)


def function_of_params(f: Any) -> Callable[[Params], Array]:
    """The function f, or the value of a :class:`thalweg.FiniteSum`, whose arrays stay leaves."""
    if isinstance(f, FiniteSum):
        return jax.tree_util.Partial(FiniteSum.value, f)
    if not callable(f):
        raise InputError(f"f must be a function of params or a FiniteSum, got {f!r}")
    return f


def checked_number(name: str, value: Any, allowed: str) -> Float[Array, ""]:
    """A number of the default floating type, finite, and at least 0 or above it."""
    try:
        number = jnp.asarray(value, jnp.result_type(float))
    except (TypeError, ValueError):
        number = None
    if number is None or number.shape != ():
        raise InputError(f"{name} is {value!r}; expected a number {allowed}")
    if _known(number):
        low = float(number) < 0 or (float(number) == 0 and allowed == "above 0")
        if low or not np.isfinite(float(number)):
            raise InputError(f"{name} is {float(number):g}; expected a finite number {allowed}")
    return number


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
