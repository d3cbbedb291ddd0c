"""Newton's method for chains of images: the least sum of a cost of neighbours."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from thalweg.paths.curves import respaced
from thalweg.paths.expansions import Expansion

Cost = Callable[[Array, Array], Expansion]

# What is left to do of a curve, the longest step as a share of the distance of neighbours, or of a
# chain of steps, the fall of the cost that is foreseen as a share of it, when the method is done.
_DONE = 1e-7, 1e-11
# After a step of a curve this short images are not spaced again, so that the method can converge.
# It is taken although the cost rises, as it may after the last spacing.
_SHORT = 1e-2
_ITERATIONS = 300
# The first distance where the cost of the first pair is given.
_GAP = 2.0
# Damping as a share of the Hessian's size: at first, its factors up and down, at which none is left
# and at which no step helps any more.
_FIRST, _UP, _DOWN, _NONE, _MOST = 1e-3, 8.0, 0.1, 1e-10, 1e6


class Relaxed(NamedTuple):
    """A chain of images where the method stopped.

    Attributes:
        points: The images.
        cost: The sum over neighbours, infinite if that of the first chain is.
        left: Of a curve, the next step of the image that would move most, in distances of
            neighbours; of a chain of steps, the fall of the cost that is foreseen, as a share.
        iterations: How many expansions were made.
    """

    points: Float[Array, "images d"]
    cost: Float[Array, ""]
    left: Float[Array, ""]
    iterations: Int[Array, ""]


class _Blocks(NamedTuple):
    """A block-tridiagonal symmetric matrix: blocks on the diagonal, and right of it."""

    diagonal: Float[Array, "n d d"]
    beside: Float[Array, "_ d d"]


class _State(NamedTuple):
    points: Array
    cost: Array
    slope: Array
    matrix: _Blocks
    tried: Array
    left: Array
    damping: Array
    iterations: Array


@eqx.filter_jit
def relaxed(
    cost: Cost,
    start: Float[Array, "images d"],
    count: Int[Array, ""] | int,
    first: Float[Array, "d d"] | None,
    *,
    spaced: bool,
) -> Relaxed:
    r"""The images between fixed ends with the least :math:`\sum_k c(\theta_k, \theta_{k+1})`.

    Damped Newton steps (Levenberg and Marquardt) with the exact Hessian, which is block tridiagonal
    and is factored by Cholesky: images x d^3 operations. A step moves no image further than its
    neighbours are away.

    Args:
        cost: c with its derivatives; a pytree, such as an Equinox module.
        start: A first chain, of finite cost. Images beyond the count are copies of the last.
        count: How many images the chain has; one program serves all counts.
        first: P, if the cost of the first pair is :math:`\tfrac12 (\theta_1 - \theta_0)^\top P
            (\theta_1 - \theta_0)` instead.
        spaced: For costs of curves, which do not depend on where on the curve the images lie:
            images move in the planes normal to it, and are then put at equal distances; the first
            at twice that where its cost is given: a path that turns around a point of rest
            as a spiral looks the same from near and far, and is seen no nearer than that.

    The geometric action is that of M. Heymann and E. Vanden-Eijnden, Comm. Pure Appl. Math. 61,
    1052 (2008); they descend by steps of first order.
    """
    gap = None if not spaced else 1.0 if first is None else _GAP

    def going(state: _State) -> Array:
        rests = (state.left <= (_DONE[0] if spaced else _DONE[1])) | (state.damping > _MOST)
        lost = (state.iterations > 0) & ~jnp.isfinite(state.cost)
        return (state.iterations < _ITERATIONS) & ~rests & ~lost

    def iterate(state: _State) -> _State:
        reached, slope, matrix = _expanded(cost, state.tried, count, first, spaced)
        taken = reached <= state.cost
        if spaced:
            taken |= state.left <= _SHORT
        taken &= jnp.isfinite(reached)
        new, old = (state.tried, reached, slope, matrix), state[:4]
        points, value, slope, matrix = jax.tree.map(lambda x, y: jnp.where(taken, x, y), new, old)
        damping = state.damping * jnp.where(taken, _DOWN, _UP)
        damping = jnp.where(taken, damping, jnp.maximum(damping, _NONE))
        step = _step(points, slope, matrix, damping, count)
        if gap is None:
            left = -jnp.vdot(step, slope) / (2 * value)
            tried = points.at[1:-1].add(step)
        else:
            left = jnp.max(jnp.linalg.norm(step, axis=1)) / _apart(points, count)
            tried = points.at[1:-1].add(step / jnp.maximum(left, 1))
            tried = jnp.where(left > _SHORT, respaced(tried, count, gap), tried)
        return _State(points, value, slope, matrix, tried, left, damping, state.iterations + 1)

    start = start if gap is None else respaced(start, count, gap)
    d, inner = start.shape[1], len(start) - 2
    begin = _State(
        points=start,
        cost=jnp.asarray(jnp.inf),
        slope=jnp.zeros((inner, d)),
        matrix=_Blocks(jnp.zeros((inner, d, d)), jnp.zeros((inner - 1, d, d))),
        tried=start,
        left=jnp.asarray(jnp.inf),
        damping=jnp.asarray(_FIRST / _DOWN),
        iterations=jnp.asarray(0),
    )
    end = jax.lax.while_loop(going, iterate, begin)
    return Relaxed(end.points, end.cost, end.left, end.iterations)


def _step(
    points: Array, slope: Array, matrix: _Blocks, damping: Array, count: Array | int
) -> Array:
    """The damped Newton step."""
    inner = _inner(points, count)[:, None]
    sizes = jnp.abs(jnp.diagonal(matrix.diagonal, axis1=1, axis2=2))
    size = jnp.sum(jnp.where(inner, sizes, 0)) / ((count - 2) * points.shape[1])
    return -_solved(matrix, jnp.where(damping < _NONE, 0, damping) * size, slope)


def _apart(points: Array, count: Array | int) -> Array:
    """The mean distance of neighbours."""
    return jnp.sum(jnp.linalg.norm(jnp.diff(points, axis=0), axis=1)) / (count - 1)


def _inner(points: Array, count: Array | int) -> Bool[Array, " inner"]:
    """Which of all images but the ends belong to the chain and move."""
    return jnp.arange(1, len(points) - 1) <= count - 2


def _expanded(
    cost: Cost, points: Array, count: Array | int, first: Array | None, spaced: bool
) -> tuple[Array, Array, _Blocks]:
    """The sum, its gradient and its Hessian with respect to the inner images."""
    d = points.shape[1]
    value, slopes, bends = jax.vmap(cost)(points[:-1], points[1:])
    if first is not None:
        away = points[1] - points[0]
        value = value.at[0].set(away @ first @ away / 2)
        slopes = slopes.at[0, d:].set(first @ away)
        bends = bends.at[0, d:, d:].set(first)
    total = jnp.sum(jnp.where(jnp.arange(len(value)) <= count - 2, value, 0))
    slope = slopes[:-1, d:] + slopes[1:, :d]
    matrix = _Blocks(bends[:-1, d:, d:] + bends[1:, :d, :d], bends[1:-1, :d, d:])
    if spaced:
        slope, matrix = _across(points, slope, matrix)
    inner, unit = _inner(points, count), jnp.eye(d, dtype=points.dtype)
    diagonal = jnp.where(inner[:, None, None], matrix.diagonal, unit)
    beside = jnp.where(inner[1:, None, None], matrix.beside, 0)
    return total, jnp.where(inner[:, None], slope, 0), _Blocks(diagonal, beside)


def _across(points: Array, slope: Array, matrix: _Blocks) -> tuple[Array, _Blocks]:
    """Gradient and Hessian in the planes normal to the curve."""
    unit = jnp.eye(points.shape[1], dtype=points.dtype)
    tangent = points[2:] - points[:-2]
    size = jnp.linalg.norm(tangent, axis=1, keepdims=True)
    tangent = tangent / jnp.where(size > 0, size, 1)
    along = tangent[:, :, None] * tangent[:, None]
    across = unit - along
    inner = across @ matrix.diagonal @ across
    # Along the curve the images stay, whatever the number.
    largest = jnp.max(jnp.abs(inner), axis=(1, 2), keepdims=True)
    inner = inner + along * jnp.where(largest > 0, largest, 1)
    beside = across[:-1] @ matrix.beside @ across[1:]
    return jnp.einsum("iab,ib->ia", across, slope), _Blocks(inner, beside)


def _solved(matrix: _Blocks, damping: Array, right: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """The solution with the damped matrix; not numbers where that is not positive definite."""
    unit = jnp.eye(right.shape[1], dtype=right.dtype)
    above = jnp.concatenate([jnp.zeros_like(matrix.diagonal[:1]), matrix.beside])

    def down(carry: Any, item: Any) -> tuple[Any, Any]:
        root, solved = carry
        block, left, value = item
        link = jax.scipy.linalg.solve_triangular(root, left, lower=True)
        root = jnp.linalg.cholesky(block + damping * unit - link.T @ link)
        value = jax.scipy.linalg.solve_triangular(root, value - link.T @ solved, lower=True)
        return (root, value), (root, link, value)

    start = (unit, jnp.zeros_like(right[0]))
    _, (roots, links, values) = jax.lax.scan(down, start, (matrix.diagonal, above, right))
    after = jnp.concatenate([links[1:], jnp.zeros_like(links[:1])])

    def up(solved: Array, item: Any) -> tuple[Array, Array]:
        root, link, value = item
        solved = jax.scipy.linalg.solve_triangular(root.T, value - link @ solved, lower=False)
        return solved, solved

    _, solution = jax.lax.scan(up, start[1], (roots, after, values), reverse=True)
    return solution
