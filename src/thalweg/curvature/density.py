"""The density of eigenvalues by Lanczos quadrature."""

import math
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from thalweg.curvature.krylov import Krylov
from thalweg.curvature.operator import Operator
from thalweg.curvature.traces import signs
from thalweg.errors import InputError
from thalweg.estimate import Estimate


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    r"""The distribution of eigenvalues, :math:`\frac1P \sum_k \delta(\lambda - \lambda_k)`.

    Attributes:
        nodes: Places, ascending within a probe, shape (probes, steps).
        weights: Their masses, of each probe with the sum 1, likewise.
        largest: The largest eigenvalue, with its residual as the error.
        smallest: The smallest, likewise.
        trace: :math:`\mathrm{Tr} A`, with the standard error over the probes.
        frobenius: :math:`(\mathrm{Tr} A^2)^{1/2}`, likewise.
        size: P.
    """

    nodes: Float[np.ndarray, "probes steps"]
    weights: Float[np.ndarray, "probes steps"]
    largest: Estimate
    smallest: Estimate
    trace: Estimate
    frobenius: Estimate
    size: int

    def cumulative(
        self, at: Float[np.ndarray, " points"]
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """The share of eigenvalues that are at most so large, and its standard error."""
        below = self.nodes[:, :, None] <= np.asarray(at)
        return _mean(np.sum(self.weights[:, :, None] * below, axis=1))

    def smoothed(
        self, at: Float[np.ndarray, " points"], width: float
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """The density convolved with a normal one of this standard deviation, and its error."""
        if not width > 0:
            raise InputError(f"width={width}; expected a positive standard deviation")
        away = (np.asarray(at) - self.nodes[:, :, None]) / width
        bells = np.exp(-(away**2) / 2) / (width * math.sqrt(2 * math.pi))
        return _mean(np.sum(self.weights[:, :, None] * bells, axis=1))


def spectral_density(
    operator: Operator, *, steps: int = 50, probes: int = 1, key: Key[Array, ""]
) -> SpectralDensity:
    r"""The density of eigenvalues, and the ends, trace and Frobenius norm from the same products.

    From a probe z of independent signs m steps of Lanczos' method give the Gauss quadrature of
    :math:`z^\top f(A) z / P`, exact for polynomials f up to degree 2m - 1; its mean over probes is
    that of :math:`\mathrm{Tr} f(A)/P`. Trace and Frobenius norm are those of f = 1 and 2 powers.

    Args:
        operator: The matrix.
        steps: m; fewer if the matrix is smaller.
        probes: How many; with one there is no standard error (NaN).
        key: Draws the probes.

    Raises:
        InputError: Fewer than 2 steps or 1 probe; products that are not finite.

    Cost: steps x probes products, and steps squared x P operations a probe; memory steps x P.

    Source: Golub and Meurant, "Matrices, moments and quadrature" (1994).
    """
    if steps < 2 or probes < 1:
        raise InputError(
            f"steps={steps} and probes={probes}; expected at least 2 steps and 1 probe"
        )
    keys = (jax.random.fold_in(key, place) for place in range(probes))
    found = [_quadrature(operator, steps, one) for one in keys]
    nodes, weights, residuals = (np.stack(parts) for parts in zip(*found, strict=True))
    first, second = (np.sum(weights * nodes**power, axis=1) * operator.size for power in (1, 2))
    mean, spread = _mean(first)
    square, other = _mean(second)
    norm = math.sqrt(float(square))
    return SpectralDensity(
        nodes=nodes,
        weights=weights,
        largest=_end(nodes[:, -1], residuals[:, -1], int(np.argmax(nodes[:, -1]))),
        smallest=_end(nodes[:, 0], residuals[:, 0], int(np.argmin(nodes[:, 0]))),
        trace=Estimate(float(mean), float(spread), probes),
        frobenius=Estimate(norm, float(other) / (2 * norm or 1.0), probes),
        size=operator.size,
    )


def _quadrature(
    operator: Operator, steps: int, key: Key[Array, ""]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    steps = min(steps, operator.size)
    space = Krylov(operator, np.asarray(signs(key, operator)), steps)
    for _ in range(steps):
        space.extend()
    found = space.ritz()
    return found.values, found.mixing[0] ** 2, found.residuals


def _end(values: np.ndarray, residuals: np.ndarray, place: int) -> Estimate:
    return Estimate(float(values[place]), float(residuals[place]), len(values))


def _mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over probes, with the standard error."""
    count = len(values)
    if count == 1:
        return np.asarray(values[0]), np.full(values.shape[1:], math.nan)
    error = values.std(axis=0, ddof=1) / math.sqrt(count)
    return np.asarray(values.mean(axis=0)), np.asarray(error)
