"""The covariance of the gradient of a net: scaled by the loss, of low rank, and like L D2L."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, near, within
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import slope

_SAMPLES, _UNITS, _INPUTS = 16, 10, 2
_SIZE = _UNITS * (_INPUTS + 2)
_STEP, _EVERY = 0.05, 2000


def _net(p: Float[Array, " m"], sample: Any) -> Float[Array, ""]:
    rows = p.reshape(_UNITS, _INPUTS + 2)
    return jnp.dot(rows[:, 0], jnp.tanh(rows[:, 1:-1] @ sample[0] + rows[:, -1]))


def _cost(h: Float[Array, ""], sample: Any) -> Float[Array, ""]:
    return (h - sample[1]) ** 2 / 2


def _loss(p: Float[Array, " m"], sample: Any) -> Float[Array, ""]:
    return _cost(_net(p, sample), sample)


@experiment(
    "wojtowytsch/noise-covariance",
    "The noise of a net scales with the loss, has low rank, and is 2L D²L to an order of magnitude",
    covers=(
        *("gradient noise, scale", "gradient noise, rank", "Sigma and D2L", "Sigma ~ L D2L"),
        *("bound by sigma f", "summary, noise"),
    ),
    seconds=(8, 9),
)
def noise_covariance(setting: Setting) -> Outcome:
    r"""Exact covariances along a path of SGD with single samples.

    :math:`D^2 L = \frac1n \sum_i (\nabla h_i \nabla h_i^\top + (h_i - y_i) D^2 h_i)` and
    :math:`\Sigma = \frac1n \sum_i g_i g_i^\top - \nabla L \nabla L^\top` with
    :math:`g_i = (h_i - y_i) \nabla h_i`.
    """
    draw = np.random.default_rng(setting.seed)
    x = jnp.asarray(draw.normal(size=(_SAMPLES, _INPUTS)))
    labels = jnp.asarray(draw.normal(size=_SAMPLES))
    problem = tw.FiniteSum(_loss, (x, labels))
    start = jnp.asarray(draw.normal(size=_SIZE))
    path = _run(setting, problem, start, _EVERY * setting.choose(15, 60))
    points = path.records["params"][0]
    rows = [_at(problem, jnp.asarray(point)) for point in points]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    claims = [
        *_moment_claims(setting, problem, start),
        *_path_claims(columns),
        _single(),
    ]
    tables = {"path": {"step": path.record_steps, **columns}}
    return Outcome(claims, tables, [_picture()])


def _run(
    setting: Setting, problem: tw.FiniteSum, start: Array, steps: int, chains: int = 1
) -> tw.Run:
    """SGD; short runs of many chains and long ones of few are one program."""
    descent = tw.Descent(problem, tw.Minibatch(1), _STEP)
    record = tw.Record(every=_EVERY)
    return tw.simulate(descent, start, steps=steps, key=setting.key, chains=chains, record=record)


@jax.jit
def _matrices(problem: tw.FiniteSum, point: Array) -> tuple[Array, Array, Array]:
    """The loss, the covariance, and the gradients of the outputs, at a point."""
    sigma = tw.Minibatch(1).covariance(problem, point)
    slopes = jax.vmap(lambda sample: jax.grad(_net)(point, sample))(problem.data)
    return problem.value(point), sigma, slopes


def _at(problem: tw.FiniteSum, point: Array) -> dict[str, float]:
    """What is told of the covariance at a point."""
    loss, sigma, slopes = map(np.asarray, _matrices(problem, point))
    values = np.linalg.eigvalsh(sigma)
    # 2 L times the Gauss-Newton matrix.
    model = 2 * loss * slopes.T @ slopes / len(slopes)
    return {
        "loss": float(loss),
        "trace": float(np.trace(sigma)),
        "model": float(np.trace(model)),
        "rank": float(np.sum(values > 1e-10 * values[-1])),
        "bound": float(2 * loss * np.sum(slopes**2, axis=1).max()),
        "apart": float(np.linalg.norm(sigma - model) / np.linalg.norm(sigma)),
    }


def _moment_claims(setting: Setting, problem: tw.FiniteSum, start: Array) -> list[Claim]:
    """One step from a point, many times: the covariance that it has."""
    count = 40_000
    run = _run(setting, problem, start, 1, count)
    moved = np.asarray(start - run.params) / _STEP
    found = np.cov(moved.T)
    spread = np.sum((moved - moved.mean(axis=0)) ** 2, axis=1)
    error = float(spread.std() / count**0.5)
    gradients = np.asarray(problem.gradients(start))
    outputs = jax.vmap(lambda sample: _net(start, sample))(problem.data)
    errors = np.asarray(outputs - problem.data[1])
    mean = gradients.mean(axis=0)
    around = gradients / errors[:, None] - mean
    printed = float(np.sum(errors**2 * np.sum(around**2, axis=1)))
    exact = np.asarray(tw.Minibatch(1).covariance(problem, start))
    summed, whole = _traces(problem, start)
    ratio = float(summed / whole)
    return [
        Claim(
            "D²L and Σ",
            "Σ = Σᵢ (hᵢ - yᵢ)² (∇hᵢ - ∇L)(∇hᵢ - ∇L)ᵀ: its trace against that of one step of SGD, "
            f"{count} times",
            near(float(np.trace(found)), printed, error=error),
            both(
                near(float(np.trace(found)), float(np.trace(exact)), error=error),
                below(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)), 0.05),
            ),
            correction="the mean over samples, centred by the mean of gᵢ = (hᵢ - yᵢ)∇hᵢ: "
            "Σ = (1/n) Σᵢ gᵢgᵢᵀ - ∇L ∇Lᵀ (beside the trace: the Frobenius distance as a share)",
        ),
        Claim(
            "D²L and Σ",
            "D²L is the sum over samples: trace of that sum over the trace of the Hessian of L",
            near(ratio, 1.0, tolerance=1e-6),
            near(ratio, _SAMPLES, tolerance=1e-6),
            correction=f"the mean (n = {_SAMPLES})",
        ),
    ]


@jax.jit
def _traces(problem: tw.FiniteSum, point: Array) -> tuple[Array, Array]:
    """Of the sum of the Hessians of the samples, and of the Hessian of their mean."""
    own = jax.vmap(jax.hessian(_loss), in_axes=(None, 0))(point, problem.data)
    return jnp.trace(own.sum(axis=0)), jnp.trace(jax.hessian(problem.value)(point))


def _path_claims(columns: dict[str, np.ndarray]) -> list[Claim]:
    loss, trace = columns["loss"], columns["trace"]
    power = slope(np.log(loss), np.log(trace))
    half, whole = trace / columns["model"], 2 * trace / columns["model"]
    low, high = float(half.min()), float(half.max())
    rank = columns["rank"]
    return [
        Claim(
            "D²L and Σ",
            "the intensity of the noise scales with the loss: power of L that tr Σ has along the "
            f"path (L falls by {loss[0] / loss[-1]:.0f})",
            near(power, 1.0, tolerance=0.25),
        ),
        Claim(
            "D²L and Σ",
            "the noise has the rank n ≪ m",
            near(float(rank.max()), _SAMPLES, tolerance=0),
            both(below(float(rank.max()), _SAMPLES), above(float(rank.min()), _SAMPLES - 2)),
            reading=f"at most n; for n = {_SAMPLES} and m = {_SIZE} it is n - 1, the deviations "
            "from a mean",
        ),
        Claim(
            "Σ ≈ L D²L?",
            "tr Σ is that of L D²L (Gauss and Newton's part): the ratios along the path",
            both(within(float(whole.min()), 0.7, 1.4), within(float(whole.max()), 0.7, 1.4)),
            both(above(low, 1 / 3), below(high, 3.0), above(float(columns["apart"].min()), 0.1)),
            reading="as an order of magnitude and with 2L for L, since (hᵢ - yᵢ)² is 2L in the "
            f"mean: ratios {low:.2f} to {high:.2f}; as matrices they differ by "
            f"{100 * columns['apart'].min():.0f} to {100 * columns['apart'].max():.0f} %",
        ),
        Claim(
            "E|g - ∇f|² ≤ σf",
            "it is bounded by 2 max|∇h|² L at all points of the path (largest ratio)",
            below(float((trace / columns["bound"]).max()), 1.0 + 1e-9),
        ),
    ]


def _single() -> Claim:
    """Two data, h = theta x with x = 1 and -1: the mean gradient vanishes, the noise does not."""
    problem = tw.FiniteSum(
        lambda p, s: (p[0] * s[0] - s[1]) ** 2 / 2,
        (jnp.array([1.0, -1.0]), jnp.array([1.0, 1.0])),
    )
    at = jnp.zeros(1)
    ratio = float(tw.Minibatch(1).trace(problem, at) / problem.value(at))
    return Claim(
        "E|g - ∇f|² ≤ σf",
        "the variance is at most max|∇h|² L: two data with |∇h| = 1, variance over L",
        below(ratio, 1.0 + 1e-9),
        near(ratio, 2.0, tolerance=1e-9),
        correction="2 max|∇h|² L, which is attained here: L has the factor 1/2",
    )


def _picture() -> Picture:
    scale = [
        Series("path", "loss", "trace", "tr Σ", kind="points"),
        Series("path", "loss", "model", "tr 2L GN", "gd"),
        Series("path", "loss", "bound", "bound 2L max|∇h|²", "gd", dashed=True),
    ]
    apart = [Series("path", "step", "apart", "", kind="points")]
    return Picture(
        "noise-covariance",
        f"Trace of the covariance of SGD's gradient against the loss along one path, tanh net with "
        f"{_SIZE} weights on {_SAMPLES} random labels; Frobenius distance of Σ from 2L times the "
        "Gauss-Newton matrix as a share of |Σ|.",
        [
            Panel("loss L", "trace", scale, log="xy"),
            Panel("steps", "|Σ - 2L GN|/|Σ|", apart, limits=(0.0, 1.0)),
        ],
    )
