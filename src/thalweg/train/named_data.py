"""Real data by name, made harder on purpose: labels that are wrong, samples of unlike size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from thalweg import datasets
from thalweg.datasets.base import Dataset, Split
from thalweg.errors import InputError
from thalweg.train.config import Request

# Streams of the seed: which labels are wrong and what they become, which samples are enlarged.
_WRONG, _OTHER, _LARGE = 1, 2, 3


def load_data(request: Request, data_dir: str | Path | None) -> Dataset:
    """The data set with the classes, samples, features and labels that a configuration asks for.

    Both parts are as the file of the data has them but for the first samples, the classes, and
    standardised features; training labels (and enlarged inputs) as ``noise`` and ``scale`` say.

    Raises:
        InputError: No such data set, classes that it does not have, fewer samples than asked for;
            the line is named.
    """
    asked = request.config.data
    with request.blaming("data", "name"):
        data = datasets.load(asked.name, data_dir)
    with request.blaming("data", "samples" if asked.classes is None else "classes"):
        data = _chosen(data, asked.classes, asked.samples)
    if _standardise(asked.standardise, data):
        data = datasets.standardised(data)
    if asked.noise:
        data = replace(data, train=_corrupted(data, asked.noise, request.config.seed))
    if asked.scale is not None and asked.scale.of == "inputs":
        factors = scale_factors(request, len(data.train))
        x = data.train.x * factors.reshape(-1, *(1,) * (data.train.x.ndim - 1))
        data = replace(data, train=replace(data.train, x=x))
    return data


def scale_factors(request: Request, n: int) -> Float32[np.ndarray, " n"]:
    """By how much each training sample is enlarged: ``factor`` for the share, else 1."""
    scale = request.config.data.scale
    assert scale is not None  # asked for by those who know
    factors = np.ones(n, dtype=np.float32)
    factors[_drawn(request.config.seed, _LARGE, n, scale.share)] = scale.factor
    return factors


def _chosen(data: Dataset, classes: list[int] | None, samples: int | None) -> Dataset:
    if classes is not None:
        count = int(np.isin(data.train.y, classes).sum())
        return datasets.first_of_classes(data, classes, samples or count)
    if samples is None:
        return data
    if samples > len(data.train):
        raise InputError(
            f"samples is {samples} and {data.name} has {len(data.train)} training samples"
        )
    return replace(data, train=Split(data.train.x[:samples], data.train.y[:samples]))


def _standardise(asked: bool | None, data: Dataset) -> bool:
    return data.n_classes is None if asked is None else asked


def _corrupted(data: Dataset, share: float, seed: int) -> Split:
    """The training part with a share of its labels replaced by another class, each as probable.

    In a regression the targets of that share are handed on from each sample to the next.
    """
    y = data.train.y.copy()
    wrong = _drawn(seed, _WRONG, len(y), share)
    if data.n_classes is None:
        y[wrong] = np.roll(y[wrong], 1)
    else:
        shift = 1 + _raw(seed, _OTHER, len(wrong)) % np.uint64(data.n_classes - 1)
        y[wrong] = (y[wrong] + shift.astype(np.int32)) % data.n_classes
    return replace(data.train, y=y)


def _drawn(seed: int, stream: int, n: int, share: float) -> Int[np.ndarray, " m"]:
    """Which samples belong to a share, rounded to the nearest number of them."""
    return np.argsort(_raw(seed, stream, n), kind="stable")[: round(share * n)]


def _raw(seed: int, stream: int, n: int) -> Any:
    """Raw words of PCG64, a stream that NumPy promises to keep, as it does not for its shuffles."""
    return np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(n)
