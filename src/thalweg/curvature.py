r"""Curvature of the objective and of its samples, by products with vectors.

:math:`H = \sum_i a_i H_i` is the Hessian of the objective and :math:`\Sigma = \sum_i a_i H_i^2 -
H^2` says how much the Hessians :math:`H_i` of the samples differ. Neither is stored: a product
with a vector costs a few gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from thalweg.errors import InputError
from thalweg.gradnorms import gradients_at_once
from thalweg.problem import FiniteSum, Params

# Up to this size an operator is written out and diagonalised exactly.
DENSE_SIZE = 64
# Lanczos restarts before a request counts as too strict.
_RESTARTS = 300


@dataclass(frozen=True, eq=False)
class Operator:
    """A symmetric matrix, known by its products with flat vectors.

    Attributes:
        product: ``product(*arguments, vector)``. A function of the module level, so that what was
            compiled for one point serves for every other.
        arguments: What it is evaluated with, a pytree (a problem, its parameters, ...).
        size: Rows and columns: the number of parameters P, in the order of
            ``jax.flatten_util.ravel_pytree``.
        dtype: Of the products.
    """

    product: Callable[..., Array]
    arguments: tuple[Any, ...]
    size: int
    dtype: Any

    def matvec(self, vector: Float[Array, " size"]) -> Float[Array, " size"]:
        """The product with a vector; compiled once for all points of a problem.

        Raises:
            InputError: A vector of another size.
        """
        _check_size(vector, self.size, "vector")
        return _apply(self.product, self.arguments, vector)

    def matmat(self, vectors: np.ndarray) -> np.ndarray:
        """The products with the columns of a matrix, one after the other, in float64."""
        columns = jnp.asarray(vectors, dtype=self.dtype).T
        return np.stack([np.asarray(self.matvec(v), dtype=float) for v in columns], axis=1)

    def dense(self) -> Float[Array, "size size"]:
        """The matrix itself: P products and P x P numbers, for small sizes."""
        return _columns(self.product, self.arguments, jnp.eye(self.size, dtype=self.dtype))


class Eigenpairs(NamedTuple):
    r"""Eigenvalues with the evidence for them.

    Attributes:
        values: The eigenvalues, the most extreme first, shape (k,).
        vectors: Unit eigenvectors as columns, shape (P, k).
        residuals: :math:`|A v - \lambda v|`, shape (k,). A symmetric A has an eigenvalue within
            this distance of :math:`\lambda`.
    """

    values: Float[Array, " k"]
    vectors: Float[Array, "size k"]
    residuals: Float[Array, " k"]


def hessian(problem: FiniteSum, params: Params) -> Operator:
    r"""The Hessian :math:`H = \nabla^2 f(\theta)` of the objective.

    A product differentiates the gradient along the vector (forward over reverse), in the problem's
    own chunks: about three gradients.

    Raises:
        InputError: Parameters that the loss does not take.
    """
    return operator_at(hessian_product, problem, params)


def nonuniformity_operator(problem: FiniteSum, params: Params) -> Operator:
    r""":math:`\Sigma = \sum_i a_i H_i^2 - H^2`, how much the samples' Hessians differ.

    It is positive semidefinite. A product is taken as :math:`\sum_i a_i H_i (H_i v - H v)`, which
    does not cancel where the samples agree. All :math:`H_i v` of a chunk of samples are held at
    once, at most 16 MiB in float32, and the sum of the second products is one backward pass: about
    eight gradients.

    Source: Wu, Ma and E, "How SGD selects the global minima" (2018), below equation (4).

    Raises:
        InputError: Parameters that the loss does not take.
    """
    return operator_at(nonuniformity_product, problem, params)


def operator_at(
    product: Callable[..., Array], problem: FiniteSum, params: Params, *more: Any
) -> Operator:
    """The operator with products ``product(problem, params, *more, vector)``."""
    problem.check_params(params)
    flat = jax.eval_shape(lambda p: ravel_pytree(p)[0], params)
    return Operator(product, (problem, params, *more), flat.size, flat.dtype)


def hessian_product(
    problem: FiniteSum, params: Params, vector: Float[Array, " size"]
) -> Float[Array, " size"]:
    """The product of :func:`hessian` with a flat vector."""
    unravel = ravel_pytree(params)[1]
    return ravel_pytree(jax.jvp(problem.gradient, (params,), (unravel(vector),))[1])[0]


def nonuniformity_product(
    problem: FiniteSum, params: Params, vector: Float[Array, " size"]
) -> Float[Array, " size"]:
    """The product of :func:`nonuniformity_operator` with a flat vector."""
    direction = ravel_pytree(params)[1](vector)
    mean = jax.jvp(problem.gradient, (params,), (direction,))[1]

    def deviation(sample: Any) -> Any:
        product = jax.jvp(lambda p: jax.grad(problem.loss)(p, sample), (params,), (direction,))[1]
        return jax.tree.map(jnp.subtract, product, mean)

    def part(data: Any, weights: Array) -> Any:
        deviations = jax.vmap(deviation)(data)

        # sum_i a_i H_i u_i is the gradient of the slopes along u_i: no H_i u_i is stored.
        def slopes(p: Any) -> Array:
            slope = jax.vmap(lambda sample, u: _slope(problem.loss, p, sample, u))
            values = slope(data, deviations)
            return jnp.dot(weights.astype(values.dtype), values)

        return jax.grad(slopes)(params)

    # A quarter of the budget of one gradient a sample: larger chunks fall out of the cache.
    size = max(1, gradients_at_once(params) // 4)
    return ravel_pytree(problem.sum_over_chunks(part, problem.data, problem.weights, size))[0]


def sample_curvatures(
    problem: FiniteSum, params: Params, vector: Float[Array, " size"]
) -> Float[Array, " n"]:
    r"""The second derivatives :math:`v^\top H_i v` of all samples along one direction, shape (n,).

    Forward over forward: about four evaluations of the losses, and nothing of size n x P.

    Raises:
        InputError: Parameters that the loss does not take, or a vector of another size.
    """
    problem.check_params(params)
    _check_size(vector, jax.eval_shape(lambda p: ravel_pytree(p)[0], params).size, "vector")
    return _sample_curvatures(problem, params, vector)


def top_eigenvalues(
    operator: Operator,
    k: int = 1,
    *,
    rtol: float = 1e-3,
    start: Float[Array, " size"] | None = None,
    largest: bool = True,
) -> Eigenpairs:
    r"""The k largest (or smallest) eigenvalues of an operator, by restarted Lanczos (ARPACK).

    Args:
        operator: The matrix.
        k: How many.
        rtol: An eigenpair is accepted when its residual is below rtol :math:`|\lambda|`. An
            isolated eigenvalue is then accurate to about rtol squared, its vector to about rtol
            times :math:`|\lambda|` over the gap to its neighbours. For the smallest eigenvalues
            the residual is measured against the spread :math:`\lambda_{\max} - \lambda` instead,
            since these are often nearly zero.
        start: A guess, for instance the eigenvector at a point nearby; a fixed random vector
            unless given.
        largest: The largest eigenvalues, in descending order; the smallest, ascending, if False.

    Up to size 64, or for more than a third of the spectrum, the matrix is written out and
    diagonalised: exact, at ``size`` products. Otherwise at least 20 products (2k + 1 for large k).

    Raises:
        InputError: k outside 1..size, a start of another size, an rtol that the type of the
            products cannot reach, products that are not finite, or no convergence.
    """
    if not 1 <= k <= operator.size:
        raise InputError(f"k={k} eigenvalues of a matrix of size {operator.size}; expected 1..size")
    if start is not None:
        _check_size(start, operator.size, "start")
    if not 4 * float(jnp.finfo(operator.dtype).eps) <= rtol < 1:
        raise InputError(
            f"rtol={rtol} is out of reach of products in {jnp.dtype(operator.dtype)}; expected at "
            "least four units of rounding and less than 1"
        )
    if operator.size <= max(DENSE_SIZE, 3 * k):
        return _dense_eigenvalues(operator, k, largest)
    guess = _guess(operator.size) if start is None else np.asarray(start, dtype=float)
    shift = None if largest else float(_lanczos(operator, 1, rtol, guess)[0][0])
    values, vectors = _lanczos(operator, k, rtol, guess, shift)
    return _with_residuals(operator, values, vectors)


def sharpness(
    problem: FiniteSum,
    params: Params,
    *,
    rtol: float = 1e-3,
    start: Float[Array, " size"] | None = None,
) -> Float[Array, ""]:
    r"""The sharpness :math:`\lambda_{\max}(H)`; options as for :func:`top_eigenvalues`."""
    return top_eigenvalues(hessian(problem, params), rtol=rtol, start=start).values[0]


def nonuniformity(
    problem: FiniteSum,
    params: Params,
    *,
    rtol: float = 1e-3,
    start: Float[Array, " size"] | None = None,
) -> Float[Array, ""]:
    r"""The non-uniformity :math:`s = \lambda_{\max}(\Sigma)^{1/2}`, in units of curvature.

    With the square root, as in the figures of Wu, Ma and E (2018); their text leaves it out.
    Options as for :func:`top_eigenvalues`.
    """
    top = top_eigenvalues(nonuniformity_operator(problem, params), rtol=rtol, start=start)
    return jnp.sqrt(jnp.maximum(top.values[0], 0))


@partial(jax.jit, static_argnums=0)
def _apply(product: Callable[..., Array], arguments: tuple[Any, ...], vector: Array) -> Array:
    return product(*arguments, vector)


@partial(jax.jit, static_argnums=0)
def _columns(product: Callable[..., Array], arguments: tuple[Any, ...], identity: Array) -> Array:
    matrix = jax.lax.map(lambda v: product(*arguments, v), identity)
    return (matrix + matrix.T) / 2


@jax.jit
def _sample_curvatures(problem: FiniteSum, params: Params, vector: Array) -> Array:
    direction = ravel_pytree(params)[1](vector)

    def curvature(sample: Any) -> Array:
        slope = partial(_slope, problem.loss, sample=sample, direction=direction)
        return jax.jvp(slope, (params,), (direction,))[1]

    return problem.over_samples(curvature, problem.data)


def _slope(loss: Callable[..., Array], params: Params, sample: Any, direction: Params) -> Array:
    return jax.jvp(lambda p: loss(p, sample), (params,), (direction,))[1]


def _dense_eigenvalues(operator: Operator, k: int, largest: bool) -> Eigenpairs:
    matrix = np.asarray(operator.dense(), dtype=float)
    _check_finite(matrix)
    values, vectors = np.linalg.eigh(matrix)
    chosen = slice(None, -k - 1, -1) if largest else slice(k)
    return _with_residuals(operator, values[chosen], vectors[:, chosen])


def _lanczos(
    operator: Operator, k: int, rtol: float, guess: np.ndarray, shift: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of A; given a shift its smallest, as the largest of shift - A."""
    offset, sign = (0.0, 1.0) if shift is None else (shift, -1.0)

    # Lanczos vectors are kept in float64 whatever the products are in: they stay orthogonal.
    def matvec(vector: np.ndarray) -> np.ndarray:
        product = operator.matvec(jnp.asarray(vector.ravel(), dtype=operator.dtype))
        _check_finite(product)
        return offset * vector.ravel() + sign * np.asarray(product, dtype=float)

    # ARPACK refuses a start with a zero product. A random one has it for the zero matrix alone.
    if not matvec(guess).any():
        guess = _guess(operator.size)
        if not matvec(guess).any():
            return np.full(k, offset), np.eye(operator.size, k)
    matrix = LinearOperator((operator.size,) * 2, matvec=matvec, dtype=np.float64)
    try:
        values, vectors = eigsh(matrix, k, which="LA", v0=guess, tol=rtol, maxiter=_RESTARTS)
    except ArpackNoConvergence as error:
        raise InputError(
            f"{len(error.eigenvalues)} of {k} eigenvalues reached rtol={rtol:g} within "
            f"{_RESTARTS} restarts of Lanczos; expected all of them: raise rtol or lower k"
        ) from error
    order = np.argsort(-values)
    return offset + sign * values[order], vectors[:, order]


def _with_residuals(operator: Operator, values: np.ndarray, vectors: np.ndarray) -> Eigenpairs:
    misses = operator.matmat(vectors) - vectors * values
    residuals = np.linalg.norm(misses, axis=0)
    return Eigenpairs(*(jnp.asarray(x, operator.dtype) for x in (values, vectors, residuals)))


def _guess(size: int) -> np.ndarray:
    # Random, for a vector with a pattern may be orthogonal to the eigenvector sought; fixed.
    return np.random.default_rng(0).standard_normal(size)


def _check_size(vector: Array, size: int, name: str) -> None:
    if vector.shape != (size,):
        raise InputError(
            f"{name} has shape {vector.shape}; expected ({size},), the parameters in one vector "
            "(jax.flatten_util.ravel_pytree)"
        )


def _check_finite(products: Any) -> None:
    if not np.isfinite(np.asarray(products)).all():
        raise InputError(
            "the operator's products are not finite; expected a point where the losses have finite "
            "second derivatives: check the parameters, and the losses for divisions by zero there"
        )
