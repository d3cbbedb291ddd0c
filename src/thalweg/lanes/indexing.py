"""Rules for entries that an index means: known ones, one of a few windows, rows of a table."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thalweg.lanes.values import (
    Operation,
    Rule,
    apart_anyway,
    applied,
    as_lanes,
    elementwise,
    in_one_pass,
    is_apart,
    is_concrete,
    packed,
)

# Choices up to which a chain of selects beats loads from a table.
SELECTED = 8
_INTO_RANGE = (jax.lax.GatherScatterMode.CLIP, jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS)


class Windows(NamedTuple):
    """Which entries of an array an index means, in the words of a gather."""

    shape: tuple[int, ...]
    numbers: jax.lax.GatherDimensionNumbers
    sizes: tuple[int, ...]
    mode: Any

    @property
    def lasts(self) -> list[int]:
        """The largest value of each component of an index."""
        return [self.shape[axis] - self.sizes[axis] for axis in self.numbers.start_index_map]

    @property
    def ways(self) -> int:
        """How many windows there are."""
        return int(np.prod([last + 1 for last in self.lasts], dtype=int))

    def places(self, index: Any) -> np.ndarray:
        """Where in the flat array the entries are for a known index; -1 for those outside."""
        places = np.arange(int(np.prod(self.shape, dtype=int)), dtype=np.int32)
        options = {"mode": self.mode, "fill_value": -1}
        with jax.ensure_compile_time_eval():
            index, places = jnp.asarray(index), places.reshape(self.shape)
            return np.asarray(jax.lax.gather(places, index, self.numbers, self.sizes, **options))

    def all_places(self, shape: tuple[int, ...]) -> list[np.ndarray]:
        """The places of all windows, for an index of this shape that is the same in all of it."""
        starts = np.ndindex(*(last + 1 for last in self.lasts))
        return [self.places(np.broadcast_to(np.asarray(i, np.int32), shape)) for i in starts]

    def number(self, index: Any) -> np.ndarray:
        """Which of all windows is meant: the nearest or, where such are dropped, -1 if outside."""
        index = apart_anyway(index)
        batch = index.shape[:-1]
        numbers = []
        for at in np.ndindex(batch):
            number, inside = jnp.int32(0), jnp.asarray(True)
            for i, last in zip(index[at], self.lasts, strict=True):
                near = jnp.clip(i, 0, last)
                number, inside = number * (last + 1) + near.astype(jnp.int32), inside & (i == near)
            numbers.append(number if self.mode in _INTO_RANGE else jnp.where(inside, number, -1))
        return packed(numbers, batch)


def _gather(operation: Operation, inputs: list[Any], lanes: int) -> list[Any] | None:
    """Known entries; or one of a few windows, by selects; or rows that all chains share, loaded."""
    table, index = inputs
    windows = windows_of(operation, [np.shape(x) for x in inputs])
    if is_concrete(index):
        places = windows.places(index)
        return None if np.any(places < 0) else [_at(apart_anyway(table), places)]
    if windows.ways <= SELECTED and windows.mode in _INTO_RANGE:
        number = np.expand_dims(windows.number(index), windows.numbers.offset_dims)
        entries = apart_anyway(table)
        choices = [_at(entries, places) for places in windows.all_places(np.shape(index))]
        return [chosen_among(number, choices, lanes)]
    if is_apart(table):
        return None
    return _loaded(windows, operation.params["fill_value"], table, index, lanes)


def _at(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    return x.reshape(-1)[places.reshape(-1)].reshape(places.shape)


def _loaded(
    windows: Windows, fill_value: Any, table: Any, index: Any, lanes: int
) -> list[Any] | None:
    numbers, row, batch = windows.numbers, windows.shape[1:], index.shape[:-1]
    are_rows = (
        numbers.collapsed_slice_dims == numbers.start_index_map == (0,)
        and not numbers.operand_batching_dims
        and windows.sizes == (1, *row)
        and numbers.offset_dims == tuple(range(len(batch), len(batch) + len(row)))
    )
    if not are_rows:
        return None
    columns = jnp.asarray(table).reshape(len(table), -1)
    single = jax.lax.GatherDimensionNumbers((), (0,), (0,))
    options = {"mode": windows.mode, "fill_value": fill_value}
    items = []
    for entry in index.reshape(-1):
        # The index is made beforehand, not once for every column.
        (i,) = in_one_pass([as_lanes(entry, lanes)])
        for j in range(columns.shape[1]):
            items.append(jax.lax.gather(columns[:, j], i[:, None], single, (1,), **options))
    return [packed(items, (*batch, *row))]


def _scatter(binary: Any) -> Callable[..., list[Any] | None]:
    """Updates one after the other: of known entries, or of those of a few windows if meant."""

    def rule(operation: Operation, inputs: list[Any], lanes: int) -> list[Any] | None:
        if binary is None and operation.params["update_jaxpr"] is not None:
            return None
        operand, index, updates = inputs
        windows = windows_of(operation, [np.shape(x) for x in inputs])
        result, updates = apart_anyway(operand).reshape(-1).copy(), apart_anyway(updates)
        if is_concrete(index):
            chances = [(windows.places(index), np.asarray(None))]
        else:
            number = np.expand_dims(windows.number(index), windows.numbers.offset_dims)
            chances = [
                (places, elementwise(jax.lax.eq_p, {}, [number, np.int32(i)], lanes))
                for i, places in enumerate(windows.all_places(np.shape(index)))
            ]
        for places, meant in chances:
            meant = np.broadcast_to(meant, places.shape)
            for place, new, here in zip(places.flat, updates.flat, meant.flat, strict=True):
                if place >= 0:
                    result[place] = _updated(binary, result[place], new, here, lanes)
        return [result.reshape(np.shape(operand))]

    return rule


def windows_of(operation: Operation, shapes: Sequence[tuple[int, ...]]) -> Windows:
    """The windows of a gather or scatter with inputs of these shapes."""
    p = operation.params
    d, shape = p["dimension_numbers"], shapes[0]
    if operation.primitive.name == "gather":
        return Windows(shape, d, p["slice_sizes"], p["mode"])
    numbers = jax.lax.GatherDimensionNumbers(
        d.update_window_dims,
        d.inserted_window_dims,
        d.scatter_dims_to_operand_dims,
        d.operand_batching_dims,
        d.scatter_indices_batching_dims,
    )
    window = iter(shapes[2][axis] for axis in d.update_window_dims)
    single = (*d.inserted_window_dims, *d.operand_batching_dims)
    sizes = tuple(1 if axis in single else next(window) for axis in range(len(shape)))
    return Windows(shape, numbers, sizes, p["mode"])


def _updated(binary: Any, old: Any, new: Any, here: Any, lanes: int) -> Any:
    if binary is not None:
        new = applied(binary, {}, (old, new), lanes)
    return new if here is None else applied(jax.lax.select_n_p, {}, (here, old, new), lanes)


def chosen_among(number: np.ndarray, choices: Sequence[Any], lanes: int) -> np.ndarray:
    """Entry by entry the choice of this number, or the nearest one."""
    value = choices[-1]
    for i in range(len(choices) - 2, -1, -1):
        here = elementwise(jax.lax.le_p, {}, [number, np.int32(i)], lanes)
        value = elementwise(jax.lax.select_n_p, {}, [here, value, choices[i]], lanes)
    return value


# By name of the operation; its second input is the index.
INDEXING: dict[str, Rule] = {
    "gather": _gather,
    "scatter": _scatter(None),
    "scatter-add": _scatter(jax.lax.add_p),
    "scatter-max": _scatter(jax.lax.max_p),
    "scatter-min": _scatter(jax.lax.min_p),
    "scatter-mul": _scatter(jax.lax.mul_p),
    "scatter-sub": _scatter(jax.lax.sub_p),
}
