"""Minibatches: unbiased, with a larger smallest product of two gradients, at a price."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

import thalweg as tw
from thalweg.papers.checks import Check, above, below, both, is_so, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson.common import batch_gradients, least_product
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_N = 6
_SETS = 300
_BATCHES = (1, 2, 3)
_AT_CENTRE = (-0.5, -0.125, 0.0)
_AT_FIVE = (16.0, 22.375, 25.0)
# Gradients evaluated: shared by batches of one, two and three.
_EVALUATIONS = 60
_EARLY = 12


@experiment(
    "giselsson/minibatch",
    "Larger batches: more alike, a smaller noise ball, and dearer",
    covers=("unbiased gradient", "unbiased minibatch", "smallest product mu", "minibatch and mu"),
    seconds=(7, 10),
)
def minibatch(setting: Setting) -> Outcome:
    """The smallest product by batch size, and the mean squared distance by gradients evaluated."""
    landscape = tw.landscapes.three_quadratics()
    squares: dict[int, np.ndarray] = {}
    for batch in _BATCHES:
        descent = tw.Descent(landscape.problem, tw.Minibatch(batch), landscape.step)
        run = tw.simulate(
            descent,
            landscape.start,
            steps=_EVALUATIONS // batch,
            key=setting.key,
            chains=setting.choose(1000, 10_000),
            record=tw.Record(every=1),
        )
        squares[batch] = np.sum(np.asarray(run.records["params"]) ** 2, axis=2)
    products = {
        "batch": _BATCHES,
        "centre": [_least(landscape, b, (0.0, 0.0)) for b in _BATCHES],
        "five": [_least(landscape, b, (5.0, 0.0)) for b in _BATCHES],
    }
    tables: dict[str, Any] = {"products": products}
    for batch, values in squares.items():
        tables[f"B{batch}"] = {
            "evaluations": batch * np.arange(values.shape[1]),
            "square": values.mean(axis=0),
        }
    claims = [*_unbiased(setting), *_products(setting, landscape, products), *_speed(squares)]
    return Outcome(claims, tables, [_picture()])


def _least(landscape: tw.Landscape, batch: int, point: tuple[float, float]) -> float:
    return least_product(batch_gradients(landscape.problem, batch, jnp.array(point))[0])


def _unbiased(setting: Setting) -> list[Claim]:
    """On terms with random gradients: all batches of every size, listed."""
    slopes = np.asarray(jax.random.normal(setting.key, (_N, 4)))
    problem = tw.FiniteSum(_linear, slopes)
    point = jnp.zeros(4)
    counts, shares, bias = [], [], []
    for batch in range(1, _N + 1):
        gradients, index = batch_gradients(problem, batch, point)
        counts.append(len(gradients) - math.comb(_N, batch))
        shares.append(int(np.sum(index == 0)) - math.comb(_N - 1, batch - 1))
        bias.append(np.abs(gradients.mean(axis=0) - slopes.mean(axis=0)).max())
    return [
        Claim(
            "Single function stochastic gradient",
            "drawing one term is unbiased",
            below(float(bias[0]), 1e-14),
        ),
        Claim(
            "Mini-batch stochastic gradient",
            "there are (N over K) batches of K, each sample is in (N-1 over K-1) of them, and "
            "their mean is the gradient; all K for N = 6",
            both(
                is_so(not any(counts) and not any(shares), f"counts off by {counts}, {shares}"),
                below(float(max(bias)), 1e-14),
            ),
        ),
    ]


def _linear(x: Any, slope: Any) -> Any:
    return jnp.dot(slope.astype(x.dtype), x)


def _products(setting: Setting, landscape: tw.Landscape, products: dict[str, Any]) -> list[Claim]:
    rng = np.random.default_rng(setting.seed)
    falls = _falls(rng)
    return [
        Claim(
            "Minibatch setting",
            "a larger batch has a larger μ: at the solution of the three quadratics it is -1/2, "
            "-1/8 and 0 for B = 1, 2, 3",
            _equal(products["centre"], _AT_CENTRE),
        ),
        Claim(
            "Minibatch setting",
            "at (5, 0) μ is 16, 22.375 and 25",
            _equal(products["five"], _AT_FIVE),
        ),
        Claim(
            "Minibatch setting",
            f"μ never falls with the batch size, on {_SETS} random sets of five gradients",
            is_so(falls == 0, f"it fell in {falls} of {_SETS} sets"),
        ),
        Claim(
            "Qualitative convergence behavior",
            "larger μ means more similar to the full gradient: over random points, the larger "
            "μ/|∇f|² the smaller the noise tr C/|∇f|² (rank correlation below -.9)",
            _similarity(rng, landscape),
        ),
    ]


def _equal(values: Any, expected: tuple[float, ...]) -> Check:
    return both(*(near(v, e, tolerance=1e-12) for v, e in zip(values, expected, strict=True)))


def _falls(rng: np.random.Generator) -> int:
    """In how many sets of five vectors the smallest product falls when batches grow."""
    problem = tw.FiniteSum(_linear, np.zeros((5, 3)))
    index = [np.asarray(tw.Minibatch(b).outcomes(problem, jnp.zeros(3)).index) for b in range(1, 6)]
    shape = (_SETS, 5, 3)
    sets = rng.standard_normal(shape) + 0.5 * rng.standard_normal((_SETS, 1, 3))
    least = [[least_product(one[rows].mean(axis=1)) for rows in index] for one in sets]
    return int(np.sum(np.any(np.diff(least) < -1e-12, axis=1)))


def _similarity(rng: np.random.Generator, landscape: tw.Landscape) -> Check:
    points = jnp.asarray(3 * rng.standard_normal((200, 2)))
    shares, noises = [], []
    for gradients in np.asarray(jax.vmap(landscape.problem.gradients)(points)):
        full = float(np.sum(gradients.mean(axis=0) ** 2))
        shares.append(least_product(gradients) / full)
        noises.append(float(np.sum(np.var(gradients, axis=0))) / full)
    correlation = float(spearmanr(shares, noises).statistic)
    return below(correlation, -0.9)


def _speed(squares: dict[int, np.ndarray]) -> list[Claim]:
    ends = {b: Mean.of(values[:, -1]) for b, values in squares.items()}
    early = {b: Mean.of(values[:, _EARLY // b]) for b, values in squares.items()}
    difference = ends[1][0] - ends[2][0]
    error = math.hypot(ends[1][1], ends[2][1])
    return [
        Claim(
            "Minibatch setting",
            "larger batches end closer: E|x|² = .2, .05 and 0 for B = 1, 2, 3",
            both(
                near(ends[1][0], 0.2, error=ends[1][1]),
                near(ends[2][0], 0.05, error=ends[2][1]),
                # (2/3)^40 25 is left of GD's start.
                near(ends[3][0], 0.0, tolerance=1e-5),
                above(difference, 0.0, error=error),
            ),
        ),
        Claim(
            "Minibatch setting",
            "the limiting case of a minibatch is GD: with B = 3 every chain is the same",
            near(float(np.ptp(squares[3], axis=0).max()), 0.0, tolerance=1e-12),
        ),
        Claim(
            "Minibatch setting",
            f"larger batches cost more: after the same {_EARLY} gradients from (5, 0), B = 1 is "
            "closer than B = 3",
            below(early[1][0], early[3][0], error=early[1][1]),
        ),
    ]


def _picture() -> Picture:
    families = {1: "sgd", 2: "sgd-half", 3: "gd"}
    lines = [
        Series(f"B{b}", "evaluations", "square", f"B = {b}", family)
        for b, family in families.items()
    ]
    marks = [
        Series("products", "batch", "centre", "μ at the solution", "", "points"),
        Series("products", "batch", "five", "μ at (5, 0)", "", "points"),
    ]
    return Picture(
        "minibatch",
        "Left: the smallest product μ of two batches' gradients on the three quadratics. Right: "
        "the mean squared distance by the number of gradients evaluated; B = 3 is GD.",
        [
            Panel("batch size B", "μ", marks),
            Panel("gradients evaluated", "E|x|²", lines, log="y", limits=(1e-3, 30)),
        ],
    )
