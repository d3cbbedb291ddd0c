"""Extreme eigenvalues of an operator, to an accuracy asked for."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.curvature.hessians import hessian
from thalweg.curvature.krylov import Krylov, Ritz
from thalweg.curvature.operator import DENSE_SIZE, Operator, check_finite
from thalweg.curvature.samples import nonuniformity_operator
from thalweg.curvature.sums import Source
from thalweg.errors import InputError
from thalweg.problem import Params

# Vectors kept between restarts, beyond two for each eigenvalue asked for.
_ROOM = 30
# Products that a request may take, for each eigenvalue.
_BUDGET = 600
# A warm start may be an eigenvector, and what it has no part of would never come: this much of a
# random vector is added.
_FRESH = 0.05
# Before so many products a small residual is chance.
_FEWEST = 3
# Residuals by recurrence are believed down to so many roundings.
_TRUSTED = 1000


class Eigenpairs(NamedTuple):
    r"""Eigenvalues with the evidence for them.

    Attributes:
        values: The eigenvalues, the most extreme first, shape (k,).
        vectors: Unit eigenvectors as columns, shape (P, k).
        residuals: :math:`|A v - \lambda v|`, shape (k,). A symmetric A has an eigenvalue within
            this distance of :math:`\lambda`.
        data_errors: The standard errors of the eigenvalues because the samples are a sample,
            :math:`s(v^\top A_i v)/\sqrt n` to first order, shape (k,); NaN where the operator has
            no numbers of single samples.
        products: Products that were taken.
        reached: Whether all residuals are as small as was asked for.
    """

    values: Float[Array, " k"]
    vectors: Float[Array, "size k"]
    residuals: Float[Array, " k"]
    data_errors: Float[Array, " k"]
    products: int
    reached: bool

    @property
    def brackets(self) -> Float[Array, "k 2"]:
        """Between which numbers an eigenvalue lies, for each."""
        return jnp.stack([self.values - self.residuals, self.values + self.residuals], axis=1)

    def checked(self) -> "Eigenpairs":
        """Itself.

        Raises:
            InputError: The accuracy asked for was not reached.
        """
        if self.reached:
            return self
        worst = int(jnp.argmax(self.residuals))
        low, high = map(float, self.brackets[worst])
        raise InputError(
            f"after {self.products} products eigenvalue {worst + 1} of {len(self.values)} is "
            f"between {low:.6g} and {high:.6g}, which is not the accuracy asked for; raise rtol "
            "or lower the number of eigenvalues"
        )


def top_eigenvalues(
    operator: Operator,
    k: int = 1,
    *,
    rtol: float = 1e-3,
    start: Float[Array, "size ..."] | None = None,
    largest: bool = True,
    budget: int | None = None,
) -> Eigenpairs:
    r"""The k largest (or smallest) eigenvalues of an operator, by Lanczos' method with restarts.

    Args:
        operator: The matrix.
        k: How many.
        rtol: An eigenpair is accepted when its residual is below rtol :math:`|\lambda|`. An
            isolated eigenvalue is then accurate to about rtol squared, its vector to about rtol
            times :math:`|\lambda|` over the gap to its neighbours. For the smallest eigenvalues
            the residual is measured against the spread :math:`\lambda_{\max} - \lambda_{\min}`
            instead, since these are often nearly zero.
        start: A guess, for instance eigenvectors at a point nearby, a vector or columns. Unless
            given a fixed random vector, and with as large a part the gradient for the largest
            eigenvalues of a Hessian: in training it soon leans to them.
        largest: The largest eigenvalues, in descending order; the smallest, ascending, if False.
        budget: The most products, 600 for each eigenvalue unless given. If they are not enough the
            answer has ``reached`` False and the residuals that there are; its ``checked()``
            raises then.

    Up to size 64, or for more than a third of the spectrum, the matrix is written out and
    diagonalised: exact, at ``size`` products. Otherwise products are taken until the residuals are
    small, at least three; in each, the remainder is freed of the vectors kept, at most 30 + 2k of
    them. The residuals are those of the recurrence, right to some tens of roundings of
    :math:`|A|`; if less than a thousand roundings are asked for, k more products measure them.

    As with any method of products, an eigenvalue whose vector the start has no part of is missed,
    which for a random start has probability zero, and of a repeated one a single copy is found
    unless rounding brings the others up. A start close to the vector of another eigenvalue may be
    accepted before the largest shows; give the vectors of the next few as well, of which one that
    overtakes the first then has its part.

    Raises:
        InputError: k outside 1..size, a start of another size, an rtol that the type of the
            products cannot reach, a budget below k, or products that are not finite.
    """
    _check(operator, k, rtol, start, budget)
    if operator.size <= max(DENSE_SIZE, 3 * k):
        return _dense(operator, k, largest)
    space = Krylov(operator, _guess(operator, start, largest), _ROOM + 2 * k)
    measured = rtol < _TRUSTED * float(jnp.finfo(operator.dtype).eps)
    while True:
        space.extend()
        found = space.ritz()
        order = np.argsort(-found.values if largest else found.values)
        tried = space.count >= k and space.products >= _FEWEST
        scale = np.abs(found.values[order[:k]]) if largest else np.ptp(found.values)
        # The zero matrix has no residual and no scale.
        small = tried and bool(np.all(found.residuals[order[:k]] <= rtol * scale / (1 + measured)))
        if small or space.products >= (budget or _BUDGET * k):
            return _found(space, found, order[:k], rtol * scale if measured else None, small)
        if space.full:
            space.restart(order[: k + _ROOM // 2])


def sharpness(
    problem: Source,
    params: Params,
    *,
    rtol: float = 1e-3,
    start: Float[Array, " size"] | None = None,
) -> Float[Array, ""]:
    r"""The sharpness :math:`\lambda_{\max}(H)`; options as for :func:`top_eigenvalues`.

    Raises:
        InputError: As there, or the accuracy is not reached.
    """
    found = top_eigenvalues(hessian(problem, params), rtol=rtol, start=start)
    return found.checked().values[0]


def nonuniformity(
    problem: Source,
    params: Params,
    *,
    rtol: float = 1e-3,
    start: Float[Array, " size"] | None = None,
) -> Float[Array, ""]:
    r"""The non-uniformity :math:`s = \lambda_{\max}(\Sigma)^{1/2}`, in units of curvature.

    With the square root, as in the figures of Wu, Ma and E (2018); their text leaves it out.
    Options as for :func:`top_eigenvalues`.

    Raises:
        InputError: As there, or the accuracy is not reached.
    """
    top = top_eigenvalues(nonuniformity_operator(problem, params), rtol=rtol, start=start)
    return jnp.sqrt(jnp.maximum(top.checked().values[0], 0))


def _dense(operator: Operator, k: int, largest: bool) -> Eigenpairs:
    matrix = np.asarray(operator.dense(), dtype=float)
    check_finite(matrix)
    values, vectors = np.linalg.eigh(matrix)
    chosen = slice(None, -k - 1, -1) if largest else slice(k)
    values, vectors = values[chosen], vectors[:, chosen]
    residuals = np.linalg.norm(matrix @ vectors - values * vectors, axis=0)
    return _pairs(operator, values, vectors, residuals, operator.size, True)


def _found(
    space: Krylov, found: Ritz, chosen: np.ndarray, limit: np.ndarray | None, reached: bool
) -> Eigenpairs:
    """The answer; with a limit, residuals by products, in which the rounding of the space shows."""
    values, vectors = found.values[chosen], space.vectors(found.mixing[:, chosen])
    residuals, products = found.residuals[chosen], space.products
    if limit is not None:
        misses = space.operator.matmat(vectors) - vectors * values
        residuals, products = np.linalg.norm(misses, axis=0), products + len(chosen)
        reached = reached and bool(np.all(residuals <= limit))
    return _pairs(space.operator, values, vectors, residuals, products, reached)


def _pairs(
    operator: Operator,
    values: np.ndarray,
    vectors: np.ndarray,
    residuals: np.ndarray,
    products: int,
    reached: bool,
) -> Eigenpairs:
    errors = _data_errors(operator, vectors)
    return Eigenpairs(
        values=jnp.asarray(values, operator.dtype),
        vectors=jnp.asarray(vectors, operator.dtype),
        residuals=jnp.asarray(residuals, operator.dtype),
        data_errors=jnp.asarray(errors, operator.dtype),
        products=products,
        reached=reached,
    )


def _data_errors(operator: Operator, vectors: np.ndarray) -> np.ndarray:
    if operator.along is None:
        return np.full(vectors.shape[1], np.nan)
    return np.array(
        [data_error(*operator.along(jnp.asarray(vector, operator.dtype))) for vector in vectors.T]
    )


def data_error(values: Array, weights: Array) -> float:
    r"""The standard error of :math:`\sum_i a_i x_i` if the samples were drawn independently.

    :math:`(\sum_i a_i^2 (x_i - \bar x)^2)^{1/2}`, with the factor :math:`(1 - \sum_i
    a_i^2)^{-1/2}` that makes it :math:`s/\sqrt n` for equal weights; NaN for one sample.
    """
    x, a = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    room = 1 - a @ a
    if room <= 0:
        return math.nan
    return math.sqrt(a**2 @ np.square(x - a @ x) / room)


def _guess(operator: Operator, start: Array | None, largest: bool) -> np.ndarray:
    # Random, for a vector with a pattern may be orthogonal to the eigenvector sought; fixed.
    dtype = np.result_type(np.float32, operator.dtype)
    random = np.random.default_rng(0).standard_normal(operator.size, dtype)
    random /= np.linalg.norm(random)
    if start is not None:
        return _units(start).sum(axis=1) + _FRESH * random
    if operator.guess is None or not largest:
        return random
    return _units(operator.guess())[:, 0] + random


def _units(vectors: Array) -> np.ndarray:
    """Columns of length 1, where they have a length."""
    columns = np.asarray(vectors).reshape(vectors.shape[0], -1)
    check_finite(columns)
    return columns / np.maximum(np.linalg.norm(columns, axis=0), np.finfo(columns.dtype).tiny)


def _check(
    operator: Operator, k: int, rtol: float, start: Array | None, budget: int | None
) -> None:
    if not 1 <= k <= operator.size:
        raise InputError(f"k={k} eigenvalues of a matrix of size {operator.size}; expected 1..size")
    if budget is not None and budget < max(k, _FEWEST):
        raise InputError(f"budget={budget} products for k={k}; expected at least {_FEWEST} and k")
    if start is not None and start.shape[:1] != (operator.size,):
        raise InputError(
            f"start has shape {start.shape}; expected ({operator.size},), or columns of this "
            "length, the parameters in one vector (jax.flatten_util.ravel_pytree)"
        )
    if start is not None and not np.isfinite(np.asarray(start)).all():
        raise InputError("start is not finite; expected a guess of an eigenvector, or none")
    if not 4 * float(jnp.finfo(operator.dtype).eps) <= rtol < 1:
        raise InputError(
            f"rtol={rtol} is out of reach of products in {jnp.dtype(operator.dtype)}; expected at "
            "least four units of rounding and less than 1"
        )
