r"""The law of the velocity of one step of SGD, by its cumulant generating function.

A step moves by :math:`\eta u` with the velocity :math:`u = -\hat g`. Both laws here are known by
:math:`\Lambda(q) = \log E\,e^{q \cdot u}` (in units in which it is computed from few terms) and its
first two derivatives, exactly and without a list of all draws of a batch.
"""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Vector = Float[Array, " d"]

# Beyond it a tilted law has no room for anything: exp(-50) is below any rounding.
_DEEPEST = -50.0


class Model(NamedTuple):
    r"""The second-order model of :math:`E e^{(q + \delta) u} - 1` around q, over :math:`E e^{q u}`.

    Attributes:
        excess: :math:`1 - e^{-\Lambda(q)}`.
        mean: :math:`g = \nabla \Lambda(q)`, the mean of the tilted law.
        second: :math:`\nabla^2 \Lambda + g g^\top`, its second moment.
    """

    excess: Float[Array, ""]
    mean: Vector
    second: Float[Array, "d d"]


class AbstractLaw(eqx.Module):
    r"""A law with finitely many values.

    Attributes:
        scale: :math:`\tau`: the Hamiltonian of the step is :math:`\Lambda(\tau p)/\tau`.
    """

    scale: eqx.AbstractVar[Float[Array, ""]]

    @abstractmethod
    def cumulant(self, q: Vector) -> Float[Array, ""]:
        r""":math:`\Lambda(q)`, accurate also where q is small."""

    @abstractmethod
    def model(self, q: Vector) -> Model:
        """The second-order model at q."""

    @abstractmethod
    def largest(self, q: Vector) -> Float[Array, ""]:
        r"""The largest value of :math:`q \cdot u`."""

    @abstractmethod
    def reaches(self, v: Vector) -> Bool[Array, ""]:
        """False where v is known to be no positive combination of values; else true."""

    @abstractmethod
    def moved(self, matrix: Float[Array, "d k"], shift: Vector) -> "AbstractLaw":
        r"""The law of :math:`(u - s)^\top E`, for coordinates :math:`q = E y`."""


class Independent(AbstractLaw):
    r"""The mean of B independent draws of :math:`u_i` with probability :math:`\pi_i`.

    :math:`\log E e^{\eta p \bar u} = B \log \sum_i \pi_i e^{(\eta/B) p u_i}`: the Hamiltonian is
    that of one draw with the step :math:`\tau = \eta/B`.
    """

    velocities: Float[Array, "values d"]
    probabilities: Float[Array, " values"]
    scale: Float[Array, ""]

    def cumulant(self, q: Vector) -> Float[Array, ""]:
        """By the excess over one where exponents are small."""
        x = self.velocities @ q
        near = jnp.max(jnp.abs(x)) < 1
        close = jnp.log1p(jnp.dot(self.probabilities, jnp.expm1(jnp.where(near, x, 0))))
        far = jax.nn.logsumexp(jnp.where(near, 0, x), b=self.probabilities)
        return jnp.where(near, close, far)

    def model(self, q: Vector) -> Model:
        """From the tilted probabilities."""
        x = self.velocities @ q
        tilted = self.probabilities * jnp.exp(x - jnp.max(x))
        tilted = tilted / jnp.sum(tilted)
        second = self.velocities.T @ (tilted[:, None] * self.velocities)
        excess = -jnp.expm1(-jnp.maximum(self.cumulant(q), _DEEPEST))
        return Model(excess, tilted @ self.velocities, second)

    def largest(self, q: Vector) -> Float[Array, ""]:
        """The largest of the values that occur."""
        return jnp.max(jnp.where(self.probabilities > 0, self.velocities @ q, -jnp.inf))

    def reaches(self, v: Vector) -> Bool[Array, ""]:
        """Known in one and two dimensions."""
        if v.size == 1:
            return self.largest(v) > 0
        if v.size > 2:
            return jnp.asarray(True)
        along = self.velocities @ v
        across = self.velocities @ jnp.stack([-v[1], v[0]])
        angle = jnp.arctan2(across, along)
        moves = (self.probabilities > 0) & jnp.any(self.velocities != 0, axis=1)
        left = jnp.min(jnp.where(moves & (angle >= 0), angle, jnp.inf))
        right = jnp.max(jnp.where(moves & (angle <= 0), angle, -jnp.inf))
        # Values on either side of v, less than half a turn from each other.
        return left - right <= jnp.pi

    def moved(self, matrix: Float[Array, "d k"], shift: Vector) -> "Independent":
        """The values moved."""
        values = (self.velocities - shift) @ matrix
        return Independent(values, self.probabilities, self.scale)


class Subset(AbstractLaw):
    r"""The mean of a uniformly random subset of B of n values :math:`u_i`.

    :math:`E e^{q \bar u} = e_B(e^{q u_1/B}, \dots, e^{q u_n/B}) / \binom nB` with the elementary
    symmetric polynomial :math:`e_B`, by its recursion over i: n B operations.
    """

    velocities: Float[Array, "values d"]
    scale: Float[Array, ""]
    size: int = eqx.field(static=True)

    def cumulant(self, q: Vector) -> Float[Array, ""]:
        r"""With the means :math:`a_k = e_k/\binom ik` over the first i, none of which overflows."""
        x = self.velocities @ q / self.size
        count = self.size + 1
        k = jnp.arange(count, dtype=x.dtype)

        def step(a: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
            number, growth = item
            taken = jnp.clip(k / number, 0, 1)
            # a holds the means less one: what is small is added to what is small.
            shifted = jnp.concatenate([jnp.zeros(1, a.dtype), a[:-1]])
            return (1 - taken) * a + taken * (shifted + growth * (1 + shifted)), None

        numbers = jnp.arange(1, x.size + 1, dtype=x.dtype)
        centre = jnp.mean(x)
        means, _ = jax.lax.scan(step, jnp.zeros(count, x.dtype), (numbers, jnp.expm1(x - centre)))
        return self.size * centre + jnp.log1p(means[-1])

    def model(self, q: Vector) -> Model:
        """By derivatives of the recursion."""

        def slope(q: Vector) -> tuple[Array, tuple[Array, Array]]:
            value, mean = jax.value_and_grad(self.cumulant)(q)
            return mean, (value, mean)

        spread, (value, mean) = jax.jacfwd(slope, has_aux=True)(q)
        excess = -jnp.expm1(-jnp.maximum(value, _DEEPEST))
        return Model(excess, mean, spread + jnp.outer(mean, mean))

    def largest(self, q: Vector) -> Float[Array, ""]:
        """The mean of the B largest."""
        return jnp.mean(jax.lax.top_k(self.velocities @ q, self.size)[0])

    def reaches(self, v: Vector) -> Bool[Array, ""]:
        """Known in one dimension."""
        return self.largest(v) > 0 if v.size == 1 else jnp.asarray(True)

    def moved(self, matrix: Float[Array, "d k"], shift: Vector) -> "Subset":
        """The values moved."""
        return Subset((self.velocities - shift) @ matrix, self.scale, self.size)


def eigenpairs(matrix: Float[Array, "d d"]) -> tuple[Vector, Float[Array, "d d"]]:
    """Eigenvalues and eigenvectors (columns) of a symmetric matrix, of whatever order.

    Written out up to two dimensions: a library's routine would be called once for every point.
    """
    if matrix.shape[0] == 1:
        return matrix[0], jnp.ones_like(matrix)
    if matrix.shape[0] > 2:
        return jnp.linalg.eigh(matrix)
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[1, 1]
    angle = jnp.arctan2(2 * b, a - c) / 2
    large = (a + c) / 2 + jnp.hypot((a - c) / 2, b)
    small = (a * c - b * b) / jnp.where(large > 0, large, 1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([large, small]), jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


def solved(matrix: Float[Array, "d d"], right: Float[Array, "d k"]) -> Float[Array, "d k"]:
    """The solution of a positive definite system, written out up to two dimensions."""
    if matrix.shape[0] == 1:
        return right / matrix
    if matrix.shape[0] > 2:
        return jnp.linalg.solve(matrix, right)
    (a, b), (_, c) = matrix
    top = (c * right[0] - b * right[1]) / (a * c - b * b)
    return jnp.stack([top, (right[1] - b * top) / c])


def whitened(
    matrix: Float[Array, "d d"],
) -> tuple[Float[Array, "d d"], Float[Array, "d d"]]:
    r"""E with :math:`E^\top S E = I` on the range of S and zero columns beyond, and its complement.

    The complement is the projection on the null space of S; directions with less than 1e-12 of the
    largest eigenvalue are null.
    """
    values, vectors = eigenpairs(matrix)
    kept = values > _NULL * jnp.max(values)
    roots = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
    return vectors * roots, jnp.where(kept, 0, vectors) @ vectors.T


_NULL = np.finfo(float).eps ** 0.75
