"""Chains on grids built by plain NumPy, and their dense answers; for tests."""

import numpy as np

from thalweg.markov.grid import Grid
from thalweg.markov.jumps import Jumps


def bernoulli(z):
    """z / (e^z - 1)."""
    small = np.abs(z) < 1e-8
    return np.where(small, 1 - z / 2, z / np.expm1(np.where(small, 1.0, z)))


def gibbs_chain(grid, potential, temperature=1.0, circulation=0.0, step=0.01):
    """Scharfetter and Gummel's rates for noise sqrt(2 T) in a potential, in continuous time.

    ``circulation`` adds upwind rates of the drift c (y, -x): no detailed balance any more.
    """
    numbers, heights = grid.numbers, potential(grid.points).reshape(grid.shape) / temperature
    source, target, rates = [], [], []
    leaving = np.zeros(grid.cells.size)
    for axis, count in enumerate(grid.shape):
        widths = grid.widths[axis].reshape([-1 if k == axis else 1 for k in range(grid.dimension)])
        low, high = (np.arange(count - 1), np.arange(1, count))
        near, far = (np.take(numbers, k, axis).ravel() for k in (low, high))
        rise = np.take(heights, high, axis) - np.take(heights, low, axis)
        distance = (np.take(widths, low, axis) + np.take(widths, high, axis)) / 2
        up = temperature * bernoulli(rise) / distance / np.take(widths, low, axis)
        down = temperature * bernoulli(-rise) / distance / np.take(widths, high, axis)
        here = (near >= 0) & (far >= 0)
        source += [near[here], far[here]]
        target += [far[here], near[here]]
        rates += [up.ravel()[here], down.ravel()[here]]
        for side, end in ((0, 0), (1, count - 1)):
            if grid.boundary[axis][side] == "absorbing":
                cells = np.take(numbers, end, axis).ravel()
                leaving[cells[cells >= 0]] += 2 * temperature / widths.ravel()[end] ** 2
    source, target, rates = (np.concatenate(x) for x in (source, target, rates))
    if circulation:
        points = grid.points[grid.cells]
        way, middle = points[target] - points[source], (points[target] + points[source]) / 2
        drift = circulation * np.stack([middle[:, 1], -middle[:, 0]], axis=1)
        length = np.abs(way).sum(axis=1)
        rates = rates + np.maximum((drift * way).sum(axis=1), 0) / length**2
    return Jumps(
        grid, source.astype(np.int32), target.astype(np.int32), rates, leaving, step, False
    )


def random_chain(count, seed=0, *, density=0.3, leaving=True, discrete=False, spread=1.0):
    """A chain without detailed balance on a line of cells, with jumps from any to any."""
    rng = np.random.default_rng(seed)
    matrix = rng.uniform(size=(count, count)) * (rng.uniform(size=(count, count)) < density)
    matrix *= np.exp(spread * rng.normal(size=(count, count)))
    matrix[np.arange(count), (np.arange(count) + 1) % count] += 0.1  # all are reached from all
    np.fill_diagonal(matrix, 0.0)
    out = 0.05 * rng.uniform(size=count) if leaving else np.zeros(count)
    step = 0.5
    if discrete:
        scale = 1.1 * (matrix.sum(axis=1) + out).max() * step
        matrix, out = matrix / scale, out / scale
    return of_matrix(Grid(0.0, 1.0, count), matrix, out, step=step, discrete=discrete)


def of_matrix(grid, matrix, leaving=None, *, step=1.0, discrete=False):
    """The chain with the rates of a dense matrix."""
    matrix = np.asarray(matrix, float)
    source, target = np.nonzero(matrix)
    out = np.zeros(len(matrix)) if leaving is None else np.asarray(leaving, float)
    return Jumps(
        grid,
        source.astype(np.int32),
        target.astype(np.int32),
        matrix[source, target],
        out,
        step,
        discrete,
    )


def dense(jumps):
    """The matrix A."""
    return jumps.matrix().toarray()


def double_well(points):
    """(x^2 - 1)^2 + .3 x, and 2 y^2 and 2 z^2 on further axes: the first axis is on its own."""
    x = points[:, 0]
    return np.square(np.square(x) - 1) + 0.3 * x + 2 * np.square(points[:, 1:]).sum(axis=1)


def line_exit_times(rates_up, rates_down, cells):
    """Mean times to pass the last of some cells of a line, whose lower end reflects.

    Sums of positive numbers: h_k, the time from k to k + 1, is (1 + d_k h_{k-1}) / u_k.
    """
    passing = np.zeros(cells)
    for k in range(cells):
        below = rates_down[k - 1] * passing[k - 1] if k else 0.0
        passing[k] = (1 + below) / rates_up[k]
    return np.cumsum(passing[::-1])[::-1]
