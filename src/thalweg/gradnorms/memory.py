"""How much is held at once, and sums of squares."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from thalweg.problem import Params

# Per-sample gradients held at once, in numbers. 2**18 float32 are 1 MiB and stay in the cache: on
# nets of 2,410 and 25,450 parameters norms take half and a ninth of the time they take with 2**24.
_BUDGET = 2**18


def gradients_at_once(params: Params) -> int:
    """How many per-sample gradients fit the budget of memory, at least one."""
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return max(1, _BUDGET // max(1, count))


def squared_norm(tree: PyTree[Array]) -> Float[Array, ""]:
    """The sum of squares over all leaves."""
    leaves = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
    return jax.tree.reduce(jnp.add, leaves)
