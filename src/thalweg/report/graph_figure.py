"""Figure of the disconnectivity graph: which minima a rising level joins, and how high."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thalweg.report.notation import plain
from thalweg.report.style import Drawing

# Up to so many minima have their names below them, up to so many their heights at the merges.
_NAMED, _HEIGHTS = 24, 6
# Up to so many names stand upright; the width of a line of text below each, in all.
_UPRIGHT, _WRAP = 6, 48
# Room beside the outermost minima, in places, and below the deepest, a share of the height.
_MARGIN, _BELOW = 0.6, 0.15
_DARK, _MIDDLE = "#222222", "#444444"
Graph = Mapping[str, Any]


class _Branch(NamedTuple):
    """A group of minima: their numbers from left to right, the place of its stem and its foot."""

    leaves: tuple[int, ...]
    place: float
    foot: float


class _Bar(NamedTuple):
    """Two branches that meet at a height."""

    height: float
    left: _Branch
    right: _Branch


def graph_figure(graph: Graph) -> Drawing | None:
    """The tree of a graph of minima and saddles, None for fewer than two minima.

    Args:
        graph: Of plain numbers: ``minima``, each with ``name`` (or None), ``value`` and
            ``params``; ``saddles``, each with ``value`` and ``params``; ``merges``, the lowest
            first, each with ``height`` and the numbers of the minima in its ``left`` and ``right``
            group, as :meth:`thalweg.CriticalGraph.merges` has them.
    """
    if len(graph["minima"]) < 2:
        return None
    caption = (
        "Which minima a rising level of f joins: each line begins at the value of a minimum "
        "(circle) and ends where the level reaches the lowest saddle out of its group (cross). "
        f"Minima: {len(graph['minima'])}; saddles: {len(graph['saddles'])}, of which "
        f"{len(graph['merges'])} join two groups first.{_apart(graph)}"
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bars, roots = _tree(graph)
        _draw_tree(axes, graph, bars, roots)
        _draw_minima(axes, graph, roots)
        axes.set(ylabel="f(θ)", xticks=(), xlim=(-_MARGIN, len(graph["minima"]) - 1 + _MARGIN))
        axes.margins(y=_BELOW)
        axes.spines["bottom"].set_visible(False)

    return Drawing("graph", caption, 60, draw)


def _apart(graph: Graph) -> str:
    """What the dashed ends mean, if there are any."""
    if len(graph["merges"]) == len(graph["minima"]) - 1:
        return ""
    return " Dashed: groups that no saddle found joins."


def _tree(graph: Graph) -> tuple[list[_Bar], list[_Branch]]:
    """Where the lines meet, and the branches that are left at the top, from left to right."""
    order = [number for root in _roots(graph) for number in root]
    minima = graph["minima"]
    branches = {i: _Branch((i,), order.index(i), minima[i]["value"]) for i in order}
    bars = []
    for merge in graph["merges"]:
        pair = (branches[merge["left"][0]], branches[merge["right"][0]])
        left, right = sorted(pair, key=lambda branch: branch.place)
        bars.append(_Bar(merge["height"], left, right))
        union = _Branch(left.leaves + right.leaves, (left.place + right.place) / 2, merge["height"])
        branches.update(dict.fromkeys(union.leaves, union))
    roots = {branch.leaves: branch for branch in branches.values()}
    return bars, sorted(roots.values(), key=lambda branch: branch.place)


def _roots(graph: Graph) -> list[tuple[int, ...]]:
    """The minima of each group that is left at the top, in an order without crossing lines."""
    groups: dict[int, tuple[int, ...]] = {i: (i,) for i in range(len(graph["minima"]))}
    for merge in graph["merges"]:
        union = groups[merge["left"][0]] + groups[merge["right"][0]]
        groups.update(dict.fromkeys(union, union))
    return list(dict.fromkeys(groups.values()))


def _draw_tree(axes: Axes, graph: Graph, bars: Sequence[_Bar], roots: Sequence[_Branch]) -> None:
    for height, left, right in bars:
        places = (left.place, left.place, right.place, right.place)
        axes.plot(places, (left.foot, height, height, right.foot), color=_MIDDLE, linewidth=0.8)
        middle = (left.place + right.place) / 2
        axes.plot(middle, height, "x", color=_DARK, markersize=4, markeredgewidth=0.7)
        if len(bars) <= _HEIGHTS:
            _write(axes, plain(height), (middle, height), (3, 2), va="bottom", ha="left")
    values = [minimum["value"] for minimum in graph["minima"]]
    heights = [bar.height for bar in bars]
    low, high = min(values), max(values + heights)
    top = high + 0.1 * ((high - low) or 1.0)
    for root in roots:
        style = "-" if len(roots) == 1 else (0, (3, 1.5))
        ends = (root.foot, top)
        axes.plot((root.place,) * 2, ends, color=_MIDDLE, linewidth=0.8, linestyle=style)


def _draw_minima(axes: Axes, graph: Graph, roots: Sequence[_Branch]) -> None:
    minima = graph["minima"]
    order = [number for root in roots for number in root.leaves]
    upright = len(minima) <= _UPRIGHT
    for place, number in enumerate(order):
        minimum = minima[number]
        axes.plot(
            *(place, minimum["value"], "o"),
            color="white",
            markeredgecolor=_DARK,
            markeredgewidth=0.7,
            markersize=4,
            zorder=6,
        )
        if len(minima) <= _NAMED:
            name = minimum["name"] or str(number)
            text = fill(name, _WRAP // len(minima)) if upright else name
            below = f"{text}\n{plain(minimum['value'])}" if upright else text
            rotation = 0 if upright else 90
            at = (place, minimum["value"])
            _write(axes, below, at, (0, -4), va="top", ha="center", rotation=rotation)


def _write(
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any
) -> None:
    axes.annotate(text, at, xytext=offset, textcoords="offset points", fontsize=6, **style)
