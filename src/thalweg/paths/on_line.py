"""The quasi-potential on a line, by quadrature."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.markov.chunks import in_chunks, width
from thalweg.markov.grid import Grid
from thalweg.paths.attractor import unstable
from thalweg.paths.hamiltonian import AbstractHamiltonian

# Places nearer than this share of a cell are one.
_CLOSE = 1e-9
# Gauss's rule in every half of a cell: exact for polynomials of degree nine.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(5)


class Line(NamedTuple):
    """A function at the edges and the centres of cells and at the rest point.

    Attributes:
        places: Where, ascending.
        values: The values.
    """

    places: Float[np.ndarray, " places"]
    values: Float[np.ndarray, " places"]

    def at(self, x: Float[np.ndarray, "*points"]) -> Float[np.ndarray, "*points"]:
        """The values at places that are among these exactly, linear between."""
        high = np.clip(np.searchsorted(self.places, x), 1, len(self.places) - 1)
        low = high - 1
        share = (x - self.places[low]) / (self.places[high] - self.places[low])
        # A share of nothing of an infinite value is nothing.
        parts = ((low, 1 - share), (high, share))
        return np.asarray(sum(np.where(w > 0, self.values[k], 0.0) * w for k, w in parts))


def on_line(H: AbstractHamiltonian, grid: Grid, start: float) -> Line:
    r"""The integral :math:`V(x) = \int_{x_0}^x \ell(y, \pm 1)\,dy` of the length from a rest point.

    By Gauss's rule of five points in every half of a cell: kinks and jumps cost nothing at edges
    and centres, and elsewhere an error of the order of a cell's width. Where a length is infinite
    at an edge or a centre, everything beyond is.

    Raises:
        InputError: Drift that does not return to the rest point from both sides, no noise there, or
            coefficients that are not finite.
    """
    edges, centres = grid.edges[0], grid.centres[0]
    # An edge that differs from the rest point by rounding is the rest point.
    known = np.concatenate([edges, centres])
    apart = np.abs(known - start) > _CLOSE * float(np.diff(edges).min())
    places = np.unique(np.append(known[apart], start))
    low, high = places[:-1, None], places[1:, None]
    points = (low + high) / 2 + (high - low) / 2 * _POINTS
    nodes = np.concatenate([points, places[1:, None], places[:-1, None]], axis=1)
    away = np.where(low >= start, 1.0, -1.0)
    cell = np.clip(np.searchsorted(edges, points[:, 0]) - 1, 0, centres.size - 1)
    drift, lengths = _over(H, nodes, np.broadcast_to(away, nodes.shape))
    lengths = np.where(grid.inside[cell][:, None], lengths, np.inf)
    first = int(np.searchsorted(places, start))
    _check_return(start, places, first, drift, points)
    if np.isnan(lengths).any():
        place = float(nodes[np.isnan(lengths)][0])
        raise InputError(
            f"drift or noise at {place:.6g} is not finite; expected numbers on the whole grid, so "
            "take a smaller box, or leave these cells out by a mask"
        )
    pieces = lengths[:, :-2] @ _WEIGHTS * (high - low)[:, 0] / 2
    pieces[[first - 1, first]] += _obstacles(H, start, float(np.diff(places).max()))
    return Line(places, _summed(pieces, lengths[:, -2:], away[:, 0] > 0, first))


def _obstacles(H: AbstractHamiltonian, start: float, cell: float) -> Float[np.ndarray, " 2"]:
    r"""Infinity on a side of the rest point on which the integral of the length diverges.

    Where noise vanishes there like :math:`x^2`, as at an interpolating minimum, the length is like
    1/x: ten thousand times smaller x do not make the product with x smaller.

    Raises:
        InputError: It diverges on both sides.
    """
    away = np.array([[-1.0], [1.0]])
    distances = cell * np.array([1e-3, 1e-7])
    _, lengths = _over(H, start + away * distances, np.broadcast_to(away, (2, 2)))
    wide, close = (lengths * distances).T
    shut = (close > 0) & (close >= wide / 10)
    if shut.all():
        raise InputError(
            f"the noise vanishes at the rest point {start:.6g}: no path of finite action leaves "
            "it, and the quasi-potential is infinite everywhere else; expected noise there"
        )
    return np.where(shut, np.inf, 0.0)


def _summed(
    pieces: Float[np.ndarray, " pieces"],
    ends: Float[np.ndarray, "pieces 2"],
    rising: np.ndarray,
    first: int,
) -> Float[np.ndarray, " places"]:
    """Sums of pieces outwards from a place; nothing passes an infinite end but what is free."""
    near = np.where(rising, ends[:, 1], ends[:, 0])
    far = np.where(rising, ends[:, 0], ends[:, 1])
    near[first : first + 1] = near[first - 1 : first] = 0.0
    shut = np.isinf(near) | (np.isinf(far) & (pieces > 0))
    pieces = np.where(shut, np.inf, pieces)
    up, down = np.cumsum(pieces[first:]), np.cumsum(pieces[:first][::-1])[::-1]
    return np.concatenate([down, [0.0], up])


def _check_return(
    start: float,
    places: Float[np.ndarray, " places"],
    first: int,
    drift: Float[np.ndarray, "pieces nodes"],
    points: Float[np.ndarray, "pieces points"],
) -> None:
    """Raise InputError unless the drift on both sides points back."""
    left = drift[first - 1, len(_POINTS) - 1] if first > 0 else np.inf
    right = drift[first, 0] if first < len(places) - 1 else -np.inf
    if not left > 0 > right:
        reason = (
            f"the drift beside it, at {points[max(first - 1, 0), -1]:.6g} and "
            f"{points[min(first, len(points) - 1), 0]:.6g}, does not lead back"
        )
        raise unstable(np.array([start]), np.array([left, right]), reason)


def _over(
    H: AbstractHamiltonian,
    points: Float[np.ndarray, "n m"],
    directions: Float[np.ndarray, "n m"],
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Drift and length, a piece at a time."""
    number = width(H.length, jnp.zeros(1), jnp.ones(1))
    rows = points.reshape(-1, 1), directions.reshape(-1, 1)
    drift, lengths = in_chunks(partial(_seen, H), rows, number)
    return drift.reshape(points.shape), lengths.reshape(points.shape)


@eqx.filter_jit
def _seen(
    H: AbstractHamiltonian, points: Float[Array, "points 1"], directions: Float[Array, "points 1"]
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """Drift and length."""
    return jax.vmap(H.drift)(points)[:, 0], jax.vmap(H.length)(points, directions)
