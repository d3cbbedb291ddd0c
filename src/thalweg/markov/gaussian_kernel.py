r"""Masses of normal laws in the cells of a grid.

A normal law in several dimensions is taken apart axis by axis. Along the first axis the mass of
each strip between two edges is a difference of the normal distribution function. Given the strip,
the other coordinates are taken as normal with their exact conditional mean and covariance; that is
exact for a normal law given a point, and given a strip of width h wrong in its third moments only:
masses are of second order in h, means and covariances (but for the place inside a cell) exact.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr

# Standard deviations beyond which a cell gets nothing: a mass of 1e-15 in all.
CUT = 8.0


def unbinned(
    covariance: Float[np.ndarray, "points d d"], widths: Float[np.ndarray, "points d"]
) -> tuple[Float[np.ndarray, "points d d"], Float[np.ndarray, " points"]]:
    r"""The covariance less :math:`h_k^2/12` along each axis, what cells of width h add to it.

    Sheppard's correction: the masses of the cells at their centres then have the covariance given,
    up to :math:`e^{-2\pi^2\sigma^2/h^2}`. Where the variance is below :math:`h^2/6` in some
    direction less is taken off, half of it at most.

    Returns:
        The covariances, and the least standard deviations over all directions, in cells.
    """
    binning = widths / np.sqrt(12)
    scaled = covariance / (binning[:, :, None] * binning[:, None, :])
    least = np.maximum(np.linalg.eigvalsh(scaled)[:, 0], 0)
    part = np.minimum(least / 2, 1)[:, None] * binning**2
    return covariance - part[:, None, :] * np.eye(binning.shape[1]), np.sqrt(least / 12)


def windows(
    mean: Float[np.ndarray, "states points d"],
    covariance: Float[np.ndarray, "states points d d"],
    edges: tuple[Float[np.ndarray, " _"], ...],
) -> tuple[Int[np.ndarray, "states d"], Int[np.ndarray, "states d"]]:
    """First cell and number of cells within eight standard deviations, for all points of a state.

    Cells are counted along each axis, from ``edges`` whose first and last are infinite. Numbers
    are rounded up to 1, 2, 3, 4, 6, 8, 12, ..., for which there may be too few cells.
    """
    reach = CUT * np.sqrt(np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0))
    lower, upper = (mean - reach).min(axis=1), (mean + reach).max(axis=1)
    pairs = []
    for axis, e in enumerate(edges):
        first = np.searchsorted(e[1:-1], lower[:, axis], side="right")
        last = np.searchsorted(e[1:-1], upper[:, axis], side="right")
        pairs.append((first, _rounded(last - first + 1)))
    return np.stack([p[0] for p in pairs], -1), np.stack([p[1] for p in pairs], -1)


def _rounded(count: Int[np.ndarray, " states"]) -> Int[np.ndarray, " states"]:
    power = 2 ** np.ceil(np.log2(count)).astype(int)
    return np.where(count <= power // 4 * 3, power // 4 * 3, power)


def cell_masses(
    mean: Float[np.ndarray, "*laws d"],
    covariance: Float[np.ndarray, "*laws d d"],
    edges: tuple[Float[np.ndarray, "... _"], ...],
) -> Float[np.ndarray, "..."]:
    """Masses of normal laws in boxes: shape (*laws, boxes along axis 0, axis 1, ...).

    Args:
        mean: The means.
        covariance: The covariances, positive semidefinite; a coordinate without variance has all
            its mass in the box that holds it.
        edges: For each axis the edges of the boxes, ascending, shape broadcast with (*laws, edges).

    Relative accuracy in the tails: differences are taken on the side where numbers are small.

    Cost: one value of the distribution function a box, 40 ns in all.
    """
    spread = np.sqrt(np.maximum(covariance[..., 0, 0], 0))[..., None]
    away = edges[0] - mean[..., :1]
    certain = np.where(away > 0, np.inf, -np.inf)
    z = np.divide(away, spread, out=certain, where=spread > 0)
    share = _between(z)
    if mean.shape[-1] == 1:
        return share
    centre, left = _inside(z, share)
    slope = np.divide(
        covariance[..., 1:, 0], spread, where=spread > 0, out=np.zeros_like(mean[..., 1:])
    )
    rest = mean[..., None, 1:] + centre[..., None] * slope[..., None, :]
    # What knowing the strip, not the point, takes away of the covariance.
    pairs = slope[..., None, :, None] * slope[..., None, None, :]
    remaining = covariance[..., None, 1:, 1:] - (1 - left)[..., None, None] * pairs
    inner = cell_masses(rest, remaining, tuple(e[..., None, :] for e in edges[1:]))
    return share.reshape(share.shape + (1,) * (len(edges) - 1)) * inner


def _between(z: Float[np.ndarray, "*laws edges"]) -> Float[np.ndarray, "*laws boxes"]:
    """Masses of the standard normal law between edges, none beyond the cut."""
    tail = ndtr(-np.abs(z))
    a, b = z[..., :-1], z[..., 1:]
    share = np.abs(np.diff(tail, axis=-1))
    across = (a < 0) & (b > 0)
    share[across] = 1 - (tail[..., :-1] + tail[..., 1:])[across]
    share[(a >= CUT) | (b <= -CUT)] = 0
    return share


def _inside(
    z: Float[np.ndarray, "*laws edges"], share: Float[np.ndarray, "*laws boxes"]
) -> tuple[Float[np.ndarray, "*laws boxes"], Float[np.ndarray, "*laws boxes"]]:
    """Mean and variance of a standard normal variable between two edges."""
    finite = np.where(np.isfinite(z), z, 0)
    height = np.where(np.isfinite(z), np.exp(-0.5 * finite * finite), 0) / np.sqrt(2 * np.pi)
    some, none = share > 0, np.zeros_like(share)
    mean = -np.divide(np.diff(height, axis=-1), share, out=none, where=some)
    mean = np.where(some, np.clip(mean, z[..., :-1], z[..., 1:]), 0)
    weighted = -np.diff(finite * height, axis=-1)
    variance = 1 + np.divide(weighted, share, out=none, where=some) - mean * mean
    # Rounding aside it is positive and not above that of an even law between the edges.
    width = np.where(some, z[..., 1:], 0) - np.where(some, z[..., :-1], 0)
    return mean, np.where(some, np.clip(variance, 0, np.minimum(1, width * width / 12)), 0)
