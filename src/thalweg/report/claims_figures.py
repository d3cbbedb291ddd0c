"""Figures of experiments, drawn as the result's panels say, from its tables alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thalweg.report.style import COLOURS, GREYS, Drawing, numbers

# For series that belong to no sampler: colours that none has, dark to light and unlike in hue.
_PLAIN = ("#444444", "#882255", "#117733", "#AA7744", "#332288", "#999999", "#AA4499")
_ROW = 56
_LEGEND = 9


def claims_figures(result: Mapping[str, Any]) -> list[Drawing]:
    """The figures of all experiments of a result, in its order."""
    return [
        _drawing(one, picture)
        for one in result["experiments"]
        for picture in one.get("pictures", ())
    ]


def figure_name(experiment: str, picture: str) -> str:
    """A file name that is unique over documents."""
    return f"{experiment.replace('/', '-')}-{picture}"


def _drawing(one: Mapping[str, Any], picture: Mapping[str, Any]) -> Drawing:
    panels = picture["panels"]
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    labelled = max(sum(bool(s["label"]) for s in panel["series"]) for panel in panels)
    height = (_ROW if columns == 2 else 62) * rows + _LEGEND * -(-labelled // 2) / 2

    def draw(figure: Figure) -> None:
        grid = figure.add_gridspec(rows, columns)
        for place, panel in enumerate(panels):
            row, column = divmod(place, columns)
            # The last of an odd number is as wide as two.
            alone = place == len(panels) - 1 and column == 0
            axes = figure.add_subplot(grid[row, slice(None) if alone else column])
            _draw_panel(axes, panel, one["tables"])
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            own, labels = axes.get_legend_handles_labels()
            handles.update(dict(zip(labels, own, strict=True)))
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)

    name = figure_name(one["name"], picture["name"])
    return Drawing(name, picture["caption"], height, draw, one["name"])


def _draw_panel(axes: Axes, panel: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    for place, series in enumerate(panel["series"]):
        # A number is one of the plain colours, for series that belong together.
        family = series["family"]
        number = int(family) if family.isdigit() else place
        colour = COLOURS.get(family) or _PLAIN[number % len(_PLAIN)]
        _draw(axes, series, tables[series["table"]], colour)
    axes.set(xlabel=panel["x"], ylabel=panel["y"])
    axes.set_title(panel["title"])
    if "x" in panel["log"]:
        axes.set_xscale("log")
    if "y" in panel["log"]:
        axes.set_yscale("log")
    if panel["limits"]:
        axes.set_ylim(*panel["limits"])
    if panel.get("names"):
        places, names = zip(*panel["names"], strict=True)
        axes.set_xticks(places, names)
        axes.set_xmargin(0.2)
    for level, text in panel["lines"]:
        axes.axhline(level, color="#8C8C8C", linewidth=0.7, linestyle=(0, (4, 2)))
        _beside(axes, text, (0.99, level), axes.get_yaxis_transform(), "right", "bottom")
    for place, text in panel["marks"]:
        axes.axvline(place, color="#8C8C8C", linewidth=0.7, linestyle=(0, (4, 2)))
        _beside(axes, text, (place, 0.99), axes.get_xaxis_transform(), "left", "top")


def _beside(
    axes: Axes, text: str, at: tuple[float, float], transform: Any, across: str, along: str
) -> None:
    """A word beside a line of reference."""
    axes.annotate(
        text,
        at,
        xycoords=transform,
        fontsize=6,
        color="#5a5a5a",
        horizontalalignment=across,
        verticalalignment=along,
    )


def _draw(axes: Axes, series: Mapping[str, Any], table: Mapping[str, Any], colour: str) -> None:
    x, y = numbers(table[series["x"]]), numbers(table[series["y"]])
    label = series["label"] or None
    kind = series["kind"]
    if kind in ("image", "contour"):
        _draw_surface(axes, kind, x, y, numbers(table[series["z"]]))
    elif kind == "band":
        upper = numbers(table[series["upper"]])
        axes.fill_between(x, y, upper, color=colour, alpha=0.2, linewidth=0, label=label)
    elif kind == "bars":
        axes.bar(x, y, width=_width(x), color=colour, alpha=0.6, label=label)
    elif kind == "steps":
        axes.step(x, y, where="mid", color=colour, label=label)
    elif kind == "points":
        error = numbers(table[series["error"]]) if series["error"] else None
        # Hollow: what others measured, or what theory says.
        face, edge = ("none", 0.5) if series["dashed"] else (colour, 1.0)
        axes.errorbar(
            x,
            y,
            error,
            fmt="o",
            markersize=2.2,
            color=colour,
            markerfacecolor=face,
            markeredgewidth=edge,
            label=label,
            elinewidth=0.7,
        )
    else:
        style = (0, (4, 1.5)) if series["dashed"] else "-"
        axes.plot(x, y, color=colour, linestyle=style, label=label)
        if series["error"]:
            error = numbers(table[series["error"]])
            axes.fill_between(x, y - error, y + error, color=colour, alpha=0.2, linewidth=0)


def _draw_surface(axes: Axes, kind: str, x: Any, y: Any, z: Any) -> None:
    values = z.reshape(y.size, x.size)
    if kind == "image":
        axes.pcolormesh(x, y, values, cmap=GREYS, shading="nearest", rasterized=True)
    else:
        axes.contour(x, y, values, levels=12, colors="#8C8C8C", linewidths=0.5, linestyles="solid")


def _width(x: Float[np.ndarray, " n"]) -> float:
    return 0.8 * float(np.min(np.diff(np.unique(x)))) if len(np.unique(x)) > 1 else 0.8
