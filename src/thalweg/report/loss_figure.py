"""The loss along the way, for landscapes and networks alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thalweg.report.style import Drawing, draw_band, legend_below, lines, numbers

# From this ratio of the largest to the smallest mean on, the axis is logarithmic; for networks it
# always is.
_RATIO = 10.0
# What lies lower than this share of the largest is not worth the room.
_DEPTH = 1e-8


def loss_figure(result: Mapping[str, Any]) -> Drawing:
    """Loss against the iteration, mean and band of every sampler."""
    caption = (
        "Loss along the way. Lines: mean over the chains; bands: 16 to 84 percent of the chains."
    )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        rows = result["rows"]
        for row, style in zip(rows, lines(rows), strict=True):
            draw_band(axes, row["curves"]["step"], row["curves"]["loss"], style)
        means = np.concatenate([numbers(row["curves"]["loss"]["mean"]) for row in rows])
        fit_losses(axes, means, 1.0 if result["kind"] == "network" else _RATIO)
        axes.set(xlabel="iteration k", ylabel="loss f(θ)")
        axes.margins(x=0.02)
        legend_below(figure, axes, rows)

    return Drawing("loss", caption, 72, draw)


def fit_losses(axes: Axes, means: np.ndarray, ratio: float) -> None:
    """Show all means, and of the bands what a chain that has diverged does not spoil.

    The axis is logarithmic if the means are positive and span more than this ratio.
    """
    means = means[np.isfinite(means)]
    if means.size == 0 or means.min() == means.max():
        return
    low, high = means.min(), means.max()
    lowest = means[means > 0].min(initial=np.inf)
    if low >= 0 and high > ratio * lowest:
        axes.set_yscale("log")
        axes.set_ylim(max(lowest / 1.5, _DEPTH * high), high * 1.5)
    else:
        axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
