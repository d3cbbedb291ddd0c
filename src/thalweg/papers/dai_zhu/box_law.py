"""Theorem 2.5 and (2.7): the stationary probability around a minimum, and two limits."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.dai_zhu.gibbs import RADIUS, WELLS
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_RADII = np.geomspace(1e-3, 0.4, 18)


def _kappa(eta: float) -> float:
    """1 over the integral of exp(-eta L)."""
    grid = WELLS.grid()
    values = WELLS.values(grid.centres[0][:, None])
    return 1 / float(np.sum(np.exp(-eta * values)) * grid.widths[0][0])


def _printed(eta: float, radius: float, curvature: float) -> float:
    """Theorem 2.5 on a line, at a minimum of depth 0, without its limit."""
    polya = math.sqrt(1 - math.exp(-(radius**2) * eta * curvature / math.pi))
    return _kappa(eta) / math.sqrt(eta * curvature) * math.exp(eta * radius**2) * polya


def _right(eta: float, radius: float, curvature: float) -> float:
    scale = math.sqrt(eta * curvature / 2)
    return _kappa(eta) * math.sqrt(math.pi) / scale * math.erf(radius * scale)


@experiment(
    "dai-zhu/theorem-2-5",
    "Small boxes around minima: the formula corrected, and a ratio that depends on the limit",
    covers=("Theorem 2.5", "(2.7)", "Appendix G", "KMNST hypothesis", "Figure 1"),
    seconds=(6, 6),
)
def box_law(setting: Setting) -> Outcome:
    """Formulas against quadrature of the Gibbs law, and the Gibbs law against a grid and paths."""
    eta = 200.0
    exact = WELLS.boxes([eta])[:, 0]
    curves = np.array([_ratios([2.0, 2e3], radius) for radius in _RADII]).T
    ratios = dict(zip(("fixed noise", "low noise"), curves, strict=True))
    claims = [
        *_of_formula(eta, exact),
        *_of_ratio(),
        _of_basins(),
        _of_order_in_time(setting),
    ]
    w = np.linspace(-1.35, 1.85, 129)
    tables = {
        "ratios": {"radius": _RADII, **ratios},
        "landscape": {"w": w, "L": WELLS.values(w[:, None])},
    }
    return Outcome(claims, tables, [_picture()])


def _of_formula(eta: float, exact: np.ndarray) -> list[Claim]:
    curvatures = [h[0] for h in WELLS.hessians]
    printed = [_printed(eta, RADIUS, c) for c in curvatures]
    right = [_right(eta, RADIUS, c) for c in curvatures]
    hot, low_noise = _printed(2e4, RADIUS, curvatures[0]), float(_ratios([2e4], RADIUS)[0])
    problem = tw.FiniteSum.of(WELLS.loss)
    points = [tw.critical_point(problem, jnp.array(at)) for at in WELLS.minima]
    laplace = tw.escape.box_probabilities(problem, points, temperature=1 / eta, radius=RADIUS)
    return [
        Claim(
            "Theorem 2.5",
            "P(|W(∞) - w| <= ε) = κ e^(-2η∞L)/(η∞^(d/2) √det) e^(η∞ε²) Π √(1 - e^(-ε²η∞λ/π)) "
            f"(Appendix H, example 1, ε = .1, M/γ = 100: {exact[0]:.4f} at the flat minimum)",
            near(printed[0], float(exact[0]), tolerance=0.02 * float(exact[0])),
            both(
                *(
                    near(r, float(p), tolerance=0.03 * float(p))
                    for r, p in zip(right, exact, strict=True)
                ),
                *(
                    near(float(r), float(p), tolerance=0.03 * float(p))
                    for r, p in zip(laplace, exact, strict=True)
                ),
            ),
            correction="it is κ e^(-η∞L) Π √(2π/(η∞λ_j)) erf(ε √(η∞λ_j/2)), the box along the "
            "eigenvectors: one η∞ in the exponent, a factor (2π)^(d/2), 2/π in Pólya's exponent, "
            "no e^(η∞ε²) (three minima, with κ and with Laplace's weights, to 3 %)",
        ),
        Claim(
            "Theorem 2.5",
            "it is a probability (printed, ε = .1, M/γ = 10,000)",
            below(hot, 1.0),
            below(_right(2e4, RADIUS, curvatures[0]), 1.0),
            correction="the factor e^(η∞ε²), which does not belong there, grows without bound",
        ),
        Claim(
            "Appendix G",
            "the denominator is the determinant of the Hessian (quotient of the two outer minima "
            "where boxes hold all, M/γ = 10,000)",
            near(low_noise, 28.125 / 4.5, tolerance=0.02),
            near(low_noise, math.sqrt(28.125 / 4.5), tolerance=0.02),
            correction="it is its root, as in the theorem",
        ),
    ]


def _ratios(etas: Any, radius: float) -> np.ndarray:
    """The probability of the box around the flattest over that around the sharpest minimum."""
    flat, _, sharp = WELLS.boxes(etas, radius)
    return flat / sharp


def _of_ratio() -> list[Claim]:
    root = math.sqrt(28.125 / 4.5)
    small = float(_ratios([2.0], 1e-3)[0])
    hot, low = (float(ratio) for ratio in _ratios([2.0, 2e4], RADIUS))
    return [
        Claim(
            "(2.7)",
            "for minima of equal depth the ratio of P(|W - w₁| <= ε) and P(|W - w₂| <= ε) tends to "
            "√(det₂/det₁) = 2.5 as ε -> 0 (M/γ = 1, ε = .001)",
            near(small, root, tolerance=0.05),
            both(
                near(small, 1.0, tolerance=1e-4),
                near(low, root, tolerance=0.01),
            ),
            correction="as ε -> 0 with the noise fixed it tends to 1, for the density is the same "
            "at both; 2.5 is the limit of low noise with ε fixed, and that of the basins' masses",
        ),
        Claim(
            "after (2.7)",
            "it does not depend on batch size or learning rate (ε = .1, M/γ = 1 against 10,000)",
            near(hot, low, tolerance=0.05),
            near(hot, 1.0791, tolerance=1e-3),
            correction="in the limit of low noise only: 1.079 at M/γ = 1",
        ),
        Claim(
            "after (2.7)",
            "the flatter minimum is the likelier one regardless of M/γ (ε = .1, M/γ = .1 to 10⁴)",
            above(
                float(min((p[0] / p[2]) for p in WELLS.boxes(np.geomspace(0.2, 2e4, 12)).T)), 1.0
            ),
        ),
    ]


def _of_basins() -> Claim:
    found = [WELLS.basins(eta) for eta in (20.0, 200.0, 20000.0)]
    return Claim(
        "(2.7)",
        "the masses of the basins tend to .5, .3 and .2 for Hessians 4.5, 12.5 and 28.125 "
        "(M/γ = 10,000; and they come closer with every power of ten)",
        both(
            *(
                near(float(m), p, tolerance=1e-3)
                for m, p in zip(found[2], (0.5, 0.3, 0.2), strict=True)
            ),
            below(abs(float(found[2][2]) - 0.2), abs(float(found[1][2]) - 0.2)),
            below(abs(float(found[1][2]) - 0.2), abs(float(found[0][2]) - 0.2)),
        ),
    )


def _of_order_in_time(setting: Setting) -> Claim:
    """Chains from the sharp minimum: where they are after a time, by batch size."""
    grid = tw.Grid(-2.5, 3.0, 500)
    start = grid.delta([1.5])
    stays = []
    for eta in (2.0, 20.0):
        chain = tw.discretise(WELLS.diffusion(eta), grid)
        later = chain.evolve(start, [20.0]).densities[0]
        # Beyond the top between 0 and 1.5, at .96.
        stays.append(float(grid.integrate(later, lambda w: w[0] > 0.96)))
    settled = WELLS.basins(20.0)[2]
    return Claim(
        "KMNST hypothesis",
        "in finite time large batches stay at a sharp minimum, small ones do not (share at the "
        "sharpest minimum after t = 20 from there, M/γ = 10 and 1; in the end it would be "
        f"{settled:.2f})",
        both(above(stays[1], 0.9), below(stays[0], 0.5)),
    )


def _picture() -> Picture:
    return Picture(
        "theorem-2-5",
        "Left: flat and sharp minima of equal depth (Appendix H, example 1). Right: the "
        "probability of a box around the flattest over that around the sharpest, by its size; the "
        "document's ratio is 2.5.",
        [
            Panel("w", "L(w)", [Series("landscape", "w", "L")], limits=(-0.05, 1.4)),
            Panel(
                "ε",
                "ratio of probabilities",
                [
                    Series("ratios", "radius", "fixed noise", "M/γ = 1", "sgd"),
                    Series("ratios", "radius", "low noise", "M/γ = 1000", "rr"),
                ],
                log="x",
                lines=((1.0, "1"), (2.5, "√(det₂/det₁)")),
                limits=(0.9, 2.7),
            ),
        ],
    )
