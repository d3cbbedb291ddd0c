"""The README tells the truth: its example runs and its commands exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from thalweg import cli, landscapes
from thalweg.compare import networks

README = Path(__file__).parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


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


@pytest.mark.parametrize("line", [x for b in blocks("sh") for x in b.splitlines() if x.strip()])
def test_the_commands_are_ones_there_are(line):
    names = {*landscapes.names(), *(name for name, _ in networks())}
    command = line.split("#")[0].strip()
    if "thalweg " not in command:
        assert "pytest" in command
        return
    words = shlex.split(command.split("thalweg ", 1)[1])
    if words[0] == "compare":
        assert words[1] in names or words[1] == "my_problem.py:landscape"
        options = {word for word in words if word.startswith("--")}
        known = typer.main.get_command(cli.app).commands["compare"].params
        assert options <= {name for parameter in known for name in parameter.opts}
    else:
        assert words[0] in ("problems", "datasets")
