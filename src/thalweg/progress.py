"""Progress of commands: bars on a terminal, now and then a line in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Seconds between two lines of a log, and before the first.
_SECONDS_BETWEEN = 60.0


@contextmanager
def shown() -> Iterator[Callable[[str, int, int], None]]:
    """A function that is told label, done and total, and shows them with the time left."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done)

        yield report


class _Lines:
    """A line a minute, of whatever moves then: runs within a minute say nothing."""

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._begun: dict[str, tuple[int, float]] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        # What an earlier run has done is not of this one's pace.
        first, begun = self._begun.setdefault(label, (done, now))
        if now - self._told < _SECONDS_BETWEEN:
            return
        self._told = now
        left = ""
        if first < done < total:
            left = f", {duration((total - done) * (now - begun) / (done - first))} left"
        print(f"thalweg: {label}: {done} of {total}{left}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
