"""Per-sample gradient norms against a gradient and the usual tools: see ../README.md.

python benchmarks/gradnorms/gradnorms.py [--quick] [--only ROW] [--rounds N]
"""

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from measure import Measured
from program import Program, spread
from rows import ROWS

_PACKAGES = ("thalweg", "jax", "jaxlib", "numpy", "torch")
_HEADER = f"  {'':<22}{'CPU ms (min..max)':>26}{'1st call':>10}{'temporary MB':>14}{'MB':>7}"


def main() -> None:
    """Measure the rows asked for, print them and keep them with those measured before."""
    description = __doc__.splitlines()[0]
    Program("gradnorms", description, ROWS, _PACKAGES, _piece, _HEADER, _line, rounds=(3, 9)).run()


def _piece(m: Measured) -> dict[str, Any]:
    return {
        "cpu_s": spread(m.cpu),
        "wall_s": spread(m.wall),
        "first_call_wall_s": m.first["wall"],
        "memory_mb": m.memory * 1e-6,
        "idle_memory_mb": m.idle * 1e-6,
        "rounds": len(m.cpu),
        "outcome": m.outcome,
    }


def _line(name: str, piece: dict[str, Any]) -> str:
    cpu = {key: 1e3 * value for key, value in piece["cpu_s"].items()}
    span = f"{cpu['median']:.4g} ({cpu['min']:.4g}..{cpu['max']:.4g})"
    temporary = piece["outcome"].get("temporary_mb")
    shown = "" if temporary is None else f"{temporary:.4g}"
    return (
        f"  {name:<22}{span:>26}{piece['first_call_wall_s']:>10.3g}{shown:>14}"
        f"{piece['memory_mb']:>7.0f}"
    )


if __name__ == "__main__":
    main()
