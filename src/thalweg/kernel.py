"""The route by lanes as one kernel for CUDA: whole trajectories of a block in registers.

Nothing here has run on a GPU and :func:`thalweg.simulate` does not use it. It is tested in Pallas'
interpret mode on a CPU, and its lowering to Triton without a device; whether a GPU gives the same
and gives it faster is to be measured before it is wired in. Without a kernel XLA launches programs
for every step, and the chains go to memory and back between them.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.extend import core
from jaxtyping import Array, Int, UInt

from thalweg.chains import Chain
from thalweg.engine import Route
from thalweg.errors import InputError
from thalweg.lanes import Program, apart, entries, is_apart, repacked, together, without_passes

# Steps between two looks at whether a whole block has stopped, for which its threads must meet.
_STEPS_AT_ONCE = 64
# One chain a thread: if there are more, Triton moves numbers between the threads at every step.
_THREADS_OF_A_WARP, _THREADS_AT_MOST = 32, 1024

_ChainOf = Callable[[list[Any]], Chain]


def advance(
    route: Route,
    arrays: Any,
    group: Chain,
    index: UInt[Array, " blocks"],
    begin: Int[Array, ""],
    end: Int[Array, ""],
    *,
    interpret: bool = False,
) -> Chain:
    """Blocks of chains, axes (blocks, block, ...), from step ``begin`` to ``end``, both traced.

    What the engine's own function returns for a setting without records, from the same random
    words; chains that have stopped stay. Each block is a program of the grid. A long run is to be
    divided into several launches.

    Args:
        route: A route by lanes. Its block is a CPU's; here that of ``group`` counts.
        arrays: The arrays of the setting.
        group: The chains, a power of two from 32 to 1024 in a block.
        index: The number of the first chain of each block.
        begin: The first step.
        end: The step after the last.
        interpret: Whether to run operation by operation, on any device.

    Raises:
        InputError: A batched route, a setting with records, another size of a block; a step that
            looks up, by an index, numbers of the chain's own. What Triton itself does not have
            (erf, sorting) is its own NotImplementedError.

    Cost: a branch that is the same for all chains costs both its sides.
    """
    blocks, lanes = group.event.shape
    program = _checked(route, lanes)
    columns, chain_of = _columns(group)
    step = _Step(_traced(program, program.prepare(arrays), columns, chain_of, lanes), lanes)
    shared = (step.numbers, step.tables, index, jnp.stack([begin, end]))

    def kernel(shared: Any, sources: list[Any], results: list[Any]) -> None:
        numbers, tables, first, bounds = shared
        held = [[ref[i] for i in range(ref.shape[0])] for ref in numbers]
        chains = first[pl.program_id(0)] + jax.lax.iota(jnp.uint32, lanes)

        def advanced(k: Array, columns: list[Array]) -> list[Array]:
            return step(held, tables, [k, chains, *columns])

        columns = _loop(advanced, chain_of, [ref[...] for ref in sources], bounds[0], bounds[1])
        for result, column in zip(results, columns, strict=True):
            result[...] = column

    part = [pl.BlockSpec((lanes,), lambda block: (block,))] * len(columns)
    (columns,) = pl.pallas_call(
        kernel,
        out_shape=[[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in columns]],
        grid=(blocks,),
        in_specs=[jax.tree.map(lambda _: pl.BlockSpec(), shared), part],
        out_specs=[part],
        compiler_params=triton.CompilerParams(num_warps=lanes // _THREADS_OF_A_WARP, num_stages=1),
        interpret=interpret,
    )(shared, columns)
    wholes = jax.tree.map(lambda x: together(x, blocks * lanes), chain_of(columns))
    return jax.tree.map(lambda x: x.reshape(blocks, lanes, *x.shape[1:]), wholes)


def _loop(
    step: Callable[[Array, list[Array]], list[Array]],
    chain_of: _ChainOf,
    columns: list[Array],
    begin: Array,
    end: Array,
) -> list[Array]:
    """Steps until the end or until all chains of the block have stopped."""

    def go_on(carry: tuple[Array, list[Array]]) -> Array:
        k, columns = carry
        # Triton has no reduction of booleans.
        running = jnp.max((chain_of(columns).event[()] == 0).astype(jnp.int32))
        return (k < end) & (running > 0)

    def look(carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
        k, columns = carry
        stop = k + jnp.minimum(_STEPS_AT_ONCE, end - k)
        return stop, jax.lax.fori_loop(k, stop, step, columns)

    return jax.lax.while_loop(go_on, look, (begin, columns))[1]


def _columns(group: Chain) -> tuple[list[Array], _ChainOf]:
    """The numbers of a chain, each of all chains on one axis, and the way back."""
    leaves, tree = jax.tree.flatten(group)
    shapes = [leaf.shape[2:] for leaf in leaves]
    parts = [apart(leaf.reshape(-1, *shape)) for leaf, shape in zip(leaves, shapes, strict=True)]
    return (
        [x for part in parts for x in entries(part, group.event.size)],
        lambda columns: jax.tree.unflatten(tree, repacked(columns, shapes)),
    )


def _traced(
    program: Program, known: Any, columns: list[Array], chain_of: _ChainOf, lanes: int
) -> core.ClosedJaxpr:
    """A step of a block: the new columns from (step, chain numbers, columns)."""

    def step(k: Array, index: Array, *columns: Array) -> list[Array]:
        # The step number on lanes, too: what is left is on lanes, or known beforehand.
        shared = apart(jnp.broadcast_to(k, (lanes,))), np.asarray(True)
        new = program.evaluate(known, shared, (chain_of(list(columns)), apart(index)), lanes)
        return [x for leaf in jax.tree.leaves(new, is_leaf=is_apart) for x in entries(leaf, lanes)]

    def on_lanes(dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((lanes,), dtype)

    k, index = jax.ShapeDtypeStruct((), jnp.int32), on_lanes(jnp.uint32)
    # Calls are written out, so that what they know beforehand is computed outside, too.
    with jax.disable_jit(), without_passes():
        return jax.make_jaxpr(step)(k, index, *(on_lanes(x.dtype) for x in columns))


class _Step:
    """A step as operations on lanes and on numbers, and what they read.

    All that is known beforehand is computed here, outside the kernel, rows and entries of arrays
    too: a kernel may hold no array, and Triton takes none apart.

    Attributes:
        numbers: Known numbers, one array for each type; the kernel reads them before the loop.
        tables: Known arrays, in which the kernel looks up numbers.
    """

    def __init__(self, traced: core.ClosedJaxpr, lanes: int):
        self._inputs, self._outputs = traced.jaxpr.invars, traced.jaxpr.outvars
        self._operations = []
        known = dict(zip(traced.jaxpr.constvars, traced.consts, strict=True))
        for operation in traced.jaxpr.eqns:
            # A number is repeated for the lanes in the kernel, rather than loaded for each.
            is_repeated = operation.params.get("shape") == (lanes,)
            if known.keys() >= set(_variables(operation.invars)) and not is_repeated:
                known.update(_results(operation, operation.primitive.bind, known))
            else:
                self._operations.append(operation)
        arrays = [x for operation in self._operations for x in _arrays(operation, known)]
        self._tables = _variables(arrays)
        read = [x for operation in self._operations for x in operation.invars]
        single = [x for x in _variables(read) if x in known and not x.aval.shape]
        types = dict.fromkeys(x.aval.dtype for x in single)
        self._numbers = [[x for x in single if x.aval.dtype == dtype] for dtype in types]
        self.numbers = [jnp.stack([known[x] for x in group]) for group in self._numbers]
        self.tables = [known[x] for x in self._tables]

    def __call__(self, numbers: list[list[Array]], tables: list[Any], inputs: list[Array]) -> Any:
        """The new columns; ``tables`` are references to them."""
        values: dict[Any, Any] = dict(zip(self._inputs, inputs, strict=True))
        for variables, group in zip(self._numbers, numbers, strict=True):
            values.update(zip(variables, group, strict=True))
        values.update(zip(self._tables, tables, strict=True))
        for operation in self._operations:
            apply = _INSTEAD.get(operation.primitive.name, operation.primitive.bind)
            values.update(_results(operation, apply, values))
        return [_value(x, values) for x in self._outputs]


def _variables(atoms: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(x for x in atoms if not isinstance(x, core.Literal)))


def _arrays(operation: Any, known: dict[Any, Any]) -> list[Any]:
    """The known arrays that an operation in the kernel reads: tables, which it looks up."""
    arrays = [x for x in _variables(operation.invars) if x in known and x.aval.shape]
    if arrays and (operation.primitive.name != "gather" or arrays != operation.invars[:1]):
        raise InputError(
            f"the kernel cannot hold an array of shape {arrays[0].aval.shape}, which the operation "
            f"{operation.primitive.name} reads"
        )
    return arrays


def _results(operation: Any, apply: Callable[..., Any], values: dict[Any, Any]) -> dict[Any, Any]:
    result = apply(*(_value(x, values) for x in operation.invars), **operation.params)
    results = result if operation.primitive.multiple_results else [result]
    return dict(zip(operation.outvars, results, strict=True))


def _value(atom: Any, values: dict[Any, Any]) -> Any:
    """Of a variable, or the number that a literal is, in its own type."""
    is_literal = isinstance(atom, core.Literal)
    return np.asarray(atom.val, atom.aval.dtype) if is_literal else values[atom]


def _looked_up(
    table: Any, index: Array, *, slice_sizes: tuple[int, ...], mode: Any, fill_value: Any, **_: Any
) -> Array:
    """Numbers of a table, one for each lane, from where it is."""
    if slice_sizes != (1,) or index.ndim != 2:
        raise InputError(
            f"the kernel looks up single numbers in known tables, not windows {slice_sizes} in "
            f"{table.shape}"
        )
    place = index.reshape(index.shape[0])
    within = jnp.clip(place, 0, table.shape[0] - 1)
    found = table[within]
    if mode == jax.lax.GatherScatterMode.FILL_OR_DROP:
        return jnp.where(place == within, found, jnp.asarray(fill_value, found.dtype))
    return found


def _leading_zeros(x: Array) -> Array:
    """Of the signed number of the same bits: Triton compiles no other."""
    return jax.lax.clz(x.astype(f"int{8 * x.dtype.itemsize}")).astype(x.dtype)


# What stands for operations that are not lowered to Triton as they are.
_INSTEAD: dict[str, Callable[..., Any]] = {
    "clz": _leading_zeros,
    "copy": lambda x: x,
    "gather": _looked_up,
}


def _checked(route: Route, lanes: int) -> Program:
    if route.program is None:
        raise InputError(f"the kernel needs a route by lanes, and {route.reason}")
    if route.static.record.every is not None:
        raise InputError("the kernel makes no records; expected a setting without record every=")
    if lanes & (lanes - 1) or not _THREADS_OF_A_WARP <= lanes <= _THREADS_AT_MOST:
        raise InputError(
            f"a block of the kernel has {lanes} chains; expected a power of two from 32 to 1024"
        )
    return route.program
