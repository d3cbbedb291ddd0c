"""The files of a training's folder by name."""

import json
from pathlib import Path
from typing import Any

from thalweg.errors import InputError

SCHEMA = "thalweg.train/1"
# The configuration as it was given, and where it was; the result.
CONFIG, ORIGIN, RESULT = "config.toml", "origin.json", "result.json"
# The folders of the rows are in this one.
ROWS = "rows"
# What follows the label of a row where the states of its models are kept.
STATE = " (state)"


def is_training(folder: str | Path) -> bool:
    """Whether a folder is that of a training, finished or not."""
    return all((Path(folder) / name).is_file() for name in (CONFIG, ORIGIN))


def finished(folder: str | Path) -> dict[str, Any]:
    """The result in the folder of a training.

    Raises:
        InputError: The training is not finished.
    """
    file = Path(folder) / RESULT
    if not file.is_file():
        raise InputError(
            f"{folder} holds a training that is not finished; `thalweg train {folder}` goes on "
            "with it"
        )
    return json.loads(file.read_text(encoding="utf-8"))
