"""The generator of a diffusion on a grid, by finite volumes."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.diffusion import Diffusion
from thalweg.errors import InputError
from thalweg.markov.axes import axis_moves
from thalweg.markov.chunks import concrete, in_chunks, width
from thalweg.markov.fields import gauss_legendre, values, values_at
from thalweg.markov.grid import Grid
from thalweg.markov.jumps import Jumps
from thalweg.markov.memory import check_memory
from thalweg.markov.moves import Moves, summed
from thalweg.markov.tensors import tensor_moves

# Variances so far below zero, as a share of the largest, and asymmetries of a tensor are rounding.
_ROUNDING = 1e-12
_ASYMMETRY = 1e-8
# Bytes for each cell and axis, by measurement, matrix included.
_BYTES = 300
_TENSOR_BYTES = 1200


def generator(diffusion: Diffusion, grid: Grid, *, quadrature: int = 4) -> Jumps:
    r"""The rates of jumps between cells that a diffusion has in the limit of small cells.

    Finite volumes with exponentially fitted fluxes for :math:`p_t = -\nabla \cdot (b p) +
    \partial_i \partial_j (D_{ij} p)`, :math:`D = \Sigma/2` (Ito). Cell i jumps to its neighbour j
    along axis a with the rate :math:`D_{aa}(i) B(V) / (h w_i)` per unit of time: h is the distance
    between their centres, :math:`w_i` the width of i, :math:`B(z) = z/(e^z - 1)` and :math:`V =
    -\int b_a / D_{aa}\,dx` along the way. Rates are not negative and mass is conserved on any grid.

    * Where b/D is a gradient, as for :math:`b = -\nabla f` with constant noise, detailed balance
      holds, and the law :math:`(1/D) e^{-V}` is stationary at the centres up to the quadrature: to
      rounding with four points and cells that resolve the drift. Otherwise the error is of second
      order.
    * A covariance with entries off the diagonal needs cells that are equally wide along each axis.
      Jumps then go to further cells, by Selling's decomposition of D
      (:mod:`thalweg.markov.tensors`). Those that would leave through a reflecting side are left
      out, which is of first order there; a masked wall is no obstacle to jumps longer than it is
      thick.
    * Where the noise vanishes, or D varies by more than a factor 100 from one cell to the next, V
      is that of the mean drift and the D of the cell: upwind fluxes for D = 0, of first order. A
      cell without noise and drift is absorbing.
    * At an absorbing side p vanishes, half a cell beyond the outer centres.

    The rates can be differentiated with ``jax.grad``, not inside of ``jax.jit``.

    Args:
        diffusion: The equation; drift and covariance take params of shape (d,). Of noise that
            varies in time it is the one at the time 0.
        grid: The grid; the walls of a mask reflect.
        quadrature: Points between neighbouring centres (Gauss and Legendre's rule): 1 takes b/D
            from the middle.

    Returns:
        Jumps in continuous time; ``step`` is the diffusion's.

    Raises:
        InputError: A drift or covariance of another shape, that is no number at a point or, for the
            covariance, not symmetric or with a negative eigenvalue; correlated noise on cells of
            unequal width; a grid too large for memory.

    Warns:
        UserWarning: A full covariance that is singular, or too thin for a monotone scheme: it says
            where and how much diffusion is added.

    Cost: drift and covariance ``quadrature`` times a cell and axis; for correlated noise 3 times a
    cell in place of 2, and 6 in place of 3. 512 x 512 cells of a potential of four terms: 0.2 s,
    and 0.4 s more with compilation, which is done once for a drift; some 300 bytes a cell and axis.

    Source: D. L. Scharfetter and H. K. Gummel (1969) for the fluxes.
    """
    rule = gauss_legendre(quadrature)
    start = jnp.zeros(grid.dimension)
    diffusion.check_drift(start)
    diffusion.noise.check(start, lambda theta: theta)
    full = len(diffusion.noise.shape(start, lambda theta: theta)) > 1 and grid.dimension > 1
    each = _TENSOR_BYTES if full else _BYTES
    check_memory(grid.cells.size * grid.dimension * each, "the generator on this grid")
    size = width(partial(values_at, diffusion), start)
    own = in_chunks(partial(values, diffusion), (grid.points[grid.cells],), size)
    _refuse(grid, ~np.isfinite(concrete(own.drift)).all(axis=1), "the drift is not a finite number")
    correlated = _correlated(grid, concrete(own.tensor))
    assemble = tensor_moves if correlated else axis_moves
    moves = assemble(diffusion, grid, own, rule, size)
    _check_rates(grid, moves)
    count = grid.cells.size
    leaving = summed(moves.leaving, moves.exits, count)
    return Jumps(grid, moves.source, moves.target, moves.rates, leaving, diffusion.step, False)


class _Sizes(NamedTuple):
    """What is asked of diffusion tensors.

    Attributes:
        largest: The largest entry, in size.
        lowest: The lowest on the diagonal.
        beside: The largest entry off the diagonal, in size.
        uneven: The largest difference to the transpose.
    """

    largest: Float[Any, " points"]
    lowest: Float[Any, " points"]
    beside: Float[Any, " points"]
    uneven: Float[Any, " points"]


@jax.jit
def _sizes(tensor: Float[Array, "points d d"]) -> _Sizes:
    size, diagonal = jnp.abs(tensor), jnp.eye(tensor.shape[1], dtype=bool)
    return _Sizes(
        jnp.max(size, axis=(1, 2)),
        jnp.min(jnp.where(diagonal, tensor, jnp.inf), axis=(1, 2)),
        jnp.max(jnp.where(diagonal, 0.0, size), axis=(1, 2)),
        jnp.max(jnp.abs(tensor - jnp.swapaxes(tensor, 1, 2)), axis=(1, 2)),
    )


def _correlated(grid: Grid, tensor: Float[np.ndarray, "cells d d"]) -> bool:
    """Whether there are entries off the diagonal, of tensors that are positive semidefinite."""
    sizes = in_chunks(_sizes, (tensor,), tensor[0].size)
    _refuse(grid, ~np.isfinite(sizes.largest), "the covariance is not a finite number")
    _refuse(grid, sizes.uneven > _ASYMMETRY * sizes.largest, "the covariance is not symmetric")
    correlated = bool((sizes.beside > 0).any())
    values = np.linalg.eigvalsh(tensor)[:, 0] if correlated else sizes.lowest
    negative = values < -_ROUNDING * sizes.largest.max()
    if negative.any():
        worst = 2 * values[np.flatnonzero(negative)[0]]
        _refuse(grid, negative, f"the covariance has the eigenvalue {worst:.6g}")
    return correlated


def _check_rates(grid: Grid, moves: Moves) -> None:
    for rates, sources in ((moves.rates, moves.source), (moves.leaving, moves.exits)):
        bad = np.zeros(grid.cells.size, bool)
        bad[sources[~np.isfinite(concrete(rates))]] = True
        _refuse(grid, bad, "drift or covariance is not a finite number on the way to a neighbour")


def _refuse(grid: Grid, cells: np.ndarray, what: str) -> None:
    """InputError that names the first of some cells, if there are any."""
    if not cells.any():
        return
    point: Any = grid.points[grid.cells[np.flatnonzero(cells)[0]]]
    raise InputError(
        f"{what} at the point {[float(f'{x:.6g}') for x in point]} (and at {cells.sum() - 1} other "
        "cells); expected a finite drift and a positive semidefinite covariance on the whole grid: "
        "change the grid, or mask these cells"
    )
