"""What a training says in words, from its numbers alone."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
# Differences below so many of their standard errors are not worth a sentence.
_CLEAR = 2.0
# Eigenvalues below minus this share of the sharpness are negative beyond their accuracy.
_NEGATIVE = 2e-3


def training_sentences(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Who reached what, what was selected, what the gauge says; the last is the answer."""
    ended = [row for row in rows if row["failure"] is None]
    found = [*_sooner(ended), *_selected(ended), *_gauges(ended)[1:], _reached(ended)]
    return {"sentences": [*found, *_gauges(ended)[:1]], "notes": _notes(rows)}


def _reached(rows: Sequence[Row]) -> str:
    name, what = (
        ("test_accuracy", "test accuracy") if _classified(rows) else ("test_loss", "test loss")
    )
    best = (max if _classified(rows) else min)(rows, key=lambda row: row[name]["mean"])
    text = f"Best {what}: {best['label']}, {_with_error(best[name], _classified(rows))}"
    same = [row["label"] for row in rows if row is not best and not _apart(row[name], best[name])]
    others = len(rows) - 1
    if not others:
        return f"{text}."
    if len(same) == others:
        return f"{text}; the others differ by less than two standard errors."
    return f"{text}; within two standard errors of it: {_list(same)}." if same else f"{text}."


def _classified(rows: Sequence[Row]) -> bool:
    return all(row["test_accuracy"] for row in rows)


def _sooner(rows: Sequence[Row]) -> list[str]:
    """How long the others took to the test loss at which the first row ends."""
    first, *others = rows
    if not others or not first["target"]:
        return []
    reached = [row for row in others if row["target"] and row["target"]["step"] is not None]
    late = [row["label"] for row in others if row not in reached]
    parts = [
        f"{row['label']} in {_times(row['target']['step'], first['target']['step'])} the steps and "
        f"{_times(row['target']['seconds'], first['target']['seconds'])} the time"
        for row in reached
    ]
    loss = f"The test loss at which {first['label']} ends, {first['target']['loss']:.3g}, was "
    text = f"{loss}reached by {_list(parts)}" if parts else f"{loss}reached by nobody else"
    return [text + (f"; not by {_list(late)}." if parts and late else ".")]


def _times(value: float, reference: float) -> str:
    return f"{value / reference:.2f} times" if reference else "none of"


def _selected(rows: Sequence[Row]) -> list[str]:
    seen = [row for row in rows if row["sharpness"]]
    if not seen:
        return []
    flat = min(seen, key=lambda row: row["sharpness"]["mean"])
    sharp = max(seen, key=lambda row: row["sharpness"]["mean"])
    if flat is sharp:
        return [f"{flat['label']} ended at sharpness {flat['sharpness']['mean']:.3g}."]
    return [
        f"The flattest end is that of {flat['label']} (sharpness {flat['sharpness']['mean']:.3g}, "
        f"non-uniformity {flat['nonuniformity']['mean']:.3g}), the sharpest that of "
        f"{sharp['label']} ({sharp['sharpness']['mean']:.3g}, "
        f"{sharp['nonuniformity']['mean']:.3g})."
    ]


def _gauges(rows: Sequence[Row]) -> list[str]:
    """The last sentence of each gauge of RR, and what its step has cost; SGD's if there is none."""
    gauged = [row for row in rows if row["gauge"]]
    others = [row for row in gauged if row["family"] not in ("sgd", "sgd-half")]
    return [f"{row['label']}: {row['gauge']['sentence']}.{_cost(row)}" for row in others or gauged]


def _cost(row: Row) -> str:
    cost = row["cost"]
    if not cost:
        return ""
    text = f" Its step took {cost['ratio']:.2f} times as long as that of {cost['like']}"
    if cost["speed_up"] is None:
        return f"{text}."
    return f"{text}: so {cost['speed_up']:.2f} times as fast."


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = _no_minima(rows)
    for row in rows:
        if row["failure"] is not None:
            notes.append(f"{row['label']} diverged: {row['failure']}.")
        elif row["diverged"]:
            notes.append(f"{row['label']}: {row['diverged']} of {row['seeds']} seeds diverged.")
        if row["stopped"]:
            notes.append(
                f"{row['label']} stopped at the loss asked for after {row['steps']} steps."
            )
        for switch in row["switches"]:
            notes.append(f"{row['label']}: {switch}.")
    return notes


def _no_minima(rows: Sequence[Row]) -> list[str]:
    """Where thresholds are those of the curved directions only."""
    ends = [
        f"{row['label']} ({row['smallest_eigenvalue']['mean']:.2g})"
        for row in rows
        if row["sharpness"]
        and row["smallest_eigenvalue"]["mean"] < -_NEGATIVE * row["sharpness"]["mean"]
    ]
    if not ends:
        return []
    return [
        "No minima, for H has negative eigenvalues there: the ends of "
        f"{_list(ends)}; their thresholds are those of the curved directions."
    ]


def _apart(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    error = (one["error"] ** 2 + other["error"] ** 2) ** 0.5
    return abs(one["mean"] - other["mean"]) > _CLEAR * error


def _with_error(value: Mapping[str, float], percent: bool) -> str:
    scale, unit = (100, " %") if percent else (1, "")
    error = f" ± {scale * value['error']:.2g}" if value["error"] else ""
    return f"{scale * value['mean']:.4g}{error}{unit}"


def _list(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
