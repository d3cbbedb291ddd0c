"""The largest step at which almost every path of SGD converges."""

import math

from jaxtyping import Array, Float
from scipy.optimize import brentq

from thalweg.errors import InputError
from thalweg.estimate import Estimate
from thalweg.stability.batches import Family, batch_factor, checked
from thalweg.stability.lyapunov import RandomProduct, random_product
from thalweg.stability.moments import SecondMoments

# The steps tried on the way to the first unstable one, as ratios, and how many at most.
_GROWTH, _TRIES = 1.05, 500
# Where the mean-square threshold is zero, the search begins at this share of 2/max|H_i|.
_SMALL = 1e-3
# The relative distance over which the slope of the exponent is taken.
_SLOPE = 0.01


def almost_sure_threshold(
    hessians: Float[Array, "n d d"],
    batch_size: int,
    replace: bool = False,
    *,
    key: Array,
    chains: int = 256,
    steps: int = 2000,
) -> Estimate:
    r"""The step at which the top Lyapunov exponent of :math:`I - \eta H_B` turns positive.

    Never below :func:`mean_square_threshold`, by Jensen's inequality; between the two
    :math:`E|\theta_k|^2` explodes while almost every path converges. It is found going up from
    there by 5 % at a time: the *first* crossing (the exponent may turn negative again; a stretch
    of instability shorter than 5 % can be missed). 0 if H has a negative eigenvalue, infinite if
    all :math:`H_i` vanish. Unlike in mean square, a null direction of H in which the samples
    differ is no obstacle: :math:`E \log|1 - \eta h| < 0` for small steps where the mean of h
    is zero.

    Exact in one dimension (:func:`lyapunov_exponent`), error 0. Otherwise all steps are tried with
    the same draws, the root is found to 1e-4, and the error is that of the exponent there over its
    slope.

    Cost: about 15 estimates of the exponent; B > 1 makes each B times dearer.

    Raises:
        InputError: As :func:`lyapunov_exponent`, or no positive exponent up to 1e10 times the start
            of the search.
    """
    batch_factor(hessians.shape[0], batch_size, replace)
    family = checked(hessians)
    moments = SecondMoments(family)
    if moments.indefinite:
        return Estimate(0.0)
    product = random_product(family, batch_size, replace, key, chains, steps)
    if product.size == 0:
        return Estimate(math.inf)
    factor = batch_factor(hessians.shape[0], batch_size, replace)
    low, high = _crossing(product, _start(moments, family, factor))
    root = _root(product, low, high)
    if product.exact:
        return Estimate(root)
    rise = product.exponent(root * (1 + _SLOPE)).value - product.exponent(root * (1 - _SLOPE)).value
    error = 2 * _SLOPE * root * product.exponent(root).error / abs(rise)
    return Estimate(root, error, chains)


def _start(moments: SecondMoments, family: Family, factor: float) -> float:
    threshold = moments.threshold(factor)
    if threshold > 0:
        # Below the threshold the exponent is negative by more than its error.
        return threshold / _GROWTH
    return float(2 * _SMALL / abs(family.hessians).max())


def _crossing(product: RandomProduct, start: float) -> tuple[float, float]:
    """Two steps, 5 % apart, between which the exponent turns positive."""
    step = start
    for _ in range(_TRIES):
        if product.exponent(step).value > 0:
            return step / _GROWTH, step
        step *= _GROWTH
    raise InputError(
        f"the exponent is not positive up to step={step:.3g}; expected Hessians for which large "
        "steps are unstable"
    )


def _root(product: RandomProduct, low: float, high: float) -> float:
    def exponent(step: float) -> float:
        # A path that ends at once has the exponent minus infinity.
        return max(product.exponent(step).value, -1e3)

    if exponent(low) >= 0:
        return low
    rtol = 1e-12 if product.exact else 1e-4
    return float(brentq(exponent, low, high, xtol=1e-14 * high, rtol=rtol))
