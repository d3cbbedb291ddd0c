"""Condition (4) of a problem at a point, on all directions or on a span of eigenvectors."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.curvature import (
    DENSE_SIZE,
    Eigenpairs,
    Operator,
    hessian,
    nonuniformity_operator,
    sample_curvatures,
    top_eigenvalues,
)
from thalweg.errors import InputError
from thalweg.problem import FiniteSum, Params
from thalweg.stability.batches import ROUNDING, problem_factor
from thalweg.stability.condition import form_threshold, number_threshold

# On a span, condition (4) is not asked of directions with less than this share of the largest
# curvature: at a point reached by training they cannot be told from descending ones.
_FLAT = 1e-2


class StepBounds(NamedTuple):
    r"""How large a step a minimum allows.

    Attributes:
        sufficient: The largest step for which condition (4) holds.
        necessary: No larger step is stable in mean square:
            :math:`2 \lambda / (\lambda^2 + p \sum_i a_i (v^\top H_i v - \lambda)^2)` with
            :math:`\lambda, v` the top eigenpair of H.
        descent: :math:`2/\lambda_{\max}(H)`, the limit of full gradient descent.
    """

    sufficient: float
    necessary: float
    descent: float


class Spectra(NamedTuple):
    """The two operators, their leading eigenpairs, and all v'H_i v along the sharpest v."""

    hessian: Operator
    nonuniformity: Operator
    curved: Eigenpairs
    uneven: Eigenpairs
    along: Array

    @property
    def exact(self) -> bool:
        """Whether the matrices are written out."""
        return self.hessian.size <= DENSE_SIZE

    @property
    def basis(self) -> np.ndarray:
        """Orthonormal columns that span all leading eigenvectors."""
        vectors = np.hstack([self.curved.vectors, self.uneven.vectors]).astype(float)
        return np.linalg.qr(vectors)[0]


class Forms(NamedTuple):
    r"""Condition (4) on the directions it is asked of: all, or the curved part of a span.

    Attributes:
        hessian: H on these directions, shape (k, k).
        square: :math:`H^2` on them (not the square of ``hessian`` on a span).
        spread: :math:`\Sigma` on them.
        variance: :math:`\sum_i a_i (v^\top H_i v - \lambda)^2` of the top eigenpair of H.
        sharpness: :math:`\lambda`.
        rounding: The relative size below which a number is none.
    """

    hessian: Float[np.ndarray, "k k"]
    square: Float[np.ndarray, "k k"]
    spread: Float[np.ndarray, "k k"]
    variance: float
    sharpness: float
    rounding: float

    def bounds(self, factor: float) -> StepBounds:
        """The step bounds for a batch factor p."""
        square = self.square + factor * self.spread
        return StepBounds(
            sufficient=form_threshold(self.hessian, square, self.rounding),
            necessary=number_threshold(self.sharpness, self.sharpness**2 + factor * self.variance),
            descent=number_threshold(self.sharpness, self.sharpness**2),
        )


def largest_step(
    problem: FiniteSum,
    params: Params,
    *,
    batch_size: int,
    replace: bool = False,
    directions: int = 8,
) -> StepBounds:
    r"""How large a step the minimum allows, by condition (4), by necessity and for full descent.

    Up to 64 parameters condition (4) is decided exactly, as by :func:`sufficient_threshold`.
    Beyond, it is asked only of vectors in the span of the leading ``directions`` eigenvectors of H
    and of :math:`\Sigma`, without those that have less than a hundredth of the sharpness as
    curvature (where training stops, H is usually slightly indefinite, and then (4) itself fails at
    every step). A condition asked of fewer vectors holds more often: this is an **upper bound** of
    (4)'s own threshold, and it comes down as the span grows.

    Cost: 2 x ``directions`` products with H and :math:`\Sigma` besides the two Lanczos runs.

    Raises:
        InputError: As for :func:`sufficient_condition`, or fewer than 1 direction.
    """
    factor = problem_factor(problem, batch_size, replace)
    return forms(spectra(problem, params, directions), problem.weights).bounds(factor)


def spectra(
    problem: FiniteSum,
    params: Params,
    directions: int,
    starts: tuple[Array | None, Array | None] = (None, None),
) -> Spectra:
    """The leading eigenpairs of H and of Sigma, searched from guesses if there are any."""
    if directions < 1:
        raise InputError(f"directions={directions}; expected at least 1 eigenvector")
    curved, uneven = hessian(problem, params), nonuniformity_operator(problem, params)
    k = min(directions, curved.size)
    top = top_eigenvalues(curved, k, start=starts[0]).checked()
    along = sample_curvatures(problem, params, top.vectors[:, 0])
    other = top_eigenvalues(uneven, k, start=starts[1]).checked()
    return Spectra(curved, uneven, top, other, along)


def forms(found: Spectra, weights: Array) -> Forms:
    """Condition (4) from the operators."""
    sharpness = float(found.curved.values[0])
    deviations = np.asarray(found.along, dtype=float) - sharpness
    return Forms(
        *(_whole(found) if found.exact else _on_span(found)),
        variance=float(np.dot(np.asarray(weights, dtype=float), deviations**2)),
        sharpness=sharpness,
        rounding=ROUNDING * float(jnp.finfo(found.hessian.dtype).eps),
    )


def _whole(found: Spectra) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    H = np.asarray(found.hessian.dense(), dtype=float)
    return H, H @ H, np.asarray(found.nonuniformity.dense(), dtype=float)


def _on_span(found: Spectra) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H, H^2 and Sigma on the curved part of the span of the leading eigenvectors."""
    basis = found.basis
    HQ = found.hessian.matmat(basis)
    curvatures, rotation = np.linalg.eigh(basis.T @ HQ)
    rotation = rotation[:, curvatures > _FLAT * curvatures[-1]]
    basis, HQ = basis @ rotation, HQ @ rotation
    noise = basis.T @ found.nonuniformity.matmat(basis)
    return basis.T @ HQ, HQ.T @ HQ, (noise + noise.T) / 2
