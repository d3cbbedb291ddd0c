"""The compiled loop over steps: two routes through one step.

*Lanes*: the step is taken apart (:mod:`thalweg.lanes`) and the numbers of a block of chains stay in
the processor's first cache over the whole loop. *Batched*: the step is mapped over the chains of a
block, for large gradients, which fill the machine by themselves, and for what cannot be taken
apart.
"""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

from thalweg.chains import Chain, Setting, begin_chain, observe, step_chain
from thalweg.lanes import Program, apart, entries, in_one_pass, is_apart, repacked, together
from thalweg.problem import Params

# Records made in one call of the compiled loop.
RECORDS_AT_ONCE = 16
# Blocks in one call: enough to hide what a call costs, few enough to share among cores.
_BLOCKS_AT_ONCE = 16
# Steps between two looks at whether a whole block has stopped.
_STEPS_AT_ONCE = 64
# Operations on lanes up to which taking the step apart pays; compilation takes about two
# milliseconds each.
_LANES_COST = 2000
# A turn of the loop costs 0.1 us, so blocks are long; but XLA:CPU splits a loop over the lanes
# among threads, at 3 us a step, where it counts more than 200,000 operations (ten for a byte).
_BLOCK_OPERATIONS = 160_000


class Route:
    """How the chains of a dynamics run: a function of the dynamics alone.

    Attributes:
        static: What of the setting is no array.
        program: The step taken apart, or None for the batched route.
        block: Chains abreast.
        group: Blocks in one call.
        reason: Why this route, in a few words.
    """

    def __init__(self, static: Setting, program: Program | None, block: int, reason: str):
        self.static = static
        self.program = program
        self.block = block
        self.group = 1 if program is None else _BLOCKS_AT_ONCE
        self.reason = reason
        self._executables: dict[Any, Callable[..., Any]] = {}

    @property
    def name(self) -> str:
        """Lanes or batched."""
        return "batched" if self.program is None else "lanes"

    def executable(self, device: jax.Device, *arguments: Any) -> Callable[..., Any]:
        """:func:`_advance` compiled for a device, with the arrays of the setting for the setting.

        Compiled ahead of time, because a thread that calls it does not share the caller's
        configuration (64 bits, precision of products).
        """
        if device not in self._executables:
            place = jax.sharding.SingleDeviceSharding(device)
            shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments
            )
            jitted = jax.jit(
                functools.partial(_advance, self), compiler_options=_options(device.platform)
            )
            self._executables[device] = jitted.lower(*shapes).compile()
        return self._executables[device]


def choose_route(setting: Setting, start: Params) -> Route:
    """The one rule: from the step's own size and operations, never from the number of chains.

    ``start`` is the start of one chain.
    """
    leaves, tree = jax.tree.flatten((setting, start))
    marks = tuple(_Shape(x.shape, x.dtype) if eqx.is_array(x) else x for x in leaves)
    # The configuration that traced programs depend on.
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return _chosen(tree, marks, jnp.result_type(float) == jnp.float64, precision)


class _Shape(NamedTuple):
    shape: tuple[int, ...]
    dtype: Any


@functools.lru_cache(maxsize=32)
def _chosen(tree: Any, marks: tuple[Any, ...], wide: bool, precision: Any) -> Route:
    leaves = [jax.ShapeDtypeStruct(*x) if isinstance(x, _Shape) else x for x in marks]
    setting, start = jax.tree.unflatten(tree, leaves)
    arrays, static = eqx.partition(setting, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(start))
    work = parameters * setting.dynamics.evaluations()

    def batched(reason: str) -> Route:
        # Cheap steps are dominated by the cost of starting operations and run 128 abreast.
        block = 128 if work <= 2**10 else 8 if work <= 2**20 else 1
        return Route(static, None, block, reason)

    if work > _LANES_COST:
        return batched(f"a step has {work:.0f} components of gradients")
    program, chain = _taken_apart(arrays, static, start)
    if program.opaque:
        warnings.warn(
            f"the step holds a host callback ({program.obstacle}) and takes the general route, "
            "which is slower",
            stacklevel=4,
        )
    if program.obstacle is not None:
        return batched(f"a step holds the operation {program.obstacle}")
    reason = f"a step has {program.cost} operations on lanes"
    if program.cost > _LANES_COST:
        return batched(reason)
    carried = sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(chain))
    return Route(static, program, _lanes_abreast(program.cost, carried), reason)


def _taken_apart(arrays: Any, static: Any, start: Any) -> tuple[Program, Chain]:
    def step(fixed: Any, shared: tuple[Any, Any], own: tuple[Chain, Any]) -> Chain:
        (k, awake), (chain, index) = shared, own
        return step_chain(eqx.combine(fixed, static), chain, index, k, awake)

    chain = jax.eval_shape(lambda a, s: begin_chain(eqx.combine(a, static), s), arrays, start)
    index, k = jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct((), jnp.int32)
    awake = jax.ShapeDtypeStruct((), jnp.bool_)
    return Program(step, arrays, (k, awake), (chain, index)), chain


def _lanes_abreast(cost: int, carried: int) -> int:
    """Chains of a block, for so many operations and bytes a chain."""
    each = cost + 10 * 2 * carried
    return min(max(_BLOCK_OPERATIONS // each // 16 * 16, 16), 512)


def _options(platform: str) -> dict[str, Any]:
    # Without it LLVM keeps to half the width.
    wide = platform == "cpu" and _has_wide_vectors()
    return {"xla_cpu_prefer_vector_width": 512} if wide else {}


@functools.cache
def _has_wide_vectors() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.exists() and "avx512f" in flags.read_text()


def _advance(
    route: Route,
    arrays: Any,
    group: Chain,
    index: UInt[Array, " group"],
    begin: Int[Array, ""],
    end: Int[Array, ""],
) -> tuple[Chain, Any]:
    """A group of blocks, axes (group, block, ...), from step ``begin`` to ``end``.

    ``index`` numbers the first chain of each block. Records have the shape (group, block,
    RECORDS_AT_ONCE, ...). Bounds are traced, so that segments of all lengths share one program;
    records past ``end`` are void.
    """
    setting = eqx.combine(arrays, route.static)
    steps = _batched_steps(setting) if route.program is None else _lane_steps(route, arrays)

    def block(arguments: tuple[Array, Chain]) -> tuple[Chain, Any]:
        first, chains = arguments
        return _advance_block(setting, functools.partial(steps, first), chains, begin, end)

    return jax.lax.map(block, (index, group))


Steps = Callable[[Chain, Array, Array], Chain]


def _advance_block(
    setting: Setting, steps: Steps, block: Chain, begin: Array, end: Array
) -> tuple[Chain, Any]:
    every = setting.record.every
    if every is None:
        return steps(block, begin, end), None

    def to_next_record(carry: Any, _: None) -> tuple[Any, Any]:
        k, chains = carry
        target = (k // every + 1) * every
        stop = jnp.minimum(target, end)
        chains = steps(chains, k, stop)
        seen = functools.partial(observe_block, setting, chains.state.params)
        void = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(seen))
        return (stop, chains), jax.lax.cond(stop == target, seen, lambda: void)

    (_, block), records = jax.lax.scan(to_next_record, (begin, block), None, length=RECORDS_AT_ONCE)
    return block, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), records)


def observe_block(setting: Setting, params: Params) -> Any:
    """What is recorded, name to values with a leading axis of chains."""
    return jax.vmap(lambda p: observe(setting.record, p))(params)


def _batched_steps(setting: Setting) -> Callable[..., Chain]:
    def steps(first: Array, block: Chain, begin: Array, end: Array) -> Chain:
        index = first + jnp.arange(block.event.shape[0], dtype=jnp.uint32)

        def go_on(carry: tuple[Array, Chain]) -> Array:
            k, chains = carry
            return (k < end) & jnp.any(chains.event == 0)

        def body(carry: tuple[Array, Chain]) -> tuple[Array, Chain]:
            k, chains = carry
            stepped = jax.vmap(lambda chain, j: step_chain(setting, chain, j, k, True))(
                chains, index
            )
            return k + 1, stepped

        return jax.lax.while_loop(go_on, body, (begin, block))[1]

    return steps


def _lane_steps(route: Route, arrays: Any) -> Callable[..., Chain]:
    program, lanes = route.program, route.block
    assert program is not None
    known = program.prepare(arrays)

    def steps(first: Array, block: Chain, begin: Array, end: Array) -> Chain:
        leaves, tree = jax.tree.flatten(block)
        shapes = [leaf.shape[1:] for leaf in leaves]

        def chain_of(columns: list[Array]) -> Chain:
            return jax.tree.unflatten(tree, repacked(columns, shapes))

        def step(k: Array, columns: list[Array]) -> list[Array]:
            index = first + jax.lax.iota(jnp.uint32, lanes)
            shared = (k, k < end)
            new = program.evaluate(known, shared, (chain_of(columns), apart(index)), lanes)
            return in_one_pass(
                [x for leaf in jax.tree.leaves(new, is_leaf=is_apart) for x in entries(leaf, lanes)]
            )

        def steps_at_once(i: Array, carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
            k, columns = carry
            # Two in a row save the copies from one turn of the loop to the next.
            return k + 2, step(k + 1, step(k, columns))

        def look(carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
            pairs = jnp.minimum(_STEPS_AT_ONCE, end - carry[0] + 1) // 2
            return jax.lax.fori_loop(0, pairs, steps_at_once, carry)

        def go_on(carry: tuple[Array, list[Array]]) -> Array:
            k, columns = carry
            return (k < end) & jnp.any(chain_of(columns).event[()] == 0)

        columns = [x for leaf in leaves for x in entries(apart(leaf), lanes)]
        columns = jax.lax.while_loop(go_on, look, (begin, columns))[1]
        return jax.tree.map(lambda part: together(part, lanes), chain_of(columns))

    return steps
