"""The nets and their data, the same numbers for every framework."""

from itertools import pairwise
from typing import Any

import numpy as np

Layers = list[tuple[np.ndarray, np.ndarray]]
WIDTHS = (784, 512, 512, 10)
CHANNELS, DENSE = (3, 32, 64, 128), (2048, 100, 10)


def shapes(net: str) -> list[tuple[int, ...]]:
    """Of the weights: dense (inputs, outputs) or kernels (height, width, inputs, outputs)."""
    if net == "multilayer":
        return list(pairwise(WIDTHS))
    kernels = [(3, 3, *pair) for pair in pairwise(CHANNELS)]
    return [*kernels, *pairwise(DENSE)]


def layers(net: str) -> Layers:
    """Normal weights with He's variance and zero biases, in single precision."""
    rng = np.random.default_rng(0)
    draw = [rng.normal(0, np.sqrt(2 / np.prod(s[:-1])), s) for s in shapes(net)]
    return [(w.astype(np.float32), np.zeros(w.shape[-1], np.float32)) for w in draw]


def batch(net: str, size: int) -> tuple[Any, Any]:
    """Normal inputs whose labels depend on their first ten numbers."""
    rng = np.random.default_rng(1)
    shape = (784,) if net == "multilayer" else (32, 32, 3)
    x = rng.normal(size=(size, *shape)).astype(np.float32)
    return x, np.argmax(x.reshape(size, -1)[:, :10], axis=1)
