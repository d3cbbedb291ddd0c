"""Functions of many points by compiled programs of a few fixed sizes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg.errors import InputError

# Points at once: the smallest of these that holds all of them, or else the last. Every size is a
# program to compile, and none depends on the shape of a grid.
_SIZES = (512, 4096, 32768)
# The largest array of a chunk, in numbers: 32 MB.
_LARGEST = 2**22


def in_chunks(function: Callable[..., Any], rows: tuple[Any, ...], width: int) -> Any:
    """``function(*rows)``, a piece of the rows at a time.

    Args:
        function: Compiled; takes arrays with a common first axis and returns a pytree of such.
        rows: Pytrees of such arrays. They may be tracers of ``jax.grad``.
        width: Numbers in the largest array that the function makes of a row: see :func:`width`.

    Returns:
        NumPy arrays, or JAX arrays where they are tracers.
    """
    leaves = jax.tree.leaves(rows)
    count = len(leaves[0])
    size = _size(count, width)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        size = min(size, max(count, 1))  # each slice of a tracer is a program of its own
    pieces = []
    for low in range(0, max(count, 1), size):
        pieces.append(function(*jax.tree.map(partial(_piece, low=low, size=size), rows)))
    return jax.tree.map(lambda *parts: joined(parts, count), *pieces)


def joined(parts: tuple[Any, ...] | list[Any], count: int | None = None) -> Any:
    """The first ``count`` rows of arrays in sequence: NumPy's unless one is a tracer."""
    traced = any(isinstance(part, jax.core.Tracer) for part in parts)
    module: Any = jnp if traced else np
    whole = parts[0] if len(parts) == 1 else module.concatenate(parts)
    whole = whole if traced else np.asarray(whole)
    return whole if count is None or count == len(whole) else whole[:count]


def concrete(array: Any) -> np.ndarray:
    """The numbers behind an array that is being differentiated.

    Raises:
        InputError: There are none, inside of ``jax.jit`` or ``jax.vmap``.
    """
    value = jax.lax.stop_gradient(array) if isinstance(array, jax.core.Tracer) else array
    if isinstance(value, jax.core.Tracer):
        raise InputError(
            "which jumps a generator has depends on numbers that are not known inside of jax.jit "
            "or jax.vmap; call it outside (jax.grad of it is possible)"
        )
    return np.asarray(value)


def width(function: Callable[..., Any], *arguments: Any) -> int:
    """Numbers in the largest array that a function makes on its way."""
    return max(1, _widest(jax.make_jaxpr(function)(*arguments).jaxpr))


def _widest(jaxpr: Any) -> int:
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [getattr(variable.aval, "size", 0) for variable in equation.outvars]
        for leaf in jax.tree.leaves(equation.params, is_leaf=_is_program):
            if _is_program(leaf):
                sizes.append(_widest(getattr(leaf, "jaxpr", leaf)))
    return max(sizes)


def _is_program(leaf: Any) -> bool:
    return hasattr(leaf, "eqns")


def _size(count: int, width: int) -> int:
    fitting = next((size for size in _SIZES if size >= count), _SIZES[-1])
    while fitting > 1 and fitting * width > _LARGEST:
        fitting //= 2
    return fitting


def _piece(row: Any, low: int, size: int) -> Any:
    """Rows from ``low`` on; beyond the end the last one, where the function has a value."""
    whole = low == 0 and size == len(row)
    piece = row if whole else row[low : low + size]
    missing = size - len(piece)
    if not missing:
        return piece
    module: Any = jnp if isinstance(piece, jax.core.Tracer) else np
    if len(piece) == 0:
        return module.zeros((size, *piece.shape[1:]), piece.dtype)
    return module.pad(piece, [(0, missing)] + [(0, 0)] * (piece.ndim - 1), mode="edge")
