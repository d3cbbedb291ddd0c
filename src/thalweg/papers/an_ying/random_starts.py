"""Random starts: how often each sampler comes to the global minimum."""

from typing import Any

import jax
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, near
from thalweg.papers.estimates import Share, apart
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_SAMPLERS = {"gd": tw.Full(), "sgd": tw.Minibatch(1), "rr": tw.Reweighted(1)}
# Found before, without errors, the number of trials and the box: the errors are those of 400.
_BEFORE = {"gd": (0.420, 0.025), "sgd": (0.207, 0.020), "rr": (0.427, 0.025)}


@experiment(
    "an-ying/random-starts",
    "From random starts RR finds the global minimum as often as gradient descent does",
    covers=("abstract, global minimum",),
    seconds=(20, 80),
)
def random_starts(setting: Setting) -> Outcome:
    """The shares of starts, the same for all samplers, that end in the global basin."""
    rows = {
        "atoms": (tw.landscapes.atoms(), None, setting.choose(100, 400)),
        # Where gradient descent is stable in all wells: 2/lambda is .00197.
        "mueller-brown": (tw.landscapes.mueller_brown(), 2e-4, setting.choose(400, 4000)),
    }
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, (landscape, step, trials) in rows.items():
        starts = jax.random.uniform(
            setting.key, (trials, 2), minval=landscape.lower, maxval=landscape.upper
        )
        found[name] = {}
        for family, sampler in _SAMPLERS.items():
            label = f"{name} {family}"
            run = tw.simulate(
                tw.Descent(landscape.problem, sampler, step or landscape.step),
                starts,
                per_chain=True,
                steps=landscape.steps,
                key=setting.key,
                progress=setting.progress_of(label),
                checkpoint=setting.checkpoint(label),
            )
            owners = tw.basin(landscape.problem, landscape.minima, run.params)
            found[name][family] = np.asarray(owners) == 0
    shares = {name: {f: Share.of(hits) for f, hits in row.items()} for name, row in found.items()}
    lines = [(name, f, *share) for name, row in shares.items() for f, share in row.items()]
    columns = ("problem", "sampler", "share", "error")
    place = {family: k for k, family in enumerate(_SAMPLERS)}
    tables: dict[str, dict[str, Any]] = {
        "shares": dict(zip(columns, map(list, zip(*lines, strict=True)), strict=True)),
        **{
            f"{name} {f}": {"x": [place[f]], "share": [share.value], "error": [share.error]}
            for name, row in shares.items()
            for f, share in row.items()
        },
    }
    return Outcome(_claims(found, shares), tables, [_picture()])


def _claims(
    found: dict[str, dict[str, np.ndarray]], shares: dict[str, dict[str, Share]]
) -> list[Claim]:
    claims = []
    for name, hits in found.items():
        gain, loss = _difference(hits["rr"], hits["gd"]), _difference(hits["rr"], hits["sgd"])
        if name == "atoms":
            claims.append(
                Claim(
                    "abstract, section 5",
                    "atoms: RR is more likely to find the global minimum than SGD, also from "
                    "random starts",
                    above(loss.value, 0.0, error=loss.error),
                )
            )
        claims += [
            Claim(
                "abstract, section 5",
                f"{name}: it searches for the global minimum, and finds it more often than "
                "gradient descent from the same starts",
                above(gain.value, 0.0, error=gain.error),
                near(gain.value, 0.0, error=gain.error),
                correction="it behaves like gradient descent without noise, and keeps the basin it "
                "starts in: difference of the shares zero",
            ),
        ]
    claims += [
        Claim(
            "section 4.2",
            f"atoms, {family}: {before:.3f} of random starts (found before)",
            near(
                shares["atoms"][family].value,
                before,
                error=apart(shares["atoms"][family], (before, error)),
            ),
        )
        for family, (before, error) in _BEFORE.items()
    ]
    return claims


def _difference(first: np.ndarray, second: np.ndarray) -> Share:
    """The mean difference over starts that are the same, with its error."""
    gain = first.astype(float) - second
    return Share(float(gain.mean()), max(float(gain.std() / np.sqrt(gain.size)), 1 / gain.size))


def _picture() -> Picture:
    def panel(name: str, title: str) -> Panel:
        series = [
            Series(
                f"{name} {f}",
                "x",
                "share",
                label if name == "atoms" else "",
                f,
                "points",
                error="error",
            )
            for f, label in {"gd": "gradient descent", "sgd": "SGD", "rr": "RR"}.items()
        ]
        return Panel(
            "sampler",
            "share in the global basin",
            series,
            title=title,
            limits=(0.0, 1.0),
            names=[(0.0, "GD"), (1.0, "SGD"), (2.0, "RR")],
        )

    return Picture(
        "random-starts",
        "The share of random starts in the box that end in the basin of the global minimum, with "
        "one standard error.",
        [panel("atoms", "atoms"), panel("mueller-brown", "Mueller-Brown")],
    )
