"""Samples of the selection density on a manifold of minimisers of any dimension."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from thalweg.errors import InputError
from thalweg.manifolds.landing import landing
from thalweg.manifolds.local import (
    Local,
    checked_points,
    has_gap,
    is_minimiser,
    local,
    rounding,
    sharpest,
)
from thalweg.manifolds.normal_space import normal_space
from thalweg.problem import FiniteSum
from thalweg.random import Stream

# Wanted of proposals, to be taken: between the best shares of random walks on a line (.44) and in
# many dimensions (.23).
_ACCEPTANCE = 0.35
# Of the first proposals, as a share of 1 + |start|.
_FIRST = 0.1
# Growth of the variance from the second quarter of a run to the last that a stationary law of some
# hundred chains does not show, and free diffusion (which doubles it) does.
_GROWTH = 1.7

Region = Callable[[Float[Array, " d"]], Bool[Array, ""]]


@dataclass(frozen=True, eq=False)
class SelectionSamples:
    """Points distributed by the selection density.

    Attributes:
        points: Shape (chains, steps, d); the steps of one chain are correlated.
        acceptance: The share of proposals taken, of each chain, shape (chains,).
        size: The standard deviation of proposals along each tangent, of each chain, shape
            (chains,).
    """

    points: Float[Array, "chains steps d"]
    acceptance: Float[Array, " chains"]
    size: Float[Array, " chains"]

    def average(self, function: Callable[[Any], Any]) -> tuple[Array, Array]:
        r"""The mean of a function of a point, and its standard error.

        The error is :math:`s/\sqrt c` from the means of the c chains, which are independent; it
        knows nothing of what no chain has seen.

        Args:
            function: From a point of shape (d,) to an array.

        Raises:
            InputError: A function that is not finite at some of the points.
        """
        means = jnp.mean(jax.vmap(jax.vmap(function))(self.points).astype(float), axis=1)
        if not bool(jnp.isfinite(means).all()):
            raise InputError("the function is not finite at all points; expected numbers")
        return jnp.mean(means, axis=0), jnp.std(means, axis=0, ddof=1) / len(means) ** 0.5


class _Chain(NamedTuple):
    point: Array
    here: Local
    size: Array


def sample_selection(
    problem: FiniteSum,
    start: Float[Array, "*starts d"],
    *,
    key: Key[Array, ""],
    chains: int = 512,
    steps: int = 500,
    within: Region | None = None,
    period: Any = None,
) -> SelectionSamples:
    r"""Samples of the density :math:`\det(H_\perp)^{-1/2}` on a manifold of minimisers.

    A random walk of Metropolis on the manifold: a normal step w along the tangent space, back to
    the manifold along the normal space of the point it started from (Broyden's method), and taken
    with the probability

    .. math:: \min\Big(1, \frac{\det H_\perp(y)^{-1/2}}{\det H_\perp(x)^{-1/2}}\,
              e^{(|w|^2 - |w'|^2)/2s^2}\Big)

    if the way back from y, with the step w', leads to x. That keeps the density with respect to the
    surface measure (E. Zappa, M. Holmes-Cerfon and J. Goodman, Comm. Pure Appl. Math. 71, 2018).
    The manifold is not given by equations: :math:`N^\top \nabla f = 0` with N the normal space at x
    is one locally, and a landing where another component of the gradient is left, or a curvature is
    negative, or f is higher, is refused. In the first half of the run, which is not kept, each
    chain adapts s to an acceptance of .35.

    Components of the manifold that are farther apart than a step are not connected: give starts on
    each, and weigh them, or compare them by charts
    (:func:`thalweg.manifolds.chart_selection`). Chain j draws the words of (key, j).

    Args:
        problem: The objective, of params of shape (d,).
        start: Minimisers (:func:`thalweg.manifolds.project`); if several, chain j starts at number
            j modulo their count.
        key: The random key.
        chains: How many, at least 2.
        steps: Of each chain, kept; as many again are made before.
        within: A predicate on points: the density is conditioned on it. For manifolds that are not
            compact.
        period: Of params that are angles: a number, or one for each parameter (infinite: none);
            points are returned between 0 and the period.

    Raises:
        InputError: Starts that are no minimisers, or isolated ones, or of different heights, or not
            ``within``; no proposal taken; chains that still spread at the end, as they do where the
            density has no integral (refused, for there is no law).

    Cost: some twenty gradients and one Hessian with its eigenvectors a step.
    """
    if chains < 2 or steps < 8:
        raise InputError(f"chains={chains}, steps={steps}; expected at least 2 chains of 8 steps")
    starts = checked_points(problem, start)
    space = normal_space(problem, starts)
    flat = starts.shape[1] - space.codimension
    within, lengths = within or _everywhere, _lengths(period, starts)
    _check_starts(problem, starts, flat, within)
    first = jnp.asarray(np.asarray(starts)[np.arange(chains) % len(starts)])
    run, accepted, size = _walk(problem, first, key, steps, flat, within)
    points, angles = np.array(run), np.isfinite(lengths)
    _check_run(points[..., ~angles], np.asarray(accepted))
    points[..., angles] %= lengths[angles]
    return SelectionSamples(jnp.asarray(points[:, steps:]), accepted, size)


@eqx.filter_jit
def _walk(
    problem: FiniteSum, starts: Array, key: Array, steps: int, flat: int, within: Region
) -> tuple[Array, Array, Array]:
    """All points of the run, 2 x steps; acceptance and size of steps in its second half."""

    def chain(start: Array, number: Array) -> tuple[Array, Array, Array]:
        size = jnp.asarray(_FIRST * (1 + jnp.linalg.norm(start)), start.dtype)
        begin = _Chain(start, local(problem, start), size)

        def turn(chain: _Chain, step: Array) -> tuple[_Chain, tuple[Array, Array]]:
            moved, accepted = _step(problem, chain, Stream.of(key, number, step), flat, within)
            # Robbins and Monro's method; the sizes end with the first half.
            gain = jnp.where(step < steps, (1 + step.astype(start.dtype)) ** -0.6, 0)
            change = gain * (accepted.astype(start.dtype) - _ACCEPTANCE)
            moved = moved._replace(size=moved.size * jnp.exp(change))
            return moved, (moved.point, accepted)

        end, (points, accepted) = jax.lax.scan(turn, begin, jnp.arange(2 * steps))
        return points, jnp.mean(accepted[steps:].astype(start.dtype)), end.size

    return jax.vmap(chain)(starts, jnp.arange(len(starts)))


def _step(
    problem: FiniteSum, chain: _Chain, stream: Stream, flat: int, within: Region
) -> tuple[_Chain, Array]:
    """One proposal, taken or not."""
    x, here = chain.point, chain.here
    ahead = chain.size * stream.normal(flat, x.dtype)
    y, landed = _landed(problem, x, here, ahead, flat)
    there = local(problem, y)
    scale = sharpest(here)
    level = rounding(x) * scale * (1 + jnp.linalg.norm(x)) ** 2
    lies = (
        is_minimiser(y, there) & has_gap(there, flat) & (jnp.abs(there.value - here.value) <= level)
    )
    back = there.vectors[:, :flat].T @ (x - y)
    again, returned = _landed(problem, y, there, back, flat)
    # Roots that differ do so by far more than Broyden's method errs.
    same = returned & (jnp.linalg.norm(again - x) <= 10 * rounding(x) * chain.size)
    squares = jnp.sum(jnp.square(ahead)) - jnp.sum(jnp.square(back))
    log_ratio = _log_density(there, flat) - _log_density(here, flat) + squares / (2 * chain.size**2)
    chosen = jnp.log(stream.folded(1).uniform(1, x.dtype)[0]) < log_ratio
    accepted = landed & lies & same & chosen & within(y)
    point, local_there = jax.tree.map(partial(jnp.where, accepted), (y, there), (x, here))
    return _Chain(point, local_there, chain.size), accepted


def _landed(
    problem: FiniteSum, point: Array, found: Local, ahead: Array, flat: int
) -> tuple[Array, Array]:
    base = point + found.vectors[:, :flat] @ ahead
    return landing(problem, base, found, flat)


def _log_density(found: Local, flat: int) -> Array:
    positive = jnp.maximum(found.curvatures[flat:], jnp.finfo(found.curvatures.dtype).tiny)
    return -jnp.sum(jnp.log(positive)) / 2


def _lengths(period: Any, starts: Array) -> np.ndarray:
    """The period of each parameter, infinite for those that are no angles."""
    given = np.asarray(np.inf if period is None else period, starts.dtype)
    if given.shape not in ((), starts.shape[1:]) or not (given > 0).all():
        raise InputError(
            f"period is {period!r}; expected a positive number, or one for each of "
            f"{starts.shape[1]} parameters"
        )
    return np.broadcast_to(given, starts.shape[1:])


def _everywhere(point: Array) -> Array:
    return jnp.asarray(True)


def _check_starts(problem: FiniteSum, starts: Array, flat: int, within: Region) -> None:
    if flat == 0:
        raise InputError(
            "the minimisers are isolated, and there is nothing to walk along; their weights are "
            "exp(selection_log_density), expected a Hessian with a kernel"
        )
    inside, values = map(np.asarray, _seen_at(problem, starts, within))
    if not inside.all():
        raise InputError("a start is not within the region given; expected all to be")
    spread = float(np.ptp(values))
    if spread > 1e-6 * max(1.0, float(np.abs(values).max())):
        raise InputError(
            f"the starts differ in height by {spread:.3g}; expected minimisers of one height: "
            "leave the higher ones out, their weight vanishes with the noise"
        )


@eqx.filter_jit
def _seen_at(problem: FiniteSum, starts: Array, within: Region) -> tuple[Array, Array]:
    """Whether points are within the region, and their heights."""
    return jax.vmap(lambda point: (within(point), problem.value(point)))(starts)


def _check_run(points: np.ndarray, accepted: np.ndarray) -> None:
    if not accepted.any():
        raise InputError(
            "no proposal was taken: the flat directions lead to no other minimisers nearby; "
            "expected a manifold of them"
        )
    if points.shape[-1] == 0:
        return
    quarter = points.shape[1] // 4
    parts = (points[:, quarter : 2 * quarter], points[:, 3 * quarter :])
    spreads = [np.abs(part - part.mean(axis=(0, 1))).mean(axis=(0, 1)) ** 2 for part in parts]
    growth = float(np.max(spreads[1] / np.maximum(spreads[0], np.finfo(points.dtype).tiny)))
    if growth > _GROWTH:
        raise InputError(
            f"the chains still spread, {growth:.2g} times from the second quarter of the run to "
            "the last: the manifold is not compact and the density has no integral on it, so that "
            "there is no law (give within=, or period= for angles); or the run is too short to "
            "forget its starts (give more steps). Expected a spread that has settled"
        )
