"""Figure of the stationary laws: of SGD itself and of its diffusion limit, over the landscape."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from thalweg.report.style import Drawing, colour, numbers

# Densities are shown down to this share of their largest value.
_SHOWN = 1e-4
_ROUTES = ("sgd", "diffusion")
Row = Mapping[str, Any]


def stationary_figure(result: Mapping[str, Any]) -> Drawing | None:
    """One panel a sampler, None if no sampler has a stationary law on the grid."""
    rows = [row for row in result["rows"] if _densities(row)]
    if not rows:
        return None
    return _ON_SURFACE[result["surface"]["kind"]](result, rows)


def _densities(row: Row) -> dict[str, Float[np.ndarray, "..."]]:
    grid = row.get("grid") or {}
    return {
        name: numbers(grid[name]["stationary"])
        for name in _ROUTES
        if name in grid and grid[name]["stationary"] is not None
    }


def _on_line(result: Mapping[str, Any], rows: list[Row]) -> Drawing:
    caption = (
        "Where each sampler is in the end: the stationary density of its transition matrix on the "
        "grid (filled), and of its diffusion limit (dashed), on a logarithmic scale; grey: the "
        "landscape f."
    )

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
        for axes, row in zip(panels, rows, strict=True):
            _line_panel(axes, row, result["surface"])
        panels[-1].set_xlabel("θ")
        figure.supylabel("stationary density", fontsize=7)

    return Drawing("stationary", caption, 12 + 22 * len(rows), draw)


def _line_panel(axes: Axes, row: Row, surface: Mapping[str, Any]) -> None:
    densities, x = _densities(row), numbers(surface["x"])
    top = max(density.max() for density in densities.values())
    low = _SHOWN * top
    places = np.linspace(x[0], x[-1], len(next(iter(densities.values()))))
    if "sgd" in densities:
        axes.fill_between(
            places, low, np.maximum(densities["sgd"], low), color=colour(row["family"]), alpha=0.4
        )
    if "diffusion" in densities:
        axes.plot(
            places,
            np.maximum(densities["diffusion"], low),
            color=colour(row["family"]),
            linestyle=(0, (3, 1.5)),
        )
    axes.set(yscale="log", ylim=(low, 2 * top), xlim=(x[0], x[-1]))
    axes.set_title(row["label"], loc="left", pad=2)
    below = axes.twinx()
    below.plot(x, numbers(surface["f"]), color="#999999", linewidth=0.7)
    below.set_axis_off()


def _on_plane(result: Mapping[str, Any], rows: list[Row]) -> Drawing:
    caption = (
        "Where each sampler is in the end: the stationary density of its transition matrix on the "
        "grid (left) and of its diffusion limit (right), by colour down to "
        f"{_SHOWN:g} of its largest value, on the contours of f. Circles: minima; none: what is "
        "left in the end lies at the walls of the grid, or in several places for good."
    )

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(rows), 2, sharex=True, sharey=True, squeeze=False)
        for pair, row in zip(panels, rows, strict=True):
            for axes, name in zip(pair, _ROUTES, strict=True):
                _plane_panel(axes, row, name, result)
        figure.supxlabel(result["surface"]["x_label"], fontsize=7)
        figure.supylabel(result["surface"]["y_label"], fontsize=7)

    return Drawing("stationary", caption, 8 + 38 * len(rows), draw)


def _plane_panel(axes: Axes, row: Row, name: str, result: Mapping[str, Any]) -> None:
    surface = result["surface"]
    x, y, f = (numbers(surface[key]) for key in "xyf")
    levels = np.quantile(f[np.isfinite(f)], np.linspace(0.02, 0.8, 10))
    axes.contour(x, y, f, levels=np.unique(levels), colors="#8a8a8a", linewidths=0.3)
    density = _densities(row).get(name)
    if density is None:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", fontsize=6)
    else:
        depth = np.log(np.maximum(density.T, 1e-300) / density.max()) / -np.log(_SHOWN)
        shades = LinearSegmentedColormap.from_list(name, [(*_rgb(row), 0.0), (*_rgb(row), 0.9)])
        extent = (x[0], x[-1], y[0], y[-1])
        axes.imshow(
            1 + np.clip(depth, -1, 0), cmap=shades, vmin=0, vmax=1, extent=extent, origin="lower"
        )
    for minimum in result["minima"]:
        axes.plot(*minimum["params"], "o", color="white", markeredgecolor="#222222", markersize=3)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="auto")
    axes.set_title(row["label"] if name == "sgd" else "its diffusion limit", loc="left", pad=2)


def _rgb(row: Row) -> tuple[float, float, float]:
    code = colour(row["family"])
    return tuple(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]


_ON_SURFACE = {"line": _on_line, "plane": _on_plane}
