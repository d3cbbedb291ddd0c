r"""The order after the Gaussian one: of the mass around a minimum, and of the flow over a saddle.

Both are expansions of :math:`e^{-V}` around a critical point, in coordinates in which the Hessian
of V is diagonal with entries of size 1: thermal widths. There :math:`T_{ijk}` and :math:`F_{ijkl}`
are the third and fourth derivatives, small like :math:`T^{1/2}` and T at a low temperature T. They
are taken as central differences over a tenth of a width, right to about a hundredth of the size of
the terms themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg as la
from jaxtyping import Float

# From points to the gradient of V and that of the logarithm of an amplitude.
Slopes = Callable[[Float[np.ndarray, "points d"]], tuple[np.ndarray, np.ndarray]]

# Beyond so many parameters nobody waits for d^3 numbers.
LARGEST = 64
# The next order may change an answer by this share before it is said not to be valid.
TOLERATED = 0.25
# The distance of differences, in widths.
_DISTANCE = 0.1


def mass_correction(
    slopes: Slopes, theta: Float[np.ndarray, " d"], H: Float[np.ndarray, "d d"]
) -> float:
    r"""The c in :math:`\int g\,e^{-V} = g_1 (2 \pi)^{d/2} \det(H)^{-1/2} (1 + c + \dots)`.

    .. math:: c = -\tfrac18 F_{iijj} + \tfrac18 T_{iij} T_{kkj} + \tfrac1{12} T_{ijk} T_{ijk}
              + \tfrac12 \frac{g_{ii}}g - \tfrac12 \frac{g_i}g T_{ijj}

    Args:
        slopes: :math:`\nabla V` and :math:`\nabla \log g` at points.
        theta: The minimum.
        H: The Hessian of V there.

    Source: C. M. Bender and S. A. Orszag, Advanced Mathematical Methods (1978), section 6.4.
    """
    curvatures, vectors = np.linalg.eigh(H)
    at = _derivatives(slopes, theta, vectors / np.sqrt(curvatures))
    amplitude = at.log_slope @ at.log_slope + at.log_bend - at.log_slope @ at.traces
    return _even(at) + 0.5 * float(amplitude)


def flow_correction(
    slopes: Slopes,
    theta: Float[np.ndarray, " d"],
    H: Float[np.ndarray, "d d"],
    tensor: Float[np.ndarray, "d d"],
) -> float:
    r"""The next order of the flow :math:`\int z\,e^{-V} \nabla h \cdot A \nabla h` over a saddle.

    h is the probability to end on one side, and z A is taken as constant: it is for isotropic and
    for constant noise. With the rates :math:`m_i` of the linear drift, of size only, of which x is
    the unstable one, and with the Gaussian law that is bounded in all directions, the expansion of
    :math:`\nabla \cdot (e^{-V} A \nabla h) = 0` around :math:`h_0(x)`, with :math:`h_1 = h_0' q`
    and a polynomial q, gives

    .. math:: c = -\tfrac18 F_{iijj} + \tfrac18 T_{iij} T_{kkj} + \tfrac1{12} T_{ijk} T_{ijk}
              - \tfrac14 (T_{xii})^2 - \tfrac12 \frac{m_x}{m_x + m_i + m_j} T_{xij} T_{xij}.

    Args:
        slopes: As for :func:`mass_correction`; only the first is used.
        theta: The saddle.
        H: The Hessian of V there.
        tensor: A there.
    """
    rates, frame = la.eigh(H, np.linalg.inv(tensor))
    m = np.abs(rates)
    at = _derivatives(slopes, theta, frame / np.sqrt(m))
    # Eigenvalues ascend: the unstable direction is the first.
    shares = m[0] / (m[0] + m[:, None] + m)
    return (
        _even(at) - 0.25 * float(at.traces[0]) ** 2 - 0.5 * float((shares * at.third[0] ** 2).sum())
    )


class _Derivatives(NamedTuple):
    """Derivatives at a critical point, in thermal widths.

    Attributes:
        third: Of V.
        fourth: The sum over F_iijj.
        log_slope: The gradient of log g.
        log_bend: The Laplacian of log g.
    """

    third: Float[np.ndarray, "d d d"]
    fourth: float
    log_slope: Float[np.ndarray, " d"]
    log_bend: float

    @property
    def traces(self) -> Float[np.ndarray, " d"]:
        """The sums over T_ijj."""
        return np.einsum("ijj->i", self.third)


def _even(at: _Derivatives) -> float:
    """What mass and flow have in common."""
    return float(-at.fourth / 8 + at.traces @ at.traces / 8 + (at.third**2).sum() / 12)


def _derivatives(
    slopes: Slopes, theta: Float[np.ndarray, " d"], widths: Float[np.ndarray, "d d"]
) -> _Derivatives:
    """Central differences of the gradients along all pairs of columns of widths."""
    d, h = theta.size, _DISTANCE
    unit = h * np.eye(d)
    # Plus and minus along one axis and another: along the same, twice as far and not at all.
    pairs = np.stack([a * unit[:, None] + b * unit for a in (1, -1) for b in (1, -1)])
    shifts = np.concatenate([pairs.reshape(-1, d), unit, -unit])
    V, log_g = (found @ widths for found in slopes(theta + shifts @ widths.T))
    (pp, pm, mp, mm), (p, m) = V[: 4 * d * d].reshape(4, d, d, d), V[4 * d * d :].reshape(2, d, d)
    third = (pp - pm - mp + mm) / (4 * h**2)
    # Once along i, in the component i, and twice along j.
    bend = np.einsum("iji->ij", pp + pm - mp - mm) - 2 * np.einsum("ii->i", p - m)[:, None]
    own = log_g[4 * d * d :].reshape(2, d, d)
    return _Derivatives(
        third=np.moveaxis(third, 2, 0),
        fourth=float(bend.sum() / (2 * h**3)),
        log_slope=own.mean(axis=(0, 1)),
        log_bend=float(np.trace(own[0] - own[1]) / (2 * h)),
    )
