"""Figure of paths: on the contours of the landscape, and how high it is along them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from thalweg.report.style import GREYS, Drawing, legend_below, lines, numbers

# Contours stand closer together near the bottom.
_POWER, _LEVELS = 1.5, 15
# How far above the highest point of the paths the contours go, as a share of their range.
_ABOVE = 0.5
# Heights of the panels and of a line of the legend.
_MAP, _PROFILE, _LINE = 62, 34, 3
_LEGEND_COLUMNS = 2
Path = Mapping[str, Any]
_MARKS = {"minimum": "o", "saddle": "x"}


def path_figure(surface: Mapping[str, Any] | None, paths: Sequence[Path]) -> Drawing | None:
    """The paths on the landscape, if it has two dimensions, and f along each; None without paths.

    Args:
        surface: Of plain numbers: ``kind``; of a "plane" also ``x``, ``y``, ``f`` (rows are y) and
            the labels ``x_label``, ``y_label``. Of any other kind, or None, only f along the paths
            is drawn.
        paths: Each with ``label``, ``family`` (a sampler's, for the colour, or None), ``points``,
            ``arc`` (the length up to each), ``values`` (f there) and ``marks``, each of these with
            a ``kind`` (minimum or saddle), ``params``, ``arc`` and ``value``.
    """
    if not paths:
        return None
    plane = surface if surface is not None and surface["kind"] == "plane" else None
    where = "on the contours of f, which are cut off above (top), and f along them (bottom)"
    caption = (
        f"The paths {where if plane else 'by their length, and f along them'}. Circles: minima; "
        "crosses: saddles. The length is measured from the first minimum."
    )

    def draw(figure: Figure) -> None:
        if plane:
            top, bottom = figure.subplots(2, height_ratios=[_MAP, _PROFILE])
            _draw_map(top, plane, paths)
        else:
            bottom = figure.subplots()
        _draw_profiles(bottom, paths)
        legend_below(figure, bottom, paths)

    height = _PROFILE + 8 + (_MAP if plane else 0) + _LINE * -(-len(paths) // _LEGEND_COLUMNS)
    return Drawing("paths", caption, height, draw)


def _draw_map(axes: Axes, surface: Mapping[str, Any], paths: Sequence[Path]) -> None:
    x, y, f = (numbers(surface[key]) for key in "xyf")
    low, high = _range(f, paths)
    cut = np.minimum(f, high)
    levels = low + (high - low) * np.linspace(0, 1, _LEVELS) ** _POWER
    extent = (x[0], x[-1], y[0], y[-1])
    norm = PowerNorm(1 / _POWER, low, high)
    axes.imshow(cut, cmap=GREYS, norm=norm, extent=extent, origin="lower", interpolation="bilinear")
    axes.contour(x, y, cut, levels=levels, colors="#8a8a8a", linewidths=0.3, linestyles="solid")
    for path, style in zip(paths, lines(paths), strict=True):
        axes.plot(*numbers(path["points"]).T, **style)
        for mark in path["marks"]:
            _mark(axes, mark["params"], mark["kind"])
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="auto")
    axes.set(xlabel=surface["x_label"], ylabel=surface["y_label"])


def _draw_profiles(axes: Axes, paths: Sequence[Path]) -> None:
    for path, style in zip(paths, lines(paths), strict=True):
        axes.plot(numbers(path["arc"]), numbers(path["values"]), **style)
        for mark in path["marks"]:
            _mark(axes, (mark["arc"], mark["value"]), mark["kind"])
    axes.set(xlabel="length of the path", ylabel="f(θ)")
    axes.margins(x=0.03, y=0.08)


def _range(f: Float[np.ndarray, "y x"], paths: Sequence[Path]) -> tuple[float, float]:
    """From the lowest value to some way above the highest of the paths, if f gets there."""
    values = np.concatenate([numbers(path["values"]) for path in paths])
    low = float(min(np.nanmin(f), values.min()))
    high = float(values.max() + _ABOVE * (values.max() - low))
    return low, min(high, float(np.nanmax(f))) if np.nanmax(f) > low else low + 1.0


def _mark(axes: Axes, at: Sequence[float], kind: str) -> None:
    cross = kind == "saddle"
    axes.plot(
        *at,
        _MARKS[kind],
        color="#222222" if cross else "white",
        markeredgecolor="#222222",
        markeredgewidth=0.8,
        markersize=4,
        zorder=6,
    )
