"""Comparisons that decide a claim: each can come out either way."""

import math
from typing import Any, Literal, NamedTuple

# A statistical comparison is decided beyond so many standard errors: .27 % of true statements are
# refused where errors are normal.
SIGMAS = 3.0


class Compared(NamedTuple):
    """A measured number and what it is compared with.

    Attributes:
        value: What was measured.
        error: Its standard error, 0 for what is exact or has none.
        relation: "near", "below" or "above" the reference.
        reference: The statement's number.
        tolerance: What the method or the printed digits leave open.
    """

    value: float
    error: float
    relation: Literal["near", "below", "above"]
    reference: float
    tolerance: float = 0.0


class Check(NamedTuple):
    """The outcome of a comparison.

    Attributes:
        holds: What came out; None where the errors are too large to decide.
        text: The numbers that decided.
        numbers: The same as numbers, where it is these that were compared.
    """

    holds: bool | None
    text: str
    numbers: tuple[Compared, ...] = ()

    def saved(self) -> dict[str, Any]:
        """As plain texts and numbers."""
        numbers = [number._asdict() for number in self.numbers]
        return {"holds": self.holds, "text": self.text, "numbers": numbers}


def near(value: float, expected: float, *, error: float = 0.0, tolerance: float = 0.0) -> Check:
    r"""Whether :math:`|v - e| \le 3\sigma + t`.

    Args:
        value: What was measured.
        expected: The statement's number.
        error: The standard error :math:`\sigma` of the measured value (and, in quadrature, of the
            expected one if that is a measurement, too).
        tolerance: What the method or the printed digits leave open, t.
    """
    numbers = (Compared(value, error, "near", expected, tolerance),)
    text = f"{measured(value, error)}, expected {number(expected)}"
    if tolerance:
        text += f" to within {tolerance:.2g}"
    # A value or an error that is not finite is near nothing.
    holds = math.isfinite(error) and abs(value - expected) <= SIGMAS * error + tolerance
    return Check(holds, text, numbers)


def below(value: float, bound: float, *, error: float = 0.0) -> Check:
    r"""Whether the value is below a bound: undecided within three standard errors of it."""
    return _ordered(Compared(value, error, "below", bound))


def above(value: float, bound: float, *, error: float = 0.0) -> Check:
    r"""Whether the value is above a bound: undecided within three standard errors of it."""
    return _ordered(Compared(value, error, "above", bound))


def within(value: float, low: float, high: float) -> Check:
    """Whether the value lies in a closed interval."""
    numbers = (Compared(value, 0.0, "above", low), Compared(value, 0.0, "below", high))
    text = f"{number(value)}, expected {number(low)} to {number(high)}"
    return Check(low <= value <= high, text, numbers)


def is_so(condition: bool, text: str) -> Check:
    """A comparison made elsewhere, with the text of its numbers."""
    return Check(bool(condition), text)


def both(*checks: Check) -> Check:
    """All of several comparisons: false if one is, else undecided if one is."""
    outcomes = [check.holds for check in checks]
    holds = False if False in outcomes else None if None in outcomes else True
    numbers = tuple(number for check in checks for number in check.numbers)
    return Check(holds, "; ".join(check.text for check in checks), numbers)


def measured(value: float, error: float = 0.0) -> str:
    """A value with its standard error: 0.3153 ± 0.0073."""
    if not error:
        return number(value)
    digits = max(0, 1 - math.floor(math.log10(error))) if math.isfinite(error) else 3
    if abs(value) >= 1e5 or digits > 7:
        return f"{value:.3g} ± {error:.1g}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def number(value: float) -> str:
    """A number to four significant digits."""
    return f"{value:.4g}"


def _ordered(numbers: Compared) -> Check:
    value, error, relation, bound, _ = numbers
    sign, margin = ("<", bound - value) if relation == "below" else (">", value - bound)
    text = f"{measured(value, error)} {sign} {number(bound)}"
    # An error that is not finite decides nothing, unless the value itself is beyond all bounds.
    if math.isfinite(value) and error and not abs(margin) > SIGMAS * error:
        return Check(None, f"{text} within three standard errors", (numbers,))
    holds = margin > 0
    return Check(holds, text if holds else f"not {text}", (numbers,))
