"""The C program as a measured piece: compiled into a temporary folder, run once a call."""

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import works

_FLAGS = ["-O3", "-march=native", "-ffast-math", "-mprefer-vector-width=512", "-fopenmp", "-lm"]


def floor(
    work: str,
    *,
    chains: int,
    steps: int,
    n: int = 4,
    dtype: str = "float32",
    threads: int = 1,
    dt: float = works.DT,
) -> Callable[[], dict[str, Any]]:
    """One work of floor.c; what it returns has its own clocks."""
    folder = tempfile.TemporaryDirectory()
    program, data = Path(folder.name, "floor"), Path(folder.name, "data")
    source = Path(__file__).with_name("floor.c")
    defines = [f"-DSAMPLES={n}", f"-DREAL_IS_DOUBLE={int(dtype == 'float64')}"]
    subprocess.run(["gcc", source, "-o", program, *defines, *_FLAGS], check=True)
    step = dt
    if work.startswith("quadratics"):
        works.quadratics(n).astype(dtype).tofile(data)
        step = works.QUADRATICS_STEP
    elif work.startswith("regression"):
        works.regression_rows().astype(dtype).tofile(data)
        step = works.REGRESSION_STEP
    arguments = [work, chains, steps, threads, 0, works.SEED, step, data]

    def run() -> dict[str, Any]:
        # The folder goes with the function that uses it.
        assert Path(folder.name).exists()
        output = subprocess.run(
            [program, *map(str, arguments)], check=True, stdout=subprocess.PIPE
        ).stdout
        return json.loads(output)

    return run


PIECES = {"floor": floor}
