"""Comparing samplers on a landscape: which minimum, in what fraction of the chains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.compare.entries import Entry, Setting, entries
from thalweg.compare.escape import Escape, unanswered
from thalweg.compare.known import AT, Points, critical, name_of
from thalweg.compare.predicted import Predictor
from thalweg.compare.request import Request
from thalweg.compare.rows import common_row
from thalweg.compare.sentences import landscape_sentences
from thalweg.compare.ways import ways_out
from thalweg.critical import CriticalPoint, basin
from thalweg.dynamics import Descent
from thalweg.landscapes import Landscape
from thalweg.record import Record, parameters
from thalweg.run import Run
from thalweg.simulate import simulate
from thalweg.stability import Assessment, assess, reassess
from thalweg.summary import fraction_and_error, mean_and_error

_TRIALS, _QUICK_TRIALS = 200, 50
_RECORDS, _PATHS, _END_POINTS = 100, 4, 300
NOWHERE = "none of these"
# The grid predicts up to this dimension.
_ON_GRID = 3
# A chain is stranded if descent, at its speed there, needs this many times the run's own time.
_STRANDED = 10.0


@dataclass(frozen=True)
class Minimum:
    """A minimum of the landscape and what its Hessians say; None where there are kinks."""

    name: str
    params: Float[Array, " d"]
    value: float
    assessment: Assessment | None


def compare_landscape(landscape: Landscape, request: Request) -> dict[str, Any]:
    """Run every sampler and say where its chains end."""
    problem = landscape.problem
    batches = request.get("batch", (landscape.batch_size,))
    setting = Setting(
        problem, request.get("step", landscape.step), request.get("refresh", 1), landscape.lipschitz
    )
    rows = entries(request.get("samplers", _default_samplers(landscape)), batches, setting)
    trials = request.get("trials", _QUICK_TRIALS if request.quick else _TRIALS)
    steps = request.get("steps", landscape.steps)
    request = request.begun()
    starts = _starts(landscape, request, trials)
    points = critical(landscape, jax.random.fold_in(request.key, 2), quick=request.quick)
    found = _minima(landscape, points.minima, batches[0], rows[0].first_step())
    home = _home(landscape, found)
    escape = _escape(landscape, points, found, home, request)
    predictor = _predictor(landscape, found, escape, request)
    done = [
        {
            **_row(e, landscape, found, home, starts, steps, request),
            "grid": predictor and predictor.row(e, steps),
            "escape": _answers(e, escape, points.refusal, steps, trials, request),
        }
        for e in rows
    ]
    paths = ways_out(landscape, escape, list(zip(rows, done, strict=True)), request.quick)
    result = {
        "kind": "landscape",
        "title": landscape.name,
        "source": landscape.source,
        "description": _description(landscape, request, steps, trials),
        "problem": {
            "name": landscape.name,
            "n": problem.n,
            "parameters": landscape.start.size,
            "reading": dict(landscape.reading),
        },
        "rows": done,
        "minima": [_minimum(m, m.name == home and request.starts == "common") for m in found],
        "saddles": [
            {
                "name": name_of(landscape.saddles, landscape, saddle.params, f"saddle {number}"),
                "params": saddle.params.tolist(),
                "value": saddle.value,
                "joins": pair,
            }
            for number, (saddle, pair) in enumerate(
                zip(points.saddles, points.joins, strict=True), start=1
            )
        ],
        "merges": points.merges,
        "confidence": points.confidence,
        "local": points.local,
        "paths": paths,
        "start": _start(landscape),
        "surface": _surface(landscape),
    }
    return {**result, **landscape_sentences(result, request.starts)}


def _escape(
    landscape: Landscape,
    points: Points,
    found: list[Minimum],
    home: str | None,
    request: Request,
) -> Escape | None:
    """The question how long the minimum of the start is kept, if all chains start there."""
    if home is None or request.starts != "common":
        return None
    return Escape.of(landscape, points, [m.name for m in found].index(home))


def _answers(
    entry: Entry,
    escape: Escape | None,
    refusal: str | None,
    steps: int,
    trials: int,
    request: Request,
) -> dict[str, Any] | None:
    """The answers for a row, or why there are none; None where nothing is asked."""
    if escape is not None:
        return escape.row(entry, steps, trials, request)
    asked = refusal is not None and request.starts == "common" and not entry.deterministic
    return unanswered(str(refusal)) if asked else None


def _predictor(
    landscape: Landscape, found: list[Minimum], escape: Escape | None, request: Request
) -> Predictor | None:
    """What the grid has to say, in the dimensions where it can."""
    if landscape.start.size > _ON_GRID or not found:
        return None
    return Predictor(
        landscape,
        found,
        random=request.starts == "random",
        quick=request.quick,
        exit=None if escape is None else escape.exit,
    )


def _default_samplers(landscape: Landscape) -> tuple[str, ...]:
    names = ["gd", "sgd", "sgd-half", "rr"]
    if 1 < landscape.problem.n_groups < landscape.problem.n:
        names.append("rr-group")
    if landscape.lipschitz is not None:
        names.append("rr-population")
    return tuple(names)


def _description(landscape: Landscape, request: Request, steps: int, trials: int) -> str:
    where = (
        f"all from {np.round(np.asarray(landscape.start), 4).tolist()}"
        if request.starts == "common"
        else "from uniformly random points of the box, the same for every sampler"
    )
    return (
        f"{landscape.problem.n} terms, {landscape.start.size} "
        f"parameter{'s' if landscape.start.size > 1 else ''}; {trials} chains a sampler, "
        f"{steps} iterations, {where}"
    )


def _starts(landscape: Landscape, request: Request, trials: int) -> Float[Array, "trials d"]:
    if request.starts == "common":
        return jnp.broadcast_to(landscape.start, (trials, landscape.start.size))
    key = jax.random.fold_in(request.key, 1)
    return jax.random.uniform(
        key, (trials, landscape.start.size), minval=landscape.lower, maxval=landscape.upper
    )


def _minima(landscape: Landscape, points: Sequence[Any], batch: int, step: float) -> list[Minimum]:
    """The minima with their names; at a kink there is nothing to assess."""
    problem = landscape.problem
    return [
        Minimum(
            name_of(landscape.minima, landscape, point.params, f"minimum {number}"),
            point.params,
            point.value,
            assess(
                problem, point.params, batch_size=batch, step=step, replace=_replace(problem, batch)
            )
            if isinstance(point, CriticalPoint) and point.slopes is None
            else None,
        )
        for number, point in enumerate(points, start=1)
    ]


def _replace(problem: Any, batch: int) -> bool:
    return batch > 1 and not problem.uniform


def _home(landscape: Landscape, found: list[Minimum]) -> str | None:
    """The minimum in whose basin the landscape's own start lies."""
    if not found:
        return None
    owner = int(basin(landscape.problem, found, landscape.start[None])[0])
    return found[owner].name if owner >= 0 else None


def _row(
    entry: Entry,
    landscape: Landscape,
    found: list[Minimum],
    home: str | None,
    starts: Float[Array, "trials d"],
    steps: int,
    request: Request,
) -> dict[str, Any]:
    problem, plane = landscape.problem, landscape.start.size <= 2
    if entry.deterministic and request.starts == "common":
        starts = starts[:1]
    values = {"loss": problem.value, **({"params": parameters} if plane else {})}
    run = simulate(
        Descent(problem, entry.sampler, entry.step),
        starts,
        per_chain=True,
        steps=steps,
        key=request.key,
        record=Record(max(1, steps // _RECORDS), values),
        checkpoint=request.checkpoint(entry.label),
        progress=request.progress_of(entry.label),
    )
    ends = _ends(landscape, found, run, entry.time(steps))
    stayed = [e for e in ends or [] if e["minimum"] == home]
    return {
        **common_row(entry, problem, run, steps),
        "ends": ends,
        "stayed": _without_name(stayed[0]) if stayed and request.starts == "common" else None,
        "test_accuracy": None,
        "distance": mean_and_error(jnp.linalg.norm(run.params - starts, axis=-1)),
        **_at_the_usual_end(entry, ends, found, landscape),
        "sharpness_curve": None,
        "paths": run.records["params"][:_PATHS].tolist() if plane else [],
        "path_steps": run.record_steps.tolist() if plane else [],
        "end_points": run.params[:_END_POINTS].tolist() if plane else [],
    }


def _without_name(end: dict[str, Any]) -> dict[str, float]:
    return {"fraction": end["fraction"], "error": end["error"]}


def _ends(
    landscape: Landscape, found: list[Minimum], run: Run, time: float
) -> list[dict[str, Any]] | None:
    """The fraction of chains in the basin of each minimum, by the gradient flow.

    In none are chains that diverged, and those stranded on a plateau, where the flow does lead to a
    minimum, but at a speed at which it would not get there in ten times the run's own time.
    """
    if not found:
        return None
    owners = np.asarray(basin(landscape.problem, found, run.params))
    stranded = _is_stranded(landscape, found, owners, run.params, time)
    owners = np.where(np.asarray(run.diverged) | stranded, -1, owners)
    names = [(m.name, i) for i, m in enumerate(found)]
    if (owners < 0).any():
        names.append((NOWHERE, -1))
    return [{"minimum": name, **fraction_and_error(owners == i)} for name, i in names]


def _is_stranded(
    landscape: Landscape,
    found: list[Minimum],
    owners: np.ndarray,
    params: Float[Array, "trials d"],
    time: float,
) -> np.ndarray:
    gradients = jax.lax.map(landscape.problem.gradient, params, batch_size=8)
    centres = np.stack([np.asarray(m.params) for m in found])
    distances = np.linalg.norm(np.asarray(params) - centres[owners], axis=1)
    reach = _STRANDED * time * np.linalg.norm(np.asarray(gradients), axis=1)
    # At a minimum both are rounding.
    return distances > np.maximum(reach, AT * np.linalg.norm(landscape.upper - landscape.lower))


def _at_the_usual_end(
    entry: Entry, ends: list[dict[str, Any]] | None, found: list[Minimum], landscape: Landscape
) -> dict[str, Any]:
    """Curvature and stability of the minimum in which most chains of a sampler ended."""
    none = {"sharpness": None, "nonuniformity": None, "largest_step": None, "stable": None}
    none["predicted"] = None
    if ends is None:
        return none
    usual = max(ends, key=lambda end: end["fraction"])["minimum"]
    at = next((m for m in found if m.name == usual), None)
    if at is None or at.assessment is None:
        return none
    about = reassess(
        landscape.problem,
        at.assessment,
        batch_size=entry.batch_size,
        step=entry.first_step(),
        replace=entry.replace,
    )
    verdict = {True: "yes", False: "no", None: "undecided"}[about.stable]
    return {
        "sharpness": {"mean": about.sharpness, "error": 0.0},
        "nonuniformity": {"mean": about.nonuniformity, "error": 0.0},
        "largest_step": {"mean": about.mean_square.lower, "error": 0.0}
        if entry.by_stability
        else None,
        "stable": verdict if entry.by_stability else None,
        "predicted": None,
    }


def _minimum(minimum: Minimum, start: bool) -> dict[str, Any]:
    about = minimum.assessment
    return {
        "name": minimum.name,
        "params": minimum.params.tolist(),
        "value": round(minimum.value, 12),
        "sharpness": about and about.sharpness,
        "nonuniformity": about and about.nonuniformity,
        "largest_step": about and about.mean_square.lower,
        "largest_step_gd": about and about.largest_step_gd,
        "mean_sample_gradient": about and about.mean_sample_gradient,
        "start": start,
    }


def _start(landscape: Landscape) -> dict[str, Any]:
    return {
        "params": landscape.start.tolist(),
        "loss": float(landscape.problem.value(landscape.start)),
        "test_accuracy": None,
        "sharpness": None,
        "nonuniformity": None,
        "largest_step": None,
        "largest_step_gd": None,
    }


def _surface(landscape: Landscape) -> dict[str, Any] | None:
    """The objective on a grid over the box, for the figure."""
    if landscape.start.size > 2:
        return None
    axes = [
        jnp.linspace(low, high, 400 if landscape.start.size == 1 else 100)
        for low, high in zip(landscape.lower, landscape.upper, strict=True)
    ]
    points = jnp.stack([x.ravel() for x in jnp.meshgrid(*axes)], axis=-1)
    f = jax.lax.map(landscape.problem.value, points, batch_size=128)
    if landscape.start.size == 1:
        return {"kind": "line", "x": axes[0].tolist(), "f": f.tolist()}
    return {
        "kind": "plane",
        "x": axes[0].tolist(),
        "y": axes[1].tolist(),
        "f": f.reshape(axes[1].size, axes[0].size).tolist(),
        "points": [],
        "x_label": "θ₁",
        "y_label": "θ₂",
    }
