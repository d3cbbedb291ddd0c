"""Mean exit times of rare exits by splitting: see ../README.md.

python benchmarks/escape/splitting.py [--quick] [--only ROW] [--rounds N]
"""

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from measure import Measured
from program import Program, spread
from rows import ROWS

_PACKAGES = ("thalweg", "jax", "jaxlib", "numpy", "scipy")
_HEADER = f"  {'':<10}{'wall s (min..max)':>24}{'CPU s':>8}{'1st call':>10}{'MB':>7}{'found':>26}"


def main() -> None:
    """Measure the rows asked for, print them and keep them with those measured before."""
    description = __doc__.splitlines()[0]
    Program("escape", description, ROWS, _PACKAGES, _piece, _HEADER, _line, rounds=(3, 15)).run()


def _piece(m: Measured) -> dict[str, Any]:
    return {
        "case": m.piece.options["case"],
        "cores": m.piece.cores,
        "cpu_s": spread(m.cpu),
        "wall_s": spread(m.wall),
        "first_call_wall_s": m.first["wall"],
        "memory_mb": m.memory * 1e-6,
        "idle_memory_mb": m.idle * 1e-6,
        "rounds": len(m.cpu),
        "outcome": m.outcome,
    }


def _line(name: str, piece: dict[str, Any]) -> str:
    wall, outcome = piece["wall_s"], piece["outcome"]
    span = f"{wall['median']:.3g} ({wall['min']:.3g}..{wall['max']:.3g})"
    found = f"known {outcome['known']:.4g}"
    if "mean" in outcome:
        found = f"{outcome['mean'][-1]:.4g} +- {outcome['error'][-1]:.2g}, " + found
    return (
        f"  {name:<10}{span:>24}{piece['cpu_s']['median']:>8.3g}"
        f"{piece['first_call_wall_s']:>10.3g}{piece['memory_mb']:>7.0f}  {found}"
    )


if __name__ == "__main__":
    main()
