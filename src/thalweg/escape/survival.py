"""When chains leave, where not all of them have left."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from thalweg.errors import InputError
from thalweg.run import Run


@dataclass(frozen=True, eq=False)
class ExitTimes:
    r"""The law of the exit time :math:`\tau` from a run that ended before all chains had left.

    A chain that is still inside at the end is censored there, and one that diverges is censored at
    that step: divergence competes with exits, and what is estimated is the law of exits without it
    (right if a chain that is about to diverge leaves like any other).

    Attributes:
        steps: The steps at which chains left, increasing.
        survival: Kaplan and Meier's estimate of :math:`P(\tau > k)` at these steps, the product of
            :math:`1 - d_i/n_i` over the steps so far, with d exits of n chains that were inside.
        survival_error: Its standard error by Greenwood's formula, :math:`S \sqrt{\sum d_i /
            (n_i (n_i - d_i))}`; zero where none are left.
        exits: How many chains left.
        censored: How many were inside at the end.
        diverged: How many diverged.
        horizon: The steps of the run.
    """

    steps: Int[np.ndarray, " times"]
    survival: Float[np.ndarray, " times"]
    survival_error: Float[np.ndarray, " times"]
    exits: int
    censored: int
    diverged: int
    horizon: int
    _taken: Int[np.ndarray, " chains"]
    _left: np.ndarray

    def survived(self, step: int) -> tuple[float, float]:
        """The probability to be inside after so many steps, and its standard error.

        Raises:
            InputError: A step beyond the horizon.
        """
        if not 0 <= step <= self.horizon:
            raise InputError(f"step {step} is outside of the run, which has {self.horizon} steps")
        at = int(np.searchsorted(self.steps, step, side="right")) - 1
        return (1.0, 0.0) if at < 0 else (float(self.survival[at]), float(self.survival_error[at]))

    def mean(self, settled: int = 0) -> tuple[float, float]:
        r"""The mean exit time in steps and its standard error, exits being exponential later on.

        .. math:: E \min(\tau, M) + P(\tau > M)\,\frac{\text{steps taken after } M}
            {\text{exits after } M},

        with M = ``settled``, after which chains have forgotten where they started. The error is
        that of the whole by the delta method: chains are independent. For M = 0 this is
        :meth:`thalweg.Run.mean_exit_step` with the variance that chains really have, and biased
        if the first exits are faster or slower than later ones.

        Raises:
            InputError: M outside of the run, or no exit after it.
        """
        if not 0 <= settled < self.horizon:
            raise InputError(f"settled is {settled}; expected 0 to {self.horizon - 1} steps")
        early, late = np.minimum(self._taken, settled), np.maximum(self._taken - settled, 0)
        stayed = (self._taken > settled).astype(float)
        exits = (self._left & (self._taken > settled)).astype(float)
        if not exits.any():
            raise InputError(
                f"none of {exits.size} chains left from step {settled} to {self.horizon}; run "
                "longer, take a smaller settled=, or splitting()"
            )
        one = exits.mean()
        further = late.mean() / one
        mean = early.mean() + stayed.mean() * further
        influence = early + (stayed - stayed.mean()) * further
        influence = influence + stayed.mean() * (late - further * exits) / one
        return float(mean), float(influence.std(ddof=1) / np.sqrt(influence.size))

    def exponential(self, settled: int = 0) -> float:
        r"""The p-value of a test whether exits after M = ``settled`` steps have a constant rate.

        On the scale of the steps that all chains together have taken, exits at a constant rate
        are uniform: with m of them at the shares :math:`u_i` of the whole,
        :math:`\sqrt{12 m}\,(\bar u - \tfrac12)` is standard normal for large m (the total time on
        test; R. E. Barlow et al., "Statistical Inference under Order Restrictions", 1972, section
        6.2; D. R. Cox and P. A. W. Lewis, "The Statistical Analysis of Series of Events", 1966,
        section 3.3). Small where the rate grows or falls. Where exits take few steps it sees that
        time is discrete.

        Raises:
            InputError: M outside of the run, or fewer than ten exits after it.
        """
        times = np.sort(self._taken[self._left & (self._taken > settled)]) - settled
        if times.size < 10:
            raise InputError(
                f"{times.size} chains left after step {settled}; expected at least ten for a test"
            )
        late = np.maximum(self._taken - settled, 0)
        if not (late > times[-1]).any():
            # Without censoring the last exit ends the observation, and says nothing.
            times = times[:-1]
        own = np.sort(late)
        sums = np.append(0, np.cumsum(own))
        before = np.searchsorted(own, times, side="left")
        total = sums[before] + times * (own.size - before)
        shares = total / own.sum()
        z = np.sqrt(12 * times.size) * (shares.mean() - 0.5)
        return float(2 * stats.norm.sf(abs(z)))


def exit_times(run: Run) -> ExitTimes:
    """The law of the exit time from a run of :func:`thalweg.simulate`, with censoring.

    Raises:
        InputError: No chain left.
    """
    left, diverged = np.asarray(run.exited), np.asarray(run.diverged)
    if not left.any():
        raise InputError(
            f"none of {left.size} chains left within {run.steps} steps; run longer, or take "
            "splitting()"
        )
    inside = np.where(diverged, np.asarray(run.diverged_step), run.steps)
    taken = np.where(left, np.asarray(run.exit_step), inside)
    steps, exits = np.unique(taken[left], return_counts=True)
    at_risk = left.size - np.searchsorted(np.sort(taken), steps, side="left")
    # SciPy's ecdf has Greenwood's formula as clipped confidence intervals only.
    survival = np.cumprod(1 - exits / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = np.cumsum(exits / (at_risk * (at_risk - exits)))
        error = np.where(survival > 0, survival * np.sqrt(sums), 0.0)
    return ExitTimes(
        steps.astype(np.int64),
        survival,
        error,
        int(left.sum()),
        int((~left & ~diverged).sum()),
        int(diverged.sum()),
        run.steps,
        taken.astype(np.int64),
        left,
    )
