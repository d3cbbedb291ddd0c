"""Section 3: exit times in one dimension, of the equations and of the chains."""

from typing import Any

import numpy as np

import thalweg as tw
from thalweg.papers.an_ying.common import POPULATION
from thalweg.papers.checks import above, below, both, is_so, near, within
from thalweg.papers.estimates import Mean, apart
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_SAMPLERS = {"sgd": tw.Minibatch(1), "rr": tw.Reweighted(1)}
_STEP = 0.06
# Far enough to the left of the sharp well not to be reached.
_WALL = -2.25


@experiment(
    "an-ying/exits",
    "RR leaves a well later than SGD: by a factor of 170 in theory, of 1.2 in fact",
    covers=("Theorem 2", "section 3, exits"),
    seconds=(32, 120),
)
def exits(setting: Setting) -> Outcome:
    """Mean exit times from the sharp well of the classification problem, and their exponents."""
    landscape = tw.landscapes.robust_classification()
    sharp, top = (float(points[0].params[0]) for points in (landscape.minima, landscape.saddles))
    etas = setting.choose((0.005, 0.01, 0.06), (0.002, 0.003, 0.005, 0.01, 0.02, 0.04, 0.06))
    equations: dict[str, list[float]] = {}
    exponents: dict[str, float] = {}
    chains: dict[str, Mean] = {}
    for family, sampler in _SAMPLERS.items():
        equations[family] = []
        for eta in etas:
            limit = tw.diffusion_limit(tw.Descent(landscape.problem, sampler, eta))
            sides = ("reflecting", "absorbing")
            left = tw.escape.exit_time_on_line(limit, sharp, _WALL, top, boundary=sides)
            equations[family].append(left.log_time - np.log(eta))
        unit = tw.diffusion_limit(tw.Descent(landscape.problem, sampler, 1.0))
        grid = tw.Grid(-0.5, 1.0, 300)
        exponents[family] = float(tw.quasi_potential(unit, grid, sharp).at([top]))
        run = tw.simulate(
            tw.Descent(landscape.problem, sampler, _STEP),
            landscape.minima[0].params,
            steps=400,
            key=setting.key,
            chains=setting.choose(1000, 8000),
            exit=tw.stopping.LeftBox([-np.inf], [top]),
            progress=setting.progress_of(family),
        )
        chains[family] = Mean(*run.mean_exit_step())
    slopes = {
        # log E tau = V/eta + O(log eta): the slope between the two smallest steps.
        family: (logs[0] - logs[1]) / (1 / etas[0] - 1 / etas[1])
        for family, logs in equations.items()
    }
    table: dict[str, Any] = {"eta": etas, "1/eta": 1 / np.array(etas)}
    for family, logs in equations.items():
        table[family] = np.array(logs) / np.log(10)
        table[f"{family} exponent"] = exponents[family] / np.array(etas) / np.log(10)
    simulated = {
        f"{family} chain": {
            "1/eta": [1 / _STEP],
            "log10 steps": [np.log10(mean.value)],
            "error": [mean.error / mean.value / np.log(10)],
        }
        for family, mean in chains.items()
    }
    claims = [
        *_of_equations(equations, exponents, slopes),
        *_of_chains(equations, chains),
        *_of_lines(),
    ]
    return Outcome(claims, {"equations": table, **simulated}, [_picture()])


def _of_equations(
    equations: dict[str, list[float]], exponents: dict[str, float], slopes: dict[str, float]
) -> list[Claim]:
    sgd, rr = (np.array(equations[family]) for family in _SAMPLERS)
    return [
        Claim(
            "Theorem 2 (12)",
            "η log E τ tends to the quasi-potential: .0425 for the equation of SGD, .4386 for that "
            "of RR, on the classification problem",
            both(
                near(exponents["sgd"], 0.0425, tolerance=5e-5),
                near(exponents["rr"], 0.4386, tolerance=5e-5),
                # The prefactor's dependence on eta: some steps of 1/2 eta log.
                within(slopes["sgd"] / exponents["sgd"], 0.9, 1.1),
                within(slopes["rr"] / exponents["rr"], 0.97, 1.03),
            ),
        ),
        Claim(
            "section 3, exits",
            "in one dimension the equation of RR leaves later than that of SGD, at all steps",
            is_so(
                bool((rr > sgd).all()),
                f"ratios of mean times {np.exp((rr - sgd).min()):.3g} and more",
            ),
        ),
        Claim(
            "section 3, after (12)",
            "the rate functions are ordered as I₂ ≤ I₁",
            is_so(exponents["rr"] <= exponents["sgd"], _ratio(exponents)),
            is_so(exponents["rr"] >= exponents["sgd"], _ratio(exponents)),
            correction="I₂ ≥ I₁: less noise makes ways out more costly",
        ),
    ]


def _ratio(exponents: dict[str, float]) -> str:
    return f"quasi-potentials {exponents['rr']:.4f} of RR, {exponents['sgd']:.4f} of SGD"


def _of_chains(equations: dict[str, list[float]], chains: dict[str, Mean]) -> list[Claim]:
    predicted = {family: float(np.exp(logs[-1])) for family, logs in equations.items()}
    ratio = predicted["rr"] / predicted["sgd"]
    sgd, rr = chains["sgd"], chains["rr"]
    found = rr.value / sgd.value
    error = found * float(np.hypot(rr.error / rr.value, sgd.error / sgd.value))
    return [
        Claim(
            "section 3, exits",
            "at η = .06 the equation of RR takes 170 times as many steps as that of SGD (1881 "
            "against 10.88)",
            both(near(ratio, 173.0, tolerance=2.0), near(predicted["sgd"], 10.88, tolerance=0.05)),
        ),
        Claim(
            "section 3, exits",
            "RR itself leaves later than SGD itself, η = .06",
            above(rr.value - sgd.value, 0.0, error=apart(rr, sgd)),
        ),
        Claim(
            "section 3, (9)",
            "the equations describe the exits of the chains: at η = .06 RR takes 170 times as long",
            near(found, ratio, error=error),
            both(
                below(found, 1.5, error=error),
                within(sgd.value, 40.0, 52.0),
                within(rr.value, 45.0, 62.0),
            ),
            correction="both chains have left after some fifty steps, one step of them crosses the "
            "well",
        ),
    ]


def _of_lines() -> list[Claim]:
    """Section 2's example, where the chain's times are exact."""
    problem = tw.landscapes.piecewise_linear().problem
    claims = []
    for name, sampler in (("section 2", POPULATION), ("section 3", tw.Reweighted(1))):
        logs = {}
        for family, own in (("sgd", tw.Minibatch(1)), ("rr", sampler)):
            lattice = tw.markov.lattice(tw.Descent(problem, own, 0.04), -0.6, 1.0, 0.25)
            chain = tw.discretise(tw.Descent(problem, own, 0.04), lattice)
            times = chain.exit_time(lambda x: x[0] >= -0.5).steps
            logs[family] = float(times[np.argmin(np.abs(lattice.positions - 0.25))])
        claims.append(
            Claim(
                f"{name}, exits",
                f"RR of {name} leaves the sharp well of straight lines later than SGD, η = .04",
                above(logs["rr"], 10 * logs["sgd"]),
            )
        )
    return claims


def _picture() -> Picture:
    lines = [
        Series("equations", "1/eta", family, f"equation of {label}", family)
        for family, label in (("sgd", "SGD"), ("rr", "RR"))
    ]
    chains = [
        Series(
            f"{family} chain", "1/eta", "log10 steps", f"{label} itself", family, "points", "error"
        )
        for family, label in (("sgd", "SGD"), ("rr", "RR"))
    ]
    bounds = [
        Series("equations", "1/eta", f"{family} exponent", "", family, dashed=True)
        for family in _SAMPLERS
    ]
    return Picture(
        "exits",
        "Mean number of steps to leave the sharp minimum of the classification problem. Lines: the "
        "equations; dashed: Theorem 2's exponents; points: the chains.",
        [Panel("1/step, 1/η", "log₁₀ of the mean number of steps", [*lines, *chains, *bounds])],
    )
