"""A point and its derivatives, and what counts as zero among them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from thalweg.errors import InputError
from thalweg.problem import FiniteSum

# Normal curvatures are this many times larger than what counts as rounding, at least.
_GAP = 100.0


class Local(NamedTuple):
    """Derivatives at a point, with the Hessian in its eigenvectors.

    Attributes:
        value: The objective.
        gradient: Shape (d,).
        curvatures: Eigenvalues of the Hessian, ascending, shape (d,).
        vectors: Their unit eigenvectors, as columns, shape (d, d).
    """

    value: Array
    gradient: Array
    curvatures: Array
    vectors: Array


def checked_points(problem: FiniteSum, points: Float[Array, "*batch d"]) -> Float[Array, "n d"]:
    """Points as rows; InputError unless finite, at least one, and of params that the loss takes."""
    points = jnp.asarray(points)
    if points.ndim == 0 or points.size == 0:
        raise InputError(f"points have shape {points.shape}; expected (d,) or (..., d)")
    problem.check_params(points.reshape(-1, points.shape[-1])[0])
    if not bool(jnp.isfinite(points).all()):
        raise InputError("points are not finite; expected numbers")
    return points.reshape(-1, points.shape[-1])


def padded(points: Float[Array, "n d"]) -> Float[Array, "padded d"]:
    """A power of four points, or whole thousands (of 1024), for then few shapes are compiled."""
    length = 1
    while length < min(len(points), 1024):
        length *= 4
    length *= -(-len(points) // length)
    return jnp.concatenate([points, jnp.repeat(points[-1:], length - len(points), axis=0)])


def local(problem: FiniteSum, point: Float[Array, " d"]) -> Local:
    """Value, gradient and the Hessian's eigenvectors at a point. Pure."""
    hessian = jax.jacfwd(problem.gradient)(point)
    return Local(problem.value(point), problem.gradient(point), *jnp.linalg.eigh(hessian))


def sharpest(found: Local) -> Float[Array, "..."]:
    """The largest curvature in size, a scale for all others."""
    return jnp.max(jnp.abs(found.curvatures), axis=-1)


def is_critical(point: Float[Array, "... d"], found: Local) -> Bool[Array, "..."]:
    """Whether the gradient is none to rounding."""
    tolerance = rounding(point) * sharpest(found) * (1 + jnp.linalg.norm(point, axis=-1))
    return jnp.linalg.norm(found.gradient, axis=-1) <= tolerance


def is_minimiser(point: Float[Array, "... d"], found: Local) -> Bool[Array, "..."]:
    """Whether the gradient is none and no curvature negative, both to rounding."""
    rises = found.curvatures[..., 0] >= -rounding(point) * sharpest(found)
    return is_critical(point, found) & rises


def has_gap(found: Local, flat: int | Int[Array, ""]) -> Bool[Array, "..."]:
    """Whether all but the first ``flat`` curvatures are positive far beyond rounding."""
    least = _GAP * rounding(found.curvatures) * sharpest(found)
    return found.curvatures[..., flat] >= least


def rounding(array: Array) -> float:
    """What counts as zero, as a share: the root of the unit of rounding."""
    return float(jnp.finfo(array.dtype).eps) ** 0.5
