"""Densities at later times: exponentials of the generator, powers of the transition matrix."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from thalweg.errors import InputError
from thalweg.markov.exponential import Exponential
from thalweg.markov.grid import Grid
from thalweg.markov.jumps import Jumps

Make = Callable[[float], Jumps]

# Steps that agree to this need not agree better.
_AGREED = 1e-11
# The nodes of Gauss and Legendre's rule, from the middle.
_NODE = math.sqrt(3) / 6
# Powers of a matrix that fit into memory; operations of its products take less time than sparse
# ones by this factor.
_DENSE = 1000
_FASTER = 30


@dataclass(frozen=True, eq=False)
class Evolution:
    """Densities at several times.

    Attributes:
        grid: The grid.
        times: The times asked for, shape (times,).
        steps: The same in steps of the dynamics, t/step.
        densities: Shape (times, *grid.shape).
        error: Of each density, the total variation to the one on half as many cells an axis.
    """

    grid: Grid
    times: Float[np.ndarray, " times"]
    steps: Float[np.ndarray, " times"]
    densities: Float[Array, "times ..."]
    error: Float[np.ndarray, " times"] | None = None


def evolve(jumps: Jumps, density: Any, times: Any) -> Evolution:
    r"""The density at later times, for coefficients that do not depend on time.

    In continuous time the masses are :math:`m(t) = m(0) e^{tA}`, from a Krylov space of
    :math:`(I - \gamma A)^{-1}` with one sparse factorisation for each decade of times (rational
    Krylov; Moret and Novati 2004, van den Eshof and Hochbruck 2006). Vectors are added until the
    densities stop changing to 1e-10 of the mass in L1; where sixty are too few the interval is
    halved. In discrete time they are :math:`m(0) P^k`.

    Densities have no negative values and, unless the grid has absorbing sides, the mass that they
    started with, to rounding.

    Args:
        jumps: The chain; its rates must be numbers.
        density: The density at time 0, of the grid's shape.
        times: Times :math:`t \ge 0`, one or several, in any order; in discrete time whole multiples
            of the step (to 1e-6 of it).

    Raises:
        InputError: Another shape, negative or infinite values; negative times, or times between two
            steps; rates that are being differentiated by.

    Cost: 512 x 512 cells and one time, 3 s and .5 GB; 64 x 64 x 64 cells, 12 s and .8 GB.
    """
    _check_numbers(jumps)
    masses, times = jumps.grid.masses(density), _times(times)
    if jumps.discrete:
        steps = _whole_steps(times, jumps)
        found = _powers(jumps, masses, steps)
    else:
        found = _constant(jumps, masses, times)
    return _evolution(jumps, times, found)


def evolve_through(make: Make, density: Any, times: Any, *, tolerance: float = 1e-6) -> Evolution:
    r"""The density at later times, for coefficients that depend on time.

    In continuous time by steps of two exponentials,

    .. math::

        m(t + \delta) = m(t)\, e^{\frac{\delta}{2} (\alpha A_1 + \beta A_2)}
            e^{\frac{\delta}{2} (\beta A_1 + \alpha A_2)}, \qquad
        A_{1,2} = A(t + (\tfrac12 \mp \tfrac{\sqrt 3}{6}) \delta), \quad
        \alpha, \beta = \tfrac12 \pm \tfrac{\sqrt 3}{3},

    of fourth order (Blanes and Moan 2006, Appl. Numer. Math. 56, 1519-1537). Rates that come out
    below 0, as :math:`\beta < 0`, are set to 0: those that change by a factor of more than 13 in a
    step. Each step is compared with two of half its length, which are kept; :math:`\delta` is
    chosen such that these differences add up to at most ``tolerance``. As the exact flow does not
    increase distances in L1, the error of the result is smaller.

    In discrete time the matrix of step k (from 0) is that of ``make(k * step)``, and there is no
    error.

    Args:
        make: The chain with the coefficients of a time.
        density: The density at time 0, of the grid's shape.
        times: As for :func:`evolve`.
        tolerance: Of the difference in L1, as a share of the mass, at the last time.

    Raises:
        InputError: As :func:`evolve`; a tolerance that is not above 1e-9.
    """
    if not tolerance > 1e-9:
        raise InputError(f"tolerance is {tolerance!r}; expected a number above 1e-9")
    jumps = make(0.0)
    _check_numbers(jumps)
    masses, times = jumps.grid.masses(density), _times(times)
    if jumps.discrete:
        found = _products(make, masses, _whole_steps(times, jumps), float(jumps.step))
    else:
        found = _through(make, masses, times, tolerance)
    return _evolution(jumps, times, found)


def _check_numbers(jumps: Jumps) -> None:
    if jumps.traced:
        raise InputError(
            "the rates are being differentiated by, which an evolution does not offer; expected "
            "numbers (exit times and stationary averages can be differentiated)"
        )


def _times(times: Any) -> Float[np.ndarray, " times"]:
    array = np.atleast_1d(np.asarray(times, dtype=float))
    if array.ndim != 1 or not array.size or not np.isfinite(array).all() or (array < 0).any():
        raise InputError(f"times are {times!r}; expected one or more finite numbers, none negative")
    return array


def _whole_steps(times: Float[np.ndarray, " times"], jumps: Jumps) -> Int[np.ndarray, " times"]:
    """Times as numbers of steps."""
    step = float(jumps.step)
    steps = np.rint(times / step)
    off = np.abs(times / step - steps) > 1e-6 + 1e-12 * steps
    if off.any():
        time = times[off][0]
        below = math.floor(time / step)
        raise InputError(
            f"time {time:g} is {time / step:g} steps of {step:g}; in discrete time expected whole "
            f"steps, the nearest of which are at {below * step:g} and {(below + 1) * step:g}"
        )
    return steps.astype(np.int64)


def _evolution(jumps: Jumps, times: np.ndarray, masses: np.ndarray) -> Evolution:
    grid = jumps.grid
    values = np.zeros((len(times), grid.inside.size))
    values[:, grid.cells] = masses
    densities = jnp.asarray(values.reshape(-1, *grid.shape) / grid.volumes)
    return Evolution(grid, times, times / float(jumps.step), densities)


# Continuous time.


def _constant(jumps: Jumps, masses: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Masses at times, a row each."""
    ascending, place = np.unique(times, return_inverse=True)
    found = np.tile(masses, (len(ascending), 1))
    found[ascending > 0] = Exponential(jumps).at(masses, ascending[ascending > 0])
    return found[place]


def _through(make: Make, masses: np.ndarray, times: np.ndarray, tolerance: float) -> np.ndarray:
    """Masses at times by steps of suitable length, a row each."""
    ascending, place = np.unique(times, return_inverse=True)
    found = np.empty((len(ascending), len(masses)))
    total, end = float(masses.sum()), float(ascending[-1])
    now, step = 0.0, end / 16
    for row, time in enumerate(ascending):
        while now < time and total > 0:
            parts = math.ceil((time - now) / step - 1e-9)
            length = (time - now) / parts
            once = _step(make, masses, now, length)
            twice = _step(make, masses, now, length / 2)
            twice = _step(make, twice, now + length / 2, length / 2)
            difference = np.abs(twice - once).sum() / total
            limit = max(tolerance * length / end, _AGREED)
            if difference <= limit:
                now, masses = time if parts == 1 else now + length, twice
            # The difference of a step is of fifth order, and the limit of first.
            step = length * min(4.0, max(0.2, 0.9 * (limit / max(difference, 1e-300)) ** 0.25))
        found[row] = masses
    return found[place]


def _step(make: Make, masses: np.ndarray, now: float, length: float) -> np.ndarray:
    """The masses after one step."""
    early, late = (make(now + (0.5 + side) * length) for side in (-_NODE, _NODE))
    for part in (_mixed(early, late), _mixed(late, early)):
        masses = _constant(part, masses, np.array([length / 2]))[0]
    return masses


def _mixed(most: Jumps, rest: Jumps) -> Jumps:
    """The rates of one chain with a weight above one, and of another with one below zero."""
    weights = 0.5 + 2 * _NODE, 0.5 - 2 * _NODE

    def mixed(first: Any, second: Any) -> np.ndarray:
        return np.maximum(weights[0] * np.asarray(first) + weights[1] * np.asarray(second), 0.0)

    leaving = mixed(most.leaving, rest.leaving)
    if all(np.array_equal(getattr(most, end), getattr(rest, end)) for end in ("source", "target")):
        return replace(most, rates=mixed(most.rates, rest.rates), leaving=leaving)
    keys = [x.source.astype(np.int64) * x.count + x.target for x in (most, rest)]
    pairs = np.union1d(*keys)
    rates = []
    for own, chain in zip(keys, (most, rest), strict=True):
        rates.append(np.zeros(pairs.size))
        rates[-1][np.searchsorted(pairs, own)] = np.asarray(chain.rates)
    source, target = (ends.astype(np.int32) for ends in np.divmod(pairs, most.count))
    return replace(most, source=source, target=target, rates=mixed(*rates), leaving=leaving)


# Discrete time.


def _transition(jumps: Jumps) -> sp.csr_array:
    """The transposed transition matrix."""
    matrix = sp.csr_array(jumps.matrix().T) * float(jumps.step)
    # Rounding may leave a probability to stay of -1e-17.
    matrix.setdiag(np.maximum(1.0 + matrix.diagonal(), 0.0))
    return matrix


def _powers(jumps: Jumps, masses: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Masses after numbers of steps, a row each."""
    ascending, place = np.unique(steps, return_inverse=True)
    matrix = _transition(jumps)
    count, last = jumps.count, int(ascending[-1])
    if count <= _DENSE and last.bit_length() * count**3 < _FASTER * last * matrix.nnz:
        return _squarings(jumps, matrix, masses, ascending)[place]
    found, done = np.empty((len(ascending), count)), 0
    for row, step in enumerate(ascending):
        total = masses.sum()
        for _ in range(step - done):
            masses = matrix @ masses
        masses, done = _conserved(jumps, masses, total), step
        found[row] = masses
    return found[place]


def _squarings(
    jumps: Jumps, matrix: sp.csr_array, masses: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """The same by powers 1, 2, 4, ... of the matrix, with a state for what has left."""
    count = jumps.count
    power = np.zeros((count + 1, count + 1))
    power[:count, :count] = matrix.toarray().T
    power[:, count] = np.maximum(1.0 - power.sum(axis=1), 0.0) if np.any(jumps.leaving) else 0.0
    power[count, count] = 1.0
    found = np.tile(np.append(masses, 0.0), (len(steps), 1))
    for bit in range(int(steps[-1]).bit_length()):
        due = (steps >> bit) & 1 == 1
        found[due] = found[due] @ power
        power = power @ power
        power /= power.sum(axis=1, keepdims=True)  # rounding would be doubled each time
    return found[:, :count]


def _products(make: Make, masses: np.ndarray, steps: np.ndarray, step: float) -> np.ndarray:
    """Masses after numbers of steps, each with the matrix of its time, a row each."""
    ascending, place = np.unique(steps, return_inverse=True)
    found, done = np.empty((len(ascending), len(masses))), 0
    for row, count in enumerate(ascending):
        for k in range(done, count):
            jumps = make(k * step)
            masses = _conserved(jumps, _transition(jumps) @ masses, masses.sum())
        found[row], done = masses, count
    return found[place]


def _conserved(jumps: Jumps, masses: np.ndarray, total: float) -> np.ndarray:
    """Masses without the rounding of their sum, where it is known."""
    if np.any(np.asarray(jumps.leaving)) or not total:
        return masses
    return masses * (total / masses.sum())
