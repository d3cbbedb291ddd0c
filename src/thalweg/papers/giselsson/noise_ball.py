"""Three quadratics around an equilateral triangle: the noise ball of a constant step."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, below, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson.common import square, step_size
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_SHOWN = 200


@experiment(
    "giselsson/noise-ball",
    "SGD with a constant step does not converge: it stays in a ball around the solution",
    covers=("noise ball", "fixed step at a solution"),
    seconds=(4, 10),
)
def noise_ball(setting: Setting) -> Outcome:
    r"""The stationary :math:`E|x|^2` for batches of one and two.

    With :math:`f_i = |x - c_i|^2/2`, unit :math:`c_i` and step :math:`\gamma` the chain is linear,
    :math:`x \leftarrow (1 - \gamma) x + \gamma c_i`, hence
    :math:`E|x|^2 = \gamma/((2 - \gamma) B')` with :math:`1/B' = (3 - B)/(2B)` without replacement.
    """
    landscape = tw.landscapes.three_quadratics(start="minimum")
    chains, steps = setting.choose(200, 1000), setting.choose(2000, 5000)
    found: dict[int, tuple[float, float]] = {}
    cloud: dict[str, Any] = {}
    for batch in (1, 2):
        descent = tw.Descent(landscape.problem, tw.Minibatch(batch), landscape.step)
        record = tw.Record(means={"square": square}, burn_in=100)
        run = tw.simulate(
            descent, landscape.start, steps=steps, key=setting.key, chains=chains, record=record
        )
        found[batch] = Mean.of(run.means["square"])
        cloud[f"x{batch}"], cloud[f"y{batch}"] = np.asarray(run.params).T[:, :_SHOWN]
    squares = {
        "batch": [1, 2],
        "mean": [found[b][0] for b in (1, 2)],
        "error": [found[b][1] for b in (1, 2)],
    }
    return Outcome(
        _claims(step_size(landscape), found, landscape),
        {"ends": cloud, "squares": squares},
        [_picture()],
    )


def _claims(
    gamma: float, found: dict[int, tuple[float, float]], landscape: tw.Landscape
) -> list[Claim]:
    exact = gamma / (2 - gamma)
    single, pair = found[1], found[2]
    shares = landscape.problem.gradients(landscape.start)
    moved = gamma * float(jnp.sqrt(jnp.sum(shares**2, axis=1)).min())
    full = float(jnp.sqrt(square(landscape.problem.gradient(landscape.start))))
    return [
        Claim(
            "SGD - Example",
            "with γ = 1/3 and one sample a step the iterates stay in a noise ball; for unit "
            "equilateral centres E|x|² = γ/(2 - γ) = .2",
            near(single[0], exact, error=single[1]),
        ),
        Claim(
            "SGD - Example",
            "the ball is that of the chain and not of its diffusion limit, which has γ/2 = 1/6",
            above(single[0], gamma / 2, error=single[1]),
        ),
        Claim(
            "Minibatch setting",
            "pairs without replacement have a quarter of it",
            near(pair[0], exact / 4, error=pair[1]),
        ),
        Claim(
            "Fixed step-size SGD does not converge to solution",
            "at the solution, where the mean of the gradients vanishes and theirs do not, every "
            "draw moves away, by γ|c_i| = 1/3",
            near(moved, gamma, tolerance=1e-12),
        ),
        Claim(
            "Fixed step-size SGD does not converge to solution",
            "GD has no such motion: its step from the solution has no length",
            below(gamma * full, 1e-15),
        ),
    ]


def _picture() -> Picture:
    points = [
        Series("ends", "x1", "y1", "B = 1", "sgd", "points"),
        Series("ends", "x2", "y2", "B = 2", "sgd-half", "points"),
    ]
    return Picture(
        "noise-ball",
        "Where chains with γ = 1/3 are after many steps, for batches of one and of two; the "
        "solution is at the origin.",
        [Panel("x₁", "x₂", points)],
    )
