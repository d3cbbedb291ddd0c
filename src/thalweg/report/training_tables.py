"""The tables of trainings: what each sampler reached, and what the gauge saw."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thalweg.report.notation import MISSING, count, error_notation, estimate, plain
from thalweg.report.table import Column, Row, Table, sampler_name

_ROUNDING = 1e-6


def training_tables(result: Mapping[str, Any]) -> list[Table]:
    """What was reached and what was selected; what the gauge saw, if it looked."""
    made = [_reached(result["rows"])]
    if any(row["sharpness"] for row in result["rows"]):
        made.append(_selected(result["rows"]))
    if any(row["gauge"] for row in result["rows"]):
        made.append(_gauged(result["rows"]))
    return made


def _estimate(name: str) -> Callable[[Row], str]:
    """Mean and error; the error of a few seeds is itself known to a digit at most."""
    return lambda row: estimate(row[name], digits=1)


def _reached(rows: Sequence[Row]) -> Table:
    columns: list[Column] = [
        ("sampler", sampler_name),
        ("step", lambda row: row["step"]),
        ("steps", lambda row: count(row["steps"])),
        ("train loss", _estimate("loss")),
        ("test loss", _estimate("test_loss")),
    ]
    if any(row["test_accuracy"] for row in rows):
        columns.append(("test acc.", _estimate("test_accuracy")))
    columns += [
        ("sec\u00adonds", lambda row: plain(row["seconds"])),
        ("steps /s", lambda row: count(row["steps_per_second"])),
        ("steps to", lambda row: _when(row, "step", count)),
        ("sec. to", lambda row: _when(row, "seconds", plain)),
    ]
    caption = f"{_seeds(rows)}{_target(rows)}"
    return _table("What was reached", caption, columns, rows)


def _seeds(rows: Sequence[Row]) -> str:
    """How to read the errors, and what a second is."""
    seeds = max(row["seeds"] for row in rows)
    biased = "" if all(row["unbiased"] for row in rows) else " *: a biased estimate."
    if seeds == 1:
        return f"One seed.{biased}"
    example = error_notation(0.945, 0.016)
    return (
        f"{example} is .945 ± .016, one standard error over {seeds} seeds, which run side by side: "
        f"seconds are those of all of them together, steps /s counts the steps of each.{biased}"
    )


def _target(rows: Sequence[Row]) -> str:
    level = next((row["target"]["loss"] for row in rows if row["target"]), None)
    if level is None:
        return ""
    first = rows[0]["label"]
    return f" Steps and seconds to: until the mean test loss is {plain(level)}, where {first} ends."


def _when(row: Row, name: str, written: Callable[[float | None], str]) -> str:
    return written(row["target"][name]) if row["target"] else MISSING


def _selected(rows: Sequence[Row]) -> Table:
    columns: list[Column] = [
        ("sampler", sampler_name),
        ("step", lambda row: row["step"]),
        ("sharp\u00adness", _estimate("sharpness")),
        ("2/sharp.", _estimate("largest_step_gd")),
        ("non-unif.", _estimate("nonuniformity")),
        ("largest stable η", _estimate("largest_step")),
        ("stable?", lambda row: row["stable"] or MISSING),
        ("mean |∇f_i|", _estimate("mean_sample_gradient")),
    ]
    about = next(row["assessed"] for row in rows if row["assessed"])
    caption = (
        f"Where training ended, on {about['samples']} training samples"
        f"{_of_seeds(about['seeds'])}. Largest stable η: of SGD in mean square on the leading "
        "directions, for the batch of the row; the rows of RR have no such condition."
    )
    return _table("What was selected", caption, columns, rows)


def _of_seeds(seeds: int) -> str:
    return ", one seed" if seeds == 1 else f", {seeds} seeds"


def _gauged(rows: Sequence[Row]) -> Table:
    gauged = [row for row in rows if row["gauge"]]
    columns: list[Column] = [
        ("sampler", sampler_name),
        ("variance SGD", lambda row: plain(row["gauge"]["trace_sgd"][-1])),
        ("RR", lambda row: plain(row["gauge"]["trace_rr"][-1])),
        ("ratio at the end", lambda row: _ratio(row["gauge"], -1)),
        ("at the start", lambda row: _ratio(row["gauge"], 0)),
        ("time of a step", lambda row: plain(row["gauge"]["cost_ratio"][-1])),
        ("meas\u00adured", lambda row: plain(row["cost"]["ratio"]) if row["cost"] else MISSING),
        ("as fast as SGD", lambda row: plain(_speed_up(row))),
        ("pays?", _pays),
    ]
    caption = (
        "The gauge, at the places that each row has reached: trace of the covariance of one batch "
        "gradient of SGD and of RR; their ratio; how many times as long a step of RR takes, as the "
        "gauge has it, and as long as that of SGD's own row took here; and how many times as fast "
        "RR would descend by this time, from the share of SGD's descent that noise takes. A row of "
        "SGD is compared with what rolling scores would do."
    )
    return _table("What the gauge saw", caption, columns, gauged)


def _speed_up(row: Row) -> float | None:
    """By the time its step took, where that is known, else by the gauge's."""
    return row["cost"]["speed_up"] if row["cost"] else row["gauge"]["speed_up"][-1]


def _pays(row: Row) -> str:
    speed_up = _speed_up(row)
    # There is no ratio where SGD does not descend.
    faster = speed_up is None or speed_up > 1
    return "yes" if faster and row["gauge"]["pays"][-1] else "no"


def _ratio(gauge: Mapping[str, Any], place: int) -> str:
    mean, error = gauge["variance_ratio"][place], gauge["variance_ratio_error"][place]
    # Where no score is known yet all samples say the same, to rounding.
    return error_notation(mean, error if error > _ROUNDING * mean else None, digits=1)


def _table(title: str, caption: str, columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    texts = [[cell(row) for _, cell in columns] for row in rows]
    return Table(title, caption, [name for name, _ in columns], texts)
