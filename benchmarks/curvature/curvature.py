"""Curvature of networks in units of one gradient: see ../README.md.

python benchmarks/curvature/curvature.py [--quick] [--only ROW] [--rounds N]
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from measure import Measured
from program import Program, spread
from rows import ROWS

_PACKAGES = ("thalweg", "jax", "jaxlib", "numpy", "scipy", "torch")
_HEADER = f"  {'':<22}{'CPU s (min..max)':>26}{'1st call':>10}{'MB':>8}  found"


def main() -> None:
    """Measure the rows asked for, print them and keep them with those measured before."""
    description = __doc__.splitlines()[0]
    with tempfile.TemporaryDirectory() as folder:
        counter = Path(folder, "peak.so")
        source = Path(__file__).with_name("peak.c")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", source, "-o", counter], check=True)
        # For the processes of the pieces.
        os.environ["LD_PRELOAD"] = str(counter)
        program = Program(
            "curvature", description, ROWS, _PACKAGES, _piece, _HEADER, _line, rounds=(3, 7)
        )
        program.run()


def _piece(m: Measured) -> dict[str, Any]:
    return {
        **m.piece.options,
        "cores": m.piece.cores,
        "cpu_s": spread(m.cpu),
        "first_call_cpu_s": m.first["cpu"] - median(m.cpu),
        "memory_mb": m.outcome.get("memory", m.memory) / 1e6,
        "rounds": len(m.calls),
        "outcome": m.outcome.get("found", m.outcome),
    }


def _line(name: str, piece: dict[str, Any]) -> str:
    cpu = piece["cpu_s"]
    times = f"{cpu['median']:.4g} ({cpu['min']:.4g}..{cpu['max']:.4g})"
    found = ", ".join(f"{key} {value:.5g}" for key, value in piece["outcome"].items())
    first, memory = piece["first_call_cpu_s"], piece["memory_mb"]
    return f"  {name:<22}{times:>26}{first:>10.1f}{memory:>8.0f}  {found}"


if __name__ == "__main__":
    main()
