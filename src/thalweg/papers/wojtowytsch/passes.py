"""Open problem 6: random pass against random choice, where the noise vanishes at minimisers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import quadratics, two_factors

# Four data in the plane; their Hessians are x x'.
_ROWS = np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0], [1.0, -1.0]])
_STEP = 0.02


@experiment(
    "wojtowytsch/passes",
    "Random passes converge faster and at larger steps than random choice, and end less at random",
    covers=("open problem 6, random pass",),
    seconds=(4, 7),
)
def passes(setting: Setting) -> Outcome:
    """Radii and thresholds in mean square, exactly, and the limits on two factors."""
    hessians = jnp.asarray(_ROWS[:, :, None] * _ROWS[:, None, :])
    steps = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    choice = np.array([_choice(hessians, s) for s in steps])
    order = np.array([_pass(setting, hessians, s) for s in steps])
    ends = {name: _ends(setting, sampler) for name, sampler in _SAMPLERS.items()}
    claims = [
        *_threshold_claims(setting, hessians),
        _rates(steps, choice, order),
        _pair(setting),
        *_limit_claims(ends),
    ]
    _, edges = np.histogram(np.concatenate(list(ends.values())), bins=40)
    densities = {
        name: np.histogram(e, bins=edges, density=True)[0] / 1000 for name, e in ends.items()
    }
    tables = {
        "radii": {"eta": steps, "choice": choice, "pass": order},
        "limits": {"log": 1000 * (edges[1:] + edges[:-1]) / 2, **densities},
    }
    return Outcome(claims, tables, [_picture()])


_SAMPLERS: dict[str, Any] = {"sgd": tw.Minibatch(1), "reshuffled": tw.Reshuffled(1)}


def _choice(hessians: Any, step: float) -> float:
    """Growth of the mean square in as many steps as there are data."""
    return float(tw.stability.mean_square_radius(hessians, step, 1)) ** len(_ROWS)


def _pass(setting: Setting, hessians: Any, step: float) -> float:
    return float(tw.stability.reshuffled_radius(hessians, step, 1, key=setting.key).value)


def _threshold_claims(setting: Setting, hessians: Any) -> list[Claim]:
    choice = float(tw.stability.mean_square_threshold(hessians, batch_size=1))
    order = float(tw.stability.reshuffled_threshold(hessians, 1, key=setting.key).value)
    return [
        Claim(
            "open problem 6",
            "in mean square random passes are stable at larger steps than random choice: "
            "thresholds of least squares with four data in the plane (random choice .261643)",
            both(near(choice, 0.261643, tolerance=1e-6), above(order, choice)),
        )
    ]


def _rates(steps: np.ndarray, choice: np.ndarray, order: np.ndarray) -> Claim:
    middle = steps == 0.15
    return Claim(
        "open problem 6",
        "a pass contracts more than as many random draws at every step below, and by as much at "
        "small ones: radii at η = .15, and the ratio of their logs at η = .02",
        both(
            below(float(order[middle][0]), float(choice[middle][0])),
            near(float(np.log(order[0]) / np.log(choice[0])), 1.0, tolerance=0.1),
        ),
    )


def _pair(setting: Setting) -> Claim:
    """Two data in one dimension: a pass is the same whatever the order."""
    step = 1.4
    root = 1 - 2 * step + step**2 / 2
    runs = {}
    for name, sampler in _SAMPLERS.items():
        run = tw.simulate(
            tw.Descent(quadratics(), sampler, step),
            jnp.ones(1),
            steps=8,
            key=setting.key,
            chains=20_000,
        )
        runs[name] = Mean.of(np.asarray(run.params)[:, 0] ** 2)
    draws = (1 - 2 * step + 1.5 * step**2) ** 8
    return Claim(
        "open problem 6",
        "on two data in one dimension a pass has no randomness at all: E f after four passes at "
        f"η = {step}, where it falls by the power of (1 - ηh₁)(1 - ηh₂), and after eight random "
        "draws, where it grows",
        both(
            near(runs["reshuffled"][0], root**8, tolerance=1e-9),
            near(runs["sgd"][0], draws, error=runs["sgd"][1], tolerance=0.1 * draws),
            above(runs["sgd"][0], 1.0, error=runs["sgd"][1]),
        ),
    )


def _ends(setting: Setting, sampler: Any) -> np.ndarray:
    """Limits on two factors: the log of a^2 - b^2 relative to its start."""
    start = np.array([2.0, 0.1])
    run = tw.simulate(
        tw.Descent(two_factors(), sampler, _STEP),
        jnp.asarray(start),
        steps=1000,
        key=setting.key,
        chains=setting.choose(2000, 20_000),
    )
    ends = np.asarray(run.params)
    return np.log((ends[:, 0] ** 2 - ends[:, 1] ** 2) / (start[0] ** 2 - start[1] ** 2))


def _limit_claims(ends: dict[str, np.ndarray]) -> list[Claim]:
    spreads = {name: float(values.std(ddof=1)) for name, values in ends.items()}
    ratio = spreads["reshuffled"] / spreads["sgd"]
    centres = {name: Mean.of(values) for name, values in ends.items()}
    apart = centres["sgd"][0] / centres["reshuffled"][0]
    count = len(ends["sgd"])
    return [
        Claim(
            "open problem 6",
            "the limit in the set of minimisers is as random after random passes as after random "
            "choice: ratio of the deviations of log(a² - b²)",
            near(ratio, 1.0, error=ratio / count**0.5, tolerance=0.1),
            both(below(ratio, 0.9, error=ratio / count**0.5), above(spreads["reshuffled"], 0.0)),
            correction="less so",
        ),
        Claim(
            "open problem 6",
            "on the mean they end at the same place: ratio of the mean shifts of log(a² - b²), "
            "which are of the order η",
            near(apart, 1.0, error=0.0, tolerance=0.1),
        ),
    ]


def _picture() -> Picture:
    radii = [
        Series("radii", "eta", "choice", "random choice", "sgd"),
        Series("radii", "eta", "pass", "random pass", "reshuffled"),
    ]
    limits = [
        Series("limits", "log", "sgd", "", "sgd", "steps"),
        Series("limits", "log", "reshuffled", "", "reshuffled", "steps"),
    ]
    return Picture(
        "passes",
        "Growth of the mean square over n = 4 draws and over a pass, least squares in the plane; "
        "where chains on two factors end on "
        "the hyperbola of minimisers, by the change of log(a² - b²) from the start (η = .02).",
        [
            Panel("step η", "growth of E|θ|² in n steps", radii, log="y", lines=((1.0, ""),)),
            Panel("1000 Δ log(a² - b²)", "density", limits),
        ],
    )
