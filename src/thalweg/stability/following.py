"""Sharpness, non-uniformity and the exact threshold along training, for so many products."""

from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.curvature import Eigenpairs, hessian, nonuniformity_operator, top_eigenvalues
from thalweg.errors import InputError
from thalweg.problem import FiniteSum, Params
from thalweg.stability.batches import ROUNDING, problem_factor
from thalweg.stability.restricted import restricted_hessians
from thalweg.stability.span import Span

# In products with the Hessian: one with Sigma, and a pair of directions of all samples' Hessians.
_SPREAD, _PAIR = 3.0, 0.7
# Of vectors; values are right to its square.
_ACCURACY = 1e-2
# Leading eigenvectors of each: on twice as many directions the threshold is seen.
_DIRECTIONS = 4


_Starts = tuple[Array | None, Array | None]


class Followed(NamedTuple):
    r"""What was seen on the way.

    Attributes:
        steps: The steps of training at which it was looked, shape (points,).
        sharpness: :math:`\lambda_{\max}(H)`, likewise.
        nonuniformity: :math:`\lambda_{\max}(\Sigma)^{1/2}`.
        threshold: The step beyond which SGD is unstable in mean square, the upper end of
            :func:`mean_square_bracket` on the span of the leading eigenvectors of H and
            :math:`\Sigma`.
        products: What it took, in products with the Hessian of all samples (some 1.9 gradients).
    """

    steps: Float[np.ndarray, " points"]
    sharpness: Float[np.ndarray, " points"]
    nonuniformity: Float[np.ndarray, " points"]
    threshold: Float[np.ndarray, " points"]
    products: float


def follow(
    problem: FiniteSum,
    path: Iterable[tuple[int, Params]],
    *,
    batch_size: int,
    budget: float,
    replace: bool = False,
) -> Followed:
    """Sharpness, non-uniformity and threshold along training, within a budget of products.

    At each point the search starts from the eigenvectors of the one before. A point is left out
    as long as more than ``budget`` times the steps since the first one has been spent; the
    first is always looked at, so that at most one look is spent too much.

    Args:
        problem: The objective.
        path: Pairs of a number of steps, ascending, and the parameters after them.
        batch_size: The batch of the thresholds.
        budget: Products with the Hessian that following may take for each step of training.
        replace: Batches drawn with replacement.

    Raises:
        InputError: A budget that is not positive, no points, a batch size out of range, or
            eigenvalues that 600 products do not find to a hundredth.
    """
    factor = problem_factor(problem, batch_size, replace)
    if not budget > 0:
        raise InputError(f"budget={budget} products a step; expected a positive number")
    rows: list[tuple[float, ...]] = []
    spent, first = 0.0, 0
    starts: _Starts = (None, None)
    for step, params in path:
        first = first if rows else step
        if rows and spent > budget * (step - first):
            continue
        numbers, starts, cost = _look(problem, params, factor, starts)
        rows.append((step, *numbers))
        spent += cost
    if not rows:
        raise InputError("path holds no points; expected pairs of a step and parameters")
    steps, sharpness, nonuniformity, threshold = np.array(rows, dtype=float).T
    return Followed(steps, sharpness, nonuniformity, threshold, spent)


def _look(
    problem: FiniteSum, params: Params, factor: float, starts: _Starts
) -> tuple[tuple[float, float, float], _Starts, float]:
    """The numbers at a point, eigenvectors to start the next one, and products taken."""
    H, Sigma = hessian(problem, params), nonuniformity_operator(problem, params)
    k = min(_DIRECTIONS, H.size)
    curved = top_eigenvalues(H, k, rtol=_ACCURACY, start=starts[0]).checked()
    uneven = top_eigenvalues(Sigma, k, rtol=_ACCURACY, start=starts[1]).checked()
    basis = np.linalg.qr(np.hstack([curved.vectors, uneven.vectors]).astype(float))[0]
    hessians = restricted_hessians(problem, params, basis, basis)
    span = Span(
        basis,
        (hessians + hessians.mT) / 2,
        np.asarray(problem.weights, dtype=float),
        ROUNDING * float(jnp.finfo(curved.values.dtype).eps),
        lowest=0.0,
    )
    numbers = (
        float(curved.values[0]),
        float(np.sqrt(max(0.0, float(uneven.values[0])))),
        span.moments().bracket(factor).upper,
    )
    return numbers, (curved.vectors, uneven.vectors), _cost(curved, uneven, basis.shape[1])


def _cost(curved: Eigenpairs, uneven: Eigenpairs, directions: int) -> float:
    return curved.products + _SPREAD * uneven.products + _PAIR * directions**2
