"""The factors of any use: which rule, and what the scans around it add."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from thalweg.gradnorms.convolution import Convolution
from thalweg.gradnorms.factors import Factors, Size
from thalweg.gradnorms.rules import Layout, LookUp, Product
from thalweg.gradnorms.uses import Use

_RULES: dict[str, Callable[[Use], Product | LookUp | Convolution]] = {
    "dot_general": Product,
    "gather": LookUp,
    "dynamic_slice": LookUp,
    "conv_general_dilated": Convolution,
}


def layout(use: Use) -> Layout:
    """Which axes of the parameter are blocks, rows and columns; gradients of one layout add up."""
    return _RULES[use.eqn.primitive.name](use).layout()


def size_of(use: Use) -> Size:
    """The size of the factors, from shapes alone."""
    size = _RULES[use.eqn.primitive.name](use).size()
    blocks = math.prod(length for length, own in use.view.loops if own)
    positions = math.prod(length for length, own in use.view.loops if not own)
    return size._replace(blocks=size.blocks * blocks, positions=size.positions * positions)


def factors_of(use: Use, met: Any, delta: Any, dtype: Any) -> Factors:
    """The factors for what met the parameter and the derivative by the result, of one sample."""
    rule = _RULES[use.eqn.primitive.name](use)

    def of_turn(met: Array, delta: Array) -> Factors:
        met = met.astype(dtype) if jnp.issubdtype(met.dtype, jnp.floating) else met
        return rule.factors(met, delta.astype(dtype) * jnp.asarray(use.view.scale, dtype))

    for _, own in reversed(use.view.loops):
        of_turn = _over_turns(of_turn, own)
    return of_turn(met, delta)


def _over_turns(function: Callable[..., Factors], own: bool) -> Callable[..., Factors]:
    """Turns of a scan are blocks if each sees its own entries of the parameter, or positions."""

    def joined(x: Array) -> Array:
        # Axes: turns, blocks, positions and, unless unit vectors, entries.
        x = x if own else jnp.moveaxis(x, 0, 1)
        axis = 0 if own else 1
        return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])

    return lambda met, delta: jax.tree.map(joined, jax.vmap(function)(met, delta))
