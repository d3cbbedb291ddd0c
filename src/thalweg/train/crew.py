"""All members of a training and where they are: in one program, or in turn."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from thalweg.loops import holds_convolution
from thalweg.sampling import AbstractSampler
from thalweg.sampling.scored import AbstractScored
from thalweg.train import programs
from thalweg.train.arguments import Start
from thalweg.train.source import Source
from thalweg.train.step import Carry, Member, Setting, Work
from thalweg.train.streaming import Streamed

# Samples scored at once, all members together.
_SCORED = 4096


class Crew:
    """The members, and what moves them.

    Members share one program, with a leading axis, but for steps that convolve on the CPU: these
    run faster in turn, by one program for a single member, called by Python, for convolutions in a
    compiled loop are slow there. Nothing of a member depends on how many there are beside it, but
    for the rounding of sums in another order.

    Args:
        work: What a step does.
        setting: The arrays that members share.
        start: Who they are and where they begin.
        source: The samples, if they are streamed.
    """

    def __init__(self, work: Work, setting: Setting, start: Start, source: Source | None):
        self.setting, self.source, self.alone = setting, source, start.alone
        self.count = start.count
        members, params, state = start.members, start.params, start.state
        first = row((members, params, state), 0)
        self.by_python = jax.default_backend() == "cpu" and _convolves(work, setting, source, first)
        self.work = _written_out(work) if self.by_python else work
        self.many = not start.alone and not self.by_python
        self.groups, starts = [members], [(params, state)]
        if not self.many:
            self.groups = [row(members, j) for j in range(self.count)]
            starts = [row((params, state), j) for j in range(self.count)]
        self.carries = [
            programs.begun(self.work, self.many, setting, group, *own)
            for group, own in zip(self.groups, starts, strict=True)
        ]

    def advance(self, begin: int, end: int) -> None:
        """Steps ``begin`` to ``end``; all of them or, if interrupted, none."""
        pairs = zip(self.groups, self.carries, strict=True)
        moved = [self._advanced(group, carry, begin, end) for group, carry in pairs]
        self.carries = jax.block_until_ready(moved)

    def refresh(self, step: int) -> None:
        """Scores taken anew for the samplers that keep them."""
        every = _refreshes(self.work)
        if every and step % every == 0:
            pairs = zip(self.groups, self.carries, strict=True)
            self.carries = [self._refreshed(group, carry, step) for group, carry in pairs]
            jax.block_until_ready(self.carries)

    def warm(self, step: int) -> None:
        """Compile what :meth:`advance` and :meth:`refresh` run, and leave everything as it is."""
        kept = self.carries
        if _refreshes(self.work):
            self.carries = [
                self._refreshed(group, carry, step, first_chunk=True)
                for group, carry in zip(self.groups, kept, strict=True)
            ]
        looped = self.source is None and not self.by_python
        self.advance(step, step if looped else step + 1)
        self.carries = kept

    def switch(self, sampler: AbstractSampler) -> None:
        """Another sampler draws from now on; it knows nothing yet."""
        self.work = replace(self.work, sampler=sampler)
        self.carries = [
            programs.handed_over(self.work, self.many, self.setting, group, carry)
            for group, carry in zip(self.groups, self.carries, strict=True)
        ]

    def first_moving(self) -> tuple[Member, Carry]:
        """The first member that has neither stopped nor diverged, as one alone."""
        return self._one(int(np.argmax(self.moving())))

    def moving(self) -> Bool[np.ndarray, " members"]:
        """Who has neither stopped nor diverged."""
        parts = [np.asarray(c.active) & (np.asarray(c.bad) < 0) for c in self.carries]
        return np.atleast_1d(parts[0]) if self.many else np.stack(parts)

    def stop(self, stopped: Bool[np.ndarray, " members"]) -> None:
        """These do not move any more."""
        active = jnp.asarray(~stopped)
        self.carries = [
            carry._replace(active=active if self.many else active[j])
            for j, carry in enumerate(self.carries)
        ]

    def mean_losses(self, steps: int) -> Float[np.ndarray, " members"]:
        """The losses of so many steps, averaged; the sums begin anew. NaN for who diverged."""
        sums = [
            np.where(np.asarray(c.bad) < 0, np.sum(np.asarray(c.loss, float), axis=-1), np.nan)
            for c in self.carries
        ]
        self.carries = [c._replace(loss=jnp.zeros_like(c.loss)) for c in self.carries]
        return (sums[0] if self.many else np.stack(sums)) / steps

    def each(self, function: Any) -> Any:
        """``function(many, carry)`` of all members, its values with a leading axis if several."""
        values = [function(self.many, carry) for carry in self.carries]
        if self.many or self.alone:
            return values[0]
        return jax.tree.map(lambda *x: np.stack(x), *values)

    def joined(self) -> Carry:
        """Where all are: with a leading axis of members, unless there is a single one."""
        if self.many or self.alone:
            return self.carries[0]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *self.carries)

    def take(self, carry: Carry) -> None:
        """All members at a place that :meth:`joined` gave."""
        if self.many or self.alone:
            self.carries = [carry]
        else:
            self.carries = [row(carry, j) for j in range(self.count)]

    def at(self, begin: int, step: int) -> tuple[Member, Carry]:
        """The member that diverged first, taken from step ``begin`` to another and left there."""
        j = int(np.argmin(np.asarray(self.joined().bad))) if not self.alone else 0
        kept = self.carries
        self.carries = [
            self._advanced(group, carry, begin, step)
            for group, carry in zip(self.groups, kept, strict=True)
        ]
        one = self._one(j)
        self.carries = kept
        return one

    def batch(self, member: Member, carry: Carry, step: int) -> tuple[np.ndarray, Any]:
        """What one member draws at a step: numbers and samples."""
        if self.source is None:
            index = programs.places(self.work, self.setting, member, carry, np.int32(step))
            return np.asarray(index), self.samples(index)
        index = Streamed(self.work, False, self.setting, member, self.source).places(carry, step)
        return index, self.source.at(index)

    def samples(self, index: Array) -> Any:
        """The samples at some places."""
        if self.source is None:
            return self.setting.population.samples(index)
        return self.source.at(np.asarray(index))

    def _one(self, j: int) -> tuple[Member, Carry]:
        if self.many:
            return row(self.groups[0], j), row(self.carries[0], j)
        return self.groups[j], self.carries[j]

    def _advanced(self, group: Member, carry: Carry, begin: int, end: int) -> Carry:
        if not np.any(np.asarray(carry.active) & (np.asarray(carry.bad) < 0)):
            return carry
        work, many, setting = self.work, self.many, self.setting
        if self.source is None and not self.by_python:
            bounds = np.int32(begin), np.int32(end)
            return programs.segment(work, many, setting, group, carry, *bounds)
        if self.source is not None:
            carry = Streamed(work, many, setting, group, self.source).advanced(carry, begin, end)
        else:
            for step in range(begin, end):
                carry = programs.single(work, many, setting, group, carry, np.int32(step))
        return programs.marked(many, carry, np.int32(end))

    def _refreshed(
        self, group: Member, carry: Carry, step: int, first_chunk: bool = False
    ) -> Carry:
        """Scores taken anew; with ``first_chunk`` those of all samples are not, but blank."""
        work, many, setting = self.work, self.many, self.setting
        index = programs.anew(work, many, setting, group, carry, np.int32(step))
        if index is None:
            scores = self._all_scores(carry, first_chunk)
        else:
            scores = programs.scored(work, many, False, carry, self.samples(index))
        sampler = programs.told(work, many, setting, carry, index, scores)
        return carry._replace(sampler=sampler)

    def _all_scores(self, carry: Carry, first_chunk: bool) -> Array:
        """The scores of all samples, chunk by chunk; the last chunk repeats some."""
        n = self.setting.population.n
        size = max(1, min(n, _SCORED // (self.count if self.many else 1)))
        firsts = [min(k, n - size) for k in range(0, n, size)]
        chunks = [np.arange(first, first + size) for first in firsts]
        read: Iterator[Any]
        if self.source is None:
            data = self.setting.population.data
            read = (jax.tree.map(lambda x, c=c: x[c[0] : c[-1] + 1], data) for c in chunks)
        else:
            read = self.source.read(chunks[:1] if first_chunk else chunks)
        parts = []
        for part in read:
            parts.append(programs.scored(self.work, self.many, True, carry, part))
            if first_chunk:
                return jnp.zeros((*parts[0].shape[:-1], n), parts[0].dtype)
        parts[-1] = parts[-1][..., len(chunks) * size - n :]
        return jnp.concatenate(parts, axis=-1)


def row(tree: Any, j: int) -> Any:
    """The entry of one member."""
    return jax.tree.map(lambda x: x[j], tree)


def _refreshes(work: Work) -> int | None:
    """Steps between scores of all samples, None for never."""
    return work.sampler.refresh if isinstance(work.sampler, AbstractScored) else None


def _written_out(work: Work) -> Work:
    return replace(work, written_out=True, freezes=False)


def _convolves(work: Work, setting: Setting, source: Source | None, first: Any) -> bool:
    _, params, state = first
    if source is None:
        data = setting.population.data
        batch = jax.tree.map(lambda x: x[:2], data)
    else:
        batch = jax.tree.map(lambda x: jnp.stack([x, x]), source.first)
    return holds_convolution(work.objective.losses, params, state, batch)
