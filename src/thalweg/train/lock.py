"""A folder that one process at a time may use."""

import fcntl
import os
from pathlib import Path

from thalweg.errors import InputError


class Lock:
    """A lock on a file, which the system takes away from a process that ends, however it ends.

    Args:
        path: The file, made if it is not there.

    Raises:
        InputError: Another process has it.
    """

    def __init__(self, path: Path):
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            who = self._file.read().strip() or "unknown"
            self._file.close()
            raise InputError(
                f"{path.parent} is in use by another process ({who}); wait for it, end it, or give "
                "another folder"
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let others have it."""
        self._file.close()
