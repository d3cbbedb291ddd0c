"""One kind of error for a request that makes no sense."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The request makes no sense: says what was got, what was expected and what to do.

    Every argument check of the package raises it, before any work is done; the command line turns
    it into one line and exit status 2.
    """


def known(name: str, names: Iterable[str], what: str) -> str:
    """Return ``name`` if it is one of ``names``.

    Args:
        name: What was asked for.
        names: What there is.
        what: The kind of thing, for the message ("problem", "sampler").

    Raises:
        InputError: With the nearest name and the whole list.
    """
    listed = sorted(names)
    if name in listed:
        return name
    near = difflib.get_close_matches(name, listed, n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    raise InputError(f"unknown {what} {name!r};{hint} expected one of: {', '.join(listed)}")
