r"""What noise costs: how many steps it keeps SGD behind what less of it would do.

A step along a noisy gradient changes the loss by what the gradient promises, of mean F, and by a
term of second order that grows as :math:`E|\hat g|^2 = |\nabla f|^2 + \mathrm{Tr}\,C` where
curvature is alike along both. What was seen is :math:`\Delta`, so :math:`D = F - \Delta` is lost,
and of it :math:`D\,(\mathrm{Tr}\,C - \mathrm{Tr}\,C')/(|\nabla f|^2 + \mathrm{Tr}\,C)` would not
be with a sampler of the trace :math:`\mathrm{Tr}\,C'`. That is true of a step; it is no rate that
goes on. Noise lifts the loss above the bottom of the valley along which it descends until as much
is lost as is won: on a quadratic, by :math:`\eta\,\mathrm{Tr}\,C/4` for small steps, whatever its
curvatures. So after k steps less noise has gained

.. math:: G = \min\Big(k D \frac{\mathrm{Tr}\,C - \mathrm{Tr}\,C'}{|\nabla f|^2 +
          \mathrm{Tr}\,C},\; \frac{\eta}{4} (\mathrm{Tr}\,C - \mathrm{Tr}\,C')\Big),

once and for all: a lead of :math:`G/\Delta` steps, to be compared with the :math:`(c - 1) k` steps
that SGD takes in the time that c times as long steps take more.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from thalweg.gradnorms.squares import norm_dtype
from thalweg.train.gauge import Gauge
from thalweg.train.step import Carry, Member, Work

# A gain of fewer standard errors is none.
ERRORS = 2.0


class Promise(NamedTuple):
    r"""The decrease that the gradient promises at a point, and the losses of samples there.

    Attributes:
        decrease: F, of a step.
        error: Its standard error.
        rate: What of the gradient is stepped on at once, :math:`\eta` of gradient descent.
        losses: Of the gauge's samples.
    """

    decrease: float
    error: float
    rate: float
    losses: np.ndarray


class Advance(NamedTuple):
    """The decrease of the loss in a step, between two gauges.

    Attributes:
        promised: F, the mean of both ends.
        promised_error: Its standard error.
        rate: The second end's.
        made: What was seen, on the samples of the first gauge.
        made_error: Its standard error.
    """

    promised: float
    promised_error: float
    rate: float
    made: float
    made_error: float


def promise(work: Work, member: Member, carry: Carry, samples: Any, found: Gauge) -> Promise:
    r"""The decrease that the gradient promises: :math:`-\nabla f \cdot u(\nabla f)`.

    The update u of a mean gradient of m samples would promise more, by the trace of its
    covariance: what is linear in it is scaled to the unbiased :math:`|\nabla f|^2` of the gauge.

    Args:
        work: What is trained, and by which rule.
        member: Who.
        carry: Where it is.
        samples: The gauge's.
        found: What the gauge has found there.
    """
    losses, still, moved, squared = _updates(work, member, carry, samples)
    slope = float(moved) / float(squared) if squared > 0 else 0.0
    return Promise(
        float(still) + slope * found.gradient_norm_squared,
        abs(slope) * found.gradient_norm_squared_error,
        slope,
        np.asarray(losses, np.float64),
    )


def advance(before: Promise, after: Promise, now: np.ndarray, steps: int) -> Advance:
    """The decrease of a step from a gauge to the next.

    Args:
        before: The first gauge's.
        after: The second's.
        now: The losses of the first gauge's samples at the second.
        steps: Between them.
    """
    fallen = (before.losses - now) / steps
    return Advance(
        (before.decrease + after.decrease) / 2,
        math.hypot(before.error, after.error) / 2,
        after.rate,
        float(fallen.mean()),
        float(fallen.std(ddof=1)) / math.sqrt(fallen.size),
    )


def judged(found: Gauge, seen: Advance, *, draws_by_scores: bool, trace_rr: float) -> Gauge:
    """The gauge with its verdict by the loss and no longer by the variance alone.

    Args:
        found: The gauge, of step k.
        seen: The decrease between the last gauge and this one.
        draws_by_scores: Whether RR has drawn there, or SGD.
        trace_rr: The trace that RR has or would have.
    """
    own = trace_rr if draws_by_scores else found.trace_sgd
    moment = max(found.gradient_norm_squared, 0.0) + own
    less = found.trace_sgd - trace_rr
    extra = (found.cost_ratio - 1) * found.step

    def lower(promised: float, made: float) -> float:
        """By how much RR's loss would be lower after as many steps."""
        lost = found.step * max(promised - made, 0.0) / moment if moment > 0 else 0.0
        return min(lost, max(seen.rate, 0.0) / 4) * less

    def gain(promised: float, made: float) -> float:
        return lower(promised, made) - extra * max(made, 0.0)

    at, ahead = gain(seen.promised, seen.made), lower(seen.promised, seen.made)
    error = math.hypot(
        _change(lambda x: gain(x, seen.made), seen.promised, seen.promised_error),
        _change(lambda x: gain(seen.promised, x), seen.made, seen.made_error),
    )
    lead = ahead / seen.made if seen.made > 0 else math.copysign(math.inf, less)
    speed_up = max(1 + lead / found.step, 0.0) / found.cost_ratio
    return found._replace(
        promised=seen.promised,
        promised_error=seen.promised_error,
        decrease=seen.made,
        decrease_error=seen.made_error,
        gain=at,
        gain_error=error,
        speed_up=speed_up,
        pays=at > ERRORS * error,
        sentence=_sentence(found, lead, speed_up, abs(at) > ERRORS * error),
    )


@partial(jax.jit, static_argnums=0)
def losses_of(work: Work, carry: Carry, samples: Any) -> Float[Array, " m"]:
    """The losses of samples, in single precision at least."""
    return _losses(work, carry, carry.params, samples)


def _losses(work: Work, carry: Carry, params: Any, samples: Any) -> Float[Array, " m"]:
    one = jax.vmap(work.objective.sample_loss, in_axes=(None, None, 0))
    values = one(params, carry.state, samples)
    return values.astype(norm_dtype(values))


@partial(jax.jit, static_argnums=0)
def _updates(
    work: Work, member: Member, carry: Carry, samples: Any
) -> tuple[Array, Array, Array, Array]:
    """Losses; what no gradient promises, and what the mean gradient adds; its squared norm."""

    def mean(params: Any) -> tuple[Array, Array]:
        losses = _losses(work, carry, params, samples)
        return jnp.mean(losses), losses

    gradient, losses = jax.grad(mean, has_aux=True)(carry.params)
    with jax.numpy_dtype_promotion("standard"):
        rule = work.transformation(member.hyper)
        updates = [
            rule.update(g, carry.optimizer, carry.params)[0]
            for g in (jax.tree.map(jnp.zeros_like, gradient), gradient)
        ]
        still, moved = (-optax.tree.vdot(gradient, update) for update in updates)
        return losses, still, moved - still, optax.tree.vdot(gradient, gradient)


def _change(function: Callable[[float], float], at: float, error: float) -> float:
    """How far a value may be off for the error of its argument."""
    return (function(at + error) - function(at - error)) / 2


def _sentence(found: Gauge, lead: float, speed_up: float, clear: bool) -> str:
    text = f"{found.variances} for {found.cost_ratio:.2f} times the time"
    if not clear:
        return f"RR would not clearly pay here: {text}; what it would gain is within its error"
    pays = "would pay" if speed_up > 1 else "would not pay"
    if not math.isfinite(lead):
        place = "above" if lead > 0 else "below"
        return f"RR {pays} here: {text}; SGD does not descend any more, and is {place} RR"
    away = f"{abs(lead):.0f} steps {'ahead of' if lead >= 0 else 'behind'} SGD's {found.step}"
    return f"RR {pays} here: {text}; it would be {away}, {speed_up:.2f} times as fast"
