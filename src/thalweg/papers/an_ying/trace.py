"""Section 3: RR is unbiased, and its gradients have the smaller covariance in trace."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import both, is_so
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_SGD, _RR = tw.Minibatch(1), tw.Reweighted(1)
# Sums of thousands of terms, over the largest of them.
_ROUNDING = 1e-11
# Far out, where there is hardly a gradient, traces fall below any figure.
_SHOWN = 1e-8


@experiment(
    "an-ying/trace",
    "RR has the mean of SGD and a covariance of smaller trace; it does not balance minima",
    covers=("section 3, unbiased and trace",),
    seconds=(6, 30),
)
def trace(setting: Setting) -> Outcome:
    """Exact means and traces at random points of four problems, and at their minima."""
    rows: dict[str, list[Any]] = {name: [] for name in ("problem", "bias", "sgd", "rr", "least")}
    at_minima: dict[str, list[Any]] = {name: [] for name in ("problem", "minimum", "sgd", "rr")}
    count = setting.choose(50, 1000)
    for landscape in _landscapes():
        problem = landscape.problem
        shape = (count, *landscape.lower.shape)
        points = jax.random.uniform(
            setting.key, shape, minval=landscape.lower, maxval=landscape.upper
        )
        bias, sgd, rr = (np.asarray(v) for v in _moments(problem, points))
        rows["problem"].append(landscape.name)
        rows["bias"].append(float(bias.max()))
        rows["sgd"].append(sgd)
        rows["rr"].append(rr)
        rows["least"].append(float(((sgd - rr) / np.maximum(sgd, 1e-300)).min()))
        if landscape.minima:
            places = jnp.stack([point.params for point in landscape.minima])
            _, sgd, rr = (np.asarray(v) for v in _moments(problem, places))
            for point, a, b in zip(landscape.minima, sgd, rr, strict=True):
                at_minima["problem"].append(landscape.name)
                at_minima["minimum"].append(point.name)
                at_minima["sgd"].append(float(a))
                at_minima["rr"].append(float(b))
    tables: dict[str, dict[str, Any]] = {"minima": at_minima}
    for name, sgd, rr in zip(rows["problem"], rows["sgd"], rows["rr"], strict=True):
        shown = rr > _SHOWN
        tables[name] = {"sgd": sgd[shown], "rr": rr[shown]}
    tables["equal"] = {"sgd": [_SHOWN, 1e6], "rr": [_SHOWN, 1e6]}
    return Outcome([*_claims(rows), *_balance(at_minima)], tables, [_picture(rows["problem"])])


def _landscapes() -> list[tw.Landscape]:
    return [
        tw.landscapes.robust_classification(),
        tw.landscapes.robust_regression(start="near"),
        tw.landscapes.mueller_brown(),
        tw.landscapes.atoms(),
    ]


@jax.jit
def _moments(problem: tw.FiniteSum, points: Any) -> Any:
    """Of RR at each point the bias over the largest gradient, and both traces."""

    def at(x: Any) -> Any:
        bias = jnp.linalg.norm(_RR.mean(problem, x) - problem.gradient(x))
        scale = jnp.linalg.norm(problem.gradient(x)) + jnp.sqrt(_SGD.trace(problem, x))
        return bias / scale, _SGD.trace(problem, x), _RR.trace(problem, x)

    return jax.lax.map(at, points)


def _claims(rows: dict[str, list[Any]]) -> list[Claim]:
    worst, least = max(rows["bias"]), min(rows["least"])
    gains = [float(np.median(s / r)) for s, r in zip(rows["sgd"], rows["rr"], strict=True)]
    return [
        Claim(
            "section 3",
            "the mean of RR's gradient is that of SGD's, the whole gradient (largest difference "
            "over the size of a gradient, on four problems)",
            is_so(worst < _ROUNDING, f"{worst:.2g} < {_ROUNDING:g}"),
        ),
        Claim(
            "section 3, Remark 2",
            "the trace of RR's covariance is nowhere above that of SGD's (least difference over "
            "SGD's)",
            is_so(least > -_ROUNDING, f"{least:.3g} > -{_ROUNDING:g}"),
        ),
        Claim(
            "section 3",
            "it is smaller by much on the document's problems: more than a factor of 1.5 at half "
            "of the points",
            is_so(
                min(gains) > 1.5,
                ", ".join(
                    f"{name} {gain:.3g}" for name, gain in zip(rows["problem"], gains, strict=True)
                ),
            ),
        ),
    ]


def _balance(at: dict[str, list[Any]]) -> list[Claim]:
    """Noise in the first minimum over that in the second, of SGD and of RR."""
    ratios = {}
    for name in dict.fromkeys(at["problem"]):
        here = [k for k, problem in enumerate(at["problem"]) if problem == name][:2]
        ratios[name] = [abs(float(np.log(at[f][here[0]] / at[f][here[1]]))) for f in ("sgd", "rr")]
    told = "; ".join(
        f"{name}: {np.exp(sgd):.3g} under SGD, {np.exp(rr):.3g} under RR"
        for name, (sgd, rr) in ratios.items()
    )
    worse = [name for name, (sgd, rr) in ratios.items() if rr > sgd]
    lower = [a > b for a, b in zip(at["sgd"], at["rr"], strict=True)]
    return [
        Claim(
            "section 1 (2), section 3",
            "the scheme balances the variances at the minima of general losses: their ratio comes "
            "nearer to one than SGD's",
            is_so(not worse, told),
            both(
                is_so(bool(worse), f"further from one on {', '.join(worse) or 'none'}"),
                is_so(all(lower), f"lower at {sum(lower)} of {len(lower)} minima"),
            ),
            correction="it lowers the noise at all minima; their ratio may come out worse",
        )
    ]


def _picture(names: list[str]) -> Picture:
    series = [Series(name, "sgd", "rr", name.replace("-", " "), kind="points") for name in names]
    equal = Series("equal", "sgd", "rr", "equal", dashed=True)
    return Picture(
        "trace",
        "The trace of the covariance of one gradient at random points, of SGD and of RR.",
        [Panel("trace, SGD", "trace, RR", [*series, equal], log="xy")],
    )
