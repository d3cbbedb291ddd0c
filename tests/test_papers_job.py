"""Running experiments side by side, and what is kept of them."""

import json

import pytest

from thalweg.papers import reproduce


@pytest.mark.slow
def test_several_processes_find_what_one_finds(tmp_path):
    names = ["giselsson/zoomed-out", "giselsson/summable-steps", "dai-zhu/appendix-c"]
    alone = reproduce(names, quick=True)
    told = []
    together = reproduce(
        names,
        quick=True,
        workers=2,
        work=lambda: tmp_path,
        progress=lambda *done: told.append(done),
    )
    assert [one["name"] for one in together["experiments"]] == [
        one["name"] for one in alone["experiments"]
    ]
    assert len(alone["experiments"]) == 3
    for one, other in zip(alone["experiments"], together["experiments"], strict=True):
        assert one["claims"] == other["claims"]
    assert told == [("experiments", k, 3) for k in (1, 2, 3)]
    # Kept one by one, and read again.
    kept = json.loads((tmp_path / names[0] / "outcome.json").read_text())
    again = reproduce(names, quick=True, work=lambda: tmp_path)
    assert again["experiments"][0] == kept
