"""The minima of a landscape and the saddles between them: searched for, or known beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Key

from thalweg.compare.neighbours import SEARCHES, around_start
from thalweg.critical import CriticalGraph, critical_points
from thalweg.errors import InputError
from thalweg.landscapes import Landscape

# All critical points are sought up to this dimension: beyond, a rugged objective has thousands.
_SEARCHED = 3
# Nearer than this share of the diagonal of the box is the same place.
AT = 1e-3


@dataclass(frozen=True)
class Points:
    """What is known of a landscape.

    Attributes:
        minima: The deepest first.
        saddles: The lowest first.
        joins: The numbers of the two minima that each saddle joins, as of
            :class:`thalweg.critical.CriticalGraph`.
        merges: Its disconnectivity tree, as plain numbers.
        confidence: How sure it is that none is missing; None where none was searched for.
        local: Whether only the minimum of the start and its neighbours are known.
        refusal: Why nothing is known of how the minimum of the start is left; None if it is.
    """

    minima: Sequence[Any]
    saddles: Sequence[Any] = ()
    joins: Sequence[tuple[int, int]] = ()
    merges: Sequence[dict[str, Any]] = ()
    confidence: str | None = None
    local: bool = False
    refusal: str | None = None


def critical(landscape: Landscape, key: Key[Array, ""], *, quick: bool = False) -> Points:
    """The critical points; only those known at kinks, those around the start beyond three axes."""
    d = landscape.start.size
    if d > 1 and not landscape.smooth:
        return Points(sorted(landscape.minima, key=lambda m: m.value))
    local = d > _SEARCHED
    if local and quick:
        return Points((), local=True, refusal="not sought with --quick in so many dimensions")
    try:
        graph = (
            around_start(landscape, key)
            if local
            else critical_points(landscape.problem, landscape.lower, landscape.upper, key=key)
        )
    except InputError as error:
        if not local:
            raise
        return Points((), local=True, refusal=str(error))
    merges = [
        {"height": m.height, "left": list(m.left), "right": list(m.right), "saddle": m.saddle}
        for m in graph.merges()
    ]
    sure = _local_search(landscape, graph) if local else graph.search.confidence
    return Points(graph.minima, graph.saddles, graph.joins, merges, sure, local)


def _local_search(landscape: Landscape, graph: CriticalGraph) -> str:
    done = "are given" if landscape.saddles else f"{SEARCHES} uphill searches found"
    return (
        "In so many dimensions minima are sought around the start only: the one it descends to, "
        f"and those beyond the {len(graph.saddles)} passes from it that {done}. There are others."
    )


def name_of(known: Sequence[Any], landscape: Landscape, params: Array, otherwise: str) -> str:
    """The document's name for a point that was found, if it has one."""
    size = float(jnp.linalg.norm(landscape.upper - landscape.lower))
    for point in known:
        if point.name and float(jnp.linalg.norm(point.params - params)) < AT * size:
            return str(point.name)
    return otherwise
