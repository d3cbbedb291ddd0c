"""Theorem 2.4: how fast the law becomes stationary, for noise that is constant and that varies."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import quad, solve_ivp

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_TIMES = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)


def _well(w: Float[Array, " d"]) -> Float[Array, " d"]:
    """-grad of the sum of (w_i^2 - 1)^2/4."""
    return w - w**3


def _bowl(w: Float[Array, " d"]) -> Float[Array, " d"]:
    """-grad of |w|^2/2."""
    return -w


def _chain(drift: Any, eta: float, dimension: int = 1, cells: int = 160) -> tw.MarkovGrid:
    """Isotropic noise with 2M/(gamma beta) = eta."""
    noise = tw.noise_models.isotropic(1.0, 2 / eta, 1.0)
    grid = tw.Grid([-3.0] * dimension, 3.0, cells)
    return tw.discretise(tw.Diffusion(drift, noise, 0.1), grid)


def _constant_of(drift: Any, eta: float, dimension: int = 1, cells: int = 160) -> float:
    r"""Poincare's constant of :math:`e^{-\eta L}`: :math:`\eta` times the gap of the equation."""
    return eta * _chain(drift, eta, dimension, cells).gap().rate


@experiment(
    "dai-zhu/theorem-2-4",
    "The law becomes stationary at a rate, but a slow one for wells, and not for varying noise",
    covers=("(2.6)", "Theorem 2.4", "Appendix E", "Appendix F"),
    seconds=(8, 8),
)
def convergence(setting: Setting) -> Outcome:
    """Weighted norms along the equation of the density, on grids and for Gaussian laws."""
    norms = _norms_in_the_well(8.0)
    claims = [
        _of_constant_noise(norms),
        _of_other_measure(),
        *_of_remarks(),
        *_of_varying_noise(),
        _of_gronwall(),
    ]
    return Outcome(claims, _tables(norms), [_picture()])


def _norms_in_the_well(eta: float) -> dict[str, Any]:
    """Squared norms from a density on the left, and the rate they should have."""
    chain = _chain(_well, eta)
    law = chain.stationary().density
    start = chain.grid.function(lambda w: jnp.exp(-20 * (w[0] + 1) ** 2))
    later = chain.evolve(start, np.array(_TIMES)).densities
    squares = [tw.markov.weighted_l2(chain.grid, p, law, law) ** 2 for p in later]
    return {"squares": squares, "gap": chain.gap().rate, "eta": eta}


def _slope(squares: Any, first: int, last: int) -> float:
    return math.log(squares[first] / squares[last]) / (_TIMES[last] - _TIMES[first])


def _of_constant_noise(norms: dict[str, Any]) -> Claim:
    rate = _slope(norms["squares"], -4, -1)
    constant = norms["gap"] * norms["eta"]
    return Claim(
        "Theorem 2.4",
        "for constant noise the squared norm |(p - p∞)/√p∞|² decays with the exponent C_P/η∞ (two "
        "wells, η∞ = 8)",
        near(rate, constant / norms["eta"], tolerance=0.01 * rate),
        near(rate, 2 * constant / norms["eta"], tolerance=0.01 * rate),
        reading="as an upper bound, with C_P Poincaré's constant of p∞: the exponent is 2 C_P/η∞",
    )


def _of_other_measure() -> Claim:
    """(2.6) has the constant of e^{-L}; at low noise the wells are deeper than there."""
    other, own = _constant_of(_well, 1.0), _constant_of(_well, 16.0)
    return Claim(
        "(2.6) and Theorem 2.4",
        "C_P is the constant of the measure e^(-L): the squared norm decays at C_P/η∞ or faster "
        "(two wells, η∞ = 16)",
        above(2 * own / 16, other / 16),
        above(2 * own / 16, own / 16),
        correction="it is that of e^(-η∞ L), which has the barrier in it: "
        f"{own:.3g} there and {other:.3g} for e^(-L)",
    )


def _of_remarks() -> list[Claim]:
    wells = {d: _constant_of(_well, 4.0, d, 48) for d in (1, 2)}
    rates = {eta: _constant_of(_well, eta) / eta for eta in (4.0, 16.0)}
    bowls = {eta: _constant_of(_bowl, eta) / eta for eta in (4.0, 16.0)}
    return [
        Claim(
            "after Theorem 2.4",
            "C_P grows like e^d with the dimension (quotient of two wells in each of two "
            "dimensions, and one)",
            near(wells[2] / wells[1], math.e, tolerance=0.3),
            near(wells[2] / wells[1], 1.0, tolerance=1e-6),
            correction="not in general: of a product of measures it does not depend on d",
        ),
        Claim(
            "after Theorem 2.4",
            "where C_P is large it takes long to become stationary (rate of two wells, C_P = "
            f"{wells[1]:.3g}, against that of a bowl, C_P = {4 * bowls[4.0]:.3g})",
            above(rates[4.0], bowls[4.0]),
            below(rates[4.0], bowls[4.0]),
            correction="where it is small: the rate is C_P/η∞",
        ),
        Claim(
            "after Theorem 2.4",
            "convergence is faster for larger γ/M (rates at η∞ = 4 over η∞ = 16)",
            both(
                above(rates[4.0] / rates[16.0], 1.1),
                above(bowls[4.0] / bowls[16.0], 1.1),
            ),
            both(
                above(rates[4.0] / rates[16.0], 1.1),
                # Cells of .0375 are wrong by a quarter per cent at a deviation of .25.
                near(bowls[4.0] / bowls[16.0], 1.0, tolerance=5e-3),
            ),
            reading="where barriers are to be crossed; in a bowl, whose constant grows with η∞, "
            "the rate does not depend on γ/M",
        ),
    ]


def _temperature(t: Any) -> Any:
    """1/eta(t) for eta = 2 (1 + 1/(1 + t)), whose limit is 2."""
    return (1 + t) / (2 * (2 + t))


def _variance(time: float) -> float:
    """The law in the bowl stays Gaussian, with v' = -2 v + 2 T(t) from v = .4."""
    gained = quad(lambda s: 2 * _temperature(s) * math.exp(2 * (s - time)), max(0, time - 40), time)
    return 0.4 * math.exp(-2 * time) + gained[0]


def _square(time: float) -> float:
    r"""The squared norm of N(0, v) against N(0, u), u = 1/2: :math:`u/\sqrt{v(2u - v)} - 1`."""
    v = _variance(time)
    return 0.5 / math.sqrt(v * (1 - v)) - 1


def _of_varying_noise() -> list[Claim]:
    slope = math.log(_square(640.0) / _square(160.0)) / math.log(4.0)
    # Appendix F for this bowl: C_P = 2 of e^{-2L}, M = 1 of (A.3), C_1 = 2.54.
    first = 2 / (2 / (3 * 2.54)) - 1
    bound, there = _bound(first, 30.0), _square(30.0)
    varying = tw.Diffusion(
        _bowl, tw.noise_models.isotropic(1.0, lambda t: 2 * _temperature(t), 1.0), 0.1
    )
    grid = tw.Grid(-4.0, 4.0, 80)
    chain = tw.discretise(varying, grid)
    start = grid.function(lambda w: jnp.exp(-(w[0] ** 2) / 0.8))
    later = np.asarray(chain.evolve(start, [3.0]).densities[0])
    x = grid.centres[0]
    spread = float(grid.integrate(later * x**2))
    return [
        Claim(
            "Theorem 2.4",
            "for γ(t)/M(t) that varies the law becomes stationary, too: L = w²/2, "
            "η(t) = 2(1 + 1/(1 + t)), E w² at t = 3 on a grid and for the Gaussian law, and its "
            "squared norm below 1e-4 at t = 160",
            both(
                # The grid's cells of .1 are wrong by h^2/12 of the second moment or so.
                near(spread, _variance(3.0), tolerance=2e-3),
                below(_square(160.0), 1e-4),
            ),
        ),
        Claim(
            "Theorem 2.4",
            "and it does so exponentially: from the T of appendix F (6.6) on the squared norm is "
            f"below the bound of the theorem, {bound:.2g} at t = 30",
            below(there, bound),
            near(slope, -2.0, tolerance=0.03),
            correction="it decays like t⁻², for what is stationary at t is 1/t away from p∞ (slope "
            "of the logarithms from t = 160 to 640)",
        ),
    ]


def _bound(first: float, time: float) -> float:
    rate = 1.0  # C_P/eta of the bowl
    return (rate * (time - first) + _square(first)) * math.exp(-rate * (time - first))


def _of_gronwall() -> Claim:
    """The last line before Gronwall's inequality with equality, u' + a u = a, from u = 3."""
    a, time = 1.0, 5.0
    path = solve_ivp(lambda _, u: a * (1 - u), (0, time), [3.0], rtol=1e-9, atol=1e-12)
    u = float(path.y[0, -1])
    return Claim(
        "Appendix E",
        "from u'/2 + C_P u/(2η∞) <= C_P/(2η∞) it follows that u <= (C_P(t - T)/η∞ + u(T)) "
        "exp(-C_P(t - T)/η∞) (with equality, at C_P(t - T)/η∞ = 5 from u(T) = 3)",
        below(u, (a * time + 3.0) * math.exp(-a * time)),
        near(u, 1.0 + 2.0 * math.exp(-a * time), tolerance=1e-6),
        correction="what follows is u <= 1 + (u(T) - 1) exp(-C_P(t - T)/η∞), and no convergence",
    )


def _tables(norms: dict[str, Any]) -> dict[str, dict[str, Any]]:
    squares, rate = np.array(norms["squares"]), norms["gap"]
    t = np.array(_TIMES)
    times = np.geomspace(1, 640, 40)
    return {
        "constant": {
            "t": t,
            "square": squares,
            "twice": squares[-1] * np.exp(-2 * rate * (t - t[-1])),
            "once": squares[0] * np.exp(-rate * (t - t[0])),
        },
        "varying": {
            "t": times,
            "square": [_square(time) for time in times],
            "power": _square(640.0) * (times / 640.0) ** -2,
        },
        "bound": {
            "t": times[(times > 7) & (times < 40)],
            "square": [_bound(6.6, time) for time in times if 7 < time < 40],
        },
    }


def _picture() -> Picture:
    return Picture(
        "theorem-2-4",
        "The squared norm of (p - p∞)/√p∞. Left: two wells, η∞ = 8, constant noise. Right: a bowl "
        "with η(t) = 2(1 + 1/(1 + t)), the power t⁻² and the bound of Theorem 2.4.",
        [
            Panel(
                "time t",
                "squared norm",
                [
                    Series("constant", "t", "square", "found", "sgd", "points"),
                    Series("constant", "t", "twice", "exponent 2 C_P/η∞", dashed=True),
                    Series("constant", "t", "once", "exponent C_P/η∞", dashed=True),
                ],
                log="y",
            ),
            Panel(
                "time t",
                "squared norm",
                [
                    Series("varying", "t", "square", "found", "sgd"),
                    Series("varying", "t", "power", "t⁻²", dashed=True),
                    Series("bound", "t", "square", "Theorem 2.4"),
                ],
                log="xy",
                limits=(1e-12, 10.0),
            ),
        ],
    )
