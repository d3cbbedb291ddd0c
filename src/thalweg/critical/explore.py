"""Minima and saddles of a smooth objective, and the graph they make."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from thalweg.critical.border import turns
from thalweg.critical.box import SAME, Box, Places, checked_box
from thalweg.critical.descents import arrivals, check_starts, minima
from thalweg.critical.graph import CriticalGraph
from thalweg.critical.line import on_line
from thalweg.critical.point import CriticalPoint, critical_point
from thalweg.critical.saddles import Climbs, climb
from thalweg.critical.search import Search
from thalweg.errors import InputError
from thalweg.problem import FiniteSum

# Rounds of searches at most; on a line, cells for each start.
_ROUNDS, _CELLS = 16, 64
# Neighbours of a minimum to which lines are drawn, and the parts of these lines where searches
# start; how far off, a share of the line's length.
_NEIGHBOURS, _MIDDLE, _BESIDE = 4, (0.2, 0.8), 0.1
# How far from a saddle descents start, a share of the diagonal of the box.
_AWAY = 1e-4


def critical_points(
    problem: FiniteSum,
    lower: Float[Array, " d"],
    upper: Float[Array, " d"],
    *,
    key: Key[Array, ""],
    starts: int = 64,
) -> CriticalGraph:
    r"""The minima in a box, the saddles of index one between them, and which joins which.

    Minima come from :func:`minima`, with ``starts`` random starts. Saddles come from rounds of
    uphill searches (:mod:`thalweg.critical.saddles`, the last step a Newton step shorter than
    1e-10 of the diagonal of the box, in float32 eight units of rounding), a third of them each from

    - random points of the box,
    - random points of lines from a minimum to such a point,
    - points near the middle of lines from a minimum to one of the four nearest, of those that no
      saddle joins it to as long as there are any.

    From each saddle the gradient flow is followed both ways along the unstable direction; a minimum
    that was not known is added. Rounds of 3 ``starts`` searches go on, 16 at most, until one finds
    nothing new, every saddle was found twice and, in the plane, the counts of critical points agree
    with the turns of the gradient around the box. ``graph.search`` says how sure it is that nothing
    is missing.

    On a line (d = 1) all changes of sign of f' between 64 ``starts`` cells are refined by bisection
    to rounding, and kinks are as welcome as smooth points; the key has no use there.

    Cost: a search takes some 15 to 40 steps (200 at most), each a d x d Hessian (d gradients) and
    its eigenvectors. Twelve saddles in 50 dimensions took 3 s on one core, two of Mueller-Brown .1
    s, after some 5 s of compilation. At most 1024 parameters.

    Args:
        problem: The objective, of params of shape (d,).
        lower: Lower corner of the box.
        upper: Upper corner.
        key: For the starts.
        starts: Descents, and a third of the searches of a round.

    Raises:
        InputError: No box; kinks or a continuum at minima or (d > 1) on the way to saddles; on a
            line, a derivative that vanishes on a whole interval or a critical point without
            curvature.
    """
    box = checked_box(problem, lower, upper)
    check_starts(starts)
    if box.lower.size == 1:
        return on_line(problem, box, _CELLS * starts)
    key_minima, key_climbs = jax.random.split(key)
    exploration = _Exploration(
        problem, box, starts, minima(problem, lower, upper, key=key_minima, starts=starts)
    )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_climbs)))
    for _ in range(_ROUNDS):
        if exploration.round(rng):
            break
    return exploration.graph()


class _Exploration:
    """What is known of a box so far; a round of searches adds to it."""

    def __init__(self, problem: FiniteSum, box: Box, starts: int, found: list[CriticalPoint]):
        self.problem, self.box, self.starts = problem, box, starts
        self.found = found
        tolerance = SAME * float(box.diagonal)
        self.minima, self.saddles, self.maxima = (Places(tolerance) for _ in range(3))
        self.minima.add(np.array([np.asarray(point.params) for point in found]))
        self.joins: list[tuple[int, int]] = []
        self.climbs = 0
        self.plane = box.lower.size == 2
        self.turns = turns(problem, box.enlarged()) if self.plane else None

    @property
    def known(self) -> int:
        return len(self.minima.points) + len(self.saddles.points) + len(self.maxima.points)

    @property
    def balanced(self) -> bool:
        """Whether the counts agree with the turns of the gradient, where these are known."""
        count = len(self.minima.points) - len(self.saddles.points) + len(self.maxima.points)
        return self.turns is None or count == self.turns

    def round(self, rng: np.random.Generator) -> bool:
        """Search once from all kinds of starts; whether that looks like enough."""
        before, joined = self.known, len(self.joins)
        points = jnp.asarray(self._starts(rng), self.box.lower.dtype)
        self.climbs += len(points)
        if self.plane:
            tops = climb(self.problem, points, self.box, 2)
            self.maxima.add(np.asarray(tops.point)[np.asarray(tops.arrived)])
        climbs = climb(self.problem, points, self.box, 1)
        _check_stuck(climbs)
        arrived = np.asarray(climbs.arrived)
        ends, directions = (np.asarray(x)[arrived] for x in (climbs.point, climbs.direction))
        numbers = self.saddles.add(ends)
        fresh = [int(np.argmax(numbers == n)) for n in range(joined, len(self.saddles.points))]
        if fresh:
            self._join(ends[fresh], directions[fresh])
        return self.known == before and 1 not in self.saddles.hits and self.balanced

    def _starts(self, rng: np.random.Generator) -> np.ndarray:
        """The starts of a round, shape (3 starts, d)."""
        lower, upper = (np.asarray(corner, dtype=float) for corner in self.box)
        n, places = self.starts, self.minima.points
        anywhere = rng.uniform(lower, upper, (3 * n, lower.size))
        if not places:
            return anywhere
        centres = np.stack(places)
        centre = centres[rng.integers(len(places), size=n)]
        towards = centre + rng.uniform(size=(n, 1)) * (anywhere[n : 2 * n] - centre)
        if len(places) == 1:
            return np.concatenate([anywhere[:n], towards, anywhere[2 * n :]])
        return np.concatenate([anywhere[:n], towards, self._between(rng, centres)])

    def _between(self, rng: np.random.Generator, centres: np.ndarray) -> np.ndarray:
        """Points near the middles of lines between neighbouring minima."""
        n, d = self.starts, centres.shape[1]
        distances = np.linalg.norm(centres[:, None] - centres, axis=2)
        groups = self._groups()
        apart = groups[:, None] != groups if groups.any() else ~np.eye(len(centres), dtype=bool)
        nearest = np.argsort(np.where(apart, distances, np.inf), axis=1)
        counts = np.minimum(apart.sum(axis=1), _NEIGHBOURS)
        first = rng.integers(len(centres), size=n)
        second = nearest[first, rng.integers(counts[first])]
        lines = centres[second] - centres[first]
        noise = rng.standard_normal((n, d)) * np.linalg.norm(lines, axis=1, keepdims=True)
        share = rng.uniform(*_MIDDLE, (n, 1))
        return centres[first] + share * lines + _BESIDE * noise / np.sqrt(d)

    def _groups(self) -> np.ndarray:
        """The number of the group of each minimum, by the saddles known."""
        pairs = np.array([pair for pair in self.joins if min(pair) >= 0]).reshape(-1, 2)
        count = len(self.minima.points)
        graph = coo_array((np.ones(len(pairs)), pairs.T), (count, count))
        return connected_components(graph, directed=False)[1]

    def _join(self, saddles: np.ndarray, directions: np.ndarray) -> None:
        """Descend both ways from new saddles; their minima are added to those known."""
        away = _AWAY * float(self.box.diagonal) * directions
        starts = np.stack([saddles + away, saddles - away], axis=1).reshape(-1, saddles.shape[1])
        ends = arrivals(self.problem, self.box, jnp.asarray(starts), self.starts)
        numbers = np.full(len(starts), -1)
        numbers[ends.settled] = self.minima.add(ends.points[ends.settled])
        self.joins += [(int(min(pair)), int(max(pair))) for pair in numbers.reshape(-1, 2)]

    def graph(self) -> CriticalGraph:
        """The points described and in order."""
        described = self.found + [
            critical_point(self.problem, jnp.asarray(point), hits=0)
            for point in self.minima.points[len(self.found) :]
        ]
        passes = [
            critical_point(self.problem, jnp.asarray(point), hits=hits)
            for point, hits in zip(self.saddles.points, self.saddles.hits, strict=True)
        ]
        deepest = sorted(range(len(described)), key=lambda i: described[i].value)
        lowest = sorted(range(len(passes)), key=lambda i: passes[i].value)
        place = {old: new for new, old in enumerate(deepest)} | {-1: -1}
        joins = [sorted(place[end] for end in self.joins[i]) for i in lowest]
        return CriticalGraph(
            minima=tuple(described[i] for i in deepest),
            saddles=tuple(passes[i] for i in lowest),
            joins=tuple((a, b) for a, b in joins),
            search=Search(
                box=self.box,
                descents=self.starts,
                climbs=self.climbs,
                minima=len(described),
                hits=tuple(self.saddles.hits[i] for i in lowest),
                joined=not self._groups().any(),
                maxima=len(self.maxima.points) if self.plane else None,
                turns=self.turns,
            ),
        )


def _check_stuck(climbs: Climbs) -> None:
    """InputError if searches came to a kink that they could not leave."""
    stuck = np.asarray(climbs.stuck)
    if stuck.any():
        raise InputError(
            f"{stuck.sum()} of {len(stuck)} searches for saddles were stuck at jumps of the "
            f"gradient, one near {np.asarray(climbs.point)[stuck][0]}: the objective has kinks "
            "there; expected a smooth one (kinks are handled for one parameter only)"
        )
