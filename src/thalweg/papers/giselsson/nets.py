"""Residual ReLU nets on points of two features in two classes, and their training by SGD."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.experiment import Setting
from thalweg.papers.giselsson.common import norm

SMALL = (2, 5, 5, 5, 2, 1)
LARGE = (2, *15 * (25,), 2, 1)
FIRST = ALPHA = 0.1


class Trained(NamedTuple):
    """Chains of SGD on one net.

    Attributes:
        problem: Net and data.
        run: The run.
        loss: By chain and epoch.
        full: The norm of the full gradient, likewise.
        norms: Those of the samples' gradients, (chains, epochs, samples).
    """

    problem: tw.FiniteSum
    run: tw.Run
    loss: np.ndarray
    full: np.ndarray
    norms: np.ndarray


def moons(count: int, noise: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles that reach into each other, with noise: features and labels 0, 1."""
    label = np.arange(count) % 2
    angle = np.pi * rng.uniform(0, 1, count)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    features = np.where(label[:, None] == 0, upper, lower) - [0.5, 0.25]
    features = features + noise * rng.standard_normal((count, 2))
    return features.astype(np.float32), label.astype(np.float32)


class Residual:
    """The loss of a net with a connection around every hidden layer.

    Where a layer is wider or narrower than the one before, the connection carries the first
    coordinates on. ``tw.models.mlp(residual=True)`` has connections around layers of equal width.
    """

    def __call__(self, params: Any, sample: tuple[Array, Array]) -> Float[Array, ""]:
        """The logistic loss."""
        return tw.models.logistic(forward(params, sample[0]), sample[1])


def forward(params: Sequence[dict[str, Array]], h: Array) -> Float[Array, " 1"]:
    """The output for one sample."""
    *hidden, last = params
    for layer in hidden:
        new = jax.nn.relu(h @ layer["w"] + layer["b"])
        carried = h[: new.shape[0]]
        h = new + jnp.pad(carried, (0, new.shape[0] - carried.shape[0]))
    return h @ last["w"] + last["b"]


def fresh(widths: Sequence[int], chains: int, scale: float = 1.0) -> Any:
    """He-normal parameters times a number, one set a chain."""
    model = tw.models.mlp(tuple(widths), residual=True)
    params = jax.vmap(model.init)(jax.random.split(jax.random.key(0), chains))
    return jax.tree.map(lambda leaf: leaf * jnp.asarray(scale, leaf.dtype), params)


def train(
    points: tw.FiniteSum,
    widths: Sequence[int],
    rule: Any,
    epochs: int,
    chains: int,
    setting: Setting,
    label: str,
    scale: float = 1.0,
) -> Trained:
    """SGD, a sample a step, from fresh parameters; looked at after every epoch."""
    looks = {
        "loss": points.value,
        "full": lambda params: norm(points.gradient(params)),
        "norms": lambda params: tw.sample_gradient_norms(points.loss, params, points.data),
    }
    run = tw.simulate(
        tw.Descent(points, tw.Minibatch(1), rule),
        fresh(widths, chains, scale),
        steps=epochs * points.n,
        key=setting.key,
        per_chain=True,
        record=tw.Record(every=points.n, values=looks),
        progress=setting.progress_of(label),
        checkpoint=setting.checkpoint(label),
    )
    return Trained(points, run, *(np.asarray(run.records[name]) for name in looks))
