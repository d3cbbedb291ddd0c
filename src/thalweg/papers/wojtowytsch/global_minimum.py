"""The theorem for objectives with local minima: noise that spreads finds the global one."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.noise_models import loss_scaled
from thalweg.papers.checks import above, below, both
from thalweg.papers.estimates import Share
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import downhill, slope

_STEP, _SIGMA = 0.02, 30.0
_EVERY = 50
# At the global minimum f'' = 4.2: |f'|^2 = 2 f'' f there, and f'' is nowhere larger.
_LIPSCHITZ = 4.2
_RATE = 1 - 2 * _LIPSCHITZ * _STEP + _LIPSCHITZ * (2 * _LIPSCHITZ + _SIGMA) / 2 * _STEP**2
_BETA = 0.9
# The logs of losses between which single chains are timed, and the least that is kept.
_HIGH, _LOW, _LEAST = -3.0, -230.0, -600.0


def _wavy(x: Float[Array, " 1"]) -> Float[Array, ""]:
    """Zero at the origin, and local minima of heights from .9 on."""
    return jnp.sum(2 * jnp.sin(x) ** 2 + x**2 / 10)


def _log(x: Float[Array, " 1"]) -> Float[Array, ""]:
    return jnp.maximum(jnp.log(_wavy(x)), _LEAST)


@experiment(
    "wojtowytsch/global-minimum",
    "Noise that vanishes only at the global minimum leaves all others",
    covers=("Theorem, local minima", "global minimiser"),
    seconds=(3, 12),
)
def global_minimum(setting: Setting) -> Outcome:
    r"""Chains :math:`\theta - \eta(\nabla f + \sqrt{\sigma f}\,Y)`, Y normal, from a local minimum.

    That is Euler's chain of the noise scaled by the loss with the step :math:`\eta`.
    """
    chains, steps = setting.choose(2000, 20_000), setting.choose(16_000, 40_000)
    noise = loss_scaled(_wavy, _STEP, _SIGMA, convention="sde")
    record = tw.Record(every=_EVERY, values={"log": _log})
    run = tw.simulate(
        tw.Diffusion(downhill(_wavy), noise, _STEP),
        jnp.array([2.99]),
        steps=steps,
        key=setting.key,
        chains=chains,
        record=record,
    )
    logs = np.asarray(run.records["log"], dtype=float)
    times = run.record_steps
    means = np.exp(logs).mean(axis=0)
    arrived = logs < np.log(0.5)
    thin = slice(None, None, len(times) // 160)
    tables = {
        "losses": {"step": times, "mean": means, "left": 1 - arrived.mean(axis=0)},
        "paths": {"step": times, **{f"{j}": np.maximum(logs[j], _LOW) for j in range(5)}},
        "landscape": _landscape(),
    }
    for name in ("losses", "paths"):
        tables[name] = {column: values[thin] for column, values in tables[name].items()}
    return Outcome(_claims(logs, times, means, arrived), tables, [_picture()])


def _landscape() -> dict[str, Any]:
    x = np.linspace(-7, 7, 281)
    return {"x": x, "f": 1 - np.cos(2 * x) + x**2 / 10}


def _claims(
    logs: np.ndarray, times: np.ndarray, means: np.ndarray, arrived: np.ndarray
) -> list[Claim]:
    alive = 1 - arrived.mean(axis=0)
    part = (alive > 0.05) & (times > 500)
    rate = slope(times[part], np.log(means[part]))
    error = abs(rate) * float(np.sqrt(1 / (len(logs) * alive[part][-1])))
    last = Share.of(arrived[:, -1])
    # Steps from one height to another of the chains that reached it, first to first: the chains
    # may go up again between, which counts.
    down = (logs < _LOW).any(axis=1)
    first = [times[np.argmax(logs[down] < level, axis=1)] for level in (_HIGH, _LOW)]
    single = (_LOW - _HIGH) / np.quantile(first[1] - first[0], 0.99)
    return [
        Claim(
            "Theorem (local minima)",
            "limsup E f(θ_t)/β^t = 0 for ρ_η < β (here ρ = "
            f"{_RATE:.3f}, β = {_BETA}): the slope of log E f against log β",
            below(rate, np.log(_BETA), error=error),
            both(
                above(rate, np.log(_BETA), error=error),
                below(float(single), np.log(_BETA)),
            ),
            correction="limsup f(θ_t)/β^t = 0 almost surely, path by path; the mean falls no "
            "faster than the share that has not yet left the local minimum (99 % of the paths "
            "that have fall faster than that)",
        ),
        Claim(
            "Theorem (local minima)",
            "the iterates converge to a limit in the set of minimisers, from a local minimum and "
            "with a fixed step: the share in the global basin at the end",
            above(last[0], 0.95, error=last[1]),
        ),
        Claim(
            "expectation 2",
            "they do not come back: chains that were below f = .5 and are above it later, as a "
            "share of all",
            # None of N is known to 1/N only.
            below(float((arrived[:, :-1] & ~arrived[:, 1:]).any(axis=1).mean()), 0.01),
        ),
    ]


def _picture() -> Picture:
    mean = [
        Series("losses", "step", "mean", "mean loss", "sgd"),
        Series("losses", "step", "left", "share not in the global basin", dashed=True),
    ]
    paths = [
        Series("paths", "step", f"{j}", "single chains" if j == 0 else "", "sgd") for j in range(5)
    ]
    return Picture(
        "global-minimum",
        "An objective with local minima; the mean loss of SGD from the local minimum at 3 with "
        f"noise √(σ f) Y, σ = {_SIGMA:g}, η = {_STEP}: it falls as slowly as the share that is "
        "left behind, while each chain, once in the global basin, converges exponentially.",
        [
            Panel("θ", "f", [Series("landscape", "x", "f")]),
            Panel("steps", "E f(θ_t), share", mean, log="y"),
            Panel("steps", "log f(θ_t)", paths),
        ],
    )
