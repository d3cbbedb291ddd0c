"""The gauge during a run, and what is switched by it."""

import time
from typing import Any

import numpy as np

from thalweg.sampling import AbstractSampler, Minibatch
from thalweg.sampling.base import population_index
from thalweg.sampling.rolling import Rolling
from thalweg.sampling.scored import AbstractKept, AbstractScored
from thalweg.train.advance import Promise, advance, judged, losses_of, promise
from thalweg.train.auto import Auto, Choice
from thalweg.train.crew import Crew
from thalweg.train.gauge import Gauge, check_gauged, gauge
from thalweg.train.step import Carry, Member, stream_of

# Which of the words of a step are the gauge's: no sampler folds its stream by so large a number.
_WORDS = 2**20
# Steps of each sampler that are timed before training.
_TRIED = 64
# The share of the time that an Auto's gauges may take.
_SHARE = 0.01


class Gauging:
    """Gauges at a chosen rate, and the choice of an :class:`Auto`.

    The gauge looks at the first member that still moves; with an ``Auto`` all members go by it.

    Args:
        sampler: The run's, or an ``Auto``. A sampler without scores is compared with the candidate
            an ``Auto`` would have.
        every: Steps between gauges.
        scores: The kind of scores.

    Raises:
        InputError: A sampler that the gauge cannot tell the variance of.
    """

    def __init__(self, sampler: AbstractSampler | Auto, every: int, scores: str):
        self.switches = isinstance(sampler, Auto)
        self._auto = _compared(sampler)
        self.every, self._scores = every, scores
        self.choice = Choice(active=isinstance(sampler, AbstractScored))
        # Seconds and steps of the plain sampler and of the candidate.
        self._times = [[0.0, 0], [0.0, 0]]
        # The last gauge: its step, its member, what was promised there; and what a gauge takes.
        self._last: tuple[int, int, Promise] | None = None
        self._cost, self._since = 0.0, 0.0

    @property
    def sampler(self) -> AbstractSampler:
        """Who draws now."""
        return self._auto.candidate if self.choice.active else self._auto.plain

    @property
    def other(self) -> AbstractSampler:
        """Who does not."""
        return self._auto.plain if self.choice.active else self._auto.candidate

    def timed(self, seconds: float, steps: int) -> None:
        """So many steps of the sampler that draws have taken so long."""
        entry = self._times[int(self.choice.active)]
        entry[0], entry[1] = entry[0] + seconds, entry[1] + steps
        self._since += seconds

    def due(self, step: int) -> bool:
        """Whether to look before a step; an ``Auto`` waits until it can afford to."""
        affordable = not self.switches or self._cost <= _SHARE * self._since
        return step % self.every == 0 and affordable

    def warm(self, crew: Crew, step: int) -> None:
        """Compile what a gauge runs, and see how long it takes."""
        kept = self._last, self._since, self.choice
        self.measured(crew, step)
        begun = time.perf_counter()
        self.measured(crew, step + 1)
        self._cost = time.perf_counter() - begun
        self._last, self._since, self.choice = kept

    def tried(self, crew: Crew, step: int, candidate: bool) -> None:
        """Time some steps of the sampler that draws now, and leave everything as it is."""
        sampler, kept = crew.work.sampler, crew.carries
        entry = self._times[int(candidate)]
        if entry[1]:
            return
        begun = time.perf_counter()
        crew.advance(step, step + _TRIED)
        entry[0] = time.perf_counter() - begun
        if isinstance(sampler, AbstractScored) and sampler.refresh is not None:
            begun = time.perf_counter()
            crew.refresh(0)
            entry[0] += (time.perf_counter() - begun) * _TRIED / sampler.refresh
        entry[1] = _TRIED
        crew.carries = kept

    def measured(self, crew: Crew, step: int) -> Gauge:
        """The gauge at a step."""
        member, carry = crew.first_moving()
        index = self._index(crew, member, step)
        samples = crew.samples(index)
        found = self._gauge(crew, carry, step, index, samples)
        here = promise(crew.work, member, carry, samples, found)
        trace, self.choice = self._auto.expected(found, self.choice)
        number = int(member.number)
        if self._last is not None and self._last[1] == number:
            before, _, promised = self._last
            now = losses_of(crew.work, carry, crew.samples(self._index(crew, member, before)))
            seen = advance(promised, here, np.asarray(now, float), step - before)
            found = judged(found, seen, draws_by_scores=self.choice.active, trace_rr=trace)
        self._last, self._since = (step, number, here), 0.0
        return found

    def _index(self, crew: Crew, member: Member, step: int) -> Any:
        """The samples of the gauge at a step."""
        stream = stream_of(crew.setting, member, step).folded(_WORDS)
        return population_index(crew.setting.population, stream, self._auto.samples)

    def _gauge(self, crew: Crew, carry: Carry, step: int, index: Any, samples: Any) -> Gauge:
        auto, population = self._auto, crew.setting.population
        kept = None
        if self.choice.active and isinstance(auto.candidate, AbstractKept) and auto.candidate.keeps:
            kept = auto.candidate.kept_at(population, carry.sampler, index)
        subset = isinstance(auto.plain, Minibatch) and not auto.plain.replace
        return gauge(
            crew.work.objective,
            carry.params,
            carry.state,
            samples,
            sampler=auto.candidate,
            cost_ratio=self._cost_ratio(crew),
            step=step,
            kept=kept,
            scores=self._scores,
            n=population.n if subset else None,
        )

    def decide(self, found: Gauge) -> bool:
        """Whether the gauge has another sampler draw from now on."""
        before = self.choice.active
        if self.switches:
            self.choice = self._auto.decide(found, self.choice)
        return self.choice.active != before

    def saved(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        last = None
        if self._last is not None:
            step, number, (*numbers, losses) = self._last
            last = [step, number, [*numbers, losses.tolist()]]
        return {
            "choice": list(self.choice),
            "times": self._times,
            "last": last,
            "since": self._since,
        }

    def take(self, saved: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.choice = Choice(*saved["choice"])
        self._times = [list(entry) for entry in saved["times"]]
        self._since = saved["since"]
        if saved["last"] is not None:
            step, number, (decrease, error, rate, losses) = saved["last"]
            self._last = step, number, Promise(decrease, error, rate, np.asarray(losses))

    def _cost_ratio(self, crew: Crew) -> float:
        """The candidate's seconds a step over the plain sampler's: measured if both have run."""
        if any(steps == 0 for _, steps in self._times):
            return self._auto.assumed_cost(crew.setting.population)
        plain, candidate = (seconds / steps for seconds, steps in self._times)
        return candidate / plain


def _compared(sampler: AbstractSampler | Auto) -> Auto:
    if isinstance(sampler, Auto):
        return sampler
    size = int(getattr(sampler, "size", 1))
    if isinstance(sampler, AbstractScored):
        check_gauged(sampler)
        return Auto(size, sampler)
    return Auto(size, Rolling(size), plain=sampler)
