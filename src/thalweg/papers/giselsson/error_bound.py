"""The error bound: what implies it, what it excludes, and the rate it gives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson.common import losses_on, slopes_on
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_STEPS = 60
_SHARES = (0.2, 0.5, 1.0, 1.5, 1.8)


class _Case(NamedTuple):
    """A function with its constants; the least value is 0.

    Attributes:
        told: In words.
        term: The function.
        dimension: Of its argument.
        beta: Its smoothness.
        delta: Its error bound.
    """

    told: str
    term: Callable[[Any, Any], Any]
    dimension: int
    beta: float
    delta: float


def _bowl(x: Any, _: Any) -> Any:
    """Curvatures 1 and 4: delta is twice the smaller."""
    return 0.5 * jnp.sum(jnp.array([1.0, 4.0], x.dtype) * x**2)


def _waves(x: Any, _: Any) -> Any:
    """Not convex, with an error bound; second derivative 2 + 6 cos 2x."""
    return x[0] ** 2 + 3 * jnp.sin(x[0]) ** 2


def _valley(x: Any, _: Any) -> Any:
    """Flat along x1 = x2, as overparameterized least squares."""
    return 0.5 * (x[0] - x[1]) ** 2


@experiment(
    "giselsson/error-bound",
    "The error bound: strong convexity gives it, saddles break it, GD converges linearly with it",
    covers=(
        *("error bound", "strong convexity and error bound", "implications of the error bound"),
        *("rate with smoothness", "KL exponent"),
    ),
    seconds=(12, 12),
)
def error_bound(setting: Setting) -> Outcome:
    """Decrease of GD a step against the bound for several functions and steps."""
    cases = (
        _Case("a bowl, curvatures 1 and 4", _bowl, 2, 4.0, 2.0),
        _Case("x² + 3 sin² x", _waves, 1, 8.0, _bound_of_waves()),
        _Case("(x₁ - x₂)²/2", _valley, 2, 2.0, 4.0),
    )
    rows: dict[str, list[Any]] = {"share": [], "measured": [], "bound": [], "case": []}
    for place, case in enumerate(cases):
        for share in _SHARES:
            gamma = share / case.beta
            rows["case"].append(place)
            rows["share"].append(share)
            rows["measured"].append(_worst(case, gamma, setting))
            rows["bound"].append(1 - gamma * case.delta * (1 - case.beta * gamma / 2))
    tables: dict[str, Any] = {"all": rows}
    for place in range(len(cases)):
        chosen = [k for k, c in enumerate(rows["case"]) if c == place]
        tables[f"case {place}"] = {
            name: [rows[name][k] for k in chosen] for name in ("share", "measured", "bound")
        }
    flat = _power(4, setting)
    tables["quartic"] = {"step": np.arange(1, len(flat)), "f": flat[1:]}
    claims = [*_strong_convexity(setting), *_no_saddles(), *_rates(cases, rows), *_exponents(flat)]
    return Outcome(claims, tables, [_picture(cases)])


def _bound_of_waves() -> float:
    """The largest delta on a grid: the infimum of f'²/f is .35, at x = 2.2."""
    x = np.linspace(1e-3, 10, 200_001)
    slope = 2 * x + 3 * np.sin(2 * x)
    return float(np.min(slope**2 / (x**2 + 3 * np.sin(x) ** 2))) * (1 - 1e-6)


def _worst(case: _Case, gamma: float, setting: Setting) -> float:
    """The largest f(x_{k+1})/f(x_k) of GD from several starts."""
    problem = tw.FiniteSum(case.term, np.zeros(1))
    starts = np.random.default_rng(setting.seed).uniform(-5, 5, (64, case.dimension))
    run = tw.simulate(
        tw.Descent(problem, tw.Full(), gamma),
        jnp.asarray(starts),
        steps=_STEPS,
        key=setting.key,
        per_chain=True,
        record=tw.Record(every=1, values={"f": problem.value}),
    )
    f = np.asarray(run.records["f"])
    # There arguments of size 5 and their differences of 1e-6 give f to 1e-9 of itself.
    going = f[:, :-1] > 1e-12
    return float(np.max(np.where(going, f[:, 1:] / np.where(going, f[:, :-1], 1.0), 0.0)))


def _power(power: int, setting: Setting) -> np.ndarray:
    """The values by step of GD with γ = .01 on |x|^p from 1."""
    problem = tw.FiniteSum(lambda x, _: jnp.sum(x**power), np.zeros(1))
    run = tw.simulate(
        tw.Descent(problem, tw.Full(), 0.01),
        jnp.ones(1),
        steps=20_000,
        key=setting.key,
        record=tw.Record(every=10, values={"f": problem.value}),
    )
    return np.asarray(run.records["f"])[0]


def _strong_convexity(setting: Setting) -> list[Claim]:
    """The chain of inequalities for g = f - sigma|x|²/2, a random convex quadratic."""
    rng = np.random.default_rng(setting.seed)
    sigma, d = 0.5, 3
    root = rng.standard_normal((d, d))
    G, shift = root @ root.T, rng.standard_normal(d)

    def g(x: np.ndarray) -> float:
        return float(0.5 * x @ G @ x + shift @ x)

    def f(x: np.ndarray) -> float:
        return g(x) + 0.5 * sigma * float(x @ x)

    best = np.linalg.solve(G + sigma * np.eye(d), -shift)
    gaps = {"sigma": 0.0, "sigma squared": 0.0}
    least = np.inf
    for x in 3 * rng.standard_normal((200, d)):
        s = G @ x + shift
        least = min(least, float(np.sum((s + sigma * x) ** 2)) / (2 * sigma * (f(x) - f(best))))
        start = s @ s + 2 * sigma * s @ best + 2 * sigma * (g(x) - g(best)) + sigma**2 * x @ x
        for name, factor in (("sigma", sigma), ("sigma squared", sigma**2)):
            line = s @ s + 2 * sigma * s @ best + factor * best @ best
            line = line + 2 * sigma * (f(x) - f(best))
            gaps[name] = max(gaps[name], abs(float(start - line)) / abs(float(start)))
    return [
        Claim(
            "Strongly convex functions satisfy error bound",
            "|∇f|² ≥ 2σ(f - f*), at 200 random points",
            above(least, 1.0),
        ),
        Claim(
            "Strongly convex functions satisfy error bound, third line",
            "the third line has the term σ|x*|²",
            near(gaps["sigma"], 0.0, tolerance=1e-10),
            near(gaps["sigma squared"], 0.0, tolerance=1e-10),
            correction="σ²|x*|²: only with it are the second and the third line equal",
        ),
    ]


def _no_saddles() -> list[Claim]:
    """Ratios |f'|²/f: bounded below with an error bound, zero at the top of a double well."""
    well = tw.landscapes.double_well().problem
    x = np.linspace(-0.9, 0.9, 181)
    slopes, values = slopes_on(well, x), losses_on(well, x).mean(axis=1)
    wells = float(np.min(slopes**2 / values))
    problem = tw.FiniteSum(_waves, np.zeros(1))
    # No point is 0, where the slope vanishes.
    slope = slopes_on(problem, np.linspace(-10.0, 10.0, 2000))
    turns = int(np.sum(np.diff(np.sign(slope)) != 0))
    return [
        Claim(
            "Implications of error bound",
            "where it holds there are no local minima and no saddles: x² + 3 sin² x, with "
            "δ = .35 on all of [-10, 10], is not convex and has one critical point all the same",
            both(
                above(_bound_of_waves(), 0.1),
                below(float(np.diff(slope).min()), 0.0),
                near(float(turns), 1.0),
            ),
        ),
        Claim(
            "Implications of error bound",
            "and conversely: at the top of a double well |f'|²/(f - f*) is zero",
            near(wells, 0.0, tolerance=1e-12),
        ),
    ]


def _rates(cases: tuple[_Case, ...], rows: dict[str, list[Any]]) -> list[Claim]:
    claims = []
    for place, case in enumerate(cases):
        off = [
            m - b
            for m, b, c in zip(rows["measured"], rows["bound"], rows["case"], strict=True)
            if c == place
        ]
        claims.append(
            Claim(
                "Convergence analysis - Smoothness and error bound",
                "f(x_{k+1}) - f* ≤ (1 - γδ(1 - βγ/2)) (f(x_k) - f*) for γ < 2/β: " + case.told,
                below(max(off), 1e-8),
            )
        )
    # The valley has one curvature: the bound is met with equality.
    claims.append(
        Claim(
            "Convergence analysis - Smoothness and error bound",
            "the factor cannot be improved: the valley meets it at every step size",
            near(
                max(
                    abs(m - b)
                    for m, b, c in zip(rows["measured"], rows["bound"], rows["case"], strict=True)
                    if c == 2
                ),
                0.0,
                tolerance=1e-8,
            ),
        )
    )
    return claims


def _exponents(flat: np.ndarray) -> list[Claim]:
    step = 10 * (len(flat) - 1)
    # x' = -4x³ for f = x⁴: f tends to 1/(8 γ k)².
    return [
        Claim(
            "Kurdyka-Lojasiewicz",
            "descent is sublinear for exponents above a half: x⁴ (exponent 3/4) falls as "
            "1/(8γk)², with γ = .01",
            near(float(flat[-1]) * (8 * 0.01 * step) ** 2, 1.0, tolerance=0.01),
        ),
        Claim(
            "Kurdyka-Lojasiewicz",
            "and not linear: the factor a step tends to 1",
            above(float((flat[-1] / flat[-2]) ** 0.1), 0.999),
        ),
    ]


def _picture(cases: tuple[_Case, ...]) -> Picture:
    colours = ("rr", "sgd", "rr-group")
    series = []
    for place, (case, family) in enumerate(zip(cases, colours, strict=True)):
        table = f"case {place}"
        series.append(Series(table, "share", "measured", case.told, family, "points"))
        series.append(Series(table, "share", "bound", "", family, dashed=True))
    return Picture(
        "error-bound",
        "Left: the largest f(x_{k+1})/f(x_k) of gradient descent (points) and the bound "
        "1 - γδ(1 - βγ/2) (dashed). Right: without the error bound convergence is sublinear: x⁴.",
        [
            Panel("γβ", "factor a step", series),
            Panel(
                "step k / 10",
                "f",
                [Series("quartic", "step", "f", "x⁴, γ = .01", "gd")],
                log="xy",
            ),
        ],
    )
