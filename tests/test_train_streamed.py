"""Samples that are read when they are needed, by Grain's threads."""

import threading

import grain
import numpy as np
import pytest

import thalweg as tw
from helpers import bytes_of
from helpers_train import LOSS, options, samples, start, trained
from thalweg.errors import InputError
from thalweg.sampling.presampled import Presampled
from thalweg.sampling.reweighted import Reweighted
from thalweg.sampling.rolling import Rolling
from thalweg.train import train
from thalweg.train.source import Source


class Reader:
    """A random-access source that counts what is read, and by whom."""

    def __init__(self, data, broken=None):
        self.data, self.broken = data, broken
        self.read, self.threads = [], set()

    def __len__(self):
        return len(self.data[1])

    def __getitem__(self, i):
        if i == self.broken:
            raise OSError("the tape is torn")
        self.read.append(int(i))
        self.threads.add(threading.get_ident())
        return tuple(part[i] for part in self.data)


SAMPLERS = {
    "subset": (tw.Minibatch(8), "gradient"),
    "passes": (tw.Reshuffled(12), "gradient"),
    "all": (tw.Full(), "gradient"),
    "kept": (Reweighted(8, refresh=7, stale="fixed-length"), "loss"),
    "presampled": (Presampled(8), "loss"),
    "one-pass": (Presampled(8), "gradient"),
    "rolling": (Rolling(8), "loss"),
}
# What takes a program of its own for each of its parts, half a minute on a busy machine.
_DEAR = {"rolling": pytest.mark.slow, "kept": pytest.mark.slow}


@pytest.mark.parametrize(
    ("sampler", "scores"),
    [pytest.param(*each, marks=_DEAR.get(name, ()), id=name) for name, each in SAMPLERS.items()],
)
def test_streamed_data_give_the_numbers_of_data_in_memory(sampler, scores):
    in_memory = trained(sampler=sampler, scores=scores)
    reader = Reader(samples())
    streamed = train(LOSS, start(), reader, **options(sampler=sampler, scores=scores))
    assert bytes_of(streamed.params) == bytes_of(in_memory.params)
    assert bytes_of(streamed.sampler_state) == bytes_of(in_memory.sampler_state)
    np.testing.assert_array_equal(streamed.history["loss"], in_memory.history["loss"])
    # This thread has read sample 0, to see what a sample is.
    assert reader.threads - {threading.get_ident()}


def test_members_are_streamed_together():
    in_memory = trained(members=3)
    streamed = train(LOSS, start(), Reader(samples()), **options(members=3))
    assert bytes_of(streamed.params) == bytes_of(in_memory.params)


def test_more_steps_than_are_read_ahead():
    in_memory = trained(steps=150)
    streamed = train(LOSS, start(), Reader(samples()), **options(steps=150))
    assert bytes_of(streamed.params) == bytes_of(in_memory.params)


def test_a_grain_data_set_is_a_source():
    x, y = samples()
    dataset = grain.MapDataset.range(len(y)).map(lambda i: (x[i], y[i]))
    streamed = train(LOSS, start(), dataset, **options())
    assert bytes_of(streamed.params) == bytes_of(trained().params)


def test_validation_data_may_be_streamed():
    x, y = samples(1300)
    looks = [
        trained(validation=data).history["evaluation"]["loss"] for data in ((x, y), Reader((x, y)))
    ]
    np.testing.assert_array_equal(*looks)


def test_every_index_is_read_in_its_place():
    source = Source(Reader((np.arange(100.0), np.arange(100))))
    indices = [np.array([[5, 3], [99, 0]]), np.arange(70), np.array([7])]
    for index, (x, y) in zip(indices, source.read(indices), strict=True):
        np.testing.assert_array_equal(x, index.astype(float))
        np.testing.assert_array_equal(y, index)


def test_a_source_that_fails():
    with pytest.raises(InputError, match="holds no samples"):
        train(LOSS, start(), Reader(samples(0)), **options())
    with pytest.raises(InputError, match=r"fails on its sample 0 \(OSError: the tape is torn"):
        train(LOSS, start(), Reader(samples(), broken=0), **options())
    with pytest.raises(OSError, match="the tape is torn"):
        train(LOSS, start(), Reader(samples(), broken=17), **options())


def test_a_source_whose_samples_do_not_fit():
    x, y = samples()
    with pytest.raises(InputError, match="3 numbers; expected 4"):
        train(LOSS, start(), Reader((x[:, :3], y)), **options())
