"""How often the gradient turns around the border of a box in the plane."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from thalweg.critical.box import Box
from thalweg.flow import in_blocks
from thalweg.problem import FiniteSum

# Points of the border that are evaluated at once, and how often they are refined.
_POINTS, _REFINEMENTS = 1024, 8
# The largest angle between the gradients at neighbours that counts as one turned, not a leap.
_ANGLE = np.pi / 4


def turns(problem: FiniteSum, box: Box) -> int | None:
    r"""The turns of :math:`\nabla f` on one walk around the border, anticlockwise.

    Where all critical points inside are non-degenerate they are #minima - #saddles + #maxima (the
    theorem of Poincare and Hopf in the plane), and 1 where f rises outwards all round.

    Points are added where the gradient turns by more than 45 degrees between neighbours. None where
    it vanishes or is not finite on the border, or where such angles are left after 8 refinements of
    1024 points: a critical point lies on the border, or a kink.
    """
    places = np.linspace(0, 4, _POINTS, endpoint=False)
    gradients = _along(problem, box, places)
    for _ in range(_REFINEMENTS):
        if not np.isfinite(gradients).all() or not np.abs(gradients).max(axis=1).all():
            return None
        angles = _angles(gradients)
        leaps = np.flatnonzero(np.abs(angles) > _ANGLE)
        if not leaps.size:
            return round(angles.sum() / (2 * np.pi))
        if leaps.size > _POINTS:
            return None
        new = _between(places, leaps)
        places = np.concatenate([places, new])
        order = np.argsort(places)
        gradients = np.concatenate([gradients, _along(problem, box, new)])[order]
        places = places[order]
    return None


def _angles(gradients: np.ndarray) -> np.ndarray:
    """The angles from each gradient to the next, the last to the first."""
    directions = gradients[:, 0] + 1j * gradients[:, 1]
    directions /= np.abs(directions)
    return np.angle(np.roll(directions, -1) / directions)


def _between(places: np.ndarray, leaps: np.ndarray) -> np.ndarray:
    """1024 new places shared among the gaps behind the ones named."""
    ends = np.append(places, 4.0)
    gap = leaps[np.arange(_POINTS) % leaps.size]
    share = (np.arange(_POINTS) // leaps.size + 1) / (-(-_POINTS // leaps.size) + 1)
    return ends[gap] + share * (ends[gap + 1] - ends[gap])


def _along(problem: FiniteSum, box: Box, places: np.ndarray) -> np.ndarray:
    """Gradients at places on the border, numbered from 0 to 4 from corner to corner."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    side = np.minimum(places.astype(int), 3)
    share = (places - side)[:, None]
    unit = (1 - share) * corners[side] + share * corners[side + 1]
    points = box.lower + jnp.asarray(unit, box.lower.dtype) * (box.upper - box.lower)
    return np.asarray(_gradients(problem, points), dtype=float)


@jax.jit
def _gradients(problem: FiniteSum, points: Array) -> Array:
    return in_blocks(problem, problem.gradient, points)
