"""Costs of a pair of neighbouring images, with their first and second derivatives."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from thalweg.paths.hamiltonian import AbstractHamiltonian
from thalweg.paths.laws import Vector


class Expansion(NamedTuple):
    """A function of two vectors in second order.

    Attributes:
        value: Infinite where the pair is out of reach; the derivatives are then without meaning.
        slope: Derivatives, first vector first.
        bend: Second derivatives.
    """

    value: Float[Array, "*n"]
    slope: Float[Array, "*n m"]
    bend: Float[Array, "*n m m"]


class CurveCost(eqx.Module):
    """The geometric action of the straight line between neighbours, by its middle."""

    H: AbstractHamiltonian

    def __call__(self, one: Vector, other: Vector) -> Expansion:
        """The length of the difference, at the mean."""
        unit = jnp.eye(one.size, dtype=one.dtype)
        chain = jnp.block([[unit / 2, unit / 2], [-unit, unit]])
        return _through(chain, _of_length(self.H, (one + other) / 2, other - one))


class StepCost(eqx.Module):
    r"""The exponent of one step, :math:`\eta` times the rate of :math:`(\theta' - \theta)/\eta`."""

    H: AbstractHamiltonian
    step: Float[Array, ""]

    def __call__(self, one: Vector, other: Vector) -> Expansion:
        """At the first of the two."""
        unit, step = jnp.eye(one.size, dtype=one.dtype), self.step.astype(one.dtype)
        chain = jnp.block([[unit, 0 * unit], [-unit / step, unit / step]])
        found = _through(chain, _of_rate(self.H, one, (other - one) / step))
        return Expansion(step * found.value, step * found.slope, step * found.bend)


class _Around(NamedTuple):
    """First and second derivatives of H at a point and a momentum."""

    by_point: Vector
    by_momentum: Vector
    points: Float[Array, "d d"]
    mixed: Float[Array, "d d"]
    momenta: Float[Array, "d d"]


def _of_length(H: AbstractHamiltonian, theta: Vector, v: Vector) -> Expansion:
    r"""Of the Lagrangian :math:`p \cdot v - r H`, stationary in p and r.

    The change of p and r with :math:`\theta` and v follows from :math:`r\,\partial_p H = v` and
    H = 0. One maximisation serves all; derivatives of derivatives would repeat it.
    """
    d = theta.size
    p, r = H.extreme(theta, v)
    regular = jnp.all(jnp.isfinite(p)) & jnp.isfinite(r)
    q, r = jnp.where(regular, p, 0), jnp.where(regular, r, 0)
    at = _around(H, theta, q)
    edge, zero = at.by_momentum[:, None], jnp.zeros((1, d), theta.dtype)
    matrix = jnp.block([[r * at.momenta, edge], [edge.T, zero[:, :1]]])
    unit = jnp.eye(d, dtype=theta.dtype)
    right = jnp.block([[-r * at.mixed.T, unit], [-at.by_point[None], zero]])
    change = jnp.linalg.pinv(matrix, hermitian=True) @ right
    dp, dr = change[:d], change[d]
    upper = -r * (jnp.concatenate([at.points, 0 * unit], axis=1) + at.mixed @ dp)
    upper = upper - jnp.outer(at.by_point, dr)
    # At rest, where r is infinite, a curve of no cost passes.
    value = jnp.where(jnp.all(jnp.isfinite(p)), jnp.maximum(jnp.vdot(q, v), 0), jnp.inf)
    return Expansion(value, jnp.concatenate([-r * at.by_point, q]), jnp.concatenate([upper, dp]))


def _of_rate(H: AbstractHamiltonian, theta: Vector, v: Vector) -> Expansion:
    r"""Of :math:`p \cdot v - H`, stationary in p."""
    p = H.steepest(theta, v)
    reached = jnp.all(jnp.isfinite(p))
    q = jnp.where(reached, p, 0)
    at = _around(H, theta, q)
    unit = jnp.eye(theta.size, dtype=theta.dtype)
    right = jnp.concatenate([-at.mixed.T, unit], axis=1)
    dp = jnp.linalg.pinv(at.momenta, hermitian=True) @ right
    upper = -(jnp.concatenate([at.points, 0 * unit], axis=1) + at.mixed @ dp)
    value = jnp.where(reached, jnp.vdot(q, v) - H.value(theta, q), jnp.inf)
    return Expansion(value, jnp.concatenate([-at.by_point, q]), jnp.concatenate([upper, dp]))


def _around(H: AbstractHamiltonian, theta: Vector, p: Vector) -> _Around:
    d = theta.size

    def slope(both: Array) -> tuple[Array, Array]:
        found = jax.grad(lambda x: H.value(x[:d], x[d:]))(both)
        return found, found

    bend, first = jax.jacfwd(slope, has_aux=True)(jnp.concatenate([theta, p]))
    return _Around(first[:d], first[d:], bend[:d, :d], bend[:d, d:], bend[d:, d:])


def _through(chain: Float[Array, "m m"], found: Expansion) -> Expansion:
    """The function of other vectors, of which these are linear functions."""
    bend = chain.T @ found.bend @ chain
    return Expansion(found.value, chain.T @ found.slope, (bend + bend.T) / 2)
