"""Where probability flows: the current of a density, and what passes the border of a region."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.markov.grid import Region
from thalweg.markov.jumps import Jumps


@dataclass(frozen=True, eq=False)
class Flux:
    """What passes the border of a region per unit of time.

    Attributes:
        out: Probability that jumps out of the region, through absorbing sides included.
        into: Probability that jumps into it.
        net: ``out - into``, the rate at which the region loses probability.
        error: Of ``net``, the difference to that on half as many cells along each axis.
    """

    out: float
    into: float
    net: float
    error: float | None = None


def current(jumps: Jumps, density: Any) -> Float[Array, "d ..."]:
    r"""The probability current of a density, per unit of time and of area across.

    With the masses m of the density and the volumes w of the cells

    .. math:: J_i = \frac{1}{2 w_i} \sum_j (m_i r_{ij} - m_j r_{ji}) (x_j - x_i),

    half of each net jump counted at either end. For the generator of a diffusion that is
    :math:`b p - \partial_j (D_{ij} p)` to second order (cells at a reflecting side have the mean of
    that and the nothing beyond); for SGD's own matrix it is the mean displacement where jumps start
    and end. The current of a stationary density is without divergence, and zero if the chain is
    reversible. What leaves through absorbing sides has no direction and is left out.

    Args:
        jumps: The chain; its rates must be numbers.
        density: Of the grid's shape, such as a stationary one.

    Returns:
        Shape (d, *grid.shape), zero outside of the mask.

    Raises:
        InputError: Another shape, negative or infinite values; rates that are being differentiated
            by.
    """
    flows = _flows(jumps, density)
    grid = jumps.grid
    places = grid.points[grid.cells]
    volumes = grid.volumes.ravel()[grid.cells]
    found = np.zeros((grid.dimension, grid.inside.size))
    for axis in range(grid.dimension):
        moved = flows * (places[jumps.target, axis] - places[jumps.source, axis]) / 2
        for ends in (jumps.source, jumps.target):
            total = np.bincount(ends, weights=moved, minlength=jumps.count)
            found[axis, grid.cells] += total / volumes
    return jnp.asarray(found.reshape(-1, *grid.shape))


def flux(jumps: Jumps, density: Any, region: Region) -> Flux:
    r"""The probability that passes the border of a region per unit of time.

    In continuous time the two directions by themselves depend on the grid: paths of a diffusion
    cross a border infinitely often, and the rates of jumps across it grow as cells shrink. Only the
    net flux then has a limit, :math:`\int J \cdot n\,dS`.

    Args:
        jumps: The chain; its rates must be numbers.
        density: Of the grid's shape.
        region: A predicate on params of shape (d,), or an array of truth values.

    Raises:
        InputError: As :func:`current`; a region without cells.
    """
    flows = _flows(jumps, density)
    inside = jumps.grid.region(region)
    starts, ends = inside[jumps.source], inside[jumps.target]
    gone = np.asarray(jumps.leaving) @ np.where(inside, jumps.grid.masses(density), 0.0)
    out = float(flows[starts & ~ends].sum() + gone)
    into = float(flows[ends & ~starts].sum())
    return Flux(out, into, out - into)


def _flows(jumps: Jumps, density: Any) -> Float[np.ndarray, " jumps"]:
    """The probability that jumps per unit of time, of each jump."""
    if jumps.traced:
        raise InputError(
            "the rates are being differentiated by, which a current does not offer; expected "
            "numbers (exit times and stationary averages can be differentiated)"
        )
    return jumps.grid.masses(density)[jumps.source] * np.asarray(jumps.rates)
