"""When less variance is worth its time: where noise takes a share of the descent."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import Check, above, below, both, is_so, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_BATCH = 8
_SAMPLERS = {"sgd": tw.Minibatch(_BATCH, replace=True), "rr": tw.Reweighted(_BATCH)}
_WIDTHS = (64, 16, 10)
_LEARNED = 300
# Steps of SGD on the digits between the points that are looked at, and the step.
_TRAINED = (0, 100, 1000)
_STEP = 0.4


class _Descent(NamedTuple):
    """The descent in a step from a point: of SGD, and of RR, measured and predicted.

    Attributes:
        variances: SGD's variance over RR's.
        noise: The share of the descent along the gradient that noise takes from SGD.
        sgd: The mean decrease of the loss in a step of SGD, with its error.
        rr: The same of RR.
        predicted: That of RR from SGD's, with its error.
    """

    variances: float
    noise: float
    sgd: tuple[float, float]
    rr: tuple[float, float]
    predicted: tuple[float, float]


@experiment(
    "beyond/when-rr-pays",
    "RR pays where noise takes a share of the descent; that it has less variance does not say so",
    covers=("when RR pays",),
    seconds=(18, 60),
)
def when_rr_pays(setting: Setting) -> Outcome:
    """Descents of SGD and of RR in a step, from the same points of two problems."""
    found = {"quadratics": _on_quadratics(setting), "digits": _on_digits(setting)}
    return Outcome(_claims(found), {k: _table(v) for k, v in found.items()}, [_picture()])


def _on_quadratics(setting: Setting) -> list[_Descent]:
    """Parabolas of one shape whose centres have long tails; nearer and nearer to the minimum."""
    rng = np.random.default_rng(setting.seed)
    centres = rng.normal(size=(400, 10)) * rng.lognormal(0, 1.0, size=(400, 1))
    problem = tw.FiniteSum(lambda x, centre: jnp.sum((x - centre) ** 2) / 2, jnp.array(centres))
    spread = np.sqrt(centres.var(axis=0).sum() / _BATCH)
    return [
        _descent(problem, centres.mean(axis=0) + far * spread / np.sqrt(10), setting)
        for far in (10.0, 1.0, 0.4)
    ]


def _on_digits(setting: Setting) -> list[_Descent]:
    """A net on scikit-learn's digits, longer and longer trained."""
    data = setting.load("digits").train
    model = tw.models.mlp(_WIDTHS)
    loss = tw.models.supervised(model, tw.models.cross_entropy)
    samples = (jnp.array(data.x[:_LEARNED], float), jnp.array(data.y[:_LEARNED]))
    problem = tw.FiniteSum(loss, samples)
    params, found = model.init(setting.key, jnp.float64), []
    for before, after in zip((0, *_TRAINED), _TRAINED, strict=False):
        descent = tw.Descent(problem, tw.Minibatch(_BATCH), _STEP)
        if after > before:
            params = tw.simulate(descent, params, steps=after - before, key=setting.key).params
            params = jax.tree.map(lambda leaf: leaf[0], params)
        found.append(_descent(problem, params, setting))
    return found


def _descent(problem: tw.FiniteSum, params: Any, setting: Setting) -> _Descent:
    gradient = jax.tree.leaves(problem.gradient(params))
    squared = float(sum(jnp.sum(leaf**2) for leaf in gradient))
    traces = {k: float(sampler.trace(problem, params)) for k, sampler in _SAMPLERS.items()}
    begin = float(problem.value(params))
    falls = {}
    for family, sampler in _SAMPLERS.items():
        run = tw.simulate(
            tw.Descent(problem, sampler, _STEP),
            params,
            steps=1,
            key=setting.key,
            chains=setting.choose(2000, 40_000),
        )
        fallen = begin - np.asarray(_values(problem, run.params))
        falls[family] = float(fallen.mean()), float(fallen.std() / np.sqrt(fallen.size))
    promised = _STEP * squared
    share = (squared + traces["rr"]) / (squared + traces["sgd"])
    sgd, error = falls["sgd"]
    lost = promised - sgd
    return _Descent(
        variances=traces["sgd"] / traces["rr"],
        noise=lost * traces["sgd"] / (squared + traces["sgd"]) / promised,
        sgd=falls["sgd"],
        rr=falls["rr"],
        predicted=(promised - lost * share, error * share),
    )


@jax.jit
def _values(problem: tw.FiniteSum, params: Any) -> Any:
    return jax.lax.map(problem.value, params, batch_size=64)


def _claims(found: dict[str, list[_Descent]]) -> list[Claim]:
    exact, net = found["quadratics"], found["digits"]
    return [
        Claim(
            "descent lemma",
            "with curvature alike in all directions, RR's descent is SGD's with the second-order "
            "part in proportion to the second moment of its gradients",
            both(*(_near(one) for one in exact)),
        ),
        Claim(
            "variance",
            "x times less variance is x times the descent",
            both(*(_as_variance(one) for one in (*exact, *net))),
            _unlike_variance(exact[0]),
            correction="where noise takes little of the descent, as far from a minimum, less of it "
            "gains little: there RR costs more than it gives",
        ),
        Claim(
            "noise",
            "near a minimum noise takes all that the gradient promises: SGD climbs on average, and "
            "RR from the same point still descends",
            both(
                below(exact[-1].sgd[0], 0.0, error=exact[-1].sgd[1]),
                above(exact[-1].rr[0], 0.0, error=exact[-1].rr[1]),
            ),
        ),
        Claim(
            "networks",
            "the same proportion tells RR's descent on a net from SGD's, to a fifth",
            both(*(_near(one, 0.2) for one in net)),
        ),
    ]


def _near(one: _Descent, share: float = 0.0) -> Check:
    error = float(np.hypot(one.rr[1], one.predicted[1]))
    return near(one.rr[0], one.predicted[0], error=error, tolerance=share * abs(one.rr[0]))


def _gain(one: _Descent) -> tuple[float, float]:
    """RR's descent over SGD's, with its error."""
    (sgd, sgd_error), (rr, rr_error) = one.sgd, one.rr
    return rr / sgd, abs(rr / sgd) * float(np.hypot(sgd_error / sgd, rr_error / rr))


def _as_variance(one: _Descent) -> Check:
    gain, error = _gain(one)
    return near(gain, one.variances, error=error)


def _unlike_variance(one: _Descent) -> Check:
    gain, _ = _gain(one)
    text = f"{one.variances:.2f} times less variance, {gain:.2f} times the descent"
    return is_so(gain < 1 + (one.variances - 1) / 2, text)


def _table(points: Sequence[_Descent]) -> dict[str, list[float]]:
    return {
        "noise": [p.noise for p in points],
        "variances": [p.variances for p in points],
        "gain": [_gain(p)[0] for p in points],
        "gain error": [_gain(p)[1] for p in points],
        "predicted": [p.predicted[0] / p.sgd[0] for p in points],
        "sgd": [p.sgd[0] for p in points],
        "rr": [p.rr[0] for p in points],
        "rr predicted": [p.predicted[0] for p in points],
    }


def _picture() -> Picture:
    def panel(name: str, title: str) -> Panel:
        return Panel(
            "share that noise takes",
            "RR's descent over SGD's",
            [
                Series(name, "noise", "gain", "measured", "rr", "points", error="gain error"),
                Series(name, "noise", "predicted", "predicted", "0", "points", dashed=True),
                Series(name, "noise", "variances", "ratio of variances", "sgd", "points"),
            ],
            title=title,
        )

    return Picture(
        "when-rr-pays",
        "How many times as far as SGD's a step of RR descends, by the share of the descent that "
        "noise takes from SGD; beside the ratio of their variances, which says another thing.",
        [panel("quadratics", "quadratics"), panel("digits", "a net on the digits")],
    )
