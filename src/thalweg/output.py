"""The folder a result is written to."""

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from thalweg.checkpoint import check_writable
from thalweg.errors import InputError

_ROOT = "thalweg-results"
_RESULT = "result.json"
_ARGUMENTS = "arguments.json"
# Parameter vectors by name, for `thalweg measure`.
POINTS = "points.npz"


@dataclass(frozen=True)
class Output:
    """A folder that belongs to one set of arguments.

    Attributes:
        folder: Where ``result.json``, the figures and the report go.
        arguments: What decides the result, as text.
    """

    folder: Path
    arguments: str

    @staticmethod
    def at(path: str | Path | None, arguments: Mapping[str, Any]) -> "Output":
        """The folder at ``path``, or one named after the arguments; nothing is made yet."""
        text = json.dumps(dict(arguments), sort_keys=True, default=str, indent=1)
        if path is None:
            digest = hashlib.sha256(text.encode()).hexdigest()[:8]
            path = Path(_ROOT) / f"{_named(arguments.get('problem', 'run'))}-{digest}"
        return Output(Path(path), text)

    @property
    def checkpoints(self) -> Path:
        """Where a killed comparison goes on from."""
        return self.folder / "checkpoints"

    def open(self, overwrite: bool = False) -> Path:
        """Make the folder, or take up the one these arguments have made.

        Args:
            overwrite: Whether what another set of arguments has left there is removed.

        Returns:
            The folder for checkpoints.

        Raises:
            InputError: A folder of other arguments, of something else, or that cannot be written.
        """
        _check_ours(self.folder, self.arguments, overwrite)
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {self.folder} ({error.strerror or error}); "
                "give another --out"
            ) from error
        check_writable(self.folder)
        (self.folder / _ARGUMENTS).write_text(self.arguments)
        return self.checkpoints

    def save(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json`` as a whole, then remove the checkpoints.

        The parameter vectors that a result may hold as ``points`` go to ``points.npz``.
        """
        result = dict(result)
        points = result.pop("points", None)
        if points:
            np.savez(self.folder / POINTS, **points)
        part = self.folder / (_RESULT + ".part")
        part.write_text(json.dumps(plain(result), indent=1, allow_nan=False))
        part.replace(self.folder / _RESULT)
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def environment() -> dict[str, str]:
    """The versions and the device a result was made with."""
    names = ("thalweg", "jax", "numpy", "equinox", "optax")
    device = jax.devices()[0]
    return {
        **{name: version(name) for name in names},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform} {device.device_kind}",
    }


def _check_ours(folder: Path, text: str, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder as --out")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    kept = folder / _ARGUMENTS
    if not kept.exists():
        raise InputError(
            f"{folder} holds files that thalweg did not make; give an empty or new folder as --out"
        )
    if kept.read_text() == text:
        return
    if not overwrite:
        raise InputError(
            f"{folder} holds the result of other arguments; give another --out, or --overwrite"
        )
    shutil.rmtree(folder)


def _named(problem: Any) -> str:
    return "".join(c if c.isalnum() or c == "-" else "-" for c in str(problem)).strip("-")


def plain(value: Any) -> Any:
    """JSON's own types; numbers to seven digits, those that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, jax.Array)):
        return plain(np.asarray(value).tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return str(value)
