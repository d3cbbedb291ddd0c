"""Wu, Ma and E, How SGD selects the global minima in over-parameterized learning (2018)."""

from thalweg.papers.wu_ma_e.figure_1 import figure_1
from thalweg.papers.wu_ma_e.figure_2 import figure_2
from thalweg.papers.wu_ma_e.figure_3 import figure_3
from thalweg.papers.wu_ma_e.figure_4 import figure_4
from thalweg.papers.wu_ma_e.table_1 import table_1
from thalweg.papers.wu_ma_e.toy import toy

# In the order of the poster.
ITEMS = (
    *("Figure 1", "fast escape", "SGD's minimum generalizes better", "toy example"),
    *("escape time", "linear stability", "theorem, condition (4)", "Figure 2", "influence of B"),
    *("influence of eta", "Table 1", "GD selects the sharpest", "Figure 3"),
    *("points below the bound", "condition (4)", "exact against (4)", "Figure 4"),
    "sharpness and non-uniformity are correlated",
)
EXPERIMENTS = (figure_1, toy, figure_2, table_1, figure_3, figure_4)

__all__ = ["EXPERIMENTS", "ITEMS"]
