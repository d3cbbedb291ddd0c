"""Numbers as short texts, for tables of a fixed width."""

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
# Beyond these powers of ten a number is written with an exponent.
_LOWEST, _HIGHEST = -4, 5


def error_notation(mean: float | None, error: float | None, *, digits: int = 2) -> str:
    """A value with its standard error in units of its last digits: .945(16) is .945 ± .016.

    The error has one digit, or two if the first is a 1 and ``digits`` allows it. Without an error
    (None, 0, as of a single trial) the value has three significant digits. The zero before the
    point is left out.

    Args:
        mean: The value; None, where it is unknown, gives a dash.
        error: Its standard error.
        digits: 1 where the error itself is known from a few trials only, else 2.
    """
    if mean is None or not math.isfinite(mean):
        return MISSING
    if not error or not math.isfinite(error):
        return plain(mean)
    power = _power(max(abs(mean), error))
    if not _LOWEST <= power <= _HIGHEST:
        scale = 10.0**power
        return f"{_with_error(mean / scale, error / scale, digits)}e{power}"
    return _with_error(mean, error, digits)


def plain(value: float | None) -> str:
    """A value to three significant digits, large ones to the unit."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    power = _power(abs(value))
    if not _LOWEST < power <= _HIGHEST:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{digits}e{int(exponent)}"
    return _short_zero(f"{value:.{max(0, 2 - power)}f}")


def estimate(value: Mapping[str, Any] | None, *, digits: int = 2) -> str:
    """A ``{"mean", "error"}`` of a result."""
    if value is None:
        return MISSING
    return error_notation(value["mean"], value["error"], digits=digits)


def fraction(value: Mapping[str, Any] | None) -> str:
    """A ``{"fraction", "error"}`` of a result; none of the trials is 0, all of them 1.000."""
    if value is None or value["fraction"] is None:
        return MISSING
    if value["fraction"] in (0, 1):
        return "1.000" if value["fraction"] else "0"
    return error_notation(value["fraction"], value["error"])


def count(value: float | None) -> str:
    """A large number in short: 1.4M, 32k, 640."""
    if value is None:
        return MISSING
    for size, prefix in _PREFIXES:
        # What would round up to a thousand of the next smaller unit belongs to this one.
        if value >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.1f}{prefix}" if scaled < 9.95 else f"{scaled:.0f}{prefix}"
    return f"{value:.0f}"


def as_number(step: str) -> float | None:
    """The step of a row as a number; None if it is a schedule ("0.002 to 1e-05")."""
    try:
        return float(step)
    except ValueError:
        return None


def _power(value: float) -> int:
    return math.floor(math.log10(value))


def _with_error(mean: float, error: float, digits: int) -> str:
    power = _power(error)
    two = digits > 1 and error / 10.0**power < 1.95
    # An error of .0097 rounds to one of .01: the next power of ten.
    power += not two and digits == 1 and round(error / 10.0**power) == 10
    last = power - two
    units = round(error / 10.0**last)
    if last >= 0:
        return f"{round(mean, -last) + 0.0:.0f}({units * 10**last})"
    # Adding zero turns -0.0 into 0.0.
    return f"{_short_zero(f'{round(mean, -last) + 0.0:.{-last}f}')}({units})"


def _short_zero(text: str) -> str:
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
