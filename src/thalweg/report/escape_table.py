"""The table of the answers to how long the minimum of the start is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from thalweg.report.notation import MISSING, error_notation, plain
from thalweg.report.table import Column, Row, Table, sampler_name

_SPLIT, _DOUBTED = "°", "?"


def escape_table(result: Mapping[str, Any]) -> Table | None:
    """One row a sampler; None where nothing was asked."""
    rows = [row for row in result["rows"] if row.get("escape")]
    if not rows:
        return None
    columns: list[Column] = [
        ("sampler", sampler_name),
        ("simu\u00adlated", lambda row: _simulated(row["escape"]["sgd"])),
        *_on_grid(rows, "grid (SGD)", "sgd"),
        ("diffu\u00adsion, simu\u00adlated", lambda row: _simulated(row["escape"]["diffusion"])),
        *_on_grid(rows, "diffu\u00adsion, grid", "diffusion"),
        ("Eyring-Kramers", lambda row: _law(row["escape"]["law"])),
    ]
    texts = [[cell(row) for _, cell in columns] for row in rows]
    title = "How long until another minimum is reached"
    return Table(title, _caption(rows), [name for name, _ in columns], texts)


def _on_grid(rows: Sequence[Row], name: str, route: str) -> list[Column]:
    """The column of a grid, if there is one in this dimension."""

    def cell(row: Row) -> str:
        found = row["grid"] and row["grid"][route]["exit"]
        if not found or found["steps"] is None or found["error"] > found["steps"]:
            return MISSING
        # The change against half as many cells is known to a digit.
        return error_notation(found["steps"], found["error"], digits=1)

    return [(name, cell)] if any(row["grid"] for row in rows) else []


def _simulated(cell: Mapping[str, Any]) -> str:
    if cell["by"] == "bound":
        return f">{plain(cell['steps'])}"
    text = error_notation(cell["steps"], cell["error"])
    return text + _SPLIT if cell["by"] == "split" else text


def _law(cell: Mapping[str, Any]) -> str:
    text = plain(cell["steps"])
    return text if cell["valid"] or text == MISSING else f"{text} {_DOUBTED}"


def _caption(rows: Sequence[Row]) -> str:
    parts = [
        "Mean number of steps from the start until another minimum is reached (half way to it from "
        "the pass), by five routes: SGD and its diffusion limit, each simulated and on the grid, "
        "and the law of Eyring and Kramers for the diffusion limit."
    ]
    cells = [row["escape"][route] for row in rows for route in ("sgd", "diffusion")]
    if any(cell["by"] == "bound" for cell in cells):
        parts.append("> : no chain left; with 95 % confidence the mean is longer.")
    if any(cell["by"] == "split" for cell in cells):
        parts.append(f"{_SPLIT}: by splitting.")
    doubted = [row["escape"]["law"] for row in rows if row["escape"]["law"]["steps"] is not None]
    reason = next((law["remark"] for law in doubted if not law["valid"]), None)
    parts += [f"{_DOUBTED}: {reason}."] if reason else []
    return " ".join(parts)
