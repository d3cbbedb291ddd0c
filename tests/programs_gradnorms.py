"""Losses in which parameters enter in many ways: what test_gradnorms_programs.py compares."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Samples a program.
N = 4


class Case(NamedTuple):
    """A loss with the shapes of its parameters and of a sample, and the ways its leaves take.

    An integer in place of a sample's shape stands for 6 indices below it.
    """

    loss: Any
    params: Any
    sample: Any
    ways: Any


def _bend(x):
    return jnp.sum(jnp.tanh(x) * jnp.cos(0.3 * x))


def _cast(p, s):
    w = p["w"].astype(jnp.float32).T.reshape(8, 10)
    return _bend((s.astype(jnp.float32) @ w).astype(s.dtype))


def _einsum(p, s):
    heads = jnp.einsum("ti,hij->thj", s, p["heads"])
    blocks = jnp.einsum("thj,hjk->htk", heads, p["blocks"])
    return _bend(blocks) + _bend(jnp.einsum("htk,kh->t", blocks, p["both"]))


def _split(p, s):
    q, k, v = jnp.split(s @ p["of_result"], 3, axis=-1)
    a, b, c = jnp.split(p["of_weight"], 3, axis=1)
    scores = jax.nn.softmax((s @ a) @ (s @ b).T)
    overlapping = _bend(s @ p["overlap"][:, :9]) + _bend(s @ p["overlap"][:, 3:])
    return _bend(q * k + v) + _bend(scores @ (s @ c)) + overlapping


def _tied(p, s):
    w = -2.0 * p["w"]
    code = jnp.tanh(s @ w / 4.0)
    return _bend(w @ code) + _bend(p["w"].T @ s)


def _conv(p, s, other=None, **options):
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    numbers = ("NHWC", "HWIO", "NHWC")
    kernel = p["kernel"]
    x = s[None] if s.ndim == 3 else s
    h = jax.lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **options)
    h = h + p["bias"]
    if other is not None:
        h = jax.lax.conv_general_dilated(
            jnp.tanh(h), kernel, dimension_numbers=numbers, window_strides=other, padding="VALID"
        )
    return _bend(h)


def _conv_line(p, s):
    h = jax.lax.conv_general_dilated(s[None], p["kernel"], (2,), [(1, 0)], lhs_dilation=(2,))
    batch_grouped = jax.lax.conv_general_dilated(
        jnp.stack([s, -s]), p["grouped"], (1,), "VALID", batch_group_count=2
    )
    return _bend(h) + _bend(batch_grouped)


def _look_up(p, s):
    taken = jnp.take(p["table"], s + 4, axis=0)
    dropped = jnp.where(s[:, None] + 4 < 9, taken, 0.0)
    clipped = p["clipped"].at[s + 4].get(mode="clip")
    columns = jnp.take(p["columns"], s, axis=1, mode="clip")
    one = p["columns"][:, s[0]]
    return _bend(dropped) + _bend(clipped) + _bend(columns @ clipped) + _bend(one)


def _tied_embedding(p, s):
    h = jnp.tanh(p["e"][s] @ p["w"])
    return _bend(jax.nn.log_softmax(h @ p["e"].T)) + _bend(p["e"] @ h[0])


def _recurrent(p, s):
    def step(h, x):
        h = jnp.tanh(p["w"] @ h + x @ p["u"] + p["b"])
        return h, h

    h, seen = jax.lax.scan(step, p["start"], s, reverse=True)
    return _bend(p["w"] @ h) + _bend(seen)


def _layers(p, s):
    def layer(h, own):
        def inner(h, w):
            return jnp.tanh(w @ (p["shared"] @ h)), None

        return jax.lax.scan(inner, h + own["b"], own["w"])[0], None

    return _bend(jax.lax.scan(layer, s, p["layers"])[0])


@partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable)
@jax.jit
def _kept(w, x):
    return jax.nn.silu(x @ w)


@jax.custom_vjp
def _own_rule(w, x):
    return x @ w


# A rule that is not the derivative: what counts is what jax.grad says.
_own_rule.defvjp(
    lambda w, x: (x @ w, (w, x)), lambda saved, g: (2 * jnp.outer(saved[1], g), saved[0] @ g)
)


@jax.custom_jvp
def _straight(x):
    return jnp.round(x)


_straight.defjvp(lambda primal, tangent: (_straight(*primal), tangent[0] * jnp.cos(primal[0])))


def _nested(p, s):
    h = _straight(_kept(p["kept"], s))
    branch = jax.lax.cond(s[0] > 0, lambda x: x @ p["branch"], lambda x: 2 * x[:9], h)
    turns = jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ p["turns"]), branch)
    return _bend(turns) + _bend(jax.lax.stop_gradient(p["kept"]) @ h)


def _custom(p, s):
    return _bend(_own_rule(p["custom"], s))


def _mixed(p, s):
    masked = p["masked"] * np.tri(9)
    normed = p["normed"] / jnp.linalg.norm(p["normed"], axis=0)
    low = p["dense"] + p["a"] @ p["b"]
    penalty = 0.1 * jnp.sum(jnp.square(p["decayed"]))
    main = s @ masked @ normed @ low @ p["decayed"]
    return _bend(main) * p["scale"] + penalty + p["shift"]


_IMAGE = (6, 6, 4)
_FACTORS, _EACH, _UNUSED = "factors", "differentiated", "unused"

CASES = {
    "cast": Case(_cast, {"w": (20, 4)}, (8,), {"w": _FACTORS}),
    "einsum": Case(
        _einsum,
        {"heads": (3, 5, 8), "blocks": (3, 8, 9), "both": (9, 3)},
        (2, 5),
        {"heads": _FACTORS, "blocks": _FACTORS, "both": _EACH},
    ),
    "split": Case(
        _split,
        {"of_result": (10, 12), "of_weight": (10, 12), "overlap": (10, 12)},
        (3, 10),
        {"of_result": _FACTORS, "of_weight": _FACTORS, "overlap": _EACH},
    ),
    "tied": Case(_tied, {"w": (9, 8)}, (9,), {"w": _FACTORS}),
    "conv": Case(
        partial(_conv, other=(2, 1)),
        {"kernel": (3, 2, 4, 4), "bias": (4,)},
        _IMAGE,
        {"kernel": _FACTORS, "bias": _EACH},
    ),
    "conv-grouped-dilated": Case(
        partial(
            _conv,
            window_strides=(2, 1),
            padding=((1, 2), (0, -1)),
            rhs_dilation=(1, 2),
            feature_group_count=2,
        ),
        {"kernel": (2, 3, 2, 6), "bias": (6,)},
        (2, *_IMAGE),
        {"kernel": _FACTORS, "bias": _EACH},
    ),
    "conv-line": Case(
        _conv_line,
        {"kernel": (6, 5, 3), "grouped": (6, 5, 3)},
        (5, 7),
        {"kernel": _FACTORS, "grouped": _EACH},
    ),
    "look-up": Case(
        _look_up,
        {"table": (9, 10), "clipped": (9, 10), "columns": (10, 9)},
        8,
        {"table": _FACTORS, "clipped": _FACTORS, "columns": _FACTORS},
    ),
    "tied-embedding": Case(
        _tied_embedding, {"e": (40, 9), "w": (9, 9)}, 40, {"e": _FACTORS, "w": _FACTORS}
    ),
    "recurrent": Case(
        _recurrent,
        {"w": (9, 9), "u": (8, 9), "b": (9,), "start": (9,)},
        (3, 8),
        {"w": _FACTORS, "u": _FACTORS, "b": _EACH, "start": _EACH},
    ),
    "layers": Case(
        _layers,
        {"layers": {"w": (2, 3, 9, 9), "b": (2, 9)}, "shared": (9, 9)},
        (9,),
        {"layers": {"w": _FACTORS, "b": _EACH}, "shared": _FACTORS},
    ),
    "nested": Case(
        _nested,
        {"kept": (8, 10), "branch": (10, 9), "turns": (9, 9), "nothing": (3, 3)},
        (8,),
        {"kept": _FACTORS, "branch": _EACH, "turns": _FACTORS, "nothing": _UNUSED},
    ),
    "mixed": Case(
        _mixed,
        {
            "masked": (9, 9),
            "normed": (9, 9),
            "dense": (9, 9),
            "a": (9, 2),
            "b": (2, 9),
            "decayed": (9, 8),
            "scale": (),
            "shift": (),
        },
        (9,),
        dict.fromkeys(["masked", "normed", "dense", "a", "b", "decayed", "scale", "shift"], _EACH),
    ),
    "custom": Case(_custom, {"custom": (8, 9)}, (8,), {"custom": _EACH}),
}


def arrays(shapes, seed):
    """Normal numbers, or indices, for a tree of shapes."""
    rng = np.random.default_rng(seed)

    def fill(shape):
        if isinstance(shape, int):
            return jnp.asarray(rng.integers(0, shape, (N, 6)))
        return jnp.asarray(rng.normal(size=shape))

    return jax.tree.map(fill, shapes, is_leaf=lambda x: isinstance(x, tuple | int))


def all_in_one(names):
    """One loss that is the sum of several cases, so that they share programs; params and data."""

    def loss(params, sample):
        return sum(CASES[name].loss(params[name], sample[name]) for name in names)

    params = arrays({name: CASES[name].params for name in names}, 0)
    scaled = jax.tree.map(lambda x: 0.4 * x, params)
    own = {name: CASES[name].sample for name in names}
    batched = jax.tree.map(
        lambda s: s if isinstance(s, int) else (N, *s),
        own,
        is_leaf=lambda x: isinstance(x, tuple | int),
    )
    return loss, scaled, arrays(batched, 1)
