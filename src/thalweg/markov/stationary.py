"""Stationary laws: one for each closed class, in closed form where detailed balance holds."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float
from scipy.sparse import csgraph

from thalweg.errors import InputError
from thalweg.markov import elimination
from thalweg.markov.grid import Grid
from thalweg.markov.jumps import Jumps
from thalweg.markov.refinement import SolveError
from thalweg.markov.reversible import log_masses
from thalweg.markov.systems import System, numbers
from thalweg.markov.tails import check_tails

States = Bool[np.ndarray, " cells"]

# Operations up to which elimination is the fastest route to a law, .1 s.
_QUICK = 5e7
# A pinned cell with less than this share of the largest mass is chosen anew.
_RARE = 1e-6
# What flows into a cell and out of it may differ by this share of all that flows.
_BALANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Stationary:
    """The stationary laws of a chain, one for each set of cells that is never left.

    Attributes:
        grid: The grid.
        densities: One density a class, per unit of volume, shape (classes, *grid.shape).
        classes: The cells of each class, truth values of the same shape.
        error: The difference to half as many cells along each axis, where asked for.
    """

    grid: Grid
    densities: Float[Array, "classes ..."]
    classes: Bool[np.ndarray, "classes ..."]
    error: float | None = None

    @property
    def density(self) -> Float[Array, "..."]:
        """The density, if there is only one class.

        Raises:
            InputError: Several classes: which one is reached depends on the start.
        """
        if len(self.classes) == 1:
            return self.densities[0]
        shown = [self._described(cells) for cells in self.classes[:8]]
        more = ", ..." if len(self.classes) > len(shown) else ""
        raise InputError(
            f"there are {len(self.classes)} closed classes of cells, each with a law of its own: "
            f"{', '.join(shown)}{more}. Take one of densities[k], or evolve() a start for long to "
            "see where it ends; committor() has the probabilities"
        )

    def _described(self, cells: Bool[np.ndarray, "..."]) -> str:
        places = self.grid.points[cells.ravel()]
        centre = np.round(places.mean(axis=0), 4).tolist()
        return f"{len(places)} cell{'s' * (len(places) > 1)} around {centre}"


def stationary(jumps: Jumps, *, check: bool = True) -> Stationary:
    r"""The laws with :math:`m A = 0` of a chain's closed classes.

    A class is a set of cells that is never left and within which each is reached from each. Where
    detailed balance holds its law is a product of ratios of rates, summed in logarithms, so that
    the deepest of wells does not underflow; otherwise it is the mean time spent in each cell
    between two visits of one. What flows into each cell and out of it is compared at the end.

    The densities can be differentiated with ``jax.grad`` with respect to the rates, not inside of
    ``jax.jit``, by a solve with the adjoint of the pinned system.

    Args:
        jumps: The chain.
        check: Whether the grid stands for all of space. Then a law that the sides cut off is warned
            of, and one that has no integral on a growing domain is refused: see
            :func:`thalweg.markov.tails.check_tails`. With False the walls belong to the model.

    Raises:
        InputError: No closed class, as with absorbing sides; a law without an integral.
        SolveError: No law to the accuracy promised.

    Warns:
        UserWarning: More than a thousandth of the law is outside of the grid, by extrapolation.

    Cost: .3 s for 512 x 512 cells with detailed balance, 1 s without.
    """
    plain, grid = numbers(jumps), jumps.grid
    laws, classes = [], closed_classes(plain)
    for cells in classes:
        density = grid.spread(masses(jumps, cells)) / grid.volumes
        if check:
            check_tails(grid, np.asarray(jax.lax.stop_gradient(density)))
        laws.append(density)
    within = [np.asarray(grid.spread(jnp.asarray(cells, float))) > 0 for cells in classes]
    return Stationary(grid, jnp.stack(laws), np.stack(within))


def average(jumps: Jumps, values: Float[Array, "..."]) -> Float[Array, ""]:
    r"""The stationary average of a function, :math:`\sum_i m_i v_i`.

    Differentiable with respect to rates and values: :math:`\partial / \partial r_{ij} = m_i
    (\lambda_j - \lambda_i)` with :math:`-A \lambda = v - m \cdot v`.

    Args:
        jumps: The chain.
        values: The function at the centres, of the grid's shape.

    Raises:
        InputError: No closed class, or several.
        SolveError: No law to the accuracy promised.
    """
    plain = numbers(jumps)
    classes = closed_classes(plain)
    if len(classes) > 1:
        raise InputError(
            f"there are {len(classes)} closed classes of cells and so many averages; integrate "
            "with one of stationary().densities"
        )
    return jnp.sum(masses(jumps, classes[0]) * jumps.grid.gather(jnp.asarray(values)))


def closed_classes(jumps: Jumps) -> list[States]:
    """The sets of states that are never left, each reached from each; the rates must be numbers.

    Raises:
        InputError: There is none: everything leaves at last.
    """
    alive = np.asarray(jumps.rates) > 0
    source, target, count = jumps.source[alive], jumps.target[alive], jumps.count
    graph = sp.csr_array((np.ones(source.size), (source, target)), shape=(count, count))
    pieces, piece = csgraph.connected_components(graph, connection="strong")
    closed = np.ones(pieces, dtype=bool)
    closed[piece[source[piece[source] != piece[target]]]] = False
    closed[piece[np.asarray(jumps.leaving) > 0]] = False
    if not closed.any():
        raise InputError(
            "absorbing boundaries: in the end everything has left, and there is no stationary law; "
            "quasi_stationary() is the law of what has not left yet"
        )
    return [piece == k for k in np.flatnonzero(closed)]


def masses(jumps: Jumps, inside: States) -> Float[Array, " cells"]:
    """The masses of the stationary law of a closed class, zero elsewhere; differentiable."""
    source, target = jumps.source, jumps.target
    # The law does not know the step, which may be what one differentiates by.
    closed = replace(jumps, leaving=np.zeros(jumps.count), step=1.0)

    @jax.custom_vjp
    def law(rates: Any) -> Float[Array, " cells"]:
        return jnp.asarray(_law(numbers(replace(closed, rates=rates)), inside))

    def forward(rates: Any) -> tuple[Array, tuple[Any, Array]]:
        found = law(rates)
        return found, (rates, found)

    def backward(kept: tuple[Any, Array], cotangent: Array) -> tuple[Array]:
        rates, found = kept
        pinned = inside.copy()
        pinned[np.argmax(np.asarray(found))] = False
        if not pinned.any():
            return (jnp.zeros_like(rates),)
        chain = numbers(replace(closed, rates=rates))
        adjoint = System(chain, pinned).solve(cotangent - found @ cotangent)
        return (found[source] * (adjoint[target] - adjoint[source]),)

    law.defvjp(forward, backward)
    return law(jumps.rates)


def _law(jumps: Jumps, inside: States) -> Float[np.ndarray, " cells"]:
    """The masses, by the first route that applies; the rates are numbers."""
    within = inside[jumps.source] & (np.asarray(jumps.rates) > 0)
    own = replace(
        jumps,
        source=jumps.source[within],
        target=jumps.target[within],
        rates=np.asarray(jumps.rates)[within],
        leaving=np.zeros(jumps.count),
    )
    logs = log_masses(own)
    if logs is not None:
        found = np.where(inside, np.exp(logs), 0.0)
    elif elimination.cost(own, inside) <= _QUICK:
        found = elimination.stationary_masses(own, inside)
    else:
        found = _pinned(own, inside)
    found = found / found.sum()
    _require_balance(own, found)
    return found


def _pinned(jumps: Jumps, inside: States) -> Float[np.ndarray, " cells"]:
    """The masses in units of that of one cell: the mean times between two visits of it."""
    pin = _attracting(jumps, inside)
    for _ in range(2):
        found = _between_visits(jumps, inside, pin)
        largest = int(np.argmax(found))
        if found[pin] >= _RARE * found[largest]:
            break
        pin = largest
    if found.min() < -np.finfo(float).eps * found.max():
        raise SolveError(f"a stationary law with the mass {found.min() / found.sum():.1e}")
    return np.maximum(found, 0.0)


def _between_visits(jumps: Jumps, inside: States, pin: int) -> Float[np.ndarray, " cells"]:
    others = inside.copy()
    others[pin] = False
    from_pin = jumps.source == pin
    right = np.zeros(jumps.count)
    right[jumps.target[from_pin]] = jumps.rates[from_pin]
    found = np.array(System(jumps, others).solve_transposed(jnp.asarray(right)))
    found[pin] = 1.0
    return found


def _attracting(jumps: Jumps, inside: States) -> int:
    """The cell in which most ways end that follow the strongest net drift each time."""
    shape = (jumps.count, jumps.count)
    rates = sp.csr_array((jumps.rates, (jumps.source, jumps.target)), shape=shape)
    net = (rates - rates.T).tocoo()
    onward = net.data > 0
    order = np.argsort(net.data[onward], kind="stable")
    following = np.arange(jumps.count)
    following[net.row[onward][order]] = net.col[onward][order]
    for _ in range(int(np.ceil(np.log2(jumps.count))) + 1):
        following = following[following]
    return int(np.argmax(np.bincount(following[inside], minlength=jumps.count)))


def _require_balance(jumps: Jumps, found: Float[np.ndarray, " cells"]) -> None:
    flows = found[jumps.source] * jumps.rates
    net = np.bincount(jumps.target, weights=flows, minlength=jumps.count)
    net -= np.bincount(jumps.source, weights=flows, minlength=jumps.count)
    off = float(np.abs(net).sum())
    if not off <= _BALANCE * max(float(flows.sum()), np.finfo(float).tiny):
        raise SolveError(
            f"a stationary law whose flows are off balance by {off / flows.sum():.1e} of their sum"
        )
