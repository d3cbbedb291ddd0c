r"""One step of an Ito equation: the schemes, and what they need to know of the noise.

The equation is :math:`d\theta = b(\theta)\,dt + \sum_{j=1}^m \sigma^j(\theta)\,dW^j`, with
parameters of shape (d,). A noise has one of three forms, and

* ``count``: m;
* ``times(theta, dw)``: :math:`\sum_j \sigma^j\,dW^j`;
* ``correction(theta, dw, dt)``: Milstein's
  :math:`\tfrac12 \sum_{ij} (D\sigma^j)[\sigma^i]\,(dW^i dW^j - \delta_{ij}\,dt)`;
* ``commutator(theta, u, w)``: :math:`\sum_{ij} u_i w_j ((D\sigma^j)[\sigma^i] -
  (D\sigma^i)[\sigma^j])` and the size of its terms. It vanishes for all u and w if and only if the
  noise is commutative.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Vector = Float[Array, " d"]
Numbers = Float[Array, " m"]
Scalar = Float[Array, ""]
Field = Callable[[Array], Array]


class Noise(ABC):
    """See the module."""

    count: int

    @abstractmethod
    def times(self, theta: Vector, dw: Numbers) -> Vector:
        """Sigma times the numbers."""

    @abstractmethod
    def correction(self, theta: Vector, dw: Numbers, dt: Scalar) -> Vector:
        """Milstein's term."""

    @abstractmethod
    def commutator(self, theta: Vector, u: Numbers, w: Numbers) -> tuple[Vector, Vector]:
        """What is zero for commutative noise, and the size of its terms."""


class Additive(Noise):
    """A constant: a number or entries of a diagonal, or a matrix of shape (d, m)."""

    def __init__(self, root: Float[Array, "..."], dimension: int):
        self.root = root
        self.count = root.shape[1] if root.ndim == 2 else dimension

    def times(self, theta: Vector, dw: Numbers) -> Vector:
        """The root times the numbers."""
        root = self.root.astype(theta.dtype)
        return _dot(root, dw) if root.ndim == 2 else root * dw

    def correction(self, theta: Vector, dw: Numbers, dt: Scalar) -> Vector:
        """None: Milstein's scheme is Euler's."""
        return jnp.zeros_like(theta)

    def commutator(self, theta: Vector, u: Numbers, w: Numbers) -> tuple[Vector, Vector]:
        """Zero."""
        return jnp.zeros_like(theta), jnp.zeros_like(theta)


class Diagonal(Noise):
    r"""Independent noise in every coordinate, :math:`\sigma^j = \sqrt{v_j(\theta)}\,e_j`.

    ``variances`` is v, of shape (d,) or () for all alike. Derivatives are those of v and not of
    its root, which has none where the noise vanishes.
    """

    def __init__(self, variances: Field, dimension: int):
        self.variances = lambda theta: jnp.broadcast_to(variances(theta), theta.shape)
        self.count = dimension

    def times(self, theta: Vector, dw: Numbers) -> Vector:
        """NaN where a variance is negative."""
        return jnp.sqrt(self.variances(theta)) * dw

    def correction(self, theta: Vector, dw: Numbers, dt: Scalar) -> Vector:
        r"""For v_j of theta_j alone: :math:`\tfrac14 v_j' (dW_j^2 - dt)`."""
        return jax.jvp(self.variances, (theta,), (jnp.square(dw) - dt,))[1] / 4

    def commutator(self, theta: Vector, u: Numbers, w: Numbers) -> tuple[Vector, Vector]:
        r"""Times :math:`2 \sqrt{v_j}`: commutative means that v_j depends on theta_j alone."""
        root = jnp.sqrt(self.variances(theta))

        def half(u: Array, w: Array) -> Array:
            return jax.jvp(self.variances, (theta,), (root * u,))[1] * w

        return _difference(half(u, w), half(w, u))


class Full(Noise):
    r"""Any :math:`\sigma(\theta)`, of shape (d, m): ``root``, smooth for Milstein's scheme."""

    def __init__(self, root: Field, count: int):
        self.root = root
        self.count = count

    def times(self, theta: Vector, dw: Numbers) -> Vector:
        """Sigma times the numbers."""
        return _dot(self.root(theta), dw)

    def correction(self, theta: Vector, dw: Numbers, dt: Scalar) -> Vector:
        """By m + 1 directional derivatives of sigma; for commutative noise."""
        sigma = self.root(theta)
        total = _dot(self._slope(theta, _dot(sigma, dw)), dw)
        for j in range(self.count):
            total = total - dt * self._slope(theta, sigma[:, j])[:, j]
        return total / 2

    def commutator(self, theta: Vector, u: Numbers, w: Numbers) -> tuple[Vector, Vector]:
        """By two directional derivatives."""
        sigma = self.root(theta)

        def half(u: Array, w: Array) -> Array:
            return _dot(self._slope(theta, _dot(sigma, u)), w)

        return _difference(half(u, w), half(w, u))

    def _slope(self, theta: Array, direction: Array) -> Array:
        return jax.jvp(self.root, (theta,), (direction,))[1]


def euler_maruyama(drift: Field, noise: Noise, theta: Vector, dt: Scalar, dw: Numbers) -> Vector:
    r""":math:`\theta + b\,dt + \sigma\,dW`."""
    return theta + drift(theta) * dt + noise.times(theta, dw)


def heun(drift: Field, noise: Noise, theta: Vector, dt: Scalar, dw: Numbers) -> Vector:
    r""":math:`\theta + \tfrac12 (b(\theta) + b(\theta^*))\,dt + \sigma\,dW`, additive noise.

    :math:`\theta^*` is Euler's step.
    """
    here, moved = drift(theta), noise.times(theta, dw)
    there = drift(theta + here * dt + moved)
    return theta + (here + there) * (dt / 2) + moved


def milstein(drift: Field, noise: Noise, theta: Vector, dt: Scalar, dw: Numbers) -> Vector:
    """Euler's step and Milstein's correction, commutative noise."""
    return euler_maruyama(drift, noise, theta, dt, dw) + noise.correction(theta, dw, dt)


SCHEMES = {"euler-maruyama": euler_maruyama, "heun": heun, "milstein": milstein}


def _dot(matrix: Array, vector: Array) -> Array:
    return jnp.dot(matrix, vector, precision="highest")


def _difference(a: Array, b: Array) -> tuple[Array, Array]:
    return a - b, jnp.abs(a) + jnp.abs(b)
