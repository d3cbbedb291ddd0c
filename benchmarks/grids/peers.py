"""The same questions put to fplanck, FiPy and py-pde."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import works
from measure import Clock

Piece = Callable[[], dict[str, Any]]

# Steps of FiPy to the stationary law: as one does it, and the fewest that keep the accuracy.
_STEPS = {"growing": (1.0, 10.0, 1e3, 1e6), "tuned": (1e6, 1e9), "long": (1e6,)}
# Central differences are stable up to h^2/4, 5.5e-6 on 512^2 cells, and up to 2/|b|^2, 7.7e-6.
_EXPLICIT_STEP = 5e-6


def fplanck_stationary(*, cells: int, current: bool = False) -> Piece:
    """The zero eigenvector of its master equation, by ``eigs``."""

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            equation = _fplanck(cells, current)
        with clock("solution"):
            masses = equation.steady_state()
        return clock.times() | {"error": works.distance(masses, works.gibbs(cells))}

    return run


def fplanck_density(*, cells: int, reference: str, wide: int) -> Piece:
    """``propagate``, which is SciPy's ``expm_multiply``.

    Returns how much the norm of the matrix grows to the number ``wide`` of cells, too.
    """
    norms = [abs(_fplanck(n).master_matrix).sum(axis=0).max() for n in (cells, wide)]

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            equation = _fplanck(cells)
        with clock("solution"):
            masses = equation.propagate(lambda x, y: works.begin(cells), works.TIME)
        return clock.times() | {
            "error": works.distance(masses, np.load(reference)),
            "growth": norms[1] / norms[0],
        }

    return run


def fipy_stationary(*, cells: int, steps: str, current: bool = False) -> Piece:
    """Implicit steps that are longer and longer, with exponentially fitted fluxes.

    "growing" has the drift in the middle of each face; "tuned" the difference of V over it, with
    which the fitted fluxes are exact, and two very long steps; "long" the drift and one step.
    """

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            equation, masses = _fipy(cells, exact=steps == "tuned", current=current)
            masses.setValue(1.0 / cells**2)
        with clock("solution"):
            for dt in _STEPS[steps]:
                equation.solve(var=masses, dt=dt)
        found = _in_order(masses.value, cells)
        return clock.times() | {"error": works.distance(found, works.gibbs(cells))}

    return run


def fipy_density(*, cells: int, steps: int, reference: str, other: str) -> Piece:
    """Implicit Euler, beside the exact exponential of its own matrix and of Thalweg's."""

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            equation, masses = _fipy(cells)
            masses.setValue(works.begin(cells).T.ravel())
        with clock("solution"):
            for _ in range(steps):
                equation.solve(var=masses, dt=works.TIME / steps)
        found = _in_order(masses.value, cells)
        exact, others = np.load(reference), np.load(other)
        return clock.times() | {
            "error": works.distance(found, exact),
            "scheme": works.distance(exact, others),
        }

    return run


def fipy_matrix(cells: int) -> Any:
    """The matrix M of dm/dt = M m, the cells in Thalweg's order."""
    equation, masses = _fipy(cells)
    equation.cacheMatrix()
    equation.sweep(var=masses, dt=1.0)
    volume = float(masses.mesh.cellVolumes[0])
    matrix = equation.matrix.matrix.tocsr() / volume
    order = np.arange(cells**2).reshape(cells, cells).T.ravel()
    generator = -matrix[order][:, order]
    generator.setdiag(generator.diagonal() + 1.0)
    return generator


def pypde_density(*, cells: int, reference: str) -> Piece:
    """Explicit Euler with central differences; nothing passes the walls, and mass is conserved."""
    import pde

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            box = list(zip(works.LOWER, works.UPPER, strict=True))
            grid = pde.CartesianGrid(box, [cells, cells])
            drift = zip("uv", works.drift(*works.centres(cells)), strict=True)
            equation = pde.PDE(
                {"p": "laplace(p) - d_dx(u * p) - d_dy(v * p)"},
                bc={"derivative": 0},
                bc_ops={"p:d_dx": {"value": 0}, "p:d_dy": {"value": 0}},
                consts={name: pde.ScalarField(grid, values) for name, values in drift},
            )
            state = pde.ScalarField(grid, works.begin(cells))
            stepper = pde.EulerSolver(equation).make_stepper(state, dt=_EXPLICIT_STEP)
            stepper(state.copy(), 0.0, _EXPLICIT_STEP)  # compiles
        with clock("solution"):
            stepper(state, 0.0, works.TIME)
        return clock.times() | {"error": works.distance(state.data, np.load(reference))}

    return run


def _fplanck(cells: int, current: bool = False) -> Any:
    """Its equation in SI units with kT = 1 J and a drag of 1 kg/s, so that D = 1.

    A current needs the whole drift as its force: with both it adds the diffusion of each.
    """
    import fplanck

    if not hasattr(np, "product"):
        np.product = np.prod  # noqa: NPY003, NPY201 (it was removed in NumPy 2)
    centre = [(l + u) / 2 for l, u in zip(works.LOWER, works.UPPER, strict=True)]
    resolution = np.array(works.widths(cells))

    def potential(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return works.potential(x + centre[0], y + centre[1])

    def force(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        shifted = x + centre[0], y + centre[1]
        return np.array(works.drift(*shifted, circulation=works.CIRCULATION))

    return fplanck.fokker_planck(
        temperature=1 / fplanck.k,
        drag=1.0,
        # It rounds up.
        extent=resolution * (cells - 0.5),
        resolution=resolution,
        boundary=fplanck.boundary.reflecting,
        **({"force": force} if current else {"potential": potential}),
    )


def _fipy(cells: int, *, exact: bool = False, current: bool = False) -> tuple[Any, Any]:
    """Its equation and the variable."""
    import fipy

    (hx, hy), (nx, ny) = works.widths(cells), (cells, cells)
    mesh = fipy.Grid2D(dx=hx, dy=hy, nx=nx, ny=ny) + tuple((l,) for l in works.LOWER)
    x, y = mesh.faceCenters.value
    circulation = works.CIRCULATION * current
    drift = _differences(x, y, hx, hy) if exact else works.drift(x, y, circulation=circulation)
    velocity = np.array(drift)
    velocity[:, np.asarray(mesh.exteriorFaces)] = 0.0
    equation = fipy.TransientTerm() == fipy.DiffusionTerm(
        coeff=1.0
    ) - fipy.ExponentialConvectionTerm(coeff=fipy.FaceVariable(mesh=mesh, rank=1, value=velocity))
    return equation, fipy.CellVariable(mesh=mesh)


def _differences(x: np.ndarray, y: np.ndarray, hx: float, hy: float) -> Sequence[np.ndarray]:
    """Differences of -V across faces, over their distance: the mean drift on the way."""
    V = works.potential
    return (
        (V(x - hx / 2, y) - V(x + hx / 2, y)) / hx,
        (V(x, y - hy / 2) - V(x, y + hy / 2)) / hy,
    )


def _in_order(values: np.ndarray, cells: int) -> np.ndarray:
    """FiPy's cells, in which x runs fastest, with x along the first axis."""
    return np.asarray(values).reshape(cells, cells).T


PIECES = {
    "fplanck_stationary": fplanck_stationary,
    "fplanck_density": fplanck_density,
    "fipy_stationary": fipy_stationary,
    "fipy_density": fipy_density,
    "pypde_density": pypde_density,
}
