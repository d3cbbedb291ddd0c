"""What is wrong with a configuration file, in words, with the line."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from thalweg.errors import InputError
from thalweg.train.toml import KeyPath, TomlFile

Kinds = Mapping[str, tuple[str, Sequence[type[BaseModel]]]]
_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text in quotes",
    "list_type": "a list in brackets, as in [64, 64]",
    "model_type": "a table",
    "model_attributes_type": "a table that names its kind",
    "finite_number": "a finite number",
}
_CHOICES = ("literal_error", "union_tag_invalid")
_STEP = "a number, or a table of a schedule as in {name = 'cosine', initial = 0.1}"


class Schema:
    """The tables of a file, to say which keys would have been right.

    Args:
        root: The whole file.
        kinds: By the name of a table, the key that decides what else it holds, and what that may
            be.
        tables: The other tables by name.
    """

    def __init__(self, root: type[BaseModel], kinds: Kinds, tables: Mapping[str, type[BaseModel]]):
        self.root, self.kinds, self.tables = root, kinds, tables

    def refusal(self, file: TomlFile, error: ValidationError) -> InputError:
        """The fault that stands first in the file, unknown keys before all others."""
        # A misspelt key is also a missing one; the first is what helps.
        unknown = [f for f in error.errors() if f["type"] == "extra_forbidden"]
        faults = [self._fault(file, dict(fault)) for fault in unknown or error.errors()]
        path, message = min(faults, key=lambda fault: file.line(fault[0]))
        return file.refusal(path, message)

    def _fault(self, file: TomlFile, fault: dict[str, Any]) -> tuple[KeyPath, str]:
        path, table = self._place(file, fault["loc"])
        kind, context = fault["type"], fault.get("ctx", {})
        if kind == "extra_forbidden":
            return path, self._unknown(path, table)
        if kind == "missing":
            return path[:-1], f"{_table(path[:-1])} lacks the key {path[-1]!r}"
        if kind == "union_tag_not_found":
            return path, f"{_table(path)} lacks the key {context['discriminator']}"
        if kind in _CHOICES:
            given = context.get("tag", fault["input"])
            path = (*path, context["discriminator"].strip("'")) if "tag" in context else path
            choices = re.findall(
                r"'([^']*)'", context.get("expected_tags", context.get("expected"))
            )
            return path, f"{_key(path)} is {given!r};{_near(given, choices)} {_one_of(choices)}"
        expected = _EXPECTED.get(kind, fault["msg"].removeprefix("Input should be "))
        if path[-1:] == ("step",) and kind == "model_attributes_type":
            expected = _STEP
        expected = re.sub(r"^(?=greater|less)", "a number ", expected)
        shown = file.shown(path)
        return path[: len(shown)], f"{_key(shown)} is {fault['input']!r}; expected {expected}"

    def _unknown(self, path: KeyPath, table: type[BaseModel]) -> str:
        key = str(path[-1])
        message = f"unknown key {key!r} in {_table(path[:-1])}"
        name = next((str(p) for p in reversed(path[:-1]) if isinstance(p, str)), "")
        tag, siblings = self.kinds.get(name, ("", ()))
        owners = [_tag(sibling, tag) for sibling in siblings if key in sibling.model_fields]
        if owners:
            own = " or ".join(repr(owner) for names in owners for owner in names)
            return f"{message} of {tag} {_tag(table, tag)[0]!r}; it goes with {own}"
        return f"{message};{_near(key, table.model_fields)} {_one_of(table.model_fields)}"

    def _place(self, file: TomlFile, loc: Sequence[str | int]) -> tuple[KeyPath, type[BaseModel]]:
        """The path of an error in the file, and the table it is in.

        A location has the name of the chosen kind behind that of the table, and a place for a
        table of which there is but one.
        """
        path: list[str | int] = []
        table, waiting = self.root, ""
        for place, part in enumerate(loc):
            if isinstance(part, int):
                if not (path == ["sampler"] and isinstance(file.document.get("sampler"), dict)):
                    path.append(part)
            elif waiting and part in (names := self._named(waiting)):
                table, waiting = names[part], ""
            else:
                path.append(part)
                waiting = part if part in self.kinds else ""
                table = self.tables.get(part, table) if place + 1 < len(loc) else table
        return tuple(path), table

    def _named(self, name: str) -> dict[str, type[BaseModel]]:
        tag, kinds = self.kinds[name]
        return {value: kind for kind in kinds for value in _tag(kind, tag)}


def _tag(table: type[BaseModel], key: str) -> tuple[str, ...]:
    """The names that make a table this one."""
    return get_args(table.model_fields[key].annotation)


def _table(path: KeyPath) -> str:
    names = [str(part) for part in path if isinstance(part, str)]
    return f"[{'.'.join(names)}]" if names else "the file"


def _key(path: KeyPath) -> str:
    names = [part for part in path if isinstance(part, str)]
    return names[-1] if len(names) < 2 else f"{names[-1]} in {_table(names[:-1])}"


def _near(name: Any, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f" did you mean {near[0]!r}?" if near else ""


def _one_of(names: Iterable[str]) -> str:
    return f"expected one of: {', '.join(names)}"
