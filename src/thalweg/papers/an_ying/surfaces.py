"""What both surfaces of figure 4 share: samplers, their paths and the energies along them."""

from typing import Any

import numpy as np

import thalweg as tw
from thalweg.papers.an_ying.common import values
from thalweg.papers.experiment import Setting
from thalweg.papers.outcome import Panel, Series

SAMPLERS = {
    "gd": ("gradient descent", tw.Full()),
    "sgd": ("SGD", tw.Minibatch(1)),
    "rr": ("RR", tw.Reweighted(1)),
}
_TRIALS = 10
# Places of a path that are kept.
_PLACES = 100


def descended(
    landscape: tw.Landscape, sampler: Any, setting: Setting, chains: int, label: str
) -> tw.Run:
    """Chains from the landscape's start with its steps."""
    return tw.simulate(
        tw.Descent(landscape.problem, sampler, landscape.step),
        landscape.start,
        steps=landscape.steps,
        key=setting.key,
        chains=chains,
        record=tw.Record(every=landscape.steps // _PLACES),
        progress=setting.progress_of(label),
        checkpoint=setting.checkpoint(label),
    )


def note(
    landscape: tw.Landscape, family: str, run: tw.Run, tables: dict[str, dict[str, Any]]
) -> None:
    """Add one path to the tables, and the energies of ten with their deviation."""
    ten = np.asarray(run.records["params"])[:_TRIALS]
    tables["paths"][f"{family} x"], tables["paths"][f"{family} y"] = ten[0].T
    heights = values(landscape.problem, ten.reshape(-1, 2)).reshape(ten.shape[:2])
    tables["energies"]["step"] = run.record_steps
    tables["energies"][family] = heights.mean(axis=0)
    tables["energies"][f"{family} deviation"] = heights.std(axis=0)


def panels(height: str, energy: str) -> list[Panel]:
    """The paths over lines of equal height, a column of the landscape, and the energies."""
    paths = [Series("landscape", "x", "y", z=height, kind="contour")] + [
        Series("paths", f"{family} x", f"{family} y", label, family)
        for family, (label, _) in SAMPLERS.items()
    ]
    energies = [
        Series("energies", "step", family, "", family, error=f"{family} deviation")
        for family in SAMPLERS
    ]
    return [Panel("x", "y", paths), Panel("iteration k", energy, energies)]
