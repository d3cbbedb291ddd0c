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
from thalweg.train.advance import ERRORS
from thalweg.train.gauge import FEWEST, Gauge, check_gauged

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

    Training starts with the plain sampler. At every gauge it is estimated by how much the loss
    would be lower at this time, had the candidate drawn from the start: less variance lowers it,
    and longer steps leave fewer of them (:mod:`thalweg.train.advance`). The candidate is switched
    on where that gain is beyond two standard errors above zero, and off where it is beyond them
    below; in between all stays as it is. While it draws and its table is full, its variance is
    that of the scores it keeps; before, that of fresh scores times the staleness seen last. So
    what fresh scores promise and kept ones do not hold is tried once and not again and again.

    Both samplers' steps are timed before training, and then as they are taken. Gauges are left out
    as long as they would take more than a hundredth of the time.

    Args:
        size: The batch size B of both.
        candidate: The sampler to switch to; ``Rolling(size)`` unless given.
        plain: The sampler to start with; ``Minibatch(size)`` unless given.
        every: Steps between gauges, at least. One costs as much as some 4 ``samples``/B steps.
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

    def expected(self, gauge: Gauge, choice: Choice) -> tuple[float, Choice]:
        """The trace that the candidate has or would have, and what has been learned of it."""
        if not choice.active or gauge.known < 1:
            return gauge.trace_fresh * choice.staleness, choice
        if gauge.trace_fresh > 0:
            choice = choice._replace(staleness=max(1.0, gauge.trace_rr / gauge.trace_fresh))
        return gauge.trace_rr, choice

    def decide(self, gauge: Gauge, choice: Choice) -> Choice:
        """The choice after a gauge; as before where only variances are known."""
        if math.isnan(gauge.gain):
            return choice
        sure = ERRORS * gauge.gain_error
        active = gauge.gain + sure >= 0 if choice.active else gauge.gain - sure > 0
        return choice._replace(active=active)
