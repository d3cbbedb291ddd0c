"""A number with its errors."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its errors.

    Attributes:
        value: The estimate.
        error: Its standard error by the random draws it is made of; 0 if it is exact to rounding.
        probes: How many there were: random vectors, batches, chains or orders; 0 if it is exact.
        data_error: The standard error because the samples are a sample: what other n samples of
            the same population would change. NaN where it is not known.
        reached: Whether ``error`` is as small as was asked for; True where nothing was.
    """

    value: float
    error: float = 0.0
    probes: int = 0
    data_error: float = math.nan
    reached: bool = True
