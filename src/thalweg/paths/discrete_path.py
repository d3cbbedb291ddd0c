"""The path of least action of a chain with a finite step."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.dynamics import AbstractDynamics
from thalweg.errors import InputError
from thalweg.paths.action_path import ActionPath, field_between, minimum_action_path
from thalweg.paths.climbs import Chain, extremes, settled
from thalweg.paths.curves import shown
from thalweg.paths.fields import Field, Matrix, Point
from thalweg.paths.hamiltonian import AbstractHamiltonian
from thalweg.paths.overshoots import ascent, overshoots

Points = Float[np.ndarray, "steps d"]
# Chains of different lengths.
Starts = list[Float[np.ndarray, "_ d"]]

# Steps of the first chain at least, and of a chain that is prolonged at most.
_FEWEST, _MOST = 16, 4096
# Images for which there is space at least: short chains run by one program.
_LEAST_ROOM = 256
# The action has stopped falling when twice as many steps change it by less than this share.
_SAME = 1e-4
# Share of its distance to the end by which a chain is prolonged step by step.
_NEARER = 0.5


@dataclass(frozen=True, eq=False)
class DiscretePath:
    r"""A path of least action of a chain.

    Attributes:
        points: Where the chain is after each step, from the start to the end. To the first point
            after the start it comes in any number of steps, as the linear chain does.
        spent: The action up to each of them.
        action: The action W of the whole path, a number without unit.
        error: How much it fell when the number of steps was doubled for the last time.
    """

    points: Points
    spent: Float[np.ndarray, " steps"]
    action: float
    error: float


def minimum_discrete_path(dynamics: AbstractDynamics, a: Any, b: Any) -> DiscretePath:
    r"""The path on which a chain with a finite step goes from a to b most probably.

    It minimises, over all paths of n steps and over n,

    .. math:: W = \sum_k I(\theta_k, \theta_{k+1}), \qquad I(\theta, \theta') = \sup_p\,
              p \cdot (\theta' - \theta) - \log E\,e^{-\eta\,p \cdot \hat g(\theta)},

    the rate function of single steps (Cramer). For SGD with independent draws W is proportional to
    the batch B, and probabilities are :math:`e^{-W}` up to factors that are not exponential as B
    grows **at a fixed step**; for a diffusion it is that of Euler's chain, :math:`I =
    |\theta' - \theta - \eta b|^2_{\Sigma^{-1}}/2\eta`, as its noise becomes small. For small steps
    W becomes the action of :func:`minimum_action_path`. At steps near the threshold of stability
    both that one and the diffusion's are wrong: the chain :math:`\theta' = (1 - \eta h) \theta +
    \eta \xi` has :math:`W = x^2/2S` with :math:`S = \eta^2 c/(1 - (1 - \eta h)^2)`, where its
    diffusion has :math:`S = \eta c/2h`.

    Newton's method (:mod:`thalweg.paths.relaxation`) starts from the path of
    :func:`minimum_action_path`, run through at its own speed, and from chains that leave by
    overshooting (:mod:`thalweg.paths.overshoots`); the cheapest that is found is kept. All steps
    before the first one are those of the linear chain around a, whose action is written out. The
    number of steps is doubled until the action changes by less than 1e-4 of itself.

    Args:
        dynamics: :class:`thalweg.Descent` or :class:`thalweg.Diffusion`, with its step; see
            :func:`thalweg.paths.hamiltonian`.
        a: The minimum to start from, as for :func:`minimum_action_path`.
        b: The end: another minimum, for the time to leave the basin; the chain need not pass the
            saddle itself.

    Raises:
        InputError: Whatever :func:`minimum_action_path` refuses; a step beyond the threshold of
            stability at a; a start with a kink; a path of more than 4096 steps, for which
            :func:`minimum_action_path` is right.

    Cost: that of :func:`minimum_action_path`, and Newton steps for chains of some hundred images.
    """
    guide = minimum_action_path(dynamics, a, b)
    step: Array = dynamics.step  # type: ignore[attr-defined]
    field = field_between(dynamics, guide.points[0], guide.points[-1])
    metric = _metric(field, guide.points[0], float(step))
    found, start = _best(field, _starts(field, guide, metric, float(step)), metric, step)
    while len(start) - 1 <= _MOST:
        before, start = found, _longer(field, found.points, metric, float(step))
        found = _checked(settled(field, start, metric, _room(len(start) // 2), step=step))
        fell = abs(before.cost - found.cost)
        if fell <= _SAME * found.cost:
            costs = _costs(field.H, step, found.points)
            away = found.points[1] - found.points[0]
            costs[0] = away @ metric @ away / 2
            return DiscretePath(found.points, np.append(0.0, np.cumsum(costs)), found.cost, fell)
    raise InputError(
        f"the action from {shown(start[0])} to {shown(start[-1])} still falls, by {fell:.3g}, when "
        f"the number of steps is doubled to {len(start) - 1}; expected an end that the chain "
        "reaches in some hundred steps, as a minimum; for small steps take minimum_action_path"
    )


def _starts(field: Field, guide: ActionPath, metric: Matrix, step: float) -> Starts:
    """First chains: the path run through at its own speed, and those that overshoot."""
    a, b = guide.points[0], guide.points[-1]
    places = (guide.points[1:] + guide.points[:-1]) / 2
    moves = np.diff(guide.points, axis=0)
    times = np.append(0.0, np.cumsum(extremes(field, places, moves)[1]))
    steps = max(_FEWEST, math.ceil(times[-1] / step))
    if steps > _MOST:
        raise InputError(
            f"the path from {shown(a)} to {shown(b)} takes {steps} steps; expected at most "
            f"{_MOST}: at so small a step minimum_action_path is right"
        )
    at = np.linspace(0, times[-1], steps + 1)
    slow = np.column_stack([np.interp(at, times, values) for values in guide.points.T])
    return [slow, *overshoots(field, a, b, metric, step)]


def _best(field: Field, starts: Starts, metric: Matrix, step: Array) -> tuple[Chain, Points]:
    """The chain of least action from any of the starts."""
    room = _room(max(map(len, starts)))
    found = [settled(field, start, metric, room, step=step) for start in starts]
    best = min(found, key=lambda chain: chain.cost if chain.rests else np.inf)
    return _checked(best), best.points


def _room(images: int) -> int:
    """Space for twice as many images, of few sizes."""
    return max(_LEAST_ROOM, 1 << (2 * images).bit_length())


def _longer(
    field: Field, points: Points, metric: Matrix, step: float
) -> Float[np.ndarray, "longer d"]:
    """Twice as many steps, half of the new ones before the others and half at the end.

    Before the first step the chain came as the linear one around a would have; at the end it goes
    half of the way again and again.
    """
    a, b, more = points[0], points[-1], len(points) - 1
    before = ascent(field, a, points[1], metric, step, more - more // 2)
    shares = _NEARER ** np.arange(1, more // 2 + 1)
    after = b + shares[:, None] * (points[-2] - b)
    return np.vstack([a, before[:-1], points[1:-1], after, b])


def _checked(found: Chain) -> Chain:
    if not found.rests:
        raise InputError(
            f"no chain of {len(found.points) - 1} steps from {shown(found.points[0])} to "
            f"{shown(found.points[-1])} came to rest: the action is {found.cost:.3g} and still "
            f"falls, by the share {found.left:.2g} a step; an infinite one means that the draws of "
            "a step do not reach; take another end, or a smaller step"
        )
    return found


def _metric(field: Field, a: Point, step: float) -> Matrix:
    """Of the stationary law of the linear chain around a."""
    rest = field.rest_near(a, field.scale)
    if rest is None:
        raise InputError(
            f"a = {shown(a)} is no smooth point of rest; expected a minimum with a Hessian, around "
            "which the chain has a linear law"
        )
    growth = np.abs(np.linalg.eigvals(np.eye(a.size) + step * field.jacobian(a))).max()
    if growth >= 1:
        raise InputError(
            f"the chain is not stable at a = {shown(a)}: with the step {step:g} the linear map "
            f"there has an eigenvalue of size {growth:.3g}, and the chain leaves by itself; "
            "expected a step below 2/sharpness"
        )
    spread = field.spread(rest, step)
    if spread is None:
        raise InputError(
            f"the noise at a = {shown(a)} vanishes, or does in a direction: the action to leave it "
            "is infinite; expected noise in all directions there"
        )
    return np.linalg.inv(spread)


def _costs(H: AbstractHamiltonian, step: Array, points: Points) -> Float[np.ndarray, " n"]:
    places = jnp.asarray(points)
    return np.array(_rates(H, step, places[:-1], places[1:]))


@eqx.filter_jit
def _rates(H: AbstractHamiltonian, step: Array, before: Array, after: Array) -> Array:
    return step * jax.vmap(lambda x, y: H.rate(x, (y - x) / step))(before, after)
