"""What a row of a comparison says on any problem."""

from typing import Any

import jax
import numpy as np

from thalweg.compare.entries import Entry
from thalweg.problem import FiniteSum
from thalweg.run import Run
from thalweg.summary import band, mean_and_error


def common_row(entry: Entry, problem: FiniteSum, run: Run, steps: int) -> dict[str, Any]:
    """Sampler, step, cost and loss; the run has recorded "loss" on the way.

    Losses are those of the chains that did not diverge (of all, if all did): one that has left for
    the bound would be all that their mean shows.
    """
    kept = ~np.asarray(run.diverged) | bool(run.diverged.all())
    losses = np.asarray(jax.lax.map(problem.value, run.params))
    return {
        "label": entry.label,
        "family": entry.family,
        "batch_size": entry.batch_size,
        "step": entry.step_text(steps),
        "steps": steps,
        "trials": run.exit_step.shape[0],
        "unbiased": getattr(entry.sampler, "unbiased", True),
        "diverged": float(run.diverged.mean()),
        "loss": mean_and_error(losses[kept]),
        "evaluations": entry.sampler.evaluations(problem) * steps,
        "steps_per_second": run.stats["chain_steps_per_second"],
        "curves": {"step": run.record_steps.tolist(), "loss": band(run.records["loss"][kept])},
    }
