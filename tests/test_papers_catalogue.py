"""No statement of a document is without an experiment, and no experiment is lost."""

import runpy
from pathlib import Path

import pytest

from thalweg.papers import DOCUMENTS, experiments

# What is to be there of each document, whatever its own list of items says.
REQUIRED = {
    "an-ying": (
        *("figure-1", "figure-2", "figure-3", "figure-4-mueller-brown", "figure-4-atoms"),
        *("figure-5", "figure-6", "lemma-1", "variances", "trace", "exits", "lemma-3"),
        *("remark-2", "staleness", "staleness-network", "random-starts"),
    ),
    "wojtowytsch": (
        *("minimisers", "relu-nets", "discrete-rate", "random-limit", "invariant-law"),
        *("collapse", "concentration", "weighted-decay", "noise-covariance", "noise-rank"),
        *("continuum", "low-rank", "cross-entropy", "passes"),
    ),
    "wu-ma-e": ("toy", "figure-1", "figure-2", "table-1", "figure-3", "figure-4"),
    "dai-zhu": (
        *("fokker-planck", "theorem-2-2", "theorem-2-4", "theorem-2-5", "appendix-h"),
        *("figures-3-4-5", "only-the-ratio", "diffusion-limit"),
    ),
    "giselsson": (
        *("noise-ball", "zoomed-out", "gd-against-sgd", "minibatch", "cyclic-order"),
        *("least-squares", "residual-nets", "flatness", "step-tables", "error-bound"),
        *("semi-smooth", "summable-steps"),
    ),
    "beyond": ("rate-function", "when-rr-pays"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_item_has_an_experiment_and_none_is_missing(name):
    document = DOCUMENTS[name]
    covered = {item for one in document.experiments for item in one.covers}
    assert covered == set(document.items)
    there = {one.name for one in document.experiments}
    assert {f"{name}/{one}" for one in REQUIRED[name]} <= there
    assert all(one.document == name for one in document.experiments)


def test_no_experiment_is_there_twice():
    names = [one.name for one in experiments()]
    assert len(names) == len(set(names))
    assert set(REQUIRED) == set(DOCUMENTS)


def test_quick_runs_fit_into_twelve_minutes():
    # The times in the list, measured on two cores that do nothing else.
    quick = [one.seconds[0] for one in experiments()]
    assert max(quick) < 60
    assert sum(quick) < 12 * 60


def test_the_page_of_claims_is_whole():
    path = Path(__file__).parents[1] / "docs" / "reproduced" / "page.py"
    page = runpy.run_path(str(path))
    kept = page["kept"]()
    assert set(kept) == {one.name for one in experiments()}
    assert page["PAGE"].read_text() == page["page"](kept)
    for name, found in kept.items():
        assert found["claims"], name
        assert all(claim["verdict"] != "does not hold" for claim in found["claims"]), name
