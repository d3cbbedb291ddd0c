"""A process that measures one piece: it prepares it once and runs it each time it is told to.

Started by measure.py with a JSON order as its argument: folder, module, piece, options and cores.
Each line on standard input is answered by a line of JSON: CPU seconds of this process (all threads)
and wall seconds of the call, peak memory so far and before the first call in bytes, and what the
piece returned. A piece with clocks of its own returns ``cpu``, ``wall`` and perhaps ``parts``.
"""

import importlib
import json
import os
import resource
import sys
import time


def main() -> None:
    """Answer until standard input ends."""
    order = json.loads(sys.argv[1])
    # Before JAX looks how many there are.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-order["cores"] :])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, order["folder"])
    piece = importlib.import_module(order["module"]).PIECES[order["piece"]](**order["options"])
    idle = _peak_memory()
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        outcome = piece()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        own = {name: outcome.pop(name) for name in ("cpu", "wall", "parts") if name in outcome}
        answer = {"cpu": cpu, "wall": wall, "memory": _peak_memory(), "idle": idle} | own
        print(json.dumps(answer | {"outcome": outcome}), file=answers, flush=True)


def _peak_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
