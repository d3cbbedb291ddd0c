"""Loops over more samples than fit at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params
from jaxtyping import PyTree


def holds_convolution(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a function's program convolves, in any of its parts; traces it once.

    On the CPU convolutions inside of a compiled loop run ten times slower than outside, so that
    loops over them are to be written out, or run by Python.
    """
    return _convolves(jax.make_jaxpr(function)(*arguments).jaxpr)


def _convolves(jaxpr: Any) -> bool:
    return any(
        equation.primitive.name == "conv_general_dilated"
        or any(map(_convolves, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def over_chunks(
    function: Callable[[Any], Any], data: PyTree[Any], n: int, size: int, *, compiled_loop: bool
) -> Any:
    """``function`` of ``size`` samples at a time, its results joined along axis 0.

    All chunks have the same size, so that there is one program; the last one begins so early that
    it is full, and what it repeats is left out.

    Args:
        function: Of a batch; its results have a leading axis, too.
        data: n samples.
        n: How many.
        size: At once.
        compiled_loop: A loop of the compiled program, or else one written out (outside of a
            program: run by Python).
    """
    if n <= size:
        return function(data)
    chunks = -(-n // size)
    size = -(-n // chunks)
    starts = [min(k * size, n - size) for k in range(chunks)]
    last = (chunks - 1) * size - starts[-1]
    if compiled_loop:

        def chunk(start: Any) -> Any:
            part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), data)
            return function(part)

        stacked = jax.lax.map(chunk, jnp.asarray(starts))
        return jax.tree.map(
            lambda x: jnp.concatenate([x[:-1].reshape(-1, *x.shape[2:]), x[-1, last:]]), stacked
        )
    parts = [function(jax.tree.map(lambda x, s=s: x[s : s + size], data)) for s in starts]
    *whole, end = parts
    return jax.tree.map(
        lambda *x: jnp.concatenate(x), *whole, jax.tree.map(lambda x: x[last:], end)
    )
