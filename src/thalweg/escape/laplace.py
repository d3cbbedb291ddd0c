r"""Laplace's method: the masses that a Gibbs law puts near its minima, and where that ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import erf, logsumexp

from thalweg.errors import InputError
from thalweg.escape.anharmonic import LARGEST, TOLERATED, mass_correction
from thalweg.escape.evaluation import at_points
from thalweg.noise import checked_number
from thalweg.problem import FiniteSum

# Where the second derivative beside a kink is taken, as a share of 1 + |x|.
_BESIDE = 1e-7


@dataclass(frozen=True, eq=False)
class LaplaceWeights:
    r"""The masses around the minima, as the temperature goes to zero.

    Attributes:
        weights: Their shares :math:`w_i`, which sum to one.
        log_weights: The logarithms, for shares below 1e-308.
        corrections: The next order: the mass around minimum i is, up to a common factor,
            :math:`w_i (1 + c_i + O(T^2))`, with :math:`c_i` proportional to T.
        valid: Whether the weights are within about a quarter of the masses.
        reason: Why not, else empty.
    """

    weights: Float[np.ndarray, " minima"]
    log_weights: Float[np.ndarray, " minima"]
    corrections: Float[np.ndarray, " minima"]
    valid: bool
    reason: str

    @property
    def corrected(self) -> Float[np.ndarray, " minima"]:
        """The shares with the next order, where it is small."""
        masses = self.weights * (1 + self.corrections)
        return masses / masses.sum()


def laplace_weights(
    problem: FiniteSum, minima: Sequence[Any], *, temperature: float
) -> LaplaceWeights:
    r"""The share of each minimum in the law :math:`e^{-f/T}/Z` at low temperature.

    .. math:: w_i \propto e^{-f_i/T} \det(H_i)^{-1/2},

    for constant isotropic noise of covariance 2T per unit of time. The mass around a minimum is
    this times :math:`1 + c_i + O(T^2)`,

    .. math:: c_i = T \big( -\tfrac18 f_{jklm} P_{jk} P_{lm} + \tfrac18 f_{jkl} f_{mno} P_{jk}
              P_{lm} P_{no} + \tfrac1{12} f_{jkl} f_{mno} P_{jm} P_{kn} P_{lo} \big), \qquad
              P = H_i^{-1},

    which is what breaks down: where it is not small neither is T against the barriers, or the
    minimum is too flat for its Hessian to describe it. At a kink on a line, with slopes s on the
    two sides, :math:`\sqrt{2 \pi T/h}` is replaced by :math:`T (1/|s_-| + 1/s_+)`, and
    :math:`c = -T \sum f''_\pm/|s_\pm|^3 / \sum 1/|s_\pm|`.

    Minima of equal depth share by the roots of their determinants alone: the limit of small T, with
    the neighbourhood fixed. In a neighbourhood that shrinks at a fixed T they are alike: see
    :func:`box_probabilities`.

    Args:
        problem: The objective f, for derivatives beyond the Hessian.
        minima: All of them, as :func:`thalweg.minima` describes them.
        temperature: T, in units of f.

    Raises:
        InputError: No minima, or points that are none; a temperature that is not above zero; more
            than 64 parameters.

    Cost: 4 d^2 gradients and a Hessian at each minimum.

    Source: Dai and Zhu, section 2.4, with their determinants corrected; the correction in L.
    Isserlis and G. C. Wick's way, as in N. Bleistein and R. A. Handelsman, Asymptotic Expansions of
    Integrals (1975), section 8.3.
    """
    if not minima:
        raise InputError("minima is empty; expected at least one")
    T = float(checked_number("temperature", temperature, "above 0"))
    size = np.size(minima[0].params)
    if size > LARGEST:
        raise InputError(
            f"{size} parameters; the weights come with fourth derivatives, expected at most "
            f"{LARGEST}"
        )
    logs = np.array([log_mass(point, T) - point.value / T for point in minima])
    logs = logs - logsumexp(logs)
    corrections = np.array([_correction(problem, point, T) for point in minima])
    # A minimum without mass has no say.
    felt = np.where(logs > math.log(1e-6), np.abs(corrections), 0.0)
    worst = int(felt.argmax())
    valid = bool(felt[worst] <= TOLERATED)
    reason = (
        ""
        if valid
        else f"the next order changes the mass around minimum {worst} by "
        f"{100 * corrections[worst]:+.0f} %: the temperature {T:g} is too high for its Hessian to "
        "describe it; ask the grid"
    )
    return LaplaceWeights(np.exp(logs), logs, corrections, valid, reason)


def box_probabilities(
    problem: FiniteSum, minima: Sequence[Any], *, temperature: float, radius: float
) -> Float[np.ndarray, " minima"]:
    r"""The probability of a small box around each minimum, along the eigenvectors of its Hessian.

    .. math:: P(|\theta_j - \theta_{ij}| \le \epsilon \text{ for all } j) = \kappa\, e^{-f_i/T}
              \prod_j \sqrt{\frac{2 \pi T}{\lambda_j}}\,
              \operatorname{erf}\Big(\epsilon \sqrt{\frac{\lambda_j}{2T}}\Big)
              = w_i \prod_j \operatorname{erf}\Big(\epsilon \sqrt{\frac{\lambda_j}{2T}}\Big)

    with :func:`laplace_weights` in place of the constant :math:`\kappa`. The limits do not commute:
    for minima of equal depth the ratio tends to the root of that of the determinants as T goes to
    zero with the box fixed, and to 1 as the box shrinks with T fixed.

    Args:
        problem: The objective.
        minima: All of them; smooth ones.
        temperature: T; Dai and Zhu's :math:`1/\eta_\infty = \gamma \beta/(2M)`.
        radius: :math:`\epsilon`, half the side of the box.

    Raises:
        InputError: As :func:`laplace_weights`; a radius that is not above zero; kinks.

    Source: Dai and Zhu, theorem 2.5 (where :math:`2 \pi` and a factor 2 in the exponents are
    missing).
    """
    T = float(checked_number("temperature", temperature, "above 0"))
    radius = float(checked_number("radius", radius, "above 0"))
    weights = laplace_weights(problem, minima, temperature=T).weights
    if any(slopes_of(point) is not None for point in minima):
        raise InputError("a minimum is a kink; expected minima with a Hessian")
    curvatures = np.stack([np.asarray(point.eigenvalues) for point in minima])
    return weights * erf(radius * np.sqrt(curvatures / (2 * T))).prod(axis=1)


def slopes_of(point: Any) -> tuple[float, float] | None:
    """The slopes to the left and the right of a kink on a line; None where f is smooth."""
    slopes = getattr(point, "slopes", None)
    return None if slopes is None else (float(slopes[0]), float(slopes[1]))


def log_mass(point: Any, temperature: float) -> float:
    r"""The logarithm of :math:`\int e^{-(f - f_i)/T}` around a minimum, to leading order.

    Raises:
        InputError: The point is no minimum.
    """
    slopes = slopes_of(point)
    if slopes is not None:
        if not slopes[0] < 0 < slopes[1]:
            raise InputError(
                f"the point has the slopes {slopes[0]:g} and {slopes[1]:g}; expected a minimum, "
                "where f falls and rises again"
            )
        return math.log(temperature * (1 / -slopes[0] + 1 / slopes[1]))
    curvatures = np.asarray(point.eigenvalues)
    if not (curvatures > 0).all():
        raise InputError(
            f"the point has the eigenvalue {curvatures.min():g} of the Hessian; expected a "
            "minimum, where all are positive"
        )
    return float(0.5 * np.log(2 * math.pi * temperature / curvatures).sum())


def _correction(problem: FiniteSum, point: Any, temperature: float) -> float:
    """The next order of the mass around a minimum."""
    theta = np.asarray(point.params, float)
    slopes = slopes_of(point)
    if slopes is not None:
        beside = _BESIDE * (1 + np.abs(theta))
        curvatures = [
            float(_hessian(problem, jnp.asarray(theta + sign * beside))[0, 0]) for sign in (-1, 1)
        ]
        lost = sum(c / abs(s) ** 3 for c, s in zip(curvatures, slopes, strict=True))
        return -temperature * lost / sum(1 / abs(s) for s in slopes)
    gradient = at_points(_gradient, problem, theta)

    def forces(points: Float[np.ndarray, "points d"]) -> tuple[np.ndarray, np.ndarray]:
        return gradient(points) / temperature, np.zeros_like(points)

    return mass_correction(
        forces, theta, np.asarray(_hessian(problem, jnp.asarray(theta))) / temperature
    )


def _gradient(problem: FiniteSum, theta: Float[Array, " d"]) -> Float[Array, " d"]:
    return problem.gradient(theta)


@eqx.filter_jit
def _hessian(problem: FiniteSum, theta: Float[Array, " d"]) -> Float[Array, "d d"]:
    return jax.jacfwd(problem.gradient)(theta)
