"""Elementwise operations, and rules for arithmetic over axes."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thalweg.lanes.values import (
    Operation,
    Rule,
    apart_anyway,
    converted,
    elementwise,
    row_of,
)

# fmt: off
ELEMENTWISE = {
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


def _bitcast(operation: Operation, inputs: list[Any], lanes: int) -> list[Any] | None:
    """Elementwise between types of one width; others have an axis more or less."""
    same = inputs[0].flat[0].dtype.itemsize == operation.params["new_dtype"].itemsize
    return [elementwise(operation.primitive, operation.params, inputs, lanes)] if same else None


def _folded(binary: Any, x: np.ndarray, lanes: int) -> np.ndarray:
    """The leading axis combined, entry after entry."""
    rows = [row_of(x, i) for i in range(len(x))]
    return functools.reduce(lambda a, b: elementwise(binary, {}, [a, b], lanes), rows)


def _reduction(binary: Any) -> Callable[..., list[Any]]:
    def rule(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
        x, axes = inputs[0], operation.params["axes"]
        first = np.moveaxis(x, axes, range(len(axes)))
        return [_folded(binary, first.reshape(-1, *first.shape[len(axes) :]), lanes)]

    return rule


def _dot(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
    (left_sum, right_sum), (left_batch, right_batch) = operation.params["dimension_numbers"]
    left = _matrices(apart_anyway(inputs[0]), left_batch, left_sum)
    right = _matrices(apart_anyway(inputs[1]), right_batch, right_sum)
    wanted = operation.params["preferred_element_type"] or left.entries.flat[0].dtype
    # Like the processor's own products: half precision is added up in single.
    exact = jnp.float32 if wanted in (jnp.float16, jnp.bfloat16) else wanted
    factors = converted(left.entries, exact), converted(right.entries, exact)
    product = elementwise(
        jax.lax.mul_p, {}, [factors[0][:, :, None, :], factors[1][:, None, :, :]], lanes
    )
    total = _folded(jax.lax.add_p, np.moveaxis(product, -1, 0), lanes)
    return [converted(total, wanted).reshape((*left.batch, *left.free, *right.free))]


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


def _cumulative(binary: Any) -> Callable[..., list[Any]]:
    def rule(operation: Operation, inputs: list[Any], lanes: int) -> list[Any]:
        axis, reverse = operation.params["axis"], operation.params["reverse"]
        first = np.moveaxis(inputs[0], axis, 0)
        rows = [row_of(first, i) for i in range(len(first))]
        order = rows[::-1] if reverse else rows
        sums = list(
            itertools.accumulate(order, lambda a, b: elementwise(binary, {}, [a, b], lanes))
        )
        return [np.stack(sums[::-1] if reverse else sums, axis=axis)]

    return rule


# By name of the operation.
ARITHMETIC: dict[str, Rule] = {
    "cummax": _cumulative(jax.lax.max_p),
    "cummin": _cumulative(jax.lax.min_p),
    "cumprod": _cumulative(jax.lax.mul_p),
    "cumsum": _cumulative(jax.lax.add_p),
    "reduce_and": _reduction(jax.lax.and_p),
    "reduce_max": _reduction(jax.lax.max_p),
    "reduce_min": _reduction(jax.lax.min_p),
    "reduce_or": _reduction(jax.lax.or_p),
    "reduce_prod": _reduction(jax.lax.mul_p),
    "reduce_sum": _reduction(jax.lax.add_p),
    "reduce_xor": _reduction(jax.lax.xor_p),
    "bitcast_convert_type": _bitcast,
    "dot_general": _dot,
}
