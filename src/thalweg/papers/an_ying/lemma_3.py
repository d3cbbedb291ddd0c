"""Lemma 3: how far SGD and RR come away from the gradient flow, and what the trace says of it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, is_so, near
from thalweg.papers.estimates import Mean, Share, apart
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_SAMPLERS = {"sgd": ("SGD", tw.Minibatch(1)), "rr": ("RR", tw.Reweighted(1))}
_STEP, _TIME = 0.01, 1.0
# Lipschitz constant of the gradient of |theta|^2/2.
_B = 1.0
_WIDE = 40


@experiment(
    "an-ying/lemma-3",
    "The deviation from the gradient flow is bounded by the trace, and not ordered by it",
    covers=("Lemma 3",),
    seconds=(11, 60),
)
def lemma_3(setting: Setting) -> Outcome:
    """The largest deviation up to time 1 around a minimum, of two clouds of quadratics."""
    chains = setting.choose(4000, 40_000)
    clouds = {"alike": _alike(), "spiked": _spiked()}
    found: dict[str, dict[str, np.ndarray]] = {}
    traces: dict[str, dict[str, float]] = {}
    for name, centres in clouds.items():
        problem = tw.FiniteSum(_quadratic, centres)
        found[name], traces[name] = {}, {}
        for family, (label, sampler) in _SAMPLERS.items():
            run = tw.simulate(
                tw.Descent(problem, sampler, _STEP),
                jnp.zeros(centres.shape[1]),
                steps=round(_TIME / _STEP),
                key=setting.key,
                chains=chains,
                record=tw.Record(every=1, values={"square": lambda x: jnp.sum(x**2)}),
                progress=setting.progress_of(f"{name}, {label}"),
            )
            squares = np.asarray(run.records["square"])
            found[name][family] = squares.max(axis=1)
            traces[name][family] = _mean_trace(problem, sampler, run)
    # Deviations in the unit of the noise: delta^2 = eta T z.
    levels = np.linspace(0.5, 8.0, 31)
    tables: dict[str, dict[str, Any]] = {}
    for name in clouds:
        tables[name] = {"z": levels}
        for family in _SAMPLERS:
            shares = [Share.of(found[name][family] > _STEP * _TIME * z) for z in levels]
            tables[name][family] = [share.value for share in shares]
            tables[name][f"{family} error"] = [share.error for share in shares]
            bound = _bound(levels, traces[name][family])
            tables[name][f"{family} bound"] = bound
    return Outcome(
        [*_of_the_bound(tables, traces), *_of_the_order(found, traces)], tables, [_picture()]
    )


def _quadratic(theta: Float[Array, " d"], centre: Float[Array, " d"]) -> Array:
    return 0.5 * jnp.sum((theta - centre) ** 2)


def _crosses(axes: list[int], size: float, dimension: int) -> np.ndarray:
    """Centres at plus and minus a size along some axes."""
    rows = np.concatenate([np.eye(dimension)[axes], -np.eye(dimension)[axes]])
    return size * rows


def _alike() -> np.ndarray:
    """Gradients of two sizes at 0, 1 and 5, along the same three axes; nine small ones in ten."""
    small, large = _crosses([0, 1, 2], 1.0, 3), _crosses([0, 1, 2], 5.0, 3)
    return np.concatenate([np.repeat(small, 9, axis=0), large])


def _spiked() -> np.ndarray:
    """Half of the gradients of size 1 along one axis, half of size 3 spread over forty others."""
    spike = np.repeat(_crosses([0], 1.0, 1 + _WIDE), _WIDE, axis=0)
    return np.concatenate([spike, _crosses(list(range(1, 1 + _WIDE)), 3.0, 1 + _WIDE)])


def _mean_trace(problem: tw.FiniteSum, sampler: Any, run: tw.Run) -> float:
    """The trace at the ends of some chains; it hardly changes so near to the minimum."""
    ends = np.asarray(run.params)[:50]
    start = float(sampler.trace(problem, jnp.zeros(ends.shape[1])))
    later = np.mean([float(sampler.trace(problem, jnp.asarray(end))) for end in ends[:5]])
    return float((start + later) / 2)


def _bound(levels: Any, trace: float) -> np.ndarray:
    """Lemma 3 with Doob's constant 4 for the Burkholder-Davis-Gundy one: delta^2 = eta T z."""
    return 4 * np.exp(2 * _B * _TIME) * trace / np.asarray(levels)


def _of_the_bound(
    tables: dict[str, dict[str, Any]], traces: dict[str, dict[str, float]]
) -> list[Claim]:
    worst = max(
        float(np.max(np.array(table[family]) / table[f"{family} bound"]))
        for table in tables.values()
        for family in _SAMPLERS
    )
    smaller = [row["rr"] < row["sgd"] for row in traces.values()]
    told = "; ".join(f"{row['sgd']:.3g} and {row['rr']:.3g}" for row in traces.values())
    return [
        Claim(
            "Lemma 3 (13)",
            "P(sup |Θ - φ| > δ) ≤ η c' E∫Tr(σσ') with c' = 4 e^(2BT)/δ² (the proof, with Doob's "
            "inequality): the largest quotient of both sides",
            below(worst, 1.0),
        ),
        Claim(
            "Lemma 3",
            "the bound for RR is the smaller one (traces of SGD and of RR)",
            is_so(all(smaller), told),
        ),
    ]


def _of_the_order(
    found: dict[str, dict[str, np.ndarray]], traces: dict[str, dict[str, float]]
) -> list[Claim]:
    alike, spiked = found["alike"], found["spiked"]
    near_by = {family: Share.of(values > _STEP * 2.0) for family, values in alike.items()}
    far = {family: Share.of(values > _STEP * 4.5) for family, values in spiked.items()}
    square = {family: Mean.of(values) for family, values in spiked.items()}
    more = far["rr"].value - far["sgd"].value
    return [
        Claim(
            "Lemma 3, after it",
            "RR is closer to the gradient flow with higher probability: gradients of two sizes in "
            "the same directions, δ² = 2η",
            above(
                near_by["sgd"].value - near_by["rr"].value,
                0.0,
                error=apart(near_by["sgd"], near_by["rr"]),
            ),
        ),
        Claim(
            "Lemma 3, after it",
            "so it is for every δ, by the trace alone: small gradients along one direction, large "
            "ones spread over forty, δ² = 4.5η",
            below(more, 0.0, error=apart(far["rr"], far["sgd"])),
            both(
                above(more, 0.0, error=apart(far["rr"], far["sgd"])),
                below(
                    square["rr"].value - square["sgd"].value,
                    0.0,
                    error=apart(square["rr"], square["sgd"]),
                ),
            ),
            correction="the mean square of the deviation is smaller, but a large one is likelier: "
            "RR has the larger noise along the one direction",
        ),
        Claim(
            "Lemma 3",
            "the trace of the second cloud at its minimum is 5 under SGD and 4 under RR",
            both(
                near(traces["spiked"]["sgd"], 5.0, tolerance=0.1),
                near(traces["spiked"]["rr"], 4.0, tolerance=0.1),
            ),
        ),
    ]


def _picture() -> Picture:
    def panel(name: str, title: str, labelled: bool) -> Panel:
        series = []
        for family, (label, _) in _SAMPLERS.items():
            text = label if labelled else ""
            series.append(Series(name, "z", family, text, family))
            series.append(
                Series(
                    name, "z", f"{family} bound", f"bound, {label}" * labelled, family, dashed=True
                )
            )
        return Panel("δ²/η", "P(sup |θ - φ| > δ)", series, title=title, log="y", limits=(2e-4, 1e3))

    return Picture(
        "lemma-3",
        "The probability that a chain from the minimum deviates from the gradient flow by more "
        "than δ up to t = 1, η = .01, and Lemma 3's bound.",
        [panel("alike", "same directions", True), panel("spiked", "one direction, forty", False)],
    )
