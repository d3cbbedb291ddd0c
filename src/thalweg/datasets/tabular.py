"""Tables: a9a (Adult), abalone and California housing. Features are left as they are."""

import csv
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int32

from thalweg.datasets.base import Dataset, Split, split_fifth
from thalweg.errors import InputError

_A9A_FEATURES = 123
_SEXES = ("F", "I", "M")
_MEASURES = (
    "length",
    "diameter",
    "height",
    "whole_weight",
    "shucked_weight",
    "viscera_weight",
    "shell_weight",
)
_HOUSING_NUMBERS = (
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
)
_BEDROOMS = _HOUSING_NUMBERS.index("total_bedrooms")
_HOUSING_HEADER = (*_HOUSING_NUMBERS, "median_house_value", "ocean_proximity")
_PROXIMITIES = ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN")


def parse_libsvm(
    content: bytes, what: str, n_features: int
) -> tuple[Float32[np.ndarray, "n {n_features}"], Int32[np.ndarray, " n"]]:
    """A dense table and labels from libsvm's sparse text of two classes.

    A line is ``label index:value index:value ...`` with indices from 1; features not named are 0.

    Args:
        content: The file.
        what: Its name, for messages.
        n_features: The largest index allowed.

    Returns:
        The features and the labels, 1 for +1 and 0 for -1.

    Raises:
        InputError: A line that is not of this form: which one, and what is wrong.
    """
    lines = _lines(content, what)
    x = np.zeros((len(lines), n_features), dtype=np.float32)
    y = np.zeros(len(lines), dtype=np.int32)
    for row, line in enumerate(lines):
        try:
            y[row] = {"+1": 1, "1": 1, "-1": 0}[line.split(maxsplit=1)[0]]
            entries = [entry.split(":") for entry in line.split()[1:]]
            index = [int(i) - 1 for i, _ in entries]
            values = [float(value) for _, value in entries]
        except (KeyError, ValueError, IndexError) as error:
            raise _bad_line(what, row, line, "+1 or -1, then index:value pairs") from error
        if not all(0 <= i < n_features for i in index) or not np.isfinite(values).all():
            raise _bad_line(what, row, line, f"indices 1 to {n_features} and finite values")
        x[row, index] = values
    return x, y


def load_a9a(contents: Mapping[str, bytes]) -> Dataset:
    """Adult in libsvm's 123 binary features, income above 50,000 as label 1; its own test part."""
    train = Split(*parse_libsvm(contents["a9a"], "a9a", _A9A_FEATURES))
    test = Split(*parse_libsvm(contents["a9a.t"], "a9a.t", _A9A_FEATURES))
    description = (
        f"a9a (Adult): {len(train)} training and {len(test)} test rows, {_A9A_FEATURES} binary "
        "features, 2 classes"
    )
    return Dataset("a9a", train, test, 2, description)


def load_abalone(contents: Mapping[str, bytes]) -> Dataset:
    """UCI Abalone: sex as three columns (F, I, M) and seven measures; the target is rings."""
    what = "abalone.data"
    rows = _table(contents[what], what, 1 + len(_MEASURES) + 1)
    sex = _indicator([row[0] for row in rows], _SEXES, what)
    numbers = _numbers([row[1:] for row in rows], what)
    features = (*(f"sex={s}" for s in _SEXES), *_MEASURES)
    x = np.concatenate([sex, numbers[:, :-1]], axis=1)
    title = "abalone: the number of rings of a shell"
    return _regression("abalone", title, x, numbers[:, -1], features)


def load_california(contents: Mapping[str, bytes]) -> Dataset:
    """California housing 1990 by district: eight numbers, and ocean proximity as five columns.

    The target is the median house value in units of 100,000. Blanks in total_bedrooms are filled
    by the median of the training part.
    """
    what = "california_housing.csv"
    header, *rows = _table(contents[what], what, len(_HOUSING_HEADER))
    if tuple(header) != _HOUSING_HEADER:
        raise InputError(
            f"{what} starts with {','.join(header)}; expected the header "
            f"{','.join(_HOUSING_HEADER)}"
        )
    numbers = _numbers([row[:-1] for row in rows], what, may_be_blank=_BEDROOMS)
    blanks = _fill(numbers[:, _BEDROOMS])
    near = _indicator([row[-1] for row in rows], _PROXIMITIES, what)
    x = np.concatenate([numbers[:, :-1], near], axis=1)
    features = (*_HOUSING_NUMBERS, *(f"ocean_proximity={p}" for p in _PROXIMITIES))
    title = (
        f"California housing: median house value in 100,000 dollars ({blanks} blanks in "
        "total_bedrooms filled by the training median)"
    )
    return _regression("california-housing", title, x, numbers[:, -1] / 1e5, features)


def _fill(column: Float[np.ndarray, " n"]) -> int:
    """Fill the blanks (NaN) of a column in place by the median of its training part."""
    blank = np.isnan(column)
    train, _ = split_fifth(len(column))
    known_values = column[train][~blank[train]]
    if known_values.size == 0:
        raise InputError("total_bedrooms is blank in every training row; expected some numbers")
    column[blank] = np.median(known_values)
    return int(blank.sum())


def _regression(
    name: str,
    title: str,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    features: tuple[str, ...],
) -> Dataset:
    train, test = split_fifth(len(y))
    x, y = x.astype(np.float32), y.astype(np.float32)
    description = (
        f"{title}; {len(train)} training and {len(test)} test rows by a fixed permutation, "
        f"{len(features)} features, regression"
    )
    return Dataset(
        name, Split(x[train], y[train]), Split(x[test], y[test]), None, description, features
    )


def _lines(content: bytes, what: str) -> list[str]:
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is no text: byte {error.start} is not ASCII") from error
    if not lines:
        raise InputError(f"{what} is empty; expected a table")
    return lines


def _table(content: bytes, what: str, columns: int) -> list[list[str]]:
    lines = _lines(content, what)
    rows = list(csv.reader(lines))
    for number, row in enumerate(rows):
        if len(row) != columns:
            raise _bad_line(what, number, ",".join(row), f"{columns} columns")
    return rows


def _numbers(
    rows: Sequence[Sequence[str]], what: str, may_be_blank: int | None = None
) -> Float[np.ndarray, "n d"]:
    """The cells as numbers; a blank in the one column that may have them is NaN."""
    if not rows:
        raise InputError(f"{what} holds no rows below its header")
    return np.asarray(
        [[_number(cell, what, j == may_be_blank) for j, cell in enumerate(row)] for row in rows]
    )


def _number(cell: str, what: str, may_be_blank: bool) -> float:
    if cell == "" and may_be_blank:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{what} holds {cell!r}; expected a finite number")
    return value


def _indicator(
    values: Sequence[str], names: tuple[str, ...], what: str
) -> Float[np.ndarray, "n k"]:
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise InputError(f"{what} holds {unknown[0]!r}; expected one of: {', '.join(names)}")
    return np.asarray([[value == name for name in names] for value in values], dtype=float)


def _bad_line(what: str, row: int, line: str, expected: str) -> InputError:
    shown = line if len(line) <= 60 else line[:57] + "..."
    return InputError(f"{what}, line {row + 1}: got {shown!r}, expected {expected}")
