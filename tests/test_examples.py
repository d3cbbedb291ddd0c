"""What stands in docs and examples runs, and says what it is said to say."""

import re
import runpy
import sys
from pathlib import Path

import jax
import pytest

import thalweg as tw

ROOT = Path(__file__).parents[1]


def test_the_current_of_noise_that_grows_across_the_valley(monkeypatch, capsys, tmp_path):
    picture = tmp_path / "current.svg"
    monkeypatch.setattr(sys, "argv", ["stationary_current.py", str(picture)])
    runpy.run_path(str(ROOT / "examples" / "stationary_current.py"))
    lines = capsys.readouterr().out.splitlines()
    # Known to five digits; 256 cells an axis are off by less than one in the last.
    assert lines[:2] == ["E x^2 = 0.29312", "E y^2 = 0.14656"]
    assert picture.read_bytes().startswith(b"<?xml")


def test_the_page_on_grids_compares_sgd_with_its_diffusion(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "grids.md").read_text(), re.S)
    exec(compile(code, "grids.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    steps = [float(re.search(r": (\d+) steps", line).group(1)) for line in printed]
    # Noise of +-1 at a step of .1 lacks the tails of normal noise: SGD takes longer.
    assert [line.split(":")[0] for line in printed] == ["Descent", "Diffusion"]
    assert steps[0] > 1.1 * steps[1]


def test_the_page_on_escape_says_how_long_sgd_takes(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "escape.md").read_text(), re.S)
    names = {}
    exec(compile(code, "escape.md", "exec"), names)
    law, rare, crossed = names["law"], names["rare"], names["crossed"]
    # On cells that are small against the moves of .07 the grid is exact to a per cent.
    chain = tw.discretise(names["descent"], tw.Grid(-2.5, 2.5, 4000))
    exact = float(chain.exit_time(lambda theta: ~crossed(theta)).at([-1.0])) / 0.07
    assert abs(rare.mean_exit_steps - exact) < 3 * rare.error + 0.01 * exact
    # The diffusion limit is half as slow, and its law says so.
    assert law.valid
    assert 0.4 < law.steps / exact < 0.8
    assert f"{rare.mean_exit_steps:.3g}" in capsys.readouterr().out


def run_example(name, picture, monkeypatch, capsys):
    """Its lines; the picture is drawn, too."""
    monkeypatch.setattr(sys, "argv", [name, str(picture)])
    runpy.run_path(str(ROOT / "examples" / name))
    assert picture.read_bytes().startswith(b"<?xml")
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_ways_out_of_the_minimum_of_mueller_brown(monkeypatch, capsys, tmp_path):
    lines = run_example("mueller_brown_paths.py", tmp_path / "a.svg", monkeypatch, capsys)
    assert lines[0] == "passes at -10.157, -14.393"
    # Along the path of minimum energy the action is larger than the least one.
    assert 0 < float(re.search(r": ([\d.]+) ", lines[1]).group(1)) < 12


@pytest.mark.slow
def test_constant_noise_and_noise_that_scales_with_the_loss_select_alike(
    monkeypatch, capsys, tmp_path
):
    lines = run_example("flat_minimisers.py", tmp_path / "a.svg", monkeypatch, capsys)
    expected = float(lines[0].split("= ")[1])
    for line in lines[1:]:
        found, error = map(float, line.split("= ")[1].split(" +- "))
        # The laws are those of the limit: at these temperatures they are some per cent off it.
        assert abs(found - expected) < 3 * error + 0.05 * expected


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("plain_function", marks=pytest.mark.slow),
        pytest.param("flax_model", marks=pytest.mark.slow),
        pytest.param("equinox_model", marks=pytest.mark.slow),
        pytest.param("pytorch_module", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_model_of_ones_own_is_trained_by_rr_and_measured(name, capsys):
    if name == "pytorch_module":
        pytest.importorskip("torchax")
    path = ROOT / "examples" / "train" / f"{name}.py"
    assert len(path.read_text().splitlines()) < 40
    with jax.enable_x64(False):
        runpy.run_path(str(path))
    lines = capsys.readouterr().out.splitlines()
    losses = {
        line.split(":")[0]: float(re.search(r"loss ([\d.]+)", line).group(1)) for line in lines[::2]
    }
    # From log 10 = 2.30 both come to the same loss: RR leaves the mean of the gradient as it is.
    assert max(losses.values()) < 0.5
    assert abs(losses["Rolling"] - losses["Minibatch"]) < 0.05
    assert all(re.match("RR would (not )?pay here", line) for line in lines[1::2])
