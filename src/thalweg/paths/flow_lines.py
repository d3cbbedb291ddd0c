"""Lines of a flow from a saddle down to where it rests."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import LSODA
from scipy.interpolate import CubicHermiteSpline

# Lengths as shares of the scale: the start beside the saddle, whose square is the error; ...
_BESIDE = 1e-5
# ... a Newton step this short ends a line; ...
_REST = 1e-6
# ... the error allowed in a step of the solver; ...
_ACCURACY = 1e-10
# ... and a line that has left.
_FAR = 10.0
_STEPS = 20_000
# The first step of the solver, as a share of the shortest time.
_FIRST = 1e-2

Vector = Float[np.ndarray, " d"]
Field = Callable[[Vector], Vector]
Jacobian = Callable[[Vector], Float[np.ndarray, "d d"]]


class FlowLine(NamedTuple):
    """A line of a flow, by arc length.

    Attributes:
        arc: The length up to each point.
        points: The points.
        tangents: Unit vectors.
    """

    arc: Float[np.ndarray, " n"]
    points: Float[np.ndarray, "n d"]
    tangents: Float[np.ndarray, "n d"]

    def spaced(self, intervals: int) -> Float[np.ndarray, "_ d"]:
        """Points at equal distances, from end to end."""
        places = np.linspace(0, self.arc[-1], intervals + 1)
        inside = CubicHermiteSpline(self.arc, self.points, self.tangents)(places)
        inside[0], inside[-1] = self.points[0], self.points[-1]
        return inside


def flow_line(
    field: Field, jacobian: Jacobian, saddle: Vector, side: Vector, scale: float
) -> FlowLine | None:
    r"""The line of :math:`d\theta/dt = b(\theta)` that leaves a saddle, down to where it rests.

    It starts at a distance of 1e-5 ``scale`` from the saddle, so that it is off by the square of
    that, and is integrated by LSODA (stiff or not) to a relative error of 1e-10 until Newton's step
    to the point of rest is shorter than 1e-6 of the scale; the point itself is the last.

    Args:
        field: b.
        jacobian: Its derivative.
        saddle: Where b vanishes.
        side: The direction in which to leave it, of length one.
        scale: A length of the problem.

    Returns:
        The line, or None if it leaves to ten times the scale or comes to no stable point of rest.
    """
    start = saddle + _BESIDE * scale * side
    with warnings.catch_warnings():
        # What the solver warns of is seen by its status.
        warnings.simplefilter("ignore", UserWarning)
        points, rest = _followed(field, jacobian, start, scale)
    return None if rest is None else _line(field, saddle, points, rest)


def _followed(
    field: Field, jacobian: Jacobian, start: Vector, scale: float
) -> tuple[Float[np.ndarray, "n d"], Vector | None]:
    """The points of a line, and where it rests if it does so and is stable there."""
    solver = LSODA(
        lambda _, point: field(point),
        0.0,
        start,
        np.inf,
        rtol=_ACCURACY,
        atol=_ACCURACY * scale,
        # Where it starts flat and stiff, the solver's own first step is so long that it gives up.
        first_step=_FIRST / np.linalg.norm(jacobian(start)),
        jac=lambda _, point: jacobian(point),
    )
    points = [start]
    for _ in range(_STEPS):
        solver.step()
        if solver.status == "failed" or not np.linalg.norm(solver.y - start) <= _FAR * scale:
            break
        points.append(solver.y)
        J = jacobian(solver.y)
        if np.linalg.norm(_newton(field(solver.y), J)) <= _REST * scale:
            return np.array(points), _rest(field, jacobian, solver.y)
    return np.array(points), None


def _newton(b: Vector, J: Float[np.ndarray, "d d"]) -> Vector:
    return -np.linalg.lstsq(J, b)[0]


def _rest(field: Field, jacobian: Jacobian, near: Vector) -> Vector | None:
    """The point of rest next to a point, None if it is not stable."""
    for _ in range(2):
        near = near + _newton(field(near), jacobian(near))
    return near if np.linalg.eigvals(jacobian(near)).real.max() < 0 else None


def _line(field: Field, saddle: Vector, points: Float[np.ndarray, "n d"], rest: Vector) -> FlowLine:
    """The line through points of the flow, with the saddle and the point of rest at its ends."""
    moves = np.array([points[0] - saddle, *map(field, points), rest - points[-1]])
    tangents = moves / np.linalg.norm(moves, axis=1, keepdims=True)
    points = np.vstack([saddle, points, rest])
    chords = np.diff(points, axis=0)
    lengths = np.linalg.norm(chords, axis=1)
    # The arc of a circle over its chord: the error is of the fifth order in the length.
    half = np.arcsin(np.clip(np.linalg.norm(np.diff(tangents, axis=0), axis=1) / 2, 0, 1))
    arc = np.append(0.0, np.cumsum(lengths / np.sinc(half / np.pi)))
    kept = np.append(True, np.diff(arc) > 0)
    return FlowLine(arc[kept], points[kept], tangents[kept])
