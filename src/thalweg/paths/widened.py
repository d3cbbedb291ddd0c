"""A dynamics with a little Gaussian noise besides, which makes every direction reachable."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from thalweg.diffusion import Diffusion
from thalweg.paths.convex import conjugate, farthest
from thalweg.paths.hamiltonian import (
    AbstractHamiltonian,
    CramerHamiltonian,
    Extreme,
    QuadraticHamiltonian,
)
from thalweg.paths.laws import AbstractLaw, Model, Vector


def widened(H: AbstractHamiltonian, variance: Float[Array, ""]) -> AbstractHamiltonian:
    r"""The Hamiltonian :math:`H_\epsilon = H + \tfrac\epsilon2 |p|^2`.

    Its lengths and rates are finite in all directions, and rise to those of H as :math:`\epsilon
    \to 0`. Constant noise is left as it is.
    """
    if isinstance(H, CramerHamiltonian):
        return WidenedHamiltonian(H, variance)
    if not isinstance(H, QuadraticHamiltonian) or H.diffusion.noise.constant:
        return H
    noise = WidenedCovariance(H.diffusion, variance)
    return QuadraticHamiltonian(Diffusion(H.diffusion.drift, noise, H.diffusion.step))


class WidenedCovariance(eqx.Module):
    """The covariance of a diffusion plus a multiple of the identity: a function of params."""

    diffusion: Diffusion
    variance: Float[Array, ""]

    def __call__(self, theta: Vector) -> Float[Array, "d d"]:
        """The sum."""
        unit = jnp.eye(theta.size, dtype=theta.dtype)
        return self.diffusion.covariance(theta) + self.variance.astype(theta.dtype) * unit


class WidenedHamiltonian(AbstractHamiltonian):
    r"""That of SGD and of Gaussian noise, :math:`H + \tfrac\epsilon2 |p|^2`."""

    sgd: CramerHamiltonian
    variance: Float[Array, ""]

    def value(self, theta: Vector, p: Vector) -> Float[Array, ""]:
        """The sum."""
        return self.sgd.value(theta, p) + self.variance / 2 * jnp.vdot(p, p)

    def drift(self, theta: Vector) -> Vector:
        """That of SGD."""
        return self.sgd.drift(theta)

    def extreme(self, theta: Vector, v: Vector) -> Extreme:
        """As for SGD."""
        law = self.law(theta)
        found = farthest(law, v)
        speed = jnp.linalg.norm(law.model(found.q).mean)
        p = jnp.where(found.exists, found.q / law.scale, jnp.inf)
        return Extreme(p, jnp.where(found.exists, jnp.linalg.norm(v) / speed, 1))

    def steepest(self, theta: Vector, v: Vector) -> Vector:
        """As for SGD."""
        law = self.law(theta)
        found = conjugate(law, v)
        return jnp.where(found.exists, found.q / law.scale, jnp.inf)

    def law(self, theta: Vector) -> "Widened":
        """The law of the velocity of a step."""
        law = self.sgd.law(theta)
        unit = jnp.eye(theta.size, dtype=theta.dtype)
        covariance = self.variance.astype(theta.dtype) / law.scale * unit
        return Widened(law=law, covariance=covariance, scale=law.scale)


class Widened(AbstractLaw):
    """The sum of a law and an independent Gaussian one of mean zero."""

    law: AbstractLaw
    covariance: Float[Array, "d d"]
    scale: Float[Array, ""]

    def cumulant(self, q: Vector) -> Float[Array, ""]:
        """The sum of both."""
        return self.law.cumulant(q) + jnp.vdot(q, self.covariance @ q) / 2

    def model(self, q: Vector) -> Model:
        """From both."""
        one = self.law.model(q)
        mean = one.mean + self.covariance @ q
        spread = one.second - jnp.outer(one.mean, one.mean) + self.covariance
        excess = -jnp.expm1(-jnp.maximum(self.cumulant(q), -50.0))
        return Model(excess, mean, spread + jnp.outer(mean, mean))

    def largest(self, q: Vector) -> Float[Array, ""]:
        """With the Gaussian at three deviations."""
        return self.law.largest(q) + 3 * jnp.sqrt(jnp.vdot(q, self.covariance @ q))

    def reaches(self, v: Vector) -> Bool[Array, ""]:
        """Not known beforehand."""
        return jnp.asarray(True)

    def moved(self, matrix: Float[Array, "d k"], shift: Vector) -> "Widened":
        """Both moved."""
        law, covariance = self.law.moved(matrix, shift), matrix.T @ self.covariance @ matrix
        return Widened(law=law, covariance=covariance, scale=self.scale)
