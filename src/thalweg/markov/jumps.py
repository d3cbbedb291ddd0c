"""A Markov chain on the cells of a grid: the rates of its jumps."""

from dataclasses import dataclass

import jax
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from thalweg.markov.grid import Grid


@dataclass(frozen=True, eq=False)
class Jumps:
    r"""Jumps between the cells of a grid, in continuous or discrete time.

    The operator on functions is :math:`(A u)_i = \sum_j r_{ij} (u_j - u_i) - l_i u_i`; the masses m
    of the cells obey :math:`\dot m = m A` in continuous time, and in discrete time one step is the
    matrix :math:`P = I + \eta A`. Only what leaves a cell is kept: the diagonal is minus its sum,
    so that mass is conserved to rounding.

    States are numbered as in ``grid.cells``.

    Attributes:
        grid: The grid.
        source: The cell i of each jump.
        target: The cell j, never i; a pair (i, j) occurs once.
        rates: :math:`r_{ij} \ge 0` per unit of time; in discrete time the probability over the
            step.
        leaving: :math:`l_i \ge 0`, through absorbing boundaries, likewise.
        step: The time :math:`\eta` of a step.
        discrete: Whether time is discrete.
    """

    grid: Grid
    source: Int[np.ndarray, " jumps"]
    target: Int[np.ndarray, " jumps"]
    rates: Float[Array, " jumps"] | Float[np.ndarray, " jumps"]
    leaving: Float[Array, " cells"] | Float[np.ndarray, " cells"]
    step: Float[Array, ""] | float
    discrete: bool

    @property
    def count(self) -> int:
        """States: the cells of the domain."""
        return self.grid.cells.size

    @property
    def traced(self) -> bool:
        """Whether the rates are being differentiated by or compiled."""
        return any(isinstance(x, jax.core.Tracer) for x in (self.rates, self.leaving, self.step))

    def matrix(self) -> sp.csr_array:
        """The matrix A, rows sum to minus what leaves; the rates must be numbers."""
        rates, leaving = np.asarray(self.rates), np.asarray(self.leaving)
        count = self.count
        out = np.bincount(self.source, weights=rates, minlength=count) + leaving
        diagonal = np.arange(count, dtype=self.source.dtype)
        return sp.csr_array(
            (
                np.concatenate([rates, -out]),
                (
                    np.concatenate([self.source, diagonal]),
                    np.concatenate([self.target, diagonal]),
                ),
            ),
            shape=(count, count),
        )
