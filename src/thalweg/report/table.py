"""A table of texts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]


@dataclass(frozen=True)
class Table:
    """Texts in columns; the first one names the row. Headings may hold soft hyphens.

    With ``words`` the cells are words instead of numbers: aligned to the left, and broken.
    """

    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    words: bool = False


def sampler_name(row: Row) -> str:
    """The name of a row, with a star if its estimate is biased."""
    return str(row["label"]) if row["unbiased"] else f"{row['label']} *"
