"""The one loop over chains and steps."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from thalweg.chains import (
    RECORDS_AT_ONCE,
    Chains,
    Exit,
    Setting,
    advance_block,
    first_block,
    observe_block,
    trailing,
)
from thalweg.checkpoint import Checkpoint, fingerprint
from thalweg.dynamics import AbstractDynamics
from thalweg.errors import InputError
from thalweg.problem import Params, describe
from thalweg.record import Record
from thalweg.run import Run
from thalweg.stopping import check_exit

Progress = Callable[[int, int], None]

# Steps of the first call; later ones are as long as keeps progress and cancellation prompt.
_FIRST_SEGMENT = 256
_SEGMENT_SECONDS = 0.5


class Position(NamedTuple):
    """Where a simulation is: all that is needed to go on.

    ``records`` is a list of parts, each a pytree with arrays of shape (chains, records, ...).
    """

    step: int
    blocks: tuple[Chains, ...]
    record_steps: list[int]
    records: list[Any]


def simulate(
    dynamics: AbstractDynamics,
    start: Params | Run,
    *,
    steps: int,
    key: Array | None = None,
    chains: int | None = None,
    per_chain: bool = False,
    exit: Exit | None = None,
    record: Record | None = None,
    bound: float = 1e10,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> Run:
    r"""Run many chains of a dynamics.

    Chain j draws from the key ``fold_in(fold_in(key, j), k)`` at step k, and chains run in blocks
    whose size depends on the dynamics alone: the path of chain j is the same, bit for bit, however
    many chains run beside it and however often the run was interrupted.

    Args:
        dynamics: What moves the chains, a :class:`thalweg.Descent`.
        start: Params of one start, for all chains; with ``per_chain`` one start a chain on a
            leading axis; or a :class:`Run`, to go on from where it ended.
        steps: Steps in all, those of a continued run included.
        key: The random key; a continued run has its own.
        chains: How many; one unless given.
        per_chain: Whether ``start`` holds one start a chain.
        exit: A predicate on the params of a chain, which stops where it is first true; see
            :mod:`thalweg.stopping`.
        record: What to look at on the way.
        bound: A chain with a component beyond it in size, or not finite, has diverged and stops.
        progress: Called about twice a second with the steps done and the steps in all.
        checkpoint: A file that is written every ten seconds and at the end, and from which the run
            goes on if it is there: a killed run, started again with the same arguments, gives the
            numbers of an uninterrupted one. A file of other arguments is refused; functions (the
            loss, schedules) are told apart by their names only.

    Raises:
        InputError: Arguments that do not fit, before any step.

    Cost: chains x steps x the sampler's evaluations; memory the chains' states and the records.
    """
    _check_numbers(steps, chains, bound)
    steps = int(steps)
    earlier = start if isinstance(start, Run) else None
    record = record or Record()
    if earlier is not None:
        _check_continued(earlier, steps, key, chains, record)
        key, count, starts = earlier.key, earlier.exit_step.shape[0], None
    else:
        key, starts, count = _checked_start(dynamics, start, key, chains, per_chain)
    check_exit(exit, starts if earlier is None else earlier.params)
    setting = Setting(dynamics, exit, record, jnp.asarray(bound, jnp.result_type(float)), key)
    position = _begin(setting, starts, count) if earlier is None else earlier.state
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, fingerprint((setting, position.blocks, position.step)))
        position = _restored(position, saved.load(), count)
        _check_ahead(position, steps, checkpoint)
    position, rate = _go_on(setting, position, steps, count, progress, saved)
    return _result(setting, position, steps, count, rate)


def _go_on(
    setting: Setting,
    position: Position,
    steps: int,
    count: int,
    progress: Progress | None,
    saved: Checkpoint | None,
) -> tuple[Position, float]:
    """Advance to step ``steps``; returns the position and the steps a second, without compiling."""
    length, seconds, timed, first = _FIRST_SEGMENT, 0.0, 0, True
    try:
        while position.step < steps:
            begun, before = time.perf_counter(), position.step
            position = _segment(setting, position, min(before + length, steps), count)
            taken = time.perf_counter() - begun
            if not first or position.step == steps:
                seconds, timed = seconds + taken, timed + position.step - before
            wanted = int((position.step - before) * _SEGMENT_SECONDS / max(taken, 1e-3))
            length, first = min(4 * length, max(wanted, 16)), False
            if progress is not None:
                progress(position.step, steps)
            if saved is not None and saved.due():
                saved.save(_leaves(position))
    finally:
        # An interrupt leaves the position at the last whole segment.
        if saved is not None:
            saved.save(_leaves(position))
    return position, timed / seconds if seconds > 0 else float("nan")


def _segment(setting: Setting, position: Position, end: int, count: int) -> Position:
    """All blocks from the position to a step not after ``end``, and what they recorded."""
    every, begin = setting.record.every, position.step
    if every is not None:
        end = min(end, (begin // every + RECORDS_AT_ONCE) * every)
    # Arrays, not numbers: those would be static and compile anew for every segment.
    bounds = jnp.asarray(begin, jnp.int32), jnp.asarray(end, jnp.int32)
    advanced = [advance_block(setting, block, *bounds) for block in position.blocks]
    blocks = tuple(block for block, _ in advanced)
    if every is None:
        jax.block_until_ready(blocks)
        return position._replace(step=end, blocks=blocks)
    made = range(begin // every + 1, end // every + 1)
    part = _joined([observed for _, observed in advanced], count, len(made))
    return Position(
        end,
        blocks,
        position.record_steps + [k * every for k in made],
        [*position.records, part],
    )


def _begin(setting: Setting, starts: Params, count: int) -> Position:
    """All blocks at step 0, and the record of the start."""
    size = _block_size(setting.dynamics, starts)
    blocks = []
    starts = jax.tree.map(np.asarray, starts)
    for first in range(0, count, size):
        index = np.arange(first, first + size)
        rows = jax.tree.map(
            lambda leaf, at=index: jnp.asarray(leaf[np.minimum(at, count - 1)]), starts
        )
        padding = jnp.asarray(index >= count)
        blocks.append(first_block(setting, rows, jnp.asarray(index, jnp.uint32), padding))
    if setting.record.every is None:
        return Position(0, tuple(blocks), [], [])
    observed = [eqx.filter_jit(observe_block)(setting.record, b.state.params) for b in blocks]
    part = _joined([jax.tree.map(lambda x: x[:, None], o) for o in observed], count, 1)
    return Position(0, tuple(blocks), [0], [part])


def _block_size(dynamics: AbstractDynamics, starts: Params) -> int:
    """Chains a block, from the work of a step alone; never from the number of chains.

    Cheap steps are dominated by the cost of starting operations and run 128 abreast; large
    gradients fill the machine by themselves.
    """
    parameters = sum(leaf.size // leaf.shape[0] for leaf in jax.tree.leaves(starts))
    work = parameters * dynamics.evaluations()
    if work <= 2**10:
        return 128
    return 8 if work <= 2**20 else 1


def _result(setting: Setting, position: Position, steps: int, count: int, rate: float) -> Run:
    # Without the states of samplers and optimisers, which are not asked for.
    kept = [
        (b.state.params, b.state.stationary, b.exit_step, b.diverged_step, b.sums, b.counts)
        for b in position.blocks
    ]
    params, stationary, exit_step, diverged_step, sums, counts = jax.tree.map(
        lambda *x: _end_to_end(x)[:count], *kept
    )
    means = {
        name: jax.tree.map(lambda s: s / trailing(counts, s).astype(s.dtype), total)
        for name, total in sums.items()
    }
    return Run(
        params=params,
        steps=steps,
        exit_step=exit_step,
        diverged_step=diverged_step,
        stationary=stationary,
        record_steps=np.asarray(position.record_steps, dtype=int),
        records=_merged(position.records),
        means=means,
        stats={
            "block_size": position.blocks[0].index.shape[0],
            "evaluations_per_step": setting.dynamics.evaluations(),
            "chain_steps_per_second": rate * count,
        },
        key=setting.key,
        state=position,
    )


def _end_to_end(blocks: tuple[Array, ...]) -> Array:
    """Arrays joined by NumPy: XLA would compile a program for every number of blocks."""
    return blocks[0] if len(blocks) == 1 else jnp.asarray(np.concatenate(list(blocks)))


def _leaves(position: Position) -> list[np.ndarray]:
    """A position as arrays, for a checkpoint."""
    steps = np.asarray([position.step, *position.record_steps])
    leaves = jax.tree.leaves((position.blocks, _merged(position.records)))
    return [steps, *map(np.asarray, leaves)]


def _restored(position: Position, arrays: list[np.ndarray] | None, count: int) -> Position:
    """The position of a checkpoint, which has the structure of the first one."""
    if arrays is None:
        return position
    steps, *leaves = arrays
    structure = jax.tree.structure((position.blocks, _merged(position.records)))
    blocks, records = jax.tree.unflatten(structure, leaves)
    record_steps = steps[1:].tolist()
    parts = [records] if record_steps else []
    return Position(int(steps[0]), jax.tree.map(jnp.asarray, blocks), record_steps, parts)


def _joined(blocks: list[Any], count: int, made: int) -> Any:
    """What the blocks observed, chains joined and without padding and void records."""
    return jax.tree.map(
        lambda *x: np.concatenate([np.asarray(b) for b in x])[:count, :made], *blocks
    )


def _merged(parts: list[Any]) -> Any:
    """All records of a run, from its parts."""
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts) if parts else {}


def _check_numbers(steps: int, chains: int | None, bound: float) -> None:
    if (
        isinstance(steps, bool)
        or not isinstance(steps, (int, np.integer))
        or not 0 <= steps < 2**31 - 1
    ):
        raise InputError(f"steps must be a whole number from 0 to 2^31 - 2, got {steps!r}")
    if chains is not None and chains < 1:
        raise InputError(f"chains must be at least 1, got {chains}")
    if not bound > 0:
        raise InputError(f"bound must be positive, got {bound}")


def _check_ahead(position: Position, steps: int, checkpoint: str | Path) -> None:
    if position.step > steps:
        raise InputError(
            f"the checkpoint {checkpoint} is at step {position.step} and steps= is {steps}; "
            "ask for at least as many or give another file"
        )


def _check_continued(run: Run, steps: int, key: Any, chains: int | None, record: Record) -> None:
    if key is not None or chains is not None:
        raise InputError("a continued run has its own key and chains; leave key= and chains= out")
    if steps < run.steps:
        raise InputError(
            f"the run has taken {run.steps} steps and steps= is {steps}; it counts from the start"
        )
    if set(record.values) != set(run.records) or set(record.means) != set(run.means):
        raise InputError(
            f"the run recorded {sorted([*run.records, *run.means])} and this record= has "
            f"{sorted([*record.values, *record.means])}; give the same to continue"
        )


def _typed_key(key: Any) -> Key[Array, ""]:
    if isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.ndim == 1:
        key = jax.random.wrap_key_data(key)
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or key.shape != ():
        raise InputError(f"simulate needs one key=, for example jax.random.key(0); got {key!r}")
    return key


def _checked_start(
    dynamics: AbstractDynamics, start: Params, key: Any, chains: int | None, per_chain: bool
) -> tuple[Any, Params, int]:
    """The typed key, starts with a leading axis of chains, and how many."""
    key = _typed_key(key)
    start = jax.tree.map(jnp.asarray, start)
    for path, leaf in jax.tree_util.tree_leaves_with_path(start):
        if not bool(jnp.all(jnp.isfinite(leaf))):
            raise InputError(f"start{jax.tree_util.keystr(path)} is not finite; expected numbers")
    if not per_chain:
        count = chains or 1
        dynamics.check(start)
        return key, jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), start), count
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(start)}
    if len(lengths) != 1 or lengths == {()} or (chains is not None and lengths != {(chains,)}):
        raise InputError(
            f"per_chain starts need one leading axis of {chains or 'all'} chains on every leaf, "
            f"got {describe(start)}"
        )
    dynamics.check(jax.tree.map(lambda leaf: leaf[0], start))
    return key, start, lengths.pop()[0]
