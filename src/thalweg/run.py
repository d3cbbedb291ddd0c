"""What a simulation returns."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key


@dataclass(frozen=True)
class Run:
    """The outcome of :func:`thalweg.simulate`, and enough to go on from it.

    The leading axis of every array is the chain. Give the run to ``simulate`` in the place of a
    start to go on to more steps, with the numbers of an uninterrupted run.

    Attributes:
        params: Final parameters; those at the exit for a chain that left, the last good ones for a
            chain that diverged.
        steps: Steps taken (by the chains that did not stop).
        exit_step: The number of steps after which ``exit`` was first true (0: at the start), -1 if
            never.
        diverged_step: The step that left the bound or was not finite, -1 if none did.
        record_steps: The steps of the records, shape (records,).
        records: Name to values, shape (chains, records, ...).
        means: Name to averages, shape (chains, ...); not a number for a chain without a step to
            average.
        stats: The route and why, chains abreast, evaluations of per-sample gradients, the speed.
        key: The key of the run.
        state: What ``simulate`` needs to go on.
    """

    params: Any
    steps: int
    exit_step: Int[Array, " chains"]
    diverged_step: Int[Array, " chains"]
    record_steps: Int[np.ndarray, " records"]
    records: dict[str, Any]
    means: dict[str, Any]
    stats: dict[str, Any]
    key: Key[Array, ""]
    state: Any = field(repr=False)

    @property
    def exited(self) -> Bool[Array, " chains"]:
        """Which chains left."""
        return self.exit_step >= 0

    @property
    def diverged(self) -> Bool[Array, " chains"]:
        """Which chains diverged."""
        return self.diverged_step >= 0

    def exited_by(self, steps: int) -> tuple[float, float]:
        r"""The fraction of chains that left within so many steps, and its standard error.

        The error is :math:`\sqrt{p(1-p)/N}`.
        """
        p = float(jnp.mean((self.exited & (self.exit_step <= steps)).astype(float)))
        return p, float(np.sqrt(p * (1 - p) / self.exit_step.shape[0]))

    def mean_exit_step(self) -> tuple[float, float]:
        r"""Mean exit time in steps, and its standard error.

        If all chains left it is their mean with :math:`s/\sqrt N`; else the estimator for
        exponential times, all steps taken over the number of exits, with :math:`\hat\tau/\sqrt m`
        for m exits, infinite without exits. It is biased where the horizon is short against the
        mean: chains forget where they started only after a while.

        Warns:
            UserWarning: The horizon is shorter than the mean that was estimated from it.
        """
        left = np.asarray(self.exited)
        alive = np.where(np.asarray(self.diverged), np.asarray(self.diverged_step), self.steps)
        taken = np.where(left, np.asarray(self.exit_step), alive).astype(float)
        if left.all() and left.size > 1:
            return float(taken.mean()), float(taken.std(ddof=1) / np.sqrt(left.size))
        if not left.any():
            return float("inf"), float("inf")
        estimate = taken.sum() / left.sum()
        if estimate > self.steps:
            warnings.warn(
                f"the mean exit time is estimated as {estimate:.4g} steps from a run of "
                f"{self.steps}; run longer to be sure that exit times are exponential",
                stacklevel=2,
            )
        return float(estimate), float(estimate / np.sqrt(left.sum()))
