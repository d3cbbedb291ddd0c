"""A gradient, norms by Thalweg and by vmap, all in JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import works

from thalweg.gradnorms import sample_gradient_norms, squared_gradient_norms

Piece = Callable[[], dict[str, Any]]
_WINDOW = (2, 2, 1)


def loss(params: Any, sample: Any) -> jax.Array:
    """Cross entropy; convolutions are padded, followed by 2x2 max-pooling."""
    h, label = sample
    for k, (w, b) in enumerate(params):
        if w.ndim == 4:
            numbers = ("NHWC", "HWIO", "NHWC")
            h = jax.lax.conv_general_dilated(h[None], w, (1, 1), "SAME", dimension_numbers=numbers)[
                0
            ]
            h = jax.nn.relu(h + b)
            h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, _WINDOW, _WINDOW, "VALID")
        else:
            h = h.reshape(-1) @ w + b
            h = h if k == len(params) - 1 else jax.nn.relu(h)
    return jax.nn.logsumexp(h) - h[label]


def mean(params: Any, data: Any) -> jax.Array:
    """Over the batch."""
    return jnp.mean(jax.vmap(loss, (None, 0))(params, data))


def gradient(params: Any, data: Any, v: Any) -> Any:
    """The unit: one forward and backward pass."""
    return jax.value_and_grad(mean)(params, data)


def norms(params: Any, data: Any, v: Any) -> jax.Array:
    """By Thalweg."""
    return sample_gradient_norms(loss, params, data)


def hessian_norms(params: Any, data: Any, v: Any) -> jax.Array:
    """All |H_i v| by Thalweg, for one direction."""

    def along(params: Any, sample: Any) -> jax.Array:
        return jax.jvp(lambda p: loss(p, sample), (params,), (v,))[1]

    return jnp.sqrt(squared_gradient_norms(along, params, data))


def by_vmap(params: Any, data: Any, v: Any) -> jax.Array:
    """The usual way: per-sample gradients."""

    def norm(sample: Any) -> jax.Array:
        leaves = jax.tree.leaves(jax.grad(loss)(params, sample))
        return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in leaves))

    return jax.vmap(norm)(data)


def piece(
    function: Callable[[Any, Any, Any], Any], at_once: int | None = None
) -> Callable[..., Piece]:
    """A function of trained parameters, the batch and a direction; ``at_once`` samples a call."""

    def make(*, net: str, size: int) -> Piece:
        data = jax.tree.map(jnp.asarray, works.batch(net, size))
        params = _trained(jax.tree.map(jnp.asarray, works.layers(net)), data)
        v = jax.tree.map(jnp.cos, params)
        chunk = at_once or size
        parts = [jax.tree.map(lambda x, s=s: x[s : s + chunk], data) for s in range(0, size, chunk)]
        compiled: list[Any] = []

        def run() -> dict[str, Any]:
            if not compiled:
                compiled.append(jax.jit(function).lower(params, parts[0], v).compile())
            outs = jax.block_until_ready([compiled[0](params, part, v) for part in parts])
            temporary = compiled[0].memory_analysis().temp_size_in_bytes
            numbers = [float(x) for x in outs[0][:4]] if isinstance(outs[0], jax.Array) else []
            return {"temporary_mb": temporary * 1e-6, "numbers": numbers}

        return run

    return make


def _trained(params: Any, data: Any) -> Any:
    """After 24 steps of SGD, 32 samples each."""
    step = jax.jit(lambda p, d: jax.tree.map(lambda w, g: w - 0.05 * g, p, jax.grad(mean)(p, d)))
    for k in range(24):
        begin = 32 * k % len(data[1])
        params = step(params, jax.tree.map(lambda x, b=begin: x[b : b + 32], data))
    return params


PIECES = {
    "gradient": piece(gradient),
    "norms": piece(norms),
    "hessian-norms": piece(hessian_norms),
    "vmap": piece(by_vmap, at_once=32),
}
