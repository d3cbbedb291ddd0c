"""Products and look-ups: the vectors that meet the parameter, and how its axes are laid out."""

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from thalweg.gradnorms.factors import Factors, OneHot, Side, Size
from thalweg.gradnorms.uses import Use

# Axes of the base of a view: blocks, then the smaller and the larger of rows and columns.
Layout = tuple[Any, ...]


T = TypeVar("T")


def arranged(first: tuple[tuple[int, ...], T], second: tuple[tuple[int, ...], T]) -> tuple[T, T]:
    """Two sides, given with their axes, in an order that depends on these alone: rows, columns."""
    one, other = (first, second) if first[0] <= second[0] else (second, first)
    return one[1], other[1]


class Product:
    """A product of any dimension numbers: ``dot_general``."""

    def __init__(self, use: Use):
        contracted, blocks = use.eqn.params["dimension_numbers"]
        mine, other = use.position, use.other
        self._mine, shape, _ = use.shapes
        self._axes = use.view.axes
        self._contracted = self._sorted(contracted[mine], contracted[other])
        self._blocks = self._sorted(blocks[mine], blocks[other])
        bound = {own for own, _ in (*self._contracted, *self._blocks)}
        self._free = [k for k in range(len(self._mine)) if k not in bound]
        theirs = {x for _, x in (*self._contracted, *self._blocks)}
        self._others = [k for k in range(len(shape)) if k not in theirs]
        self._positions = math.prod(shape[k] for k in self._others)
        # The axes of the result: blocks, those free of the first argument, of the second.
        first = len(self._blocks) + (len(self._others) if mine == 1 else 0)
        second = len(self._blocks) + (len(self._free) if mine == 0 else 0)
        place = {k: first + j for j, k in enumerate(self._free)}
        self._free.sort(key=lambda k: self._axes[k])
        self._order = [blocks[mine].index(own) for own, _ in self._blocks]
        self._order += [second + j for j in range(len(self._others))]
        self._order += [place[k] for k in self._free]

    def _sorted(self, mine: Any, other: Any) -> list[tuple[int, int]]:
        return sorted(zip(mine, other, strict=True), key=lambda pair: self._axes[pair[0]])

    def _keys(self) -> tuple[tuple[int, ...], ...]:
        met = tuple(self._axes[k] for k, _ in self._contracted)
        free = tuple(self._axes[k] for k in self._free)
        return tuple(self._axes[k] for k, _ in self._blocks), met, free

    def _count(self, axes: Any) -> int:
        return math.prod(self._mine[k] for k in axes)

    def layout(self) -> Layout:
        """Which axes are blocks, rows and columns."""
        blocks, met, free = self._keys()
        return ("product", blocks, *sorted((met, free)))

    def size(self) -> Size:
        """From shapes alone."""
        _, met, free = self._keys()
        contracted = (met, self._count(k for k, _ in self._contracted))
        rows, columns = arranged(contracted, (free, self._count(self._free)))
        blocks = self._count(k for k, _ in self._blocks)
        return Size(blocks, self._positions, rows, columns, False)

    def factors(self, met: Array, delta: Array) -> Factors:
        """The vectors of all positions."""
        order = [x for _, x in self._blocks] + self._others + [x for _, x in self._contracted]
        blocks = self._count(k for k, _ in self._blocks)
        theirs = met.transpose(order).reshape(
            blocks, self._positions, self._count(k for k, _ in self._contracted)
        )
        own = delta.transpose(self._order).reshape(blocks, self._positions, self._count(self._free))
        _, met_axes, free_axes = self._keys()
        return Factors(*arranged((met_axes, theirs), (free_axes, own)))


class LookUp:
    """Rows of a table: ``gather``, or ``dynamic_slice`` for one row."""

    def __init__(self, use: Use):
        self._shape, _, result = use.shapes
        self._axes = use.view.axes
        kept, places = list(range(len(self._shape))), tuple(range(len(result)))
        self._component, self._drops = 0, False
        if use.eqn.primitive.name == "gather":
            numbers, sizes = use.eqn.params["dimension_numbers"], use.eqn.params["slice_sizes"]
            (self._row,) = (k for k in kept if sizes[k] != self._shape[k])
            self._component = numbers.start_index_map.index(self._row)
            self._drops = use.eqn.params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP
            kept = [k for k in kept if k not in numbers.collapsed_slice_dims]
            places = numbers.offset_dims
        else:
            self._row = use.other - 1
        # Where the axes of the table are in the result; that of the rows has length one there.
        place = dict(zip(kept, places, strict=True))
        rest = [k for k in range(len(self._shape)) if k != self._row]
        self._rest = sorted(rest, key=lambda k: self._axes[k])
        looked_up = [k for k in range(len(result)) if k not in places]
        self._positions = math.prod(result[k] for k in looked_up)
        looked_up += [place[self._row]] if self._row in place else []
        self._order = [*looked_up, *(place[k] for k in self._rest)]

    def _keys(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (self._axes[self._row],), tuple(self._axes[k] for k in self._rest)

    def layout(self) -> Layout:
        """Which axes are rows and columns."""
        return ("product", (), *sorted(self._keys()))

    def size(self) -> Size:
        """From shapes alone."""
        row, rest = self._keys()
        entries = math.prod(self._shape[k] for k in self._rest)
        rows, columns = arranged((row, self._shape[self._row]), (rest, entries))
        return Size(1, self._positions, rows, columns, True)

    def factors(self, met: Array, delta: Array) -> Factors:
        """Unit vectors for the entries that are looked up."""
        index = met[..., self._component] if met.ndim else met
        index, last = index.reshape(1, -1), self._shape[self._row] - 1
        within = jnp.ones(index.shape, bool)
        if self._drops:
            within = (index >= 0) & (index <= last)
        index = jnp.clip(index, 0, last)
        row, rest = self._keys()
        own = delta.transpose(self._order).reshape(1, self._positions, -1)
        rows: tuple[tuple[int, ...], Side] = (row, OneHot(index, within))
        return Factors(*arranged(rows, (rest, own)))
