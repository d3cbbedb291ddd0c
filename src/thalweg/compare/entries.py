"""The samplers of a comparison, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg.errors import InputError, known
from thalweg.problem import FiniteSum
from thalweg.sampling import (
    AbstractSampler,
    Cyclic,
    Full,
    Minibatch,
    Resampled,
    Reshuffled,
    Reweighted,
)
from thalweg.steps import check_step


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Attributes:
        label: What the table calls it.
        family: Its name on the command line, which also decides its colour.
        sampler: The sampler.
        step: A number or a schedule.
        batch_size: B; n for gradient descent.
    """

    label: str
    family: str
    sampler: AbstractSampler
    step: Any
    batch_size: int

    @property
    def deterministic(self) -> bool:
        """Whether all chains from one start are the same."""
        return self.family in ("gd", "cyclic")

    @property
    def replace(self) -> bool:
        """Whether a minibatch is drawn with replacement."""
        return isinstance(self.sampler, Minibatch) and self.sampler.replace

    @property
    def by_stability(self) -> bool:
        """Whether linear stability, which is about SGD, speaks of this sampler."""
        return isinstance(self.sampler, (Full, Minibatch))

    def first_step(self) -> float:
        """The step at k = 0."""
        return float(self.step(0)) if callable(self.step) else float(self.step)

    def time(self, steps: int) -> float:
        """The time t of a run, the sum of its steps."""
        if callable(self.step):
            return float(np.sum(self.step(np.arange(steps))))
        return float(self.step) * steps

    def step_text(self, steps: int) -> str:
        """The step for the table; a schedule by its ends."""
        if callable(self.step):
            return f"{float(self.step(0)):.3g} to {float(self.step(steps - 1)):.3g}"
        return f"{self.step:.4g}"


@dataclass(frozen=True)
class Setting:
    """What samplers are built from: the problem, its step, and how RR takes its scores."""

    problem: FiniteSum
    step: Any
    refresh: int
    lipschitz: tuple[float, ...] | None = None


_LABELS = {
    "gd": "GD",
    "sgd": "SGD, B={B}",
    "sgd-half": "SGD, half step, B={B}",
    "reshuffled": "random passes, B={B}",
    "cyclic": "cyclic, B={B}",
    "rr": "RR, B={B}",
    "rr-fixed": "RR fixed length, B={B}",
    "rr-group": "RR by group, B={B}",
    "rr-population": "RR population, B={B}",
}
NAMES = tuple(_LABELS)
_SAMPLERS: dict[str, Callable[[int, Setting], AbstractSampler]] = {
    "gd": lambda B, s: Full(),
    "sgd": lambda B, s: Minibatch(B, replace=B > 1 and not s.problem.uniform),
    "sgd-half": lambda B, s: Minibatch(B, replace=B > 1 and not s.problem.uniform),
    "reshuffled": lambda B, s: Reshuffled(B),
    "cyclic": lambda B, s: Cyclic(B),
    "rr": lambda B, s: Reweighted(B, refresh=s.refresh),
    "rr-fixed": lambda B, s: Reweighted(B, refresh=s.refresh, stale="fixed-length"),
    "rr-group": lambda B, s: Reweighted(B, by="group"),
    "rr-population": lambda B, s: _population(B, s),
}


def entries(names: Sequence[str], batches: Sequence[int], setting: Setting) -> list[Entry]:
    """The rows for the samplers asked for, with GD and SGD at half the step always among them.

    SGD takes every batch size given, the others the middle one.

    Raises:
        InputError: An unknown sampler, a batch size or step out of range.
    """
    if not callable(setting.step):
        check_step(setting.step)
    if not batches:
        raise InputError("batch holds no sizes; expected at least one")
    asked = {known(name, NAMES, "sampler") for name in names} | {"gd", "sgd-half"}
    middle = sorted(batches)[len(batches) // 2]
    rows = []
    for family in NAMES:
        if family in asked:
            sizes = sorted(set(batches), reverse=True) if family == "sgd" else [middle]
            rows += [_entry(family, size, setting) for size in sizes]
    for row in rows:
        row.sampler.check(setting.problem)
    return rows


def _entry(family: str, size: int, setting: Setting) -> Entry:
    step = _halved(setting.step) if family == "sgd-half" else setting.step
    sampler = _SAMPLERS[family](size, setting)
    batch_size = setting.problem.n if family == "gd" else size
    return Entry(_LABELS[family].format(B=size), family, sampler, step, batch_size)


def _halved(step: Any) -> Any:
    return (lambda count: 0.5 * step(count)) if callable(step) else 0.5 * step


def _population(size: int, setting: Setting) -> AbstractSampler:
    if setting.lipschitz is None:
        raise InputError(
            "rr-population needs Lipschitz constants of the groups and this problem has none; "
            "use rr or rr-group, or thalweg.Resampled in Python"
        )
    return Resampled(size, lipschitz=np.asarray(setting.lipschitz))
