"""What is measured: splitting, and the engine that a direct simulation would take."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
from cases import CASES

import thalweg
from thalweg.escape.splitting import splitting

Piece = Callable[[], dict[str, Any]]


def split(*, case: str) -> Piece:
    """Splitting to ten per cent, with another key each time; what all calls found."""
    known, keys, found = CASES[case](), itertools.count(), []

    def run() -> dict[str, Any]:
        own = splitting(
            known.dynamics, known.start, exit=known.exit, key=jax.random.key(next(keys))
        )
        found.append(own)
        return {
            "known": known.steps,
            "mean": [x.mean_exit_steps for x in found],
            "error": [x.error for x in found],
            "chain_steps": [x.cost for x in found],
            "largest_error": max(x.error / x.mean_exit_steps for x in found),
            "largest_z": max(abs(x.mean_exit_steps - known.steps) / x.error for x in found),
            "over_all": _over_all(found, known.steps),
        }

    return run


def _over_all(found: list[Any], known: float) -> float:
    """How many standard errors the mean of all calls is off."""
    error = math.sqrt(sum(x.error**2 for x in found)) / len(found)
    return (sum(x.mean_exit_steps for x in found) / len(found) - known) / error


def direct(*, case: str) -> Piece:
    """Chains in the well, for the time of a step."""
    known = CASES[case]()

    def run() -> dict[str, Any]:
        run = thalweg.simulate(
            known.dynamics,
            known.start,
            steps=10_000,
            key=jax.random.key(0),
            chains=10_000,
            exit=known.exit,
        )
        return {"left": int(run.exited.sum()), "known": known.steps}

    return run


PIECES = {"split": split, "direct": direct}
