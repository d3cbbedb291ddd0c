"""Chains over cores, devices and processes: the numbers of one device, chain by chain."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from helpers import assert_same_run, bowls, bytes_of, outcome

# What every process runs.
PROGRAM = """
import sys
from pathlib import Path
import jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[1])
if len(sys.argv) > 3:
    jax.distributed.initialize(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
import numpy as np
from test_fleet import outcomes
found = outcomes(Path(sys.argv[2]))
if jax.process_index() == 0:
    for name, tree in found.items():
        np.savez(f"{sys.argv[2]}/{name}.npz", *jax.tree.leaves(tree))
print("devices", jax.local_device_count(), "processes", jax.process_count())
"""


def small(params):
    return jnp.sum(jnp.square(params)) < 0.01


def a_run(sampler, steps=220, **options):
    """Many chains with exits, records and means, of a length that fills no block."""
    descent = tw.Descent(bowls(7, 2), sampler, 0.2)
    record = tw.Record(50, means={"x": lambda x: x})
    options = {"key": jax.random.key(3), "chains": 2500, "exit": small, **options}
    return tw.simulate(descent, jnp.ones(2), steps=steps, record=record, **options)


def outcomes(folder):
    """A run by each route, half a run in a checkpoint, and a whole one from that of others."""
    a_run(tw.Minibatch(1), 100, checkpoint=folder / "half")
    found = {"lanes": a_run(tw.Minibatch(1)), "batched": a_run(tw.Reshuffled(2))}
    assert [run.stats["route"] for run in found.values()] == list(found)
    # Fewer chains than a block: one of two processes has none.
    found["few"] = a_run(tw.Minibatch(1), chains=3)
    if (folder / "others").exists():
        found["resumed"] = a_run(tw.Minibatch(1), checkpoint=folder / "others")
    return {name: outcome(run) for name, run in found.items()}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The folder and the outcomes of this process with its one device."""
    folder = tmp_path_factory.mktemp("here")
    return folder, outcomes(folder)


def run_elsewhere(folder, devices, processes=1):
    """Run the program in processes with so many devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(folder)]
    started = [
        subprocess.Popen(
            [*command, *([address, str(processes), str(i)] if processes > 1 else [])],
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in range(processes)
    ]
    for process in started:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert f"devices {devices} processes {processes}" in said


def assert_equal(folder, name, tree):
    with np.load(folder / f"{name}.npz") as file:
        assert [file[key].tobytes() for key in file.files] == bytes_of(tree)


@pytest.mark.slow
def test_three_devices_give_the_numbers_of_one(here, tmp_path):
    run_elsewhere(tmp_path, devices=3)
    for name, tree in here[1].items():
        assert_equal(tmp_path, name, tree)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_and_take_over_its_checkpoint(here, tmp_path):
    shutil.copy(here[0] / "half", tmp_path / "others")
    run_elsewhere(tmp_path, devices=2, processes=2)
    for name, tree in here[1].items():
        assert_equal(tmp_path, name, tree)
    assert_equal(tmp_path, "resumed", here[1]["lanes"])
    # And one takes over theirs.
    resumed = outcome(a_run(tw.Minibatch(1), checkpoint=tmp_path / "half"))
    assert bytes_of(resumed) == bytes_of(here[1]["lanes"])


def test_the_number_of_cores_does_not_change_the_numbers(monkeypatch):
    one, other = (a_run_on(cores, monkeypatch) for cores in (1, 5))
    assert [run.stats["workers"] for run in (one, other)] == [1, 5]
    assert_same_run(one, other)


def a_run_on(cores, monkeypatch):
    monkeypatch.setattr("thalweg.fleet.cores", lambda: cores)
    return a_run(tw.Minibatch(1))
