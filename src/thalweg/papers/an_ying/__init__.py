"""An and Ying, Combining resampling and reweighting for faithful stochastic optimization (2021)."""

from thalweg.papers.an_ying.exits import exits
from thalweg.papers.an_ying.figure_1 import figure_1
from thalweg.papers.an_ying.figure_2 import figure_2
from thalweg.papers.an_ying.figure_3 import figure_3
from thalweg.papers.an_ying.figure_4_atoms import figure_4_atoms
from thalweg.papers.an_ying.figure_4_mueller_brown import figure_4_mueller_brown
from thalweg.papers.an_ying.figure_5 import figure_5
from thalweg.papers.an_ying.figure_6 import figure_6
from thalweg.papers.an_ying.lemma_1 import lemma_1
from thalweg.papers.an_ying.lemma_3 import lemma_3
from thalweg.papers.an_ying.random_starts import random_starts
from thalweg.papers.an_ying.remark_1 import remark_1
from thalweg.papers.an_ying.remark_2 import remark_2
from thalweg.papers.an_ying.staleness import staleness
from thalweg.papers.an_ying.staleness_network import staleness_network
from thalweg.papers.an_ying.trace import trace
from thalweg.papers.an_ying.variances import variances

ITEMS = (
    *("Figure 1", "Lemma 1", "section 2, variances", "section 3, unbiased and trace"),
    *("section 3, kept probabilities", "Remark 1", "Remark 2", "Theorem 2", "section 3, exits"),
    *("Lemma 3", "Figure 2", "Figure 3", "Figure 4 (1)", "Figure 4 (2)", "Figure 5", "Figure 6"),
    "abstract, global minimum",
)
EXPERIMENTS = (
    *(figure_1, lemma_1, variances, trace, remark_1, remark_2, exits, lemma_3, staleness),
    *(staleness_network, random_starts, figure_2, figure_3, figure_4_mueller_brown),
    *(figure_4_atoms, figure_5, figure_6),
)

__all__ = ["EXPERIMENTS", "ITEMS", *(one.function.__name__ for one in EXPERIMENTS)]
