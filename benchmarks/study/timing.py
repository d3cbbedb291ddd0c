"""How long a step of each row takes: all rows in turn, several times."""

from statistics import median
from typing import Any

import jax

from thalweg.train import Auto, train
from thalweg.train.job import Job

_ROUNDS, _SECONDS = 3, 0.3


def step_seconds(job: Job, seconds: list[float | None]) -> list[float | None]:
    """CPU seconds of a step of each row, of all its seeds together: medians over the rounds.

    The trainings themselves run row by row, and some of them for hundredths of a second: too short
    to be compared. An ``Auto`` that is not switched runs the program of the first row, and has its
    time.

    Args:
        job: The training.
        seconds: About how long a step took in it, None where it diverged.
    """
    found: list[list[float]] = [[] for _ in job.rows]
    for _ in range(_ROUNDS):
        for row, about, kept in zip(job.rows, seconds, found, strict=True):
            if about is not None and not isinstance(row.sampler, Auto):
                kept.append(_timed(job, row, max(20, min(5000, int(_SECONDS / about)))))
    timed = [median(times) if times else None for times in found]
    autos = [isinstance(row.sampler, Auto) for row in job.rows]
    return [timed[0] if auto else own for auto, own in zip(autos, timed, strict=True)]


def _timed(job: Job, row: Any, steps: int) -> float:
    network, config = job.network, job.origin.request.config
    training = train(
        network.objective,
        network.init,
        network.train,
        sampler=row.sampler,
        optimizer=row.optimizer,
        steps=steps,
        key=jax.random.key(config.seed),
        state=network.state,
        members=config.seeds,
        groups=network.groups,
        scores=row.scores,
        record_every=steps,
    )
    return float(training.seconds / steps)
