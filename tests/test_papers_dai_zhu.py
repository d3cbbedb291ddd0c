"""The experiments on Dai and Zhu's document: all statements have a row, and come out as known."""

from collections import Counter

import pytest

from thalweg.datasets import available
from thalweg.papers import dai_zhu

HOLDS, READ, WRONG = "holds", "holds when read as", "does not hold as printed"
# Verdicts of the quick runs.
EXPECTED = {
    "diffusion-limit": {HOLDS: 1, READ: 1},
    "fokker-planck": {HOLDS: 3, WRONG: 4},
    "only-the-ratio": {HOLDS: 1, WRONG: 2},
    "theorem-2-2": {HOLDS: 6, READ: 2, WRONG: 1},
    "lemma-2-3": {HOLDS: 2, WRONG: 2},
    "theorem-2-4": {HOLDS: 1, READ: 2, WRONG: 5},
    "theorem-2-5": {HOLDS: 3, WRONG: 5},
    "appendix-h": {HOLDS: 9, WRONG: 1},
    "appendix-c": {HOLDS: 3, WRONG: 3},
}
NETWORKS = "figures-3-4-5"
CHEAP = ("appendix-c",)
BY_NAME = {one.name.partition("/")[2]: one for one in dai_zhu.EXPERIMENTS}


def test_every_experiment_is_known_and_every_item_has_one():
    assert set(BY_NAME) == {*EXPECTED, NETWORKS}
    covered = [item for one in dai_zhu.EXPERIMENTS for item in one.covers]
    assert set(covered) == set(dai_zhu.ITEMS)
    assert all(one.document == "dai-zhu" for one in dai_zhu.EXPERIMENTS)


NAMES = [n if n in CHEAP else pytest.param(n, marks=pytest.mark.slow) for n in EXPECTED]


@pytest.mark.parametrize("name", NAMES)
def test_verdicts(name):
    outcome = BY_NAME[name](quick=True)
    told = [(c.where, c.verdict, c.printed.text, c.corrected) for c in outcome.claims]
    assert Counter(claim.verdict for claim in outcome.claims) == EXPECTED[name], told
    assert outcome.pictures


@pytest.mark.slow
def test_networks_that_are_killed_go_on_with_what_was_finished(tmp_path):
    one = BY_NAME[NETWORKS]
    if "mnist" not in {data.name for data in available() if data.where != "to download"}:
        pytest.skip("needs mnist")
    outcome = one(quick=True, folder=tmp_path)
    told = [(c.where, c.verdict, c.printed.text) for c in outcome.claims]
    # What takes two hundred epochs to see is left open, and nothing is false.
    assert {claim.verdict for claim in outcome.claims} == {HOLDS, "undecided"}, told
    assert sum(claim.verdict == HOLDS for claim in outcome.claims) >= 7, told
    finished = sorted(tmp_path.glob("*.npz"))
    assert len(finished) == 9
    finished[0].unlink()
    again = one(quick=True, folder=tmp_path)
    # The one that was lost is made anew with the same random numbers.
    assert again.saved()["claims"] == outcome.saved()["claims"]
