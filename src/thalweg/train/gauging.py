"""The gauge during a run, and what is switched by it."""

from typing import Any

from thalweg.sampling import AbstractSampler, Minibatch
from thalweg.sampling.base import population_index
from thalweg.sampling.rolling import Rolling
from thalweg.sampling.scored import AbstractKept, AbstractScored
from thalweg.train.auto import Auto, Choice
from thalweg.train.crew import Crew
from thalweg.train.gauge import Gauge, check_gauged, gauge
from thalweg.train.step import stream_of

# Which of the words of a step are the gauge's: no sampler folds its stream by so large a number.
_WORDS = 2**20
# Steps of a sampler that are timed before its time is believed.
_TIMED = 100


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

    def measured(self, crew: Crew, step: int) -> Gauge:
        """The gauge at a step."""
        auto, population = self._auto, crew.setting.population
        member, carry = crew.first_moving()
        stream = stream_of(crew.setting, member, step).folded(_WORDS)
        index = population_index(population, stream, auto.samples)
        kept = None
        if self.choice.active and isinstance(auto.candidate, AbstractKept) and auto.candidate.keeps:
            kept = auto.candidate.kept_at(population, carry.sampler, index)
        subset = isinstance(auto.plain, Minibatch) and not auto.plain.replace
        return gauge(
            crew.work.objective,
            carry.params,
            carry.state,
            crew.samples(index),
            sampler=auto.candidate,
            cost_ratio=self._cost(crew),
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
        return {"choice": list(self.choice), "times": self._times}

    def take(self, saved: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.choice = Choice(*saved["choice"])
        self._times = [list(entry) for entry in saved["times"]]

    def _cost(self, crew: Crew) -> float:
        """The candidate's seconds a step over the plain sampler's: measured once both have run."""
        if any(steps < _TIMED for _, steps in self._times):
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
