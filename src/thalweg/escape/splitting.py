"""Mean times and places of exits that are too rare to be waited for."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg.chains import Exit
from thalweg.checkpoint import Checkpoint, fingerprint
from thalweg.diffusion import Diffusion
from thalweg.dynamics import AbstractDynamics, Descent
from thalweg.errors import InputError
from thalweg.escape.coordinates import check_coordinate, coordinate_to
from thalweg.escape.estimate import jackknife, mean_exit, rates
from thalweg.escape.excursions import Coordinate, Excursions
from thalweg.escape.exits import ExitPoints
from thalweg.escape.replications import Position, found
from thalweg.escape.rounds import Points, Rows
from thalweg.problem import Params
from thalweg.sampling.base import AbstractMemoryless
from thalweg.stopping import check_exit


@dataclass(frozen=True, eq=False)
class Splitting:
    r"""What :func:`splitting` finds; pairs are estimates with their standard errors.

    Attributes:
        mean_exit_steps: The mean exit time from the start, in steps; times the step it is in time.
        error: Its standard error.
        probability: That a passage to the first upper level goes on to the exit before it is back
            at the lower one; this and the next two are None if exits are not rare.
        passages: How many such passages a chain makes in a step, while it is in the well.
        transit_steps: Mean steps of the passages that do go on, from the first upper level to the
            exit: how long the way out is, and not the wait.
        diverged: Chains that diverge for one that leaves; see :func:`splitting`.
        levels: The lower level, and the upper ones; none if exits are not rare.
        passed: The shares of excursions that passed each of the levels, the exit the last.
        settled: Steps M after which chains count as in the well, with the start forgotten.
        exit_points: Where chains leave.
        replications: How many there were.
        chains: The chains of each.
        cost: Steps of chains taken, those of the pilot included.
        reached: Whether the error is what was asked for; else the budget ended.
        replicated: Each replication's own unbiased estimate of the probability that the last
            passage before the exit is one of the steps M + 1 to 2M (all chains that left, if exits
            are not rare).
    """

    mean_exit_steps: float
    error: float
    probability: tuple[float, float] | None
    passages: tuple[float, float] | None
    transit_steps: tuple[float, float] | None
    diverged: tuple[float, float]
    levels: Float[np.ndarray, " levels"]
    passed: Float[np.ndarray, " stages"]
    settled: int
    exit_points: ExitPoints
    replications: int
    chains: int
    cost: int
    reached: bool
    replicated: Float[np.ndarray, " replications"] = field(repr=False)


def splitting(
    dynamics: AbstractDynamics,
    start: Params,
    *,
    exit: Exit,
    key: Any,
    coordinate: Coordinate | None = None,
    relative_error: float = 0.1,
    chains: int = 256,
    budget: float = 1e10,
    bound: float = 1e10,
    checkpoint: str | Path | None = None,
) -> Splitting:
    r"""The mean time until chains exit, and where they do, when that is rare.

    The way out is cut into levels of a reaction coordinate :math:`\xi(\theta)`, a lower one and
    upper ones :math:`z_1 < \dots < z_K`, and passed a level at a time: fixed-effort multilevel
    splitting, or forward-flux sampling.

    1. A pilot finds how long chains need to settle, M steps, and levels such that a fifth of the
       excursions passes each. Its chains count for nothing else.
    2. N chains from the start run for 2M steps. In the last M, their passages from the lower level
       to :math:`z_1` are counted, and one passage of each chain is kept.
    3. N chains start from what was kept, as often as it counted, and run until they are at
       :math:`z_2` or beyond, back at the lower level, or at the exit; then N from those that
       passed, and so on. SGD jumps: the states that are really reached are kept, and they may be
       beyond several levels, or at the exit.

    The passages times the product of the shares that passed is an **unbiased** estimate of
    :math:`P(M < \sigma \le 2M)`, with :math:`\sigma` the step of the last passage before the exit,
    whatever the levels and the coordinate are; these decide its variance. So is every average over
    chains at the exit (P. Del Moral, "Feynman-Kac Formulae", 2004, section 7.4; R. J. Allen, D.
    Frenkel and P. R. ten Wolde, J. Chem. Phys. 124, 024102, 2006; on chains in discrete time C.-E.
    Brehier et al., Ann. Appl. Probab. 26, 3559-3601, 2016). With it

    .. math:: E \tau = E \min(\tau, M) + P(\tau > M)/\lambda,

    :math:`\lambda` being the probability to leave in a step once the start is forgotten. It solves

    .. math:: 1 - (1-\lambda)^M = (1-\lambda)^{-E D}\,P(M < \sigma \le 2M)/P(\tau > M)

    with D the steps from :math:`z_1` to the exit: exact but for what chains still know after M
    steps of where they started, and for terms of order :math:`(\lambda D)^2`. As a ratio the mean
    has a bias of the order of the squared error, whose leading part the jackknife over replications
    takes away; the standard errors are the jackknife's, too.

    If a tenth of the chains leaves within M steps, or nearly all before the law has settled, exits
    are not rare: the chains simply run until they have left, and ``levels`` is empty.

    **What it does not see.** The mean is the one from what the start leads to within M steps. What
    chains keep for longer, and change only on excursions as rare as exits, is not forgotten and yet
    not kept: a deep well on the other side, or classes of states of a lattice (population RR in An
    and Ying's example: 8 per cent). And a coordinate that leads chains up the wrong slope shows
    as replications that differ wildly, which is answered by more chains in each, or, at the
    worst, not at all: the chains agree on the wrong way. Another coordinate tells.

    Chains that diverge are out and no exits. As in :meth:`thalweg.Run.mean_exit_step` the mean is
    then that of all steps over all exits, and ``diverged`` says how much that matters on the way
    out (elsewhere, what is as rare as exits is not seen).

    Args:
        dynamics: SGD with a number as its step and a sampler without memory, or a diffusion whose
            noise does not vary in time.
        start: Params, where all chains start.
        exit: A predicate on the params of a chain, as for :func:`thalweg.simulate`.
        key: The random key.
        coordinate: The function :math:`\xi` from params to a real number, larger on the way out.
            Unless given it is, for a :class:`thalweg.stopping.LeftBox`, the share of the way to a
            side; for an ``EnteredBall`` how much farther the start is than the ball; for anything
            else the distance from the start. The objective may do, and a component along the way.
        relative_error: What is asked for: replications are added until the standard error is that
            share of the mean.
        chains: The number N of a replication; four times as many, again and again, where the
            replications of the first round differ by more than their mean.
        budget: Steps of chains after which it ends with what it has.
        bound: A chain with a component beyond it in size, or not finite, has diverged.
        checkpoint: A file from which a killed run goes on, to the same numbers, as for
            :func:`thalweg.simulate`; written between stages. Another ``relative_error`` or
            ``budget`` goes on from it, too.

    Warns:
        UserWarning: The budget ended first, or chains diverged.

    Raises:
        InputError: Arguments that do not fit; no way to the exit found (with what was searched).

    Cost: a replication takes N times 2M steps and the excursions, about M steps or less for each
    factor of five in the probability; an error of a tenth some 32 to 64 replications.
    """
    _check_numbers(key, relative_error, chains, budget)
    start = jax.tree.map(jnp.asarray, start)
    _check_memoryless(dynamics, start)
    dynamics.check(start)
    check_exit(exit, jax.tree.map(lambda leaf: leaf[None], start))
    if bool(eqx.filter_jit(exit)(start)):
        raise InputError("the start is at the exit already; expected a start where exit= is false")
    coordinate = coordinate_to(exit, start) if coordinate is None else coordinate
    check_coordinate(coordinate, start)
    saved = None
    if checkpoint is not None:
        made_of = (dynamics, exit, coordinate, start, key, bound, chains)
        saved = Checkpoint(checkpoint, fingerprint(made_of))
    excursions = Excursions(dynamics, exit, coordinate, bound, budget)
    position = found(excursions, start, key, chains, relative_error, saved)
    return _result(position, excursions.cost, relative_error)


def _result(position: Position, cost: int, relative_error: float) -> Splitting:
    plan, rows = position.plan, position.rows
    settled, rare = int(plan.settled), plan.levels.size > 0
    mean, error = jackknife(lambda x: mean_exit(x, settled), rows)
    averages = rows.averages()
    result = Splitting(
        mean_exit_steps=mean,
        error=error,
        probability=jackknife(lambda x: x.weights[..., -1] / x.weights[..., 0], rows)
        if rare
        else None,
        passages=jackknife(lambda x: x.weights[..., 0] / (x.stayed * settled), rows)
        if rare
        else None,
        transit_steps=jackknife(lambda x: x.transit / x.weights[..., -1], rows) if rare else None,
        diverged=jackknife(lambda x: x.diverged / (x.weights[..., -1] if rare else x.left), rows),
        levels=plan.levels,
        passed=averages.weights[0, 1:] / averages.weights[0, :-1],
        settled=settled,
        exit_points=_exit_points(position.points, averages, settled, len(rows.left)),
        replications=len(rows.left),
        chains=int(position.chains),
        cost=cost,
        reached=bool(error <= relative_error * mean),
        replicated=rows.weights[:, -1] if rare else rows.left,
    )
    _warn(result, relative_error)
    return result


def _exit_points(points: Points, averages: Rows, settled: int, replications: int) -> ExitPoints:
    """With exits after M steps standing for all later ones."""
    total, own = rates(averages, settled)
    in_window = averages.weights[0, -1]
    late = float((averages.stayed * own / total)[0] / in_window) if in_window > 0 else 0.0
    weights = points.weights * np.where(points.early, 1.0, late)
    return ExitPoints(points.params, weights, points.groups, replications)


def _warn(result: Splitting, relative_error: float) -> None:
    if not result.reached:
        warnings.warn(
            f"the budget ended after {result.replications} replications at a relative error of "
            f"{result.error / result.mean_exit_steps:.2g}, {relative_error:g} was asked for; give "
            "a larger budget=",
            stacklevel=4,
        )
    if result.diverged[0] > 0:
        warnings.warn(
            f"{result.diverged[0]:.2g} chains diverge for one that leaves, and the mean is that of "
            "all steps over all exits; a smaller step, or an exit that chains reach before, would "
            "make it the mean exit time",
            stacklevel=4,
        )


def _check_numbers(key: Any, relative_error: float, chains: int, budget: float) -> None:
    try:
        jax.random.fold_in(key, 0)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"splitting needs one key=, for example jax.random.key(0); got {key!r}"
        ) from error
    if not 0 < relative_error < 1:
        raise InputError(f"relative_error is {relative_error}; expected a share of the mean")
    if isinstance(chains, bool) or not isinstance(chains, int) or chains < 2:
        raise InputError(f"chains of a replication must be at least 2, got {chains!r}")
    if not budget > 0:
        raise InputError(f"budget is a number of chain-steps, got {budget}")


def _check_memoryless(dynamics: AbstractDynamics, start: Params) -> None:
    """Stages start chains anew from their parameters: these must be all that a chain is."""
    advice = "simulate it"
    if isinstance(dynamics, Diffusion):
        if dynamics.varies:
            raise InputError(
                "the noise varies in time, and stages of a splitting start at different times; "
                "take dynamics.at(time), or simulate it"
            )
        return
    if not isinstance(dynamics, Descent):
        raise InputError(
            f"splitting knows a Descent and a Diffusion, got a {type(dynamics).__name__}; {advice}"
        )
    if not eqx.is_array(dynamics.step):
        raise InputError(
            "splitting needs a number as the step: with a schedule chains change from step to "
            f"step, and an optimiser has memory; {advice}"
        )
    sampler, name = dynamics.sampler, type(dynamics.sampler).__name__
    if not isinstance(sampler, AbstractMemoryless):
        raise InputError(
            f"{name} passes over the data and remembers where it is, and stages of a splitting "
            f"start chains from their parameters alone; take Minibatch, or {advice}"
        )
    if sampler.init(dynamics.problem, start) is not None:
        raise InputError(
            f"{name} keeps scores between its steps, and stages of a splitting start chains from "
            f"their parameters alone; take refresh=1, or {advice}"
        )
