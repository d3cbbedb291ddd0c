"""The nets and the data of the rows, and clocks."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg import models

WIDTHS = (784, 500, 500, 500, 10)
SMALL = (64, 32, 10)
BATCH, SMALL_BATCH = 128, 32
STEP = 0.05
SEEDS = 30


def samples(n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal inputs whose labels depend on their first ten numbers."""
    x = np.random.default_rng(1).normal(size=(n, width)).astype(np.float32)
    return x, np.argmax(x[:, :10], axis=1).astype(np.int32)


def net(widths: tuple[int, ...]) -> tuple[Any, Any]:
    """A loss of a sample, and parameters."""
    model = models.mlp(widths)
    return models.supervised(model, models.cross_entropy), model.init(jax.random.key(0))


def mean(params: Any, loss: Any, batch: Any) -> jax.Array:
    """The mean loss of a batch."""
    return jnp.mean(jax.vmap(loss, (None, 0))(params, batch))


def per_step(run: Callable[[int], Any], short: int, long: int) -> dict[str, float]:
    """CPU and wall seconds of a step: of a long run less those of a short one."""
    times = []
    for steps in (short, long):
        cpu, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(run(steps))
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    (cpu, wall), (cpu_long, wall_long) = times
    return {"cpu": (cpu_long - cpu) / (long - short), "wall": (wall_long - wall) / (long - short)}
