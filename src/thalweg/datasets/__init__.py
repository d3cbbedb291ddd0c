"""Real data: found in a folder or downloaded, verified, and read into NumPy arrays."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from thalweg.datasets.base import Dataset as Dataset
from thalweg.datasets.base import Split as Split
from thalweg.datasets.base import first_of_classes as first_of_classes
from thalweg.datasets.base import one_hot as one_hot
from thalweg.datasets.base import standardised as standardised
from thalweg.datasets.cifar import load_cifar10
from thalweg.datasets.digits import load_digits
from thalweg.datasets.idx import load_idx
from thalweg.datasets.sources import locate, read
from thalweg.datasets.tabular import load_a9a, load_abalone, load_california
from thalweg.errors import known

_FROM_FILES: dict[str, tuple[str, Callable[[Mapping[str, bytes]], Dataset]]] = {
    "mnist": (
        "handwritten digits, 28x28, 10 classes",
        partial(load_idx, "mnist", "MNIST"),
    ),
    "fashion-mnist": (
        "pieces of clothing, 28x28, 10 classes",
        partial(load_idx, "fashion-mnist", "FashionMNIST"),
    ),
    "cifar10": ("small photographs, 32x32x3, 10 classes", load_cifar10),
    "a9a": ("Adult, 123 binary features, 2 classes", load_a9a),
    "abalone": ("rings of abalone shells, 10 features, regression", load_abalone),
    "california-housing": ("house values, 13 features, regression", load_california),
}


class Available(NamedTuple):
    """A data set there is: its name, what it is, and where it will be taken from."""

    name: str
    description: str
    where: str


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """A data set by name; :func:`available` lists them.

    Files are looked for in ``data_dir`` (or, if that is None, in the folder that the environment
    variable THALWEG_DATA names) under ``mnist/``, ``fashion-mnist/``, ``cifar10/`` and
    ``tabular/``, or the data set's own name, plain or packed (.gz, .xz); then among earlier
    downloads; else they are downloaded into the cache folder of the system. The MD5 sum of the
    unpacked content is verified in each case. Of CIFAR-10 any of the five training batches will do.

    Images are float32 from 0 to 1, shape (n, height, width) or (n, 32, 32, 3); tables are raw (see
    :func:`standardised`). Abalone, California housing and the digits, which come in one piece, are
    split by a fixed permutation, a fifth of them for testing.

    Raises:
        InputError: An unknown name, a library or files missing (and how to get them), a file that
            is damaged (which, the checksum expected and got).
    """
    known(name, ["digits", *_FROM_FILES], "data set")
    if name == "digits":
        return load_digits()
    _, reader = _FROM_FILES[name]
    return reader(read(name, data_dir))


def available(data_dir: str | Path | None = None) -> list[Available]:
    """The data sets :func:`load` knows, and where the files of each are, or "to download"."""
    rows = [Available("digits", "handwritten digits, 8x8, 10 classes", "embedded in scikit-learn")]
    for name, (description, _) in _FROM_FILES.items():
        paths = locate(name, data_dir)
        where = str(next(iter(paths.values())).parent) if paths else "to download"
        rows.append(Available(name, description, where))
    return rows
