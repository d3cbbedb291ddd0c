"""The report: numbers read back, figures measured, the page parsed, bytes compared."""

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

import helpers_report as saved
import thalweg
from thalweg import report
from thalweg.compare.entries import NAMES
from thalweg.errors import InputError
from thalweg.report import html, style
from thalweg.report.grid_figure import grid_figure
from thalweg.report.labels import place_labels
from thalweg.report.landscape_figures import landscape_figures
from thalweg.report.network_figures import network_figures
from thalweg.report.notation import count, error_notation, fraction, plain
from thalweg.report.path_figure import path_figure
from thalweg.report.shares import shares
from thalweg.report.tables import tables
from thalweg.report.terminal import print_result

RESULTS = {
    "line": saved.line_result,
    "plane": saved.plane_result,
    "high": saved.high_result,
    "network": saved.network_result,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of each result, written once."""
    folders = {name: tmp_path_factory.mktemp(name) for name in RESULTS}
    return {name: report.write(make(), folders[name]) for name, make in RESULTS.items()}


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (0.945, 0.0161, ".945(16)"),
        (0.318, 0.0074, ".318(7)"),
        (0.951, 0.0034, ".951(3)"),
        (0.0752, 0.0416, ".08(4)"),
        (0.0008, 0.0004, ".0008(4)"),
        (-0.34, 0.002, "-.340(2)"),
        (340.3, 2.2, "340(2)"),
        (340.3, 1.21, "340.3(12)"),
        (12347.0, 120.0, "12350(120)"),
        (1.6e7, 3e5, "1.60(3)e7"),
        (1.23e-6, 4e-8, "1.23(4)e-6"),
        (-0.0001, 0.01, ".000(10)"),
        (4.4123, 0.0, "4.41"),
        (4.4123, None, "4.41"),
        (None, None, "–"),
        (float("inf"), 0.1, "–"),
    ],
)
def test_error_notation(mean, error, text):
    assert error_notation(mean, error) == text


@pytest.mark.parametrize("digits", [1, 2])
def test_error_notation_reads_back(digits):
    rng = np.random.default_rng(0)
    for mean, error in zip(rng.normal(size=300), 10 ** rng.uniform(-6, 2, 300), strict=True):
        text = error_notation(mean, error, digits=digits)
        value, units, power = re.fullmatch(r"(-?[\d.]+)\((\d+)\)(?:e(-?\d+))?", text).groups()
        scale = 10.0 ** int(power or 0)
        last = 10.0 ** -len(value.partition(".")[2]) * scale
        kept = 2 if digits == 2 and units[0] == "1" else 1
        # Both are rounded to the last digit that is kept, so half of one at most is lost; above
        # the point the digits after it are zeros.
        size = last * (1 if "." in value else 10 ** max(0, len(units) - kept))
        assert abs(float(value) * scale - mean) <= 0.5001 * size
        assert abs(int(units) * last - error) <= 0.5001 * size
        assert len(units.rstrip("0")) <= kept


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.0, "0"), (0.0386, ".0386"), (9.81, "9.81"), (1017.05, "1017"), (-36.67, "-36.7")],
        *[(4.95446e-4, "4.95e-4"), (1.6e7, "1.60e7"), (None, "–"), (float("nan"), "–")],
    ],
)
def test_plain(value, text):
    assert plain(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(640, "640"), (999.4, "999"), (999.6, "1.0k"), (3200, "3.2k"), (32000, "32k")],
        *[(999_600, "1.0M"), (1.4e6, "1.4M"), (2.5e9, "2.5G"), (None, "–")],
    ],
)
def test_count(value, text):
    assert count(value) == text


@pytest.mark.parametrize(("p", "text"), [(0.0, "0"), (1.0, "1.000"), (0.945, ".945(16)")])
def test_fraction(p, text):
    assert fraction(saved.share("flat", p)) == text


def test_shares_keep_the_most_visited_and_sum_the_rest():
    names, rows = shares(saved.plane_result(), 4)
    assert names == ["global", "second", "third", "elsewhere"]
    assert [round(s["fraction"], 3) for s in rows[1]] == [0, 0.5, 0.25, 0.25]
    # The binomial error of a quarter of 200 chains.
    assert rows[1][-1]["error"] == pytest.approx(np.sqrt(0.25 * 0.75 / 200))
    assert shares(saved.plane_result(), 5)[0] == ["global", "second", "third", "fourth", "fifth"]


def test_landscape_tables():
    table, *_, minima = tables(saved.line_result())
    assert table.header[:4] == ["sampler", "step", "sharp, global", "flat"]
    assert table.rows[0][:4] == ["GD", "0.04", "1.000", "0"]
    assert table.rows[3][:4] == ["RR, B=1", "0.04", ".945(16)", ".055(16)"]
    assert "200 chains a sampler, one of GD." in table.caption
    assert minima.rows == [["sharp, global (start)", "(0.2)", "-.592"], ["flat", "(-1)", "-.340"]]


def test_answers_to_how_long_the_minimum_is_kept():
    _, _, table, _ = tables(saved.line_result())
    assert table.title == "How long until another minimum is reached"
    cells = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert "GD" not in cells
    simulated, law = "simu\u00adlated", "Eyring-Kramers"
    assert cells["SGD, B=1"][simulated] == "336(5)"
    assert cells["SGD, B=1"]["grid (SGD)"] == "340(1)"
    assert cells["SGD, B=1"][law] == "113 ?"
    assert cells["SGD, half step, B=1"][simulated] == ">167000"
    assert cells["SGD, half step, B=1"][law] == "–"
    assert cells["RR, B=1"][simulated] == "1.62(9)e7°"
    assert "?: too hot." in table.caption
    assert "by splitting" in table.caption
    # Where no sampler has answers there is no table.
    assert "How long" not in " ".join(t.title for t in tables(saved.plane_result()))


def test_exponents_stand_beside_the_times_and_what_is_not_answered_is_said():
    result = saved.line_result()
    answers = result["rows"][3]["escape"]
    answers["law"] |= {"steps": None, "exponent": None, "remark": "no law for such noise"}
    answers["action"] = {"value": 7.8123, "error": 0.01}
    _, _, table, _ = tables(result)
    cells = {row[0]: row[table.header.index("expo\u00adnent")] for row in table.rows}
    assert cells == {"SGD, B=1": "2.25", "SGD, half step, B=1": "–", "RR, B=1": "7.81(1)‡"}
    assert "RR, B=1: no law for such noise." in table.caption
    assert "have left, too" not in table.caption
    for row in result["rows"]:
        row["grid"] = None
    _, table, _ = tables(result | {"local": True})
    assert "by three routes" in table.caption
    assert "have left, too" in table.caption


def test_ways_out_are_drawn_from_the_result():
    result = saved.plane_result()
    marks = [{"kind": "saddle", "params": [0.0, 0.0], "arc": 1.0, "value": 100.0}]
    way = {"points": [[-1.0, 0.0], [0.0, 0.0]], "arc": [0.0, 1.0], "values": [-40.0, 100.0]}
    ways = [
        {"label": "least energy", "family": None, "marks": marks, **way},
        {"label": "SGD, least action", "family": "sgd", "marks": [], **way},
    ]
    above, along = drawn([path_figure(result["surface"], ways)], "paths").axes
    lines = [line for line in above.lines if len(line.get_xdata()) == 2]
    assert [line.get_xydata().tolist() for line in lines] == [way["points"]] * 2
    assert to_hex(lines[1].get_color()).upper() == style.COLOURS["sgd"]
    assert along.lines[0].get_ydata().tolist() == way["values"]
    assert path_figure(result["surface"], result["paths"]) is None


def test_table_without_minima_shows_where_the_loss_ended():
    (table,) = tables(saved.high_result())
    assert table.header[2:4] == ["distance", "loss"]
    assert table.rows[0][3] == ".0513"
    assert table.rows[1][3] == "–"


def test_divergence_is_a_column_once_there_is_any():
    assert "diverged" not in tables(saved.line_result())[0].header
    table = tables(saved.plane_result())[0]
    assert table.rows[1][table.header.index("diverged")] == ".0200"


def test_network_table():
    (table,) = tables(saved.network_result())
    cells = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert cells["(start)"]["loss"] == ".0386"
    assert cells["GD"]["stayed"] == "1/1"
    assert cells["SGD, B=4"]["stayed"] == "1/4"
    assert cells["SGD, B=4"]["sharp\u00adness"] == "2.41(7)"
    assert cells["SGD, B=4"]["foretold"] == "leaves"
    assert cells["RR fixed length, B=32 *"]["largest stable η"] == "–"
    assert "2/η is 10 at η = 0.2, 20 at η = 0.1" in table.caption
    assert "GD .204, B=32 .175, B=4 .0838" in table.caption
    assert "*: a biased estimate" in table.caption


@pytest.mark.parametrize("name", RESULTS)
def test_terminal_fits_a_hundred_columns(name):
    result = RESULTS[name]()
    out = io.StringIO()
    print_result(result, Console(file=out, width=100))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    assert "…" not in text
    assert text.rstrip().endswith(result["sentences"][-1])
    # Only names and steps may be broken over lines: every number is in one piece.
    for table in tables(result):
        for row in table.rows:
            assert all(cell in text for cell in row[2:])


def test_every_family_has_a_colour_of_its_own():
    trained_only = {"rolling", "presampled", "auto"}
    assert set(style.COLOURS) == {*NAMES, *trained_only}
    assert len(set(style.COLOURS.values())) == len(style.COLOURS)


def test_rows_of_one_family_differ_by_dashes():
    styles = style.lines(saved.network_result()["rows"])
    assert [s["color"] for s in styles[1:4]] == [style.COLOURS["sgd"]] * 3
    assert len({str(s["linestyle"]) for s in styles[1:4]}) == 3


def drawn(figures, name):
    figure = Figure(layout="constrained")
    (drawing,) = [f for f in figures if f.name == name]
    drawing.draw(figure)
    return figure


def test_bars_are_the_fractions():
    result = saved.line_result()
    sharp, flat = drawn(landscape_figures(result), "ends").axes
    assert [bar.get_width() for bar in sharp.patches] == [1.0, 0.0, 1.0, 0.945]
    assert [round(bar.get_width(), 3) for bar in flat.patches] == [0, 1, 0, 0.055]
    colours = [to_hex(bar.get_facecolor()).upper() for bar in sharp.patches]
    assert colours == [style.COLOURS[row["family"]] for row in result["rows"]]


def test_line_figure_shows_landscape_paths_and_ends():
    result = saved.line_result()
    top, middle, bottom = drawn(landscape_figures(result), "landscape").axes
    np.testing.assert_array_equal(top.lines[0].get_ydata(), result["surface"]["f"])
    paths = [line.get_xdata().tolist() for line in middle.lines]
    assert paths[-1] == [point[0] for point in result["rows"][0]["paths"][0]]
    # The strip of GD, of which one chain in three left the box: drawn at its edge.
    counts, edges, _ = bottom.patches[0].get_data()
    assert counts[-1] > 0
    assert counts[np.searchsorted(edges, 0.2, side="right") - 1] > 0
    assert np.count_nonzero(counts) == 3


def test_plane_is_cut_off_above_the_saddles():
    result = saved.plane_result()
    axes = drawn(landscape_figures(result), "landscape").axes[0]
    shown = axes.images[0].get_array()
    assert np.max(result["surface"]["f"]) > 156
    # 1.6 times the way from the lowest value to the pass at 100.
    assert np.max(shown) <= 160
    path = next(line for line in axes.lines if len(line.get_xdata()) == 3)
    np.testing.assert_array_equal(path.get_xydata(), result["rows"][0]["paths"][0])


def test_random_starts_have_no_star():
    result = saved.line_result()
    assert "Star" in landscape_figures(result)[0].caption
    result["arguments"]["starts"] = "random"
    assert "Star" not in landscape_figures(result)[0].caption


def test_sharpness_has_the_line_two_over_eta():
    (axes,) = drawn(network_figures(saved.network_result()), "sharpness").axes
    level = [line for line in axes.lines if np.array_equal(line.get_ydata(), [10.0, 10.0])]
    assert len(level) == 1
    assert axes.get_ylim()[1] > 10
    assert "2/η = 10" in [text.get_text() for text in axes.texts]


def test_slice_labels_every_point():
    result = saved.network_result()
    axes = drawn(network_figures(result), "slice").axes[0]
    labels = {text.get_text() for text in axes.texts}
    assert labels == {"start", *(row["label"] for row in result["rows"])}


def test_loss_of_networks_is_logarithmic():
    (axes,) = drawn(network_figures(saved.network_result()), "loss").axes
    assert axes.get_yscale() == "log"


def test_labels_cover_neither_each_other_nor_points():
    figure = Figure(figsize=(4, 4))
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    points = [(0.5, 0.5), (0.5, 0.52), (0.52, 0.5), (0.98, 0.98)]
    place_labels(figure, axes, points, ["one point", "another", "a third one", "in the corner"])
    figure.draw_without_rendering()
    # The extent of the text alone, without the line to its point.
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(*axes.transData.transform(point)) for point in points)
        assert axes.bbox.x0 <= box.x0
        assert box.x1 <= axes.bbox.x1


def test_a_flat_surface_is_drawn_without_contours():
    result = saved.network_result()
    result["surface"]["f"] = np.full((12, 12), 0.5).tolist()
    assert drawn(network_figures(result), "slice").axes[0].collections[:] == []


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("line", ["landscape", "loss", "ends", "stationary"]),
        ("plane", ["landscape", "loss", "ends", "stationary"]),
        ("high", ["loss"]),
        ("network", ["sharpness", "slice", "loss"]),
    ],
)
def test_files(written, name, figures):
    *drawings, page = written[name]
    assert [path.name for path in drawings] == [f"{figure}.svg" for figure in figures]
    assert page.name == "report.html"
    for path in drawings:
        root = ElementTree.fromstring(path.read_bytes())
        # A column of 85 mm, in points.
        assert float(root.get("width").removesuffix("pt")) == pytest.approx(
            85 / 25.4 * 72, abs=0.01
        )
        assert b"<text" not in path.read_bytes()


def test_same_result_same_bytes(written, tmp_path):
    result = json.loads(json.dumps(saved.line_result()))
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 5, "svg.fonttype": "none"}):
        again = report.write(result, tmp_path)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in written["line"]]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("name", RESULTS)
def test_page_needs_nothing_else(written, name):
    text = written[name][-1].read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("svg") == len(written[name]) - 1
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link[0] == "#"} <= set(page.ids)


def test_page_says_everything(written):
    result = saved.line_result()
    text = Page(written["line"][-1].read_text(encoding="utf-8")).text
    table = tables(result)[0]
    for said in (
        *result["sentences"],
        *result["notes"],
        *table.rows[3],
        table.caption,
        "sharp, global (start)",
        "from the left",
        "An and Ying, section 2, figure 1",
        "arXiv:2105.14694",
        "thalweg compare piecewise-linear --samplers sgd,rr --starts common --seed 0",
        "0.10.2",
    ):
        assert said in text


def test_page_escapes_everything():
    evil = "--><script>alert('&')</script>"
    result = saved.line_result()
    result |= {"title": evil, "description": evil, "source": evil, "notes": [evil]}
    result |= {"sentences": [evil, evil], "environment": {evil: evil}}
    result["arguments"] = {"problem": evil, "data_dir": evil}
    result["problem"]["reading"] = {evil: evil}
    result["minima"][0]["name"] = evil
    for row in result["rows"]:
        row["label"] = evil
        row["ends"][0]["minimum"] = evil
    figures = [(figure, figure.render()) for figure in landscape_figures(result)]
    page = Page(html.page(result, figures))
    assert "script" not in page.tags
    assert page.text.count(evil) >= 14


def test_command_is_quoted_and_leaves_out_what_was_not_given():
    arguments = {
        "problem": "my file.py:well",
        "samplers": ["sgd", "rr"],
        "step": 0.5,
        "batch": None,
        "data_dir": "a b",
        "quick": True,
        "seed": 0,
    }
    result = {"schema": "thalweg.compare/1", "arguments": arguments}
    assert html.command(result) == (
        "thalweg compare 'my file.py:well' --samplers sgd,rr --step 0.5 --data-dir 'a b' "
        "--quick --seed 0"
    )
    result = {"schema": "thalweg.measure/1", "arguments": {"problem": "here", "quick": False}}
    assert html.command(result) == "thalweg measure here"


@pytest.mark.parametrize(
    "wrong", [{"schema": "thalweg.compare/2"}, {"kind": "essay"}, {"kind": None}]
)
def test_another_kind_of_result_is_refused(wrong, tmp_path):
    with pytest.raises(InputError, match=r"expected one of: thalweg\.compare/1 landscape, thalweg"):
        report.write(saved.line_result() | wrong, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_report_needs_no_jax():
    # The package's own face imports JAX; a stand-in with its path shows what the report imports.
    script = (
        "import sys, types; package = types.ModuleType('thalweg'); "
        f"package.__path__ = [{str(Path(thalweg.__file__).parent)!r}]; "
        "sys.modules['thalweg'] = package; import thalweg.report, thalweg.report.terminal; "
        "print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_the_table_of_predictions():
    _, table, *_ = tables(saved.line_result())
    names = ["sharp, global", "grid (SGD)", "grid (diffusion)"]
    assert table.header == ["sampler", *names, "flat", *names[1:]]
    assert table.rows == [
        ["SGD, B=1", "0", ".0000(5)", ".0000(5)", "1.000", "1.0000(5)", "1.0000(5)"],
        ["SGD, half step, B=1", "1.000", ".9993(5)", ".462(4)", "0", ".0007(5)", ".538(4)"],
        ["RR, B=1", ".945(16)", "–", "–", ".055(16)", "–", "–"],
    ]
    # Once, though both routes say it.
    assert table.caption.count("RR, B=1: RR keeps scores.") == 1


def test_stationary_densities_are_drawn_over_the_landscape():
    line, plane = saved.line_result(), saved.plane_result()
    panels = drawn(landscape_figures(line), "stationary").axes
    # SGD and SGD at half the step, each with the landscape on axes of its own.
    assert len(panels) == 4
    theta, density = panels[0].lines[0].get_data()
    assert theta[np.argmax(density)] == pytest.approx(-1.0, abs=0.08)
    panels = drawn(landscape_figures(plane), "stationary").axes
    assert [len(axes.images) for axes in panels] == [1, 1, 1, 1]
    image = panels[0].images[0].get_array()
    # Rows of an image are the second parameter: both highest in the middle.
    assert np.unravel_index(np.argmax(image), image.shape) in [(5, 5), (5, 6), (6, 5), (6, 6)]
    for row in line["rows"]:
        row["grid"] = None
    assert "stationary" not in [figure.name for figure in landscape_figures(line)]


def test_a_density_on_a_plane_grid_is_drawn_with_its_current():
    grid = thalweg.Grid([-1.0, -2.0], [1.0, 2.0], (20, 40))
    x, y = np.meshgrid(*grid.centres, indexing="ij")
    density, current = np.exp(-4 * x**2 - 4 * y**2), np.stack([-y, x])
    figure = grid_figure(grid, density, current=current)
    (axes,) = drawn([figure], "density").axes
    (arrows,) = [c for c in axes.collections if hasattr(c, "U")]
    # A rotation: arrows are at right angles to where they stand.
    across = arrows.U * arrows.X.ravel() + arrows.V * arrows.Y.ravel()
    assert np.abs(across).max() < 1e-12
    with pytest.raises(InputError, match="two dimensions"):
        grid_figure(thalweg.Grid(0.0, 1.0, 4), np.ones(4))
