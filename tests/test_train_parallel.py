"""Training on several devices and in several processes: the numbers of one, but for rounding."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from helpers import bowl, bowls
from helpers_train import KEY, LOSS, assert_close, options, samples, start
from thalweg.errors import InputError
from thalweg.sampling.presampled import Presampled
from thalweg.sampling.reweighted import Reweighted
from thalweg.sampling.rolling import Rolling
from thalweg.train import train
from thalweg.train.auto import Auto
from thalweg.train.crew import Crew
from thalweg.train.training import TrainingError

# What every process runs: a function of this file, on a folder.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest
import jax
if len(sys.argv) > 4:
    jax.distributed.initialize(
        sys.argv[4], int(sys.argv[5]), int(sys.argv[6]), heartbeat_timeout_seconds=10
    )
import test_train_parallel
from pathlib import Path
getattr(test_train_parallel, sys.argv[2])(Path(sys.argv[3]))
print("devices", jax.device_count(), "processes", jax.process_count())
"""
ADAM = optax.adam(0.05)
SAMPLERS = {
    "sgd": tw.Minibatch(8),
    "full": tw.Full(),
    "reshuffled": tw.Reshuffled(8),
    "rolling": Rolling(8),
    "presampled": Presampled(8),
    "reweighted": Reweighted(8, refresh=7),
}


class Reading:
    """Samples that are read, and which have been."""

    def __init__(self, data):
        self.data, self.seen = data, []

    def __len__(self):
        return len(self.data[0])

    def __getitem__(self, i):
        self.seen.append(i)
        return tuple(x[i] for x in self.data)


def a_run(n=40, source=False, **changes):
    """A run that looks at everything; 40 samples divide among four devices, 41 do not."""
    usual = {"steps": 40, "optimizer": ADAM, "validation": samples(n), "evaluate_every": 10}
    data = Reading(samples(n)) if source else samples(n)
    return train(LOSS, start(), data, **options(**{**usual, **changes}))


def numbers(run):
    """All that a run gives but its times."""
    history = {name: x for name, x in run.history.items() if name != "seconds"}
    history["evaluation"] = {k: x for k, x in history["evaluation"].items() if k != "seconds"}
    tree = run.params, run.optimizer_state, run.sampler_state, run.step, history
    return jax.tree.map(np.asarray, tree)


def keep(folder, **runs):
    """The numbers of runs, in files, by the first process."""
    for name, run in runs.items():
        # Every process has all of them, as arrays of its own.
        arrays = jax.tree.leaves(numbers(run))
        if jax.process_index() == 0:
            np.savez(folder / f"{name}.npz", *arrays)


def assert_kept(folder, name, run):
    with np.load(folder / f"{name}.npz") as file:
        found = [file[key] for key in file.files]
    # Sums of 8 terms in another order differ by some rounding units (2e-16) in each step; over 40
    # steps of a smooth loss they grow as those of two programs do, of which helpers_train speaks.
    assert_close(found, jax.tree.leaves(numbers(run)))


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def started_elsewhere(function, folder, devices=1, processes=1):
    """Processes with so many devices each, that run a function of this file."""
    address = free_address()
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), function, str(folder)]
    return [
        subprocess.Popen(
            [*command, *([address, str(processes), str(i)] if processes > 1 else [])],
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in range(processes)
    ]


def run_elsewhere(function, folder, devices=1, processes=1):
    """Run a function of this file in processes with so many devices each."""
    started = started_elsewhere(function, folder, devices, processes)
    try:
        heard = [process.communicate(timeout=500)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, said in zip(started, heard, strict=True):
        assert process.returncode == 0, said
        assert f"devices {devices * processes} processes {processes}" in said


def watch():
    """Note how scores are divided after each segment."""
    seen = []
    advance = Crew.advance

    def watched(self, begin, end):
        advance(self, begin, end)
        norms = self.carries[0].sampler.norms
        seen.append((norms.sharding.shard_shape(norms.shape), norms.is_fully_addressable))

    Crew.advance = watched
    return seen


def two_take_over(folder):
    """Go on with a run of one process, and leave half a run to one."""
    seen = watch()
    keep(folder, resumed=a_run(sampler=SAMPLERS["rolling"], folder=folder / "ones"))
    assert seen
    assert set(seen) == {((20,), False)}
    a_run(sampler=SAMPLERS["rolling"], folder=folder / "twos", steps=20)


def test_two_processes_give_the_numbers_of_one_and_each_takes_over_from_the_other(tmp_path):
    rolling = SAMPLERS["rolling"]
    whole = a_run(sampler=rolling)
    a_run(sampler=rolling, folder=tmp_path / "ones", steps=20)
    run_elsewhere("two_take_over", tmp_path, processes=2)
    assert_kept(tmp_path, "resumed", whole)
    back = a_run(sampler=rolling, folder=tmp_path / "twos")
    assert_close(numbers(back), numbers(whole))
    # One line for each record, of the first process alone.
    lines = (tmp_path / "twos" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 40 // 5 + 5


def kinds(sizes):
    """Runs of all kinds by name, on numbers of samples that divide among the devices or do not."""
    everywhere = None if jax.device_count() == 1 else jax.devices()
    for n in sizes:
        for name, sampler in SAMPLERS.items():
            yield f"{name}-{n}", a_run(n, sampler=sampler, devices=everywhere)
    n, more = sizes[-1], {"devices": everywhere}
    rolling = SAMPLERS["rolling"]
    yield "members", a_run(n, sampler=rolling, members=3, stop_below=0.3, **more)
    yield "accumulate", a_run(n, sampler=tw.Minibatch(6), accumulate=2, **more)
    yield "gauge", a_run(n, sampler=rolling, gauge_every=10, **more)
    yield "streamed", a_run(n, source=True, sampler=tw.Minibatch(8), **more)
    yield "streamed-scores", a_run(n, source=True, sampler=rolling, scores="loss", **more)
    kept = SAMPLERS["reweighted"]
    yield "streamed-kept", a_run(n, source=True, sampler=kept, scores="loss", **more)


def four_devices(folder):
    keep(folder, **dict(kinds([40, 41])))


def two_processes(folder):
    keep(folder, **dict(kinds([41])))


@pytest.mark.slow
def test_four_devices_give_the_numbers_of_one(tmp_path):
    run_elsewhere("four_devices", tmp_path, devices=4)
    for name, run in kinds([40, 41]):
        assert_kept(tmp_path, name, run)


@pytest.mark.slow
def test_two_processes_of_two_devices_give_the_numbers_of_one(tmp_path):
    run_elsewhere("two_processes", tmp_path, devices=2, processes=2)
    for name, run in kinds([41]):
        assert_kept(tmp_path, name, run)


def two_at_odds(folder):
    """What two processes that share little must agree on."""
    first = jax.process_index() == 0
    # Each reads its half of the batches, and little else.
    source = Reading(samples(41))
    train(LOSS, start(), source, **options(record_every=20))
    assert len(source.seen) <= 20 * 4 + 5
    # By the clock of the first: whatever Auto makes of it, both do the same.
    data = bowls(n=40).data
    data["curvature"] = data["curvature"].at[3].mul(1000.0)
    auto = Auto(2, every=10, samples=64)
    kind = {"sampler": auto, "optimizer": 1e-4, "steps": 60, "key": KEY, "record_every": 5}
    run = train(bowl, jnp.array([30.0, -30.0]), data, **kind)
    said = {"switches": run.switches, "gauges": [gauge._asdict() for gauge in run.gauges]}
    (folder / f"auto-{jax.process_index()}.json").write_text(json.dumps(said))
    # Errors that the first alone sees, and one that none could see alone.
    (folder / "record.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        a_run(folder=folder)
    with pytest.raises(InputError, match="process 1 was called with other arguments or data"):
        a_run(optimizer=0.1 if first else 0.2)
    with pytest.raises(InputError, match="has none of process"):
        a_run(devices=jax.local_devices())
    plain = {"sampler": tw.Minibatch(2), "folder": folder / "failed"}
    # A failure that all see, each with the samples of the step.
    with pytest.raises(TrainingError, match="largest gradient norms"):
        train(bowl, jnp.array([30.0, -30.0]), data, **{**kind, "optimizer": 1e150, **plain})


@pytest.mark.slow
def test_processes_agree(tmp_path):
    run_elsewhere("two_at_odds", tmp_path, processes=2)
    said = [(tmp_path / f"auto-{i}.json").read_text() for i in range(2)]
    assert said[0] == said[1]


def steps_in(checkpoints):
    """Of the checkpoints that are complete."""
    return [int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()]


def without_end(folder):
    a_run(steps=10**6, evaluate_every=None, folder=folder / "run", save_seconds=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_a_process_ends_the_others_and_costs_an_interval(tmp_path, victim):
    started = started_elsewhere("without_end", tmp_path, processes=2)
    checkpoints = tmp_path / "run" / "checkpoints"
    try:
        while not steps_in(checkpoints):
            assert all(process.poll() is None for process in started)
            time.sleep(0.1)
        started[victim].send_signal(signal.SIGKILL)
        # An error at once, and then a heartbeat that is missed.
        assert started[1 - victim].wait(timeout=60) not in (0, None)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    changes = {"steps": max(steps_in(checkpoints)) + 20, "evaluate_every": None}
    assert_close(numbers(a_run(folder=tmp_path / "run", **changes)), numbers(a_run(**changes)))


CONFIG = """
loss = "cross-entropy"
steps = 20
seeds = 2
data = {name = "digits", samples = 101}
model = {kind = "mlp", hidden = [4]}
optimizer = {name = "sgd", step = 0.1}
sampler = [{name = "rolling", batch = 8}]
assess = {seeds = 0}
"""


@pytest.mark.slow
def test_the_command_in_two_processes(tmp_path):
    (tmp_path / "run.toml").write_text(CONFIG)
    address = free_address()
    command = [sys.executable, "-m", "thalweg", "train", str(tmp_path / "run.toml"), "--json"]

    def started(out, *more):
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / out), *more],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    shared = ["--coordinator", address, "--processes", "2", "--process"]
    processes = [started("two", *shared, str(i)) for i in range(2)]
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert not said[1][0]
    one, two = (json.loads(text) for text in (started("one").communicate()[0], said[0][0]))
    for a, b in zip(one["rows"], two["rows"], strict=True):
        # Sums of 8 terms in single precision, 6e-8, over 20 steps.
        looks = (row["evaluation"]["loss"]["mean"] for row in (a, b))
        np.testing.assert_allclose(*looks, rtol=1e-5)
    # Where nothing may be written, both say so.
    processes = [started("run.toml", *shared, str(i)) for i in range(2)]
    for process in processes:
        assert "is a file" in process.communicate(timeout=200)[1]
        assert process.returncode == 2
    # Nobody waits for processes that were not said to exist.
    alone = started("two", "--processes", "2")
    assert "--coordinator HOST:PORT" in alone.communicate(timeout=200)[1]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "is a list of devices"), (2, "has a device twice")],
)
def test_devices_that_make_no_sense_are_refused(count, words):
    with pytest.raises(InputError, match=words):
        a_run(devices=[jax.devices()[0]] * count)
