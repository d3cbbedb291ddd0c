r"""Two convex problems about the law of a step: its rate function and its geometric action."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from thalweg.paths.laws import AbstractLaw, Vector, solved, whitened

# Exponents grow by at most so much in an iteration ...
_GROWTH = 2.0
# ... so that what is not found after as many does not exist.
_ITERATIONS = 100


class Found(NamedTuple):
    """A maximiser, and whether there is one."""

    q: Vector
    exists: Bool[Array, ""]


def farthest(law: AbstractLaw, v: Vector) -> Found:
    r"""The q with the largest :math:`q \cdot v` in the convex set :math:`\Lambda(q) \le 0`.

    Each iteration replaces the condition :math:`E e^{q u} \le 1` by its second-order model around
    the last q, an ellipsoid, and goes to the farthest point of that, which is written out; the
    first one, from q = 0, is the answer for Gaussian draws. It is a Newton method and converges
    quadratically. Exponents grow by at most 2 an iteration, and coordinates are those in which the
    second moment of u is I.

    There is none where v is no positive combination of the values of u. Where v is an extreme ray
    of these, the largest value is approached at infinity: q is far out and :math:`q \cdot v` right.
    """
    v = v / _positive(jnp.linalg.norm(v))
    start = law.model(jnp.zeros_like(v))
    frame, beyond = whitened(start.second)
    possible = (jnp.linalg.norm(beyond @ v) <= _close(v)) & law.reaches(v)
    law = law.moved(frame, jnp.zeros_like(v))
    empty = jnp.diag(jnp.where(jnp.any(frame != 0, axis=0), 0, 1).astype(v.dtype))
    target = frame.T @ v
    target = target / _positive(jnp.linalg.norm(target))
    size = jnp.linalg.norm(frame.T @ start.mean)

    def move(q: Vector) -> tuple[Vector, Array, Array]:
        excess, mean, second = law.model(q)
        to_centre, along = solved(second + empty, jnp.stack([mean, target], axis=1)).T
        # Of the model's ellipsoid; where it is empty, towards its centre.
        square = jnp.maximum(mean @ to_centre - 2 * excess, 0)
        delta = along * jnp.sqrt(square / _positive(target @ along)) - to_centre
        delta = delta / jnp.maximum(1, law.largest(delta) / _GROWTH)
        near = jnp.linalg.norm(delta) <= _close(v) * (size + jnp.linalg.norm(q)) + _least(v)
        # By the conditions of a maximum: the border of the set, its normal along v.
        beside = jnp.linalg.norm(mean - jnp.maximum(mean @ target, 0) * target)
        speed = jnp.linalg.norm(mean)

        def holds(tolerance: float) -> Array:
            return (jnp.abs(excess) <= tolerance) & (beside <= tolerance * speed + _least(v))

        # On an extreme ray q goes on for ever, while the conditions come to hold.
        return q + delta, near | holds(_least(v)), holds(_close(v) ** 0.5)

    found = _iterated(move, jnp.zeros_like(v), possible)
    return Found(frame @ found.q, found.exists)


def conjugate(law: AbstractLaw, v: Vector) -> Found:
    r"""The q with the largest :math:`q \cdot v - \Lambda(q)`.

    Newton's method for the least :math:`E e^{q (u - v)}`, in coordinates in which the covariance of
    u is I. There is none where v lies outside of the convex hull of the values of u; on its border
    the largest value is approached at infinity: q is far out, and the value right.
    """
    zero = jnp.zeros_like(v)
    start = law.model(zero)
    unit = jnp.eye(v.size, dtype=v.dtype)
    frame, beyond = whitened(law.moved(unit, start.mean).model(zero).second)
    away = v - start.mean
    possible = jnp.linalg.norm(beyond @ away) <= _close(v) * (
        jnp.linalg.norm(v) + jnp.linalg.norm(start.mean)
    )
    law = law.moved(frame, v)
    empty = jnp.diag(jnp.where(jnp.any(frame != 0, axis=0), 0, 1).astype(v.dtype))

    def move(q: Vector) -> tuple[Vector, Array, Array]:
        _, mean, second = law.model(q)
        delta = -solved(second + empty, mean[:, None])[:, 0]
        gained = -(mean @ delta)
        delta = delta / jnp.maximum(1, law.largest(delta) / _GROWTH)
        return q + delta, gained <= _least(v), gained <= _least(v)

    found = _iterated(move, zero, possible)
    return Found(frame @ found.q, found.exists)


def _iterated(
    move: Callable[[Vector], tuple[Vector, Array, Array]], q: Vector, possible: Bool[Array, ""]
) -> Found:
    """Moves until done; what has gone far away is looked for in vain."""

    def going(state: tuple[Vector, Array, Array, Array]) -> Array:
        q, done, _, count = state
        near = jnp.linalg.norm(q) < 1 / _close(q)
        return possible & ~done & near & (count < _ITERATIONS)

    def body(state: tuple[Vector, Array, Array, Array]) -> tuple[Vector, Array, Array, Array]:
        return *move(state[0]), state[3] + 1

    no = jnp.asarray(False)
    q, done, holds, _ = jax.lax.while_loop(going, body, (q, no, no, jnp.asarray(0)))
    return Found(q, done & holds)


def _positive(x: Array) -> Array:
    """The number, or one for what is not positive."""
    return jnp.where(x > 0, x, 1)


def _close(v: Vector) -> float:
    """So close that one more iteration is exact."""
    return float(jnp.finfo(v.dtype).eps) ** 0.5


def _least(v: Vector) -> float:
    return 16 * float(jnp.finfo(v.dtype).eps)
