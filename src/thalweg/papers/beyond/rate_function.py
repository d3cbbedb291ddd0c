"""How long SGD stays: by the rate function of its own draws, and not by its diffusion's."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import Check, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

# Gradients are f' + .45 or f' - .45, and f' reaches .385 on the way up.
_NOISE = 0.45
_LEFT, _TOP = -1.0, 0.0


@experiment(
    "beyond/rate-function",
    "Exit times grow with the rate function of SGD's own draws, and not with its diffusion's",
    covers=("rate function",),
    seconds=(6, 10),
)
def rate_function(setting: Setting) -> Outcome:
    r"""Exponents of mean exit times from a well, exactly, against both quasi-potentials.

    For gradients :math:`f' \pm a` the momentum :math:`q = \eta p` of a way up solves
    :math:`\log\cosh(a q) = q f'`, and the diffusion limit's is :math:`2 f'/a^2`.
    """
    etas = np.array(setting.choose((0.25, 0.2, 0.16, 0.13), (0.25, 0.2, 0.16, 0.13, 0.11, 0.1)))
    problem = tw.FiniteSum(_loss, jnp.array([_NOISE, -_NOISE]))
    unit = tw.Descent(problem, tw.Minibatch(1), 1.0)
    grid = tw.Grid(-1.9, 0.4, 800)
    exponents = {
        name: float(tw.quasi_potential(dynamics, grid, jnp.array([_LEFT])).at([_TOP]))
        for name, dynamics in (("sgd", unit), ("diffusion", tw.diffusion_limit(unit)))
    }
    logs = np.array([_log_exit_time(problem, eta, setting) for eta in etas])
    # E tau = (prefactor) exp(V/eta), the prefactor a power of eta: between two steps of SGD the
    # slope of the logarithm is V up to half of eta, and of eta's power.
    slopes = np.diff(logs) / np.diff(1 / etas)
    table = {
        "1/η": 1 / etas,
        "log10 E τ": logs / np.log(10),
        **{
            name: (logs[0] + exponent * (1 / etas - 1 / etas[0])) / np.log(10)
            for name, exponent in exponents.items()
        },
    }
    between = {"η": np.sqrt(etas[1:] * etas[:-1]), "slope": slopes}
    return Outcome(
        _claims(exponents, float(slopes[-1]), float(etas[-2])),
        {"times": table, "slopes": between},
        [_picture(exponents)],
    )


def _loss(x: Any, push: Any) -> Any:
    return (x[0] ** 2 - 1) ** 2 / 4 + push * x[0]


def _log_exit_time(problem: tw.FiniteSum, eta: float, setting: Setting) -> float:
    """The logarithm of the mean steps from the left minimum until the top is crossed, exactly."""
    grid = tw.Grid(-1.9, 0.4, setting.choose(920, 1840))
    chain = tw.discretise(tw.Descent(problem, tw.Minibatch(1), eta), grid)
    found = chain.exit_time(lambda x: x[0] < _TOP)
    return float(np.log(found.at([_LEFT]) / eta))


def _claims(exponents: dict[str, float], slope: float, eta: float) -> list[Claim]:
    own, equation = exponents["sgd"], exponents["diffusion"]
    closed = _closed_form()
    # The prefactor's power of eta shifts the slope by a few eta.
    return [
        Claim(
            "rate function",
            "the quasi-potential of SGD's own draws is the integral of the momentum that solves "
            "log cosh(a q) = q f'; that of its diffusion limit 2 (f(0) - f(-1))/a²",
            both(
                near(own, closed, tolerance=1e-3 * closed),
                near(equation, 0.5 / _NOISE**2, tolerance=1e-3 * equation),
            ),
        ),
        Claim(
            "exit times",
            "the mean number of steps until SGD leaves grows as exp(V/η) with the quasi-potential "
            "of its diffusion limit",
            _slope(slope, equation, eta),
            _slope(slope, own, eta),
            correction="with that of its own draws: rare ways out are made of rare draws, whose "
            "law is not Gaussian, and smaller steps do not make them so",
        ),
    ]


def _slope(slope: float, exponent: float, eta: float) -> Check:
    return near(slope, exponent, tolerance=eta)


def _closed_form() -> float:
    """The integral over the way up, by bisection in every point."""
    x = np.linspace(_LEFT, _TOP, 4001)
    x = (x[1:] + x[:-1]) / 2
    slope = x**3 - x
    low, high = np.full_like(x, 1e-9), np.full_like(x, 1e3)
    for _ in range(80):
        middle = (low + high) / 2
        product = _NOISE * middle
        cosh = np.logaddexp(product, -product) - np.log(2)
        up = cosh < middle * slope
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return float(np.mean(middle) * (_TOP - _LEFT))


def _picture(exponents: dict[str, float]) -> Picture:
    return Picture(
        "rate-function",
        "Mean number of steps until SGD crosses the top of f = (x² - 1)²/4, from its own "
        "transition matrix; and what the quasi-potentials of SGD and of its diffusion limit say.",
        [
            Panel(
                "1/η",
                "log₁₀ of the mean time in steps",
                [
                    Series("times", "1/η", "log10 E τ", "SGD, exact", "sgd", "points"),
                    Series("times", "1/η", "sgd", f"V = {exponents['sgd']:.3g}, own", "sgd"),
                    Series(
                        *("times", "1/η", "diffusion"),
                        f"V = {exponents['diffusion']:.3g}, diffusion",
                        dashed=True,
                    ),
                ],
            ),
            Panel(
                "step η",
                "slope of log E τ",
                [Series("slopes", "η", "slope", "SGD, exact", "sgd", "points")],
                lines=[(exponents["sgd"], "own"), (exponents["diffusion"], "diffusion")],
            ),
        ],
    )
