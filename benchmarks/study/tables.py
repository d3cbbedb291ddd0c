"""The study's page: a table of who helps, one of what was selected, and figures."""

from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from thalweg.report.notation import error_notation, plain
from thalweg.report.style import COLOURS, SETTINGS

_DOCS = Path(__file__).parents[2] / "docs"
_WORDS = {"helps": "**helps**", "nothing": "nothing", "harms": "harms", "diverges": "diverges"}
_MM = 1 / 25.4
_COLUMNS = 3


def written(settings: dict[str, Any]) -> None:
    """Write the tables between their marks in docs/study.md, and the figures."""
    page = _DOCS / "study.md"
    text = page.read_text()
    for mark, table in (("pays", _pays(settings)), ("ends", _ends(settings))):
        begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
        before, rest = text.split(begin)
        text = before + begin + "\n" + table + "\n" + end + rest.split(end)[1]
    page.write_text(text)
    for axis, name in (("step", "steps"), ("seconds", "seconds")):
        _figure(settings, axis, _DOCS / "images" / f"study-{name}.svg")


def _pays(settings: dict[str, Any]) -> str:
    lines = [
        "| data | sampler | seeds there | steps, of SGD's | time, of SGD's | verdict "
        "| test loss at equal time | test acc. |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, setting in settings.items():
        for row in setting["rows"]:
            cells = [_with_error(row[key]) for key in ("steps_ratio", "seconds_ratio")]
            place = [_name(name, setting), _label(row), str(row["reached"]), *cells]
            equal = row["at_equal_time"] or {}
            same = [_with_error(equal.get(key)) for key in ("loss", "accuracy")]
            first = row is setting["rows"][0]
            lines.append(_line([*place, "" if first else _WORDS[row["verdict"]], *same]))
    return "\n".join(lines) + "\n"


def _ends(settings: dict[str, Any]) -> str:
    lines = [
        "| data | sampler | train loss | test loss | test acc. | sharpness | non-unif. "
        "| 2/sharpness | largest η | variance ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, setting in settings.items():
        for row in setting["rows"]:
            cells = [
                *(row["loss"], row["test_loss"], row["test_accuracy"], row["sharpness"]),
                *(row["nonuniformity"], row["largest_step_gd"], row["largest_step"]),
            ]
            ratio = plain(row["variance_ratio"])
            line = [_name(name, setting), _label(row), *map(_with_error, cells), ratio]
            lines.append(_line(line))
    return "\n".join(lines) + "\n"


def _name(name: str, setting: dict[str, Any]) -> str:
    return name if not setting["quick"] else f"{name} (quick)"


def _label(row: dict[str, Any]) -> str:
    return row["label"].partition(", B=")[0]


def _with_error(value: dict[str, float] | None) -> str:
    return "–" if not value else error_notation(value["mean"], value["error"] or None, digits=1)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figure(settings: dict[str, Any], axis: str, path: Path) -> None:
    """Test loss of each setting, band of a standard error."""
    rows = -(-len(settings) // _COLUMNS)
    with matplotlib.style.context(["default", SETTINGS]):
        figure = Figure(figsize=(180 * _MM, 48 * rows * _MM), layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for axes, (name, setting) in zip(panels, settings.items(), strict=False):
            _panel(axes, setting, axis)
            axes.set_title(_name(name, setting), loc="left")
            axes.set_xlabel("step" if axis == "step" else "CPU seconds, all seeds")
            axes.set_ylabel("test loss")
        for axes in panels[len(settings) :]:
            axes.set_axis_off()
        handles = {
            _label(row): axes_line
            for axes, setting in zip(panels, settings.values(), strict=False)
            for row, axes_line in zip(
                [r for r in setting["rows"] if r["curve"]], axes.get_lines(), strict=False
            )
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6)
        figure.savefig(path, metadata={"Date": None})


def _panel(axes: Any, setting: dict[str, Any], axis: str) -> None:
    for row in setting["rows"]:
        if row["curve"] is None:
            continue
        curve = {key: np.array(values) for key, values in row["curve"].items()}
        colour = COLOURS[row["family"]]
        axes.plot(curve[axis], curve["loss"], color=colour, lw=0.9)
        low, high = curve["loss"] - curve["error"], curve["loss"] + curve["error"]
        axes.fill_between(curve[axis], low, high, color=colour, alpha=0.2, lw=0)
    axes.axhline(setting["target"], color="0.6", lw=0.6, ls=":", zorder=0)
    losses = [row["curve"]["loss"] for row in setting["rows"] if row["curve"]]
    axes.set_yscale("log")
    axes.set_ylim(0.97 * min(map(min, losses)), 1.05 * max(loss[2] for loss in losses))
    if axis == "seconds":
        axes.set_xscale("log")
