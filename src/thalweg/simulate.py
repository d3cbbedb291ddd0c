"""The one loop over chains and steps."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, UInt

from thalweg.checkpoint import Checkpoint, fingerprint
from thalweg.dynamics import AbstractDynamics
from thalweg.errors import InputError
from thalweg.problem import Params, describe
from thalweg.record import Record
from thalweg.run import Run
from thalweg.stopping import check_exit

Progress = Callable[[int, int], None]
Exit = Callable[[Any], Any]

# Records made in one call of the compiled loop.
_RECORDS_AT_ONCE = 16
# Steps of the first call; later ones are as long as keeps progress and cancellation prompt.
_FIRST_SEGMENT = 256
_SEGMENT_SECONDS = 0.5


class Chains(eqx.Module):
    """A block of chains between two steps; the leading axis of every array is the chain.

    ``index`` numbers the chains of the whole run; -1 in ``exit_step`` and ``diverged_step`` stands
    for never. Chains that only pad the block are marked as exited at step 0.
    """

    index: UInt[Array, " block"]
    state: Any
    exit_step: Int[Array, " block"]
    diverged_step: Int[Array, " block"]
    sums: Any
    counts: Int[Array, " block"]

    @property
    def running(self) -> Bool[Array, " block"]:
        """Which chains have not stopped."""
        return (self.exit_step < 0) & (self.diverged_step < 0)


class Position(NamedTuple):
    """Where a simulation is: all that is needed to go on.

    ``records`` is a list of parts, each a pytree with arrays of shape (chains, records, ...).
    """

    step: int
    blocks: tuple[Chains, ...]
    record_steps: list[int]
    records: list[Any]


class _Setting(eqx.Module):
    """What stays the same during a simulation."""

    dynamics: AbstractDynamics
    exit: Exit | None
    record: Record
    bound: Any
    key: Any


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
            numbers of an uninterrupted one.

    Raises:
        InputError: Arguments that do not fit, before any step.

    Cost: chains x steps x the sampler's evaluations; memory the chains' states and the records.
    """
    _check_numbers(steps, chains, bound)
    earlier = start if isinstance(start, Run) else None
    record = record or Record()
    if earlier is not None:
        _check_continued(earlier, steps, key, chains, record)
        key, count, starts = earlier.key, earlier.exit_step.shape[0], None
    else:
        key, starts, count = _checked_start(dynamics, start, key, chains, per_chain)
    check_exit(exit, starts if earlier is None else earlier.params)
    setting = _Setting(dynamics, exit, record, jnp.asarray(bound, jnp.result_type(float)), key)
    position = _begin(setting, starts, count) if earlier is None else earlier.state
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, fingerprint((setting, position.blocks, position.step)))
        position = _restored(position, saved.load(), count)
        _check_ahead(position, steps, checkpoint)
    position, rate = _go_on(setting, position, steps, count, progress, saved)
    return _result(setting, position, steps, count, rate)


def _go_on(
    setting: _Setting,
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


def _segment(setting: _Setting, position: Position, end: int, count: int) -> Position:
    """All blocks from the position to a step not after ``end``, and what they recorded."""
    every, begin = setting.record.every, position.step
    if every is not None:
        end = min(end, (begin // every + _RECORDS_AT_ONCE) * every)
    # Arrays, not numbers: those would be static and compile anew for every segment.
    bounds = jnp.asarray(begin, jnp.int32), jnp.asarray(end, jnp.int32)
    advanced = [_advance(setting, block, *bounds) for block in position.blocks]
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


@eqx.filter_jit
def _advance(
    setting: _Setting, block: Chains, begin: Int[Array, ""], end: Int[Array, ""]
) -> tuple[Chains, Any]:
    """One block from step ``begin`` to ``end``; records have shape (block, _RECORDS_AT_ONCE, ...).

    Bounds are traced, so segments of all lengths share one program; records past ``end`` are void.
    """
    every = setting.record.every
    if every is None:
        return _steps(setting, block, begin, end), None

    def to_next_record(carry: Any, _: None) -> tuple[Any, Any]:
        k, chains = carry
        target = (k // every + 1) * every
        stop = jnp.minimum(target, end)
        chains = _steps(setting, chains, k, stop)
        observe = lambda: _observe(setting.record, chains.state.params)  # noqa: E731
        void = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(observe))
        observed = jax.lax.cond(stop == target, observe, lambda: void)
        return (stop, chains), observed

    (_, block), records = jax.lax.scan(
        to_next_record, (begin, block), None, length=_RECORDS_AT_ONCE
    )
    return block, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), records)


def _steps(setting: _Setting, block: Chains, begin: Array, end: Array) -> Chains:
    """Steps begin, ..., end - 1 of a block, or fewer if all its chains stop."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(setting.key, block.index)

    def go_on(carry: tuple[Array, Chains]) -> Array:
        k, chains = carry
        return (k < end) & jnp.any(chains.running)

    def body(carry: tuple[Array, Chains]) -> tuple[Array, Chains]:
        k, chains = carry
        return k + 1, _step(setting, chains, keys, k)

    return jax.lax.while_loop(go_on, body, (begin, block))[1]


def _step(setting: _Setting, chains: Chains, keys: Array, k: Array) -> Chains:
    """Step number k of a block: advance, then see who diverged and who left."""

    def advance(state: Any, key: Array) -> Any:
        return setting.dynamics.advance(state, jax.random.fold_in(key, k), k)

    new = jax.vmap(advance)(chains.state, keys)
    good = jax.vmap(lambda params: _within(params, setting.bound))(new.params)
    moved = chains.running & good
    state = _where(moved, new, chains.state)
    left = moved & _exits(setting.exit, state.params)
    counted = moved & (k >= setting.record.burn_in)
    sums = {
        name: _where(counted, jax.tree.map(jnp.add, chains.sums[name], values), chains.sums[name])
        for name, values in _summands(setting.record, state.params).items()
    }
    return Chains(
        chains.index,
        state,
        jnp.where(left, k + 1, chains.exit_step),
        jnp.where(chains.running & ~good, k + 1, chains.diverged_step),
        sums,
        chains.counts + counted.astype(chains.counts.dtype),
    )


@eqx.filter_jit
def _first_block(setting: _Setting, starts: Params, index: Array, padding: Array) -> Chains:
    """A block before its first step."""
    state = jax.vmap(setting.dynamics.init)(starts)
    out = padding | _exits(setting.exit, starts)
    sums = {
        name: jax.tree.map(jnp.zeros_like, values)
        for name, values in _summands(setting.record, starts).items()
    }
    never = jnp.full(index.shape, -1, dtype=jnp.int32)
    zero = jnp.zeros_like(never)
    return Chains(index, state, jnp.where(out, zero, never), never, sums, zero)


def _begin(setting: _Setting, starts: Params, count: int) -> Position:
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
        blocks.append(_first_block(setting, rows, jnp.asarray(index, jnp.uint32), padding))
    if setting.record.every is None:
        return Position(0, tuple(blocks), [], [])
    observed = [eqx.filter_jit(_observe)(setting.record, b.state.params) for b in blocks]
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


def _result(setting: _Setting, position: Position, steps: int, count: int, rate: float) -> Run:
    # Without the states of samplers and optimisers, which are not asked for.
    kept = [
        (b.state.params, b.state.stationary, b.exit_step, b.diverged_step, b.sums, b.counts)
        for b in position.blocks
    ]
    params, stationary, exit_step, diverged_step, sums, counts = jax.tree.map(
        lambda *x: _end_to_end(x)[:count], *kept
    )
    means = {
        name: jax.tree.map(lambda s: s / _trailing(counts, s).astype(s.dtype), total)
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


def _observe(record: Record, params: Params) -> Any:
    return {name: jax.vmap(f)(params) for name, f in record.values.items()}


def _summands(record: Record, params: Params) -> dict[str, Any]:
    """What the means add up; events count as 0 and 1 (a sum of booleans would be a boolean)."""

    def number(x: Array) -> Array:
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        return x if inexact else x.astype(jnp.result_type(float))

    return {name: jax.tree.map(number, jax.vmap(f)(params)) for name, f in record.means.items()}


def _joined(blocks: list[Any], count: int, made: int) -> Any:
    """What the blocks observed, chains joined and without padding and void records."""
    return jax.tree.map(
        lambda *x: np.concatenate([np.asarray(b) for b in x])[:count, :made], *blocks
    )


def _merged(parts: list[Any]) -> Any:
    """All records of a run, from its parts."""
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts) if parts else {}


def _exits(exit: Exit | None, params: Params) -> Array:
    if exit is None:
        return jnp.zeros(jax.tree.leaves(params)[0].shape[0], dtype=bool)
    return jax.vmap(exit)(params)


def _within(params: Params, bound: Array) -> Array:
    """False if a component is beyond the bound or not finite (no comparison with NaN is true)."""
    leaves = jax.tree.leaves(params)
    # The bound itself may be infinite, if only in the type of the parameters.
    inside = [jnp.all(jnp.isfinite(x) & (jnp.abs(x) <= bound.astype(x.dtype))) for x in leaves]
    return jnp.all(jnp.stack(inside))


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(_trailing(condition, a), a, b), new, old)


def _trailing(x: Array, like: Array) -> Array:
    """Chain-wise values with the axes of ``like``."""
    return x.reshape(x.shape + (1,) * (like.ndim - 1))


def _check_numbers(steps: int, chains: int | None, bound: float) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps < 2**31 - 1:
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
