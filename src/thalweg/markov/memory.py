"""Memory that a computation may take, asked before it starts."""

import os
from pathlib import Path

from thalweg.errors import InputError


def check_memory(needed: float, what: str) -> None:
    """Raise InputError if ``needed`` bytes are more than the machine has available."""
    available = available_memory()
    if available is not None and needed > available:
        raise InputError(
            f"{what} takes about {needed / 2**30:.3g} GiB and {available / 2**30:.3g} GiB are "
            "available: too many cells for memory; expected a coarser or smaller grid"
        )


def available_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(kilobytes)
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
