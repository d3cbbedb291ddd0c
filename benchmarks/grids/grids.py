"""Questions about a diffusion on a grid beside other libraries: see ../README.md.

python benchmarks/grids/grids.py [--quick] [--only ROW] [--rounds N]
"""

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from measure import Measured
from program import Program, spread
from rows import ROWS

_PACKAGES = ("thalweg", "jax", "jaxlib", "numpy", "scipy", "pyamg", "fplanck", "FiPy", "py-pde")
_HEADER = (
    f"  {'':<22}{'CPU s (min..max)':>24}{'solution':>10}{'wall s':>8}{'1st call':>10}"
    f"{'MB':>7}{'outcome':>18}"
)


def main() -> None:
    """Measure the rows asked for, print them and keep them with those measured before."""
    description = __doc__.splitlines()[0]
    Program("grids", description, ROWS, _PACKAGES, _piece, _HEADER, _line, rounds=(2, 5)).run()


def _piece(m: Measured) -> dict[str, Any]:
    return {
        "cells": m.piece.options["cells"],
        "cpu_s": spread(m.cpu),
        "wall_s": spread(m.wall),
        "parts_cpu_s": {name: spread(m.part(name)) for name in m.first.get("parts", {})},
        "first_call_cpu_s": m.first["cpu"],
        "memory_mb": m.memory * 1e-6,
        "idle_memory_mb": m.idle * 1e-6,
        "rounds": len(m.cpu),
        "outcome": m.outcome,
    }


def _line(name: str, piece: dict[str, Any]) -> str:
    cpu, parts = piece["cpu_s"], piece["parts_cpu_s"]
    span = f"{cpu['median']:.3g} ({cpu['min']:.3g}..{cpu['max']:.3g})"
    solution = f"{parts['solution']['median']:.3g}" if "solution" in parts else ""
    outcome = piece["outcome"]
    found = f"error {outcome['error']:.1e}" if "error" in outcome else ""
    found = f"time {outcome['time']:.5f}" if "time" in outcome else found
    return (
        f"  {name:<22}{span:>24}{solution:>10}{piece['wall_s']['median']:>8.3g}"
        f"{piece['first_call_cpu_s']:>10.3g}{piece['memory_mb']:>7.0f}{found:>18}"
    )


if __name__ == "__main__":
    main()
