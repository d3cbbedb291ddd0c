"""The disconnectivity graph drawn: lines begin at minima and end at the saddles that join them."""

import numpy as np
from matplotlib.figure import Figure

from thalweg.report.graph_figure import graph_figure


def graph(values, merges, names=None):
    """A graph of plain numbers, as a result holds it."""
    return {
        "minima": [
            {"name": names[i] if names else None, "value": value, "params": [float(i), 0.0]}
            for i, value in enumerate(values)
        ],
        "saddles": [{"value": height, "params": [0.0, 1.0]} for height, _, _ in merges],
        "merges": [
            {"height": height, "left": left, "right": right, "saddle": i}
            for i, (height, left, right) in enumerate(merges)
        ],
    }


NAMES = ["global", "middle", "right"]
SURFACE = graph([-36.7, -19.8, -16.6], [(-14.4, [1], [2]), (-10.2, [0], [1, 2])], NAMES)
# 0 and 2 meet first, then 1 and 3; the two groups at last.
CROSSED = graph([-4, -3, -2, -1], [(0, [0], [2]), (1, [1], [3]), (2, [0, 2], [1, 3])])


def drawn(data):
    figure = Figure(layout="constrained")
    drawing = graph_figure(data)
    drawing.draw(figure)
    (axes,) = figure.axes
    return drawing, axes


def of_length(axes, count):
    return [line for line in axes.lines if len(line.get_xdata()) == count]


def test_bars_join_minima_at_the_height_of_their_saddle():
    drawing, axes = drawn(SURFACE)
    first, second = of_length(axes, 4)
    # Middle and right at -14.4; the stem of both, half way between them, and global at -10.2.
    assert first.get_xydata().tolist() == [[1, -19.8], [1, -14.4], [2, -14.4], [2, -16.6]]
    assert second.get_xydata().tolist() == [[0, -36.7], [0, -10.2], [1.5, -10.2], [1.5, -14.4]]
    circles = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "o"]
    assert circles == [[0, -36.7], [1, -19.8], [2, -16.6]]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["-14.4", "-10.2", "global\n-36.7", "middle\n-19.8", "right\n-16.6"]
    assert "Minima: 3; saddles: 2, of which 2 join" in drawing.caption
    assert "Dashed" not in drawing.caption
    assert drawing.render() == drawing.render()


def test_lines_do_not_cross():
    _, axes = drawn(CROSSED)
    spans = [(bar.get_xdata()[0], bar.get_xdata()[2]) for bar in of_length(axes, 4)]
    assert spans == [(0, 1), (2, 3), (0.5, 2.5)]
    (stem,) = of_length(axes, 2)
    assert stem.get_xdata().tolist() == [1.5, 1.5]
    assert stem.get_linestyle() == "-"


def test_groups_that_nothing_joins_end_in_dashes():
    drawing, axes = drawn(graph([-3, -2, -1], [(0, [0], [2])]))
    stems = of_length(axes, 2)
    assert [stem.get_xdata()[0] for stem in stems] == [0.5, 2]
    assert all(stem.get_linestyle() == "--" for stem in stems)
    assert "Dashed: groups that no saddle found joins." in drawing.caption
    assert [text.get_text() for text in axes.texts] == ["0", "0\n-3.00", "2\n-1.00", "1\n-2.00"]


def test_many_minima_have_no_names():
    values = np.arange(30.0)
    merges = [(40.0 + i, list(range(i + 1)), [i + 1]) for i in range(29)]
    _, axes = drawn(graph(values.tolist(), merges))
    assert not axes.texts
    assert len(of_length(axes, 4)) == 29
    # With fewer the names stand on end.
    _, axes = drawn(graph(values[:9].tolist(), merges[:8]))
    assert {text.get_rotation() for text in axes.texts} == {90}


def test_one_minimum_has_no_tree():
    assert graph_figure(graph([1.0], [])) is None
