"""Means and shares of independent trials, with their standard errors."""

from typing import Any, NamedTuple

import numpy as np


class Share(NamedTuple):
    """A share of trials and its standard error, of which none is certain: 1/N at least."""

    value: float
    error: float

    @classmethod
    def of(cls, truths: Any) -> "Share":
        """The share of the true ones."""
        truths = np.asarray(truths, dtype=float)
        p, n = float(truths.mean()), truths.size
        return cls(p, max(float(np.sqrt(p * (1 - p) / n)), 1 / n))


class Mean(NamedTuple):
    """A mean of independent numbers and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Any) -> "Mean":
        """The mean of one number each."""
        values = np.asarray(values, dtype=float)
        return cls(float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size)))


def apart(first: Any, second: Any) -> float:
    """The standard error of the difference of two independent numbers with errors."""
    return float(np.hypot(first[1], second[1]))
