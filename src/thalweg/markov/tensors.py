r"""Jumps by Selling's offsets: the generator of a diffusion with correlated noise.

In units of cells, :math:`\hat D = S^{-1} D S^{-1}` with the widths S of the cells, :math:`\hat D =
\sum_k w_k e_k e_k^\top` (:mod:`thalweg.markov.selling`), and with :math:`c = D^{-1} b`

.. math:: b = \sum_k w_k (\hat e_k \cdot c)\, \hat e_k, \qquad \hat e_k = S e_k,

so that drift and diffusion are sums over the offsets. Cell i jumps to :math:`i \pm e_k` with the
rate :math:`w_k(i) B(V)`, :math:`V = -\int c \cdot dx` along the jump. Where :math:`b = -D \nabla U`
and D is constant, :math:`V = U_j - U_i` and the law :math:`e^{-U}` is stationary at the centres.
For a diagonal D this is the scheme of :mod:`thalweg.markov.axes`. Averages, exit times and other
solutions of the backward equation are of second order; where D varies, a density is of first order
at the points next to lines on which the offsets change, and of second order in the mean.

Singular tensors, and those whose offsets would be too long, have no such c or no such offsets:
there :math:`\hat D + \epsilon I` takes the place of :math:`\hat D`, c is the pseudo-inverse of
:math:`\hat D` times the drift at the cell, and what is left of the drift is upwinded along the
axes. The drift is then right and the scheme of first order.

Across the main direction of a thin D the noise of the scheme is right on cells narrow enough for V
to be of the order one there; on wider ones it is that of upwinding along the offsets.
"""

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from thalweg.diffusion import Diffusion
from thalweg.errors import InputError
from thalweg.markov.axes import VARIES
from thalweg.markov.chunks import concrete, in_chunks, joined
from thalweg.markov.fields import Rule, Values, along
from thalweg.markov.fluxes import bernoulli
from thalweg.markov.grid import Grid
from thalweg.markov.moves import Moves, summed
from thalweg.markov.selling import RADIUS, offsets, superbases, weights
from thalweg.markov.stencils import Steps, steps

# Eigenvalues below this share of the largest are zero.
_RANK = 1e-8
# Pivots below this share of the variance are.
_PIVOT = 1e-10
# Eigenvalues below about this share of the trace count as zero in the pseudo-inverse.
_DAMPING = 1e-3
# The largest arrays of a cell on the way to its rates.
_NUMBERS = 64

Tensors = Float[Array, "points d d"]
Vectors = Float[Array, "points d"]


class Field(NamedTuple):
    """The diffusion in units of cells, at the centres.

    Attributes:
        diffusion: The equation.
        grid: A uniform grid.
        widths: Of its cells.
        rule: The quadrature along jumps.
        width: See :func:`thalweg.markov.chunks.in_chunks`.
        drift: b with the widths divided out.
        tensors: Likewise D.
        degenerate: The cells in which it is singular or gets something added.
        added: What is added to its diagonal there.
    """

    diffusion: Diffusion
    grid: Grid
    widths: Float[np.ndarray, " d"]
    rule: Rule
    width: int
    drift: Any
    tensors: Any
    degenerate: Bool[np.ndarray, " cells"]
    added: Any

    @property
    def points(self) -> Float[np.ndarray, "cells d"]:
        """The centres."""
        return self.grid.points[self.grid.cells]


def tensor_moves(
    diffusion: Diffusion,
    grid: Grid,
    own: Values,
    rule: Rule,
    width: int,
) -> Moves:
    """Rates of the jumps by Selling's offsets.

    Args:
        diffusion: Drift and covariance.
        grid: A uniform grid in two or three dimensions.
        own: Drift and tensor at the centres of the cells, the tensor positive semidefinite.
        rule: Nodes and weights on (0, 1).
        width: See :func:`thalweg.markov.chunks.in_chunks`.

    Raises:
        InputError: Cells that are not equally wide.

    Warns:
        UserWarning: The covariance is singular, or diffusion is added.
    """
    if not grid.uniform:
        raise InputError(
            "the covariance has entries off its diagonal, which need cells that are equally wide "
            "along each axis; expected a Grid(lower, upper, shape)"
        )
    widths = np.array([w[0] for w in grid.widths])
    scaled = own.tensor / np.outer(widths, widths)
    numbers = concrete(scaled)
    bases = superbases(numbers)
    chosen = in_chunks(jax.jit(weights), (bases.vectors, bases.limiting, scaled), _NUMBERS)
    values = np.linalg.eigvalsh(numbers)
    rank = np.sum(values > _RANK * values[:, -1:], axis=1)
    degenerate = (rank < grid.dimension) | (bases.limiting >= 0)
    _tell(grid.dimension, rank, values.sum(axis=1), concrete(chosen[1]))
    field = Field(
        diffusion, grid, widths, rule, width, own.drift / widths, scaled, degenerate, chosen[1]
    )
    terms = offsets(bases.vectors)
    every = steps(grid, np.arange(len(terms)), terms, concrete(chosen[0]) > 0)
    every = _joined(every, _between_parts(grid, every, degenerate, terms.shape[1]))
    inexact = degenerate[every.source]
    smooth, smooth_drops = _integrated(field, every.only(~inexact))
    local, local_drops, rest, excess = _at_centres(field, every.only(inexact))
    fitted = _joined(smooth, local)
    drops = joined([smooth_drops, local_drops])
    diagonal = scaled[:, np.arange(grid.dimension), np.arange(grid.dimension)]
    either = jnp.concatenate if isinstance(scaled, jax.core.Tracer) else np.concatenate
    coefficients = either([chosen[0], diagonal], axis=1)
    rows = (coefficients[fitted.source, fitted.term], drops, fitted.share)
    rates = in_chunks(_rates, rows, _NUMBERS)
    return _merged(len(terms), _joined(fitted, rest), joined([rates, excess]))


def _between_parts(
    grid: Grid, every: Steps, degenerate: Bool[np.ndarray, " cells"], terms: int
) -> Steps:
    """Jumps along axes, numbered from ``terms``, between parts of the domain that are cut off.

    In a corner between reflecting walls all long jumps of a cell may lead out. What noise has no
    direction to leave by stays as it is.
    """
    count, d = len(degenerate), grid.dimension
    inner = every.target >= 0
    pairs = sp.csr_array(
        (np.ones(inner.sum()), (every.source[inner], every.target[inner])), shape=(count, count)
    )
    part = connected_components(pairs, directed=False)[1]
    axes = np.broadcast_to(np.eye(d, dtype=np.int32), (count, d, d))
    along_axes = steps(grid, np.arange(count), axes, np.ones((count, d), bool))
    source, target = along_axes.source, along_axes.target
    across = (target >= 0) & (part[source] != part[target])
    across &= ~(degenerate[source] | degenerate[target])
    found = along_axes.only(across)
    return found._replace(term=found.term + np.int32(terms))


def _integrated(field: Field, every: Steps) -> tuple[Steps, Any]:
    """Jumps from cells with a regular tensor, in another order, and the V of each."""
    ends = np.where(every.target < 0, every.source, every.target).astype(np.int64)
    count = len(field.degenerate)
    keys = np.minimum(every.source, ends) * count + np.maximum(every.source, ends)
    # Both ways of a segment are integrated as one; a way out has no other.
    keys = np.where(every.target < 0, -1 - np.arange(len(keys)), keys)
    first, inverse = np.unique(keys, return_index=True, return_inverse=True)[1:]
    segment = every.only(first)
    trace = jnp.trace if isinstance(field.tensors, jax.core.Tracer) else np.trace
    size = trace(field.tensors, axis1=1, axis2=2)
    way = segment.move * segment.share[:, None]
    found = along(
        field.diffusion,
        field.rule,
        partial(_integrals, field.widths),
        (field.points[segment.source], way * field.widths),
        (way, size[segment.source], size[ends[first]]),
        field.width,
    )
    fits = concrete(found.fits)[inverse] & ~field.degenerate[ends]
    back = np.where(segment.source[inverse] == every.source, -1.0, 1.0)
    drops = (found.action[inverse] * back)[fits]
    other = every.only(~fits)
    rows = (field.tensors[other.source], found.drift[inverse[~fits]], other.move, other.share)
    if len(other.source) == 0:
        return every.only(fits), drops
    return _joined(every.only(fits), other), joined([drops, in_chunks(_inverted, rows, _NUMBERS)])


def _at_centres(field: Field, every: Steps) -> tuple[Steps, Any, Steps, Any]:
    """Jumps from degenerate cells with the V of each, and more along axes with their rates."""
    cells = np.flatnonzero(field.degenerate)
    if cells.size == 0:
        return every, np.zeros(0), every, np.zeros(0)
    rows = (field.drift[cells], field.tensors[cells], field.added[cells])
    ratio, rest = in_chunks(_split, rows, _NUMBERS)
    place = np.zeros(len(field.degenerate), np.int64)
    place[cells] = np.arange(cells.size)
    way = every.move * every.share[:, None]
    drops = -(ratio[place[every.source]] * way).sum(axis=1)
    d = field.grid.dimension
    axes = np.broadcast_to(np.eye(d, dtype=np.int32), (cells.size, d, d))
    along_axes = steps(field.grid, cells, axes, concrete(rest) != 0)
    onward = along_axes.move.sum(axis=1).astype(float)  # 1 or -1
    speed = rest[place[along_axes.source], along_axes.term] * onward
    ahead = concrete(speed) > 0
    return every, drops, along_axes.only(ahead), speed[ahead]


class _Segments(NamedTuple):
    """Integrals along jumps.

    Attributes:
        action: Of c along the way.
        drift: The mean drift in cells per unit of time.
        fits: Whether the tensor is regular, and varies little enough for a fitted flux.
    """

    action: Float[Array, " segments"]
    drift: Float[Array, "segments d"]
    fits: Bool[Array, " segments"]


@jax.jit
def _integrals(
    widths: Float[Array, " d"],
    weights: Float[Array, " nodes"],
    nodes: tuple[Values, ...],
    way: Vectors,
    source: Float[Array, " segments"],
    target: Float[Array, " segments"],
) -> _Segments:
    """Integrals from the centres by ways in cells; traces of the tensor at both ends."""
    b = jnp.stack([at.drift / widths for at in nodes])
    tensors = [at.tensor / (widths[:, None] * widths) for at in nodes]
    c, share = map(jnp.stack, zip(*map(solved, tensors, b), strict=True))
    traces = jnp.stack([*(jnp.trace(D, axis1=1, axis2=2) for D in tensors), source, target])
    low, high = traces.min(axis=0), traces.max(axis=0)
    least = share.min(axis=0)
    # A tensor that is indefinite between the centres is no number.
    mean = jnp.where((least > -_RANK)[:, None], jnp.tensordot(weights, b, 1), jnp.nan)
    action = jnp.sum(jnp.tensordot(weights, c, 1) * way, axis=1)
    return _Segments(action, mean, (least > _PIVOT) & (high <= VARIES * low))


@jax.jit
def _inverted(
    tensors: Tensors,
    mean: Vectors,
    move: Int[Array, "points d"],
    share: Float[Array, " points"],
) -> Float[Array, " points"]:
    """V from the tensor at the cell that is left and the mean drift along the jump."""
    return -share * jnp.sum(solved(tensors, mean)[0] * move.astype(share.dtype), axis=1)


@jax.jit
def _split(
    drift: Vectors, tensors: Tensors, added: Float[Array, " points"]
) -> tuple[Float[Array, "points d"], Float[Array, "points d"]]:
    r"""The drift as :math:`(\hat D + \epsilon I) c + r`, all in units of cells."""
    eye = jnp.eye(tensors.shape[1])
    damping = jnp.square(_DAMPING * jnp.trace(tensors, axis1=1, axis2=2))
    squares = jnp.einsum("nij,njk->nik", tensors, tensors) + damping[:, None, None] * eye
    c = solved(squares, jnp.einsum("nij,nj->ni", tensors, drift))[0]
    whole = tensors + jnp.asarray(added)[:, None, None] * eye
    return c, drift - jnp.einsum("nij,nj->ni", whole, c)


@jax.jit
def _rates(
    weight: Float[Array, " steps"],
    drop: Float[Array, " steps"],
    share: Float[Array, " steps"],
) -> Float[Array, " steps"]:
    return weight * bernoulli(jnp.asarray(drop)) / share


def solved(
    tensors: Tensors, vectors: Vectors
) -> tuple[Float[Array, "points d"], Float[Array, " points"]]:
    """Solutions by elimination, and the least pivot of each as a share of its variance.

    Pivots below the share 1e-10 count as one.
    """
    d = tensors.shape[1]
    rows = [[tensors[:, i, j] for j in range(d)] + [vectors[:, i]] for i in range(d)]
    shares = []
    for k in range(d):
        variance = tensors[:, k, k]
        share = rows[k][k] / jnp.where(variance > 0, variance, 1.0)
        shares.append(share)
        pivot = jnp.where(share > _PIVOT, rows[k][k], 1.0)
        rows[k] = [entry / pivot for entry in rows[k]]
        rows[k][k] = jnp.ones_like(pivot)
        for i in range(k + 1, d):
            rows[i] = [a - rows[i][k] * b for a, b in zip(rows[i], rows[k], strict=True)]
    solution: list[Array] = []
    for k in reversed(range(d)):
        done = zip(rows[k][k + 1 : d], solution, strict=True)
        solution.insert(0, rows[k][d] - sum((a * x for a, x in done), jnp.zeros(())))
    return jnp.stack(solution, axis=1), jnp.min(jnp.stack(shares), axis=0)


def _joined(*parts: Steps) -> Steps:
    return Steps(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _merged(count: int, every: Steps, rates: Any) -> Moves:
    """Rates between two cells that come from two terms are added up."""
    out = every.target < 0
    inner = ~out
    keys = every.source[inner].astype(np.int64) * count + every.target[inner]
    pairs, inverse = np.unique(keys, return_inverse=True)
    source, target = (x.astype(np.int32) for x in np.divmod(pairs, count))
    return Moves(
        source, target, summed(rates[inner], inverse, pairs.size), every.source[out], rates[out]
    )


def _tell(
    dimension: int,
    rank: Int[np.ndarray, " cells"],
    trace: Float[np.ndarray, " cells"],
    added: Float[np.ndarray, " cells"],
) -> None:
    """Warn of what is singular, and of what is added to it."""
    count = len(rank)
    low, number = np.unique(rank[rank < dimension], return_counts=True)
    ranks = [f"rank {r} in {n} of {count} cells" for r, n in zip(low, number, strict=True)]
    parts = []
    if ranks:
        parts.append(
            f"the covariance of the noise has {', '.join(ranks)}; drift outside of its range is "
            "upwinded there, which is of first order in the width of the cells"
        )
    limited = added > 0
    if limited.any():
        share = dimension * np.max(added[limited] / trace[limited])
        parts.append(
            f"in {limited.sum()} of {count} cells the covariance is too thin for a monotone scheme "
            f"with jumps of up to {RADIUS} cells, and isotropic diffusion (in units of cells) of "
            f"at most {100 * share:.2g} % of its trace is added; a finer grid of the same "
            "proportions does not help"
        )
    if parts:
        warnings.warn("; ".join(parts), UserWarning, stacklevel=4)
