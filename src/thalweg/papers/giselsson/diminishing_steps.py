"""Constant against diminishing steps, where the terms disagree and where they agree."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson.common import square
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_FIRST = 1 / 3
_PERIOD = 10
_AGREE_STEPS = 200


@experiment(
    "giselsson/diminishing-steps",
    "Diminishing steps converge where constant ones do not, and are slow where constant ones do",
    covers=("diminishing steps",),
    seconds=(7, 25),
)
def diminishing_steps(setting: Setting) -> Outcome:
    """E|x|² against the exact recursion for the rules of the slides."""
    landscape = tw.landscapes.three_quadratics()
    steps = setting.choose(2000, 20_000)
    rules: dict[str, Any] = {
        "constant": _FIRST,
        "inverse": tw.steps.inverse_time(_FIRST, _PERIOD),
        "root": tw.steps.inverse_sqrt_time(_FIRST, _PERIOD),
    }
    marks = np.arange(0, steps + 1, steps // 200)
    tables: dict[str, Any] = {"disagree": {"step": marks}, "agree": {}}
    ends = {}
    for name, rule in rules.items():
        squares = _distances(landscape.problem, landscape, rule, steps, steps // 200, setting)
        tables["disagree"][name] = squares.mean(axis=0)
        tables["disagree"][f"{name} error"] = squares.std(axis=0, ddof=1) / np.sqrt(len(squares))
        exact = _recursion(rule, steps, 25.0)[marks]
        tables["disagree"][f"{name} exact"] = exact
        ends[name] = (*Mean.of(squares[:, -1]), float(exact[-1]))
    # The same three with one common centre: every term is least at the solution.
    common = tw.FiniteSum(landscape.problem.loss, np.zeros((3, 2)))
    tables["agree"]["step"] = np.arange(_AGREE_STEPS + 1)
    for name, rule in rules.items():
        tables["agree"][name] = _distances(common, landscape, rule, _AGREE_STEPS, 1, setting)[0]
    return Outcome(_claims(steps, ends, tables["agree"]), tables, [_picture()])


def _distances(
    problem: tw.FiniteSum,
    landscape: tw.Landscape,
    rule: Any,
    steps: int,
    every: int,
    setting: Setting,
) -> np.ndarray:
    run = tw.simulate(
        tw.Descent(problem, tw.Minibatch(1), rule),
        landscape.start,
        steps=steps,
        key=setting.key,
        chains=setting.choose(400, 2000),
        record=tw.Record(every=every, values={"square": square}),
    )
    return np.asarray(run.records["square"])


def _recursion(rule: float | Callable[[Any], Any], steps: int, first: float) -> np.ndarray:
    """E|x|² of unit centres: e ← (1 - γ_k)² e + γ_k²."""
    gammas = np.asarray(rule(jnp.arange(steps))) if callable(rule) else np.full(steps, rule)
    values = [first]
    for gamma in gammas:
        values.append((1 - gamma) ** 2 * values[-1] + gamma**2)
    return np.array(values)


def _claims(
    steps: int, ends: dict[str, tuple[float, float, float]], agree: dict[str, np.ndarray]
) -> list[Claim]:
    fell = {name: float(agree[name][-1] / agree[name][0]) for name in ends}
    return [
        Claim(
            "Qualitative convergence behavior",
            "a fixed step converges to a noise ball",
            near(ends["constant"][0], 0.2, error=ends["constant"][1]),
        ),
        *(
            Claim(
                "Qualitative convergence behavior",
                f"a diminishing step ({told}) converges to the solution: after {steps} steps E|x|² "
                "is what the exact recursion says and less than a fifth of the ball's .2",
                both(
                    near(ends[name][0], ends[name][2], error=ends[name][1]),
                    below(ends[name][0], 0.04, error=ends[name][1]),
                ),
            )
            for name, told in (("inverse", "γ0/(1 + ⌈k/K⌉)"), ("root", "γ0/(1 + √⌈k/K⌉)"))
        ),
        Claim(
            "Drawback of diminishing step-size",
            "where a constant step works, as for three terms with one centre, diminishing steps "
            f"are slow: after {_AGREE_STEPS} steps |x|² has fallen by a factor, by 1e10 at least "
            "less than with the constant step",
            above(float(np.log10(fell["inverse"] / fell["constant"])), 10.0),
        ),
        Claim(
            "Drawback of diminishing step-size",
            "a constant step works where all terms agree: |x|² falls by (1 - γ)² a step",
            near(
                float(np.log(fell["constant"])) / _AGREE_STEPS,
                2 * float(np.log(1 - _FIRST)),
                tolerance=1e-12,
            ),
        ),
    ]


def _picture() -> Picture:
    names = {
        "constant": ("γ0 = 1/3, constant", ""),
        "inverse": ("γ0/(1 + ⌈k/K⌉), K = 10", ""),
        "root": ("γ0/(1 + √⌈k/K⌉), K = 10", ""),
    }
    left = [
        Series("disagree", "step", name, label, error=f"{name} error")
        for name, (label, _) in names.items()
    ]
    right = [Series("agree", "step", name) for name in names]
    return Picture(
        "diminishing-steps",
        "Mean squared distance from the solution. Left: three terms that disagree, with one "
        "standard error; a constant step ends in a noise ball. Right: the same terms with one "
        "centre, where it goes on falling.",
        [
            Panel("step k", "E|x|²", left, "terms disagree", log="y", limits=(1e-5, 30)),
            Panel("step k", "|x|²", right, "terms agree", log="y", limits=(1e-30, 30)),
        ],
    )
