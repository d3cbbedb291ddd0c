"""A traced function, taken apart: its operations, what they cost, and how they are evaluated."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from thalweg.lanes.arithmetic import ARITHMETIC, ELEMENTWISE
from thalweg.lanes.indexing import INDEXING, SELECTED, Windows, chosen_among, windows_of
from thalweg.lanes.moving import MOVING
from thalweg.lanes.values import (
    Operation,
    Rule,
    apart,
    apart_anyway,
    as_lanes,
    converted,
    elementwise,
    entries,
    in_one_pass,
    is_apart,
    is_concrete,
    on_arrays,
    packed,
    row_of,
    size_of,
    together,
)


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
        if any(size_of(self._body.shapes[i]) == 0 for i in self._own):
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
                results = on_arrays(operation, [known[i] for i in operation.inputs])
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


class _Body:
    """A list of operations with its constants; calls are inlined and dead ones left out.

    Args:
        closed: The jaxpr.
        given: What is known of its inputs; those that are concrete count as constants.
    """

    def __init__(self, closed: Any, given: Sequence[Any] = ()):
        self.constants: dict[int, Any] = {}
        self.shapes: dict[int, Any] = {}
        self.operations: list[Operation] = []
        self._numbers = itertools.count()
        self.inputs = [self._new(v.aval) for v in closed.jaxpr.invars]
        known = zip(self.inputs, given, strict=False)
        self.constants.update((i, value) for i, value in known if is_concrete(value))
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
                results = on_arrays(operation, inputs)
            for number, result in zip(operation.outputs, results, strict=True):
                shape = self.shapes[number]
                values[number] = result if size_of(shape) else jnp.zeros(shape.shape, shape.dtype)

    def reached_from(self, own: set[int]) -> list[Operation]:
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

    def _has_rule(self, operation: Operation) -> bool:
        name = operation.primitive.name
        if name in INDEXING and name != "gather":
            return self._is_known(operation) or self._windows(operation).ways <= SELECTED
        return name in _RULES or name in ELEMENTWISE or name in _BY_VMAP

    def _cost(self, operation: Operation, own: set[int]) -> int:
        if operation.primitive.name in MOVING:
            return 0
        # Of a table that all chains share only the rows drawn count.
        counted = (*(i for i in operation.inputs if i in own), *operation.outputs)
        cost = max(size_of(self.shapes[i]) for i in counted)
        if operation.primitive.name == "dot_general":
            cost += _products(operation, *(self.shapes[i] for i in operation.inputs))
        if operation.primitive.name in INDEXING and not self._is_known(operation):
            ways = self._windows(operation).ways
            cost *= ways if ways <= SELECTED else 1
        return cost

    def _is_known(self, operation: Operation) -> bool:
        """Whether the index is."""
        return is_concrete(self.constants.get(operation.inputs[1]))

    def _windows(self, operation: Operation) -> Windows:
        return windows_of(operation, [self.shapes[i].shape for i in operation.inputs])

    def _bodies(self, operation: Operation, own: set[int]) -> list[tuple["_Body", set[int], int]]:
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
                    Operation(primitive, params, tuple(read), tuple(written), equation.effects)
                )
            numbers.update(zip(equation.outvars, written, strict=True))
        return [number(atom) for atom in jaxpr.outvars]

    def _constant(self, aval: Any, value: Any) -> int:
        number = self._new(aval)
        self.constants[number] = value
        return number

    def _fold_indices(self) -> None:
        """Compute the indices that depend on constants alone: they say which entries are meant."""
        known = {i for i, value in self.constants.items() if is_concrete(value)}
        for operation in self.operations:
            if known.issuperset(operation.inputs):
                known.update(operation.outputs)
        indexed = [o.inputs[1] for o in self.operations if o.primitive.name in INDEXING]
        wanted = known.intersection(indexed)
        for operation in reversed(self.operations):
            if wanted.intersection(operation.outputs):
                wanted.update(operation.inputs)
        with jax.ensure_compile_time_eval():
            for operation in self.operations:
                if wanted.intersection(operation.outputs):
                    results = on_arrays(operation, [self.constants[i] for i in operation.inputs])
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


def _products(operation: Operation, left: Any, right: Any) -> int:
    (contracted, _), (batch, _) = operation.params["dimension_numbers"]
    common = [left.shape[i] for i in (*contracted, *batch)]
    return size_of(left) * size_of(right) // max(1, int(np.prod(common, dtype=int)))


def _on_lanes(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    name = operation.primitive.name
    if name in ELEMENTWISE:
        return [elementwise(operation.primitive, operation.params, inputs, lanes)]
    if name in _RULES:
        result = _RULES[name](operation, inputs, lanes)
        if result is not None:
            return result
    return _by_vmap(operation, inputs, lanes)


def _by_vmap(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    """An operation without a rule: put together, mapped over the chains, and taken apart."""
    axes = [0 if is_apart(x) else None for x in inputs]
    wholes = [together(x, lanes) if is_apart(x) else x for x in inputs]
    results = jax.vmap(lambda *xs: on_arrays(operation, list(xs)), in_axes=axes)(*wholes)
    return [apart(result) for result in results]


def _barrier(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    """A cut: what stands at the same place is computed there, once for all who need it."""
    parts = [apart_anyway(x) for x in inputs]
    if len({part.shape for part in parts}) > 1:
        return parts
    rows = zip(*(part.reshape(-1) for part in parts), strict=True)
    passed = [in_one_pass([as_lanes(x, lanes) for x in row]) for row in rows]
    columns = zip(*passed, strict=True)
    return [packed(c, part.shape) for c, part in zip(columns, parts, strict=True)]


def _cond(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    index, operands = inputs[0], inputs[1:]
    branches = operation.params["branches"]
    if not is_apart(index):
        return _switch(index, branches, operands, lanes)
    results = [_run(_Body(branch, operands), operands, lanes) for branch in branches]
    number = converted(index, jnp.int32)
    return [chosen_among(number, choices, lanes) for choices in zip(*results, strict=True)]


def _switch(index: Any, branches: Any, operands: list[Any], lanes: int) -> list[Any]:
    """A branch that is the same for all chains stays a branch."""
    shapes = [aval.shape for aval in branches[0].out_avals]

    def full(branch: Any) -> list[Any]:
        results = _run(_Body(branch, operands), operands, lanes)
        return [entries(result, lanes) for result in results]

    chosen = jax.lax.switch(index, [functools.partial(full, branch) for branch in branches])
    return [packed(parts, shape) for parts, shape in zip(chosen, shapes, strict=True)]


def _scan(operation: Operation, inputs: list[Any], lanes: int) -> list[Any] | None:
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
        results = _run(body, [*fixed, *carry, *(row_of(x, i) for x in rows)], lanes)
        carry, outputs = results[:carried], results[carried:]
        made.append([apart_anyway(x) for x in outputs])
    if p["reverse"]:
        made.reverse()
    return [*carry, *(np.stack(column) for column in zip(*made, strict=True))]


def _run(body: _Body, inputs: Sequence[Any], lanes: int) -> list[Any]:
    values = {**body.constants, **dict(zip(body.inputs, inputs, strict=True))}
    body.run(values, lanes)
    return [values[i] for i in body.outputs]


_CALLS = {"jit", "closed_call", "core_call", "remat2", "custom_jvp_call", "custom_vjp_call"}
_CALLBACKS = {"pure_callback", "io_callback", "debug_callback", "debug_print"}
# Without a rule of their own, but well handled by the compiler inside a loop.
_BY_VMAP = {"argmax", "argmin", "cumlogsumexp", "dynamic_slice", "dynamic_update_slice"}
_RULES: dict[str, Rule] = {**MOVING, **ARITHMETIC, **INDEXING}
_RULES |= {"cond": _cond, "optimization_barrier": _barrier, "scan": _scan}
