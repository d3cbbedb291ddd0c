"""The ends of a training, of its folder."""

from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import known
from thalweg.output import POINTS
from thalweg.problem import FiniteSum, Params
from thalweg.train.files import STATE, finished


def end_of(
    folder: str, place: str | None, data_dir: Any
) -> tuple[str, str, FiniteSum, Params, float, int]:
    """Title, name, objective, parameters, step and batch size of the end of a row.

    The objective is the mean over the first training samples, as many as the training itself
    assessed its ends on.

    Args:
        folder: Of a finished training.
        place: The label of a row, or with the number of a seed as in "SGD, B=32 #2"; the first row
            and seed 0 if None.
        data_dir: Where data files are; where they were unless given.

    Raises:
        InputError: An unfinished training, no such row or seed, data that are not there any more.
    """
    # These need the libraries of the extra `train`.
    from thalweg.train.ends import problem_at, restored
    from thalweg.train.folder import Origin
    from thalweg.train.networks import load_network

    result, origin = finished(folder), Origin.of(folder)
    network = load_network(origin.request, data_dir or origin.data_dir, origin.beside)
    with np.load(Path(folder) / POINTS) as saved:
        points = {name: saved[name] for name in saved.files}
    rows = {row["label"]: row for row in result["rows"]}
    names = {
        f"{label} #{seed}": (label, seed) for label in rows for seed in range(len(points[label]))
    }
    names |= {label: (label, 0) for label in rows}
    name = next(iter(rows)) if place is None else known(place, names, "point")
    label, seed = names[name]
    state = network.state
    if f"{label}{STATE}" in points:
        state = restored(network, points[f"{label}{STATE}"][seed], state=True)
    problem = problem_at(network, state, origin.request.config.assess.samples)
    row = rows[label]
    return (
        *(result["title"], name, problem, restored(network, points[label][seed])),
        *(row["last_step"], min(row["batch_size"], problem.n)),
    )
