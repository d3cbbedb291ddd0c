"""What tells one run from another."""

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp

from thalweg.checkpoint import fingerprint
from thalweg.train import programs
from thalweg.train.arguments import Start
from thalweg.train.crew import Crew, row
from thalweg.train.run import Plan
from thalweg.train.step import batch_size


def identity_of(crew: Crew, start: Start, plan: Plan, asked: Any) -> str:
    """A digest of all that decides the numbers of a run; the number of steps does not.

    The program of a step is in it as XLA is given it, so that another loss or learning rate is
    another run; of streamed data, their number and the first sample. Devices and processes are not:
    on others, the numbers are the same but for rounding.
    """
    evaluation = None if plan.evaluation is None else [n for n, _ in plan.evaluation[0].metrics]
    said = (
        (asked, evaluation, crew.many, crew.alone),
        (plan.record_every, plan.evaluate_every, plan.stop_below),
        None if plan.gauging is None else plan.gauging.every,
        _program(crew),
    )
    # Addresses differ from process to process.
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(said)).encode())
    first = None if crew.source is None else crew.source.first
    arrays = crew.setting, start.members, start.params, start.state, first
    digest.update(fingerprint(arrays).encode())
    return digest.hexdigest()


def _program(crew: Crew) -> str:
    """A step on a batch, as XLA is given it."""
    population = crew.setting.population
    size = batch_size(crew.work.sampler, population.n)
    data = (
        population.data
        if crew.source is None
        else jax.tree.map(lambda x: jnp.asarray(x)[None], crew.source.first)
    )
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), data)
    member, carry = jax.eval_shape(
        lambda *one: row(one, 0) if crew.many else one, crew.groups[0], crew.carries[0]
    )
    weights = jax.ShapeDtypeStruct((size,), population.weights.dtype)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    lowered = programs.after_batch.lower(
        crew.work, False, member, carry, carry.sampler, batch, weights, step
    )
    return lowered.as_text()
