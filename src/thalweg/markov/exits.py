"""How long a region is kept, and where it is left to."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.markov.grid import Grid, Region
from thalweg.markov.jumps import Jumps
from thalweg.markov.systems import System, can_leave, must_leave, numbers, solve


@dataclass(frozen=True, eq=False)
class ExitTime:
    r"""The first time :math:`\tau` outside of a region, by where one starts.

    Functions on the grid: zero outside of the region, infinite where leaving is not certain.

    Attributes:
        grid: The grid.
        time: The mean of :math:`\tau`, in units of time.
        steps: The same in steps, time/step.
        error: The difference to half as many cells along each axis, where asked for.
    """

    grid: Grid
    time: Float[Array, "..."]
    steps: Float[Array, "..."]
    error: Float[np.ndarray, "..."] | float | None = None
    _system: System | None = field(default=None, repr=False)

    @cached_property
    def variance(self) -> Float[Array, "..."]:
        r"""The variance of :math:`\tau`, in units of time squared.

        .. math::

            -A v = \Gamma(u) \;[-\,\eta \text{ in discrete time}], \qquad
            \Gamma(u)_i = \sum_j r_{ij} (u_j - u_i)^2 + l_i u_i^2,

        with u the mean and :math:`\eta` the step, by the law of total variance over the first jump
        or step; the second moment, :math:`2(-A)^{-1} u` in continuous time, would lose a small
        variance to rounding.

        Cost: one more right-hand side of the same system.
        """
        assert self._system is not None
        jumps, inside = self._system.jumps, self._system.inside
        mean = jnp.where(inside, self.grid.gather(self.time), 0.0)
        gaps = jumps.rates * jnp.square(mean[jumps.target] - mean[jumps.source])
        spread = jumps.leaving * jnp.square(mean)
        spread = spread + jnp.zeros_like(spread).at[jumps.source].add(gaps)
        if jumps.discrete:
            # A step without noise has none; rounding may have left less.
            spread = jnp.maximum(spread - jumps.step, 0.0)
        found = self.grid.spread(self._system.solve(jnp.where(inside, spread, 0.0)))
        return jnp.where(jnp.isinf(self.time), jnp.inf, found)

    def at(self, point: Any) -> Float[Array, ""]:
        """The mean time from a point, interpolated between the centres of cells.

        Raises:
            InputError: A point outside of the grid or its mask.
        """
        return _interpolated(self.grid, self.time, point)


@dataclass(frozen=True, eq=False)
class Committor:
    """The probability to reach b before a, by where one starts.

    Attributes:
        grid: The grid.
        probability: A function on the grid: zero in a, one in b.
        error: The difference to half as many cells along each axis, where asked for.
    """

    grid: Grid
    probability: Float[Array, "..."]
    error: Float[np.ndarray, "..."] | float | None = None

    def at(self, point: Any) -> Float[Array, ""]:
        """The probability from a point, interpolated between the centres of cells.

        Raises:
            InputError: A point outside of the grid or its mask.
        """
        return _interpolated(self.grid, self.probability, point)


def exit_time(jumps: Jumps, region: Region) -> ExitTime:
    r"""The time :math:`\tau` until a region is left, from each of its cells.

    The mean u solves :math:`-A u = 1` in the region and is zero outside, in continuous and in
    discrete time; absorbing sides of the grid count as outside. Where a set of cells that is never
    left can be reached within the region, as from everywhere if the region is all of a reflecting
    grid, the mean is infinite.

    Each entry is right to about 1e-10 of itself; where some are more than 1e12 jumps long, to a
    proven 1e-7 of the longest. Differentiable with ``jax.grad``, not inside of ``jax.jit``.

    Args:
        jumps: The chain.
        region: What is left: a predicate on params of shape (d,), or truth values of the grid's
            shape.

    Raises:
        InputError: A region without cells.
        SolveError: No solution to the accuracy promised.

    Cost: see :func:`thalweg.markov.systems.solve`.
    """
    inside = jumps.grid.region(region)
    sure = must_leave(numbers(jumps), inside)
    system = System(jumps, sure)
    mean = system.solve(jnp.ones(jumps.count)) if sure.any() else jnp.zeros(jumps.count)
    time = jumps.grid.spread(jnp.where(inside & ~sure, jnp.inf, mean))
    return ExitTime(jumps.grid, time, time / jumps.step, _system=system)


def committor(jumps: Jumps, a: Region, b: Region) -> Committor:
    r"""The probability to reach b before a.

    It solves :math:`A q = 0` outside of both, with q = 0 in a and q = 1 in b. Ways that reach
    neither, through absorbing sides of the grid or into cells that are never left, count as not
    reaching b. Right to 1e-10 of itself, or 1e-18. Differentiable with ``jax.grad``, not inside of
    ``jax.jit``.

    Args:
        jumps: The chain.
        a: Where one fails: a predicate on params of shape (d,), or truth values of the grid's
            shape.
        b: Where one succeeds, likewise.

    Raises:
        InputError: A region without cells, or a cell in both.
        SolveError: No solution to the accuracy promised.
    """
    fails, succeeds = jumps.grid.region(a, "region a"), jumps.grid.region(b, "region b")
    both = int((fails & succeeds).sum())
    if both:
        raise InputError(
            f"regions a and b have {both} cells in common; expected regions apart from each other"
        )
    inside = can_leave(numbers(jumps), ~(fails | succeeds))
    probability = jnp.asarray(succeeds, float)
    if inside.any():
        into = jnp.where(inside[jumps.source] & succeeds[jumps.target], jumps.rates, 0.0)
        right = jnp.zeros(jumps.count).at[jumps.source].add(into)
        probability = probability + solve(jumps, inside, right)
    return Committor(jumps.grid, jumps.grid.spread(probability))


def _interpolated(grid: Grid, values: Float[Array, "..."], point: Any) -> Float[Array, ""]:
    index, weights = grid.shares(np.asarray(point, dtype=float).reshape(grid.dimension))
    near = jnp.asarray(values).reshape(-1)[index]
    # A cell of weight zero may be infinite.
    return jnp.sum(jnp.where(weights > 0, near * weights, 0.0))
