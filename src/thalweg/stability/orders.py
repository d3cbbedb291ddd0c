"""Stability of passes over the data: random reshuffling and the cyclic order."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import brentq
from scipy.sparse.linalg import LinearOperator, eigs

from thalweg.errors import InputError
from thalweg.estimate import Estimate
from thalweg.stability.batches import Family, batch_factor, check_step, checked
from thalweg.stability.moments import Congruence, SecondMoments

# Floating-point operations up to which the mean over all orders is summed exactly.
_SUMMED = 2e8
# Sampled orders.
_ORDERS = 512
# Up to this many rows a map on matrices is written out.
_WRITTEN_OUT = 12
# The ratio of the steps tried on the way to the first unstable one, and how many at most.
_GROWTH, _TRIES = 1.05, 2000
# How far above 1 a radius is unstable.
_ROUNDING = 1e-12
_SLOPE = 0.01


def reshuffled_radius(
    hessians: Float[Array, "n d d"], step: float, batch_size: int, *, key: Array
) -> Estimate:
    r"""The spectral radius of :math:`M \to E[A_\pi M A_\pi^\top]` over one reshuffled pass.

    :math:`A_\pi = (I - \eta H_{B_m}) \cdots (I - \eta H_{B_1})` is the product over a pass in the
    random order :math:`\pi`, in batches of B (:class:`thalweg.Reshuffled`: the last batch is what
    is left). Mean-square stable if it is at most 1. Compare with the power m of
    :func:`mean_square_radius` for independent batches.

    The mean over all :math:`n!` orders is summed exactly over *sets* of samples already used
    (:math:`2^n` of them for B = 1), while that takes less than 2e8 operations: error 0. Otherwise
    it is a mean over 512 sampled orders, with the standard error of the radius to first order in
    the sampling.

    Raises:
        InputError: As :func:`mean_square_threshold`, or a step that is not positive and finite.
    """
    check_step(step)
    return _Passes(checked(hessians), batch_size, key).radius(step)


def reshuffled_threshold(
    hessians: Float[Array, "n d d"], batch_size: int, *, key: Array
) -> Estimate:
    r"""The first step at which :func:`reshuffled_radius` exceeds 1.

    Steps grow by 5 % from :math:`2/\max_i |H_i|`, below which no product grows if all
    :math:`H_i \ge 0` (from a thousandth of it otherwise), until one is unstable; then the root in
    between. Sampled orders are the same at all steps, and the error is that of the radius over its
    slope. 0 if H has a negative eigenvalue, infinite if all :math:`H_i` vanish.

    Raises:
        InputError: As :func:`mean_square_threshold`.
    """
    family = checked(hessians)
    passes = _Passes(family, batch_size, key)
    root = _first_unstable(lambda step: passes.radius(step).value, family)
    at = passes.radius(root).error if 0 < root < math.inf else 0.0
    if at == 0:
        return Estimate(root)
    rise = passes.radius(root * (1 + _SLOPE)).value - passes.radius(root * (1 - _SLOPE)).value
    return Estimate(root, at * 2 * _SLOPE * root / abs(rise), _ORDERS)


def cyclic_radius(hessians: Float[Array, "n d d"], step: float, batch_size: int) -> float:
    r"""The spectral radius of one pass in the order of the data, :math:`\rho(A_m \cdots A_1)`.

    The pass is deterministic: SGD converges for every start if it is below 1
    (:class:`thalweg.Cyclic`). It is the factor of :math:`|\theta|` in a pass, not of its square.

    Raises:
        InputError: As :func:`mean_square_threshold`, or a step that is not positive and finite.
    """
    check_step(step)
    matrices = checked(hessians).hessians
    return _cyclic(_batch_means(matrices, np.arange(len(matrices)), batch_size), step)


def cyclic_threshold(hessians: Float[Array, "n d d"], batch_size: int) -> float:
    """The first step at which :func:`cyclic_radius` exceeds 1; searched for in the same way.

    Raises:
        InputError: As :func:`mean_square_threshold`.
    """
    family = checked(hessians)
    means = _batch_means(family.hessians, np.arange(len(family.hessians)), batch_size)
    return _first_unstable(lambda step: _cyclic(means, step), family)


class _Passes:
    """One-epoch maps of a family: all orders, or the same sampled ones at every step."""

    def __init__(self, family: Family, batch_size: int, key: Array):
        matrices = family.hessians
        n, d, _ = matrices.shape
        batch_factor(n, batch_size)
        self.matrices, self.size = matrices, batch_size
        self.exact = _transitions(n, batch_size) * float(d) ** 6 <= _SUMMED
        if not self.exact:
            orders = jax.vmap(partial(jax.random.permutation, x=n))(jax.random.split(key, _ORDERS))
            self.means = np.stack(
                [_batch_means(matrices, order, batch_size) for order in np.asarray(orders)]
            )

    def radius(self, step: float) -> Estimate:
        """The radius of the mean map."""
        d = self.matrices.shape[1]
        if self.exact:
            mean = _mean_over_orders(self.matrices, self.size, step)
            return Estimate(float(np.abs(np.linalg.eigvals(mean)).max()))
        products = np.broadcast_to(np.eye(d), (_ORDERS, d, d))
        for place in range(self.means.shape[1]):
            products = products - step * self.means[:, place] @ products
        shares = np.full(_ORDERS, 1 / _ORDERS)
        value, right = _perron(Congruence(products, shares), d)
        _, left = _perron(Congruence(products.mT, shares), d)
        # d rho = <Y, dQ X> / <Y, X>, with Y the eigenmatrix of the adjoint.
        values = np.einsum("ab,nbc,cd,nad->n", left, products, right, products, optimize=True)
        error = values.std(ddof=1) / math.sqrt(_ORDERS) / np.sum(left * right)
        return Estimate(value, float(error), _ORDERS)


def _perron(apply: Congruence, rows: int) -> tuple[float, np.ndarray]:
    """The spectral radius of a map that preserves the cone, with its semidefinite eigenmatrix."""
    size = rows * rows

    def product(vector: np.ndarray) -> np.ndarray:
        return apply(vector.reshape(rows, rows)).ravel()

    if rows <= _WRITTEN_OUT:
        images = apply(np.eye(size).reshape(size, rows, rows))
        values, vectors = np.linalg.eig(images.reshape(size, size).T)
    else:
        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        values, vectors = eigs(operator, 1, which="LM", v0=np.eye(rows).ravel())
    largest = int(np.argmax(np.abs(values)))
    top = vectors[:, largest].real.reshape(rows, rows)
    top = (top + top.T) / 2
    return float(np.abs(values[largest])), top * np.sign(np.trace(top) or 1.0)


def _batch_means(matrices: np.ndarray, order: np.ndarray, size: int) -> np.ndarray:
    """The mean Hessians of the batches of a pass."""
    batch_factor(len(matrices), size)
    parts = [order[first : first + size] for first in range(0, len(order), size)]
    return np.stack([matrices[part].mean(axis=0) for part in parts])


def _cyclic(means: np.ndarray, step: float) -> float:
    product = np.eye(means.shape[1])
    for mean in means:
        product = product - step * mean @ product
    return float(np.abs(np.linalg.eigvals(product)).max())


def _sizes(n: int, size: int) -> list[int]:
    return [size] * (n // size) + ([n % size] if n % size else [])


def _transitions(n: int, size: int) -> float:
    """How many ways there are to append a batch to a set of samples already used."""
    used, count = 0, 0
    for more in _sizes(n, size):
        used += more
        count += math.comb(n, used) * math.comb(used, more)
    return float(count)


def _mean_over_orders(matrices: np.ndarray, size: int, step: float) -> np.ndarray:
    r"""The mean of :math:`A_\pi \otimes A_\pi` over all orders, a d^2 x d^2 matrix.

    The products over one set of samples have a mean that the way to go on does not depend on: by
    sets, as in Held and Karp's solution of the travelling salesman.
    """
    n, d, _ = matrices.shape
    means: dict[frozenset[int], np.ndarray] = {frozenset(): np.eye(d * d)}
    moves: dict[frozenset[int], np.ndarray] = {}
    used = 0
    for more in _sizes(n, size):
        used += more
        longer = {}
        for members in itertools.combinations(range(n), used):
            ways = [frozenset(batch) for batch in itertools.combinations(members, more)]
            for batch in ways:
                if batch not in moves:
                    A = np.eye(d) - step * matrices[sorted(batch)].mean(axis=0)
                    moves[batch] = np.kron(A, A)
            whole = frozenset(members)
            products = np.stack([moves[b] for b in ways]) @ np.stack(
                [means[whole - b] for b in ways]
            )
            longer[whole] = products.mean(axis=0)
        means = longer
    return means[frozenset(range(n))]


def _first_unstable(radius: Callable[[float], float], family: Family) -> float:
    """The first step at which a radius exceeds 1, to the resolution of the steps tried."""
    matrices = family.hessians
    moments = SecondMoments(family)
    norms = np.linalg.eigvalsh(matrices)
    largest = np.abs(norms).max()
    if moments.indefinite:
        return 0.0
    if largest == 0:
        return math.inf
    convex = norms.min() >= -family.tolerance * largest
    step = 2 / largest * (1 if convex else 1e-3)
    for _ in range(_TRIES):
        if radius(step * _GROWTH) > 1 + _ROUNDING:
            break
        step *= _GROWTH
    else:
        raise InputError(
            f"the pass is stable up to step={step:.3g}; expected Hessians for which large steps "
            "are unstable"
        )

    def excess(at: float) -> float:
        return radius(at) - 1 - _ROUNDING

    if excess(step) >= 0:
        return step
    return float(brentq(excess, step, step * _GROWTH, xtol=1e-14 * step, rtol=1e-12))
