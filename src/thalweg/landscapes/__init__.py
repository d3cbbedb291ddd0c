"""Problems of low dimension: one file and one row here a landscape.

Each function returns a :class:`Landscape`, the objective with the setting of its experiment and the
minima known beforehand: ``landscapes.mueller_brown(a1=-200)``. On the command line a landscape has
the name of its function, with hyphens.
"""

import inspect
from collections.abc import Callable

from thalweg.errors import known
from thalweg.landscapes.atoms import atoms
from thalweg.landscapes.base import KnownPoint, Landscape
from thalweg.landscapes.cyclic_pair import cyclic_pair
from thalweg.landscapes.double_well import double_well
from thalweg.landscapes.flat_or_not import flat_or_not
from thalweg.landscapes.mueller_brown import mueller_brown
from thalweg.landscapes.piecewise_linear import piecewise_linear
from thalweg.landscapes.robust_classification import robust_classification
from thalweg.landscapes.robust_regression import robust_regression
from thalweg.landscapes.three_quadratics import three_quadratics
from thalweg.landscapes.toy_pair import toy_pair

_FUNCTIONS: tuple[Callable[..., Landscape], ...] = (
    piecewise_linear,
    robust_classification,
    robust_regression,
    mueller_brown,
    atoms,
    toy_pair,
    three_quadratics,
    cyclic_pair,
    double_well,
    flat_or_not,
)
_BY_NAME = {function.__name__.replace("_", "-"): function for function in _FUNCTIONS}

__all__ = [
    "KnownPoint",
    "Landscape",
    "atoms",
    "cyclic_pair",
    "describe",
    "double_well",
    "flat_or_not",
    "get",
    "mueller_brown",
    "names",
    "piecewise_linear",
    "robust_classification",
    "robust_regression",
    "three_quadratics",
    "toy_pair",
]


def names() -> tuple[str, ...]:
    """The names of all landscapes, in the order of their documents."""
    return tuple(_BY_NAME)


def get(name: str) -> Landscape:
    """The landscape of that name, with the default options.

    Raises:
        InputError: An unknown name, with the nearest one and the whole list.
    """
    return _BY_NAME[known(name, _BY_NAME, "problem")]()


def describe() -> list[tuple[str, str]]:
    """The name of each landscape and the first line of what it says of itself."""
    return [
        (name, (inspect.getdoc(function) or "").partition("\n")[0])
        for name, function in _BY_NAME.items()
    ]
