"""Where the levels of a splitting are: a pilot run, whose chains count for nothing else."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32
from scipy import stats

from thalweg.errors import InputError
from thalweg.escape.excursions import LEFT, UP, Ended, Excursions, count_of
from thalweg.problem import Params
from thalweg.run import Run

# Chains of the pilot.
_CHAINS = 1024
# The share of excursions that are to pass a level.
_PASSING = 0.2
# The lower level and the first upper one, as quantiles of the law in the well.
_LOWER, _UPPER = 0.5, 0.9
# The law in the well has settled when the laws at a time and at twice the time look alike, twice in
# a row.
_FIRST_STEPS, _ALIKE, _TWICE = 16, 0.05, 2
# Exits are not rare if hardly a chain is left when the law has settled, or if so many leave in as
# many steps again.
_HARDLY, _OFTEN = 1 / 16, 0.1
# What passes a level is sought among so many chains, then among more.
_SEARCHES = (1, 8)
_MOST_LEVELS = 400


class Plan(NamedTuple):
    """What a pilot finds.

    Attributes:
        settled: Steps after which chains have forgotten where they started.
        levels: The lower level, below which an excursion is over, and the upper ones; none if
            exits are not rare.
        lengths: Mean steps of an excursion from each of the upper levels (of a chain to the exit if
            there are none).
    """

    settled: Int[np.ndarray, ""]
    levels: Float[np.ndarray, " levels"]
    lengths: Float[np.ndarray, " stages"]


def place_levels(excursions: Excursions, start: Params, key: Key[Array, ""]) -> Plan:
    """Find the time to settle, and levels such that a fifth of the excursions passes each.

    Raises:
        InputError: No way to the exit is found, or none within the budget.
    """
    keys = jax.random.split(key, 3)
    run = _settled(excursions, start, keys[0])
    if run is None:
        return Plan(np.array(0), np.zeros(0), np.array([2.0 * _FIRST_STEPS]))
    alive = np.asarray(~(run.exited | run.diverged))
    lower, upper = _well(excursions.heights(run.params, alive)[alive])
    watched = excursions.watch(run, steps=2 * run.steps, lower=lower, upper=upper, begin=run.steps)
    left = np.asarray(watched.exited)[alive]
    if left.mean() > _OFTEN:
        return Plan(np.array(0), np.zeros(0), np.array([float(run.steps)]))
    states, counts = entries(watched)
    if not counts.any():
        raise InputError(
            f"no chain of {counts.size} came from coordinate {lower:.6g} to {upper:.6g} in "
            f"{run.steps} steps; expected a coordinate that moves with the chain"
        )
    index = chosen(counts[None].astype(float), np.random.default_rng(words(keys[1])))[0]
    states = jax.tree.map(lambda leaf: leaf[index], states)
    levels, lengths = _ladder(excursions, states, [lower, upper], run.steps, keys[2])
    return Plan(np.array(run.steps), np.array(levels), np.array(lengths))


def entries(watched: Run) -> tuple[Params, Int[np.ndarray, " chains"]]:
    """One passage of each chain, and of how many it stands for."""
    state = watched.state.chains.state
    return jax.tree.map(np.asarray, state.entry), np.asarray(state.passages)


def chosen(
    weights: Float[np.ndarray, "groups chains"], generator: np.random.Generator
) -> Int[np.ndarray, "groups chains"]:
    r"""As many indices as there are chains in each group, by systematic resampling.

    Chain j is taken :math:`\lfloor N w_j \rfloor` or one time more, on average :math:`N w_j` with
    the weights divided by their sum. A group without weight keeps its chains.
    """
    groups, count = weights.shape
    shifts = generator.random((groups, 1))
    total = weights.sum(axis=1, keepdims=True)
    # One search for all groups: group g has its sums between g and g + 1.
    first = np.arange(groups)[:, None]
    sums = first + np.cumsum(weights, axis=1) / np.where(total > 0, total, 1.0)
    places = first + (np.arange(count) + shifts) / count
    index = np.searchsorted(sums.reshape(-1), places, side="right") - count * first
    # Rounding must not reach beyond the last chain with a weight.
    last = count - 1 - np.argmax(weights[:, ::-1] > 0, axis=1)
    return np.where(total > 0, np.minimum(index, last[:, None]), np.arange(count))


def words(key: Key[Array, ""]) -> UInt32[np.ndarray, " words"]:
    """A seed for NumPy."""
    return np.asarray(jax.random.key_data(key)).reshape(-1)


def _settled(excursions: Excursions, start: Params, key: Key[Array, ""]) -> Run | None:
    """Chains when their law no longer changes; None if too many have left before."""
    run, steps, before, alike = None, _FIRST_STEPS, None, 0
    while alike < _TWICE:
        options: dict[str, Any] = {"key": key, "chains": _CHAINS} if run is None else {}
        run = excursions.watch(start if run is None else run, steps=steps, **options)
        alive = np.asarray(~(run.exited | run.diverged))
        if np.mean(alive) < _HARDLY:
            _check_left(run)
            return None
        heights = excursions.heights(run.params, alive)[alive]
        same = before is not None and stats.ks_2samp(before, heights).pvalue > _ALIKE
        alike, before, steps = (alike + 1 if same else 0), heights, 2 * steps
    return run


def _check_left(run: Run) -> None:
    diverged = int(np.asarray(run.diverged).sum())
    if 2 * diverged > np.asarray(run.exited).sum():
        raise InputError(
            f"{diverged} of {_CHAINS} chains diverged within {run.steps} steps and "
            f"{int(np.asarray(run.exited).sum())} came to the exit; take a smaller step, or an "
            "exit that they reach before"
        )


def _well(heights: Float[np.ndarray, " chains"]) -> tuple[float, float]:
    """The lower level and the first upper one."""
    lower = float(np.quantile(heights, _LOWER, method="lower"))
    upper = float(np.quantile(heights, _UPPER, method="higher"))
    if upper <= lower:
        higher = heights[heights > lower]
        if higher.size == 0:
            raise InputError(
                f"the coordinate is {lower:.6g} for all of {heights.size} chains that have "
                "settled; the noise vanishes, or the coordinate does not see it"
            )
        upper = float(higher.min())
    return lower, upper


def _ladder(
    excursions: Excursions, states: Params, levels: list[float], first: int, key: Key[Array, ""]
) -> tuple[list[float], list[float]]:
    """Levels above the first upper one until the exit is in reach, and lengths from each."""
    lengths: list[float] = []
    while True:
        if len(levels) > _MOST_LEVELS:
            raise InputError(
                f"the exit is not in reach after {_MOST_LEVELS} levels, the last of them "
                f"{levels[-1]:.6g}; give a coordinate that grows towards the exit"
            )
        key, own = jax.random.split(key)
        level, ended = _next_level(excursions, states, levels, first, own)
        lengths.append(max(float(ended.steps.mean()), 1.0))
        if level == np.inf:
            return levels, lengths
        levels.append(level)
        passed = np.flatnonzero((ended.kind == LEFT) | (ended.kind == UP))
        again = np.resize(passed, count_of(states))
        states = jax.tree.map(lambda leaf, at=again: leaf[at], ended.states)


def _next_level(
    excursions: Excursions, states: Params, levels: list[float], first: int, key: Key[Array, ""]
) -> tuple[float, Ended]:
    """The next level, infinite if the exit is next, and other excursions that end there."""
    lower, last, count = levels[0], levels[-1], count_of(states)
    for turn, factor in enumerate(_SEARCHES):
        more = jax.tree.map(lambda leaf, times=factor: np.repeat(leaf, times, axis=0), states)
        whole, part = jax.random.split(jax.random.fold_in(key, turn))
        ended = excursions.climb(more, whole, lower=lower, upper=np.inf, first=first)
        heights = np.where(ended.kind == LEFT, np.inf, ended.highest)
        level = float(np.quantile(heights, 1 - _PASSING, method="higher"))
        if level <= last:
            level = float(np.min(heights[heights > last], initial=np.inf))
        if level == np.inf and np.any(ended.kind == LEFT):
            return level, ended
        if level < np.inf:
            ended = excursions.climb(more, part, lower=lower, upper=level, first=first)
            if np.any((ended.kind == LEFT) | (ended.kind == UP)):
                return level, ended
    raise InputError(
        f"no chain of {count * _SEARCHES[-1]} passed the level {last:.6g} of the coordinate before "
        f"it was back at {lower:.6g}, in excursions of {ended.steps.mean():.3g} steps; the noise "
        "does not reach the exit, or the coordinate does not lead there"
    )
