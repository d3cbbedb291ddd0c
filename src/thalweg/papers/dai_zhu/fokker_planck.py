"""(2.2), (2.3), Lemma 2.1 and appendix B: the equation of SGD and the one of its density."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

# gamma/M, and one time at which laws are compared.
_RATIO, _TIME, _STEP = 0.8, 1.0, 0.01
_START = 0.4


def _loss(x: Float[Array, ""]) -> Float[Array, ""]:
    """A convex loss whose gradient grows no faster than its argument."""
    return x**2 / 2 + 0.4 * jnp.cos(2 * x)


def _beta(params: Float[Array, " 1"]) -> Float[Array, ""]:
    """The variance of a sample's gradient, larger on the right."""
    return 1 + 0.8 * jnp.tanh(params[0])


def _down(params: Float[Array, " 1"]) -> Float[Array, " 1"]:
    return -jax.grad(lambda p: _loss(p[0]))(params)


def _without_its_gradient(params: Float[Array, " 1"]) -> Float[Array, " 1"]:
    """The drift whose flux is p grad L + D grad p: that of (2.5) without grad D."""
    return _down(params) + _RATIO / 2 * jax.grad(_beta)(params)


class _Speeds(NamedTuple):
    """First moments of a short time from a point, over that time."""

    drift: float
    spread: float


@experiment(
    "dai-zhu/fokker-planck",
    "The Fokker-Planck equation is right; the mean still follows the gradient of the loss",
    covers=("(2.2)", "(2.3)", "Lemma 2.1", "Appendix B"),
    seconds=(5, 8),
)
def fokker_planck(setting: Setting) -> Outcome:
    """Laws at time 1 by simulation, by (2.5) on a grid, and by its form without grad beta."""
    noise = tw.noise_models.isotropic(_beta, _RATIO, 1.0)
    equation = tw.Diffusion(_down, noise, _STEP)
    # The start is the centre of the middle cell, so that all mass begins there.
    grid = tw.Grid(_START - 4.5, _START + 4.5, 721)
    chain = tw.discretise(equation, grid)
    start = grid.delta([_START])
    times = [1e-3, _TIME]
    short, later = (np.asarray(p) for p in chain.evolve(start, times).densities)
    other = tw.discretise(tw.Diffusion(_without_its_gradient, noise, _STEP), grid)
    without = np.asarray(other.evolve(start, [_TIME]).densities[0])
    x = grid.centres[0]
    masses = {name: p * grid.widths[0] for name, p in (("own", later), ("without", without))}
    speeds = _speeds(short * grid.widths[0], x, times[0])
    run = tw.simulate(
        equation,
        jnp.array([_START]),
        steps=round(_TIME / _STEP),
        key=setting.key,
        chains=setting.choose(40_000, 400_000),
        progress=setting.progress_of("paths"),
    )
    ends = np.asarray(run.params)[:, 0]
    claims = [*_of_batches(), *_of_laws(masses, ends, x), *_of_moments(speeds)]
    return Outcome(claims, _tables(x, later, without, ends), [_picture()])


def _of_batches() -> list[Claim]:
    """(2.2) on ten least-squares samples, batches of five, exactly."""
    rows = jnp.asarray(np.random.default_rng(0).standard_normal((10, 3)))
    problem = tw.FiniteSum(lambda p, row: (row[:2] @ p - row[2]) ** 2 / 2, rows)
    point = jnp.array([0.3, -0.7])
    own = np.asarray(problem.gradients(point))
    single = np.cov(own.T, bias=True)
    shares = {
        replace: float(np.trace(tw.Minibatch(5, replace=replace).covariance(problem, point)))
        / (np.trace(single) / 5)
        for replace in (True, False)
    }
    mean = np.asarray(tw.Minibatch(5).mean(problem, point))
    return [
        Claim(
            "(2.2)",
            "the mean of a batch's gradient is the gradient of the loss (largest difference)",
            near(float(np.abs(mean - own.mean(axis=0)).max()), 0.0, tolerance=1e-12),
        ),
        Claim(
            "(2.2)",
            "its variance is that of a sample over M, for a set of M of the N indices (quotient, "
            "N = 10, M = 5)",
            near(shares[False], 1.0, tolerance=1e-12),
            both(
                near(shares[True], 1.0, tolerance=1e-12),
                near(shares[False], 5 / 9, tolerance=1e-12),
            ),
            correction="that is so for independent draws; of a set without repetition it is "
            "(N - M)/(N - 1) of it, which matters where M is a tenth of N",
        ),
    ]


def _speeds(masses: np.ndarray, x: np.ndarray, time: float) -> _Speeds:
    away = x - _START
    return _Speeds(float(masses @ away) / time, float(masses @ away**2) / (2 * time))


def _of_laws(masses: dict[str, np.ndarray], ends: np.ndarray, x: np.ndarray) -> list[Claim]:
    mean, square = Mean.of(ends), Mean.of(ends**2)
    own = [float(masses["own"] @ x**k) for k in (1, 2)]
    without = float(masses["without"] @ x)
    # Euler's steps are wrong by O(step): halving the step moves the moments by less than this.
    open_ = 0.003
    return [
        Claim(
            "(2.5)",
            "the density of (2.3), in Ito's sense, obeys the Fokker-Planck equation whose flux has "
            "the drift -∇(L + γβ/2M): mean and second moment at t = 1, paths against the grid",
            both(
                near(mean.value, own[0], error=mean.error, tolerance=open_),
                near(square.value, own[1], error=square.error, tolerance=open_),
            ),
        ),
        Claim(
            "(2.5)",
            "the term with ∇β is needed: without it the mean at t = 1 would be "
            f"{without:.4f}, off by more than .1",
            above(abs(mean.value - without), 0.1, error=mean.error),
        ),
    ]


def _of_moments(speeds: _Speeds) -> list[Claim]:
    at = jnp.array([_START])
    down = float(_down(at)[0])
    flux = down - _RATIO / 2 * float(jax.grad(_beta)(at)[0])
    size = _RATIO * float(_beta(at)) / 2
    loss = float(_loss(at[0]))
    # The time is 1e-3: the speeds change by some of their derivatives times half of it.
    open_ = 2e-3
    return [
        Claim(
            "after Lemma 2.1",
            "SGD does not follow the mean drift -∇L: its drift is -∇(L + γβ/2M) (speed of the mean "
            f"from w = .4, where these are {down:.3f} and {flux:.3f})",
            near(speeds.drift, flux, tolerance=open_),
            near(speeds.drift, down, tolerance=open_),
            correction="the mean moves by -∇L whatever γ/M is: E dW/dt = -E ∇L. The other drift "
            "belongs to the flux of the density, whose second term has a mean of its own",
        ),
        Claim(
            "Appendix B",
            "the first coefficient, mean displacement over time, is D¹ = -L",
            near(speeds.drift, -loss, tolerance=open_),
            near(speeds.drift, down, tolerance=open_),
            correction="it is -L', as the result (B.1) has it",
        ),
        Claim(
            "Appendix B",
            "the second, half the mean square over time, is D² = -γβ/(2M)",
            near(speeds.spread, -size, tolerance=open_),
            near(speeds.spread, size, tolerance=open_),
            correction="a mean square is positive; with the sign of the series, (-1)ⁿ and not -1, "
            "(B.1) comes out as printed",
        ),
    ]


def _tables(
    x: np.ndarray, later: np.ndarray, without: np.ndarray, ends: np.ndarray
) -> dict[str, dict[str, Any]]:
    counts, edges = np.histogram(ends, bins=60, range=(-2.5, 3.5))
    shown = slice(None, None, 4)
    return {
        "densities": {"w": x[shown], "flux": later[shown], "without": without[shown]},
        "paths": {
            "w": (edges[1:] + edges[:-1]) / 2,
            "density": counts / ends.size / np.diff(edges),
        },
    }


def _picture() -> Picture:
    series = [
        Series("paths", "w", "density", "paths of (2.3)", "", "bars"),
        Series("densities", "w", "flux", "(2.5)", "sgd"),
        Series("densities", "w", "without", "without ∇β", "", dashed=True),
    ]
    return Picture(
        "fokker-planck",
        "The density at t = 1 from w = .4, L = w²/2 + .4 cos 2w, β = 1 + .8 tanh w, γ/M = .8: "
        "paths of the equation, its Fokker-Planck equation, and the one without the gradient of "
        "the noise.",
        [Panel("w", "density at t = 1", series)],
    )
