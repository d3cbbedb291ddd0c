"""What a data set is, and what is done with one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Shaped

from thalweg.errors import InputError


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and what is to be predicted from them.

    Attributes:
        x: float32, the samples on the first axis.
        y: int32 labels 0, 1, ..., or float32 targets in a regression.
    """

    x: Float32[np.ndarray, "n ..."]
    y: Shaped[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as NumPy arrays, split into a training and a test part once and for all.

    Attributes:
        name: Its name on the command line.
        train: The training part.
        test: The test part.
        n_classes: How many labels there are; None for a regression.
        description: One line: what it is, and what of it is missing.
        features: The names of the columns of tabular data.
    """

    name: str
    train: Split
    test: Split
    n_classes: int | None
    description: str
    features: tuple[str, ...] | None = None


def fixed_permutation(n: int) -> Int[np.ndarray, " n"]:
    """A permutation of 0, ..., n-1 that depends on n alone.

    It sorts the raw 64-bit output of PCG64 with seed 0, a stream NumPy promises to keep, which it
    does not promise for the shuffles of its generators.
    """
    return np.argsort(np.random.PCG64(0).random_raw(n), kind="stable")


def split_fifth(n: int) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """The rows of the training and of the test part: the last fifth, rounded up, is the test.

    The rows are taken in the order of :func:`fixed_permutation`, without regard to their labels.
    """
    order = fixed_permutation(n)
    n_test = -(-n // 5)
    return order[: n - n_test], order[n - n_test :]


def standardised(dataset: Dataset) -> Dataset:
    """The data set with each feature shifted and scaled: mean 0 and deviation 1 in training.

    Both parts are transformed by the mean and the deviation (divisor n) of the training part. A
    feature that is constant there is shifted only. Targets stay as they are.
    """
    mean = dataset.train.x.mean(axis=0, dtype=np.float64)
    deviation = dataset.train.x.std(axis=0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1.0)

    def transformed(split: Split) -> Split:
        return replace(split, x=((split.x - mean) / scale).astype(np.float32))

    return replace(
        dataset,
        train=transformed(dataset.train),
        test=transformed(dataset.test),
        description=f"{dataset.description}; standardised",
    )


def first_of_classes(dataset: Dataset, classes: Sequence[int], n: int) -> Dataset:
    """The first ``n`` training samples of some classes, in the order of the training part.

    The labels are renumbered 0, 1, ... in the order of ``classes``; the test part keeps all its
    samples of these classes. Wu, Ma and E (2018) take classes 0 and 1 of CIFAR-10, n = 1000, and
    all ten of FashionMNIST, n = 1000.

    Raises:
        InputError: A regression, a class that does not exist or comes twice, fewer than ``n``
            samples.
    """
    _check_classes(dataset, classes)
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    available = int(np.isin(dataset.train.y, list(classes)).sum())
    if available < n:
        raise InputError(
            f"{dataset.name} holds {available} training samples of the classes "
            f"{_listed(classes)}, fewer than the {n} asked for"
        )
    return replace(
        dataset,
        train=_of_classes(dataset.train, classes, n),
        test=_of_classes(dataset.test, classes, None),
        n_classes=len(classes),
        description=f"{dataset.description}; the first {n} training samples of the classes "
        f"{_listed(classes)}",
    )


def one_hot(labels: Any, n_classes: int) -> Float32[np.ndarray, "n n_classes"]:
    """Rows of the unit matrix: entry (i, j) is 1 where ``labels[i] == j`` and 0 elsewhere.

    Raises:
        InputError: Labels that are no integers from 0 to ``n_classes`` - 1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels have type {labels.dtype} and shape {labels.shape}; expected one integer a "
            "sample, shape (n,)"
        )
    outside = labels[(labels < 0) | (labels >= n_classes)]
    if outside.size:
        raise InputError(
            f"{outside.size} labels are not among 0 to {n_classes - 1}, the first is {outside[0]}"
        )
    return np.eye(n_classes, dtype=np.float32)[labels]


def pixels(images: np.ndarray, white: float) -> Float32[np.ndarray, "n ..."]:
    """The images as float32 from 0 to 1, where ``white`` becomes 1."""
    scaled = images.astype(np.float32, order="C")
    scaled /= np.float32(white)
    return scaled


def _check_classes(dataset: Dataset, classes: Sequence[int]) -> None:
    if dataset.n_classes is None:
        raise InputError(f"{dataset.name} is a regression: it has no classes to choose from")
    if len(classes) == 0 or len(set(classes)) < len(classes):
        raise InputError(f"expected some different classes, got {_listed(classes) or 'none'}")
    unknown = [c for c in classes if c not in range(dataset.n_classes)]
    if unknown:
        raise InputError(
            f"{dataset.name} has the classes 0 to {dataset.n_classes - 1}, got {_listed(unknown)}"
        )


def _of_classes(split: Split, classes: Sequence[int], n: int | None) -> Split:
    chosen = np.flatnonzero(np.isin(split.y, list(classes)))[:n]
    labels = np.argmax(split.y[chosen, None] == np.asarray(classes), axis=1)
    return Split(split.x[chosen], labels.astype(np.int32))


def _listed(classes: Sequence[int]) -> str:
    return ", ".join(map(str, classes))
