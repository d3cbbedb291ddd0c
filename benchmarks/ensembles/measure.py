"""Pieces measured in turn: each in a process of its own, one call of each a round."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

# The environment line of the documentation.
FLAGS = (
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000,"
    "xla_cpu_use_multi_output_fusion=true"
)


@dataclass(frozen=True)
class Piece:
    """What one process does.

    Attributes:
        name: In tables.
        module: Where its function is (``floor``, ``ours`` or ``peers``).
        piece: The name of the function in the module's table.
        options: Its arguments; ``chains`` and ``steps`` are among them.
        flags: Whether the process runs with the documented environment line.
        cores: How many it may use.
    """

    name: str
    module: str
    piece: str
    options: dict[str, Any]
    flags: bool = False
    cores: int = 1

    @property
    def chain_steps(self) -> int:
        """Chains times steps of a call."""
        return self.options["chains"] * self.options["steps"]


@dataclass
class Measured:
    """The calls of a piece.

    Attributes:
        piece: The piece.
        first: CPU seconds of the first call.
        cpu: CPU nanoseconds a chain-step of each further call.
        wall: Wall nanoseconds likewise.
        memory: Peak memory of the process in bytes.
        idle: The same before the first call: Python, the imports, the data.
        outcome: What the last call returned.
    """

    piece: Piece
    first: float = float("nan")
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    memory: int = 0
    idle: int = 0
    outcome: dict[str, Any] = field(default_factory=dict)

    @property
    def compilation(self) -> float:
        """CPU seconds of the first call above a further one."""
        return self.first - median(self.cpu) * 1e-9 * self.piece.chain_steps

    def take(self, answer: dict[str, Any]) -> None:
        """One more call; the first is kept apart."""
        self.memory, self.idle = answer["memory"], answer["idle"]
        self.outcome = answer["outcome"]
        if self.first != self.first:
            self.first = answer["cpu"]
            return
        self.cpu.append(1e9 * answer["cpu"] / self.piece.chain_steps)
        self.wall.append(1e9 * answer["wall"] / self.piece.chain_steps)


def interleaved(pieces: Sequence[Piece], rounds: int) -> dict[str, Measured]:
    """A first call of each, then ``rounds`` times one call of each in turn."""
    measured = {piece.name: Measured(piece) for piece in pieces}
    workers = {piece.name: _started(piece) for piece in pieces}
    try:
        for _ in range(rounds + 1):
            for name, worker in workers.items():
                measured[name].take(_asked(worker, name))
    finally:
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    return measured


def _started(piece: Piece) -> "subprocess.Popen[str]":
    order = {
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
