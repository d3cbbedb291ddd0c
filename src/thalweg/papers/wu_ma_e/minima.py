"""The nets of the document's experiments, and the minima that GD and SGD find with them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.experiment import Setting

# Samples whose patches fit in the processor's cache, for full gradients of the convolutional net.
_PART = 10


@dataclass(frozen=True, eq=False)
class Task:
    """A net and its samples.

    Attributes:
        name: As in the data file of digitised points.
        model: The net.
        loss: Its loss of one sample.
        x: The samples.
        y: Their labels, as unit vectors.
        test: Samples and labels to test on.
        parts: Parts of a full gradient, where memory is short.
        directions: Leading eigenvectors of H and of Σ on whose span thresholds are computed (they
            are upper bounds on the whole space); products with Σ are dear for convolutions.
    """

    name: str
    model: tw.models.Model
    loss: Any
    x: Float[np.ndarray, "n ..."]
    y: Float[np.ndarray, "n classes"]
    test: tuple[np.ndarray, np.ndarray]
    parts: int = 1
    directions: int = 4

    @property
    def problem(self) -> tw.FiniteSum:
        """The objective."""
        return tw.FiniteSum(self.loss, (jnp.asarray(self.x), jnp.asarray(self.y)))

    def accuracy(self, params: Any) -> float:
        """The share of right answers among the samples to test on."""
        return float(tw.models.accuracy(self.model, params, *self.test))


def fashion(setting: Setting, samples: int = 1000, hidden: Sequence[int] = 3 * (500,)) -> Task:
    """The first images of FashionMNIST and a fully connected ReLU net, 784-500-500-500-10."""
    data = setting.load("fashion-mnist")
    images = data.train.x[:samples].reshape(samples, -1)
    model = tw.models.mlp((images.shape[1], *hidden, 10))
    loss = tw.models.supervised(model, tw.models.squared_error)
    targets = tw.datasets.one_hot(data.train.y[:samples], 10)
    test = data.test.x.reshape(len(data.test.x), -1), data.test.y
    return Task(f"fashionmnist-{samples}", model, loss, images, targets, test)


def cifar(setting: Setting, samples: int = 1000) -> Task:
    """The first airplanes and cars of CIFAR-10 and the small VGG11."""
    data = tw.datasets.first_of_classes(setting.load("cifar10"), (0, 1), samples)
    targets = tw.datasets.one_hot(data.train.y, 2)
    test = data.test.x, data.test.y
    return Task(
        f"cifar10-2class-{samples}",
        tw.models.vgg11_small(),
        vgg_loss,
        data.train.x,
        targets,
        test,
        parts=max(1, samples // _PART),
        directions=1,
    )


def fresh(model: tw.models.Model, key: Array) -> Any:
    """Parameters as PyTorch draws them: uniform on +-1/sqrt(inputs of the unit), biases too."""
    leaves = model.init(key)
    drawn = []
    for layer, own in zip(leaves, jax.random.split(key, len(leaves)), strict=True):
        bound = 1 / math.sqrt(math.prod(layer["w"].shape[:-1]))
        keys = dict(zip(layer, jax.random.split(own, len(layer)), strict=True))
        drawn.append(
            {
                name: jax.random.uniform(keys[name], leaf.shape, leaf.dtype, -bound, bound)
                for name, leaf in layer.items()
            }
        )
    return tuple(drawn)


def found(
    task: Task,
    step: float,
    batch: int,
    run: int,
    setting: Setting,
    *,
    below: float,
    steps: int,
    thresholds: bool,
) -> dict[str, Any]:
    """Train once, until the loss is below a number, and measure where it ended.

    The loss is the mean over an epoch, or over 50 steps if these are more. What was found before is
    read from the setting's folder; a training that was interrupted goes on.

    Args:
        task: Net and samples.
        step: The step.
        batch: The batch, as many as there are samples for GD.
        run: Its number, which decides the random start.
        setting: Seed and folder.
        below: The loss at which to stop.
        steps: The most steps.
        thresholds: Whether to compute which steps are stable at the end, too.
    """
    label = f"{task.name} eta {step} B {batch} run {run}"
    folder = _folder(setting, label)
    kept = None if folder is None else folder.with_suffix(".json")
    if kept is not None and kept.is_file():
        return json.loads(kept.read_text())
    n = len(task.x)
    key = jax.random.fold_in(setting.key, run)
    progress = setting.progress_of(label)
    try:
        training = tw.train(
            task.loss,
            fresh(task.model, key),
            (task.x, task.y),
            sampler=tw.Full() if batch == n else tw.Reshuffled(batch),
            accumulate=task.parts if batch == n else 1,
            optimizer=optax.sgd(step),
            steps=steps,
            key=key,
            record_every=max(n // batch, 50),
            stop_below=below,
            folder=folder,
            progress=None if progress is None else lambda k, total, _: progress(k, total),
        )
    except tw.TrainingError as error:
        row = _blown_up(error.step)
    else:
        row = _measured(task, training, step, batch, thresholds)
    row = {"step size": step, "batch": batch, "run": run, **row}
    if kept is not None:
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(row))
        part.replace(kept)
    return row


def _measured(
    task: Task, training: Any, step: float, batch: int, thresholds: bool
) -> dict[str, Any]:
    row = {
        "steps": training.step,
        "loss": float(training.history["loss"][-1]),
        "fitted": bool(training.stopped),
        "test accuracy": task.accuracy(training.params),
    }
    if not thresholds:
        sharp = tw.curvature.sharpness(task.problem, training.params, rtol=0.01)
        return {**row, "sharpness": float(sharp)}
    about = tw.stability.assess(
        task.problem, training.params, batch_size=batch, step=step, directions=task.directions
    )
    return {
        **row,
        "sharpness": about.sharpness,
        "non-uniformity": about.nonuniformity,
        "smallest eigenvalue": about.smallest_eigenvalue,
        "sufficient": about.largest_step,
        "threshold": about.mean_square.upper,
        "threshold on span": about.mean_square.lower,
    }


def _blown_up(step: int) -> dict[str, Any]:
    nothing = ("loss", "test accuracy", "sharpness", "non-uniformity", "smallest eigenvalue")
    unknown = dict.fromkeys((*nothing, "sufficient", "threshold", "threshold on span"), math.nan)
    return {"steps": step, "fitted": False, **unknown}


def _folder(setting: Setting, label: str) -> Path | None:
    """Where a training keeps what it goes on from."""
    path = setting.checkpoint(label)
    return None if path is None else path.with_suffix("")


def vgg_loss(params: Any, sample: tuple[Array, Array]) -> Float[Array, ""]:
    """The loss of ``tw.models.vgg11_small``, its convolutions as products with patches.

    The same numbers; on a CPU, where compiled loops run convolutions slowly, in a quarter of the
    time.
    """
    h, target = sample
    for layer in params[:-2]:
        h = _halved(jax.nn.relu(_patches(h) @ layer["w"].reshape(-1, layer["b"].size) + layer["b"]))
    h = jnp.ravel(h)
    h = jax.nn.relu(h @ params[-2]["w"] + params[-2]["b"])
    return tw.models.squared_error(h @ params[-1]["w"] + params[-1]["b"], target)


def _patches(image: Float[Array, "h w c"]) -> Float[Array, "h w patch"]:
    """What a 3x3 convolution with a margin of zeros sees at each place."""
    height, width, _ = image.shape
    wide = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    shifted = [wide[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


def _halved(image: Float[Array, "h w c"]) -> Float[Array, "h2 w2 c"]:
    """The largest of each 2x2 block."""
    rows = jnp.maximum(image[::2], image[1::2])
    return jnp.maximum(rows[:, ::2], rows[:, 1::2])
