"""The minima of a landscape and the saddles between them: searched for, or known beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Key

from thalweg.critical import critical_points
from thalweg.landscapes import Landscape

# Critical points are sought up to this dimension: beyond, a rugged objective has thousands.
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
    """

    minima: Sequence[Any]
    saddles: Sequence[Any] = ()
    joins: Sequence[tuple[int, int]] = ()
    merges: Sequence[dict[str, Any]] = ()
    confidence: str | None = None


def critical(landscape: Landscape, key: Key[Array, ""]) -> Points:
    """The critical points: of a kinked landscape in several dimensions only those known."""
    d = landscape.start.size
    if d > _SEARCHED:
        return Points(())
    if d > 1 and not landscape.smooth:
        return Points(sorted(landscape.minima, key=lambda m: m.value))
    graph = critical_points(landscape.problem, landscape.lower, landscape.upper, key=key)
    merges = [
        {"height": m.height, "left": list(m.left), "right": list(m.right), "saddle": m.saddle}
        for m in graph.merges()
    ]
    return Points(graph.minima, graph.saddles, graph.joins, merges, graph.search.confidence)


def name_of(known: Sequence[Any], landscape: Landscape, params: Array, otherwise: str) -> str:
    """The document's name for a point that was found, if it has one."""
    size = float(jnp.linalg.norm(landscape.upper - landscape.lower))
    for point in known:
        if point.name and float(jnp.linalg.norm(point.params - params)) < AT * size:
            return str(point.name)
    return otherwise
