"""A TOML file that knows the line of each of its keys, so that errors can name it."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thalweg.errors import InputError

KeyPath = Sequence[str | int]


class _Statement(NamedTuple):
    """A statement of a file: its lines, from 1, and what the file says up to its end."""

    first: int
    last: int
    document: dict[str, Any]


class TomlFile:
    """A parsed file and its text.

    Lines are found by reading the file from its start, one line more each time, until the parser
    that reads it anyway knows the key: comments, strings over several lines, dotted keys and
    arrays of tables are its business alone. Cost: the square of the number of lines.

    Args:
        path: The file, UTF-8.

    Attributes:
        name: The file's name as it was given, for messages.
        text: Its content.
        document: The tables.

    Raises:
        InputError: No such file, no text, or no TOML: which line, and what is wrong.
    """

    def __init__(self, path: str | Path):
        self.name = str(path)
        try:
            # A mark at the start of the file is no part of its text, nor are Windows' line ends.
            self.text = Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        except FileNotFoundError:
            raise InputError(
                f"there is no file {path}; expected a TOML file that says what to train"
            ) from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is no text in UTF-8 (byte {error.start})") from error
        try:
            self.document: dict[str, Any] = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise self._unreadable(error) from error

    def refusal(self, path: KeyPath, message: str) -> InputError:
        """The error about a key; one that is not there is shown at the table it is missing from."""
        return InputError(f"{self.name}, line {self.line(path)}: {message}")

    def line(self, path: KeyPath) -> int:
        """The line, from 1, on which a key begins, or the nearest of its tables that is there.

        Args:
            path: Names of tables and keys, and places in arrays, as in ("sampler", 1, "batch").
        """
        path = self.shown(path)
        found = (s.first for s in self._statements() if _depth(s.document, path) == len(path))
        return next(found, 1) if path else 1

    def shown(self, path: KeyPath) -> KeyPath:
        """As much of a path as stands in the file."""
        return path[: _depth(self.document, path)]

    def _statements(self) -> list[_Statement]:
        lines = self.text.split("\n")
        found: list[_Statement] = []
        for count in range(1, len(lines) + 1):
            try:
                document = tomllib.loads("\n".join(lines[:count]))
            except tomllib.TOMLDecodeError:
                continue
            found.append(_Statement(found[-1].last + 1 if found else 1, count, document))
        return found

    def _unreadable(self, error: tomllib.TOMLDecodeError) -> InputError:
        whole = self._statements()
        begun = whole[-1].last + 1 if whole else 1
        said = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error))
        if said is None or said[1].startswith("Unclosed"):
            what = said[1] if said else str(error).removesuffix(" (at end of document)")
            return InputError(f"{self.name}, line {begun}: {what}; what begins here has no end")
        number = int(said[2])
        line = self.text.split("\n")[number - 1].strip()
        since = "" if number == begun else f"; what begins on line {begun} has no end before it"
        return InputError(
            f"{self.name}, line {number}: {said[1]} in {line!r}; expected TOML{since}"
        )


def _depth(document: Any, path: KeyPath) -> int:
    """How many of the steps of a path there are."""
    for depth, step in enumerate(path):
        if not isinstance(document, (dict, list)):
            return depth
        try:
            document = document[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return depth
    return len(path)
