"""Where the files of the data sets are: found in a folder, or downloaded, and verified."""

import gzip
import hashlib
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from thalweg.datasets.catalogue import SOURCES, DataFile
from thalweg.errors import InputError

ENVIRONMENT = "THALWEG_DATA"
_SUFFIXES = ("", ".gz", ".xz")


def read(name: str, data_dir: str | Path | None = None) -> dict[str, bytes]:
    """The unpacked and verified content of a data set's files, by the name of the file.

    They are taken from ``data_dir``, or from the folder named in the environment variable
    THALWEG_DATA if that is None, or from earlier downloads, or are downloaded.

    Raises:
        InputError: A folder that does not exist, files neither found nor downloaded, a file that
            is damaged.
    """
    paths = locate(name, data_dir) or _download(name, data_dir)
    files = {file.name: file for file in SOURCES[name].files}
    return {found: _verified(files[found], path) for found, path in paths.items()}


def locate(name: str, data_dir: str | Path | None = None) -> dict[str, Path] | None:
    """Where a data set's files lie, by the name of the file; None if they must be downloaded."""
    for root in _roots(data_dir):
        for folder in SOURCES[name].folders:
            found = dict(_found(name, root / folder))
            if SOURCES[name].sufficient(set(found)):
                return found
    return None


def _found(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    for file in SOURCES[name].files:
        candidates = (folder / f"{file.name}{suffix}" for suffix in _SUFFIXES)
        path = next((path for path in candidates if path.is_file()), None)
        if path is not None:
            yield file.name, path


def _roots(data_dir: str | Path | None) -> list[Path]:
    """The folders searched: the one given, then that of earlier downloads."""
    given = _given(data_dir)
    cache = _cache()
    return [root for root in (given, cache) if root is not None]


def _given(data_dir: str | Path | None) -> Path | None:
    said = "the data folder" if data_dir is not None else f"the data folder in {ENVIRONMENT}"
    chosen = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT)
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise InputError(f"{said}, {folder}, does not exist or is no folder; correct or unset it")
    return folder


def _cache() -> Path | None:
    try:
        import pooch
    except ModuleNotFoundError:
        return None
    return Path(pooch.os_cache("thalweg"))


def _download(name: str, data_dir: str | Path | None) -> dict[str, Path]:
    try:
        import pooch
    except ModuleNotFoundError as error:
        reason = 'downloading needs pooch: pip install "thalweg[data]"'
        raise _unavailable(name, data_dir, reason) from error
    folder = Path(pooch.os_cache("thalweg")) / name
    sent = {file.url: file for file in SOURCES[name].files}
    try:
        for url, file in sent.items():
            archive = url.endswith(".tar.gz")
            pooch.retrieve(
                url,
                known_hash=f"md5:{file.url_md5}",
                # Stored under the name by which it is found again.
                fname=url.rpartition("/")[2] if archive else file.name + _packing(url),
                path=folder,
                processor=pooch.Untar(extract_dir=".") if archive else None,
            )
    except (OSError, ValueError) as error:
        # Network errors are OSError, a wrong checksum is ValueError.
        reason = " ".join(str(error).split()) or type(error).__name__
        shown = reason if len(reason) <= 160 else reason[:157] + "..."
        raise _unavailable(name, data_dir, f"the download of {url} failed: {shown}") from error
    paths = locate(name, folder.parent)
    if paths is None:
        raise _unavailable(name, data_dir, f"what {url} sent holds other files")
    return paths


def _packing(url: str) -> str:
    return next((suffix for suffix in (".gz", ".xz") if url.endswith(suffix)), "")


def _unavailable(name: str, data_dir: str | Path | None, reason: str) -> InputError:
    files = ", ".join(file.name for file in SOURCES[name].files if not file.optional)
    optional = ", ".join(file.name for file in SOURCES[name].files if file.optional)
    files += f" and any of {optional}" if optional else ""
    folder = _given(data_dir)
    where = f"are not in {folder}" if folder else "are in no folder named"
    return InputError(
        f"the files of {name} {where} and could not be downloaded ({reason}); either put {files} "
        f"(plain, .gz or .xz) into a folder {SOURCES[name].folders[0]}/ and name the folder above "
        f"it with --data-dir or {ENVIRONMENT}, or repeat with a connection to download them"
    )


def _verified(file: DataFile, path: Path) -> bytes:
    remedy = "the file is damaged or another version; delete it and fetch it again"
    try:
        content = _unpacked(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"cannot read {path}: {error}; {remedy}") from error
    got = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got not in file.md5:
        raise InputError(
            f"{path} has the wrong content: MD5 {got} when unpacked ({len(content)} bytes), "
            f"expected {' or '.join(file.md5)}; {remedy}"
        )
    return content


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    return lzma.decompress(content) if path.suffix == ".xz" else content
