"""All chains of a simulation, in groups over the cores, the devices and the processes."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils

from thalweg.chains import Chain, Setting, begin_chain
from thalweg.engine import RECORDS_AT_ONCE, Route, observe_block
from thalweg.problem import Params


class Position(NamedTuple):
    """Where a simulation is: all that is needed to go on, however the chains are divided.

    ``chains`` has a leading axis of all chains; ``records`` is a list of parts, each a pytree with
    arrays of shape (chains, records, ...).
    """

    step: int
    chains: Chain
    record_steps: list[int]
    records: list[Any]


class _Share(NamedTuple):
    """The chains of one call: numbers ``first`` to ``end`` in blocks, the rest is filling."""

    first: int
    end: int
    index: Any
    device: jax.Device


class Fleet:
    """The chains on this process; what comes out is joined over all of them.

    Blocks are divided evenly among the workers: the local devices if there are several, else the
    cores. Chains that only fill a group have exited at step 0 and cost nothing.
    """

    def __init__(self, setting: Setting, route: Route, count: int):
        self.setting, self.route, self.count = setting, route, count
        self.step = 0
        self.record_steps: list[int] = []
        self._records: list[Any] = []
        self._groups: list[Chain] = []
        devices = jax.local_devices()
        on_cores = len(devices) == 1 and devices[0].platform == "cpu"
        self.workers = cores() if on_cores else len(devices)
        self._shares = self._divided(devices)
        arrays = eqx.filter(setting, eqx.is_array)
        self._arrays = {device: jax.device_put(arrays, device) for device in devices}

    def begin(self, starts: Params) -> None:
        """All chains at step 0, and the record of the start."""
        starts = jax.tree.map(np.asarray, starts)
        self._groups = [
            self._placed(share, _first_group(self.setting, self._rows(share, starts)))
            for share in self._shares
        ]
        if self.setting.record.every is not None:
            parts = [_observed(self.setting, group.state.params) for group in self._groups]
            self._keep([0], [jax.tree.map(lambda x: x[:, :, None], part) for part in parts])

    def take(self, position: Position) -> None:
        """All chains at a position."""
        chains = jax.tree.map(np.asarray, position.chains)
        self.step, self.record_steps = position.step, list(position.record_steps)
        self._records = list(position.records)
        self._groups = [self._placed(share, self._rows(share, chains)) for share in self._shares]

    def advance(self, end: int) -> None:
        """From the position to a step not after ``end``; all of it or, if interrupted, nothing."""
        every, begin = self.setting.record.every, self.step
        if every is not None:
            end = min(end, (begin // every + RECORDS_AT_ONCE) * every)
        bounds = np.asarray(begin, np.int32), np.asarray(end, np.int32)
        calls = []
        for share, group in zip(self._shares, self._groups, strict=True):
            arguments = (self._arrays[share.device], group, share.index, *bounds)
            arguments = jax.device_put(arguments, share.device)
            calls.append((self.route.executable(share.device, *arguments), arguments))
        with ThreadPoolExecutor(self.workers) as pool:
            results = list(pool.map(_finished, calls))
        self._groups, self.step = [group for group, _ in results], end
        if every is not None:
            made = range(begin // every + 1, end // every + 1)
            self._keep([k * every for k in made], [records for _, records in results])

    def position(self) -> Position:
        """Where all chains are, those of other processes included."""
        chains = self._joined(self._groups)
        return Position(self.step, chains, list(self.record_steps), list(self._records))

    def _divided(self, devices: list[jax.Device]) -> list[_Share]:
        block, most = self.route.block, self.route.group
        blocks = -(-self.count // block)
        processes = jax.process_count()
        calls = -(-blocks // most)
        together = processes * self.workers
        # Every process has a call, if only of filling: all of them join what comes out.
        calls = max(processes, min(blocks, -(-calls // together) * together))
        ends = np.linspace(0, blocks, calls + 1).astype(int)
        mine = np.array_split(np.arange(calls), processes)[jax.process_index()]
        shares = []
        for place, i in enumerate(mine):
            first = ends[i] * block
            index = np.asarray(first + block * np.arange(most), np.uint32)
            end = min(ends[i + 1] * block, self.count)
            shares.append(_Share(first, end, index, devices[place % len(devices)]))
        return shares

    def _rows(self, share: _Share, chains: Any) -> Any:
        """The rows of a share, with axes (group, block, ...); the filling repeats the last."""
        group, block = self.route.group, self.route.block
        rows = np.minimum(share.first + np.arange(group * block), share.end - 1)
        return jax.tree.map(lambda x: x[rows].reshape(group, block, *x.shape[1:]), chains)

    def _placed(self, share: _Share, group: Any) -> Any:
        filling = share.first + np.arange(self.route.group * self.route.block) >= share.end
        event = np.where(filling.reshape(np.shape(group.event)), 1, np.asarray(group.event))
        return jax.device_put(group._replace(event=event.astype(np.int32)), share.device)

    def _keep(self, steps: list[int], parts: list[Any]) -> None:
        if not steps:
            return
        cut = [jax.tree.map(lambda x: np.asarray(x)[:, :, : len(steps)], part) for part in parts]
        self._records.append(self._joined(cut))
        self.record_steps += steps

    def _joined(self, groups: list[Any]) -> Any:
        """The chains of groups on one leading axis, without the filling, of all processes."""

        def flat(share: _Share, leaf: Any) -> np.ndarray:
            leaf = np.asarray(leaf)
            chains = leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])
            return chains[: share.end - share.first]

        return jax.tree.map(
            lambda *leaves: _over_processes(
                np.concatenate([flat(*pair) for pair in zip(self._shares, leaves, strict=True)])
            ),
            *groups,
        )


def agreed(value: Any) -> Any:
    """What the first process has, for decisions that all must take alike."""
    if jax.process_count() == 1:
        return value
    return multihost_utils.broadcast_one_to_all(np.asarray(value)).item()


def merged(parts: list[Any]) -> Any:
    """All records of a run, from its parts."""
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts) if parts else {}


def _finished(call: Any) -> Any:
    executable, arguments = call
    return jax.block_until_ready(executable(*arguments))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _over_processes(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, one after the other."""
    if jax.process_count() == 1:
        return rows
    counts = multihost_utils.process_allgather(np.asarray(len(rows)))
    filled = np.zeros((counts.max(), *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    gathered = multihost_utils.process_allgather(filled)
    return np.concatenate([part[:n] for part, n in zip(gathered, counts, strict=True)])


@eqx.filter_jit
def _first_group(setting: Setting, starts: Params) -> Chain:
    return jax.vmap(jax.vmap(lambda start: begin_chain(setting, start)))(starts)


@eqx.filter_jit
def _observed(setting: Setting, params: Params) -> Any:
    return jax.vmap(lambda block: observe_block(setting, block))(params)
