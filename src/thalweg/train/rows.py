"""The rows of a training: each a sampler, an optimiser and a number of steps."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax

from thalweg import steps as rules
from thalweg.problem import FiniteSum
from thalweg.sampling import (
    AbstractSampler,
    Cyclic,
    Full,
    Minibatch,
    Presampled,
    Reshuffled,
    Reweighted,
    Rolling,
)
from thalweg.train import config as said
from thalweg.train.auto import Auto
from thalweg.train.config import Request

# Where `uniform` is not given.
_UNIFORM = 0.1
# Looks of the gauge along a run, where the configuration does not say how many.
GAUGES = 10


@dataclass(frozen=True, eq=False)
class Row:
    """One row of the result.

    Attributes:
        label: What the table calls it.
        family: Decides its colour.
        sampler: The sampler, or the specification that chooses one.
        scores: What the sampler draws by.
        batch_size: B; n for gradient descent.
        steps: How many are taken.
        step: The step by its number, or a number.
        optimizer: What takes it.
    """

    label: str
    family: str
    sampler: AbstractSampler | Auto
    scores: str
    batch_size: int
    steps: int
    step: Any
    optimizer: optax.GradientTransformation

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return slug(self.label)

    @property
    def plain(self) -> bool:
        """Whether linear stability, which is about SGD, speaks of this row."""
        return isinstance(self.sampler, (Full, Minibatch))

    @property
    def unbiased(self) -> bool:
        """Whether the mean of its estimate is the gradient."""
        return getattr(self.sampler, "unbiased", True)

    @property
    def replace(self) -> bool:
        """Whether batches are drawn with replacement."""
        return isinstance(self.sampler, Minibatch) and self.sampler.replace

    @property
    def step_text(self) -> str:
        """The step for the table; a schedule by its ends."""
        if callable(self.step):
            return f"{float(self.step(0)):.3g} to {self.last_step:.3g}"
        return f"{self.step:.4g}"

    @property
    def last_step(self) -> float:
        """The step at the end."""
        return float(self.step(self.steps - 1)) if callable(self.step) else float(self.step)


def slug(label: str) -> str:
    """Letters, digits and dashes of a label, as the name of a folder."""
    return "-".join("".join(c if c.isalnum() else " " for c in label.lower()).split())


def rows_of(request: Request, n: int, groups: Any = None) -> list[Row]:
    """The rows that a configuration asks for, on n samples, which may have groups.

    Raises:
        InputError: A batch larger than the data, a slice or candidates that do not fit, groups
            where there are no classes, two rows of one name; the line is named.
    """
    for place, asked in enumerate(request.config.sampler):
        if getattr(asked, "by", "sample") == "group" and groups is None:
            raise request.refusal(
                ("sampler", place, "by"),
                "by is 'group', which are the classes, and these data have none; expected 'sample'",
            )
    # Samplers ask for size and groups of the data alone: samples may be their own numbers.
    population = FiniteSum(lambda params, sample: sample, np.arange(n), groups=groups)
    rows = [_row(request, place, population) for place in range(len(request.config.sampler))]
    count = Counter(row.folder for row in rows)
    for place, row in enumerate(rows):
        if count[row.folder] > 1:
            raise request.refusal(
                ("sampler", place),
                f"{count[row.folder]} rows are called {row.label!r}; give each a label",
            )
    return rows


def _row(request: Request, place: int, population: FiniteSum) -> Row:
    asked, config, n = request.config.sampler[place], request.config, population.n
    batch = getattr(asked, "batch", n)
    if batch > n:
        raise request.refusal(
            ("sampler", place, "batch"), f"batch is {batch} and there are {n} training samples"
        )
    if config.steps is not None:
        steps = config.steps
    else:
        assert config.epochs is not None  # one of them was given
        steps = max(1, round(config.epochs * n / batch))
    with request.blaming("sampler", place):
        sampler = _SAMPLERS[asked.name](asked, steps)
        parts = (sampler.plain, sampler.candidate) if isinstance(sampler, Auto) else (sampler,)
        for part in parts:
            part.check(population)
    common = config.optimizer.step
    if isinstance(config.optimizer, said.Damped):
        common = said.Constant(name="constant", initial=config.optimizer.step)
    step = _step(asked.step or common, steps, max(1, round(n / batch)))
    optimizer = _OPTIMIZERS[config.optimizer.name](config.optimizer, step)
    scores = getattr(asked, "scores", "gradient")
    return Row(
        asked.label or _label(asked, common),
        _family(asked, common),
        *(sampler, scores, batch, steps, step, optimizer),
    )


def _reweighted(asked: said.Reweighted, steps: int) -> Reweighted:
    # Scores that are always fresh need no uniform draws beside them.
    own = _UNIFORM if asked.refresh > 1 else 0.0
    uniform = own if asked.uniform is None else asked.uniform
    options = {"uniform": uniform, "smoothing": asked.smoothing}
    return Reweighted(asked.batch, asked.by, asked.refresh, asked.stale, **options)


def _rolling(asked: said.Rolling, steps: int) -> Rolling:
    uniform = _UNIFORM if asked.uniform is None else asked.uniform
    options = {"uniform": uniform, "smoothing": asked.smoothing}
    return Rolling(asked.batch, asked.slice, by=asked.by, stale=asked.stale, **options)


def _presampled(asked: said.Presampled, steps: int) -> Presampled:
    return Presampled(asked.batch, asked.candidates)


def _auto(asked: said.Auto, steps: int) -> Auto:
    return Auto(asked.batch, every=asked.every or max(1, steps // GAUGES))


_SAMPLERS: dict[str, Callable[[Any, int], Any]] = {
    "gd": lambda asked, steps: Full(),
    "sgd": lambda asked, steps: Minibatch(asked.batch, replace=asked.replace),
    "reshuffled": lambda asked, steps: Reshuffled(asked.batch),
    "cyclic": lambda asked, steps: Cyclic(asked.batch),
    "rr": _reweighted,
    "rolling": _rolling,
    "presampled": _presampled,
    "auto": _auto,
}
_NAMES = {
    "gd": "GD",
    "sgd": "SGD",
    "reshuffled": "random passes",
    "cyclic": "cyclic",
    "rr": "RR",
    "rolling": "RR rolling",
    "presampled": "RR presampled",
    "auto": "auto",
}


def _label(asked: Any, common: Any) -> str:
    """The sampler, what is unusual about it, and its batch: "SGD, half step, B=32"."""
    words = [_NAMES[asked.name]]
    if getattr(asked, "by", "sample") == "group":
        words[0] += " by group"
    if getattr(asked, "refresh", 1) > 1:
        words[0] += f" every {asked.refresh}"
    if getattr(asked, "scores", "gradient") != "gradient":
        words[0] += f" by {asked.scores}"
    if getattr(asked, "stale", "unbiased") != "unbiased":
        words.append("fixed length")
    if asked.step is not None:
        words.append(_step_words(asked.step, common))
    if asked.name != "gd":
        words.append(f"B={asked.batch}")
    return ", ".join(words)


def _step_words(step: Any, common: Any) -> str:
    if _halved(step, common):
        return "half step"
    return f"step {step.initial:g}" + ("" if step.name == "constant" else f" {step.name}")


def _family(asked: Any, common: Any) -> str:
    if asked.name == "sgd" and asked.step is not None:
        return "sgd-half" if asked.step.initial < common.initial else "sgd"
    if asked.name == "rr" and asked.stale == "fixed-length":
        return "rr-fixed"
    if asked.name == "rr" and asked.by == "group":
        return "rr-group"
    return asked.name


def _halved(step: Any, common: Any) -> bool:
    """Whether it is the same schedule with half of each step."""
    own, other = step.model_dump(), common.model_dump()
    return own.keys() == other.keys() and all(
        math.isclose(2 * own[name], other[name])
        if name in ("initial", "final")
        else own[name] == other[name]
        for name in own
    )


def _step(schedule: Any, steps: int, per_epoch: int) -> Any:
    """A number, or the step as a function of the number of steps taken."""
    initial = schedule.initial
    if isinstance(schedule, said.Constant):
        return initial
    if isinstance(schedule, said.Cosine):
        return optax.cosine_decay_schedule(initial, steps, alpha=schedule.final / initial)
    if isinstance(schedule, said.Exponential):
        return optax.exponential_decay(initial, steps, schedule.final / initial)
    if isinstance(schedule, said.Drops):
        at = {epoch * per_epoch: schedule.factor for epoch in schedule.epochs}
        return optax.piecewise_constant_schedule(initial, at)
    inverse = schedule.name == "inverse-time"
    rule = rules.inverse_time if inverse else rules.inverse_sqrt_time
    return rule(initial, schedule.period, steps_per_epoch=per_epoch)


_OPTIMIZERS: dict[str, Callable[[Any, Any], optax.GradientTransformation]] = {
    "sgd": lambda asked, step: optax.sgd(step),
    "momentum": lambda asked, step: optax.sgd(step, asked.momentum, asked.nesterov),
    "adam": lambda asked, step: optax.adam(step),
    "adamw": lambda asked, step: optax.adamw(step, weight_decay=asked.decay),
    "damped": lambda asked, step: rules.damped(step, asked.alpha),
}
