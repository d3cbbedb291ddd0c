r"""Would resampling-reweighting pay? Variances of both samplers from the norms of a few samples."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.gradnorms.squares import norm_dtype
from thalweg.problem import Params
from thalweg.sampling.presampled import Presampled
from thalweg.sampling.reweighted import Reweighted
from thalweg.sampling.rolling import Rolling
from thalweg.sampling.scored import AbstractScored, Kept
from thalweg.train.objective import Objective
from thalweg.train.scoring import scorer

# Samples below which an error of an error is a guess.
FEWEST = 16


class Gauge(NamedTuple):
    r"""Variances of SGD and of RR at one point, and what they mean.

    A trace is that of the covariance of **one** gradient of a batch of B. Errors are standard
    errors, by the jackknife over the samples.

    Attributes:
        step: When.
        batch_size: B.
        samples: How many samples it is from.
        trace_sgd: :math:`\mathrm{Tr}\,C` of SGD.
        trace_sgd_error: Its standard error.
        trace_rr: That of the sampler as it draws now, with its kept scores where they are known.
        trace_rr_error: Its standard error.
        trace_fresh: That of the sampler if all its scores were fresh.
        trace_fresh_error: Its standard error.
        gradient_norm_squared: :math:`|\nabla f|^2`, unbiased: negative if it is smaller than its
            own error.
        gradient_norm_squared_error: Its standard error.
        known: The share of the samples with a known score; one if none are kept.
        variance_ratio: SGD's trace over the sampler's; above one it has less variance.
        variance_ratio_error: Its standard error.
        fresh_ratio: SGD's trace over that with fresh scores.
        fresh_ratio_error: Its standard error.
        cost_ratio: Seconds of the sampler's step over those of SGD's.
        speed_up: How many times as fast RR would be. By variances alone it is ``variance_ratio /
            cost_ratio``: SGD with a batch larger by the cost ratio takes as long and has its
            variance divided by it. Once it has been seen what noise costs
            (:mod:`thalweg.train.advance`), it is how much sooner RR would have had the loss of SGD;
            infinite where SGD does not descend.
        pays: Whether that is above one, with a gain beyond two standard errors where it is known.
        sentence: All that in words.
        promised: The decrease of the loss in a step that the gradient promises; NaN, with all that
            follows, where only variances are known.
        promised_error: Its standard error.
        decrease: The decrease in a step that was seen since the last gauge.
        decrease_error: Its standard error.
        gain: By how much RR's loss would be below SGD's after the same time.
        gain_error: Its standard error.
    """

    step: int
    batch_size: int
    samples: int
    trace_sgd: float
    trace_sgd_error: float
    trace_rr: float
    trace_rr_error: float
    trace_fresh: float
    trace_fresh_error: float
    gradient_norm_squared: float
    gradient_norm_squared_error: float
    known: float
    variance_ratio: float
    variance_ratio_error: float
    fresh_ratio: float
    fresh_ratio_error: float
    cost_ratio: float
    speed_up: float
    pays: bool
    sentence: str
    promised: float = math.nan
    promised_error: float = math.nan
    decrease: float = math.nan
    decrease_error: float = math.nan
    gain: float = math.nan
    gain_error: float = math.nan

    @property
    def variances(self) -> str:
        """The ratio of variances in words."""
        ratio, error = self.variance_ratio, self.variance_ratio_error
        if ratio < 1:
            return f"{1 / ratio if ratio > 0 else math.inf:.2f} times more variance"
        if math.isinf(ratio):
            return "no variance at all"
        return f"{ratio:.2f} ± {error:.2f} times less variance"


def gauge(
    objective: Objective,
    params: Params,
    state: Any,
    samples: Any,
    *,
    sampler: AbstractScored,
    cost_ratio: float,
    step: int,
    kept: Kept | None = None,
    scores: str = "gradient",
    n: int | None = None,
) -> Gauge:
    r"""The variances of SGD and of a sampler that draws by scores, from m samples.

    With the norms :math:`s_i = |g_i|` of m independent samples of the population and the ratios
    :math:`r_i` at which the sampler draws them (:math:`r_i = 1` for SGD), the trace of one draw is

    .. math:: \frac{m}{m-1} \Big(\bar r\, \overline{s^2/r} - |\bar g|^2\Big)

    with means over the samples: unbiased for ratios that do not depend on them, never negative
    (Cauchy and Schwarz), and with B draws divided by B. For fresh scores :math:`r_i = (1-u)
    s_i/\bar s + u`; with u = 0 that is :math:`\bar s^2 - |\bar g|^2`, unbiased, too, and otherwise
    up to terms of order 1/m. :class:`thalweg.Presampled` has 1/c of the first and 1 - 1/c of the
    second. Where norms have a long tail, few samples miss its end more often than not: variances
    then come out too small, SGD's most, and so does the ratio.

    Standard errors by leaving out each sample in turn, exactly: :math:`|\bar g|^2` without it
    follows from the slope of its loss along :math:`\bar g`.

    Args:
        objective: What is trained; gradients are those of ``sample_loss``.
        params: Where.
        state: The model's state.
        samples: m samples drawn independently from the population, i with probability
            :math:`a_i`.
        sampler: Whose variance is compared with SGD's of the same batch size.
        cost_ratio: Seconds of its step over those of SGD's.
        step: The number of the step, for the record.
        kept: Its kept ratios of these samples, from its ``kept_at``; None for fresh scores.
        scores: What it draws by, a name of :data:`thalweg.train.scoring.SCORES`.
        n: The number of all samples if SGD draws without replacement; None: with.

    Raises:
        InputError: Fewer than 16 samples, a cost ratio that is not positive, a sampler whose
            draws are biased (stale="fixed-length") or by group, a gradient that is not finite.

    Cost: two gradients of the m samples, once compiled.
    """
    _check(sampler, cost_ratio, samples)
    measured = _measured(objective, scores, params, state, samples)
    norms, slopes, own = (np.asarray(x, np.float64) for x in measured)
    if not (np.isfinite(norms).all() and np.isfinite(own).all()):
        raise InputError(
            f"gradients of {int((~np.isfinite(norms)).sum())} of {norms.size} samples are not "
            f"finite at step {step}; expected a run that has not diverged (a smaller step)"
        )
    size, m = sampler.size, norms.size
    factor = 1 / size if n is None else (n - size) / (size * max(1, n - 1))
    sums = _Sums(norms, slopes)
    sgd = factor * sums.traces(_Ratios(np.ones(m)))
    fresh = _of_sampler(sampler, sums, _fresh(sampler, own)) / size
    rr = fresh
    if kept is not None:
        rr = _of_sampler(sampler, sums, _Ratios(np.asarray(kept.ratio, np.float64))) / size
    ratio, ratio_error = _ratio(sgd, rr)
    fresh_ratio, fresh_error = _ratio(sgd, fresh)
    squared = sums.gradient_norm_squared()
    found = Gauge(
        step=step,
        batch_size=size,
        samples=m,
        trace_sgd=float(sgd[0]),
        trace_sgd_error=_error(sgd),
        trace_rr=float(rr[0]),
        trace_rr_error=_error(rr),
        trace_fresh=float(fresh[0]),
        trace_fresh_error=_error(fresh),
        gradient_norm_squared=float(squared[0]),
        gradient_norm_squared_error=_error(squared),
        known=1.0 if kept is None else float(np.mean(kept.known)),
        variance_ratio=ratio,
        variance_ratio_error=ratio_error,
        fresh_ratio=fresh_ratio,
        fresh_ratio_error=fresh_error,
        cost_ratio=float(cost_ratio),
        speed_up=ratio / cost_ratio,
        pays=ratio > cost_ratio,
        sentence="",
    )
    verdict = "would pay" if found.pays else "would not pay"
    told = f"by variance RR {verdict} here: {found.variances} for {cost_ratio:.2f} times the time"
    return found._replace(sentence=told)


class _Ratios:
    """Ratios of the samples, and those without one of them, where they depend on all."""

    def __init__(self, ratio: np.ndarray, without: Callable[[int], np.ndarray] | None = None):
        self.ratio = ratio
        self.without = without


def _fresh(sampler: AbstractScored, own: np.ndarray) -> _Ratios:
    uniform = sampler.uniform if isinstance(sampler, Reweighted | Rolling) else 0.0
    mean, m = own.mean(), own.size

    def ratio(mean: float) -> np.ndarray:
        return (1 - uniform) * own / mean + uniform if mean > 0 else np.ones(m)

    if uniform == 0:
        # The trace does not see a common factor.
        return _Ratios(ratio(mean))
    return _Ratios(ratio(mean), lambda i: ratio((m * mean - own[i]) / (m - 1)))


class _Sums:
    """Traces from norms and slopes: of all samples, and then without each of them."""

    def __init__(self, norms: np.ndarray, slopes: np.ndarray):
        m = norms.size
        self._squares = np.square(norms)
        self._mean = float(slopes.mean())
        # |sum of gradients|^2: of all, and without each.
        total = m * m * self._mean
        without = total - 2 * m * slopes + self._squares
        self._sums = np.concatenate([[total], np.maximum(without, 0)])
        self._counts = np.concatenate([[m], np.full(m, m - 1)])

    def traces(self, ratios: _Ratios) -> np.ndarray:
        """The trace of one draw: of all samples, and without each."""
        weighed = self._weighed(ratios.ratio)
        first = np.concatenate([[ratios.ratio.sum()], ratios.ratio.sum() - ratios.ratio])
        second = np.concatenate([[weighed.sum()], weighed.sum() - weighed])
        if ratios.without is not None:
            for i in range(self._squares.size):
                ratio = ratios.without(i)
                others = self._weighed(ratio)
                first[i + 1] = ratio.sum() - ratio[i]
                second[i + 1] = others.sum() - others[i]
        count = self._counts
        return np.maximum(first * second - self._sums, 0) / (count * (count - 1))

    def gradient_norm_squared(self) -> np.ndarray:
        r"""The mean of :math:`g_i \cdot g_j` over all pairs: of all samples, and without each."""
        total = self._squares.sum()
        squares = np.concatenate([[total], total - self._squares])
        return (self._sums - squares) / (self._counts * (self._counts - 1))

    def _weighed(self, ratio: np.ndarray) -> np.ndarray:
        return np.divide(self._squares, ratio, out=np.zeros_like(ratio), where=ratio > 0)


def _of_sampler(sampler: AbstractScored, sums: _Sums, ratios: _Ratios) -> np.ndarray:
    traces = sums.traces(ratios)
    if not isinstance(sampler, Presampled):
        return traces
    share = 1 / sampler.candidates
    return share * sums.traces(_Ratios(np.ones_like(ratios.ratio))) + (1 - share) * traces


def _error(values: np.ndarray) -> float:
    """The jackknife's standard error from values without each sample."""
    without = values[1:]
    m = without.size
    return float(np.sqrt((m - 1) / m * np.sum(np.square(without - without.mean()))))


def _ratio(over: np.ndarray, under: np.ndarray) -> tuple[float, float]:
    """A ratio with its error; infinite, or one, where there is no variance at all."""
    if (under <= 0).any():
        return (1.0, 0.0) if over[0] <= 0 else (math.inf, math.inf)
    values = over / under
    return float(values[0]), _error(values)


@partial(jax.jit, static_argnums=(0, 1))
def _measured(
    objective: Objective, scores: str, params: Params, state: Any, samples: Any
) -> tuple[Float[Array, " m"], Float[Array, " m"], Float[Array, " m"]]:
    r"""Norms, slopes :math:`g_i \cdot \bar g`, and what the sampler draws by."""

    def losses(params: Params) -> Array:
        one = jax.vmap(objective.sample_loss, in_axes=(None, None, 0))
        values = one(params, state, samples)
        return values.astype(norm_dtype(values))

    mean = jax.grad(lambda params: jnp.mean(losses(params)))(params)
    slopes = jax.jvp(losses, (params,), (mean,))[1]
    norms = scorer(objective, "gradient")(params, state, samples)
    own = norms if scores == "gradient" else scorer(objective, scores)(params, state, samples)
    return norms, slopes, own


def check_gauged(sampler: Any) -> None:
    """Raise InputError unless the gauge can tell what a sampler is worth."""
    name = type(sampler).__name__
    if not isinstance(sampler, Reweighted | Rolling | Presampled):
        raise InputError(
            f"the gauge compares SGD with a sampler that draws by scores, got {name}; expected "
            "Reweighted, Rolling or Presampled"
        )
    if not sampler.unbiased:
        raise InputError(
            f"{name} with stale='fixed-length' is biased, and its variance says nothing of what it "
            "is worth; the gauge needs stale='unbiased'"
        )
    if not isinstance(sampler, Presampled) and sampler.by == "group":
        raise InputError(
            "the gauge compares draws by scores of samples, and by='group' was asked for; take "
            "by='sample'"
        )


def _check(sampler: AbstractScored, cost_ratio: float, samples: Any) -> None:
    check_gauged(sampler)
    if not (math.isfinite(cost_ratio) and cost_ratio > 0):
        raise InputError(f"cost_ratio is a ratio of seconds, expected above 0; got {cost_ratio!r}")
    m = len(jax.tree.leaves(samples)[0])
    if m < FEWEST:
        raise InputError(f"the gauge got {m} samples; expected at least {FEWEST}")
