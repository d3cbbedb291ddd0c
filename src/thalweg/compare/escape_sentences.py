"""What a result says in words about how long the minimum of the start is kept."""

import math
from collections.abc import Sequence
from typing import Any

Rows = Sequence[dict[str, Any]]
# Times that differ by a smaller factor are not worth a sentence.
_FACTOR = 2.0
# A grid whose answer changes by more than this share against half as many cells is not trusted.
_COARSE = 0.3


def escape_sentences(rows: Rows, home: str | None) -> list[str]:
    """How long each sampler takes, and where the diffusion limit is wrong about it."""
    known = [(row, _time(row, "sgd")) for row in rows if row.get("escape")]
    told = [f"{row['label']} {_text(time)}" for row, time in known if time is not None]
    if not told:
        return []
    sentences = [f"Steps from {home} to another minimum: " + "; ".join(told) + "."]
    wrong = [text for row, time in known if time is not None and (text := _wrong(row, time))]
    if wrong:
        sentences.append(
            "About the time to leave, the diffusion limit "
            + "; ".join(wrong)
            + ". Trust the chain."
        )
    return sentences


def _time(row: dict[str, Any], route: str) -> tuple[float, float] | None:
    """The best answer of a route with its error: infinite for a bound from below."""
    cell = row["escape"][route]
    seen = None
    if cell["steps"] is not None:
        seen = cell["steps"], math.inf if cell["by"] == "bound" else cell["error"]
    grid = row["grid"] and row["grid"][route]["exit"]
    if not grid or grid["steps"] is None or grid["error"] > _COARSE * grid["steps"]:
        return seen
    of_grid = grid["steps"], grid["error"]
    # Where noise is too thin for the cells, half as many of them err alike.
    contradicted = seen is not None and math.isfinite(seen[1]) and _apart(of_grid, seen)
    return seen if contradicted else of_grid


def _apart(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two times differ by a factor worth a sentence, and beyond their errors."""
    finite = [error for _, error in (one, other) if math.isfinite(error)]
    low, high = sorted((one[0], other[0]))
    return high >= _FACTOR * low and high - low > 3 * math.hypot(*finite)


def _text(time: tuple[float, float]) -> str:
    steps, error = time
    return f"more than {steps:.2g}" if math.isinf(error) else f"{steps:.3g}"


def _wrong(row: dict[str, Any], time: tuple[float, float]) -> str | None:
    """By what factor the diffusion limit is off, if it is beyond the errors."""
    limit = _time(row, "diffusion")
    if limit is None or (math.isinf(time[1]) and math.isinf(limit[1])):
        return None
    factor = limit[0] / time[0]
    over = factor > 1
    # A bound from below decides in one direction only.
    if math.isinf(time[1] if over else limit[1]):
        return None
    if not _apart(time, limit):
        return None
    least = "at least " if math.isinf(limit[1]) or math.isinf(time[1]) else ""
    verb = "overestimates" if over else "underestimates"
    size = max(factor, 1 / factor)
    return f"{verb} {row['label']} by a factor of {least}{size:.2g}"
