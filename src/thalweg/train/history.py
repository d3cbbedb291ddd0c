"""What is recorded on the way, and its file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import InputError
from thalweg.train import together
from thalweg.train.tensorboard import Board


class History:
    """Records in the order they were made, one line of JSON each in a file, if there is one.

    A line has ``step`` and ``seconds`` and one of ``loss``, ``evaluation``, ``gauge`` and
    ``switch``. A value that is not finite is ``null``.

    Args:
        path: The file, or None; of several processes, the first has it.

    Attributes:
        rows: The records.
        board: Where they go as well, for TensorBoard.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self.board: Board | None = None
        self.rows: list[dict[str, Any]] = []
        self._file = None if path is None else path.open("ab")

    def add(self, step: int, seconds: float, **values: Any) -> None:
        """Make a record."""
        row = {"step": step, "seconds": seconds, **values}
        self.rows.append(row)
        if self._file is not None:
            self._file.write((json.dumps(_plain(row)) + "\n").encode())
            self._file.flush()
        if self.board is not None:
            self.board.add(step, values)

    @property
    def length(self) -> int:
        """Bytes in the file."""
        return 0 if self._file is None else self._file.tell()

    def cut(self, length: int) -> None:
        """Go back to where the file had so many bytes; what was recorded since is dropped.

        Raises:
            InputError: The file is shorter, or was changed.
        """
        rows = together.agreed(lambda: self._cut(length))
        self.rows = [_numbers(row) for row in rows]

    def _cut(self, length: int) -> list[dict[str, Any]]:
        """The records of so many bytes, as JSON has them."""
        assert self._file is not None
        assert self._path is not None
        content = self._path.read_bytes()[:length]
        lines = content.splitlines()
        try:
            if len(content) < length:
                raise ValueError(f"it has {len(content)} bytes of {length}")
            rows = [json.loads(line) for line in lines]
        except ValueError as error:
            raise InputError(
                f"{self._path} is not what the checkpoint was made with ({error}); delete the "
                "folder to start afresh"
            ) from error
        self._file.truncate(length)
        self._file.seek(length)
        return rows

    def close(self) -> None:
        """Close the files."""
        if self.board is not None:
            self.board.close()
        if self._file is not None:
            self._file.close()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records that have this."""
        return [row for row in self.rows if kind in row]

    def last_loss(self) -> Any:
        """The last recorded loss, None before the first."""
        rows = self.of("loss")
        return np.asarray(rows[-1]["loss"], float) if rows else None

    def arrays(self) -> dict[str, Any]:
        """Everything recorded, as arrays by name."""
        looks = self.of("evaluation")
        names = looks[0]["evaluation"] if looks else ()
        evaluation = _columns(looks)
        for name in names:
            evaluation[name] = np.asarray([row["evaluation"][name] for row in looks], float)
        rows = self.of("loss")
        loss = np.asarray([row["loss"] for row in rows], float)
        return {**_columns(rows), "loss": loss, "evaluation": evaluation}


def _columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "step": np.asarray([row["step"] for row in rows], int),
        "seconds": np.asarray([row["seconds"] for row in rows], float),
    }


def _plain(value: Any) -> Any:
    """Numbers as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value


def _numbers(value: Any) -> Any:
    """What :func:`_plain` made, with NaN again."""
    if isinstance(value, dict):
        return {name: _numbers(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return float("nan") if value is None else value
