"""Lattices on which SGD moves, where its chain is exact."""

import math
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg.dynamics import Descent
from thalweg.errors import InputError
from thalweg.markov.grid import Grid
from thalweg.markov.images import Images, checked_sampler, checked_step

# Places where the moves are looked at.
_LOOKS = 1009
# More different moves, or larger multiples of the unit, are no lattice.
_DIFFERENT, _LARGEST = 200, 100_000
# Two moves are equal, and a move is a multiple, to so much of it.
_CLOSE = 1e-9
_CELLS = 5_000_000


class Lattice(Grid):
    """Cells around the points of a lattice, made by :func:`lattice`; it has no coarser version.

    Attributes:
        unit: The distance of neighbours.
        through: A point of the lattice.
        positions: All of them in the box, correctly rounded: the centres of the cells.
    """

    unit: float
    through: float
    positions: Float[np.ndarray, " cells"]

    @cached_property
    def centres(self) -> tuple[Float[np.ndarray, " cells"], ...]:
        """The points of the lattice themselves."""
        return (self.positions,)

    def beside(self, x: Float[np.ndarray, "*points"]) -> Float[np.ndarray, "*points"]:
        """How far points are from the lattice (continued beyond the box), in units."""
        number = (x - self.through) / self.unit
        return number - np.round(number)

    def coarser(self) -> Grid:
        """Refused.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "a lattice has no coarser version for an error estimate: the chain on it is exact"
        )


def lattice(
    descent: Descent, lower: float, upper: float, through: float, *, boundary: Any = "reflecting"
) -> Lattice:
    r"""The lattice on which SGD moves in one dimension, if it does: ``through`` + k unit.

    Where gradients take finitely many values, as on a piecewise linear loss, all moves may be
    multiples of one unit; a chain that starts on the lattice stays on it, and its transition matrix
    by :func:`transfer` is exact (but for what the ends of the box clamp: make it wide). The unit is
    the greatest common divisor of the moves at a thousand places, to nine digits; ``transfer``
    checks the moves from every point. An and Ying's section 2: the unit of SGD is
    :math:`\epsilon \eta`.

    Points are rounded once from a rational unit, where it is one with a denominator up to a
    million: a kink at a decimal number is met exactly, and with it the side whose derivative
    counts there.

    Args:
        descent: SGD with a number as its step and a sampler without memory.
        lower: The lower end of the box; the lattice's points lie between the ends.
        upper: The upper end.
        through: A point of the lattice, such as the start of the chain.
        boundary: As of :class:`Grid`.

    Raises:
        InputError: Moves that are not multiples of a unit, a box with fewer than two points, what
            ``transfer`` refuses.
    """
    step, sampler = checked_step(descent), checked_sampler(descent, 1)
    ends = [float(np.asarray(x, dtype=float).reshape(())) for x in (lower, upper, through)]
    if not (np.isfinite(ends).all() and ends[0] < ends[1]):
        raise InputError(
            f"lower, upper and through are {lower}, {upper} and {through}; expected finite "
            "numbers, lower below upper"
        )
    places = np.linspace(ends[0], ends[1], _LOOKS)[:, None]
    moves, probabilities = Images(descent, sampler, 1).moves(places)
    unit = _rational(_common_unit(np.abs(moves[..., 0][probabilities > 0])))
    origin = Fraction(repr(ends[2]))
    first = math.ceil((Fraction(ends[0]) - origin) / unit)
    last = math.floor((Fraction(ends[1]) - origin) / unit)
    if not 2 <= last - first + 1 <= _CELLS:
        raise InputError(
            f"there are {max(last - first + 1, 0)} points of the lattice of unit {float(unit):g} "
            f"(at the step {step:g}) between {lower} and {upper}; expected 2 to {_CELLS}"
        )
    # Whole numbers over one denominator: their quotients are correctly rounded.
    base = 2 * math.lcm(unit.denominator, origin.denominator)
    start, half = int(origin * base), int(unit * base) // 2
    halves = [(start + k * half) / base for k in range(2 * first - 1, 2 * last + 2)]
    made = Lattice.of_edges(halves[::2], boundary=boundary)
    assert isinstance(made, Lattice)
    made.unit, made.through, made.positions = float(unit), ends[2], np.array(halves[1::2])
    return made


def _common_unit(moves: Float[np.ndarray, " moves"]) -> float:
    """The greatest common divisor of numbers, of which many are equal."""
    moves = np.sort(moves[moves > 0])
    if not moves.size:
        raise InputError("SGD does not move between lower and upper; expected moves of some unit")
    different = moves[np.append(True, np.diff(moves) > _CLOSE * moves[1:])]
    if different.size > _DIFFERENT:
        raise InputError(
            f"moves are not multiples of a unit: they have {different.size} lengths at {_LOOKS} "
            "places; expected few, as on a piecewise linear loss (take a Grid otherwise)"
        )
    unit, zero = float(different[-1]), float(different[-1]) / (10 * _LARGEST)
    for move in different.tolist():
        while move > zero:
            unit, move = move, abs(unit - round(unit / move) * move)
    number = np.round(different / unit)
    unit = float(different @ number / (number @ number))
    wrong = np.abs(different - number * unit) > _CLOSE * different
    if wrong.any() or number.max() > _LARGEST:
        more = ", ..." if different.size > 5 else ""
        raise InputError(
            "moves are not multiples of a unit: they have the lengths "
            f"{', '.join(f'{x:.6g}' for x in different[:5])}{more}; take a Grid"
        )
    return unit


def _rational(unit: float) -> Fraction:
    near = Fraction(unit).limit_denominator(10**6)
    return near if abs(float(near) - unit) <= 1e-12 * unit else Fraction(unit)
