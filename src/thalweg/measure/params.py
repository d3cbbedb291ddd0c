"""Parameters from a file: named leaves, or a checkpoint of a simulation."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from thalweg.checkpoint import IDENTITY
from thalweg.errors import InputError
from thalweg.problem import Params

# Where a checkpoint of simulate has the parameters of all chains.
_CHAINS = "chains/state/params"


def load_params(path: Path, place: str | None) -> tuple[str, Params]:
    """The parameters in an ``.npz`` file, and what they are called.

    Leaves are named by their way through dictionaries and tuples, as in ``first/W`` or ``0/w``;
    one array alone is named ``params``.

    Args:
        path: The file; of the chains in a checkpoint of :func:`thalweg.simulate` one is taken.
        place: The number of the chain, from 0; the last unless given.

    Raises:
        InputError: No such file, none of this form, no such chain.
    """
    arrays = _read(path)
    if IDENTITY in arrays:
        return _of_chain(path, arrays, place)
    if place is not None:
        raise InputError(f"--point is for what has several points; {path} has one")
    return str(path), _tree(arrays if list(arrays) != ["params"] else {"": arrays["params"]})


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected an .npz file of parameters")
    try:
        with np.load(path) as saved:
            return {name: saved[name] for name in saved.files}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is no .npz file ({error}); write one with numpy.savez(path, **{{'first/W': W, "
            "...}), or one array named params"
        ) from error


def _of_chain(path: Path, arrays: dict[str, np.ndarray], place: str | None) -> tuple[str, Params]:
    chains = {
        name.removeprefix(_CHAINS).lstrip("/"): array
        for name, array in arrays.items()
        if name == _CHAINS or name.startswith(f"{_CHAINS}/")
    }
    if not chains:
        raise InputError(
            f"{path} is a checkpoint without parameters of chains; expected one of simulate"
        )
    count = len(next(iter(chains.values())))
    if place is not None and not (place.isdecimal() and int(place) < count):
        raise InputError(f"--point is {place!r}; {path} has the chains 0 to {count - 1}")
    number = count - 1 if place is None else int(place)
    taken = {name: np.asarray(array[number]) for name, array in chains.items()}
    return f"{path}, chain {number}", _tree(taken)


def _tree(arrays: dict[str, np.ndarray]) -> Params:
    """Dictionaries by names, tuples where the names are 0, 1, ...; an array where there is none."""
    if list(arrays) == [""]:
        return jnp.asarray(arrays[""])
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        first, _, rest = name.partition("/")
        parts.setdefault(first, {})[rest] = array
    trees = {name: _tree(part) for name, part in parts.items()}
    numbered = [str(place) for place in range(len(trees))]
    if set(trees) == set(numbered):
        return tuple(trees[place] for place in numbered)
    return trees
