"""A reading of the scheme of section 4.1 that does not keep the sharp well."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

import thalweg as tw


class GroupMeans(tw.sampling.AbstractSampler):
    r"""Groups with the norms of their *mean* gradients, and of the group drawn a random sample.

    :math:`f_j \propto A_j |m_j|` with :math:`m_j = \sum_{i \in j} (a_i/A_j) \nabla f_i`, and the
    weight :math:`A_j/f_j` for a sample i of group j, drawn with probability :math:`a_i/A_j`:
    unbiased, but a group whose gradients cancel in the mean is drawn rarely and then with a large
    weight. For groups of consecutive samples of equal weights.
    """

    def draw(
        self, problem: tw.FiniteSum, params: Any, state: None, stream: Any, step: Any
    ) -> tuple[tw.sampling.Draw, None]:
        """One sample."""
        shares, groups = problem.group_weights, problem.require_groups()
        norms = jax.vmap(lambda j: self._mean_norm(problem, params, j))(jnp.arange(shares.size))
        scores = shares * norms
        proportions = scores / jnp.sum(scores)
        u: Float[Array, " 2"] = stream.uniform(2, shares.dtype)
        group = jnp.sum(u[0] > jnp.cumsum(proportions)[:-1])
        sizes = jax.ops.segment_sum(jnp.ones_like(problem.weights), groups, shares.size)
        first = jnp.cumsum(sizes)[group] - sizes[group]
        index = jnp.floor(first + u[1] * sizes[group]).astype(jnp.int32)
        weight = shares[group] / proportions[group]
        return tw.sampling.Draw(index[None], weight[None]), None

    def evaluations(self, problem: tw.FiniteSum) -> float:
        """All samples, and the one drawn."""
        return float(problem.n + 1)

    @staticmethod
    def _mean_norm(problem: tw.FiniteSum, params: Any, group: Array) -> Array:
        own = problem.require_groups() == group
        mean = problem.gradient(params, weights=jnp.where(own, problem.weights, 0))
        return jnp.linalg.norm(ravel_pytree(mean)[0]) / problem.group_weights[group]
