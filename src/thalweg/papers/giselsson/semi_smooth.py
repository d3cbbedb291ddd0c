"""Semi-smoothness: where it holds, and the rate it gives together with an error bound."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import Check, above, below, both
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

# A residual that bends: r = x up to 1, with the slope 1.1 beyond; f = r²/2.
_KINK, _SLOPE = 1.0, 1.1
_BEND_BETA, _BEND_DELTA = _SLOPE**2, 2.0
# A flat parabola under a large beta.
_FLAT, _FLAT_BETA = 1e-3, 1.0
_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


class _Rate(NamedTuple):
    """Steps of GD on one function: the worst factor and the two bounds."""

    share: list[float]
    measured: list[float]
    printed: list[float]
    corrected: list[float]
    c: list[float]
    allowed: list[float]


@experiment(
    "giselsson/semi-smooth",
    "Semi-smooth functions with an error bound: GD contracts by 1 - δγ(1 - βγ), with δ and not c",
    covers=("semi-smoothness", "rate with both", "convergence in deep learning"),
    seconds=(6, 8),
)
def semi_smooth(setting: Setting) -> Outcome:
    """Two functions with their constants, a square and a modulus at their kinks, and a net."""
    bend = _bend_rate(setting)
    flat = _flat_rate(setting)
    widths = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)
    needed = {
        "width": widths,
        "square": [_needed_c(_halved_square, w, 4.0) for w in widths],
        "modulus": [_needed_c(np.abs, w, 4.0) for w in widths],
    }
    net = _net_losses(setting)
    tables = {
        "bend": bend._asdict(),
        "flat": flat._asdict(),
        "needed": needed,
        "net": {"step": 10 * np.arange(len(net)), "loss": net},
    }
    claims = [*_rates(bend, flat), *_kinks(needed), _linear(net)]
    return Outcome(claims, tables, [_picture()])


def _bent(x: Any) -> Any:
    return jnp.where(x < _KINK, x, _KINK + _SLOPE * (x - _KINK))


def _rate(starts: np.ndarray, term: Any, gammas: list[float], setting: Setting) -> list[float]:
    """The largest f(x_1)/f(x_0) of one step of GD."""
    problem = tw.FiniteSum(term, np.zeros(1))
    factors = []
    for gamma in gammas:
        run = tw.simulate(
            tw.Descent(problem, tw.Full(), gamma),
            jnp.asarray(starts)[:, None],
            steps=1,
            key=setting.key,
            per_chain=True,
            record=tw.Record(every=1, values={"f": problem.value}),
        )
        f = np.asarray(run.records["f"])
        factors.append(float(np.max(f[:, 1] / f[:, 0])))
    return factors


def _bend_rate(setting: Setting) -> _Rate:
    starts = np.concatenate([np.linspace(0.05, 3.0, 400), [_KINK - 1e-9, _KINK + 1e-9]])
    gammas = [share / _BEND_BETA for share in _SHARES]
    c = _needed_c(lambda x: 0.5 * np.asarray(_bent(x)) ** 2, 3.0, _BEND_BETA, centre=_KINK)
    return _collected(
        _rate(starts, lambda x, _: 0.5 * _bent(x[0]) ** 2, gammas, setting),
        gammas,
        _BEND_BETA,
        _BEND_DELTA,
        [c] * len(gammas),
    )


def _flat_rate(setting: Setting) -> _Rate:
    """Any c is allowed, for the function is smooth: the largest that the statement takes."""
    gammas = [share / _FLAT_BETA for share in _SHARES]
    delta = 2 * _FLAT
    largest = [np.sqrt(delta) * gamma * _FLAT_BETA / 2 for gamma in gammas]
    measured = _rate(
        np.linspace(0.5, 3.0, 8), lambda x, _: 0.5 * _FLAT * x[0] ** 2, gammas, setting
    )
    return _collected(measured, gammas, _FLAT_BETA, delta, largest)


def _collected(
    measured: list[float], gammas: list[float], beta: float, delta: float, c: list[float]
) -> _Rate:
    return _Rate(
        list(_SHARES),
        measured,
        [1 - k * g * (1 - beta * g) for k, g in zip(c, gammas, strict=True)],
        [1 - delta * g * (1 - beta * g) for g in gammas],
        c,
        [np.sqrt(delta) * g * beta / 2 for g in gammas],
    )


def _halved_square(x: np.ndarray) -> np.ndarray:
    """The square of a residual |x|, which has a kink where it vanishes."""
    return 0.5 * np.abs(x) ** 2


def _needed_c(function: Any, width: float, beta: float, centre: float = 0.0) -> float:
    """The smallest c for all pairs of a grid of ``width`` around a kink, by central slopes."""
    # An even number of points leaves the kink out; the points nearest to it are 1/800 of the width
    # away.
    x = centre + np.linspace(-width, width, 800)
    f = np.asarray(function(x), dtype=float)
    small = 1e-7 * width
    slope = (np.asarray(function(x + small)) - np.asarray(function(x - small))) / (2 * small)
    step = x[:, None] - x
    excess = f[:, None] - f - slope * step - 0.5 * beta * step**2
    scale = np.abs(step) * np.sqrt(f)
    ratio = np.divide(excess, scale, out=np.zeros_like(excess), where=scale > 0)
    return float(max(ratio.max(), 0.0))


def _rates(bend: _Rate, flat: _Rate) -> list[Claim]:
    kept = [c <= a for c, a in zip(bend.c, bend.allowed, strict=True)]
    bent = [m - b for m, b, k in zip(bend.measured, bend.corrected, kept, strict=True) if k]
    return [
        Claim(
            "Convergence - Error bound and semi-smoothness",
            "GD contracts by 1 - cγ(1 - βγ) a step: a parabola of curvature .001, with "
            "β = 1, δ = .002 and the largest c that is allowed",
            _all_below(flat.measured, flat.printed),
            _all_below(flat.measured, flat.corrected),
            correction="by 1 - δγ(1 - βγ), with the constant of the error bound: c is how far f is "
            "from smooth, and the smoother f, the slower it would be",
        ),
        Claim(
            "Convergence - Error bound and semi-smoothness",
            f"the corrected rate holds at a kink (c = {bend.c[0]:.3f}, δ = 2) for all steps with "
            "c ≤ √δ γβ/2",
            both(below(max(bent), 1e-12), above(float(sum(kept)), 2.5)),
        ),
    ]


def _all_below(values: list[float], bounds: list[float]) -> Check:
    worst = int(np.argmax(np.array(values) - np.array(bounds)))
    return below(values[worst], bounds[worst] + 1e-12)


def _kinks(needed: dict[str, Any]) -> list[Claim]:
    growth = needed["modulus"][-1] / needed["modulus"][1]
    square = max(needed["square"])
    return [
        Claim(
            "Semi-smoothness",
            "continuous piecewise polynomials are semi-smooth locally, for c and β large enough: "
            "|x| at 0 with β = 4, on smaller and smaller intervals, needs no larger c",
            below(growth, 2.0),
            below(square, 3.0),
            correction="squares of them are, as with the squared loss (c = 2√2 L, β = L²). For "
            "|x| itself c has to grow without end, for √f vanishes where the slope still jumps",
        ),
        Claim(
            "Semi-smoothness",
            "c = 0 is smoothness: a parabola needs none, a bent one does",
            both(
                below(_needed_c(lambda x: 0.5 * x**2, 1.0, 1.0), 1e-6),
                above(
                    _needed_c(
                        lambda x: 0.5 * np.asarray(_bent(x)) ** 2, 3.0, _BEND_BETA, centre=_KINK
                    ),
                    0.05,
                ),
            ),
        ),
    ]


def _net_losses(setting: Setting) -> np.ndarray:
    """GD on a wide two-layer ReLU net and a squared loss: ten points, random targets."""
    rng = np.random.default_rng(setting.seed)
    points = rng.standard_normal((10, 5))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    model = tw.models.mlp((5, setting.choose(300, 1000), 1))
    loss = tw.models.supervised(model, tw.models.squared_error)
    problem = tw.FiniteSum(loss, (points, rng.standard_normal((10, 1))))
    run = tw.simulate(
        tw.Descent(problem, tw.Full(), 0.05),
        model.init(setting.key, jnp.float64),
        steps=2000,
        key=setting.key,
        record=tw.Record(every=10, values={"loss": problem.value}),
    )
    return np.asarray(run.records["loss"])[0]


def _linear(losses: np.ndarray) -> Claim:
    # Further down is rounding.
    seen = np.log(losses[losses > 1e-24])
    late = seen[len(seen) // 2 :]
    steps = np.arange(late.size)
    fit = np.polyfit(steps, late, 1)
    rest = float(np.std(late - np.polyval(fit, steps)) / np.std(late))
    return Claim(
        "Convergence in deep learning",
        "with random initialization a ReLU net that is wide enough converges linearly with a "
        "constant step: log loss against the step is a falling straight line (second half of "
        "the steps of GD down to 1e-24, 2 % off at most)",
        both(below(float(fit[0]), 0.0), below(rest, 0.02)),
    )


def _picture() -> Picture:
    rates = []
    for name, family, told in (("bend", "rr", "bent parabola"), ("flat", "sgd", "flat parabola")):
        rates.append(Series(name, "share", "measured", told, family, "points"))
        rates.append(Series(name, "share", "corrected", "", family, dashed=True))
    needed = [
        Series("needed", "width", "modulus", "|x|", "", "points"),
        Series("needed", "width", "square", "|x|²/2", "", "points"),
    ]
    return Picture(
        "semi-smooth",
        "Top: the largest f(x_{k+1})/f(x_k) of GD (points) and 1 - δγ(1 - βγ) (dashed); the c that "
        "is needed at a kink, by the width around it. Bottom: the loss of a wide ReLU net under "
        "GD.",
        [
            Panel("γβ", "factor a step", rates),
            Panel("width", "smallest c", needed, log="x"),
            Panel("step k", "loss", [Series("net", "step", "loss", "", "gd")], log="y"),
        ],
    )
