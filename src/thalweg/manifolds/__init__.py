"""Flat minimisers: which point of a manifold of minimisers does vanishing noise select?"""

from thalweg.manifolds.charts import ChartSelection as ChartSelection
from thalweg.manifolds.charts import chart_selection as chart_selection
from thalweg.manifolds.normal_space import NormalSpace as NormalSpace
from thalweg.manifolds.normal_space import normal_space as normal_space
from thalweg.manifolds.projection import Projection as Projection
from thalweg.manifolds.projection import project as project
from thalweg.manifolds.sampling import SelectionSamples as SelectionSamples
from thalweg.manifolds.sampling import sample_selection as sample_selection
from thalweg.manifolds.selection import collapse_threshold as collapse_threshold
from thalweg.manifolds.selection import selection_log_density as selection_log_density
