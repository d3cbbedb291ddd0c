"""Random passes over the data."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import Draw
from thalweg.sampling.passes import AbstractPasses, batch_of_pass, steps_per_epoch


class Reshuffled(AbstractPasses):
    r"""Batches of B in the order of a permutation, a new one each pass ("random reshuffling").

    Sample i has the weight :math:`n a_i / B`. A pass takes ceil(n/B) steps; its last batch is a
    mean over what is left. The draws of a pass depend on each other: there is no covariance
    :math:`C(\theta)` of a single one that would describe the noise.

    Args:
        size: The batch size B.

    Raises:
        InputError: B below 1 or above n.
    """

    def init(self, problem: FiniteSum, params: Params) -> Int[Array, " n"]:
        """Room for the permutation, drawn at step 0."""
        return jnp.arange(problem.n, dtype=jnp.int32)

    def draw(
        self,
        problem: FiniteSum,
        params: Params,
        state: Int[Array, " n"],
        stream: Stream,
        step: Any,
    ) -> tuple[Draw, Int[Array, " n"]]:
        """The next batch of the pass; a fresh permutation where a pass begins."""
        position = jnp.asarray(step % steps_per_epoch(problem.n, self.size), dtype=jnp.int32)
        order = jax.lax.cond(
            position == 0,
            lambda: jax.random.permutation(stream.jax_key(), problem.n).astype(jnp.int32),
            lambda: state,
        )
        return Draw(*batch_of_pass(problem, order, position, self.size)), order
