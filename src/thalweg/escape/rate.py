"""An asymptotic mean time, and whether to believe it."""

import math
from dataclasses import dataclass, replace

import numpy as np

from thalweg.errors import InputError
from thalweg.escape.anharmonic import TOLERATED

# The least barrier, in the exponent, for which the law is of use: T = .4 H.
_LEAST = 2.5


@dataclass(frozen=True)
class Rate:
    r"""An asymptotic mean time to leave a minimum, and whether to believe it.

    Attributes:
        time: The mean time from the minimum to the one on the other side of the saddle, in units
            of time t; infinite beyond 1e308.
        log_time: Its natural logarithm, whatever its size.
        steps: The same in steps, time over step; None where no step is known.
        to_saddle: The mean time to the saddle itself: half of it, unless the saddle is a kink.
        exponent: The barrier in units of the noise: the time is a power of e of this times what
            changes little with the noise.
        correction: The relative change of the time by the next order in the noise: exact for noise
            that is constant or isotropic, in any dimension, else an estimate of its size. None
            where it is not known: at kinks, and from a temperature alone.
        valid: Whether the number is to be believed within some tens of per cent.
        reason: Why not, else empty.
    """

    time: float
    log_time: float
    steps: float | None
    to_saddle: float
    exponent: float
    correction: float | None
    valid: bool
    reason: str

    @property
    def prefactor(self) -> float:
        """The time without its exponential; infinite without noise."""
        if math.isinf(self.exponent):
            return math.inf
        return math.exp(self.log_time - self.exponent)


def in_parallel(*rates: Rate) -> Rate:
    r"""The way out through any of several saddles: rates add, :math:`1/\tau = \sum_k 1/\tau_k`.

    The exponent is that of the fastest; it is valid if all are that matter (a hundredth or more of
    the rate).

    Raises:
        InputError: No rates.
    """
    if not rates:
        raise InputError("no rates are given; expected at least one")
    logs = np.array([rate.log_time for rate in rates])
    fastest = rates[int(logs.argmin())]
    if math.isinf(logs.min()):
        return fastest
    shares = np.exp(logs.min() - logs)
    total, shares = shares.sum(), shares / shares.sum()
    matter = [rate for rate, share in zip(rates, shares, strict=True) if share >= 1e-2]
    doubtful = next((rate for rate in matter if not rate.valid), None)
    there = sum(1 / rate.to_saddle for rate in rates)
    known = all(rate.correction is not None for rate in matter)
    corrections = [rate.correction or 0.0 for rate in rates]
    return replace(
        fastest,
        time=fastest.time / total,
        log_time=float(logs.min() - math.log(total)),
        steps=None if fastest.steps is None else fastest.steps / total,
        to_saddle=1 / there if there else math.inf,
        correction=float(shares @ corrections) if known else None,
        valid=doubtful is None,
        reason="" if doubtful is None else doubtful.reason,
    )


def judged(
    log_time: float,
    exponent: float,
    share: float,
    step: float | None,
    *doubts: str,
    correction: float | None = None,
) -> Rate:
    """The rate of a logarithm of a time, with what speaks against it.

    Args:
        log_time: The logarithm of the mean time to the other minimum.
        exponent: The barrier in units of the noise.
        share: Of the time, until the saddle.
        step: Of the dynamics, if it has one.
        doubts: Reasons not to believe it; empty ones do not count.
        correction: The next order, if it is known.
    """
    time = math.exp(log_time) if log_time < math.log(np.finfo(float).max) else math.inf
    reasons = [doubt for doubt in doubts if doubt]
    if not exponent >= _LEAST:
        reasons.append(
            f"the barrier is {exponent:.3g} in units of the noise: too hot for a rate, which takes "
            f"{_LEAST:g} or more; ask the grid or a simulation"
        )
    elif correction is not None and not abs(correction) <= TOLERATED:
        reasons.append(
            f"the next order changes the time by {100 * correction:+.0f} %: too hot for the shape "
            "of minimum or saddle; ask the grid or a simulation"
        )
    return Rate(
        time=time,
        log_time=float(log_time),
        steps=None if step is None else time / step,
        to_saddle=time * share,
        exponent=float(exponent),
        correction=correction,
        valid=not reasons,
        reason="; ".join(reasons),
    )


def never(reason: str, step: float | None) -> Rate:
    """The rate without noise."""
    steps = None if step is None else math.inf
    return Rate(math.inf, math.inf, steps, math.inf, math.inf, None, False, reason)
