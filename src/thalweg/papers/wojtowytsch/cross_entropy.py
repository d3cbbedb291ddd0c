"""Open problem 4: classification with cross-entropy, where there is no minimiser to converge to."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import slope

_STEP = 0.5
# Label times input: the largest margin is 1, along (1, 0).
_MARGINS = np.array([[1.0, 0.5], [1.0, -0.5], [2.0, 1.5], [3.0, -1.0]])


def _logistic(p: Float[Array, " 2"], z: Float[Array, " 2"]) -> Float[Array, ""]:
    return jnp.logaddexp(0.0, -jnp.dot(z, p))


@experiment(
    "wojtowytsch/cross-entropy",
    "With cross-entropy there is no minimiser: the loss falls like 1/t, weights grow like log t",
    covers=("open problem 4, cross-entropy",),
    seconds=(2, 15),
)
def cross_entropy(setting: Setting) -> Outcome:
    r"""SGD on a separable logistic regression in the plane.

    Along the direction of the largest margin :math:`\dot f = -f^2` to the first order: f is 1/t
    and :math:`|\theta|` is log t over the margin.
    """
    problem = tw.FiniteSum(_logistic, jnp.asarray(_MARGINS))
    steps = setting.choose(200_000, 5_000_000)
    record = tw.Record(every=steps // 100)
    run = tw.simulate(
        tw.Descent(problem, tw.Minibatch(1), _STEP),
        jnp.zeros(2),
        steps=steps,
        key=setting.key,
        chains=32,
        record=record,
    )
    points = np.asarray(run.records["params"])
    shown = np.unique(np.geomspace(1, 100, 25).astype(int))
    times = run.record_steps[shown] * _STEP
    margins = np.einsum("crd,nd->crn", points[:, shown], _MARGINS)
    losses = np.logaddexp(0, -margins).mean(axis=2)
    pulls = 1 / (1 + np.exp(margins))
    gradients = -pulls[..., None] * _MARGINS
    mean = gradients.mean(axis=2)
    slopes = np.sum(mean**2, axis=2)
    noise = np.mean(np.sum(gradients**2, axis=3), axis=2) - slopes
    tables = {
        "path": {
            "t": times,
            "loss": losses.mean(axis=0),
            "size": np.linalg.norm(points[:, shown], axis=2).mean(axis=0),
            "noise": noise.mean(axis=0),
            "slopes": slopes.mean(axis=0),
        },
    }
    directions = points[:, -1] / np.linalg.norm(points[:, -1], axis=1)[:, None]
    return Outcome(_claims(tables["path"], directions), tables, [_picture()])


def _claims(path: dict[str, np.ndarray], directions: np.ndarray) -> list[Claim]:
    late = path["t"] >= path["t"][-1] / 20
    logs = {name: np.log(values[late]) for name, values in path.items()}
    decay = slope(logs["t"], logs["loss"])
    growth = slope(logs["t"], path["size"][late])
    intensity = slope(logs["loss"], logs["noise"])
    ratio = path["slopes"] / path["loss"]
    return [
        Claim(
            "open problem 4",
            "with cross-entropy SGD converges linearly, as with squared errors: the power of t "
            "that f has at the end (a linear rate has none)",
            below(decay, -10.0),
            near(decay, -1.0, tolerance=0.05),
            correction="the loss falls like 1/t, slower than any ρ^t",
        ),
        Claim(
            "open problem 4",
            "minimisers do not exist: |θ| grows as log t over the margin (slope against log t)",
            both(above(growth, 0.5), near(growth, 1.0, tolerance=0.05)),
        ),
        Claim(
            "open problem 4",
            "the hypotheses fail: |∇f|²/f falls to zero, so that no Λ > 0 is below it (the last "
            "over the first value)",
            below(float(ratio[-1] / ratio[0]), 0.02),
        ),
        Claim(
            "open problem 4",
            "the intensity of the noise scales with the loss: power of f that E|g - ∇f|² has",
            near(intensity, 1.0, tolerance=0.1),
            near(intensity, 2.0, tolerance=0.1),
            correction="with its square: noise dies out faster than with squared errors",
        ),
        Claim(
            "open problem 4",
            "directions converge, to the largest margin: least cosine of 32 chains with it",
            above(float(directions[:, 0].min()), 0.99),
        ),
    ]


def _picture() -> Picture:
    loss = [
        Series("path", "t", "loss", "loss", "sgd"),
        Series("path", "t", "slopes", "|∇f|²", "", dashed=True),
        Series("path", "t", "noise", "E|g - ∇f|²"),
    ]
    size = [Series("path", "t", "size", "", "sgd")]
    return Picture(
        "cross-entropy",
        "Mean over 32 chains of SGD on a separable logistic regression in the plane with η = .5.",
        [
            Panel("time t = ηk", "f, |∇f|², E|g - ∇f|²", loss, log="xy"),
            Panel("time t = ηk", "|θ|", size, log="x"),
        ],
    )
