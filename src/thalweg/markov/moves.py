"""Rates of jumps as an assembly finds them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int


class Moves(NamedTuple):
    """Jumps between states and out of the domain; arrays are NumPy's unless differentiated.

    Attributes:
        source: The state that is left.
        target: The state that is reached.
        rates: Per unit of time.
        exits: The states from which absorbing sides are reached, once for each way.
        leaving: Per unit of time.
    """

    source: Int[np.ndarray, " jumps"]
    target: Int[np.ndarray, " jumps"]
    rates: Float[Any, " jumps"]
    exits: Int[np.ndarray, " exits"]
    leaving: Float[Any, " exits"]


def summed(values: Any, places: Int[np.ndarray, " values"], count: int) -> Any:
    """Sums of the values with equal places 0, 1, ..., count - 1."""
    if isinstance(values, jax.core.Tracer):
        return jnp.zeros(count).at[places].add(values)
    # Without any value the counts would be whole numbers.
    return np.bincount(places, weights=values, minlength=count).astype(float)
