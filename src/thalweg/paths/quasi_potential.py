"""The quasi-potential: the least action of paths from a rest point to anywhere."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg.diffusion import Diffusion
from thalweg.dynamics import AbstractDynamics, Descent
from thalweg.errors import InputError
from thalweg.markov.grid import Grid, Region
from thalweg.paths.attractor import near
from thalweg.paths.hamiltonian import hamiltonian
from thalweg.paths.hopf_lax import hopf_lax
from thalweg.paths.on_line import Line, on_line

# Fewer cells along an axis hold little but those around the rest point.
_FEWEST = 16
# Cubic interpolation half-way between the middle two of four.
_HALFWAY = np.array([-1, 9, 9, -1]) / 16


@dataclass(frozen=True)
class Barrier:
    r"""What it takes to leave a region.

    Attributes:
        exponent: The lowest V on the border of the region; infinite where no noise leads out.
        point: Where on the border, shape (d,); None if nothing leads out.
        error: That of V there, where it was asked for.
    """

    exponent: float
    point: Float[np.ndarray, " d"] | None
    error: float | None = None


@dataclass(frozen=True, eq=False)
class QuasiPotential:
    r"""The quasi-potential :math:`V(x)`, made by :func:`quasi_potential`.

    Attributes:
        grid: The grid.
        start: The rest point, where V is zero, shape (d,).
        values: V at the centres of the cells, of the grid's shape; infinite where no path of finite
            action leads, and outside of a mask.
        error: The difference to half as many cells along each axis, where it was asked for.
    """

    grid: Grid
    start: Float[np.ndarray, " d"]
    values: Float[np.ndarray, "..."]
    error: Float[np.ndarray, "..."] | None = None
    _line: Line | None = field(default=None, repr=False)

    def at(self, point: Any) -> float:
        """V at a point, interpolated.

        On a line linear between edges and centres of cells, where V is known. On a plane to fourth
        order between centres, or linear where a cell around has no path.

        Raises:
            InputError: A point outside of the grid or its mask.
        """
        places, shares = self.grid.shares(np.atleast_1d(np.asarray(point, dtype=float)))
        if self._line is not None:
            return float(self._line.at(np.asarray(point, dtype=float).reshape(())))
        values = self.values.ravel()[places]
        # A share of nothing of an infinite value is nothing.
        rough = float(np.sum(np.where(shares > 0, values, 0.0) * shares))
        smooth = self._cubic(np.asarray(point, dtype=float))
        return smooth if np.isfinite(smooth) else rough

    def barrier(self, region: Region) -> Barrier:
        r"""The exponent of the mean time until a region is left, and where it is left.

        The region's border are the edges between its cells and others, so that on a plane the
        lowest V on it is right to second order in the width of a cell where the border passes
        a saddle; on a line, exact. The mean exit time is :math:`e^{V}` up to factors that
        are not exponential: :func:`thalweg.eyring_kramers` has them for diffusions.

        Args:
            region: What is left, the rest point in it: a predicate on params of shape (d,), or
                truth values of the grid's shape.

        Raises:
            InputError: A region without the cell of the rest point, or one that is all of the grid.
        """
        inside = self.grid.where(region, "region")
        if not inside.ravel()[self._cell_of_start()]:
            raise InputError(
                f"the region does not hold the cell of the rest point {self.start.tolist()}, from "
                "which this quasi-potential is; expected the region that is left from there"
            )
        if not (~inside & self.grid.inside).any():
            raise InputError("the region is all of the grid; expected one that can be left")
        found = [self._lowest(inside, axis) for axis in range(self.grid.dimension)]
        return min(found, key=lambda barrier: barrier.exponent)

    def _cell_of_start(self) -> int:
        places, shares = self.grid.shares(self.start)
        return int(places[np.argmax(shares)])

    def _lowest(self, inside: np.ndarray, axis: int) -> Barrier:
        """The lowest edge across an axis between the inside and the outside."""
        inside = np.moveaxis(inside, axis, 0)
        crossed = inside[1:] != inside[:-1]
        edges = self._on_edges(axis)
        values = np.where(crossed, edges, np.inf)
        least = np.unravel_index(int(np.argmin(values)), values.shape)
        exponent = float(values[least])
        if not np.isfinite(exponent):
            return Barrier(np.inf, None)
        others = [c for k, c in enumerate(self.grid.centres) if k != axis]
        place = [float(c[k]) for c, k in zip(others, least[1:], strict=True)]
        place.insert(axis, float(self.grid.edges[axis][least[0] + 1]))
        error = None
        if self.error is not None:
            errors = np.moveaxis(self.error, axis, 0)
            error = float(max(errors[least], errors[(least[0] + 1, *least[1:])]))
        return Barrier(exponent, np.array(place), error)

    def _on_edges(self, axis: int) -> Float[np.ndarray, "..."]:
        """V on the inner edges across an axis, which is moved to the front."""
        if self._line is not None:
            return self._line.at(self.grid.edges[0][1:-1])
        return _halfway(np.moveaxis(self.values, axis, 0))

    def _cubic(self, point: Float[np.ndarray, " d"]) -> float:
        values = self.values
        for x, centres in zip(point, self.grid.centres, strict=True):
            low = int(np.clip(np.searchsorted(centres, x) - 2, 0, centres.size - 4))
            four = centres[low : low + 4]
            gaps = four[:, None] - four + np.eye(4)
            weights = np.array([np.prod(np.delete((x - four) / gaps[k], k)) for k in range(4)])
            with np.errstate(invalid="ignore"):
                values = np.tensordot(weights, values[low : low + 4], axes=1)
        return float(values)


def quasi_potential(
    dynamics: AbstractDynamics, grid: Grid, at: Any, *, error: bool = False
) -> QuasiPotential:
    r"""The quasi-potential of a rest point on a grid of one or two dimensions.

    .. math:: V(x) = \inf \int \ell(\theta, d\theta)
              = \inf \int \sup_p\,(p \cdot \dot\theta - H(\theta, p))\,dt

    over all paths from the rest point to x in the box, with the Hamiltonian H and the length
    :math:`\ell` of :func:`thalweg.paths.hamiltonian` (Freidlin and Wentzell, chapters 4 to 6). It
    has no unit. For small noise the density near the rest point is :math:`e^{-V}` and the mean exit
    time :math:`e^{V}` with the lowest V on the border, up to factors that are not exponential; for
    a gradient drift and :math:`\Sigma = c I` it is :math:`V = 2 (f - f_{\min})/c` up to the lowest
    saddle, constant downhill from there. Of SGD it is the chain's own (Cramer's H), which the
    diffusion limit's is not: see :func:`thalweg.paths.hamiltonian` for the limit in which it is the
    exponent.

    On a line it is an integral, exact to rounding where coefficients are smooth between the edges
    and centres of cells; other kinks cost first order. On a plane Hopf and Lax's formula is
    iterated on the rings of cells around each cell (:mod:`thalweg.paths.hopf_lax`), from the power
    series of V around the rest point: for smooth coefficients of third to fourth order in the width
    of a cell, beyond saddles of second, and of first along ridges where two paths are equal.

    Args:
        dynamics: :class:`thalweg.Diffusion` or :class:`thalweg.Descent`, as for
            :func:`thalweg.paths.hamiltonian`.
        grid: Of one dimension, or of two with equal cells. Its walls and its mask confine the
            paths, absorbing ones as well.
        at: The rest point, shape (d,), or something with such ``params`` (a critical point). On a
            plane the drift needs a derivative there; on a line it may be a kink.
        error: Whether to estimate the error by the difference to half as many cells.

    Raises:
        InputError: What has no Hamiltonian; a point that is no stable rest point, or where noise
            vanishes in some direction (V is infinite everywhere else then); a grid of three
            dimensions, of unequal cells in two, too coarse around the rest point.

    Cost: on a line ten lengths a cell; on a plane some 50 in each of 5 to 10 rounds: 256 x 256
    cells of a diffusion in 10 s, half of it compilation.
    """
    H = hamiltonian(dynamics)
    start = np.atleast_1d(np.asarray(getattr(at, "params", at), dtype=float))
    _check_grid(grid, start)
    _check_params(dynamics, start)
    line = None
    if grid.dimension == 1:
        line = on_line(H, grid, float(start[0]))
        values = np.where(grid.inside, line.at(grid.centres[0]), np.inf)
    else:
        lengths = np.array([w[0] for w in grid.widths])
        values = hopf_lax(H, grid, near(H, start, lengths))
    found = QuasiPotential(grid, start, values, None, line)
    if not error:
        return found
    coarse = quasi_potential(dynamics, grid.coarser(), start).values
    return replace(found, error=_difference(values, coarse))


def _difference(
    fine: Float[np.ndarray, "..."], coarse: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """To half as many cells, at the centres of these: the same for all cells of one."""
    for axis in range(fine.ndim):
        middles = _halfway(np.moveaxis(fine, axis, 0))[::2]
        fine = np.moveaxis(middles, 0, axis)
    known = np.isfinite(fine) & np.isfinite(coarse)
    error = np.full(coarse.shape, np.inf)
    error[known] = np.abs(fine[known] - coarse[known])
    for axis in range(error.ndim):
        error = np.repeat(error, 2, axis=axis)
    return error


def _halfway(values: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "m ..."]:
    """Between neighbours along the first axis: cubic, or linear where an outer one is missing."""
    linear = (values[1:] + values[:-1]) / 2
    four = np.stack([values[k : len(values) - 3 + k] for k in range(4)])
    known = np.isfinite(four).all(axis=0)
    cubic = np.tensordot(_HALFWAY, np.where(known, four, 0.0), axes=1)
    linear[1:-1] = np.where(known, cubic, linear[1:-1])
    return linear


def _check_grid(grid: Grid, start: Float[np.ndarray, " d"]) -> None:
    d = grid.dimension
    if d > 2:
        raise InputError(
            f"the grid has {d} dimensions; expected one or two: in more, take the least action to "
            "one point, thalweg.minimum_action_path"
        )
    if start.shape != (d,):
        raise InputError(f"at has shape {start.shape}; expected a point of shape ({d},)")
    if not np.isfinite(start).all():
        raise InputError(f"at is {start.tolist()}; expected finite numbers")
    if d == 2 and not grid.uniform:
        raise InputError(
            "the grid has cells of unequal width; expected equal ones in two dimensions"
        )
    if d == 2 and min(grid.shape) < _FEWEST:
        raise InputError(
            f"the grid has {grid.shape} cells; expected at least {_FEWEST} along each axis"
        )
    grid.shares(start)


def _check_params(dynamics: AbstractDynamics, start: Float[np.ndarray, " d"]) -> None:
    theta = jnp.asarray(start)
    if isinstance(dynamics, Descent):
        dynamics.problem.check_params(theta)
    elif isinstance(dynamics, Diffusion):
        dynamics.check_drift(theta)
        dynamics.noise.check(theta, lambda x: x)
