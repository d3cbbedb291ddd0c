"""Steps that shorten where the stochastic gradient is large, and what that costs."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_FIRST, _ALPHA = 0.1, 0.1
_CENTRES, _WEIGHTS = (1.0, -9.0), (0.9, 0.1)


@experiment(
    "giselsson/large-gradients",
    "Damping by the norm of the drawn gradient: bounded moves, and another fixed point",
    covers=("large gradients",),
    seconds=(3, 6),
)
def large_gradients(setting: Setting) -> Outcome:
    """Steps by the norm of the gradient, and where damped SGD settles on two quadratics."""
    rule = tw.steps.damped(_FIRST, _ALPHA)
    norms = np.logspace(-9, 9, 19)
    steps = np.array([step_of(rule, norm) for norm in norms])
    settled = {first: _settled(first, setting) for first in (_FIRST, _FIRST / 10)}
    tables: dict[str, dict[str, Any]] = {
        "rule": {"norm": norms, "step": steps, "length": steps * norms},
        "moves": _moves(),
        "settled": {
            "step": list(settled),
            "mean": [value for value, _ in settled.values()],
            "error": [error for _, error in settled.values()],
        },
    }
    return Outcome(_claims(norms, steps, settled), tables, [_picture()])


def step_of(rule: Any, norm: float, epoch: int = 0) -> float:
    """The step size that a rule takes with a gradient of this norm."""
    updates, _ = rule.update(jnp.array([norm]), jnp.array(epoch, jnp.int32))
    return float(-updates[0]) / norm


def _term(x: Any, centre: Any) -> Any:
    return 0.5 * jnp.sum(jnp.square(x - centre.astype(x.dtype)))


def _settled(first: float, setting: Setting) -> tuple[float, float]:
    """The mean of the iterates; the minimiser of the mean of the two is 0."""
    problem = tw.FiniteSum(_term, np.array(_CENTRES), weights=_WEIGHTS)
    rule = tw.steps.damped(first, _ALPHA)
    run = tw.simulate(
        tw.Descent(problem, tw.Minibatch(1), rule),
        jnp.zeros(1),
        steps=setting.choose(6000, 20_000),
        key=setting.key,
        chains=setting.choose(200, 1000),
        record=tw.Record(means={"x": lambda x: x[0]}, burn_in=2000),
    )
    return Mean.of(run.means["x"])


def _fixed_point() -> float:
    """Of the mean move: .9(1-x)/(1 + α(1-x)) = .1(9+x)/(1 + α(9+x)), x² + 20.5x - 9 = 0."""
    return (math.sqrt(20.5**2 + 36) - 20.5) / 2


def _moves() -> dict[str, np.ndarray]:
    x = np.linspace(-1.0, 1.5, 101)
    to = np.array(_CENTRES)[:, None] - x
    weights = np.array(_WEIGHTS)[:, None]
    damped = np.sum(weights * to / (1 + _ALPHA * np.abs(to)), axis=0)
    return {"x": x, "damped": _FIRST * damped, "plain": _FIRST * np.sum(weights * to, axis=0)}


def _claims(
    norms: np.ndarray, steps: np.ndarray, settled: dict[float, tuple[float, float]]
) -> list[Claim]:
    far, error = settled[_FIRST / 10]
    fixed = _fixed_point()
    return [
        Claim(
            "Large gradients",
            "the steps γ0/(α|g| + 1) are small where the gradient is large: no move is longer than "
            "γ0/α = 1, at any norm up to 1e9",
            both(
                below(float(steps[-1]), 1e-8),
                below(float((steps * norms).max()), _FIRST / _ALPHA + 1e-12),
            ),
        ),
        Claim(
            "Large gradients",
            "they are about γ0 where it is small",
            near(float(steps[0]), _FIRST, tolerance=1e-9),
        ),
        Claim(
            "Large gradients",
            "as SGD's, its mean move vanishes at the solution, so that short steps settle there: "
            "centres 1 (probability .9) and -9 (.1), whose solution is 0",
            near(far, 0.0, error=error),
            both(
                near(round(fixed, 2), 0.43, tolerance=1e-12),
                # What the curvature of the mean move shifts is in proportion to the step.
                near(far, fixed, error=error, tolerance=0.05),
                above(far, 0.2, error=error),
            ),
            correction="damping by the drawn gradient is biased: the mean move vanishes at .43 for "
            "α = .1",
        ),
    ]


def _picture() -> Picture:
    return Picture(
        "large-gradients",
        "Left: the step γ0/(α|g| + 1) and the length of the move it makes, γ0 = α = .1. Right: the "
        "mean move of SGD, which vanishes at the solution 0, and of the damped rule, which "
        "vanishes at .43.",
        [
            Panel(
                "norm of the drawn gradient |g|",
                "step, length of the move",
                [
                    Series("rule", "norm", "step", "step"),
                    Series("rule", "norm", "length", "length", dashed=True),
                ],
                log="xy",
            ),
            Panel(
                "x",
                "mean move",
                [
                    Series("moves", "x", "plain", "SGD", "sgd"),
                    Series("moves", "x", "damped", "damped", "rr"),
                ],
                lines=((0.0, ""),),
            ),
        ],
    )
