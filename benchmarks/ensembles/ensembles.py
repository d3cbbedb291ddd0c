"""The ensemble engine against hand-written C and other libraries: see ../README.md.

python benchmarks/ensembles/ensembles.py [--quick] [--only ROW] [--rounds N]
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from measure import FLAGS, Measured
from program import Program, spread
from rows import ROWS, chain_steps, compilation

_PACKAGES = ("thalweg", "jax", "jaxlib", "numpy", "diffrax", "torch", "torchsde")
_HEADER = f"  {'':<26}{'CPU ns (min..max)':>24}{'wall ns':>9}{'1st call s':>12}{'MB':>6}"


def main() -> None:
    """Measure the rows asked for, print them and keep them with those measured before."""
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True)
    machine = {"gcc": compiler.stdout.strip(), "flags": FLAGS}
    description = __doc__.splitlines()[0]
    Program(
        "ensembles", description, ROWS, _PACKAGES, _piece, _HEADER, _line, machine=machine
    ).run()


def _piece(m: Measured) -> dict[str, Any]:
    def nanoseconds(values: list[float]) -> dict[str, float]:
        return spread([1e9 * value / chain_steps(m) for value in values])

    return {
        "chains": m.piece.options["chains"],
        "steps": m.piece.options["steps"],
        "cores": m.piece.cores,
        "cpu_ns": nanoseconds(m.cpu),
        "wall_ns": nanoseconds(m.wall),
        "first_call_s": compilation(m),
        "memory_mb": m.memory * 1e-6,
        "idle_memory_mb": m.idle * 1e-6,
        "rounds": len(m.cpu),
        "outcome": m.outcome,
    }


def _line(name: str, piece: dict[str, Any]) -> str:
    cpu = piece["cpu_ns"]
    span = f"{cpu['median']:.3g} ({cpu['min']:.3g}..{cpu['max']:.3g})"
    return (
        f"  {name:<26}{span:>24}{piece['wall_ns']['median']:>9.3g}"
        f"{piece['first_call_s']:>12.2f}{piece['memory_mb']:>6.0f}"
    )


if __name__ == "__main__":
    main()
