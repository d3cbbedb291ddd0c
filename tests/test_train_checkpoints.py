"""Interruptions, kills, and run folders that are damaged, foreign, in use or full."""

import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from helpers import bowl, bowls, bytes_of
from helpers_train import KEY, LOSS, options, samples, start, trained
from thalweg.errors import InputError
from thalweg.sampling.reweighted import Reweighted
from thalweg.train import train
from thalweg.train.auto import Auto
from thalweg.train.gauging import Gauging
from thalweg.train.history import History

ADAM = optax.adam(0.05)


class StopError(Exception):
    """What ends a run from outside."""


def stop_after(step):
    """A progress callback that ends the run at the first chance after a step."""

    def progress(done, total, text):
        if done >= step:
            raise StopError

    return progress


def common(**changes):
    """A run that looks at everything, with a checkpoint after each segment."""
    looks = {"validation": samples(), "evaluate_every": 20, "save_seconds": 0.0}
    return {"steps": 60, "optimizer": ADAM, **looks, **changes}


def same(run, other):
    """To the last bit, but for the clock."""
    parts = ("params", "state", "optimizer_state", "sampler_state")
    for name in parts:
        assert bytes_of(getattr(run, name)) == bytes_of(getattr(other, name)), name
    looks = (r.history["evaluation"] for r in (run, other))
    for a, b in ((run.history, other.history), looks):
        for name in set(a) - {"seconds", "evaluation"}:
            np.testing.assert_array_equal(a[name], b[name])
    assert run.step == other.step
    np.testing.assert_array_equal(run.stopped, other.stopped)


def interrupted(folder, step=13, **changes):
    with pytest.raises(StopError):
        trained(folder=folder, progress=stop_after(step), **common(**changes))


@pytest.mark.parametrize(
    ("sampler", "more"),
    [
        (tw.Reshuffled(8), {}),
        (Reweighted(8, refresh=7), {"members": 2, "stop_below": 0.0, "scores": "loss"}),
    ],
    ids=["passes", "kept-scores-of-members"],
)
def test_a_run_that_was_interrupted_goes_on(tmp_path, sampler, more):
    whole = trained(**common(sampler=sampler, **more))
    for step in (13, 41):
        interrupted(tmp_path / "run", step, sampler=sampler, **more)
    resumed = trained(folder=tmp_path / "run", **common(sampler=sampler, **more))
    same(resumed, whole)
    # Finished: nothing is left to do, and everything is still known.
    same(trained(folder=tmp_path / "run", **common(sampler=sampler, **more)), whole)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows if "loss" in row] == list(range(5, 61, 5))
    assert [row["step"] for row in rows if "evaluation" in row] == [0, 20, 40, 60]


def test_a_sampler_that_was_switched_goes_on(tmp_path, monkeypatch):
    # By times that repeat, as if a step of the candidate took half as long: that pays.
    monkeypatch.setattr(Gauging, "due", lambda self, step: step % self.every == 0)
    monkeypatch.setattr(Gauging, "_cost_ratio", lambda self, crew: 0.5)
    data = bowls(n=40).data
    auto = Auto(2, every=10, samples=64)
    kind = {"sampler": auto, "optimizer": 1e-2, "steps": 60, "key": KEY, "record_every": 5}
    begin = jnp.array([30.0, -30.0])
    whole = train(bowl, begin, data, **kind)
    assert [name for _, name in whole.switches][:1] == ["Rolling"]
    with pytest.raises(StopError):
        train(bowl, begin, data, **kind, folder=tmp_path, progress=stop_after(33))
    resumed = train(bowl, begin, data, **kind, folder=tmp_path)
    assert resumed.switches == whole.switches
    assert [g.step for g in resumed.gauges] == [0, 10, 20, 30, 40, 50]
    same(resumed, whole)


def test_an_interruption_amid_a_record_repeats_it(tmp_path, monkeypatch):
    whole = trained(**common())
    add = History.add

    def stopping(self, step, seconds, **values):
        add(self, step, seconds, **values)
        if step == 40:
            raise StopError

    with monkeypatch.context() as patched:
        patched.setattr(History, "add", stopping)
        with pytest.raises(StopError):
            trained(folder=tmp_path, **common())
    same(trained(folder=tmp_path, **common()), whole)


def test_more_steps_go_on_from_where_the_run_is(tmp_path):
    short = trained(folder=tmp_path, **common(steps=20))
    assert short.step == 20
    same(trained(folder=tmp_path, **common()), trained(**common()))
    with pytest.raises(InputError, match="is at step 60 and steps= is 20"):
        trained(folder=tmp_path, **common(steps=20))


def test_another_run_is_refused(tmp_path):
    trained(folder=tmp_path, **common(steps=5))
    x, y = samples()
    others = [
        {"optimizer": optax.adam(0.06)},
        {"sampler": tw.Minibatch(4)},
        {"record_every": 10},
        {"members": 1},
    ]
    for change in others:
        with pytest.raises(InputError, match="belongs to a run with other arguments"):
            trained(folder=tmp_path, **{**common(steps=5), **change})
    with pytest.raises(InputError, match="belongs to a run with other arguments"):
        train(LOSS, start(), (x + 1e-9, y), folder=tmp_path, **options(**common(steps=5)))
    # Equal ones that were made anew are the same run.
    trained(folder=tmp_path, **common(steps=5, optimizer=optax.adam(0.05)))


# Orbax's own threads end by the error that it raises, and what is under way then has no loop left.
_THREADS = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def _damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


@_THREADS
def test_a_damaged_checkpoint_is_refused(tmp_path):
    whole = trained(folder=tmp_path / "good", **common())
    checkpoints = Path("checkpoints") / "60"
    parts = [p for p in (tmp_path / "good" / checkpoints).rglob("*") if p.is_file()]
    refused = 0
    for number, part in enumerate(parts):
        if part.stat().st_size == 0:
            continue
        folder = tmp_path / f"bad-{number}"
        shutil.copytree(tmp_path / "good", folder)
        _damage(folder / part.relative_to(tmp_path / "good"))
        said = ""
        try:
            same(trained(folder=folder, **common()), whole)
        except InputError as error:
            said = str(error)
            refused += 1
        assert not said or re.search("cannot be used .*; delete it to go on from step", said)
    # Numbers and the values beside them; not the notes that Orbax keeps for itself.
    assert refused >= 3
    shutil.rmtree(folder / checkpoints)
    same(trained(folder=folder, **common()), whole)


@_THREADS
def test_a_file_that_is_no_checkpoint_is_never_unpickled(tmp_path):
    trained(folder=tmp_path, **common())

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for part in (tmp_path / "checkpoints" / "60").rglob("*"):
        if part.is_file() and part.stat().st_size:
            part.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="cannot be used"):
        trained(folder=tmp_path, **common())
    assert not (tmp_path / "sprung").exists()


def test_records_that_do_not_fit_the_checkpoint_are_refused(tmp_path):
    trained(folder=tmp_path, **common())
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:100])
    with pytest.raises(InputError, match="not what the checkpoint was made with"):
        trained(folder=tmp_path, **common())
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        trained(folder=tmp_path, **common())


def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path):
    def inside(done, total, text):
        with pytest.raises(InputError, match=f"in use by another process .{os.getpid()}."):
            trained(folder=tmp_path, **common(steps=5))

    trained(folder=tmp_path, progress=inside, **common(steps=5))
    trained(folder=tmp_path, **common(steps=5))


@_THREADS
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    # A limit on the size of files stops the writing of arrays half way, as a full disk does.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = trained(**common())

    def fill(done, total, text):
        if done >= 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))

    try:
        with pytest.raises(OSError, match=r"of step \d+ is whole"):
            trained(folder=tmp_path, progress=fill, **common())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    same(trained(folder=tmp_path, **common()), whole)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import conftest
import numpy as np
from helpers_train import trained
from test_train_checkpoints import LONG
run = trained(folder={folder!r}, **LONG)
np.savez({folder!r} + "/end.npz", run.history["loss"], *[x for p in run.params for x in p.values()])
"""
LONG = {
    "sampler": tw.Reshuffled(8),
    "optimizer": ADAM,
    "steps": 60_000,
    "record_every": 1000,
    "validation": samples(),
    "evaluate_every": 10_000,
    "save_seconds": 0.1,
}


@pytest.mark.slow
def test_kill_9_at_any_moment(tmp_path):
    whole = trained(**LONG)
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    rng = np.random.default_rng(0)
    kills, metrics = 0, tmp_path / "metrics.jsonl"
    for _ in range(100):
        process = subprocess.Popen([sys.executable, "-c", script])
        before = metrics.stat().st_size if metrics.exists() else 0
        while process.poll() is None and not (
            metrics.exists() and metrics.stat().st_size not in (0, before)
        ):
            time.sleep(0.02)
        try:
            process.wait(timeout=rng.uniform(0, 1.5))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert process.returncode == 0
    assert kills >= 2
    with np.load(tmp_path / "end.npz") as end:
        found = [end[name] for name in end.files]
    expected = [whole.history["loss"], *[x for p in whole.params for x in p.values()]]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    lines = metrics.read_text().splitlines()
    assert len([line for line in lines if '"loss":' in line and "evaluation" not in line]) == 60


@pytest.mark.slow  # the import of tensorboardX takes seconds
def test_tensorboard_gets_the_records(tmp_path):
    trained(folder=tmp_path, tensorboard=True, **common(steps=20))
    written = list((tmp_path / "tensorboard").iterdir())
    content = b"".join(file.read_bytes() for file in written)
    assert b"loss" in content
    assert b"evaluation/loss" in content
    with pytest.raises(InputError, match="give folder="):
        trained(tensorboard=True)
