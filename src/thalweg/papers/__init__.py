"""The five documents: every figure, table and statement as a program with claims.

``thalweg.papers.an_ying.figure_1(quick=True)`` runs one and returns its :class:`Outcome`; the
command ``thalweg reproduce`` runs any of them and writes the page.
"""

from thalweg.papers import an_ying, beyond, dai_zhu, giselsson, wojtowytsch, wu_ma_e
from thalweg.papers.catalogue import DOCUMENTS, Document, experiments
from thalweg.papers.experiment import Experiment, Setting, experiment
from thalweg.papers.job import chosen, failures, reproduce
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

__all__ = [
    "DOCUMENTS",
    "Claim",
    "Document",
    "Experiment",
    "Outcome",
    "Panel",
    "Picture",
    "Series",
    "Setting",
    "an_ying",
    "beyond",
    "chosen",
    "dai_zhu",
    "experiment",
    "experiments",
    "failures",
    "giselsson",
    "reproduce",
    "wojtowytsch",
    "wu_ma_e",
]
