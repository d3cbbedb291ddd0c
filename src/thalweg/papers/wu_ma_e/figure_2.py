"""Figure 2 and the theorem: what condition (4) and its rectangle say, and what is true."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, is_so, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_SAMPLES = 1000
# The diagrams: batches at one step, and steps at one batch.
_BATCHES, _STEP = (4, 10, 25), 0.5
_STEPS, _BATCH = (0.3, 0.5, 0.8), 10
# Four samples x x' in the plane.
_ROWS = ((1.0, 0.0), (2.0, 1.0), (0.0, 3.0), (1.0, -1.0))


@experiment(
    "wu-ma-e/figure-2",
    "The theorem and its rectangle: (4) is sufficient, the rectangle neither that nor necessary",
    covers=("Figure 2", "theorem, condition (4)", "influence of B", "influence of eta"),
    seconds=(3, 4),
)
def figure_2(setting: Setting) -> Outcome:
    """The regions in the plane of sharpness and non-uniformity, and families of Hessians in it."""
    rng = np.random.default_rng(setting.seed)
    count = setting.choose(400, 4000)
    plane = _plane(rng, count)
    ratios = _ratios(rng, setting.choose(150, 1000))
    tables = {
        **{f"B={b}": _region(b, _STEP) for b in _BATCHES},
        **{f"eta={e}": _region(_BATCH, e) for e in _STEPS},
    }
    return Outcome(
        [*_theorem(ratios), *_four_samples(), *_rectangle(plane), *_influences()],
        tables,
        [_picture()],
        [
            "Whether a minimum is stable is no matter of sharpness and non-uniformity alone. Only "
            "where one direction decides is it: the samples' Hessians are numbers, or commute. "
            "There it is the half ellipse (1 - ηa)² + η²ps² ≤ 1 that the rectangle encloses."
        ],
    )


def _region(batch: int, step: float) -> dict[str, Any]:
    """The rectangle's outline, and the half ellipse of the points that are stable on a line."""
    corner = tw.stability.rectangle(_SAMPLES, batch_size=batch, step=step)
    angle = np.linspace(np.pi, 0.0, 61)
    return {
        "a": [0.0, corner.sharpness, corner.sharpness],
        "s": [corner.nonuniformity, corner.nonuniformity, 0.0],
        "true a": corner.sharpness / 2 * (1 + np.cos(angle)),
        "true s": corner.nonuniformity * np.sin(angle),
    }


def _plane(rng: np.random.Generator, count: int) -> dict[str, Any]:
    """Pairs of numbers h = a ± s, uniformly in the rectangle of B = 1, η = 1, and their fate."""
    a, s = rng.uniform(0, 2, count), rng.uniform(0, 1, count)
    radii = [
        tw.stability.mean_square_radius(jnp.array([x - y, x + y])[:, None, None], 1.0, 1)
        for x, y in zip(a, s, strict=True)
    ]
    return {"a": a, "s": s, "radius": np.array(radii)}


def _ratios(rng: np.random.Generator, count: int) -> Float[np.ndarray, " families"]:
    """The exact threshold over that of (4), for random families of semidefinite Hessians."""
    ratios = []
    for _ in range(count):
        x = rng.standard_normal((6, 3, 3)) * rng.exponential(size=(6, 3, 1))
        hessians = jnp.asarray(np.einsum("nra,nrb->nab", x, x))
        exact = tw.stability.mean_square_threshold(hessians, 2)
        ratios.append(exact / tw.stability.sufficient_threshold(hessians, 2))
    return np.array(ratios)


def _theorem(ratios: Float[np.ndarray, " families"]) -> list[Claim]:
    return [
        Claim(
            "(4)",
            "a minimum is linearly stable if condition (4) holds: the exact largest step of "
            f"{ratios.size} random families is never below that of (4)",
            above(float(ratios.min()), 1 - 1e-9),
        ),
        Claim(
            "(4)",
            "the condition says which minima are stable (quotient of the exact and its largest "
            "step, median and maximum)",
            both(*(near(float(q), 1.0, tolerance=1e-6) for q in _middle_and_most(ratios))),
            both(*(above(float(q), 1.005) for q in _middle_and_most(ratios))),
            correction="it is sufficient only, and necessary where the samples' Hessians commute; "
            "the exact condition is that of second moments, η ≤ 2/λmax(C⁺D)",
        ),
    ]


def _middle_and_most(ratios: Float[np.ndarray, " families"]) -> tuple[float, float]:
    return float(np.median(ratios)), float(ratios.max())


def _four_samples() -> list[Claim]:
    """An example with its numbers, and the bounds around them."""
    rows = jnp.array(_ROWS)
    hessians = rows[:, :, None] * rows[:, None, :]
    problem = tw.FiniteSum(lambda p, x: jnp.dot(x, p) ** 2 / 2, rows)
    checks = []
    for batch, exact, sufficient, necessary in (
        (1, 0.261643, 0.25, 0.282893),
        (2, 0.457655, 0.4423, 0.473706),
    ):
        about = tw.stability.assess(problem, jnp.zeros(2), batch_size=batch, step=0.1)
        checks += [
            near(tw.stability.mean_square_threshold(hessians, batch), exact, tolerance=1e-6),
            near(tw.stability.sufficient_threshold(hessians, batch), sufficient, tolerance=5e-5),
            near(about.largest_step_necessary, necessary, tolerance=1e-6),
            near(about.largest_step_gd, 0.714759, tolerance=1e-6),
        ]
    return [
        Claim(
            "(4), example",
            "H_i = x_i x_i' of four vectors in the plane: exact largest step .261643 (B = 1) and "
            ".457655 (B = 2), by (4) .2500 and .4423, necessary .282893 and .473706, GD .714759",
            both(*checks),
        )
    ]


def _star(spokes: int, coupling: float) -> Float[np.ndarray, "n d d"]:
    """Unit matrices, and one coordinate coupled to one of several others, with either sign."""
    matrices = np.repeat(np.eye(spokes + 1)[None], 2 * spokes, axis=0)
    for place in range(2 * spokes):
        j = 1 + place // 2
        matrices[place, 0, j] = matrices[place, j, 0] = coupling * (-1) ** place
    return matrices


def _rectangle(plane: dict[str, Any]) -> list[Claim]:
    unstable = plane["radius"] > 1
    share = float(unstable.mean())
    error = math.sqrt(max(share * (1 - share), 1 / unstable.size) / unstable.size)
    ellipse = (1 - plane["a"]) ** 2 + plane["s"] ** 2
    wrong = int(np.sum((ellipse > 1) != unstable))
    star = jnp.asarray(_star(16, 1.5))
    corner = tw.stability.rectangle(32, batch_size=1, step=1.0)
    apart = np.asarray(star) - np.asarray(star).mean(axis=0)
    spread = math.sqrt(float(np.linalg.eigvalsh((apart @ apart).mean(axis=0))[-1]))
    radius = tw.stability.mean_square_radius(star, 1.0, 1)
    return [
        Claim(
            "Figure 2",
            "the rectangle a ≤ 2/η, s ≤ 1/(η√p) is linearly stable: none of the pairs h = a ± s "
            "in it is unstable",
            near(share, 0.0, error=1 / unstable.size),
            both(near(share, 1 - math.pi / 4, error=error), is_so(wrong == 0, f"{wrong} astray")),
            correction="on a line the stable points are a half ellipse in it, and 1 - π/4 = .2146 "
            "of the rectangle is unstable",
        ),
        Claim(
            "Figure 2",
            "what lies outside of the rectangle is unstable: a coordinate coupled at random to "
            "one of 16 others, s = 1.5/η",
            above(radius, 1.0),
            both(below(radius, 1.0), above(spread, corner.nonuniformity)),
            correction="it is not necessary either: the second moments of this one shrink "
            "(radius below 1) up to a coupling of 16^(1/4) = 2; GD is stable there, too",
        ),
    ]


def _influences() -> list[Claim]:
    def corner(batch: int, step: float) -> tw.stability.Rectangle:
        return tw.stability.rectangle(_SAMPLES, batch_size=batch, step=step)

    heights = [corner(b, _STEP).nonuniformity for b in _BATCHES]
    small, large = corner(_BATCH, _STEPS[0]), corner(_BATCH, _STEPS[-1])
    rows = jnp.array(_ROWS)
    hessians = rows[:, :, None] * rows[:, None, :]
    exact = [tw.stability.mean_square_threshold(hessians, b) for b in (1, 2, 3, 4)]
    return [
        Claim(
            "Figure 2, left",
            "a larger batch allows more non-uniformity and as much sharpness; exactly: a larger "
            "batch allows larger steps",
            both(
                is_so(bool(np.all(np.diff(heights) > 0)), ", ".join(f"{h:.3g}" for h in heights)),
                is_so(bool(np.all(np.diff(exact) > 0)), ", ".join(f"{e:.4f}" for e in exact)),
            ),
        ),
        Claim(
            "Figure 2, right",
            "a larger step allows less of both, in inverse proportion",
            both(
                near(small.sharpness / large.sharpness, _STEPS[-1] / _STEPS[0], tolerance=1e-12),
                near(
                    small.nonuniformity / large.nonuniformity,
                    _STEPS[-1] / _STEPS[0],
                    tolerance=1e-12,
                ),
            ),
        ),
    ]


def _picture() -> Picture:
    def panel(names: list[str], labels: list[str]) -> Panel:
        series = []
        for place, (name, label) in enumerate(zip(names, labels, strict=True)):
            series.append(Series(name, "a", "s", "", str(place), dashed=True))
            series.append(Series(name, "true a", "true s", label, str(place)))
        return Panel("sharpness a", "non-uniformity s", series)

    return Picture(
        "figure-2",
        f"Sharpness and non-uniformity at which SGD is stable, n = {_SAMPLES}. Dashed: the "
        "document's rectangle. Lines: the region that is stable where one direction decides. "
        f"Left: by batch, η = {_STEP}; right: by step, B = {_BATCH}.",
        [
            panel([f"B={b}" for b in _BATCHES], [f"B = {b}" for b in _BATCHES]),
            panel([f"eta={e}" for e in _STEPS], [f"η = {e}" for e in _STEPS]),
        ],
    )
