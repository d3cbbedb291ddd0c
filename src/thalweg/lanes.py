"""A function of one chain on a block of chains, an array of lanes for every single number.

A chain has few numbers and a block many chains. Vectors of a chain as small trailing axes leave the
processor's vector units idle; so every array of the function is taken apart, and each of its
entries becomes one array with the chains of the block along it (structure of arrays). Sums,
products and reshapes of small arrays then cost what their arithmetic costs, and however a loss is
written, coordinate by coordinate or with vectors, what runs is the same.

A value is *apart* (an array of objects, each of them lanes or a scalar) where it differs from chain
to chain, and an ordinary array where it does not, or has no entries.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

# Choices up to which a chain of selects beats loads from a table.
_SELECTED = 8

_passes = ContextVar("passes", default=True)


class _Operation(NamedTuple):
    """One equation, calls inlined; inputs and outputs are numbers of values."""

    primitive: Any
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    effects: Any


class Program:
    """A traced function of fixed, shared and own inputs.

    *Fixed* inputs are the same for all chains and steps, *shared* ones for all chains, *own* ones
    differ from chain to chain. What depends on fixed inputs alone is computed once, outside the
    loop over steps.

    Attributes:
        cost: How many operations on lanes an evaluation takes; a loop counts all its turns.
        obstacle: The operation that cannot be taken apart, or None; a host callback before others.
        opaque: Whether the obstacle is a host callback.
    """

    def __init__(self, function: Callable[..., Any], fixed: Any, shared: Any, own: Any):
        flat, tree = jax.tree.flatten((fixed, shared, own))
        counts = [len(jax.tree.leaves(part)) for part in (fixed, shared, own)]
        traced, shape = jax.make_jaxpr(
            lambda *leaves: function(*jax.tree.unflatten(tree, leaves)), return_shape=True
        )(*flat)
        self._out_tree = jax.tree.structure(shape)
        self._body = _Body(traced)
        first, second, third = np.split(np.asarray(self._body.inputs, int), np.cumsum(counts)[:2])
        self._fixed, self._shared, self._own = first.tolist(), second.tolist(), third.tolist()
        self.cost, obstacles = self._body.measured(set(self._own))
        if any(_size(self._body.shapes[i]) == 0 for i in self._own):
            obstacles.append("on an array without entries")
        callbacks = [name for name in obstacles if name in _CALLBACKS]
        self.obstacle = next(iter(callbacks + obstacles), None)
        self.opaque = bool(callbacks)

    def prepare(self, fixed: Any) -> dict[int, Any]:
        """What depends on the fixed inputs alone: computed here, for :meth:`evaluate`."""
        known = dict(self._body.constants)
        known.update(zip(self._fixed, jax.tree.leaves(fixed), strict=True))
        for operation in self._body.operations:
            if known.keys() >= {*operation.inputs} and not known.keys() >= {*operation.outputs}:
                results = _uniform(operation, [known[i] for i in operation.inputs])
                known.update(zip(operation.outputs, results, strict=True))
        return known

    def evaluate(self, known: dict[int, Any], shared: Any, own: Any, lanes: int) -> Any:
        """The function on a block; leaves of ``own`` and of the result as :func:`apart` has them.

        A leaf of the result that is the same for all chains is an ordinary array.
        """
        values = dict(known)
        values.update(zip(self._shared, jax.tree.leaves(shared), strict=True))
        values.update(zip(self._own, jax.tree.leaves(own, is_leaf=is_apart), strict=True))
        self._body.run(values, lanes)
        return jax.tree.unflatten(self._out_tree, [values[i] for i in self._body.outputs])


def is_apart(value: Any) -> bool:
    """Whether a value is an array of lanes, as :func:`apart` makes them."""
    return isinstance(value, np.ndarray) and value.dtype == object


def apart(leaf: Any) -> np.ndarray:
    """An array with a leading axis of chains as an array (of objects) of lanes."""
    shape = leaf.shape[1:]
    return _packed([leaf[(slice(None), *at)] for at in np.ndindex(shape)], shape)


def together(parts: Any, lanes: int) -> Any:
    """The inverse of :func:`apart`; an ordinary array is repeated for every chain."""
    if not is_apart(parts):
        return jnp.broadcast_to(parts, (lanes, *jnp.shape(parts)))
    return jnp.stack(entries(parts, lanes), axis=-1).reshape(lanes, *parts.shape)


def entries(leaf: Any, lanes: int) -> list[Any]:
    """The entries of one leaf in order, each as lanes."""
    return [_full(entry, lanes) for entry in _apart_anyway(leaf).reshape(-1)]


def repacked(columns: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Leaves of these shapes from all their entries."""
    ends = np.cumsum([int(np.prod(shape, dtype=int)) for shape in shapes])
    return [
        _packed(columns[end - int(np.prod(shape, dtype=int)) : end], shape)
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


class _Body:
    """A list of operations with its constants; calls are inlined and dead ones left out.

    Args:
        closed: The jaxpr.
        given: What is known of its inputs; those that are concrete count as constants.
    """

    def __init__(self, closed: Any, given: Sequence[Any] = ()):
        self.constants: dict[int, Any] = {}
        self.shapes: dict[int, Any] = {}
        self.operations: list[_Operation] = []
        self._numbers = itertools.count()
        self.inputs = [self._new(v.aval) for v in closed.jaxpr.invars]
        known = zip(self.inputs, given, strict=False)
        self.constants.update((i, value) for i, value in known if _is_concrete(value))
        self.outputs = self._inline(closed.jaxpr, closed.consts, self.inputs)
        self._fold_indices()
        self._drop_dead()

    def run(self, values: dict[int, Any], lanes: int) -> None:
        """Evaluate what is not yet known."""
        for operation in self.operations:
            if values.keys() >= {*operation.outputs}:
                continue
            inputs = [values[i] for i in operation.inputs]
            if any(map(is_apart, inputs)):
                results = _on_lanes(operation, inputs, lanes)
            else:
                results = _uniform(operation, inputs)
            for number, result in zip(operation.outputs, results, strict=True):
                shape = self.shapes[number]
                values[number] = result if _size(shape) else jnp.zeros(shape.shape, shape.dtype)

    def reached_from(self, own: set[int]) -> list[_Operation]:
        """The operations whose results or effects differ from chain to chain; ``own`` grows."""
        reached = []
        for operation in self.operations:
            if own.intersection(operation.inputs) or operation.effects:
                own.update(operation.outputs)
                reached.append(operation)
        return reached

    def measured(self, own: set[int]) -> tuple[int, list[str]]:
        """The cost of what differs from chain to chain, and the obstacles in it."""
        cost, obstacles = 0, []
        for operation in self.reached_from(own):
            if not self._has_rule(operation):
                obstacles += [operation.primitive.name, *_callbacks_in(operation.params)]
                continue
            for body, inner, turns in self._bodies(operation, own):
                more, others = body.measured(inner)
                cost += turns * more
                obstacles += others
            cost += self._cost(operation, own)
        return cost, obstacles

    def _has_rule(self, operation: _Operation) -> bool:
        name = operation.primitive.name
        if name in _SCATTERS:
            return self._is_known(operation) or self._windows(operation).ways <= _SELECTED
        return name in _RULES or name in _ELEMENTWISE or name in _BY_VMAP

    def _cost(self, operation: _Operation, own: set[int]) -> int:
        if operation.primitive.name in _FREE:
            return 0
        # Of a table that all chains share only the rows drawn count.
        counted = (*(i for i in operation.inputs if i in own), *operation.outputs)
        cost = max(_size(self.shapes[i]) for i in counted)
        if operation.primitive.name == "dot_general":
            cost += _products(operation, *(self.shapes[i] for i in operation.inputs))
        if operation.primitive.name in _INDEXED and not self._is_known(operation):
            ways = self._windows(operation).ways
            cost *= ways if ways <= _SELECTED else 1
        return cost

    def _is_known(self, operation: _Operation) -> bool:
        """Whether the index is."""
        return _is_concrete(self.constants.get(operation.inputs[1]))

    def _windows(self, operation: _Operation) -> "_Windows":
        return _windows_of(operation, [self.shapes[i].shape for i in operation.inputs])

    def _bodies(self, operation: _Operation, own: set[int]) -> list[tuple["_Body", set[int], int]]:
        """The bodies of a branch or a loop, what is own in each, and how often it runs."""
        p = operation.params
        if operation.primitive.name == "cond":
            inputs = operation.inputs[1:]
            bodies = [
                _Body(branch, [self.constants.get(i) for i in inputs]) for branch in p["branches"]
            ]
            return [(body, body.matching(inputs, own), 1) for body in bodies]
        if operation.primitive.name == "scan":
            first, last = p["num_consts"], p["num_consts"] + p["num_carry"]
            body = _Body(p["jaxpr"], [self.constants.get(i) for i in operation.inputs[:first]])
            inner = body.matching(operation.inputs, own)
            return [(body, body.carried(inner, first, last), p["length"])]
        return []

    def matching(self, numbers: Sequence[int], own: set[int]) -> set[int]:
        """The inputs that stand for the ``numbers`` that are ``own``."""
        return {inner for inner, i in zip(self.inputs, numbers, strict=True) if i in own}

    def carried(self, own: set[int], first: int, last: int) -> set[int]:
        """What is own of the body of a loop once it went round as often as it takes."""
        while True:
            reached = set(own)
            self.reached_from(reached)
            carry = self.inputs[first:last]
            back = {i for i, made in zip(carry, self.outputs, strict=False) if made in reached}
            if back <= own:
                return own
            own = own | back

    def _new(self, aval: Any) -> int:
        number = next(self._numbers)
        self.shapes[number] = aval
        return number

    def _inline(self, jaxpr: Any, constants: Sequence[Any], inputs: list[int]) -> list[int]:
        numbers = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, value in zip(jaxpr.constvars, constants, strict=True):
            numbers[variable] = self._constant(variable.aval, value)

        def number(atom: Any) -> int:
            if isinstance(atom, core.Literal):
                aval: Any = atom.aval
                return self._constant(aval, np.asarray(atom.val, aval.dtype))
            return numbers[atom]

        for equation in jaxpr.eqns:
            read = [number(atom) for atom in equation.invars]
            call = _called(equation)
            if call is not None:
                written = self._inline(call.jaxpr, call.consts, read)
            else:
                written = [self._new(v.aval) for v in equation.outvars]
                primitive, params = equation.primitive, equation.params
                self.operations.append(
                    _Operation(primitive, params, tuple(read), tuple(written), equation.effects)
                )
            numbers.update(zip(equation.outvars, written, strict=True))
        return [number(atom) for atom in jaxpr.outvars]

    def _constant(self, aval: Any, value: Any) -> int:
        number = self._new(aval)
        self.constants[number] = value
        return number

    def _fold_indices(self) -> None:
        """Compute the indices that depend on constants alone: they say which entries are meant."""
        known = {i for i, value in self.constants.items() if _is_concrete(value)}
        for operation in self.operations:
            if known.issuperset(operation.inputs):
                known.update(operation.outputs)
        indexed = [o.inputs[1] for o in self.operations if o.primitive.name in _INDEXED]
        wanted = known.intersection(indexed)
        for operation in reversed(self.operations):
            if wanted.intersection(operation.outputs):
                wanted.update(operation.inputs)
        with jax.ensure_compile_time_eval():
            for operation in self.operations:
                if wanted.intersection(operation.outputs):
                    results = _uniform(operation, [self.constants[i] for i in operation.inputs])
                    self.constants.update(zip(operation.outputs, results, strict=True))

    def _drop_dead(self) -> None:
        needed, kept = set(self.outputs), []
        for operation in reversed(self.operations):
            if needed.intersection(operation.outputs) or operation.effects:
                needed.update(operation.inputs)
                kept.append(operation)
        self.operations = kept[::-1]


def _called(equation: Any) -> Any:
    """The closed jaxpr of a call that can be inlined, or None."""
    if equation.primitive.name not in _CALLS:
        return None
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return inner if hasattr(inner, "consts") else core.ClosedJaxpr(inner, ())


def _callbacks_in(params: dict[str, Any]) -> list[str]:
    """The host callbacks in the functions that an operation has as parameters."""
    found: list[str] = []
    for part in jax.tree.leaves(list(params.values())):
        for equation in getattr(getattr(part, "jaxpr", part), "eqns", ()):
            name = equation.primitive.name
            found += [name] if name in _CALLBACKS else _callbacks_in(equation.params)
    return found


def _size(aval: Any) -> int:
    return int(np.prod(aval.shape, dtype=int))


def _products(operation: _Operation, left: Any, right: Any) -> int:
    (contracted, _), (batch, _) = operation.params["dimension_numbers"]
    common = [left.shape[i] for i in (*contracted, *batch)]
    return _size(left) * _size(right) // max(1, int(np.prod(common, dtype=int)))


def _uniform(operation: _Operation, inputs: list[Any]) -> list[Any]:
    """An operation on ordinary arrays."""
    result = operation.primitive.bind(*inputs, **operation.params)
    return list(result) if operation.primitive.multiple_results else [result]


def _on_lanes(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    name = operation.primitive.name
    if name in _ELEMENTWISE:
        return [_elementwise(operation.primitive, operation.params, inputs, lanes)]
    if name in _RULES:
        result = _RULES[name](operation, inputs, lanes)
        if result is not None:
            return result
    return _by_vmap(operation, inputs, lanes)


def _is_concrete(value: Any) -> bool:
    """Whether the numbers of an ordinary array are known now."""
    return value is not None and not is_apart(value) and not isinstance(value, jax.core.Tracer)


def _apart_anyway(value: Any) -> np.ndarray:
    """An ordinary array as an array of objects, each entry a scalar."""
    if is_apart(value):
        return value
    shape = np.shape(value)
    return _packed([value[at] for at in np.ndindex(shape)], shape)


def _packed(items: Sequence[Any], shape: Sequence[int]) -> np.ndarray:
    """Objects as an array; one at a time, or NumPy would look into them."""
    flat = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        flat[i] = item
    return flat.reshape(tuple(shape))


def _row(x: Any, i: int) -> Any:
    """An entry along the leading axis, apart if x is (an index would open the last array)."""
    return x[i : i + 1].reshape(x.shape[1:]) if is_apart(x) else x[i]


def _full(entry: Any, lanes: int) -> Any:
    """An entry as lanes, if it is the same for all chains so far."""
    return jnp.broadcast_to(entry, (lanes,)) if np.ndim(entry) == 0 else entry


def _elementwise(primitive: Any, params: dict[str, Any], inputs: list[Any], lanes: int) -> Any:
    operands = np.broadcast_arrays(*map(_apart_anyway, inputs))
    rows = zip(*(operand.reshape(-1) for operand in operands), strict=True)
    results = [_bound(primitive, params, row, lanes) for row in rows]
    return _packed(results, operands[0].shape)


def _bound(primitive: Any, params: dict[str, Any], numbers: Sequence[Any], lanes: int) -> Any:
    """An operation on one number of each input."""
    if any(np.ndim(x) for x in numbers):
        numbers = [_full(x, lanes) for x in numbers]
    return primitive.bind(*numbers, **params)


def _bitcast(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any] | None:
    """Elementwise between types of one width; others have an axis more or less."""
    same = inputs[0].flat[0].dtype.itemsize == operation.params["new_dtype"].itemsize
    return [_elementwise(operation.primitive, operation.params, inputs, lanes)] if same else None


def _by_vmap(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    """An operation without a rule: put together, mapped over the chains, and taken apart."""
    axes = [0 if is_apart(x) else None for x in inputs]
    wholes = [together(x, lanes) if is_apart(x) else x for x in inputs]
    results = jax.vmap(lambda *xs: _uniform(operation, list(xs)), in_axes=axes)(*wholes)
    return [apart(result) for result in results]


# Moving entries about.


def _broadcast(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    shape, axes = operation.params["shape"], operation.params["broadcast_dimensions"]
    placed = [1] * len(shape)
    for axis, length in zip(axes, inputs[0].shape, strict=True):
        placed[axis] = length
    return [np.broadcast_to(inputs[0].reshape(placed), shape)]


def _slice(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    p = operation.params
    strides = p["strides"] or (1,) * inputs[0].ndim
    at = tuple(map(slice, p["start_indices"], p["limit_indices"], strides))
    return [inputs[0][at]]


def _pad(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    operand, filling = map(_apart_anyway, inputs)
    config = operation.params["padding_config"]
    if not config:
        return [operand]
    shape = [
        low + high + length + max(0, length - 1) * interior
        for length, (low, high, interior) in zip(operand.shape, config, strict=True)
    ]
    result = np.broadcast_to(filling, shape).copy()
    for at in np.ndindex(operand.shape):
        to = tuple(low + i * (gap + 1) for i, (low, _, gap) in zip(at, config, strict=True))
        if all(0 <= i < length for i, length in zip(to, shape, strict=True)):
            result[to] = operand[at]
    return [result]


def _split(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    places = np.cumsum(operation.params["sizes"])[:-1]
    return list(np.split(inputs[0], places, axis=operation.params["axis"]))


def _unstack(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    first = np.moveaxis(inputs[0], operation.params["axis"], 0)
    return [_row(first, i) for i in range(len(first))]


# Arithmetic over axes.


def _folded(binary: Any, x: np.ndarray, lanes: int) -> np.ndarray:
    """The leading axis combined, entry after entry."""
    rows = [_row(x, i) for i in range(len(x))]
    return functools.reduce(lambda a, b: _elementwise(binary, {}, [a, b], lanes), rows)


def _reduction(binary: Any) -> Callable[..., list[Any]]:
    def rule(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
        x, axes = inputs[0], operation.params["axes"]
        first = np.moveaxis(x, axes, range(len(axes)))
        return [_folded(binary, first.reshape(-1, *first.shape[len(axes) :]), lanes)]

    return rule


def _dot(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    (left_sum, right_sum), (left_batch, right_batch) = operation.params["dimension_numbers"]
    left = _matrices(_apart_anyway(inputs[0]), left_batch, left_sum)
    right = _matrices(_apart_anyway(inputs[1]), right_batch, right_sum)
    wanted = operation.params["preferred_element_type"] or left.entries.flat[0].dtype
    # Like the processor's own products: half precision is added up in single.
    exact = jnp.float32 if wanted in (jnp.float16, jnp.bfloat16) else wanted
    factors = _converted(left.entries, exact), _converted(right.entries, exact)
    product = _elementwise(
        jax.lax.mul_p, {}, [factors[0][:, :, None, :], factors[1][:, None, :, :]], lanes
    )
    total = _folded(jax.lax.add_p, np.moveaxis(product, -1, 0), lanes)
    return [_converted(total, wanted).reshape((*left.batch, *left.free, *right.free))]


class _Matrices(NamedTuple):
    """An operand of a product with axes (batch, free, contracted), and their shapes."""

    entries: np.ndarray
    batch: tuple[int, ...]
    free: tuple[int, ...]


def _matrices(x: np.ndarray, batch: Sequence[int], contracted: Sequence[int]) -> _Matrices:
    free = [axis for axis in range(x.ndim) if axis not in (*batch, *contracted)]
    ordered = x.transpose(*batch, *free, *contracted)
    shape = ordered.shape
    m, k = len(batch), len(batch) + len(free)
    sizes = [int(np.prod(part, dtype=int)) for part in (shape[:m], shape[m:k], shape[k:])]
    return _Matrices(ordered.reshape(sizes), shape[:m], shape[m:k])


def _converted(x: np.ndarray, dtype: Any) -> np.ndarray:
    items = [jax.lax.convert_element_type(entry, dtype) for entry in x.reshape(-1)]
    return _packed(items, x.shape)


def _cumulative(binary: Any) -> Callable[..., list[Any]]:
    def rule(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
        axis, reverse = operation.params["axis"], operation.params["reverse"]
        first = np.moveaxis(inputs[0], axis, 0)
        rows = [_row(first, i) for i in range(len(first))]
        order = rows[::-1] if reverse else rows
        sums = list(
            itertools.accumulate(order, lambda a, b: _elementwise(binary, {}, [a, b], lanes))
        )
        return [np.stack(sums[::-1] if reverse else sums, axis=axis)]

    return rule


# Tables.


class _Windows(NamedTuple):
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
        index = _apart_anyway(index)
        batch = index.shape[:-1]
        numbers = []
        for at in np.ndindex(batch):
            number, inside = jnp.int32(0), jnp.asarray(True)
            for i, last in zip(index[at], self.lasts, strict=True):
                near = jnp.clip(i, 0, last)
                number, inside = number * (last + 1) + near.astype(jnp.int32), inside & (i == near)
            numbers.append(number if self.mode in _INTO_RANGE else jnp.where(inside, number, -1))
        return _packed(numbers, batch)


def _gather(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any] | None:
    """Known entries; or one of a few windows, by selects; or rows that all chains share, loaded."""
    table, index = inputs
    windows = _windows_of(operation, [np.shape(x) for x in inputs])
    if _is_concrete(index):
        places = windows.places(index)
        return None if np.any(places < 0) else [_at(_apart_anyway(table), places)]
    if windows.ways <= _SELECTED and windows.mode in _INTO_RANGE:
        number = np.expand_dims(windows.number(index), windows.numbers.offset_dims)
        entries = _apart_anyway(table)
        choices = [_at(entries, places) for places in windows.all_places(np.shape(index))]
        return [_chosen(number, choices, lanes)]
    if is_apart(table):
        return None
    return _loaded(windows, operation.params["fill_value"], table, index, lanes)


def _at(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    return x.reshape(-1)[places.reshape(-1)].reshape(places.shape)


def _loaded(
    windows: _Windows, fill_value: Any, table: Any, index: Any, lanes: int
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
        (i,) = in_one_pass([_full(entry, lanes)])
        for j in range(columns.shape[1]):
            items.append(jax.lax.gather(columns[:, j], i[:, None], single, (1,), **options))
    return [_packed(items, (*batch, *row))]


def _scatter(binary: Any) -> Callable[..., list[Any] | None]:
    """Updates one after the other: of known entries, or of those of a few windows if meant."""

    def rule(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any] | None:
        if binary is None and operation.params["update_jaxpr"] is not None:
            return None
        operand, index, updates = inputs
        windows = _windows_of(operation, [np.shape(x) for x in inputs])
        result, updates = _apart_anyway(operand).reshape(-1).copy(), _apart_anyway(updates)
        if _is_concrete(index):
            chances = [(windows.places(index), np.asarray(None))]
        else:
            number = np.expand_dims(windows.number(index), windows.numbers.offset_dims)
            chances = [
                (places, _elementwise(jax.lax.eq_p, {}, [number, np.int32(i)], lanes))
                for i, places in enumerate(windows.all_places(np.shape(index)))
            ]
        for places, meant in chances:
            meant = np.broadcast_to(meant, places.shape)
            for place, new, here in zip(places.flat, updates.flat, meant.flat, strict=True):
                if place >= 0:
                    result[place] = _updated(binary, result[place], new, here, lanes)
        return [result.reshape(np.shape(operand))]

    return rule


def _windows_of(operation: _Operation, shapes: Sequence[tuple[int, ...]]) -> _Windows:
    """The windows of a gather or scatter with inputs of these shapes."""
    p = operation.params
    d, shape = p["dimension_numbers"], shapes[0]
    if operation.primitive.name == "gather":
        return _Windows(shape, d, p["slice_sizes"], p["mode"])
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
    return _Windows(shape, numbers, sizes, p["mode"])


def _updated(binary: Any, old: Any, new: Any, here: Any, lanes: int) -> Any:
    if binary is not None:
        new = _bound(binary, {}, (old, new), lanes)
    return new if here is None else _bound(jax.lax.select_n_p, {}, (here, old, new), lanes)


def _chosen(number: np.ndarray, choices: Sequence[Any], lanes: int) -> np.ndarray:
    """Entry by entry the choice of this number, or the nearest one."""
    value = choices[-1]
    for i in range(len(choices) - 2, -1, -1):
        here = _elementwise(jax.lax.le_p, {}, [number, np.int32(i)], lanes)
        value = _elementwise(jax.lax.select_n_p, {}, [here, value, choices[i]], lanes)
    return value


# Control flow.


def _barrier(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    """A cut: what stands at the same place is computed there, once for all who need it."""
    parts = [_apart_anyway(x) for x in inputs]
    if len({part.shape for part in parts}) > 1:
        return parts
    rows = zip(*(part.reshape(-1) for part in parts), strict=True)
    passed = [in_one_pass([_full(x, lanes) for x in row]) for row in rows]
    columns = zip(*passed, strict=True)
    return [_packed(c, part.shape) for c, part in zip(columns, parts, strict=True)]


def _cond(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any]:
    index, operands = inputs[0], inputs[1:]
    branches = operation.params["branches"]
    if not is_apart(index):
        return _switch(index, branches, operands, lanes)
    results = [_run(_Body(branch, operands), operands, lanes) for branch in branches]
    number = _converted(index, jnp.int32)
    return [_chosen(number, choices, lanes) for choices in zip(*results, strict=True)]


def _switch(index: Any, branches: Any, operands: list[Any], lanes: int) -> list[Any]:
    """A branch that is the same for all chains stays a branch."""
    shapes = [aval.shape for aval in branches[0].out_avals]

    def full(branch: Any) -> list[Any]:
        results = _run(_Body(branch, operands), operands, lanes)
        return [entries(result, lanes) for result in results]

    chosen = jax.lax.switch(index, [functools.partial(full, branch) for branch in branches])
    return [_packed(parts, shape) for parts, shape in zip(chosen, shapes, strict=True)]


def _scan(operation: _Operation, inputs: list[Any], lanes: int) -> list[Any] | None:
    """A short loop, written out."""
    p = operation.params
    constants, carried = p["num_consts"], p["num_carry"]
    fixed, carry = inputs[:constants], inputs[constants : constants + carried]
    rows = inputs[constants + carried :]
    if p["length"] == 0:
        return None
    body = _Body(p["jaxpr"], fixed)
    order = range(p["length"] - 1, -1, -1) if p["reverse"] else range(p["length"])
    made: list[list[Any]] = []
    for i in order:
        results = _run(body, [*fixed, *carry, *(_row(x, i) for x in rows)], lanes)
        carry, outputs = results[:carried], results[carried:]
        made.append([_apart_anyway(x) for x in outputs])
    if p["reverse"]:
        made.reverse()
    return [*carry, *(np.stack(column) for column in zip(*made, strict=True))]


def _run(body: _Body, inputs: Sequence[Any], lanes: int) -> list[Any]:
    values = {**body.constants, **dict(zip(body.inputs, inputs, strict=True))}
    body.run(values, lanes)
    return [values[i] for i in body.outputs]


_INTO_RANGE = (jax.lax.GatherScatterMode.CLIP, jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS)
_CALLS = {"jit", "closed_call", "core_call", "remat2", "custom_jvp_call", "custom_vjp_call"}
_CALLBACKS = {"pure_callback", "io_callback", "debug_callback", "debug_print"}
# fmt: off
_ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "bessel_i0e", "bessel_i1e", "cbrt", "ceil", "clamp", "clz", "complex", "conj",
    "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma", "igamma_grad_a", "igammac", "imag",
    "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "mulhi", "name", "ne", "neg", "nextafter", "not", "or", "polygamma", "population_count",
    "pow", "real", "reduce_precision", "regularized_incomplete_beta", "rem", "round", "rsqrt",
    "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin",
    "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta",
}
# fmt: on
# Without a rule of their own, but well handled by the compiler inside a loop.
_BY_VMAP = {"argmax", "argmin", "cumlogsumexp", "dynamic_slice", "dynamic_update_slice"}
_FREE = {"broadcast_in_dim", "concatenate", "pad", "reshape", "rev", "slice", "split", "squeeze"}
_FREE |= {"stack", "tile", "transpose", "unstack"}
# Operations whose second input says which entries of the first are meant.
_SCATTERS = {"scatter", "scatter-add", "scatter-max", "scatter-min", "scatter-mul", "scatter-sub"}
_INDEXED = {"gather", *_SCATTERS}
_RULES: dict[str, Callable[..., list[Any] | None]] = {
    "bitcast_convert_type": _bitcast,
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda op, xs, lanes: [
        np.concatenate([_apart_anyway(x) for x in xs], axis=op.params["dimension"])
    ],
    "cond": _cond,
    "cummax": _cumulative(jax.lax.max_p),
    "cummin": _cumulative(jax.lax.min_p),
    "cumprod": _cumulative(jax.lax.mul_p),
    "cumsum": _cumulative(jax.lax.add_p),
    "dot_general": _dot,
    "gather": _gather,
    "optimization_barrier": _barrier,
    "pad": _pad,
    "reduce_and": _reduction(jax.lax.and_p),
    "reduce_max": _reduction(jax.lax.max_p),
    "reduce_min": _reduction(jax.lax.min_p),
    "reduce_or": _reduction(jax.lax.or_p),
    "reduce_prod": _reduction(jax.lax.mul_p),
    "reduce_sum": _reduction(jax.lax.add_p),
    "reduce_xor": _reduction(jax.lax.xor_p),
    "reshape": lambda op, xs, lanes: [xs[0].reshape(op.params["new_sizes"])],
    "rev": lambda op, xs, lanes: [np.flip(xs[0], op.params["dimensions"])],
    "scan": _scan,
    "scatter": _scatter(None),
    "scatter-add": _scatter(jax.lax.add_p),
    "scatter-max": _scatter(jax.lax.max_p),
    "scatter-min": _scatter(jax.lax.min_p),
    "scatter-mul": _scatter(jax.lax.mul_p),
    "scatter-sub": _scatter(jax.lax.sub_p),
    "slice": _slice,
    "split": _split,
    "squeeze": lambda op, xs, lanes: [np.squeeze(xs[0], axis=op.params["dimensions"])],
    "stack": lambda op, xs, lanes: [
        np.stack([_apart_anyway(x) for x in xs], axis=op.params["axis"])
    ],
    "tile": lambda op, xs, lanes: [np.tile(xs[0], op.params["reps"])],
    "transpose": lambda op, xs, lanes: [xs[0].transpose(op.params["permutation"])],
    "unstack": _unstack,
}
