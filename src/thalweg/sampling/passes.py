"""What samplers that pass over the data have in common."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from thalweg.problem import FiniteSum
from thalweg.sampling.base import AbstractSampler, check_size


class AbstractPasses(AbstractSampler):
    """A sampler that takes batches of B in some order of the data, pass after pass."""

    size: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_size(type(self).__name__, self.size)

    def check(self, problem: FiniteSum) -> None:
        """The size against n."""
        check_size(type(self).__name__, self.size, problem)

    def evaluations(self, problem: FiniteSum) -> float:
        """All n in a pass."""
        return problem.n / steps_per_epoch(problem.n, self.size)


def steps_per_epoch(n: int, size: int) -> int:
    """Batches in a pass; the last is smaller if B does not divide n."""
    return -(-n // size)


def batch_of_pass(
    problem: FiniteSum, order: Int[Array, " n"], position: Int[Array, ""], size: int
) -> tuple[Int[Array, " size"], Float[Array, " size"]]:
    r"""The batch at a position of the pass ``order``, with weights :math:`n a_i / B'`.

    B' is the number of samples the batch really has: the last one of a pass may be smaller, its
    missing places get weight zero. Every batch is thus a mean, and for B dividing n the mean over
    a pass is the full gradient at fixed parameters.
    """
    place = position * size + jnp.arange(size, dtype=jnp.int32)
    present = place < problem.n
    index = jnp.take(order, place, mode="clip")
    count = jnp.sum(present).astype(problem.weights.dtype)
    weights = problem.n * jnp.take(problem.weights, index, mode="clip") / count
    return index, jnp.where(present, weights, jnp.zeros_like(weights))
