"""The one entry: a point to the result of measuring it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from thalweg.errors import InputError
from thalweg.measure.numbers import Progress, numbers
from thalweg.measure.points import Point, find, is_network
from thalweg.measure.sentences import sentences
from thalweg.output import environment

SCHEMA = "thalweg.measure/1"
# Batch sizes, as long as there are so many samples, and all of them.
_BATCHES = (1, 4, 16, 64, 256)


def measure(
    target: str,
    *,
    params: str | None = None,
    point: str | None = None,
    step: float | None = None,
    batch: Sequence[int] | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    quick: bool = False,
    work: Callable[[], Path] | None = None,
    progress: Progress = None,
) -> dict[str, Any]:
    """Curvature, non-uniformity and stability of a point that training has reached.

    Args:
        target: The folder of a comparison, the name of a landscape, or ``file.py:name`` with a
            :class:`thalweg.Landscape`, a pair of a :class:`thalweg.FiniteSum` and parameters, a
            ``FiniteSum`` alone, or a function that returns one of these.
        params: An ``.npz`` file with the parameters of a ``FiniteSum`` alone: one array named
            ``params``, or the leaves of nested dictionaries, named like ``first/W``.
        point: Which of several points, by name; the first unless given.
        step: The step asked about; that of the run or of the landscape unless given.
        batch: Batch sizes asked about; 1, 4, 16, ... and n unless given.
        seed: Seed of probes and batches.
        data_dir: Where data files are, for networks.
        quick: Fewer probes.
        work: Makes the folder for the result, once the request has been found to make sense.
        progress: Told about each stage, ``progress(label, done, total)``.

    Returns:
        The result as a dictionary of plain numbers, texts and arrays; ``schema`` names its form.
        Landscapes and files are computed in float64 (in the type of their data and parameters),
        comparisons of networks in float32.

    Raises:
        InputError: Before any work: nothing of that name, parameters that do not fit, numbers out
            of range.
    """
    with jax.enable_x64(not is_network(target)):
        found = find(target, params, point, data_dir)
        found.problem.check_params(found.params)
        sizes = _batches(found, batch)
        eta = found.step if step is None else step
        if eta is not None and not eta > 0:
            raise InputError(f"--step is {eta}; expected a positive number")
        if work is not None:
            work()
        key = jax.random.key(seed)
        result = numbers(found, sizes, eta, key=key, quick=quick, progress=progress)
    arguments = {"params": params, "point": point, "step": step, "batch": batch, "seed": seed}
    return {
        "schema": SCHEMA,
        "kind": "point",
        "command": "measure",
        "title": f"{found.title}: {found.name}",
        "description": f"n = {result['n']} samples, {result['parameters']} parameters",
        "source": found.source,
        "problem": {"name": found.title, "reading": {}},
        "arguments": {
            "problem": target,
            **arguments,
            "data_dir": None if data_dir is None else str(data_dir),
            "quick": quick,
        },
        "environment": environment(),
        "step": eta,
        **result,
        **sentences(result, eta),
    }


def _batches(point: Point, batch: Sequence[int] | None) -> list[int]:
    n = point.problem.n
    if batch is None:
        usual = [size for size in _BATCHES if size < n]
        own = [] if point.batch_size is None else [min(point.batch_size, n)]
        return list(dict.fromkeys([*own, *usual, n]))
    wrong = [size for size in batch if not 1 <= size <= n]
    if wrong:
        raise InputError(f"--batch has {wrong[0]}; expected sizes from 1 to n = {n}")
    return list(dict.fromkeys(batch))
