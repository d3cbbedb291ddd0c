"""Giselsson, Stochastic gradient descent: qualitative convergence behavior (slides)."""

from thalweg.papers.giselsson.cyclic_order import cyclic_order
from thalweg.papers.giselsson.diminishing_steps import diminishing_steps
from thalweg.papers.giselsson.error_bound import error_bound
from thalweg.papers.giselsson.flatness import flatness
from thalweg.papers.giselsson.gd_against_sgd import gd_against_sgd
from thalweg.papers.giselsson.large_gradients import large_gradients
from thalweg.papers.giselsson.least_squares import least_squares
from thalweg.papers.giselsson.minibatch import minibatch
from thalweg.papers.giselsson.noise_ball import noise_ball
from thalweg.papers.giselsson.residual_nets import residual_nets
from thalweg.papers.giselsson.semi_smooth import semi_smooth
from thalweg.papers.giselsson.step_tables import step_tables
from thalweg.papers.giselsson.summable_steps import summable_steps
from thalweg.papers.giselsson.zoomed_out import zoomed_out

# In the order of the slides.
ITEMS = (
    *("unbiased gradient", "unbiased minibatch", "smallest product mu", "minibatch and mu"),
    *("noise ball", "GD against SGD", "zoomed out", "fast far, slow close", "diminishing steps"),
    *("fixed step at a solution", "cyclic order", "large gradients at solution"),
    *("convergence and individual norms", "over- and underparameterized", "least squares"),
    *("residual nets", "best gradient", "individual gradient norms", "step length"),
    *("flatness of minima", "flatness and mini-batches", "generalization", "summable steps"),
    *("refined conditions", "large gradients", "combined step-size rule", "step-size table 1"),
    *("step-size table 2", "step-size table 3", "error bound", "KL exponent"),
    *("strong convexity and error bound", "implications of the error bound"),
    *("rate with smoothness", "semi-smoothness", "rate with both", "convergence in deep learning"),
)
EXPERIMENTS = (
    *(minibatch, noise_ball, gd_against_sgd, zoomed_out, diminishing_steps, cyclic_order),
    *(least_squares, residual_nets, flatness, summable_steps, large_gradients, step_tables),
    *(error_bound, semi_smooth),
)

__all__ = ["EXPERIMENTS", "ITEMS"]
