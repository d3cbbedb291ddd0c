"""Two functions taken in turn: large and small gradients at the solution."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, both, is_so, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson.common import losses_on, step_size
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_LARGE, _SMALL = 0.83, 0.02
_DRAWN = 12
_STEPS = 600
# The mean of both is x^2/2.
_SMALL_LOSS = 1e-5
_CURVATURES = (1.0, 3.0)


@experiment(
    "giselsson/cyclic-order",
    "Two functions in turn: large gradients at the solution keep SGD away, small ones do not",
    covers=("cyclic order", "large gradients at solution", "convergence and individual norms"),
    seconds=(4, 4),
)
def cyclic_order(setting: Setting) -> Outcome:
    """Twelve steps as on the slides, and the cycle they end in."""
    gamma = step_size(tw.landscapes.cyclic_pair())
    paths = {
        g0: _path(tw.landscapes.cyclic_pair(g0=g0).problem, gamma, setting)
        for g0 in (_LARGE, _SMALL)
    }
    hinges = {g0: _path(_hinges(g0), gamma, setting) for g0 in (_LARGE, _SMALL)}
    bias = {step: _bias(step, setting) for step in (gamma, gamma / 2)}
    tables: dict[str, Any] = {}
    x = np.linspace(-1.1, 1.1, 201)
    for name, g0 in (("large", _LARGE), ("small", _SMALL)):
        problem = tw.landscapes.cyclic_pair(g0=g0).problem
        losses = losses_on(problem, x)
        start = paths[g0][: _DRAWN + 1]
        tables[f"{name} summands"] = {
            "x": x,
            "f1": losses[:, 0],
            "f2": losses[:, 1],
            "f": losses.mean(axis=1),
        }
        tables[f"{name} twelve"] = {
            "step": np.arange(_DRAWN + 1),
            "x": start,
            "f": start**2 / 2,
        }
        tables[name] = {"step": np.arange(_STEPS + 1), "f": paths[g0] ** 2 / 2}
    return Outcome(_claims(gamma, paths, hinges, bias), tables, [_picture()])


def _path(problem: tw.FiniteSum, gamma: float, setting: Setting, steps: int = _STEPS) -> np.ndarray:
    run = tw.simulate(
        tw.Descent(problem, tw.Cyclic(1), gamma),
        jnp.ones(1),
        steps=steps,
        key=setting.key,
        record=tw.Record(every=1),
    )
    return np.asarray(run.records["params"])[0, :, 0]


def _hinges(g0: float) -> tw.FiniteSum:
    """Each rises on one side alone; where both do, they are the pair of quadratics."""
    return tw.FiniteSum(_hinge, (np.array([1.0, -1.0]), np.full(2, g0)))


def _hinge(position: Any, sample: Any) -> Any:
    sign, g0 = sample
    (x,) = position
    return 0.5 * jnp.square(jnp.maximum(sign.astype(x.dtype) * x + g0.astype(x.dtype), 0.0))


def _bias(gamma: float, setting: Setting) -> float:
    """The middle of the cycle where the two have curvatures 1 and 3; the solution is 0."""
    problem = tw.FiniteSum(_bowl, (np.array(_CURVATURES), np.array([_LARGE, -_LARGE])))
    return float(_path(problem, gamma, setting)[-2:].mean())


def _bowl(position: Any, sample: Any) -> Any:
    curvature, slope = sample
    (x,) = position
    return 0.5 * curvature.astype(x.dtype) * x * x + slope.astype(x.dtype) * x


def _claims(
    gamma: float,
    paths: dict[float, np.ndarray],
    hinges: dict[float, np.ndarray],
    bias: dict[float, float],
) -> list[Claim]:
    loss = {g0: path**2 / 2 for g0, path in paths.items()}
    # The step after the last one above; all steps where it is never kept.
    kept = {g0: int(np.max(np.nonzero(v >= _SMALL_LOSS)[0])) + 1 for g0, v in loss.items()}
    return [
        *(_cycle(gamma, g0, paths[g0], digits) for g0, digits in ((_LARGE, 5e-8), (_SMALL, 5e-9))),
        Claim(
            "Example - Large gradients at solution",
            "with the gradients ±.83 at the solution it does not converge with a constant step: "
            "after 500 steps the loss is never again below 1e-4",
            above(float(loss[_LARGE][500:].min()), 1e-4),
        ),
        Claim(
            "Example - Small gradients at solution",
            "with ±.02 it is much faster to reach a small loss and to keep it: below 1e-5 within "
            "100 steps, with ±.83 not in 600",
            is_so(
                kept[_SMALL] < 100 and kept[_LARGE] > _STEPS,
                f"±.02 after {kept[_SMALL]} steps; ±.83 has the loss {loss[_LARGE][-1]:.3g} at the "
                "end",
            ),
        ),
        Claim(
            "Example - Small gradients at solution",
            "in the twelve steps that are drawn the two differ already: the next steps change "
            "the place by γ(x ± g0), in turn up and down with ±.83 once x < g0, always down with "
            "±.02",
            both(
                is_so(
                    bool(np.any(np.diff(paths[_LARGE][: _DRAWN + 1]) > 0)),
                    f"{int(np.sum(np.diff(paths[_LARGE][: _DRAWN + 1]) > 0))} of 12 steps up "
                    "with ±.83",
                ),
                is_so(
                    bool(np.all(np.diff(paths[_SMALL][: _DRAWN + 1]) < 0)),
                    f"{int(np.sum(np.diff(paths[_SMALL][: _DRAWN + 1]) > 0))} with ±.02",
                ),
            ),
        ),
        _outwards(gamma, hinges),
        Claim(
            "Convergence and individual gradient norm",
            "with unequal curvatures (1 and 3) even the middle of the cycle is off the solution, "
            "in proportion to γ: half the step, half of it",
            both(
                above(abs(bias[gamma]), 1e-3),
                near(bias[gamma / 2] / bias[gamma], 0.5, tolerance=gamma),
            ),
        ),
    ]


def _cycle(gamma: float, g0: float, path: np.ndarray, digits: float) -> Claim:
    exact = gamma * g0 / (2 - gamma)
    return Claim(
        "SGD with cyclic update order",
        f"with gradients ±{g0} at the solution SGD ends in the cycle ±γ g0/(2 - γ) = "
        f"{exact:.6g} (summands of curvature 1)",
        both(
            near(float(np.abs(path[-2:]).max()), exact, tolerance=1e-15 + digits),
            near(float(path[-2:].sum()), 0.0, tolerance=digits),
        ),
    )


def _outwards(gamma: float, hinges: dict[float, np.ndarray]) -> Claim:
    """Where the first summand, whose gradient at the solution is +g0, begins to rise."""
    grid = np.linspace(-1.0, 1.0, 201)
    bottom, edge = {}, {}
    for g0 in (_LARGE, _SMALL):
        pair, hinge = tw.landscapes.cyclic_pair(g0=g0).problem, _hinges(g0)
        bottom[g0] = float(grid[losses_on(pair, grid)[:, 0].argmin()])
        edge[g0] = float(grid[losses_on(hinge, grid)[:, 0] < 1e-12].max())
    cycle = gamma * _SMALL / (2 - gamma)
    return Claim(
        "Example - Small gradients at solution",
        "shifting f1 and f2 outwards makes their gradients at the solution small",
        above(abs(bottom[_SMALL]), abs(bottom[_LARGE])),
        both(
            above(edge[_SMALL], edge[_LARGE]),
            near(float(np.abs(hinges[_SMALL][-2:]).max()), cycle, tolerance=1e-6),
        ),
        reading="each rises on its outer side alone, as max(0, ±x + g0)²/2 does, which ends in the "
        "same cycle. Two parabolas have to be moved inwards: their minima are at ∓g0",
    )


def _picture() -> Picture:
    panels = []
    for name, g0 in (("large", _LARGE), ("small", _SMALL)):
        table = f"{name} summands"
        panels.append(
            Panel(
                "x",
                "loss",
                [
                    Series(table, "x", "f1", "f₁"),
                    Series(table, "x", "f2", "f₂"),
                    Series(table, "x", "f", "their mean", "gd"),
                    Series(f"{name} twelve", "x", "f", "12 steps in turn", "cyclic", "points"),
                ],
                f"gradients ±{g0} at 0",
            )
        )
    twelve = [
        Series("large twelve", "step", "x", "±.83", "cyclic"),
        Series("small twelve", "step", "x", "±.02", "cyclic", dashed=True),
    ]
    panels.append(Panel("step k", "x_k", twelve))
    losses = [
        Series("large", "step", "f", "±.83", "cyclic"),
        Series("small", "step", "f", "±.02", "cyclic", dashed=True),
    ]
    panels.append(Panel("step k", "f(x_k)", losses, log="y", limits=(1e-10, 1)))
    return Picture(
        "cyclic-order",
        "SGD with γ = .07 that takes two functions in turn, from x = 1: the twelve steps of the "
        "slides, on the mean of both and step by step, and the loss of 600 steps.",
        panels,
    )
