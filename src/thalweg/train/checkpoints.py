"""Where a run is, saved by Orbax: a folder a checkpoint, complete or not there."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from thalweg.errors import InputError

# The last one, and the one before in case it is damaged.
_KEPT = 2
_ARRAYS, _META = "arrays", "meta"


class Checkpoints:
    """Pytrees of arrays by step, with a few plain values each.

    A checkpoint is its arrays in the order of the pytree and a digest of them: no code, no pickles.
    It counts once it is complete; a kill or a full disk leaves those before as they were.

    Args:
        folder: Where they are; made by the first.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._manager = _manager(folder)
        self._latest = self._manager.latest_step()

    @property
    def latest(self) -> int | None:
        """The step of the last one."""
        return self._latest

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Save a pytree.

        Raises:
            OSError: The disk is full, or the like; the checkpoint before is still there.
        """
        import orbax.checkpoint as ocp

        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        # Orbax does not take arrays without elements, and they say nothing.
        named = {_name(i): array for i, array in enumerate(arrays) if array.size}
        meta = {**meta, "digest": _digest(arrays), "count": len(arrays)}
        items = {_ARRAYS: ocp.args.StandardSave(named), _META: ocp.args.JsonSave(meta)}
        try:
            self._manager.save(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax and TensorStore raise errors of many kinds
            before = "there is none before"
            if self._latest is not None:
                before = f"that of step {self._latest} is whole"
            raise OSError(
                f"the checkpoint of step {step} could not be written in {self._folder} "
                f"({_first_line(error)}); {before}. Make room, and the same call goes on from there"
            ) from error
        self._latest = step

    def meta(self) -> dict[str, Any]:
        """The plain values of the last one.

        Raises:
            InputError: It is damaged.
        """
        import orbax.checkpoint as ocp

        found = self._read(ocp.args.Composite(**{_META: ocp.args.JsonRestore()}))[_META]
        if not isinstance(found, dict) or "digest" not in found:
            raise self._damaged("its values are missing")
        return found

    def restored(self, like: Any) -> Any:
        """The pytree of the last one.

        Args:
            like: A pytree of the same structure, shapes and types.

        Raises:
            InputError: It is damaged, or of another structure.
        """
        import orbax.checkpoint as ocp

        meta = self.meta()
        leaves, structure = jax.tree.flatten(like)
        blank = [np.zeros(x.shape, x.dtype) for x in leaves]
        named = {_name(i): x for i, x in enumerate(blank) if x.size}
        if meta["count"] != len(leaves):
            raise self._damaged(f"it has {meta['count']} arrays, expected {len(leaves)}")
        found = self._read(ocp.args.Composite(**{_ARRAYS: ocp.args.StandardRestore(named)}))[
            _ARRAYS
        ]
        arrays = [np.asarray(found.get(_name(i), x)) for i, x in enumerate(blank)]
        if _digest(arrays) != meta["digest"]:
            raise self._damaged("its numbers are not those that were saved")
        return jax.tree.unflatten(structure, [jax.numpy.asarray(x) for x in arrays])

    def close(self) -> None:
        """Release what Orbax holds."""
        self._manager.close()

    def _read(self, arguments: Any) -> Any:
        try:
            return self._manager.restore(self._latest, args=arguments)
        except Exception as error:  # Orbax and TensorStore raise errors of many kinds
            raise self._damaged(_first_line(error)) from error

    def _damaged(self, reason: str) -> InputError:
        steps = [step for step in self._manager.all_steps() if step != self._latest]
        rest = f"to go on from step {max(steps)}" if steps else "to start afresh"
        return InputError(
            f"the checkpoint {self._folder / str(self._latest)} cannot be used "
            f"({reason}); delete it {rest}"
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _name(i: int) -> str:
    return f"{i:05d}"


def _digest(arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _manager(folder: Path) -> Any:
    try:
        import orbax.checkpoint as ocp
    except ModuleNotFoundError as error:
        raise InputError(
            "a run folder needs Orbax, which is not installed; "
            "expected: pip install 'thalweg[train]'"
        ) from error
    # Saved before the next step, so that what is on the disk is known. Of several processes one
    # saves, what all have: there is nothing to wait for.
    options = ocp.CheckpointManagerOptions(
        max_to_keep=_KEPT,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
        create=False,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        ),
    )
    folder.mkdir(exist_ok=True)
    return ocp.CheckpointManager(folder.absolute(), options=options, item_names=(_ARRAYS, _META))
