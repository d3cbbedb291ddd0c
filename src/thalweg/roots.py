r"""Factors of covariance matrices: L with :math:`L L^\top = \Sigma`, singular ones included.

Small matrices are factored by scalars written out, which fuse with whatever surrounds them; a
library's routine would be called once for every chain and step.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Up to this dimension by scalars, beyond it by an eigenvalue solver.
UNROLLED = 4


def factor(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    r"""A factor of a positive semidefinite matrix; all NaN if the matrix is indefinite.

    Up to four dimensions it is Cholesky's with pivots (N. J. Higham, Accuracy and Stability of
    Numerical Algorithms, 2nd ed., section 10.3): the next pivot is the variable of which the
    largest share of its variance is left, a share within :math:`16 d \epsilon` of zero is zero,
    and so is its column. :math:`L L^\top` is then :math:`\Sigma` to rounding whatever the rank,
    but from three dimensions on L jumps where the order of the pivots changes. Beyond, it is
    the symmetric root. Cost: some d^3 operations, or an eigenvalue decomposition.
    """
    return _pivoted(matrix) if matrix.shape[0] <= UNROLLED else symmetric_root(matrix)


def cholesky(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    r"""The lower triangular factor, smooth in the matrix as long as its rank does not change.

    Pivot k is the value :math:`v^\top \Sigma v` with :math:`v = (-w, 1, 0)` and w the solution of
    :math:`\Sigma_{<k} w = \Sigma_{<k,k}`. Backward errors :math:`4 d \epsilon \sqrt{\Sigma_{ii}
    \Sigma_{jj}}` of the entries change it by up to :math:`4 d \epsilon (\sum_i |v_i|
    \sqrt{\Sigma_{ii}})^2`: pivots within this bound of zero are zero with their columns, those
    below it make everything NaN. Where variables before k are nearly dependent the bound is
    large; :func:`factor` has no such weakness. Cost: d^3/2 operations.
    """
    d = matrix.shape[0]
    scales = [jnp.sqrt(jax.lax.stop_gradient(matrix[i, i])) for i in range(d)]
    unit = 4 * d * float(jnp.finfo(matrix.dtype).eps)
    zero = jnp.zeros((), matrix.dtype)
    rows = [[zero] * d for _ in range(d)]
    inverses: list[Array] = []
    sound = jnp.asarray(True)
    for k in range(d):
        size = scales[k]
        for weight, scale in zip(_weights(rows, inverses, k), scales, strict=False):
            size = size + jnp.abs(weight) * scale
        rounding = unit * size * size
        column = [
            matrix[i, k] - sum((rows[i][j] * rows[k][j] for j in range(k)), zero)
            for i in range(k, d)
        ]
        positive = column[0] > rounding
        sound = sound & (column[0] >= -rounding)
        for i in range(k + 1, d):
            # Next to a zero pivot of a semidefinite matrix all is zero (Cauchy and Schwarz).
            below = jnp.square(column[i - k]) <= 4 * rounding * matrix[i, i]
            sound = sound & (positive | below)
        for i, entry in enumerate(_divided(column, column[0], positive), start=k):
            rows[i][k] = entry
        inverses.append(jnp.where(positive, 1 / jnp.where(positive, rows[k][k], 1), 0))
    return jnp.where(sound, jnp.stack([jnp.stack(row) for row in rows]), jnp.nan)


def symmetric_root(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The symmetric square root; NaN if an eigenvalue is below zero by more than rounding."""
    values, vectors = jnp.linalg.eigh(matrix)
    rounding = 4 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps * jnp.max(jnp.abs(values))
    roots = jnp.sqrt(jnp.where(values > rounding, values, 0))
    root = jnp.dot(vectors * roots, vectors.T, precision="highest")
    return jnp.where(values[0] >= -rounding, root, jnp.nan)


def is_symmetric(matrix: Float[Array, "d d"]) -> Bool[Array, ""]:
    """Whether a matrix is its transpose up to the root of the rounding unit of its size."""
    tolerance = jnp.finfo(matrix.dtype).eps ** 0.5 * jnp.max(jnp.abs(matrix))
    # What is not a number is another fault.
    return ~(jnp.max(jnp.abs(matrix - matrix.T)) > tolerance)


def _pivoted(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    d = matrix.shape[0]
    rounding = 16 * d * float(jnp.finfo(matrix.dtype).eps)
    zero = jnp.zeros((), matrix.dtype)
    variances = [matrix[i, i] for i in range(d)]
    inverses = [jnp.where(v > 0, 1 / jnp.where(v > 0, v, 1), 0) for v in variances]
    # What is not yet accounted for; only j <= i is kept up to date, and read.
    left = [[matrix[i, j] for j in range(i + 1)] for i in range(d)]
    waiting = [jnp.asarray(True)] * d
    sound = _possible(matrix)
    columns = []
    for k in range(d):
        # All shares are one at first, so that the first pivot is the first variable.
        rows = range(min(k, 1), d)
        choices = rows if k else range(1)
        shares = {i: jnp.where(waiting[i], left[i][i] * inverses[i], -jnp.inf) for i in choices}
        chosen = _first_largest(shares)
        share = _picked(chosen, shares)
        pivot = _picked(chosen, {i: left[i][i] for i in choices})
        variance = _picked(chosen, {i: variances[i] for i in choices})
        column = [_picked(chosen, {j: left[max(i, j)][min(i, j)] for j in choices}) for i in rows]
        column = [jnp.where(waiting[i], c, 0) for i, c in zip(rows, column, strict=True)]
        waiting = [w & ~chosen[i] if i in chosen else w for i, w in enumerate(waiting)]
        positive = share > rounding
        sound = sound & (share >= -rounding)
        for i, c in zip(rows, column, strict=True):
            # With no share left above rounding, neither is any covariance.
            small = jnp.square(c) <= (2 * rounding) ** 2 * variances[i] * variance
            sound = sound & (positive | small | ~waiting[i])
        scaled = [zero] * (d - len(rows)) + _divided(column, pivot, positive)
        for i in rows:
            for j in range(rows[0], i + 1):
                left[i][j] = left[i][j] - scaled[i] * scaled[j]
        columns.append(jnp.stack(scaled))
    return jnp.where(sound, jnp.stack(columns, axis=1), jnp.nan)


def _possible(matrix: Float[Array, "d d"]) -> Bool[Array, ""]:
    """Variances that are not negative and covariances that they allow, to a few per cent."""
    variances = [matrix[i, i] for i in range(matrix.shape[0])]
    possible = jnp.all(jnp.stack(variances) >= 0)
    for i, j in itertools.combinations(range(len(variances)), 2):
        possible = possible & (jnp.square(matrix[j, i]) <= 1.1 * variances[i] * variances[j])
    return possible


def _first_largest(shares: dict[int, Array]) -> dict[int, Bool[Array, ""]]:
    """Which of the numbers is the largest, the first of equal ones; true for one of them."""
    (first, best), *others = shares.items()
    index = jnp.asarray(first, jnp.int32)
    for i, share in others:
        index = jnp.where(share > best, jnp.int32(i), index)
        best = jnp.maximum(share, best)
    return {i: index == i for i in shares}


def _picked(chosen: dict[int, Array], values: dict[int, Array]) -> Array:
    """The value of the chosen one."""
    (_, picked), *others = values.items()
    for i, value in others:
        picked = jnp.where(chosen[i], value, picked)
    return picked


def _divided(column: list[Array], pivot: Array, positive: Array) -> list[Array]:
    """The column over the root of its pivot, zero unless the pivot is positive."""
    # The pivot's own entry is divided like the others: proportional rows stay proportional.
    root = jnp.sqrt(jnp.where(positive, pivot, 1))
    return [jnp.where(positive, entry / root, 0) for entry in column]


def _weights(rows: list[list[Array]], inverses: list[Array], k: int) -> list[Array]:
    """The w of pivot k by back substitution in the columns before it; 0 for a zero column."""
    weights: list[Array] = []
    for j in range(k - 1, -1, -1):
        known = sum(
            (rows[i][j] * w for i, w in zip(range(j + 1, k), weights, strict=True)),
            jnp.zeros_like(rows[k][j]),
        )
        weights.insert(0, jax.lax.stop_gradient((rows[k][j] - known) * inverses[j]))
    return weights
