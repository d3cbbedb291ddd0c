"""The experiments on Wojtowytsch's document: all statements have a row, and come out as known."""

from collections import Counter

import pytest

from thalweg.datasets import available
from thalweg.papers import wojtowytsch

HOLDS, READ, WRONG = "holds", "holds when read as", "does not hold as printed"
# Verdicts of the quick runs.
EXPECTED = {
    "minimisers": {HOLDS: 6, READ: 1},
    "relu-nets": {HOLDS: 7, READ: 1, WRONG: 1},
    "noise-covariance": {HOLDS: 2, READ: 2, WRONG: 3},
    "noise-rank": {HOLDS: 4},
    "discrete-rate": {HOLDS: 5, WRONG: 1},
    "random-limit": {HOLDS: 6, WRONG: 3},
    "global-minimum": {HOLDS: 2, WRONG: 1},
    "invariant-law": {HOLDS: 4, WRONG: 3},
    "collapse": {HOLDS: 6, WRONG: 1},
    "concentration": {HOLDS: 6, WRONG: 3},
    "weighted-decay": {HOLDS: 5, WRONG: 2},
    "continuum": {HOLDS: 4, WRONG: 1},
    "low-rank": {HOLDS: 2, WRONG: 2},
    "cross-entropy": {HOLDS: 3, WRONG: 2},
    "passes": {HOLDS: 4, WRONG: 1},
}
CHEAP = ("relu-nets", "discrete-rate")
BY_NAME = {one.name.partition("/")[2]: one for one in wojtowytsch.EXPERIMENTS}


def test_every_experiment_is_known_and_every_item_has_one():
    assert set(BY_NAME) == set(EXPECTED)
    covered = [item for one in wojtowytsch.EXPERIMENTS for item in one.covers]
    assert set(covered) == set(wojtowytsch.ITEMS)
    assert all(one.document == "wojtowytsch" for one in wojtowytsch.EXPERIMENTS)


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
