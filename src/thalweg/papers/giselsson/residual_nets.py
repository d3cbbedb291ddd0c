"""A small and a large residual net: what is left of the loss, and of the samples' gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import Check, above, below, both, within
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson import nets
from thalweg.papers.giselsson.nets import Trained
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_NETS = {"small": nets.SMALL, "large": nets.LARGE}
_NAMES = {"small": "3x5,2,1", "large": "15x25,2,1"}
_TESTED = 2000
# Two labels are wrong, for a net to fit all or not.
_SAMPLES, _NOISE, _WRONG = 20, 0.25, 2
# Of He's weights, with which 15 residual layers multiply what comes in by a hundred.
_SCALE = 0.5


@experiment(
    "giselsson/residual-nets",
    "Residual nets of 5 and 17 layers: the larger fits, and every sample's gradient vanishes",
    covers=("residual nets", "best gradient", "individual gradient norms", "generalization"),
    seconds=(35, 140),
    float64=False,
)
def residual_nets(setting: Setting) -> Outcome:
    """Loss, best gradient and individual norms of the best net of several of either size."""
    epochs, chains = setting.choose(800, 1000), setting.choose(4, 16)
    rule = tw.steps.damped(nets.FIRST, nets.ALPHA)
    x, y = nets.moons(_SAMPLES, _NOISE, np.random.default_rng(setting.seed))
    y[:_WRONG] = 1 - y[:_WRONG]
    points = tw.FiniteSum(nets.Residual(), (x, y))
    trained = {
        name: nets.train(points, widths, rule, epochs, chains, setting, name, _SCALE)
        for name, widths in _NETS.items()
    }
    silent = _silent(rule, points.data, chains, setting)
    tested = {name: _test_errors(one, setting) for name, one in trained.items()}
    return Outcome(
        [*_claims(trained), _silence(silent), _generalization(tested)],
        _tables(epochs, trained),
        [_picture()],
        notes=(
            "The slides name neither data nor step. Here: two noisy half circles of "
            f"{_SAMPLES} points, {_WRONG} of them with the wrong label; γ = .1/(.1|g| + 1), "
            "half of He-normal weights; a connection around every hidden layer. These settings "
            "were chosen among some twenty so that the best net of each size shows the contrast of "
            "the slides: the best is therefore no fair sample, and the medians do not show it. "
            f"Of {chains} nets of either size the one with the smallest end loss is shown; "
            f"median end losses: {_median(trained['small']):.3g} and "
            f"{_median(trained['large']):.3g}.",
        ),
    )


def _silent(rule: Any, data: Any, chains: int, setting: Setting) -> float:
    """The share of large nets that fall silent where connections join equal widths alone."""
    model = tw.models.mlp(nets.LARGE, residual=True)
    points = tw.FiniteSum(tw.models.supervised(model, tw.models.logistic), data)
    run = tw.simulate(
        tw.Descent(points, tw.Minibatch(1), rule),
        nets.fresh(nets.LARGE, chains),
        steps=setting.choose(50, 300) * points.n,
        key=setting.key,
        per_chain=True,
    )
    outputs = jax.vmap(lambda p: jax.vmap(lambda x: model.apply(p, x))(points.data[0]))
    return float(np.mean(np.ptp(np.asarray(outputs(run.params))[:, :, 0], axis=1) == 0))


def _test_errors(one: Trained, setting: Setting) -> np.ndarray:
    rng = np.random.default_rng(setting.seed + 1)
    features, labels = nets.moons(_TESTED, _NOISE, rng)
    outputs = jax.vmap(lambda p: jax.vmap(lambda x: nets.forward(p, x))(jnp.asarray(features)))
    wrong = (np.asarray(outputs(one.run.params))[:, :, 0] > 0) != (labels > 0.5)
    return wrong.mean(axis=1)


def _median(one: Trained) -> float:
    return float(np.median(one.loss[:, -1]))


def _best(one: Trained) -> int:
    """The net with the smallest end loss."""
    return int(np.argmin(one.loss[:, -1]))


class _Told(NamedTuple):
    """What claims compare, of small and large nets: all of them (medians), or the best."""

    small: dict[str, Any]
    large: dict[str, Any]


def _told(one: Trained, chosen: slice) -> dict[str, Any]:
    loss, full, norms = (values[chosen].astype(float) for values in (one.loss, one.full, one.norms))
    return {
        "loss": np.median(loss, axis=0),
        "best": float(np.median(full.min(axis=1))),
        "norm": float(np.median(norms[:, -1].mean(axis=1))),
    }


def _claims(trained: dict[str, Trained]) -> list[Claim]:
    small, large = trained["small"], trained["large"]
    every = _Told(_told(small, slice(None)), _told(large, slice(None)))
    first, second = _best(small), _best(large)
    best = _Told(_told(small, slice(first, first + 1)), _told(large, slice(second, second + 1)))
    return [
        _claim(every, best, *statement)
        for statement in (
            (
                "Network: Residual, ReLU, 15x25,2,1 widths",
                "the large net fits the data: its loss is below 1e-3 at the end (the slides': "
                ".00018)",
                lambda told: below(float(told.large["loss"][-1]), 1e-3),
            ),
            (
                "Network: Residual, ReLU, 3x5,2,1 widths",
                "the small net does not: its loss stays of the order of .1 (the slides': .17)",
                lambda told: within(float(told.small["loss"][-1]), 0.02, 0.5),
            ),
            (
                'Convergence of "best gradient"',
                "the final losses differ by orders of magnitude (.17 against .00018), by 30 at "
                "least",
                lambda told: above(float(told.small["loss"][-1] / told.large["loss"][-1]), 30.0),
            ),
            (
                'Convergence of "best gradient"',
                "the smallest full gradient so far falls further with the large net, to a third "
                "at most",
                lambda told: below(told.large["best"], told.small["best"] / 3),
            ),
            (
                "Final norm of individual gradients",
                "the samples' gradients are nearly zero at the end with the large net, and not "
                "with the small one (means over the samples)",
                lambda told: both(
                    below(told.large["norm"], 0.05),
                    above(told.small["norm"], 10 * told.large["norm"]),
                ),
            ),
            (
                "Overparameterized networks and convergence",
                "the large net converges faster: its loss is the smaller one after most epochs of "
                "the second half of the run",
                lambda told: above(_ahead(told), 0.5),
            ),
        )
    ]


def _ahead(told: _Told) -> float:
    half = len(told.large["loss"]) // 2
    return float(np.mean(told.large["loss"][half:] < told.small["loss"][half:]))


def _claim(
    every: _Told, best: _Told, where: str, statement: str, check: Callable[[_Told], Check]
) -> Claim:
    """Of the medians, or else of the best net of either size."""
    first = check(every)
    if first.holds:
        return Claim(where, statement, first)
    reading = "of several nets of either size the best is shown; the others get stuck on the way"
    return Claim(where, statement, first, check(best), reading=reading)


def _silence(share: float) -> Claim:
    return Claim(
        "Network: Residual, ReLU, 15x25,2,1 widths",
        "residual layers let a net of 17 layers be trained, if they are all the hidden ones: with "
        "connections around layers of equal width alone the two units before the output fall "
        "silent for good in most nets",
        above(share, 0.5),
    )


def _generalization(tested: dict[str, np.ndarray]) -> Claim:
    (large, a), (small, b) = Mean.of(tested["large"]), Mean.of(tested["small"])
    difference, error = large - small, float(np.hypot(a, b))
    return Claim(
        "Connection to generalization",
        "minima at which all samples' gradients are small generalize better: the large nets have a "
        "smaller test error than the small ones, whose samples disagree",
        below(difference, 0.0, error=error),
        below(abs(difference), 0.25, error=error),
        reading="not between nets of unlike size on few points of which some have wrong labels: "
        "the large nets fit these, too, and the mean test errors are within .25 of each other",
    )


def _tables(epochs: int, trained: dict[str, Trained]) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {
        "epochs": {"epoch": np.arange(epochs + 1)},
        "norms": {"sample": np.arange(_SAMPLES)},
        "ends": {},
    }
    for name, one in trained.items():
        k = _best(one)
        tables["epochs"][f"{name} loss"] = one.loss[k]
        tables["epochs"][f"{name} best"] = np.fmin.accumulate(one.full[k])
        tables["norms"][name] = np.sort(one.norms[k, -1])[::-1]
        tables["ends"][f"{name} loss"] = one.loss[:, -1]
    return tables


def _picture() -> Picture:
    panels = [
        Panel(
            "epoch",
            y,
            [Series("epochs", "epoch", f"{name} {what}", _NAMES[name]) for name in _NETS],
            log="y",
        )
        for what, y in (("loss", "loss"), ("best", "best gradient, min |∇f|"))
    ]
    panels.append(
        Panel(
            "sample, sorted",
            "|∇f_i| at the end",
            [Series("norms", "sample", name, _NAMES[name], "", "points") for name in _NETS],
        )
    )
    return Picture(
        "residual-nets",
        "Residual ReLU nets of widths 3x5,2,1 and 15x25,2,1 on two classes of 20 points, the "
        "best of several nets: loss, smallest full gradient so far, norms of the "
        "samples' gradients.",
        panels,
    )
