"""Finished trainings side by side, from their results alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thalweg.train.files import SCHEMA, finished
from thalweg.train.record import add_costs, add_targets
from thalweg.train.sentences import training_sentences


def side_by_side(folders: Sequence[str]) -> dict[str, Any]:
    """The rows of several trainings in one result, each named after its folder.

    Losses can be set against each other only where the data and the loss are the same; a note says
    in what the configurations differ.

    Raises:
        InputError: A training that is not finished.
    """
    results = [finished(folder) for folder in folders]
    rows = [
        {**row, "label": f"{name}: {row['label']}", "target": None}
        for name, result in zip(_names(folders), results, strict=True)
        for row in result["rows"]
    ]
    differing = _differing([result["config"] for result in results])
    comparable = not any(name.startswith(("data.", "loss", "model.at")) for name, _ in differing)
    add_costs(rows)
    if comparable:
        add_targets(rows)
    about = training_sentences(rows)
    notes = [f"{name}: {', '.join(map(json.dumps, values))}." for name, values in differing]
    if not comparable:
        notes.insert(0, "Data or losses differ: what is reached cannot be set side by side.")
        about["sentences"] = [f"{len(folders)} trainings of different losses."]
    first = results[0]
    return {
        "schema": SCHEMA,
        "kind": "training",
        "command": "compare",
        "title": first["title"] if comparable else "trainings of different losses",
        "description": f"{len(folders)} trainings side by side",
        "source": "",
        "problem": first["problem"],
        "arguments": {"problem": list(folders)},
        "environment": first["environment"],
        "rows": rows,
        "sentences": about["sentences"],
        "notes": [*notes, *about["notes"]],
    }


def _names(folders: Sequence[str]) -> list[str]:
    """The last part of each path; all of it where that is not enough."""
    short = [Path(folder).resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else list(folders)


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Keys by their whole names, and what each configuration has there; rows are left out."""
    flat = [dict(_entries(config)) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one)
    found = [(name, [one.get(name) for one in flat]) for name in names]
    return [(name, values) for name, values in found if any(v != values[0] for v in values)]


def _entries(config: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    entries = []
    for name, value in config.items():
        if name == "sampler":
            continue
        whole = f"{before}{name}"
        entries += _entries(value, f"{whole}.") if isinstance(value, Mapping) else [(whole, value)]
    return entries
