"""A dynamics on a grid: one set of questions for a diffusion and for SGD itself."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float

from thalweg.diffusion import Diffusion
from thalweg.dynamics import AbstractDynamics, Descent
from thalweg.errors import InputError
from thalweg.markov import halving
from thalweg.markov.current import Flux, current, flux
from thalweg.markov.evolution import Evolution, evolve, evolve_through
from thalweg.markov.exits import Committor, ExitTime, committor, exit_time
from thalweg.markov.generator import generator
from thalweg.markov.grid import Grid, Region
from thalweg.markov.jumps import Jumps
from thalweg.markov.modes import Gap, Modes, gap, modes
from thalweg.markov.quasistationary import QuasiStationary, quasi_stationary
from thalweg.markov.stationary import Stationary, average, stationary
from thalweg.markov.transfer import transfer


@dataclass(frozen=True, eq=False)
class MarkovGrid:
    r"""A dynamics on a grid, made by :func:`discretise`.

    The questions are the same, in the same units, for the generator of a diffusion and for the
    transition matrix of SGD: times t, with the number of steps t/step beside them. Functions and
    densities are arrays of the grid's shape; where one is asked for, a function of params (of
    shape (d,)) will do.

    With ``error=True`` the field ``error`` of an answer holds its difference to the answer on half
    as many cells along each axis: of a number or a function the absolute difference, of a law the
    total variation. An answer of order p in the width of a cell is itself wrong by
    :math:`1/(2^p - 1)` of that: a third for the second order of the schemes, all of it where the
    border of a region cuts through cells.

    The mean exit time, the committor and stationary averages can be differentiated with
    ``jax.grad`` (not inside ``jax.jit``) with respect to the numbers that a diffusion holds: step,
    noise, parameters of drift and loss. The cells that SGD's jumps reach are not differentiable.

    Attributes:
        dynamics: What was discretised.
        jumps: The rates between cells.
        options: Those of the discretisation.
    """

    dynamics: AbstractDynamics
    jumps: Jumps
    options: dict[str, Any]

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self.jumps.grid

    def coarser(self) -> "MarkovGrid":
        """The same on half as many cells along each axis."""
        return discretise(self.dynamics, self.grid.coarser(), **self.options)

    def stationary(self, *, check: bool = True, error: bool = False) -> Stationary:
        """The stationary law, or one of each closed class: see :class:`Stationary`."""
        own = stationary(self._steady, check=check)
        return halving.of_law(own, self.coarser().stationary(check=False)) if error else own

    def average(self, values: Any) -> Float[Array, ""]:
        """The stationary average of a function."""
        return average(self._steady, self.grid.function(values))

    def evolve(self, density: Any, times: Any, *, error: bool = False) -> Evolution:
        """The density at later times: see :class:`Evolution`."""
        start = self.grid.normalise(self.grid.function(density))
        if self._varies:
            own = evolve_through(self._at, start, times)
        else:
            own = evolve(self.jumps, start, times)
        if not error:
            return own
        return halving.of_laws(own, self.coarser().evolve(halving.halved(self.grid, start), times))

    def exit_time(self, region: Region, *, error: bool = False) -> ExitTime:
        """The time until a region is left, from each of its cells: see :class:`ExitTime`."""
        own = exit_time(self._steady, region)
        if not error:
            return own
        return halving.of_function(own, self._coarser(region).exit_time(region), "time")

    def committor(self, a: Region, b: Region, *, error: bool = False) -> Committor:
        """The probability to reach b before a: see :class:`Committor`."""
        own = committor(self._steady, a, b)
        if not error:
            return own
        return halving.of_function(own, self._coarser(a, b).committor(a, b), "probability")

    def gap(self, *, error: bool = False) -> Gap:
        """The spectral gap, the rate of the slowest relaxation: see :class:`Gap`."""
        own = gap(self._steady)
        return halving.of_numbers(own, self.coarser().gap(), "rate") if error else own

    def modes(self, count: int, *, error: bool = False) -> Modes:
        """The slowest modes, the stationary one first: see :class:`Modes`."""
        own = modes(self._steady, count)
        return halving.of_numbers(own, self.coarser().modes(count), "rates") if error else own

    def quasi_stationary(self, region: Region, *, error: bool = False) -> QuasiStationary:
        """The law of what has not left a region, and its rate: see :class:`QuasiStationary`."""
        own = quasi_stationary(self._steady, region)
        if not error:
            return own
        return halving.of_numbers(own, self._coarser(region).quasi_stationary(region), "rate")

    def current(self, density: Any) -> Float[Array, "d ..."]:
        """The probability current of a density, such as the stationary one."""
        return current(self._steady, self.grid.function(density))

    def flux(self, density: Any, region: Region) -> Flux:
        """What passes the border of a region per unit of time: see :class:`Flux`."""
        return flux(self._steady, self.grid.function(density), region)

    @property
    def _varies(self) -> bool:
        return isinstance(self.dynamics, Diffusion) and self.dynamics.varies

    @property
    def _steady(self) -> Jumps:
        if self._varies:
            raise InputError(
                "the noise varies in time and this question is about constant coefficients; "
                "discretise dynamics.at(time), or ask evolve()"
            )
        return self.jumps

    def _at(self, time: float) -> Jumps:
        assert isinstance(self.dynamics, Diffusion)  # nothing else varies
        return discretise(self.dynamics.at(time), self.grid, **self.options).jumps

    def _coarser(self, *regions: Region) -> "MarkovGrid":
        if not all(callable(region) for region in regions):
            raise InputError(
                "the region is an array, which has no coarser version; give it as a function of "
                "params for an error estimate"
            )
        return self.coarser()


def discretise(dynamics: AbstractDynamics, grid: Grid, **options: Any) -> MarkovGrid:
    """The Markov chain of a dynamics on a grid.

    Args:
        dynamics: A :class:`thalweg.Diffusion`, for its generator by finite volumes
            (:func:`thalweg.markov.generator`); or a :class:`thalweg.Descent` with a constant step
            and a sampler without memory, for SGD's own transition matrix
            (:func:`thalweg.markov.transfer`).
        grid: The grid; params are arrays of shape (d,).
        options: ``quadrature`` for a diffusion; ``subcells`` and ``draws`` for SGD.

    Raises:
        InputError: Another dynamics, or what the two functions refuse.
    """
    if isinstance(dynamics, Diffusion):
        jumps = generator(dynamics.at(0.0), grid, **_known(options, ("quadrature",)))
    elif isinstance(dynamics, Descent):
        jumps = transfer(dynamics, grid, **_known(options, ("subcells", "draws")))
    else:
        raise InputError(
            f"a {type(dynamics).__name__} has no Markov chain on a grid; "
            "expected a Diffusion or a Descent"
        )
    return MarkovGrid(dynamics, jumps, options)


def _known(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    unknown = set(options) - set(names)
    if unknown:
        raise InputError(
            f"option {sorted(unknown)[0]!r} does not apply to this dynamics; "
            f"expected {' and '.join(names)}"
        )
    return options
