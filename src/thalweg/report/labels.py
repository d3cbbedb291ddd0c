"""Names beside points, where they cover neither each other nor the points."""

import itertools
from collections.abc import Sequence

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

# Directions in the order in which they are liked, and distances in points.
_DIRECTIONS = ((1, 0.3), (-1, 0.3), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (5.0, 14.0, 24.0)
_MARKER = 3.0


def place_labels(
    axes: Axes,
    points: Sequence[Sequence[float]],
    texts: Sequence[str],
    others: Sequence[Sequence[float]] = (),
) -> None:
    """Write each text near its point, with a thin line to it where it has to stand further off.

    Texts are placed one after the other, each where it covers least of what is there: earlier
    texts, the points and the ``others``. The limits of the axes have to be final. Cost: texts x
    places x points, all of them few.
    """
    figure = axes.get_figure()
    assert figure is not None
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    at = axes.transData.transform(np.array([*points, *others], dtype=float).reshape(-1, 2))
    taken = [Bbox([p - _MARKER, p + _MARKER]) for p in at]
    names: list[Bbox] = []
    for point, text in zip(points, texts, strict=True):
        label = _annotation(axes, point, text)
        places = [
            (_moved(label, direction, distance), direction, distance)
            for distance, direction in itertools.product(_DISTANCES, _DIRECTIONS)
        ]
        costs = [_cost(box, names, taken, frame) for box, _, _ in places]
        box, direction, distance = places[int(np.argmin(costs))]
        _moved(label, direction, distance)
        if label.arrow_patch is not None:
            label.arrow_patch.set_visible(distance > _DISTANCES[0])
        names.append(box)


def _annotation(axes: Axes, point: Sequence[float], text: str) -> Annotation:
    return axes.annotate(
        text,
        (point[0], point[1]),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=6,
        annotation_clip=False,
        in_layout=False,
        arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#444444"},
        path_effects=[effects.withStroke(linewidth=1.5, foreground="white")],
        zorder=10,
    )


def _moved(label: Annotation, direction: tuple[float, float], distance: float) -> Bbox:
    """Put the label in that direction of its point; returns the box it covers there."""
    x, y = direction
    label.set_horizontalalignment({1: "left", 0: "center", -1: "right"}[int(np.sign(x))])
    label.set_verticalalignment("bottom" if y == 1 else "top" if y == -1 else "center")
    label.set_position((distance * x, distance * y))
    # Not the annotation's own extent, which includes the line to the point.
    return Text.get_window_extent(label)


def _cost(box: Bbox, names: Sequence[Bbox], taken: Sequence[Bbox], frame: Bbox) -> float:
    """The area of points covered, and ten times that of other names and outside the frame."""
    outside = box.width * box.height - _shared(box, frame)
    return 10 * (outside + sum(_shared(box, n) for n in names)) + sum(_shared(box, t) for t in taken)


def _shared(one: Bbox, other: Bbox) -> float:
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height
