"""The one entry: a problem's name to the result of comparing samplers on it."""

import runpy
from pathlib import Path
from typing import Any

import jax

from thalweg import landscapes
from thalweg.compare.landscape import compare_landscape
from thalweg.compare.network import compare_network, networks
from thalweg.compare.request import Request
from thalweg.errors import InputError, known
from thalweg.landscapes import Landscape
from thalweg.output import environment

SCHEMA = "thalweg.compare/1"


def compare(problem: str, **options: Any) -> dict[str, Any]:
    """Run the samplers on a problem from the same starts, with the same random streams.

    Args:
        problem: A landscape, a network, or ``file.py:name`` with a :class:`thalweg.Landscape` or a
            function that makes one.
        options: The fields of :class:`thalweg.compare.request.Request`.

    Returns:
        The result as a dictionary of plain numbers, texts and arrays; ``schema`` names its form.
        Landscapes are computed in float64 and networks in float32.

    Raises:
        InputError: Before any work: an unknown problem or sampler, numbers out of range, missing
            data.
    """
    request = Request(**options)
    named = {name for name, _ in networks()}
    if ":" not in problem:
        known(problem, named | set(landscapes.names()), "problem")
    if request.track is not None and problem not in named:
        raise InputError(
            f"track={request.track} is for networks ({', '.join(sorted(named))}), and {problem} is "
            "a landscape; leave it out: the table has the thresholds of its minima"
        )
    with jax.enable_x64(problem not in named):
        if problem in named:
            result = compare_network(problem, request)
        else:
            result = compare_landscape(landscape_of(problem), request)
    arguments = {"problem": problem, **{k: v for k, v in options.items() if k not in _OURS}}
    return {"schema": SCHEMA, "arguments": arguments, "environment": environment(), **result}


_OURS = ("work", "progress")


def landscape_of(problem: str) -> Landscape:
    """The landscape of that name, or of ``file.py:name``."""
    if ":" not in problem:
        return landscapes.get(problem)
    path, _, name = problem.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no file {path}; expected file.py:name with a thalweg.Landscape")
    module = runpy.run_path(str(file))
    if name not in module:
        raise InputError(f"{path} has no {name!r}; expected a thalweg.Landscape of that name")
    found = module[name]
    found = found() if callable(found) and not isinstance(found, Landscape) else found
    if not isinstance(found, Landscape):
        raise InputError(
            f"{problem} is a {type(found).__name__}; expected a thalweg.Landscape (a FiniteSum "
            "with its start, step and box) or a function that makes one"
        )
    return found
