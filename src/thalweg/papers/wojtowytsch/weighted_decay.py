"""Convergence in the space with the weight 1/law, its rate, and the theorem with logarithms."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import quad

import thalweg as tw
from thalweg.noise_models import loss_scaled
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Share
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import downhill

_STRENGTHS = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
_TIMES = np.linspace(0.25, 4.0, 16)


def _parabola(x: Float[Array, " 1"]) -> Float[Array, ""]:
    return jnp.sum(1 + x**2)


def _reach(s: float) -> float:
    """Half the length of the line in z = asinh x: long where the spectrum is continuous."""
    return 8.0 if s < 2 else 20.0


def _wide(s: float) -> tw.Grid:
    """Cells equally wide in asinh x."""
    return tw.Grid.of_edges(np.sinh(np.linspace(-_reach(s), _reach(s), 801)))


def _diffusion(s: float) -> tw.Diffusion:
    noise = loss_scaled(_parabola, s, 1.0, convention="fokker-planck")
    return tw.Diffusion(downhill(_parabola), noise, 0.1)


@experiment(
    "wojtowytsch/weighted-decay",
    "Densities approach the invariant law exponentially in the weighted norm, at twice the gap",
    covers=("Theorem, weighted norm", "Poincare-Hardy inequality", "Theorem, logarithms"),
    seconds=(5, 6),
)
def weighted_decay(setting: Setting) -> Outcome:
    r"""Gaps on a line for :math:`f = 1 + x^2` and the decay of :math:`\int (p - \pi)^2/\pi`.

    With :math:`s = \eta\sigma` the generator :math:`s f u'' - 2 x u'` maps polynomials to
    polynomials: eigenvalues :math:`2k - s k(k-1)`, the gap 2 up to s = 2, and then the edge
    :math:`(1 + s/2)^2/s` of the continuous spectrum.
    """
    gaps = {s: tw.discretise(_diffusion(s), _wide(s)).gap().rate for s in _STRENGTHS}
    chain = tw.discretise(_diffusion(0.5), tw.Grid(-30.0, 30.0, 3000))
    distances = _distances(chain, 0.5)
    four = tw.discretise(_diffusion(1.0), tw.Grid(-60.0, 60.0, 3000))
    logarithmic = _distances(four, 0.5)
    masses = _no_law()
    claims = [
        *_decay_claims(gaps, distances),
        _without_law(masses),
        _inequality(),
        *_logarithm_claims(setting, gaps, four, logarithmic),
    ]
    tables: dict[str, dict[str, Any]] = {
        "gaps": {"s": list(gaps), "gap": list(gaps.values())},
        "law": {"s": (fine := np.linspace(0.2, 6, 59)), "gap": [_gap(s) for s in fine]},
        "decay": {"t": _TIMES, "line": distances**2, "logarithms": logarithmic**2},
        "rates": {"t": _TIMES, "line": distances[-1] ** 2 * np.exp(-4 * (_TIMES - _TIMES[-1]))},
    }
    return Outcome(claims, tables, [_picture()])


def _gap(s: float) -> float:
    return 2.0 if s <= 2 else (1 + s / 2) ** 2 / s


def _distances(chain: tw.MarkovGrid, centre: float) -> np.ndarray:
    """The weighted distances to the law at the times, from beside the centre."""
    grid, law = chain.grid, chain.stationary().density
    start = grid.normalise(np.exp(-((grid.centres[0] - centre) ** 2)))
    later = chain.evolve(start, _TIMES).densities
    return np.array([tw.markov.weighted_l2(grid, p, law, law) for p in later])


def _rate(distances: np.ndarray) -> float:
    """Of the squared norm, from t = 3 to 4."""
    return float(2 * np.log(distances[-5] / distances[-1]) / (_TIMES[-1] - _TIMES[-5]))


def _decay_claims(gaps: dict[float, float], distances: np.ndarray) -> list[Claim]:
    # In z the edge of a continuous spectrum is that of s k^2, and in a box of half the length Z the
    # first wave has k < pi/Z: logarithmic in the length of the box. The rest is the grid's order.
    added = {s: s * (np.pi / _reach(s)) ** 2 for s in gaps}
    return [
        Claim(
            "Theorem, weighted norm",
            "the weighted squared distance decays exponentially: its rate at ησ = .5, twice the "
            "gap 2",
            # The second mode has fallen by e^-6 beside the first.
            near(_rate(distances), 4.0, tolerance=0.02),
        ),
        Claim(
            "Theorem, weighted norm",
            "it does so for every ησ (m = 1): the gap is 2 up to ησ = 2, then (1 + ησ/2)²/(ησ), "
            "the edge of a continuous spectrum",
            both(
                *(
                    near(gap, _gap(s), tolerance=0.002 + (added[s] if s >= 2 else 0.0))
                    for s, gap in gaps.items()
                )
            ),
        ),
    ]


def _no_law() -> dict[float, np.ndarray]:
    """The mass of |x| < 5 at late times in R^3, below and above the strength 2/(m - 2)."""
    grid = tw.Grid.of_edges(np.geomspace(1e-2, 1e12, 701))
    start = jnp.asarray(abs(grid.centres[0] - 1.0) < 0.05, dtype=float)
    masses = {}
    for s in (0.5, 4.0):

        def drift(r: Float[Array, " 1"], s: float = s) -> Float[Array, " 1"]:
            return -2 * r + 2 * s * (1 + r**2) / r

        radial = tw.Diffusion(
            drift, loss_scaled(_parabola, s, 1.0, convention="fokker-planck"), 0.1
        )
        later = tw.discretise(radial, grid).evolve(start, [2.0, 4.0, 8.0]).densities
        masses[s] = np.array([grid.integrate(p, lambda r: r[0] < 5) for p in later])
    return masses


def _without_law(masses: dict[float, np.ndarray]) -> Claim:
    return Claim(
        "Theorem, weighted norm",
        "lim ρ = c f^(-1-1/(ησ)) for every ησ: in R³ with f = 1 + |θ|² and ησ = 4, the mass of "
        "|θ| < 5 at t = 8 over that at t = 4",
        near(masses[4.0][2] / masses[4.0][1], 1.0, tolerance=0.02),
        both(
            below(float(masses[4.0][2]), 0.01),
            near(masses[0.5][2] / masses[0.5][1], 1.0, tolerance=0.02),
        ),
        correction="where f^(-1-1/(ησ)) is integrable, ησ < 2/(m - 2); beyond, all mass goes to "
        "infinity (mass left at t = 8; at ησ = .5 it settles)",
    )


def _inequality() -> Claim:
    # u = x, s = 1/2: the first eigenfunction.
    square = quad(lambda x: x * x * (1 + x * x) ** -3, -np.inf, np.inf)[0]
    slopes = quad(lambda x: (1 + x * x) ** -2.0, -np.inf, np.inf)[0]
    scaled = [(c * square**0.5) / (c * c * slopes) for c in (1.0, 1e-3)]
    return Claim(
        "proof, Poincaré-Hardy inequality",
        "|u - ⟨u⟩| ≤ C |u|_H with |u|_H = ∫ |∇u|² f^(-1/(ησ)): the ratio for u = x/1000 over that "
        "for u = x",
        below(scaled[1] / scaled[0], 1.0 + 1e-9),
        near(square / slopes, 0.25, tolerance=1e-8),
        correction="the H-norm is the root of this integral; then |u|²/|u|_H² is at most "
        "ησ/gap = 1/4, which u = x attains (f = 1 + x², ησ = 1/2)",
    )


def _logarithm_claims(
    setting: Setting, gaps: dict[float, float], four: tw.MarkovGrid, distances: np.ndarray
) -> list[Claim]:
    return [
        Claim(
            "Theorem, logarithms",
            "for f = r²(1 + log² r), which has an isolated zero, and 1 + 1/(ησ) = m/2 the weighted "
            "squared distance decays exponentially: its rate, m = 4",
            near(_rate(distances), 4.0, tolerance=0.05),
        ),
        Claim(
            "Theorem, logarithms",
            "the gap of its radial part is positive: m = 3, ησ = 2 (where it is the edge 2 of a "
            "continuous spectrum)",
            above(gaps[2.0], 1.9),
        ),
        _log_radius(setting, four),
    ]


def _log_radius(setting: Setting, four: tw.MarkovGrid) -> Claim:
    r"""In R^4 the log of the radius is the process on the line with :math:`f = 1 + y^2`.

    With :math:`f = r^2 F(\log r)` and :math:`\eta\sigma (m - 2) = 2` the generator acts on
    functions of y as :math:`\eta\sigma F u'' - F' u'`.
    """

    def f(x: Float[Array, " 4"]) -> Float[Array, ""]:
        square = jnp.sum(x**2)
        return square * (1 + (jnp.log(square) / 2) ** 2)

    # The start, e in radius, is where y = 1.
    start = jnp.full(4, np.e / 2)
    noise = loss_scaled(f, 1.0, 1.0, convention="fokker-planck")
    count, time, step = setting.choose(8000, 80_000), 0.4, 0.0005
    run = tw.simulate(
        tw.Diffusion(downhill(f), noise, step),
        start,
        steps=round(time / step),
        key=setting.key,
        chains=count,
    )
    found, error = Share.of(np.linalg.norm(np.asarray(run.params), axis=1) < 1)
    grid = four.grid
    begin = jnp.asarray(abs(grid.centres[0] - 1.0) < 0.03, dtype=float)
    law = four.evolve(begin, [time]).densities[0]
    expected = float(grid.integrate(law, lambda y: y[0] < 0))
    return Claim(
        "Theorem, logarithms",
        "log |θ| is the process on the line with f = 1 + y², which is why: P(|θ| < 1) of paths in "
        f"R⁴ at t = {time} from |θ| = e, against the line",
        # A cell of width .04 at the start, and the weak error of Euler's step.
        near(found, expected, error=error, tolerance=0.01),
    )


def _picture() -> Picture:
    gaps: list[Any] = [
        Series("law", "s", "gap", "law", "gd", dashed=True),
        Series("gaps", "s", "gap", "grid", "", "points"),
    ]
    decay: list[Any] = [
        Series("decay", "t", "line", "f = 1 + θ², m = 1, ησ = .5", kind="points"),
        Series("decay", "t", "logarithms", "f = r²(1 + log² r), m = 4", kind="points"),
        Series("rates", "t", "line", "rate 4", dashed=True),
    ]
    return Picture(
        "weighted-decay",
        "The gap of f = 1 + θ² on the line against the strength of the noise, and the squared "
        "weighted distance to the law against time.",
        [
            Panel("strength ησ", "gap", gaps, limits=(1.5, 3.0)),
            Panel("time t", "∫ (ρ - π)²/π", decay, log="y"),
        ],
    )
