"""The nets and data that are measured: the same for all pieces."""

import os
import tempfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.models import cross_entropy, mlp, supervised

# A net with max-pooling, as benchmarks/gradnorms has it, and one with strides instead.
_CHANNELS, _DENSE = (3, 32, 64, 128), (2048, 100, 10)
_WINDOW = (2, 2, 1)
STRIDES = {"a": 1, "b": 2, "c": 2, "d": 2}
_SHAPES = {
    "a": (3, 3, 3, 32),
    "b": (3, 3, 32, 64),
    "c": (3, 3, 64, 128),
    "d": (3, 3, 128, 128),
    "w": (2048, 10),
}
# Steps and step size of the training before.
_TRAINING = (60, 0.05)
_BATCH = 64


class Case(NamedTuple):
    """A net at a point, on data."""

    problem: tw.FiniteSum
    params: Any


def case(net: str, samples: int) -> Case:
    """A net after 60 steps of SGD, on the first samples."""
    nets = {"multilayer": _multilayer, "conv": _conv, "strided": _strided}
    loss, params, shape = nets[net]()
    images, labels = _data(net, max(samples, 1024), shape)
    problem = tw.FiniteSum(loss, (images[:samples], labels[:samples]))
    # Once for all processes, and not again before this file changes.
    version = zlib.crc32(Path(__file__).read_bytes() + str(images.mean()).encode())
    kept = Path(tempfile.gettempdir()) / f"thalweg-curvature-{net}-{version}.npz"
    if not kept.exists():
        _keep(kept, _trained(loss, params, images, labels))
    leaves, tree = jax.tree.flatten(params)
    with np.load(kept) as arrays:
        leaves = [jnp.asarray(arrays[f"arr_{k}"]) for k in range(len(leaves))]
    return Case(problem, jax.tree.unflatten(tree, leaves))


def _keep(path: Path, params: Any) -> None:
    """Write in another place first, for several processes may be about it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez(file, *jax.tree.leaves(params))
    Path(file.name).replace(path)


def _trained(loss: Any, params: Any, images: np.ndarray, labels: np.ndarray) -> Any:
    steps, size = _TRAINING
    for k in range(steps):
        chosen = np.arange(k * _BATCH, (k + 1) * _BATCH) % len(labels)
        batch = tw.FiniteSum(loss, (images[chosen], labels[chosen]))
        params = jax.tree.map(lambda p, g: p - size * g, params, gradient(batch, params))
    return params


@jax.jit
def gradient(problem: tw.FiniteSum, params: Any) -> Any:
    """One forward and backward pass."""
    return problem.gradient(params)


def _multilayer() -> tuple[Any, Any, tuple[int, ...]]:
    model = mlp([784, 512, 512, 10], activation="relu")
    return supervised(model, cross_entropy), model.init(jax.random.key(0)), (784,)


def _conv() -> tuple[Any, Any, tuple[int, ...]]:
    rng = np.random.default_rng(0)
    shapes = [(3, 3, *pair) for pair in pairwise(_CHANNELS)] + list(pairwise(_DENSE))
    params = [
        {
            "w": jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(s[:-1])), s), jnp.float32),
            "b": jnp.zeros(s[-1], jnp.float32),
        }
        for s in shapes
    ]
    return _conv_loss, params, (32, 32, 3)


def _conv_loss(params: Any, sample: Any) -> jax.Array:
    h = sample[0]
    for k, layer in enumerate(params):
        if layer["w"].ndim == 4:
            h = jax.nn.relu(_convolved(h, layer["w"], 1) + layer["b"])
            h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, _WINDOW, _WINDOW, "VALID")
            continue
        h = h.reshape(-1) @ layer["w"] + layer["b"]
        h = h if k == len(params) - 1 else jax.nn.relu(h)
    return cross_entropy(h, sample[1])


def _convolved(image: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        image[None], kernel, (stride, stride), "SAME", dimension_numbers=numbers
    )[0]


def _strided() -> tuple[Any, Any, tuple[int, ...]]:
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(rng.standard_normal(s) * np.sqrt(2 / np.prod(s[:-1])), jnp.float32)
        for name, s in _SHAPES.items()
    }
    return _strided_loss, params, (32, 32, 3)


def _strided_loss(params: Any, sample: Any) -> jax.Array:
    h = sample[0]
    for name, stride in STRIDES.items():
        h = jax.nn.relu(_convolved(h, params[name], stride))
    return cross_entropy(h.reshape(-1) @ params["w"], sample[1])


def _data(net: str, samples: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images of FashionMNIST or CIFAR-10 where THALWEG_DATA has them, noise otherwise."""
    if "THALWEG_DATA" not in os.environ:
        rng = np.random.default_rng(1)
        images = rng.random((samples, *shape), dtype=np.float32)
        return images, rng.integers(0, 10, samples).astype(np.int32)
    loaded = tw.datasets.load("fashion-mnist" if net == "multilayer" else "cifar10")
    images, labels = loaded.train.x[:samples], loaded.train.y[:samples]
    images = np.asarray(images, dtype=np.float32).reshape(samples, *shape)
    return images, np.asarray(labels, dtype=np.int32)
