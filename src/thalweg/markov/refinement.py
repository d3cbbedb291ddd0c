"""Solutions to full accuracy from an approximate inverse."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from thalweg.markov.multigrid import Chain

Vector = Float[np.ndarray, " states"]

TOLERANCE = 1e-10
_CYCLES = 100
# Corrections that the next one is combined with.
_DEPTH = 6
# Steps this large are no solution of anything.
_HUGE = 1e200
# Where rough residuals disturb this much, all are exact.
_NOISY = 1e-3
# Entries below this share of the largest are right to the tolerance times the share: mean times,
# whose right-hand side is positive everywhere, do not vary much more than the first; probabilities
# and masses may.
_TIMES, _OTHERS = 1e-30, 1e-8


class SolveError(RuntimeError):
    """A linear system of a grid could not be solved to the accuracy promised."""


@dataclass(frozen=True, eq=False)
class Equations:
    r"""The equations -A x = b of a chain, or those of the transpose, with exact residuals.

    A residual by a matrix product is off by :math:`\epsilon r x`, which for long times is more than
    b. :meth:`residual` has rounding of that in the square of :math:`\epsilon` only: products and
    sums are exact, and x is the sum of two numbers.

    Attributes:
        chain: The chain.
        transposed: Whether the equations are those of the transpose.
    """

    chain: Chain
    transposed: bool = False

    @cached_property
    def _matrix(self) -> sp.csr_array:
        matrix = self.chain.matrix
        return matrix.T.tocsr() if self.transposed else matrix

    def rough(self, right: Vector, x: Vector) -> Vector:
        """The residual by a matrix product."""
        return right - self._matrix @ x

    def residual(self, right: Vector, x: Vector, rest: Vector) -> Vector:
        """The residual at x + rest."""
        rates, rows, leaving = self.chain.rates, self.chain.rows, self.chain.leaving
        own = np.arange(x.size)
        lost, less = _product(-leaving, x)
        terms = [(own, right, 0.0), (own, lost, less - leaving * rest)]
        if not self.transposed:
            gap, less = _sum(x[rates.indices], -x[rows])
            less = less + (rest[rates.indices] - rest[rows])
            flow, more = _product(rates.data, gap)
            terms.append((rows, flow, more + rates.data * less))
        else:
            flow, less = _product(-rates.data, x[rows])
            terms.append((rows, flow, less - rates.data * rest[rows]))
            backward, places = self.chain.backward, self.chain.backward_rows
            flow, less = _product(backward.data, x[backward.indices])
            terms.append((places, flow, less + backward.data * rest[backward.indices]))
        return _sums(x.size, terms)


def _sums(
    count: int, terms: list[tuple[np.ndarray, np.ndarray, np.ndarray | float]]
) -> Float[np.ndarray, " count"]:
    """The sums of terms (place, number, small number), the numbers without rounding.

    They are cut at a common bit for each place, so that the upper parts add up exactly (Rump,
    Ogita and Oishi, 2008, SIAM J. Sci. Comput. 31, 189-224).
    """
    gross = np.zeros(count)
    for place, number, _ in terms:
        gross += np.bincount(place, weights=np.abs(number), minlength=count)
    cut = np.ldexp(1.0, np.frexp(gross)[1] + 1)
    upper, lower = np.zeros(count), np.zeros(count)
    for place, number, small in terms:
        at = cut[place]
        high = (at + number) - at
        upper += np.bincount(place, weights=high, minlength=count)
        lower += np.bincount(place, weights=(number - high) + small, minlength=count)
    return upper + lower


def _sum(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """A sum and its rounding (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _product(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """A product and its rounding (Dekker and Veltkamp)."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    rest = (a_high * b_high - product) + a_high * b_low + a_low * b_high
    return product, rest + a_low * b_low


def _halves(a: Vector) -> tuple[Vector, Vector]:
    large = 134217729.0 * a
    high = large - (large - a)
    return high, a - high


def refined(
    equations: Equations,
    inverse: Callable[[Vector], Vector],
    right: Vector,
    *,
    start: Vector | None = None,
    tolerance: float = TOLERANCE,
    noise: float = 1.0,
    enough: Callable[[Vector, Vector], bool] = lambda residual, x: True,
) -> tuple[Vector, int]:
    r"""Solve the equations by corrections :math:`c = M (b + A x)` with an approximate inverse M.

    Steps are combined so that the next correction is least (Anderson's mixing, which on a linear
    system is GMRES preconditioned from the left): corrections, unlike residuals, have the size of
    the error. For b > 0 each entry of x is found to the tolerance times itself; for b >= 0, and for
    the transpose, to the tolerance times itself plus 1e-8 of the largest; otherwise to the
    tolerance times the largest.

    Args:
        equations: What to solve.
        inverse: M, linear.
        right: b.
        start: A guess; zero unless given.
        tolerance: The size of the last correction, relative to x.
        noise: Errors that rounding makes in x if residuals are rough, relative to x; exact ones
            are taken from where it may matter.
        enough: Whether a residual and its x will do; corrections are asked last.

    Returns:
        x, and how many times M was applied.

    Raises:
        SolveError: No convergence within 100 corrections.

    Source: Walker and Ni (2011), SIAM J. Numer. Anal. 49, 1715-1735.
    """
    positive = (right > 0).all() and not equations.transposed
    floor = 1.0 if (right < 0).any() else _TIMES if positive else _OTHERS
    x, rest = np.zeros_like(right) if start is None else start, np.zeros_like(right)
    mixing, change = Mixing(right.size), np.inf
    for cycle in range(1, _CYCLES + 1):
        if noise > _NOISY or change <= max(noise, 10 * tolerance):
            residual = equations.residual(right, x, rest)
        else:
            residual = equations.rough(right, x)
        correction = inverse(residual)
        size = np.abs(x)
        size += floor * size.max()
        weights = np.divide(1.0, size, out=np.ones_like(size), where=size > 0)
        change = float(np.max(np.abs(correction) * weights)) if size.any() else np.inf
        if change <= tolerance and enough(residual, x):
            return x, cycle
        step = mixing.step(correction, weights)
        if not np.abs(step).max() < _HUGE:
            break
        x, rest = _added(x, rest, step)
    raise SolveError(
        f"a linear system with {right.size} unknowns did not converge: after {cycle} corrections "
        f"the last was {change:.1e} of the solution, expected {tolerance:.0e}"
    )


class Mixing:
    """Steps made of a correction and of what earlier steps did to corrections."""

    def __init__(self, count: int) -> None:
        # What a step took off the correction, and what it adds to x beyond that.
        self._drops, self._moves = np.empty((2, _DEPTH, count))
        self._last: tuple[Vector, Vector] | None = None
        self._taken = 0

    def step(self, correction: Vector, weights: Vector) -> Vector:
        """The next step; the weights are those of the norm in which corrections are made small."""
        if self._last is not None:
            step, before = self._last
            place = self._taken % _DEPTH
            np.subtract(before, correction, out=self._drops[place])
            np.subtract(step, self._drops[place], out=self._moves[place])
            self._taken += 1
        known = min(self._taken, _DEPTH)
        step = correction + self._shares(correction, weights) @ self._moves[:known]
        self._last = step, correction
        return step

    def _shares(self, correction: Vector, weights: Vector) -> Float[np.ndarray, " known"]:
        """The combination of drops that is nearest to the correction."""
        drops = self._drops[: min(self._taken, _DEPTH)]
        weighted = drops * np.square(weights)
        gram, right = weighted @ drops.T, weighted @ correction
        scale = np.sqrt(np.diag(gram))
        if not (np.isfinite(gram).all() and (scale > 0).all()):
            return np.zeros(len(drops))
        scaled = gram / np.outer(scale, scale)
        return np.linalg.lstsq(scaled, right / scale, rcond=1e-13)[0] / scale


def _added(x: Vector, rest: Vector, step: Vector) -> tuple[Vector, Vector]:
    """Add a step: the sum as a number, and what its rounding leaves."""
    total, lost = _sum(x, step)
    return _sum(total, rest + lost)
