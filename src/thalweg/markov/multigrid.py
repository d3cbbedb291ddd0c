"""Multigrid whose every level is a Markov chain: an approximate inverse for large grids."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from pyamg.classical.split import RS
from pyamg.relaxation.relaxation import gauss_seidel
from pyamg.strength import classical_strength_of_connection

# A coarsest chain this small is inverted densely, and no chain that is larger than the second.
_COARSEST, _LARGEST = 60, 500
_LEVELS = 30
# A state of the coarsest chain that is never left is given this rate, in units of the largest:
# times are then so long that solutions are proven, whatever the approximate inverse is worth.
_LOST = 1e-13
# A rate is strong from this share of the state's largest on.
_STRONG = 0.1


class NoInverseError(ArithmeticError):
    """A coarse chain that cannot be inverted."""


@dataclass(frozen=True, eq=False)
class Chain:
    r"""A Markov chain that is left for good from each of its states.

    It stands for the matrix

    .. math:: (-A x)_i = \sum_j r_{ij} (x_i - x_j) + l_i x_i.

    It is kept as its rates, never as a matrix with a diagonal: the small :math:`l_i` that decide
    how long the chain stays would drown in the rounding of the diagonal.

    Attributes:
        rates: :math:`r_{ij}`, shape (states, states), no diagonal, sorted indices.
        leaving: :math:`l_i`, shape (states,).
    """

    rates: sp.csr_array
    leaving: Float[np.ndarray, " states"]

    @property
    def count(self) -> int:
        """The number of states."""
        return self.leaving.size

    @cached_property
    def out(self) -> Float[np.ndarray, " states"]:
        """The rate at which each state is left, the diagonal of -A: a sum of positive numbers."""
        return self.rates @ np.ones(self.count) + self.leaving

    @cached_property
    def matrix(self) -> sp.csr_array:
        """-A with its diagonal, which stands first in each row."""
        indptr = self.rates.indptr + np.arange(self.count + 1, dtype=self.rates.indptr.dtype)
        others = np.ones(indptr[-1], dtype=bool)
        others[indptr[:-1]] = False
        data, indices = np.empty(indptr[-1]), np.empty(indptr[-1], dtype=self.rates.indices.dtype)
        data[indptr[:-1]], data[others] = self.out, -self.rates.data
        indices[indptr[:-1]], indices[others] = np.arange(self.count), self.rates.indices
        return sp.csr_array((data, indices, indptr), shape=self.rates.shape)

    @cached_property
    def rows(self) -> Int[np.ndarray, " entries"]:
        """The row of each entry of ``rates``."""
        return np.repeat(np.arange(self.count), np.diff(self.rates.indptr))

    @cached_property
    def backward(self) -> sp.csr_array:
        """The transpose of ``rates``."""
        backward = self.rates.T.tocsr()
        backward.sort_indices()
        return backward

    @cached_property
    def backward_rows(self) -> Int[np.ndarray, " entries"]:
        """The row of each entry of ``backward``."""
        return np.repeat(np.arange(self.count), np.diff(self.backward.indptr))

    @cached_property
    def symmetric(self) -> bool:
        """Whether each jump has one that undoes it."""
        return np.array_equal(self.rates.indptr, self.backward.indptr) and np.array_equal(
            self.rates.indices, self.backward.indices
        )

    def censored(self, kept: Bool[np.ndarray, " states"]) -> "tuple[Chain, Elimination]":
        """The chain watched only in the states kept; no jump may join two of the others.

        Nothing is subtracted, so that small rates of the new chain are as accurate as large ones.
        """
        to, off = np.flatnonzero(kept), np.flatnonzero(~kept)
        out = self.out[off]
        within, enter, leave, _ = _blocks(self.rates, to, off)
        onto = _scaled_columns(enter, 1 / out)
        chain = Chain(_rates(within + onto @ leave), self.leaving[to] + onto @ self.leaving[off])
        passage = Passage(to, off, onto, _scaled_rows(leave, 1 / out))
        return chain, Elimination(passage, 1 / out)


@dataclass(frozen=True, eq=False)
class Passage:
    """What leads from a chain to one on some of its states, and back.

    Attributes:
        kept: The states of the smaller chain.
        gone: The others.
        restriction: What a right-hand side on the others adds to that of the smaller chain.
        interpolation: The values on the others of a function on the smaller chain.
    """

    kept: Int[np.ndarray, " kept"]
    gone: Int[np.ndarray, " gone"]
    restriction: sp.csr_array
    interpolation: sp.csr_array

    @cached_property
    def transposed(self) -> "Passage":
        """The same for the transpose of -A."""
        return replace(
            self,
            restriction=self.interpolation.T.tocsr(),
            interpolation=self.restriction.T.tocsr(),
        )

    def restrict(self, right: Float[np.ndarray, " states"]) -> Float[np.ndarray, " kept"]:
        """The right-hand side of the smaller chain."""
        return right[self.kept] + self.restriction @ right[self.gone]

    def interpolate(self, x: Float[np.ndarray, " kept"]) -> Float[np.ndarray, " states"]:
        """A function on the smaller chain as one on all states."""
        whole = np.empty(self.kept.size + self.gone.size)
        whole[self.kept] = x
        whole[self.gone] = self.interpolation @ x
        return whole


@dataclass(frozen=True, eq=False)
class Elimination:
    """An exact passage to a chain of fewer states: see :meth:`Chain.censored`.

    Attributes:
        passage: To the smaller chain and back.
        stay: The mean time of one visit of each of the others.
    """

    passage: Passage
    stay: Float[np.ndarray, " gone"]

    @cached_property
    def transposed(self) -> "Elimination":
        """The same for the transpose of -A."""
        return replace(self, passage=self.passage.transposed)

    def restrict(self, right: Float[np.ndarray, " states"]) -> Float[np.ndarray, " kept"]:
        """The right-hand side of the smaller chain."""
        return self.passage.restrict(right)

    def solution(
        self, x: Float[np.ndarray, " kept"], right: Float[np.ndarray, " states"]
    ) -> Float[np.ndarray, " states"]:
        """The solution on all states, from that of the smaller chain."""
        whole = self.passage.interpolate(x)
        whole[self.passage.gone] += self.stay * right[self.passage.gone]
        return whole


@dataclass(frozen=True, eq=False)
class Multigrid:
    r"""One cycle of algebraic multigrid, an approximate inverse of -A that is linear in its right.

    Each level splits the states into coarse ones C and others F as Ruge and Stueben do, by strong
    rates. With the rates Q and the sums s of the strong ones from F to C, interpolation goes along
    the strong rates, :math:`W = s^{-1} Q_{FC}^{strong}`, so that constants are exact; what it
    neglects from F is :math:`K = Q_{FF} W + Q_{FC}^{weak} - \mathrm{diag}(k) W`, k the sum of the
    other rates and of what leaves. The coarse chain, the Galerkin product, then is

    .. math::

        Q_{CC} + Q_{CF} W + Z K, \qquad l_C + Z l_F,

    in which the large terms of the product have cancelled on paper. *Balanced*, restriction is
    :math:`Z_{Ji} = r_{Ji}/s_i` along the same strong pairs: for a reversible chain the adjoint of
    interpolation, exact on the stationary law, which is what deep wells need. Negative entries are
    dropped.

    Otherwise, for chains that are far from reversible, :math:`Z = Q_{CF} D_F^{-1}` with all rates D
    out of F, and :math:`W = (s + l_F)^{-1} Q_{FC}^{strong}` counts what leaves. Then every term of

    .. math::

        Q_{CC} + Z (Q_{FC} + Q_{FF} W), \qquad
        l_C + Z \left(l_F + Q_{FF} \tfrac{l_F}{s + l_F}\right)

    is positive: the chain watched in C, but for ways through more than two states of F.

    Both keep each level a Markov chain, with rates relatively as accurate as those given: where a
    Galerkin matrix loses times beyond 1e14 jumps in the rounding of its diagonal, these do not.
    Smoothing is by Gauss and Seidel, forward before and backward after. Each level is visited once:
    a residual taken after a visit would have the coarse solution's rounding in it.

    Cost: the entries of all levels are some 2.2 times those of the first on grids in the plane, and
    a cycle takes about eight products with the first.

    Attributes:
        levels: The matrices -A of all levels but the coarsest, the finest first, and what leads to
            the next and back.
        coarsest: The inverse of the coarsest -A.

    Source: Ruge and Stueben (1987), Algebraic multigrid, in Multigrid Methods, SIAM, section 4; the
    arithmetic without subtractions is that of Grassmann, Taksar and Heyman (1985).
    """

    levels: tuple[tuple[sp.csr_array, Passage], ...]
    coarsest: Float[np.ndarray, "states states"]

    @classmethod
    def of(cls, chain: Chain, *, balanced: bool) -> "Multigrid":
        """The levels of a chain.

        Raises:
            NoInverseError: Too few states depend on each other for a small coarsest chain.
        """
        levels: list[tuple[sp.csr_array, Passage]] = []
        while chain.count > _COARSEST and len(levels) < _LEVELS:
            kept, strong = _split(chain)
            if kept.all():
                break
            matrix = chain.matrix
            chain, part = _coarser(chain, kept, strong, balanced)
            levels.append((matrix, part))
        if chain.count > _LARGEST:
            raise NoInverseError(f"the coarsest chain has {chain.count} states")
        return cls(tuple(levels), dense_inverse(chain))

    @cached_property
    def transposed(self) -> "Multigrid":
        """The transpose of the approximate inverse."""
        levels = tuple((matrix.T.tocsr(), part.transposed) for matrix, part in self.levels)
        return Multigrid(levels, self.coarsest.T)

    def __call__(self, right: Float[np.ndarray, " states"]) -> Float[np.ndarray, " states"]:
        """The approximate inverse times ``right``."""
        waiting = []
        for matrix, part in self.levels:
            x = np.zeros_like(right)
            gauss_seidel(matrix, x, right, sweep="forward")
            waiting.append((matrix, part, x, right))
            right = part.restrict(right - matrix @ x)
        correction = self.coarsest @ right
        for matrix, part, x, right in reversed(waiting):
            x += part.interpolate(correction)
            gauss_seidel(matrix, x, right, sweep="backward")
            correction = x
        return correction


def dense_inverse(chain: Chain) -> Float[np.ndarray, "states states"]:
    """The inverse of -A, each entry to relative accuracy, by elimination without subtractions.

    Cost: the cube of the number of states.

    Source: Grassmann, Taksar and Heyman (1985), Regenerative analysis and steady state
    distributions for Markov chains, Oper. Res. 33, 1107-1116.
    """
    rates, leaving = chain.rates.toarray(), chain.leaving.copy()
    inverse = np.eye(chain.count)
    pivots = np.empty(chain.count)
    for k in range(chain.count - 1, -1, -1):
        pivots[k] = rates[k, :k].sum() + leaving[k]
        if not pivots[k] > 0:
            leaving[k] = pivots[k] = _LOST * chain.out.max()
        share = rates[:k, k] / pivots[k]
        leaving[:k] += share * leaving[k]
        rates[:k, :k] += np.outer(share, rates[k, :k])
        inverse[:k] += np.outer(share, inverse[k])
    for k in range(chain.count):
        inverse[k] = (inverse[k] + rates[k, :k] @ inverse[:k]) / pivots[k]
    return inverse


def _split(chain: Chain) -> tuple[Bool[np.ndarray, " states"], sp.csr_array]:
    """The coarse states and the pattern of strong rates."""
    strong = classical_strength_of_connection(chain.rates, theta=_STRONG)
    kept = RS(strong).astype(bool)
    strong.data[:] = 1.0
    return kept | (strong @ kept.astype(float) == 0), strong


def _coarser(
    chain: Chain, kept: Bool[np.ndarray, " states"], strong: sp.csr_array, balanced: bool
) -> tuple[Chain, Passage]:
    to, off = np.flatnonzero(kept), np.flatnonzero(~kept)
    within, enter, leave, among = _blocks(chain.rates, to, off)
    pattern = strong[off][:, to]
    used = pattern.multiply(leave).tocsr()
    total, lost = used @ np.ones(to.size), chain.leaving[off]
    if balanced:
        weights = _scaled_rows(used, 1 / total)
        restriction = _scaled_columns(pattern.T.multiply(enter).tocsr(), 1 / total)
        weak = leave - used
        neglected = among @ np.ones(off.size) + weak @ np.ones(to.size) + lost
        rest = among @ weights + weak - _scaled_rows(weights, neglected)
        rates = _rates(within + enter @ weights + restriction @ rest)
    else:
        weights = _scaled_rows(used, 1 / (total + lost))
        restriction = _scaled_columns(enter, 1 / chain.out[off])
        rates = _rates(within + restriction @ (leave + among @ weights))
        lost = lost + among @ (lost / (total + lost))
    leaving = chain.leaving[to] + restriction @ lost
    return Chain(rates, leaving), Passage(to, off, restriction, weights)


def _blocks(
    rates: sp.csr_array, to: Int[np.ndarray, " kept"], off: Int[np.ndarray, " gone"]
) -> tuple[sp.csr_array, sp.csr_array, sp.csr_array, sp.csr_array]:
    """The rates within C, from C to F, from F to C and within F."""
    upper, lower = rates[to], rates[off]
    return upper[:, to], upper[:, off], lower[:, to], lower[:, off]


def _rates(matrix: sp.sparray) -> sp.csr_array:
    """The positive entries off the diagonal."""
    rates = matrix.tocsr()
    rates.sum_duplicates()
    rows = np.repeat(np.arange(rates.shape[0]), np.diff(rates.indptr))
    rates.data[(rates.data < 0) | (rates.indices == rows)] = 0.0
    rates.eliminate_zeros()
    return rates


def _scaled_rows(matrix: sp.csr_array, factors: Float[np.ndarray, " rows"]) -> sp.csr_array:
    data = matrix.data * np.repeat(factors, np.diff(matrix.indptr))
    return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _scaled_columns(matrix: sp.csr_array, factors: Float[np.ndarray, " columns"]) -> sp.csr_array:
    data = matrix.data * factors[matrix.indices]
    return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
