"""Replications of a splitting, a stage at a time."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from thalweg.escape.excursions import DIVERGED, LEFT, UP, Excursions, taken
from thalweg.escape.levels import Plan, chosen, entries, words
from thalweg.problem import Params

# Excursions of a stage run for so many of their mean lengths before those that have ended are put
# aside.
_LENGTHS = 1.5


class Rows(NamedTuple):
    """What each replication measures, on average over its chains; M steps are those to settle.

    Attributes:
        waited: Steps of the first M that were taken.
        stayed: The share that was still there after M.
        left: The share that had left by then.
        diverged: Chains that diverged later on, or on an excursion.
        transit: Steps of an excursion to the exit, times the weight.
        weights: Passages to the first upper level from step M to 2M, and of these what passes each
            of the levels, the last of them the exit: shape (replications, stages + 1).
    """

    waited: Float[np.ndarray, " replications"]
    stayed: Float[np.ndarray, " replications"]
    left: Float[np.ndarray, " replications"]
    diverged: Float[np.ndarray, " replications"]
    transit: Float[np.ndarray, " replications"]
    weights: Float[np.ndarray, "replications stages_and_one"]

    def averages(self) -> "Rows":
        """Over the replications, as one row."""
        return Rows(*(x.mean(axis=0, keepdims=True) for x in self))

    def all_but_one(self) -> "Rows":
        """The same without each of the replications in turn."""
        others = len(self.left) - 1
        return Rows(*((x.sum(axis=0) - x) / others for x in self))


class Points(NamedTuple):
    """Where chains left.

    Attributes:
        params: The parameters.
        weights: Their weights within the replication.
        groups: The replication.
        early: Whether within the first M steps.
    """

    params: Params
    weights: Float[np.ndarray, " points"]
    groups: Int[np.ndarray, " points"]
    early: Bool[np.ndarray, " points"]


class Round(NamedTuple):
    """Replications that are simulated together, between two stages.

    Attributes:
        stage: The number of the stage that comes next.
        states: The chains, replication by replication.
        elapsed: Their steps since they passed the first upper level.
        rows: What was measured so far.
        points: Where chains have left.
    """

    stage: Int[np.ndarray, ""]
    states: Params
    elapsed: Int[np.ndarray, " chains"]
    rows: Rows
    points: Points


def begin(
    excursions: Excursions,
    plan: Plan,
    start: Params,
    key: Key[Array, ""],
    replications: int,
    chains: int,
) -> Round:
    """Chains from the start, in the well, and their passages to the first upper level."""
    if plan.levels.size == 0:
        return _to_the_exit(excursions, plan, start, key, replications, chains)
    settled, simulated, resampled = int(plan.settled), *jax.random.split(key)
    lower, upper = plan.levels[:2]
    run = excursions.watch(
        start,
        steps=2 * settled,
        lower=lower,
        upper=upper,
        begin=settled,
        key=simulated,
        chains=replications * chains,
    )
    shape = (replications, chains)
    exited, diverged = np.asarray(run.exit_step), np.asarray(run.diverged_step)
    early = (exited >= 0) & (exited <= settled)
    gone = early | ((diverged >= 0) & (diverged <= settled))
    # Those that diverge on an excursion do so again on a later stage.
    later = (diverged > settled) & np.asarray(run.state.chains.state.armed)
    states, counts = entries(run)
    rows = Rows(
        taken(run, settled).reshape(shape).mean(axis=1),
        (~gone).reshape(shape).mean(axis=1),
        early.reshape(shape).mean(axis=1),
        later.reshape(shape).mean(axis=1),
        np.zeros(replications),
        counts.reshape(shape).mean(axis=1)[:, None],
    )
    index = _of_all(chosen(counts.reshape(shape).astype(float), _generator(resampled)))
    return Round(
        np.array(1),
        jax.tree.map(lambda leaf: leaf[index], states),
        np.zeros(index.size, np.int64),
        rows,
        _points(run.params, early, np.ones(replications), chains, early=True),
    )


def advance(excursions: Excursions, plan: Plan, now: Round, key: Key[Array, ""]) -> Round:
    """One stage further; after the last one the stage is 0."""
    stage, replications = int(now.stage), len(now.rows.left)
    last = stage == plan.levels.size - 1
    chains = now.elapsed.size // replications
    shape, weights = (replications, chains), now.rows.weights[:, -1]
    simulated, resampled = jax.random.split(key)
    ended = excursions.climb(
        now.states,
        simulated,
        lower=plan.levels[0],
        upper=np.inf if last else plan.levels[stage + 1],
        first=int(np.ceil(_LENGTHS * plan.lengths[stage - 1])),
        asked=np.repeat(weights > 0, chains),
    )
    elapsed = now.elapsed + ended.steps
    passed = (ended.kind == LEFT) | (ended.kind == UP)
    diverged = (ended.kind == DIVERGED).reshape(shape).mean(axis=1)
    passing = passed.reshape(shape)
    rows = now.rows._replace(
        diverged=now.rows.diverged + weights * diverged,
        weights=np.column_stack([now.rows.weights, weights * passing.mean(axis=1)]),
    )
    if last:
        steps = np.where(passing, elapsed.reshape(shape), 0).mean(axis=1)
        rows = rows._replace(transit=weights * steps)
        points = joined(now.points, _points(ended.states, passed, weights, chains))
        return Round(np.array(0), ended.states, elapsed, rows, points)
    index = _of_all(chosen(passing.astype(float), _generator(resampled)))
    states = jax.tree.map(lambda leaf: leaf[index], ended.states)
    return Round(np.array(stage + 1), states, elapsed[index], rows, now.points)


def joined(*parts: Any) -> Any:
    """Rows or points, one after the other; the groups of later ones are numbered already."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _to_the_exit(
    excursions: Excursions,
    plan: Plan,
    start: Params,
    key: Key[Array, ""],
    replications: int,
    chains: int,
) -> Round:
    """Chains from the start until all have left, where that is not rare."""
    count, shape = replications * chains, (replications, chains)
    starts = jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), start)
    first = int(np.ceil(plan.lengths[0]))
    ended = excursions.climb(starts, key, lower=-np.inf, upper=np.inf, first=first)
    none, left = np.zeros(replications), ended.kind == LEFT
    rows = Rows(
        ended.steps.reshape(shape).mean(axis=1),
        none,
        left.reshape(shape).mean(axis=1),
        (~left).reshape(shape).mean(axis=1),
        none,
        none[:, None],
    )
    points = _points(ended.states, left, np.ones(replications), chains, early=True)
    return Round(np.array(0), ended.states, ended.steps, rows, points)


def _points(
    states: Params,
    left: Bool[np.ndarray, " chains"],
    weights: Float[np.ndarray, " replications"],
    chains: int,
    *,
    early: bool = False,
) -> Points:
    which = np.flatnonzero(left)
    groups = which // chains
    return Points(
        jax.tree.map(lambda leaf: np.asarray(leaf)[which], states),
        weights[groups] / chains,
        groups,
        np.full(which.size, early),
    )


def _of_all(
    index: Int[np.ndarray, "replications chains"],
) -> Int[np.ndarray, " replications*chains"]:
    """Indices in each replication as indices of all chains."""
    replications, chains = index.shape
    return (index + chains * np.arange(replications)[:, None]).reshape(-1)


def _generator(key: Key[Array, ""]) -> np.random.Generator:
    return np.random.default_rng(words(key))
