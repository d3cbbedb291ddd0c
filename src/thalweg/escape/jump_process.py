"""The jump process between minima: at low noise the whole dynamics, seen from far away."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csgraph
from scipy.special import logsumexp

from thalweg.errors import InputError
from thalweg.escape.kramers import kramers_law
from thalweg.escape.laplace import log_mass
from thalweg.escape.rate import Rate
from thalweg.noise import checked_number

LogRates = Float[np.ndarray, "minima minima"]


@dataclass(frozen=True, eq=False)
class JumpProcess:
    r"""Jumps between the minima of a graph with the rates of Eyring and Kramers.

    All is kept in logarithms and eliminated without subtractions (W. K. Grassmann, M. I. Taksar and
    D. P. Heyman, 1985), so that times of 1e300 and beyond keep their digits. Minima are numbered as
    in the graph.

    Attributes:
        log_rates: The logarithms of the rates from i (rows) to j per unit of time; minus infinity
            where no saddle joins them, and on the diagonal.
        log_law: The logarithms of the stationary law: the Laplace weights, by detailed balance.
        passages: The rate over each saddle from each of its two sides, as (saddle, from, to).
        step: The step of what it describes, for times in steps; None if there is none.
    """

    log_rates: LogRates
    log_law: Float[np.ndarray, " minima"]
    passages: dict[tuple[int, int, int], Rate]
    step: float | None = None

    @property
    def rates(self) -> Float[np.ndarray, "minima minima"]:
        """The rate matrix: rates from i to j, and minus their sums on the diagonal."""
        rates = np.exp(self.log_rates)
        return rates - np.diag(rates.sum(axis=1))

    @property
    def law(self) -> Float[np.ndarray, " minima"]:
        """The stationary law."""
        return np.exp(self.log_law)

    @property
    def valid(self) -> bool:
        """Whether every passage is."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why not, for the first passage that is not valid; else empty."""
        named = (
            f"from minimum {here} over saddle {over} {rate.reason}"
            for (over, here, _), rate in self.passages.items()
            if not rate.valid
        )
        return next(named, "")

    def log_times_to(self, target: Any) -> Float[np.ndarray, " minima"]:
        """The logarithms of the mean first passage times into some minima.

        Minus infinity from the targets themselves, infinite where there is no way. They are those
        of the dynamics where the targets hold every minimum that is deeper than where one starts.
        Into a shallow one alone, the mean of the dynamics may be far longer: it belongs to the few
        paths that miss the target and wait in a deeper minimum, which jumps to neighbours leave
        out.

        Args:
            target: A number of a minimum, or several.

        Raises:
            InputError: No target, or none of the minima.
        """
        targets = _checked_targets(target, self.log_law.size)
        piece = csgraph.connected_components(np.isfinite(self.log_rates), directed=False)[1]
        times = np.full(self.log_law.size, np.inf)
        times[targets] = -np.inf
        others = np.flatnonzero(np.isin(piece, piece[targets]) & (times > 0))
        leaving = np.logaddexp.reduce(self.log_rates[np.ix_(others, targets)], axis=1)
        times[others] = _log_times(self.log_rates[np.ix_(others, others)], leaving)
        return times

    def times_to(self, target: Any) -> Float[np.ndarray, " minima"]:
        """The mean first passage times into some minima, in units of time: see log_times_to."""
        return _exp(self.log_times_to(target))

    def steps_to(self, target: Any) -> Float[np.ndarray, " minima"]:
        """The same in steps.

        Raises:
            InputError: As :meth:`log_times_to`; a process without a step.
        """
        if self.step is None:
            raise InputError("the process has no step; give one to jump_process")
        return _exp(self.log_times_to(target) - math.log(self.step))

    @property
    def log_relaxation_time(self) -> float:
        r"""The logarithm of the slowest time :math:`1/\lambda_2` in which laws become stationary.

        The largest eigenvalue of the deviation matrix, :math:`D_{ij} = \pi_j (\sum_k \pi_k m_{kj} -
        m_{ij})` with the mean first passage times m, whose eigenvalues are the inverse rates:
        relaxation that is faster by any factor does not disturb it. Infinite where minima are not
        joined.
        """
        count = self.log_law.size
        if count == 1:
            return -math.inf
        # Column j: pi_j m_ij.
        logs = np.stack([self.log_times_to(j) + self.log_law[j] for j in range(count)], axis=1)
        scale = logs.max()
        if math.isinf(scale):
            return math.inf
        weighted = np.exp(logs - scale)
        deviation = self.law @ weighted - weighted
        # Similar to it and symmetric, of each pair of entries the one with less cancellation.
        below = np.minimum(0.0, 0.5 * (self.log_law[:, None] - self.log_law))
        entries = np.exp(below) * deviation
        entries = np.where(below < 0, entries, entries.T)
        return float(scale + math.log(np.linalg.eigvalsh(entries)[-1]))

    @property
    def relaxation_time(self) -> float:
        """The slowest time of relaxation, in units of time: see log_relaxation_time."""
        return float(_exp(self.log_relaxation_time))


def jump_process(graph: Any, *, temperature: float, step: float | None = None) -> JumpProcess:
    r"""The jump process between the minima of a graph at a low temperature.

    .. math:: k_{ij} = \sum_{\text{saddles between i and j}} \frac{\lambda_*}{2 \pi}
              \sqrt{\frac{\det H_i}{|\det H_*|}}\, e^{-(f_* - f_i)/T},

    the inverse of :func:`kramers_law`'s time to the other minimum; several saddles between two
    minima add. With the Laplace weights :math:`\pi_i` the flow :math:`\pi_i k_{ij}` depends on the
    saddle alone, so that there is detailed balance. For constant isotropic noise.

    Args:
        graph: What :func:`thalweg.critical_points` returns: ``minima``, ``saddles`` and, for each
            saddle, the pair ``joins`` of minima that it joins. Saddles with a way out of the box
            (-1), or back to the same minimum, do not count: the box is taken as all there is.
        temperature: T, in units of f; noise of covariance 2T per unit of time.
        step: :math:`\eta`, for times in steps.

    Raises:
        InputError: No minima; a temperature that is not above zero; points of another index than
            they should have, or a saddle below a minimum.

    Cost: n^3 operations a set of targets, with n minima; n^4 for the relaxation time.

    Source: A. Bovier, M. Eckhoff, V. Gayrard and M. Klein, J. Eur. Math. Soc. 6 and 7 (2004, 2005).
    """
    if not graph.minima:
        raise InputError("the graph has no minima; expected at least one")
    T = float(checked_number("temperature", temperature, "above 0"))
    size = None if step is None else float(checked_number("step", step, "above 0"))
    law = np.array([log_mass(point, T) - float(point.value) / T for point in graph.minima])
    rates = np.full((law.size, law.size), -np.inf)
    passages = {}
    for over, (saddle, ends) in enumerate(zip(graph.saddles, graph.joins, strict=True)):
        if min(ends) < 0 or ends[0] == ends[1]:
            continue
        for here, there in (ends, ends[::-1]):
            rate = kramers_law(graph.minima[here], saddle, temperature=T, step=size)
            passages[over, here, there] = rate
            rates[here, there] = np.logaddexp(rates[here, there], -rate.log_time)
    return JumpProcess(rates, law - logsumexp(law), passages, size)


def _checked_targets(target: Any, count: int) -> Int[np.ndarray, " targets"]:
    targets = np.unique(np.atleast_1d(np.asarray(target)))
    whole = targets.size and np.issubdtype(targets.dtype, np.integer)
    if not whole or targets[0] < 0 or targets[-1] >= count:
        raise InputError(f"target is {target!r}; expected numbers of minima from 0 to {count - 1}")
    return targets


def _log_times(
    log_rates: Float[np.ndarray, "n n"], leaving: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Logarithms of mean times until some states are left, from rates between them and out."""
    rates, leaving, n = log_rates.copy(), leaving.copy(), leaving.size
    time, out = np.zeros(n), np.empty(n)
    for k in reversed(range(n)):
        out[k] = np.logaddexp.reduce(np.append(rates[k, :k], leaving[k]))
        through = rates[:k, k] - out[k]
        time[:k] = np.logaddexp(time[:k], through + time[k])
        leaving[:k] = np.logaddexp(leaving[:k], through + leaving[k])
        rates[:k, :k] = np.logaddexp(rates[:k, :k], through[:, None] + rates[k, :k])
    for k in range(n):
        before = np.logaddexp.reduce(rates[k, :k] + time[:k])
        time[k] = np.logaddexp(time[k], before) - out[k]
    return time


def _exp(log: Any) -> Any:
    """The exponential, infinite beyond 1e308."""
    with np.errstate(over="ignore"):
        return np.exp(log)
