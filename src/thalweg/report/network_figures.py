"""Figures of a network: sharpness along the way, a slice of the landscape."""

from collections import Counter
from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from thalweg.report.labels import place_labels
from thalweg.report.loss_figure import loss_figure
from thalweg.report.notation import as_number, plain
from thalweg.report.style import GREYS, Drawing, colour, draw_band, legend_below, lines, numbers

_LEVELS = 14


def network_figures(result: Mapping[str, Any]) -> list[Drawing]:
    """The figures that the numbers at hand allow."""
    figures = []
    if any(row["sharpness_curve"] for row in result["rows"]):
        figures.append(_sharpness_figure(result))
    if any(row.get("track") for row in result["rows"]):
        figures.append(_track_figure(result))
    if result["surface"]:
        figures.append(_slice_figure(result))
    return [*figures, loss_figure(result)]


def common_step(result: Mapping[str, Any]) -> float | None:
    """The step that most rows share; None where they follow schedules."""
    steps = [as_number(row["step"]) for row in result["rows"]]
    known = Counter(step for step in steps if step is not None)
    return known.most_common(1)[0][0] if known else None


def _sharpness_figure(result: Mapping[str, Any]) -> Drawing:
    step = common_step(result)
    caption = (
        "Sharpness along the way, from the common start on. Lines: mean over the chains that were "
        "followed; bands: 16 to 84 percent of them."
    )
    if step is not None:
        caption += (
            f" Dashed: 2/η = {2 / step:.4g} for the step η = {step:g}, above which gradient "
            "descent cannot stay; at half the step the line lies twice as high."
        )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        rows = [row for row in result["rows"] if row["sharpness_curve"]]
        for row, style in zip(rows, lines(rows), strict=True):
            draw_band(axes, row["sharpness_curve"]["step"], row["sharpness_curve"], style)
        axes.set(xlabel="iteration k", ylabel=r"sharpness $\lambda_{\max}(H)$")
        axes.margins(x=0.02)
        axes.set_ylim(bottom=0)
        if step is not None:
            _threshold(axes, 2 / step)
        legend_below(figure, axes, rows)

    return Drawing("sharpness", caption, 75, draw)


def _track_figure(result: Mapping[str, Any]) -> Drawing:
    rows = [row for row in result["rows"] if row.get("track")]
    products = sum(row["track"]["products"] for row in rows)
    caption = (
        "Along one chain of each sampler: non-uniformity, and the step beyond which SGD with its "
        "batch is unstable in mean square (on two directions), over the step it takes: below the "
        f"dashed line the chain cannot stay where it is. It took {products:.0f} products with the "
        "Hessian."
    )

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        for row, style in zip(rows, lines(rows), strict=True):
            track, step = row["track"], as_number(row["step"])
            above.plot(track["steps"], numbers(track["nonuniformity"]), **style)
            below.plot(track["steps"], numbers(track["threshold"]) / (step or np.nan), **style)
        above.set(ylabel="non-uniformity s")
        below.set(xlabel="iteration k", ylabel=r"$\eta_{var}$ / step", yscale="log")
        below.axhline(1, color="#444444", linewidth=0.7, linestyle=(0, (6, 3)))
        legend_below(figure, below, rows)

    return Drawing("track", caption, 95, draw)


def _threshold(axes: Axes, level: float) -> None:
    axes.axhline(level, color="#444444", linewidth=0.7, linestyle=(0, (6, 3)))
    axes.set_ylim(top=max(axes.get_ylim()[1], 1.12 * level))
    axes.annotate(
        f"2/η = {level:.4g}",
        (1, level),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-2, 2),
        textcoords="offset points",
        horizontalalignment="right",
        fontsize=6,
    )


def _slice_figure(result: Mapping[str, Any]) -> Drawing:
    surface = result["surface"]
    caption = (
        "The loss on the plane through the start and two of the end points, contours spaced "
        "logarithmically; the other end points are projected onto it, one chain of each sampler. "
        "Lengths are distances between parameter vectors."
    )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _contours(figure, axes, surface)
        axes.set(xlabel=surface["x_label"], ylabel=fill(surface["y_label"], 32))
        points = surface["points"]
        for point in points:
            marker = "*" if point["label"] == "start" else "o"
            axes.plot(
                *(point["x"], point["y"], marker),
                color=colour(point["family"]),
                markersize=8 if marker == "*" else 5,
                markeredgecolor="white",
                markeredgewidth=0.5,
            )
        places = [(point["x"], point["y"]) for point in points]
        place_labels(figure, axes, places, [point["label"] for point in points])

    return Drawing("slice", caption, 70, draw)


def _contours(figure: Figure, axes: Axes, surface: Mapping[str, Any]) -> None:
    f = numbers(surface["f"])
    low, high = np.nanmin(f), np.nanmax(f)
    if not high > low:
        axes.set(xlim=_ends(surface["x"]), ylim=_ends(surface["y"]))
        return
    logarithmic = low > 0
    levels = (np.geomspace if logarithmic else np.linspace)(low, high, _LEVELS)
    norm = (LogNorm if logarithmic else Normalize)(low, high)
    options: dict[str, Any] = {"levels": levels, "norm": norm}
    filled = axes.contourf(surface["x"], surface["y"], f, cmap=GREYS, **options)
    axes.contour(surface["x"], surface["y"], f, colors="#777777", linewidths=0.3, **options)
    bar = figure.colorbar(filled, ax=axes, ticks=levels[:: (_LEVELS - 1) // 3], pad=0.02)
    bar.set_label("loss f(θ)")
    bar.ax.minorticks_off()
    bar.ax.set_yticklabels([plain(level) for level in bar.get_ticks()])


def _ends(values: list[float]) -> tuple[float, float]:
    return values[0], values[-1]
