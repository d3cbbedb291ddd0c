"""MNIST and FashionMNIST: images and labels in idx files."""

import math
import struct
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from thalweg.datasets.base import Dataset, Split, pixels
from thalweg.errors import InputError


def parse_idx(content: bytes, what: str, axes: int) -> UInt8[np.ndarray, "..."]:
    """The array of bytes in an idx file.

    The file holds, big-endian in 32 bits each, a magic number (2048 + number of axes for unsigned
    bytes), the length of each axis, and then the bytes.

    Args:
        content: The file, unpacked.
        what: Its name, for messages.
        axes: 3 for images (magic number 2051), 1 for labels (2049).

    Raises:
        InputError: A wrong magic number, an empty array, a file too short or too long.
    """
    header = 4 * (1 + axes)
    if len(content) < header:
        raise InputError(
            f"{what} is truncated: {len(content)} bytes, expected a header of {header} at least"
        )
    magic, *shape = struct.unpack(f">{1 + axes}I", content[:header])
    if magic != 2048 + axes:
        raise InputError(
            f"{what} has the magic number {magic}, expected {2048 + axes}: this is no idx file of "
            f"unsigned bytes with {axes} axes"
        )
    expected = math.prod(shape)
    got = len(content) - header
    if got != expected or expected == 0:
        problem = "truncated" if got < expected else "too long" if got > expected else "empty"
        raise InputError(
            f"{what} is {problem}: {got} bytes follow the header, expected {expected} for the "
            f"shape {tuple(shape)}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def load_idx(name: str, title: str, contents: Mapping[str, bytes]) -> Dataset:
    """A data set of ten classes in the four files of MNIST."""
    train = _split(contents, "train")
    test = _split(contents, "t10k")
    height, width = train.x.shape[1:]
    description = (
        f"{title}: {len(train)} training and {len(test)} test images, {height}x{width}, 10 classes"
    )
    return Dataset(name, train, test, 10, description)


def _split(contents: Mapping[str, bytes], part: str) -> Split:
    images_file, labels_file = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    images = parse_idx(contents[images_file], images_file, axes=3)
    labels = parse_idx(contents[labels_file], labels_file, axes=1)
    if len(images) != len(labels):
        raise InputError(
            f"{images_file} holds {len(images)} images and {labels_file} {len(labels)} labels; "
            "expected as many"
        )
    if labels.max() > 9:
        raise InputError(f"{labels_file} holds the label {labels.max()}; expected 0 to 9")
    return Split(pixels(images, 255), labels.astype(np.int32))
