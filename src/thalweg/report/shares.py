"""Where chains ended, as columns of a bounded number."""

import math
from collections.abc import Mapping
from typing import Any

ELSEWHERE = "elsewhere"
Share = Mapping[str, Any]


def shares(result: Mapping[str, Any], most: int) -> tuple[list[str], list[list[Share]]]:
    """The names of minima, deepest first, and the fraction of each row's chains in each of them.

    If there are more than ``most``, the least visited ones are summed up under "elsewhere".

    Args:
        result: Of a landscape with known minima.
        most: The largest number of columns.
    """
    names = list(dict.fromkeys(end["minimum"] for row in result["rows"] for end in row["ends"]))
    order = {minimum["name"]: place for place, minimum in enumerate(result["minima"])}
    names.sort(key=lambda name: order.get(name, len(order)))
    tables = [{end["minimum"]: end for end in row["ends"]} for row in result["rows"]]
    if len(names) <= most:
        return names, [[table.get(name, _NONE) for name in names] for table in tables]
    visited = sorted(names, key=lambda name: -max(t.get(name, _NONE)["fraction"] for t in tables))
    kept = [name for name in names if name in visited[: most - 1]]
    rows = [
        [*(table.get(name, _NONE) for name in kept), _rest(table, kept, row["trials"])]
        for table, row in zip(tables, result["rows"], strict=True)
    ]
    return [*kept, ELSEWHERE], rows


_NONE: Share = {"fraction": 0.0, "error": 0.0}


def _rest(table: Mapping[str, Share], kept: list[str], trials: int) -> Share:
    p = sum(share["fraction"] for name, share in table.items() if name not in kept)
    # Rounding may leave a sum just above 1 or next to 0.
    p = min(1.0, max(0.0, round(p, 6)))
    return {"fraction": p, "error": math.sqrt(p * (1 - p) / trials)}
