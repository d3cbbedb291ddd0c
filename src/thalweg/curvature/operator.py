"""Symmetric matrices known by their products."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg.curvature.sums import Source
from thalweg.errors import InputError
from thalweg.problem import Params

# Up to this size an operator is written out and diagonalised exactly.
DENSE_SIZE = 64


@dataclass(frozen=True, eq=False)
class Operator:
    r"""A symmetric matrix A, known by its products with flat vectors.

    Attributes:
        apply: A product, from a vector of shape (size,) to another.
        size: Rows and columns: the number of parameters P, in the order of
            ``jax.flatten_util.ravel_pytree``.
        dtype: Of the products.
        along: For a mean of matrices of samples, the numbers :math:`v^\top A_i v` of all of them
            and their weights :math:`a_i`, shapes (n,); None if it is no mean, or the samples are
            not at hand. Estimates get their data error from it.
        guess: A vector that leans towards the leading eigenvectors, from which a search begins
            unless it is told where; None if nothing is known.
    """

    apply: Callable[[Array], Array]
    size: int
    dtype: Any
    along: Callable[[Array], tuple[Array, Array]] | None = None
    guess: Callable[[], Array] | None = None

    def matvec(self, vector: Float[Array, " size"]) -> Float[Array, " size"]:
        """The product with a vector; traceable, and compiled once for all points of a problem.

        Raises:
            InputError: A vector of another size.
        """
        check_size(vector, self.size, "vector")
        return self.apply(vector)

    def matmat(self, vectors: np.ndarray) -> np.ndarray:
        """The products with the columns of a matrix, one after the other, in float64."""
        columns = jnp.asarray(vectors, dtype=self.dtype).T
        return np.stack([np.asarray(self.matvec(v), dtype=float) for v in columns], axis=1)

    def dense(self) -> Float[Array, "size size"]:
        """The matrix itself: P products and P x P numbers, for small sizes."""
        matrix = jnp.stack([self.apply(v) for v in jnp.eye(self.size, dtype=self.dtype)])
        return (matrix + matrix.T) / 2


def operator_at(product: Callable[..., Array], source: Any, params: Params, *more: Any) -> Operator:
    """The operator with products ``product(source, params, *more, vector)``.

    Args:
        product: A traceable function of the module level, so that what was compiled for one point
            serves for every other.
        source: The problem.
        params: Where.
        more: Further arrays.
    """
    source.check_params(params)
    size, dtype = flat_size(params)
    return Operator(partial(_compiled, product, (source, params, *more)), size, dtype)


def flat_size(params: Params) -> tuple[int, Any]:
    """The number of parameters and the type of them all in one vector."""
    flat = jax.eval_shape(lambda p: ravel_pytree(p)[0], params)
    return flat.size, flat.dtype


def check_point(source: Source, params: Params) -> tuple[int, Any]:
    """:func:`flat_size` of parameters that the losses take.

    Raises:
        InputError: Parameters that the loss does not take.
    """
    source.check_params(params)
    return flat_size(params)


def check_size(vector: Array, size: int, name: str) -> None:
    """Raise InputError unless a vector has an entry for each parameter."""
    if vector.shape != (size,):
        raise InputError(
            f"{name} has shape {vector.shape}; expected ({size},), the parameters in one vector "
            "(jax.flatten_util.ravel_pytree)"
        )


def check_finite(products: Array | np.ndarray) -> None:
    """Raise InputError unless all numbers are finite."""
    if not np.isfinite(np.asarray(products)).all():
        raise InputError(
            "the operator's products are not finite; expected a point where the losses have finite "
            "second derivatives: check the parameters, and the losses for divisions by zero there"
        )


@partial(jax.jit, static_argnums=0)
def _compiled(product: Callable[..., Array], arguments: tuple[Any, ...], vector: Array) -> Array:
    return product(*arguments, vector)
