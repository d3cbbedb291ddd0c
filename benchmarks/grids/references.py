"""What errors are measured against, and sparse direct solvers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ours
import peers
import scipy.sparse as sp
import works
from measure import Clock
from scipy.sparse.linalg import splu

Piece = Callable[[], dict[str, Any]]

# Of the quadrature: the error is about 3.89^-NODES.
_NODES = 24
# Orderings of columns and options of SuperLU.
_ORDERS: dict[str, dict[str, Any]] = {
    "default": {},
    "symmetric": {
        "permc_spec": "MMD_AT_PLUS_A",
        "diag_pivot_thresh": 0.0,
        "options": {"SymmetricMode": True},
    },
}


def exponential(matrix: Any, begin: np.ndarray) -> np.ndarray:
    r"""The vector :math:`e^{M} b` for a matrix with eigenvalues on the negative axis.

    :math:`\frac1{2\pi i} \int e^z (z - M)^{-1} b\,dz` by the trapezoidal rule on Talbot's contour:
    Trefethen, Weideman and Schmelzer (2006), BIT 46, 653-670, equation (3.1).
    """
    found = np.zeros_like(begin)
    identity = sp.eye_array(len(begin), format="csc")
    for angle in np.pi * (2 * np.arange(_NODES // 2) + 1) / _NODES:  # the others are conjugate
        cot = 1 / np.tan(0.6407 * angle)
        z = _NODES * (0.5017 * angle * cot - 0.6122 + 0.2645j * angle)
        slope = 0.5017 * cot - 0.5017 * 0.6407 * angle / np.sin(0.6407 * angle) ** 2 + 0.2645j
        solution = splu(z * identity - sp.csc_array(matrix), **_ORDERS["symmetric"]).solve(
            begin.astype(complex)
        )
        found += 2 * np.imag(np.exp(z) * slope * solution)
    return found


def ours_exactly(*, cells: int, save: str) -> Piece:
    """The density at the time TIME with Thalweg's generator."""
    return _exactly(lambda: ours.diffusion_chain(cells).jumps.matrix().T, cells, save)


def fipy_exactly(*, cells: int, save: str) -> Piece:
    """The same with FiPy's matrix."""
    return _exactly(lambda: peers.fipy_matrix(cells), cells, save)


def _exactly(matrix: Callable[[], Any], cells: int, save: str) -> Piece:
    def run() -> dict[str, Any]:
        found = exponential(works.TIME * matrix(), works.begin(cells).ravel())
        np.save(Path(save), found.reshape(cells, cells))
        return {}

    return run


def between(*, cells: int, one: str, other: str) -> Piece:
    """The distance of a density to one on a grid twice as fine, averaged."""

    def run() -> dict[str, Any]:
        finer = np.load(other).reshape(cells, 2, cells, 2).mean(axis=(1, 3))
        return {"error": works.distance(np.load(one), finer)}

    return run


def direct(*, cells: int, order: str) -> Piece:
    """The mean exit time by a sparse LU factorisation of Thalweg's matrix."""
    matrix = ours.diffusion_chain(cells).jumps.matrix()
    inside = ~works.target(cells)

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("matrix"):
            states = np.flatnonzero(inside)
            system = sp.csc_array(-matrix[states][:, states])
        with clock("solution"):
            times = splu(system, **_ORDERS[order]).solve(np.ones(states.size))
        found = np.zeros(inside.shape)
        found[inside] = times
        return clock.times() | {"time": works.at_start(found)}

    return run


PIECES = {"ours": ours_exactly, "fipy": fipy_exactly, "between": between, "direct": direct}
