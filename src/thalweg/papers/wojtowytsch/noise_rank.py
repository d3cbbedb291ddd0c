"""The rank of the noise of a net on real digits."""

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import slope

_WIDTHS = (64, 16, 10)
_TOP = 10


@experiment(
    "wojtowytsch/noise-rank",
    "On real digits the noise of a net has few directions, and they are those of the curvature",
    covers=("gradient noise, rank", "gradient noise, scale", "summary, noise"),
    seconds=(10, 15),
    float64=False,
)
def noise_rank(setting: Setting) -> Outcome:
    """All gradients of the samples along a path of SGD, and the spectrum of their covariance."""
    count = setting.choose(200, 400)
    train = setting.load("digits").train
    model = tw.models.mlp(_WIDTHS, "tanh")
    targets = tw.datasets.one_hot(train.y[:count], 10).astype(np.float32)
    x = train.x.reshape(len(train.x), -1)[:count]
    problem = tw.FiniteSum(tw.models.supervised(model, _half_square), (x, targets))
    steps = setting.choose(4000, 24_000)
    run = tw.simulate(
        tw.Descent(problem, tw.Minibatch(8), 0.1),
        model.init(setting.key),
        steps=steps,
        key=setting.key,
        record=tw.Record(every=steps // 8),
    )
    path = jax.tree.map(lambda leaf: leaf[0], run.records["params"])
    losses, spectra = _spectra(problem, path)
    shares = _in_curvature(problem, path, len(losses) - 1)
    size = sum(leaf[0].size for leaf in jax.tree.leaves(path))
    traces = spectra.sum(axis=1)
    cumulative = np.cumsum(spectra, axis=1) / traces[:, None]
    tables = {
        "path": {
            "step": run.record_steps,
            "loss": losses,
            "trace": traces,
            "top": cumulative[:, _TOP - 1],
        },
        "spectrum": {
            "index": np.arange(1, count + 1),
            "first": spectra[0] / traces[0],
            "last": spectra[-1] / traces[-1],
        },
    }
    claims = _claims(losses, spectra, cumulative, shares, size)
    return Outcome(claims, tables, [_picture(size, count)])


def _half_square(outputs: Float[Array, " k"], target: Float[Array, " k"]) -> Array:
    return 0.5 * tw.models.squared_error(outputs, target, "sum")


def _spectra(problem: tw.FiniteSum, path: object) -> tuple[np.ndarray, np.ndarray]:
    """Losses and the eigenvalues of the covariance of one sample's gradient, descending."""

    def rows(params: object) -> tuple[Array, Array]:
        gradients = jax.vmap(lambda g: ravel_pytree(g)[0])(problem.gradients(params))
        return problem.value(params), gradients

    losses, gradients = jax.jit(lambda p: jax.lax.map(rows, p))(path)
    spectra = []
    for each in np.asarray(gradients, dtype=float):
        around = each - each.mean(axis=0)
        # Of the n x n matrix, which has the same ones.
        values = np.linalg.eigvalsh(around @ around.T)[::-1] / len(each)
        spectra.append(np.maximum(values, 0))
    return np.asarray(losses, dtype=float), np.array(spectra)


def _in_curvature(problem: tw.FiniteSum, path: object, index: int) -> tuple[float, float]:
    """The part of the noise in the top directions of the Gauss-Newton matrix, and of any ten."""
    params = jax.tree.map(lambda leaf: leaf[index], path)
    gauss = tw.curvature.gauss_newton(problem, params)
    vectors = np.asarray(tw.curvature.top_eigenvalues(gauss, _TOP, rtol=0.03).vectors)
    gradients = problem.gradients(params)
    rows = np.asarray(jax.vmap(lambda g: ravel_pytree(g)[0])(gradients), dtype=float)
    rows = rows - rows.mean(axis=0)
    inside = float(np.sum((rows @ vectors) ** 2) / np.sum(rows**2))
    return inside, _TOP / rows.shape[1]


def _claims(
    losses: np.ndarray,
    spectra: np.ndarray,
    cumulative: np.ndarray,
    shares: tuple[float, float],
    size: int,
) -> list[Claim]:
    count = spectra.shape[1]
    ranks = np.sum(spectra > 1e-9 * spectra[:, :1], axis=1)
    top = cumulative[1:, _TOP - 1]
    power = slope(np.log(losses[1:]), np.log(spectra.sum(axis=1)[1:]))
    return [
        Claim(
            "D²L and Σ",
            f"the noise of a {'-'.join(map(str, _WIDTHS))} net on {count} digits has at most n - 1 "
            f"of m = {size} directions",
            both(below(int(ranks.max()), count), below(count / size, 0.9)),
        ),
        Claim(
            "summary, first point",
            f"its rank is low in effect: {_TOP} directions have more than half of its variance at "
            "all times in training",
            above(float(top.min()), 0.5),
        ),
        Claim(
            "summary, first point",
            "the intensity depends on the loss: power of L that tr Σ has in training (L falls by "
            f"{losses[1] / losses[-1]:.0f})",
            near(power, 1.0, tolerance=0.3),
        ),
        Claim(
            "Σ ≈ L D²L?",
            f"the noise is where the curvature is: share of it in the top {_TOP} directions of the "
            "Gauss-Newton matrix at the end, which any ten directions would have ten/m of",
            above(shares[0], 10 * shares[1]),
        ),
    ]


def _picture(size: int, count: int) -> Picture:
    spectrum = [
        Series("spectrum", "index", "first", "start"),
        Series("spectrum", "index", "last", "end"),
    ]
    scale = [Series("path", "loss", "trace", "", kind="points")]
    return Picture(
        "noise-rank",
        "Eigenvalues of the covariance of a sample's gradient over its trace, tanh net with "
        f"m = {size} weights on n = {count} digits, before and after training; its trace against "
        "the loss.",
        [
            Panel("index", "eigenvalue/trace", spectrum, log="xy", limits=(1e-7, 1.0)),
            Panel("loss L", "tr Σ", scale, log="xy"),
        ],
    )
