"""Figures 3, 4 and 5: batch-normalised nets on MNIST, by learning rate and batch size."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import thalweg as tw
from thalweg.papers.dai_zhu.networks_claims import claims, pictures, tables
from thalweg.papers.dai_zhu.trainings import FIGURES, PAIRS, Trainings
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Outcome

# Four layers of weights; the document does not tell their widths.
_WIDTHS = (784, 64, 64, 64, 10)
_MODEL = tw.models.mlp(_WIDTHS, batch_norm=True)
_OBJECTIVE = tw.Objective.of_model(_MODEL, tw.models.cross_entropy)
# The Hessian is that of the loss of the first so many training images, by so many random probes.
_CURVED, _PROBES = 1000, 20
_QUICK_EPOCHS = (0, 1, 2, 5, 10, 20)
_FULL_EPOCHS = (0, 1, 2, 3, 5, 7, 10, 15, 20, 25, *range(30, 201, 10))
# Whole batches of both sizes: the last batch of a pass would be a short one, and batch
# normalisation, whose statistics are the batch's, would make another noise of it.
_QUICK_IMAGES, _FULL_IMAGES = 5120, 59_904


class _Data(NamedTuple):
    """Images and labels, in parts of one size."""

    x: Float[Array, "parts size pixels"]
    y: Int[Array, "parts size"]


@experiment(
    "dai-zhu/figures-3-4-5",
    "Batch-normalised nets on MNIST: norm of the Hessian, accuracies and losses by epoch",
    covers=FIGURES,
    seconds=(20, 2100),
    needs=("mnist",),
    float64=False,
)
def networks(setting: Setting) -> Outcome:
    """Ten trainings of each of the three pairs, looked at after some of their 200 epochs."""
    data = setting.load("mnist")
    train = _parts(data.train, *setting.choose((_QUICK_IMAGES, 1), (_FULL_IMAGES, 6)))
    test = _parts(data.test, setting.choose(_QUICK_IMAGES, 10_000), 1)
    epochs = setting.choose(_QUICK_EPOCHS, _FULL_EPOCHS)
    runs = setting.choose(3, 10)
    found: dict[str, list[np.ndarray]] = {name: [] for name in PAIRS}
    # All pairs get their first run before any gets its second: a killed run has some of each.
    for run in range(runs):
        for name in PAIRS:
            found[name].append(_kept(setting, name, run, epochs, train, test))
    return _outcome(Trainings.of(epochs, found), setting.quick)


def _outcome(trained: Trainings, quick: bool) -> Outcome:
    """What these trainings say."""
    images = _QUICK_IMAGES if quick else _FULL_IMAGES
    note = (
        f"{trained.runs} runs of each pair (the document has ten), from the same weights of "
        f"{'-'.join(map(str, _WIDTHS))} for all three; the first {images} training images "
        "(whole batches), in a new order each epoch. The document does not tell the widths. The "
        f"norm is that of the Hessian of the mean cross-entropy of the first {_CURVED} training "
        f"images with the running statistics as they are, by E|Hv|² over {_PROBES} random v of "
        "signs; accuracies and losses are in inference, too."
    )
    return Outcome(claims(trained), tables(trained), pictures(trained.runs), [note])


def _parts(split: Any, count: int, parts: int) -> _Data:
    """The first so many images, in parts that are looked at in turn."""
    x, y = split.x[:count], split.y[:count]
    return _Data(
        jnp.asarray(x.reshape(parts, count // parts, -1)), jnp.asarray(y.reshape(parts, -1))
    )


def _kept(
    setting: Setting, name: str, run: int, epochs: tuple[int, ...], train: _Data, test: _Data
) -> np.ndarray:
    """One training from its file, if it was finished before."""
    label = f"{name} run {run + 1}"
    file = setting.checkpoint(label)
    if file is not None and file.is_file():
        with np.load(file) as kept:
            return kept["looks"]
    looks = _training(setting, name, run, epochs, train, test, label)
    if file is not None:
        part = file.with_suffix(".part.npz")
        np.savez(part, looks=looks)
        part.replace(file)
    return looks


def _training(
    setting: Setting,
    name: str,
    run: int,
    epochs: tuple[int, ...],
    train: _Data,
    test: _Data,
    label: str,
) -> np.ndarray:
    """What is seen at the epochs, shape (epochs, numbers of ``QUANTITIES``)."""
    pair = PAIRS[name]
    samples = (train.x.reshape(-1, train.x.shape[-1]), train.y.reshape(-1))
    steps_per_epoch = -(-len(samples[1]) // pair.batch_size)
    start = jax.random.fold_in(setting.key, run)
    params, state = _MODEL.init(start), _MODEL.init_state()
    key = jax.random.fold_in(start, 1 + list(PAIRS).index(name))
    progress = setting.progress_of(label)
    looks = []
    for before, epoch in zip((0, *epochs), epochs, strict=False):
        key = jax.random.fold_in(key, epoch)
        if epoch > before:
            trained = tw.train(
                _OBJECTIVE,
                params,
                samples,
                sampler=tw.Reshuffled(pair.batch_size),
                optimizer=pair.gamma,
                steps=(epoch - before) * steps_per_epoch,
                key=key,
                state=state,
            )
            params, state = trained.params, trained.state
        looks.append(_look(params, state, samples, train, test, key))
        if progress is not None:
            progress(epoch, epochs[-1])
    return np.array(looks)


def _look(
    params: Any, state: Any, samples: tuple[Array, Array], train: _Data, test: _Data, key: Array
) -> list[float]:
    squares = np.asarray(_squares(params, state, *(part[:_CURVED] for part in samples), key), float)
    error = squares.std(ddof=1) / len(squares) ** 0.5
    norm = squares.mean() ** 0.5
    # The logarithm of a root of a mean has half the mean's relative error.
    log_norm, log_error = np.log(norm), error / (2 * squares.mean())
    return [log_norm, log_error, *_means(params, state, train), *_means(params, state, test)]


@jax.jit
def _squares(params: Any, state: Any, x: Array, y: Array, key: Array) -> Float[Array, " probes"]:
    """The squares |Hv|^2 for random vectors v of signs; their mean is the square of the norm."""
    loss = tw.models.supervised(_MODEL, tw.models.cross_entropy, state)
    problem = tw.FiniteSum(loss, (x, y))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))

    def square(own: Array) -> Array:
        probe = jax.random.rademacher(own, (size,), jnp.float32)
        return jnp.sum(jnp.square(tw.curvature.hessian_product(problem, params, probe)))

    return jax.lax.map(square, jax.random.split(key, _PROBES))


def _means(params: Any, state: Any, data: _Data) -> tuple[float, float]:
    """Mean loss and share of right answers."""
    parts = [_part(params, state, x, y) for x, y in zip(*data, strict=True)]
    loss, right = np.asarray(parts, float).mean(axis=0)
    return float(loss), float(right)


@jax.jit
def _part(params: Any, state: Any, x: Array, y: Array) -> tuple[Array, Array]:
    outputs, _ = _MODEL.apply_batch(params, state, x, False)
    losses = jax.vmap(tw.models.cross_entropy)(outputs, y)
    return jnp.mean(losses), jnp.mean((jnp.argmax(outputs, axis=1) == y).astype(losses.dtype))
