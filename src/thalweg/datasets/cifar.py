"""CIFAR-10 in its binary version."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from thalweg.datasets.base import Dataset, Split, pixels
from thalweg.errors import InputError

ROWS = 10_000
"""Images in each of the six files."""

_ROW = 1 + 3 * 32 * 32


def parse_cifar(
    content: bytes, what: str
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, " n"]]:
    """Images and labels of one batch.

    A row is a byte of label, then 1024 bytes of red, of green and of blue, each image row by row.

    Args:
        content: The file, unpacked.
        what: Its name, for messages.

    Raises:
        InputError: Not 10000 rows, or a label above 9.
    """
    expected = ROWS * _ROW
    if len(content) != expected:
        problem = "truncated" if len(content) < expected else "too long"
        raise InputError(
            f"{what} is {problem}: {len(content)} bytes, expected {expected} ({ROWS} rows of "
            f"{_ROW}: this is the binary version of CIFAR-10)"
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(ROWS, _ROW)
    labels = rows[:, 0]
    if labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise InputError(f"{what} holds the label {labels[row]} in row {row}; expected 0 to 9")
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def load_cifar10(contents: Mapping[str, bytes]) -> Dataset:
    """CIFAR-10 from ``test_batch.bin`` and any of the five ``data_batch_k.bin``, in their order."""
    numbers = [k for k in range(1, 6) if f"data_batch_{k}.bin" in contents]
    train = _split(contents, [f"data_batch_{k}.bin" for k in numbers])
    test = _split(contents, ["test_batch.bin"])
    batches = ", ".join(map(str, numbers))
    partial = "" if len(numbers) == 5 else f" (partial: of the batches 1 to 5 only {batches})"
    description = (
        f"CIFAR-10: {len(train)} training images{partial} and {len(test)} test images, 32x32x3, "
        "10 classes"
    )
    return Dataset("cifar10", train, test, 10, description)


def _split(contents: Mapping[str, bytes], files: list[str]) -> Split:
    batches = [parse_cifar(contents[file], file) for file in files]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return Split(pixels(images, 255), labels.astype(np.int32))
