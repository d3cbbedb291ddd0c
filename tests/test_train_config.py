"""Configuration files: every mistake is one line that names the line and the key."""

import re
import tomllib

import numpy as np
import pytest

from thalweg import datasets
from thalweg.errors import InputError
from thalweg.train.config import load
from thalweg.train.named_data import load_data, scale_factors
from thalweg.train.networks import load_network
from thalweg.train.rows import rows_of
from thalweg.train.toml import TomlFile

GOOD = """\
# What is trained: [data] name = "nothing"
loss = "cross-entropy"
epochs = 3
seeds = 2

[data]
name = "digits"   # 8x8 pixels
samples = 500

[model]
kind = "mlp"
hidden = [
  32, # [sampler]
]

[optimizer]
name = "sgd"
step = 0.1

[[sampler]]
name = "sgd"
batch = 32

[[sampler]]
name = "rolling"
batch = 8
"""


@pytest.fixture
def written(tmp_path):
    """Writes the good file with replacements; returns its path."""

    def write(*changes):
        text = GOOD
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / "run.toml"
        path.write_text(text)
        return path

    return write


def test_a_good_file(written):
    config = load(written()).config
    assert [row.name for row in config.sampler] == ["sgd", "rolling"]
    assert (config.epochs, config.steps, config.seeds, config.seed) == (3, None, 2, 0)
    assert config.model.hidden == [32]
    assert config.optimizer.step.initial == 0.1


FAULTS = {
    "unknown key": (
        [("batch = 8", "bacth = 8")],
        "line 26: unknown key 'bacth' in [sampler]; did you mean 'batch'? expected one of: ",
    ),
    "key of another kind": (
        [("batch = 8", "batch = 8\ncandidates = 4")],
        "line 27: unknown key 'candidates' in [sampler] of name 'rolling'; it goes with "
        "'presampled'",
    ),
    "unknown key of the file": (
        [("seeds = 2", "seed = 2\nsteps_a_second = 1")],
        "line 5: unknown key 'steps_a_second' in the file; expected one of: data, model,",
    ),
    "wrong type": (
        [("batch = 8", 'batch = "8"')],
        "line 26: batch in [sampler] is '8'; expected a whole number",
    ),
    "truth is no number": (
        [("seeds = 2", "seeds = true")],
        "line 4: seeds is True; expected a whole number",
    ),
    "out of range": (
        [("batch = 32", "batch = 0")],
        "line 22: batch in [sampler] is 0; expected a number greater than 0",
    ),
    "in an array over several lines": (
        [("  32,", "  32.5,")],
        "line 12: hidden in [model] is 32.5; expected a whole number",
    ),
    "no table": (
        [
            ("seeds = 2", 'seeds = 2\ndata = "digits"'),
            ("[data]\n", "[assess]\n"),
            ('name = "digits"   # 8x8 pixels\n', ""),
        ],
        "line 5: data is 'digits'; expected a table",
    ),
    "missing key": (
        [("step = 0.1\n", "")],
        "line 16: [optimizer] lacks the key 'step'",
    ),
    "missing name": (
        [('name = "rolling"\n', "")],
        "line 24: [sampler] lacks the key 'name'",
    ),
    "unknown name": (
        [('"rolling"', '"roling"')],
        "line 25: name in [sampler] is 'roling'; did you mean 'rolling'? expected one of: gd, sgd,",
    ),
    "unknown loss": (
        [('"cross-entropy"', '"cross-entrpy"')],
        "line 2: loss is 'cross-entrpy'; did you mean 'cross-entropy'? expected one of: ",
    ),
    "step in words": (
        [("step = 0.1", 'step = "fast"')],
        "line 18: step in [optimizer] is 'fast'; expected a number, or a table of a schedule",
    ),
    "schedule": (
        [("step = 0.1", 'step = {name = "cosine", initial = -1.0}')],
        "line 18: initial in [optimizer.step] is -1.0; expected a number greater than 0",
    ),
    "schedule's key": (
        [("step = 0.1", 'step = {name = "cosine", initial = 1, period = 3}')],
        "line 18: unknown key 'period' in [optimizer.step] of name 'cosine'; it goes with "
        "'inverse-time' or 'inverse-sqrt-time'",
    ),
    "step of a row": (
        [("batch = 8", "batch = 8\nstep = -0.1")],
        "line 27: step in [sampler] is -0.1; expected a number greater than 0",
    ),
    "one sampler alone": (
        [
            ('[[sampler]]\nname = "sgd"\nbatch = 32\n\n[[sampler]]', "[sampler]"),
            ("batch = 8", "bach = 8"),
        ],
        "line 22: unknown key 'bach' in [sampler]",
    ),
    "dotted keys": (
        [("samples = 500", "samples = 500\nscale.share = 0.1\n\nscale.faktor = 3")],
        "line 11: unknown key 'faktor' in [data.scale]; did you mean 'factor'?",
    ),
    "what looks like a key in a string": (
        [
            ('"digits"   # 8x8 pixels', '"""\nbatch = 3\n[sampler]\n"""'),
            ("batch = 8", "batch = -8"),
        ],
        "line 29: batch in [sampler] is -8",
    ),
    "both lengths": (
        [("epochs = 3", "epochs = 3\nsteps = 5")],
        "line 3: the file gives both steps and epochs",
    ),
    "no length": ([("epochs = 3\n", "")], "the file gives neither steps nor epochs"),
    "no loss": ([('loss = "cross-entropy"\n', "")], "the file lacks the key 'loss'"),
    "a loss beside one's own": (
        [
            ('[model]\nkind = "mlp"\nhidden = [\n  32, # [sampler]\n]\n', ""),
            ("seeds = 2", 'model = "net.py:net"'),
        ],
        "line 2: the own objective of model brings its loss",
    ),
    "batch norm of one sample": (
        [("hidden = [", "batch_norm = true\nhidden = ["), ("batch = 8", "batch = 1")],
        "line 27: batch is 1 in 1 parts and the model has batch_norm",
    ),
    "a schedule for the damped rule": (
        [
            ('name = "sgd"\nstep = 0.1', 'name = "damped"\nalpha = 0.1\nstep = 0.1'),
            ("batch = 8", 'batch = 8\nstep = {name = "cosine", initial = 1}'),
        ],
        "line 28: the damped optimizer takes a number as its step",
    ),
    "no TOML": ([("epochs = 3", "epochs = = 3")], "line 3: Invalid value in 'epochs = = 3'"),
    "no end": (
        [("]\n\n[optimizer]", "\n[optimizer]")],
        "line 15: Invalid value in '[optimizer]'; expected TOML; what begins on line 12 has no end",
    ),
    "no end at all": ([('"rolling"', '"""rolling')], "; what begins here has no end"),
    "parts of a batch": (
        [("seeds = 2", "seeds = 2\naccumulate = 3")],
        "line 23: batch is 32 and accumulate is 3; expected a batch of equal parts",
    ),
    "twice": ([("seeds = 2", "epochs = 2")], "line 4: Cannot overwrite a value"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_line(fault, written):
    changes, said = FAULTS[fault]
    path = written(*changes)
    with pytest.raises(InputError, match=re.escape(said)) as error:
        load(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line ")


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*none.toml; expected a TOML file"):
        load(tmp_path / "none.toml")
    (tmp_path / "run.toml").write_bytes(b"loss = '\xff'")
    with pytest.raises(InputError, match=r"run.toml is no text in UTF-8 \(byte 8\)"):
        load(tmp_path / "run.toml")


def test_every_key_of_a_file_has_its_line(tmp_path):
    path = tmp_path / "x.toml"
    # Each value is the line its key stands on, but for the strings.
    path.write_bytes(
        b"\xef\xbb\xbf"
        b'a = 1\r\nb.c = 2\r\n# a = 9\r\nt = """\r\na = 5\r\n[x]\r\n"""\r\n[x]\r\ny = 9\r\n'
        b"[[z]]\r\nq = 11\r\n[z.w]\r\nq = 13\r\n[[z]]\r\nq = 15\r\n[[z.v]]\r\nr = 17\r\n"
    )
    file = TomlFile(path)
    assert file.document == tomllib.loads(file.text)

    def leaves(node, at=()):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for name, value in items:
            if isinstance(value, (dict, list)):
                yield from leaves(value, (*at, name))
            elif isinstance(value, int):
                yield (*at, name), value

    found = dict(leaves(file.document))
    assert len(found) == 7
    assert {at: file.line(at) for at in found} == found
    assert file.line(("t",)) == 4
    assert file.line(("z", 1)) == 14
    # What is not there is shown at its table.
    assert file.line(("z", 0, "w", "nothing")) == 12
    assert file.line(("nothing",)) == 1


MISFITS = {
    "data": ([('"digits"', '"dgits"')], "line 7: unknown data set 'dgits'; did you mean 'digits'?"),
    "samples": ([("500", "5000")], "line 8: samples is 5000 and digits has 1437 training samples"),
    "classes": ([("samples = 500", "classes = [3, 15]")], "line 8: digits has the classes 0 to 9"),
    "logistic": (
        [('"cross-entropy"', '"logistic"')],
        "line 2: loss is 'logistic', for two classes, and digits has 10; expected cross-entropy",
    ),
    "huber": ([('"cross-entropy"', '"huber"')], "line 2: loss is 'huber' and digits has classes"),
    "vgg": (
        [('"mlp"\nhidden = [\n  32, # [sampler]\n]', '"vgg11-small"')],
        "line 11: vgg11-small is for two classes of 32x32x3 images, and digits here has",
    ),
    "no own file": (
        [
            ('[model]\nkind = "mlp"\nhidden = [\n  32, # [sampler]\n]\n', ""),
            ('loss = "cross-entropy"', 'model = "nowhere.py:net"'),
        ],
        "line 2: model is 'nowhere.py:net' and there is no file",
    ),
    "batch": ([("batch = 32", "batch = 501")], "line 22: batch is 501 and there are 500 training"),
    "slice": (
        [("batch = 8", "batch = 8\nslice = 501")],
        "line 24: Rolling takes a slice of 501 samples in a step but the problem has n = 500",
    ),
    "options of the sampler": (
        [('"rolling"', '"rr"\nsmoothing = 0.5')],
        "line 24: smoothing needs kept scores, and refresh=1 keeps none",
    ),
    "twice": (
        [('"rolling"\nbatch = 8', '"sgd"\nbatch = 32')],
        "line 20: 2 rows are called 'SGD, B=32'; give each a label",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_the_data_names_the_line(misfit, written, tmp_path):
    changes, said = MISFITS[misfit]
    request = load(written(*changes))
    with pytest.raises(InputError, match=re.escape(said)):
        rows_of(request, load_network(request, None, tmp_path).n)


def test_groups_need_classes(written):
    request = load(written(('"rolling"', '"rr"\nby = "group"')))
    with pytest.raises(InputError, match="line 26: by is 'group', which are the classes"):
        rows_of(request, 500)


def test_rows_have_names_steps_and_colours(written):
    request = load(written(("batch = 8", "batch = 8\nstep = 0.05")))
    plain, rolling = rows_of(request, 500)
    assert (plain.label, plain.family, plain.folder) == ("SGD, B=32", "sgd", "sgd-b-32")
    assert (rolling.label, rolling.family) == ("RR rolling, half step, B=8", "rolling")
    # 3 epochs of 500 samples: 46.9 and 187.5 batches.
    assert (plain.steps, rolling.steps) == (47, 188)
    assert (plain.step_text, rolling.step_text) == ("0.1", "0.05")
    assert plain.plain
    assert not rolling.plain


def test_schedules_reach_their_ends(written):
    for schedule, first, last in (
        ('{name = "cosine", initial = 0.4, final = 0.1}', 0.4, 0.1),
        ('{name = "exponential", initial = 0.4, final = 0.1}', 0.4, 0.1),
        ('{name = "drops", initial = 0.4, factor = 0.5, epochs = [1, 2]}', 0.4, 0.1),
        # After ceil(2/1) of the last epoch, number 2.
        ('{name = "inverse-time", initial = 0.4, period = 1}', 0.4, 0.4 / 3),
    ):
        row = rows_of(load(written(("step = 0.1", f"step = {schedule}"))), 500)[0]
        assert float(row.step(0)) == pytest.approx(first)
        assert float(row.step(row.steps)) == pytest.approx(last)


def test_noise_is_a_share_of_other_labels_fixed_by_the_seed(written):
    noisy = ("samples = 500", "samples = 500\nnoise = 0.2")
    clean = datasets.load("digits")
    first, again = (load_data(load(written(noisy)), None) for _ in range(2))
    other = load_data(load(written(noisy, ("seeds = 2", "seed = 1"))), None)
    wrong = first.train.y != clean.train.y[:500]
    assert wrong.sum() == 100
    np.testing.assert_array_equal(first.train.y, again.train.y)
    assert (other.train.y != first.train.y).any()
    assert first.train.y.min() >= 0
    assert first.train.y.max() <= 9
    # All nine other labels are as probable: 100 draws miss one with probability 9 (8/9)^100 < 1e-4.
    shifts = (first.train.y[wrong] - clean.train.y[:500][wrong]) % 10
    assert set(shifts.tolist()) == set(range(1, 10))
    np.testing.assert_array_equal(first.test.y, clean.test.y)


def test_enlarged_samples(written, tmp_path):
    scale = "samples = 500\nscale = {share = 0.1, factor = 5, of = 'inputs'}"
    request = load(written(("samples = 500", scale)))
    clean, factors = datasets.load("digits").train.x[:500], scale_factors(request, 500)
    assert np.count_nonzero(factors == 5) == 50
    assert np.count_nonzero(factors == 1) == 450
    np.testing.assert_allclose(
        load_data(request, None).train.x, clean * factors[:, None, None], rtol=1e-6
    )
    request = load(written(("samples = 500", scale.replace("inputs", "losses"))))
    network = load_network(request, None, tmp_path)
    labels, kept = network.train[1]
    np.testing.assert_array_equal(kept, factors)
    assert (network.test[1][1] == 1).all()
    assert labels.shape == (500,)


def test_regressions_are_standardised_unless_told_otherwise(written, monkeypatch):
    from thalweg.datasets.base import Dataset, Split

    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    split = Split(x, np.arange(6, dtype=np.float32))
    monkeypatch.setattr(
        datasets, "load", lambda name, data_dir: Dataset("made", split, split, None, "made")
    )
    changes = [("samples = 500", "samples = 6"), ('"cross-entropy"', '"huber"')]
    # Features have mean 0 and deviation 1, to rounding of float32.
    got = load_data(load(written(*changes)), None).train.x
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(got.std(axis=0), 1, rtol=1e-6)
    raw = [("samples = 500", "samples = 6\nstandardise = false"), changes[1]]
    np.testing.assert_array_equal(load_data(load(written(*raw)), None).train.x, x)
    # Targets of the noisy share change places.
    noisy = [("samples = 500", "samples = 6\nnoise = 0.5"), changes[1]]
    y = load_data(load(written(*noisy)), None).train.y
    assert sorted(y.tolist()) == [0, 1, 2, 3, 4, 5]
    assert (y != split.y).sum() == 3
