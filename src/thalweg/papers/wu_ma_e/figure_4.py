"""Figure 4: non-uniformity goes with sharpness, over minima found in many ways."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from thalweg.papers.checks import above, both, near, within
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wu_ma_e.minima import Task, cifar, fashion, found
from thalweg.papers.wu_ma_e.points import Cloud, clouds

_STEPS = 300_000
_COLUMNS = ("step size", "batch", "run", "sharpness", "non-uniformity")
_DRAWN = {"vgg-cifar10": "VGG", "resnet-cifar10": "ResNet"}


class _Relation(NamedTuple):
    """How two numbers go together over some minima.

    Attributes:
        correlation: Of the two, with its error.
        power: The slope of the logarithms, with its error.
        spread: The largest over the smallest quotient.
    """

    correlation: tuple[float, float]
    power: tuple[float, float]
    spread: float

    @classmethod
    def of(cls, cloud: Cloud) -> "_Relation":
        """Of the points of a figure."""
        a, s = np.log(cloud.sharpness), np.log(cloud.nonuniformity)
        r = float(np.corrcoef(cloud.sharpness, cloud.nonuniformity)[0, 1])
        (slope, _), covariance = np.polyfit(a, s, 1, cov=True)
        error = (1 - r**2) / math.sqrt(a.size - 1)
        spread = float(np.exp(np.ptp(s - a)))
        return cls((r, error), (float(slope), float(np.sqrt(covariance[0, 0]))), spread)


@experiment(
    "wu-ma-e/figure-4",
    "Sharpness and non-uniformity of minima go together, though not in proportion",
    covers=("Figure 4", "sharpness and non-uniformity are correlated"),
    seconds=(20, 4000),
    needs=("fashion-mnist", "cifar10"),
    float64=False,
)
def figure_4(setting: Setting) -> Outcome:
    """Minima found by several steps and batches, and the document's own points."""
    if setting.quick:
        task = fashion(setting, 100, (64, 64))
        plan = [(task, step, batch, 0) for step in (0.5, 0.2) for batch in (100, 10, 4)]
        limit = 1e-3
    else:
        ways = ((fashion(setting), (0.5, 0.2)), (cifar(setting), (0.1, 0.05)))
        plan = [
            (task, step, batch, run)
            for run in range(3)
            for task, steps in ways
            for step in steps
            for batch in (25, 10, 4)
        ]
        limit = 1e-4
    tables: dict[str, dict[str, Any]] = {}
    for task, step, batch, run in plan:
        row = _found(task, step, batch, run, setting, limit)
        if row["fitted"]:
            own = tables.setdefault(task.name, {name: [] for name in _COLUMNS})
            for name in _COLUMNS:
                own[name].append(row[name])
    ours = {name: _relation(table) for name, table in tables.items()}
    printed = {k: v for (k, _), v in clouds(setting, "fig4").items()}
    theirs = {name: _Relation.of(cloud) for name, cloud in printed.items()}
    tables |= {name: cloud._asdict() for name, cloud in printed.items()}
    note = f"{len(plan)} trainings, those that came to a loss below {limit:g} are shown." + (
        "" if printed else " The digitised points are not there and are not drawn."
    )
    return Outcome(_claims(ours, theirs), tables, [_picture(ours, theirs)], [note])


def _found(
    task: Task, step: float, batch: int, run: int, setting: Setting, limit: float
) -> dict[str, Any]:
    return found(task, step, batch, run, setting, below=limit, steps=_STEPS, thresholds=True)


def _relation(table: dict[str, Any]) -> _Relation:
    points: list[Float[np.ndarray, " points"]] = [
        np.array(table[name]) for name in ("sharpness", "non-uniformity")
    ]
    return _Relation.of(Cloud(*points))


def _claims(ours: dict[str, _Relation], theirs: dict[str, _Relation]) -> list[Claim]:
    everything = {**ours, **theirs}
    told = "; ".join(
        f"{name}: power {r.power[0]:.2f} ± {r.power[1]:.2f}, quotients differ by {r.spread:.1f}"
        for name, r in everything.items()
    )
    powers = [r.power for r in everything.values()]
    return [
        Claim(
            "Figure 4",
            "the sharpness and the non-uniformity of minima are correlated (minima found here)",
            both(*(above(r.correlation[0], 0.5, error=r.correlation[1]) for r in ours.values())),
        ),
        *(
            Claim(
                "Figure 4",
                f"the points of the figure are correlated, too ({_DRAWN[name]})",
                above(r.correlation[0], 0.8, error=r.correlation[1]),
            )
            for name, r in theirs.items()
        ),
        Claim(
            "Figure 4",
            f"they are roughly proportional to each other: the power is 1 ({told})",
            both(*(near(power, 1.0, error=error) for power, error in powers)),
            both(*(within(power, 0.5, 1.2) for power, _ in powers)),
            reading="the power of sharpness that non-uniformity goes with is of the order of 1",
        ),
    ]


def _picture(ours: dict[str, _Relation], theirs: dict[str, _Relation]) -> Picture:
    def points(table: str, column: str, family: str, own: bool) -> Series:
        label = f"{table}, found here" if own else f"the document's {_DRAWN[table]}"
        return Series(table, "sharpness", column, label, family, "points", dashed=not own)

    families = ("1", "2")
    series = [
        points(name, "non-uniformity", family, True)
        for name, family in zip(ours, families, strict=False)
    ]
    series += [
        points(name, "nonuniformity", family, False)
        for name, family in zip(theirs, ("0", "3"), strict=False)
    ]
    return Picture(
        "figure-4",
        "Sharpness and non-uniformity of minima found with several steps and batches; hollow: the "
        "document's own points.",
        [Panel("sharpness a", "non-uniformity s", series, log="xy")],
    )
