"""What decides a claim: comparisons of numbers with errors, and both of their readings."""

import math

import pytest

from thalweg.papers import checks
from thalweg.papers.checks import Check, above, below, both, is_so, near, within
from thalweg.papers.outcome import Claim


@pytest.mark.parametrize(
    ("check", "holds", "text"),
    [
        (near(1.02, 1, error=0.01), True, "1.020 ± 0.010, expected 1"),
        (near(1.04, 1, error=0.01), False, "1.040 ± 0.010, expected 1"),
        (
            near(1.04, 1, error=0.01, tolerance=0.02),
            True,
            "1.040 ± 0.010, expected 1 to within 0.02",
        ),
        (near(math.nan, 1, tolerance=9), False, "nan, expected 1 to within 9"),
        (near(5, 1, error=math.inf), False, "5.000 ± inf, expected 1"),
        (below(1, 2), True, "1 < 2"),
        (below(2, 1), False, "not 2 < 1"),
        (below(1, 2, error=0.5), None, "1.00 ± 0.50 < 2 within three standard errors"),
        (below(math.inf, 2), False, "not inf < 2"),
        (below(1, 2, error=math.inf), None, "1.000 ± inf < 2 within three standard errors"),
        (above(math.inf, 2), True, "inf > 2"),
        (above(math.nan, 2), False, "not nan > 2"),
        (above(3, 2, error=0.1), True, "3.00 ± 0.10 > 2"),
        (within(3, 2, 4), True, "3, expected 2 to 4"),
        (within(5, 2, 4), False, "5, expected 2 to 4"),
        (is_so(True, "3 of 3"), True, "3 of 3"),
    ],
)
def test_comparisons(check, holds, text):
    assert (check.holds, check.text) == (holds, text)


def test_of_several_the_worst_decides():
    true, open_, false = below(1, 2), below(1, 2, error=1), below(2, 1)
    assert both(true, true).holds is True
    assert both(true, open_).holds is None
    assert both(open_, false, true).holds is False


def test_the_numbers_are_kept_beside_the_words():
    check = both(near(1.02, 1, error=0.01, tolerance=0.1), within(3, 2, 4), is_so(True, "so"))
    assert check.saved()["numbers"] == [
        {"value": 1.02, "error": 0.01, "relation": "near", "reference": 1, "tolerance": 0.1},
        {"value": 3, "error": 0.0, "relation": "above", "reference": 2, "tolerance": 0.0},
        {"value": 3, "error": 0.0, "relation": "below", "reference": 4, "tolerance": 0.0},
    ]
    # Each says again what came out.
    for one in check.numbers:
        again = {
            "near": lambda n: near(n.value, n.reference, error=n.error, tolerance=n.tolerance),
            "below": lambda n: below(n.value, n.reference, error=n.error),
            "above": lambda n: above(n.value, n.reference, error=n.error),
        }[one.relation](one)
        assert again.numbers == (one,)
        assert again.holds


@pytest.mark.parametrize(
    ("printed", "corrected", "words", "verdict"),
    [
        (True, None, {}, "holds"),
        (False, None, {}, "does not hold"),
        (None, None, {}, "undecided"),
        (False, True, {"correction": "c"}, "does not hold as printed"),
        (False, True, {"reading": "r"}, "holds when read as"),
        (False, False, {"reading": "r"}, "does not hold"),
        (False, None, {"reading": "r"}, "undecided"),
        (True, False, {"correction": "c"}, "holds"),
    ],
)
def test_verdicts(printed, corrected, words, verdict):
    second = Check(corrected, "") if words else None
    claim = Claim("(1)", "a statement", Check(printed, ""), second, **words)
    assert claim.verdict == verdict
    assert claim.failed == (verdict == "does not hold")


def test_errors_have_two_digits():
    assert checks.measured(0.31534, 0.00731) == "0.3153 ± 0.0073"
    assert checks.measured(5.0, 0.0) == "5"
    assert checks.measured(3.21e7, 4.4e5) == "3.21e+07 ± 4e+05"
