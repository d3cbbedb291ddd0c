"""Thalweg's side: the public interface only, as a user would write it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import losses
import numpy as np
import works

import thalweg

Piece = Callable[[], dict[str, Any]]


def mueller(
    *,
    chains: int,
    steps: int,
    drift: str = "by hand",
    exit: bool = True,
    dtype: str = "float32",
    dt: float = works.DT,
    method: str = "euler-maruyama",
) -> Piece:
    """A diffusion in the Mueller-Brown potential, until the disc about the right minimum."""
    jax.config.update("jax_enable_x64", dtype == "float64")
    diffusion = thalweg.Diffusion(_DRIFTS[drift], 2.0, dt, method=method)
    disc = thalweg.stopping.EnteredBall(jnp.array(works.CENTRE), works.RADIUS)
    return _piece(diffusion, jnp.array(works.START), chains, steps, disc if exit else None)


def quadratics(
    *, chains: int, steps: int, n: int, sampler: str = "sgd", dtype: str = "float32"
) -> Piece:
    """Descent on a mean of quadratics in the plane, one sample a step."""
    jax.config.update("jax_enable_x64", dtype == "float64")
    groups = np.arange(n) if sampler == "population" else None
    problem = thalweg.FiniteSum(losses.quadratic, works.quadratics(n), groups=groups)
    descent = thalweg.Descent(problem, _SAMPLERS[sampler], works.QUADRATICS_STEP)
    return _piece(descent, jnp.zeros(2), chains, steps, None)


def regression(*, chains: int, steps: int) -> Piece:
    """Descent on the landscape robust-regression, one sample a step."""
    landscape = thalweg.landscapes.robust_regression(start="near")
    descent = thalweg.Descent(landscape.problem, thalweg.Minibatch(1), works.REGRESSION_STEP)
    return _piece(descent, landscape.start, chains, steps, None)


def _piece(dynamics: Any, start: Any, chains: int, steps: int, exit: Any) -> Piece:
    key = jax.random.key(works.SEED)

    def run() -> dict[str, Any]:
        outcome = thalweg.simulate(dynamics, start, steps=steps, key=key, chains=chains, exit=exit)
        params, left = np.asarray(outcome.params), np.asarray(outcome.exit_step)
        assert not np.asarray(outcome.diverged).any()
        return {
            "exits": int((left >= 0).sum()),
            "steps_taken": float(np.where(left >= 0, left, steps).sum(dtype=float)),
            "means": params.mean(axis=0, dtype=float).tolist(),
            "route": {k: outcome.stats.get(k) for k in ("route", "reason", "block_size")},
        }

    return run


_DRIFTS = {
    "by hand": losses.by_hand,
    "coordinates": lambda position: -jax.grad(losses.coordinates)(position),
    "vectors": lambda position: -jax.grad(losses.vectors)(position),
}
_SAMPLERS = {
    "sgd": thalweg.Minibatch(1),
    "population": thalweg.Resampled(1, proportions=(0.4, 0.3, 0.2, 0.1)),
    "norms": thalweg.Reweighted(1),
}
PIECES = {"mueller": mueller, "quadratics": quadratics, "regression": regression}
