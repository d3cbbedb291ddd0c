"""Names beside points, where they cover neither each other nor the points."""

import itertools
from collections.abc import Sequence

import matplotlib.patheffects as effects
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, BboxBase

# Directions in the order in which they are liked, and distances in points.
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (4.0, 12.0, 22.0)
_MARKER = 3.0
_ALIGNED = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}
Points = Sequence[Sequence[float]]


def place_labels(
    figure: Figure, axes: Axes, points: Points, texts: Sequence[str], others: Points = ()
) -> None:
    """Write each text near its point, with a thin line to it where it has to stand further off.

    Texts are placed one after the other, each where it covers least of what is there: earlier
    texts, the points and the ``others``. The limits of the axes have to be final. Cost: texts x
    places x points, all of them few.
    """
    figure.draw_without_rendering()
    pixels = figure.dpi / 72
    at = axes.transData.transform(np.array([*points, *others], dtype=float).reshape(-1, 2))
    taken = [Bbox([p - _MARKER * pixels, p + _MARKER * pixels]) for p in at]
    names: list[Bbox] = []
    for point, pixel, text in zip(points, at, texts, strict=False):
        size = _size(axes, text)
        places = list(itertools.product(_DISTANCES, _DIRECTIONS))
        boxes = [_box(pixel, size, d, r * pixels) for r, d in places]
        costs = [_cost(box, names, taken, axes.bbox) for box in boxes]
        best = int(np.argmin(costs))
        names.append(boxes[best])
        _write(axes, point, text, *places[best])


def _size(axes: Axes, text: str) -> Float[np.ndarray, "2"]:
    """Width and height of a text in pixels."""
    drawn = axes.text(0, 0, text, fontsize=6)
    extent = drawn.get_window_extent()
    drawn.remove()
    return np.array([extent.width, extent.height])


def _box(
    at: Float[np.ndarray, "2"],
    size: Float[np.ndarray, "2"],
    direction: tuple[int, int],
    distance: float,
) -> Bbox:
    centre = at + np.array(direction) * (distance + size / 2)
    return Bbox([centre - size / 2, centre + size / 2])


def _cost(box: Bbox, names: Sequence[Bbox], taken: Sequence[Bbox], frame: BboxBase) -> float:
    """The area of points covered, and ten times that of other names and outside the frame."""
    outside = box.width * box.height - _shared(box, frame)
    return 10 * (outside + sum(_shared(box, n) for n in names)) + sum(
        _shared(box, t) for t in taken
    )


def _shared(one: Bbox, other: BboxBase) -> float:
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height


def _write(
    axes: Axes, point: Sequence[float], text: str, distance: float, direction: tuple[int, int]
) -> None:
    x, y = direction
    line = {"arrowstyle": "-", "linewidth": 0.4, "color": "#444444", "shrinkA": 0, "shrinkB": 2}
    axes.annotate(
        text,
        (point[0], point[1]),
        xytext=(distance * x, distance * y),
        textcoords="offset points",
        horizontalalignment=_ALIGNED[0][x],
        verticalalignment=_ALIGNED[1][y],
        fontsize=6,
        arrowprops=line if distance > _DISTANCES[0] else None,
        path_effects=[effects.withStroke(linewidth=1.5, foreground="white")],
        annotation_clip=False,
        in_layout=False,
        zorder=10,
    )
