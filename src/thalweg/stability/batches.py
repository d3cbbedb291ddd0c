"""What all thresholds take: a batch, a step, the samples' Hessians; and the checks of them."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.problem import FiniteSum

# A number below this many units of rounding of the largest is none.
ROUNDING = 100


class Family(NamedTuple):
    """The samples' Hessians in float64, their weights, and the relative size of a zero."""

    hessians: Float[np.ndarray, "n d d"]
    weights: Float[np.ndarray, " n"]
    tolerance: float


def batch_factor(n: int, batch_size: int, replace: bool = False) -> float:
    r"""The factor p by which a batch carries the spread of one draw.

    :math:`p = (n - B)/(B (n - 1))` without replacement, :math:`1/B` with.

    Raises:
        InputError: A batch size below 1, or above n without replacement.
    """
    if n < 1 or batch_size < 1 or (batch_size > n and not replace):
        limit = "at least 1" if replace else f"1 to n={n} (draw with replace=True for more)"
        raise InputError(f"batch_size={batch_size} of n={n} samples; expected {limit}")
    if replace:
        return 1 / batch_size
    return (n - batch_size) / (batch_size * max(1, n - 1))


def problem_factor(problem: FiniteSum, batch_size: int, replace: bool) -> float:
    """:func:`batch_factor` of a problem, whose weights must be equal for a subset of two."""
    if not replace and batch_size > 1 and not problem.uniform:
        raise InputError(
            f"batches of {batch_size} without replacement need equal weights, and they differ; "
            "pass replace=True (draws with the weights as probabilities)"
        )
    return batch_factor(problem.n, batch_size, replace)


def check_step(step: float) -> None:
    """Raise InputError unless the step is positive and finite."""
    if not (math.isfinite(step) and step > 0):
        raise InputError(f"step={step}; expected a positive finite number")


def checked(hessians: Float[Array, "n d d"]) -> Family:
    """The Hessians on the host; InputError unless they are finite and symmetric."""
    tolerance = ROUNDING * float(jnp.finfo(hessians.dtype).eps)
    matrices = np.asarray(hessians, dtype=float)
    scale = np.abs(matrices).max()
    if not np.isfinite(scale) or np.abs(matrices - matrices.mT).max() > tolerance * scale:
        raise InputError("hessians are not finite and symmetric; expected matrices H_i = H_i'")
    n = len(matrices)
    return Family((matrices + matrices.mT) / 2, np.full(n, 1 / n), tolerance)
