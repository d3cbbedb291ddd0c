"""The experiments on An and Ying's document: all statements have a row, and come out as known."""

from collections import Counter

import pytest

from thalweg.datasets import available
from thalweg.papers import an_ying

HOLDS, READ, WRONG = "holds", "holds when read as", "does not hold as printed"
# Verdicts of the quick runs.
EXPECTED = {
    "figure-1": {HOLDS: 5, WRONG: 1},
    "lemma-1": {HOLDS: 6, WRONG: 4},
    "variances": {HOLDS: 4, WRONG: 2},
    "trace": {HOLDS: 3, WRONG: 1},
    "remark-1": {HOLDS: 2, WRONG: 1},
    "remark-2": {HOLDS: 1, WRONG: 2},
    "exits": {HOLDS: 6, WRONG: 2},
    "lemma-3": {HOLDS: 4, WRONG: 1},
    "staleness": {HOLDS: 4, READ: 1},
    "staleness-network": {HOLDS: 1, READ: 1, WRONG: 1},
    "random-starts": {HOLDS: 4, WRONG: 2},
    "figure-2": {HOLDS: 6, READ: 1, WRONG: 1},
    "figure-3": {HOLDS: 2, WRONG: 2},
    "figure-4-mueller-brown": {HOLDS: 8, READ: 1},
    "figure-4-atoms": {HOLDS: 7, WRONG: 1},
    "figure-5": {HOLDS: 4, WRONG: 2},
    "figure-6": {HOLDS: 4, WRONG: 1},
}
CHEAP = ("variances",)
BY_NAME = {one.name.partition("/")[2]: one for one in an_ying.EXPERIMENTS}


def test_every_experiment_is_known_and_every_item_has_one():
    assert set(BY_NAME) == set(EXPECTED)
    covered = [item for one in an_ying.EXPERIMENTS for item in one.covers]
    assert set(covered) == set(an_ying.ITEMS)
    assert all(one.document == "an-ying" for one in an_ying.EXPERIMENTS)


NAMES = [n if n in CHEAP else pytest.param(n, marks=pytest.mark.slow) for n in BY_NAME]


@pytest.mark.parametrize("name", NAMES)
def test_verdicts(name):
    one = BY_NAME[name]
    there = {data.name for data in available() if data.where != "to download"}
    if not set(one.needs) <= there:
        pytest.skip(f"needs {', '.join(one.needs)}")
    outcome = one(quick=True)
    told = [(c.where, c.verdict, c.printed.text, c.corrected) for c in outcome.claims]
    assert Counter(claim.verdict for claim in outcome.claims) == EXPECTED[name], told
    assert outcome.pictures
