"""Open problem 3: noise of as few directions as there are data, in place of noise in all."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.noise_models import loss_scaled, singular_directions
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import downhill

_COUNT = 6
_ETAS = (0.25, 0.5, 1.0)
_STRONG = 4.0
_FINE, _STEPS, _EVERY = 0.001, 1500, 75


@experiment(
    "wojtowytsch/low-rank",
    "The noise of SGD, of rank n, dies out at the minimisers at strengths where noise in all "
    "directions has a law",
    covers=("open problem 3, low rank",),
    seconds=(9, 13),
)
def low_rank(setting: Setting) -> Outcome:
    r"""Two diffusions on :math:`f = |\theta|^2/2`, n data, the same trace of the covariance.

    With :math:`f_i = n \theta_i^2/2` the covariance is :math:`n\,\mathrm{diag}(\theta_i^2) -
    \theta\theta^\top`, of trace :math:`2(n - 1) f`: every :math:`\log|\theta_i|` falls with the
    speed :math:`1 + \eta(n - 1)/2`. Noise :math:`\sigma f I` of the same trace has :math:`\sigma =
    2(n - 1)/n` and the speed :math:`1 - \frac{\eta\sigma}4(n - 2)`.
    """
    chains = setting.choose(1000, 10_000)
    own = {eta: _logs(setting, _limit(_orthogonal(), eta), chains) for eta in _ETAS}
    even = {eta: _logs(setting, _isotropic(eta), chains) for eta in _ETAS}
    # The data do not depend on the seed: others have other thresholds.
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(_COUNT, _COUNT))
    # Scaled to the same mean curvature.
    rows *= (_COUNT**2 / np.sum(rows**2)) ** 0.5
    random = _least_squares(rows)
    generic = {eta: _logs(setting, _limit(random, eta), chains) for eta in (*_ETAS, 2.0, _STRONG)}
    claims = [
        _rank_claim(draw),
        *_speed_claims(own, even),
        *_generic_claims(generic),
    ]
    times = np.arange(0, _STEPS + 1, _EVERY) * _FINE
    tables = {
        "paths": {
            "t": times,
            **{f"own {eta:g}": logs.mean(axis=0) for eta, logs in own.items()},
            **{f"even {eta:g}": logs.mean(axis=0) for eta, logs in even.items()},
        },
        "speeds": {
            "eta": list(_ETAS),
            "own": [_speed(own[eta])[0] for eta in _ETAS],
            "even": [_speed(even[eta])[0] for eta in _ETAS],
        },
        "generic": {
            "eta": list(generic),
            "speed": [_speed(logs)[0] for logs in generic.values()],
            "error": [_speed(logs)[1] for logs in generic.values()],
        },
    }
    return Outcome(claims, tables, [_picture()])


def _least_squares(rows: Any) -> tw.FiniteSum:
    return tw.FiniteSum(_square, jnp.asarray(rows))


def _square(p: Float[Array, " m"], x: Float[Array, " m"]) -> Float[Array, ""]:
    return jnp.dot(x, p) ** 2 / 2


def _orthogonal() -> tw.FiniteSum:
    return _least_squares(_COUNT**0.5 * np.eye(_COUNT))


def _limit(problem: tw.FiniteSum, eta: float) -> tw.Diffusion:
    limit = tw.diffusion_limit(tw.Descent(problem, tw.Minibatch(1), eta))
    return tw.Diffusion(limit.drift, limit.noise, _FINE)


def _half_square(p: Float[Array, " m"]) -> Float[Array, ""]:
    return jnp.sum(p**2) / 2


_SIGMA = 2 * (_COUNT - 1) / _COUNT


def _isotropic(eta: float) -> tw.Diffusion:
    noise = loss_scaled(_half_square, eta, _SIGMA, convention="sde")
    return tw.Diffusion(downhill(_half_square), noise, _FINE)


def _log_radius(p: Float[Array, " m"]) -> Float[Array, ""]:
    return jnp.log(jnp.sum(p**2)) / 2


def _logs(setting: Setting, diffusion: tw.Diffusion, chains: int) -> np.ndarray:
    run = tw.simulate(
        diffusion,
        jnp.full(_COUNT, _COUNT**-0.5),
        steps=_STEPS,
        key=setting.key,
        chains=chains,
        bound=1e100,
        record=tw.Record(every=_EVERY, values={"log": _log_radius}),
    )
    return np.asarray(run.records["log"])


def _speed(logs: np.ndarray) -> tuple[float, float]:
    """Of log |theta| in the second half of the time."""
    half = logs.shape[1] // 2
    return Mean.of((logs[:, -1] - logs[:, half]) / ((logs.shape[1] - 1 - half) * _EVERY * _FINE))


def _rank_claim(draw: np.random.Generator) -> Claim:
    """Three data and six weights."""
    rows, at = draw.normal(size=(3, 6)), jnp.asarray(draw.normal(size=6))
    limit = _limit(_least_squares(rows), 0.1)
    found = singular_directions(limit, at)
    unseen = np.linalg.svd(rows)[2][3:]
    moved = float(abs(unseen @ np.asarray(limit.covariance(at))).max())
    return Claim(
        "open problem 3",
        "the diffusion is degenerate: with n = 3 data and m = 6 weights it has noise in n - 1 "
        "directions, and none of it in the space that no datum sees (largest entry of Σ there)",
        both(near(found.rank, 2, tolerance=0), below(moved, 1e-12)),
    )


def _speed_claims(own: dict[float, np.ndarray], even: dict[float, np.ndarray]) -> list[Claim]:
    eta = 1.0
    first, second = _speed(own[eta]), _speed(even[eta])
    threshold = tw.manifolds.collapse_threshold(_COUNT, convention="sde") / _SIGMA
    law = -1 + eta * _SIGMA / 4 * (_COUNT - 2)
    # Of single coordinates; the largest of them falls more slowly for a while.
    falling = -1 - eta * (_COUNT - 1) / 2
    return [
        Claim(
            "open problem 3, existence",
            f"noise in all directions has a law from η = {threshold:.3f} on (n = {_COUNT}, "
            "orthogonal data): the mean speed of log |θ| at η = 1",
            both(
                above(second[0], 0.0, error=second[1]),
                near(second[0], law, error=second[1], tolerance=0.03 * abs(law)),
            ),
        ),
        Claim(
            "open problem 3, existence",
            "noise of SGD's own covariance, with the same trace, has a law there, too",
            above(first[0], 0.0, error=first[1]),
            both(
                below(first[0], 0.0, error=first[1]),
                below(_speed(own[0.25])[0], 0.0, error=_speed(own[0.25])[1]),
                above(first[0], falling, error=first[1]),
            ),
            correction="it dies out at every strength, the faster the stronger: each coordinate is "
            "a problem of codimension one of its own, with the speed -1 - η(n - 1)/2 (the largest "
            "one is above that for a while)",
        ),
    ]


def _generic_claims(generic: dict[float, np.ndarray]) -> list[Claim]:
    middle, last = (_speed(generic[eta]) for eta in (1.0, _STRONG))
    return [
        Claim(
            "open problem 3, existence",
            f"for {_COUNT} random data SGD's covariance has a law where noise in all directions "
            "(whose threshold is the same for any D²f) has one: the speed of log |θ| at η = 1",
            above(middle[0], 0.0, error=middle[1]),
            both(
                below(middle[0], 0.0, error=middle[1]),
                above(last[0], 0.0, error=last[1]),
            ),
            correction="it dies out there as well; these data do have a threshold, at several "
            f"times that strength (speed at η = {_STRONG:g})",
        )
    ]


def _picture() -> Picture:
    paths = [
        one
        for eta in _ETAS
        for one in (
            Series("paths", "t", f"even {eta:g}", f"all directions, η = {eta:g}", dashed=True),
            Series("paths", "t", f"own {eta:g}", f"SGD's, η = {eta:g}"),
        )
    ]
    speeds = [
        Series("speeds", "eta", "even", "", "gd", "points"),
        Series("speeds", "eta", "own", "", "sgd", "points"),
        Series("generic", "eta", "speed", "SGD's, random data", "rr", "points", error="error"),
    ]
    return Picture(
        "low-rank",
        f"Mean of log |θ| on n = {_COUNT} orthogonal data under the covariance of SGD and under "
        "noise in all directions of the same trace; the speeds at the end (black: all directions, "
        "orange: SGD's).",
        [
            Panel("time t", "mean of log |θ|", paths),
            Panel("step η", "speed of log |θ|", speeds, lines=((0.0, ""),)),
        ],
    )
