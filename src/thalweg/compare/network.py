"""Comparing samplers on a network: who stays in the minimum that gradient descent has found?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg import datasets, models
from thalweg.compare.entries import Entry, Setting, entries
from thalweg.compare.request import Request
from thalweg.compare.rows import common_row
from thalweg.compare.sentences import network_sentences
from thalweg.curvature import sharpness
from thalweg.dynamics import Descent
from thalweg.errors import InputError, known
from thalweg.problem import FiniteSum, Params
from thalweg.record import Record, parameters
from thalweg.run import Run
from thalweg.sampling import Full
from thalweg.simulate import simulate
from thalweg.stability import Assessment, assess, follow, reassess
from thalweg.summary import band, fraction_and_error, mean_and_error

_SAMPLERS = ("gd", "sgd", "sgd-half", "rr", "rr-fixed")
_BATCHES, _REFRESH, _HIDDEN = (32, 8, 4), 50, 32
# A trial has left when its sharpness differs by more than this share from gradient descent's.
LEFT = 0.2
_PLANE = 41


@dataclass(frozen=True)
class Size:
    """How much is computed: steps to the minimum, steps from it, trials, and those assessed."""

    descent: int
    steps: int
    trials: int
    assessed: int
    snapshots: int


_QUICK = Size(descent=8000, steps=4000, trials=8, assessed=2, snapshots=10)
_WHOLE = Size(descent=30000, steps=15000, trials=8, assessed=4, snapshots=20)
# Training images used; all test images are.
_SAMPLES = {"digits": 1437, "mnist": 1000, "fashion-mnist": 1000}
# From larger ones the first iterations of gradient descent kill most of the hidden units.
_STEPS = {"digits": 0.2, "mnist": 0.1, "fashion-mnist": 0.02}


@dataclass(frozen=True)
class Network:
    """A supervised problem with its test set."""

    name: str
    title: str
    problem: FiniteSum
    model: models.Model
    x_test: np.ndarray
    y_test: np.ndarray

    def accuracy(self, params: Params) -> float:
        """The share of test images whose largest output is the right class."""
        return float(models.accuracy(self.model, params, self.x_test, self.y_test))


def networks() -> list[tuple[str, str]]:
    """The networks there are, and what each is."""
    return [
        (name, f"a ReLU net with {_HIDDEN} hidden units on {count} images of {name}, squared loss")
        for name, count in _SAMPLES.items()
    ]


def half_squared_error(outputs: Float[Array, " k"], target: Float[Array, " k"]) -> Array:
    r"""The loss :math:`\tfrac12 |o - y|^2`: half the sum over outputs."""
    return 0.5 * models.squared_error(outputs, target, "sum")


def compare_network(name: str, request: Request) -> dict[str, Any]:
    """Bring the net to a minimum by gradient descent; from there let every sampler go on."""
    size = _QUICK if request.quick else _WHOLE
    if request.starts != "common":
        raise InputError(
            f"starts={request.starts!r} is for landscapes; networks start at a minimum"
        )
    network = load_network(request.data or name, request.data_dir)
    step, steps = request.get("step", _STEPS[network.name]), request.get("steps", size.steps)
    setting = Setting(network.problem, step, request.get("refresh", _REFRESH))
    rows = entries(request.get("samplers", _SAMPLERS), request.get("batch", _BATCHES), setting)
    request = request.begun()
    # The descent and the rows record alike: GD's program is compiled once.
    record = Record(
        max(1, steps // size.snapshots), {"loss": network.problem.value, "params": parameters}
    )
    start = _minimum(network, step, size.descent, record, request)
    at_start = _for_all(network, start, rows)
    done, ends = _rows(network, rows, start, at_start, steps, size, record, request)
    result = {
        "kind": "network",
        "title": network.title,
        "source": "Wu, Ma, E (2018): escape from minima; An & Ying (2021): resampling-reweighting",
        "description": (
            f"gradient descent with step {step:.4g} for {size.descent} "
            f"iterations, then every sampler for {steps} from that same point"
        ),
        "problem": {
            "name": network.name,
            "n": network.problem.n,
            "parameters": int(ravel_pytree(start)[0].size),
            "reading": {},
        },
        "rows": done,
        "minima": [],
        "saddles": [],
        "start": _start(network, start, rows, at_start),
        "surface": _plane(network, start, rows, ends),
        "points": {
            name: np.asarray(ravel_pytree(place)[0])
            for name, place in zip(
                ("start", *(row.label for row in rows)), (start, *ends), strict=True
            )
        },
    }
    return {**result, **network_sentences(result, step)}


def load_network(name: str, data_dir: str | Path | None) -> Network:
    """The data of that name and the net, in float32."""
    data = datasets.load(known(name, _SAMPLES, "data for the network"), data_dir)
    count = min(_SAMPLES[name], len(data.train.x))
    x = data.train.x[:count].reshape(count, -1)
    y = datasets.one_hot(data.train.y[:count], 10).astype(np.float32)
    widths = (x.shape[1], _HIDDEN, 10)
    model = models.mlp(widths)
    return Network(
        name,
        f"{name}: a {'-'.join(map(str, widths))} ReLU net on {count} images, loss |o - y|²/2",
        FiniteSum(models.supervised(model, half_squared_error), (x, y)),
        model,
        data.test.x,
        data.test.y,
    )


def _minimum(network: Network, step: Any, steps: int, record: Record, request: Request) -> Params:
    """Where gradient descent with the same step ends: the common start."""
    label = "GD to a minimum"
    run = simulate(
        Descent(network.problem, Full(), step),
        network.model.init(jax.random.fold_in(request.key, 1)),
        steps=steps,
        key=request.key,
        record=record,
        checkpoint=request.checkpoint(label),
        progress=request.progress_of(label),
    )
    if bool(run.diverged[0]):
        raise InputError(
            f"gradient descent with step {step:.4g} diverged in iteration "
            f"{int(run.diverged_step[0])}; give a smaller --step"
        )
    return jax.tree.map(lambda leaf: leaf[0], run.params)


def _rows(
    network: Network,
    rows: Sequence[Entry],
    start: Params,
    at_start: list[Assessment],
    steps: int,
    size: Size,
    record: Record,
    request: Request,
) -> tuple[list[dict[str, Any]], list[Params]]:
    """Every row of the result, and one end point each; GD's sharpness decides who has left."""
    done: list[dict[str, Any]] = []
    ends: list[Params] = []
    level = None
    for entry, about in zip(rows, at_start, strict=True):
        row, sharp, end = _row(network, entry, start, about, steps, size, record, request)
        level = float(sharp.mean()) if entry.family == "gd" else level
        assert level is not None  # GD is always the first row
        row["stayed"] = fraction_and_error(np.abs(sharp - level) <= LEFT * level)
        done.append(row)
        ends.append(end)
    return done, ends


def _row(
    network: Network,
    entry: Entry,
    start: Params,
    at_start: Assessment,
    steps: int,
    size: Size,
    record: Record,
    request: Request,
) -> tuple[dict[str, Any], np.ndarray, Params]:
    trials = 1 if entry.deterministic else request.get("trials", size.trials)
    problem = network.problem
    run = simulate(
        Descent(problem, entry.sampler, entry.step),
        start,
        chains=trials,
        steps=steps,
        key=request.key,
        record=record,
        checkpoint=request.checkpoint(entry.label),
        progress=request.progress_of(entry.label),
    )
    ends = [_chain(run.params, j) for j in range(trials)]
    followed = min(trials, size.assessed)
    curve = np.array([_sharpness_curve(problem, run, j, at_start) for j in range(followed)])
    sharp = np.array([float(sharpness(problem, end)) for end in ends])
    about = [_assessed(network, end, entry, at_start) for end in ends[:followed]]
    row = {
        **common_row(entry, problem, run, steps),
        "ends": None,
        "test_accuracy": mean_and_error([network.accuracy(end) for end in ends]),
        "distance": mean_and_error([_distance(end, start) for end in ends]),
        "sharpness": mean_and_error(sharp),
        "nonuniformity": mean_and_error([a.nonuniformity for a in about]),
        "largest_step": (
            mean_and_error([a.mean_square.lower for a in about]) if entry.by_stability else None
        ),
        "predicted": _prediction(at_start.stable) if entry.by_stability else None,
        "stable": _majority([a.stable for a in about]) if entry.by_stability else None,
        "sharpness_curve": {"step": run.record_steps.tolist(), **band(curve)},
        "track": _followed(problem, run, entry, request.track),
        "paths": [],
        "path_steps": [],
        "end_points": [],
    }
    return row, sharp, ends[0]


def _sharpness_curve(problem: FiniteSum, run: Run, chain: int, at_start: Assessment) -> list[float]:
    """The sharpness at the records of a chain."""
    snapshots = jax.tree.map(lambda leaf: leaf[chain], run.records["params"])
    return [
        float(sharpness(problem, _chain(snapshots, i), start=at_start.hessian_vectors[:, 0]))
        for i in range(len(run.record_steps))
    ]


def _followed(
    problem: FiniteSum, run: Run, entry: Entry, budget: float | None
) -> dict[str, Any] | None:
    """Sharpness, non-uniformity and threshold along the first chain, if they were asked for."""
    if budget is None or not entry.by_stability:
        return None
    snapshots = jax.tree.map(lambda leaf: leaf[0], run.records["params"])
    path = ((int(step), _chain(snapshots, i)) for i, step in enumerate(run.record_steps))
    found = follow(problem, path, batch_size=entry.batch_size, budget=budget, replace=entry.replace)
    return found._asdict()


def _assessed(
    network: Network, params: Params, entry: Entry, previous: Assessment | None
) -> Assessment:
    return assess(
        network.problem,
        params,
        batch_size=entry.batch_size,
        step=entry.first_step(),
        replace=entry.replace,
        directions=4,
        previous=previous,
    )


def _for_all(network: Network, start: Params, rows: Sequence[Entry]) -> list[Assessment]:
    """The assessment of the start for each row's batch and step."""
    first = _assessed(network, start, rows[0], None)
    return [
        reassess(
            network.problem,
            first,
            batch_size=row.batch_size,
            step=row.first_step(),
            replace=row.replace,
        )
        for row in rows
    ]


def _chain(params: Params, j: int) -> Params:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[j]), params)


def _distance(a: Params, b: Params) -> float:
    return float(jnp.linalg.norm(ravel_pytree(a)[0] - ravel_pytree(b)[0]))


def _prediction(stable: bool | None) -> str:
    return {True: "stays", False: "leaves", None: "undecided"}[stable]


def _majority(verdicts: Sequence[bool | None]) -> str:
    """One word for all trials; "undecided" where they differ."""
    words = {{True: "yes", False: "no", None: "undecided"}[v] for v in verdicts}
    return words.pop() if len(words) == 1 else "undecided"


def _start(
    network: Network, start: Params, rows: Sequence[Entry], at_start: list[Assessment]
) -> dict[str, Any]:
    about = at_start[0]
    sgd = [(r, a) for r, a in zip(rows, at_start, strict=True) if r.family == "sgd"]
    return {
        "params": None,
        "loss": about.loss,
        "test_accuracy": network.accuracy(start),
        "sharpness": about.sharpness,
        "nonuniformity": about.nonuniformity,
        "largest_step": {f"B={r.batch_size}": a.mean_square.lower for r, a in sgd},
        "largest_step_gd": about.largest_step_gd,
        "mean_sample_gradient": about.mean_sample_gradient,
    }


def _plane(
    network: Network, start: Params, rows: Sequence[Entry], ends: Sequence[Params]
) -> dict[str, Any]:
    """The loss on the plane through the start, the end of the last SGD and that of the last RR."""
    origin, unravel = ravel_pytree(start)
    moved = [ravel_pytree(end)[0] - origin for end in ends]
    sgd = _last(rows, "sgd") or 0
    other = _last(rows, "rr-fixed") or _last(rows, "rr") or _last(rows, "sgd-half") or 0
    first = _unit(moved[sgd])
    second = _unit(moved[other] - (moved[other] @ first) * first)
    places = [(float(m @ first), float(m @ second)) for m in moved]
    x, y = (_axis([0.0, *(p[i] for p in places)]) for i in (0, 1))
    grid = jnp.stack([g.ravel() for g in jnp.meshgrid(x, y)], axis=-1)
    f = jax.jit(
        lambda points: jax.lax.map(
            lambda at: network.problem.value(unravel(origin + at[0] * first + at[1] * second)),
            points,
        )
    )(grid)
    points = [{"label": "start", "x": 0.0, "y": 0.0, "family": "start"}]
    points += [
        {"label": row.label, "x": a, "y": b, "family": row.family}
        for row, (a, b) in zip(rows, places, strict=True)
    ]
    return {
        "kind": "plane",
        "x": x.tolist(),
        "y": y.tolist(),
        "f": f.reshape(_PLANE, _PLANE).tolist(),
        "points": points,
        "x_label": f"distance towards the end of {rows[sgd].label}",
        "y_label": f"distance towards the end of {rows[other].label}",
    }


def _last(rows: Sequence[Entry], family: str) -> int | None:
    places = [i for i, row in enumerate(rows) if row.family == family]
    return places[-1] if places else None


def _unit(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)


def _axis(places: list[float]) -> Array:
    low, high = min(places), max(places)
    margin = 0.2 * max(high - low, 1e-3)
    return jnp.linspace(low - margin, high + margin, _PLANE)
