"""Data sets: parsers on bytes made here, finding and downloading, and the real files if any."""

import functools
import gzip
import hashlib
import http.server
import io
import lzma
import os
import struct
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pooch
import pytest

from thalweg import datasets
from thalweg.datasets import catalogue, cifar, idx, sources, tabular
from thalweg.datasets.base import Dataset, Split, fixed_permutation, split_fifth
from thalweg.errors import InputError

REAL = os.environ.get("THALWEG_DATA")
IDX_FILES = tuple(file.name for file in catalogue.SOURCES["mnist"].files)


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """No data folder, an empty cache, and no network."""

    def refuse(url, **_):
        raise OSError("no network in tests")

    monkeypatch.delenv("THALWEG_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(pooch, "retrieve", refuse)


def idx_bytes(array):
    header = struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def small_mnist():
    generator = np.random.default_rng(0)
    contents = {}
    for part, n in (("train", 30), ("t10k", 10)):
        images = generator.integers(0, 256, (n, 5, 4))
        images[0, 0, 0] = 255
        contents[f"{part}-images-idx3-ubyte"] = idx_bytes(images)
        contents[f"{part}-labels-idx1-ubyte"] = idx_bytes(np.arange(n) % 10)
    return contents


def cifar_bytes(seed, rows=20):
    table = np.random.default_rng(seed).integers(0, 256, (rows, 3073), dtype=np.uint8)
    table[:, 0] = np.arange(rows) % 10
    return table.tobytes()


def expect(monkeypatch, name, contents, sent=None):
    """Make the catalogue expect these contents, so that the checks themselves stay in force."""
    md5 = {file: hashlib.md5(content).hexdigest() for file, content in contents.items()}
    files = tuple(
        catalogue.DataFile(
            file.name,
            (md5.get(file.name, "0" * 32),),
            sent[0] if sent else file.url,
            sent[1] if sent else file.url_md5,
            file.optional,
        )
        for file in catalogue.SOURCES[name].files
    )
    source = catalogue.Source(catalogue.SOURCES[name].folders, files)
    monkeypatch.setitem(catalogue.SOURCES, name, source)


def write(folder, contents, pack=lambda content: content, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}{suffix}").write_bytes(pack(content))


# Parsers


def test_idx_round_trip():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    np.testing.assert_array_equal(idx.parse_idx(idx_bytes(images), "x", 3), images)
    labels = np.array([7, 0, 255], dtype=np.uint8)
    np.testing.assert_array_equal(idx.parse_idx(idx_bytes(labels), "x", 1), labels)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b[:10], "images is truncated: 10 bytes, expected a header of 16 at least"),
        (lambda b: b"", "images is truncated: 0 bytes, expected a header of 16"),
        (
            lambda b: b[:-1],
            r"images is truncated: 59 bytes follow the header, expected 60 .*\(3, 4",
        ),
        (lambda b: b + b"\0", "images is too long: 61 bytes follow the header, expected 60"),
        (lambda b: idx_bytes(np.zeros(99)), "the magic number 2049, expected 2051"),
        (lambda b: b"\x1f\x8b" + b[2:], "the magic number 529205251, expected 2051"),
        (lambda b: idx_bytes(np.zeros((0, 4, 5))), "images is empty: 0 bytes follow the header"),
        # Lengths whose product overflows 64 bits must not pass for a small file.
        (lambda b: struct.pack(">4I", 2051, 2**31, 2**31, 4), "images is truncated: 0 bytes"),
    ],
)
def test_idx_refuses(spoil, message):
    good = idx_bytes(np.zeros((3, 4, 5)))
    with pytest.raises(InputError, match=message):
        idx.parse_idx(spoil(good), "images", 3)


def test_idx_labels_must_fit_images():
    contents = small_mnist()
    short = {**contents, "t10k-labels-idx1-ubyte": idx_bytes(np.zeros(9))}
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte holds 10 images and .* 9 labels"):
        idx.load_idx("mnist", "MNIST", short)
    high = {**contents, "train-labels-idx1-ubyte": idx_bytes(np.full(30, 10))}
    with pytest.raises(InputError, match="train-labels-idx1-ubyte holds the label 10; expected 0"):
        idx.load_idx("mnist", "MNIST", high)


def test_cifar_layout(monkeypatch):
    monkeypatch.setattr(cifar, "ROWS", 2)
    rows = np.zeros((2, 3073), dtype=np.uint8)
    rows[:, 0] = 3, 9
    # Second image: red at (0, 1), green at (2, 0), blue at (31, 31).
    rows[1, 1 + 1] = 10
    rows[1, 1 + 1024 + 64] = 20
    rows[1, 1 + 2048 + 1023] = 30
    images, labels = cifar.parse_cifar(rows.tobytes(), "batch")
    np.testing.assert_array_equal(labels, [3, 9])
    assert images.shape == (2, 32, 32, 3)
    places = {tuple(map(int, place)): int(images[tuple(place)]) for place in np.argwhere(images)}
    assert places == {(1, 0, 1, 0): 10, (1, 2, 0, 1): 20, (1, 31, 31, 2): 30}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b[:-1], "batch is truncated: 61459 bytes, expected 61460 .20 rows of 3073"),
        (lambda b: b[:-3073], "batch is truncated: 58387 bytes, expected 61460"),
        (lambda b: b + b"\0", "batch is too long: 61461 bytes"),
        (lambda b: b"", "batch is truncated: 0 bytes"),
        (lambda b: b[:3073] + b"\x0a" + b[3074:], "batch holds the label 10 in row 1; expected 0"),
    ],
)
def test_cifar_refuses(monkeypatch, spoil, message):
    monkeypatch.setattr(cifar, "ROWS", 20)
    with pytest.raises(InputError, match=message):
        cifar.parse_cifar(spoil(cifar_bytes(0)), "batch")


def test_a_whole_cifar_batch_has_ten_thousand_rows():
    with pytest.raises(InputError, match=r"expected 30730000 .10000 rows"):
        cifar.parse_cifar(cifar_bytes(0), "batch")


def test_libsvm():
    x, y = tabular.parse_libsvm(b"+1 1:1 3:0.5 \n-1 2:-2\n1\n", "text", 4)
    np.testing.assert_array_equal(x, [[1, 0, 0.5, 0], [0, -2, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(y, [1, 0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "text is empty"),
        (b"+1 1:1\n2 1:1\n", r"text, line 2: got '2 1:1', expected \+1 or -1"),
        (b"+1 1:1\n\n", r"text, line 2: got '', expected \+1 or -1"),
        (b"+1 1:1 2\n", "line 1: got .*index:value pairs"),
        (b"+1 a:1\n", "line 1: got .*index:value pairs"),
        (b"+1 0:1\n", "line 1: got .*indices 1 to 4"),
        (b"+1 5:1\n", "line 1: got .*indices 1 to 4 and finite values"),
        (b"+1 1:nan\n", "line 1: got .*indices 1 to 4 and finite values"),
        (b"+1 1:\xff\n", "text is no text: byte 5 is not ASCII"),
    ],
)
def test_libsvm_refuses(text, message):
    with pytest.raises(InputError, match=message):
        tabular.parse_libsvm(text, "text", 4)


def abalone_text(rows):
    return "".join(f"{sex},{','.join(map(str, numbers))}\n" for sex, *numbers in rows).encode()


def test_abalone():
    sexes = "MFIMFIMFIM"
    rows = [(sex, *(k + j / 10 for j in range(7)), 5 + k) for k, sex in enumerate(sexes)]
    got = tabular.load_abalone({"abalone.data": abalone_text(rows)})
    train, test = split_fifth(10)
    assert got.n_classes is None
    assert got.features[:4] == ("sex=F", "sex=I", "sex=M", "length")
    np.testing.assert_array_equal(got.train.y, [5 + k for k in train])
    np.testing.assert_array_equal(got.test.y, [5 + k for k in test])
    for split, index in ((got.train, train), (got.test, test)):
        for x, k in zip(split.x, index, strict=True):
            np.testing.assert_array_equal(x[:3], [sexes[k] == s for s in "FIM"])
            np.testing.assert_allclose(x[3:], [k + j / 10 for j in range(7)], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"M,1,2,3,4,5,6,7\n", "abalone.data, line 1: got .* expected 9 columns"),
        (b"X,1,2,3,4,5,6,7,8\n", "abalone.data holds 'X'; expected one of: F, I, M"),
        (b"M,1,2,3,4,5,6,x,8\n", "abalone.data holds 'x'; expected a finite number"),
        (b"M,1,2,3,4,5,6,,8\n", "abalone.data holds ''; expected a finite number"),
        (b"M,1,2,3,4,5,6,inf,8\n", "abalone.data holds 'inf'; expected a finite number"),
    ],
)
def test_abalone_refuses(text, message):
    with pytest.raises(InputError, match=message):
        tabular.load_abalone({"abalone.data": text})


HOUSING_HEADER = (
    "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,"
    "median_income,median_house_value,ocean_proximity\n"
)


def test_california_fills_blanks_by_the_training_median():
    near = ["INLAND", "<1H OCEAN", "ISLAND", "NEAR BAY", "NEAR OCEAN"] * 2
    train, test = split_fifth(10)
    blank = {int(train[0]), int(test[0])}
    rows = [
        f"-120,35,{k},100,{'' if k in blank else 10 * k * k},50,20,3.5,{100000 + k},{near[k]}\n"
        for k in range(10)
    ]
    got = tabular.load_california(
        {"california_housing.csv": (HOUSING_HEADER + "".join(rows)).encode()}
    )
    assert "2 blanks in total_bedrooms" in got.description
    bedrooms = got.features.index("total_bedrooms")
    median = np.median([10 * k * k for k in train[1:]])
    assert got.train.x[0, bedrooms] == got.test.x[0, bedrooms] == median
    np.testing.assert_array_equal(got.train.x[1:, bedrooms], [10 * k * k for k in train[1:]])
    np.testing.assert_allclose(got.train.y, 1 + train * 1e-5, rtol=1e-6)
    island = got.features.index("ocean_proximity=ISLAND")
    np.testing.assert_array_equal(got.train.x[:, island], [near[k] == "ISLAND" for k in train])
    np.testing.assert_array_equal(got.train.x[:, 8:].sum(axis=1), 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HOUSING_HEADER.replace("rooms", "room"), "expected the header longitude,latitude"),
        (HOUSING_HEADER, "holds no rows below its header"),
        (HOUSING_HEADER + "1,2,3,4,5,6,7,,9,INLAND\n", "holds ''; expected a finite number"),
        (HOUSING_HEADER + "1,2,3,4,5,6,7,8,9,MARS\n" * 2, "holds 'MARS'; expected one of: <1H"),
        (HOUSING_HEADER + "1,2,3,4,,6,7,8,9,INLAND\n" * 2, "total_bedrooms is blank in every"),
    ],
)
def test_california_refuses(text, message):
    with pytest.raises(InputError, match=message):
        tabular.load_california({"california_housing.csv": text.encode()})


# Finding, verifying, downloading


@pytest.mark.parametrize(
    ("pack", "suffix"),
    [(bytes, ""), (gzip.compress, ".gz"), (lzma.compress, ".xz")],
)
def test_files_are_found_packed_or_plain(monkeypatch, tmp_path, pack, suffix):
    contents = small_mnist()
    expect(monkeypatch, "mnist", contents)
    write(tmp_path / "mnist", contents, pack, suffix)
    by_argument = datasets.load("mnist", tmp_path)
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    by_environment = datasets.load("mnist")
    for got in (by_argument, by_environment):
        assert got.train.x.shape == (30, 5, 4)
        assert got.train.x.dtype == np.float32
        assert got.train.x.max() == 1
        assert got.test.y.dtype == np.int32
        np.testing.assert_array_equal(got.test.y, np.arange(10))
        assert got.n_classes == 10
        assert "30 training and 10 test images, 5x4" in got.description
    images = np.frombuffer(contents["t10k-images-idx3-ubyte"][16:], dtype=np.uint8)
    np.testing.assert_allclose(by_argument.test.x.ravel(), images / 255, rtol=1e-6)


def test_the_argument_comes_before_the_environment(monkeypatch, tmp_path):
    contents = small_mnist()
    expect(monkeypatch, "mnist", contents)
    write(tmp_path / "named" / "mnist", contents)
    write(tmp_path / "other" / "mnist", dict.fromkeys(contents, b"damaged"))
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "other"))
    assert len(datasets.load("mnist", tmp_path / "named").train) == 30


@pytest.mark.parametrize("folder", ["tabular", "abalone"])
def test_tables_lie_in_either_folder(monkeypatch, tmp_path, folder):
    contents = {"abalone.data": abalone_text([("M", 1, 2, 3, 4, 5, 6, 7, 8 + k) for k in range(5)])}
    expect(monkeypatch, "abalone", contents)
    write(tmp_path / folder, contents)
    assert len(datasets.load("abalone", tmp_path).train) == 4


def test_another_content_fails_the_checksum(tmp_path):
    write(tmp_path / "mnist", small_mnist(), gzip.compress, ".gz")
    content = small_mnist()["train-images-idx3-ubyte"]
    expected, got = "6bbc9ace898e44ae57da46a324031adb", hashlib.md5(content).hexdigest()
    with pytest.raises(
        InputError,
        match=f"train-images-idx3-ubyte.gz has the wrong content: MD5 {got} .*expected {expected}; "
        "the file is damaged or another version; delete it and fetch it again",
    ):
        datasets.load("mnist", tmp_path)


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (lzma.compress, ".xz")])
@pytest.mark.parametrize("spoil", [lambda b: b[:-20], lambda b: b"PK" + b[2:], lambda b: b""])
def test_damaged_packing(monkeypatch, tmp_path, pack, suffix, spoil):
    contents = small_mnist()
    expect(monkeypatch, "mnist", contents)
    write(tmp_path / "mnist", contents, lambda content: spoil(pack(content)), suffix)
    with pytest.raises(InputError, match=r"(cannot read|wrong content).*delete it and fetch it"):
        datasets.load("mnist", tmp_path)


def test_a_part_of_cifar_is_enough_and_said(monkeypatch, tmp_path):
    monkeypatch.setattr(cifar, "ROWS", 20)
    contents = {f"data_batch_{k}.bin": cifar_bytes(k) for k in (4, 2)}
    expect(monkeypatch, "cifar10", contents | {"test_batch.bin": cifar_bytes(0)})
    write(tmp_path / "cifar10", contents, lzma.compress, ".xz")
    with pytest.raises(InputError, match=r"put test_batch.bin and any of data_batch_1.bin, data"):
        datasets.load("cifar10", tmp_path)
    write(tmp_path / "cifar10", {"test_batch.bin": cifar_bytes(0)})
    got = datasets.load("cifar10", tmp_path)
    assert "40 training images (partial: of the batches 1 to 5 only 2, 4)" in got.description
    expected = np.frombuffer(cifar_bytes(2) + cifar_bytes(4), dtype=np.uint8).reshape(40, 3073)
    red = expected[:, 1:1025].reshape(40, 32, 32) / 255
    np.testing.assert_allclose(got.train.x[..., 0], red, rtol=1e-6)
    np.testing.assert_array_equal(got.train.y, np.arange(40) % 10)
    for name in contents:
        (tmp_path / "cifar10" / f"{name}.xz").unlink()
    with pytest.raises(InputError, match="the files of cifar10 are not in"):
        datasets.load("cifar10", tmp_path)


def test_all_of_cifar_is_not_partial(monkeypatch, tmp_path):
    monkeypatch.setattr(cifar, "ROWS", 20)
    contents = {f"data_batch_{k}.bin": cifar_bytes(k) for k in range(1, 6)}
    contents["test_batch.bin"] = cifar_bytes(0)
    expect(monkeypatch, "cifar10", contents)
    write(tmp_path / "cifar-10-batches-bin", contents)
    got = datasets.load("cifar10", tmp_path)
    assert "100 training images and 20 test images" in got.description


def test_nothing_found_names_both_ways(monkeypatch, tmp_path):
    with pytest.raises(
        InputError,
        match=r"files of mnist are in no folder named and could not be downloaded \(the download "
        r"of https://\S+train-images-idx3-ubyte.gz failed: no network in tests\).*train-labels-idx1"
        r".*--data-dir or THALWEG_DATA, or repeat with a connection to download them",
    ):
        datasets.load("mnist")
    with pytest.raises(InputError, match=r"the files of a9a are not in .*could not be downloaded"):
        datasets.load("a9a", tmp_path)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r'pip install "thalweg\[data\]".*--data-dir'):
        datasets.load("mnist")


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_a_folder_that_is_none(monkeypatch, tmp_path, way):
    (tmp_path / "file").write_text("")
    for wrong in ("absent", "file"):
        argument = tmp_path / wrong if way == "argument" else None
        monkeypatch.setenv("THALWEG_DATA", str(tmp_path / wrong))
        with pytest.raises(InputError, match=f"{wrong}, does not exist or is no folder"):
            datasets.load("mnist", argument)


def test_download_goes_into_the_cache_and_is_found_there(monkeypatch, tmp_path):
    contents = small_mnist()
    expect(monkeypatch, "mnist", contents)
    asked = []

    def retrieve(url, known_hash, fname, path, processor):
        asked.append((url.rpartition("/")[2], known_hash))
        write(Path(path), {fname: gzip.compress(contents[fname.removesuffix(".gz")])})
        assert processor is None

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert len(datasets.load("mnist").train) == 30
    assert asked == [
        (f"{file.name}.gz", f"md5:{file.url_md5}") for file in catalogue.SOURCES["mnist"].files
    ]
    assert asked[0][1] == "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"
    assert len(datasets.load("mnist").train) == 30
    assert len(asked) == 4
    listed = {row.name: row.where for row in datasets.available()}
    assert listed["mnist"] == str(tmp_path / "cache" / "thalweg" / "mnist")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A server of the files in tmp_path/served: its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_an_archive_is_downloaded_for_real(monkeypatch, tmp_path, server):
    monkeypatch.undo()
    monkeypatch.delenv("THALWEG_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache")
    monkeypatch.setattr(cifar, "ROWS", 20)
    contents = {f"data_batch_{k}.bin": cifar_bytes(k) for k in range(1, 6)}
    contents["test_batch.bin"] = cifar_bytes(0)
    archive = tmp_path / "served" / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    url, md5 = f"{server}/{archive.name}", hashlib.md5(archive.read_bytes()).hexdigest()
    expect(monkeypatch, "cifar10", contents, (url, "0" * 32))
    with pytest.raises(InputError, match=f"the download of {url} failed: .*does not match"):
        datasets.load("cifar10")
    expect(monkeypatch, "cifar10", contents, (url, md5))
    assert len(datasets.load("cifar10").train) == 100
    archive.unlink()
    assert len(datasets.load("cifar10").test) == 20
    expect(monkeypatch, "abalone", {}, (f"{server}/absent", md5))
    with pytest.raises(InputError, match=r"the download of http.*/absent failed: 404"):
        datasets.load("abalone")


def test_an_archive_without_the_files(monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", lambda url, path, **_: Path(path).mkdir(parents=True))
    with pytest.raises(InputError, match=r"cifar-10-binary.tar.gz sent holds other files"):
        datasets.load("cifar10")


def test_available_lists_everything(monkeypatch, tmp_path):
    rows = {row.name: row for row in datasets.available()}
    names = "digits mnist fashion-mnist cifar10 a9a abalone california-housing"
    assert list(rows) == names.split()
    assert rows["digits"].where == "embedded in scikit-learn"
    assert {row.where for name, row in rows.items() if name != "digits"} == {"to download"}
    assert all(row.description for row in rows.values())
    write(tmp_path / "tabular", {"abalone.data": b""})
    rows = {row.name: row.where for row in datasets.available(tmp_path)}
    assert rows["abalone"] == str(tmp_path / "tabular")
    assert rows["a9a"] == "to download"


def test_unknown_name():
    with pytest.raises(InputError, match="unknown data set 'minst'; did you mean 'mnist'"):
        datasets.load("minst")


def test_digits_need_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r'not installed: pip install "thalweg\[data\]"'):
        datasets.load("digits")


# What is done with a data set


def toy():
    generator = np.random.default_rng(3)
    x = generator.normal(3, 5, (50, 2, 2)).astype(np.float32)
    x[:, 1, 1] = 7
    y = (np.arange(50) % 5).astype(np.int32)
    return Dataset("toy", Split(x[:40], y[:40]), Split(x[40:], y[40:]), 5, "a toy")


def test_standardised():
    raw, got = toy(), datasets.standardised(toy())
    mean, deviation = raw.train.x.mean(axis=0), raw.train.x.std(axis=0)
    # Means of 40 float32 numbers near 1: rounding 1e-7 each.
    np.testing.assert_allclose(got.train.x.mean(axis=0), 0, atol=1e-6)
    varying = np.array([[True, True], [True, False]])
    np.testing.assert_allclose(got.train.x.std(axis=0)[varying], 1, rtol=1e-6)
    np.testing.assert_array_equal(got.test.x[:, 1, 1], 0)
    expected = ((raw.test.x - mean) / np.where(varying, deviation, 1))[:, varying]
    np.testing.assert_allclose(got.test.x[:, varying], expected, rtol=1e-4, atol=1e-5)
    assert got.train.x.dtype == np.float32
    assert got.description == "a toy; standardised"
    np.testing.assert_array_equal(raw.train.x, toy().train.x)


def test_first_of_classes():
    raw, got = toy(), datasets.first_of_classes(toy(), [3, 1], 5)
    rows = [1, 3, 6, 8, 11]
    np.testing.assert_array_equal(got.train.x, raw.train.x[rows])
    np.testing.assert_array_equal(got.train.y, [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(got.test.y, [1, 0, 1, 0])
    assert got.n_classes == 2
    assert got.description == "a toy; the first 5 training samples of the classes 3, 1"
    everything = datasets.first_of_classes(toy(), range(5), 40)
    np.testing.assert_array_equal(everything.train.y, raw.train.y)


@pytest.mark.parametrize(
    ("classes", "n", "message"),
    [
        ([0, 5], 3, "toy has the classes 0 to 4, got 5"),
        ([], 3, "expected some different classes, got none"),
        ([1, 1], 3, "expected some different classes, got 1, 1"),
        ([0, 1], 17, "holds 16 training samples of the classes 0, 1, fewer than the 17"),
        ([0, 1], 0, "n must be at least 1, got 0"),
    ],
)
def test_first_of_classes_refuses(classes, n, message):
    with pytest.raises(InputError, match=message):
        datasets.first_of_classes(toy(), classes, n)


def test_a_regression_has_no_classes():
    text = abalone_text([("M", 1, 2, 3, 4, 5, 6, 7, 8 + k) for k in range(5)])
    regression = tabular.load_abalone({"abalone.data": text})
    with pytest.raises(InputError, match="abalone is a regression: it has no classes"):
        datasets.first_of_classes(regression, [0], 1)


def test_one_hot():
    got = datasets.one_hot(np.array([2, 0, 2]), 3)
    np.testing.assert_array_equal(got, [[0, 0, 1], [1, 0, 0], [0, 0, 1]])
    assert got.dtype == np.float32
    for wrong, first in (([0, 3, 4], 3), ([-1, 3], -1)):
        with pytest.raises(
            InputError, match=f"2 labels are not among 0 to 2, the first is {first}"
        ):
            datasets.one_hot(wrong, 3)
    for wrong in ([0.5], [[1]]):
        with pytest.raises(InputError, match="expected one integer a sample"):
            datasets.one_hot(wrong, 3)


def test_the_permutation_is_fixed():
    # Pinned: every split, and so every published number, depends on it.
    np.testing.assert_array_equal(fixed_permutation(10), [3, 2, 1, 8, 6, 0, 7, 4, 5, 9])
    np.testing.assert_array_equal(np.sort(fixed_permutation(1797)), np.arange(1797))
    train, test = split_fifth(11)
    assert (len(train), len(test)) == (8, 3)


# Real files


def test_digits():
    from sklearn.datasets import load_digits

    got, whole = datasets.load("digits"), load_digits()
    assert got.train.x.shape == (1437, 8, 8)
    assert got.test.x.shape == (360, 8, 8)
    assert (got.train.x.min(), got.train.x.max()) == (0, 1)
    order = fixed_permutation(1797)
    np.testing.assert_array_equal(got.train.x, whole.images[order[:1437]] / 16)
    np.testing.assert_array_equal(got.test.y, whole.target[order[1437:]])


FACTS = {
    "digits": ((1437, 8, 8), (360, 8, 8)),
    "mnist": ((60000, 28, 28), (10000, 28, 28)),
    "fashion-mnist": ((60000, 28, 28), (10000, 28, 28)),
    "cifar10": (None, (10000, 32, 32, 3)),
    "a9a": ((32561, 123), (16281, 123)),
    "abalone": ((3341, 10), (836, 10)),
    "california-housing": ((16512, 13), (4128, 13)),
}
# Published counts of labels: of the whole training part, of its first 1000, or of the test part.
COUNTS = {
    "mnist": ("train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
    "fashion-mnist": ("first", [107, 104, 86, 92, 95, 100, 100, 115, 102, 99]),
    "cifar10": ("test", [1000] * 10),
    "a9a": ("train", [32561 - 7841, 7841]),
}


def present():
    """The digits, and what lies in the folder named by THALWEG_DATA when the tests start."""
    names = set(catalogue.SOURCES) if REAL else set()
    here = {name for name in names if sources.locate(name, REAL)}
    return ["digits", *sorted(here)]


@pytest.mark.parametrize("name", present())
def test_what_there_is(name):
    got = datasets.load(name, REAL or None)
    train, test = FACTS[name]
    assert train in (None, got.train.x.shape)
    assert got.test.x.shape == test
    for split in (got.train, got.test):
        assert np.isfinite(split.x).all()
        assert split.y.dtype == (np.float32 if got.n_classes is None else np.int32)
    if name in COUNTS:
        part, counts = COUNTS[name]
        labels = {"train": got.train.y, "first": got.train.y[:1000], "test": got.test.y}[part]
        np.testing.assert_array_equal(np.bincount(labels), counts)
    if got.features:
        assert len(got.features) == got.train.x.shape[1]
    if name == "cifar10" and "only 1)" in got.description:
        counts = [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
        np.testing.assert_array_equal(np.bincount(got.train.y), counts)
        pair = datasets.first_of_classes(got, [0, 1], 1000)
        assert pair.train.x.shape == (1000, 32, 32, 3)
    if name == "california-housing":
        assert "207 blanks" in got.description
        # The dearest districts are capped at 500,001 dollars.
        assert max(got.train.y.max(), got.test.y.max()) == np.float32(5.00001)
    if name == "abalone":
        rings = np.concatenate([got.train.y, got.test.y])
        assert (rings.min(), rings.max()) == (1, 29)
        np.testing.assert_array_equal(got.train.x[:, :3].sum(axis=1), 1)
