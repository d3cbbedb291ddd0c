"""Losses and metrics on data that are not trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.problem import describe
from thalweg.train.objective import Objective
from thalweg.train.parallel import Devices, Divided
from thalweg.train.source import DividedSource, Source, is_source
from thalweg.train.step import Carry

Metric = Callable[[Array, Any], Any]

# Samples evaluated at once.
_CHUNK = 1000


@dataclass(frozen=True)
class Evaluation:
    """Means over validation data, in inference and in the parameters' own precision.

    Attributes:
        objective: Whose losses.
        metrics: Names and functions of (outputs, sample).
    """

    objective: Objective
    metrics: tuple[tuple[str, Metric], ...]

    @staticmethod
    def of(objective: Objective, metrics: Mapping[str, Metric] | None) -> "Evaluation":
        """The evaluation of an objective.

        Raises:
            InputError: Metrics of outputs that are not known, or a metric called "loss".
        """
        if metrics and objective.outputs is None:
            raise InputError(
                "metrics are functions of (outputs, sample), and the outputs of this loss are not "
                "known; give a thalweg.train.Objective with outputs="
            )
        for name in metrics or ():
            if name in ("loss", "step", "seconds"):
                raise InputError(f"a metric cannot be called {name!r}, which is there already")
        return Evaluation(objective, tuple((metrics or {}).items()))

    def check(self, params: Any, state: Any, sample: Any) -> None:
        """Raise InputError unless loss and metrics of a sample are numbers."""
        try:
            values = jax.eval_shape(self.of_sample, params, state, sample)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise InputError(
                f"validation data (a sample: {describe(sample)}) do not fit the model or a metric: "
                f"{str(error).splitlines()[0]}"
            ) from error
        for name, value in values.items():
            if value.shape != ():
                raise InputError(
                    f"the metric {name!r} of a sample is {describe(value)}; expected one number"
                )

    def of_sample(self, params: Any, state: Any, sample: Any) -> dict[str, Array]:
        """Loss and metrics of a sample."""
        values = {"loss": self.objective.sample_loss(params, state, sample)}
        if self.metrics:
            assert self.objective.outputs is not None
            outputs = self.objective.outputs(params, state, sample)
            values |= {name: jnp.asarray(metric(outputs, sample)) for name, metric in self.metrics}
        return values

    def means(self, many: bool, carry: Carry, data: Any) -> dict[str, Float[np.ndarray, "..."]]:
        """The mean of each over the data, for one member or (with a leading axis) many."""
        totals: dict[str, Any] = {}
        n = 0
        for chunk, weights in _chunks(data):
            sums = _sums(self, many, carry.params, carry.state, chunk, weights)
            totals = {
                name: totals.get(name, 0.0) + np.asarray(s, float) for name, s in sums.items()
            }
            n += int(weights.sum())
        return {name: np.asarray(total / n) for name, total in totals.items()}


def first_sample(data: Any) -> Any:
    """A sample, for its shapes."""
    if isinstance(data, Source | DividedSource):
        return data.first
    arrays = data.data if isinstance(data, Divided) else data
    return jax.tree.map(lambda x: x[0], arrays)


def validated(data: Any, devices: Devices | None = None) -> Any:
    """Validation data: arrays with a common leading axis, or a source; divided among devices.

    Raises:
        InputError: Anything else.
    """
    if is_source(data):
        source = Source(data)
        return source if devices is None else DividedSource(source, devices)
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or () in lengths or (0,) in lengths:
        raise InputError(
            f"validation data need one leading axis of samples on every array, got {describe(data)}"
        )
    return jax.tree.map(jnp.asarray, data) if devices is None else Divided.of(devices, data)


def _chunks(data: Any) -> Any:
    """Chunks of one size and the weights of their samples: 0 for those a chunk repeats."""
    if isinstance(data, Divided):
        return ((chunk, _counted(number.ravel() >= 0)) for chunk, number in data.chunks(_CHUNK))
    streamed = isinstance(data, Source | DividedSource)
    n = data.n if streamed else len(jax.tree.leaves(data)[0])
    size = min(n, _CHUNK)
    firsts = [min(k, n - size) for k in range(0, n, size)]
    places = [np.arange(first, first + size) for first in firsts]
    weights = [_counted(p >= k) for p, k in zip(places, range(0, n, size), strict=True)]
    if streamed:
        return zip(data.read(places), weights, strict=True)
    parts = (jax.tree.map(lambda x, p=p: x[p[0] : p[-1] + 1], data) for p in places)
    return zip(parts, weights, strict=True)


def _counted(new: np.ndarray) -> np.ndarray:
    return new.astype(np.float32)


@partial(jax.jit, static_argnums=(0, 1))
def _sums(
    evaluation: Evaluation, many: bool, params: Any, state: Any, chunk: Any, weights: Array
) -> dict[str, Array]:
    def of_member(params: Any, state: Any) -> dict[str, Array]:
        values = jax.vmap(evaluation.of_sample, in_axes=(None, None, 0))(params, state, chunk)

        def total(x: Array) -> Array:
            x = jnp.where(weights > 0, x, jnp.zeros_like(x))
            return jnp.sum(x, dtype=jnp.result_type(float))

        return jax.tree.map(total, values)

    return (jax.vmap(of_member) if many else of_member)(params, state)
