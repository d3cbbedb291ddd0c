r"""Wu, Ma and E's condition (4), :math:`(I - \eta H)^2 + \eta^2 p \Sigma \le I`."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.curvature import (
    hessian_product,
    nonuniformity_product,
    operator_at,
    top_eigenvalues,
)
from thalweg.problem import FiniteSum, Params
from thalweg.stability.batches import batch_factor, check_step, checked, problem_factor


class Rectangle(NamedTuple):
    """The corner of the region that Wu, Ma and E draw in the sharpness/non-uniformity plane."""

    sharpness: float
    nonuniformity: float


def rectangle(n: int, *, batch_size: int, step: float, replace: bool = False) -> Rectangle:
    r"""The rectangle :math:`a \le 2/\eta`, :math:`s \le 1/(\eta \sqrt p)`.

    It is drawn in Wu, Ma and E's diagram of sharpness a against non-uniformity s (their Figure 2).
    Inside it a minimum may be unstable and outside it stable: it is **neither sufficient nor
    necessary**, a guide to the eye. Use :func:`assess` to decide.

    Raises:
        InputError: A step that is not positive and finite, or as :func:`batch_factor`.
    """
    factor = batch_factor(n, batch_size, replace)
    check_step(step)
    return Rectangle(2 / step, 1 / (step * math.sqrt(factor)) if factor else math.inf)


def sufficient_condition(
    problem: FiniteSum,
    params: Params,
    *,
    batch_size: int,
    step: float,
    replace: bool = False,
    rtol: float = 1e-3,
) -> float:
    r"""The left side of condition (4), :math:`\lambda_{\max}((I - \eta H)^2 + \eta^2 p \Sigma)`.

    The minimum is stable in mean square if it is at most 1. Along a flat direction it is 1 exactly
    and along a slightly negative one slightly more, so at the end of training compare with 1 plus
    a tolerance, or use :func:`largest_step`.

    Cost: at least 20 products with H twice and with :math:`\Sigma` once; ``rtol`` is that of
    :func:`thalweg.curvature.top_eigenvalues`.

    Raises:
        InputError: A step that is not positive and finite, a batch size out of range, or unequal
            weights without replacement for B > 1.
    """
    factor = problem_factor(problem, batch_size, replace)
    check_step(step)
    operator = operator_at(
        _sufficient_product, problem, params, jnp.asarray(step), jnp.asarray(factor)
    )
    return float(top_eigenvalues(operator, rtol=rtol).checked().values[0])


def sufficient_threshold(
    hessians: Float[Array, "n d d"], batch_size: int, replace: bool = False
) -> float:
    r"""The largest step for which condition (4) holds, from dense samples' Hessians.

    Condition (4) reads :math:`\eta (H^2 + p \Sigma) \le 2 H`, hence the threshold is :math:`2/\mu`
    with :math:`\mu` the largest eigenvalue of :math:`H^{-1/2} (H^2 + p \Sigma) H^{-1/2}` on the
    range of H. It is 0 if H has a negative eigenvalue, or a null direction in which
    :math:`\Sigma` is positive, and infinite if all :math:`H_i` vanish.

    Source: derived from Wu, Ma and E (2018), equation (4); samples weigh 1/n.

    Raises:
        InputError: Hessians that are not symmetric or not finite, or a batch size out of range.
    """
    factor = batch_factor(hessians.shape[0], batch_size, replace)
    matrices, _, tolerance = checked(hessians)
    H = matrices.mean(axis=0)
    deviations = matrices - H
    return form_threshold(H, H @ H + factor * (deviations @ deviations).mean(axis=0), tolerance)


def form_threshold(H: np.ndarray, square: np.ndarray, tolerance: float) -> float:
    """The largest eta with eta * square <= 2 H as quadratic forms; both are symmetric."""
    curvatures, vectors = np.linalg.eigh(H)
    floor = tolerance * np.abs(curvatures).max()
    flat = vectors[:, curvatures <= floor]
    in_flat = np.abs(flat.T @ square @ flat).max(initial=0.0)
    if curvatures[0] < -floor or in_flat > tolerance * np.abs(square).max():
        return 0.0
    if flat.shape[1] == len(H):
        return math.inf
    scaled = vectors[:, curvatures > floor] / np.sqrt(curvatures[curvatures > floor])
    return float(2 / np.linalg.eigvalsh(scaled.T @ square @ scaled)[-1])


def number_threshold(slope: float, square: float) -> float:
    """The largest eta >= 0 with eta * square <= 2 * slope."""
    if square == 0:
        return math.inf
    return max(0.0, 2 * slope / square)


def _sufficient_product(
    problem: FiniteSum, params: Params, step: Array, factor: Array, vector: Array
) -> Array:
    def contract(v: Array) -> Array:
        return v - step.astype(v.dtype) * hessian_product(problem, params, v)

    noise = nonuniformity_product(problem, params, vector)
    return contract(contract(vector)) + (step**2 * factor).astype(noise.dtype) * noise
