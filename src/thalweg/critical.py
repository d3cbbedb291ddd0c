"""Minima of problems of low dimension: where they are, what they are like, whose basin is where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from thalweg.curvature import hessian, nonuniformity_operator
from thalweg.errors import InputError
from thalweg.problem import FiniteSum, Params

# A Hessian of more parameters is not written out.
_LARGEST_DENSE = 1024
# All lengths below are shares of the diagonal of the box (or of the distance between the minima).
_REST = 1e-10  # a Newton step this short ends a descent
_ACCURACY = 1e-5  # error of one step along the flow
_SAME = 1e-6  # two ends this near are one minimum
_MARGIN = 0.01  # how far outside the box a minimum still counts
_FAR = 10.0  # a descent this far away has left
_STEPS = 2048
# A curvature below this share of the usual one makes a minimum degenerate.
_DEGENERATE = 1e-9


@dataclass(frozen=True, eq=False)
class CriticalPoint:
    r"""A minimum or saddle and what it is like.

    Attributes:
        params: Where.
        value: The objective.
        eigenvalues: Of the Hessian, ascending, shape (P,).
        sharpness: :math:`\lambda_{\max}(H)`.
        nonuniformity: :math:`\lambda_{\max}(\sum_i a_i H_i^2 - H^2)^{1/2}`.
        residual: The gradient norm that is left.
        name: What it is called, if anything.
        hits: How many of the starts of :func:`minima` ended here, None if it was given.
    """

    params: PyTree[Array]
    value: float
    eigenvalues: Float[Array, " size"]
    sharpness: float
    nonuniformity: float
    residual: float
    name: str | None = None
    hits: int | None = None

    @property
    def index(self) -> int:
        """The number of negative eigenvalues: 0 for a minimum, 1 for a saddle between two."""
        return int(jnp.sum(self.eigenvalues < 0))


def critical_point(
    problem: FiniteSum, params: Params, *, name: str | None = None, hits: int | None = None
) -> CriticalPoint:
    """Describe a given point; ``residual`` says whether it is critical.

    The Hessian and the non-uniformity matrix are written out: P products with each.

    Raises:
        InputError: More than 1024 parameters (:func:`thalweg.stability.assess` is for these), or
            second derivatives that are not finite.
    """
    operator = hessian(problem, params)
    if operator.size > _LARGEST_DENSE:
        raise InputError(
            f"{operator.size} parameters; a critical point is described by its whole Hessian, "
            f"expected at most {_LARGEST_DENSE}: use thalweg.stability.assess"
        )
    spreads = jnp.linalg.eigvalsh(nonuniformity_operator(problem, params).dense())
    eigenvalues = jnp.linalg.eigvalsh(operator.dense())
    if not bool(jnp.isfinite(eigenvalues).all() & jnp.isfinite(spreads).all()):
        raise InputError("the Hessian is not finite there; expected a point where it is")
    value, gradient = _value_and_gradient(problem, params)
    return CriticalPoint(
        params=params,
        value=float(value),
        eigenvalues=eigenvalues,
        sharpness=float(eigenvalues[-1]),
        nonuniformity=math.sqrt(max(0.0, float(spreads[-1]))),
        residual=float(jnp.linalg.norm(gradient)),
        name=name,
        hits=hits,
    )


def minima(
    problem: FiniteSum,
    lower: Float[Array, " d"],
    upper: Float[Array, " d"],
    *,
    key: Key[Array, ""],
    starts: int = 64,
) -> list[CriticalPoint]:
    r"""The isolated minima in a box, the deepest first.

    From uniformly random starts :math:`d\theta/dt = -\nabla f` is followed by exponential
    Rosenbrock-Euler steps, :math:`\theta \to \theta - h\,\varphi_1(-hH)\nabla f` with
    :math:`\varphi_1(z) = (e^z - 1)/z`. They are exact where f is quadratic, so that the step size,
    controlled by the change of the gradient that H does not foresee, grows without bound near a
    minimum and the last steps are Newton's. A descent is at rest once the Newton step is shorter
    than 1e-10 of the diagonal of the box (in float32: eight units of rounding). Ends nearer
    than 1e-6 of the diagonal are one minimum; ends outside the box (enlarged by a hundredth) and
    ends on plateaus of exactly zero gradient are dropped.

    How sure is it? A minimum whose basin of the flow fills the share q of the box is missed with
    probability (1-q)^starts: 1e-3 for q = 0.1 and 64 starts. ``hits`` counts the starts that ended
    in each minimum and so estimates q; hits of 1 or 2 say that there may be more to find.

    Args:
        problem: The objective, of params of shape (d,).
        lower: Lower corner of the box.
        upper: Upper corner.
        key: For the starts.
        starts: How many.

    Raises:
        InputError: No box; or descents that found no isolated smooth minimum to rest at, because
            the objective has kinks at its minima or these form a continuum.
    """
    lower, upper = _checked_box(problem, lower, upper)
    if starts < 1:
        raise InputError(f"starts={starts}; expected at least 1")
    diagonal = jnp.linalg.norm(upper - lower)
    centre = (lower + upper) / 2
    points = jax.random.uniform(key, (starts, lower.size), lower.dtype, lower, upper)
    ends = _descend(problem, points, centre, diagonal)
    margin = (upper - lower) / 2 + _MARGIN * diagonal
    inside = np.asarray(jnp.all(jnp.abs(ends.point - centre) <= margin, axis=1))
    isolated = np.asarray(ends.at_rest & (ends.lowest > _DEGENERATE * jnp.median(ends.largest)))
    lost = inside & ~isolated & ~np.asarray(ends.flat)
    if lost.any():
        raise InputError(
            f"{lost.sum()} of {starts} descents came to no isolated smooth minimum, one near "
            f"{np.asarray(ends.point)[lost][0]}: the objective has kinks there, or a continuum of "
            "minima; expected minima with a positive definite Hessian: give the known ones instead"
        )
    found = _distinct(np.asarray(ends.point)[inside & isolated], _SAME * float(diagonal))
    listed = [critical_point(problem, jnp.asarray(point), hits=hits) for point, hits in found]
    return sorted(listed, key=lambda point: point.value)


def basin(
    problem: FiniteSum, points: Sequence[Any], params: Float[Array, "chains d"]
) -> Int[Array, " chains"]:
    r"""Whose basin of the gradient flow each end point is in: an index into ``points``, or -1.

    A chain near a minimum needs no flow. Around each minimum the largest ellipsoid is taken (in
    the metric of the Hessian there, a ball at a kink; up to half the distance to the next minimum)
    out to which f rises; whoever is inside, and lower than half the rim, cannot cross the rim by
    going down. The others follow the flow, as in :func:`minima`, until they are. -1 is for chains that are
    not finite, flow away, rest elsewhere, or do not arrive within 2048 steps.

    The rim is f at a finite number of radii and directions (all of them in one dimension). ``points`` should hold all
    minima: one that is missing has its basin, or a part of it, counted as -1 or as a neighbour's.

    Args:
        problem: The objective.
        points: The minima; anything with ``params`` of shape (d,), such as what :func:`minima`
            returns or a landscape's known points. Kinked minima will do.
        params: The end points.

    Raises:
        InputError: No points, or points of another dimension than ``params``.
    """
    if not points:
        raise InputError("points is empty; expected at least one minimum")
    centres = jnp.stack([jnp.asarray(point.params, params.dtype) for point in points])
    if centres.shape[1:] != params.shape[1:]:
        raise InputError(
            f"points have shape {centres.shape[1:]} and end points {params.shape[1:]}; "
            "expected the same dimension"
        )
    problem.check_params(centres[0])
    # A lone minimum is far from nothing: there the chains give the length.
    finite = np.isfinite(np.asarray(params)).all(axis=1)
    scale = _length(centres if len(centres) > 1 else params[finite], centres)
    hoods = _neighbourhoods(problem, centres, _reach(centres, scale))
    owner = np.full(len(params), -1)
    owner[finite] = _in_blocks(partial(_captured, problem, hoods), params[finite])
    waiting = np.flatnonzero(finite & (owner < 0))
    owner[waiting] = ...
    return jnp.asarray(owner, dtype=jnp.int32)
