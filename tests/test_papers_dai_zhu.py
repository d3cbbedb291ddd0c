"""The networks of Dai and Zhu's figures."""

import pytest

from thalweg.datasets import available
from thalweg.papers.dai_zhu import networks


@pytest.mark.slow
def test_networks_that_are_killed_go_on_with_what_was_finished(tmp_path):
    one = networks
    if "mnist" not in {data.name for data in available() if data.where != "to download"}:
        pytest.skip("needs mnist")
    outcome = one(quick=True, folder=tmp_path)
    told = [(c.where, c.verdict, c.printed.text) for c in outcome.claims]
    # What takes two hundred epochs to see is left open, and nothing is false.
    assert {claim.verdict for claim in outcome.claims} == {"holds", "undecided"}, told
    assert sum(claim.verdict == "holds" for claim in outcome.claims) >= 7, told
    finished = sorted(tmp_path.glob("*.npz"))
    assert len(finished) == 9
    finished[0].unlink()
    again = one(quick=True, folder=tmp_path)
    # The one that was lost is made anew with the same random numbers.
    assert again.saved()["claims"] == outcome.saved()["claims"]
