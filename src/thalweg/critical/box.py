"""The box in which critical points are sought, and when two of them are one."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from thalweg.errors import InputError
from thalweg.problem import FiniteSum

# Lengths as shares of the diagonal of the box: two ends this near are one point, ...
SAME = 1e-6
# ... a Newton step this short is none (in lower precision, eight units of rounding), ...
_REST = 1e-10
# ... this far outside the box a point still counts.
_MARGIN = 0.01
# A curvature below this share of the usual one in the box makes a critical point degenerate.
DEGENERATE = 1e-9


class Box(NamedTuple):
    """A box with its corners, shape (d,) each."""

    lower: Float[Array, " d"]
    upper: Float[Array, " d"]

    @property
    def centre(self) -> Float[Array, " d"]:
        """The middle."""
        return (self.lower + self.upper) / 2

    @property
    def diagonal(self) -> Float[Array, ""]:
        """The distance of the corners, the length that others are shares of."""
        return jnp.linalg.norm(self.upper - self.lower)

    @property
    def rest(self) -> Float[Array, ""]:
        """A Newton step this short ends a search."""
        return max(_REST, 8 * float(jnp.finfo(self.lower.dtype).eps)) * self.diagonal

    def enlarged(self, margin: float = _MARGIN) -> "Box":
        """The box with a margin all around, a share of its diagonal."""
        return Box(self.lower - margin * self.diagonal, self.upper + margin * self.diagonal)

    def holds(self, points: Float[Array, "*batch d"]) -> Bool[Array, "*batch"]:
        """Which points are in the box."""
        return jnp.all((points >= self.lower) & (points <= self.upper), axis=-1)

    def __str__(self) -> str:
        with np.printoptions(threshold=4, edgeitems=1):
            return f"the box from {np.asarray(self.lower)} to {np.asarray(self.upper)}"


def checked_box(problem: FiniteSum, lower: Float[Array, " d"], upper: Float[Array, " d"]) -> Box:
    """The box of finite corners for a problem of its dimension; InputError otherwise."""
    low, high = np.asarray(lower), np.asarray(upper)
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise InputError(f"the box from {lower} to {upper}; expected finite corners, lower < upper")
    problem.check_params(lower)
    return Box(lower, upper.astype(lower.dtype))


class Places:
    """Distinct points, in the order in which they were found, and how often each was.

    Args:
        tolerance: Points this near to each other are one.
    """

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self.points: list[np.ndarray] = []
        self.hits: list[int] = []

    def add(self, points: np.ndarray, hits: int = 1) -> np.ndarray:
        """The numbers of the points, new ones for those not seen before."""
        return np.array([self._number(point, hits) for point in points], dtype=int)

    def _number(self, point: np.ndarray, hits: int) -> int:
        if self.points:
            distances = np.linalg.norm(np.stack(self.points) - point, axis=1)
            nearest = int(distances.argmin())
            if distances[nearest] <= self.tolerance:
                self.hits[nearest] += hits
                return nearest
        self.points.append(point)
        self.hits.append(hits)
        return len(self.points) - 1
