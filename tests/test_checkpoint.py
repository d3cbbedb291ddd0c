"""Killed, interrupted and damaged: a run goes on to the same bytes, or says why not."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from helpers import assert_same_run, bowls
from thalweg import checkpoint as module
from thalweg.errors import InputError

KEY = jax.random.key(3)
PROBLEM = bowls(7, 2, groups=[0, 1, 0, 1, 2, 2, 1])
START = jnp.asarray([1.0, -0.5])


def size(params):
    return jnp.sum(jnp.square(params))


def job(steps, *, sampler=None, step=0.1, start=START, record=None, exit=None, **options):
    """One simulation; every part of it can be changed."""
    record = record or tw.Record(100, {"size": size}, means={"size": size}, burn_in=50)
    sampler = sampler or tw.Reweighted(2, refresh=7, stale="fixed-length")
    descent = tw.Descent(PROBLEM, sampler, step)
    options = {"key": KEY, "chains": 5, **options}
    return tw.simulate(descent, start, steps=steps, record=record, exit=exit, **options)


def interrupt(done, steps):
    raise KeyboardInterrupt("from the test")


def test_an_interrupt_leaves_a_checkpoint_that_goes_on_to_the_same_bytes(tmp_path):
    path, seen = tmp_path / "run.npz", []
    with pytest.raises(KeyboardInterrupt, match="from the test"):
        job(3000, checkpoint=path, progress=interrupt)
    # The first call of the loop ends at step 256, between two records.
    again = job(3000, checkpoint=path, progress=lambda done, steps: seen.append(done))
    assert seen[0] > 256
    assert_same_run(again, job(3000))
    # And once it is through, the file is the result.
    assert_same_run(job(3000, checkpoint=path, progress=interrupt), again)


def test_a_longer_run_goes_on_from_the_checkpoint_of_a_shorter_one(tmp_path):
    path = tmp_path / "run.npz"
    job(330, checkpoint=path)
    assert_same_run(job(700, checkpoint=path), job(700))
    with pytest.raises(InputError, match="is at step 700 and steps= is 600; ask for at least"):
        job(600, checkpoint=path)


def test_a_continued_run_can_have_a_checkpoint(tmp_path):
    path = tmp_path / "run.npz"
    begun = job(330)
    with pytest.raises(KeyboardInterrupt, match="from the test"):
        job(3000, start=begun, key=None, chains=None, checkpoint=path, progress=interrupt)
    run = job(3000, start=begun, key=None, chains=None, checkpoint=path)
    assert_same_run(run, job(3000))


KILLED = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
sys.path.insert(0, sys.argv[1])
from thalweg import checkpoint
checkpoint._SECONDS_BETWEEN = 0.0
from test_checkpoint import job
job(int(sys.argv[3]), checkpoint=sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path):
    path, steps = tmp_path / "run.npz", 40_000
    here = os.path.dirname(__file__)  # noqa: PTH120
    process = subprocess.Popen([sys.executable, "-c", KILLED, here, str(path), str(steps)])
    try:
        until = time.monotonic() + 100
        while not path.exists():
            assert process.poll() is None, "the process ended without a checkpoint"
            assert time.monotonic() < until, "no checkpoint"
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    with np.load(path) as file:
        assert 0 < file["steps"][0] < steps
    seen = []
    again = job(steps, checkpoint=path, progress=lambda done, _: seen.append(done))
    assert_same_run(again, job(steps))


OTHERS = {
    "another key": {"key": jax.random.key(4)},
    "more chains": {"chains": 6},
    "another start": {"start": START + 1e-12},
    "another step": {"step": 0.1000001},
    "another rule": {"step": optax.adam(0.1)},
    "another batch": {"sampler": tw.Reweighted(3, refresh=7, stale="fixed-length")},
    "another treatment": {"sampler": tw.Reweighted(2, refresh=7, stale="unbiased")},
    "other records": {"record": tw.Record(50, {"size": size}, means={"size": size}, burn_in=50)},
    "another burn-in": {"record": tw.Record(100, {"size": size}, means={"size": size})},
    "another name": {"record": tw.Record(100, {"s": size}, means={"size": size}, burn_in=50)},
    "an exit": {"exit": tw.stopping.LeftBox(-5.0, 5.0)},
    "a bound": {"bound": 1e9},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "run.npz"
    job(10, checkpoint=path)
    return path


@pytest.mark.parametrize("change", OTHERS)
def test_refuses_the_checkpoint_of_another_run(written, change):
    before = written.read_bytes()
    with pytest.raises(InputError, match="belongs to a run with other arguments"):
        job(10, checkpoint=written, **OTHERS[change])
    assert written.read_bytes() == before


def truncated(good):
    return good[: len(good) // 2]


def flipped(good):
    # The first number of the last array: headers hold bytes that mean nothing.
    place = good.rindex(b"\x93NUMPY") + 128
    return good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :]


DAMAGES = {
    "truncated": truncated,
    "flipped byte": flipped,
    "empty": lambda good: b"",
    "text": lambda good: b"not a checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_refuses_a_damaged_checkpoint(written, tmp_path, damage):
    path = tmp_path / "run.npz"
    path.write_bytes(DAMAGES[damage](written.read_bytes()))
    with pytest.raises(InputError, match=r"run.npz cannot be read .* delete it to start afresh"):
        job(10, checkpoint=path)


def test_refuses_an_array_file(tmp_path):
    path = tmp_path / "run.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(InputError, match=r"run.npz cannot be read .* delete it to start afresh"):
        job(10, checkpoint=path)


def test_refuses_a_folder_that_is_not_there_before_any_step(tmp_path):
    with pytest.raises(InputError, match=r"cannot write in .*nowhere .*give another folder"):
        job(10, checkpoint=tmp_path / "nowhere" / "run.npz", progress=interrupt)


def test_a_failed_write_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    job(10, checkpoint=path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        job(20, checkpoint=path)
    assert path.read_bytes() == before


def test_a_fingerprint_sees_arrays_options_and_names_and_no_addresses():
    def one(x):
        return x

    def two(x):
        return x

    first = {"a": np.arange(3), "f": one}
    assert module.fingerprint(first) == module.fingerprint({"a": np.arange(3), "f": one})
    for other in (
        {"a": np.arange(3), "f": two},
        {"b": np.arange(3), "f": one},
        {"a": np.arange(3.0), "f": one},
        {"a": np.array([0, 1, 3]), "f": one},
        {"a": np.arange(3)[:, None], "f": one},
    ):
        assert module.fingerprint(other) != module.fingerprint(first)
    assert module.fingerprint(tw.FiniteSum.of(one)) == module.fingerprint(tw.FiniteSum.of(one))
    assert module.fingerprint(tw.Minibatch(1)) != module.fingerprint(tw.Minibatch(2))
