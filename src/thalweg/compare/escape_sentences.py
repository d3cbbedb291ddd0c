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
    grid = row["grid"] and row["grid"][route]["exit"]
    if grid and grid["steps"] is not None and grid["error"] <= _COARSE * grid["steps"]:
        return grid["steps"], grid["error"]
    cell = row["escape"][route]
    if cell["steps"] is None:
        return None
    return cell["steps"], math.inf if cell["by"] == "bound" else cell["error"]


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
    finite = [error for error in (time[1], limit[1]) if math.isfinite(error)]
    apart = abs(limit[0] - time[0]) > 3 * math.hypot(*finite)
    if max(factor, 1 / factor) < _FACTOR or not apart:
        return None
    least = "at least " if math.isinf(limit[1]) or math.isinf(time[1]) else ""
    verb = "overestimates" if over else "underestimates"
    size = max(factor, 1 / factor)
    return f"{verb} {row['label']} by a factor of {least}{size:.2g}"
