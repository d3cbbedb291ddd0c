"""The set of minimisers of an overparametrised net, and the curvature around it."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Share
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import slope

_SAMPLES, _UNITS, _INPUTS = 8, 6, 2
_SIZE = _UNITS * (_INPUTS + 2)
_DISTANCES = (1e-1, 1e-2, 1e-3, 1e-4)
_VALUES = (2.0, 4.0, 8.0, 16.0)
_TRIES = 16


def _net(p: Float[Array, " m"], x: Float[Array, " d"]) -> Float[Array, ""]:
    r"""The two-layer net :math:`\sum_i a_i \tanh(w_i \cdot x + b_i)`."""
    rows = p.reshape(_UNITS, _INPUTS + 2)
    return jnp.dot(rows[:, 0], jnp.tanh(rows[:, 1:-1] @ x + rows[:, -1]))


def _loss(p: Float[Array, " m"], sample: Any) -> Float[Array, ""]:
    return (_net(p, sample[0]) - sample[1]) ** 2 / 2


@experiment(
    "wojtowytsch/minimisers",
    "Minimisers of a net with m weights and n data have the dimension m - n; L is not convex there",
    covers=(
        *("Theorem (Cooper), dimension", "Theorem (Cooper), not compact"),
        *("Corollary, convexity", "Corollary, negative curvature"),
    ),
    seconds=(8, 12),
)
def minimisers(setting: Setting) -> Outcome:
    """Random labels, fitted by the gradient flow from random weights."""
    draw = np.random.default_rng(setting.seed)
    x = jnp.asarray(draw.normal(size=(_SAMPLES, _INPUTS)))
    labels = jnp.asarray(draw.normal(size=_SAMPLES))
    problem = tw.FiniteSum(_loss, (x, labels))
    starts = jnp.asarray(draw.normal(size=(setting.choose(16, 64), _SIZE)))
    ends = tw.manifolds.project(problem, starts)
    points = ends.points[np.asarray(ends.arrived) & (np.asarray(ends.values) < 1e-16)]
    space = tw.manifolds.normal_space(problem, points)
    curvatures = _curvatures(problem, points, draw)
    lowest = curvatures[1:, :, 0]
    far = _far(problem, points)
    claims = [
        *_dimension_claims(ends, points, space),
        _exceptional(),
        _not_compact(far),
        *_curvature_claims(curvatures[0], lowest),
        _convex(),
    ]
    distances = np.array(_DISTANCES)
    tables = {
        "spectrum": {
            "index": np.arange(1, _SIZE + 1),
            "curvature": np.maximum(curvatures[0, 0], 1e-18)[::-1],
        },
        "lowest": {
            "distance": distances,
            "median": -np.median(lowest, axis=1),
            "low": -np.quantile(lowest, 0.84, axis=1),
            "high": -np.quantile(lowest, 0.16, axis=1),
        },
    }
    return Outcome(claims, tables, [_picture()])


def _dimension_claims(
    ends: tw.manifolds.Projection, points: Array, space: tw.manifolds.NormalSpace
) -> list[Claim]:
    fitted = len(points)
    return [
        Claim(
            "Theorem (Cooper '18)",
            f"with m = {_SIZE} weights and n = {_SAMPLES} data of random labels there are points "
            "where all are fitted: starts of which so many of "
            f"{len(ends.points)} arrived",
            above(fitted, 2),
        ),
        Claim(
            "Theorem (Cooper '18)",
            "near them the minimisers are a manifold of the dimension m - n = "
            f"{_SIZE - _SAMPLES}: the rank of the Hessian is n at all of them, its flat directions "
            "lead along minimisers",
            both(
                near(space.codimension, _SAMPLES, tolerance=0),
                near(space.tangent.shape[-1], _SIZE - _SAMPLES, tolerance=0),
                above(space.gap, 1e4),
            ),
        ),
    ]


def _exceptional() -> Claim:
    """One datum and the model ab: labels 0 and 1, at the points (0, 0) and (1, 1)."""

    def rank(point: list[float]) -> int:
        jacobian = jax.grad(lambda p: p[0] * p[1])(jnp.asarray(point))
        return int(np.linalg.matrix_rank(np.asarray(jacobian)[None]))

    return Claim(
        "Theorem (Cooper '18)",
        "for almost all labels: the model ab has the rank 1 at minimisers of the label 1, and for "
        "the label 0 a point without rank, where two lines cross",
        both(
            near(rank([1.0, 1.0]), 1, tolerance=0),
            near(rank([0.0, 0.0]), 0, tolerance=0),
        ),
    )


def _far(problem: tw.FiniteSum, points: Array) -> Float[np.ndarray, "values points"]:
    """How far minimisers of all data but the last are that have other values at the last."""
    x, labels = problem.data
    found, reached = points, []
    for value in _VALUES:
        other = tw.FiniteSum(_loss, (x, labels.at[-1].add(value)))
        ends = tw.manifolds.project(other, found)
        fitted = np.asarray(ends.arrived) & (np.asarray(ends.values) < 1e-12)
        distances = np.linalg.norm(np.asarray(ends.points - points), axis=1)
        reached.append(np.where(fitted, distances, np.nan))
        found = ends.points
    return np.array(reached)


def _not_compact(far: Float[np.ndarray, "values points"]) -> Claim:
    every = far[:, np.isfinite(far).all(axis=0)]
    least = every.min(axis=1)
    return Claim(
        "Theorem (Cooper '18)",
        f"the minimisers of {_SAMPLES - 1} of the data are not compact: those whose value at one "
        f"input more is higher by {', '.join(f'{v:g}' for v in _VALUES)} are at growing distances "
        "(starts that reached all of them, the least distances)",
        both(
            above(every.shape[1], 2),
            *(above(b / a, 1.1) for a, b in pairwise(least)),
        ),
    )


def _curvatures(
    problem: tw.FiniteSum, points: Array, draw: np.random.Generator
) -> Float[np.ndarray, "distances tries m"]:
    """The eigenvalues of the Hessian at minimisers, and at random places beside them."""
    dense = jax.jit(jax.vmap(jax.hessian(problem.value)))
    found = []
    tries = jnp.tile(points, (_TRIES, 1))
    for distance in (0.0, *_DISTANCES):
        away = draw.normal(size=tries.shape)
        away *= distance / np.linalg.norm(away, axis=1)[:, None]
        found.append(np.linalg.eigvalsh(np.asarray(dense(tries + away))))
    return np.array(found)


def _curvature_claims(
    at: Float[np.ndarray, "tries m"], lowest: Float[np.ndarray, "distances tries"]
) -> list[Claim]:
    negative = [Share.of(row < -1e-10) for row in lowest]
    power = slope(np.log(_DISTANCES), np.log(-np.median(lowest, axis=1)))
    return [
        Claim(
            "Corollary (W '21)",
            "at distances .1, .01, .001 and .0001 of minimisers there are points where D²L has a "
            "negative eigenvalue: their share",
            both(*(above(value, 0.5, error=error) for value, error in negative)),
        ),
        Claim(
            "Corollary (W '21)",
            "at the minimisers themselves there is none (beyond rounding), and the least "
            "eigenvalue falls in proportion to the distance: power",
            both(above(float(at.min()), -1e-10), near(power, 1.0, tolerance=0.05)),
        ),
    ]


def _convex() -> Claim:
    """L = (h - y)^2/2 with h = theta^3, which fits any label."""
    theta = jnp.linspace(-2, 2, 401)

    def least(label: float) -> float:
        curvature = jax.vmap(jax.grad(jax.grad(lambda t: (t**3 - label) ** 2 / 2)))(theta)
        return float(curvature.min())

    return Claim(
        "Corollary (W '21)",
        "L is convex only if h is linear in θ: the least L'' for h = θ³ and the label 0",
        below(least(0.0), 0.0),
        both(
            near(least(0.0), 0.0, tolerance=1e-12), below(least(1.0), 0.0), below(least(0.1), 0.0)
        ),
        reading="as in the theorem before for almost all labels: with the label 0 it is convex, "
        "with 1 and .1 it is not",
    )


def _picture() -> Picture:
    spectrum = [Series("spectrum", "index", "curvature", "eigenvalues of D²L", kind="points")]
    lowest = [
        Series("lowest", "distance", "low", "", "", "band", upper="high"),
        Series("lowest", "distance", "median", "median, 16 to 84 % shaded"),
    ]
    return Picture(
        "minimisers",
        f"Curvatures at a minimiser of a two-layer net with m = {_SIZE} weights on n = {_SAMPLES} "
        "random labels (zero to rounding from the mark on), and the size of the negative "
        "eigenvalue at random places at the distance ε from minimisers.",
        [
            Panel("index", "eigenvalue", spectrum, log="y", marks=((_SAMPLES + 0.5, "n"),)),
            Panel("distance ε", "-λ_min(D²L)", lowest, log="xy"),
        ],
    )
