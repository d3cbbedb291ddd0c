"""Boxes cut into cells, and densities on them."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from thalweg.errors import InputError, known

BOUNDARIES = ("reflecting", "absorbing")
# A predicate on the params of one cell, or one truth value a cell.
Region = Callable[[Any], Any] | Any

# A row of doubles and indices a cell for every query; a grid beyond this would not be solved.
_CELLS = 50_000_000


class Grid:
    r"""A box in one, two or three dimensions, cut into cells.

    A function on the grid is an array of the grid's ``shape`` with its values at the centres of the
    cells; a density is a function per unit of volume, and the mass of a cell is its value there
    times the cell's volume (the midpoint rule, of second order). Axis k of an array is parameter k.

    Cells outside of a mask are no part of the domain: nothing moves into them, and functions are
    zero there.

    Args:
        lower: The lower corner, a number or shape (d,).
        upper: The upper corner.
        shape: Cells along each axis, a number or shape (d,).
        boundary: "reflecting" (nothing passes) or "absorbing" (what arrives is gone): for all
            sides, or for each axis one of these or a pair for its lower and upper side. The walls
            of a mask reflect.
        mask: Which cells belong to the domain: a predicate on params of shape (d,), or an array of
            the grid's shape; all unless given.

    Raises:
        InputError: Corners that are not finite or in order, another number of dimensions than 1 to
            3, fewer than two cells along an axis, more cells than memory holds, an unknown
            boundary, a mask without cells; 64 bits not enabled in JAX.
    """

    edges: tuple[Float[np.ndarray, " edges"], ...]
    boundary: tuple[tuple[str, str], ...]
    inside: Bool[np.ndarray, "..."]

    def __init__(
        self,
        lower: Any,
        upper: Any,
        shape: Any,
        *,
        boundary: Any = "reflecting",
        mask: Region | None = None,
    ):
        lower, upper = _corner(lower, "lower"), _corner(upper, "upper")
        cells = np.atleast_1d(np.asarray(shape))
        d = max(lower.size, upper.size, cells.size)
        if cells.ndim != 1 or any(x.size not in (1, d) for x in (lower, upper, cells)):
            raise InputError(
                f"lower, upper and shape have {lower.size}, {upper.size} and {cells.size} entries; "
                "expected one for each axis, or one for all"
            )
        if not np.issubdtype(cells.dtype, np.integer) or (cells < 2).any() or not cells.size:
            raise InputError(
                f"shape is {shape!r}; expected whole numbers of cells, at least 2 an axis"
            )
        lower, upper, cells = (np.broadcast_to(x, (d,)) for x in (lower, upper, cells))
        if not (lower < upper).all():
            raise InputError(f"lower {lower.tolist()} is not below upper {upper.tolist()}")
        _check_size(cells)
        edges = [np.linspace(a, b, n + 1) for a, b, n in zip(lower, upper, cells, strict=True)]
        self._fill(edges, boundary, mask)

    @classmethod
    def of_edges(
        cls, *edges: Any, boundary: Any = "reflecting", mask: Region | None = None
    ) -> "Grid":
        """A grid with cells of unequal width: the edges of the cells along each axis, ascending."""
        arrays = [_numbers(e) for e in edges]
        for axis, e in enumerate(arrays):
            if e.ndim != 1 or e.size < 3 or not np.isfinite(e).all() or not (np.diff(e) > 0).all():
                raise InputError(
                    f"the edges of axis {axis} must be at least three finite ascending numbers"
                )
        _check_size(np.array([e.size - 1 for e in arrays], dtype=int))
        self = object.__new__(cls)
        self._fill(arrays, boundary, mask)
        return self

    def _fill(self, edges: Sequence[np.ndarray], boundary: Any, mask: Region | None) -> None:
        if not jax.config.read("jax_enable_x64"):
            raise InputError(
                "grids need 64 bits and JAX has 32; call jax.config.update('jax_enable_x64', True) "
                "at the start of the program"
            )
        self.edges = tuple(edges)
        self.boundary = _sides(boundary, len(edges))
        self._mask = mask
        self.inside = np.ones(self.shape, dtype=bool)
        if mask is not None:
            self.inside = self.where(mask)
        if not self.inside.any():
            raise InputError("the mask leaves no cell of the grid; expected at least one")

    def __repr__(self) -> str:
        corners = [[float(e[0]), float(e[-1])] for e in self.edges]
        return f"Grid({corners}, shape={self.shape}, boundary={self.boundary})"

    @property
    def dimension(self) -> int:
        """The number d of axes."""
        return len(self.edges)

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(e.size - 1 for e in self.edges)

    @cached_property
    def centres(self) -> tuple[Float[np.ndarray, " cells"], ...]:
        """The centres along each axis."""
        return tuple((e[1:] + e[:-1]) / 2 for e in self.edges)

    @cached_property
    def widths(self) -> tuple[Float[np.ndarray, " cells"], ...]:
        """The widths along each axis."""
        return tuple(np.diff(e) for e in self.edges)

    @cached_property
    def uniform(self) -> bool:
        """Whether the cells along each axis are equally wide, to rounding."""
        return all(np.ptp(w) <= 1e-9 * w[0] for w in self.widths)

    @cached_property
    def points(self) -> Float[np.ndarray, "cells d"]:
        """The centres of all cells of the box in the order of ``ravel()``, masked ones included."""
        return np.stack([x.ravel() for x in np.meshgrid(*self.centres, indexing="ij")], axis=-1)

    @cached_property
    def volumes(self) -> Float[np.ndarray, "..."]:
        """The volumes of the cells, of the grid's shape."""
        volume = self.widths[0]
        for w in self.widths[1:]:
            volume = volume[..., None] * w
        return volume

    @cached_property
    def cells(self) -> Int[np.ndarray, " count"]:
        """The cells of the domain, as places in ``ravel()``: the states of a Markov chain."""
        return np.flatnonzero(self.inside.ravel())

    @cached_property
    def numbers(self) -> Int[np.ndarray, "..."]:
        """The place of each cell in ``cells``, of the grid's shape; -1 outside of the mask."""
        numbers = np.full(self.inside.size, -1, dtype=np.int64)
        numbers[self.cells] = np.arange(self.cells.size)
        return numbers.reshape(self.shape)

    def where(self, region: Region, name: str = "mask") -> Bool[np.ndarray, "..."]:
        """The cells of a region as truth values of the grid's shape.

        Args:
            region: A predicate on params of shape (d,), asked at the centres, or an array.
            name: What to call it in an error.

        Raises:
            InputError: A predicate that returns no truth value; an array of another shape.
        """
        array = np.asarray(self._asked(region, name) if callable(region) else region)
        if array.shape != self.shape or array.dtype != bool:
            raise InputError(
                f"the {name} must be one truth value for params of shape ({self.dimension},) or an "
                f"array of them of shape {self.shape}, got {array.dtype} of shape {array.shape}"
            )
        return array

    def function(self, values: Any, name: str = "function") -> Float[Array, "..."]:
        """A function on the grid, zero outside of the mask.

        Args:
            values: A function of params of shape (d,), taken at the centres; or an array of the
                grid's shape.
            name: What to call it in an error.

        Raises:
            InputError: A function that returns no real number; an array of another shape.
        """
        found = self._asked(values, name) if callable(values) else values
        array = found if isinstance(found, jax.Array) else np.asarray(found)
        if array.shape != self.shape or array.dtype.kind not in "iuf":
            raise InputError(
                f"the {name} must be one real number for params of shape ({self.dimension},) or an "
                f"array of them of shape {self.shape}, got {array.dtype} of shape {array.shape}"
            )
        return jnp.where(self.inside, jnp.asarray(array, float), 0.0)

    def _asked(self, function: Callable[[Any], Any], name: str) -> Any:
        """The values of a function at the centres; arrays have the grid's shape in front."""
        try:
            found = jax.vmap(function)(jnp.asarray(self.points))
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"the {name} cannot be asked of params of shape ({self.dimension},): "
                f"{str(error).splitlines()[0]}"
            ) from error
        if not isinstance(found, jax.Array):
            raise InputError(f"the {name} returns a {type(found).__name__}; expected one value")
        return found.reshape(*self.shape, *found.shape[1:])

    def region(self, region: Region, name: str = "region") -> Bool[np.ndarray, " count"]:
        """The states in a region, which must hold at least one: see :meth:`where`."""
        here = self.where(region, name).ravel()[self.cells]
        if not here.any():
            raise InputError(
                f"the {name} holds no cell of the grid (whose cells are about "
                f"{[float(f'{np.median(w):.3g}') for w in self.widths]} wide); "
                "expected at least one: make the grid finer or the region larger"
            )
        return here

    def spread(self, values: Any) -> Float[Array, "..."]:
        """Values of the states, shape (count,), as a function on the grid; zero outside of it."""
        values = jnp.asarray(values)
        if self.cells.size == self.inside.size:
            return values.reshape(self.shape)
        whole = jnp.zeros(self.inside.size, values.dtype).at[self.cells].set(values)
        return whole.reshape(self.shape)

    def gather(self, values: Any) -> Float[Array, " count"]:
        """The inverse of :meth:`spread`."""
        return jnp.asarray(values).reshape(-1)[self.cells]

    def masses(self, density: Any, name: str = "density") -> Float[np.ndarray, " count"]:
        """The masses of a density in the states: its values times the volumes.

        Raises:
            InputError: Another shape, negative or infinite values.
        """
        array = np.asarray(self._fits(density, name), dtype=float)
        if array.ndim != self.dimension:
            raise InputError(f"the {name} has shape {array.shape}; expected one of {self.shape}")
        array = (array * self.volumes).ravel()[self.cells]
        if not np.isfinite(array).all() or (array < 0).any():
            raise InputError(f"the {name} has negative or infinite values; expected none")
        return array

    def integrate(self, values: Any, region: Region | None = None) -> Float[Array, "..."]:
        """The integral over the domain, or over a region: of a density, the probability.

        ``values`` may have leading axes (times, classes), which are kept.

        Raises:
            InputError: Another shape.
        """
        weights = np.where(self.inside, self.volumes, 0.0)
        if region is not None:
            weights = np.where(self.where(region, "region"), weights, 0.0)
        values = jnp.asarray(self._fits(values, "function"), float)
        return jnp.tensordot(values, jnp.asarray(weights), axes=self.dimension)

    def normalise(self, density: Any) -> Float[Array, "..."]:
        """A density of mass one, zero outside of the mask.

        Raises:
            InputError: Another shape, negative or infinite values, no mass.
        """
        masses = self.masses(density)
        total = float(np.sum(masses))
        if not 0 < total < math.inf:
            raise InputError(f"the density has a mass of {total:g} on the grid; expected some")
        return self.spread(masses / total) / self.volumes

    def _fits(self, values: Any, name: str) -> Any:
        """Values whose last axes are the grid's."""
        shape = np.shape(values)
        if shape[-self.dimension :] != self.shape:
            raise InputError(f"the {name} has shape {shape}; expected the grid's {self.shape}")
        return values

    def marginal(self, density: Any, axes: int | Sequence[int]) -> Float[Array, "..."]:
        """The density of some of the parameters: the others are integrated out.

        Args:
            density: A density of the grid's shape.
            axes: The axis or axes to keep, ascending.

        Raises:
            InputError: Another shape; an axis that the grid does not have.
        """
        kept = (axes,) if isinstance(axes, int) else tuple(axes)
        if not set(kept) <= set(range(self.dimension)) or list(kept) != sorted(set(kept)):
            raise InputError(
                f"axes is {axes!r}; expected axes from 0 to {self.dimension - 1} in ascending order"
            )
        mass = jnp.where(self.inside, jnp.asarray(self._fits(density, "density"), float), 0.0)
        for axis in range(self.dimension):
            if axis not in kept:
                shape = [1] * self.dimension
                shape[axis] = -1
                mass = mass * self.widths[axis].reshape(shape)
        return jnp.sum(mass, axis=tuple(a for a in range(self.dimension) if a not in kept))

    def interpolate(self, values: Any, points: Any) -> Float[Array, "..."]:
        """A function on the grid at points: linear between centres, constant beyond the outer ones.

        Near a mask the weights of the cells outside are left out and the others made to sum to one.

        Args:
            values: A function of the grid's shape.
            points: Shape (*points, d); the result has shape (*points).

        Raises:
            InputError: Another shape; a point outside of the box or of the mask.
        """
        index, weights = self.shares(points)
        values = jnp.asarray(self._fits(values, "function"), float)
        return jnp.sum(values.reshape(-1)[index] * weights, axis=-1)

    def delta(self, point: Any) -> Float[Array, "..."]:
        """All mass at a point: shared linearly by the cells around it.

        The mean is the point, unless it lies beyond the outermost centres or next to a mask.

        Raises:
            InputError: A point of another dimension, outside of the box or of the mask.
        """
        place = np.atleast_1d(np.asarray(point, dtype=float))
        if place.shape != (self.dimension,):
            raise InputError(
                f"the point has shape {place.shape}; expected one number for each of the "
                f"{self.dimension} axes"
            )
        index, weights = self.shares(place[None])
        mass = np.zeros(self.inside.size)
        np.add.at(mass, index[0], weights[0])
        return jnp.asarray(mass.reshape(self.shape) / self.volumes)

    def shares(self, points: Any) -> tuple[np.ndarray, np.ndarray]:
        """The cells around points, as places in ``ravel()``, and their shares: (*points, 2^d)."""
        points = np.asarray(points, dtype=float)
        if points.shape[-1:] != (self.dimension,):
            raise InputError(
                f"points have shape {points.shape}; expected a last axis of {self.dimension}"
            )
        lows, fractions = [], []
        for axis, (edges, centres) in enumerate(zip(self.edges, self.centres, strict=True)):
            x = points[..., axis]
            if not ((x >= edges[0]) & (x <= edges[-1])).all():
                raise InputError(
                    f"a point has coordinate {axis} outside of the grid, which goes from "
                    f"{edges[0]:g} to {edges[-1]:g}"
                )
            low = np.clip(np.searchsorted(centres, x) - 1, 0, centres.size - 2)
            fraction = (x - centres[low]) / (centres[low + 1] - centres[low])
            lows.append(low)
            fractions.append(np.clip(fraction, 0.0, 1.0))
        index, weights = [], []
        for corner in itertools.product((0, 1), repeat=self.dimension):
            at = [low + up for low, up in zip(lows, corner, strict=True)]
            part = [f if up else 1 - f for f, up in zip(fractions, corner, strict=True)]
            index.append(np.ravel_multi_index(at, self.shape))
            weights.append(math.prod(part[1:], start=part[0]))
        places, shares = np.stack(index, -1), np.stack(weights, -1)
        shares = np.where(self.inside.ravel()[places], shares, 0.0)
        total = shares.sum(-1, keepdims=True)
        if not (total > 0).all():
            raise InputError("a point lies outside of the mask; expected points of the domain")
        return places, shares / total

    def coarser(self) -> "Grid":
        """The grid of half as many cells along each axis, for estimates of the error.

        Raises:
            InputError: An odd number of cells along an axis; a mask given as an array.
        """
        if any(n % 2 or n < 4 for n in self.shape):
            raise InputError(
                f"a grid of shape {self.shape} has no half; an error estimate needs an even number "
                "of cells, at least 4, along each axis"
            )
        if self._mask is not None and not callable(self._mask):
            raise InputError(
                "a mask given as an array has no coarser version; give it as a function of params "
                "for an error estimate"
            )
        return Grid.of_edges(*(e[::2] for e in self.edges), boundary=self.boundary, mask=self._mask)


def _numbers(value: Any) -> Float[np.ndarray, "..."]:
    """An array of numbers, or not a number."""
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return np.array([np.nan])


def _corner(value: Any, name: str) -> Float[np.ndarray, " d"]:
    corner = np.atleast_1d(_numbers(value))
    if corner.ndim != 1 or not np.isfinite(corner).all():
        raise InputError(f"{name} is {value!r}; expected finite numbers, one for each axis")
    return corner


def _check_size(cells: Int[np.ndarray, " d"]) -> None:
    if not 1 <= len(cells) <= 3:
        raise InputError(f"the grid has {len(cells)} dimensions; expected 1 to 3 (simulate beyond)")
    count = math.prod(int(n) for n in cells)
    if count > _CELLS:
        raise InputError(
            f"a grid of {' x '.join(str(n) for n in cells)} has {count:.3g} cells; at some 200 "
            f"bytes a cell that is {count * 200 / 2**30:.0f} GiB. Expected at most {_CELLS:.0e}"
        )


def _sides(boundary: Any, dimension: int) -> tuple[tuple[str, str], ...]:
    axes = [boundary] * dimension if isinstance(boundary, str) else boundary
    if not isinstance(axes, Sequence) or len(axes) != dimension:
        raise InputError(
            f"boundary is {boundary!r}; expected a word, or for each of the {dimension} axes a "
            "word or a pair of words"
        )
    pairs = [(b, b) if isinstance(b, str) else b for b in axes]
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"boundary of an axis is {pair!r}; expected a word or a pair of words")
        for side in pair:
            known(str(side), BOUNDARIES, "boundary")
    return tuple((low, high) for low, high in pairs)
