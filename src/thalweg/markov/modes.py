"""The slowest modes of a chain, and its spectral gap."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import scipy.linalg as la
from jaxtyping import Array, Complex, Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from thalweg.errors import InputError
from thalweg.markov.grid import Grid
from thalweg.markov.jumps import Jumps
from thalweg.markov.refinement import SolveError
from thalweg.markov.resolvent import Flows, Resolvent
from thalweg.markov.reversible import log_masses
from thalweg.markov.stationary import closed_classes, masses

# Chains this small have all their eigenvalues computed.
_DENSE = 400
# Vectors beyond those asked for, whose rates may come out of order.
_SPARE = 4
# The shift of chains without detailed balance, in units of the rates found: so large that the
# disc of what is found is nearly a half plane, that is, in the order of real parts.
_FAR = 5.0
_RESTARTS = 1000
_RESIDUAL = 1e-6
# Vectors that differ by less, in relative terms, are one.
_SAME = 1e-10
# Logarithms of masses of which floating point holds the squares of small functions.
_DEEPEST = -500.0
# Eigenvalues of the resolvent that differ by less have vectors that may be mixed.
_CLOSE = 1e-2
# Rates without detailed balance are right to some units of rounding of the usual jump's: where
# they are this many times larger, to a hundredth or better.
_ABOVE = 1e3


@dataclass(frozen=True, eq=False)
class Modes:
    r"""The slowest modes, the slowest first.

    With left eigenvectors :math:`\psi_k`, densities, and right ones :math:`\phi_k`, functions,
    normalised such that :math:`\int \psi_k \phi_k\,dx = 1`, densities evolve as

    .. math:: p(t) = \sum_k e^{-\lambda_k t} \psi_k \int \phi_k p(0)\,dx.

    Where mass is conserved the first rate is 0, the first density the stationary one, the first
    function 1. The largest size of each function is 1; where two modes are metastable the sign of
    the second function says to which of two sets of states a state belongs.

    Attributes:
        grid: The grid.
        rates: :math:`\lambda_k` per unit of time, ascending in their real parts, shape (count,).
            Complex, in pairs, if there are rotations; in discrete time
            :math:`-\log(\mu_k)/\eta` of the eigenvalues of the transition matrix.
        right: The functions, shape (count, *grid.shape).
        left: The densities, likewise.
        time: The times :math:`1/\mathrm{Re} \lambda_k` in which modes decay, infinite for rate 0.
        steps: The same in steps.
        error: Of the rates, the difference to those on half as many cells along each axis.
    """

    grid: Grid
    rates: Float[np.ndarray, " count"] | Complex[np.ndarray, " count"]
    right: Float[Array, "count ..."] | Complex[Array, "count ..."]
    left: Float[Array, "count ..."] | Complex[Array, "count ..."]
    time: Float[np.ndarray, " count"]
    steps: Float[np.ndarray, " count"]
    error: Float[np.ndarray, " count"] | None = None


@dataclass(frozen=True, eq=False)
class Gap:
    """The slowest rate of relaxation.

    Attributes:
        rate: The smallest real part of a rate that is not zero, per unit of time.
        time: Its inverse.
        steps: The same in steps.
        error: Of the rate, the difference to that on half as many cells along each axis.
    """

    rate: float
    time: float
    steps: float
    error: float | None = None


def gap(jumps: Jumps) -> Gap:
    r"""The spectral gap: the rate at which densities approach the stationary one in the end.

    On a grid with absorbing sides, where there is none, the rate at which the last mass leaves.

    Raises:
        InputError: As :func:`modes`.

    Cost: that of two modes.
    """
    first = int(not np.any(np.asarray(jumps.leaving)))
    rate = float(modes(jumps, first + 1).rates[first].real)
    return Gap(rate, 1 / rate, 1 / (rate * float(jumps.step)))


def modes(jumps: Jumps, count: int) -> Modes:
    r"""The slowest modes: rates, functions and densities (see :class:`Modes`).

    In continuous time by Arnoldi's method on :math:`(I - A/\rho)^{-1}`. With detailed balance rates
    then are those of the Dirichlet form :math:`\frac12 \sum m_i r_{ij} (u_i - u_j)^2`, which has
    small ones right in relative terms. Without, they are right to rounding of the fastest jumps,
    and are those nearest to :math:`-\rho`, five times their size away: what turns many times
    faster than it decays may be missed. In discrete time by Arnoldi's method on the transition
    matrix, for the eigenvalues of largest size. Small chains by all eigenvalues.

    Args:
        jumps: The chain; its rates must be numbers.
        count: How many.

    Raises:
        InputError: More modes than a quarter of the states; several closed classes, for which the
            rate 0 is repeated; rates that are being differentiated by.
        SolveError: No convergence; without detailed balance, or where the stationary law falls by
            more than :math:`e^{500}`, a rate so small that rounding drowns it.

    Cost: a factorisation and some tens of solves; 512 x 512 cells and 12 modes, 8 s, without
    detailed balance several times that.
    """
    _check(jumps, count)
    flows = Flows(jumps)
    logs = None if jumps.discrete else log_masses(jumps)
    if logs is not None and logs.min() < _DEEPEST:
        logs = None
    found = _two_sided(flows, count) if logs is None else _balanced(flows, np.exp(logs), count)
    return _modes(flows, found, count)


def _check(jumps: Jumps, count: int) -> None:
    if jumps.traced:
        raise InputError(
            "the rates are being differentiated by, which modes do not offer; expected numbers "
            "(exit times and stationary averages can be differentiated)"
        )
    most = jumps.count if jumps.count <= _DENSE else jumps.count // 4
    if not 1 <= count <= most:
        raise InputError(f"count is {count}; expected 1 to {most} modes for {jumps.count} states")
    closed = _closed(jumps)
    if closed > 1:
        raise InputError(
            f"the chain has {closed} closed classes, so that the rate 0 is repeated and there is "
            "no gap; expected one: take each by itself with a mask"
        )


def _closed(jumps: Jumps) -> int:
    """The number of closed classes."""
    try:
        return len(closed_classes(jumps))
    except InputError:  # everything leaves at last
        return 0


_Pair = tuple[np.ndarray, np.ndarray]
_Found = tuple[np.ndarray, np.ndarray, np.ndarray]


# With detailed balance.


def _balanced(flows: Flows, law: np.ndarray, count: int) -> _Found:
    """Rates, functions and masses of modes, columns."""
    resolvent = Resolvent(flows, _clock(flows))
    values, vectors = _eigenvectors(flows, resolvent, count)
    law = law / law.sum()
    # Vectors are mixed only where Arnoldi's method cannot tell them apart, and freed only of those
    # that have more mass for their largest value: rounding is the other way about.
    borders = np.flatnonzero(np.abs(np.diff(values)) > _CLOSE * np.abs(values[1:])) + 1
    groups = [_real(group) for group in np.split(vectors, borders, axis=1)]
    groups = [_smoothed(resolvent.of_function, group) for group in groups]
    groups = [group / np.abs(group).max(axis=0) for group in groups]
    constant = int(flows.closed)
    groups[constant:] = sorted(groups[constant:], key=lambda group: -np.max(law @ group**2))
    rates, right = np.zeros(constant), np.ones((law.size, constant))
    for place, group in enumerate(groups):
        free = group - right @ (right.T @ (law[:, None] * group))
        if place < constant:  # it is spanned by the constant and one less
            mixed = np.linalg.svd(np.sqrt(law)[:, None] * free, full_matrices=False)[2]
            free = free @ mixed[:-1].T
        found = _separated(flows, law, free)
        rates, right = np.append(rates, found[0]), np.append(right, found[1], axis=1)
    order = np.argsort(rates, kind="stable")
    rates, right = rates[order], right[:, order] / np.abs(right[:, order]).max(axis=0)
    _check_residuals(flows.on_function, (-rates[:count], right[:, :count]), resolvent.rate)
    return rates, right, _left(flows, resolvent, law, right)


def _left(flows: Flows, resolvent: Resolvent, law: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Masses of the modes of functions whose largest size is one.

    These are masses times functions. But rounding of a function that is large only where there is
    no mass is larger than itself where all the mass is: it is smoothed, and freed of the modes that
    have more mass. What is left is rounding times the ratio of the masses.
    """
    sizes = law @ right**2
    left = law[:, None] * right
    order = np.argsort(-sizes, kind="stable")
    for place in range(int(flows.closed), order.size):
        k, before = order[place], order[:place]
        smooth = resolvent.of_masses(left[:, k], refined=True)
        left[:, k] = smooth - left[:, before] @ (smooth @ right[:, before])
        left[:, k] /= left[:, k] @ right[:, k]
    return left


def _separated(flows: Flows, law: np.ndarray, right: np.ndarray) -> _Pair:
    """Rates and functions of the Dirichlet form on a space."""
    rates = np.zeros(right.shape[1])
    # The second time the columns are modes, and rounding of large rates does not reach small ones.
    for _ in range(2 if rates.size else 0):
        right = right / np.sqrt(law @ right**2)
        sizes, mixed = np.linalg.eigh(right.T @ (law[:, None] * right))
        kept = sizes > _SAME * sizes[-1]
        right = right @ (mixed[:, kept] / np.sqrt(sizes[kept]))
        rates, mixed = np.linalg.eigh(flows.dirichlet(law, right))
        right = right @ mixed
    return rates, right


def _eigenvectors(flows: Flows, resolvent: Resolvent, count: int) -> _Pair:
    """Eigenvalues of the resolvent or nearly so, and functions, the slowest first."""
    jumps = flows.jumps
    if jumps.count > _DENSE:
        return _arnoldi(resolvent.of_function, count + _SPARE, jumps.count)
    values, vectors = la.eig(flows.matrix.toarray())
    order = np.argsort(-values.real)[: count + _SPARE]
    return resolvent.rate / (resolvent.rate - values[order]), vectors[:, order]


# Without.


def _spaces(flows: Flows, count: int) -> _Pair:
    """Functions and masses that span the slowest modes, columns."""
    jumps = flows.jumps
    if jumps.count <= _DENSE:
        values, left, right = la.eig(flows.matrix.toarray(), left=True)
        order = np.argsort(_rates(jumps, values).real)[: count + _SPARE]
        return _real(right[:, order]), _real(left[:, order])
    if jumps.discrete:
        step = float(jumps.step)
        sides = [lambda u: u + step * (flows.matrix @ u), lambda m: m + step * (flows.matrix.T @ m)]
        right, left = (_arnoldi(side, count + _SPARE, jumps.count)[1] for side in sides)
        return _real(right), _real(left)
    resolvent = Resolvent(flows, _clock(flows))
    values = _arnoldi(resolvent.of_function, count + _SPARE, jumps.count)[0][:count]
    farthest = np.abs(resolvent.rate * (1 - 1 / values)).max()
    resolvent = Resolvent(flows, max(_FAR * float(farthest), resolvent.rate))
    sides = [resolvent.of_function, resolvent.of_masses]
    found = [_real(_arnoldi(side, 2 * count + _SPARE, jumps.count)[1]) for side in sides]
    right, left = (_smoothed(*pair) for pair in zip(sides, found, strict=True))
    return right, left


def _clock(flows: Flows) -> float:
    """The rate at which jumps of the usual size diffuse through the box."""
    return float(np.median(-flows.matrix.diagonal())) / max(flows.jumps.grid.shape) ** 2


def _arnoldi(apply: Callable[[np.ndarray], np.ndarray], count: int, size: int) -> _Pair:
    """Eigenvalues of largest size, the largest first, and their vectors."""
    start = np.random.default_rng(0).random(size)  # the same answer each time
    try:
        values, vectors = eigs(
            LinearOperator((size, size), matvec=apply, dtype=float),
            count,
            v0=start,
            ncv=max(2 * count + 1, 24),
            maxiter=_RESTARTS,
        )
    except ArpackNoConvergence as error:
        raise SolveError(
            f"{len(error.eigenvalues)} of {count} modes converged in {_RESTARTS} restarts of "
            "Arnoldi's method; ask for fewer, or for a coarser grid"
        ) from error
    order = np.argsort(-np.abs(values))
    return values[order], vectors[:, order]


def _smoothed(apply: Callable[..., np.ndarray], columns: np.ndarray) -> np.ndarray:
    """Columns once more through a resolvent, which takes away rounding: high modes."""
    return np.stack([apply(column, refined=True) for column in columns.T], axis=1)


def _applied(apply: Callable[[np.ndarray], np.ndarray], columns: np.ndarray) -> np.ndarray:
    return np.stack([apply(column) for column in columns.T], axis=1)


def _real(vectors: np.ndarray) -> np.ndarray:
    """An orthonormal real basis of eigenvectors of a real matrix."""
    parts = np.concatenate([vectors.real, vectors.imag], axis=1)
    sizes = np.linalg.norm(parts, axis=0)
    parts = parts[:, sizes > _SAME * sizes.max()]
    left, sizes, _ = np.linalg.svd(parts / np.linalg.norm(parts, axis=0), full_matrices=False)
    return left[:, sizes > _SAME * sizes[0]]


def _two_sided(flows: Flows, count: int) -> _Found:
    """Modes of the generator between a space of functions and one of masses."""
    right, left = _spaces(flows, count)
    mixed, sizes, turned = np.linalg.svd(left.T @ right)
    kept = sizes > _SAME * sizes[0]
    right = right @ turned[: sizes.size][kept].T
    left = left @ (mixed[:, : sizes.size][:, kept] / sizes[kept])
    values, vectors = la.eig(left.T @ _applied(flows.on_function, right))
    order = np.argsort(_rates(flows.jumps, values).real)
    values, vectors = values[order], vectors[:, order]
    _check_rounding(flows, values[int(flows.closed) : count])
    right, left = right @ vectors, left @ np.linalg.inv(vectors).T
    if flows.closed:
        values[0] = 0.0
        law = np.asarray(masses(flows.jumps, closed_classes(flows.jumps)[0]))
        right = np.insert(right[:, 1:] - law @ right[:, 1:], 0, 1.0, axis=1)
        left = np.insert(left[:, 1:] - law[:, None] * left[:, 1:].sum(axis=0), 0, law, axis=1)
    for apply, columns in ((flows.on_function, right), (flows.on_masses, left)):
        _check_residuals(apply, (values[:count], columns[:, :count]), _clock(flows))
    return _rates(flows.jumps, values), right, left


# Results.


def _rates(jumps: Jumps, values: np.ndarray) -> np.ndarray:
    """Rates of modes from eigenvalues of A."""
    if not jumps.discrete:
        return -values
    step = float(jumps.step)
    real, imaginary = step * values.real, step * values.imag
    with np.errstate(divide="ignore"):  # what has the eigenvalue 0 of P is gone in a step
        decay = -0.5 * np.log1p(real * (2 + real) + imaginary**2)
    rates = np.empty(values.shape, complex)
    rates.real, rates.imag = decay / step, -np.arctan2(imaginary, 1 + real) / step
    return rates


def _modes(flows: Flows, found: _Found, count: int) -> Modes:
    """The first few, normalised and checked."""
    rates, right, left = (x[..., :count] for x in found)
    if not np.any(rates.imag):
        rates, right, left = rates.real, right.real, left.real
    largest = np.take_along_axis(right, np.abs(right).argmax(axis=0)[None], axis=0)
    right = right / largest
    left = left / (left * right).sum(axis=0)
    rates = rates + 0.0  # not -0
    grid = flows.jumps.grid
    with np.errstate(divide="ignore"):
        time = 1 / rates.real

    def on_grid(columns: np.ndarray) -> np.ndarray:
        values = np.zeros((count, grid.inside.size), columns.dtype)
        values[:, grid.cells] = columns.T
        return values.reshape(count, *grid.shape)

    functions, densities = jnp.asarray(on_grid(right)), jnp.asarray(on_grid(left) / grid.volumes)
    return Modes(grid, rates, functions, densities, time, time / float(flows.jumps.step))


def _check_rounding(flows: Flows, values: np.ndarray) -> None:
    """Eigenvalues of A are large against the rounding of its products."""
    usual = float(np.median(-flows.matrix.diagonal()))
    least = _ABOVE * np.finfo(float).eps * usual
    slowest = np.abs(values).min(initial=np.inf)
    if slowest < least:
        raise SolveError(
            f"a mode has a rate of about {slowest:.1e}, where rounding of the jumps (of the rate "
            f"{usual:.2g}) leaves those above {least:.1e}; ask for the mean time to a region "
            "(exit_time), which is right for rates of any size"
        )


def _check_residuals(apply: Callable[[np.ndarray], np.ndarray], found: _Pair, clock: float) -> None:
    """The columns are eigenvectors of A."""
    values, columns = found
    rest = np.linalg.norm(_applied(apply, columns) - values * columns, axis=0)
    worst = (rest / (np.abs(values) + clock) / np.linalg.norm(columns, axis=0)).max()
    if not worst <= _RESIDUAL:
        raise SolveError(
            f"a mode solves its equation to {worst:.1e} only; ask for fewer modes, or for a "
            "coarser grid"
        )
