"""The law of what has not left a region, and the rate at which it leaves."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.markov.grid import Grid, Region
from thalweg.markov.jumps import Jumps
from thalweg.markov.refinement import Mixing, SolveError
from thalweg.markov.systems import System, must_leave

_TOLERANCE = 1e-10
_ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class QuasiStationary:
    r"""The law that stays the same but for its mass, which decays as :math:`e^{-\lambda t}`.

    Started in it, a chain leaves after a time that is exponentially distributed (in discrete time
    geometrically, with mean 1/per_step steps); from elsewhere in the region this holds for late
    exits.

    Attributes:
        grid: The grid.
        density: The law, of mass one.
        rate: The exit rate :math:`\lambda` per unit of time.
        per_step: The probability to leave in a step, :math:`1 - e^{-\lambda \eta}`.
        time: 1/rate.
        steps: time/step.
        error: The difference of the rate to half as many cells along each axis, where asked for.
    """

    grid: Grid
    density: Float[Array, "..."]
    rate: float
    per_step: float
    time: float
    steps: float
    error: Float[np.ndarray, "..."] | float | None = None


def quasi_stationary(jumps: Jumps, region: Region) -> QuasiStationary:
    r"""The quasi-stationary law of a region and its exit rate.

    The law is the left eigenvector of :math:`A_{RR}` for the eigenvalue :math:`-\lambda_1` nearest
    to zero, found by inverse iteration from the uniform law, with Anderson's mixing, until it
    changes by less than 1e-10. In discrete time the eigenvalue of :math:`P_{RR}` is
    :math:`1 - \eta \lambda_1 = e^{-\lambda \eta}`. If the region falls into parts that are not
    reached from each other, it is the law of the part that is left last.

    Args:
        jumps: The chain, with rates that are numbers.
        region: What is left: a predicate on params of shape (d,), or truth values of the grid's
            shape.

    Raises:
        InputError: A region without cells, or with cells from which it may never be left; rates
            that are being differentiated by.
        SolveError: No convergence.

    Cost: ten to twenty mean exit times without their setup, the first of them in full.
    """
    if jumps.traced:
        raise InputError(
            "the quasi-stationary law is not differentiable; expected rates that are numbers "
            "(exit times and stationary averages can be differentiated)"
        )
    inside = jumps.grid.region(region)
    stuck = int((inside & ~must_leave(jumps, inside)).sum())
    if stuck:
        raise InputError(
            f"from {stuck} cells the region may never be left, and its exit rate is zero; expected "
            "a region that is left for certain (stationary() has the law of one that is not)"
        )
    law, eigenvalue = _principal(jumps, inside)
    step = float(jumps.step)
    if jumps.discrete:
        per_step = min(step * eigenvalue, 1.0)
        with np.errstate(divide="ignore"):
            rate = float(-np.log1p(-per_step)) / step
    else:
        rate, per_step = eigenvalue, float(-np.expm1(-eigenvalue * step))
    density = jumps.grid.spread(jnp.asarray(law)) / jumps.grid.volumes
    return QuasiStationary(jumps.grid, density, rate, per_step, 1 / rate, 1 / rate / step)


def _principal(jumps: Jumps, inside: np.ndarray) -> tuple[Float[np.ndarray, " cells"], float]:
    """The masses of the principal left eigenvector and minus its eigenvalue."""
    system = System(jumps, inside, tolerance=_TOLERANCE / 10)
    law = inside / inside.sum()
    mixing, eigenvalue, guess = Mixing(law.size), 0.0, None
    for _ in range(_ITERATIONS):
        times = np.asarray(system.solve_transposed(jnp.asarray(law), guess))
        eigenvalue = float(law.sum() / times.sum())
        correction = eigenvalue * times - law
        if np.abs(correction).sum() <= _TOLERANCE:
            return _positive(times / times.sum()), eigenvalue
        weights = 1 / np.sqrt(np.abs(law) + 1 / inside.sum())
        law = law + mixing.step(correction, weights)
        law = law / law.sum()
        guess = law / eigenvalue
    raise SolveError(
        f"the quasi-stationary law did not converge: it changes by {np.abs(correction).sum():.1e}, "
        f"expected {_TOLERANCE:.0e}; the two slowest modes of the region decay at nearly one rate"
    )


def _positive(law: Float[np.ndarray, " cells"]) -> Float[np.ndarray, " cells"]:
    if law.min() < -_TOLERANCE * law.max():
        raise SolveError(f"the quasi-stationary law has the negative mass {law.min():.1e}")
    law = np.maximum(law, 0.0)
    return law / law.sum()
