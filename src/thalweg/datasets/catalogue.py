"""Which files make up each data set, their checksums and where they can be downloaded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes:
        name: Its name when unpacked.
        md5: The checksums accepted, of the unpacked content.
        url: Where it is downloaded from, itself, packed or inside an archive.
        url_md5: The checksum of what the address sends.
        optional: Whether it is one of several of which at least one is needed.
    """

    name: str
    md5: tuple[str, ...]
    url: str
    url_md5: str
    optional: bool = False


@dataclass(frozen=True)
class Source:
    """The files of a data set and the folders, inside a data folder, where they may lie."""

    folders: tuple[str, ...]
    files: tuple[DataFile, ...]

    def sufficient(self, names: set[str]) -> bool:
        """Whether these files are enough: all that are needed and one of the optional ones."""
        needed = {file.name for file in self.files if not file.optional}
        optional = {file.name for file in self.files if file.optional}
        return needed <= names and (not optional or bool(optional & names))


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CIFAR10 = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)
_LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary"


def _idx(url: str, md5: tuple[str, ...], sent_md5: tuple[str, ...]) -> tuple[DataFile, ...]:
    """The four files of MNIST, with the checksums of the unpacked and of the .gz files."""
    return tuple(
        DataFile(name, (unpacked,), f"{url}/{name}.gz", sent)
        for name, unpacked, sent in zip(_IDX_FILES, md5, sent_md5, strict=True)
    )


def _batches(*md5: str) -> tuple[DataFile, ...]:
    """The training batches of CIFAR-10, any of which will do."""
    return tuple(
        DataFile(f"data_batch_{k}.bin", (unpacked,), *_CIFAR10, optional=True)
        for k, unpacked in enumerate(md5, start=1)
    )


def _text(name: str, url: str, *md5: str) -> DataFile:
    """A file that is sent as it is, with the first checksum."""
    return DataFile(name, md5, url, md5[0])


SOURCES = {
    "mnist": Source(
        ("mnist",),
        _idx(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            (
                "6bbc9ace898e44ae57da46a324031adb",
                "a25bea736e30d166cdddb491f175f624",
                "2646ac647ad5339dbf082846283269ea",
                "27ae3e4e09519cfbb04c329615203637",
            ),
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
    ),
    "fashion-mnist": Source(
        ("fashion-mnist",),
        _idx(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            (
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "9018921c3c673c538a1fc5bad174d6f9",
                "8181f5470baa50b63fa0f6fddb340f0a",
                "15d484375f8d13e6eb1aabb0c3f46965",
            ),
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ),
    ),
    "cifar10": Source(
        ("cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin"),
        (
            DataFile("test_batch.bin", ("803d5f7f4d78ea53de84dbe85f74fb6d",), *_CIFAR10),
            *_batches(
                "5dd7e06a14cb22eb9f671a540d1b7c25",
                "5ea93a67294ea407fff1d09f752e9692",
                "942cd6a4bcdd0dd3c604fbe906cb4421",
                "ae636b3ba5c66a11e91e8cb52e771fcb",
                "53f37980c15c3d472c316c40844f3f0d",
            ),
        ),
    ),
    "a9a": Source(
        ("tabular", "a9a"),
        (
            # The second checksum is of a copy that lacks the blanks ending the last 2561 lines.
            _text(
                "a9a",
                f"{_LIBSVM}/a9a",
                "fb3596510d780aaf76a06dc721d49662",
                "983b7716a395c5ed24f4dc3dd3c26303",
            ),
            _text("a9a.t", f"{_LIBSVM}/a9a.t", "f0bb16cf1ee3e80ff560e9d132ee647e"),
        ),
    ),
    "abalone": Source(
        ("tabular", "abalone"),
        (
            _text(
                "abalone.data",
                "https://archive.ics.uci.edu/ml/machine-learning-databases/abalone/abalone.data",
                "a769fd0119787cac09158fe08971e480",
            ),
        ),
    ),
    "california-housing": Source(
        ("tabular", "california-housing"),
        (
            _text(
                "california_housing.csv",
                "https://raw.githubusercontent.com/ageron/handson-ml2/master/datasets/housing/"
                "housing.csv",
                "d1c47305887e2252bf1ccbd74ff159a6",
            ),
        ),
    ),
}
