"""What a row of a training says: its curves, its ends, what they are like."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from thalweg.problem import FiniteSum
from thalweg.stability import Assessment, assess
from thalweg.summary import band, mean_and_error
from thalweg.train.config import Assess, Config
from thalweg.train.ends import member, problem_at
from thalweg.train.loop import Training
from thalweg.train.networks import Network
from thalweg.train.rows import Row
from thalweg.train.training import TrainingError


def row_record(network: Network, row: Row, training: Training, config: Config) -> dict[str, Any]:
    """A row of the result.

    Losses and curves are those of the seeds that did not diverge.
    """
    kept = np.asarray(training.diverged) < 0
    history, looks = training.history, training.history["evaluation"]
    return {
        **_named(row, config),
        "steps": training.step,
        "diverged": int(np.sum(~kept)),
        "stopped": bool(np.all(training.stopped)),
        "loss": mean_and_error(_end_losses(network, training, kept)),
        "test_loss": mean_and_error(looks["loss"][-1, kept]),
        "test_accuracy": (
            mean_and_error(looks["accuracy"][-1, kept]) if network.classified else None
        ),
        "seconds": training.seconds,
        "steps_per_second": training.step * config.seeds / max(training.seconds, 1e-9),
        "curves": _curves(history, ("loss",), kept),
        "evaluation": _curves(looks, ("loss", "accuracy"), kept),
        "gauge": _gauges(training.gauges),
        "switches": [f"{name} took over at step {step}" for step, name in training.switches],
        **_selected(network, row, training, config.assess, kept),
    }


def failed_record(row: Row, config: Config, error: TrainingError) -> dict[str, Any]:
    """A row of which every seed diverged."""
    unknown = (
        "track",
        "loss",
        "test_loss",
        "test_accuracy",
        "seconds",
        "steps_per_second",
        "evaluation",
    )
    return {
        **_named(row, config),
        **dict.fromkeys((*unknown, "gauge", *_SELECTED)),
        "steps": error.step,
        "diverged": config.seeds,
        "stopped": False,
        "curves": {"step": [], "seconds": [], "loss": band(np.zeros((1, 0)))},
        "switches": [],
        "failure": str(error),
    }


def _named(row: Row, config: Config) -> dict[str, Any]:
    return {
        "label": row.label,
        "family": row.family,
        "batch_size": row.batch_size,
        "step": row.step_text,
        "last_step": row.last_step,
        "seeds": config.seeds,
        "unbiased": row.unbiased,
        "target": None,
        "failure": None,
    }


def _gauges(found: list[Any]) -> dict[str, Any] | None:
    """What the gauge saw on the way, a list for each number, and what it said in the end."""
    if not found:
        return None
    lists = {name: [getattr(gauge, name) for gauge in found] for name in _GAUGED}
    return {**lists, "sentence": found[-1].sentence}


_GAUGED = (
    *("step", "trace_sgd", "trace_rr", "variance_ratio", "variance_ratio_error"),
    *("cost_ratio", "speed_up", "pays"),
)


def add_costs(rows: list[dict[str, Any]]) -> None:
    """How many times as long a step of each row of RR took as one of the first SGD of its batch.

    And how many times as fast it descended, by this time and the last gauge.
    """
    for row in rows:
        plain = (r for r in rows if r["family"] in _PLAIN and r["batch_size"] == row["batch_size"])
        like = next((r for r in plain if r["seconds"]), None)
        row["cost"] = None
        if like is not None and row["seconds"] and row["family"] not in _UNLIKE:
            ratio = like["steps_per_second"] / row["steps_per_second"]
            row["cost"] = {"ratio": ratio, "like": like["label"], "speed_up": None}
            speed_up = row["gauge"]["speed_up"][-1] if row["gauge"] else None
            # Infinite where SGD would not descend, which a file has as null.
            if speed_up is not None and math.isfinite(speed_up):
                row["cost"]["speed_up"] = speed_up * row["gauge"]["cost_ratio"][-1] / ratio


_PLAIN = ("sgd", "sgd-half")
# Rows that are SGD, or both by turns, or take no scores.
_UNLIKE = (*_PLAIN, "auto", "gd", "reshuffled", "cyclic")


def add_targets(rows: list[dict[str, Any]]) -> None:
    """When each row first had the test loss at which the first one ends, in the mean of its seeds.

    Losses of batches would not do: with samples of unlike size their means over hundreds of batches
    still differ by more than the rows do. Step and seconds are those of the first look at which the
    loss is as low; None if there is none.
    """
    if rows[0]["evaluation"] is None:
        return
    level = rows[0]["evaluation"]["loss"]["mean"][-1]
    for row in rows:
        looks = row["evaluation"]
        row["target"] = {"loss": level, **dict.fromkeys(_AXES)}
        if looks is not None:
            below = np.flatnonzero(np.asarray(looks["loss"]["mean"], dtype=float) <= level)
            if below.size:
                row["target"] |= {name: looks[name][below[0]] for name in _AXES}


_AXES = ("step", "seconds")


def _curves(history: Mapping[str, Any], names: tuple[str, ...], kept: Any) -> dict[str, Any]:
    """Bands over the seeds that did not diverge, None for what was not looked at."""
    curves: dict[str, Any] = {name: np.asarray(history[name]).tolist() for name in _AXES}
    for name in names:
        values = history.get(name)
        curves[name] = None if values is None else band(np.asarray(values)[:, kept].T)
    return curves


def _end_losses(network: Network, training: Training, kept: Any) -> list[float]:
    """The loss over all training samples at the end of each seed."""
    problem = None
    losses = []
    for seed in np.flatnonzero(kept).tolist():
        problem = problem_at(network, member(training.state, seed), None, problem)
        losses.append(float(problem.value(member(training.params, seed))))
    return losses


def _selected(
    network: Network, row: Row, training: Training, asked: Assess, kept: Any
) -> dict[str, Any]:
    """Curvature and stability of the first ends, on the first training samples."""
    seeds = np.flatnonzero(kept)[: asked.seeds].tolist()
    found: list[Assessment] = []
    problem: FiniteSum | None = None
    for seed in seeds:
        problem = problem_at(network, member(training.state, seed), asked.samples, problem)
        found.append(
            assess(
                problem,
                member(training.params, seed),
                batch_size=min(row.batch_size, problem.n),
                step=row.last_step,
                # A batch is a smaller part of all samples than of the first ones.
                replace=row.replace or (problem.n < network.n and row.batch_size < network.n),
                directions=asked.directions,
                previous=found[-1] if found else None,
            )
        )
    if not found:
        return dict.fromkeys(_SELECTED)
    assert problem is not None
    names = (
        *("sharpness", "nonuniformity", "smallest_eigenvalue"),
        *("largest_step_gd", "mean_sample_gradient"),
    )
    return {
        "assessed": {"seeds": len(found), "samples": problem.n, "step": row.last_step},
        **{name: mean_and_error([getattr(a, name) for a in found]) for name in names},
        "largest_step": (
            mean_and_error([a.mean_square.upper for a in found]) if row.plain else None
        ),
        "stable": _majority([a.stable for a in found]) if row.plain else None,
    }


_REACHED = (
    *("loss", "test_loss", "test_accuracy", "seconds", "steps_per_second"),
    *("evaluation", "gauge", "track"),
)
_SELECTED = (
    *("assessed", "sharpness", "nonuniformity", "smallest_eigenvalue", "largest_step_gd"),
    *("mean_sample_gradient", "largest_step", "stable"),
)


def _majority(verdicts: list[bool | None]) -> str:
    """One word for all seeds; "undecided" where they differ."""
    words = {{True: "yes", False: "no", None: "undecided"}[v] for v in verdicts}
    return words.pop() if len(words) == 1 else "undecided"
