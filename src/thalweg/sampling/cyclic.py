"""Passes over the data in its own order."""

from typing import Any

import jax.numpy as jnp

from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import Draw
from thalweg.sampling.passes import AbstractPasses, batch_of_pass, steps_per_epoch


class Cyclic(AbstractPasses):
    r"""Batches of B in the order of the data, pass after pass: deterministic.

    Sample i has the weight :math:`n a_i / B`; the last batch of a pass is a mean over what is left.

    Args:
        size: The batch size B.

    Raises:
        InputError: B below 1 or above n.
    """

    def draw(
        self, problem: FiniteSum, params: Params, state: None, stream: Stream, step: Any
    ) -> tuple[Draw, None]:
        """The batch at this step of the pass."""
        position = jnp.asarray(step % steps_per_epoch(problem.n, self.size), dtype=jnp.int32)
        order = jnp.arange(problem.n, dtype=jnp.int32)
        return Draw(*batch_of_pass(problem, order, position, self.size)), None
