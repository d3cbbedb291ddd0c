"""Figures of a measured point: thresholds, spectrum, samples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import MaxNLocator

from thalweg.report.style import Drawing, numbers

_LINE, _FILL, _POINT, _OTHER = "#0072B2", "#56B4E9", "#D55E00", "#444444"
_SAFE: dict[str, Any] = {"marker": "o", "color": _LINE, "markersize": 3}
_EXACT: dict[str, Any] = {"marker": "s", "color": _LINE, "markersize": 5, "fillstyle": "none"}
_ASKED: dict[str, Any] = {"marker": "x", "color": _POINT, "markersize": 4}
# The height of a normal bell of a hundredth of the spread, times what is drawn, 1.1 of it.
_BELL = 1.1 / (0.01 * np.sqrt(2 * np.pi))


def measure_figures(result: Mapping[str, Any]) -> list[Drawing]:
    """The diagram of sharpness and non-uniformity, the spectrum, the histograms."""
    return [_diagram(result), _spectrum(result), _samples(result)]


def _diagram(result: Mapping[str, Any]) -> Drawing:
    caption = (
        "Sharpness a and non-uniformity s in units of the step: a point moves outwards along its "
        "ray as η grows, one ray a batch size. Shaded: stable where one direction carries both "
        "(the disc, condition (4) in one dimension); dashed: Wu, Ma and E's rectangle, neither "
        "sufficient nor necessary."
    )
    step = result["step"]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.add_patch(Circle((1, 0), 1, facecolor=_FILL, alpha=0.25, linewidth=0))
        axes.add_patch(
            Rectangle((0, 0), 2, 1, fill=False, edgecolor=_OTHER, linewidth=0.7, linestyle="--")
        )
        for row in result["batches"]:
            _ray(axes, result, row)
        names = ["safe by (4)", "exact threshold"] + ([] if step is None else [f"η = {step:g}"])
        entries = [
            axes.plot([], [], label=name, linestyle="", **mark)[0]
            for name, mark in zip(names, (_SAFE, _EXACT, _ASKED), strict=False)
        ]
        figure.legend(handles=entries, loc="outside upper center", ncols=3, fontsize=6)
        axes.set(
            xlim=(0, 2.6),
            ylim=(0, 1.6),
            xlabel=r"$\eta a$",
            ylabel=r"$\eta s \sqrt{p}$",
        )
        axes.set_aspect("equal")

    return Drawing("diagram", caption, 62, draw)


def _ray(axes: Axes, result: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    a, s = result["sharpness"], result["nonuniformity"] * row["factor"] ** 0.5
    if row["upper"] is None or a <= 0:
        return
    reach = min(2.5 / a, 1.5 / s if s > 0 else np.inf)
    axes.plot([0, reach * a], [0, reach * s], color=_LINE, linewidth=0.6)
    axes.annotate(
        f"B={row['batch_size']}",
        (reach * a, reach * s),
        xytext=(2, 0 if s else 4),
        textcoords="offset points",
        fontsize=5,
        verticalalignment="center",
    )
    low, high = row["lower"] or 0.0, row["upper"]
    axes.plot([low * a, high * a], [low * s, high * s], color=_LINE, linewidth=3, alpha=0.8)
    axes.plot(high * a, high * s, **_EXACT)
    if row["sufficient"] is not None:
        axes.plot(row["sufficient"] * a, row["sufficient"] * s, **_SAFE)
    step = result["step"]
    if step is not None and step * a < 2.6 and step * s < 1.6:
        axes.plot(step * a, step * s, clip_on=False, **_ASKED)


def _spectrum(result: Mapping[str, Any]) -> Drawing:
    spectrum = result["spectrum"]
    exact = spectrum["eigenvalues"] is not None
    caption = (
        "The eigenvalues of H."
        if exact
        else (
            "The density of the eigenvalues of H, by Lanczos quadrature, each eigenvalue a bell "
            "of a hundredth of the spread, as high as the dotted line; band: one standard error "
            "over the probes."
        )
    )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if exact:
            values = numbers(spectrum["eigenvalues"])
            axes.vlines(values, 0, 1, color=_LINE, linewidth=0.8)
            axes.set(xlabel="eigenvalue of H", yticks=[], ylim=(0, 1.1))
            axes.spines["left"].set_visible(False)
            return
        at, density = numbers(spectrum["at"]), numbers(spectrum["density"])
        error = numbers(spectrum["error"])
        one, floor = _BELL / np.ptp(at), 1e-2 / np.ptp(at)
        axes.fill_between(
            at, np.maximum(density - error, floor), density + error, color=_LINE, alpha=0.2, lw=0
        )
        # What is less than a hundredth of an eigenvalue is none.
        axes.plot(at, np.where(density > floor, density, np.nan), color=_LINE)
        axes.axhline(one, color=_OTHER, linewidth=0.6, linestyle=":")
        axes.set(xlabel="eigenvalue of H", ylabel="eigenvalues per unit", yscale="log")
        axes.set_ylim(floor, 3 * max(one, density.max()))

    return Drawing("spectrum", caption, 30 if exact else 62, draw)


def _samples(result: Mapping[str, Any]) -> Drawing:
    caption = (
        "Over the samples: the norms of their gradients, and the norms of their Hessians' products "
        "with the sharpest direction v of H."
    )

    def draw(figure: Figure) -> None:
        names = (
            ("gradient_norms", r"$|\nabla f_i|$"),
            ("hessian_norms", r"$|H_i v|$"),
            ("curvatures", r"$v \cdot H_i v$"),
        )
        panels = figure.subplots(1, 3)
        panels[0].set_ylabel("samples")
        for axes, (name, label) in zip(panels, names, strict=True):
            found = result["samples"][name]
            axes.stairs(found["counts"], found["edges"], fill=True, color=_LINE, alpha=0.8)
            axes.axvline(found["mean"], color=_POINT, linewidth=0.7)
            axes.set(xlabel=label)
            axes.tick_params(labelsize=5)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    return Drawing("samples", caption + " Vertical line: the mean.", 45, draw)
