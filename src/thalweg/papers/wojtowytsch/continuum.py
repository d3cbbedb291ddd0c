"""Open problem 1: where the equation in continuous time describes the chain, and where not."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import HALVES, quadratics, slope

_TIME = 1.2
_STEPS = (0.05, 0.1, 0.2, 0.4)
_LARGE = 1.5
_FINE = 0.01


@experiment(
    "wojtowytsch/continuum",
    "The continuum model is right to first order in the step, and blind to where SGD diverges",
    covers=("open problem 1, continuum model", "(1)"),
    seconds=(5, 6),
)
def continuum(setting: Setting) -> Outcome:
    r"""Two quadratics that vanish together: the chain and its diffusion limit.

    SGD has :math:`E f(\theta_k) = ((1 - \eta)^2 + \eta^2/2)^k f`, and with :math:`C = x^2/2` its
    limit has :math:`E f(\theta(t)) = e^{(-2 + \eta/2) t} f` and
    :math:`E \log|\theta(t)| = -(1 + \eta/4) t`.
    """
    hessians = jnp.asarray(HALVES)[:, None, None]
    etas = np.linspace(0.04, 1.6, 40)
    chain = np.array([_mean_rate(hessians, eta) for eta in etas])
    paths = np.array([_path_rate(setting, hessians, eta) for eta in etas])
    found = {eta: _limit_rates(setting, eta) for eta in (*_STEPS, _LARGE)}
    second = _limit_rates(setting, 0.4, order=2)
    tables: dict[str, dict[str, Any]] = {
        "rates": {
            "eta": etas,
            "mean": chain,
            "path": paths,
            "limit mean": -2 + etas / 2,
            "limit path": -2 - etas / 2,
        },
        "limit": {
            "eta": list(found),
            "mean": [rates[0][0] for rates in found.values()],
            "error": [rates[0][1] for rates in found.values()],
        },
    }
    claims = [
        *_small(hessians, found, second),
        *_large(setting, hessians, found),
    ]
    return Outcome(claims, tables, [_picture()])


def _mean_rate(hessians: Any, eta: float) -> float:
    """Of E f by unit of time, exactly."""
    return float(np.log(tw.stability.mean_square_radius(hessians, eta, 1))) / eta


def _path_rate(setting: Setting, hessians: Any, eta: float) -> float:
    """Of log f along almost every path, exactly (in one dimension)."""
    exponent = tw.stability.lyapunov_exponent(hessians, eta, 1, key=setting.key)
    return 2 * float(exponent.value) / eta


def _limit_rates(
    setting: Setting, eta: float, *, order: int = 1
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Rates of E f and of E log f of the diffusion limit, from paths in fine steps."""
    descent = tw.Descent(quadratics(), tw.Minibatch(1), eta)
    limit = tw.diffusion_limit(descent, order=order)
    run = tw.simulate(
        tw.Diffusion(limit.drift, limit.noise, _FINE),
        jnp.ones(1),
        steps=round(_TIME / _FINE),
        key=setting.key,
        chains=setting.choose(40_000, 400_000),
    )
    squares = np.asarray(run.params)[:, 0] ** 2
    value, error = Mean.of(squares)
    logs = Mean.of(np.log(squares))
    return (np.log(value) / _TIME, error / value / _TIME), (logs[0] / _TIME, logs[1] / _TIME)


# Euler's step of .01 is off by about so much in the rates, of (1 - h)^2 and the like.
_EULER = 0.012


def _small(hessians: Any, found: dict[float, Any], second: Any) -> list[Claim]:
    rates = {eta: found[eta][0] for eta in _STEPS}
    fine = np.array([0.0125, 0.025, 0.05, 0.1])
    apart = [-2 + eta / 2 - _mean_rate(hessians, eta) for eta in fine]
    coarse = abs(rates[0.4][0] - _mean_rate(hessians, 0.4))
    return [
        Claim(
            "open problem 1",
            "the diffusion limit has the rate -2 + η/2 of E f (paths at η = .05, .1, .2, .4)",
            both(
                *(
                    near(rate, -2 + eta / 2, error=error, tolerance=_EULER)
                    for eta, (rate, error) in rates.items()
                )
            ),
        ),
        Claim(
            "open problem 1",
            "the continuum model is valid as η → 0: that rate differs from SGD's by the first "
            "order of η (power, η = .0125 to .1)",
            # The second order adds some per cent.
            near(slope(np.log(fine), np.log(np.abs(apart))), 1.0, tolerance=0.05),
        ),
        Claim(
            "open problem 1",
            "the correction of the next order brings it closer: differences of the rates at "
            "η = .4, without and with it",
            above(
                coarse,
                2 * abs(second[0][0] - _mean_rate(hessians, 0.4)),
                error=float(np.hypot(rates[0.4][1], 2 * second[0][1])),
            ),
        ),
    ]


def _large(setting: Setting, hessians: Any, found: dict[float, Any]) -> list[Claim]:
    threshold = float(tw.stability.mean_square_threshold(hessians, batch_size=1))
    almost = float(tw.stability.almost_sure_threshold(hessians, 1, key=setting.key).value)
    (rate, error), (path, path_error) = found[_LARGE]
    return [
        Claim(
            "open problem 1",
            "the model is valid at every step at which SGD is used: at η = 1.5, beyond the "
            "threshold 4/3 in mean square, the rate of E f",
            near(rate, _mean_rate(hessians, _LARGE), error=error, tolerance=_EULER),
            both(
                below(rate, 0.0, error=error),
                above(_mean_rate(hessians, _LARGE), 0.0),
                near(threshold, 4 / 3, tolerance=1e-9),
            ),
            correction="it is blind to finite steps: the equation still converges in mean square "
            "where SGD's mean grows",
        ),
        Claim(
            "open problem 1",
            "single paths of the equation converge faster the larger η is, log f at the rate "
            f"-(2 + η/2), without a threshold; those of SGD diverge from η = {almost:.3f} on",
            both(
                near(path, -2 - _LARGE / 2, error=path_error, tolerance=2 * _EULER),
                below(_path_rate(setting, hessians, 0.98 * almost), 0.0),
                above(_path_rate(setting, hessians, 1.02 * almost), 0.0),
            ),
        ),
    ]


def _picture() -> Picture:
    mean_square = [
        Series("rates", "eta", "mean", "SGD", "sgd"),
        Series("rates", "eta", "limit mean", "diffusion limit", dashed=True),
        Series("limit", "eta", "mean", "diffusion limit, paths", "", "points", error="error"),
    ]
    path = [
        Series("rates", "eta", "path", "", "sgd"),
        Series("rates", "eta", "limit path", "", dashed=True),
    ]
    return Picture(
        "continuum",
        "Rates at which the mean loss and the loss along single paths change, by the step of SGD, "
        "on two quadratics that vanish together: SGD (exact) and its diffusion limit.",
        [
            Panel("step η", "rate of log E f", mean_square, lines=((0.0, ""),)),
            Panel("step η", "rate of E log f", path, lines=((0.0, ""),)),
        ],
    )
