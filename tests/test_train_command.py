"""``thalweg train``: what it writes, goes on from, refuses; its folder measured and compared."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typer.main
from jax.flatten_util import ravel_pytree

import thalweg as tw
from thalweg import cli, datasets, models, progress
from thalweg.__main__ import main
from thalweg.errors import InputError
from thalweg.measure.params import load_params
from thalweg.measure.points import find
from thalweg.train import job as jobs

SMALL = """\
loss = "cross-entropy"
steps = 40
seeds = 2
evaluate_every = 20

[data]
name = "digits"
samples = 100

[model]
kind = "mlp"
hidden = [8]

[optimizer]
name = "sgd"
step = 0.1

[[sampler]]
name = "sgd"
batch = 10

[[sampler]]
name = "rolling"
batch = 10
step = 0.05

[assess]
samples = 50
directions = 1
"""


def bars_that_stop(row):
    """In the place of the bars: stops the command at the first word about this row."""

    @contextmanager
    def bars():
        def report(label, done, total):
            assert 0 <= done <= total
            if label == row:
                raise KeyboardInterrupt

        yield report

    return bars


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The configuration, and the folder of its training."""
    folder = tmp_path_factory.mktemp("train")
    config, out = folder / "small.toml", folder / "run"
    config.write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "shown", bars_that_stop("RR rolling, half step, B=10"))
        assert main(["train", str(config), "--out", str(out)]) == 130
    assert not (out / "result.json").exists()
    with pytest.raises(InputError, match="holds a training that is not finished"):
        find(str(out), None, None, None)
    assert main(["train", str(out), "--resume"]) == 0
    return config, out


@pytest.fixture
def command(capsys):
    """Runs the command; returns status, stdout and stderr."""

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())

    return call


def result_in(folder):
    return json.loads((folder / "result.json").read_text())


def timeless(row):
    """A row without what depends on the clock."""
    clock = ("seconds", "steps_per_second", "target", "cost")
    kept = {k: v for k, v in row.items() if k not in clock}
    kept["gauge"] = row["gauge"] and {
        name: row["gauge"][name] for name in ("step", "trace_sgd", "variance_ratio")
    }
    return {
        name: {k: v for k, v in value.items() if k != "seconds"}
        if name in ("curves", "evaluation")
        else value
        for name, value in kept.items()
    }


def test_the_numbers_are_those_of_the_parameters_it_saves(small):
    _, folder = small
    result = result_in(folder)
    assert (result["schema"], result["kind"]) == ("thalweg.train/1", "training")
    assert [row["label"] for row in result["rows"]] == ["SGD, B=10", "RR rolling, half step, B=10"]
    data, model = datasets.load("digits"), models.mlp((64, 8, 10))
    x, y = data.train.x[:100].reshape(100, -1), data.train.y[:100]
    points, unravel = np.load(folder / "points.npz"), ravel_pytree(model.init(jax.random.key(0)))[1]
    for row in result["rows"]:
        ends = [unravel(flat) for flat in points[row["label"]]]
        assert len(ends) == row["seeds"] == 2
        accuracies = [float(models.accuracy(model, end, data.test.x, data.test.y)) for end in ends]
        # JSON has seven digits, and the mean over 360 images is taken in single precision.
        assert row["test_accuracy"]["mean"] == pytest.approx(np.mean(accuracies), abs=1e-6)
        error = abs(accuracies[0] - accuracies[1]) / 2  # s/sqrt(2) of two numbers
        assert row["test_accuracy"]["error"] == pytest.approx(error, abs=1e-6)
        problem = tw.FiniteSum(models.supervised(model, models.cross_entropy), (x, y))
        losses = [float(problem.value(end)) for end in ends]
        # Sums of 100 losses in single precision in another order: 100 eps = 1.2e-5.
        assert row["loss"]["mean"] == pytest.approx(np.mean(losses), rel=1e-5)
        first = tw.FiniteSum(models.supervised(model, models.cross_entropy), (x[:50], y[:50]))
        # Eigenvalues are found to the square of 1e-2.
        sharp = float(tw.curvature.sharpness(first, ends[0]))
        assert row["sharpness"]["mean"] == pytest.approx(sharp, rel=1e-3)
        assert row["sharpness"]["error"] == 0
    plain, rolling = result["rows"]
    assert (plain["stable"], rolling["stable"]) == ("yes", None)
    assert plain["evaluation"]["step"] == [0, 20, 40]
    assert plain["curves"]["step"] == list(range(1, 41))
    assert plain["target"]["step"] is not None


def test_it_writes_a_page_and_prints_tables(small, command):
    config, folder = small
    status, stdout, stderr = command("train", config, "--out", folder)
    assert (status, stderr) == (0, "")
    assert stdout.splitlines()[-1] == str(folder / "report.html")
    assert max(map(len, stdout.splitlines()[:-1])) <= 100
    for word in ("SGD, B=10", "test", "unif.", "Best test accuracy", "flattest"):
        assert word in stdout
    page = (folder / "report.html").read_text()
    # The configuration stands on it, escaped.
    assert "name = &#34;digits&#34;" in page
    assert {"loss.svg", "test.svg"} <= {path.name for path in (folder / "figures").iterdir()}


def test_finished_folders_are_run_again_from_themselves(small, command, tmp_path):
    config, folder = small
    before = result_in(folder)
    status, stdout, _ = command("train", folder, "--json")
    assert status == 0
    assert [timeless(r) for r in json.loads(stdout)["rows"]] == [
        timeless(r) for r in before["rows"]
    ]
    # Comments and the name of the file do not make another run.
    (tmp_path / "renamed.toml").write_text("# the same\n" + config.read_text())
    assert command("train", tmp_path / "renamed.toml", "--out", folder)[0] == 0
    (tmp_path / "renamed.toml").write_text(config.read_text().replace("seeds = 2", "seeds = 3"))
    status, stdout, stderr = command("train", tmp_path / "renamed.toml", "--out", folder)
    assert (status, stdout) == (2, "")
    assert "holds the result of other arguments" in stderr


def test_resume_refuses_to_begin(small, command, tmp_path):
    config, folder = small
    status, _, stderr = command("train", config, "--out", tmp_path / "new", "--resume")
    assert status == 2
    assert "--resume: " in stderr
    assert "holds no training to go on with" in stderr
    assert not (tmp_path / "new").exists()
    assert command("train", folder, "--resume")[0] == 0


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_numbers(small, command, tmp_path):
    config, _ = small
    long = tmp_path / "long.toml"
    long.write_text(config.read_text().replace("steps = 40", "steps = 4000"))
    arguments = [sys.executable, "-m", "thalweg", "train", str(long), "--out", str(tmp_path / "a")]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "a" / "rows" / "rr-rolling-half-step-b-10" / "metrics.jsonl"
    try:
        until = time.monotonic() + 300
        # In the second row, after some records.
        while not metrics.exists() or len(metrics.read_bytes().splitlines()) < 10:
            assert process.poll() is None, "the process ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    environment = {**os.environ, "JAX_ENABLE_X64": "0"}
    subprocess.run([*arguments, "--resume"], check=True, env=environment, stdout=subprocess.DEVNULL)
    whole = [*arguments[:-1], str(tmp_path / "b")]
    subprocess.run(whole, check=True, env=environment, stdout=subprocess.DEVNULL)
    again, once = result_in(tmp_path / "a"), result_in(tmp_path / "b")
    assert [timeless(r) for r in again["rows"]] == [timeless(r) for r in once["rows"]]


def test_ends_are_found_by_the_row_and_the_seed(small):
    _, folder = small
    points = np.load(folder / "points.npz")
    with jax.enable_x64(False):
        for place, label, seed in (
            (None, "SGD, B=10", 0),
            ("RR rolling, half step, B=10 #1", "RR rolling, half step, B=10", 1),
        ):
            point = find(str(folder), None, place, None)
            np.testing.assert_array_equal(ravel_pytree(point.params)[0], points[label][seed])
            assert point.problem.n == 50
            assert point.batch_size == 10
        assert point.step == 0.05
        with pytest.raises(InputError, match="unknown point 'SGD, B=1'; did you mean 'SGD, B=10'"):
            find(str(folder), None, "SGD, B=1", None)


@pytest.mark.slow
def test_the_end_of_a_row_is_measured(small, command, tmp_path):
    _, folder = small
    status, _, stderr = command(
        *("measure", folder, "--quick", "--batch", 10, "--out", tmp_path / "measured")
    )
    assert (status, stderr) == (0, "")
    measured, row = result_in(tmp_path / "measured"), result_in(folder)["rows"][0]
    # Eigenvalues are found to the square of 1e-2 by both.
    assert measured["sharpness"] == pytest.approx(row["sharpness"]["mean"], rel=1e-3)
    assert measured["step"] == 0.1


def test_trainings_side_by_side(small, command, tmp_path):
    _, folder = small
    out = tmp_path / "both"
    status, _, stderr = command("compare", folder, folder, "--out", out)
    assert (status, stderr) == (0, "")
    result = result_in(out)
    assert [row["label"].split(": ")[1] for row in result["rows"]] == 2 * [
        "SGD, B=10",
        "RR rolling, half step, B=10",
    ]
    assert f"thalweg compare {folder} {folder}" in (out / "report.html").read_text()
    status, _, stderr = command("compare", folder, "--batch", 3, "--out", out)
    assert status == 2
    assert "--batch is for problems" in stderr
    status, _, stderr = command("compare", "digits", folder, "--out", tmp_path / "mixed")
    assert status == 2
    assert "got 2 problems" in stderr


def test_trainings_of_other_data_are_not_set_against_each_other(small, command, tmp_path):
    _, folder = small
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.toml", "origin.json", "result.json"):
        (other / name).write_text(
            (folder / name).read_text().replace('"noise": 0.0', '"noise": 0.5')
        )
    assert command("compare", folder, other, "--out", tmp_path / "both")[0] == 0
    result = result_in(tmp_path / "both")
    assert result["notes"][0].startswith("Data or losses differ")
    assert "data.noise: 0.0, 0.5." in result["notes"]
    assert all(row["target"] is None for row in result["rows"])


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("net = 3", "net is a int; expected (loss, init) or (loss, init, state)"),
        ("net = (1, 2, 3, 4)", "net is a tuple of 4; expected (loss, init)"),
        ("other = 3", "has no 'net'; expected (loss, init)"),
    ],
)
def test_files_that_hold_no_objective(own, said, command, tmp_path):
    (tmp_path / "net.py").write_text(own)
    text = SMALL.replace('loss = "cross-entropy"', 'model = "net.py:net"')
    (tmp_path / "own.toml").write_text(text.replace('[model]\nkind = "mlp"\nhidden = [8]\n', ""))
    status, _, stderr = command("train", tmp_path / "own.toml", "--out", tmp_path / "run")
    assert status == 2
    assert f"{tmp_path / 'own.toml'}, line 1: " in stderr
    assert said in stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_batch_norm_takes_its_state_along(command, tmp_path):
    text = SMALL.replace("hidden = [8]", "hidden = [8]\nbatch_norm = true")
    text = text[: text.index('[[sampler]]\nname = "rolling"')] + "[assess]\nseeds = 0\n"
    config, out = tmp_path / "norm.toml", tmp_path / "run"
    config.write_text(text)
    status, _, stderr = command("train", config, "--out", out, "--track", 1)
    assert status == 2
    assert "this model keeps a state of its own" in stderr
    assert command("train", config, "--out", out)[0] == 0
    (row,) = result_in(out)["rows"]
    data = datasets.load("digits")
    with jax.enable_x64(False):
        right = []
        for seed in (0, 1):
            point = find(str(out), None, f"SGD, B=10 #{seed}", None)
            outputs = jax.vmap(point.problem.loss.outputs, in_axes=(None, 0))
            logits = outputs(point.params, (jnp.asarray(data.test.x), jnp.asarray(data.test.y)))
            right.append(float(np.mean(np.argmax(logits, axis=1) == data.test.y)))
    # With the running statistics of the seed; a share of 360 images in seven digits.
    assert row["test_accuracy"]["mean"] == pytest.approx(np.mean(right), abs=1e-6)


@pytest.mark.slow
def test_a_row_that_diverges_is_told_and_the_others_stand(command, tmp_path):
    text = SMALL.replace("batch = 10\nstep = 0.05", "batch = 10\nstep = 1e30")
    text = text.replace("[assess]", "[assess]\nseeds = 0")
    (tmp_path / "wild.toml").write_text(text)
    status, stdout, _ = command("train", tmp_path / "wild.toml", "--out", tmp_path / "run")
    assert status == 0
    good, wild = result_in(tmp_path / "run")["rows"]
    assert (good["diverged"], wild["diverged"], wild["loss"]) == (0, 2, None)
    assert "RR rolling, step 1e+30, B=10 diverged: the loss" in stdout
    (tmp_path / "wild.toml").write_text(text.replace("step = 0.1", "step = 1e30"))
    status, stdout, stderr = command("train", tmp_path / "wild.toml", "--out", tmp_path / "all")
    assert status == 1
    assert "every row has diverged; " in stderr


@pytest.mark.slow
def test_followed_curvature_is_that_of_the_way(small, tmp_path):
    config, folder = small
    result = jobs.Job.of(config, track=100.0).run(tmp_path)
    plain, rolling = result["rows"]
    assert rolling["track"] is None
    track = plain["track"]
    np.testing.assert_array_equal(track["steps"], np.arange(2, 41, 2))
    # Training in parts ends where training at once has ended.
    before = result_in(folder)["rows"][0]
    assert plain["loss"]["mean"] == pytest.approx(before["loss"]["mean"], rel=1e-6)
    # Both find eigenvalues to the square of 1e-2, from other starts.
    assert track["sharpness"][-1] == pytest.approx(before["sharpness"]["mean"], rel=1e-3)


def bowl(p, x):
    return jnp.dot(p["w"], x) ** 2 / 2 + p["b"][0] ** 2


def checkpointed(folder):
    """A run of three chains that has left a checkpoint."""
    return tw.simulate(
        tw.Descent(tw.FiniteSum(bowl, jnp.eye(3) + 0.5), tw.Minibatch(1), 0.1),
        {"w": jnp.ones(3), "b": (jnp.ones(()),)},
        steps=5,
        chains=3,
        key=jax.random.key(0),
        checkpoint=folder / "run.npz",
    )


def test_parameters_of_a_simulations_checkpoint(tmp_path):
    run, path = checkpointed(tmp_path), tmp_path / "run.npz"
    for place, chain in ((None, 2), ("0", 0)):
        name, params = load_params(path, place)
        assert name == f"{path}, chain {chain}"
        np.testing.assert_array_equal(params["w"], run.params["w"][chain])
        np.testing.assert_array_equal(params["b"][0], run.params["b"][0][chain])
    with pytest.raises(InputError, match=r"--point is '3'; .* has the chains 0 to 2"):
        load_params(path, "3")


@pytest.mark.slow
def test_the_chain_of_a_checkpoint_is_measured(command, tmp_path):
    run = checkpointed(tmp_path)
    (tmp_path / "own.py").write_text(
        "import jax.numpy as jnp, thalweg as tw\n"
        "def loss(p, x):\n    return jnp.dot(p['w'], x) ** 2 / 2 + p['b'][0] ** 2\n"
        "problem = tw.FiniteSum(loss, jnp.eye(3) + 0.5)\n"
    )
    out = tmp_path / "out"
    target = f"{tmp_path / 'own.py'}:problem"
    words = ("--params", tmp_path / "run.npz", "--point", 1, "--out", out)
    assert command("measure", target, *words)[0] == 0
    result = result_in(out)
    at = jax.tree.map(lambda x: x[1], run.params)
    value = float(tw.FiniteSum(bowl, jnp.eye(3) + 0.5).value(at))
    assert result["loss"] == pytest.approx(value, rel=1e-6)
    # H = mean of x x' in w, and 2 in b; x are rows of 1 + 1/2 on and 1/2 off the diagonal.
    rows = np.eye(3) + 0.5
    largest = max(2.0, np.linalg.eigvalsh(rows.T @ rows / 3)[-1])
    assert result["sharpness"] == pytest.approx(largest, rel=1e-6)


def test_examples_are_configurations_that_make_sense():
    from thalweg.train.config import load

    files = sorted((Path(__file__).parents[1] / "examples" / "train").glob("*.toml"))
    assert [file.stem for file in files] == ["a9a", "digits", "fashion-mnist"]
    for file in files:
        assert load(file).config.seeds > 1


DOCUMENT = Path(__file__).parents[1] / "docs" / "training.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_the_documents_example_runs(command, tmp_path):
    (text,), (own,) = blocks("toml"), blocks("python")
    path = tmp_path / "run.toml"
    path.write_text(text)
    rows = [row.label for row in jobs.Job.of(path).rows]
    assert rows == ["SGD, B=10", "SGD, half step, B=10", "RR rolling, B=10"]
    # The same with the model of one's own, and one row.
    (tmp_path / "net.py").write_text(own)
    text = text.replace(text[text.index("loss =") : text.index("epochs")], 'model = "net.py:net"\n')
    text = text.replace(text[text.index("[model]") : text.index("[optimizer]")], "")
    text = text[: text.index('[[sampler]]\nname = "sgd"                #')] + "[assess]\nseeds = 0"
    path.write_text(text.replace("seeds = 3 ", "seeds = 1\ngauge_every = 1000 "))
    out = tmp_path / "run"
    assert command("train", path, "--out", out)[0] == 0
    (row,) = result_in(out)["rows"]
    assert row["test_accuracy"] is None
    # Softmax regression starts at log 10 = 2.3.
    assert row["loss"]["mean"] < 2
    # The run folder knows where the file was, and sees that it is another one now.
    before = jobs.Job.of(out).arguments
    assert before == jobs.Job.of(path).arguments
    (tmp_path / "net.py").write_text(own + "\n# changed\n")
    assert jobs.Job.of(out).arguments != before


def test_the_documents_commands_are_ones_there_are():
    commands = typer.main.get_command(cli.app).commands
    lines = [line.split("#  ")[0].split("  #")[0] for b in blocks("sh") for line in b.splitlines()]
    assert len(lines) == 4
    for line in lines:
        program, name, *words = shlex.split(line)
        options = {word for word in words if word.startswith("--")}
        known = {opt for parameter in commands[name].params for opt in parameter.opts}
        assert (program, options <= known) == ("thalweg", True)
