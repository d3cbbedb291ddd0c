"""What an experiment returns: claims, tables, and how figures are drawn from these tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from thalweg.errors import InputError
from thalweg.papers.checks import Check

Verdict = Literal[
    "holds", "holds when read as", "does not hold as printed", "does not hold", "undecided"
]


@dataclass(frozen=True)
class Claim:
    """A statement of a document, and what came out.

    Attributes:
        where: Its place in the document: "Lemma 1", "(7)", "Figure 6".
        statement: The statement in our words.
        printed: The comparison that decides it as it is printed.
        corrected: The comparison that decides it as corrected, or as read; None if none is needed.
        reading: Under which reading it holds where the print leaves it open.
        correction: What it has to say where the print is wrong.
    """

    where: str
    statement: str
    printed: Check
    corrected: Check | None = None
    reading: str = ""
    correction: str = ""

    def __post_init__(self) -> None:
        if (self.corrected is None) != (not self.reading and not self.correction):
            raise InputError(
                f"the claim {self.where!r} needs a reading or a correction together with the check "
                "that decides it, or neither"
            )

    @property
    def verdict(self) -> Verdict:
        """One of five: holds, holds when read so, wrong in print, false, undecided."""
        if self.printed.holds:
            return "holds"
        if self.corrected is not None and self.corrected.holds:
            return "holds when read as" if self.reading else "does not hold as printed"
        outcomes = (self.printed.holds, self.corrected.holds if self.corrected else False)
        return "undecided" if None in outcomes else "does not hold"

    @property
    def failed(self) -> bool:
        """Whether it is false in print and as corrected."""
        return self.verdict == "does not hold"

    def saved(self) -> dict[str, Any]:
        """As plain texts and numbers."""
        return {
            "where": self.where,
            "statement": self.statement,
            "verdict": self.verdict,
            "printed": self.printed.saved(),
            "corrected": None if self.corrected is None else self.corrected.saved(),
            "reading": self.reading,
            "correction": self.correction,
        }


@dataclass(frozen=True)
class Series:
    """One line, set of points, band, histogram or image of a figure, by columns of a table.

    Attributes:
        table: The table's name.
        x: Its column along the axis.
        y: Its column upwards; for an image the other axis.
        label: For the legend; none if empty.
        family: The sampler's family (``sgd``, ``rr``, ``gd``, ...), which decides the colour; or
            the number of a colour that no sampler has, the same for series that belong together.
        kind: "line", "points", "steps" (a histogram's outline), "band" (between ``y`` and
            ``upper``), "bars", or "image" and "contour" (``z`` on the product of the columns).
        error: A column of standard errors.
        upper: The upper edge of a band.
        z: The values of an image, row by row (``y`` the slow axis).
        dashed: For what theory says, beside what was measured; points are hollow then.
    """

    table: str
    x: str
    y: str
    label: str = ""
    family: str = ""
    kind: Literal["line", "points", "steps", "band", "bars", "image", "contour"] = "line"
    error: str = ""
    upper: str = ""
    z: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        x: Name and unit of what is along.
        y: Name and unit of what is upwards.
        series: What is drawn.
        title: A few words; none where the caption does.
        log: The axes that are logarithmic: "", "x", "y" or "xy".
        limits: Of y where they matter.
        lines: Horizontal lines: a level and what it is.
        marks: Vertical lines, likewise.
        names: Of places along x, in the stead of numbers.
    """

    x: str
    y: str
    series: Sequence[Series]
    title: str = ""
    log: Literal["", "x", "y", "xy"] = ""
    limits: tuple[float, float] | None = None
    lines: Sequence[tuple[float, str]] = ()
    marks: Sequence[tuple[float, str]] = ()
    names: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Picture:
    """A figure: panels side by side, two a row at most.

    Attributes:
        name: Its file's name.
        caption: What is to be seen.
        panels: The axes.
    """

    name: str
    caption: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Attributes:
        claims: The statements, each decided.
        tables: Named tables: columns of equal length (those of images excepted).
        pictures: Figures, drawn from the tables alone.
        notes: What a reader must know beside.
    """

    claims: Sequence[Claim]
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for picture in self.pictures:
            for series in (s for panel in picture.panels for s in panel.series):
                self._require(picture.name, series)

    def _require(self, picture: str, series: Series) -> None:
        columns = self.tables.get(series.table, {})
        wanted = (series.x, series.y, series.error, series.upper, series.z)
        missing = [name for name in wanted if name and name not in columns]
        if missing:
            raise InputError(
                f"the figure {picture!r} draws {missing[0]!r} of the table {series.table!r}, which "
                f"has the columns: {', '.join(columns) or 'none'}"
            )

    def saved(self) -> dict[str, Any]:
        """As plain numbers and texts, for ``result.json``."""
        return {
            "claims": [claim.saved() for claim in self.claims],
            "tables": {
                name: {column: np.asarray(values) for column, values in table.items()}
                for name, table in self.tables.items()
            },
            "pictures": [_plain(picture) for picture in self.pictures],
            "notes": list(self.notes),
        }


def _plain(picture: Picture) -> dict[str, Any]:
    panels = [{**vars(p), "series": [dict(vars(s)) for s in p.series]} for p in picture.panels]
    return {"name": picture.name, "caption": picture.caption, "panels": panels}
