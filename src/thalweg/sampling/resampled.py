"""Resampling-reweighting with fixed group proportions: An & Ying's population scheme."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg.errors import InputError
from thalweg.gradnorms import problem_gradient_norms
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling.base import (
    COMPARED,
    AbstractMemoryless,
    Draw,
    Moments,
    check_size,
    sample_in,
    weighted_index,
)
from thalweg.sampling.outcomes import Outcomes, independent


class Resampled(AbstractMemoryless):
    r"""Group j with a fixed proportion :math:`f_j`, reweighted by :math:`w_j = A_j/f_j`.

    A draw takes group j with probability :math:`f_j` and in it sample i with probability
    :math:`a_i/A_j`; its gradient has the weight :math:`A_j/(f_j B)`, so the mean is
    :math:`\nabla f` and

    .. math:: C = \frac1B \Big(\sum_j \frac{A_j}{f_j} \sum_{i \in j} a_i g_i g_i^\top
              - \nabla f \nabla f^\top\Big).

    An & Ying, section 2, balance the noise of the minima by :math:`f_j \propto A_j L_j` with
    Lipschitz constants :math:`L_j` of the groups.

    Args:
        size: The batch size B; draws are independent.
        proportions: The :math:`f_j`, positive with sum one, in the order of the sorted labels.
        lipschitz: The :math:`L_j` instead, positive (:func:`thalweg.lipschitz_constants` estimates
            them from gradients); the proportions follow from the problem's :math:`A_j`.

    Raises:
        InputError: Both or neither of the two given, not positive, or not one a group.
    """

    size: int = eqx.field(static=True)
    proportions: tuple[float, ...] | None = eqx.field(static=True)
    lipschitz: tuple[float, ...] | None = eqx.field(static=True)
    unbiased: ClassVar[bool] = True

    def __init__(self, size: int, *, proportions: Any = None, lipschitz: Any = None):
        check_size("Resampled", size)
        if (proportions is None) == (lipschitz is None):
            raise InputError("Resampled needs either proportions= or lipschitz=, one of the two")
        self.size = size
        self.proportions = _positive("proportions", proportions)
        self.lipschitz = _positive("lipschitz", lipschitz)
        if self.proportions is not None and abs(sum(self.proportions) - 1) > 1e-6:
            raise InputError(
                f"proportions sum to {sum(self.proportions):.8g}; expected 1 (divide by their sum)"
            )

    def check(self, problem: FiniteSum) -> None:
        """One number a group."""
        problem.require_groups()
        given = self.proportions or self.lipschitz or ()
        if len(given) != problem.n_groups:
            raise InputError(
                f"Resampled has {len(given)} group constants but the problem has "
                f"{problem.n_groups} groups; expected one each"
            )
        empty = np.flatnonzero(np.asarray(problem.group_weights) == 0)
        if empty.size:
            raise InputError(f"group {int(empty[0])} has total weight zero; leave its samples out")

    def group_proportions(self, problem: FiniteSum) -> Float[Array, " n_groups"]:
        r"""The :math:`f_j`."""
        if self.proportions is not None:
            return jnp.asarray(self.proportions, dtype=problem.weights.dtype)
        constants = jnp.asarray(self.lipschitz, dtype=problem.weights.dtype)
        scores = problem.group_weights * constants
        return scores / jnp.sum(scores)

    def draw(
        self, problem: FiniteSum, params: Params, state: None, stream: Stream, step: Any
    ) -> tuple[Draw, None]:
        r"""Samples with probability :math:`f_j a_i/A_j` and weight :math:`A_j/(f_j B)`."""
        proportions = self.group_proportions(problem)
        if problem.n <= COMPARED:
            ratio = self._ratio(problem)
            index = weighted_index(stream, problem.weights / ratio, self.size)
            return Draw(index, jnp.take(ratio, index, mode="clip") / self.size), None
        group = weighted_index(stream.folded(0), proportions, self.size)
        index = sample_in(problem, stream.folded(1), group)
        ratio = problem.group_weights / proportions
        return Draw(index, jnp.take(ratio, group, mode="clip") / self.size), None

    def moments(self, problem: FiniteSum, params: Params, state: Any = None) -> Moments:
        r"""First :math:`a_i`, second :math:`a_i A_j/f_j`."""
        return Moments(problem.weights, problem.weights * self._ratio(problem))

    def outcomes(
        self,
        problem: FiniteSum,
        params: Params,
        draws: Int[Array, "outcomes draws ..."] | None = None,
    ) -> Outcomes:
        r"""Multisets of samples: probability :math:`f_j a_i/A_j`, weight :math:`A_j/(f_j B)`."""
        index, ratio = self.listed(problem, draws), self._ratio(problem)
        probabilities = (problem.weights / ratio)[index]
        return independent(index, index, ratio[index] / self.size, probabilities)

    def evaluations(self, problem: FiniteSum) -> float:
        """B."""
        return float(self.size)

    def _ratio(self, problem: FiniteSum) -> Float[Array, " n"]:
        r""":math:`A_j/f_j` of each sample's group."""
        ratio = problem.group_weights / self.group_proportions(problem)
        return ratio[problem.require_groups()]


def lipschitz_constants(problem: FiniteSum, points: Params) -> tuple[float, ...]:
    r"""Estimated Lipschitz constants of the groups, :math:`\max |\nabla f_i(\theta)|`.

    The maximum goes over the group's samples and over ``points`` (params with a leading axis): a
    lower bound that closes as the points fill the region of interest.

    Cost: n gradients a point.
    """
    norms = jax.lax.map(lambda params: problem_gradient_norms(problem, params), points)
    largest = jax.ops.segment_max(
        jnp.max(norms, axis=0), problem.require_groups(), problem.n_groups
    )
    return tuple(float(value) for value in largest)


def _positive(name: str, values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not np.isfinite(array).all() or (array <= 0).any():
        raise InputError(f"{name} must be positive finite numbers, one a group; got {values!r}")
    return tuple(array.tolist())
