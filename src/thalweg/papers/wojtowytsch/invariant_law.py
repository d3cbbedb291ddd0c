"""The invariant laws of the two noises, and which Ito equation each belongs to."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import quad
from scipy.special import erf

import thalweg as tw
from thalweg.noise_models import isotropic, loss_scaled
from thalweg.papers.checks import below, both, near
from thalweg.papers.estimates import Share
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import downhill, slope

_S = 0.5
_TIME = 0.25
_HALF = 0.5
_LENGTHS = (1e2, 1e3, 1e4, 1e5)


def _parabola(x: Float[Array, " 1"]) -> Float[Array, ""]:
    return jnp.sum(1 + x**2)


@experiment(
    "wojtowytsch/invariant-law",
    "Noise scaled by the loss has a power of the loss as its law, constant noise its exponential",
    covers=(
        *("(1)", "Lemma, Fokker-Planck", "invariant density", "Lemma, the only solution"),
        *("Corollary, growth", "constant noise", "same limit without zeros"),
    ),
    seconds=(5, 6),
)
def invariant_law(setting: Setting) -> Outcome:
    r"""Grid, simulation and quadrature for :math:`f = 1 + x^2` at :math:`\eta\sigma = 1/2`.

    :math:`d\theta = -\nabla f\,dt + \sqrt{\eta\Sigma}\,dB` has :math:`\partial_t p = \nabla \cdot
    (p \nabla f) + \frac\eta2 \partial_i \partial_j (\Sigma_{ij} p)`.
    """
    grid = tw.Grid(-20.0, 20.0, 4000)
    noises = {
        "sde": loss_scaled(_parabola, _S, 1.0, convention="sde"),
        "fokker-planck": loss_scaled(_parabola, _S, 1.0, convention="fokker-planck"),
        "constant": isotropic(1.0, _S, 1.0),
    }
    diffusions = {
        name: tw.Diffusion(downhill(_parabola), noise, 0.005) for name, noise in noises.items()
    }
    chains = {name: tw.discretise(d, grid) for name, d in diffusions.items()}
    laws = {name: np.asarray(chain.stationary().density) for name, chain in chains.items()}
    growth = {s: [_mass_near(s, length) for length in _LENGTHS] for s in (1.0, 0.2)}
    claims = [
        _fokker_planck(setting, diffusions["sde"], chains),
        *_law_claims(grid, laws),
        _unique(grid, chains["sde"], laws["sde"]),
        _growth_claim(growth),
        _without_zeros(wells := _wells()),
    ]
    seen = abs(grid.centres[0]) < 2.5
    thin = np.flatnonzero(seen)[::5]
    tables: dict[str, dict[str, Any]] = {
        "laws": {"x": grid.centres[0][thin], **{name: law[thin] for name, law in laws.items()}},
        "growth": {"length": _LENGTHS, **{f"{s:g}": masses for s, masses in growth.items()}},
        "wells": wells,
    }
    return Outcome(claims, tables, [_picture()])


def _within(grid: tw.Grid, density: Any) -> float:
    return float(grid.integrate(density, lambda x: jnp.abs(x[0]) < _HALF))


def _share_of(power: float) -> float:
    inner, whole = (
        quad(lambda x: (1 + x * x) ** -power, 0, end, epsabs=1e-12)[0] for end in (_HALF, 20.0)
    )
    return inner / whole


def _fokker_planck(
    setting: Setting, diffusion: tw.Diffusion, chains: dict[str, tw.MarkovGrid]
) -> Claim:
    """The law of the Ito equation at a time before it is stationary."""
    count = setting.choose(20_000, 200_000)
    run = tw.simulate(
        diffusion,
        jnp.ones(1),
        steps=round(_TIME / 0.005),
        key=setting.key,
        chains=count,
    )
    found, error = Share.of(abs(np.asarray(run.params)[:, 0]) < _HALF)
    grid = chains["sde"].grid
    # As narrow as a cell.
    start = jnp.asarray(abs(grid.centres[0] - 1.0) < 0.006, dtype=float)
    says = {
        name: _within(grid, chains[name].evolve(start, [_TIME]).densities[0])
        for name in ("sde", "fokker-planck")
    }
    # Euler's step has a weak error of the order of dt = .005, and some tenths of a cell are lost.
    return Claim(
        "(1) and Lemma, Fokker-Planck",
        "dθ = -∇f dt + √(ηΣ) dB has the density p_t = div(p ∇f) + ∂i∂j(ηΣij p): P(|θ| < .5) at "
        f"t = {_TIME} from θ = 1, paths against this equation",
        near(found, says["fokker-planck"], error=error, tolerance=0.006),
        near(found, says["sde"], error=error, tolerance=0.006),
        correction="with the factor 1/2, p_t = div(p ∇f) + (η/2) ∂i∂j(Σij p); as printed it "
        "belongs to √(2ηΣ) dB",
    )


def _law_claims(grid: tw.Grid, laws: dict[str, Any]) -> list[Claim]:
    power = {a: _share_of(a) for a in (3.0, 5.0)}
    found = {name: _within(grid, law) for name, law in laws.items()}
    # The sum over cells of width h = .01 is off by h^2/12 |p'(.5)|, of some 1.3e-5.
    cells = 1.5e-5
    return [
        Claim(
            "invariant density",
            "noise √(ησf) of equation (1) has the law f^(-1-1/(ησ)): P(|θ| < .5) on a grid, "
            "ησ = 1/2, f = 1 + θ²",
            near(found["sde"], power[3.0], tolerance=cells),
            both(
                near(found["sde"], power[5.0], tolerance=cells),
                near(power[5.0], 0.8321, tolerance=5e-5),
            ),
            correction="f^(-1-2/(ησ)); .8321 in place of .6856",
        ),
        Claim(
            "invariant density",
            "the Fokker-Planck equation with ησ ∂i∂j(ρfδij) has the law f^(-1-1/(ησ))",
            both(
                near(found["fokker-planck"], power[3.0], tolerance=cells),
                near(found["fokker-planck"], 0.6856, tolerance=5e-5),
            ),
        ),
        Claim(
            "for comparison, Σ = σI",
            "constant noise √(ησ) has the law exp(-f/(ησ)): P(|θ| < .5)",
            near(found["constant"], float(erf(0.5**0.5)), tolerance=cells),
            near(found["constant"], 0.842701, tolerance=cells),
            correction="exp(-2f/(ησ))/Z; here erf(1)",
        ),
    ]


def _unique(grid: tw.Grid, chain: tw.MarkovGrid, law: Any) -> Claim:
    x = grid.centres[0]
    starts = (np.exp(-8 * (x - 3) ** 2), np.exp(-8 * (x + 6) ** 2))
    ends = [chain.evolve(grid.normalise(start), [10.0]).densities[0] for start in starts]
    # The slowest mode has fallen by e^-20.
    return Claim(
        "Lemma, the only solution",
        "the power of f is the only invariant density: total variation at t = 10 of what started "
        "at 3 and at -6",
        both(*(below(tw.markov.total_variation(grid, end, law), 1e-6) for end in ends)),
    )


def _mass_near(s: float, length: float) -> float:
    """The share of [-5, 5] in the law of slow growth on [-length, length]."""

    def slow(x: Float[Array, " 1"]) -> Float[Array, ""]:
        return jnp.sum((1 + x**2) ** 0.125)

    noise = loss_scaled(slow, s, 1.0, convention="fokker-planck")
    inner = np.linspace(-5, 5, 101)
    outer = np.geomspace(5, length, 200)[1:]
    grid = tw.Grid.of_edges(np.concatenate([-outer[::-1], inner, outer]))
    chain = tw.discretise(tw.Diffusion(downhill(slow), noise, 0.1), grid)
    # Unless told not to check, it refuses a density that falls too slowly for a law.
    law = chain.stationary(check=False).density
    return float(grid.integrate(law, lambda x: jnp.abs(x[0]) < 5))


def _growth_claim(masses: dict[float, list[float]]) -> Claim:
    # f^-alpha ~ |x|^(-alpha/4): alpha = 2 and 6.
    logs = np.log(_LENGTHS)
    escaping = slope(logs[-2:], np.log(masses[1.0][-2:]))
    change = abs(masses[0.2][-1] / masses[0.2][-2] - 1)
    return Claim(
        "Corollary, growth",
        "there is no invariant law unless the power of f grows fast enough: f = (1 + θ²)^(1/8) on "
        "[-L, L]. At ησ = 1 the share of [-5, 5] falls as L^(-1/2), at ησ = .2 it settles",
        both(near(escaping, -0.5, tolerance=0.02), below(change, 0.01)),
    )


def _two_wells(x: Float[Array, " 1"]) -> Float[Array, ""]:
    """Minima of the height 1 at -1 and 1, the second sharper."""
    return jnp.sum(1 + (x**2 - 1) ** 2 * (1 + 0.6 * jnp.tanh(x)))


_WELLS = float(np.sqrt((1 + 0.6 * np.tanh(1)) / (1 - 0.6 * np.tanh(1))))


def _wells() -> dict[str, Any]:
    """The mass of the flat well over that of the sharp one by the strength of the noise."""
    grid = tw.Grid(-2.5, 2.5, 1000)
    strengths = [0.4, 0.2, 0.1, 0.05, 0.025]
    rows: dict[str, Any] = {"s": strengths, "constant": [], "scaled": []}
    for s in strengths:
        noises = {
            "constant": isotropic(1.0, s, 1.0),
            "scaled": loss_scaled(_two_wells, s, 1.0, convention="sde"),
        }
        for name, noise in noises.items():
            chain = tw.discretise(tw.Diffusion(downhill(_two_wells), noise, 0.1), grid)
            flat = float(grid.integrate(chain.stationary().density, lambda x: x[0] < 0))
            rows[name].append(flat / (1 - flat))
    return rows


def _without_zeros(wells: dict[str, Any]) -> Claim:
    apart = {name: np.array(wells[name]) - _WELLS for name in ("constant", "scaled")}
    return Claim(
        "last remark",
        "if inf f > 0 the limit is the same for both noises: two wells of the height 1, the flat "
        f"one's mass over the sharp one's tends to √(h₂/h₁) = {_WELLS:.4f}; at ησ = .025, and by "
        "which factor the difference falls from .05",
        both(
            *(near(rows[-1], 0.0, tolerance=0.03) for rows in apart.values()),
            *(near(rows[-2] / rows[-1], 2.0, tolerance=0.2) for rows in apart.values()),
        ),
    )


def _picture() -> Picture:
    laws = [
        Series("laws", "x", "sde", "noise √(ησf)"),
        Series("laws", "x", "constant", "noise √(ησ)"),
        Series("laws", "x", "fokker-planck", "noise √(2ησf)"),
    ]
    growth = [
        Series("growth", "length", "1", "ησ = 1: no law", kind="points"),
        Series("growth", "length", "0.2", "ησ = .2", kind="points"),
    ]
    wells = [
        Series("wells", "s", "scaled", ""),
        Series("wells", "s", "constant", ""),
    ]
    return Picture(
        "invariant-law",
        "Invariant densities of f = 1 + θ² at ησ = 1/2 under three noises; the share of [-5, 5] in "
        "the law of f = (1 + θ²)^(1/8) on [-L, L]; the mass of the flat over that of the sharp one "
        "of two wells of the height 1, and its limit.",
        [
            Panel("θ", "density", laws),
            Panel("L", "share of [-5, 5]", growth, log="xy"),
            Panel("strength ησ", "mass, flat/sharp", wells, lines=((_WELLS, "√(h₂/h₁)"),)),
        ],
    )
