"""The tables of a result, as texts: the same in the terminal and in the report."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thalweg.report.claims_tables import claims_tables
from thalweg.report.escape_table import escape_table
from thalweg.report.measure_tables import measure_tables
from thalweg.report.notation import (
    MISSING,
    as_number,
    count,
    error_notation,
    estimate,
    fraction,
    plain,
)
from thalweg.report.shares import shares
from thalweg.report.table import Column, Row, Table, sampler_name
from thalweg.report.training_tables import training_tables

# Columns for minima: with more of them the table is wider than a terminal.
_MINIMA = 4
_MANY = 30
# Minima beside whose fraction the grid's predictions stand, two columns each.
_PREDICTED = 3
_ROUTES = ("sgd", "diffusion")
_COMPARED = "What was compared"


def tables(result: Mapping[str, Any]) -> list[Table]:
    """What was compared, and for a landscape its minima; for other kinds their own."""
    if result["kind"] == "point":
        return measure_tables(result)
    if result["kind"] == "claims":
        return claims_tables(result)
    if result["kind"] == "training":
        return training_tables(result)
    if result["kind"] == "network":
        return [_network_table(result)]
    made = [_landscape_table(result)]
    if any(row.get("grid") for row in result["rows"]):
        made.append(_grid_table(result))
    escapes = escape_table(result)
    made += [escapes] if escapes else []
    return [*made, *([_minima_table(result)] if result["minima"] else [])]


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: row[name] or MISSING


def _estimate(name: str) -> Callable[[Row], str]:
    """Mean and error; the error of few trials is itself known to a digit at most."""
    return lambda row: estimate(row[name], digits=2 if row["trials"] >= _MANY else 1)


_FIRST: list[Column] = [("sampler", sampler_name), ("step", _text("step"))]
_LAST: list[Column] = [
    ("grad. evals", lambda row: count(row["evaluations"])),
    ("steps /s", lambda row: count(row["steps_per_second"])),
]
_ENDS: list[Column] = [("distance", _estimate("distance")), ("loss", _estimate("loss"))]
_CURVATURE: list[Column] = [
    ("sharp\u00adness", _estimate("sharpness")),
    ("non-unif.", _estimate("nonuniformity")),
]
_DIVERGED: Column = (
    "diverged",
    lambda row: fraction({"fraction": row["diverged"], "error": None}),
)


def _landscape_table(result: Mapping[str, Any]) -> Table:
    rows = result["rows"]
    known = all(row["ends"] for row in rows)
    names, ends = shares(result, _MINIMA) if known else ([], [[] for _ in rows])
    before = [*_FIRST, *([] if known else _ENDS)]
    after = [*_diverged(rows), *_CURVATURE, ("stable?", _text("stable")), *_LAST]
    texts = [
        [*_cells(before, row), *(fraction(end) for end in own), *_cells(after, row)]
        for row, own in zip(rows, ends, strict=True)
    ]
    header = [*(name for name, _ in before), *names, *(name for name, _ in after)]
    what = "Fraction of the chains in the basin of each minimum" if known else "Ends of the chains"
    return Table(_COMPARED, f"{what}; {_reading(rows)}", header, texts)


def _grid_table(result: Mapping[str, Any]) -> Table:
    """Simulated fractions beside those that the grid predicts, for the most visited minima."""
    rows = [row for row in result["rows"] if row["grid"]]
    names, simulated = shares({**result, "rows": rows}, _PREDICTED)
    header = ["sampler"]
    for name in names:
        header += [name, "grid (SGD)", "grid (diffusion)"]
    texts = []
    for row, own in zip(rows, simulated, strict=True):
        cells = [sampler_name(row)]
        for name, end in zip(names, own, strict=True):
            cells += [fraction(end), *(_from_grid(row, route, name) for route in _ROUTES)]
        texts.append(cells)
    caption = (
        "Simulated fraction in the basin of each minimum, beside the predictions of the grid: by "
        "the sampler's own transition matrix, and by its diffusion limit; in brackets the change "
        "against half as many cells along each axis."
    )
    return Table("What the grid predicts", " ".join([caption, *_remarks(rows)]), header, texts)


def _from_grid(row: Row, route: str, name: str) -> str:
    for end in row["grid"][route]["ends"] or []:
        if end["minimum"] == name:
            return _with_grid_error(end)
    return MISSING


def _with_grid_error(end: Row) -> str:
    """Three digits at most: the grid knows no more of a fraction that is simulated to two."""
    return error_notation(end["fraction"], max(end["error"], 0.0005), digits=1)


def _remarks(rows: Sequence[Row]) -> list[str]:
    """What the grid said of a prediction, or why there is none: by each route the first."""
    said = (
        next(
            (
                f"{row['label']}: {row['grid'][route]['remark']}."
                for row in rows
                if row["grid"][route]["remark"]
            ),
            None,
        )
        for route in _ROUTES
    )
    return list(dict.fromkeys(remark for remark in said if remark))


def _network_table(result: Mapping[str, Any]) -> Table:
    rows = result["rows"]
    columns: list[Column] = [
        *_FIRST,
        ("stayed", _stayed),
        *_diverged(rows),
        *_ENDS,
        ("test acc.", _estimate("test_accuracy")),
        *_CURVATURE,
        ("foretold", _text("predicted")),
        ("largest stable η", _estimate("largest_step")),
        *_LAST,
    ]
    texts = [_start_cells(columns, result["start"]), *(_cells(columns, row) for row in rows)]
    caption = f"{_thresholds(rows)}{_reading(rows)}{_largest_steps(result['start'])}"
    return Table(_COMPARED, caption, [name for name, _ in columns], texts)


def _cells(columns: Sequence[Column], row: Row) -> list[str]:
    return [cell(row) for _, cell in columns]


def _diverged(rows: Sequence[Row]) -> list[Column]:
    return [_DIVERGED] if any(row["diverged"] for row in rows) else []


def _stayed(row: Row) -> str:
    """How many of the trials stayed: 3/4."""
    stayed = row["stayed"]
    return (
        MISSING if stayed is None else f"{stayed['fraction'] * row['trials']:.0f}/{row['trials']}"
    )


def _start_cells(columns: Sequence[Column], start: Row) -> list[str]:
    """The common start as a first row, with what is known of it."""
    known = {
        "sampler": "(start)",
        "loss": plain(start["loss"]),
        "test acc.": plain(start["test_accuracy"]),
        "sharp\u00adness": plain(start["sharpness"]),
        "non-unif.": plain(start["nonuniformity"]),
    }
    return [known.get(name, MISSING) for name, _ in columns]


def _reading(rows: Sequence[Row]) -> str:
    """How to read the errors, and how many trials there are."""
    trials = max(row["trials"] for row in rows)
    single = [row["label"] for row in rows if row["trials"] == 1 < trials]
    chains = f"{trials} chains a sampler" + (f", one of {', '.join(single)}" if single else "")
    example = error_notation(0.945, 0.016)
    biased = "" if all(row["unbiased"] for row in rows) else " *: a biased estimate."
    return f"{example} is .945 ± .016, one standard error; {chains}.{biased}"


def _thresholds(rows: Sequence[Row]) -> str:
    steps = dict.fromkeys(as_number(row["step"]) for row in rows)
    known = [f"{2 / step:.4g} at η = {step:g}" for step in steps if step]
    return f"2/η is {', '.join(known)}. " if known else ""


def _largest_steps(start: Row) -> str:
    """The largest stable steps at the start, which decide what is foretold there."""
    steps = {"GD": start["largest_step_gd"], **(start["largest_step"] or {})}
    known = [f"{name} {plain(step)}" for name, step in steps.items() if step is not None]
    return f" Largest stable η at the start: {', '.join(known)}." if known else ""


def _minima_table(result: Mapping[str, Any]) -> Table:
    minima = result["minima"]
    smooth = any(minimum["sharpness"] is not None for minimum in minima)
    columns: list[Column] = [
        ("minimum", lambda m: m["name"] + (" (start)" if m["start"] else "")),
        ("at θ", lambda m: _place(m["params"])),
        ("value", lambda m: plain(m["value"])),
    ]
    if smooth:
        columns += [
            ("sharp\u00adness", lambda m: plain(m["sharpness"])),
            ("non-unif.", lambda m: plain(m["nonuniformity"])),
            ("mean |∇f_i|", lambda m: plain(m["mean_sample_gradient"])),
            ("largest stable η", lambda m: plain(m["largest_step"])),
            ("GD's 2/λ", lambda m: plain(m["largest_step_gd"])),
        ]
    caption = "The minima, deepest first" + (
        "; (start): the basin in which the common start lies."
        if any(minimum["start"] for minimum in minima)
        else "."
    )
    texts = [_cells(columns, m) for m in minima]
    return Table("The minima", caption, [name for name, _ in columns], texts)


def _place(params: Sequence[float]) -> str:
    return f"({', '.join(f'{x:.3g}' for x in params)})"
