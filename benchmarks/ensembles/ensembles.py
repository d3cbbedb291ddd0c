"""The ensemble engine against hand-written C and other libraries: see ../README.md.

python benchmarks/ensembles/ensembles.py [--quick] [--only ROW] [--rounds N]
"""

import argparse
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from measure import FLAGS, Measured, interleaved
from rows import ROWS, Check, Row

_RESULT = Path(__file__).parents[1] / "results" / "ensembles.json"
_PACKAGES = ("thalweg", "jax", "jaxlib", "numpy", "diffrax", "torch", "torchsde")


def main() -> None:
    """Measure the rows asked for, print them and keep them with those measured before."""
    arguments = _arguments()
    kept = json.loads(_RESULT.read_text())["rows"] if _RESULT.exists() else {}
    for name in [arguments.only] if arguments.only else ROWS:
        row = ROWS[name](arguments.quick)
        print(f"\n{name}: {row.title}", flush=True)
        measured = interleaved(row.pieces, arguments.rounds if row.repeated else 1)
        kept[name] = _result(row, measured) | {"quick": arguments.quick}
        _print(kept[name])
        _RESULT.parent.mkdir(exist_ok=True)
        rows = {key: kept[key] for key in ROWS if key in kept}
        _RESULT.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps and three rounds")
    parser.add_argument("--only", choices=ROWS, help="this row alone")
    parser.add_argument("--rounds", type=int, help="calls of each piece, 5 unless given")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (3 if arguments.quick else 5)
    return arguments


def _result(row: Row, measured: dict[str, Measured]) -> dict[str, Any]:
    return {
        "title": row.title,
        "pieces": {name: _piece(m) for name, m in measured.items()},
        "checks": [_check(check, measured) for check in row.checks],
    }


def _piece(m: Measured) -> dict[str, Any]:
    def spread(values: list[float]) -> dict[str, float]:
        return {"median": median(values), "min": min(values), "max": max(values)}

    return {
        "chains": m.piece.options["chains"],
        "steps": m.piece.options["steps"],
        "cores": m.piece.cores,
        "cpu_ns": spread(m.cpu),
        "wall_ns": spread(m.wall),
        "first_call_s": m.compilation,
        "memory_mb": m.memory * 1e-6,
        "idle_memory_mb": m.idle * 1e-6,
        "rounds": len(m.cpu),
        "outcome": m.outcome,
    }


def _check(check: Check, measured: dict[str, Measured]) -> dict[str, Any]:
    value = check.value(measured)
    bounds = {"low": check.low, "high": check.high}
    finite = {side: bound for side, bound in bounds.items() if abs(bound) != float("inf")}
    passed = check.low <= value <= check.high if finite else None
    return {"label": check.label, "value": value, **finite, "passed": passed}


def _print(result: dict[str, Any]) -> None:
    print(f"  {'':<26}{'CPU ns (min..max)':>24}{'wall ns':>9}{'1st call s':>12}{'MB':>6}")
    for name, piece in result["pieces"].items():
        cpu = piece["cpu_ns"]
        span = f"{cpu['median']:.3g} ({cpu['min']:.3g}..{cpu['max']:.3g})"
        print(
            f"  {name:<26}{span:>24}{piece['wall_ns']['median']:>9.3g}"
            f"{piece['first_call_s']:>12.2f}{piece['memory_mb']:>6.0f}"
        )
    for check in result["checks"]:
        bounds = " ".join(
            f"{sign} {check[side]:g}"
            for side, sign in (("low", ">="), ("high", "<="))
            if side in check
        )
        verdict = {True: "yes", False: "NO", None: ""}[check["passed"]]
        print(f"  {check['label']:<50}{check['value']:>8.3g}  {bounds:<18}{verdict}", flush=True)


def _machine() -> dict[str, Any]:
    information = Path("/proc/cpuinfo").read_text()
    model = next(x for x in information.splitlines() if x.startswith("model name"))
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True)
    return {
        "processor": model.split(":")[1].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "avx512": "avx512f" in information,
        "system": platform.system(),
        "python": platform.python_version(),
        "gcc": compiler.stdout.strip(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "flags": FLAGS,
    }


if __name__ == "__main__":
    main()
