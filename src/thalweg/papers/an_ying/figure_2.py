"""Figure 2: robust classification, where a sensitive minority makes the sharp minimum."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.an_ying.common import ends_in, values
from thalweg.papers.an_ying.group_means import GroupMeans
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Share, apart
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

# The document's third panel has the losses of ten.
_TRIALS = 10
_SHOWN = {"gd": "gradient descent", "sgd": "SGD", "rr": "RR, by sample", "rr-group": "RR, by group"}


@experiment(
    "an-ying/figure-2",
    "Robust classification: SGD ends in the flat minimum, RR in the sharp, global one",
    covers=("Figure 2",),
    seconds=(27, 130),
)
def figure_2(setting: Setting) -> Outcome:
    """Where chains from -1/2 end after 3000 steps, by how their gradients are drawn."""
    landscape = tw.landscapes.robust_classification()
    chains = setting.choose(40, 400)
    ends: dict[str, Share] = {}
    paths: dict[str, Any] = {}
    losses: dict[str, Any] = {}
    for family, (problem, sampler, step) in _rows(landscape).items():
        run = tw.simulate(
            tw.Descent(problem, sampler, step),
            landscape.start,
            steps=landscape.steps,
            key=setting.key,
            chains=_chains(family, chains),
            record=tw.Record(every=20),
            progress=setting.progress_of(family),
            checkpoint=setting.checkpoint(family),
        )
        ends[family] = ends_in(landscape, run.params)
        if family in _SHOWN:
            ten = np.asarray(run.records["params"])[:_TRIALS]
            paths["step"] = losses["step"] = run.record_steps
            paths[family] = ten[0, :, 0]
            heights = values(landscape.problem, ten.reshape(-1, 1)).reshape(ten.shape[:2])
            losses[family] = heights.mean(axis=0)
            losses[f"{family} deviation"] = heights.std(axis=0)
    theta = np.linspace(-0.6, 1.2, 601)
    names = list(ends)
    tables = {
        "paths": paths,
        "losses": losses,
        "landscape": {"theta": theta, "L": values(landscape.problem, theta[:, None])},
        "ends": {
            "sampler": names,
            "share in the sharp well": [ends[name].value for name in names],
            "error": [ends[name].error for name in names],
        },
    }
    note = f"One draw of the data; {chains} chains from θ = -.5, {landscape.steps} iterations."
    claims = [*_minima(landscape), *_claims(ends), _back(landscape, setting, chains)]
    return Outcome(claims, tables, [_picture()], [note])


def _chains(family: str, chains: int) -> int:
    """One where all are alike, fewer where a step costs four times the samples."""
    return {"gd": 1, "whole groups": chains // 4}.get(family, chains)


def _rows(landscape: tw.Landscape) -> dict[str, tuple[tw.FiniteSum, Any, float]]:
    """How gradients are drawn: the problem, the sampler and the step."""
    problem, step = landscape.problem, landscape.step
    assert not callable(step)
    return {
        "gd": (problem, tw.Full(), step),
        "sgd": (problem, tw.Minibatch(1), step),
        "sgd-half": (problem, tw.Minibatch(1), step / 2),
        "rr": (problem, tw.Reweighted(1), step),
        "rr-group": (problem, tw.Reweighted(1, by="group"), step),
        "whole groups": (_of_groups(problem), tw.Reweighted(1), step),
        "group means": (problem, GroupMeans(), step),
    }


def _of_groups(problem: tw.FiniteSum) -> tw.FiniteSum:
    """The same objective with the mean loss of each group as its terms."""
    groups = np.asarray(problem.require_groups())
    parts = [
        tw.FiniteSum(problem.loss, jax.tree.map(lambda leaf, j=j: leaf[groups == j], problem.data))
        for j in range(problem.n_groups)
    ]
    return tw.FiniteSum.of(*(part.value for part in parts), weights=problem.group_weights)


def _minima(landscape: tw.Landscape) -> list[Claim]:
    claims = []
    # With three deviations over 20 draws of the data: place, value, second derivative.
    expected = {
        "sharp, global": ((0.028, 0.0035), (0.18, 0.008), (44.0, 0.9)),
        "flat": ((0.49, 0.045), (0.30, 0.006), (0.26, 0.012)),
    }
    for known in landscape.minima:
        point = tw.critical_point(landscape.problem, known.params)
        there = (float(point.params[0]), float(point.value), float(point.eigenvalues[0]))
        told = expected[known.name]
        claims.append(
            Claim(
                "section 4.1",
                f"the {known.name.partition(',')[0]} minimum is at θ ≈ {told[0][0]}, with L ≈ "
                f"{told[1][0]} and L'' ≈ {told[2][0]:g} (on other draws of the data)",
                both(
                    *(
                        near(found, number, tolerance=spread)
                        for found, (number, spread) in zip(there, told, strict=True)
                    )
                ),
            )
        )
    return claims


def _claims(ends: dict[str, Share]) -> list[Claim]:
    sgd, half, means = ends["sgd"], ends["sgd-half"], ends["group means"]

    def stays(family: str) -> Any:
        return above(ends[family].value, 0.6, error=ends[family].error)

    return [
        Claim(
            "Figure 2 (1)",
            "SGD escapes to the flat minimum (none of the chains is left in the sharp well)",
            below(sgd.value, 0.1, error=sgd.error),
        ),
        Claim(
            "Figure 2 (2)",
            "RR stays in the sharp valley (drawing samples by their own gradient norms)",
            stays("rr"),
        ),
        Claim(
            "section 4.1",
            "RR as it is run: group j with probability proportional to a_j |∇l_j|",
            near(means.value, 1.0, error=means.error),
            both(stays("rr-group"), stays("whole groups")),
            reading="∇l_j is the gradient of the sample drawn in the group, or the group's whole "
            "gradient is both norm and step",
        ),
        Claim(
            "section 4.1",
            "with probabilities from the groups' mean gradients and a random sample of the group "
            "it is not kept: .075(42) remain",
            near(means.value, 0.075, error=apart(means, (0.0, 0.042))),
        ),
        Claim(
            "Figure 2, control",
            "with half the step SGD stays in the sharp valley, too (the document does not try)",
            above(half.value, 0.9, error=half.error),
        ),
    ]


def _back(landscape: tw.Landscape, setting: Setting, chains: int) -> Claim:
    found = {}
    for family, sampler in {
        "gd": tw.Full(),
        "sgd": tw.Minibatch(1),
        "rr": tw.Reweighted(1),
    }.items():
        descent = tw.Descent(landscape.problem, sampler, landscape.step)
        run = tw.simulate(
            descent,
            jnp.array([0.5]),
            steps=landscape.steps,
            key=setting.key,
            chains=_chains(family, chains),
        )
        found[family] = ends_in(landscape, run.params)
    rr = found["rr"]
    return Claim(
        "abstract, section 4.1",
        "RR is more likely to select the global minimum: also from θ = .5 it comes to it",
        above(rr.value, 0.5, error=rr.error),
        both(
            near(found["gd"].value, 0.0),
            *(below(found[f].value, 0.1, error=found[f].error) for f in ("sgd", "rr")),
        ),
        correction="it keeps the basin it starts in: from θ = .5 neither RR nor SGD nor gradient "
        "descent comes back to the sharp minimum",
    )


def _picture() -> Picture:
    paths = [Series("paths", "step", family, label, family) for family, label in _SHOWN.items()]
    losses = [
        Series("losses", "step", family, "", family, error=f"{family} deviation")
        for family in _SHOWN
    ]
    return Picture(
        "figure-2",
        "Robust classification with η = .015 from θ = -.5. Top: the objective; one path of each "
        "sampler. Below: its mean over ten trials, and their deviation.",
        [
            Panel("θ", "L(θ)", [Series("landscape", "theta", "L")]),
            Panel("iteration k", "θ", paths),
            Panel("iteration k", "L(θ)", losses),
        ],
    )
