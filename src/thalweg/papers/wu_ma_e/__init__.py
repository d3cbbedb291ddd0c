"""Wu, Ma and E, How SGD selects the global minima in over-parameterized learning (2018)."""

from thalweg.papers.experiment import Experiment

ITEMS: tuple[str, ...] = ()
EXPERIMENTS: tuple[Experiment, ...] = ()

__all__ = ["EXPERIMENTS", "ITEMS"]
