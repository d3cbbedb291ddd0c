"""The one loop over chains and steps."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from thalweg.chains import Exit, Setting
from thalweg.checkpoint import Checkpoint, fingerprint
from thalweg.dynamics import AbstractDynamics
from thalweg.engine import choose_route
from thalweg.errors import InputError
from thalweg.fleet import Fleet, Position, agreed, merged
from thalweg.problem import Params, describe
from thalweg.random import Stream
from thalweg.record import Record
from thalweg.run import Run
from thalweg.stopping import check_exit

Progress = Callable[[int, int], None]

# Steps of the first call; later ones are as long as keeps progress and cancellation prompt.
_FIRST_SEGMENT = 256
_SEGMENT_SECONDS = 0.5


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

    Chain j draws the random words of (key, j, k) at step k (:class:`thalweg.random.Stream`), and
    chains run in blocks whose size depends on the dynamics alone: the path of chain j is the same,
    bit for bit, however many chains run beside it, on however many cores, devices or processes, and
    however often the run was interrupted.

    Chains are divided among all cores, or all local devices if there are several, or all processes
    (``jax.distributed``), each of which returns the whole run.

    Args:
        dynamics: What moves the chains, a :class:`thalweg.Descent` or a :class:`thalweg.Diffusion`.
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
        key, starts, count = _checked_start(dynamics, start, key, chains, per_chain, bound)
    check_exit(exit, starts if earlier is None else earlier.params)
    bounded = jnp.asarray(bound, jnp.result_type(float))
    setting = Setting(dynamics, exit, record, bounded, Stream.of(key).key)
    route = choose_route(setting, _first(starts if earlier is None else earlier.params))
    fleet = Fleet(setting, route, count)
    if earlier is None:
        fleet.begin(starts)
    else:
        fleet.take(earlier.state)
    saved = None
    if checkpoint is not None:
        origin = earlier.state if earlier is not None else starts
        saved = Checkpoint(checkpoint, fingerprint((setting, origin)))
        position = _restored(fleet.position(), saved.load())
        _check_ahead(position, steps, checkpoint)
        fleet.take(position)
    rate = _go_on(fleet, steps, progress, saved)
    return _result(dynamics, fleet, steps, key, rate)


def _go_on(fleet: Fleet, steps: int, progress: Progress | None, saved: Checkpoint | None) -> float:
    """Advance to step ``steps``; returns the steps a second, without compiling."""
    length, seconds, timed, first = _FIRST_SEGMENT, 0.0, 0, True
    try:
        while fleet.step < steps:
            begun, before = time.perf_counter(), fleet.step
            fleet.advance(min(before + length, steps))
            taken = time.perf_counter() - begun
            if not first or fleet.step == steps:
                seconds, timed = seconds + taken, timed + fleet.step - before
            wanted = int((fleet.step - before) * _SEGMENT_SECONDS / max(taken, 1e-3))
            length, first = agreed(min(4 * length, max(wanted, 16))), False
            if progress is not None:
                progress(fleet.step, steps)
            if saved is not None and agreed(saved.due()):
                _save(saved, fleet)
    finally:
        # An interrupt leaves the position at the last whole segment.
        if saved is not None:
            _save(saved, fleet)
    return timed / seconds if seconds > 0 else float("nan")


def _save(saved: Checkpoint, fleet: Fleet) -> None:
    """Written by the first process; the others wait, for they may read it next."""
    position = _saved(fleet.position())
    if jax.process_index() == 0:
        saved.save(position)
    agreed(0)


def _result(dynamics: AbstractDynamics, fleet: Fleet, steps: int, key: Any, rate: float) -> Run:
    position, route = fleet.position(), fleet.route
    event = np.asarray(position.chains.event)
    exit_step, diverged_step = np.where(event > 0, event - 1, -1), np.where(event < 0, -event, -1)
    burn_in = fleet.setting.record.burn_in
    taken = np.where(event > 0, exit_step, np.where(event < 0, diverged_step - 1, steps))
    counts = np.maximum(taken - burn_in, 0)
    with np.errstate(invalid="ignore"):
        means = jax.tree.map(
            lambda s: jnp.asarray(s / _trailing(counts, s).astype(s.dtype)), position.chains.sums
        )
    return Run(
        params=jax.tree.map(jnp.asarray, position.chains.state.params),
        steps=steps,
        exit_step=jnp.asarray(exit_step, jnp.int32),
        diverged_step=jnp.asarray(diverged_step, jnp.int32),
        record_steps=np.asarray(position.record_steps, dtype=int),
        records=merged(position.records),
        means=means,
        stats={
            "route": route.name,
            "reason": route.reason,
            "block_size": route.block,
            "workers": fleet.workers,
            "evaluations_per_step": dynamics.evaluations(),
            "chain_steps_per_second": rate * fleet.count,
        },
        key=key,
        state=position,
    )


def _first(chains: Any) -> Any:
    """The first chain of all."""
    return jax.tree.map(lambda leaf: leaf[0], chains)


def _trailing(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Chain-wise values with the axes of ``like``."""
    return x.reshape(x.shape + (1,) * (like.ndim - 1))


def _saved(position: Position) -> dict[str, Any]:
    """A position as a pytree of arrays, for a checkpoint."""
    return {
        "chains": position.chains,
        "records": merged(position.records),
        "steps": np.asarray([position.step, *position.record_steps]),
    }


def _restored(position: Position, arrays: list[np.ndarray] | None) -> Position:
    """The position of a checkpoint, which has the structure of the first one."""
    if arrays is None:
        return position
    saved = jax.tree.unflatten(jax.tree.structure(_saved(position)), arrays)
    records, (step, *record_steps) = saved["records"], saved["steps"].tolist()
    return Position(step, saved["chains"], record_steps, [records] if record_steps else [])


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
    dynamics: AbstractDynamics,
    start: Params,
    key: Any,
    chains: int | None,
    per_chain: bool,
    bound: float,
) -> tuple[Any, Params, int]:
    """The typed key, starts with a leading axis of chains, and how many."""
    key = _typed_key(key)
    start = jax.tree.map(jnp.asarray, start)
    for path, leaf in jax.tree_util.tree_leaves_with_path(start):
        if not bool(jnp.all(jnp.isfinite(leaf))):
            raise InputError(f"start{jax.tree_util.keystr(path)} is not finite; expected numbers")
        if not np.all(np.abs(np.asarray(leaf, float)) <= bound):
            raise InputError(
                f"start{jax.tree_util.keystr(path)} has a component beyond bound={bound:g}; start "
                "inside it or give a larger bound"
            )
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
