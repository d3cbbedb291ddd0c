"""What goes beyond the documents comes out as known."""

from collections import Counter

import pytest

from thalweg.papers import beyond

HOLDS, WRONG = "holds", "does not hold as printed"
EXPECTED = {
    "rate-function": {HOLDS: 1, WRONG: 1},
    "when-rr-pays": {HOLDS: 3, WRONG: 1},
}
BY_NAME = {one.name.partition("/")[2]: one for one in beyond.EXPERIMENTS}


def test_every_item_has_an_experiment():
    assert set(BY_NAME) == set(EXPECTED)
    assert {item for one in beyond.EXPERIMENTS for item in one.covers} == set(beyond.ITEMS)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_verdicts(name):
    outcome = BY_NAME[name](quick=True)
    told = [(c.where, c.verdict, c.printed.text, c.corrected) for c in outcome.claims]
    assert Counter(claim.verdict for claim in outcome.claims) == EXPECTED[name], told
    assert outcome.pictures
