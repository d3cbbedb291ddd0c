"""A file from which a killed run goes on."""

import hashlib
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import numpy as np

from thalweg.errors import InputError

# The name of the digest in the file.
IDENTITY = "identity"
_SECONDS_BETWEEN = 10.0
# Of the file: raised where what is saved changes, so that earlier files are refused.
_FORM = 2
# What must be free on the disk before the work begins.
_ROOM = 64 * 2**20


class Checkpoint:
    """Arrays in an ``.npz`` file, replaced as a whole so that a kill leaves the previous one.

    Args:
        path: The file; its folder must be there and writable.
        identity: A digest of everything the run is made from; a file with another is refused.

    Raises:
        InputError: A folder that is missing or cannot be written, before any work.
    """

    def __init__(self, path: str | Path, identity: str):
        self.path = Path(path)
        self.identity = identity
        self._written = time.monotonic()
        check_writable(self.path.parent)

    def due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self._written > _SECONDS_BETWEEN

    def save(self, tree: Any) -> None:
        """Write the leaves of a pytree, named by their paths as in ``chains/state``."""
        part = self.path.with_name(self.path.name + ".part")
        named = {
            jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        with part.open("wb") as file:
            np.savez(file, **{IDENTITY: np.array(self.identity)}, **named)  # type: ignore[arg-type]
        part.replace(self.path)
        self._written = time.monotonic()

    def load(self) -> list[np.ndarray] | None:
        """The leaves in their order, or None if there is no file yet.

        Raises:
            InputError: A file that is damaged or of another run.
        """
        if not self.path.exists():
            return None
        try:
            # Opened here: NumPy leaves a file open that is no archive.
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                identity = str(file[IDENTITY])
                arrays = [file[name] for name in file.files if name != IDENTITY]
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(
                f"the checkpoint {self.path} cannot be read ({error}); delete it to start afresh"
            ) from error
        if identity != self.identity:
            raise InputError(
                f"the checkpoint {self.path} belongs to a run with other arguments, or to another "
                "version of thalweg; give another file or delete it to start afresh"
            )
        return arrays


def fingerprint(tree: Any) -> str:
    """A digest of a pytree: its arrays, options and the names of its functions (not their code)."""
    # The structure names the options; addresses differ from process to process.
    structure = re.sub(r" at 0x[0-9a-f]+", "", str(jax.tree.structure(tree)))
    digest = hashlib.sha256(f"form {_FORM} {structure}".encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if callable(leaf):
            digest.update(getattr(leaf, "__qualname__", type(leaf).__name__).encode())
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, bool)):
            continue
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(np.asarray(leaf))
        digest.update(f"{jax.tree_util.keystr(path)}:{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_writable(folder: Path) -> None:
    """Raise InputError unless files can be written in the folder and there is room for some."""
    try:
        # A name of its own: several processes may ask at once.
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise InputError(
            f"cannot write in {folder} ({error.strerror or error}); give another folder"
        ) from error
    if free < _ROOM:
        raise InputError(
            f"only {free / 2**20:.0f} MiB are free in {folder}, expected {_ROOM / 2**20:.0f}; make "
            "room or give another folder"
        )
