"""Switching resampling-reweighting on only where it pays."""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from thalweg.errors import InputError
from thalweg.problem import FiniteSum
from thalweg.sampling.base import AbstractSampler, check_size
from thalweg.sampling.minibatch import Minibatch
from thalweg.sampling.rolling import Rolling
from thalweg.sampling.scored import AbstractScored
from thalweg.train.gauge import FEWEST, Gauge, check_gauged

# A switch needs a difference of so many standard errors.
_ERRORS = 2.0
# A sample's gradient norm, in gradients.
_NORM = 0.6


class Choice(NamedTuple):
    """What :class:`Auto` has decided, and what it has learned.

    Attributes:
        active: Whether the candidate draws; otherwise the plain sampler.
        staleness: By how much the variance was larger with kept scores than with fresh ones, when
            last seen; at least one.
    """

    active: bool
    staleness: float = 1.0


@dataclass(frozen=True, init=False)
class Auto:
    r"""SGD, and resampling-reweighting as long as the gauge says that it pays.

    Training starts with the plain sampler. At every gauge the candidate's variance ratio R
    (:class:`thalweg.train.gauge.Gauge`) is compared with the ratio of costs: it is switched on at
    :math:`R - 2\sigma_R > c` and off at :math:`R + 2\sigma_R < c`, and in between all stays as it
    is. While the candidate draws and its table is full, R is measured with the scores it keeps;
    before, it is that of fresh scores divided by the staleness seen last. So what fresh scores
    promise and kept ones do not hold is tried once and not again and again.

    Args:
        size: The batch size B of both.
        candidate: The sampler to switch to; ``Rolling(size)`` unless given.
        plain: The sampler to start with; ``Minibatch(size)`` unless given.
        every: Steps between gauges. One costs as much as some 2 ``samples``/B steps of SGD.
        samples: Samples of a gauge.

    Raises:
        InputError: Batch sizes that differ, a candidate whose variance the gauge cannot tell
            (biased, or by group), numbers below one.
    """

    size: int
    candidate: AbstractScored
    plain: AbstractSampler
    every: int
    samples: int

    def __init__(
        self,
        size: int,
        candidate: Any = None,
        *,
        plain: AbstractSampler | None = None,
        every: int = 1000,
        samples: int = 512,
    ):
        check_size("Auto", size)
        own = Rolling(size) if candidate is None else candidate
        check_gauged(own)
        if own.size != size:
            raise InputError(
                f"the candidate has the batch size {own.size}, and Auto {size}; expected one size"
            )
        for name, number, least in (("every", every, 1), ("samples", samples, FEWEST)):
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise InputError(f"{name} is a whole number, at least {least}; got {number!r}")
        values = (size, own, Minibatch(size) if plain is None else plain, every, samples)
        for entry, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, entry.name, value)

    @property
    def first(self) -> Choice:
        """Where training starts: the plain sampler."""
        return Choice(active=False)

    def assumed_cost(self, problem: FiniteSum) -> float:
        """The cost ratio before both programs have been timed: a norm is .6 of a gradient."""
        return 1 + _NORM * (self.candidate.evaluations(problem) - self.size) / self.size

    def decide(self, gauge: Gauge, choice: Choice) -> Choice:
        """The choice after a gauge."""
        ratio, error, staleness = gauge.fresh_ratio, gauge.fresh_ratio_error, choice.staleness
        if choice.active and gauge.known == 1:
            ratio, error = gauge.variance_ratio, gauge.variance_ratio_error
            if gauge.trace_fresh > 0:
                staleness = max(1.0, gauge.trace_rr / gauge.trace_fresh)
        else:
            ratio, error = ratio / staleness, error / staleness
        if math.isinf(ratio):
            return Choice(True, staleness)
        if choice.active:
            return Choice(ratio + _ERRORS * error >= gauge.cost_ratio, staleness)
        return Choice(ratio - _ERRORS * error > gauge.cost_ratio, staleness)
