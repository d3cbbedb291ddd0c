"""Which minimisers vanishing noise selects: the two densities of the slides, and their means."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special
from scipy.integrate import dblquad, quad

import thalweg as tw
from thalweg.noise_models import loss_scaled
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import downhill

_TURN = 2 * np.pi
_BINS = 16
# Fifteen degrees of freedom: 37.7 at one in a thousand.
_CHI_SQUARE = 37.7


def _bent(p: Float[Array, " 3"]) -> Float[Array, ""]:
    """Zero for p[1:] = 0 with the Hessian diag(1, 10^cos p[0]) across: codimension 2."""
    return (p[1] ** 2 + 10 ** jnp.cos(p[0]) * p[2] ** 2) / 2


def _valley(p: Float[Array, " 4"]) -> Float[Array, ""]:
    """Zero for p[1:] = 0 with the Hessian diag(1, 1, exp(cos p[0])) across; all params angles."""
    weights = jnp.stack([jnp.ones_like(p[0]), jnp.ones_like(p[0]), jnp.exp(jnp.cos(p[0]))])
    return jnp.sum(weights * 2 * jnp.sin(p[1:] / 2) ** 2)


@experiment(
    "wojtowytsch/concentration",
    "Vanishing noise of either kind selects minimisers by det(H)^(-1/2)",
    covers=(
        *("Theorem, noise scaled by the loss", "Theorem, constant noise"),
        *("arithmetic-geometric mean", "summary, flat minima"),
    ),
    seconds=(12, 35),
)
def concentration(setting: Setting) -> Outcome:
    r"""Integrals over spheres, marginals of both laws, and simulations of both noises.

    In polar coordinates :math:`\int_{S^{k-1}} (\nu^\top H \nu)^{-k/2} d\nu = |S^{k-1}|
    \det(H)^{-1/2}`, for every k.
    """
    shares = _shares()
    counts = {
        "constant": _constant(setting),
        "vanishing": _vanishing(setting),
    }
    claims = [
        *_mean_claims(),
        *_ball_claims(),
        *_limits(),
        *_simulated(counts, shares),
        _scaled(setting),
        _geometry(),
    ]
    middles = (np.arange(_BINS) + 0.5) / _BINS * _TURN
    tables = {
        "shares": {
            "u": middles,
            **{name: count / count.sum() * _BINS for name, count in counts.items()},
            "error": _BINS * (shares[0] / counts["constant"].sum()) ** 0.5,
            "determinant": shares[0] * _BINS,
            "agm": shares[1] * _BINS,
        },
        "balls": _balls(),
    }
    return Outcome(claims, tables, [_picture()])


def _mean_claims() -> list[Claim]:
    def form(t: float) -> float:
        return float(np.cos(t) ** 2 + 0.1 * np.sin(t) ** 2)

    whole = quad(lambda t: 1 / form(t), 0, _TURN)[0]
    root = quad(lambda t: (np.cos(t) ** 2 + 0.01 * np.sin(t) ** 2) ** -0.5, 0, _TURN)[0]
    agm = _TURN / special.agm(1, 0.1)
    small = 1e-6
    limit = abs(np.log(small)) * special.agm(1, small)
    return [
        Claim(
            "remark on both functions of D²f",
            "∫ (νᵀHν)^(-k/2) dν is 1/agm(1, λ) up to a factor, for k = 2 and H = diag(1, λ): at "
            "λ = .1 the integral is 2π/agm = 14.782549",
            near(whole, agm, tolerance=1e-6),
            both(
                near(whole, _TURN / 0.1**0.5, tolerance=1e-6),
                near(whole, 19.869177, tolerance=1e-6),
                near(root, agm, tolerance=1e-6),
                near(agm, 14.782549, tolerance=1e-6),
            ),
            correction="it is 2π det(H)^(-1/2) = 19.869177, for polar coordinates; the agm is the "
            "integral of (cos² + λ² sin²)^(-1/2)",
        ),
        Claim(
            "remark on both functions of D²f",
            "|log λ| agm(1, λ) tends to π/2 (λ = 10⁻⁶; the difference falls as 1/|log λ|)",
            near(limit, np.pi / 2, tolerance=np.pi / 2 * np.log(4) / abs(np.log(small))),
        ),
    ]


def _ball(alpha: float) -> float:
    """Masses of f^-alpha in balls around zeros with H = I and diag(1, 2, 4): their ratio."""

    def form(t: float, z: float) -> float:
        return float((1 - z * z) * (np.cos(t) ** 2 + 2 * np.sin(t) ** 2) + 4 * z * z)

    # An eighth of the sphere.
    mass = dblquad(lambda t, z: form(t, z) ** -alpha, 0, 1, 0, np.pi / 2)[0]
    return float(np.pi / 2 / mass)


def _balls() -> dict[str, Any]:
    alphas = [1.0, 1.1, 1.2, 1.3, 1.4, 1.45, 1.49]
    return {"alpha": alphas, "ratio": [_ball(a) for a in alphas]}


def _ball_claims() -> list[Claim]:
    late, last = _ball(1.49), _ball(1.499)
    return [
        Claim(
            "Theorem, noise scaled by the loss",
            "the limit has the density ∫ (νᵀHν)^(-k/2) dν: the masses of f^-α at two zeros in R³, "
            "H = I and diag(1, 2, 4), have the ratio √8 in the limit (2.8115 at α = 1.49; the "
            "difference falls in proportion to 3/2 - α)",
            both(
                near(late, 2.8115, tolerance=5e-5),
                near((8**0.5 - late) / (8**0.5 - last), 10.0, tolerance=0.2),
            ),
        )
    ]


def _gibbs(temperature: float) -> float:
    """The law exp(-f/T) of the valley: mean of cos p[0]."""
    u = _TURN * np.arange(256) / 256
    weights = special.i0e(np.exp(np.cos(u)) / temperature)
    return float(np.sum(weights * np.cos(u)) / np.sum(weights))


def _power(alpha: float) -> float:
    r"""The law f^-alpha of the valley: mean of cos p[0].

    f^-alpha = int t^(alpha - 1) e^(-t f) dt / Gamma(alpha), and the integral of e^(-t f) across is
    a product of Bessel functions, which falls like t^(-3/2).
    """
    u, log_t = _TURN * np.arange(64) / 64, np.linspace(-15, 25, 4001)
    c, t = np.exp(np.cos(u))[:, None], np.exp(log_t)
    inner = np.trapezoid(special.i0e(t) ** 2 * special.i0e(c * t) * t**alpha, log_t, axis=1)
    beyond = _TURN**-1.5 * c[:, 0] ** -0.5 * np.exp(25 * (alpha - 1.5)) / (1.5 - alpha)
    weights = inner + beyond
    return float(np.sum(weights * np.cos(u)) / np.sum(weights))


# The mean of cos u by the density det(H)^(-1/2) = exp(-cos(u)/2).
_SELECTED = float(-special.iv(1, 0.5) / special.iv(0, 0.5))


def _limits() -> list[Claim]:
    constant = [_gibbs(t) - _SELECTED for t in (0.02, 0.01, 0.005)]
    scaled = [_power(1.5 - a) - _SELECTED for a in (0.04, 0.02, 0.01)]
    return [
        Claim(
            where,
            f"as {what}, the law on a circle of minimisers with H = diag(1, 1, e^cos u) tends to "
            "det(H)^(-1/2): the mean of cos u, by quadrature; the difference halves with the noise",
            both(
                below(abs(found[-1]), 0.002),
                *(near(a / b, 2.0, tolerance=0.1) for a, b in pairwise(found)),
            ),
        )
        for where, what, found in (
            ("Theorem, constant noise", "ησ ↘ 0", constant),
            ("Theorem, noise scaled by the loss", "α ↗ (m - n)/2", scaled),
        )
    ]


def _shares() -> tuple[np.ndarray, np.ndarray]:
    """Of sixteenths of the circle, by the determinant and by the mean of the slides."""
    u = _TURN * (np.arange(4096) + 0.5) / 4096
    densities = 10 ** (-np.cos(u) / 2), 1 / special.agm(1, 10 ** np.cos(u))
    by_determinant, by_mean = (d.reshape(_BINS, -1).sum(axis=1) / d.sum() for d in densities)
    return by_determinant, by_mean


def _across(setting: Setting, radii: Array) -> Array:
    """Starts with p[0] uniform and (p[1], p[2]) at these radii in the metric of the Hessian."""
    u, turn = jax.random.uniform(setting.key, (2, len(radii)), maxval=_TURN)
    sharp = radii * jnp.sin(turn) / jnp.sqrt(10 ** jnp.cos(u))
    return jnp.stack([u, radii * jnp.cos(turn), sharp], axis=1)


def _counted(run: tw.Run) -> np.ndarray:
    angles = np.mod(np.asarray(run.params[:, 0]), _TURN)
    return np.histogram(angles, _BINS, (0, _TURN))[0]


def _constant(setting: Setting) -> np.ndarray:
    """T = 4: f is quadratic across, so that the law of p[0] is the same at any temperature."""
    radii = jnp.sqrt(8 * jax.random.exponential(setting.key, (setting.choose(12_288, 65_536),)))
    diffusion = tw.Diffusion(downhill(_bent), 8.0, 0.02, method="heun")
    starts = _across(setting, radii)
    return _counted(tw.simulate(diffusion, starts, steps=400, key=setting.key, per_chain=True))


def _vanishing(setting: Setting) -> np.ndarray:
    """D = 8 sqrt f has the law f^(-1/2) exp(-sqrt f/2): r = sqrt(2 f) is exponential."""
    radii = 8**0.5 * jax.random.exponential(setting.key, (setting.choose(12_288, 65_536),))
    diffusion = tw.Diffusion(downhill(_bent), lambda p: 8 * jnp.sqrt(_bent(p)), 0.0025)
    starts = _across(setting, radii)
    return _counted(tw.simulate(diffusion, starts, steps=6000, key=setting.key, per_chain=True))


def _simulated(counts: dict[str, np.ndarray], shares: tuple[np.ndarray, np.ndarray]) -> list[Claim]:
    told = {
        "constant": "constant noise",
        "vanishing": "noise that vanishes at the minimisers, √(8√f)",
    }
    return [
        Claim(
            "remark on both functions of D²f",
            f"in codimension 2 the selection is by 1/agm(1, λ): χ² of paths with {told[name]} over "
            "sixteen arcs (37.7 is one in a thousand)",
            below(_distance(count, shares[1]), _CHI_SQUARE),
            both(
                above(_distance(count, shares[1]), _CHI_SQUARE),
                below(_distance(count, shares[0]), _CHI_SQUARE),
            ),
            correction="by det(H)^(-1/2) for both",
        )
        for name, count in counts.items()
    ]


def _distance(counts: np.ndarray, shares: np.ndarray) -> float:
    expected = counts.sum() * shares
    return float(np.sum((counts - expected) ** 2 / expected))


def _scaled(setting: Setting) -> Claim:
    """Paths with noise scaled by the loss, α = 1.25 in codimension 3: those of low loss."""
    noise = loss_scaled(_valley, 0.5, 16.0, convention="sde")
    starts = jax.random.uniform(setting.key, (setting.choose(4096, 32_768), 4), maxval=_TURN)
    run = tw.simulate(
        tw.Diffusion(downhill(_valley), noise, 0.005),
        starts,
        steps=2400,
        key=setting.key,
        per_chain=True,
    )
    cosines = np.cos(np.asarray(run.params[:, 0]))
    low = np.asarray(jax.vmap(_valley)(run.params)) < 0.05
    all_of, near_by = Mean.of(cosines), Mean.of(cosines[low])
    return Claim(
        "Theorem, noise scaled by the loss",
        "paths with noise √(ησf) in codimension 3 (ησ = 8, α = 1.25) have the law f^-α, and near "
        "the minimisers (f < .05) the density det(H)^(-1/2): means of cos u",
        both(
            near(all_of[0], _power(1.25), error=all_of[1]),
            near(near_by[0], _SELECTED, error=near_by[1]),
            below(near_by[0], 0.0, error=near_by[1]),
        ),
    )


def _geometry() -> Claim:
    """An ellipse of minimisers across which the curvature is the same everywhere."""

    def even(p: Float[Array, " 2"], _: Any) -> Float[Array, ""]:
        q = p[0] ** 2 + 4 * p[1] ** 2 - 1
        return q**2 / (2 * (4 * p[0] ** 2 + 64 * p[1] ** 2))

    problem = tw.FiniteSum(even, jnp.zeros(1))
    starts = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]])
    temperature = 0.005
    diffusion = tw.Diffusion(lambda p: -problem.gradient(p), 2 * temperature, 0.05, method="heun")
    run = tw.simulate(
        diffusion,
        jnp.tile(starts, (512, 1)),
        steps=8000,
        key=jax.random.key(1),
        per_chain=True,
    )
    u = np.arange(4096) / 4096 * _TURN
    speed = np.hypot(np.sin(u), np.cos(u) / 2)
    by_length = float(np.sum(speed * np.cos(u) ** 2) / speed.sum())
    ends = np.asarray(run.params)
    found, error = Mean.of(ends[:, 0] ** 2 / (ends[:, 0] ** 2 + 4 * ends[:, 1] ** 2))
    # The width of the tube, T over the square of the radius of curvature, bends the law.
    return Claim(
        "summary, third point",
        "the geometry of {f = 0} does not matter: where D²f is the same across an ellipse, it is "
        "filled evenly by length (mean of cos² of the angle), which differs from evenly by angle",
        near(found, by_length, error=error, tolerance=0.01),
    )


def _picture() -> Picture:
    arcs = [
        Series("shares", "u", "constant", "constant noise", "", "points", error="error"),
        Series("shares", "u", "vanishing", "noise √(8√f)", "", "points", error="error"),
        Series("shares", "u", "determinant", "det(H)^(-1/2)", "gd"),
        Series("shares", "u", "agm", "1/agm(1, λ)", "gd", dashed=True),
    ]
    balls = [Series("balls", "alpha", "ratio", "f^-α at two zeros", kind="points")]
    return Picture(
        "concentration",
        "Shares of arcs of a circle of minimisers with H = diag(1, 10^cos u) across, by paths and "
        "by the two densities; ratio of the masses of f^-α in balls at zeros with H = I and "
        "diag(1, 2, 4).",
        [
            Panel("place u on the circle", "share, even = 1", arcs),
            Panel("exponent α", "ratio of masses", balls, lines=((8**0.5, "√8"),)),
        ],
    )
