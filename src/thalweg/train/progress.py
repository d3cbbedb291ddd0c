"""How far it is, how fast, how long yet."""

import time
from collections.abc import Callable
from typing import TypeAlias

from thalweg.progress import duration

# Told the steps done, the steps in all, and a text with throughput and time left.
Progress: TypeAlias = Callable[[int, int, str], None]

_SECONDS_BETWEEN = 0.2


class Pace:
    """Tells a callback, a few times a second.

    Args:
        progress: Who is told, or None.
        done: Steps that an earlier call has taken.
        total: Steps in all.
        samples: Samples a step, of all members.
    """

    def __init__(self, progress: Progress | None, done: int, total: int, samples: int):
        self._progress, self._total, self._samples = progress, total, samples
        self._first, self._begun = done, time.monotonic()
        self._told = -float("inf")

    def at(self, done: int) -> None:
        """So many steps are done."""
        now = time.monotonic()
        last = done == self._total
        if self._progress is None or (now - self._told < _SECONDS_BETWEEN and not last):
            return
        self._told = now
        rate = (done - self._first) / max(now - self._begun, 1e-9)
        left = "" if rate == 0 else f", {duration((self._total - done) / rate)} left"
        self._progress(done, self._total, f"{_rounded(rate * self._samples)} samples/s{left}")


def _rounded(number: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"
