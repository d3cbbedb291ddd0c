"""Steps on samples that are read when they are needed."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from thalweg.sampling import Draw
from thalweg.sampling.scored import AbstractScored
from thalweg.train import programs
from thalweg.train.source import DividedSource, Source
from thalweg.train.step import Carry, Member, Setting, Work

# Steps whose draws are made together, and whose samples are read ahead.
_ROOM = 64


class Streamed:
    """The steps of some members on a source.

    A sampler that does not look at the parameters draws for many steps at once, and the samples are
    read ahead of the steps; one that draws by scores has its samples read as it draws.
    """

    def __init__(
        self,
        work: Work,
        many: bool,
        setting: Setting,
        member: Member,
        source: Source | DividedSource,
    ):
        self._static = work, many
        self._work, self._setting, self._member, self._source = work, setting, member, source

    def advanced(self, carry: Carry, begin: int, end: int) -> Carry:
        """The carry after steps ``begin`` to ``end``."""
        if isinstance(self._work.sampler, AbstractScored):
            for step in range(begin, end):
                carry = self._by_scores(carry, np.int32(step))
            return carry
        for first in range(begin, end, _ROOM):
            carry = self._ahead(carry, first, min(first + _ROOM, end))
        return carry

    def places(self, carry: Carry, step: int) -> np.ndarray:
        """The samples that a step draws."""
        if isinstance(self._work.sampler, AbstractScored):
            return np.asarray(self._drawn(carry, np.int32(step))[0].index)
        return self._draws(carry, step, step + 1)[0][0]

    def _ahead(self, carry: Carry, begin: int, end: int) -> Carry:
        """Steps whose draws are known before the first of them."""
        places, weights, sampler = self._draws(carry, begin, end)
        for k, batch in enumerate(self._source.read(list(places))):
            step = np.int32(begin + k)
            carry = self._after(carry, carry.sampler, batch, weights[k], step)
        return carry._replace(sampler=sampler)

    def _draws(self, carry: Carry, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, Any]:
        """Samples and weights of steps, the steps first, and the sampler's state after them."""
        bounds = np.int32(begin), np.int32(end)
        index, weights, sampler = programs.draws_ahead(
            *self._static, _ROOM, self._setting, self._member, carry, *bounds
        )
        axis = int(self._static[1])
        steps_first = (np.moveaxis(np.asarray(x), axis, 0)[: end - begin] for x in (index, weights))
        return *steps_first, sampler

    def _drawn(self, carry: Carry, step: Any) -> tuple[Draw, Any, Array | None, Any]:
        """The draw before corrections, the sampler's state; what was scored before, and who."""
        asked = programs.asked(*self._static, self._setting, self._member, carry, step)
        samples = None if asked is None else self._source.at(np.asarray(asked))
        draw, sampler = programs.drawn_after(
            *self._static, self._setting, self._member, carry, asked, samples, step
        )
        return draw, sampler, asked, samples

    def _by_scores(self, carry: Carry, step: Any) -> Carry:
        if self._work.reuses:
            asked = programs.asked(*self._static, self._setting, self._member, carry, step)
            samples = self._source.at(np.asarray(asked))
            return programs.after_candidates(
                *self._static, self._setting, self._member, carry, asked, samples, step
            )
        draw, sampler, asked, samples = self._drawn(carry, step)
        batch = self._found(draw, asked, samples)
        assert isinstance(self._work.sampler, AbstractScored)
        if self._work.sampler.needs_current:
            draw = programs.corrected(*self._static, self._setting, carry, sampler, draw, batch)
        kept = sampler if self._work.sampler.keeps else carry.sampler
        return self._after(carry, kept, batch, draw.weights, step)

    def _found(self, draw: Draw, asked: Array | None, samples: Any) -> Any:
        """The samples drawn: among those that were scored, if they are there, else read."""
        index = np.asarray(draw.index)
        if asked is None or self._static[1]:
            return self._source.at(index)
        places = np.asarray(asked)
        order = np.argsort(places, kind="stable")
        at = order[np.minimum(np.searchsorted(places[order], index), len(places) - 1)]
        if np.array_equal(places[at], index):
            return jax.tree.map(lambda x: x[at], samples)
        return self._source.at(index)

    def _after(self, carry: Carry, sampler: Any, batch: Any, weights: Any, step: Any) -> Carry:
        return programs.after_batch(
            *self._static, self._member, carry, sampler, batch, weights, step
        )
