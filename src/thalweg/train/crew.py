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
from thalweg.train.parallel import Devices, Divided
from thalweg.train.source import DividedSource, Source
from thalweg.train.step import Carry, Member, Setting, Work, carry_sharding
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
        devices: The devices that take a step together, None for one.

    Attributes:
        work: What a step does.
        setting: The arrays, as this process was given them. With these two, and with what
            ``first_moving``, ``at`` and ``samples`` give, a process looks at a member by itself.
        carries: Where the members are, on all devices.
    """

    def __init__(
        self,
        work: Work,
        setting: Setting,
        start: Start,
        source: Source | None,
        devices: Devices | None = None,
    ):
        self.setting, self.source, self.alone = setting, source, start.alone
        self.count = start.count
        members, params, state = start.members, start.params, start.state
        first = row((members, params, state), 0)
        self.by_python = jax.default_backend() == "cpu" and _convolves(work, setting, source, first)
        self.work = _written_out(work) if self.by_python else work
        self.many = not start.alone and not self.by_python
        self._devices, self._setting = devices, setting
        self._source: Source | DividedSource | None = source
        if devices is not None:
            placed = devices.population(setting.population)
            self._setting = Setting(devices.placed(setting.key), placed)
            self._source = None if source is None else DividedSource(source, devices)
            members, params, state = devices.placed((members, params, state))
        self.groups, starts = [members], [(params, state)]
        if not self.many:
            self.groups = [row(members, j) for j in range(self.count)]
            starts = [row((params, state), j) for j in range(self.count)]
        self.carries = [
            programs.begun(self._work, self.many, self._setting, group, *own)
            for group, own in zip(self.groups, starts, strict=True)
        ]

    def advance(self, begin: int, end: int) -> None:
        """Steps ``begin`` to ``end``; all of them or, if interrupted, none."""
        pairs = zip(self.groups, self.carries, strict=True)
        moved = [self._advanced(group, carry, begin, end) for group, carry in pairs]
        self.carries = jax.block_until_ready(moved)

    def refresh(self, step: int) -> None:
        """Scores taken anew for the samplers that keep them."""
        if self.refreshes(step):
            pairs = zip(self.groups, self.carries, strict=True)
            self.carries = [self._refreshed(group, carry, step) for group, carry in pairs]
            jax.block_until_ready(self.carries)

    def refreshes(self, step: int) -> bool:
        """Whether :meth:`refresh` does anything before a step."""
        every = _refreshes(self.work)
        return every is not None and step % every == 0

    def warm(self, step: int) -> None:
        """Compile what :meth:`advance` and :meth:`refresh` run, and leave everything as it is."""
        kept = self.carries
        if _refreshes(self.work) is not None:
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
            programs.handed_over(self._work, self.many, self._setting, group, carry)
            for group, carry in zip(self.groups, self.carries, strict=True)
        ]

    def first_moving(self) -> tuple[Member, Carry]:
        """The first member that has neither stopped nor diverged, as one alone."""
        return self._alone(int(np.argmax(self.moving())))

    def moving(self) -> Bool[np.ndarray, " members"]:
        """Who has neither stopped nor diverged."""
        parts = [np.asarray(c.active) & (np.asarray(c.bad) < 0) for c in self.carries]
        return np.atleast_1d(parts[0]) if self.many else np.stack(parts)

    def stop(self, stopped: Bool[np.ndarray, " members"]) -> None:
        """These do not move any more."""
        active = self._placed(jnp.asarray(~stopped))
        self.carries = [
            carry._replace(active=active if self.many else active[j])
            for j, carry in enumerate(self.carries)
        ]

    def mean_losses(self, steps: int) -> Float[np.ndarray, " members"]:
        """The losses of so many steps, averaged; the sums begin anew. NaN for who diverged."""
        found = self.local([(c.bad, c.loss) for c in self.carries])
        sums = [
            np.where(np.asarray(bad) < 0, np.sum(np.asarray(loss, float), axis=-1), np.nan)
            for bad, loss in found
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
        """Where all are: with a leading axis of members, unless there is a single one.

        On several devices, arrays of this process; all processes ask together.
        """
        carries = self.local(self.carries)
        if self.many or self.alone:
            return carries[0]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries)

    def take(self, carry: Carry) -> None:
        """All members at a place that :meth:`joined` gave."""
        carries = [carry]
        if not self.many and not self.alone:
            carries = [row(carry, j) for j in range(self.count)]
        if self._devices is not None:
            where = [carry_sharding(self._devices, self.many, carry) for carry in carries]
            carries = self._devices.placed(carries, where)
        self.carries = carries

    def local(self, tree: Any) -> Any:
        """Arrays of the members, as arrays of this process; all processes ask together."""
        return tree if self._devices is None else self._devices.local(tree)

    def at(self, begin: int, step: int) -> tuple[Member, Carry]:
        """The member that diverged first, taken from step ``begin`` to another and left there."""
        j = int(np.argmin(np.asarray(self.joined().bad))) if not self.alone else 0
        kept = self.carries
        self.carries = [
            self._advanced(group, carry, begin, step)
            for group, carry in zip(self.groups, kept, strict=True)
        ]
        one = self._alone(j)
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

    @property
    def _work(self) -> Work:
        """What a step does, on all devices."""
        return self.work if self._devices is None else replace(self.work, devices=self._devices)

    def _placed(self, tree: Any) -> Any:
        return tree if self._devices is None else self._devices.placed(tree)

    def _alone(self, j: int) -> tuple[Member, Carry]:
        """One member, for this process alone."""
        if self.many:
            return row(self.local((self.groups[0], self.carries[0])), j)
        return self.local((self.groups[j], self.carries[j]))

    def _advanced(self, group: Member, carry: Carry, begin: int, end: int) -> Carry:
        if not np.any(np.asarray(carry.active) & (np.asarray(carry.bad) < 0)):
            return carry
        work, many, setting = self._work, self.many, self._setting
        if self._source is None and not self.by_python:
            bounds = np.int32(begin), np.int32(end)
            return programs.segment(work, many, setting, group, carry, *bounds)
        if self._source is not None:
            carry = Streamed(work, many, setting, group, self._source).advanced(carry, begin, end)
        else:
            for step in range(begin, end):
                carry = programs.single(work, many, setting, group, carry, np.int32(step))
        return programs.marked(many, carry, np.int32(end))

    def _refreshed(
        self, group: Member, carry: Carry, step: int, first_chunk: bool = False
    ) -> Carry:
        """Scores taken anew; with ``first_chunk`` those of all samples are not, but blank."""
        work, many, setting = self._work, self.many, self._setting
        index = programs.anew(work, many, setting, group, carry, np.int32(step))
        if index is None:
            scores = self._all_scores(carry, first_chunk)
        else:
            samples = self._fetched(index)
            scores = programs.scored(work, many, False, carry, samples)
        sampler = programs.told(work, many, setting, carry, index, scores)
        return carry._replace(sampler=sampler)

    def _all_scores(self, carry: Carry, first_chunk: bool) -> Array:
        """The scores of all samples, chunk by chunk; the last chunk repeats some."""
        if self._devices is not None and self._source is None:
            return self._divided_scores(self._devices, carry, first_chunk)
        n = self.setting.population.n
        size = max(1, min(n, _SCORED // (self.count if self.many else 1)))
        firsts = [min(k, n - size) for k in range(0, n, size)]
        chunks = [np.arange(first, first + size) for first in firsts]
        read: Iterator[Any]
        if self._source is None:
            data = self.setting.population.data
            read = (jax.tree.map(lambda x, c=c: x[c[0] : c[-1] + 1], data) for c in chunks)
        else:
            read = self._source.read(chunks[:1] if first_chunk else chunks)
        parts = []
        for part in read:
            parts.append(programs.scored(self._work, self.many, True, carry, part))
            if first_chunk:
                return self._placed(jnp.zeros((*parts[0].shape[:-1], n), parts[0].dtype))
        parts[-1] = parts[-1][..., len(chunks) * size - n :]
        return jnp.concatenate(parts, axis=-1)

    def _divided_scores(self, devices: Devices, carry: Carry, first_chunk: bool) -> Array:
        """The scores of all samples in memory, by the devices that have them."""
        population = self._setting.population
        rows = Divided(devices, population.data, population.n)
        size = max(1, _SCORED // (self.count if self.many else 1))
        parts = []
        for part, number in rows.chunks(size):
            scores = programs.scored(self._work, self.many, True, carry, part)
            if first_chunk:
                return self._placed(jnp.zeros((*scores.shape[:-1], rows.n), scores.dtype))
            own = scores.reshape(*scores.shape[:-1], *number.shape)
            parts.append(own[..., int(np.argmax(number[0] >= 0)) :])
        scores = jnp.concatenate(parts, axis=-1)
        return scores.reshape(*scores.shape[:-2], -1)[..., : rows.n]

    def _fetched(self, index: Array) -> Any:
        """Samples that all processes ask for, on all devices."""
        if self._source is None:
            return self._setting.population.samples(index)
        return self._source.at(np.asarray(index))


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
