"""Values on lanes: arrays of objects, and what is done with single entries."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_passes = ContextVar("passes", default=True)


class Operation(NamedTuple):
    """One equation, calls inlined; inputs and outputs are numbers of values."""

    primitive: Any
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    effects: Any


# Results of an operation on lanes, or None if the rule does not cover it.
Rule = Callable[[Operation, list[Any], int], list[Any] | None]


def is_apart(value: Any) -> bool:
    """Whether a value is an array of lanes, as :func:`apart` makes them."""
    return isinstance(value, np.ndarray) and value.dtype == object


def apart(leaf: Any) -> np.ndarray:
    """An array with a leading axis of chains as an array (of objects) of lanes."""
    shape = leaf.shape[1:]
    return packed([leaf[(slice(None), *at)] for at in np.ndindex(shape)], shape)


def together(parts: Any, lanes: int) -> Any:
    """The inverse of :func:`apart`; an ordinary array is repeated for every chain."""
    if not is_apart(parts):
        return jnp.broadcast_to(parts, (lanes, *jnp.shape(parts)))
    return jnp.stack(entries(parts, lanes), axis=-1).reshape(lanes, *parts.shape)


def entries(leaf: Any, lanes: int) -> list[Any]:
    """The entries of one leaf in order, each as lanes."""
    return [as_lanes(entry, lanes) for entry in apart_anyway(leaf).reshape(-1)]


def repacked(columns: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Leaves of these shapes from all their entries."""
    ends = np.cumsum([int(np.prod(shape, dtype=int)) for shape in shapes])
    return [
        packed(columns[end - int(np.prod(shape, dtype=int)) : end], shape)
        for end, shape in zip(ends.tolist(), shapes, strict=True)
    ]


@contextmanager
def without_passes() -> Iterator[None]:
    """Traces nothing in one pass meanwhile: for a kernel, whose numbers are in registers."""
    token = _passes.set(False)
    try:
        yield
    finally:
        _passes.reset(token)


def in_one_pass(columns: Sequence[Any]) -> list[Any]:
    """The same arrays, bit for bit, computed together in one pass over the lanes.

    XLA:CPU makes one kernel for every array that leaves a loop and computes anew in each what they
    share: the random words three times over in two dimensions. A reduction of several arrays at
    once is one kernel; this one adds nothing. Arrays of a second floating type have one of their
    own, for XLA refuses to mix them.
    """
    if jax.default_backend() != "cpu" or not _passes.get():
        return list(columns)
    floating = [jnp.issubdtype(x.dtype, jnp.inexact) for x in columns]
    first = next(itertools.compress((x.dtype for x in columns), floating), None)
    passes: dict[Any, list[int]] = {}
    for i, x in enumerate(columns):
        passes.setdefault(x.dtype if floating[i] else first, []).append(i)
    passed: dict[int, Any] = {}
    for places in passes.values():
        passed.update(zip(places, _plus_nothing([columns[i] for i in places]), strict=True))
    return [passed[i] for i in range(len(columns))]


def _plus_nothing(columns: list[Any]) -> list[Any]:
    # Minus zero is the number whose sum with x is x, for 0 + (-0) is 0.
    nothing = [np.zeros((), x.dtype) for x in columns]
    nothing = [-y if jnp.issubdtype(y.dtype, jnp.inexact) else y for y in nothing]
    pairs = [jnp.stack([x, jnp.full_like(x, y)]) for x, y in zip(columns, nothing, strict=True)]

    def add(a: list[Any], b: list[Any]) -> list[Any]:
        return [x | y if x.dtype == bool else x + y for x, y in zip(a, b, strict=True)]

    return jax.lax.reduce(pairs, nothing, add, (0,))


def on_arrays(operation: Operation, inputs: list[Any]) -> list[Any]:
    """An operation on ordinary arrays."""
    result = operation.primitive.bind(*inputs, **operation.params)
    return list(result) if operation.primitive.multiple_results else [result]


def is_concrete(value: Any) -> bool:
    """Whether the numbers of an ordinary array are known now."""
    return value is not None and not is_apart(value) and not isinstance(value, jax.core.Tracer)


def apart_anyway(value: Any) -> np.ndarray:
    """An ordinary array as an array of objects, each entry a scalar."""
    if is_apart(value):
        return value
    shape = np.shape(value)
    return packed([value[at] for at in np.ndindex(shape)], shape)


def packed(items: Sequence[Any], shape: Sequence[int]) -> np.ndarray:
    """Objects as an array; one at a time, or NumPy would look into them."""
    flat = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        flat[i] = item
    return flat.reshape(tuple(shape))


def row_of(x: Any, i: int) -> Any:
    """An entry along the leading axis, apart if x is (an index would open the last array)."""
    return x[i : i + 1].reshape(x.shape[1:]) if is_apart(x) else x[i]


def as_lanes(entry: Any, lanes: int) -> Any:
    """An entry as lanes, if it is the same for all chains so far."""
    return jnp.broadcast_to(entry, (lanes,)) if np.ndim(entry) == 0 else entry


def elementwise(primitive: Any, params: dict[str, Any], inputs: list[Any], lanes: int) -> Any:
    """An elementwise operation, entry by entry; inputs of no axes go with every entry."""
    operands = np.broadcast_arrays(*map(apart_anyway, inputs))
    rows = zip(*(operand.reshape(-1) for operand in operands), strict=True)
    results = [applied(primitive, params, row, lanes) for row in rows]
    return packed(results, operands[0].shape)


def applied(primitive: Any, params: dict[str, Any], numbers: Sequence[Any], lanes: int) -> Any:
    """An operation on one number of each input."""
    if any(np.ndim(x) for x in numbers):
        numbers = [as_lanes(x, lanes) for x in numbers]
    return primitive.bind(*numbers, **params)


def converted(x: np.ndarray, dtype: Any) -> np.ndarray:
    """All entries in another type."""
    items = [jax.lax.convert_element_type(entry, dtype) for entry in x.reshape(-1)]
    return packed(items, x.shape)


def size_of(aval: Any) -> int:
    """The number of entries of a shape."""
    return int(np.prod(aval.shape, dtype=int))
