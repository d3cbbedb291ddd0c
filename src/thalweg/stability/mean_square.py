"""Exact mean-square stability, from dense samples' Hessians."""

import numpy as np
from jaxtyping import Array, Float

from thalweg.stability.batches import batch_factor, check_step, checked
from thalweg.stability.moments import Congruence, SecondMoments, largest_eigenvalue

# With replacement no batch is searched for beyond this size.
_LARGEST_BATCH = 2**40


def mean_square_threshold(
    hessians: Float[Array, "n d d"], batch_size: int, replace: bool = False
) -> float:
    r"""The exact largest step for which SGD is stable in mean square.

    :math:`\eta_{var} = 2/\lambda_{\max}(C^+ D)` with :math:`C M = (H M + M H)/2` and
    :math:`D M = (1 - p) H M H + p \frac1n \sum_i H_i M H_i`, p from :func:`batch_factor`: below it
    :math:`E|\theta_k|^2` stays bounded in the quadratic model, above it grows for almost every
    start. It lies between the threshold of condition (4) (:func:`sufficient_threshold`) and
    :math:`2/\lambda_{\max}(H)`. It is 0 if H has a negative eigenvalue or (for p > 0) a null
    direction in which some :math:`H_i` does not vanish, and infinite if all :math:`H_i` vanish.

    Cost: some tens of products with D: :math:`4 n d^3` operations each, or :math:`d^4` after one
    pass over the samples.

    Source: Mulayoff and Michaeli, "Exact mean square linear stability analysis for SGD" (2024);
    :mod:`thalweg.stability.moments` derives it and says what becomes of null directions.

    Raises:
        InputError: Hessians that are not symmetric or not finite, or a batch size out of range.
    """
    factor = batch_factor(hessians.shape[0], batch_size, replace)
    return SecondMoments(checked(hessians)).threshold(factor)


def mean_square_radius(
    hessians: Float[Array, "n d d"], step: float, batch_size: int, replace: bool = False
) -> float:
    r"""The spectral radius of :math:`M \to E[(I - \eta H_B) M (I - \eta H_B)]`.

    The factor by which :math:`E|\theta_k|^2` changes in a step, after many. Directions in which all
    :math:`H_i` vanish count with the factor 1.

    Source: Wu, Ma and E (2018), the linear map below their equation (3), without their bound.

    Raises:
        InputError: As :func:`mean_square_threshold`, or a step that is not positive and finite.
    """
    factor = batch_factor(hessians.shape[0], batch_size, replace)
    check_step(step)
    matrices, weights, _ = checked(hessians)
    carry = Congruence(matrices, weights)
    H = np.tensordot(weights, matrices, axes=1)

    def move(M: np.ndarray) -> np.ndarray:
        spread = (1 - factor) * H @ M @ H + factor * carry(M)
        return M - step * (H @ M + M @ H) + step**2 * spread

    return largest_eigenvalue(move, len(H))[0]


def critical_batch(
    hessians: Float[Array, "n d d"], step: float, replace: bool = False
) -> int | None:
    r"""The smallest batch for which a step is stable in mean square; None if there is none.

    The threshold rises with B, for :math:`D` falls on the positive semidefinite matrices, one of
    which decides: bisection.

    Raises:
        InputError: As :func:`mean_square_threshold`, or a step that is not positive and finite.
    """
    check_step(step)
    return smallest_batch(SecondMoments(checked(hessians)), hessians.shape[0], step, replace)


def smallest_batch(moments: SecondMoments, n: int, step: float, replace: bool) -> int | None:
    """The bisection of :func:`critical_batch`."""

    def stable(size: int) -> bool:
        return step <= moments.threshold(batch_factor(n, size, replace))

    if not step <= moments.threshold(0.0):
        return None
    high = n
    while replace and not stable(high):
        high *= 2
        if high > _LARGEST_BATCH:
            return None
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if stable(middle) else (middle, high)
    return high
