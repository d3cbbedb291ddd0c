"""Three quadratics from far away: fast where the gradients agree, slow where they do not."""

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import Check, both, is_so, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson.common import least_product, step_size
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_START = (50.0, 20.0)
_STEPS = 30
_DIRECTIONS = 24


@experiment(
    "giselsson/zoomed-out",
    "Far from the solution SGD is as fast as GD; inside of the triangle it makes no progress",
    covers=("zoomed out", "fast far, slow close"),
    seconds=(3, 4),
)
def zoomed_out(setting: Setting) -> Outcome:
    """The mean squared distance step by step, and the smallest product of two gradients."""
    landscape = tw.landscapes.three_quadratics()
    descent = tw.Descent(landscape.problem, tw.Minibatch(1), landscape.step)
    run = tw.simulate(
        descent,
        jnp.array(_START),
        steps=_STEPS,
        key=setting.key,
        chains=setting.choose(1000, 10_000),
        record=tw.Record(every=1),
    )
    paths = np.asarray(run.records["params"])
    squares = np.sum(paths**2, axis=2)
    steps = np.arange(_STEPS + 1)
    decay = (1 - step_size(landscape)) ** (2 * steps)
    ball = step_size(landscape) / (2 - step_size(landscape))
    table = {
        "step": steps,
        "measured": squares.mean(axis=0),
        "error": squares.std(axis=0, ddof=1) / np.sqrt(len(squares)),
        "exact": decay * squares[0, 0] + ball * (1 - decay),
        "gd": decay * squares[0, 0],
    }
    products = _products(landscape)
    tables = {
        "distance": table,
        "path": {"x": paths[0, :, 0], "y": paths[0, :, 1]},
        "products": products,
    }
    claims = _claims(step_size(landscape), squares, table, products)
    return Outcome(claims, tables, [_picture()])


def _products(landscape: tw.Landscape) -> dict[str, np.ndarray]:
    """The least product over gradients, at several distances, in the worst and best direction."""
    radii = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0])
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    points = radii[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # x - c_i, the gradients of the three.
    gradients = jax.vmap(landscape.problem.gradients)(jnp.asarray(points.reshape(-1, 2)))
    least = np.array([least_product(g) for g in np.asarray(gradients)]).reshape(points.shape[:2])
    return {"r": radii, "low": least.min(axis=1), "high": least.max(axis=1)}


def _claims(
    gamma: float,
    squares: np.ndarray,
    table: dict[str, np.ndarray],
    products: dict[str, np.ndarray],
) -> list[Claim]:
    ball = gamma / (2 - gamma)
    return [
        Claim(
            "SGD - Example zoomed out",
            "far away the mean squared distance shrinks as that of GD, by (1 - γ)² = 4/9 a step",
            # What the ball adds by then.
            _ratio(squares, 0, 4, (1 - gamma) ** 8, ball / float(squares[0, 0])),
        ),
        Claim(
            "SGD - Example zoomed out",
            "near the solution it does not shrink any more: the factor is 1",
            _ratio(squares, 20, 30, 1.0, 0.0),
        ),
        Claim(
            "SGD - Example zoomed out",
            "all the way, E|x_k|² = (1 - γ)^2k |x_0|² + γ/(2 - γ) (1 - (1 - γ)^2k)",
            _all_near(table),
        ),
        Claim(
            "SGD - Example zoomed out",
            "far from the solution the gradients are alike and the smallest product μ of two of "
            "them is larger: -1/2 at the solution, growing with the distance outside of the circle "
            "of the centres",
            both(
                near(float(products["low"][0]), -0.5, tolerance=1e-12),
                is_so(
                    bool(np.all(np.diff(products["low"][2:]) > 0)),
                    "in the worst of 24 directions μ = "
                    + ", ".join(
                        f"{m:.4g} at {r:g}"
                        for r, m in zip(products["r"], products["low"], strict=True)
                    ),
                ),
            ),
        ),
    ]


def _ratio(squares: np.ndarray, first: int, last: int, expected: float, tolerance: float) -> Check:
    """The factor between two steps, with the error of a ratio of means."""
    a, b = squares[:, first], squares[:, last]
    factor = b.mean() / a.mean()
    error = np.std(b - factor * a, ddof=1) / (np.sqrt(len(a)) * a.mean())
    return near(float(factor), expected, error=float(error), tolerance=tolerance)


def _all_near(table: dict[str, np.ndarray]) -> Check:
    off = np.abs(table["measured"] - table["exact"])[1:] / table["error"][1:]
    # The largest of 30 normal deviations, most of them dependent, exceeds 4 in .2 % of all runs.
    return is_so(bool(off.max() < 4), f"at most {off.max():.2g} standard errors off, of 30 steps")


def _picture() -> Picture:
    distances = [
        Series("distance", "step", "measured", "SGD, measured", "sgd", "points", error="error"),
        Series("distance", "step", "exact", "SGD, exact", "sgd", dashed=True),
        Series("distance", "step", "gd", "GD", "gd"),
    ]
    return Picture(
        "zoomed-out",
        "Left: a path of SGD with γ = 1/3 from (50, 20). Right: the mean squared distance from the "
        "solution shrinks as with GD until the noise ball is reached.",
        [
            Panel("x₁", "x₂", [Series("path", "x", "y", "", "sgd")]),
            Panel("iteration k", "E|x|²", distances, log="y", limits=(1e-3, 1e4)),
        ],
    )
