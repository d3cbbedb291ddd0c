"""Rules that move entries about: free, for nothing is computed."""

from typing import Any

import numpy as np

from thalweg.lanes.values import Operation, Rule, apart_anyway, row_of


def _broadcast(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    shape, axes = operation.params["shape"], operation.params["broadcast_dimensions"]
    placed = [1] * len(shape)
    for axis, length in zip(axes, inputs[0].shape, strict=True):
        placed[axis] = length
    return [np.broadcast_to(inputs[0].reshape(placed), shape)]


def _slice(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    p = operation.params
    strides = p["strides"] or (1,) * inputs[0].ndim
    at = tuple(map(slice, p["start_indices"], p["limit_indices"], strides))
    return [inputs[0][at]]


def _pad(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    operand, filling = map(apart_anyway, inputs)
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


def _split(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    places = np.cumsum(operation.params["sizes"])[:-1]
    return list(np.split(inputs[0], places, axis=operation.params["axis"]))


def _unstack(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    first = np.moveaxis(inputs[0], operation.params["axis"], 0)
    return [row_of(first, i) for i in range(len(first))]


# By name of the operation.
MOVING: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda op, xs, lanes: [
        np.concatenate([apart_anyway(x) for x in xs], axis=op.params["dimension"])
    ],
    "pad": _pad,
    "reshape": lambda op, xs, lanes: [xs[0].reshape(op.params["new_sizes"])],
    "rev": lambda op, xs, lanes: [np.flip(xs[0], op.params["dimensions"])],
    "slice": _slice,
    "split": _split,
    "squeeze": lambda op, xs, lanes: [np.squeeze(xs[0], axis=op.params["dimensions"])],
    "stack": lambda op, xs, lanes: [
        np.stack([apart_anyway(x) for x in xs], axis=op.params["axis"])
    ],
    "tile": lambda op, xs, lanes: [np.tile(xs[0], op.params["reps"])],
    "transpose": lambda op, xs, lanes: [xs[0].transpose(op.params["permutation"])],
    "unstack": _unstack,
}
