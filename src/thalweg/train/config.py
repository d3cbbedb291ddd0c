"""What a configuration file may say: tables, keys, types, and what goes with what."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
)

from thalweg.errors import InputError
from thalweg.train.faults import Schema
from thalweg.train.toml import KeyPath, TomlFile

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Losses = Literal["cross-entropy", "squared", "logistic", "huber"]


class _Table(BaseModel):
    """A table of the file: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Scale(_Table):
    """Samples of unlike size.

    Attributes:
        share: Which share of the training samples is enlarged.
        factor: By how much.
        of: Their inputs, or their losses.
    """

    share: Annotated[float, Field(gt=0, lt=1)]
    factor: Positive
    of: Literal["losses", "inputs"] = "losses"


class Data(_Table):
    """Real data by name.

    Attributes:
        name: A name that ``thalweg datasets`` lists.
        samples: The first so many training samples; all of them unless given.
        classes: Only these classes, numbered anew from 0 in this order.
        noise: The share of training labels that are replaced by another one.
        scale: Enlarge some training samples.
        standardise: Shift and scale each feature to mean 0 and deviation 1 in training; for
            regressions unless given.
    """

    name: str
    samples: PositiveInt | None = None
    classes: list[int] | None = None
    noise: Share = 0.0
    scale: Scale | None = None
    standardise: bool | None = None


class Mlp(_Table):
    """A multilayer net, :func:`thalweg.models.mlp`; inputs and outputs follow from the data."""

    kind: Literal["mlp"]
    hidden: list[PositiveInt]
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    residual: bool = False
    batch_norm: bool = False
    init: Literal["he", "lecun", "normal"] | None = None


class Linear(_Table):
    """One affine map: linear, logistic or softmax regression."""

    kind: Literal["linear"]


class Vgg(_Table):
    """The small VGG11 of :func:`thalweg.models.vgg11_small`: two classes of 32x32x3 images."""

    kind: Literal["vgg11-small"]


class Own(_Table):
    """An objective of one's own, ``file.py:name``; see docs/training.md."""

    kind: Literal["own"]
    at: str


class Constant(_Table):
    """The same step all the time."""

    name: Literal["constant"]
    initial: Positive


class Cosine(_Table):
    """Half a cosine from ``initial`` to ``final`` over the run."""

    name: Literal["cosine"]
    initial: Positive
    final: Annotated[float, Field(ge=0)] = 0.0


class Exponential(_Table):
    """A geometric decrease from ``initial`` to ``final`` over the run."""

    name: Literal["exponential"]
    initial: Positive
    final: Positive


class Drops(_Table):
    """The step times ``factor`` at each of these epochs."""

    name: Literal["drops"]
    initial: Positive
    factor: Positive
    epochs: list[PositiveInt]


class InverseTime(_Table):
    """:func:`thalweg.steps.inverse_time` and ``inverse_sqrt_time``, the period in epochs."""

    name: Literal["inverse-time", "inverse-sqrt-time"]
    initial: Positive
    period: Positive


def _as_schedule(step: Any) -> Any:
    """A number stands for the constant schedule."""
    number = isinstance(step, (int, float)) and not isinstance(step, bool)
    return {"name": "constant", "initial": step} if number else step


Schedule = Annotated[
    Constant | Cosine | Exponential | Drops | InverseTime,
    Field(discriminator="name"),
    BeforeValidator(_as_schedule),
]


class Plain(_Table):
    """Steps along the negative gradient."""

    name: Literal["sgd"]
    step: Schedule


class Momentum(_Table):
    """Polyak's momentum, or Nesterov's."""

    name: Literal["momentum"]
    step: Schedule
    momentum: Share = 0.9
    nesterov: bool = False


class Adam(_Table):
    """Optax's ``adam``."""

    name: Literal["adam"]
    step: Schedule


class AdamW(_Table):
    """Optax's ``adamw``."""

    name: Literal["adamw"]
    step: Schedule
    decay: Annotated[float, Field(ge=0)] = 1e-4


class Damped(_Table):
    """:func:`thalweg.steps.damped`, whose step must be a number."""

    name: Literal["damped"]
    step: Positive
    alpha: Annotated[float, Field(ge=0)]


class _Sampler(_Table):
    """What every row may say: what it is called, and a step of its own."""

    label: str | None = None
    step: Schedule | None = None


class Descent(_Sampler):
    """All samples in each step."""

    name: Literal["gd"]


class Minibatch(_Sampler):
    """:class:`thalweg.Minibatch`."""

    name: Literal["sgd"]
    batch: PositiveInt
    replace: bool = False


class Passes(_Sampler):
    """:class:`thalweg.Reshuffled` or :class:`thalweg.Cyclic`."""

    name: Literal["reshuffled", "cyclic"]
    batch: PositiveInt


class _Scored(_Sampler):
    """What all samplers by scores may say."""

    batch: PositiveInt
    scores: Literal["gradient", "loss", "logit"] = "gradient"


class _Kept(_Scored):
    """What samplers that keep their scores may say, see :class:`thalweg.Reweighted`."""

    by: Literal["sample", "group"] = "sample"
    stale: Literal["unbiased", "fixed-length"] = "unbiased"
    uniform: Annotated[float, Field(ge=0, le=1)] | None = None
    smoothing: Share = 0.0


class Reweighted(_Kept):
    """:class:`thalweg.Reweighted`, all scores anew every so many steps."""

    name: Literal["rr"]
    refresh: PositiveInt = 1


class Rolling(_Kept):
    """:class:`thalweg.Rolling`, a slice of the data scored anew in each step."""

    name: Literal["rolling"]
    slice: PositiveInt | None = None


class Presampled(_Scored):
    """:class:`thalweg.Presampled`, so many candidates for each draw."""

    name: Literal["presampled"]
    candidates: Annotated[int, Field(ge=2)] = 3


class Auto(_Sampler):
    """:class:`thalweg.Auto`: SGD, and RR with rolling scores as long as the gauge says it pays."""

    name: Literal["auto"]
    batch: PositiveInt
    every: PositiveInt | None = None


class Assess(_Table):
    """Curvature and stability of where training ends.

    Attributes:
        seeds: How many of the seeds are assessed; 0 for none.
        samples: On the first so many training samples.
        directions: Leading eigenvectors used, as in :func:`thalweg.stability.assess`.
    """

    seeds: Annotated[int, Field(ge=0)] = 1
    samples: PositiveInt = 2000
    directions: PositiveInt = 4


_Model = Annotated[Mlp | Linear | Vgg | Own, Field(discriminator="kind")]
_Optimizer = Annotated[Plain | Momentum | Adam | AdamW | Damped, Field(discriminator="name")]
_Row = Annotated[
    Descent | Minibatch | Passes | Reweighted | Rolling | Presampled | Auto,
    Field(discriminator="name"),
]


class Config(_Table):
    """A run of ``thalweg train``.

    Attributes:
        data: What is learned.
        model: What learns it.
        loss: Of one sample; the own objective's if there is one.
        optimizer: How gradients are used.
        sampler: How gradients are drawn, one row of the result each.
        steps: Of each row; or ``epochs``.
        epochs: Passes over the training samples, in place of ``steps``: as many steps for each row
            as its batch needs.
        seeds: Runs of each row, side by side.
        seed: Of all random numbers.
        evaluate_every: Steps between two looks at the test data; a fiftieth of the run unless
            given.
        gauge_every: Steps between two looks of the gauge; a tenth of the run unless given.
        stop_below: Stop as soon as the training loss has fallen below.
        dtype: Of parameters and gradients.
        accumulate: Parts in which the gradient of a batch is taken, where memory is short.
        assess: What is said about the end.
    """

    data: Data
    model: _Model
    optimizer: _Optimizer
    sampler: Annotated[list[_Row], Field(min_length=1)]
    loss: Losses | None = None
    steps: PositiveInt | None = None
    epochs: Positive | None = None
    seeds: PositiveInt = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    evaluate_every: PositiveInt | None = None
    gauge_every: PositiveInt | None = None
    stop_below: Positive | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    accumulate: PositiveInt = 1
    assess: Assess = Assess()


_SCHEMA = Schema(
    Config,
    {
        "model": ("kind", (Mlp, Linear, Vgg, Own)),
        "optimizer": ("name", (Plain, Momentum, Adam, AdamW, Damped)),
        "sampler": ("name", (Descent, Minibatch, Passes, Reweighted, Rolling, Presampled, Auto)),
        "step": ("name", (Constant, Cosine, Exponential, Drops, InverseTime)),
    },
    {"data": Data, "scale": Scale, "assess": Assess},
)


@dataclass(frozen=True)
class Request:
    """A configuration and the file it stands in.

    Attributes:
        config: What the file says.
        file: Where.
    """

    config: Config
    file: TomlFile

    def refusal(self, path: KeyPath, message: str) -> InputError:
        """The error about a key, such as ("data", "noise") or ("sampler", 1, "batch")."""
        if path[:1] == ("sampler",) and isinstance(self.file.document["sampler"], dict):
            path = ("sampler", *path[2:])
        return self.file.refusal(path, message)

    @contextmanager
    def blaming(self, *path: str | int) -> Iterator[None]:
        """Errors of usage from within are about this key."""
        try:
            yield
        except InputError as error:
            raise self.refusal(path, str(error)) from error


def load(path: str | Path) -> Request:
    """Read and check a configuration file.

    ``model = "file.py:name"`` is short for an own objective, and ``[sampler]`` for a list of one.

    Raises:
        InputError: No file, no TOML, an unknown key, a wrong type or value, keys that exclude each
            other: the line, what was got and what was expected.
    """
    file = TomlFile(path)
    document = dict(file.document)
    if isinstance(document.get("model"), str):
        document["model"] = {"kind": "own", "at": document["model"]}
    if isinstance(document.get("sampler"), dict):
        document["sampler"] = [document["sampler"]]
    try:
        request = Request(Config.model_validate(document), file)
    except ValidationError as error:
        raise _SCHEMA.refusal(file, error) from None
    _check_together(request)
    return request


def _check_together(request: Request) -> None:
    """Refuse keys that exclude each other, as far as the file alone shows."""
    config = request.config
    if (config.steps is None) == (config.epochs is None):
        given = "both steps and" if config.steps else "neither steps nor"
        raise request.refusal(("epochs",), f"the file gives {given} epochs; expected one of them")
    own = isinstance(config.model, Own)
    if own and config.loss is not None:
        raise request.refusal(
            ("loss",), "the own objective of model brings its loss; leave loss out"
        )
    if not own and config.loss is None:
        raise request.refusal((), "the file lacks the key 'loss'")
    for place, row in enumerate(config.sampler):
        _check_row(request, place, row)


def _check_row(request: Request, place: int, row: Any) -> None:
    config = request.config
    normalised = isinstance(config.model, Mlp) and config.model.batch_norm
    batch, parts = getattr(row, "batch", None), config.accumulate
    if batch is not None and batch % parts:
        raise request.refusal(
            ("sampler", place, "batch"),
            f"batch is {batch} and accumulate is {parts}; expected a batch of equal parts",
        )
    if normalised and batch == parts:
        raise request.refusal(
            ("sampler", place, "batch"),
            f"batch is {batch} in {parts} parts and the model has batch_norm; expected two samples "
            "a part at least",
        )
    scheduled = isinstance(row.step, _Table) and not isinstance(row.step, Constant)
    if scheduled and isinstance(config.optimizer, Damped):
        raise request.refusal(
            ("sampler", place, "step"), "the damped optimizer takes a number as its step"
        )
