"""Named data and nets as an objective, or an objective of one's own."""

import math
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from thalweg import datasets, models
from thalweg.datasets.base import Dataset, Split
from thalweg.models import Model, State
from thalweg.problem import Params
from thalweg.train.config import Mlp, Own, Request, Vgg
from thalweg.train.named_data import load_data, scale_factors
from thalweg.train.objective import Objective

_EXPECTED = (
    "expected (loss, init) or (loss, init, state): loss(params, sample) or a "
    "thalweg.train.Objective, init(key) its parameters, state what the model keeps"
)
_WORDS = {
    "cross-entropy": "cross-entropy",
    "squared": "loss |o - y|²/2",
    "logistic": "logistic loss",
    "huber": "Huber's loss",
}


@dataclass(frozen=True, eq=False)
class Network:
    """What is trained, on what, and where it is tried.

    Attributes:
        name: Of the data.
        title: Data, model and loss, for a heading.
        objective: The losses of batches and samples.
        init: Parameters from a key.
        state: What the model keeps beside its parameters, before training.
        train: Training samples (x, y).
        test: Test samples, never corrupted and never enlarged.
        groups: The class of each training sample; None in a regression.
        classified: Whether outputs can be right or wrong: labels, and outputs that are known.
    """

    name: str
    title: str
    objective: Objective
    init: Callable[[Array], Params]
    state: State
    train: tuple[Any, Any]
    test: tuple[Any, Any]
    groups: Int[np.ndarray, " n"] | None
    classified: bool

    @property
    def n(self) -> int:
        """How many training samples there are."""
        return len(self.train[0])


def load_network(request: Request, data_dir: str | Path | None, folder: Path) -> Network:
    """The data and the model that a configuration names.

    Args:
        request: The configuration.
        data_dir: Where data files are.
        folder: Where the file of an own objective is looked for.

    Raises:
        InputError: Data that are not there or too few, a loss or a model that does not fit them;
            the line is named.
    """
    data = load_data(request, data_dir)
    groups = None if data.n_classes is None else data.train.y
    if isinstance(request.config.model, Own):
        objective, init, state = _own(request, folder)
        train, test = ((part.x, part.y) for part in (data.train, data.test))
        title = f"{data.name}: {request.config.model.at}"
    else:
        model, outputs = _model(request, data)
        objective = Objective.of_model(model, _loss(request))
        init, state = model.init, model.init_state()
        train = _samples(request, data, data.train, enlarge=True)
        test = _samples(request, data, data.test, enlarge=False)
        title = _title(request, data, outputs)
    classified = groups is not None and objective.outputs is not None
    return Network(data.name, title, objective, init, state, train, test, groups, classified)


def is_correct(outputs: Float[Array, " k"], sample: tuple[Any, Any]) -> Bool[Array, ""]:
    """Whether the largest output is that of the label; with one output, whether its sign is.

    Labels are numbers or vectors with a one, alone or with the factor of their loss.
    """
    y = sample[1][0] if isinstance(sample[1], tuple) else sample[1]
    label = jnp.argmax(y) if jnp.ndim(y) else y
    if outputs.size == 1:
        return (outputs.reshape(()) > 0) == (label > 0)
    return jnp.argmax(outputs).astype(label.dtype) == label


def half_squared_error(outputs: Float[Array, " k"], target: Any) -> Float[Array, ""]:
    r"""The loss :math:`\tfrac12 |o - y|^2`: half the sum over outputs."""
    return 0.5 * models.squared_error(outputs, target, "sum")


def huber(outputs: Float[Array, " 1"], target: Any) -> Float[Array, ""]:
    r"""Huber's loss of the residual r = o - y: :math:`r^2/2` up to 1, :math:`|r| - 1/2` beyond.

    Its slope is at most 1, so that a target far off does not pull more than others do.
    """
    return optax.huber_loss(outputs.reshape(()), jnp.asarray(target).astype(outputs.dtype))


_LOSSES: dict[str, Callable[[Array, Any], Array]] = {
    "cross-entropy": models.cross_entropy,
    "squared": half_squared_error,
    "logistic": models.logistic,
    "huber": huber,
}


@dataclass(frozen=True)
class _Enlarged:
    """A loss times the factor that comes with the label."""

    loss: Callable[[Array, Any], Array]

    def __call__(self, outputs: Array, label: tuple[Array, Array]) -> Array:
        value, factor = self.loss(outputs, label[0]), label[1]
        return value * jnp.asarray(factor).astype(value.dtype)


def _loss(request: Request) -> Callable[[Array, Any], Array]:
    loss = _LOSSES[str(request.config.loss)]
    return _Enlarged(loss) if _enlarges_losses(request) else loss


def _enlarges_losses(request: Request) -> bool:
    scale = request.config.data.scale
    return scale is not None and scale.of == "losses"


def _samples(request: Request, data: Dataset, part: Split, enlarge: bool) -> tuple[Any, Any]:
    """Inputs, and what the loss takes: labels, vectors with a one, or targets."""
    y: Any = part.y
    if data.n_classes is not None and request.config.loss == "squared":
        y = datasets.one_hot(y, data.n_classes)
    if _enlarges_losses(request):
        size = len(part)
        factors = scale_factors(request, size) if enlarge else np.ones(size, dtype=np.float32)
        y = (y, factors)
    return part.x, y


def _model(request: Request, data: Dataset) -> tuple[Model, int]:
    """The net, with as many outputs as the loss needs for these data."""
    config, outputs = request.config, _outputs(request, data)
    shape = data.train.x.shape[1:]
    if isinstance(config.model, Vgg):
        if shape != (32, 32, 3) or outputs != 2:
            raise request.refusal(
                ("model", "kind"),
                f"vgg11-small is for two classes of 32x32x3 images, and {data.name} here has "
                f"samples of shape {shape} and the loss {outputs} outputs; expected cifar10 with "
                "classes = [0, 1], say, and the loss cross-entropy or squared",
            )
        return models.vgg11_small(), outputs
    if isinstance(config.model, Mlp):
        about = config.model
        widths = (math.prod(shape), *about.hidden, outputs)
        options = (about.activation, about.residual, about.batch_norm, about.init)
        return models.mlp(widths, *options), outputs
    return models.mlp((math.prod(shape), outputs), init="lecun"), outputs


def _outputs(request: Request, data: Dataset) -> int:
    """How many outputs a loss needs; refused where it does not fit the data."""
    loss, classes = request.config.loss, data.n_classes
    if classes is None:
        if loss in ("squared", "huber"):
            return 1
        raise request.refusal(
            ("loss",),
            f"loss is {loss!r} and {data.name} is a regression; expected squared or huber",
        )
    if loss == "huber":
        raise request.refusal(
            ("loss",), f"loss is 'huber' and {data.name} has classes; it is for regressions"
        )
    if loss != "logistic":
        return classes
    if classes != 2:
        raise request.refusal(
            ("loss",),
            f"loss is 'logistic', for two classes, and {data.name} has {classes}; expected "
            "cross-entropy, or two classes as in [data] classes = [0, 1]",
        )
    return 1


def _title(request: Request, data: Dataset, outputs: int) -> str:
    config = request.config
    widths = [math.prod(data.train.x.shape[1:]), outputs]
    if isinstance(config.model, Mlp):
        about = config.model
        widths[1:1] = about.hidden
        kind = "ReLU" if about.activation == "relu" else about.activation
        more = f"{' residual' * about.residual}{' batch-normalised' * about.batch_norm}"
        what = f"a {'-'.join(map(str, widths))}{more} {kind} net"
    elif isinstance(config.model, Vgg):
        what = "the small VGG11"
    else:
        what = f"a linear model, {widths[0]} features to {outputs}"
    return f"{data.name}: {what} on {len(data.train)} samples, {_WORDS[str(config.loss)]}"


def _own(request: Request, folder: Path) -> tuple[Objective, Callable[[Array], Params], State]:
    """The objective in a file, its parameters' maker and its state."""
    assert isinstance(request.config.model, Own)
    file, found = own_file(request, folder), request.config.model.at.rpartition(":")[2]
    module = runpy.run_path(str(file))
    if found not in module:
        raise request.refusal(("model", "at"), f"{file} has no {found!r}; {_EXPECTED}")
    parts = module[found]
    parts = parts() if callable(parts) and not isinstance(parts, tuple) else parts
    if not (isinstance(parts, tuple) and len(parts) in (2, 3) and callable(parts[1])):
        raise request.refusal(("model", "at"), f"{found} is {_kind(parts)}; {_EXPECTED}")
    if _enlarges_losses(request):
        raise request.refusal(
            ("data", "scale"), "an own objective has losses of its own; expected of = 'inputs'"
        )
    loss, init, *state = parts
    objective = loss if isinstance(loss, Objective) else Objective.of(loss)
    return objective, init, state[0] if state else ()


def own_file(request: Request, folder: Path) -> Path:
    """The file of an own objective, beside the configuration unless it is an absolute path."""
    assert isinstance(request.config.model, Own)
    path, colon, _ = request.config.model.at.rpartition(":")
    file = folder / path
    if not colon or not file.is_file():
        raise request.refusal(
            ("model", "at"),
            f"model is {request.config.model.at!r} and there is no file {file}; expected "
            "file.py:name",
        )
    return file


def _kind(found: Any) -> str:
    size = f" of {len(found)}" if isinstance(found, tuple) else ""
    return f"a {type(found).__name__}{size}"
