"""What happened when the loss was not finite any more."""

from functools import partial
from typing import Any

import jax
import numpy as np

from thalweg.gradnorms import sample_gradient_norms
from thalweg.train.crew import Crew
from thalweg.train.training import TrainingError

# Samples that are named.
_NAMED = 3


def failure(crew: Crew, begin: int, bad: int, checkpoint: int | None) -> TrainingError:
    """The error, with the samples of the step that failed.

    Args:
        crew: At step ``begin``, when all was well.
        begin: A step.
        bad: The first step whose loss is not finite.
        checkpoint: The step of the last checkpoint, None if there is none.
    """
    step, norms = _norms(crew, begin, bad)
    named = ", ".join(f"{norm:.3g} (sample {i})" for i, norm in norms.items())
    saved = (
        "there is no checkpoint"
        if checkpoint is None
        else (f"the last good checkpoint is of step {checkpoint}")
    )
    who = "the loss" if crew.alone else f"the loss of every one of {crew.count} members"
    return TrainingError(
        f"{who} is not finite any more from step {bad} on; the largest gradient norms of the batch "
        f"of step {step} are {named}; {saved}. Take smaller steps, clip gradients "
        "(optax.clip_by_global_norm) or look at these samples",
        bad,
        checkpoint,
        norms,
    )


def _norms(crew: Crew, begin: int, bad: int) -> tuple[int, dict[int, float]]:
    """The step that went wrong, and the largest gradient norms of its batch.

    That is the step of the loss, or the one before where it has left no finite parameters.
    """
    for step in (bad, bad - 1):
        member, carry = crew.at(begin, max(step, begin))
        if all(bool(np.all(np.isfinite(x))) for x in jax.tree.leaves(carry.params)):
            break
    step = max(step, begin)
    index, samples = crew.batch(member, carry, step)
    loss = partial(_loss, crew.work.objective.sample_loss, carry.state)
    norms = np.asarray(sample_gradient_norms(loss, carry.params, samples), float)
    # Those that are no numbers are the largest of all.
    order = np.argsort(np.where(np.isnan(norms), np.inf, norms))[::-1]
    found: dict[int, float] = {}
    for place in order:
        found.setdefault(int(index[place]), float(norms[place]))
        if len(found) == _NAMED:
            break
    return step, found


def _loss(sample_loss: Any, state: Any, params: Any, sample: Any) -> Any:
    return sample_loss(params, state, sample)
