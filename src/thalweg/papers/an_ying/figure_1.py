"""Figure 1: the sharp global minimum of two wells of straight lines, left by SGD and kept by RR."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.an_ying.common import LEFT, POPULATION, kept_on_lattice
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Share
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_MARKS = (100, 1000, 10_000)
# Not a multiple of two: near the minimum RR by gradient norms goes to and fro.
_PATH, _EVERY = 4004, 7
_STEP = 0.04


@experiment(
    "an-ying/figure-1",
    "Two wells of straight lines: SGD jumps to the flat well, RR stays in the sharp, global one",
    covers=("Figure 1",),
    seconds=(8, 20),
)
def figure_1(setting: Setting) -> Outcome:
    """Fractions that have left by 100, 1000 and 10,000 steps, and one path of each."""
    landscape = tw.landscapes.piecewise_linear()
    chains = setting.choose(1000, 10_000)
    exits = tw.stopping.LeftBox([LEFT], [np.inf])
    samplers = {
        "sgd": ("SGD", tw.Minibatch(1)),
        "rr-population": ("RR, by Lipschitz constants", POPULATION),
        "rr": ("RR, by gradient norms", tw.Reweighted(1)),
    }
    left, exact, paths = {}, {}, {}
    for family, (label, sampler) in samplers.items():
        descent = tw.Descent(landscape.problem, sampler, _STEP)
        run = tw.simulate(
            descent,
            landscape.start,
            steps=_MARKS[-1],
            key=setting.key,
            chains=chains,
            exit=exits,
            progress=setting.progress_of(label),
        )
        steps = np.asarray(run.exit_step)
        left[family] = [Share.of((steps >= 0) & (steps <= mark)) for mark in _MARKS]
        exact[family] = kept_on_lattice(sampler, _STEP, _MARKS).left
        record = tw.Record(every=_EVERY)
        path = tw.simulate(descent, landscape.start, steps=_PATH, key=setting.key, record=record)
        paths[family] = np.asarray(path.records["params"])[0, :, 0]
    return Outcome(_claims(left, exact), _tables(landscape, left, paths), [_picture(samplers)])


def _claims(left: dict[str, list[Share]], exact: dict[str, np.ndarray]) -> list[Claim]:
    (late, late_error), (population, population_error) = left["sgd"][1], left["rr-population"][2]
    (norms, norms_error) = left["rr"][2]
    # Found before by simulation, with standard errors.
    before = {
        "sgd": ((0.318, 0.007), (0.951, 0.003), (1.0, 1e-4)),
        "rr-population": ((0.0, 1e-4), (0.0, 1e-4), (0.0008, 0.0004)),
        "rr": ((0.009, 0.002), (0.081, 0.004), (0.568, 0.008)),
    }
    told = {
        "sgd": "SGD .318(7), .951(3) and 1",
        "rr-population": "RR of section 2 none, none and .0008(4)",
        "rr": "RR of section 3 .009(2), .081(4) and .568(8)",
    }
    numbers = [
        Claim(
            "Figure 1",
            f"the shares that have left by 100, 1000 and 10,000 steps: {told[family]} (found "
            "before); exact here, and then simulated",
            both(
                *(
                    near(float(p), number, error=error)
                    for p, (number, error) in zip(exact[family], rows, strict=True)
                ),
                *(
                    near(share.value, float(p), error=share.error)
                    for share, p in zip(left[family], exact[family], strict=True)
                ),
            ),
        )
        for family, rows in before.items()
    ]
    return [
        Claim(
            "Figure 1 (2)",
            "SGD leaves the sharp global minimum after several iterations: the share that has left "
            "by 1000 steps is above a half",
            above(late, 0.5, error=late_error),
        ),
        Claim(
            "Figure 1 (3)",
            "RR stays around the global minimum all the time: by 10,000 steps less than 1 % have "
            "left (scheme of section 2, by Lipschitz constants)",
            below(population, 0.01, error=population_error),
        ),
        Claim(
            "Figure 1 (3)",
            "RR by gradient norms (section 3) stays, too",
            below(norms, 0.01, error=norms_error),
            both(above(norms, 0.5, error=norms_error), below(norms, 0.9, error=norms_error)),
            correction="it leaves more slowly than SGD, but .58 have left by 10,000 steps",
        ),
        *numbers,
    ]


def _tables(
    landscape: tw.Landscape,
    left: dict[str, list[Share]],
    paths: dict[str, np.ndarray],
) -> dict[str, dict[str, Any]]:
    shares: dict[str, Any] = {"steps": _MARKS}
    for family, numbers in left.items():
        shares[family] = [share for share, _ in numbers]
        shares[f"{family} error"] = [error for _, error in numbers]
    theta = np.linspace(-2.0, 0.8, 281)
    V = [float(landscape.problem.value(jnp.array([t]))) for t in theta]
    return {
        "left": shares,
        "paths": {"step": np.arange(0, _PATH + 1, _EVERY), **paths},
        "landscape": {"theta": theta, "V": V},
    }


def _picture(samplers: dict[str, tuple[str, Any]]) -> Picture:
    minima = ((-1.0, "flat minimum"), (0.2, ""))
    paths = [
        Panel(
            "iteration k",
            "θ",
            [Series("paths", "step", family, label, family)],
            limits=(-1.3, 0.6),
            lines=minima,
        )
        for family, (label, _) in samplers.items()
    ]
    return Picture(
        "figure-1",
        "The objective, and one path of each sampler from θ = .25 with η = .04; the global minimum "
        "is at .2, the other at -1.",
        [Panel("θ", "V(θ)", [Series("landscape", "theta", "V")]), *paths],
    )
