"""Dai and Zhu, Towards theoretical understanding of large batch training in SGD (2018)."""

from thalweg.papers.experiment import Experiment

ITEMS: tuple[str, ...] = ()
EXPERIMENTS: tuple[Experiment, ...] = ()

__all__ = ["EXPERIMENTS", "ITEMS"]
