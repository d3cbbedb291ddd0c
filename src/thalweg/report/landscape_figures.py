"""Figures of a landscape: the way of the chains, and where they ended."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from thalweg.report.graph_figure import graph_figure
from thalweg.report.labels import place_labels
from thalweg.report.loss_figure import loss_figure
from thalweg.report.path_figure import path_figure
from thalweg.report.shares import shares
from thalweg.report.stationary_figure import stationary_figure
from thalweg.report.style import GREYS, Drawing, colour, numbers

_BINS = 80
_COLUMNS = 4
_WRAP = 16
Points = Sequence[Sequence[float]]
# Contours stand closer together near the bottom, where minima are told apart.
_POWER = 1.5


def landscape_figures(result: Mapping[str, Any]) -> list[Drawing]:
    """The figures that the dimension and the known minima allow."""
    figures = []
    if result["surface"]:
        figures.append(_ON_SURFACE[result["surface"]["kind"]](result))
    figures.append(loss_figure(result))
    if any(row["ends"] for row in result["rows"]):
        figures.append(_ends_figure(result))
    # On a line the landscape itself shows the passes.
    graph = graph_figure(result) if result["problem"]["parameters"] > 1 else None
    ways = path_figure(result["surface"], result["paths"])
    return [*figures, *(drawn for drawn in (graph, ways, stationary_figure(result)) if drawn)]


def _line_figure(result: Mapping[str, Any]) -> Drawing:
    rows = result["rows"]
    caption = (
        "The landscape f (top; circles: minima, crosses: maxima), a few chains of each sampler on "
        "it, the iteration running downwards (middle), and where the chains ended (bottom; what "
        f"left the box is drawn at its edge).{_star(result)}"
    )

    def draw(figure: Figure) -> None:
        heights = [3, 4, 0.42 * len(rows)]
        top, middle, bottom = figure.subplots(3, sharex=True, height_ratios=heights)
        _profile(top, result)
        for row in reversed(rows):
            for path in row["paths"]:
                theta = numbers(path)[:, 0]
                middle.plot(
                    theta, row["path_steps"], color=colour(row["family"]), linewidth=0.6, alpha=0.7
                )
        middle.set(ylabel="iteration k", ylim=(max(rows[0]["path_steps"][-1], 1), 0))
        _strips(bottom, result)
        curve = zip(result["surface"]["x"], numbers(result["surface"]["f"]), strict=True)
        _name_minima(figure, top, result, _places(result), [*curve][::4])

    return Drawing("landscape", caption, 82 + 4 * len(rows), draw)


def _profile(axes: Axes, result: Mapping[str, Any]) -> None:
    surface, start = result["surface"], result["start"]
    axes.plot(surface["x"], numbers(surface["f"]), color="#444444")
    low, high = _range(result)
    axes.set(ylabel="f(θ)", ylim=(low - 0.12 * (high - low), high))
    axes.set_xlim(surface["x"][0], surface["x"][-1])
    _mark(axes, _places(result), "o")
    _mark(axes, [(s["params"][0], s["value"]) for s in result["saddles"]], "x")
    if _has_start(result):
        _mark(axes, [(start["params"][0], start["loss"])], "*")


def _has_start(result: Mapping[str, Any]) -> bool:
    """Whether all chains start from one point."""
    return result["arguments"].get("starts", "common") == "common"


def _star(result: Mapping[str, Any]) -> str:
    return " Star: the common start." if _has_start(result) else ""


def _places(result: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(m["params"][0], m["value"]) for m in result["minima"]]


def _name_minima(
    figure: Figure, axes: Axes, result: Mapping[str, Any], places: Points, others: Sequence[Any]
) -> None:
    """Names beside the minima, clear of the ``others`` as far as these are finite."""
    names = [fill(minimum["name"], _WRAP) for minimum in result["minima"]]
    seen = [point for point in others if np.isfinite(numbers(point)).all()]
    place_labels(figure, axes, places, names, seen)


def _mark(axes: Axes, points: Points, marker: str) -> None:
    for x, y in points:
        axes.plot(
            *(x, y, marker),
            color="#444444" if marker == "x" else "white",
            markeredgecolor="#222222",
            markeredgewidth=0.7,
            markersize=7 if marker == "*" else 4,
            zorder=6,
        )


def _range(result: Mapping[str, Any]) -> tuple[float, float]:
    """From the lowest value up to well above start, minima and saddles, whatever the box holds."""
    f = numbers(result["surface"]["f"])
    low, top = np.nanmin(f), np.nanmax(f)
    values = [point["value"] for point in (*result["minima"], *result["saddles"])]
    seen = max([np.nanmedian(f), result["start"]["loss"], *values])
    return float(low), float(min(top, low + 1.6 * (seen - low)))


def _strips(axes: Axes, result: Mapping[str, Any]) -> None:
    """One histogram a sampler, each to its own height; what left the box is at its edge."""
    rows, x = result["rows"], result["surface"]["x"]
    edges = np.linspace(x[0], x[-1], _BINS + 1)
    for place, row in enumerate(rows):
        ends = numbers(row["end_points"])[:, 0]
        ends = np.clip(ends[np.isfinite(ends)], x[0], x[-1])
        heights = np.histogram(ends, edges)[0] / max(1, len(ends))
        heights = 0.85 * heights / max(heights.max(), 1e-12)
        axes.stairs(heights - place, edges, baseline=-place, fill=True, color=colour(row["family"]))
        axes.axhline(-place, color="#bbbbbb", linewidth=0.4)
    axes.set(xlabel="θ", ylim=(-len(rows) + 0.9, 1))
    axes.set_yticks([0.3 - place for place in range(len(rows))], [row["label"] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _plane_figure(result: Mapping[str, Any]) -> Drawing:
    rows = result["rows"]
    height = -(-len(rows) // 2)
    caption = (
        "A few chains of each sampler (lines) and where the chains ended (dots) on the contours of "
        f"f, which are cut off above. Circles: minima; crosses: saddles.{_star(result)}"
    )

    def draw(figure: Figure) -> None:
        grid = figure.subplots(height, 2, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, row in zip(grid, rows, strict=False):
            _panel(axes, row, result)
        for axes in grid[len(rows) :]:
            axes.set_axis_off()
        figure.supxlabel(result["surface"]["x_label"], fontsize=7)
        figure.supylabel(result["surface"]["y_label"], fontsize=7)
        drawn = [point for path in rows[0]["paths"] for point in path[::4]]
        places = [minimum["params"] for minimum in result["minima"]]
        _name_minima(
            figure, grid[0], result, places, [*drawn, *(s["params"] for s in result["saddles"])]
        )

    return Drawing("landscape", caption, 8 + 38 * height, draw)


def _panel(axes: Axes, row: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    surface, family = result["surface"], colour(row["family"])
    x, y = surface["x"], surface["y"]
    low, high = _range(result)
    if high > low:
        f = np.minimum(numbers(surface["f"]), high)
        levels = low + (high - low) * np.linspace(0, 1, 13) ** _POWER
        norm = PowerNorm(1 / _POWER, low, high)
        extent = (x[0], x[-1], y[0], y[-1])
        axes.imshow(
            f, cmap=GREYS, norm=norm, extent=extent, origin="lower", interpolation="bilinear"
        )
        axes.contour(x, y, f, levels=levels, colors="#8a8a8a", linewidths=0.3, linestyles="solid")
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="auto")
    for path in row["paths"]:
        axes.plot(*numbers(path).T, color=family, linewidth=0.5, alpha=0.8)
    ends = numbers(row["end_points"])
    axes.plot(*ends.T, ".", color=family, markersize=3, alpha=0.6, markeredgewidth=0)
    for key, marker in (("minima", "o"), ("saddles", "x")):
        _mark(axes, [p["params"] for p in result[key]], marker)
    if _has_start(result):
        _mark(axes, [result["start"]["params"]], "*")
    axes.set_title(row["label"], loc="left", pad=2)


_ON_SURFACE = {"line": _line_figure, "plane": _plane_figure}


def _ends_figure(result: Mapping[str, Any]) -> Drawing:
    rows = result["rows"]
    names, table = shares(result, _COLUMNS)
    caption = (
        "Where the chains ended: the fraction of them in the basin of each minimum, with one "
        "standard error."
    )

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        places = -np.arange(len(rows))
        for axes, name, ends in zip(panels, names, zip(*table, strict=True), strict=True):
            axes.barh(
                places,
                [end["fraction"] for end in ends],
                xerr=[end["error"] for end in ends],
                color=[colour(row["family"]) for row in rows],
                height=0.7,
                error_kw={"linewidth": 0.7, "ecolor": "#777777"},
            )
            axes.set(xlim=(0, 1.05), xticks=(0, 0.5, 1))
            axes.set_title(fill(name, 2 * _WRAP // len(names)), loc="left")
        panels[0].set_yticks(places, [row["label"] for row in rows])
        figure.supxlabel("fraction of the chains", fontsize=7)

    return Drawing("ends", caption, 22 + 5 * len(rows), draw)
