"""Gaussian least squares with more equations than unknowns, and with fewer."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import Check, above, below, both, near, within
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_EQUATIONS = 200
_UNDER, _OVER = 100, 1000
_SMALLER = (40, 20)
_STEP = 1e-3
_EPOCHS = 60
# Of the step above which the mean square grows without end.
_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class _System:
    """A system of equations, its least-squares solution, and SGD's loss by epochs."""

    problem: tw.FiniteSum
    solution: np.ndarray
    least: float
    loss: np.ndarray
    ends: np.ndarray


@experiment(
    "giselsson/least-squares",
    "SGD on least squares: slow with 100 unknowns in 200 equations, exact with 1000",
    covers=("over- and underparameterized", "least squares"),
    seconds=(25, 100),
)
def least_squares(setting: Setting) -> Outcome:
    """60 epochs with γ = 1e-3, and the size of the noise around the solution by step."""
    systems = {unknowns: _solved(unknowns, setting) for unknowns in (_UNDER, _OVER)}
    # The exact law of 100 unknowns takes a minute.
    ball = setting.choose(_SMALLER, (_EQUATIONS, _UNDER))
    noise = _noise(*_equations(*ball, setting), setting)
    tables: dict[str, Any] = {"noise": noise, "loss": {"epoch": np.arange(_EPOCHS + 1)}}
    norms = {}
    for unknowns, system in systems.items():
        tables["loss"][f"{unknowns}"] = system.loss.mean(axis=0)
        norms[unknowns] = np.array([np.sort(_norms(system, x))[::-1] for x in system.ends])
        tables[f"norms {unknowns}"] = {
            "sample": np.arange(_EQUATIONS),
            "norm": norms[unknowns][0],
        }
    claims = [
        *_convergence(systems),
        *_individual(systems, norms),
        _square_system(setting),
        *_covariance(noise),
    ]
    return Outcome(claims, tables, [_picture()])


def _term(x: Float[Array, " n"], equation: tuple[Array, Array]) -> Float[Array, ""]:
    row, right = equation
    return 0.5 * jnp.square(jnp.dot(row.astype(x.dtype), x) - right.astype(x.dtype))


def _equations(
    equations: int, unknowns: int, setting: Setting
) -> tuple[tw.FiniteSum, np.ndarray, float]:
    """The mean of the terms, a solution of least norm, and the least *sum* of the terms."""
    row_key, right_key = jax.random.split(jax.random.fold_in(setting.key, unknowns))
    A = np.asarray(jax.random.normal(row_key, (equations, unknowns)))
    b = np.asarray(jax.random.normal(right_key, (equations,)))
    solution = np.linalg.lstsq(A, b, rcond=None)[0]
    least = 0.5 * float(np.sum((A @ solution - b) ** 2))
    return tw.FiniteSum(_term, (A, b)), solution, least


def _solved(unknowns: int, setting: Setting) -> _System:
    problem, solution, least = _equations(_EQUATIONS, unknowns, setting)
    run = tw.simulate(
        tw.Descent(problem, tw.Minibatch(1), _STEP),
        jnp.zeros(unknowns),
        steps=_EPOCHS * _EQUATIONS,
        key=setting.key,
        chains=setting.choose(4, 32),
        record=tw.Record(every=_EQUATIONS, values={"mean": problem.value}),
    )
    # The slides minimise the sum of the terms.
    loss = _EQUATIONS * np.asarray(run.records["mean"])
    return _System(problem, solution, least, loss, np.asarray(run.params))


def _norms(system: _System, x: np.ndarray) -> np.ndarray:
    return np.asarray(
        tw.sample_gradient_norms(system.problem.loss, jnp.asarray(x), system.problem.data)
    )


def _noise(
    problem: tw.FiniteSum, solution: np.ndarray, least: float, setting: Setting
) -> dict[str, Any]:
    """E f - f* of the stationary law: measured, exact, and of the Ornstein-Uhlenbeck limit."""
    A, b = (np.asarray(part) for part in problem.data)
    hessians = jnp.asarray(A[:, :, None] * A[:, None, :])
    slopes = jnp.asarray(A * (A @ solution - b)[:, None])
    largest = tw.stability.mean_square_threshold(hessians, 1)
    rows = []
    for share in _SHARES:
        step = share * largest
        exact = tw.stability.excess_loss(hessians, slopes, step=step, batch_size=1)
        mean_value, error = _measured(problem, solution, step, setting)
        # H P + P H = γ G has the trace tr(H P) = γ tr G/2.
        limit = step * float(jnp.sum(slopes**2)) / problem.n / 4
        heights = problem.n * np.array([mean_value, error, exact, limit])
        rows.append([share, step, heights[0] - least, *heights[1:]])
    names = ("share", "step", "measured", "error", "exact", "limit")
    return dict(zip(names, np.array(rows).T, strict=True))


def _measured(
    problem: tw.FiniteSum, solution: np.ndarray, step: float, setting: Setting
) -> tuple[float, float]:
    run = tw.simulate(
        tw.Descent(problem, tw.Minibatch(1), step),
        jnp.asarray(solution),
        steps=setting.choose(6000, 20_000),
        key=jax.random.fold_in(setting.key, 1),
        chains=setting.choose(64, 32),
        record=tw.Record(means={"mean": problem.value}, burn_in=2000),
    )
    return Mean.of(run.means["mean"])


def _convergence(systems: dict[int, _System]) -> list[Claim]:
    under, over = systems[_UNDER], systems[_OVER]
    ends, error = Mean.of(under.loss[:, -1] - under.least)
    last = float(np.median(over.loss[:, -1]))
    return [
        Claim(
            "Overparameterization - LS example",
            "200 x 100: SGD converges slowly; with γ = 1e-3 f - f* is still about 2 after 60 "
            "epochs (f the sum of the terms)",
            within(ends, 1.0, 4.0),
        ),
        Claim(
            "Overparameterization - LS example",
            "200 x 1000: SGD converges much faster, to about 1e-17 in 60 epochs",
            both(within(last, 1e-19, 1e-15), above(ends, 1.0, error=error)),
        ),
        Claim(
            "Overparameterization - LS example",
            "with n > N there are zero-loss solutions, with n < N none: the least losses",
            both(below(over.least, 1e-20), above(under.least, 10.0)),
        ),
    ]


def _individual(systems: dict[int, _System], norms: dict[int, np.ndarray]) -> list[Claim]:
    under = systems[_UNDER]
    A, b = (np.asarray(part) for part in under.problem.data)
    residual = A @ under.solution - b
    lengths = np.linalg.norm(A, axis=1)
    at_solution = _norms(under, under.solution)
    half = float(np.abs(at_solution - 0.5 * lengths * np.abs(residual)).max())
    whole = float(np.abs(at_solution - lengths * np.abs(residual)).max())
    return [
        Claim(
            "Overparameterization - LS example",
            "200 x 100: the norms of the terms' gradients at the solution are large, about 5 on "
            "average",
            within(float(at_solution.mean()), 4.5, 6.5),
        ),
        Claim(
            "Overparameterization - LS example",
            "200 x 1000: they are 0 where SGD ends, to 1e-5 at most",
            below(float(norms[_OVER].max()), 1e-5),
        ),
        Claim(
            "Overparameterization - LS example",
            "the gradient of a term at the solution is half of (a_i x* - b_i)",
            near(half, 0.0, tolerance=1e-9),
            near(whole, 0.0, tolerance=1e-9),
            correction="it is a_i'(a_i x* - b_i), without the half: its norm is |a_i| times the "
            "residual",
        ),
    ]


def _square_system(setting: Setting) -> Claim:
    _, _, least = _equations(_EQUATIONS, _EQUATIONS, setting)
    return Claim(
        "Overparameterization - LS example",
        "with n ≤ N the problem is underparameterized: no zero loss with n = N = 200",
        above(least, 1e-3),
        below(least, 1e-15),
        correction="n < N: a square system of full rank has a solution, hence zero loss",
    )


def _covariance(noise: dict[str, Any]) -> list[Claim]:
    checks: list[Check] = [
        near(value, exact, error=error)
        for value, exact, error in zip(
            noise["measured"][:3], noise["exact"], noise["error"], strict=False
        )
    ]
    ratios = np.array(noise["exact"]) / np.array(noise["limit"])
    return [
        Claim(
            "Overparameterization - LS example",
            "the noise ball around the solution (200 x 100; quick: 40 x 20) is what the "
            "exact recursion of the covariance says, at .1, .3 and .5 of the largest step",
            both(*checks),
        ),
        Claim(
            "Overparameterization - LS example",
            "the Ornstein-Uhlenbeck limit underestimates it, more and more towards the largest "
            "step",
            both(
                *(above(b, a) for a, b in pairwise(ratios)),
                above(float(ratios[0]), 1.0),
            ),
        ),
    ]


def _picture() -> Picture:
    losses = [
        Series("loss", "epoch", "100", "200 x 100: f", "sgd"),
        Series("loss", "epoch", "1000", "200 x 1000: f", "sgd", dashed=True),
    ]
    norms = [
        Series("norms 100", "sample", "norm", "200 x 100", "", "points"),
        Series("norms 1000", "sample", "norm", "200 x 1000", "", "points"),
    ]
    ball = [
        Series("noise", "share", "limit", "Ornstein-Uhlenbeck limit", "", dashed=True),
        Series("noise", "share", "measured", "measured", "sgd", "points", error="error"),
        Series("noise", "share", "exact", "exact recursion", "sgd", dashed=True),
    ]
    return Picture(
        "least-squares",
        "Least squares with Gaussian data and 200 equations. Top: the loss by epoch with "
        "γ = .001, and the norms of the terms' gradients after 60 epochs, sorted. Bottom: the "
        "height above the minimum at which SGD settles (200 x 100; quick: 40 x 20), by the step.",
        [
            Panel("epoch", "f, sum of the terms", losses, log="y"),
            Panel("term, sorted", "|∇f_i|", norms),
            Panel("step / largest stable step", "E f - f*", ball, log="y"),
        ],
    )
