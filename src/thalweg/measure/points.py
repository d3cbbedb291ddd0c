"""What is measured: an objective and parameters, of a file or of what was saved."""

import json
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from thalweg import landscapes
from thalweg.compare.job import landscape_of
from thalweg.compare.network import load_network, networks
from thalweg.errors import InputError, known
from thalweg.landscapes import Landscape
from thalweg.measure.params import load_params
from thalweg.measure.trained import end_of
from thalweg.output import POINTS
from thalweg.problem import FiniteSum, Params
from thalweg.train.files import is_training

_EXPECTED = (
    "expected a thalweg.Landscape, a pair (thalweg.FiniteSum, params), a FiniteSum with --params, "
    "or a function that returns one of these"
)


@dataclass(frozen=True, eq=False)
class Point:
    """An objective and a place in its domain.

    Attributes:
        title: What it is, for a heading.
        name: Of the place.
        problem: The objective.
        params: The place.
        step: The step that led there, None if it is not known.
        batch_size: The batch that led there, likewise.
        source: Where the problem comes from, or nothing.
    """

    title: str
    name: str
    problem: FiniteSum
    params: Params
    step: float | None = None
    batch_size: int | None = None
    source: str = ""


def is_network(target: str) -> bool:
    """Whether a target is computed in float32: the comparison of a network, or a training."""
    if is_training(target):
        return True
    return _saved_problem(target) in {name for name, _ in networks()}


def find(target: str, params: str | None, place: str | None, data_dir: Any) -> Point:
    """The point that a request means.

    Args:
        target: The folder of a comparison or of a training, the name of a landscape, or
            ``file.py:name``.
        params: An ``.npz`` file with the parameters, for a ``FiniteSum`` in a file: named leaves,
            or a checkpoint of :func:`thalweg.simulate`.
        place: Which of several points; the first if None, of a checkpoint's chains the last.
        data_dir: Where data files are.

    Raises:
        InputError: Nothing of that kind, no such place, parameters that do not fit.
    """
    if Path(target).is_dir():
        _only(params is None, f"--params is for file.py:name; {target} has points of its own")
        if is_training(target):
            return Point(*end_of(target, place, data_dir))
        return _of_folder(Path(target), place, data_dir)
    if ":" in target:
        return _of_file(target, params, place)
    known(target, landscapes.names(), "landscape (or folder of a comparison, or file.py:name)")
    _only(params is None, f"--params is for file.py:name; {target} has points of its own")
    return _of_landscape(landscapes.get(target), place)


def _of_landscape(landscape: Landscape, place: str | None) -> Point:
    points = {point.name: point.params for point in landscape.minima}
    points = points or {"start": landscape.start}
    name = _chosen(points, place)
    step = None if callable(landscape.step) else float(landscape.step)
    return Point(
        landscape.name,
        name,
        landscape.problem,
        jnp.asarray(points[name]),
        step,
        landscape.batch_size,
        landscape.source,
    )


def _of_file(target: str, params: str | None, place: str | None) -> Point:
    path, _, name = target.rpartition(":")
    _only(Path(path).is_file(), f"there is no file {path}; expected file.py:name")
    module = runpy.run_path(path)
    _only(name in module, f"{path} has no {name!r}; {_EXPECTED}")
    found = module[name]
    if callable(found) and not isinstance(found, (Landscape, FiniteSum)):
        found = found()
    if isinstance(found, Landscape):
        _only(params is None, f"--params is for a FiniteSum; {target} is a Landscape")
        return _of_landscape(found, place)
    if isinstance(found, FiniteSum):
        _only(params is not None, f"{target} is a FiniteSum without parameters; give --params")
        name, loaded = load_params(Path(str(params)), place)
        return Point(target, name, found, loaded)
    _only(place is None, f"--point is for what has several points; {target} has one")
    pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], FiniteSum)
    _only(pair, f"{target} is a {type(found).__name__}; {_EXPECTED}")
    _only(params is None, f"--params is for a FiniteSum alone; {target} brings parameters")
    return Point(target, name, found[0], jax.tree.map(jnp.asarray, found[1]))


def _of_folder(folder: Path, place: str | None, data_dir: Any) -> Point:
    problem = _saved_problem(str(folder))
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    rows = {row["label"]: row for row in result["rows"]}
    if result["kind"] == "landscape":
        landscape = landscape_of(problem)
        points = {m["name"]: jnp.asarray(m["params"]) for m in result["minima"]}
        name = _chosen(points, place)
        point = _of_landscape(landscape, None)
        return Point(point.title, name, point.problem, points[name], point.step, point.batch_size)
    arguments = result["arguments"]
    network = load_network(arguments.get("data") or problem, data_dir or arguments.get("data_dir"))
    with np.load(folder / POINTS) as saved:
        flat = {name: saved[name] for name in saved.files}
    name = _chosen(flat, place)
    template = network.model.init(jax.random.key(0))
    row = rows.get(name, result["rows"][0])
    return Point(
        network.title,
        name,
        network.problem,
        ravel_pytree(template)[1](jnp.asarray(flat[name])),
        _number(row["step"]),
        row["batch_size"] if row["family"] != "gd" else None,
        result["source"],
    )


def _saved_problem(target: str) -> str:
    """The problem that the comparison in a folder was of; the target itself if it is no folder."""
    folder = Path(target)
    if not folder.is_dir():
        return target
    _only(
        (folder / "result.json").is_file(),
        f"{folder} holds no result.json; expected the folder of a finished comparison or training "
        "(run the same command again to finish it)",
    )
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    _only(
        str(result.get("schema", "")).startswith("thalweg.compare/"),
        f"{folder} holds a result of {result.get('schema')}; expected one of thalweg compare",
    )
    return str(result["arguments"]["problem"])


def _chosen(points: dict[str, Any], place: str | None) -> str:
    if place is None:
        return next(iter(points))
    return known(place, points, "point")


def _only(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _number(step: str) -> float | None:
    """The step of a row; None for a schedule."""
    try:
        return float(step)
    except ValueError:
        return None
