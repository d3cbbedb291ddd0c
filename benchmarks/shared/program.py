"""The program around rows of pieces: arguments, tables, results that are kept."""

import argparse
import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from measure import Measured, Piece, interleaved

Quantity = Callable[[Measured], float]

_RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Check:
    """A quantity of a piece, or its ratio to another piece's, and the interval it must lie in."""

    label: str
    quantity: Quantity
    piece: str
    over: str | None = None
    low: float = -math.inf
    high: float = math.inf

    def value(self, measured: dict[str, Measured]) -> float:
        """The number to compare."""
        value = self.quantity(measured[self.piece])
        return value if self.over is None else value / self.quantity(measured[self.over])

    def result(self, measured: dict[str, Measured]) -> dict[str, Any]:
        """What is kept of it."""
        value = self.value(measured)
        bounds = {"low": self.low, "high": self.high}
        finite = {side: bound for side, bound in bounds.items() if abs(bound) != math.inf}
        passed = self.low <= value <= self.high if finite else None
        return {"label": self.label, "value": value, **finite, "passed": passed}


@dataclass(frozen=True)
class Row:
    """Pieces measured in turn, and what is asked of them."""

    title: str
    pieces: tuple[Piece, ...]
    checks: tuple[Check, ...]
    repeated: bool = True


@dataclass(frozen=True)
class Program:
    """A table of rows.

    Attributes:
        name: Of the file with the results.
        description: For ``--help``.
        rows: A function from ``--quick`` to each row.
        packages: Those whose versions are kept.
        piece: What is kept of a piece.
        header: The heads of the columns of pieces.
        line: A line of the table, from what is kept of a piece.
        rounds: Rounds of a quick run and of a full one.
        machine: More to keep about the machine.
    """

    name: str
    description: str
    rows: dict[str, Callable[[bool], Row]]
    packages: tuple[str, ...]
    piece: Callable[[Measured], dict[str, Any]]
    header: str
    line: Callable[[str, dict[str, Any]], str]
    rounds: tuple[int, int] = (3, 5)
    machine: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Measure the rows asked for, print them and keep them with those measured before."""
        arguments = self._arguments()
        result = _RESULTS / f"{self.name}.json"
        kept = json.loads(result.read_text())["rows"] if result.exists() else {}
        for name in [arguments.only] if arguments.only else self.rows:
            row = self.rows[name](arguments.quick)
            print(f"\n{name}: {row.title}", flush=True)
            measured = interleaved(row.pieces, arguments.rounds if row.repeated else 1)
            kept[name] = {
                "title": row.title,
                "pieces": {name: self.piece(m) for name, m in measured.items()},
                "checks": [check.result(measured) for check in row.checks],
                "quick": arguments.quick,
            }
            self._print(kept[name])
            result.parent.mkdir(exist_ok=True)
            rows = {key: kept[key] for key in self.rows if key in kept}
            result.write_text(
                json.dumps({"machine": self._machine(), "rows": rows}, indent=1) + "\n"
            )

    def _arguments(self) -> argparse.Namespace:
        quick, full = self.rounds
        parser = argparse.ArgumentParser(description=self.description)
        parser.add_argument("--quick", action="store_true", help="less work and fewer rounds")
        parser.add_argument("--only", choices=self.rows, help="this row alone")
        parser.add_argument(
            "--rounds",
            type=int,
            help=f"calls of each piece, {full} unless given (--quick: {quick})",
        )
        arguments = parser.parse_args()
        arguments.rounds = arguments.rounds or (quick if arguments.quick else full)
        return arguments

    def _print(self, result: dict[str, Any]) -> None:
        print(self.header)
        for name, piece in result["pieces"].items():
            print(self.line(name, piece))
        for check in result["checks"]:
            bounds = " ".join(
                f"{sign} {check[side]:g}"
                for side, sign in (("low", ">="), ("high", "<="))
                if side in check
            )
            verdict = {True: "yes", False: "NO", None: ""}[check["passed"]]
            print(
                f"  {check['label']:<58}{check['value']:>8.4g}  {bounds:<18}{verdict}", flush=True
            )

    def _machine(self) -> dict[str, Any]:
        information = Path("/proc/cpuinfo").read_text()
        model = next(x for x in information.splitlines() if x.startswith("model name"))
        return {
            "processor": model.split(":")[1].strip(),
            "cores": len(os.sched_getaffinity(0)),
            "avx512": "avx512f" in information,
            "system": platform.system(),
            "python": platform.python_version(),
            **self.machine,
            "packages": {name: metadata.version(name) for name in self.packages},
        }


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": median(values), "min": min(values), "max": max(values)}
