"""What the grid predicts for a row: by SGD's own transition matrix, and by its diffusion limit."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg.chains import Exit
from thalweg.compare.entries import Entry
from thalweg.critical import basin
from thalweg.dynamics import AbstractDynamics, Descent
from thalweg.errors import InputError
from thalweg.landscapes import Landscape
from thalweg.limit import diffusion_limit
from thalweg.markov import Grid, MarkovGrid, SolveError, discretise, lattice
from thalweg.sampling.base import AbstractMemoryless

# Cells along each axis, by dimension, and with --quick; on a line, where a step has few possible
# draws, more of them: a cell must be small against the moves, or the chain is hotter than SGD.
_CELLS, _QUICK_CELLS = {1: 1024, 2: 128, 3: 32}, {1: 512, 2: 64, 3: 20}
_FEW, _FINER = 8, 16
# On a line so many possible draws are summed over, for cells that move in one piece: normal noise
# is no stand-in for a gradient that is large on a few samples.
_LISTED = 10_000
# In space no more: normal noise reaches too many cells for memory, and so do more draws.
_IN_SPACE = 64
# Points of b/D between cells: gradients of all samples at each of them.
_POINTS = 2
# The grid is wider than the box of the landscape by this share of it on each side.
_MARGIN = {1: 0.5, 2: 0.5, 3: 0.1}
# Points along each axis at which a stationary density is kept for the figure.
_DRAWN = {1: 400, 2: 80}
_ROUTES = ("sgd", "diffusion")


class _Level:
    """A grid over the landscape, the basin of each of its cells, and the law of the starts."""

    def __init__(self, landscape: Landscape, grid: Grid, found: Sequence[Any], random: bool):
        self.grid = grid
        owners = basin(landscape.problem, found, jnp.asarray(grid.points))
        self.owners = np.asarray(owners).reshape(grid.shape)
        self.start = _uniform(grid, landscape) if random else grid.delta(landscape.start)

    def masses(self, density: Any, count: int) -> Float[np.ndarray, " minima"]:
        """The mass in each basin."""
        mass = np.asarray(density) * self.grid.volumes
        return np.array([mass[self.owners == place].sum() for place in range(count)])


class Predictor:
    """The grids of a landscape of up to three dimensions.

    Args:
        landscape: The landscape.
        found: Its minima.
        random: Whether chains start anywhere in the box, or all at the landscape's start.
        quick: Fewer cells.
        exit: True near the other minima, the time to which is asked for; None if it is not.
    """

    def __init__(
        self,
        landscape: Landscape,
        found: Sequence[Any],
        *,
        random: bool,
        quick: bool,
        exit: Exit | None,
    ):
        self.landscape, self._exit = landscape, exit
        self.names = [minimum.name for minimum in found]
        self._found, self._random = found, random
        self._cells = (_QUICK_CELLS if quick else _CELLS)[landscape.start.size]
        self._levels: dict[int, list[_Level]] = {}

    def row(self, entry: Entry, steps: int) -> dict[str, Any] | None:
        """The prediction for a sampler by both routes; None where there is no C(theta).

        All chains of gradient descent are the same, and draws of a pass depend on earlier ones.
        """
        sampler, problem = entry.sampler, self.landscape.problem
        if entry.deterministic or not isinstance(sampler, AbstractMemoryless):
            return None
        if callable(entry.step):
            remark = "steps of a schedule change from one to the next: simulate"
            return dict.fromkeys(_ROUTES, _unknown(remark))
        d = self.landscape.start.size
        line, count = d == 1, sampler.outcome_count(problem)
        few = line and count <= _FEW
        listed = {"draws": "exact", "subcells": 1} if line and _FEW < count <= _LISTED else {}
        levels = self._pair(self._cells * (_FINER if few else 1))
        descent = Descent(problem, sampler, entry.step)
        own = self._lattice(descent) if few and not self._random else None
        if d == 3 and count > _IN_SPACE:
            chain = _unknown(
                f"in three dimensions the transition matrix of more than {_IN_SPACE} possible "
                "draws is too large: simulate"
            )
        else:
            chain = self._route(lambda: descent, own or levels, steps, **listed)
        return {
            "sgd": chain,
            "diffusion": self._route(
                lambda: diffusion_limit(descent), levels, steps, quadrature=_POINTS
            ),
        }

    def _pair(self, cells: int) -> list[_Level]:
        """A grid, and the one of half as many cells along each axis."""
        if cells not in self._levels:
            fine = Grid(*self._box(), cells)
            self._levels[cells] = [
                _Level(self.landscape, g, self._found, self._random) for g in (fine, fine.coarser())
            ]
        return self._levels[cells]

    def _lattice(self, descent: Descent) -> list[_Level] | None:
        """The lattice on which SGD moves, where its chain is exact; None if there is none."""
        (lower,), (upper,) = self._box()
        try:
            grid = lattice(descent, lower, upper, float(self.landscape.start[0]))
        except InputError:
            return None
        return [_Level(self.landscape, grid, self._found, self._random)]

    def _box(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
        lower, upper = np.asarray(self.landscape.lower), np.asarray(self.landscape.upper)
        margin = _MARGIN[lower.size] * (upper - lower)
        return lower - margin, upper + margin

    def _route(
        self, of: Callable[[], AbstractDynamics], levels: list[_Level], steps: int, **options: Any
    ) -> dict[str, Any]:
        """Mass in each basin after the steps, with its grid error; or a remark why there is none.

        The error is the difference between the first level and the last.
        """
        try:
            dynamics = of()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                chains = [discretise(dynamics, level.grid, **options) for level in levels]
            masses = [
                self._masses(chain, level, steps)
                for chain, level in zip(chains, levels, strict=True)
            ]
        except (InputError, SolveError) as error:
            return _unknown(str(error))
        ends = [
            {"minimum": name, "fraction": float(f), "error": float(abs(f - c))}
            for name, f, c in zip(self.names, masses[0], masses[-1], strict=True)
        ]
        remark = str(caught[0].message) if caught else None
        return {
            "ends": ends,
            "stationary": self._stationary(chains[0]),
            "remark": remark,
            "exit": None if self._exit is None else self._exit_steps(chains),
        }

    def _masses(self, chain: MarkovGrid, level: _Level, steps: int) -> Float[np.ndarray, " minima"]:
        later = chain.evolve(level.start, [steps * float(chain.jumps.step)])
        return level.masses(later.densities[0], len(self.names))

    def _exit_steps(self, chains: list[MarkovGrid]) -> dict[str, Any]:
        """The mean steps from the start to another minimum, the error as above."""
        exit = self._exit
        assert exit is not None
        try:
            steps = [
                float(c.exit_time(lambda params: ~exit(params)).at(self.landscape.start))
                / float(c.jumps.step)
                for c in chains
            ]
        except (InputError, SolveError) as error:
            return {"steps": None, "error": None, "remark": str(error)}
        if not np.isfinite(steps).all():
            return {"steps": None, "error": None, "remark": "the other minima are never reached"}
        return {"steps": steps[0], "error": abs(steps[0] - steps[-1]), "remark": None}

    def _stationary(self, chain: MarkovGrid) -> list[Any] | None:
        """The stationary density at the points of the figure; None if there is not one."""
        d = chain.grid.dimension
        if d not in _DRAWN:
            return None
        try:
            with warnings.catch_warnings():
                # The figure shows what is at the border.
                warnings.simplefilter("ignore")
                density = chain.stationary().density
        except (InputError, SolveError):
            return None
        axes = [
            np.linspace(low, high, _DRAWN[d])
            for low, high in zip(self.landscape.lower, self.landscape.upper, strict=True)
        ]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        return np.asarray(chain.grid.interpolate(density, points)).tolist()


def _unknown(remark: str) -> dict[str, Any]:
    unknown = {"steps": None, "error": None, "remark": remark}
    return {"ends": None, "stationary": None, "remark": remark, "exit": unknown}


def _uniform(grid: Grid, landscape: Landscape) -> Float[np.ndarray, "..."]:
    low, high = np.asarray(landscape.lower), np.asarray(landscape.upper)
    inside = ((grid.points >= low) & (grid.points <= high)).all(axis=1)
    return np.asarray(grid.normalise(inside.reshape(grid.shape).astype(float)))
