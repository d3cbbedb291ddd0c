"""The table of the answers to how long the minimum of the start is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from thalweg.report.notation import MISSING, error_notation, plain
from thalweg.report.table import Column, Row, Table, sampler_name

_SPLIT, _DOUBTED, _ACTION = "°", "?", "‡"
_ROUTES = ("sgd", "diffusion", "law")


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
        *([("expo\u00adnent", _exponent)] if any(map(_known_exponent, rows)) else []),
    ]
    texts = [[cell(row) for _, cell in columns] for row in rows]
    title = "How long until another minimum is reached"
    return Table(title, _caption(rows, result["local"]), [name for name, _ in columns], texts)


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


def _known_exponent(row: Row) -> bool:
    return "action" in row["escape"] or row["escape"]["law"]["exponent"] is not None


def _exponent(row: Row) -> str:
    """The barrier in units of the noise; the action where there is no law."""
    action = row["escape"].get("action")
    if action is None:
        return plain(row["escape"]["law"]["exponent"])
    return error_notation(action["value"], action["error"], digits=1) + _ACTION


def _caption(rows: Sequence[Row], local: bool) -> str:
    grids = any(row["grid"] for row in rows)
    parts = [
        "Mean number of steps from the start until another minimum is reached (half way to it from "
        "the pass), by "
        + ("five routes: " if grids else "three routes: ")
        + "SGD and its diffusion limit, each simulated"
        + (" and on the grid" if grids else "")
        + ", and the law of Eyring and Kramers for the diffusion limit."
    ]
    if local:
        parts.append("Chains twice as far away as the farthest minimum known have left, too.")
    if any(map(_known_exponent, rows)):
        parts.append("Exponent: the barrier in units of the noise; the time is a power of e of it.")
    if any("action" in row["escape"] for row in rows):
        parts.append(f"{_ACTION}: the least action, of the path that is drawn.")
    cells = [row["escape"][route] for row in rows for route in ("sgd", "diffusion")]
    if any(cell["by"] == "bound" for cell in cells):
        parts.append("> : no chain left; with 95 % confidence the mean is longer.")
    if any(cell["by"] == "split" for cell in cells):
        parts.append(f"{_SPLIT}: by splitting.")
    doubted = [row["escape"]["law"] for row in rows if row["escape"]["law"]["steps"] is not None]
    reason = next((law["remark"] for law in doubted if not law["valid"]), None)
    parts += [f"{_DOUBTED}: {reason}."] if reason else []
    return " ".join([*parts, *_refusals(rows)])


def _refusals(rows: Sequence[Row]) -> list[str]:
    """Why cells are empty: of each reason the first row."""
    said: dict[str, str] = {}
    for row in rows:
        for route in _ROUTES:
            cell = row["escape"][route]
            if cell["steps"] is None and cell["remark"]:
                said.setdefault(cell["remark"], row["label"])
    return [f"{label}: {remark}." for remark, label in said.items()]
