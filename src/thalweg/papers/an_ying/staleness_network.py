"""Section 3: kept probabilities when a network is trained from scratch."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, is_so, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

# Batch and step.
_SETTINGS = {"B=8, .2": (8, 0.2), "B=1, .1": (1, 0.1), "B=8, .05": (8, 0.05)}
_REFRESH = 50
_LABELS = {"sgd": "SGD", "rr": "RR, unbiased", "rr-fixed": "RR, fixed length"}


@experiment(
    "an-ying/staleness-network",
    "Kept probabilities on a network: there the steps of fixed length are the worst",
    covers=("section 3, kept probabilities",),
    seconds=(15, 80),
    float64=False,
)
def staleness_network(setting: Setting) -> Outcome:
    """Losses of a 64-32-10 ReLU net on digits, from the same random weights for all samplers."""
    data = setting.load("digits").train
    model = tw.models.mlp((64, 32, 10))
    targets = tw.datasets.one_hot(data.y, 10).astype(np.float32)
    x = data.x.reshape(len(data.x), -1)
    problem = tw.FiniteSum(tw.models.supervised(model, _half_square), (x, targets))
    trials, steps = setting.choose(8, 16), setting.choose(4000, 15_000)
    starts = jax.vmap(model.init)(jax.random.split(setting.key, trials))
    ends: dict[str, dict[str, np.ndarray]] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, (batch, step) in _SETTINGS.items():
        samplers = {
            "sgd": tw.Minibatch(batch),
            "rr": tw.Reweighted(batch, refresh=_REFRESH),
            "rr-fixed": tw.Reweighted(batch, refresh=_REFRESH, stale="fixed-length"),
        }
        ends[name], tables[name] = {}, {}
        for family, sampler in samplers.items():
            label = f"{name} {family}"
            run = tw.simulate(
                tw.Descent(problem, sampler, step),
                starts,
                per_chain=True,
                steps=steps,
                key=setting.key,
                record=tw.Record(every=steps // 20, values={"loss": problem.value}),
                progress=setting.progress_of(label),
                checkpoint=setting.checkpoint(label),
            )
            losses = np.asarray(run.records["loss"], dtype=float)
            ends[name][family] = losses[:, -1]
            tables[name]["step"] = run.record_steps
            tables[name][family] = np.exp(np.log(losses).mean(axis=0))
    note = (
        f"{trials} random initialisations, the same for all samplers; {steps} iterations, a "
        f"refresh every {_REFRESH}. Some units die at the larger steps, so that losses at the end "
        "depend on the initialisation: they are compared pair by pair, in logarithms."
    )
    return Outcome(_claims(ends), tables, [_picture()], [note])


def _half_square(outputs: Float[Array, " k"], target: Float[Array, " k"]) -> Array:
    return 0.5 * tw.models.squared_error(outputs, target, "sum")


def _gap(row: dict[str, np.ndarray], first: str, second: str) -> Mean:
    """The mean logarithm of the first over the second loss, over the same starts."""
    return Mean.of(np.log(row[first] / row[second]))


def _claims(ends: dict[str, dict[str, np.ndarray]]) -> list[Claim]:
    large, single, small = ends.values()
    told = {
        name: ", ".join(f"{_LABELS[f]} {np.median(values):.3g}" for f, values in row.items())
        for name, row in ends.items()
    }
    fixed, unbiased = _gap(large, "rr-fixed", "sgd"), _gap(large, "rr", "sgd")
    alone, biased = _gap(single, "rr", "sgd"), _gap(single, "rr-fixed", "sgd")
    slow = [_gap(small, family, "sgd") for family in ("rr", "rr-fixed")]
    return [
        Claim(
            "section 3",
            "kept probabilities still give good training results: B = 8, η = .2, the end loss is "
            "not above SGD's (steps of fixed length; log of the quotient)",
            below(fixed.value, 0.0, error=fixed.error),
            both(
                above(fixed.value, float(np.log(1.5)), error=fixed.error),
                near(unbiased.value, 0.0, error=unbiased.error, tolerance=0.3),
            ),
            reading="the weights are those of the draw, which does as well as SGD; steps of fixed "
            "length, which keep the sharp well of section 4.1, are worse by a factor: well-fitted "
            "samples are stepped on with the full length (medians: " + told["B=8, .2"] + ")",
        ),
        Claim(
            "section 3",
            "with single samples and η = .1 they train as well as SGD (log of the quotient of end "
            "losses, fixed length)",
            below(biased.value, 0.0, error=biased.error),
            both(
                above(biased.value, 0.0, error=biased.error),
                is_so(
                    alone.value > -SIGNIFICANT * alone.error,
                    f"unbiased {alone.value:.2f} ± {alone.error:.2f}",
                ),
            ),
            correction="they do not; unbiased weights are no better than SGD either (medians: "
            + told["B=1, .1"]
            + ")",
        ),
        Claim(
            "section 3",
            "at small steps all agree: B = 8, η = .05",
            both(*(near(gap.value, 0.0, error=gap.error, tolerance=0.1) for gap in slow)),
        ),
    ]


# Standard errors.
SIGNIFICANT = 3.0


def _picture() -> Picture:
    def panel(name: str, labelled: bool) -> Panel:
        series = [
            Series(name, "step", family, label * labelled, family)
            for family, label in _LABELS.items()
        ]
        batch, step = _SETTINGS[name]
        return Panel("iteration k", "loss", series, title=f"B = {batch}, η = {step}", log="y")

    return Picture(
        "staleness-network",
        "Half the squared error of a 64-32-10 ReLU net on all training digits, geometric mean over "
        "random initialisations; norms are taken every 50 iterations.",
        [panel(name, name == "B=8, .2") for name in _SETTINGS],
    )
