"""Curvature along a training that stops to be looked at, and goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from thalweg.errors import InputError
from thalweg.problem import Params
from thalweg.stability import follow
from thalweg.train.config import Assess
from thalweg.train.ends import member, problem_at, restored
from thalweg.train.loop import Training
from thalweg.train.networks import Network
from thalweg.train.rows import Row

# Places along the run.
_LOOKS = 20
_FOLDER = "followed"


def check_followed(network: Network) -> None:
    """Raise InputError for a model with a state, which is another objective at each step."""
    if jax.tree.leaves(network.state):
        raise InputError(
            "--track follows one objective, and this model keeps a state of its own (as batch_norm "
            "does); leave it out: the end is assessed with the state it has"
        )


def followed(
    network: Network,
    row: Row,
    asked: Assess,
    budget: float,
    folder: Path,
    trained: Callable[[int], Training],
) -> dict[str, Any]:
    """Sharpness, non-uniformity and threshold along the first seed of a row.

    Args:
        network: What is trained.
        row: By what.
        asked: On how many samples it is looked.
        budget: Products with the Hessian for a step, as in :func:`thalweg.stability.follow`.
        folder: Where the places are kept, so that a killed run need not go back to them.
        trained: Trains up to so many steps.
    """
    problem = problem_at(network, network.state, asked.samples)
    kept = folder / _FOLDER
    kept.mkdir(parents=True, exist_ok=True)

    def path() -> Iterator[tuple[int, Params]]:
        for steps in sorted({look * row.steps // _LOOKS for look in range(1, _LOOKS + 1)} - {0}):
            file = kept / f"{steps}.npy"
            if not file.is_file():
                training = trained(steps)
                _save(file, np.asarray(ravel_pytree(member(training.params, 0))[0]))
                if training.step < steps:  # it has stopped or diverged
                    return
            yield steps, restored(network, np.load(file))

    found = follow(
        problem,
        path(),
        batch_size=min(row.batch_size, problem.n),
        budget=budget,
        replace=row.replace or (problem.n < network.n and row.batch_size < network.n),
    )
    return found._asdict()


def _save(file: Path, numbers: np.ndarray) -> None:
    """Write a place as a whole, so that a kill leaves it or nothing."""
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        np.save(stream, numbers)
    part.replace(file)
