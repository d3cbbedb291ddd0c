"""The folder of a training: its configuration, its parameters, and how to find them again."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import InputError
from thalweg.train.config import Own, Request, load
from thalweg.train.files import CONFIG, ORIGIN, STATE
from thalweg.train.networks import own_file


@dataclass(frozen=True)
class Origin:
    """Where a configuration comes from.

    Attributes:
        request: The configuration.
        home: The folder of the run it was stored in; None for a file of the user.
        beside: The folder in which the file of an own objective is looked for.
        data_dir: Where the data were, as far as is known.
    """

    request: Request
    home: Path | None
    beside: Path
    data_dir: str | None

    @staticmethod
    def of(target: str) -> "Origin":
        """The configuration in a file, or the one that a run folder keeps.

        Raises:
            InputError: No such file or folder, or a configuration with an error in it.
        """
        path = Path(target)
        if path.is_dir():
            if not (path / CONFIG).is_file():
                raise InputError(
                    f"{path} holds no {CONFIG}; expected a TOML file, or the folder of a training"
                )
            path = path / CONFIG
        request = load(path)
        kept = path.parent / ORIGIN
        if path.name != CONFIG or not kept.is_file():
            return Origin(request, None, path.parent, None)
        about = json.loads(kept.read_text(encoding="utf-8"))
        return Origin(request, path.parent, Path(about["beside"]), about["data_dir"])

    def keep(self, folder: Path, data_dir: str | None) -> None:
        """Store the configuration as it is, and where its files are, in the folder of a run."""
        (folder / CONFIG).write_text(self.request.file.text, encoding="utf-8")
        about = {"beside": str(self.beside.resolve()), "data_dir": data_dir}
        (folder / ORIGIN).write_text(json.dumps(about, indent=1), encoding="utf-8")

    def own_digest(self) -> str | None:
        """A digest of the file of an own objective, whose change makes another run."""
        if not isinstance(self.request.config.model, Own):
            return None
        return hashlib.sha256(own_file(self.request, self.beside).read_bytes()).hexdigest()[:16]


def points_of(trained: dict[str, tuple[Any, Any]]) -> dict[str, np.ndarray]:
    """Parameters and states by row, as arrays to be saved: a row for each seed.

    Args:
        trained: By label, parameters and state, each of shape (seeds, numbers).
    """
    points = {}
    for label, (params, state) in trained.items():
        points[label] = params
        if state.shape[1]:
            points[f"{label}{STATE}"] = state
    return points
