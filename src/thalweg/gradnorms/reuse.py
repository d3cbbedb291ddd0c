"""Norms of some samples' gradients, and from the same backward pass gradients of a few of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from thalweg.gradnorms.memory import squared_norm
from thalweg.gradnorms.norms import _plan_of, _samples_at_once, sample_gradient_norms
from thalweg.gradnorms.probe import ByUse, Probe
from thalweg.gradnorms.routes import Plan, change_shape
from thalweg.gradnorms.squares import _square_of_part, norm_dtype
from thalweg.gradnorms.tracing import check_differentiable, common_length
from thalweg.gradnorms.uses import Use
from thalweg.gradnorms.views import View
from thalweg.problem import Loss, Params

Gradient = Callable[[Int[Array, " draws"], Float[Array, " draws"]], Params]


class Scored(NamedTuple):
    r"""What a backward pass over m samples has given.

    Attributes:
        losses: The losses.
        norms: Their gradients' norms, in single precision at least.
        gradient: ``gradient(index, weights)`` is :math:`\sum_b w_b \nabla f_{i_b}`.
    """

    losses: Float[Array, " m"]
    norms: Float[Array, " m"]
    gradient: Gradient


def scored_with_gradient(loss: Loss, params: Params, data: PyTree[Any]) -> Scored:
    r"""Losses and gradient norms of m samples, and then the gradient of a weighted few of them.

    A weight that meets :math:`a_i` in sample i and whose results have the derivatives
    :math:`\delta_i` has the gradient :math:`\sum_b w_b a_{i_b} \delta_{i_b}^T`. The backward pass
    for the norms (:func:`thalweg.sample_gradient_norms`) has both factors: one product a layer for
    the few that are chosen, and no second pass. What is differentiated sample by sample for the
    norms is summed. Exact; where a parameter is used in a scan, or where the factors of all samples
    do not fit at once, the gradient takes a pass of its own.

    Args:
        loss: ``loss(params, sample)``, a scalar.
        params: Where.
        data: m samples.

    To be used inside of a compiled program. Cost: the norms of m samples, and a third of the
    gradient of those chosen.

    Raises:
        InputError: As :func:`thalweg.sample_gradient_norms`.
    """
    n = common_length(data)
    check_differentiable(params)
    params, data = jax.tree.map(jnp.asarray, (params, data))
    own = _plan_of(loss, params, data)
    if n > _samples_at_once(own) or any(use.view.loops for use in own.uses):
        return _in_two_passes(loss, params, data)
    leaves, tree = jax.tree.flatten(params)
    held = jax.vmap(partial(_derivatives, own, leaves))(jax.tree.leaves(data))
    total = jnp.zeros(n, norm_dtype(*leaves))
    for k, route in enumerate(own.routes):
        dtype = norm_dtype(leaves[k])
        if k in held.gradients:
            squares = jax.vmap(squared_norm)(held.gradients[k].astype(dtype))
            total = total + squares.astype(total.dtype)
        for part in route.parts:
            squares = _square_of_part(own, part, held.met, held.deltas, dtype)
            total = total + squares.astype(total.dtype)

    def gradient(index: Array, weights: Array) -> Params:
        chosen = jax.tree.map(lambda x: jnp.take(x, index, axis=0, mode="clip"), held)
        sums = [_leaf_gradient(own, k, leaf, chosen, weights) for k, leaf in enumerate(leaves)]
        return jax.tree.unflatten(tree, sums)

    # Rounding may leave a sum that cancels below zero.
    return Scored(held.losses, jnp.sqrt(jnp.maximum(total, 0)), gradient)


class _Held(NamedTuple):
    """What a sample's backward pass gives: by use of a parameter, and by differentiated leaf."""

    losses: Array
    met: ByUse
    deltas: ByUse
    gradients: dict[int, Array]


def _derivatives(plan: Plan, leaves: Sequence[Any], sample: Sequence[Any]) -> _Held:
    probe = Probe(plan.uses)

    def value(changes: ByUse, chosen: dict[int, Array]) -> tuple[Array, ByUse]:
        own = [chosen.get(k, leaf) for k, leaf in enumerate(leaves)]
        (out,), met = probe.evaluate(plan.jaxpr.jaxpr, plan.jaxpr.consts, [*own, *sample], changes)
        return out, met

    none = {
        k: jnp.zeros(change_shape(use), use.eqn.outvars[0].aval.dtype)
        for k, use in enumerate(plan.uses)
    }
    chosen = {k: leaves[k] for k in plan.differentiated}
    out, pull, met = jax.vjp(value, none, chosen, has_aux=True)
    return _Held(out, met, *pull(jnp.ones_like(out)))


def _leaf_gradient(
    plan: Plan, number: int, leaf: Array, held: _Held, weights: Float[Array, " draws"]
) -> Array:
    """The weighted sum of the gradients by one leaf."""
    if number in held.gradients:
        own = held.gradients[number]
        return jnp.tensordot(weights.astype(own.dtype), own, axes=1)
    total = jnp.zeros_like(leaf)
    for part in plan.routes[number].parts:
        for k in part.uses:
            total = total + _pulled_back(plan.uses[k], leaf, held.met[k], held.deltas[k], weights)
    return total


def _pulled_back(use: Use, leaf: Array, met: Array, delta: Array, weights: Array) -> Array:
    """Through the operation that the leaf enters, and back to the leaf: both are linear in it."""
    weighted = delta * weights.astype(delta.dtype).reshape(-1, *[1] * (delta.ndim - 1))
    dtype = use.eqn.invars[use.position].aval.dtype

    def results(leaf: Array) -> Array:
        seen = _seen(use.view, leaf).astype(dtype)

        def one(met: Array) -> Array:
            # What else there is are starts of a slice that have no choice.
            inputs = [jnp.zeros(atom.aval.shape, atom.aval.dtype) for atom in use.eqn.invars]
            inputs[use.position], inputs[use.other] = seen, met
            options = use.eqn.primitive.get_bind_params(use.eqn.params)
            return use.eqn.primitive.bind(*inputs, **options)

        return jax.vmap(one)(met)

    (gradient,) = jax.linear_transpose(results, leaf)(weighted)
    return gradient


def _seen(view: View, leaf: Array) -> Array:
    """The array that a view stands for, outside of loops."""
    x = leaf
    for kind, *step in view.chain:
        if kind == "box":
            x = x[tuple(slice(start, stop) for start, stop in step[0])]
            continue
        *dimensions, axes, shape = step
        x = x.transpose(axes)
        x = jnp.flip(x, dimensions[0]) if kind == "reversed" else x.reshape(shape)
    return x.transpose(view.axes) * view.scale


def _in_two_passes(loss: Loss, params: Params, data: PyTree[Any]) -> Scored:
    losses = jax.vmap(loss, in_axes=(None, 0))

    def gradient(index: Array, weights: Array) -> Params:
        chosen = jax.tree.map(lambda x: jnp.take(x, index, axis=0, mode="clip"), data)

        def value(params: Params) -> Array:
            own = losses(params, chosen)
            return jnp.dot(weights.astype(own.dtype), own)

        return jax.grad(value)(params)

    norms = sample_gradient_norms(loss, params, data)
    return Scored(losses(params, data), norms, gradient)
