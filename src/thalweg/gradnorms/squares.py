"""Squared norms of the gradients of a batch, leaf by leaf."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from thalweg.gradnorms.decomposition import factors_of
from thalweg.gradnorms.factors import explicit_norm, gram_norm
from thalweg.gradnorms.memory import squared_norm
from thalweg.gradnorms.probe import ByUse, Probe
from thalweg.gradnorms.routes import Part, Plan, change_shape

# Numbers of explicit gradients of one leaf at once.
_EXPLICIT_BUDGET = 2**22


def squares_of_leaves(
    plan: Plan, constants: Sequence[Any], leaves: Sequence[Any], data: Sequence[Any]
) -> list[Array]:
    """The squared norm of each leaf's gradient for each sample of a batch: one array a leaf."""
    met, deltas, squares = jax.vmap(partial(_derivatives, plan, constants, leaves))(list(data))
    n = data[0].shape[0]
    result = []
    for k, route in enumerate(plan.routes):
        dtype = norm_dtype(leaves[k])
        if k in squares:
            own = squares[k]
        else:
            own = jnp.zeros(n, dtype)
            for part in route.parts:
                own = own + _square_of_part(plan, part, met, deltas, dtype)
        result.append(own)
    return result


def norm_dtype(*arrays: Any) -> Any:
    """Single precision at least: squares leave the range of half precision."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(jnp.float32, *(x.dtype for x in arrays))


def _derivatives(
    plan: Plan, constants: Sequence[Any], leaves: Sequence[Any], sample: Sequence[Any]
) -> tuple[ByUse, ByUse, dict[int, Array]]:
    """For one sample: what meets the parameters, the derivatives there, and squared norms."""
    probe, jaxpr = Probe(plan.uses), plan.jaxpr.jaxpr

    def value(changes: ByUse, chosen: dict[int, Array]) -> tuple[Array, ByUse]:
        own = [chosen.get(k, leaf) for k, leaf in enumerate(leaves)]
        (out,), met = probe.evaluate(jaxpr, constants, [*own, *sample], changes)
        return out, met

    none = {
        k: jnp.zeros(change_shape(use), use.eqn.outvars[0].aval.dtype)
        for k, use in enumerate(plan.uses)
    }
    chosen = {k: leaves[k] for k in plan.differentiated}
    out, pull, met = jax.vjp(value, none, chosen, has_aux=True)
    deltas, gradients = pull(jnp.ones_like(out))
    squares = {k: squared_norm(g.astype(norm_dtype(g))) for k, g in gradients.items()}
    return met, deltas, squares


def _square_of_part(plan: Plan, part: Part, met: ByUse, deltas: ByUse, dtype: Any) -> Array:
    own = [(met[k], deltas[k]) for k in part.uses]

    def square(own: Sequence[Any]) -> Array:
        factors = [
            factors_of(plan.uses[k], met, delta, dtype)
            for k, (met, delta) in zip(part.uses, own, strict=True)
        ]
        if part.gram:
            return gram_norm(factors)
        return explicit_norm(factors, part.sizes[0].rows, part.sizes[0].columns)

    n = own[0][0].shape[0]
    size = n if part.gram else max(1, _EXPLICIT_BUDGET // part.entries)
    if n <= size:
        return jax.vmap(square)(own)
    return jax.lax.map(square, own, batch_size=size)
