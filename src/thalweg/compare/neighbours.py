"""The minimum that a start descends to and the passes around it, in many dimensions.

A box in many dimensions has more minima than can be found; how long one of them is kept asks for
its own passes only.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from thalweg.critical import CriticalGraph, Search, critical_point
from thalweg.critical.box import SAME, Box, Places, checked_box
from thalweg.critical.descents import arrivals
from thalweg.critical.saddles import climb
from thalweg.errors import InputError
from thalweg.landscapes import Landscape
from thalweg.problem import FiniteSum

# Uphill searches, and how far from the minimum they start: shares of the diagonal of the box.
SEARCHES, _NEAREST, _FARTHEST = 64, 1e-3, 0.1
# How far from a saddle descents start, a share of the diagonal.
_AWAY = 1e-4
# How far from the start its minimum may be, in sizes of the box.
_REACH = 10.0


def around_start(landscape: Landscape, key: Key[Array, ""]) -> CriticalGraph:
    """The minimum of the start with its passes to others: the landscape's own, or found uphill.

    Raises:
        InputError: A start that descends to no isolated smooth minimum, or no pass from there.
    """
    problem = landscape.problem
    size = landscape.upper - landscape.lower
    home = _home(landscape)
    box = checked_box(problem, home - size / 2, home + size / 2)
    saddles, directions, hits = _passes(landscape, home, box, key)
    minima = Places(SAME * float(box.diagonal))
    minima.add(np.asarray(home)[None])
    pairs = _joins(problem, box, minima, saddles, directions)
    ways = [i for i, pair in enumerate(pairs) if min(pair) == 0 < max(pair)]
    if not ways:
        raise InputError(
            f"no pass from the minimum of the start to another one: {len(saddles)} saddles are "
            f"known, {sum(hits)} of {SEARCHES} uphill searches came to one"
        )
    near = sorted({0, *(max(pairs[i]) for i in ways)})
    found = [critical_point(problem, jnp.asarray(minima.points[number])) for number in near]
    passes = [critical_point(problem, jnp.asarray(saddles[i]), hits=hits[i]) for i in ways]
    deepest = sorted(range(len(near)), key=lambda place: found[place].value)
    lowest = sorted(range(len(ways)), key=lambda place: passes[place].value)
    place = {near[old]: new for new, old in enumerate(deepest)}
    joins = [sorted((place[0], place[max(pairs[ways[i]])])) for i in lowest]
    own = tuple(hits[ways[i]] for i in lowest)
    return CriticalGraph(
        minima=tuple(found[old] for old in deepest),
        saddles=tuple(passes[i] for i in lowest),
        joins=tuple((a, b) for a, b in joins),
        search=Search(box, 1, sum(hits), len(near), own, joined=True),
    )


def _home(landscape: Landscape) -> Float[Array, " d"]:
    """The minimum that the start descends to."""
    # A valley leads beyond the box of the figures.
    reach = _REACH * (landscape.upper - landscape.lower)
    box = checked_box(landscape.problem, landscape.start - reach, landscape.start + reach)
    end = arrivals(landscape.problem, box, landscape.start[None], 1)
    if not end.settled[0]:
        raise InputError(
            "the start descends to no isolated minimum: the objective is flat there or falls "
            "without end; expected a start in the basin of one"
        )
    return jnp.asarray(end.points[0])


def _passes(
    landscape: Landscape, home: Float[Array, " d"], box: Box, key: Key[Array, ""]
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Saddles, none twice, the directions in which they fall, and how many searches found each."""
    if landscape.saddles:
        points = jnp.stack([saddle.params for saddle in landscape.saddles])
        return (
            np.asarray(points),
            np.asarray(_falling(landscape.problem, points)),
            [0] * len(points),
        )
    rays = jax.random.normal(key, (SEARCHES, home.size))
    rays /= jnp.linalg.norm(rays, axis=1, keepdims=True)
    far = box.diagonal * jnp.geomspace(_NEAREST, _FARTHEST, SEARCHES)[:, None]
    climbs = climb(landscape.problem, home + far * rays, box, 1)
    arrived = np.asarray(climbs.arrived)
    points, directions = (np.asarray(x)[arrived] for x in (climbs.point, climbs.direction))
    places = Places(SAME * float(box.diagonal))
    numbers = places.add(points)
    first = [int(np.argmax(numbers == number)) for number in range(len(places.points))]
    return points[first], directions[first], places.hits


@jax.jit
def _falling(problem: FiniteSum, points: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """The direction of lowest curvature at each point."""
    return jnp.linalg.eigh(jax.lax.map(jax.jacfwd(problem.gradient), points))[1][:, :, 0]


def _joins(
    problem: FiniteSum, box: Box, minima: Places, saddles: np.ndarray, directions: np.ndarray
) -> list[tuple[int, int]]:
    """The numbers of the minima on both sides of each saddle, -1 for none; new ones are added."""
    if not len(saddles):
        return []
    away = _AWAY * float(box.diagonal) * directions
    starts = np.stack([saddles + away, saddles - away], axis=1).reshape(-1, saddles.shape[1])
    ends = arrivals(problem, box, jnp.asarray(starts), 2 * SEARCHES)
    numbers = np.full(len(starts), -1)
    numbers[ends.settled] = minima.add(ends.points[ends.settled])
    return [(int(a), int(b)) for a, b in numbers.reshape(-1, 2)]
