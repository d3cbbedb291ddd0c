"""The result in a terminal, or in a pipe."""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from thalweg.report.tables import Table, tables

# In a pipe, where the width is unknown, lines have this many columns.
WIDTH = 100
_HEADING, _BREAKABLE = 6, 2


def console() -> Console:
    """Standard output, as wide as the terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=WIDTH)


def print_result(result: Mapping[str, Any], out: Console) -> None:
    """Print the tables, then notes and sentences; the last one, in bold, is the answer."""
    out.print(Text(result["title"], style="bold"))
    out.print(Text(result["description"]))
    for table in tables(result):
        out.print(_rich(table))
        out.print(Text(table.caption), style="dim")
    for note in result["notes"]:
        out.print(Text(note), style="dim")
    *sentences, headline = result["sentences"]
    for sentence in sentences:
        out.print(Text(f"\n{sentence}"))
    out.print(Text(f"\n{headline}", style="bold"))


def _rich(table: Table) -> RichTable:
    """Headings over several lines; where there is little room, names and steps are broken, too."""
    padding = (0, 1) if table.words else 0
    rich = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=padding, pad_edge=False)
    for place, name in enumerate(table.header):
        if table.words:
            rich.add_column(name, overflow="fold")
            continue
        rich.add_column(
            Text(fill(name.replace("\u00ad", "-"), _HEADING, break_long_words=False)),
            justify="left" if place == 0 else "right",
            no_wrap=place >= _BREAKABLE,
        )
    for row in table.rows:
        rich.add_row(*(Text(cell) for cell in row))
    return rich
