"""Linear systems of a chain: the one place where their solver is chosen."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from jaxtyping import Array, Bool, Float
from scipy.sparse import csgraph

from thalweg.errors import InputError
from thalweg.markov import elimination
from thalweg.markov.grid import Grid
from thalweg.markov.jumps import Jumps
from thalweg.markov.multigrid import Chain, Multigrid, NoInverseError
from thalweg.markov.refinement import TOLERANCE, Equations, SolveError, Vector, refined

States = Bool[np.ndarray, " cells"]
Values = Float[Array, " cells"] | Float[np.ndarray, " cells"]

# States up to which a sparse direct solve is faster than multigrid, by the grid's dimension. Jumps
# over many cells, as SGD's, fill the factors: the second number.
_DIRECT = {1: (100_000, 100_000), 2: (16_000, 3_000), 3: (4_000, 1_000)}
# Where multigrid does not converge, this much more is worth a direct solve.
_PATIENCE = 20
# Operations of an elimination, a few seconds.
_AFFORDABLE = 1e10
# The longest time, in jumps times the rounding unit, from where on an approximate inverse may have
# lost it; and the relative error that solutions are proven to have then.
_DEEP, _PROVEN = 1e-3, 1e-7


def solve(jumps: Jumps, inside: States, right: Values) -> Float[Array, " cells"]:
    r"""The solution of :math:`-A_{RR}\,x = b` on the states R, zero elsewhere.

    With b = 1 it is the mean time until R is left, with b the rates into a set the probability to
    leave by going there. What is outside of R counts as absorbing with boundary value zero; other
    boundary values belong into b.

    Differentiable with ``jax.grad`` with respect to rates and b, by an adjoint solve; not inside of
    ``jax.jit`` or ``jax.vmap``, and once. For b > 0 each entry is right to about 1e-10 of itself,
    for b >= 0 to 1e-10 of itself or 1e-18 of the largest. Where the chain stays for more than 1e12
    jumps, errors are also proven to be below 1e-7 of the largest.

    Args:
        jumps: The chain.
        inside: R, truth values of the states; from each it must be possible to leave R.
        right: b on all states; what is outside of R has no part in it.

    Raises:
        InputError: Called with numbers that are being compiled or differentiated twice.
        SolveError: No solution to the accuracy promised.

    Cost: a few thousand states by a sparse direct solve, more by multigrid: .5 s for 512 x 512
    cells, 2.5 s for 1024 x 1024.
    """
    return System(jumps, inside).solve(right)


def solve_transposed(jumps: Jumps, inside: States, right: Values) -> Float[Array, " cells"]:
    r"""The solution of :math:`-A_{RR}^T x = b`, zero elsewhere: see :func:`solve`.

    With b a probability it is the mean time spent in each state until R is left. For b >= 0 each
    entry is right to 1e-10 of itself or 1e-18 of the largest.
    """
    return System(jumps, inside).solve_transposed(right)


class System:
    r"""The equations of :func:`solve` and :func:`solve_transposed` for several right-hand sides.

    What was factored or coarsened once serves all of them, adjoint ones included.

    Args:
        jumps: The chain.
        inside: R, see :func:`solve`.
        tolerance: The size of the last correction, relative to x.
    """

    def __init__(self, jumps: Jumps, inside: States, *, tolerance: float = TOLERANCE):
        self.jumps = jumps
        self.inside = inside
        self._tolerance = tolerance
        self._solver: _Solver | None = None

    def solve(self, right: Values) -> Float[Array, " cells"]:
        """See :func:`solve`."""
        return self._differentiable(False)(self.jumps.rates, self.jumps.leaving, right)

    def solve_transposed(
        self, right: Values, start: Float[np.ndarray, " cells"] | None = None
    ) -> Float[Array, " cells"]:
        """See :func:`solve_transposed`; ``start`` is a guess."""
        return self._differentiable(True, start)(self.jumps.rates, self.jumps.leaving, right)

    def _differentiable(
        self, transposed: bool, start: Float[np.ndarray, " cells"] | None = None
    ) -> Callable[[Any, Any, Any], Float[Array, " cells"]]:
        source, target = self.jumps.source, self.jumps.target

        @jax.custom_vjp
        def solution(rates: Any, leaving: Any, right: Any) -> Float[Array, " cells"]:
            return self._number(rates, leaving, right, transposed, start)

        def forward(rates: Any, leaving: Any, right: Any) -> tuple[Array, tuple[Any, Any, Array]]:
            x = self._number(rates, leaving, right, transposed, start)
            return x, (rates, leaving, x)

        def backward(kept: tuple[Any, Any, Array], cotangent: Array) -> tuple[Array, Array, Array]:
            rates, leaving, x = kept
            adjoint = self._number(rates, leaving, cotangent, not transposed, None)
            # Residuals are sum_j r_ij (x_i - x_j) + l_i x_i - b_i, or their transpose.
            first, second = (x, adjoint) if transposed else (adjoint, x)
            return first[source] * (second[target] - second[source]), -adjoint * x, adjoint

        solution.defvjp(forward, backward)
        return solution

    def _number(
        self,
        rates: Any,
        leaving: Any,
        right: Any,
        transposed: bool,
        start: Float[np.ndarray, " cells"] | None,
    ) -> Float[Array, " cells"]:
        rates, leaving, right = (_plain(x) for x in (rates, leaving, right))
        x = np.zeros(self.inside.size)
        guess = None if start is None else start[self.inside]
        x[self.inside] = self._current(rates, leaving)(right[self.inside], transposed, guess)
        return jnp.asarray(x)

    def _current(self, rates: np.ndarray, leaving: np.ndarray) -> "_Solver":
        """The solver for these rates: that of the last call, if they are the same."""
        solver = self._solver
        if solver is None or not (
            np.array_equal(solver.rates, rates) and np.array_equal(solver.leaving, leaving)
        ):
            solver = self._solver = _Solver(
                self.jumps, rates, leaving, self.inside, self._tolerance
            )
        return solver


class _Solver:
    """The inverse of -A_RR and its transpose, by the first route that proves accurate."""

    def __init__(
        self,
        jumps: Jumps,
        rates: np.ndarray,
        leaving: np.ndarray,
        inside: States,
        tolerance: float,
    ):
        self.rates, self.leaving, self._tolerance = rates, leaving, tolerance
        self._jumps = replace(jumps, rates=rates, leaving=leaving)
        self._inside = inside
        self._chain = restricted(self._jumps, inside)
        colour = _colours(jumps.grid)[inside]
        self._elimination = None
        mixed = colour.any() and not colour.all()
        if mixed and (colour[self._chain.rows] != colour[self._chain.rates.indices]).all():
            # Half of the states are neighbours of others only, and go without loss.
            self._chain, self._elimination = self._chain.censored(colour)
        self._limit = _DIRECT[jumps.grid.dimension][jumps.discrete]
        self._made: dict[str, Any] = {}
        self._failed: dict[str, str] = {}

    def __call__(self, right: Vector, transposed: bool, start: Vector | None = None) -> Vector:
        if not right.any():
            return np.zeros_like(right)
        for name in self._routes():
            if name not in self._failed:
                try:
                    return self._by(name, right, transposed, start)
                except (SolveError, NoInverseError) as error:
                    self._failed[name] = str(error)
        reasons = "; ".join(f"{name}: {error}" for name, error in self._failed.items())
        raise SolveError(
            f"no solver reached the accuracy promised on {right.size} states ({reasons}); expected "
            "rates over fewer orders of magnitude: more noise, or a smaller grid"
        )

    def _routes(self) -> Iterator[str]:
        """The solvers to try, in order."""
        small = self._inside.sum() <= self._limit
        if small:
            yield "direct"
            yield "elimination"
        if self._chain.symmetric:
            yield "balanced multigrid"
        yield "multigrid"
        if not small:
            yield "elimination"
            yield "direct"

    def _by(self, name: str, right: Vector, transposed: bool, start: Vector | None) -> Vector:
        if name == "elimination":
            return self._eliminated(right, transposed)
        part = self._elimination
        if part is None:
            return self._refined(name, right, transposed, start)
        part = part.transposed if transposed else part
        guess = None if start is None else start[part.passage.kept]
        return part.solution(self._refined(name, part.restrict(right), transposed, guess), right)

    def _refined(self, name: str, right: Vector, transposed: bool, start: Vector | None) -> Vector:
        inverse, noise = self._inverse(name)
        proof = {} if noise < _DEEP else {"enough": self._proof(name, transposed)}
        return refined(
            self._equations[transposed],
            inverse.transposed if transposed else inverse,
            right,
            start=start,
            tolerance=self._tolerance,
            noise=noise,
            **proof,
        )[0]

    def _proof(self, name: str, transposed: bool) -> Callable[[Vector, Vector], bool]:
        r"""Whether a residual bounds the error, by the longest time :math:`T = \max(-A)^{-1} 1`.

        Small corrections say little of long times if the approximate inverse has lost the longest.
        A residual of at most :math:`\epsilon` for b = 1 is another matter: T is then right to
        :math:`\epsilon`, as all is positive, and with it the error is at most T times the residual.
        """
        norm = np.sum if transposed else np.max
        if "longest" not in self._made:
            inverse, noise = self._made[name]
            times, _ = refined(
                self._equations[False],
                inverse,
                np.ones(self._chain.count),
                noise=noise,
                enough=lambda residual, x: bool(np.abs(residual).max() <= _PROVEN),
            )
            self._made["longest"] = float(times.max())
        longest = self._made["longest"]

        def enough(residual: Vector, x: Vector) -> bool:
            return bool(longest * norm(np.abs(residual)) <= _PROVEN * norm(np.abs(x)))

        return enough

    def _inverse(self, name: str) -> tuple[Any, float]:
        """An approximate inverse, and the longest time in jumps times the rounding unit."""
        if name not in self._made:
            if name == "direct":
                if self._inside.sum() > _PATIENCE * self._limit:
                    raise SolveError("too many states")
                inverse: Any = _Factors(self._chain)
            else:
                inverse = Multigrid.of(self._chain, balanced=name.startswith("balanced"))
            times = inverse(np.ones(self._chain.count))
            jumps = self._chain.out.max() * np.abs(times).max()
            self._made[name] = inverse, float(np.finfo(float).eps * jumps)
        return self._made[name]

    @cached_property
    def _equations(self) -> tuple[Equations, Equations]:
        return Equations(self._chain), Equations(self._chain, transposed=True)

    def _eliminated(self, right: Vector, transposed: bool) -> Vector:
        if "elimination" not in self._made:
            operations = elimination.cost(self._jumps, self._inside)
            if operations > _AFFORDABLE:
                raise SolveError(f"would take {operations:.1e} operations")
            self._made["elimination"] = elimination.reduction(self._jumps, self._inside)
        reduction = self._made["elimination"]
        solved = reduction.occupation if transposed else reduction.solve
        if (right >= 0).all():
            return solved(right)
        return solved(np.maximum(right, 0.0)) - solved(np.maximum(-right, 0.0))


class _Factors:
    """A sparse LU factorisation of -A."""

    def __init__(self, chain: Chain):
        try:
            # The diagonal is as large as all of its row: pivots need no search.
            self._factors = spl.splu(
                chain.matrix.tocsc(),
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
        except RuntimeError as error:
            raise SolveError(str(error)) from error

    def __call__(self, right: Vector) -> Vector:
        return self._factors.solve(right)

    def transposed(self, right: Vector) -> Vector:
        """The transpose of the inverse."""
        return self._factors.solve(right, trans="T")


def restricted(jumps: Jumps, inside: States) -> Chain:
    """The chain until it leaves some states, numbered anew; the rates must be numbers."""
    count = int(inside.sum())
    number = np.full(inside.size, -1, dtype=np.int32)
    number[inside] = np.arange(count, dtype=np.int32)
    rates, leaving = np.asarray(jumps.rates), np.asarray(jumps.leaving)[inside]
    source, target = number[jumps.source], number[jumps.target]
    here = (source >= 0) & (rates > 0)
    within, away = here & (target >= 0), here & (target < 0)
    matrix = sp.csr_array((rates[within], (source[within], target[within])), shape=(count, count))
    matrix.sort_indices()
    exits = np.bincount(source[away], weights=rates[away], minlength=count)
    return Chain(matrix, leaving + exits)


def can_leave(jumps: Jumps, inside: States) -> States:
    """The states among some from which these can be left at all; the rates must be numbers."""
    chain = restricted(jumps, inside)
    able = np.zeros_like(inside)
    able[inside] = _reaching(chain.rates, chain.leaving > 0)
    return able


def must_leave(jumps: Jumps, inside: States) -> States:
    """The states among some from which these are left with probability one.

    They are those from which every state that can be reached has a way out; the rates must be
    numbers.
    """
    chain = restricted(jumps, inside)
    able = _reaching(chain.rates, chain.leaving > 0)
    sure = np.zeros_like(inside)
    sure[inside] = able if able.all() else ~_reaching(chain.rates, ~able)
    return sure


def _reaching(
    rates: sp.csr_array, ends: Bool[np.ndarray, " states"]
) -> Bool[np.ndarray, " states"]:
    """The states that can reach one of the ends, which do themselves."""
    count, backward = ends.size, rates.T.tocsr()
    # One more state, from which all ends are reached.
    links = np.append(backward.indices, np.flatnonzero(ends))
    graph = sp.csr_array(
        (np.ones(links.size), links, np.append(backward.indptr, links.size)),
        shape=(count + 1, count + 1),
    )
    found = np.zeros(count + 1, dtype=bool)
    found[csgraph.breadth_first_order(graph, count, return_predecessors=False)] = True
    return found[:count]


def numbers(jumps: Jumps) -> Jumps:
    """The chain with the numbers behind arrays that are being differentiated.

    Raises:
        InputError: There are none, inside of ``jax.jit`` or ``jax.vmap``.
    """
    rates, leaving, step = (
        _plain(jax.lax.stop_gradient(x)) for x in (jumps.rates, jumps.leaving, jumps.step)
    )
    return replace(jumps, rates=rates, leaving=leaving, step=float(step))


def _plain(array: Any) -> Float[np.ndarray, "..."]:
    if isinstance(array, jax.core.Tracer):
        raise InputError(
            "the questions to a grid need numbers; ask them outside of jax.jit and jax.vmap, and "
            "differentiate once, with jax.grad"
        )
    return np.asarray(array, dtype=float)


def _colours(grid: Grid) -> Bool[np.ndarray, " cells"]:
    """The states in the colours of a chessboard."""
    places = np.unravel_index(grid.cells, grid.shape)
    return np.sum(places, axis=0) % 2 == 0
