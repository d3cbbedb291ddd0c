"""Theorem 2.2: how long a minimum is kept, by formula, integral, grid and paths."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, is_so, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

# Temperatures gamma beta/(2M); the barrier is 1/4.
_D = (0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25)
_SIMULATED, _STEP = 0.1, 0.01
_LEFT, _TOP = jnp.array([-1.0]), jnp.array([0.0])


def _down(w: Float[Array, " 1"]) -> Float[Array, " 1"]:
    """-L' for L = (w^2 - 1)^2/4."""
    return w - w**3


def _grows(w: Float[Array, " 1"]) -> Float[Array, ""]:
    """A variance that is larger on the way than at the minimum on the left, where it is 1."""
    return 1 + 0.5 * (w[0] + 1) ** 2


def _diffusion(D: float, beta: Any = 1.0) -> tw.Diffusion:
    """gamma/M = 2D."""
    return tw.Diffusion(_down, tw.noise_models.isotropic(beta, 2 * D, 1.0), _STEP)


class _Times(NamedTuple):
    """Mean times from the left minimum.

    Attributes:
        exact: To the other minimum, by the integral.
        half: To the top.
        law: Eyring and Kramers' time to the other minimum.
    """

    exact: float
    half: float
    law: float

    @property
    def ratio(self) -> float:
        """The exact time over the law's."""
        return self.exact / self.law


@experiment(
    "dai-zhu/theorem-2-2",
    "Escape times: right for constant noise, another exponent where the noise depends on the place",
    covers=("Theorem 2.2", "Figure 2"),
    seconds=(11, 13),
)
def escape_time(setting: Setting) -> Outcome:
    """The law of Eyring and Kramers against integrals, a grid, paths, and SGD itself."""
    constant = {D: _times(_diffusion(D)) for D in _D}
    by_place = {D: _times(_diffusion(D, _grows)) for D in (0.05, 0.02, 0.01, 0.005)}
    exponent = tw.eyring_kramers(_diffusion(0.01, _grows), _LEFT, _TOP).exponent * 0.01
    run = tw.simulate(
        _diffusion(_SIMULATED),
        _LEFT,
        steps=round(12 * constant[_SIMULATED].exact / _STEP),
        key=setting.key,
        chains=setting.choose(600, 10_000),
        exit=tw.stopping.LeftBox(-jnp.inf, 1.0),
        progress=setting.progress_of("paths"),
    )
    exits = tw.escape.exit_times(run)
    claims = [
        _single_saddle(setting),
        *_of_constant(constant),
        _of_routes(constant[_SIMULATED], exits),
        _exponential(exits),
        _of_place(exponent, by_place),
        _of_sgd(),
    ]
    return Outcome(claims, _tables(constant, exits), [_picture()])


def _times(diffusion: tw.Diffusion) -> _Times:
    whole, half = (
        tw.escape.exit_time_on_line(diffusion, -1.0, -math.inf, end).time for end in (1.0, 0.0)
    )
    return _Times(whole, half, tw.eyring_kramers(diffusion, _LEFT, _TOP).time)


def _single_saddle(setting: Setting) -> Claim:
    landscape = tw.landscapes.mueller_brown()
    graph = tw.critical_points(landscape.problem, landscape.lower, landscape.upper, key=setting.key)
    negative = [int((np.asarray(s.eigenvalues) < 0).sum()) for s in graph.saddles]
    return Claim(
        "Figure 2",
        "the Hessian at the saddle between two minima has a single negative eigenvalue (the "
        f"{len(negative)} saddles of Mueller and Brown's surface)",
        is_so(bool(negative) and set(negative) == {1}, f"numbers of negative ones {negative}"),
    )


def _of_constant(times: dict[float, _Times]) -> list[Claim]:
    slopes = [(times[D].ratio - 1) / D for D in (0.02, 0.01)]
    # Their difference is the next order, which the extrapolation takes off.
    slope = 2 * slopes[1] - slopes[0]
    rates = [(math.log(times[D].exact), 1 / D) for D in (0.035, 0.02)]
    height = (rates[1][0] - rates[0][0]) / (rates[1][1] - rates[0][1])
    return [
        Claim(
            "Theorem 2.2",
            "E τ = (2π/λ*) √(|det H*|/det H₁) exp(H 2M/(γβ)) up to a factor that tends to 1; at "
            "γβ/2M = .1 and .05 it is 1.2244 and 1.1066 (found before)",
            both(
                near(times[0.1].ratio, 1.2244, tolerance=5e-5),
                near(times[0.05].ratio, 1.1066, tolerance=5e-5),
                below(times[0.02].ratio - 1, 0.04),
            ),
        ),
        Claim(
            "Theorem 2.2",
            "the factor is 1 + O(√ε log 1/ε), ε the size of the noise",
            # If it were no smaller, the slopes of the error in the noise would grow without bound.
            above(slopes[1], 1.3 * slopes[0]),
            near(slope, 1.5, tolerance=0.05),
            reading="as an upper bound; at a smooth minimum and saddle it is 1 + O(ε), here "
            "1 + (3/2) γβ/2M",
        ),
        Claim(
            "Theorem 2.2",
            "τ is the time to the other minimum; to the saddle it is half of that (quotient at "
            "γβ/2M = .02)",
            near(times[0.02].half / times[0.02].exact, 0.5, tolerance=1e-4),
        ),
        Claim(
            "after Theorem 2.2",
            "a larger batch at a minimum means a longer escape, exponentially: log E τ grows by "
            "H = 1/4 a unit of 2M/(γβ)",
            # By 1/T the correction 1 + 1.5 T adds (1.5 T^2) to the slope: .002 at most here.
            near(height, 0.25, tolerance=2e-3),
        ),
    ]


def _of_routes(times: _Times, exits: Any) -> Claim:
    grid = tw.Grid(-3.0, 1.0, 800, boundary=[("reflecting", "absorbing")])
    there = tw.discretise(_diffusion(_SIMULATED), grid).exit_time(lambda w: w[0] < 2)
    on_grid = float(there.at(_LEFT))
    mean, error = exits.mean()
    return Claim(
        "Theorem 2.2",
        f"integral ({times.exact:.2f}), grid and paths have the same mean time at γβ/2M = .1",
        both(
            near(on_grid, times.exact, tolerance=2e-3 * times.exact),
            # Paths are looked at every .01: an end is missed by .58 sqrt(2 D .01) on average,
            # beyond a minimum less than two per cent of the time.
            near(mean * _STEP, times.exact, error=error * _STEP, tolerance=0.02 * times.exact),
        ),
    )


def _exponential(exits: Any) -> Claim:
    p = exits.exponential(settled=round(4 / _STEP))
    return Claim(
        "Theorem 2.2",
        f"escapes are exponential once they are rare (p-value of a constant rate, {exits.exits} "
        "paths, after t = 4)",
        above(p, 0.0027),
    )


def _of_place(exponent: float, times: dict[float, _Times]) -> Claim:
    # What is printed: M, gamma and beta of the minimum, where beta = 1.
    printed = {
        D: one.exact / (math.sqrt(2) * math.pi * math.exp(0.25 / D)) for D, one in times.items()
    }
    rates = [(math.log(times[D].exact), 1 / D) for D in (0.01, 0.005)]
    slope = (rates[1][0] - rates[0][0]) / (rates[1][1] - rates[0][1])
    return Claim(
        "Theorem 2.2",
        "for β(w) the exponent has β at the minimum: H 2M/(γβ(w₁)) (β = 1 + (w + 1)²/2: slope of "
        "log E τ in 2M/γ, .25)",
        near(slope, 0.25, tolerance=1e-3),
        both(
            near(slope, 0.2225185, tolerance=1e-3),
            near(exponent, 0.2225185, tolerance=5e-8),
            below(abs(times[0.005].ratio - 1), 0.02),
        ),
        correction="it is ∫ 2M dL/(γβ) along the path, .2225185 here, and on a line the prefactor "
        "has √(β(w*)/β(w₁)) more; then the quotient tends to 1, where with what is printed it is "
        f"{printed[0.01]:.2g} at γ/2M = .01 and {printed[0.005]:.2g} at .005",
    )


def _of_sgd() -> Claim:
    landscape = tw.landscapes.double_well()
    step = 0.1
    descent = tw.Descent(landscape.problem, tw.Minibatch(1), step)
    grid = tw.Grid(-2.0, 1.0, 3000, boundary=[("reflecting", "absorbing")])
    own = float(tw.discretise(descent, grid).exit_time(lambda w: w[0] < 2).at(_LEFT)) / step
    law = tw.eyring_kramers(descent, _LEFT, _TOP).steps
    exact = tw.escape.exit_time_on_line(tw.diffusion_limit(descent), -1.0, -math.inf, 1.0).steps
    return Claim(
        "after Theorem 2.2",
        f"E τ/γ is the number of iterations of SGD: {exact:.0f} by the equation ({law:.0f} by the "
        "formula) for gradients L' ± 1, γ = .1, to 5 %",
        near(own / exact, 1.0, tolerance=0.05),
        both(above(own / exact, 1.2), below(own / exact, 2.0)),
        reading="for smaller steps; at this one SGD, whose gradients have two values, takes "
        f"{own:.0f} iterations",
    )


def _tables(times: dict[float, _Times], exits: Any) -> dict[str, dict[str, Any]]:
    w = np.linspace(-1.7, 1.7, 86)
    # Beyond a hundredth of the paths there is little left to see.
    last = int(np.searchsorted(-exits.survival, -0.01)) - 1
    chosen = np.unique(np.linspace(0, last, 60).astype(int))
    t = exits.steps[chosen] * _STEP
    mean = exits.mean()[0] * _STEP
    return {
        "times": {
            "inverse": [1 / D for D in times],
            "exact": [one.exact for one in times.values()],
            "law": [one.law for one in times.values()],
            "ratio": [one.ratio for one in times.values()],
        },
        "survival": {
            "t": t,
            "inside": exits.survival[chosen],
            "exponential": np.exp(-t / mean),
        },
        "landscape": {"w": w, "L": (w**2 - 1) ** 2 / 4},
    }


def _picture() -> Picture:
    return Picture(
        "theorem-2-2",
        "Two minima and the saddle between them, H = 1/4 (dashed); the mean time from one to the "
        "other, exactly and by Theorem 2.2; and the share of paths that are still on the left, "
        "γβ/2M = .1, with an exponential law.",
        [
            Panel("w", "L(w)", [Series("landscape", "w", "L")], lines=((0.25, ""),)),
            Panel(
                "2M/(γβ)",
                "mean time",
                [
                    Series("times", "inverse", "exact", "exact", "sgd", "points"),
                    Series("times", "inverse", "law", "theory", dashed=True),
                ],
                log="y",
            ),
            Panel(
                "time t",
                "share not escaped",
                [
                    Series("survival", "t", "inside", "paths", "sgd"),
                    Series("survival", "t", "exponential", "theory", dashed=True),
                ],
                log="y",
                limits=(0.005, 1.1),
            ),
        ],
    )
