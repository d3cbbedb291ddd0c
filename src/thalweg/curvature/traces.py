"""Traces and Frobenius norms by random probes."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from thalweg.curvature.eigenvalues import data_error
from thalweg.curvature.operator import DENSE_SIZE, Operator, check_finite
from thalweg.errors import InputError
from thalweg.estimate import Estimate

# Probes before the spread of their values is believed.
_FEWEST = 10


def trace(
    operator: Operator, *, rtol: float = 0.05, key: Key[Array, ""], budget: int = 1000
) -> Estimate:
    r"""The trace by Hutchinson's estimator, to a standard error asked for.

    The mean of :math:`z^\top A z` over vectors z of independent signs, whose variance is twice the
    sum of squares off the diagonal. Where the operator is a mean over samples, the numbers of all
    samples give the data error, too. Exact up to size 64.

    Args:
        operator: The matrix.
        rtol: The standard error wanted, relative to the trace.
        key: Draws the probes.
        budget: The most probes; the estimate says whether they were enough.

    Raises:
        InputError: An rtol that is not positive, or a budget below 10 probes.

    Cost: 10 probes or more, each a product (for a Hessian of samples about 1.4 gradients).

    Source: Hutchinson (1990).
    """
    _check(rtol, budget)
    if operator.size <= DENSE_SIZE:
        return _exact(float(jnp.trace(operator.dense())), _diagonal_error(operator))
    samples = _Mean()

    def value(probe: Array) -> float:
        if operator.along is None:
            return float(jnp.dot(probe, operator.matvec(probe)))
        return samples.add(*operator.along(probe))

    mean, error, probes = _averaged(operator, value, key, budget, lambda m, e: e <= rtol * abs(m))
    return Estimate(mean, error, probes, samples.error(), error <= rtol * abs(mean))


def frobenius(
    operator: Operator, *, rtol: float = 0.05, key: Key[Array, ""], budget: int = 1000
) -> Estimate:
    r"""The Frobenius norm :math:`|A|_F = (\mathrm{Tr} A^2)^{1/2}`, to a standard error asked for.

    The root of the mean of :math:`|A z|^2` over vectors z of independent signs. Exact up to
    size 64. Options, errors and cost as for :func:`trace`; the data error is not known.
    """
    _check(rtol, budget)
    if operator.size <= DENSE_SIZE:
        return _exact(float(jnp.linalg.norm(operator.dense())), math.nan)

    def value(probe: Array) -> float:
        return float(jnp.sum(jnp.square(operator.matvec(probe))))

    # The root of a mean has half its relative error.
    mean, error, probes = _averaged(operator, value, key, budget, lambda m, e: e <= 2 * rtol * m)
    norm = math.sqrt(mean)
    error = error / (2 * norm) if norm > 0 else 0.0
    return Estimate(norm, error, probes, reached=error <= rtol * norm)


def signs(key: Key[Array, ""], operator: Operator) -> Array:
    """A vector of independent signs."""
    return jax.random.rademacher(key, (operator.size,), operator.dtype)


class _Mean:
    """The mean over probes of the numbers of each sample."""

    def __init__(self) -> None:
        self._total: np.ndarray | float = 0.0
        self._weights: Array | None = None
        self._count = 0

    def add(self, values: Array, weights: Array) -> float:
        """Another probe; its mean over the samples."""
        numbers = np.asarray(values, dtype=float)
        self._total, self._weights = self._total + numbers, weights
        self._count += 1
        return float(np.asarray(weights, dtype=float) @ numbers)

    def error(self) -> float:
        """The data error of the mean, rounded up by what is left of the noise of the probes."""
        if self._weights is None:
            return math.nan
        return data_error(jnp.asarray(self._total / self._count), self._weights)


def _averaged(
    operator: Operator,
    value: Callable[[Array], float],
    key: Key[Array, ""],
    budget: int,
    enough: Callable[[float, float], bool],
) -> tuple[float, float, int]:
    values: list[float] = []
    while True:
        values.append(value(signs(jax.random.fold_in(key, len(values)), operator)))
        check_finite(np.asarray(values[-1]))
        if len(values) < _FEWEST:
            continue
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)
        if enough(mean, error) or len(values) >= budget:
            return mean, error, len(values)


def _exact(value: float, data_error: float) -> Estimate:
    check_finite(np.asarray(value))
    return Estimate(value, data_error=data_error)


def _diagonal_error(operator: Operator) -> float:
    """The data error of a trace that is written out."""
    if operator.along is None:
        return math.nan
    diagonals = _Mean()
    for vector in jnp.eye(operator.size, dtype=operator.dtype):
        diagonals.add(*operator.along(vector))
    return operator.size * diagonals.error()


def _check(rtol: float, budget: int) -> None:
    if not rtol > 0:
        raise InputError(f"rtol={rtol}; expected a positive number, as 0.05")
    if budget < _FEWEST:
        raise InputError(f"budget={budget} probes; expected at least {_FEWEST}")
