"""A block of chains: what runs compiled."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt

from thalweg.dynamics import AbstractDynamics
from thalweg.problem import Params
from thalweg.record import Record

Exit = Callable[[Any], Any]

# Records made in one call of the compiled loop.
RECORDS_AT_ONCE = 16


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


class Setting(eqx.Module):
    """What stays the same during a simulation."""

    dynamics: AbstractDynamics
    exit: Exit | None
    record: Record
    bound: Any
    key: Any


@eqx.filter_jit
def advance_block(
    setting: Setting, block: Chains, begin: Int[Array, ""], end: Int[Array, ""]
) -> tuple[Chains, Any]:
    """One block from step ``begin`` to ``end``; records have shape (block, RECORDS_AT_ONCE, ...).

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
        observe = lambda: observe_block(setting.record, chains.state.params)  # noqa: E731
        void = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(observe))
        observed = jax.lax.cond(stop == target, observe, lambda: void)
        return (stop, chains), observed

    (_, block), records = jax.lax.scan(to_next_record, (begin, block), None, length=RECORDS_AT_ONCE)
    return block, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), records)


def _steps(setting: Setting, block: Chains, begin: Array, end: Array) -> Chains:
    """Steps begin, ..., end - 1 of a block, or fewer if all its chains stop."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(setting.key, block.index)

    def go_on(carry: tuple[Array, Chains]) -> Array:
        k, chains = carry
        return (k < end) & jnp.any(chains.running)

    def body(carry: tuple[Array, Chains]) -> tuple[Array, Chains]:
        k, chains = carry
        return k + 1, _step(setting, chains, keys, k)

    return jax.lax.while_loop(go_on, body, (begin, block))[1]


def _step(setting: Setting, chains: Chains, keys: Array, k: Array) -> Chains:
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
def first_block(setting: Setting, starts: Params, index: Array, padding: Array) -> Chains:
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


def observe_block(record: Record, params: Params) -> Any:
    """What is recorded of a block, name to values with a leading axis of chains."""
    return {name: jax.vmap(f)(params) for name, f in record.values.items()}


def _summands(record: Record, params: Params) -> dict[str, Any]:
    """What the means add up; events count as 0 and 1 (a sum of booleans would be a boolean)."""

    def number(x: Array) -> Array:
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        return x if inexact else x.astype(jnp.result_type(float))

    return {name: jax.tree.map(number, jax.vmap(f)(params)) for name, f in record.means.items()}


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
    return jax.tree.map(lambda a, b: jnp.where(trailing(condition, a), a, b), new, old)


def trailing(x: Array, like: Array) -> Array:
    """Chain-wise values with the axes of ``like``."""
    return x.reshape(x.shape + (1,) * (like.ndim - 1))
