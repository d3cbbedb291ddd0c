"""Masses of a chain in continuous time at later times: rational Krylov."""

import math
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.linalg import expm

from thalweg.markov.jumps import Jumps
from thalweg.markov.resolvent import Flows, Resolvent
from thalweg.markov.reversible import log_masses

# The difference, in L1, of two approximations that differ by a few vectors.
_TOLERANCE = 1e-10
_STRIDE = 3
# A factorisation costs as much as some sixty solves.
_VECTORS = 60
_WHOLE = 1e-14
# Times that share a space, and how many times the clock rings before their geometric mean.
_DECADE = 10.0
_POLE = 10.0
# Beyond, rounding in the norm of detailed balance would be seen in L1.
_WEIGHTED = 1e3


class Exponential:
    r"""Masses times the exponential of the generator, :math:`m e^{tA}`.

    The approximation of the exponential by a rational function with one pole, of which a Krylov
    space of the :class:`Resolvent` holds the best (van den Eshof and Hochbruck 2006, SIAM J. Sci.
    Comput. 27, 1438-1457). Vectors are added until the masses stop changing. Times within a decade
    share a space; where sixty vectors are too few the interval is halved.

    Args:
        jumps: The chain; its rates are numbers.
    """

    def __init__(self, jumps: Jumps):
        self.flows = Flows(jumps)
        grid = jumps.grid
        self.root_volumes = np.sqrt(grid.volumes.ravel()[grid.cells])
        self.longest = math.inf
        self.kept: Resolvent | None = None

    @cached_property
    def log_law(self) -> Float[np.ndarray, " cells"] | None:
        """The logarithm of the law of a reversible chain, if floating point holds its root."""
        logs = log_masses(self.flows.jumps)
        return None if logs is None or logs.min() < -1300 else logs

    def at(self, masses: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The masses at times that ascend and are above 0, a row each."""
        found = np.empty((len(times), len(masses)))
        last = len(times)
        while last > 0:
            first = int(np.searchsorted(times, times[last - 1] / _DECADE))
            found[first:last] = self._group(masses, times[first:last])
            last = first
        return found

    def _group(self, masses: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The same for times within a decade: in one go, or in two halves."""
        if not masses.any():
            return np.zeros((len(times), len(masses)))
        if times[-1] <= self.longest:
            found = self._krylov(masses, times)
            if found is not None:
                return found
            self.longest = times[-1] / 2
        half = times[-1] / 2
        late = times > half
        first = self.at(masses, np.unique(np.append(times[~late], half)))
        second = self.at(first[-1], times[late] - half)
        return np.concatenate([first[: np.count_nonzero(~late)], second])

    def _krylov(self, masses: np.ndarray, times: np.ndarray) -> np.ndarray | None:
        """The same from one Krylov space; None if the largest one is too small."""
        total = float(masses.sum())
        rate = _POLE / math.sqrt(times[0] * times[-1])
        space = _Space(self._resolvent(rate), masses, self._scale(masses))
        before = None
        while space.count < min(_VECTORS, len(masses)):
            space.grow()
            if not space.whole and space.count % _STRIDE:
                continue
            now = space.at(times[[0, -1]])
            if space.whole or (before is not None and _near(now, before, total)):
                found = space.at(times)
                positive = np.maximum(found, 0.0)
                if space.whole or (
                    _near(found, space.at(times, space.count - _STRIDE), total)
                    and _near(found, positive, total)
                ):
                    return self._conserved(positive, total)
            before = now
        return None

    def _conserved(self, found: np.ndarray, total: float) -> np.ndarray:
        """Without the rounding of the mass, where it is known."""
        if not self.flows.closed:
            return found
        return found * (total / found.sum(axis=1, keepdims=True))

    def _scale(self, masses: np.ndarray) -> np.ndarray:
        """The root of the weights of the norm in which vectors are orthogonal.

        The volumes make it the L2 norm of densities, which serves every start. In the norm of
        detailed balance, that of (p - q)^2 over the law, the operator is symmetric and tails of
        the density come out to their own size, but a start where the law has next to no mass is so
        large in it that nothing would be left in L1.
        """
        if self.log_law is None:
            return self.root_volumes
        root = np.exp(self.log_law / 2)
        with np.errstate(over="ignore"):
            size = np.linalg.norm(masses / root) * np.linalg.norm(root)
        return root if size <= _WEIGHTED * masses.sum() else self.root_volumes

    def _resolvent(self, rate: float) -> Resolvent:
        if self.kept is None or self.kept.rate != rate:
            self.kept = None  # frees its memory before the next takes it
            self.kept = Resolvent(self.flows, rate)
        return self.kept


class _Space:
    """Masses, and what a resolvent makes of them again and again, made orthogonal.

    Vectors are masses over ``scale``. On the space R^{-1}, and with it the generator, is the
    inverse of a small matrix.
    """

    def __init__(self, resolvent: Resolvent, masses: np.ndarray, scale: np.ndarray):
        self.resolvent, self.scale = resolvent, scale
        size = min(_VECTORS, len(masses))
        self.basis = np.empty((size + 1, len(masses)))
        self.projected = np.zeros((size + 1, size))
        start = masses / scale
        self.norm = float(np.linalg.norm(start))
        self.basis[0] = start / self.norm
        self.count = 0
        self.whole = False

    def grow(self) -> None:
        """Add a vector; ``whole`` says that it lay in the space, which then holds the answer."""
        k = self.count
        fresh = self.resolvent.of_masses(self.basis[k] * self.scale) / self.scale
        size = np.linalg.norm(fresh)
        basis = self.basis[: k + 1]
        for _ in range(2):  # once leaves rounding of the size of what is taken away
            shares = basis @ fresh
            fresh = fresh - shares @ basis
            self.projected[: k + 1, k] += shares
        rest = float(np.linalg.norm(fresh))
        self.projected[k + 1, k] = rest
        self.count = k + 1
        self.whole = bool(rest <= _WHOLE * size) or self.count == len(fresh)
        if not self.whole:
            self.basis[k + 1] = fresh / rest

    def at(self, times: np.ndarray, count: int | None = None) -> np.ndarray:
        """The masses at times, from all vectors or the first few: shape (times, cells)."""
        k = self.count if count is None else count
        shares = _exponentials(self.projected[:k, :k], self.resolvent.rate * times)
        with np.errstate(over="ignore", invalid="ignore"):
            return ((self.norm * shares) @ self.basis[:k]) * self.scale


def _exponentials(resolvent: np.ndarray, times: np.ndarray) -> np.ndarray:
    r"""The first columns of :math:`e^{t (I - R^{-1})}`, a row each, for a small matrix R.

    By the eigenvectors of R, unless they are so close to dependent that its inverse has less
    rounding: values of R next to 0, those of fast jumps, have no part in the exponential, but
    through the inverse their rounding would be seen in the slowest of modes.
    """
    values, vectors = np.linalg.eig(resolvent)
    # A space still too small may have values that grow: infinities count as no answer.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.linalg.cond(vectors) < np.linalg.cond(resolvent):
            alive = np.abs(values) > _WHOLE
            start = np.linalg.solve(vectors, np.eye(len(values))[0])[alive]
            powers = np.exp(np.multiply.outer(times, 1 - 1 / values[alive]))
            return ((powers * start) @ vectors[:, alive].T).real
        generator = np.eye(len(values)) - np.linalg.inv(resolvent)
        return np.array([expm(time * generator)[:, 0] for time in times])


def _near(found: np.ndarray, other: np.ndarray, total: float) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((np.abs(found - other).sum(axis=1) <= _TOLERANCE * total).all())
