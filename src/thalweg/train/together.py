"""What several processes must do alike, though each has clocks and files of its own."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from thalweg.errors import InputError

# Seconds without a sign of life after which a process of the command counts as dead.
_HEARTBEAT = 30
# Bytes of a message.
_LETTER = 1024
# Errors of the first process that all raise.
_ERRORS: dict[str, type[Exception]] = {"InputError": InputError, "OSError": OSError}


def several() -> bool:
    """Whether there are several processes."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes files."""
    return jax.process_index() == 0


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Become one of several processes, before anything else is done with JAX.

    Args:
        coordinator: Host and port of the first process; "auto" where JAX knows by itself (Slurm,
            Open MPI); None for a process alone.
        processes: How many there are.
        process: Which one this is.

    Raises:
        InputError: Numbers that are missing or do not fit; no such coordinator.
    """
    if coordinator is None or coordinator == "auto":
        if processes is not None or process is not None:
            raise InputError(
                "--processes and --process go with --coordinator HOST:PORT, the address of process "
                "0; give it, or leave them out"
            )
        if coordinator is None:
            return
    elif processes is None or process is None or not 0 <= process < processes:
        raise InputError(
            f"--coordinator {coordinator} needs --processes N and --process I with I from 0 to "
            f"N - 1; got {processes} and {process}"
        )
    address = None if coordinator == "auto" else coordinator
    try:
        jax.distributed.initialize(
            address, processes, process, heartbeat_timeout_seconds=_HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the processes cannot join ({str(error).splitlines()[0]}); expected --coordinator "
            "HOST:PORT, or auto under Slurm or Open MPI"
        ) from error
    # The first message: Gloo then says who is there, on the standard output, where results go.
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        agreed(str)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def agreed(function: Callable[[], Any]) -> Any:
    """What a function of plain values gives the first process, or the error that it raises.

    All processes call it together; the function runs in the first alone.

    Raises:
        InputError: The function has raised one.
        OSError: The function has raised one.
    """
    if not several():
        return function()
    said: dict[str, Any] = {}
    if first():
        try:
            said = {"value": function()}
        except (InputError, OSError) as error:
            kind = "InputError" if isinstance(error, InputError) else "OSError"
            said = {"error": kind, "text": str(error)}
    heard = json.loads(_sent(json.dumps(said, default=_number).encode()))
    if "error" in heard:
        raise _ERRORS[heard["error"]](heard["text"])
    return heard["value"]


def since(begun: float) -> float:
    """Seconds by the first process's clock since ``time.perf_counter()`` was ``begun``."""
    taken = time.perf_counter() - begun
    return agreed(lambda: taken)


def from_first(tree: Any, like: Any) -> Any:
    """A pytree of arrays that the first process has.

    Args:
        tree: The pytree; of other processes, anything.
        like: A pytree of the same structure, shapes and types.
    """
    if not several():
        return tree
    leaves, structure = jax.tree.flatten(tree if first() else like)
    leaves = [np.asarray(x) for x in leaves]
    sent = _sent(b"".join(x.tobytes() for x in leaves))
    found, at = [], 0
    for x in leaves:
        found.append(jnp.asarray(np.frombuffer(sent, x.dtype, x.size, at).reshape(x.shape)))
        at += x.nbytes
    return jax.tree.unflatten(structure, found)


def check_same(identity: str) -> None:
    """Raise InputError unless all processes were given the same arguments and data.

    Args:
        identity: A digest of them.
    """
    if not several():
        return
    words = np.frombuffer(bytes.fromhex(identity), np.uint8)
    all_words = np.asarray(multihost_utils.process_allgather(words))
    others = np.flatnonzero(np.any(all_words != all_words[0], axis=1))
    if others.size:
        raise InputError(
            f"process {others[0]} was called with other arguments or data than process 0; all "
            "processes train together and must be given the same"
        )


def _number(value: Any) -> Any:
    """A number of NumPy's as one of Python's."""
    return value.item()


def _sent(content: bytes) -> bytes:
    """The bytes of the first process: a first letter that says how long they are, and the rest.

    Letters have lengths of which there are few, for each is a program of its own.
    """
    letter, own = np.zeros(_LETTER, np.uint8), np.frombuffer(content, np.uint8)
    letter[:8] = np.frombuffer(np.uint64(own.size).tobytes(), np.uint8)
    start = own[: _LETTER - 8]
    letter[8 : 8 + start.size] = start
    letter = _posted(letter)
    length = int(np.frombuffer(letter[:8].tobytes(), np.uint64)[0])
    if length <= _LETTER - 8:
        return letter[8 : 8 + length].tobytes()
    room = np.zeros(4 * 2 ** (length // 4).bit_length(), np.uint8)
    if first():
        room[:length] = own
    return _posted(room)[:length].tobytes()


def _posted(letter: np.ndarray) -> np.ndarray:
    """The bytes, in words: their sum over processes, all but one of them zero, has no more bits."""
    words = np.asarray(multihost_utils.broadcast_one_to_all(letter.view(np.uint32)))
    return words.astype(np.uint32).view(np.uint8)
