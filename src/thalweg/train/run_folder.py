"""The folder of a run: who made it, who uses it, where it is."""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from thalweg.checkpoint import check_writable
from thalweg.errors import InputError
from thalweg.train import together
from thalweg.train.checkpoints import Checkpoints
from thalweg.train.lock import Lock

SCHEMA = "thalweg.run/1"


class RunFolder:
    """``record.json``, ``metrics.jsonl``, ``checkpoints/`` and ``lock``, used in a ``with`` block.

    Of several processes the first has the folder and tells the others what it reads, so that they
    need no common disk; all of them call every method together.

    Args:
        path: The folder, made if it is not there.
        identity: A digest of all that decides the numbers of the run.
        save_seconds: Seconds between checkpoints.

    Raises:
        InputError: A folder that cannot be written or is in use, or that belongs to another run.
    """

    def __init__(self, path: Path, identity: str, save_seconds: float):
        self.path, self._identity, self._between = path, identity, save_seconds
        self.metrics = path / "metrics.jsonl"
        self._lock: Lock | None = None
        self._last_step = together.agreed(self._opened)
        self._saved = time.monotonic()

    def _opened(self) -> int | None:
        """Open the folder; the step of its last checkpoint."""
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {path} ({error}); give another") from error
        check_writable(path)
        self._lock = Lock(path / "lock")
        try:
            self._check_record()
            self._checkpoints = Checkpoints(path / "checkpoints")
        except BaseException:
            self._lock.release()
            raise
        return self._checkpoints.latest

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._checkpoints.close()
            self._lock.release()

    @property
    def last_step(self) -> int | None:
        """The step of the last checkpoint."""
        return self._last_step

    def due(self) -> bool:
        """Whether the last checkpoint is old enough."""
        return together.agreed(lambda: time.monotonic() - self._saved >= self._between)

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Save where the run is."""
        together.agreed(lambda: self._checkpoints.save(step, tree, meta))
        self._last_step = step
        self._saved = time.monotonic()

    def meta(self) -> dict[str, Any] | None:
        """The plain values of the last checkpoint, None if there is none."""
        return None if self.last_step is None else together.agreed(lambda: self._checkpoints.meta())

    def restored(self, like: Any) -> Any:
        """The pytree of the last checkpoint."""
        found = like

        def read() -> None:
            nonlocal found
            found = self._checkpoints.restored(like)

        together.agreed(read)
        return together.from_first(found, like)

    def _check_record(self) -> None:
        file = self.path / "record.json"
        if not file.exists():
            if (self.path / "checkpoints").exists():
                raise InputError(
                    f"{self.path} has checkpoints and no record.json that says whose; give another "
                    "folder"
                )
            text = json.dumps({"schema": SCHEMA, "identity": self._identity}, indent=1)
            # Complete or not there.
            part = file.with_name("record.json.part")
            part.write_text(text, encoding="utf-8")
            part.replace(file)
            return
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            schema, identity = record["schema"], record["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file} cannot be read ({error}); delete {self.path} to start afresh"
            ) from error
        if (schema, identity) != (SCHEMA, self._identity):
            raise InputError(
                f"{self.path} belongs to a run with other arguments, data or versions; give "
                "another folder, or delete it to start afresh"
            )
