"""What a setting's trainings say: how soon each sampler had SGD's loss, and what it selected."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from settings import Setting

# A verdict needs a difference of so many standard errors, and of so large a share.
_ERRORS, _SHARE = 2.0, 0.03
_KEPT = (
    *("label", "family", "steps", "loss", "test_loss", "test_accuracy", "sharpness"),
    *("nonuniformity", "largest_step_gd", "largest_step", "stable", "diverged", "failure"),
)


def summary(
    setting: Setting,
    result: dict[str, Any],
    records: list[Path],
    seconds: list[float | None],
    quick: bool,
) -> dict[str, Any]:
    """The numbers of a setting, small enough to be kept.

    Args:
        setting: The setting.
        result: Of its trainings.
        records: Of the rows.
        seconds: A step's, of each row; None where it diverged.
        quick: Whether it was the short version.
    """
    curves = [
        None if own is None else _curves(path, own)
        for path, own in zip(records, seconds, strict=True)
    ]
    target = float(np.max(np.min(curves[0]["loss"], axis=0)))
    reference = _crossed(curves[0], target)
    rows = []
    for row, curve, own in zip(result["rows"], curves, seconds, strict=True):
        kept: dict[str, Any] = {name: row[name] for name in _KEPT}
        kept["switches"] = len(row["switches"])
        gauge = row["gauge"]
        kept["variance_ratio"] = gauge and gauge["variance_ratio"][-1]
        kept["step_seconds"] = own
        kept["at_equal_time"] = None if curve is None else _at(curve, curves[0]["seconds"][-1])
        kept |= _verdict(reference, None if curve is None else _crossed(curve, target))
        kept["curve"] = None if curve is None else _thin(curve)
        rows.append(kept)
    return {
        "config": setting.text(quick),
        "description": result["description"],
        "harder": setting.harder,
        "quick": quick,
        "target": target,
        "rows": rows,
    }


def machine() -> dict[str, Any]:
    """Where this was run."""
    information = Path("/proc/cpuinfo").read_text()
    model = next(x for x in information.splitlines() if x.startswith("model name"))
    return {
        "processor": model.split(":")[1].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("thalweg", "jax", "jaxlib")},
    }


def _curves(path: Path, seconds: float) -> dict[str, np.ndarray]:
    """Test losses, shape (looks, seeds), with the steps and the seconds of the looks.

    Seconds are those of the steps; where samplers were switched, the run's own, with all looks.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    looks = [line for line in lines if "evaluation" in line]
    values = {name: [k["evaluation"][name] for k in looks] for name in looks[0]["evaluation"]}
    steps = np.array([k["step"] for k in looks], float)
    own = np.array([k["seconds"] for k in looks], float)
    switched = any("switch" in line for line in lines)
    return {
        "step": steps,
        "seconds": own if switched else steps * seconds,
        # A loss that is not finite is null there.
        **{name: np.array(value, float) for name, value in values.items()},
    }


def _at(curve: dict[str, np.ndarray], seconds: float) -> dict[str, dict[str, float]]:
    """The evaluation at the last look before so many seconds, with standard errors."""
    last = np.flatnonzero(curve["seconds"] <= seconds)[-1]
    found = {}
    for name in set(curve) - {"step", "seconds"}:
        values = curve[name][last]
        error = np.std(values, ddof=1) / np.sqrt(values.size)
        found[name] = {"mean": float(np.mean(values)), "error": float(error)}
    return found


def _crossed(curve: dict[str, np.ndarray], target: float) -> dict[str, np.ndarray]:
    """When each seed first had the loss, between two looks on a line; NaN if it never had."""
    found: dict[str, list[float]] = {"step": [], "seconds": []}
    for losses in curve["loss"].T:
        below = np.flatnonzero(losses <= target)
        for axis, values in found.items():
            at = curve[axis]
            if not below.size:
                values.append(np.nan)
            elif below[0] == 0:
                values.append(at[0])
            else:
                i = below[0]
                share = (losses[i - 1] - target) / (losses[i - 1] - losses[i])
                values.append(at[i - 1] + share * (at[i] - at[i - 1]))
    return {axis: np.array(values) for axis, values in found.items()}


def _verdict(
    reference: dict[str, np.ndarray], crossed: dict[str, np.ndarray] | None
) -> dict[str, Any]:
    """Steps and seconds to SGD's loss over SGD's, with errors; and one word."""
    if crossed is None:
        return {"reached": 0, "steps_ratio": None, "seconds_ratio": None, "verdict": "diverges"}
    there = np.isfinite(crossed["step"])
    found: dict[str, Any] = {"reached": int(there.sum())}
    ratios = {axis: _ratio(crossed[axis][there], reference[axis][there]) for axis in crossed}
    found["steps_ratio"], found["seconds_ratio"] = ratios["step"], ratios["seconds"]
    if 2 * there.sum() <= there.size:
        return {**found, "verdict": "harms"}
    ratio, error = ratios["seconds"]["mean"], ratios["seconds"]["error"]
    if ratio + _ERRORS * error < 1 - _SHARE:
        return {**found, "verdict": "helps" if there.all() else "nothing"}
    harms = ratio - _ERRORS * error > 1 + _SHARE
    return {**found, "verdict": "harms" if harms else "nothing"}


def _ratio(values: np.ndarray, reference: np.ndarray) -> dict[str, float] | None:
    """The mean over SGD's of the same seeds, which begin at the same places; with its error."""
    if values.size < 2:
        return None
    ratio = float(np.mean(values) / np.mean(reference))
    spread = np.std(values - ratio * reference, ddof=1) / np.sqrt(values.size)
    return {"mean": ratio, "error": float(spread / np.mean(reference))}


def _thin(curve: dict[str, np.ndarray]) -> dict[str, list[float]]:
    losses = curve["loss"]
    error = losses.std(axis=1, ddof=1) / np.sqrt(losses.shape[1])
    columns = {
        **{axis: curve[axis] for axis in ("step", "seconds")},
        "loss": losses.mean(axis=1),
        "error": error,
    }
    return {name: [float(f"{x:.4g}") for x in values] for name, values in columns.items()}
