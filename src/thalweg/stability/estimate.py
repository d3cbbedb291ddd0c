"""A number with its standard error."""

from typing import NamedTuple


class Estimate(NamedTuple):
    """A number and its standard error, 0 where the number is exact to rounding."""

    value: float
    error: float
