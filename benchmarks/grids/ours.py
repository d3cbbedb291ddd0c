"""Thalweg's side: the public interface only, as a user would write it."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import works
from measure import Clock

import thalweg

jax.config.update("jax_enable_x64", True)

Piece = Callable[[], dict[str, Any]]

# The unknowns of each cycle of multigrid.
_CYCLES: list[int] = []


def diffusion_chain(cells: int, *, current: bool = False) -> Any:
    """The diffusion in the Mueller-Brown potential on cells x cells, perhaps with a current."""
    grid = thalweg.Grid(works.LOWER, works.UPPER, (cells, cells))
    return thalweg.discretise(thalweg.Diffusion(_turning if current else _drift, 2.0, 1e-3), grid)


def stationary(*, cells: int, current: bool = False) -> Piece:
    """The stationary law."""

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            chain = diffusion_chain(cells, current=current)
        with clock("solution"), warnings.catch_warnings():
            # The box cuts off two thousandths of the law of the plane, and it says so.
            warnings.simplefilter("ignore", UserWarning)
            density = np.asarray(chain.stationary().density)
        return clock.times() | {"error": works.distance(density, works.gibbs(cells))}

    return run


def density(*, cells: int, reference: str | None = None, save: str | None = None) -> Piece:
    """The density at the time TIME."""
    begin = works.begin(cells)

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            chain = diffusion_chain(cells)
        with clock("solution"):
            found = np.asarray(chain.evolve(begin, [works.TIME]).densities[0])
        if save is not None:
            np.save(save, found)
        outcome = {} if reference is None else {"error": works.distance(found, np.load(reference))}
        return clock.times() | outcome

    return run


def exit_time(*, cells: int) -> Piece:
    """The mean exit time, and the cycles of multigrid that it took."""
    _count_cycles()

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            chain = diffusion_chain(cells)
        _CYCLES.clear()
        with clock("solution"):
            time = float(chain.exit_time(_outside).at(works.START))
        return clock.times() | {"time": time, "cycles": len(_CYCLES)}

    return run


def exit_time_3d(*, cells: int) -> Piece:
    """The same in three dimensions, a ball about the right minimum as the target."""
    lower, upper = (*works.LOWER, -works.DEPTH), (*works.UPPER, works.DEPTH)
    diffusion = thalweg.Diffusion(_drift_3d, 2.0, 1e-3)
    _count_cycles()

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            chain = thalweg.discretise(diffusion, thalweg.Grid(lower, upper, (cells,) * 3))
        _CYCLES.clear()
        with clock("solution"):
            time = float(chain.exit_time(_outside).at((*works.START, 0.0)))
        return clock.times() | {"time": time, "cycles": len(_CYCLES)}

    return run


def transition(*, cells: int) -> Piece:
    """The transition matrix of SGD on the four terms of the landscape, one of them a step."""
    landscape = thalweg.landscapes.mueller_brown()
    descent = thalweg.Descent(landscape.problem, thalweg.Minibatch(1), landscape.step)
    grid = thalweg.Grid(landscape.lower, landscape.upper, (cells, cells))

    def run() -> dict[str, Any]:
        clock = Clock()
        with clock("assembly"):
            chain = thalweg.discretise(descent, grid)
        jumps = chain.jumps
        return clock.times() | {
            "entries": len(jumps.rates) / jumps.count,
            "error": _off_mean(landscape.problem, jumps),
        }

    return run


def _off_mean(problem: Any, jumps: Any) -> float:
    """What the mean step of a cell is off the mean over its quarters, in widths of cells.

    On average over the cells from which no step ends at a wall.
    """
    grid = jumps.grid
    h = np.array([widths[0] for widths in grid.widths])
    mean = np.stack(
        [
            np.bincount(jumps.source, jumps.rates * change, jumps.count)
            for change in (grid.points[jumps.target] - grid.points[jumps.source]).T
        ],
        axis=1,
    )
    quarters = [grid.points + h * [i, j] for i in (-0.25, 0.25) for j in (-0.25, 0.25)]
    expected = -np.mean([jax.vmap(problem.gradient)(points) for points in quarters], axis=0)
    off = jumps.step * np.abs(mean - expected) / h
    return float(off[jumps.clamped == 0].mean())


def _drift(position: jax.Array) -> jax.Array:
    return jnp.stack(works.drift(position[0], position[1], jnp.exp))


def _turning(position: jax.Array) -> jax.Array:
    return jnp.stack(works.drift(position[0], position[1], jnp.exp, works.CIRCULATION))


def _drift_3d(position: jax.Array) -> jax.Array:
    x, y, z = position
    return jnp.stack([*works.drift(x, y, jnp.exp), -2 * works.STIFFNESS * z])


def _outside(position: jax.Array) -> jax.Array:
    centre = jnp.zeros(len(position)).at[:2].set(jnp.array(works.CENTRE))
    return jnp.sum((position - centre) ** 2) > works.RADIUS**2


def _count_cycles() -> None:
    from thalweg.markov.multigrid import Multigrid

    cycle = Multigrid.__call__

    def counted(self: Any, right: Any) -> Any:
        _CYCLES.append(len(right))
        return cycle(self, right)

    Multigrid.__call__ = counted


PIECES = {
    "stationary": stationary,
    "density": density,
    "exit_time": exit_time,
    "exit_time_3d": exit_time_3d,
    "transition": transition,
}
