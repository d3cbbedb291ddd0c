"""Samples that are read when they are needed, by Grain's threads."""

import collections
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, PyTree

from thalweg.errors import InputError
from thalweg.train.parallel import Devices

# Samples that one thread reads in a row: a batch is read by several.
_PART = 16
# Parts that are read ahead of those that train.
_AHEAD = 64


def is_source(data: Any) -> bool:
    """Whether the data are to be read sample by sample: no pytree of arrays, but a sequence.

    A Grain data source or ``MapDataset``, or anything with ``__len__`` and ``__getitem__``.
    """
    containers = (list, tuple, dict, str)
    readable = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    return readable and not isinstance(data, containers) and not hasattr(data, "shape")


class Source:
    """A random-access source of samples: ``len(source)``, ``source[i]``, read by threads.

    Args:
        source: A Grain data source, or anything of its kind; every sample is a pytree of numbers
            and NumPy arrays of the same shapes.

    Raises:
        InputError: A source without samples, or one whose first sample cannot be read.
    """

    def __init__(self, source: Any):
        self._source = source
        self.n = len(source)
        if self.n == 0:
            raise InputError("the data source holds no samples (its length is 0)")
        try:
            self.first = jax.tree.map(np.asarray, source[0])
        except Exception as error:
            raise InputError(
                f"the data source fails on its sample 0 ({type(error).__name__}: {error}); "
                "expected a pytree of NumPy arrays from source[i]"
            ) from error

    def read(self, indices: list[Int[np.ndarray, "..."]]) -> Iterator[PyTree[np.ndarray]]:
        """The samples at each of these indices, in order, read ahead by threads.

        The leaves have the index's axes before the sample's.
        """
        pieces = [_pieces(index) for index in indices]
        flat = [piece for parts in pieces for piece in parts]
        dataset = (
            _grain()
            .MapDataset.source(_Parts(self._source, flat))
            .to_iter_dataset(_grain().ReadOptions(num_threads=16, prefetch_buffer_size=_AHEAD))
        )
        parts = iter(dataset)
        for index, own in zip(indices, pieces, strict=True):
            read = [next(parts) for _ in own]
            yield jax.tree.map(
                lambda *x, s=index.shape: np.concatenate(x).reshape(*s, *x[0].shape[1:]), *read
            )

    def at(self, index: Int[np.ndarray, "..."]) -> PyTree[np.ndarray]:
        """The samples at one index."""
        return next(self.read([index]))


class DividedSource:
    """A source for several devices: every process reads the samples of its own.

    Args:
        source: What is read.
        devices: On which the samples of an index are divided along its last axis.
    """

    def __init__(self, source: Source, devices: Devices):
        self._source, self._devices = source, devices
        self.n, self.first = source.n, source.first

    def read(self, indices: list[Int[np.ndarray, "..."]]) -> Iterator[PyTree[Array]]:
        """The samples at each of these indices, in order; all processes ask for the same."""
        own = [index[..., self._devices.own(index.shape[-1])] for index in indices]
        for index, samples in zip(indices, self._source.read(own), strict=True):
            yield self._devices.joined(samples, index.shape)

    def at(self, index: Int[np.ndarray, "..."]) -> PyTree[Array]:
        """The samples at one index."""
        return next(self.read([index]))


class _Parts(collections.abc.Sequence):
    """A source whose entries are stacked samples."""

    def __init__(self, source: Any, parts: list[np.ndarray]):
        self._source, self._parts = source, parts

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, part: Any) -> Any:
        samples = [self._source[int(i)] for i in self._parts[part]]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *samples)


def _pieces(index: np.ndarray) -> list[np.ndarray]:
    return np.array_split(index.reshape(-1), max(1, -(-index.size // _PART)))


def _grain() -> Any:
    try:
        import grain
    except ModuleNotFoundError as error:
        raise InputError(
            "streamed data need Grain, which is not installed; "
            "expected: pip install 'thalweg[train]'"
        ) from error
    return grain
