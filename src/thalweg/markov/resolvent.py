"""Laws after an exponential time: the linear systems behind exponentials and modes."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Complex, Float
from scipy.sparse.linalg import LinearOperator, bicgstab, splu

from thalweg.errors import InputError
from thalweg.markov.jumps import Jumps
from thalweg.markov.multigrid import Chain, Multigrid

Vector = Float[np.ndarray, " cells"] | Complex[np.ndarray, " cells"]

# Errors of a factorisation grow with the jumps made before the clock rings.
_ROUNDING = 1e-16
_ENOUGH = 1e-10
_SETTLED = 1e-13
_REFINEMENTS = 10
# The most cells to factor in one, two and three dimensions; beyond, multigrid is faster or factors
# take more than 1 GB.
_DIRECT = (5_000_000, 1_200_000, 30_000)
_INNER = 1e-6
_ITERATIONS = 60


class Flows:
    """A chain's generator, by pairs of cells between which it jumps.

    The net flow of a pair is computed before flows are added up, and the difference of a function
    before it is multiplied by a rate: at a distance from equilibrium that is small, as between deep
    wells, the sums of the matrix product lose all digits and these do not.
    """

    def __init__(self, jumps: Jumps):
        self.jumps = jumps
        self.matrix = jumps.matrix()
        self.leaving = np.asarray(jumps.leaving)

    @property
    def closed(self) -> bool:
        """Whether nothing leaves."""
        return not self.leaving.any()

    @cached_property
    def rates(self) -> sp.csr_array:
        """The rates of jumps, shape (cells, cells), no diagonal, sorted indices."""
        rates = self.matrix.copy()
        rates.setdiag(0.0)
        rates.eliminate_zeros()
        rates.sort_indices()
        return rates

    @cached_property
    def fastest(self) -> float:
        """The largest rate at which a cell is left."""
        return float(np.max(-self.matrix.diagonal(), initial=0.0))

    @cached_property
    def _pairs(self) -> tuple[sp.csr_array, sp.csr_array]:
        """Net flows of masses, shape (pairs, cells), and what they bring, (cells, pairs)."""
        source, target = (x.astype(np.int64) for x in (self.jumps.source, self.jumps.target))
        count = self.jumps.count
        low, high = np.minimum(source, target), np.maximum(source, target)
        keys, pair = np.unique(low * count + high, return_inverse=True)
        signed = np.where(source < target, 1.0, -1.0) * np.asarray(self.jumps.rates)
        net = sp.csr_array((signed, (pair, source)), shape=(keys.size, count))
        ends = np.concatenate([keys // count, keys % count])
        signs = np.repeat([-1.0, 1.0], keys.size)
        brought = sp.csr_array(
            (signs, (ends, np.tile(np.arange(keys.size), 2))), shape=(count, keys.size)
        )
        return net, brought

    def on_masses(self, masses: Vector) -> Vector:
        """The masses' rate of change, m A."""
        net, brought = self._pairs
        return brought @ (net @ masses) - self.leaving * masses

    def on_function(self, values: Vector) -> Vector:
        """The function A u."""
        net, brought = self._pairs
        return net.T @ (brought.T @ values) - self.leaving * values

    def dirichlet(
        self, masses: Float[np.ndarray, " cells"], columns: Float[np.ndarray, "cells k"]
    ) -> Float[np.ndarray, "k k"]:
        r"""The form :math:`\frac12 \sum m_i r_{ij} (u_i - u_j)(v_i - v_j) + \sum m_i l_i u_i v_i`.

        For a chain with detailed balance under the masses, this is minus the product of u and A v.
        """
        net, brought = self._pairs
        flows = net.maximum(0.0) @ masses
        differences = brought.T @ columns
        inner = differences.T @ (flows[:, None] * differences)
        return inner + columns.T @ ((masses * self.leaving)[:, None] * columns)


class Resolvent:
    r"""The map :math:`(I - A/\rho)^{-1}`: what becomes of a law after an exponential time.

    By a sparse LU factorisation without pivots, for the matrix is diagonally dominant; where that
    would fill memory (from 30,000 cells in three dimensions), by BiCGSTAB with :class:`Multigrid`.
    The error of the factors grows like the largest rate of a jump over :math:`\rho`; from 1e-10 on,
    and after multigrid, solutions are refined with residuals of :class:`Flows`, which keeps mass
    where it belongs.

    Args:
        flows: The generator.
        rate: The rate :math:`\rho` of the exponential clock.

    Raises:
        InputError: Of the methods: a rate so small beside those of jumps that rounding decides.
    """

    def __init__(self, flows: Flows, rate: float):
        self.flows, self.rate = flows, rate
        loss = _ROUNDING * flows.fastest / rate
        count, dimension = flows.jumps.count, flows.jumps.grid.dimension
        self.direct = count <= _DIRECT[dimension - 1]
        self._refined = loss > _ENOUGH or not self.direct
        self._approximate = self._factored() if self.direct else self._multigrid()

    def of_masses(
        self, masses: Float[np.ndarray, " cells"], *, refined: bool = False
    ) -> Float[np.ndarray, " cells"]:
        """The masses m (I - A/rate)^{-1}, refined in any case if asked for."""
        return self._solve(masses, "T", self.flows.on_masses, refined)

    def of_function(
        self, values: Float[np.ndarray, " cells"], *, refined: bool = False
    ) -> Float[np.ndarray, " cells"]:
        """The function (I - A/rate)^{-1} u, likewise."""
        return self._solve(values, "N", self.flows.on_function, refined)

    def _solve(
        self, right: np.ndarray, side: str, generator: Callable, refined: bool
    ) -> np.ndarray:
        found = self._approximate(right, side)
        if not (refined or self._refined):
            return found
        # Of what decays at once next to nothing is found, and that to rounding of what was given.
        given = 10 * _ROUNDING * np.abs(right).sum()
        for _ in range(_REFINEMENTS):
            rest = right - found + generator(found) / self.rate
            correction = self._approximate(rest, side)
            found = found + correction
            if np.abs(correction).sum() <= _SETTLED * np.abs(found).sum() + given:
                return found
        raise InputError(
            f"a time of {1 / self.rate:.3g} is too long beside the fastest jumps, whose rate is "
            f"{self.flows.fastest:.3g}: rounding decides what happens in it. Expected less than "
            f"{1e15 / self.flows.fastest:.1e}, or ask for the stationary law"
        )

    def _factored(self) -> Callable[[np.ndarray, str], np.ndarray]:
        system = sp.eye_array(self.flows.jumps.count) - self.flows.matrix / self.rate
        factors = splu(
            sp.csc_array(system),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        return factors.solve

    def _multigrid(self) -> Callable[[np.ndarray, str], np.ndarray]:
        chain = Chain(self.flows.rates, self.flows.leaving + self.rate)
        cycle = Multigrid.of(chain, balanced=chain.symmetric)
        system = {"N": chain.matrix, "T": sp.csr_array(chain.matrix.T)}
        inverse = {"N": cycle, "T": cycle.transposed}

        def solve(right: np.ndarray, side: str) -> np.ndarray:
            guess = LinearOperator(chain.matrix.shape, inverse[side], dtype=float)
            found, _ = bicgstab(
                system[side], self.rate * right, rtol=_INNER, maxiter=_ITERATIONS, M=guess
            )
            return found

        return solve
