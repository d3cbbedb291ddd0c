"""Lyapunov exponents: how fast almost every path of SGD grows or shrinks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.estimate import Estimate
from thalweg.problem import FiniteSum
from thalweg.random import Stream
from thalweg.sampling.minibatch import Minibatch
from thalweg.stability.batches import Family, batch_factor, check_step, checked

# In one dimension the exponent is a sum over all draws of a batch, up to so many.
_LISTED = 1_000_000
# The share of the steps before anything is counted: the direction forgets the start.
_BURN_IN = 0.1


def lyapunov_exponent(
    hessians: Float[Array, "n d d"],
    step: float,
    batch_size: int,
    replace: bool = False,
    *,
    key: Array,
    chains: int = 256,
    steps: int = 2000,
) -> Estimate:
    r"""The top exponent :math:`\lim_k \frac1k \log |\prod_{j \le k} (I - \eta H_{B_j})|`, a step.

    Negative: almost every path converges, even where :math:`E|\theta_k|^2` explodes. Directions in
    which all :math:`H_i` vanish are left out (their exponent is zero).

    In one dimension it is :math:`E \log|1 - \eta h_B|`, summed over all subsets (with replacement
    multisets) of B samples if there are at most a million: exact, error 0. Otherwise ``chains``
    independent vectors are multiplied and renormalised ``steps`` times, a tenth of which is not
    counted, and the error is the standard error over the chains. A bias of the order of the number
    of steps that a direction takes to be forgotten, over ``steps``, remains.

    Cost: chains x steps x :math:`B d^2` operations: B > 1 costs B products a step, for no
    table of all :math:`\binom nB` means is made; in one dimension that many logarithms.

    Raises:
        InputError: As :func:`mean_square_threshold`, or a step that is not positive and finite.
    """
    batch_factor(hessians.shape[0], batch_size, replace)
    check_step(step)
    product = random_product(checked(hessians), batch_size, replace, key, chains, steps)
    return product.exponent(step)


class RandomProduct:
    """The products of one family and batch, with the same draws at every step asked about.

    Attributes:
        size: The dimension of the directions in which anything moves.
    """

    def __init__(self, problem: FiniteSum, sampler: Minibatch, key: Array, run: tuple[int, int]):
        self.problem, self.sampler, self.key = problem, sampler, key
        self.chains, self.steps = run
        self.size = problem.data.shape[1]
        self.exact = self.size <= 1 and sampler.outcome_count(problem) <= _LISTED
        self._draws = self._means() if self.exact and self.size else None

    def exponent(self, step: float) -> Estimate:
        """The exponent at a step."""
        if self.size == 0:
            return Estimate(0.0)
        if self._draws is not None:
            means, probabilities = self._draws
            with np.errstate(divide="ignore"):  # a step of exactly 1/h ends the path at once
                logs = np.log(np.abs(1 - step * means))
            return Estimate(float(probabilities @ logs))
        rates = _growth(
            self.problem, jnp.asarray(step), self.key, self.sampler, self.chains, self.steps
        )
        values = np.asarray(rates)
        error = float(values.std(ddof=1) / np.sqrt(self.chains))
        return Estimate(float(values.mean()), error, self.chains)

    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        outcomes = self.sampler.outcomes(self.problem, jnp.zeros(1))
        curvatures = np.asarray(self.problem.data)[:, 0, 0]
        means = (curvatures[np.asarray(outcomes.index)] * np.asarray(outcomes.weights)).sum(axis=1)
        return means, np.asarray(outcomes.probabilities)


def random_product(
    family: Family, batch_size: int, replace: bool, key: Array, chains: int, steps: int
) -> RandomProduct:
    """The products on the directions in which some sample's Hessian does not vanish."""
    if chains < 2 or steps < 10:
        raise InputError(
            f"chains={chains}, steps={steps}; expected at least 2 chains, for an error, and 10 "
            "steps"
        )
    moving = _moving(family)
    problem = FiniteSum(_form, jnp.asarray(moving.T @ family.hessians @ moving))
    return RandomProduct(problem, Minibatch(batch_size, replace), key, (chains, steps))


def _moving(family: Family) -> np.ndarray:
    hessians, weights, tolerance = family
    squares = np.tensordot(weights, hessians @ hessians, axes=1)
    values, vectors = np.linalg.eigh(squares)
    return vectors[:, values > tolerance * max(values[-1], 0.0)]


def _form(theta: Array, H: Array) -> Array:
    return jnp.dot(theta, H @ theta) / 2


@partial(jax.jit, static_argnames=("sampler", "chains", "steps"))
def _growth(
    problem: FiniteSum, step: Array, key: Array, sampler: Minibatch, chains: int, steps: int
) -> Array:
    """The mean logarithm of the growth in a step, one a chain."""
    hessians = problem.data
    words = Stream.of(key)
    burn_in = int(_BURN_IN * steps)

    def moved(x: Array, chain: Array, number: Array) -> Array:
        stream = Stream(words.key, chain, number)
        draw = sampler.draw(problem, x, None, stream, number)[0]
        assert draw.index is not None
        assert draw.weights is not None
        return x - step * jnp.einsum("b,bij,j->i", draw.weights, hessians[draw.index], x)

    def advance(carry: Any, number: Array) -> tuple[Any, None]:
        x, total = carry
        x = jax.vmap(moved, in_axes=(0, 0, None))(x, names, number)
        norm = jnp.linalg.norm(x, axis=1)
        total = total + jnp.where(number < burn_in, 0.0, jnp.log(norm))
        # A path that ends at the minimum stays there; its exponent is minus infinity already.
        return (jnp.where(norm[:, None] > 0, x / norm[:, None], start), total), None

    names = jnp.arange(chains, dtype=jnp.uint32)
    start = jax.random.normal(Stream.of(key).folded(1).jax_key(), (chains, hessians.shape[1]))
    numbers = jnp.arange(steps, dtype=jnp.uint32)
    (_, total), _ = jax.lax.scan(advance, (start, jnp.zeros(chains)), numbers)
    return total / (steps - burn_in)
