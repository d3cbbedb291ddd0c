"""Figure 4 (1): the Mueller-Brown potential."""

from typing import Any

import jax
import numpy as np

import thalweg as tw
from thalweg.papers.an_ying.common import ends_in, values
from thalweg.papers.an_ying.surfaces import SAMPLERS, descended, note, panels
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Share, apart
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Picture


@experiment(
    "an-ying/figure-4-mueller-brown",
    "Mueller-Brown: SGD loses the basin of the global minimum, RR keeps it",
    covers=("Figure 4 (1)",),
    seconds=(11, 20),
)
def figure_4_mueller_brown(setting: Setting) -> Outcome:
    """Shares in the global basin after 1000 iterations, under two readings of the terms."""
    chains = setting.choose(200, 2000)
    landscape = tw.landscapes.mueller_brown()
    shares: dict[str, dict[str, Share]] = {"V_i": {}}
    tables: dict[str, dict[str, Any]] = {"paths": {}, "energies": {}}
    for family, (label, sampler) in SAMPLERS.items():
        run = descended(landscape, sampler, setting, chains, label)
        shares["V_i"][family] = ends_in(landscape, run.params)
        note(landscape, family, run, tables)
    others = {
        "V_i/4": tw.landscapes.mueller_brown(scale=0.25),
        "V_i, A_1 = -200": tw.landscapes.mueller_brown(a1=-200.0),
    }
    for name, other in others.items():
        shares[name] = {}
        for family in ("sgd", "rr"):
            label, sampler = SAMPLERS[family]
            run = descended(other, sampler, setting, chains, f"{name} {label}")
            shares[name][family] = ends_in(other, run.params)
    rows = [(name, family, *share) for name, row in shares.items() for family, share in row.items()]
    columns = ("terms", "sampler", "share", "error")
    tables["shares"] = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
    tables["landscape"] = _surface(landscape)
    return Outcome(
        [*_claims(shares), *_points(landscape)],
        tables,
        [_picture()],
        [
            f"{chains} chains from (-.8, 1) with η = .002, 1000 iterations; the objective is the "
            "mean of the four terms."
        ],
    )


def _surface(landscape: tw.Landscape) -> dict[str, np.ndarray]:
    """V/4 on a grid; cut off where it rises beyond the figure."""
    x, y = np.linspace(-1.5, 1.25, 111), np.linspace(-0.5, 2.25, 111)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return {"x": x, "y": y, "V/4": np.minimum(values(landscape.problem, points), 10.0)}


def _claims(shares: dict[str, dict[str, Share]]) -> list[Claim]:
    whole, quarter, usual = shares.values()
    sgd, rr = whole["sgd"], whole["rr"]
    return [
        Claim(
            "Figure 4 (1)",
            "for the 1/4-rescaled potential SGD misses the global minimum and RR finds it: terms "
            "V_i/4 with step .002",
            both(
                below(quarter["sgd"].value, 0.5, error=quarter["sgd"].error),
                above(quarter["rr"].value, 0.5, error=quarter["rr"].error),
            ),
            both(below(sgd.value, 0.5, error=sgd.error), above(rr.value, 0.5, error=rr.error)),
            reading="the terms are V_i and their mean is V/4; with terms V_i/4, a step four times "
            "smaller, all samplers stay",
        ),
        Claim(
            "Figure 4 (1)",
            "with terms V_i/4 SGD and RR stay in the global basin (all of 200 did before)",
            both(
                *(
                    near(quarter[f].value, 1.0, error=apart(quarter[f], (0.0, 1 / 200)))
                    for f in ("sgd", "rr")
                )
            ),
        ),
        Claim(
            "Figure 4 (1)",
            "of SGD .000 are in the global basin (found before in 200 trials)",
            near(sgd.value, 0.0, error=apart(sgd, (0.0, 1 / 200))),
        ),
        Claim(
            "Figure 4 (1)",
            "of RR .945(16) are in the global basin (found before in 200 trials)",
            near(rr.value, 0.945, error=apart(rr, (0.0, 0.016))),
        ),
        Claim(
            "Figure 4 (1), control",
            "gradient descent, without noise, is in the global basin",
            near(whole["gd"].value, 1.0),
        ),
        Claim(
            "equation (20)",
            "A_1 = -150 is printed where the potential has -200: the outcome is the same",
            both(
                near(usual["sgd"].value, sgd.value, error=apart(usual["sgd"], sgd)),
                near(usual["rr"].value, rr.value, error=apart(usual["rr"], rr)),
            ),
        ),
    ]


def _points(landscape: tw.Landscape) -> list[Claim]:
    graph = tw.critical_points(
        landscape.problem, landscape.lower, landscape.upper, key=jax.random.key(0)
    )
    printed = {
        "minima": (graph.minima, (-36.675, -19.760, -16.644)),
        "saddles": (graph.saddles, (-14.393, -10.157)),
    }
    claims = []
    for name, (points, expected) in printed.items():
        found = sorted(float(point.value) for point in points)
        checks = [near(f, e, tolerance=5e-4) for f, e in zip(found, expected, strict=False)]
        claims.append(
            Claim(
                "equation (20)",
                f"the {name} of V/4 have the values {', '.join(f'{e:.3f}' for e in expected)}",
                both(near(len(found), len(expected)), *checks),
            )
        )
    lowest = min(graph.minima, key=lambda point: float(point.value))
    x, y = np.asarray(lowest.params)
    claims.append(
        Claim(
            "equation (20)",
            "the global minimum is at (-.5582, 1.4417)",
            both(near(float(x), -0.5582, tolerance=5e-5), near(float(y), 1.4417, tolerance=5e-5)),
        )
    )
    return claims


def _picture() -> Picture:
    return Picture(
        "figure-4-mueller-brown",
        "Mueller-Brown with the terms V_i, η = .002, from (-.8, 1). Left: one path of each "
        "sampler over lines of equal V/4. Right: V/4 over ten trials, mean and deviation.",
        panels("V/4", "V/4"),
    )
