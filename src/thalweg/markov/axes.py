"""Jumps along the axes: the generator of a diffusion with independent noise in each parameter."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg.diffusion import Diffusion
from thalweg.markov.chunks import joined
from thalweg.markov.fields import Rule, Values, along
from thalweg.markov.fluxes import flux
from thalweg.markov.grid import Grid
from thalweg.markov.moves import Moves

# D along a face may vary by this factor for the fluxes to be fitted.
VARIES = 100.0

Numbers = Float[Array, " faces"]


class Faces(NamedTuple):
    """Faces between cells, or between a cell and a wall, and the segments that pass them.

    Attributes:
        source: The cells on one side, as states.
        target: The cells on the other side; those of ``source`` again at a wall.
        axis: Which axis each face is normal to.
        length: From the centre of the source to that of the target, or to the wall; signed.
    """

    source: Int[np.ndarray, " faces"]
    target: Int[np.ndarray, " faces"]
    axis: Int[np.ndarray, " faces"]
    length: Float[np.ndarray, " faces"]


def axis_moves(diffusion: Diffusion, grid: Grid, own: Values, rule: Rule, width: int) -> Moves:
    r"""Rates :math:`D_{aa}(i) B(V_{ij}) / (h_{ij} w_i)` along each axis a, with widths w.

    Args:
        diffusion: Drift and covariance, of which the diagonal is used.
        grid: The grid, stretched or not.
        own: Drift and tensor at the centres of the cells.
        rule: Nodes and weights on (0, 1).
        width: See :func:`thalweg.markov.chunks.in_chunks`.
    """
    inner = [_inner(grid, axis) for axis in range(grid.dimension)]
    walls = [
        _walls(grid, axis, side)
        for axis in range(grid.dimension)
        for side in (0, 1)
        if grid.boundary[axis][side] == "absorbing"
    ]
    faces = Faces(*(np.concatenate(column) for column in zip(*inner, *walls, strict=True)))
    direction = np.eye(grid.dimension)[faces.axis]
    place = np.stack(np.unravel_index(grid.cells, grid.shape))
    widths = np.stack([w[k] for w, k in zip(grid.widths, place, strict=True)])
    ends = (faces.source, faces.target)
    rows = (
        direction,
        faces.length,
        tuple(own.tensor[cells, faces.axis, faces.axis] for cells in ends),
        tuple(widths[faces.axis, cells] for cells in ends),
    )
    start = grid.points[grid.cells[faces.source]]
    displacement = faces.length[:, None] * direction
    forward, backward = along(diffusion, rule, _rates, (start, displacement), rows, width)
    count = sum(len(part.source) for part in inner)
    source, target = faces.source[:count], faces.target[:count]
    return Moves(
        np.concatenate([source, target]),
        np.concatenate([target, source]),
        joined([forward[:count], backward[:count]]),
        faces.source[count:],
        forward[count:],
    )


@jax.jit
def _rates(
    weights: Float[Array, " nodes"],
    nodes: tuple[Values, ...],
    direction: Float[Array, "faces d"],
    length: Numbers,
    own: tuple[Numbers, Numbers],
    widths: tuple[Numbers, Numbers],
) -> tuple[Numbers, Numbers]:
    """The rates from source to target and back, from D at the centres of both and their widths."""
    b = jnp.stack([jnp.sum(at.drift * direction, axis=1) for at in nodes])
    D = jnp.stack([jnp.einsum("nii,ni->n", at.tensor, direction) for at in nodes])
    ratio = weights @ (b / jnp.where(D > 0, D, 1.0))
    ends = jnp.maximum(jnp.stack(own), 0.0)
    every = jnp.concatenate([D, ends])
    low, high = every.min(axis=0), every.max(axis=0)
    fitted = (low > 0) & (high <= VARIES * low)
    way = length * jnp.array([[-1.0], [1.0]])
    rates = flux(ends, way * ratio, way * (weights @ b), fitted) / jnp.stack(widths)
    # A negative variance between the centres is no number.
    forward, backward = jnp.where(low >= 0, rates / jnp.abs(length), jnp.nan)
    return forward, backward


def _inner(grid: Grid, axis: int) -> Faces:
    """The faces between two cells of the domain."""
    numbers = np.moveaxis(grid.numbers, axis, 0)
    below, above = numbers[:-1], numbers[1:]
    both = (below >= 0) & (above >= 0)
    gaps = np.diff(grid.centres[axis]).reshape(-1, *[1] * (grid.dimension - 1))
    length = np.broadcast_to(gaps, both.shape)[both]
    axes = np.full(length.size, axis, np.int8)
    return Faces(below[both].astype(np.int32), above[both].astype(np.int32), axes, length)


def _walls(grid: Grid, axis: int, side: int) -> Faces:
    """The faces between the domain and one side of the box."""
    place = -side
    numbers = np.moveaxis(grid.numbers, axis, 0)[place].ravel()
    cells = numbers[numbers >= 0].astype(np.int32)
    half = grid.widths[axis][place] / 2
    axes = np.full(cells.size, axis, np.int8)
    return Faces(cells, cells, axes, np.full(cells.size, half if side else -half))
