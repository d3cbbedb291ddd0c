"""What training returns, and how it fails."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Training:
    """The outcome of :func:`thalweg.train`.

    With members every array has a leading axis of members, but for steps and seconds.

    Attributes:
        params: Parameters at the end.
        state: What the model keeps, at the end.
        optimizer_state: The optimiser's, at the end.
        sampler_state: The sampler's, at the end.
        step: Steps taken.
        seconds: Time spent on steps and scores; not on compiling, evaluation and checkpoints.
        history: Arrays ``step``, ``seconds`` and ``loss``, the mean of the weighted batch losses
            since the last record, shape (records,) or (records, members); and ``evaluation``, a
            dictionary of ``step``, ``seconds``, ``loss`` and the metrics by name. A member that has
            stopped keeps its last record; one that diverged has NaN.
        gauges: What the gauge measured on the way, in order.
        switches: Steps at which another sampler took over, and which.
        stopped: Whether the recorded loss came down to ``stop_below``.
        diverged: The first step with a loss that was not finite, -1 if there was none.
    """

    params: Any
    state: Any = field(repr=False)
    optimizer_state: Any = field(repr=False)
    sampler_state: Any = field(repr=False)
    step: int
    seconds: float
    history: Mapping[str, Any] = field(repr=False)
    gauges: list[Any] = field(repr=False)
    switches: list[tuple[int, str]]
    stopped: Any
    diverged: Any


class TrainingError(RuntimeError):
    """The loss is not finite any more (of all members, if there are several).

    Attributes:
        step: The step that failed.
        checkpoint: The step of the last checkpoint, None if there is none.
        norms: The largest gradient norms in the batch of that step, by the number of the sample.
    """

    def __init__(self, message: str, step: int, checkpoint: int | None, norms: dict[int, float]):
        super().__init__(message)
        self.step = step
        self.checkpoint = checkpoint
        self.norms = norms
