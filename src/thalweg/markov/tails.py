"""What a grid cuts off from a law that goes on beyond it."""

import warnings

import numpy as np
from jaxtyping import Float

from thalweg.errors import InputError
from thalweg.markov.grid import Grid

# The outer part of the way from the centre to a side, and the least number of layers in it.
_OUTER, _LAYERS = 0.85, 3
# Mass beyond the sides that is warned of, and mass near one that is looked at.
_CUT = 1e-3
# A slope that does not differ from that of a logarithmic divergence.
_FLAT = -0.02


def check_tails(grid: Grid, density: Float[np.ndarray, "..."]) -> None:
    r"""Whether a law that is known on a grid would go on beyond its reflecting sides.

    Seen from its mean, the box is scaled by factors t, and w(t) is the mass for each unit of log t
    of the layers towards a side (those cells for which this side is the nearest in the scaled
    sense). A density that falls like :math:`r^{-s}` has :math:`w \sim t^{d - s}`, and
    :math:`w(1)/(s - d)` of mass beyond the side if s > d. Over the last 15% of the way, at least
    three layers, a line is fitted to log w against log t; a density that falls faster than a power
    has less beyond than that.

    Sides with w(1) of less than a thousandth are not looked at.

    Raises:
        InputError: The law has no integral on a growing domain, :math:`s \le d`.

    Warns:
        UserWarning: More than a thousandth of the law is beyond the grid.
    """
    mass = np.where(grid.inside, density * grid.volumes, 0.0)
    mass = mass / mass.sum()
    centre = [
        float(np.sum(mass.sum(axis=_others(grid, axis)) * x)) for axis, x in enumerate(grid.centres)
    ]
    beyond = 0.0
    for axis in range(grid.dimension):
        for upper in (False, True):
            if grid.boundary[axis][upper] != "reflecting":
                continue
            weight, slope = _edge(grid, mass, centre, axis, upper)
            if weight <= _CUT:
                continue
            if slope >= _FLAT:
                raise InputError(_no_integral(grid.dimension, slope, axis, upper))
            beyond += weight / -slope
    if beyond > _CUT:
        warnings.warn(
            f"the grid cuts off about {beyond:.2g} of the stationary law, by the way its density "
            "falls towards the sides; make the grid larger, or pass check=False if the walls "
            "belong to the model",
            stacklevel=3,
        )


def _no_integral(dimension: int, slope: float, axis: int, upper: bool) -> str:
    power = slope - dimension
    falls = f"falls only like r^{power:.2g}" if power < 0 else "does not fall"
    return (
        f"towards the {('lower', 'upper')[upper]} side of axis {axis} the density {falls} (r: "
        f"distance from the mean), which has no integral in {dimension} "
        f"dimension{'s' * (dimension > 1)}: on all of space there is no stationary law, or the "
        "grid ends amid its mass. Expected a larger grid, or check=False if the walls belong to "
        "the model"
    )


def _others(grid: Grid, axis: int) -> tuple[int, ...]:
    return tuple(k for k in range(grid.dimension) if k != axis)


def _edge(
    grid: Grid, mass: Float[np.ndarray, "..."], centre: list[float], axis: int, upper: bool
) -> tuple[float, float]:
    """w(1) towards a side and the slope of log w against log t there."""
    layers = (mass * _shares(grid, centre, axis, upper)).sum(axis=_others(grid, axis))
    edges = _way(grid, grid.edges[axis], centre, axis, upper)
    if not upper:
        edges, layers = edges[::-1], layers[::-1]
    first = min(np.searchsorted(edges, _OUTER), edges.size - 1 - _LAYERS)
    first = max(first, np.searchsorted(edges, 0.0, side="right"))
    edges, layers = edges[first:], layers[first:]
    if layers.size < 2:  # the mean is next to the side
        return float(layers.sum()) if layers.size else 1.0, np.inf
    if layers.min() <= np.finfo(float).tiny:
        return 0.0, -np.inf  # nothing gets there
    weights = layers / np.diff(np.log(edges))
    middles = (np.log(edges[1:]) + np.log(edges[:-1])) / 2
    slope, level = np.polyfit(middles, np.log(weights), 1)
    return float(np.exp(level)), float(slope)


def _way(
    grid: Grid, places: Float[np.ndarray, " places"], centre: list[float], axis: int, upper: bool
) -> Float[np.ndarray, " places"]:
    """Distances from the centre towards a side, as shares of the whole way."""
    end = grid.edges[axis][-1 if upper else 0]
    return (places - centre[axis]) / (end - centre[axis])


def _shares(grid: Grid, centre: list[float], axis: int, upper: bool) -> Float[np.ndarray, "..."]:
    """The share of each cell that is nearer to a side than to all others, in the scaled sense."""
    ways, spans = [], []
    for k, places in enumerate(grid.centres):
        shape = [1] * grid.dimension
        shape[k] = -1
        both = [_way(grid, places, centre, k, up) for up in (False, True)]
        ways.append((both[upper] if k == axis else np.maximum(*both)).reshape(shape))
        reach = np.where(
            places < centre[k], centre[k] - grid.edges[k][0], grid.edges[k][-1] - centre[k]
        )
        spans.append((grid.widths[k] / reach).reshape(shape))
    share = np.ones(grid.shape)
    for k in _others(grid, axis):
        ahead = (ways[axis] - ways[k]) / (spans[axis] + spans[k])
        share = share * np.clip(ahead + 0.5, 0.0, 1.0)
    return share
