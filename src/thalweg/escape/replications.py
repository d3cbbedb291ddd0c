"""Rounds of a splitting until its error is small, with a file to go on from."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from thalweg.checkpoint import Checkpoint
from thalweg.escape.estimate import jackknife, mean_exit
from thalweg.escape.excursions import BudgetError, Excursions
from thalweg.escape.levels import Plan, place_levels
from thalweg.escape.rounds import Points, Round, Rows, advance, begin, joined
from thalweg.fleet import agreed
from thalweg.problem import Params

# Replications of the first round, and what further ones are a multiple of: each new number of
# chains has its own small programs.
_REPLICATIONS = 32
# Where replications differ by more than their mean, their mean is in the hands of few: then
# they are made again, with so many times the chains.
_APART, _MORE_CHAINS = 1.0, 4
# Fewer have no standard error to speak of.
_FEWEST = 4
# More replications than the standard error asks for, which is itself an estimate.
_MARGIN = 1.1


class Position(NamedTuple):
    """All that is needed to go on: the plan, what finished rounds found, and the present one.

    A present round at stage 0 is none. ``chains`` are those of a replication, ``cost`` counts the
    chain-steps.
    """

    plan: Plan
    chains: Int[np.ndarray, ""]
    rounds: Int[np.ndarray, ""]
    rows: Rows
    points: Points
    now: Round
    cost: Int[np.ndarray, ""]


def found(
    excursions: Excursions,
    start: Params,
    key: Key[Array, ""],
    chains: int,
    relative_error: float,
    saved: Checkpoint | None,
) -> Position:
    """Rounds until the error is reached or the budget ends, begun or gone on from a file.

    Raises:
        BudgetError: It ends without an exit.
    """
    arrays = None if saved is None else saved.load()
    if arrays is None:
        plan = place_levels(excursions, start, jax.random.fold_in(key, 0))
        position = _first(plan, start, chains)._replace(cost=np.array(excursions.cost))
    else:
        structure = jax.tree.structure(_first(Plan(*3 * (np.zeros(0),)), start, chains))
        position = jax.tree.unflatten(structure, arrays)
    excursions.cost = int(position.cost)
    try:
        while True:
            further = _further(excursions, position, start, key, relative_error)
            if further is None:
                return position
            position = further._replace(cost=np.array(excursions.cost))
            if saved is not None and agreed(saved.due()):
                _save(saved, position)
    except BudgetError:
        if not _usable(position.rows):
            raise
        return position
    finally:
        if saved is not None:
            _save(saved, position)


def _further(
    excursions: Excursions,
    position: Position,
    start: Params,
    key: Key[Array, ""],
    relative_error: float,
) -> Position | None:
    """A stage further; None if there is nothing more to do."""
    own, plan = jax.random.fold_in(key, 1 + int(position.rounds)), position.plan
    stage, chains = int(position.now.stage), int(position.chains)
    if stage > 0:
        now = advance(excursions, plan, position.now, jax.random.fold_in(own, stage))
    else:
        more = _more(excursions, position, relative_error)
        if more == 0:
            return None
        now = begin(excursions, plan, start, jax.random.fold_in(own, 0), more, chains)
    if int(now.stage) > 0:
        return position._replace(now=now)
    rounds = np.array(int(position.rounds) + 1)
    larger = _MORE_CHAINS * chains
    first_apart = not position.rows.left.size and _apart(now.rows, plan)
    if first_apart and _allowed(excursions, plan, larger) >= _REPLICATIONS:
        return _first(plan, start, larger)._replace(rounds=rounds)
    points = now.points._replace(groups=now.points.groups + position.rows.left.size)
    return position._replace(
        rounds=rounds,
        rows=joined(position.rows, now.rows),
        points=joined(position.points, points),
        now=_first(plan, start, chains).now,
    )


def _apart(rows: Rows, plan: Plan) -> bool:
    exits = rows.weights[:, -1]
    return plan.levels.size > 0 and bool(exits.std() >= _APART * exits.mean())


def _allowed(excursions: Excursions, plan: Plan, chains: int) -> int:
    """Replications within the budget."""
    each = chains * (2 * int(plan.settled) + plan.lengths.sum())
    return int((excursions.budget - excursions.cost) / each)


def _more(excursions: Excursions, position: Position, relative_error: float) -> int:
    """Replications of the next round; none if the error is reached, or the budget too small."""
    done, settled = position.rows.left.size, int(position.plan.settled)
    wanted = _REPLICATIONS
    if done:
        mean, error = jackknife(lambda rows: mean_exit(rows, settled), position.rows)
        share = error / mean if np.isfinite(error) else np.inf
        if share <= relative_error:
            return 0
        # At most twice as many in all: the error of few replications is not known well.
        needed = done * (min(_MARGIN * (share / relative_error) ** 2, 2.0) - 1)
        wanted = max(-(-int(np.ceil(needed)) // _REPLICATIONS), 1) * _REPLICATIONS
    more = min(wanted, _allowed(excursions, position.plan, int(position.chains)))
    if more >= _FEWEST:
        return more
    if not _usable(position.rows):
        raise BudgetError(
            f"the budget of {excursions.budget:.3g} chain-steps ends before the estimate: "
            f"{excursions.cost:.3g} are taken, and {wanted} replications of {int(position.chains)} "
            "chains were to follow; give a larger budget="
        )
    return 0


def _usable(rows: Rows) -> bool:
    """Whether any chain has left."""
    return bool(rows.weights[:, -1].any() or rows.left.any())


def _first(plan: Plan, start: Params, chains: int) -> Position:
    """After the pilot."""
    none = np.zeros(0)
    rows = Rows(none, none, none, none, none, np.zeros((0, max(plan.levels.size, 1))))
    states = jax.tree.map(lambda x: np.zeros((0, *x.shape), x.dtype), start)
    points = Points(states, none, np.zeros(0, np.int64), np.zeros(0, bool))
    now = Round(np.array(0), states, np.zeros(0, np.int64), rows, points)
    return Position(plan, np.array(chains), np.array(0), rows, points, now, np.array(0))


def _save(saved: Checkpoint, position: Position) -> None:
    """Written by the first process; the others wait, for they may read it next."""
    if jax.process_index() == 0:
        saved.save([np.asarray(leaf) for leaf in jax.tree.leaves(position)])
    agreed(0)
