"""Wojtowytsch, Continuous time stochastic gradient descent and flat minimum selection (2021)."""

from thalweg.papers.wojtowytsch.collapse import collapse
from thalweg.papers.wojtowytsch.concentration import concentration
from thalweg.papers.wojtowytsch.continuum import continuum
from thalweg.papers.wojtowytsch.cross_entropy import cross_entropy
from thalweg.papers.wojtowytsch.discrete_rate import discrete_rate
from thalweg.papers.wojtowytsch.global_minimum import global_minimum
from thalweg.papers.wojtowytsch.invariant_law import invariant_law
from thalweg.papers.wojtowytsch.low_rank import low_rank
from thalweg.papers.wojtowytsch.minimisers import minimisers
from thalweg.papers.wojtowytsch.noise_covariance import noise_covariance
from thalweg.papers.wojtowytsch.noise_rank import noise_rank
from thalweg.papers.wojtowytsch.passes import passes
from thalweg.papers.wojtowytsch.random_limit import random_limit
from thalweg.papers.wojtowytsch.relu_nets import relu_nets
from thalweg.papers.wojtowytsch.weighted_decay import weighted_decay

# In the order of the slides.
ITEMS = (
    *("Theorem (Cooper), dimension", "Theorem (Cooper), not compact", "Theorem, two-layer nets"),
    *("Remark, deep nets", "Corollary, convexity", "Corollary, negative curvature"),
    *("ReLU identities", "Sigma and D2L", "gradient noise, scale", "gradient noise, rank"),
    *("Sigma ~ L D2L", "bound by sigma f", "Lemma, discrete time", "Lemma, step bound"),
    *("Lemma, limit", "Theorem, local minima", "small positive step", "global minimiser"),
    *("limit depends on the start", "(1)", "Lemma, Fokker-Planck", "invariant density"),
    *("Lemma, the only solution", "Corollary, growth", "constant noise", "Lemma, integrable"),
    *("collapse threshold", "Theorem, noise scaled by the loss", "Theorem, constant noise"),
    *("arithmetic-geometric mean", "same limit without zeros", "Theorem, weighted norm"),
    *("Poincare-Hardy inequality", "Theorem, logarithms", "summary, noise"),
    *("summary, linear convergence", "summary, flat minima", "open problem 1, continuum model"),
    *("open problem 2, overparametrised", "open problem 3, low rank"),
    *("open problem 4, cross-entropy", "open problem 5, realistic growth"),
    "open problem 6, random pass",
)
EXPERIMENTS = (
    *(minimisers, relu_nets, noise_covariance, noise_rank, discrete_rate, random_limit),
    *(global_minimum, invariant_law, collapse, concentration, weighted_decay),
    *(continuum, low_rank, cross_entropy, passes),
)

__all__ = ["EXPERIMENTS", "ITEMS", *(one.function.__name__ for one in EXPERIMENTS)]
