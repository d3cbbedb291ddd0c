"""The command line: what it passes on, writes, prints and refuses; the work is a stand-in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import helpers_report as saved
import thalweg
from thalweg import cli, compare
from thalweg.__main__ import main
from thalweg.compare.entries import NAMES
from thalweg.errors import InputError


@pytest.fixture
def calls(monkeypatch):
    """Replaces the comparison by one that notes what it was asked for."""
    seen = []

    def noted(problem, work, **options):
        seen.append({"problem": problem, "work": work(), **options})
        return saved.line_result()

    monkeypatch.setattr(compare, "compare", noted)
    return seen


@pytest.fixture
def command(capsys):
    """Runs the command; returns status, stdout and stderr."""

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())

    return call


def test_compare_writes_and_prints(calls, command, tmp_path):
    out = tmp_path / "new" / "results"
    status, stdout, stderr = command("compare", "piecewise-linear", "--out", out)
    assert (status, stderr) == (0, "")
    assert json.loads((out / "result.json").read_text())["schema"] == "thalweg.compare/1"
    figures = sorted(path.name for path in (out / "figures").iterdir())
    assert figures == ["ends.svg", "landscape.svg", "loss.svg", "stationary.svg"]
    assert ".945(16)" in stdout
    assert max(map(len, stdout.splitlines()[:-1])) <= 100
    assert stdout.splitlines()[-1] == str(out / "report.html")
    assert (out / "report.html").is_file()
    assert not (out / "checkpoints").exists()


def test_compare_passes_every_option_on(calls, command, tmp_path):
    status, _, _ = command(
        *("compare", "digits", "--samplers", "sgd, rr,gd", "--step", "0.5", "--batch", "32,8"),
        *("--trials", 7, "--steps", 9, "--starts", "random", "--seed", 3, "--data", "mnist"),
        *("--refresh", 5),
        *("--data-dir", tmp_path, "--quick", "--track", 2, "--out", tmp_path / "out"),
    )
    assert status == 0
    (call,) = calls
    assert call.pop("work") == tmp_path / "out" / "checkpoints"
    assert callable(call.pop("progress"))
    assert call == {
        "problem": "digits",
        "samplers": ("sgd", "rr", "gd"),
        "step": 0.5,
        "batch": (32, 8),
        "trials": 7,
        "steps": 9,
        "starts": "random",
        "refresh": 5,
        "seed": 3,
        "data": "mnist",
        "data_dir": tmp_path,
        "quick": True,
        "track": 2.0,
    }


def test_options_left_out_are_left_to_the_problem(calls, command, tmp_path):
    assert command("compare", "digits", "--out", tmp_path)[0] == 0
    given = {name: value for name, value in calls[0].items() if value is not None}
    del given["work"], given["progress"]
    assert given == {"problem": "digits", "starts": "common", "seed": 0, "quick": False}


def test_json_is_all_there_is_on_stdout(calls, command, tmp_path):
    status, stdout, stderr = command("compare", "digits", "--json", "--out", tmp_path)
    assert status == 0
    assert json.loads(stdout) == json.loads((tmp_path / "result.json").read_text())
    assert stderr.strip() == str(tmp_path / "report.html")


def test_folder_is_named_after_the_arguments(calls, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 0, 1):
        assert command("compare", "digits", "--seed", seed)[0] == 0
    folders = list((tmp_path / "thalweg-results").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("digits-") for folder in folders)


def test_results_of_other_arguments_are_kept(calls, command, tmp_path):
    command("compare", "digits", "--out", tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    status, stdout, stderr = command("compare", "digits", "--seed", 1, "--out", tmp_path)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("thalweg: error: ")
    assert "--overwrite" in stderr
    assert len(calls) == 1
    assert (tmp_path / "report.html").read_bytes() == before
    again = command("compare", "digits", "--seed", 1, "--out", tmp_path, "--overwrite")
    assert again[0] == 0
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare"], "problem"),
        (["frobnicate"], "frobnicate"),
        (["compare", "digits", "--frobnicate"], "--frobnicate"),
        (["compare", "digits", "--step", "small"], "--step"),
        (["compare", "digits", "--trials", "2.5"], "--trials"),
        (["compare", "digits", "--batch", "8;4"], "--batch is '8;4'; expected whole numbers"),
        (["compare", "digits", "--batch", ""], "--batch is ''; expected whole numbers"),
        (["compare", "digits", "--samplers", ","], "--samplers is ','; expected names"),
    ],
)
def test_bad_requests_are_one_line(arguments, said, calls, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = command(*arguments)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("thalweg: error: ")
    assert stderr.count("\n") == 1
    assert said in stderr
    assert not calls
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("step is -1;\n  expected more"), 2, "step is -1; expected more"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
    ],
)
def test_failures_are_one_line(error, status, line, command, tmp_path, monkeypatch):
    def fail(problem, **options):
        raise error

    monkeypatch.setattr(compare, "compare", fail)
    got = command("compare", "digits", "--out", tmp_path)
    assert got == (status, "", f"thalweg: error: {line}\n")


def test_unknown_problem_names_the_nearest(command, tmp_path):
    status, _, stderr = command("compare", "mueller-brwn", "--out", tmp_path)
    assert status == 2
    assert "did you mean 'mueller-brown'" in stderr


def test_interruption_says_how_to_go_on(command, tmp_path, monkeypatch):
    def interrupted(problem, work, **options):
        (work() / "sgd.npz").write_bytes(b"half of the way")
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "compare", interrupted)
    status, stdout, stderr = command("compare", "digits", "--out", tmp_path)
    assert (status, stdout) == (130, "")
    assert stderr.count("\n") == 1
    assert "the same command goes on" in stderr
    assert str(tmp_path) in stderr
    assert (tmp_path / "checkpoints" / "sgd.npz").exists()


def test_a_bar_a_sampler_on_a_terminal_only(command, tmp_path, monkeypatch):
    def working(problem, progress, **options):
        for done in (1, 2):
            progress("RR, B=8", done, 2)
        return saved.line_result()

    monkeypatch.setattr(compare, "compare", working)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    status, stdout, stderr = command("compare", "digits", "--out", tmp_path)
    assert status == 0
    assert "RR, B=8" in stderr
    assert "\x1b" not in stdout


def test_problems(command):
    status, stdout, _ = command("problems")
    assert status == 0
    names = [line.split()[0] for line in stdout.splitlines()]
    networks = [name for name, _ in compare.networks()]
    assert names == [*networks, *thalweg.landscapes.names()]
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in stdout.splitlines())


def test_datasets(command):
    status, stdout, _ = command("datasets")
    assert status == 0
    assert "digits              handwritten digits, 8x8, 10 classes (embedded" in stdout
    assert "california-housing" in stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "problems"), (["--help"], "which minimum"), (["compare", "--help"], "--samplers")],
)
def test_help(arguments, said, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    status, stdout, stderr = command(*arguments)
    assert (status, stderr) == (0, "")
    assert said.lower() in stdout.lower()


def test_typers_own_runner_sees_the_same_commands():
    result = CliRunner().invoke(cli.app, ["problems"])
    assert result.exit_code == 0
    assert "mueller-brown" in result.stdout


@pytest.mark.parametrize("package", ["typer", "jinja2", "matplotlib"])
def test_missing_packages_are_named(package, command, tmp_path, monkeypatch):
    # A package that is None in sys.modules cannot be imported.
    for name in list(sys.modules):
        if name.startswith(("thalweg.report", "thalweg.cli")) or name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(thalweg, "report", raising=False)
    monkeypatch.delattr(thalweg, "cli", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    status, stdout, stderr = command("compare", "digits", "--out", tmp_path / "out")
    assert (status, stdout) == (2, "")
    assert stderr == (
        f"thalweg: error: the command needs {package}, which is not installed; "
        'run: pip install "thalweg[cli]"\n'
    )
    assert not (tmp_path / "out").exists()


def test_other_missing_modules_are_not_hidden(monkeypatch):
    def broken(arguments):
        raise ModuleNotFoundError("No module named 'jaxlib'", name="jaxlib")

    monkeypatch.setattr(cli, "run", broken)
    with pytest.raises(ModuleNotFoundError, match="jaxlib"):
        main([])


def test_version_from_a_shell():
    done = subprocess.run(
        [sys.executable, "-m", "thalweg", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "thalweg 0.1.0\n"


@pytest.mark.parametrize("asked", ["--version", "--help"])
def test_command_line_needs_no_jax(asked):
    # The package's own face imports JAX; a stand-in with its path shows what the command imports.
    script = (
        "import sys, types; package = types.ModuleType('thalweg'); "
        f"package.__path__ = [{str(Path(thalweg.__file__).parent)!r}]; "
        "sys.modules['thalweg'] = package; from thalweg.__main__ import main; "
        f"status = main([{asked!r}]); heavy = {{'jax', 'numpy', 'matplotlib'}} & set(sys.modules); "
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "thalweg" in done.stdout


def test_a_terminal_without_greek_letters_ends_no_run(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import helpers_report as saved; "
        "from thalweg import compare; from thalweg.__main__ import main; "
        "compare.compare = lambda problem, work, **options: work() and saved.line_result(); "
        "sys.exit(main(['compare', 'digits', '--out', sys.argv[2]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "out")],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": "", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert b".945(16) is .945 ? .016" in done.stdout


def test_the_help_names_every_sampler():
    parameters = typer.main.get_command(cli.app).commands["compare"].params
    (text,) = (p.help for p in parameters if p.name == "samplers")
    assert {word.strip(",;.") for word in text.split()} >= set(NAMES)
