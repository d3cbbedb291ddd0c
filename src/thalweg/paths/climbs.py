"""The curve of least geometric action between two points."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import CubicSpline

from thalweg.paths.curves import lengths
from thalweg.paths.expansions import CurveCost, StepCost
from thalweg.paths.fields import Field, Matrix
from thalweg.paths.hamiltonian import AbstractHamiltonian, Extreme
from thalweg.paths.relaxation import relaxed
from thalweg.paths.widened import widened

# Nodes and weights of Gauss for each interval, as shares of it.
_NODES, _WEIGHTS = (x / 2 for x in np.polynomial.legendre.leggauss(3))
_NODES = _NODES + 0.5
# Noise that is added, as shares of what there is, from much to little.
_ADDED = (1.0, 0.1, 1e-2, 1e-3, 1e-4)
# What is left to do of a chain that is as good as at rest.
_RESTS = 3e-2
# Momenta are computed for so many points at once, which one program does.
_BATCH = 256
# Parts into which an interval is cut to see whether its action is finite.
_CUTS = (1, 8, 64)
# It is not if it grows by this much of itself, and by no less the second time.
_GROWS = 1e-3
_AGAIN = 0.7

Points = Float[np.ndarray, "images d"]


class Climb(NamedTuple):
    """A curve with its action.

    Attributes:
        points: The images.
        momenta: At the images.
        spent: The action up to each image.
        error: How far the action is from that of half as many images.
    """

    points: Points
    momenta: Points
    spent: Float[np.ndarray, " images"]
    error: float


class Chain(NamedTuple):
    """A chain of images.

    Attributes:
        points: The images.
        cost: The sum of the costs of neighbours; infinite if out of reach.
        left: What is left to do, see :class:`thalweg.paths.relaxation.Relaxed`.
        iterations: How many steps were made.
    """

    points: Points
    cost: float
    left: float
    iterations: int

    @property
    def rests(self) -> bool:
        """Whether the method converged, to a finite cost."""
        return bool(np.isfinite(self.cost)) and self.left <= _RESTS


def settled(
    field: Field,
    start: Points,
    first: Matrix | None,
    room: int,
    *,
    step: Float[Array, ""] | None = None,
    near: bool = True,
) -> Chain:
    """The chain of least action from a first one: a curve, or one of steps of a given length.

    Gaussian noise is added and taken away little by little, if the first chain is not near the one
    sought, or leads nowhere. So places are found where the noise is strong, and those left where no
    noise reaches. If the action is infinite in the end, the images are those with the least noise.

    Args:
        field: The dynamics.
        start: The first chain.
        first: The metric for the first pair, if there is one.
        room: Images of the longest chain: chains of all lengths run by one program.
        step: The step, for a chain of steps.
        near: Whether the first chain is thought to be near.
    """
    metric = None if first is None else jnp.asarray(first)
    count = jnp.asarray(len(start))

    def run(points: Points, variance: float) -> Chain:
        H = widened(field.H, jnp.asarray(variance))
        cost = CurveCost(H) if step is None else StepCost(H, step)
        rest = np.repeat(points[-1:], room - len(points), axis=0)
        padded = jnp.asarray(np.vstack([points, rest]))
        found = relaxed(cost, padded, count, metric, spaced=step is None)
        inside = np.asarray(found.points)[: len(points)]
        return Chain(inside, float(found.cost), float(found.left), int(found.iterations))

    constant = widened(field.H, jnp.asarray(0.0)) is field.H
    if near or constant:
        found = run(start, 0.0)
        if found.rests or constant:
            return found
    usual = float(np.mean([np.trace(field.covariance(x)) for x in start])) / start.shape[1]
    reached = Chain(start, np.inf, np.inf, 0)
    for share in _ADDED:
        reached = run(reached.points, share * usual)
    found = run(reached.points, 0.0)
    return found if np.isfinite(found.cost) else reached._replace(cost=np.inf)


def measured(field: Field, points: Points, first: Matrix | None) -> Climb:
    """The action of the cubic spline through the images.

    With the metric given the spline begins at the first inner image, and the action up to there is
    the quasi-potential around the point of rest.
    """
    spline = _Spline(points, first)
    places, moves = spline.all()
    momenta, _ = extremes(field, places, moves)
    at_images = momenta[-len(spline.arc) :]
    if first is not None:
        at_images = np.vstack([np.zeros_like(points[:1]), at_images])
    return Climb(points, at_images, spline.spent(momenta, moves), 0.0)


def diverges(field: Field, climb: Climb, first: Matrix | None) -> np.ndarray | None:
    """Where the action between two images grows without end as it is cut, or None."""
    spline = _Spline(climb.points, first)
    costs = np.diff(climb.spent)[0 if first is None else 1 :]
    worst = int(np.argmax(costs))
    ends = spline.arc[worst : worst + 2]
    shares = np.concatenate([(np.arange(n) + 0.5) / n for n in _CUTS])
    places = ends[0] + (ends[1] - ends[0]) * shares
    points, moves = spline.curve(places), spline.curve(places, 1)
    densities = _products(extremes(field, points, moves)[0], moves)
    parts = np.split(densities, np.cumsum(_CUTS)[:-1])
    sums = [(ends[1] - ends[0]) * part.mean() for part in parts]
    once, again = sums[1] - sums[0], sums[2] - sums[1]
    grows = once > _GROWS * climb.spent[-1] and again > _AGAIN * once
    return points[np.argmax(densities)] if grows or not np.isfinite(densities).all() else None


class _Spline:
    """The spline through images, the first of them left out where a metric stands for it."""

    def __init__(self, points: Points, first: Matrix | None):
        self.away = points[1] - points[0]
        self.first = first
        inside = points if first is None else points[1:]
        self.arc = lengths(inside)
        self.curve = CubicSpline(self.arc, inside)

    def all(self) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
        """The nodes with the moves there, weights included; then the images with tangents."""
        widths = np.diff(self.arc)
        nodes = (self.arc[:-1, None] + widths[:, None] * _NODES).ravel()
        weights = (widths[:, None] * _WEIGHTS).ravel()
        places = np.vstack([self.curve(nodes), self.curve(self.arc)])
        return places, np.vstack([self.curve(nodes, 1) * weights[:, None], self.curve(self.arc, 1)])

    def spent(
        self, momenta: Float[np.ndarray, "n d"], moves: Float[np.ndarray, "n d"]
    ) -> Float[np.ndarray, " images"]:
        """The action up to each image."""
        nodes = len(_NODES) * (len(self.arc) - 1)
        costs = _products(momenta[:nodes], moves[:nodes])
        sums = np.append(0.0, np.cumsum(costs.reshape(-1, len(_NODES)).sum(axis=1)))
        if self.first is None:
            return sums
        # V = V_2 + V_3 + ... with x p = 2 V_2 + 3 V_3 + ..., and V_2 is known.
        second = self.away @ self.first @ self.away / 2
        start = (momenta[nodes] @ self.away + second) / 3
        return np.append(0.0, start + sums)


def extremes(
    field: Field, points: Float[np.ndarray, "n d"], moves: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """The momenta with which moves are made and the times they take, in batches of one size."""
    short = -len(points) % _BATCH
    x, v = (np.vstack([rows, np.repeat(rows[-1:], short, axis=0)]) for rows in (points, moves))
    found = [
        _extremes(field.H, jnp.asarray(x[i : i + _BATCH]), jnp.asarray(v[i : i + _BATCH]))
        for i in range(0, len(x), _BATCH)
    ]
    momenta = np.concatenate([extreme.momentum for extreme in found])
    times = np.concatenate([extreme.duration for extreme in found])
    return momenta[: len(points)], times[: len(points)]


def _products(
    momenta: Float[np.ndarray, "n d"], moves: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """The scalar products, infinite where momenta are: out of reach."""
    reached = np.isfinite(momenta).all(axis=1)
    return np.where(reached, np.sum(np.where(reached[:, None], momenta, 0) * moves, axis=1), np.inf)


@eqx.filter_jit
def _extremes(H: AbstractHamiltonian, points: Array, moves: Array) -> Extreme:
    return jax.vmap(H.extreme)(points, moves)
