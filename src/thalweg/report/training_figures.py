"""Figures of trainings: loss and accuracy against steps and seconds, the gauge, curvature."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from thalweg.report.loss_figure import fit_losses
from thalweg.report.notation import as_number
from thalweg.report.style import Drawing, draw_band, legend_below, lines, numbers

_BANDS = "Lines: mean over the seeds; bands: 16 to 84 percent of them."
# Axes that span less have ticks between the powers of ten.
_SHORT = 1e3
_DASHED: dict[str, Any] = {"color": "#444444", "linewidth": 0.7, "linestyle": (0, (6, 3))}
_DOTTED: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (1, 1.5))}
Curve = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def training_figures(result: Mapping[str, Any]) -> list[Drawing]:
    """The figures that the numbers at hand allow."""
    rows = result["rows"]
    figures = [_loss_figure(rows)]
    if any(row["evaluation"] for row in rows):
        figures.append(_test_figure(rows))
    if any(row["gauge"] for row in rows):
        figures.append(_gauge_figure(rows))
    if any(row["track"] for row in rows):
        figures.append(_track_figure(rows))
    return figures


def _loss_figure(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    caption = (
        "Training loss against steps and against seconds: the mean of the weighted batch losses "
        f"between two records. {_BANDS}"
    )

    def draw(figure: Figure) -> None:
        for axes in _steps_and_seconds(figure, rows, lambda row: row["curves"], "loss"):
            means = [numbers(row["curves"]["loss"]["mean"]) for row in rows]
            fit_losses(axes, np.concatenate(means), 1.0)
            _plain_ticks(axes)
            axes.set(ylabel="training loss")

    return Drawing("loss", caption, 110, draw)


def _test_figure(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    looked = [row for row in rows if row["evaluation"]]
    classified = all(row["evaluation"]["accuracy"] for row in looked)
    name, label = ("accuracy", "test accuracy") if classified else ("loss", "test loss")
    caption = f"{label.capitalize()} against steps and against seconds. {_BANDS}"

    def draw(figure: Figure) -> None:
        for axes in _steps_and_seconds(figure, looked, lambda row: row["evaluation"], name):
            axes.set(ylabel=label)
            if not classified:
                means = [numbers(row["evaluation"]["loss"]["mean"]) for row in looked]
                fit_losses(axes, np.concatenate(means), 10.0)
                _plain_ticks(axes)

    return Drawing("test", caption, 110, draw)


def _steps_and_seconds(
    figure: Figure, rows: Sequence[Mapping[str, Any]], curve: Curve, name: str
) -> Sequence[Axes]:
    """One curve of each row over both axes."""
    panels = list(figure.subplots(2, 1, sharey=True))
    for axes, over in zip(panels, ("step", "seconds"), strict=True):
        for row, style in zip(rows, lines(rows), strict=True):
            found = curve(row)
            if found is not None:
                draw_band(axes, found[over], found[name], style)
        axes.set(xlabel="step k" if over == "step" else "seconds")
        axes.margins(x=0.02)
    legend_below(figure, panels[1], rows)
    return panels


def _plain_ticks(axes: Axes) -> None:
    """0.2 in place of 2 x 10^-1, where the axis is logarithmic."""
    if axes.get_yscale() != "log":
        return
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter("{x:g}")
    if high < _SHORT * low:
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter("{x:g}")


def _gauge_figure(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    gauged = [row for row in rows if row["gauge"]]
    caption = (
        "The gauge along the run: how many times smaller the variance of RR's batch gradient is "
        "than that of SGD's, at the places the row goes through; bars: one standard error. Dotted: "
        "how many times as long a step of RR takes. RR pays where the line is above the dots."
    )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, style in zip(gauged, lines(gauged), strict=True):
            gauge = row["gauge"]
            ratio = numbers(gauge["variance_ratio"])
            error = numbers(gauge["variance_ratio_error"])
            axes.errorbar(gauge["step"], ratio, error, elinewidth=0.6, capsize=1.5, **style)
            if row["family"] not in ("sgd", "sgd-half"):
                cost = numbers(gauge["cost_ratio"]) if row["cost"] is None else row["cost"]["ratio"]
                axes.plot(
                    gauge["step"], cost * np.ones(len(ratio)), color=style["color"], **_DOTTED
                )
        axes.axhline(1, **_DASHED)
        axes.set(xlabel="step k", ylabel="variance SGD / RR")
        axes.set_ylim(bottom=0)
        legend_below(figure, axes, gauged)

    return Drawing("gauge", caption, 75, draw)


def _track_figure(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    tracked = [row for row in rows if row["track"]]
    products = sum(row["track"]["products"] for row in tracked)
    caption = (
        "Along one seed of each row: sharpness, non-uniformity, and the step beyond which SGD with "
        "its batch is unstable in mean square (on the leading directions), over the step it takes: "
        f"below the dashed line it cannot stay where it is. It took {products:.0f} products with "
        "the Hessian."
    )

    def draw(figure: Figure) -> None:
        first, second, third = figure.subplots(3, 1, sharex=True)
        for row, style in zip(tracked, lines(tracked), strict=True):
            track, step = row["track"], as_number(row["step"])
            shares = numbers(track["threshold"]) / (step or np.nan)
            curves = (numbers(track["sharpness"]), numbers(track["nonuniformity"]), shares)
            for axes, curve in zip((first, second, third), curves, strict=True):
                axes.plot(track["steps"], curve, marker=".", markersize=3, **style)
        first.set(ylabel="sharpness")
        second.set(ylabel="non-uniformity s")
        third.set(xlabel="step k", ylabel=r"$\eta_{var}$ / step", yscale="log")
        third.axhline(1, **_DASHED)
        _plain_ticks(third)
        legend_below(figure, third, tracked)

    return Drawing("track", caption, 125, draw)
