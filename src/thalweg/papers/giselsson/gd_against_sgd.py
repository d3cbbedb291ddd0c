"""Three quadratics: gradient descent beside stochastic gradient descent."""

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson.common import step_size
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_STEPS = 60
_START = (2.0, 1.0)


@experiment(
    "giselsson/gd-against-sgd",
    "GD goes straight to the solution where SGD with the same step ends in a noise ball",
    covers=("GD against SGD",),
    seconds=(3, 4),
)
def gd_against_sgd(setting: Setting) -> Outcome:
    """Paths with γ = 1/3 for the mean of the three terms, and for their sum."""
    landscape = tw.landscapes.three_quadratics()
    start = jnp.array(_START)
    record = tw.Record(every=1)
    chains = setting.choose(500, 5000)
    runs = {}
    for name, sampler, step, count in (
        ("sgd", tw.Minibatch(1), landscape.step, chains),
        ("gd", tw.Full(), landscape.step, 1),
        # The gradient of the sum is three times that of the mean.
        ("sum", tw.Full(), 3 * step_size(landscape), 1),
    ):
        descent = tw.Descent(landscape.problem, sampler, step)
        run = tw.simulate(
            descent, start, steps=_STEPS, key=setting.key, chains=count, record=record
        )
        runs[name] = np.asarray(run.records["params"])
    tables = {name: {"x": path[0, :, 0], "y": path[0, :, 1]} for name, path in runs.items()}
    centres = np.asarray(landscape.problem.data)
    tables["centres"] = {"x": centres[:, 0], "y": centres[:, 1]}
    squares = np.sum(runs["sgd"] ** 2, axis=2)
    tables["distance"] = {
        "step": np.arange(_STEPS + 1),
        "sgd": np.sqrt(squares.mean(axis=0)),
        "gd": np.sqrt(np.sum(runs["gd"][0] ** 2, axis=1)),
    }
    return Outcome(_claims(step_size(landscape), runs), tables, [_picture()])


def _claims(gamma: float, runs: dict[str, np.ndarray]) -> list[Claim]:
    gd, total = runs["gd"][0], runs["sum"][0]
    lengths = np.sqrt(np.sum(gd**2, axis=1))
    direction = gd[0] / lengths[0]
    aside = float(np.abs(gd @ np.array([-direction[1], direction[0]])).max())
    end, error = Mean.of(np.sum(runs["sgd"][:, -1] ** 2, axis=1))
    left = (1 - gamma) ** (2 * _STEPS) * float(lengths[0]) ** 2
    return [
        Claim(
            "SGD - Example",
            "constant-step GD converges to the solution, along a straight line here",
            both(below(float(lengths[-1]), 1e-9), near(aside, 0, tolerance=1e-12)),
        ),
        Claim(
            "SGD - Example",
            "with γ = 1/3 it goes to the solution at once",
            near(float(np.linalg.norm(gd[1])), 0, tolerance=1e-12),
            near(float(np.linalg.norm(total[1])), 0, tolerance=1e-12),
            reading="the objective is the sum of the three, as the slide writes it; the mean, with "
            "which the slides define SGD, has a third of the gradient",
        ),
        Claim(
            "SGD - Example",
            "for the mean of the three, GD contracts by 1 - γ = 2/3 a step",
            # Further on the rounding of x itself is seen.
            near(float(lengths[10] / lengths[0]) ** 0.1, 1 - gamma, tolerance=1e-12),
        ),
        Claim(
            "SGD - Example",
            "SGD with the same step does not get closer than the ball: after "
            f"{_STEPS} steps E|x|² is γ/(2 - γ) = .2, for the noise of its gradients",
            both(
                near(end, gamma / (2 - gamma) + left, error=error),
                above(end, float(lengths[-1]) ** 2, error=error),
            ),
        ),
    ]


def _picture() -> Picture:
    paths = [
        Series("sgd", "x", "y", "SGD, γ = 1/3", "sgd"),
        Series("gd", "x", "y", "GD on the mean, γ = 1/3", "gd"),
        Series("sum", "x", "y", "GD on the sum, γ = 1/3", "", "points"),
        Series("centres", "x", "y", "centres c₁, c₂, c₃", "", "points"),
    ]
    distances = [
        Series("distance", "step", "sgd", "", "sgd"),
        Series("distance", "step", "gd", "", "gd"),
    ]
    return Picture(
        "gd-against-sgd",
        "Left: one path of SGD, and GD, from (2, 1). Right: root mean square distance from the "
        "solution.",
        [
            Panel("x₁", "x₂", paths),
            Panel("iteration k", "(E|x|²)^½", distances, log="y", limits=(1e-6, 10)),
        ],
    )
