"""Norms of per-sample gradients of any JAX function, in one backward pass."""

from thalweg.gradnorms.memory import gradients_at_once as gradients_at_once
from thalweg.gradnorms.memory import squared_norm as squared_norm
from thalweg.gradnorms.norms import Explanation as Explanation
from thalweg.gradnorms.norms import problem_gradient_norms as problem_gradient_norms
from thalweg.gradnorms.norms import sample_gradient_norms as sample_gradient_norms
from thalweg.gradnorms.norms import squared_gradient_norms as squared_gradient_norms
from thalweg.gradnorms.reuse import Scored as Scored
from thalweg.gradnorms.reuse import scored_with_gradient as scored_with_gradient
