"""Critical points: where they are and what they are like."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from thalweg.curvature import hessian, nonuniformity_operator
from thalweg.errors import InputError
from thalweg.problem import FiniteSum, Params
from thalweg.stability import largest_step

# A Hessian of more parameters is not written out.
_LARGEST_DENSE = 1024
# An eigenvalue below minus this share of the largest is negative beyond all rounding.
_NEGATIVE = 1e-6


@dataclass(frozen=True, eq=False)
class CriticalPoint:
    r"""A minimum or saddle and what it is like.

    Attributes:
        params: Where.
        value: The objective.
        eigenvalues: Of the Hessian, ascending, shape (P,).
        sharpness: :math:`\lambda_{\max}(H)`.
        nonuniformity: :math:`\lambda_{\max}(\sum_i a_i H_i^2 - H^2)^{1/2}`.
        residual: The gradient norm that is left.
        largest_step: The largest step for which SGD with single samples meets Wu, Ma and E's
            condition (4); 0 where H is not positive semidefinite. See
            :func:`thalweg.stability.largest_step`, also for other batches.
        name: What it is called, if anything.
        hits: How many of the starts of :func:`minima`, or of the searches of
            :func:`critical_points`, ended here; None if it was given or found on a line.
        slopes: At a kink of a problem of one parameter the derivatives from the left and from the
            right, None where f is smooth. A kink has the eigenvalue and sharpness inf (a minimum)
            or -inf (a maximum), non-uniformity inf, residual 0 and largest step 0.
    """

    params: PyTree[Array]
    value: float
    eigenvalues: Float[Array, " size"]
    sharpness: float
    nonuniformity: float
    residual: float
    largest_step: float
    name: str | None = None
    hits: int | None = None
    slopes: tuple[float, float] | None = None

    @property
    def index(self) -> int:
        """The number of negative eigenvalues: 0 for a minimum, 1 for a saddle between two."""
        return int(np.sum(np.asarray(self.eigenvalues) < 0))


def critical_point(
    problem: FiniteSum, params: Params, *, name: str | None = None, hits: int | None = None
) -> CriticalPoint:
    """Describe a given point; ``residual`` says whether it is critical.

    The Hessian and the non-uniformity matrix are written out: P products with each.

    Raises:
        InputError: More than 1024 parameters (:func:`thalweg.stability.assess` is for these), or
            second derivatives that are not finite.
    """
    operator = hessian(problem, params)
    if operator.size > _LARGEST_DENSE:
        raise InputError(
            f"{operator.size} parameters; a critical point is described by its whole Hessian, "
            f"expected at most {_LARGEST_DENSE}: use thalweg.stability.assess"
        )
    spread = np.asarray(nonuniformity_operator(problem, params).dense())
    curvature = np.asarray(operator.dense())
    if not (np.isfinite(curvature).all() and np.isfinite(spread).all()):
        raise InputError("the Hessian is not finite there; expected a point where it is")
    # On the host, where eigenvalues need no compilation.
    eigenvalues, spreads = np.linalg.eigvalsh(curvature), np.linalg.eigvalsh(spread)
    value, gradient = _value_and_gradient(problem, params)
    descends = eigenvalues[0] < -_NEGATIVE * np.abs(eigenvalues).max()
    return CriticalPoint(
        params=params,
        value=float(value),
        eigenvalues=jnp.asarray(eigenvalues),
        sharpness=float(eigenvalues[-1]),
        nonuniformity=math.sqrt(max(0.0, float(spreads[-1]))),
        residual=float(np.linalg.norm(gradient)),
        largest_step=0.0 if descends else largest_step(problem, params, batch_size=1).sufficient,
        name=name,
        hits=hits,
    )


@jax.jit
def _value_and_gradient(problem: FiniteSum, params: Params) -> tuple[Array, Array]:
    return problem.value(params), ravel_pytree(problem.gradient(params))[0]
