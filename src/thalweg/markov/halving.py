"""The difference between an answer and the one on half as many cells along each axis."""

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from thalweg.errors import InputError
from thalweg.markov.grid import Grid

Answer = TypeVar("Answer", bound=Any)


def halved(grid: Grid, density: Any) -> Float[np.ndarray, "..."]:
    """The density on the coarser grid: the masses of 2^d cells are added."""
    coarse = grid.coarser()
    mass = np.where(grid.inside, np.asarray(density) * grid.volumes, 0.0)
    for axis, count in enumerate(coarse.shape):
        parts = mass.reshape(*mass.shape[:axis], count, 2, *mass.shape[axis + 1 :])
        mass = parts.sum(axis=axis + 1)
    return mass / coarse.volumes


def of_law(fine: Answer, coarse: Answer) -> Answer:
    """A result with ``grid`` and one ``density``: total variation."""
    return replace(fine, error=_variation(fine.grid, fine.density, coarse.density))


def of_laws(fine: Answer, coarse: Answer) -> Answer:
    """A result with ``grid`` and ``densities``: total variation of each."""
    pairs = zip(fine.densities, coarse.densities, strict=True)
    return replace(fine, error=np.array([_variation(fine.grid, *pair) for pair in pairs]))


def of_function(fine: Answer, coarse: Answer, name: str) -> Answer:
    """A result with ``grid`` and a function on it: absolute difference, infinite where one is."""
    grid, values = fine.grid, np.asarray(getattr(fine, name)).ravel()[fine.grid.cells]
    places, shares = coarse.grid.shares(grid.points[grid.cells])
    others = np.asarray(getattr(coarse, name)).ravel()[places]
    # A share of nothing of an infinite value is nothing.
    other = np.sum(np.where(shares > 0, others, 0.0) * shares, axis=-1)
    known = np.isfinite(values) & np.isfinite(other)
    error = np.full(values.shape, np.inf)
    error[known] = np.abs(values[known] - other[known])
    return replace(fine, error=np.asarray(grid.spread(error)))


def of_numbers(fine: Answer, coarse: Answer, name: str) -> Answer:
    """A result with a number or several: absolute difference."""
    values, other = np.asarray(getattr(fine, name)), np.asarray(getattr(coarse, name))
    if values.shape != other.shape:
        raise InputError(
            f"the coarser grid has {other.size} numbers and this one {values.size}; ask for fewer "
            "modes, or make the grid finer"
        )
    return replace(fine, error=np.abs(values - other))


def _variation(grid: Grid, fine: Any, coarse: Any) -> float:
    difference = halved(grid, fine) - np.asarray(coarse)
    return float(np.sum(np.abs(difference) * grid.coarser().volumes) / 2)
