"""Where "only gamma/M matters" stops being true: a quadratic whose samples differ."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_RATIO, _CURVATURES = 0.05, (0.2, 3.8)
# Pairs of curvature and slope: the gradient is h x + s, the noise of both independent.
_TERMS = jnp.array([[h, s] for h in _CURVATURES for s in (1.0, -1.0)])


def _term(x: Float[Array, " 1"], sample: Float[Array, " 2"]) -> Float[Array, ""]:
    return sample[0] * x[0] ** 2 / 2 + sample[1] * x[0]


def _exact(ratio: float, batch: float) -> float:
    r"""The stationary variance, :math:`\gamma^2/M` over :math:`1 - E A^2`; not finite beyond.

    :math:`x \leftarrow A x - \gamma \bar s`, :math:`A = 1 - \gamma \bar h` with means over M draws:
    :math:`E A^2 = (1 - 2\gamma)^2 + 1.8^2 \gamma^2/M`.
    """
    gamma = ratio * batch
    square = (1 - 2 * gamma) ** 2 + 3.24 * gamma**2 / batch
    return gamma**2 / batch / (1 - square) if square < 1 else math.inf


@experiment(
    "dai-zhu/only-the-ratio",
    "Only γ/M matters: for small steps; at a fixed ratio large batches lose stability",
    covers=("only γ/M matters",),
    seconds=(5, 6),
)
def only_the_ratio(setting: Setting) -> Outcome:
    """Stationary variances of SGD at γ/M = .05, batches 1 to 20, and the threshold of M = 20."""
    problem = tw.FiniteSum(_term, _TERMS)
    found: dict[int, Mean] = {}
    for batch in (1, 8):
        run = tw.simulate(
            tw.Descent(problem, tw.Minibatch(batch, replace=True), _RATIO * batch),
            jnp.zeros(1),
            steps=setting.choose(2000, 10_000),
            key=setting.key,
            chains=setting.choose(200, 1000),
            record=tw.Record(means={"square": lambda x: x[0] ** 2}, burn_in=200),
            progress=setting.progress_of(f"M = {batch}"),
        )
        found[batch] = Mean.of(run.means["square"])
    threshold = tw.stability.mean_square_threshold(_TERMS[:, :1, None], batch_size=20, replace=True)
    batches = np.linspace(1.0, 16.0, 61)
    tables = {
        "variance": {
            "M": batches,
            "sgd": [_exact(_RATIO, m) for m in batches],
            "limit": [_RATIO / 4] * len(batches),
        },
        "simulated": {
            "M": list(found),
            "variance": [one.value for one in found.values()],
            "error": [one.error for one in found.values()],
        },
    }
    return Outcome(_claims(found, float(threshold)), tables, [_picture()])


def _claims(found: dict[int, Mean], threshold: float) -> list[Claim]:
    one, eight = found[1], found[8]
    error = math.hypot(one.error, eight.error)
    small = [_exact(0.0005, m) / (0.0005 / 4) for m in (1, 8, 20)]
    return [
        Claim(
            "section 2.1",
            "the dynamics depends on γ/M and not on γ or M: the stationary variance at γ/M = .05 "
            "is the same for M = 1 and 8 (curvatures .2 and 3.8; difference over g²)",
            near(eight.value - one.value, 0.0, error=error),
            both(
                near(one.value, 0.01374, error=one.error, tolerance=5e-6),
                near(eight.value, 0.02234, error=eight.error, tolerance=5e-6),
                near(_exact(_RATIO, 1), 0.01374, tolerance=5e-6),
                near(_exact(_RATIO, 8), 0.02234, tolerance=5e-6),
            ),
            correction="it is .01374 and .02234 (simulated and exact); of the equation .0125",
        ),
        Claim(
            "section 2.1",
            "nor does stability: M = 20, γ = 1 keeps the minimum as M = 1, γ = .05 does (largest "
            "step that is stable in mean square)",
            above(threshold, 1.0),
            both(below(threshold, 1.0), above(threshold, 0.5)),
            correction="it is unstable at M = 20",
        ),
        Claim(
            "section 2.1",
            "for small steps it is so: γ/M = .0005, M = 1, 8 and 20 have the variance of the "
            "equation within 2.5 %",
            both(*(near(s, 1.0, tolerance=0.025) for s in small)),
        ),
    ]


def _picture() -> Picture:
    return Picture(
        "only-the-ratio",
        "The stationary variance of SGD on a quadratic with curvatures .2 and 3.8 and additive "
        "noise g, at γ/M = .05: it should not depend on M.",
        [
            Panel(
                "batch size M, γ = .05 M",
                "variance / g²",
                [
                    Series("variance", "M", "sgd", "SGD, exact", "sgd"),
                    Series(
                        "simulated", "M", "variance", "SGD, simulated", "sgd", "points", "error"
                    ),
                    Series("variance", "M", "limit", "equation", dashed=True),
                ],
                limits=(0.0, 0.08),
            )
        ],
    )
