"""Appendix C: the assumptions, for least squares and for the regularised logistic loss."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_DIMENSION, _SAMPLES, _PENALTY = 3, 200, 0.05
_LENGTHS = np.geomspace(1.0, 3000.0, 25)


def _square(w: Float[Array, " d"], sample: Any) -> Float[Array, ""]:
    """(w.x - y)^2, whose mean is (w - w0)' E[xx'] (w - w0) + Var y."""
    x, y = sample
    return (jnp.dot(w, x) - y) ** 2


def _logistic(w: Float[Array, " d"], sample: Any) -> Float[Array, ""]:
    x, y = sample
    return tw.models.logistic(jnp.dot(w, x), y) + _PENALTY * jnp.sum(w**2)


def _unregularised(w: Float[Array, " d"], sample: Any) -> Float[Array, ""]:
    return tw.models.logistic(jnp.dot(w, sample[0]), sample[1])


@experiment(
    "dai-zhu/appendix-c",
    "The assumptions hold for the losses of appendix C; two of its formulas do not",
    covers=("Appendix C", "(A.1) to (A.3)"),
    seconds=(3, 3),
)
def appendix_c(setting: Setting) -> Outcome:
    """The formulas on samples, and the three assumptions along random directions."""
    random = np.random.default_rng(setting.seed)
    x = random.standard_normal((_SAMPLES, _DIMENSION))
    targets = x @ random.standard_normal(_DIMENSION) + random.standard_normal(_SAMPLES)
    labels = (x[:, 0] + random.standard_normal(_SAMPLES) > 0).astype(float)
    separable = (x[:, 0] > 0).astype(float)
    square = tw.FiniteSum(_square, (jnp.asarray(x), jnp.asarray(targets)))
    logistic = tw.FiniteSum(_logistic, (jnp.asarray(x), jnp.asarray(labels)))
    plain = tw.FiniteSum(_unregularised, (jnp.asarray(x), jnp.asarray(separable)))
    directions = random.standard_normal((20, _DIMENSION))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    along = {
        name: _along(problem, directions)
        for name, problem in (("square", square), ("logistic", logistic))
    }
    claims = [
        _of_inequality(random),
        _of_trace(square, x),
        _of_logistic_trace(logistic, x, labels),
        *_of_assumptions(along),
        _of_plain(plain),
    ]
    tables = {
        name: {"length": _LENGTHS, "second": rows["second"], "quotient": rows["quotient"]}
        for name, rows in along.items()
    }
    return Outcome(claims, tables, [_picture()])


def _of_inequality(random: np.random.Generator) -> Claim:
    """|w - w0|^2 against |w|^2/2 - |w0|^2/2 and |w|^2/2 - |w0|^2 for random pairs."""
    w, start = random.standard_normal((2, 10_000, _DIMENSION))
    lengths = [(v**2).sum(axis=1) for v in (w - start, w, start)]
    return Claim(
        "(C.1)",
        "|w - w⁰|² >= |w|²/2 - |w⁰|²/2 (smallest difference over random pairs)",
        above(float((lengths[0] - lengths[1] / 2 + lengths[2] / 2).min()), 0.0),
        above(float((lengths[0] - lengths[1] / 2 + lengths[2]).min()), 0.0),
        correction="|w - w⁰|² >= |w|²/2 - |w⁰|²; the limit that it is for is not touched",
    )


def _of_trace(problem: tw.FiniteSum, x: np.ndarray) -> Claim:
    point = jnp.ones(_DIMENSION)
    found = tw.curvature.trace(tw.curvature.hessian(problem, point), key=jax.random.key(0)).value
    second = float(np.trace(x.T @ x / len(x)))
    return Claim(
        "Appendix C",
        "the trace of the Hessian of the L₂ loss (w - w⁰)'E[xx'](w - w⁰) is Tr E[xx'] (quotient)",
        near(found / second, 1.0, tolerance=1e-9),
        near(found / second, 2.0, tolerance=1e-9),
        correction="twice that",
    )


def _of_logistic_trace(problem: tw.FiniteSum, x: np.ndarray, labels: np.ndarray) -> Claim:
    point = np.array([0.4, -0.3, 0.2])
    found = tw.curvature.trace(
        tw.curvature.hessian(problem, jnp.asarray(point)), key=jax.random.key(0)
    ).value
    s, lengths = x @ point, (x**2).sum(axis=1)
    share = 2 * labels.mean() - 1
    printed = -float(np.mean(np.exp(-s) / (1 + np.exp(s)) ** 2 * share * lengths))
    right = float(np.mean(lengths / ((1 + np.exp(s)) * (1 + np.exp(-s)))))
    right += 2 * _PENALTY * _DIMENSION
    return Claim(
        "Appendix C",
        "for the regularised logistic loss -∇·∇L = e^(-w·x)/(1 + e^(w·x))² [2P(y = 1) - 1] Tr xx'",
        near(found, printed, tolerance=1e-9),
        near(found, right, tolerance=1e-9),
        correction="∇·∇L = E[|x|²/((1 + e^(w·x))(1 + e^(-w·x)))] + 2λd, which is positive and "
        "does not depend on y; it stays bounded, which is all that (A.2) asks",
    )


def _along(problem: tw.FiniteSum, directions: np.ndarray) -> dict[str, np.ndarray]:
    """Worst directions: the loss, |∇L|²/2 - ∇·∇L, |∇·∇L|/|∇L|², and the term of (A.3)."""

    @jax.jit
    @jax.vmap
    def values(w: Float[Array, " d"]) -> tuple[Array, Array, Array]:
        slope = problem.gradient(w)
        bend = jnp.trace(jax.jacfwd(problem.gradient)(w))
        return problem.value(w), jnp.sum(slope**2), bend

    points = (directions[:, None, :] * _LENGTHS[None, :, None]).reshape(-1, _DIMENSION)
    shape = (len(directions), len(_LENGTHS))
    loss, slope, bend = (np.asarray(v).reshape(shape) for v in values(jnp.asarray(points)))
    return {
        "loss": loss.min(axis=0),
        "second": (slope / 2 - bend).min(axis=0),
        "quotient": (abs(bend) / slope).max(axis=0),
        "third": abs(np.exp(-loss) * (slope - bend)).max(axis=0),
    }


def _of_assumptions(along: dict[str, dict[str, np.ndarray]]) -> list[Claim]:
    names = {"square": "the L₂ loss", "logistic": "the regularised cross-entropy"}
    claims = []
    for name, rows in along.items():
        claims.append(
            Claim(
                "(A.1) to (A.3)",
                f"{names[name]} satisfies them: at |w| = 3000, in the worst of 20 directions, the "
                "loss and |∇L|²/2 - ∇·∇L are large, ∇·∇L/|∇L|² is small, and the term of (A.3) is "
                "bounded along the way and vanishes",
                both(
                    above(float(rows["loss"][-1]), 1e5),
                    above(float(rows["second"][-1]), 1e4),
                    below(float(rows["quotient"][-1]), 1e-4),
                    below(float(rows["third"].max()), 100.0),
                    below(float(rows["third"][-1]), 1e-12),
                ),
            )
        )
    return claims


def _of_plain(problem: tw.FiniteSum) -> Claim:
    far = float(problem.value(jnp.array([3e6, 0.0, 0.0])))
    return Claim(
        "section 2.3, footnote",
        "without the penalty the mean cross-entropy does not satisfy (A.1): on separable samples "
        "it vanishes far along the direction that separates them",
        below(far, 1e-6),
    )


def _picture() -> Picture:
    losses = (("square", "L₂ loss"), ("logistic", "cross-entropy + λ|w|²"))
    return Picture(
        "appendix-c",
        "The two limits of (A.2) along the worst of 20 directions: the first has to grow without "
        "bound, the second to vanish (the first is shown where it is positive).",
        [
            Panel(
                "|w|",
                y,
                [Series(name, "length", column, label) for name, label in losses],
                log="xy",
            )
            for column, y in (("second", "|∇L|²/2 - ∇·∇L"), ("quotient", "|∇·∇L| / |∇L|²"))
        ],
    )
