"""The density by which vanishing noise selects among the points of a manifold of minimisers."""

import math

from jaxtyping import Array, Float

from thalweg.errors import InputError, known
from thalweg.manifolds.normal_space import normal_space
from thalweg.problem import FiniteSum

# The threshold times k - 2, for each way of writing the noise.
_THRESHOLDS = {"sde": 4.0, "fokker-planck": 2.0}


def selection_log_density(
    problem: FiniteSum, points: Float[Array, "*batch d"]
) -> Float[Array, "*batch"]:
    r"""The log of :math:`\det(H_\perp)^{-1/2}`, the density that noise selects by, not normalised.

    Let f vanish on a manifold M of codimension k, with a Hessian of rank k there; :math:`H_\perp`
    is the Hessian on the normal space. Isotropic noise of the variance D(f) has the invariant law

    .. math:: p \propto g(f) = \frac1{D(f)} \exp\Big(-2 \int \frac{df}{D(f)}\Big),

    a function of f alone: :math:`e^{-f/T}` for D = 2T, and :math:`f^{-\alpha}` with :math:`\alpha =
    1 + 2/(\eta\sigma)` for :math:`D = \eta\sigma f`. Near a point of M, f is :math:`v^\top H_\perp
    v/2` and the substitution :math:`w = H_\perp^{1/2} v` gives :math:`\int g(v^\top H_\perp v/2)\,
    dv = \det(H_\perp)^{-1/2} \int g(|w|^2/2)\,dw`, whatever g is. So every such law, in a limit in
    which it concentrates on M, has there the density :math:`\det(H_\perp)^{-1/2}` with respect to
    the surface measure: constant noise as T tends to 0, noise scaled by the loss as :math:`\alpha`
    tends to k/2 from below (:math:`\eta\sigma` to :func:`collapse_threshold` from above).

    Conditions. :math:`e^{-f/T}` and :math:`f^{-\alpha}` must be integrable at infinity (for the
    latter, :math:`f \ge |\theta|^\gamma` with :math:`\gamma\alpha > d`, at :math:`\alpha = k/2` as
    well), :math:`f^{-\alpha}` also at M: :math:`\alpha < k/2`, which needs k >= 3. And M must be
    compact, or the density integrable on it.

    For least squares, :math:`f = |h(\theta) - y|^2/2n`, it is the law of :math:`\theta` under
    Lebesgue measure conditioned on :math:`h(\theta) = y` (the coarea formula).

    Source: S. Wojtowytsch, "Continuous Time Stochastic Gradient Descent and Flat Minimum Selection"
    (slides, 2021). His density for noise scaled by the loss, :math:`\int_{S^{k-1}} (\nu^\top
    H_\perp \nu)^{-k/2} d\nu`, equals :math:`|S^{k-1}| \det(H_\perp)^{-1/2}`; the arithmetic-
    geometric mean that he gives for k = 2 is another integral.

    Args:
        problem: The objective, of params of shape (d,).
        points: Minimisers, all on manifolds of one dimension. For isolated minimisers these are the
            weights of Laplace's method.

    Raises:
        InputError: As :func:`thalweg.manifolds.normal_space`.
    """
    return -normal_space(problem, points).log_det / 2


def collapse_threshold(codimension: int, *, convention: str) -> float:
    r"""The strength :math:`\eta\sigma` up to which noise scaled by the loss dies out at minimisers.

    Near a manifold M of minimisers the equation is :math:`dv = -Hv\,dt + \sqrt{\eta\sigma\,v^\top H
    v/2}\,dB`, without a length of its own: :math:`\log |v|` drifts at a constant speed, for H =
    :math:`\lambda I` at :math:`\lambda(-1 + \tfrac{\eta\sigma}4 (k - 2))`. Its sign is that of
    :math:`k - 2\alpha`, for any H. Up to the threshold chains converge to random points of M, which
    depend on their starts; above it there is the law :math:`f^{-\alpha}`, :math:`\alpha < k/2`.

    Args:
        codimension: k, at least 1.
        convention: As for :func:`thalweg.noise_models.loss_scaled`: "sde" with the threshold
            4/(k - 2), or "fokker-planck" with 2/(k - 2).

    Returns:
        The threshold, infinite for k = 1 and 2.

    Raises:
        InputError: A codimension below one, another convention.
    """
    size = _THRESHOLDS[known(convention, _THRESHOLDS, "convention")]
    if codimension < 1:
        raise InputError(f"codimension is {codimension}; expected at least 1")
    return size / (codimension - 2) if codimension > 2 else math.inf
