"""Wojtowytsch, Continuous time stochastic gradient descent and flat minimum selection (2021)."""

from thalweg.papers.experiment import Experiment

ITEMS: tuple[str, ...] = ()
EXPERIMENTS: tuple[Experiment, ...] = ()

__all__ = ["EXPERIMENTS", "ITEMS"]
