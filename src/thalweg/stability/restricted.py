r"""The samples' Hessians on a span, and what they push out of it: nothing of size n x P.

Forward over forward, a direction's tangents are shared by all samples of a chunk: on a dense layer
they are matrix products.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from thalweg.problem import FiniteSum, Params

# Directions taken at once, so that one compiled program serves every span; and samples.
_AT_ONCE, _CHUNK = 8, 512


def restricted_hessians(
    problem: FiniteSum, params: Params, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    r"""The numbers :math:`u_a^\top H_i v_b` of all samples, shape (n, a, b), in float64.

    ``left`` and ``right`` hold the :math:`u_a` and :math:`v_b` as columns. Cost: about four
    evaluations of the losses for each pair.
    """
    rows = [
        np.concatenate(
            [
                np.asarray(_curvatures(problem, params, _vector(params, u), block), dtype=float)
                for block in _blocks(params, right)
            ],
            axis=1,
        )[:, : right.shape[1]]
        for u in left.T
    ]
    return np.stack(rows, axis=1)


def restricted_gradients(problem: FiniteSum, params: Params, basis: np.ndarray) -> np.ndarray:
    r"""The slopes :math:`v_b^\top \nabla f_i` of all samples, shape (n, b), in float64."""
    parts = [
        np.asarray(_slopes(problem, params, block), dtype=float) for block in _blocks(params, basis)
    ]
    return np.concatenate(parts, axis=1)[:, : basis.shape[1]]


def pushed(
    problem: FiniteSum, params: Params, basis: np.ndarray, coordinates: np.ndarray
) -> np.ndarray:
    r"""The vector :math:`\sum_i a_i H_i V z_i`, with a direction of the span for each sample.

    ``coordinates`` holds the :math:`z_i`, shape (n, k). Cost: about six evaluations of the losses
    for each of the k columns of V.
    """
    k = basis.shape[1]
    padded = np.pad(coordinates, ((0, 0), (0, -k % _AT_ONCE)))
    total = np.zeros(len(basis))
    for number, block in enumerate(_blocks(params, basis)):
        first = number * _AT_ONCE
        part = jnp.asarray(padded[:, first : first + _AT_ONCE], dtype=block.dtype)
        total += np.asarray(_pushed(problem, params, block, part), dtype=float)
    return total


def _vector(params: Params, column: np.ndarray) -> Array:
    return jnp.asarray(column, dtype=jax.eval_shape(lambda p: ravel_pytree(p)[0], params).dtype)


def _blocks(params: Params, basis: np.ndarray) -> list[Array]:
    """The columns as rows of blocks of eight, the last filled up with zeros."""
    rows = np.pad(basis.T, ((0, -basis.shape[1] % _AT_ONCE), (0, 0)))
    return [_vector(params, rows[i : i + _AT_ONCE]) for i in range(0, len(rows), _AT_ONCE)]


def _slope(problem: FiniteSum, params: Params, sample: Any, direction: Params) -> Array:
    return jax.jvp(lambda p: problem.loss(p, sample), (params,), (direction,))[1]


@jax.jit
def _curvatures(problem: FiniteSum, params: Params, left: Array, right: Array) -> Array:
    unravel = ravel_pytree(params)[1]
    direction = unravel(left)

    def along(sample: Any) -> Array:
        def curvature(v: Array) -> Array:
            slope = lambda p: _slope(problem, p, sample, direction)  # noqa: E731
            return jax.jvp(slope, (params,), (unravel(v),))[1]

        return jax.vmap(curvature)(right)

    return problem.over_samples(along, problem.data, min(_CHUNK, problem.chunk_size))


@jax.jit
def _slopes(problem: FiniteSum, params: Params, directions: Array) -> Array:
    unravel = ravel_pytree(params)[1]

    def along(sample: Any) -> Array:
        return jax.vmap(lambda v: _slope(problem, params, sample, unravel(v)))(directions)

    return problem.over_samples(along, problem.data, min(_CHUNK, problem.chunk_size))


@jax.jit
def _pushed(problem: FiniteSum, params: Params, directions: Array, coordinates: Array) -> Array:
    unravel = ravel_pytree(params)[1]

    def part(data: Any, weights: Array) -> Any:
        samples, z = data

        def total(p: Params) -> Array:
            def slopes(v: Array) -> Array:
                return jax.vmap(lambda s: _slope(problem, p, s, unravel(v)))(samples)

            values = jax.vmap(slopes, out_axes=1)(directions)
            return jnp.dot(weights.astype(values.dtype), jnp.sum(z * values, axis=1))

        return jax.grad(total)(params)

    size = min(_CHUNK, problem.chunk_size)
    data = (problem.data, coordinates)
    return ravel_pytree(problem.sum_over_chunks(part, data, problem.weights, size))[0]
