"""The documents and what goes beyond them: what they state, and the experiments that measure it."""

from collections.abc import Sequence
from dataclasses import dataclass

from thalweg.papers import an_ying, beyond, dai_zhu, giselsson, wojtowytsch, wu_ma_e
from thalweg.papers.experiment import Experiment


@dataclass(frozen=True)
class Document:
    """A document.

    Attributes:
        source: How it is named in results; its author's name gives the full citation.
        items: Its numbered statements, figures and tables.
        experiments: The programs.
    """

    source: str
    items: Sequence[str]
    experiments: Sequence[Experiment]


DOCUMENTS = {
    "an-ying": Document("An and Ying (2021)", an_ying.ITEMS, an_ying.EXPERIMENTS),
    "wojtowytsch": Document("Wojtowytsch (2021)", wojtowytsch.ITEMS, wojtowytsch.EXPERIMENTS),
    "wu-ma-e": Document("Wu, Ma, E (2018)", wu_ma_e.ITEMS, wu_ma_e.EXPERIMENTS),
    "dai-zhu": Document("Dai and Zhu (2018)", dai_zhu.ITEMS, dai_zhu.EXPERIMENTS),
    "giselsson": Document("Giselsson, slides", giselsson.ITEMS, giselsson.EXPERIMENTS),
    "beyond": Document("Thalweg", beyond.ITEMS, beyond.EXPERIMENTS),
}


def experiments() -> list[Experiment]:
    """All experiments, in the order of the documents."""
    return [one for document in DOCUMENTS.values() for one in document.experiments]
