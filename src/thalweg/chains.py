"""One chain: what it is between two steps, and its step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt

from thalweg.dynamics import AbstractDynamics
from thalweg.problem import Params
from thalweg.random import Stream
from thalweg.record import Record

Exit = Callable[[Any], Any]


class Chain(NamedTuple):
    """A chain between two steps; many chains have leading axes.

    ``event`` is 0 while it runs, s + 1 if it exited after s steps (0: at the start), and -s if its
    step s diverged: one number, for the loop is as fast as what it carries is small.
    """

    state: Any
    event: Int[Array, "..."]
    sums: Any


class Setting(eqx.Module):
    """What stays the same during a simulation; ``key`` is the stream's."""

    dynamics: AbstractDynamics
    exit: Exit | None
    record: Record
    bound: Any
    key: UInt[Array, " 2"]


def begin_chain(setting: Setting, start: Params) -> Chain:
    """A chain before its first step."""
    state = setting.dynamics.init(start)
    event = jnp.where(_exits(setting.exit, start), 1, 0).astype(jnp.int32)
    sums = jax.tree.map(jnp.zeros_like, _summands(setting.record, start))
    return Chain(state, event, sums)


def step_chain(setting: Setting, chain: Chain, index: Any, k: Any, awake: Any) -> Chain:
    """Step number k of chain number ``index``: advance, then see whether it diverged or left.

    A chain that is not ``awake`` stays as it is, like one that has stopped.
    """
    stream = Stream(setting.key, index, jnp.asarray(k).astype(jnp.uint32))
    new = setting.dynamics.advance(chain.state, stream, k)
    running = (chain.event == 0) & awake
    moved = running & _within(new.params, setting.bound)
    state = _where(moved, new, chain.state)
    left = moved & _exits(setting.exit, state.params)
    added = jax.tree.map(jnp.add, chain.sums, _summands(setting.record, state.params))
    sums = _where(moved & (k >= setting.record.burn_in), added, chain.sums)
    stopped = jnp.where(left, k + 2, -(k + 1)).astype(jnp.int32)
    event = jnp.where(running & (left | ~moved), stopped, chain.event)
    return Chain(state, event, sums)


def observe(record: Record, params: Params) -> dict[str, Any]:
    """What is recorded of a chain."""
    return {name: function(params) for name, function in record.values.items()}


def _summands(record: Record, params: Params) -> dict[str, Any]:
    """What the means add up; events count as 0 and 1 (a sum of booleans would be a boolean)."""

    def number(x: Any) -> Array:
        x = jnp.asarray(x)
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        return x if inexact else x.astype(jnp.result_type(float))

    return {name: jax.tree.map(number, function(params)) for name, function in record.means.items()}


def _exits(exit: Exit | None, params: Params) -> Bool[Array, ""]:
    return jnp.asarray(False) if exit is None else jnp.asarray(exit(params))


def _within(params: Params, bound: Array) -> Bool[Array, ""]:
    """False if a component is beyond the bound or not finite (no comparison with NaN is true)."""
    inside = []
    for leaf in jax.tree.leaves(params):
        # The bound itself may be infinite, if only in the type of the parameters.
        finite = jnp.minimum(bound, float(jnp.finfo(leaf.dtype).max)).astype(leaf.dtype)
        inside.append(jnp.all(jnp.abs(leaf) <= finite))
    return jnp.all(jnp.stack(inside))


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
