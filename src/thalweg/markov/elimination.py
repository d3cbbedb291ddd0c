r"""State reduction without subtractions: answers right in every digit, however rare the event.

States are taken out one by one, from the last to the first. A chain watched only while it is in
the states that are left is again a chain, with the rates

.. math:: r_{ij} + r_{in} \frac{r_{nj}}{l_n + \sum_{k<n} r_{nk}}, \qquad
          l_i + r_{in} \frac{l_n}{l_n + \sum_{k<n} r_{nk}}

after state n is gone (l: what leaves). Gaussian elimination does the same to the matrix A, with the
diagonal as the sum of the others instead of a difference; as nothing is ever subtracted, every
entry keeps its relative accuracy, a few roundings an elimination. The condition of the linear
system, 1e30 for an exit time of 1e30, has no part in it (C. A. O'Cinneide, Numerische Mathematik
65, 1993; A. S. Alfa, J. Xue and Q. Ye, Mathematics of Computation 71, 2002).

W. K. Grassmann, M. I. Taksar and D. P. Heyman, Operations Research 33 (1985), 1107-1116.

Rates may be those of a generator or of a chain in discrete time: only jumps matter.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.lib.stride_tricks import as_strided
from scipy.sparse import csgraph, csr_array

from thalweg.errors import InputError
from thalweg.markov.jumps import Jumps
from thalweg.markov.memory import check_memory

States = Bool[np.ndarray, " count"]
# Masses beyond are scaled down, so that none overflows.
_LARGE = 1e250
# States taken out together.
_PANEL = 32


@dataclass(frozen=True, eq=False)
class Reduction:
    """What is left of some states of a chain after all of them were taken out.

    Attributes:
        matrix: A view of a band: entry (n, j) below the diagonal is the rate from state n to j
            after all states above n are gone, entry (i, n) above it likewise.
        band: The bandwidth.
        leaving: What leaves the states, from each after all above are gone.
        out: All that goes out of a state then, downwards or away.
    """

    matrix: Float[np.ndarray, "n n"]
    band: int
    leaving: Float[np.ndarray, " n"]
    out: Float[np.ndarray, " n"]

    def solve(self, right: Float[np.ndarray, "n *columns"]) -> Float[np.ndarray, "n *columns"]:
        """The x with -A x = right on these states, for right-hand sides without negative entries.

        Raises:
            InputError: States that cannot be left; answers beyond 1e308.
        """
        self._require_exits()
        x = np.array(_without_negative(right, self.out.size))
        with np.errstate(over="ignore", invalid="ignore"):
            for n in range(len(x) - 1, 0, -1):
                low = max(0, n - self.band)
                x[n] /= self.out[n]
                x[low:n] += np.multiply.outer(self.matrix[low:n, n], x[n])
            x[0] /= self.out[0]
            for n in range(1, len(x)):
                low = max(0, n - self.band)
                x[n] += (self.matrix[n, low:n] / self.out[n]) @ x[low:n]
        return _within_range(x)

    def occupation(self, start: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The y with -y A = start: the mean time in each state until leaving, from such masses.

        Raises:
            InputError: States that cannot be left; answers beyond 1e308.
        """
        self._require_exits()
        y = np.array(_without_negative(start, self.out.size))
        with np.errstate(over="ignore", invalid="ignore"):
            for n in range(len(y) - 1, 0, -1):
                low = max(0, n - self.band)
                y[low:n] += y[n] * (self.matrix[n, low:n] / self.out[n])
            y[0] /= self.out[0]
            for n in range(1, len(y)):
                low = max(0, n - self.band)
                y[n] = (y[n] + y[low:n] @ self.matrix[low:n, n]) / self.out[n]
        return _within_range(y)

    def masses(self) -> Float[np.ndarray, " n"]:
        """The stationary law of states that nothing leaves."""
        masses = np.zeros_like(self.out)
        masses[0] = 1.0
        for n in range(1, len(masses)):
            low = max(0, n - self.band)
            masses[n] = masses[low:n] @ (self.matrix[low:n, n] / self.out[n])
            if masses[n] > _LARGE:
                masses[: n + 1] /= masses[n]
        return masses / masses.sum()

    def _require_exits(self) -> None:
        if not (self.out > 0).all():
            raise InputError(
                "there are states in the region from which it is never left; expected a region "
                "that is left from everywhere"
            )


def cost(jumps: Jumps, inside: States | None = None) -> float:
    """Operations of :func:`reduction` of some states (all unless given): N b^2.

    N states have jumps between each other over at most b places in the order of the grid's cells:
    in one dimension the longest jump in cells, in two or three many rows of the grid. Memory is
    2 N b numbers. 1e9 operations take one or two seconds.
    """
    inside = _mask(jumps, inside)
    source, target = _numbered(jumps, inside)[:2]
    return float(inside.sum()) * float(_bandwidth(source, target)) ** 2


def reduction(jumps: Jumps, inside: States | None = None) -> Reduction:
    """Take out some states (all unless given), the last first: see :func:`cost`.

    Raises:
        InputError: Rates that are being differentiated by; no memory for the band.
    """
    if jumps.traced:
        raise InputError("elimination needs rates that are numbers; it is not differentiable")
    inside = _mask(jumps, inside)
    source, target, rates, leaving = _numbered(jumps, inside)
    count, band = int(inside.sum()), _bandwidth(source, target)
    width = band + _PANEL
    check_memory(count * (2 * width + 1) * 8.0, f"a band of {count} x {2 * width + 1} numbers")
    numbers = np.zeros(count * (2 * width + 1) + width)
    numbers[source * (2 * width) + target + width] = rates
    item = numbers.itemsize
    # Entry (i, j) of the matrix without room for what is outside of the band.
    matrix = as_strided(numbers[width:], (count, count), (2 * width * item, item))
    out = _eliminate(matrix, leaving, band)
    return Reduction(matrix, band, leaving, out)


def _eliminate(
    matrix: Float[np.ndarray, "n n"], leaving: Float[np.ndarray, " n"], band: int
) -> Float[np.ndarray, " n"]:
    """Take states out, a panel at a time so that most work is a matrix product; what goes out."""
    out = leaving.copy()
    for high in range(len(out), 0, -_PANEL):
        base = max(0, high - _PANEL)
        low = max(0, base - band)
        for n in range(high - 1, base - 1, -1):
            row = matrix[n, low:n]
            out[n] = row.sum() + leaving[n]
            share = row / (out[n] or 1.0)
            matrix[base:n, low:n] += np.multiply.outer(matrix[base:n, n], share)
            matrix[low:base, base:n] += np.multiply.outer(matrix[low:base, n], share[base - low :])
            leaving[low:n] += matrix[low:n, n] * (leaving[n] / (out[n] or 1.0))
        goes = out[base:high, None]
        shares = matrix[base:high, low:base] / np.where(goes > 0, goes, 1.0)
        matrix[low:base, low:base] += matrix[low:base, base:high] @ shares
    return out


def stationary_masses(jumps: Jumps, inside: States | None = None) -> Float[np.ndarray, " count"]:
    r"""The masses m of the stationary law, :math:`m A = 0` with sum one, on one closed class.

    Each is right to relative rounding, down to 1e-300 of the largest.

    Args:
        jumps: The chain, with rates that are numbers.
        inside: The states of a closed class; unless given, the only one there is.

    Returns:
        Masses of all states, zero outside the class.

    Raises:
        InputError: Several closed classes and none given; mass that leaves the class.

    Cost: :func:`cost`.
    """
    inside = _closed_class(jumps) if inside is None else _mask(jumps, inside)
    left = reduction(jumps, inside)
    if left.leaving.any():
        raise InputError(
            "mass leaves these states and they have no stationary law; expected a closed class "
            "(or ask for the quasi-stationary law)"
        )
    if not (left.out[1:] > 0).all():
        raise InputError("these states hold several closed classes; expected one")
    masses = np.zeros(jumps.count)
    masses[inside] = left.masses()
    return masses


def solve(
    jumps: Jumps, inside: States, right: Float[np.ndarray, "count *columns"]
) -> Float[np.ndarray, "count *columns"]:
    r"""The solution of :math:`-A_{RR}\,x = b` on the states R, for :math:`b \ge 0`.

    With b = 1 it is the mean time until R is left; with b the rates into a set, the probability to
    leave R by going there. Every entry is right to relative rounding.

    Args:
        jumps: The chain, with rates that are numbers.
        inside: R.
        right: b on all states; one column or several. What is outside of R has no part in it.

    Returns:
        x on all states, zero outside of R.

    Raises:
        InputError: Negative or infinite entries of b; states of R from which it is never left;
            answers beyond 1e308.

    Cost: :func:`cost`.
    """
    inside = _mask(jumps, inside)
    x = np.zeros(np.shape(right))
    x[inside] = reduction(jumps, inside).solve(np.asarray(right)[inside])
    return x


def mean_times(jumps: Jumps, inside: States) -> Float[np.ndarray, " count"]:
    """The mean time until the states ``inside`` are left, from each of them; zero from elsewhere.

    In units of time: divide by ``jumps.step`` for steps. See :func:`solve`; the second moment in
    continuous time is ``2 solve(jumps, inside, mean_times(jumps, inside))``, in discrete time less
    by the step times the mean.
    """
    return solve(jumps, inside, np.ones(jumps.count))


def _mask(jumps: Jumps, inside: States | None) -> States:
    if inside is None:
        return np.ones(jumps.count, dtype=bool)
    mask = np.asarray(inside)
    if mask.shape != (jumps.count,) or mask.dtype != bool or not mask.any():
        raise InputError(
            f"inside is {mask.dtype} of shape {mask.shape}; expected truth values of shape "
            f"({jumps.count},), some of them true"
        )
    return mask


def _numbered(
    jumps: Jumps, inside: States
) -> tuple[
    Int[np.ndarray, " kept"],
    Int[np.ndarray, " kept"],
    Float[np.ndarray, " kept"],
    Float[np.ndarray, " n"],
]:
    """Jumps between some states, in the numbering of these, and what leaves them."""
    rates, count = np.asarray(jumps.rates), int(inside.sum())
    number = np.full(jumps.count, -1, dtype=np.int64)
    number[inside] = np.arange(count)
    source, target = number[jumps.source], number[jumps.target]
    kept, away = (source >= 0) & (target >= 0), (source >= 0) & (target < 0)
    leaving = np.asarray(jumps.leaving)[inside] + np.bincount(
        source[away], weights=rates[away], minlength=count
    )
    return source[kept], target[kept], rates[kept], leaving


def _bandwidth(source: Int[np.ndarray, " kept"], target: Int[np.ndarray, " kept"]) -> int:
    return int(np.abs(source - target).max(initial=1))


def _closed_class(jumps: Jumps) -> States:
    """The states of the only closed class."""
    rates = np.asarray(jumps.rates)
    alive = rates > 0
    source, target = jumps.source[alive], jumps.target[alive]
    graph = csr_array((rates[alive], (source, target)), shape=(jumps.count, jumps.count))
    pieces, piece = csgraph.connected_components(graph, connection="strong")
    closed = np.ones(pieces, dtype=bool)
    closed[piece[source[piece[source] != piece[target]]]] = False
    closed[piece[np.asarray(jumps.leaving) > 0]] = False
    if closed.sum() != 1:
        raise InputError(
            f"the chain has {int(closed.sum())} closed classes; expected one (give the states of "
            "one of them as inside=)"
        )
    return closed[piece]


def _within_range(answer: Float[np.ndarray, "n *columns"]) -> Float[np.ndarray, "n *columns"]:
    if not np.isfinite(answer).all():
        raise InputError(
            "mean times from these states are beyond 1e308; expected less (a larger step, or more "
            "noise)"
        )
    return answer


def _without_negative(
    right: Float[np.ndarray, "n *columns"], count: int
) -> Float[np.ndarray, "n *columns"]:
    array = np.asarray(right, dtype=float)
    if array.shape[:1] != (count,) or not np.isfinite(array).all() or (array < 0).any():
        raise InputError(
            f"the right-hand side, of shape {array.shape}, must have {count} rows of finite "
            "numbers, none of them negative: only then is nothing subtracted"
        )
    return array
