"""What is measured at a point."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from thalweg import curvature, stability
from thalweg.curvature import DENSE_SIZE, Operator
from thalweg.curvature.eigenvalues import data_error
from thalweg.gradnorms import problem_gradient_norms
from thalweg.measure.points import Point
from thalweg.sampling import Minibatch

# Leading eigenvectors of H and of Sigma on which condition (4) is asked of a network.
_DIRECTIONS = 8
# Steps of Lanczos and probes for the density of eigenvalues, and with --quick.
_LANCZOS, _PROBES, _QUICK_PROBES = 60, 4, 2
# Accuracy of traces, and probes at most.
_ACCURACY, _BUDGET, _QUICK_BUDGET = 0.05, 100, 20
# Places at which the density is kept, and the width of a bell in shares of the spread.
_PLACES, _BELL = 400, 0.01
_BINS = 40
Progress = Callable[[str, int, int], None] | None
_STAGES = ("thresholds", "exact threshold", "spectrum", "traces", "samples", "alignment")


def numbers(
    point: Point,
    batches: list[int],
    step: float | None,
    *,
    key: Key[Array, ""],
    quick: bool,
    progress: Progress,
) -> dict[str, Any]:
    """All numbers of the result.

    Args:
        point: What is measured.
        batches: The batch sizes asked about, the first of them with the closed bracket.
        step: The step asked about.
        key: Draws probes and batches.
        quick: Fewer probes.
        progress: Told about each stage.
    """
    problem, params = point.problem, point.params
    done = iter(range(len(_STAGES)))

    def stage() -> None:
        if progress is not None:
            progress("measure", next(done), len(_STAGES))

    stage()
    replace = not problem.uniform
    eta = step or 1.0  # the thresholds do not depend on it
    about = stability.assess(
        problem,
        params,
        batch_size=batches[0],
        step=eta,
        replace=replace,
        directions=_DIRECTIONS,
        key=key,
    )
    stage()
    exact = stability.mean_square_bracket(
        problem, params, batch_size=batches[0], replace=replace, directions=_DIRECTIONS
    )
    stage()
    H = curvature.hessian(problem, params)
    spectrum = _spectrum(H, _QUICK_PROBES if quick else _PROBES, key)
    stage()
    budget = _QUICK_BUDGET if quick else _BUDGET
    traces = _traces(H, key, budget)
    stage()
    samples = _samples(point, about.hessian_vectors[:, 0])
    stage()
    aligned = _alignment(point, H, key, budget)
    asked = step is not None
    return {
        "parameters": H.size,
        "n": problem.n,
        "replace": replace,
        **_of_point(about),
        **traces,
        "sharpness_data_error": _data_error(H, about.hessian_vectors[:, 0]),
        "spectrum": spectrum,
        "samples": samples,
        "alignment": aligned,
        "exact": {"batch_size": batches[0], **exact._asdict()},
        "batches": [
            _closed(row, exact, step) if row["batch_size"] == batches[0] else row
            for row in (_of_batch(point, about, b, eta, asked, replace) for b in sorted(batches))
        ],
    }


def _of_point(about: stability.Assessment) -> dict[str, Any]:
    """What does not depend on a batch or a step."""
    names = (
        *("loss", "gradient_norm", "mean_sample_gradient", "max_sample_gradient", "interpolates"),
        *("sharpness", "nonuniformity", "smallest_eigenvalue"),
    )
    return {
        **{name: getattr(about, name) for name in names},
        "batch_sharpness": _named(about.batch_sharpness),
        "remarks": list(about.remarks),
    }


def _traces(H: Operator, key: Key[Array, ""], budget: int) -> dict[str, Any]:
    trace = curvature.trace(H, rtol=_ACCURACY, key=key, budget=budget)
    frobenius = curvature.frobenius(H, rtol=_ACCURACY, key=key, budget=budget)
    return {"trace": _estimate(trace), "frobenius": _estimate(frobenius)}


def _of_batch(
    point: Point,
    about: stability.Assessment,
    batch: int,
    step: float,
    asked: bool,
    replace: bool,
) -> dict[str, Any]:
    """The thresholds for a batch size; what depends on the step only if one was asked about."""
    problem = point.problem
    own = stability.reassess(problem, about, batch_size=batch, step=step, replace=replace)
    return {
        "batch_size": batch,
        "factor": stability.batch_factor(problem.n, batch, replace),
        "sufficient": own.largest_step,
        "lower": own.mean_square.lower,
        "upper": own.mean_square.upper,
        "descent": own.largest_step_gd,
        "stable": own.stable if asked else None,
        "critical_batch": own.critical_batch if asked else None,
        "excess_loss": own.excess_loss if asked else None,
    }


def _closed(row: dict[str, Any], exact: Any, step: float | None) -> dict[str, Any]:
    """The row of a batch with the bracket that was closed for it."""
    low, high = exact.lower, exact.upper
    stable = None
    if step is not None and None not in (low, high):
        stable = True if step <= low else False if step > high else None
    return {**row, "lower": low, "upper": high, "stable": stable}


def _spectrum(H: Operator, probes: int, key: Key[Array, ""]) -> dict[str, Any]:
    """The eigenvalues of a small matrix, the density of those of a large one."""
    if H.size <= DENSE_SIZE:
        values = np.linalg.eigvalsh(np.asarray(H.dense(), dtype=float))
        return {"eigenvalues": values, "at": None, "density": None, "error": None}
    found = curvature.spectral_density(H, steps=_LANCZOS, probes=probes, key=key)
    low, high = found.smallest.value, found.largest.value
    at = np.linspace(low - 0.05 * (high - low), high + 0.05 * (high - low), _PLACES)
    density, error = found.smoothed(at, _BELL * (high - low))
    return {"eigenvalues": None, "at": at, "density": density * H.size, "error": error * H.size}


def _samples(point: Point, sharpest: Float[Array, " size"]) -> dict[str, Any]:
    """Histograms of the norms of the samples' gradients and of their curvatures."""
    problem, params = point.problem, point.params
    return {
        "gradient_norms": _histogram(problem_gradient_norms(problem, params)),
        "hessian_norms": _histogram(curvature.sample_hessian_norms(problem, params, sharpest)),
        "curvatures": _histogram(curvature.sample_curvatures(problem, params, sharpest)),
    }


def _histogram(values: Float[Array, " n"]) -> dict[str, Any]:
    x = np.asarray(values, dtype=float)
    counts, edges = np.histogram(x, bins=min(_BINS, 5 + math.isqrt(x.size)))
    return {
        "counts": counts,
        "edges": edges,
        "mean": float(x.mean()),
        "median": float(np.median(x)),
        "largest": float(x.max()),
    }


def _alignment(
    point: Point, H: Operator, key: Key[Array, ""], budget: int
) -> dict[str, Any] | None:
    r"""The cosine of C and H as vectors, :math:`\mathrm{Tr}(CH)/(|C|_F |H|_F)`, by probes.

    None where C vanishes, as at an interpolating minimum.
    """
    sampler = Minibatch(1, replace=True)
    C = curvature.gradient_covariance(point.problem, point.params, sampler)
    if H.size <= DENSE_SIZE:
        first, second = (np.asarray(op.dense(), dtype=float) for op in (C, H))
        sizes = [np.sum(first * second), np.sum(first**2), np.sum(second**2)]
        return _cosine(np.array([sizes]))
    rows = []
    for one in jax.random.split(jax.random.fold_in(key, 1), budget):
        probe = jax.random.rademacher(one, (H.size,), H.dtype)
        c, h = (np.asarray(op.matvec(probe), dtype=float) for op in (C, H))
        rows.append([c @ h, c @ c, h @ h])
    return _cosine(np.array(rows))


def _cosine(rows: Float[np.ndarray, "probes 3"]) -> dict[str, Any] | None:
    """The ratio of means, and its standard error by leaving out each probe in turn."""
    total = rows.sum(axis=0)
    if total[1] <= 0 or total[2] <= 0:
        return None
    cosine = float(total[0] / math.sqrt(total[1] * total[2]))
    k = len(rows)
    if k == 1:
        return {"mean": cosine, "error": 0.0}
    others = total - rows
    parts = others[:, 0] / np.sqrt(others[:, 1] * others[:, 2])
    return {"mean": cosine, "error": float(np.sqrt((k - 1) * np.var(parts)))}


def _data_error(H: Operator, vector: Float[Array, " size"]) -> float:
    assert H.along is not None  # a Hessian is a mean over samples
    return data_error(*H.along(vector))


def _estimate(found: curvature.Estimate) -> dict[str, Any]:
    return {
        "mean": found.value,
        "error": found.error,
        "data_error": found.data_error,
        "probes": found.probes,
        "reached": found.reached,
    }


def _named(found: Any) -> dict[str, Any] | None:
    return None if found is None else {"mean": found.value, "error": found.error}
