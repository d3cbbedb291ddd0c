"""Lanczos' method with all vectors kept orthogonal, and thick restarts."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg.curvature.operator import Operator, check_finite

# Vectors for which there is room at first: most searches take no more.
_FIRST = 8
# A remainder that kept less of its length in a pass is freed once more: what the basis lacks of
# being orthogonal grows by the share taken off over the share kept, with each product.
_KEPT = 0.7


class Ritz(NamedTuple):
    r"""Eigenpairs of a matrix on a Krylov space.

    Attributes:
        values: Ascending, shape (m,).
        residuals: :math:`|A y - \theta y|` of the unit vectors y that belong to them.
        mixing: The columns are their coefficients by the basis.
    """

    values: Float[np.ndarray, " m"]
    residuals: Float[np.ndarray, " m"]
    mixing: Float[np.ndarray, "m m"]


class Krylov:
    """An orthonormal basis that grows by one product at a time.

    The basis is kept in the type of the products, and everything of its size m x m in float64. The
    remainder of a product is freed of all earlier vectors, not of the last two alone: without that
    rounding brings converged vectors back as copies.

    Args:
        operator: The matrix.
        start: The first vector, not zero.
        room: The most vectors kept; beyond, call :meth:`restart`.
    """

    def __init__(self, operator: Operator, start: Float[np.ndarray, " size"], room: int):
        self.operator, self.room, self.products = operator, min(room, operator.size), 0
        self._basis = np.empty((min(self.room + 1, _FIRST), operator.size), dtype=operator.dtype)
        self._matrix = np.zeros((self.room, self.room))
        self._basis[0] = start / np.linalg.norm(start)
        self.count, self.rest = 0, np.inf

    @property
    def full(self) -> bool:
        """Whether there is room for no further vector."""
        return self.count == self.room

    def extend(self) -> None:
        """One product more.

        Raises:
            InputError: A product that is not finite.
        """
        k = self.count
        product = np.asarray(self.operator.matvec(jnp.asarray(self._basis[k]))).copy()
        check_finite(product)
        self.products += 1
        before = self._basis[: k + 1]
        parts = np.zeros(k + 1)
        # Nearly all of it lies along the last two: a pass over these makes one over all enough.
        _free(product, before, parts, slice(max(k - 1, 0), k + 1))
        size = np.linalg.norm(product)
        while True:
            _free(product, before, parts, slice(k + 1))
            left = np.linalg.norm(product)
            if left > _KEPT * size or left <= np.finfo(product.dtype).eps * np.abs(parts).max():
                break
            size = left
        self._matrix[k, : k + 1] = self._matrix[: k + 1, k] = parts
        self.count, self.rest = k + 1, float(left)
        if k + 1 == len(self._basis):
            whole = np.empty((self.room + 1, self.operator.size), dtype=self._basis.dtype)
            whole[: k + 1] = self._basis
            self._basis = whole
        self._basis[k + 1] = product / left if self._goes_on() else self._fresh(k + 1)

    def ritz(self) -> Ritz:
        """The eigenpairs on the space so far."""
        values, mixing = np.linalg.eigh(self._matrix[: self.count, : self.count])
        return Ritz(values, self.rest * np.abs(mixing[-1]), mixing)

    def vectors(self, mixing: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "size k"]:
        """Unit vectors from coefficients."""
        return self._basis[: self.count].T @ mixing.astype(self._basis.dtype)

    def restart(self, kept: np.ndarray) -> None:
        """Keep these Ritz vectors and the remainder, and forget the others."""
        found = self.ritz()
        k = len(kept)
        last = self._basis[self.count].copy()
        self._basis[:k] = self.vectors(found.mixing[:, kept]).T
        self._basis[k] = last
        self._matrix[:] = 0
        self._matrix[np.arange(k), np.arange(k)] = found.values[kept]
        self.count = k

    def _goes_on(self) -> bool:
        """Whether the space is not yet closed under products; rounding apart."""
        scale = np.abs(self._matrix[: self.count, : self.count]).max()
        closed = self.rest <= 4 * np.finfo(self._basis.dtype).eps * scale
        if closed:
            self.rest = 0.0
        return not closed

    def _fresh(self, k: int) -> Float[np.ndarray, " size"]:
        """A vector outside of a closed space; zero if that is everything."""
        if k >= self.operator.size:
            return np.zeros(self.operator.size)
        vector = np.random.default_rng(k).standard_normal(self.operator.size)
        for _ in range(2):
            vector -= (self._basis[:k] @ vector) @ self._basis[:k]
        return vector / np.linalg.norm(vector)


def _free(product: np.ndarray, basis: np.ndarray, parts: np.ndarray, of: slice) -> None:
    """Take the parts along some vectors of a basis off a product, and add them up; in place."""
    share = basis[of] @ product
    product -= share @ basis[of]
    parts[of] += share
