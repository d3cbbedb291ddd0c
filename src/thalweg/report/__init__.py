"""Figures, tables and the page of a result, made from what was saved alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalweg.errors import InputError
from thalweg.report.claims_figures import claims_figures
from thalweg.report.html import page
from thalweg.report.landscape_figures import landscape_figures
from thalweg.report.measure_figures import measure_figures
from thalweg.report.network_figures import network_figures
from thalweg.report.training_figures import training_figures

_FIGURES = {
    ("thalweg.compare/1", "landscape"): landscape_figures,
    ("thalweg.compare/1", "network"): network_figures,
    ("thalweg.measure/1", "point"): measure_figures,
    ("thalweg.train/1", "training"): training_figures,
    ("thalweg.reproduce/1", "claims"): claims_figures,
}


def write(result: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write ``figures/*.svg`` and ``report.html`` of a result.

    The same result gives the same bytes with the same version of Matplotlib, on any machine.

    Args:
        result: What ``result.json`` holds.
        folder: Where to write; made if it is not there.

    Returns:
        The files written; the page is the last.

    Raises:
        InputError: A result of another schema or kind, before anything is written.
    """
    kind = result.get("schema"), result.get("kind")
    if kind not in _FIGURES:
        raise InputError(
            f"the result has schema {kind[0]!r} and kind {kind[1]!r}; expected one of: "
            + ", ".join(f"{schema} {name}" for schema, name in _FIGURES)
        )
    drawn = [(figure, figure.render()) for figure in _FIGURES[kind](result)]
    report = page(result, drawn)
    figures = Path(folder) / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    written = []
    for figure, svg in drawn:
        written.append(figures / f"{figure.name}.svg")
        written[-1].write_bytes(svg)
    written.append(Path(folder) / "report.html")
    written[-1].write_text(report, encoding="utf-8")
    return written
