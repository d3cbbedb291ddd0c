"""Claims as tables: one for the terminal, and one an experiment for the page."""

from collections.abc import Mapping
from typing import Any

from thalweg.report.notation import MISSING
from thalweg.report.table import Table

_MARKS = {
    "holds": "holds",
    "holds when read as": "holds, read so",
    "does not hold as printed": "not as printed",
    "does not hold": "does not hold",
    "undecided": "undecided",
}


def claims_tables(result: Mapping[str, Any]) -> list[Table]:
    """The summary: every claim with its verdict and the numbers that decide."""
    rows = [
        ["" if place else one["name"], claim["where"], _MARKS[claim["verdict"]], deciding(claim)]
        for one in result["experiments"]
        for place, claim in enumerate(one.get("claims", ()))
    ]
    rows += [
        [one["name"], MISSING, "skipped", one["skipped"]]
        for one in result["experiments"]
        if one["skipped"]
    ]
    caption = (
        "Each claim as measured. Not as printed: false as it stands there, true as corrected; the "
        "numbers are those of the corrected statement, or else of the printed one."
    )
    header = ["experiment", "where", "verdict", "decided by"]
    return [Table("Claims", caption, header, rows, words=True)]


def deciding(claim: Mapping[str, Any]) -> str:
    """The numbers that decide a claim."""
    check = claim["corrected"] if claim["corrected"] and not claim["printed"]["holds"] else None
    return str((check or claim["printed"])["text"])
