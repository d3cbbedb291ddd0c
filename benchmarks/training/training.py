"""Training by any sampler against loops by hand: see ../README.md.

python benchmarks/training/training.py [--quick] [--only ROW] [--rounds N]
"""

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from measure import Measured
from program import Program, spread
from rows import ROWS

_PACKAGES = ("thalweg", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint")
_HEADER = f"  {'':<22}{'CPU ms (min..max)':>30}{'wall ms':>10}{'MB':>7}"


def main() -> None:
    """Measure the rows asked for, print them and keep them with those measured before."""
    description = __doc__.splitlines()[0]
    Program("training", description, ROWS, _PACKAGES, _piece, _HEADER, _line, rounds=(3, 7)).run()


def _piece(m: Measured) -> dict[str, Any]:
    return {
        "cpu_s": spread(m.cpu),
        "wall_s": spread(m.wall),
        "memory_mb": m.memory * 1e-6,
        "rounds": len(m.cpu),
        "outcome": m.outcome,
    }


def _line(name: str, piece: dict[str, Any]) -> str:
    cpu = {key: 1e3 * value for key, value in piece["cpu_s"].items()}
    span = f"{cpu['median']:.4g} ({cpu['min']:.4g}..{cpu['max']:.4g})"
    wall = 1e3 * piece["wall_s"]["median"]
    return f"  {name:<22}{span:>30}{wall:>10.4g}{piece['memory_mb']:>7.0f}"


if __name__ == "__main__":
    main()
