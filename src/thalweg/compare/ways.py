"""The ways out of the minimum of the start, to be drawn: of least energy, and of least action."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from thalweg.compare.entries import Entry
from thalweg.compare.escape import Escape
from thalweg.dynamics import Descent
from thalweg.errors import InputError
from thalweg.landscapes import Landscape
from thalweg.limit import diffusion_limit
from thalweg.paths import ActionPath, EnergyPath, minimum_action_path, minimum_energy_path
from thalweg.problem import FiniteSum
from thalweg.sampling.base import AbstractMemoryless

Way = dict[str, Any]
# Variances that differ by less than this share are the same.
_ALIKE = 1e-6


def ways_out(
    landscape: Landscape, escape: Escape | None, rows: Sequence[tuple[Entry, Way]], quick: bool
) -> list[Way]:
    """The paths of a smooth plane landscape, the first that of least energy.

    Where the noise differs by place or direction, the diffusion limit's path of least action is
    another one; its action is noted in the row. It takes long to compile, hence not if ``quick``.

    Args:
        landscape: The landscape.
        escape: The question, with the minimum that is left and the one beyond the lowest pass.
        rows: Samplers and their answers.
        quick: Whether there is little time.
    """
    if escape is None or not landscape.smooth or landscape.start.size != 2:
        return []
    problem = landscape.problem
    try:
        energy = minimum_energy_path(problem, escape.home, escape.other)
    except InputError:
        return []
    return [_of_energy(energy), *([] if quick else _of_action(escape, rows))]


def _of_energy(path: EnergyPath) -> Way:
    ends = [*(("minimum", m) for m in path.minima), *(("saddle", s) for s in path.saddles)]
    marks = []
    for kind, point in ends:
        place = np.linalg.norm(path.points - point.params, axis=1).argmin()
        about = {"arc": float(path.arc[place]), "value": point.value}
        marks.append({"kind": kind, "params": point.params.tolist(), **about})
    return _way("least energy", None, path, path.values, marks)


def _of_action(escape: Escape, rows: Sequence[tuple[Entry, Way]]) -> list[Way]:
    """One path for each sampler: its action is inverse to the step."""
    problem, ways = escape.landscape.problem, []
    done: list[tuple[Entry, ActionPath | None]] = []
    for entry, row in rows:
        # Without any exponent there is no diffusion limit.
        exponent = row["escape"] and row["escape"]["law"]["exponent"]
        if exponent is None or not _has_own_way(escape, entry):
            continue
        known = [pair for pair in done if eqx.tree_equal(pair[0].sampler, entry.sampler)]
        if not known:
            known = [(entry, _path(escape, entry))]
            done += known
            path = known[0][1]
            if path is not None:
                values = _values(problem, path.points)
                ways.append(_way(f"{entry.label}, least action", entry.family, path, values, []))
        first, path = known[0]
        if path is not None:
            scale = first.step / entry.step
            row["escape"]["action"] = {"value": path.action * scale, "error": path.error * scale}
    return ways


def _path(escape: Escape, entry: Entry) -> ActionPath | None:
    """Of the diffusion limit to the lowest pass; None where the noise does not lead there."""
    try:
        limit = diffusion_limit(Descent(escape.landscape.problem, entry.sampler, entry.step))
        return minimum_action_path(limit, escape.home, escape.saddles[0])
    except InputError:
        return None


def _has_own_way(escape: Escape, entry: Entry) -> bool:
    """Whether the noise differs by place or by direction."""
    sampler = entry.sampler
    assert isinstance(sampler, AbstractMemoryless)  # or there were no diffusion limit
    places = (escape.home.params, escape.saddles[0].params)
    at = [np.asarray(sampler.covariance(escape.landscape.problem, place)) for place in places]
    return not np.allclose(at, at[0][0, 0] * np.eye(2), rtol=_ALIKE, atol=_ALIKE * at[0][0, 0])


@jax.jit
def _of_points(problem: FiniteSum, points: Float[Array, "n d"]) -> Float[Array, " n"]:
    return jax.lax.map(problem.value, points)


def _values(problem: FiniteSum, points: Float[np.ndarray, "n d"]) -> np.ndarray:
    return np.asarray(_of_points(problem, jax.numpy.asarray(points)))


def _way(
    label: str, family: str | None, path: EnergyPath | ActionPath, values: Any, marks: list[Way]
) -> Way:
    return {
        "label": label,
        "family": family,
        "points": path.points.tolist(),
        "arc": path.arc.tolist(),
        "values": values.tolist(),
        "marks": marks,
    }
