"""The small digits that come with scikit-learn."""

import numpy as np

from thalweg.datasets.base import Dataset, Split, pixels, split_fifth
from thalweg.errors import InputError


def load_digits() -> Dataset:
    """1797 digits of 8x8 pixels: 1437 for training and 360 for testing.

    scikit-learn orders them by writer; here they are taken in the order of
    :func:`thalweg.datasets.base.fixed_permutation`, the last 360 for testing.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise InputError(
            "the digits are part of scikit-learn, which is not installed: "
            'pip install "thalweg[data]"'
        ) from error
    bunch = datasets.load_digits()
    images, labels = pixels(bunch.images, 16), bunch.target.astype(np.int32)
    train, test = split_fifth(len(labels))
    description = (
        f"digits: {len(train)} training and {len(test)} test images, 8x8, 10 classes (a fixed "
        "permutation of scikit-learn's set)"
    )
    return Dataset(
        "digits",
        Split(images[train], labels[train]),
        Split(images[test], labels[test]),
        10,
        description,
    )
