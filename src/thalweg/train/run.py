"""One run of training: what happens at which step, and what is kept to go on from."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg.errors import InputError
from thalweg.sampling.scored import AbstractScored
from thalweg.train import together
from thalweg.train.auto import Choice
from thalweg.train.crew import Crew
from thalweg.train.evaluation import Evaluation
from thalweg.train.failure import failure
from thalweg.train.gauge import Gauge
from thalweg.train.gauging import Gauging
from thalweg.train.history import History
from thalweg.train.progress import Pace
from thalweg.train.run_folder import RunFolder
from thalweg.train.training import Training, TrainingError

# Steps of the first segment; later ones are as long as keeps checkpoints and progress prompt.
_FIRST_SEGMENT = 16
_SEGMENT_SECONDS = 0.5


@dataclass(frozen=True, eq=False)
class Plan:
    """What happens when.

    Attributes:
        steps: Steps in all.
        record_every: Steps between records of the loss.
        evaluation: What is evaluated, and on which data; None for nothing.
        evaluate_every: Steps between evaluations; None for the end alone.
        stop_below: The recorded loss at which a member stops.
        gauging: The gauge, None for none.
    """

    steps: int
    record_every: int
    evaluation: tuple[Evaluation, Any] | None
    evaluate_every: int | None
    stop_below: float | None
    gauging: Gauging | None


class Run:
    """A crew on its way.

    Args:
        plan: What happens when.
        crew: Who moves.
        history: Where it is recorded.
        folder: Where it is saved, or None.
        pace: Who is told.
    """

    def __init__(self, plan: Plan, crew: Crew, history: History, folder: RunFolder | None):
        self.plan, self.crew, self.history, self.folder = plan, crew, history, folder
        self.step, self.seconds = 0, 0.0
        self.stopped = np.zeros(crew.count, bool)
        # Whether everything of the steps so far is done: what is saved is whole.
        self._whole = True
        if folder is not None:
            self._take_up(folder)

    def go(self, pace: Pace) -> None:
        """Take all steps that are left."""
        try:
            if self._moves():
                self._warm()
            length = _FIRST_SEGMENT
            while self._moves():
                self._before_step()
                begun, before = time.perf_counter(), self.step
                self._advance(min(self._boundary(), before + length))
                taken = together.since(begun)
                self.seconds += taken
                if self.plan.gauging is not None:
                    self.plan.gauging.timed(taken, self.step - before)
                self._after_step()
                wanted = int((self.step - before) * _SEGMENT_SECONDS / max(taken, 1e-6))
                length = max(1, min(4 * length, wanted))
                pace.at(self.step)
                if self.folder is not None and self.folder.due():
                    self._save(self.folder)
            self._at_end()
        except BaseException as error:
            # An interrupt leaves everything at the last whole segment. Several processes save
            # together, and the others may know nothing of it.
            if self.folder is not None and (
                not together.several() or isinstance(error, TrainingError)
            ):
                self._save(self.folder)
            raise
        if self.folder is not None:
            self._save(self.folder)

    def training(self) -> Training:
        """What came out; of several processes, the same in each."""
        carry = self.crew.joined()
        bad = np.asarray(carry.bad)
        return Training(
            params=carry.params,
            state=carry.state,
            optimizer_state=carry.optimizer,
            sampler_state=carry.sampler,
            step=self.step,
            seconds=self.seconds,
            history=self.history.arrays(),
            gauges=[Gauge(**row["gauge"]) for row in self.history.of("gauge")],
            switches=[(row["step"], row["switch"]) for row in self.history.of("switch")],
            stopped=bool(self.stopped[0]) if self.crew.alone else self.stopped,
            diverged=int(bad) if self.crew.alone else bad,
        )

    def _moves(self) -> bool:
        return self.step < self.plan.steps and bool(np.any(self.crew.moving()))

    def _boundary(self) -> int:
        """The next step at which something happens."""
        plan, sampler = self.plan, self.crew.work.sampler
        refresh = sampler.refresh if isinstance(sampler, AbstractScored) else None
        gauge_every = None if plan.gauging is None else plan.gauging.every
        every = (plan.record_every, plan.evaluate_every, gauge_every, refresh)
        following = [(self.step // k + 1) * k for k in every if k is not None]
        return min(plan.steps, *following)

    def _before_step(self) -> None:
        """What belongs to the step to come."""
        self._whole = False
        if self.step == 0 and self.plan.evaluate_every is not None:
            self._evaluate()
        gauging = self.plan.gauging
        if gauging is not None and together.agreed(lambda: gauging.due(self.step)):
            self._gauge(gauging)
        begun = time.perf_counter()
        self.crew.refresh(self.step)
        if self.crew.refreshes(self.step):
            self.seconds += together.since(begun)

    def _gauge(self, gauging: Gauging) -> None:
        begun = time.perf_counter()
        found = gauging.measured(self.crew, self.step)
        found = Gauge(**together.agreed(found._asdict))
        before = gauging.choice.active
        gauging.decide(found)
        # Processes have clocks of their own.
        gauging.choice = Choice(*together.agreed(lambda: list(gauging.choice)))
        changed = gauging.choice.active != before
        if changed:
            self.crew.switch(gauging.sampler)
        if gauging.switches:
            # Looking is part of what such a sampler costs.
            self.seconds += together.since(begun)
        self.history.add(self.step, self.seconds, gauge=found._asdict())
        if changed:
            self.history.add(self.step, self.seconds, switch=type(gauging.sampler).__name__)

    def _warm(self) -> None:
        """Compile everything before the clock starts."""
        gauging = self.plan.gauging
        self.crew.warm(self.step)
        if gauging is None:
            return
        gauging.warm(self.crew, self.step)
        if gauging.switches:
            active = gauging.choice.active
            gauging.tried(self.crew, self.step, active)
            kept, sampler = self.crew.carries, self.crew.work.sampler
            self.crew.switch(gauging.other)
            self.crew.warm(self.step)
            gauging.tried(self.crew, self.step, not active)
            self.crew.switch(sampler)
            self.crew.carries = kept

    def _advance(self, end: int) -> None:
        before = self.crew.carries
        self.crew.advance(self.step, end)
        if not np.any(self.crew.moving()) and not np.all(self.stopped):
            bad = np.min(np.asarray(self.crew.joined().bad))
            self.crew.carries = before
            saved = None if self.folder is None else self.folder.last_step
            raise failure(self.crew, self.step, int(bad), saved)
        self.step = end

    def _after_step(self) -> None:
        """What belongs to the steps taken."""
        plan = self.plan
        if self.step % plan.record_every == 0:
            self._record()
        if plan.evaluate_every is not None and self.step % plan.evaluate_every == 0:
            self._evaluate()
        self._whole = True

    def _record(self) -> None:
        loss = self.crew.mean_losses(self.plan.record_every)
        previous = self.history.last_loss()
        if previous is not None:
            loss = np.where(self.stopped, previous, loss)
        self.history.add(self.step, self.seconds, loss=loss[0] if self.crew.alone else loss)
        if self.plan.stop_below is not None:
            self.stopped = self.stopped | (loss <= self.plan.stop_below)
            self.crew.stop(self.stopped)

    def _evaluate(self) -> None:
        if self.plan.evaluation is None:
            return
        evaluation, data = self.plan.evaluation
        values = self.crew.each(lambda many, carry: evaluation.means(many, carry, data))
        self.history.add(self.step, self.seconds, evaluation=values)

    def _at_end(self) -> None:
        looks = self.history.of("evaluation")
        if not looks or looks[-1]["step"] != self.step:
            self._whole = False
            self._evaluate()
            self._whole = True

    def _save(self, folder: RunFolder) -> None:
        if self._whole and folder.last_step != self.step:
            meta = {
                "seconds": self.seconds,
                "stopped": self.stopped.tolist(),
                "history": self.history.length,
                "gauging": None if self.plan.gauging is None else self.plan.gauging.saved(),
            }
            # Not once more if it fails.
            self._whole = False
            folder.save(self.step, self.crew.joined(), meta)
            self._whole = True

    def _take_up(self, folder: RunFolder) -> None:
        """Go on from the last checkpoint, if there is one."""
        meta = folder.meta()
        if meta is None:
            self.history.cut(0)
            return
        assert folder.last_step is not None
        if folder.last_step > self.plan.steps:
            raise InputError(
                f"the run in {folder.path} is at step {folder.last_step} and steps= is "
                f"{self.plan.steps}; ask for at least as many or give another folder"
            )
        if self.plan.gauging is not None:
            self.plan.gauging.take(meta["gauging"])
            if self.plan.gauging.switches and self.plan.gauging.choice.active:
                self.crew.switch(self.plan.gauging.sampler)
        self.crew.take(folder.restored(self.crew.joined()))
        self.step, self.seconds = folder.last_step, meta["seconds"]
        self.stopped = np.asarray(meta["stopped"])
        self.history.cut(meta["history"])
