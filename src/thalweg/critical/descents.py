"""The isolated minima in a box, by descent from random starts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from thalweg.critical.box import DEGENERATE, SAME, Box, Places, checked_box
from thalweg.critical.point import CriticalPoint, critical_point
from thalweg.errors import InputError
from thalweg.flow import Ends, follow, in_blocks
from thalweg.problem import FiniteSum


class Arrivals(NamedTuple):
    """Where descents ended.

    Attributes:
        points: The last points, shape (n, d).
        settled: Which of them are isolated minima in the box (enlarged by a hundredth).
    """

    points: np.ndarray
    settled: np.ndarray


def minima(
    problem: FiniteSum,
    lower: Float[Array, " d"],
    upper: Float[Array, " d"],
    *,
    key: Key[Array, ""],
    starts: int = 64,
) -> list[CriticalPoint]:
    r"""The isolated minima in a box, the deepest first.

    From uniformly random starts the gradient flow is followed to rest (:mod:`thalweg.flow`; its
    last steps are Newton's, the very last shorter than 1e-10 of the diagonal of the box, in float32
    eight units of rounding). Kept are ends with a positive definite Hessian in the box enlarged by
    a hundredth; ends nearer to each other than 1e-6 of the diagonal are one minimum. A start on a
    plateau of exactly zero gradient finds nothing.

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
    box = checked_box(problem, lower, upper)
    check_starts(starts)
    shape = (starts, box.lower.size)
    points = jax.random.uniform(key, shape, box.lower.dtype, box.lower, box.upper)
    ends = arrivals(problem, box, points, starts)
    found = Places(SAME * float(box.diagonal))
    found.add(ends.points[ends.settled])
    listed = [
        critical_point(problem, jnp.asarray(point), hits=hits)
        for point, hits in zip(found.points, found.hits, strict=True)
    ]
    return sorted(listed, key=lambda point: point.value)


def check_starts(starts: int) -> None:
    """InputError unless there is at least one start."""
    if starts < 1:
        raise InputError(f"starts={starts}; expected at least 1")


def arrivals(problem: FiniteSum, box: Box, starts: Float[Array, "n d"], at_once: int) -> Arrivals:
    """Descend from each start to rest, ``at_once`` at a time (one compiled program for each).

    Raises:
        InputError: Descents that ended in the box, on no plateau, and not at an isolated minimum.
    """
    parts = []
    for first in range(0, len(starts), at_once):
        part = starts[first : first + at_once]
        missing = at_once - len(part)
        padded = jnp.concatenate([part, jnp.repeat(part[-1:], missing, axis=0)])
        parts.append([np.asarray(x)[: len(part)] for x in _descend(problem, padded, box)])
    points, settled, lost = (np.concatenate(x) for x in zip(*parts, strict=True))
    if lost.any():
        raise InputError(
            f"{lost.sum()} of {len(lost)} descents came to no isolated smooth minimum, one near "
            f"{points[lost][0]}: the objective has kinks there, or a continuum of "
            "minima; expected minima with a positive definite Hessian: give the known ones instead"
        )
    return Arrivals(points, settled)


@jax.jit
def _descend(problem: FiniteSum, starts: Array, box: Box) -> tuple[Array, Array, Array]:
    """Where the flow from each start ends, and whether settled there or lost in the box."""

    def one(start: Array) -> tuple[Ends, Array]:
        end = follow(problem, start, box.centre, box.diagonal, lambda point: jnp.asarray(False))
        return end, jnp.linalg.norm(jax.jacfwd(problem.gradient)(start))

    ends, curvatures = in_blocks(problem, one, starts)
    inside = box.enlarged().holds(ends.point)
    isolated = ends.at_rest & (ends.lowest > DEGENERATE * jnp.median(curvatures))
    return ends.point, inside & isolated, inside & ~isolated & ~ends.flat
