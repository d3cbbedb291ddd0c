"""The README tells the truth: its example runs and its commands exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from thalweg import cli, landscapes, papers
from thalweg.compare import networks

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def blocks(language, path=README):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


COMMANDS = (README, ROOT / "docs" / "curvature.md")


def test_the_example_runs(capsys):
    (code,) = blocks("python")
    lines = [line for line in code.splitlines() if line and not line.startswith("import")]
    assert len(lines) <= 10
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    # Gradient descent cannot leave. SGD at temperature eta/2 = .05 has a barrier of 5 to cross:
    # Kramers' time is pi sqrt(2) e^5 = 660, the run's 500; fewer than all leave, and not few.
    assert printed[0] == "Full: 0.000 ± 0.000 reached the other well"
    name, fraction = printed[1].split()[:2]
    assert name == "Minibatch:"
    assert 0.2 < float(fraction) < 0.8


@pytest.mark.parametrize(
    "line", [x for p in COMMANDS for b in blocks("sh", p) for x in b.splitlines() if x.strip()]
)
def test_the_commands_are_ones_there_are(line):
    names = {*landscapes.names(), *(name for name, _ in networks())}
    command = line.split("#")[0].strip()
    if "thalweg " not in command:
        assert "pytest" in command
        return
    words = shlex.split(command.split("thalweg ", 1)[1])
    own = ("my_problem.py:landscape", "my_net.py:problem", "run", "thalweg-results/digits-...")
    if words[0] in ("compare", "measure"):
        assert words[1] in names or words[1] in own
        options = {word for word in words if word.startswith("--")}
        known = typer.main.get_command(cli.app).commands[words[0]].params
        assert options <= {name for parameter in known for name in parameter.opts}
    elif words[0] == "train":
        assert (ROOT / words[1]).is_file()
    elif words[0] == "reproduce":
        assert papers.chosen([words[1]])
    else:
        assert words[0] in ("problems", "datasets")


def test_the_example_on_stability_runs(capsys):
    (code,) = blocks("python", ROOT / "docs" / "curvature.md")
    exec(compile(code, "curvature.md", "exec"), {})
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("up to 0.2616; condition (4) vouches for 0.2500")
    assert second.startswith("almost every path is stable up to 0.36")
    assert third == "with B = 2: 0.4577; the smallest batch for .3 is 2"
