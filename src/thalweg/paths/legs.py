"""Saddles with the lines of the gradient flow from them, and the way that these make."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from thalweg.paths.flow_lines import FlowLine, flow_line
from thalweg.problem import FiniteSum

# Newton's steps converge by squares: one this short, as a share of the scale, is the last.
_LAST = 1e-9
_NEWTON_STEPS = 100
# A curvature below this is none: a step over it is too long for any limit, but still a number.
_FLAT = 1e-100
# Ends nearer to each other than this share of the scale are one minimum.
_SAME = 1e-5

Vector = Float[np.ndarray, " d"]


class Surface(NamedTuple):
    """An objective for NumPy arrays, with the length to which others are compared."""

    problem: FiniteSum
    scale: float

    def gradient(self, point: Vector) -> Vector:
        """At a point."""
        return np.asarray(_gradient(self.problem, point))

    def hessian(self, point: Vector) -> Float[np.ndarray, "d d"]:
        """At a point."""
        return np.asarray(_hessian(self.problem, point))

    def same(self, one: Vector, other: Vector) -> bool:
        """Whether two points are one."""
        return bool(np.linalg.norm(one - other) <= _SAME * self.scale)

    def values(self, points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """The objective at points."""
        return np.array([_value(self.problem, point) for point in points])

    def among(self, point: Vector, others: Sequence[Vector]) -> bool:
        """Whether a point is one of others."""
        return any(self.same(point, other) for other in others)

    def critical_near(self, point: Vector, index: int, limit: float) -> Vector | None:
        """The critical point to which Newton's method comes, if it has the index.

        In the directions of least curvature, as many as the index, it goes up, in all others down,
        and no further in a step than the limit.
        """
        signs = np.where(np.arange(point.size) < index, -1.0, 1.0)
        for _ in range(_NEWTON_STEPS):
            H = self.hessian(point)
            if not np.isfinite(H).all():
                return None
            curvatures, vectors = np.linalg.eigh(H)
            sizes = np.maximum(np.abs(curvatures), _FLAT)
            move = -vectors @ (signs * (vectors.T @ self.gradient(point)) / sizes)
            length = float(np.linalg.norm(move))
            if not np.isfinite(length):
                return None
            point = point + move * min(1.0, limit / max(length, limit))
            if length <= _LAST * self.scale:
                return point if np.array_equal(np.sign(curvatures), signs) else None
        return None


class Leg(NamedTuple):
    """A saddle, and the lines from it down to two minima."""

    saddle: Vector
    lines: tuple[FlowLine, FlowLine]

    @property
    def ends(self) -> tuple[Vector, Vector]:
        """The two minima."""
        return self.lines[0].points[-1], self.lines[1].points[-1]

    def turned(self) -> "Leg":
        """In the other direction."""
        return Leg(self.saddle, (self.lines[1], self.lines[0]))


def tops(surface: Surface, points: Float[np.ndarray, "images d"]) -> list[Vector]:
    """The saddles to which the tops of a string lead, none twice."""
    values = surface.values(points)
    higher = (values[1:-1] > values[:-2]) & (values[1:-1] >= values[2:])
    apart = float(np.linalg.norm(np.diff(points, axis=0), axis=1).mean())
    found: list[Vector] = []
    for point in points[1:-1][higher]:
        saddle = surface.critical_near(point, 1, apart)
        if saddle is not None and not surface.among(saddle, found):
            found.append(saddle)
    return found


def leg_over(surface: Surface, saddle: Vector) -> Leg | None:
    """The saddle with its lines; None if one of them comes to no minimum."""
    side = np.linalg.eigh(surface.hessian(saddle))[1][:, 0]
    lines = []
    for sign in (-1.0, 1.0):
        line = flow_line(
            lambda point: -surface.gradient(point),
            lambda point: -surface.hessian(point),
            saddle,
            sign * side,
            surface.scale,
        )
        if line is None:
            return None
        lines.append(line)
    return Leg(saddle, (lines[0], lines[1]))


class Chart:
    """The minima met so far and the legs between them."""

    def __init__(self, surface: Surface, legs: Sequence[Leg], a: Vector, b: Vector):
        self.surface = surface
        self.places = [a, b]
        self.links = [(leg, self._number(leg.ends[0]), self._number(leg.ends[1])) for leg in legs]

    def way(self) -> list[Leg] | None:
        """The legs from a to b, as few as possible; None if there is a gap."""
        ways: dict[int, list[Leg]] = {0: []}
        edge = [0]
        while edge and 1 not in ways:
            edge, before = [], edge
            for here in before:
                for leg, one, other in self.links:
                    for near, far, way in ((one, other, leg), (other, one, leg.turned())):
                        if near == here and far not in ways:
                            ways[far] = [*ways[here], way]
                            edge.append(far)
        return ways.get(1)

    def gap(self) -> tuple[Vector, Vector]:
        """The nearest two minima, one joined to a and one to b."""
        left, right = self._joined(0), self._joined(1)
        pairs = [(self.places[i], self.places[j]) for i in left for j in right]
        return min(pairs, key=lambda pair: float(np.linalg.norm(pair[0] - pair[1])))

    def _number(self, point: Vector) -> int:
        for number, place in enumerate(self.places):
            if self.surface.same(place, point):
                return number
        self.places.append(point)
        return len(self.places) - 1

    def _joined(self, start: int) -> set[int]:
        group = {start}
        for _ in self.links:
            for _, one, other in self.links:
                if one in group or other in group:
                    group |= {one, other}
        return group


@jax.jit
def _gradient(problem: FiniteSum, point: Array) -> Array:
    return problem.gradient(point)


@jax.jit
def _hessian(problem: FiniteSum, point: Array) -> Array:
    return jax.jacfwd(problem.gradient)(point)


@jax.jit
def _value(problem: FiniteSum, point: Array) -> Array:
    return problem.value(point)
