"""The noise around a minimum at which the samples disagree."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.stability.batches import batch_factor, check_step, checked
from thalweg.stability.moments import SecondMoments


def limit_covariance(
    hessians: Float[Array, "n d d"],
    gradients: Float[Array, "n d"],
    *,
    step: float,
    batch_size: int,
    replace: bool = False,
) -> Float[Array, "d d"]:
    r"""The stationary covariance of SGD around a regular (not interpolating) minimum.

    In the quadratic model :math:`\theta \to \theta - \eta (g_B + H_B \theta)`, with the samples'
    gradients :math:`g_i` at the minimum (their mean vanishes), the mean of :math:`\theta` tends to
    zero and its second moment to the solution of

    .. math:: M = E[(I - \eta H_B) M (I - \eta H_B)] + \eta^2 p \tfrac1n \sum_i g_i g_i^\top ,

    exactly: :math:`g_B` and :math:`\theta` are independent and the latter's mean is zero, so that
    no mixed term is left. Every entry is infinite at and above :func:`mean_square_threshold`, for
    the noise is then amplified without end. Directions in
    which H vanishes have no stationary law: they are given zero if no gradient has a component
    there, and refused otherwise.

    Cost: some tens of products with D (:func:`mean_square_threshold`), by conjugate gradients; more
    close to the threshold, as the inverse root of the distance.

    Raises:
        InputError: As :func:`mean_square_threshold`; gradients of another shape or whose mean is
            not zero; a negative eigenvalue of H; noise along a direction in which H vanishes.
    """
    factor = batch_factor(hessians.shape[0], batch_size, replace)
    check_step(step)
    moments = SecondMoments(checked(hessians))
    slopes = _checked_gradients(hessians, gradients)
    if moments.indefinite:
        raise InputError(
            f"H has the eigenvalue {moments.lowest:.4g}: no minimum; expected a positive "
            "semidefinite mean of the Hessians"
        )
    noise = factor * slopes.T @ slopes / len(slopes)
    inside = moments.basis.T @ noise @ moments.basis
    if np.trace(noise) - np.trace(inside) > 1e-10 * np.trace(noise):
        raise InputError(
            "the gradients have components along directions in which H vanishes, where SGD "
            "diffuses without end; expected a minimum with curvature there"
        )
    M = stationary(moments, factor, step, inside)
    if not np.isfinite(M).all():
        return jnp.full(noise.shape, math.inf)
    return jnp.asarray(moments.basis @ M @ moments.basis.T)


def excess_loss(
    hessians: Float[Array, "n d d"],
    gradients: Float[Array, "n d"],
    *,
    step: float,
    batch_size: int,
    replace: bool = False,
) -> float:
    r"""The mean height above the minimum at which SGD settles, :math:`\operatorname{tr}(H M)/2`.

    M is :func:`limit_covariance`; infinite at and above the threshold.

    Raises:
        InputError: As :func:`limit_covariance`.
    """
    M = limit_covariance(hessians, gradients, step=step, batch_size=batch_size, replace=replace)
    if not bool(jnp.isfinite(M).all()):
        return math.inf
    H = np.asarray(hessians, dtype=float).mean(axis=0)
    return float(np.sum(H * np.asarray(M)) / 2)


def stationary(moments: SecondMoments, factor: float, step: float, noise: np.ndarray) -> np.ndarray:
    """The covariance in H's eigenbasis; zero without noise, infinite where it has no bound."""
    if not noise.any():
        return np.zeros_like(noise)
    if step >= moments.threshold(factor):
        return np.full_like(noise, math.inf)
    return moments.covariance(factor, step, noise)


def _checked_gradients(hessians: Array, gradients: Array) -> np.ndarray:
    if gradients.shape != hessians.shape[:2]:
        raise InputError(
            f"gradients has shape {gradients.shape}; expected {hessians.shape[:2]}, one row a "
            "sample"
        )
    slopes = np.asarray(gradients, dtype=float)
    scale = np.abs(slopes).max()
    mean = np.abs(slopes.mean(axis=0)).max()
    # A minimum found in float32 to a thousandth of the samples' slopes is one; C is then right to
    # the square of it.
    if not np.isfinite(scale) or mean > 1e-3 * scale:
        raise InputError(
            f"the mean of the gradients is {mean:.3g} where the largest is {scale:.3g}; expected a "
            "minimum, where it vanishes"
        )
    return slopes - slopes.mean(axis=0)
