"""(2.1) against (2.3): how far SGD's law is from that of the equation, by the learning rate."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_STEPS = (0.32, 0.16, 0.08, 0.04, 0.02)
_TEMPERATURE = 0.3


def _wavy(x: Float[Array, ""]) -> Float[Array, ""]:
    """Second derivatives between -.6 and 2.6: gradients grow no faster than their argument."""
    return x**2 / 2 + 0.4 * jnp.cos(2 * x)


def _loss(params: Float[Array, " 1"]) -> Float[Array, ""]:
    return _wavy(params[0])


def _term(params: Float[Array, " 1"], slope: Float[Array, ""]) -> Float[Array, ""]:
    return _wavy(params[0]) + slope * params[0]


@experiment(
    "dai-zhu/diffusion-limit",
    "SGD and its equation at one temperature: the distance of their laws is of first order in γ",
    covers=("(2.1)",),
    seconds=(3, 3),
)
def diffusion_limit(setting: Setting) -> Outcome:
    """Total variation on a grid, with Gaussian draws of the temperature .3."""
    grid = tw.Grid(-4.5, 4.5, 450)
    rows = np.array([_distances(grid, step) for step in _STEPS]).T
    tables = {
        "distances": {
            "step": _STEPS,
            "equation": rows[0],
            "corrected": rows[1],
            "first": rows[0][-1] * np.array(_STEPS) / _STEPS[-1],
            "second": rows[1][-1] * (np.array(_STEPS) / _STEPS[-1]) ** 2,
        }
    }
    return Outcome(_claims(*rows), tables, [_picture()])


def _distances(grid: tw.Grid, step: float) -> tuple[float, float]:
    """Of SGD's law to exp(-L/T), and to the same with the potential corrected."""
    size = math.sqrt(2 * _TEMPERATURE / step)
    problem = tw.FiniteSum(_term, jnp.array([size, -size]))
    chain = tw.discretise(tw.Descent(problem, tw.Minibatch(1), step), grid, draws="gaussian")
    law = chain.stationary().density

    def apart(potential: Any) -> float:
        gibbs = jnp.exp(-grid.function(potential) / _TEMPERATURE)
        return tw.markov.total_variation(grid, law, grid.normalise(gibbs))

    return apart(_loss), apart(tw.corrected_potential(_loss, step, _TEMPERATURE))


def _claims(equation: np.ndarray, corrected: np.ndarray) -> list[Claim]:
    first, second = (np.log2(row[:-1] / row[1:]) for row in (equation, corrected))
    return [
        Claim(
            "(2.1) and (2.3)",
            "SGD is the equation discretised by Euler's scheme, and has its law: total variation "
            "below .001 at γ = .16, temperature .3",
            # Normal draws wider than five cells are right to rounding on the grid.
            near(float(equation[1]), 0.0, tolerance=1e-3),
            both(
                near(float(first[-1]), 1.0, tolerance=0.05),
                above(float(equation[1]), 0.01),
            ),
            reading="as γ -> 0 with γ/M fixed: the distance is of first order in γ (slope between "
            "the smallest two)",
        ),
        Claim(
            "beyond (2.3)",
            "the potential L - γ|∇L|²/4 + γTΔL/2 in place of L is right to the second order (slope "
            "between the smallest two)",
            near(float(second[-1]), 2.0, tolerance=0.1),
        ),
    ]


def _picture() -> Picture:
    return Picture(
        "diffusion-limit",
        "Total variation between the stationary laws of SGD with Gaussian gradients and of its "
        "equation, L = w²/2 + .4 cos 2w, T = .3; and with the corrected potential.",
        [
            Panel(
                "learning rate γ",
                "total variation",
                [
                    Series("distances", "step", "equation", "exp(-L/T)", "sgd", "points"),
                    Series("distances", "step", "corrected", "corrected", "rr", "points"),
                    Series("distances", "step", "first", "first order", dashed=True),
                    Series("distances", "step", "second", "second order", dashed=True),
                ],
                log="y",
            )
        ],
    )
