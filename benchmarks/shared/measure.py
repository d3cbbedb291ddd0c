"""Pieces measured in turn: each in a process of its own, one call of each a round."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The environment line of the documentation.
FLAGS = (
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000,"
    "xla_cpu_use_multi_output_fusion=true"
)
# Where the modules of the running program are.
_FOLDER = str(Path(sys.argv[0]).resolve().parent)


@dataclass(frozen=True)
class Piece:
    """What one process does.

    Attributes:
        name: In tables.
        module: Where its function is (``ours``, ``peers`` and the like).
        piece: The name of the function in the module's table.
        options: Its arguments.
        flags: Whether the process runs with the documented environment line.
        cores: How many it may use.
        once: Whether its first call is the measurement, and the only one.
    """

    name: str
    module: str
    piece: str
    options: dict[str, Any]
    flags: bool = False
    cores: int = 1
    once: bool = False


@dataclass
class Measured:
    """The calls of a piece.

    Attributes:
        piece: The piece.
        first: The first call, with what is compiled then.
        calls: Further ones, or the first if there are no others.
        memory: Peak memory of the process in bytes.
        idle: The same before the first call: Python, the imports, the data.
        outcome: What the last call returned.
    """

    piece: Piece
    first: dict[str, Any] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    memory: int = 0
    idle: int = 0
    outcome: dict[str, Any] = field(default_factory=dict)

    @property
    def cpu(self) -> list[float]:
        """CPU seconds of the calls."""
        return [call["cpu"] for call in self.calls]

    @property
    def wall(self) -> list[float]:
        """Wall seconds of the calls."""
        return [call["wall"] for call in self.calls]

    def part(self, name: str) -> list[float]:
        """CPU seconds of a part of the calls: see :class:`Clock`."""
        return [call["parts"][name] for call in self.calls]

    def take(self, answer: dict[str, Any]) -> None:
        """One more call; the first is kept apart."""
        self.memory, self.idle = answer["memory"], answer["idle"]
        self.outcome = answer["outcome"]
        if not self.first:
            self.first = answer
        if self.first is not answer or self.piece.once:
            self.calls.append(answer)


class Clock:
    """CPU and wall seconds of the parts of a call; what is in none does not count."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._wall = 0.0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count what is done in this context."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.parts[part] = self.parts.get(part, 0.0) + time.process_time() - cpu
        self._wall += time.perf_counter() - wall

    def times(self) -> dict[str, Any]:
        """For what a piece returns, in place of the clocks of the worker."""
        return {"cpu": sum(self.parts.values()), "wall": self._wall, "parts": self.parts}


def interleaved(pieces: Sequence[Piece], rounds: int) -> dict[str, Measured]:
    """A first call of each, then ``rounds`` times one call of each in turn."""
    measured = {piece.name: Measured(piece) for piece in pieces}
    workers = {piece.name: _started(piece) for piece in pieces}
    try:
        for turn in range(rounds + 1):
            for piece in pieces:
                if turn and piece.once:
                    continue
                measured[piece.name].take(_asked(workers[piece.name], piece.name))
                if piece.once:
                    _ended(workers[piece.name])
    finally:
        for worker in workers.values():
            _ended(worker)
    return measured


def _started(piece: Piece) -> "subprocess.Popen[str]":
    order = {
        "folder": _FOLDER,
        "module": piece.module,
        "piece": piece.piece,
        "options": piece.options,
        "cores": piece.cores,
    }
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment |= {"XLA_FLAGS": FLAGS} if piece.flags else {}
    environment["JAX_PLATFORMS"] = "cpu"
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("worker.py"), json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _asked(worker: "subprocess.Popen[str]", name: str) -> dict[str, Any]:
    worker.stdin.write("\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"{name} ended with status {worker.wait()}; its message is above")
    return json.loads(answer)


def _ended(worker: "subprocess.Popen[str]") -> None:
    worker.stdin.close()
    worker.wait()
