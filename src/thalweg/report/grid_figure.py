"""Figure of a density on a plane grid, with the probability current as arrows."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thalweg.errors import InputError
from thalweg.markov import Grid
from thalweg.report.style import Drawing

# Arrows along each axis, and the share of the largest density down to which the plane is shown.
_ARROWS = 15
_FAINT = 1e-3
_LEVELS = np.array([0.01, 0.1, 0.3, 0.5, 0.7, 0.9])


def grid_figure(grid: Grid, density: Any, *, current: Any = None, name: str = "density") -> Drawing:
    """A density on a grid of two dimensions, as shades and contours, and a current as arrows.

    Args:
        grid: The grid, of equally wide cells.
        density: Of the grid's shape.
        current: Of shape (2, *grid.shape), as ``MarkovGrid.current`` returns it.
        name: Of the file.

    Returns:
        The drawing; ``drawing.render()`` gives the SVG.

    Raises:
        InputError: A grid of another dimension or with unequal cells.
    """
    if grid.dimension != 2 or not grid.uniform:
        raise InputError(
            f"{grid} is drawn as a plane of equal cells; expected two dimensions and a uniform "
            "grid (take grid.marginal, or interpolate)"
        )
    p = np.asarray(density)
    seen = _seen(p)
    caption = "Density" + (" and probability current (arrows)." if current is not None else ".")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        (left, right), (bottom, top) = (e[[0, -1]] for e in grid.edges)
        axes.imshow(
            p.T, cmap="Greys", extent=(left, right, bottom, top), origin="lower", vmax=1.4 * p.max()
        )
        axes.contour(*grid.centres, p.T, levels=p.max() * _LEVELS, colors="#8a8a8a", linewidths=0.4)
        if current is not None:
            _arrows(axes, grid, seen, np.asarray(current))
        (left, right), (bottom, top) = _corners(grid, seen)
        axes.set(xlabel="θ₁", ylabel="θ₂", xlim=(left, right), ylim=(bottom, top))

    width, height = (float(np.ptp(ends)) for ends in _corners(grid, seen))
    return Drawing(name, caption, 10 + min(120.0, 75 * height / width), draw)


def _seen(p: Float[np.ndarray, "n m"]) -> tuple[slice, slice]:
    """The rows and columns with some density."""
    shown = p > _FAINT * p.max()
    ranges = (np.flatnonzero(shown.any(axis=1 - axis)) for axis in range(2))
    first, second = (slice(int(r[0]), int(r[-1]) + 1) for r in ranges)
    return first, second


def _corners(grid: Grid, seen: tuple[slice, slice]) -> list[tuple[float, float]]:
    return [
        (float(e[part.start]), float(e[part.stop]))
        for e, part in zip(grid.edges, seen, strict=True)
    ]


def _arrows(
    axes: Axes, grid: Grid, seen: tuple[slice, slice], current: Float[np.ndarray, "2 n m"]
) -> None:
    picks = [np.linspace(s.start, s.stop - 1, _ARROWS + 2).astype(int)[1:-1] for s in seen]
    i, j = np.meshgrid(*picks, indexing="ij")
    x, y = grid.centres
    axes.quiver(
        x[i], y[j], *(part[i, j] for part in current), color="#D55E00", width=0.004, pivot="mid"
    )
