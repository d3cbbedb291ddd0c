"""How figures look: one colour a family of samplers, one width, no dependence on the machine."""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

# Okabe and Ito (2008), told apart by colour-blind readers; their yellow is darkened to be seen as
# a thin line on white, and grey is added.
COLOURS = {
    "gd": "#000000",
    "sgd": "#D55E00",
    "sgd-half": "#E69F00",
    "rr": "#0072B2",
    "rr-fixed": "#56B4E9",
    "rr-group": "#009E73",
    "rr-population": "#CC79A7",
    "reshuffled": "#8C8C8C",
    "cyclic": "#B3A600",
    "rolling": "#882255",
    "presampled": "#117733",
    "auto": "#6B4C9A",
}
_OTHER = "#444444"
# Behind lines and points: light greys.
GREYS = ListedColormap(np.linspace(0.72, 0.98, 64)[:, None].repeat(3, axis=1))
# Rows of one family, as SGD with several batch sizes, are told apart by dashes.
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
_MM = 1 / 25.4
WIDTH = 85 * _MM
SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    # Glyphs are drawn as paths: the same on every machine, whatever fonts it has.
    "svg.fonttype": "path",
    "svg.hashsalt": "thalweg",
}

Rows = Sequence[Mapping[str, Any]]
Draw = Callable[[Figure], None]


@dataclass(frozen=True)
class Drawing:
    """A figure of the report.

    Attributes:
        name: Its file is ``figures/<name>.svg``.
        caption: What is to be seen.
        height: In millimetres; the width is that of a column, 85.
        draw: Draws on an empty figure.
        section: The part of the page it belongs to, if there are several.
    """

    name: str
    caption: str
    height: float
    draw: Draw
    section: str = ""

    def render(self, form: str = "svg", dpi: float = 200) -> bytes:
        """The file's content, the same bytes whenever the input is the same."""
        target = io.BytesIO()
        with matplotlib.style.context(["default", SETTINGS]):
            figure = Figure(figsize=(WIDTH, self.height * _MM), layout="constrained")
            self.draw(figure)
            metadata = {"Date": None} if form == "svg" else None
            figure.savefig(target, format=form, dpi=dpi, metadata=metadata)
        return target.getvalue()


def colour(family: str | None) -> str:
    """The colour of a family, the same in every figure; dark grey for what is no sampler."""
    return COLOURS.get(family or "", _OTHER)


def lines(rows: Rows) -> list[dict[str, Any]]:
    """Colour and dash of each row's line."""
    seen: Counter[str] = Counter()
    styles = []
    for row in rows:
        dash = _DASHES[seen[row["family"]] % len(_DASHES)]
        styles.append({"color": colour(row["family"]), "linestyle": dash})
        seen[row["family"]] += 1
    return styles


def numbers(values: Any) -> Float[np.ndarray, "..."]:
    """An array of a result's numbers, unknown ones (None) as NaN."""
    return np.array(values, dtype=float)


def draw_band(
    axes: Axes, steps: Sequence[float], curve: Mapping[str, Any], style: Mapping[str, Any]
) -> None:
    """The mean over trials with its band of 16 to 84 percent."""
    low, high, mean = (numbers(curve[key]) for key in ("low", "high", "mean"))
    axes.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.plot(steps, mean, **style)


def legend_below(figure: Figure, axes: Axes, rows: Rows) -> None:
    """A legend of all rows under the axes."""
    entries = [
        axes.plot([], [], label=row["label"], **style)[0]
        for row, style in zip(rows, lines(rows), strict=True)
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=2, handlelength=2.6)
