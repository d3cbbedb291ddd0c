"""Every claim on one page: docs/claims.md, and docs/reproduced/claims.json behind it.

    thalweg reproduce ... --out DIR
    python docs/reproduced/page.py DIR/result.json ...

Takes the claims of results, or of single outcomes, into what is there; later ones replace earlier.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalweg.papers.catalogue import DOCUMENTS, experiments
from thalweg.papers.job import counted
from thalweg.report.claims_tables import deciding

_HERE = Path(__file__).parent
KEPT, PAGE = _HERE / "claims.json", _HERE.parent / "claims.md"
_MARKS = {
    "holds": "holds",
    "holds when read as": "holds, read so",
    "does not hold as printed": "**not as printed**",
    "does not hold": "**does not hold**",
    "undecided": "undecided",
}
_HEAD = """# Every claim, measured

Statements, figures and tables of the five documents, each as its experiment decided it:
`thalweg reproduce NAME` runs one again. Numbers are those of full runs unless *quick* is said. A
value stands with its standard error, three of which decide; *not as printed* means false as it
stands in the document and true as corrected, and the numbers are those of the corrected statement.
What it comes to is told in [reproduce.md](reproduce.md); this page is made from
[claims.json](reproduced/claims.json) by [page.py](reproduced/page.py).
"""


def kept() -> dict[str, Any]:
    """What is there: experiments by name."""
    return json.loads(KEPT.read_text()) if KEPT.is_file() else {}


def page(there: Mapping[str, Any]) -> str:
    """The page, in the order of the catalogue."""
    parts = [_HEAD, counted([claim for one in there.values() for claim in one["claims"]])]
    for name, document in DOCUMENTS.items():
        parts += ["", f"## {document.source}", ""]
        for one in experiments():
            if one.document == name and one.name in there:
                parts += _section(one.name, one.title, there[one.name])
    return "\n".join(parts) + "\n"


def _section(name: str, title: str, found: Mapping[str, Any]) -> list[str]:
    how = f"`{name}`, *quick*" if found["quick"] else f"`{name}`"
    lines = [f"### {title}", "", how, "", "| where | claim | | decided by |", "|---|---|---|---|"]
    for claim in found["claims"]:
        cells = claim["where"], _told(claim), _MARKS[claim["verdict"]], deciding(claim)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _told(claim: Mapping[str, Any]) -> str:
    """The statement, with what it has to say or how it is read."""
    instead = claim["correction"] or claim["reading"]
    told = bool(instead) and claim["verdict"] != "holds"
    return f"{claim['statement']}<br>→ {instead}" if told else claim["statement"]


def main() -> None:
    """Read, merge and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="*", type=Path)
    there = kept()
    for path in parser.parse_args().results:
        result = json.loads(path.read_text())
        quick = result.get("arguments", {}).get("quick", False)
        for one in result.get("experiments", [result]):
            if not one["skipped"]:
                there[one["name"]] = {"quick": quick, "claims": one["claims"]}
    KEPT.write_text(json.dumps(there, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(there))


if __name__ == "__main__":
    main()
