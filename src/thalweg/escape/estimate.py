"""From the replications of a splitting to means and their standard errors."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from thalweg.escape.rounds import Rows

# Iterations of the equation for the rate: it contracts by the rate times the steps of an excursion.
_ITERATIONS = 60
# Where an estimate leaves no chance to stay, a little is left.
_MOST = 1 - 1e-9


def jackknife(
    function: Callable[[Rows], Float[np.ndarray, " rows"]], rows: Rows
) -> tuple[float, float]:
    r"""A function of means over replications, without its bias of order 1/R, and its error.

    With the values :math:`\hat\theta_{-r}` from all replications but one and their mean
    :math:`\bar\theta`: :math:`R\hat\theta - (R-1)\bar\theta`, and :math:`\sqrt{\tfrac{R-1}{R}
    \sum_r (\hat\theta_{-r} - \bar\theta)^2}` (B. Efron, "The jackknife, the bootstrap and other
    resampling plans", 1982, chapters 2 and 3). The error is infinite where one replication decides
    whether there is a value; where it is above half of the value, the bias is not known, either,
    and stays.
    """
    count = len(rows.left)
    whole = float(function(rows.averages())[0])
    if count < 2:
        return whole, np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        less = function(rows.all_but_one())
    if not (np.isfinite(less).all() and np.isfinite(whole)):
        return whole, np.inf
    error = float(np.sqrt((count - 1) * np.square(less - less.mean()).mean()))
    bias = (count - 1) * (float(less.mean()) - whole)
    return whole - (bias if error <= abs(whole) / 2 else 0.0), error


def mean_exit(rows: Rows, settled: int) -> Float[np.ndarray, " rows"]:
    r"""The mean exit time in steps, from means over replications.

    With A the mean of :math:`\min(\tau, M)`, W and E the shares that stayed and left by M,
    :math:`\lambda` the probability of a chain in the well to leave in a step, and
    :math:`\kappa \ge \lambda` that to leave or to diverge,

    .. math:: \frac{A + W/\kappa}{E + W \lambda/\kappa},

    all steps over all exits; without divergence :math:`A + W/\lambda`.
    """
    total, own = rates(rows, settled)
    with np.errstate(divide="ignore", invalid="ignore"):
        rare = (rows.waited * total + rows.stayed) / (rows.left * total + rows.stayed * own)
        direct = rows.waited / rows.left
    mean = np.where(rows.stayed > 0, rare, direct)
    return np.where(np.isnan(mean), np.inf, mean)


def rates(
    rows: Rows, settled: int
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    r"""The probabilities :math:`\kappa` and :math:`\lambda` of :func:`mean_exit`.

    A chain that leaves has one last passage from the lower level to the first upper one, at a step
    :math:`\sigma = \tau - D`. After M steps the law in the well decays as
    :math:`(1-\kappa)^k`, hence

    .. math:: P(\tau = k) = \sum_d P(\sigma = k - d, D = d), \qquad
        \frac{P(M < \sigma \le 2M)}{W}\, E[(1-\kappa)^{-D}]
        = \frac{\lambda}{\kappa} \left(1 - (1-\kappa)^M\right),

    and the left-hand side is what the splitting measures. For :math:`E[(1-\kappa)^{-D}]` stands
    :math:`(1-\kappa)^{-E D}`, right to second order in :math:`\lambda D`.
    """
    exits = rows.weights[..., -1]
    # Replications without an exit, or chains that all go directly, have no rate.
    found = (exits > 0) & (rows.stayed > 0)
    safe, stayed = np.where(found, exits, 1.0), np.where(found, rows.stayed, 1.0)
    ratio = 1 + rows.diverged / safe
    hazard = np.zeros_like(safe)
    for _ in range(_ITERATIONS):
        lost = safe / stayed * ratio * np.exp(hazard * rows.transit / safe)
        hazard = -np.log1p(-np.minimum(lost, _MOST)) / max(settled, 1)
    total = np.where(found, -np.expm1(-hazard), 0.0)
    return total, total / ratio
