"""Excursions of many chains away from a region, for :mod:`thalweg.escape.splitting`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from thalweg.chains import Exit
from thalweg.dynamics import AbstractDynamics
from thalweg.errors import InputError
from thalweg.problem import Params
from thalweg.random import Stream
from thalweg.run import Run
from thalweg.simulate import simulate

Coordinate = Callable[[Any], Any]

# How an excursion ended.
LEFT, UP, BACK, DIVERGED = 1, 2, 3, 4
# A stream of its own for the choice of an entry.
_CHOICE = 0x5EED
# Steps of one call, and components of gradients that take as long as a call does besides.
_LONGEST, _WORTH = 2**30, 2e6
# The number of chains that go on is rounded up to a power of it below all, and no fewer than that.
_ROUNDED, _FEW = 4, 64


class BudgetError(InputError):
    """The chain-steps allowed are spent; the message says on what."""


class Ended(NamedTuple):
    """Excursions when they have ended.

    Attributes:
        states: Where.
        steps: Steps taken.
        kind: LEFT, UP, BACK, DIVERGED, or 0 for those that were not asked for.
        highest: The largest value of the coordinate on the way.
    """

    states: Params
    steps: Int[np.ndarray, " chains"]
    kind: Int[np.ndarray, " chains"]
    highest: Float[np.ndarray, " chains"]


class Region(eqx.Module):
    """True where an excursion ends: at the exit, or with the coordinate not between two levels.

    A coordinate that is not a number ends it, too, and is told afterwards.
    """

    exit: Exit
    coordinate: Coordinate
    lower: Float[Array, ""]
    upper: Float[Array, ""]

    def __call__(self, params: Params) -> Bool[Array, ""]:
        """Whether it ends here."""
        x = valued(self.coordinate, params)
        return self.exit(params) | ~((x > self.lower) & (x < self.upper))


class WatchedState(NamedTuple):
    """A chain, its passages from a lower level to an upper one, and how high it has been.

    Attributes:
        inner: The dynamics' own state.
        highest: The largest value of the coordinate.
        armed: Whether the lower level was met since the last passage.
        passages: How many there were since ``begin``.
        entry: The parameters at the end of one of them, each with the same probability.
    """

    inner: Any
    highest: Float[Array, "..."]
    armed: Bool[Array, "..."]
    passages: Int[Array, "..."]
    entry: Params

    @property
    def params(self) -> Params:
        """The parameters."""
        return self.inner.params


class Watched(AbstractDynamics):
    """A dynamics whose passages from a lower level to an upper one are counted.

    A passage ends where the coordinate first is at ``upper`` or above, or at the exit, after it
    was at ``lower`` or below. Those of steps after ``begin`` count, and one of them is kept, by
    reservoir sampling. (Excursions from a level have no use for passages, nor chains in a well for
    the largest value; but one program for both takes less time to compile than it loses.)
    """

    dynamics: AbstractDynamics
    exit: Exit
    coordinate: Coordinate
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    begin: Int[Array, ""]

    def check(self, start: Params) -> None:
        """The dynamics' own."""
        self.dynamics.check(start)

    def init(self, start: Params) -> WatchedState:
        """Armed if the start is low enough."""
        height = valued(self.coordinate, start)
        none = jnp.zeros((), jnp.int32)
        return WatchedState(self.dynamics.init(start), height, height <= self.lower, none, start)

    def advance(self, state: WatchedState, stream: Stream, step: Any) -> WatchedState:
        """The dynamics' own step."""
        inner = self.dynamics.advance(state.inner, stream, step)
        height = valued(self.coordinate, inner.params)
        through = state.armed & ((height >= self.upper) | self.exit(inner.params))
        counted = through & (jnp.asarray(step) >= self.begin)
        passages = state.passages + counted.astype(jnp.int32)
        share = stream.folded(_CHOICE).uniform(1)[0]
        kept = counted & (share * passages.astype(share.dtype) < 1)
        entry = jax.tree.map(lambda a, b: jnp.where(kept, a, b), inner.params, state.entry)
        armed = (state.armed & ~through) | (height <= self.lower)
        return WatchedState(inner, jnp.maximum(state.highest, height), armed, passages, entry)

    def evaluations(self) -> float:
        """The dynamics' own."""
        return self.dynamics.evaluations()


class Excursions:
    """Chains of one dynamics between the levels of one coordinate.

    Attributes:
        dynamics: The dynamics.
        exit: Where chains are to go.
        coordinate: The function that has the levels.
        bound: As of :func:`thalweg.simulate`.
        budget: The chain-steps allowed.
        cost: The chain-steps taken.
    """

    def __init__(
        self,
        dynamics: AbstractDynamics,
        exit: Exit,
        coordinate: Coordinate,
        bound: float,
        budget: float,
    ):
        self.dynamics, self.exit, self.coordinate = dynamics, exit, coordinate
        self.bound, self.budget, self.cost = bound, budget, 0

    def watch(
        self,
        start: Params | Run,
        *,
        steps: int,
        lower: float = -np.inf,
        upper: float = np.inf,
        begin: int = 0,
        **options: Any,
    ) -> Run:
        """Chains from the start, or further on, that stop at the exit; see :class:`Watched`.

        Raises:
            BudgetError: The steps would be too many.
            InputError: A coordinate that is not finite where a chain is in the end.
        """
        before = start.steps if isinstance(start, Run) else 0
        count = options["chains"] if before == 0 else start.exit_step.shape[0]
        if self.cost + count * (steps - before) > self.budget:
            raise BudgetError(
                f"the budget of {self.budget:.3g} chain-steps ends in the well: {count} chains "
                f"were to take {steps - before} steps more after {before}; give a larger "
                "budget=, if the law of the coordinate settles there at all"
            )
        watched = self._watched(lower, upper, begin)
        region = self._region(-np.inf, np.inf)
        run = simulate(watched, start, steps=steps, exit=region, bound=self.bound, **options)
        self.cost += int((taken(run, steps) - taken(run, before)).sum())
        self.heights(run.params, ~np.asarray(run.diverged))
        return run

    def climb(
        self,
        states: Params,
        key: Key[Array, ""],
        *,
        lower: float,
        upper: float,
        first: int,
        asked: Bool[np.ndarray, " chains"] | None = None,
    ) -> Ended:
        """Go on from some states until the exit, or until the coordinate is not between two levels.

        Chains run for ``first`` steps, those that have not ended are moved together and run for
        twice as many more, and so on: a block of the engine runs until its last chain has stopped.
        But no call is shorter than what calls cost, and the number of chains is rounded up, for a
        new one has its own small programs.

        Raises:
            BudgetError: Chains that were still on the way.
            InputError: A coordinate that is not finite where a chain ended.
        """
        states = jax.tree.map(np.array, states)
        total = count_of(states)
        steps, kind = np.zeros(total, np.int64), np.zeros(total, np.int8)
        highest = np.full(total, -np.inf)
        going = np.arange(total) if asked is None else np.flatnonzero(asked)
        climber, region, turn = self._watched(-np.inf, np.inf), self._region(lower, upper), 0
        worth = _WORTH / (self.dynamics.evaluations() * _parameters(states))
        while going.size:
            rows = _rounded_up(going, np.flatnonzero(kind), total)
            first = min(max(first, int(worth / going.size)), _LONGEST)
            run = simulate(
                climber,
                jax.tree.map(lambda leaf, rows=rows: leaf[rows], states),
                per_chain=True,
                steps=first,
                key=jax.random.fold_in(key, turn),
                exit=region,
                bound=self.bound,
            )
            count = slice(going.size)
            _put(states, going, jax.tree.map(lambda x, at=count: np.asarray(x)[at], run.params))
            steps[going] += taken(run, first)[count]
            seen = np.asarray(run.state.chains.state.highest, float)[count]
            highest[going] = np.maximum(highest[going], seen)
            exited, diverged = (np.asarray(x)[count] for x in (run.exited, run.diverged))
            kind[going[exited]], kind[going[diverged]] = LEFT, DIVERGED
            self.cost += int(taken(run, first)[count].sum())
            going = going[~(exited | diverged)]
            first, turn = 2 * first, turn + 1
            if going.size and self.cost + going.size * first > self.budget:
                raise BudgetError(self._on_the_way(states, going, kind, steps))
        return Ended(states, steps, self._told(states, kind, lower, upper), highest)

    def heights(
        self, states: Params, told: Bool[np.ndarray, " chains"] | None = None
    ) -> Float[np.ndarray, " chains"]:
        """The coordinate of many states; InputError unless it is finite where it is ``told``."""
        heights = np.asarray(_looked(self.exit, self.coordinate, states)[1])
        wrong = ~np.isfinite(heights) & (True if told is None else told)
        if wrong.any():
            bad = int(np.argmax(wrong))
            place = jax.tree.map(lambda leaf: np.asarray(leaf)[bad].tolist(), states)
            raise InputError(
                f"coordinate is {heights[bad]} at the params {place}; expected a finite number "
                "wherever chains go"
            )
        return heights

    def _watched(self, lower: float, upper: float, begin: int = 0) -> Watched:
        levels, first = (_number(lower), _number(upper)), jnp.asarray(begin, jnp.int32)
        return Watched(self.dynamics, self.exit, self.coordinate, *levels, first)

    def _region(self, lower: float, upper: float) -> Region:
        return Region(self.exit, self.coordinate, _number(lower), _number(upper))

    def _told(
        self, states: Params, kind: Int[np.ndarray, " chains"], lower: float, upper: float
    ) -> Int[np.ndarray, " chains"]:
        """LEFT, UP or BACK for those that were stopped."""
        left = np.asarray(_looked(self.exit, self.coordinate, states)[0])
        heights = self.heights(states, kind == LEFT)
        # They are beyond one of the levels: which is not a matter of the last digit.
        if np.isinf(lower) or np.isinf(upper):
            up = np.full(len(heights), np.isinf(lower))
        else:
            up = heights > lower + (upper - lower) / 2
        told = np.where(left, LEFT, np.where(up, UP, BACK))
        return np.where(kind == LEFT, told, kind).astype(np.int8)

    def _on_the_way(
        self,
        states: Params,
        going: Int[np.ndarray, " going"],
        kind: Int[np.ndarray, " chains"],
        steps: Int[np.ndarray, " chains"],
    ) -> str:
        heights = self.heights(states, kind == 0)[going]
        return (
            f"the budget of {self.budget:.3g} chain-steps is spent: {going.size} of "
            f"{going.size + np.count_nonzero(kind)} excursions were still on the way after up to "
            f"{steps.max()} steps, half of them with a coordinate from "
            f"{np.quantile(heights, 0.25):.6g} to {np.quantile(heights, 0.75):.6g}; give a larger "
            "budget=, or start in the well that holds them there"
        )


def count_of(states: Params) -> int:
    """How many chains there are."""
    return jax.tree.leaves(states)[0].shape[0]


def valued(coordinate: Coordinate, params: Params) -> Float[Array, ""]:
    """The coordinate, in the type of the levels."""
    return jnp.asarray(coordinate(params)).astype(jnp.result_type(float))


def taken(run: Run, steps: int) -> Int[np.ndarray, " chains"]:
    """Steps that each chain took of the first so many."""
    exited, diverged = np.asarray(run.exit_step), np.asarray(run.diverged_step)
    own = np.where(exited >= 0, exited, np.where(diverged >= 0, diverged, run.steps))
    return np.minimum(own, steps).astype(np.int64)


@eqx.filter_jit
def _looked(
    exit: Exit, coordinate: Coordinate, states: Params
) -> tuple[Bool[Array, " chains"], Float[Array, " chains"]]:
    return jax.vmap(lambda params: (exit(params), valued(coordinate, params)))(states)


def _parameters(states: Params) -> int:
    """Numbers of one chain."""
    return sum(leaf[0].size for leaf in jax.tree.leaves(states))


def _number(x: float) -> Float[Array, ""]:
    return jnp.asarray(x, jnp.result_type(float))


def _rounded_up(
    going: Int[np.ndarray, " going"], ended: Int[np.ndarray, " ended"], total: int
) -> Int[np.ndarray, " rows"]:
    """These rows and more, so that they are all, a quarter, a sixteenth, ... of all.

    More are of chains that have ended, which stop at once.
    """
    size = total
    while size // _ROUNDED >= max(going.size, _FEW):
        size //= _ROUNDED
    filling = ended[0] if ended.size else going[-1]
    return np.append(going, np.full(size - going.size, filling, going.dtype))


def _put(states: Params, rows: Int[np.ndarray, " rows"], new: Params) -> None:
    def put(old: np.ndarray, values: np.ndarray) -> None:
        old[rows] = values

    jax.tree.map(put, states, new)
