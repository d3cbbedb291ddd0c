"""Projection to a manifold of minimisers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from thalweg.errors import InputError
from thalweg.flow import follow, in_blocks
from thalweg.manifolds.local import (
    Local,
    checked_points,
    is_minimiser,
    local,
    padded,
    rounding,
    sharpest,
)
from thalweg.problem import FiniteSum

# The flow is followed to a gradient this small, as a share of the sharpest curvature times scale.
_NEAR = 1e-6
# Steps of Levenberg and Marquardt's method after it.
_POLISHING = 12


class Projection(NamedTuple):
    """Where points end on a manifold of minimisers.

    Attributes:
        points: The ends, of the shape of the points given.
        arrived: Whether the gradient there is zero to rounding and no curvature negative. False
            where the flow went away, came to a saddle or a plateau, or did not end.
        values: The objective there.
    """

    points: Float[Array, "*batch d"]
    arrived: Bool[Array, "*batch"]
    values: Float[Array, "*batch"]


def project(
    problem: FiniteSum, points: Float[Array, "*batch d"], *, scale: float = 1.0
) -> Projection:
    r"""The minimisers to which the gradient flow :math:`\dot\theta = -\nabla f` leads.

    They need not be isolated: on a manifold M of minimisers this is the map :math:`\Phi(\theta) =
    \lim_{t \to \infty} \theta(t)` that slow motions along M are described with (G. S. Katzenberger,
    Ann. Probab. 19, 1991). To the first order in the distance from M it is the orthogonal
    projection.

    The flow (:mod:`thalweg.flow`) is followed to a gradient of 1e-6 of the sharpest curvature times
    ``scale``; from there Levenberg and Marquardt's method on :math:`\nabla f = 0` with a damping of
    :math:`|\nabla f|^2` converges quadratically, also where minimisers are not isolated (N.
    Yamashita and M. Fukushima, Computing Suppl. 15, 2001).

    Args:
        problem: The objective, of params of shape (d,).
        points: Starts, such as the final parameters of a run.
        scale: The length over which M bends: each step of the flow errs by 1e-4 of it. The flow has
            left where it is ten times this far from its start.

    Raises:
        InputError: Points that are not finite or that the loss does not take; a scale that is not
            positive.

    Cost: one or two d x d Hessians a step, some tens of steps a point.
    """
    if not 0 < scale < float("inf"):
        raise InputError(f"scale is {scale!r}; expected a positive length")
    flat = checked_points(problem, points)
    ends = _projected(problem, padded(flat), jnp.asarray(scale, flat.dtype))
    shape = points.shape[:-1]
    ends = jax.tree.map(lambda x: x[: len(flat)].reshape(*shape, *x.shape[1:]), ends)
    return Projection(*ends)


@jax.jit
def _projected(problem: FiniteSum, points: Float[Array, "n d"], scale: Array) -> Projection:
    def near(point: Array) -> Array:
        hessian = jax.jacfwd(problem.gradient)(point)
        slope = jnp.linalg.norm(problem.gradient(point))
        return slope <= _NEAR * scale * jnp.linalg.norm(hessian)

    def one(start: Array) -> Projection:
        end = follow(problem, start, start, scale, near)
        polished, found = _polished(problem, end.point, scale)
        finite = jnp.all(jnp.isfinite(polished))
        arrived = finite & near(end.point) & is_minimiser(polished, found)
        value = jnp.where(finite, found.value, problem.value(end.point))
        return Projection(jnp.where(finite, polished, end.point), arrived, value)

    return in_blocks(problem, one, points)


def _polished(problem: FiniteSum, point: Array, scale: Array) -> tuple[Array, Local]:
    """The root of the gradient near a point, by damped Newton steps, and what it is like there."""

    def step(state: tuple[Array, Local, Array]) -> tuple[Array, Local, Array]:
        point, here, count = state
        slopes = here.vectors.T @ here.gradient
        # Of curvatures that are zero to rounding nothing must be divided by.
        least = rounding(point) * sharpest(here)
        damping = jnp.maximum(jnp.linalg.norm(slopes) / scale, least)
        weights = here.curvatures / (jnp.square(here.curvatures) + jnp.square(damping))
        point = point - here.vectors @ (weights * slopes)
        return point, local(problem, point), count + 1

    def going(state: tuple[Array, Local, Array]) -> Array:
        point, here, count = state
        least = rounding(point) ** 1.5 * sharpest(here) * scale
        return (jnp.linalg.norm(here.gradient) > least) & (count < _POLISHING)

    begin = (point, local(problem, point), jnp.zeros((), jnp.int32))
    point, here, _ = jax.lax.while_loop(going, step, begin)
    return point, here
