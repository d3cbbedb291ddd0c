"""Records for TensorBoard."""

from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import InputError


class Board:
    """Scalars in a folder that TensorBoard reads: ``loss``, ``evaluation/...`` and ``gauge/...``.

    Args:
        folder: Made if it is not there.
        step: Where the run goes on; what was written for later steps does not count.
    """

    def __init__(self, folder: Path, step: int):
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError as error:
            raise InputError(
                "tensorboard=True needs tensorboardX, which is not installed; "
                "expected: pip install tensorboardX"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=step)

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Write a record: numbers, arrays over members, dictionaries of these."""
        for name, value in _numbers("", values):
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _numbers(name: str, value: Any) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [
            pair
            for key, inner in value.items()
            for pair in _numbers(f"{name}/{key}".strip("/"), inner)
        ]
    if isinstance(value, (str, bool)):
        return []
    array = np.asarray(value, float)
    if array.ndim == 0:
        return [(name, float(array))]
    return [(f"{name}/{j}", float(x)) for j, x in enumerate(array)]
