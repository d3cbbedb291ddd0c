"""The questions about grids that are measured: numbers shared by the peers and Thalweg."""

from typing import Any

import numpy as np
from mueller import CENTRE, RADIUS, SCALE, START, TERMS

# Reflecting walls.
LOWER, UPPER = (-1.5, -0.4), (1.1, 2.0)
TIME = 1.0
# Deviation of the density at time 0, a Gaussian about START.
DEVIATION = 0.1
# Of the stream function of a current, which is then .24 exp(-V) at most.
CIRCULATION = 0.1
# In three dimensions STIFFNESS z^2 is added, on the box with |z| < DEPTH.
STIFFNESS, DEPTH = 10.0, 1.0


def potential(x: Any, y: Any, exp: Any = np.exp) -> Any:
    """V of Mueller and Brown, of arrays."""
    return sum(
        SCALE * A * exp(a * (x - x0) ** 2 + b * (x - x0) * (y - y0) + c * (y - y0) ** 2)
        for A, a, b, c, x0, y0 in TERMS
    )


def drift(x: Any, y: Any, exp: Any = np.exp, circulation: float = 0.0) -> tuple[Any, Any]:
    r"""The gradient of -V by hand, of arrays; with a current that leaves exp(-V) stationary.

    The current is :math:`\nabla^\perp(\psi e^{-V})`, free of divergence and along the walls, with
    the stream function :math:`\psi` = circulation (x - l)(u - x)(y - l')(u' - y).
    """
    drift_x, drift_y = 0.0, 0.0
    for A, a, b, c, x0, y0 in TERMS:
        dx, dy = x - x0, y - y0
        bump = SCALE * A * exp(a * dx * dx + b * dx * dy + c * dy * dy)
        drift_x -= bump * (2 * a * dx + b * dy)
        drift_y -= bump * (b * dx + 2 * c * dy)
    if not circulation:
        return drift_x, drift_y
    (f, df), (g, dg) = (
        ((z - l) * (u - z), l + u - 2 * z) for z, l, u in zip((x, y), LOWER, UPPER, strict=True)
    )
    stream = circulation * f * g
    return (
        drift_x - circulation * f * dg - stream * drift_y,
        drift_y + circulation * df * g + stream * drift_x,
    )


def widths(cells: int) -> tuple[float, float]:
    """The widths of cells."""
    return tuple((u - l) / cells for l, u in zip(LOWER, UPPER, strict=True))


def centres(cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates of all cells, each of shape (cells, cells), x along the first axis."""
    axes = [l + (np.arange(cells) + 0.5) * h for l, h in zip(LOWER, widths(cells), strict=True)]
    return tuple(np.meshgrid(*axes, indexing="ij"))


def gibbs(cells: int) -> np.ndarray:
    """The masses exp(-V) of the cells."""
    values = potential(*centres(cells))
    return normalised(np.exp(values.min() - values))


def begin(cells: int) -> np.ndarray:
    """The masses at time 0."""
    x, y = centres(cells)
    square = (x - START[0]) ** 2 + (y - START[1]) ** 2
    return normalised(np.exp(-square / (2 * DEVIATION**2)))


def normalised(masses: np.ndarray) -> np.ndarray:
    """Masses of sum one."""
    return masses / masses.sum()


def distance(masses: np.ndarray, others: np.ndarray) -> float:
    """The L1 distance of two laws."""
    return float(np.abs(normalised(masses) - normalised(others)).sum())


def target(cells: int) -> np.ndarray:
    """The cells of the disc, by their centres."""
    x, y = centres(cells)
    return (x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 <= RADIUS**2


def at_start(function: np.ndarray) -> float:
    """A function on the grid at START, linear between centres."""
    low, weights = [], []
    for l, h, at in zip(LOWER, widths(len(function)), START, strict=True):
        place = (at - l) / h - 0.5
        low.append(int(place))
        weights.append((1 - place % 1, place % 1))
    corner = function[low[0] : low[0] + 2, low[1] : low[1] + 2]
    return float(np.array(weights[0]) @ corner @ np.array(weights[1]))
