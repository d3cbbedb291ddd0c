"""The loop of training."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array

from thalweg.errors import InputError
from thalweg.problem import Loss, Params
from thalweg.random import Stream
from thalweg.sampling import AbstractSampler
from thalweg.sampling.scored import AbstractScored
from thalweg.train import arguments, together
from thalweg.train.auto import Auto
from thalweg.train.crew import Crew
from thalweg.train.evaluation import Evaluation, Metric, first_sample, validated
from thalweg.train.gauging import Gauging
from thalweg.train.history import History
from thalweg.train.identity import identity_of
from thalweg.train.objective import Objective
from thalweg.train.parallel import Devices, on_host
from thalweg.train.progress import Pace, Progress
from thalweg.train.run import Plan, Run
from thalweg.train.run_folder import RunFolder
from thalweg.train.scoring import scorer
from thalweg.train.step import Setting, Work, batch_size
from thalweg.train.tensorboard import Board
from thalweg.train.training import Training as Training


def train(
    loss: Loss | Objective,
    params: Params | Callable[[Array], Params],
    data: Any,
    *,
    sampler: AbstractSampler | Auto,
    optimizer: Any,
    steps: int,
    key: Array,
    state: Any = (),
    members: int | None = None,
    hyper: Mapping[str, Any] | None = None,
    weights: Any = None,
    groups: Any = None,
    scores: str = "gradient",
    accumulate: int = 1,
    dtype: Any = None,
    validation: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    evaluate_every: int | None = None,
    record_every: int = 100,
    stop_below: float | None = None,
    gauge_every: int | None = None,
    folder: str | Path | None = None,
    save_seconds: float = 60.0,
    tensorboard: bool = False,
    progress: Progress | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Training:
    r"""Train parameters by any sampler and any Optax optimiser.

    Step k of member j draws the random words of (key, j, k); the gradient
    :math:`\hat g = \sum_b w_b \nabla f_{i_b}(\theta_k)` of the draw goes to the optimiser. With
    ``optimizer=optax.sgd(step)`` this is :class:`thalweg.Descent`, draw by draw.

    Steps run in one compiled program with the data in memory, in segments of half a second; a step
    that convolves is called by Python on the CPU, where convolutions in compiled loops are slow.

    Args:
        loss: ``loss(params, sample)``, the loss of one sample; or a
            :class:`thalweg.train.Objective`, for models with a state of their own.
        params: Where to start: a pytree of floating-point arrays, or a function of a key.
        data: Samples: a pytree of arrays with a leading axis n; or a random-access source (a Grain
            data source or ``MapDataset``, or anything with ``__len__`` and ``__getitem__``), whose
            samples are read by Grain's threads as they are drawn.
        sampler: How batches are drawn; or a :class:`thalweg.train.auto.Auto`.
        optimizer: An Optax transformation; a step or a schedule of steps, for gradient descent; or
            a rule of :mod:`thalweg.steps`. With ``hyper`` a function that returns one of these.
        steps: Steps in all.
        key: The random key.
        state: What the model keeps before the first step.
        members: How many seeds to train in one program; results have a leading axis of members.
            Convolutions on the CPU are trained member by member.
        hyper: Values by name, one a member: ``optimizer(**values)`` is a member's optimiser.
        weights: The :math:`a_i`, 1/n unless given.
        groups: A label for each sample.
        scores: What samplers that draw by scores go by: "gradient", "loss" or "logit"
            (:func:`thalweg.train.scoring.scorer`).
        accumulate: Parts of a batch whose gradients are taken one after the other and added: the
            memory of a part, the step of the whole (batch normalisation sees the parts).
        dtype: The type losses are computed in, for example "bfloat16"; parameters, optimiser and
            evaluation keep their own.
        validation: Samples of evaluations, arrays or a source.
        metrics: Functions of (outputs, sample) by name, averaged over the validation samples.
        evaluate_every: Steps between evaluations, the first before step 0; the end alone unless
            given.
        record_every: Steps between records of the training loss.
        stop_below: Training ends at the first record at or below; members stop one by one.
        gauge_every: Steps between gauges (:func:`thalweg.train.gauge.gauge`) of the sampler, or of
            ``Rolling`` against a sampler without scores; of the first member.
        folder: A run folder, from which the same call goes on after a kill at any moment, with the
            numbers of a run that was not interrupted (same device and versions; an ``Auto`` goes by
            measured times, which repeat only so far). A larger ``steps`` goes on as well. One
            process at a time.
        save_seconds: Seconds between checkpoints: what a kill can cost.
        tensorboard: Whether records go into ``folder/tensorboard`` as well.
        progress: Told the steps done, the steps in all, and a text with samples a second and the
            time left, a few times a second; by the first of several processes.
        devices: Devices that take each step together, for example ``jax.devices()``; the first one
            unless given. They divide the samples, and the tables of scores if n divides; the
            gradient is the sum of theirs, so that the numbers are those of one device but for the
            order of sums.

    Under ``jax.distributed`` all processes call this together with the same arguments, by default
    on all of their devices. The first has the run folder, and its clock decides what goes by time;
    streamed samples are read by the process that needs them; every process returns the whole
    outcome. Another number of processes or devices goes on with the same folder.

    Raises:
        InputError: Before any step: arguments that make no sense; data, labels or validation data
            that do not fit the model; a folder of another run, in use or damaged.
        TrainingError: A loss or parameters that are not finite any more (of all members, if there
            are several), with the step, the last checkpoint and the largest gradient norms.
        OSError: A checkpoint that could not be written; the one before is whole.

    Cost: a gradient of the batch a step, and the scores a sampler asks for; memory twice that of
    parameters, optimiser and sampler (a segment begins from a place one can go back to).
    """
    arguments.check_numbers(
        steps, record_every, save_seconds, evaluate_every=evaluate_every, gauge_every=gauge_every
    )
    if tensorboard and folder is None:
        raise InputError("tensorboard=True writes into the run folder; give folder=")
    key = arguments.checked_key(key)
    objective = Objective.of(loss)
    with on_host(devices):
        population, source = arguments.population_of(data, weights, groups)
    shared = Devices.of(devices, population.n)
    gauging = _gauging(sampler, gauge_every, scores)
    first = sampler.plain if isinstance(sampler, Auto) else sampler
    for each in {first, sampler.candidate} if isinstance(sampler, Auto) else {first}:
        each.check(population)
    size = batch_size(first, population.n)
    arguments.check_parts(accumulate, size)
    start = arguments.started(params, state, key, members, hyper)
    arguments.check_whole_batches(first, population.n, start.state)
    arguments.check_model(objective, start, population, source, size // accumulate)
    arguments.check_rule(optimizer, start, hyper is not None)
    work = _work(objective, sampler, optimizer, hyper is not None, accumulate, dtype, scores, start)
    plan = Plan(
        steps,
        record_every,
        _evaluation(objective, metrics, validation, start, shared),
        evaluate_every,
        stop_below,
        gauging,
    )
    setting = Setting(Stream.of(key).key, population)
    crew = Crew(work, setting, start, source, shared)
    with ExitStack() as stack:
        run_folder = None
        if folder is not None or together.several():
            identity = identity_of(crew, start, plan, (sampler, scores))
            together.check_same(identity)
        if folder is not None:
            run_folder = stack.enter_context(RunFolder(Path(folder), identity, save_seconds))
        return _trained(
            Run(plan, crew, _history(stack, run_folder), run_folder),
            tensorboard,
            progress,
            size * start.count,
        )


def _history(stack: ExitStack, folder: RunFolder | None) -> History:
    """The records, closed together with the folder they go to."""
    history = History(folder.metrics if folder is not None and together.first() else None)
    stack.callback(history.close)
    return history


def _trained(run: Run, tensorboard: bool, progress: Progress | None, samples: int) -> Training:
    """All steps of a run, of so many samples each."""
    if tensorboard and run.folder is not None and together.first():
        run.history.board = Board(run.folder.path / "tensorboard", run.step)
    told = progress if together.first() else None
    run.go(Pace(told, run.step, run.plan.steps, samples))
    return run.training()


def _work(
    objective: Objective,
    sampler: AbstractSampler | Auto,
    optimizer: Any,
    tuned: bool,
    accumulate: int,
    dtype: Any,
    scores: str,
    start: arguments.Start,
) -> Work:
    kind = arguments.compute_type(dtype)
    trained = objective if kind is None else objective.computed_in(kind)
    score = None
    if isinstance(sampler, Auto | AbstractScored):
        score = scorer(trained, scores)
    first = sampler.plain if isinstance(sampler, Auto) else sampler
    return Work(
        objective=trained,
        sampler=first,
        score=score,
        one_pass=(
            scores == "gradient"
            and accumulate == 1
            and trained.apart
            and not jax.tree.leaves(start.state)
        ),
        rule=optimizer,
        tuned=tuned,
        accumulate=accumulate,
        written_out=False,
        freezes=not start.alone,
    )


def _gauging(sampler: AbstractSampler | Auto, every: int | None, scores: str) -> Gauging | None:
    if isinstance(sampler, Auto):
        return Gauging(sampler, every or sampler.every, scores)
    return None if every is None else Gauging(sampler, every, scores)


def _evaluation(
    objective: Objective,
    metrics: Mapping[str, Metric] | None,
    validation: Any,
    start: arguments.Start,
    devices: Devices | None,
) -> tuple[Evaluation, Any] | None:
    evaluation = Evaluation.of(objective, metrics)
    if validation is None:
        if metrics:
            raise InputError("metrics need validation data; give validation=")
        return None
    with on_host(devices):
        data = validated(validation, devices)
    evaluation.check(*start.first, first_sample(data))
    return evaluation, data
