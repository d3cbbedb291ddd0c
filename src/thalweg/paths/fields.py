"""Drift and noise of a dynamics for NumPy arrays: points of rest, and the noise around them."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from thalweg.paths.hamiltonian import AbstractHamiltonian
from thalweg.paths.laws import Vector

# Newton's steps converge by squares: one this short, as a share of the scale, is the last.
_LAST = 1e-9
_NEWTON_STEPS = 50
# Points nearer to each other than this share of the scale are one.
_SAME = 1e-5
# Noise this small against its largest part, or against the scale, is none.
_NONE = 1e-12

Point = Float[np.ndarray, " d"]
Matrix = Float[np.ndarray, "d d"]


class Rest(NamedTuple):
    """A point where the drift vanishes, or any other on a path.

    Attributes:
        point: Where.
        unstable: How many eigenvalues of the drift's derivative have a real part above zero; None
            where the drift does not vanish, or has a kink.
    """

    point: Point
    unstable: int | None


class Field(NamedTuple):
    """A dynamics, by its Hamiltonian, with the length to which others are compared."""

    H: AbstractHamiltonian
    scale: float

    def drift(self, point: Point) -> Point:
        """At a point."""
        return np.asarray(_drift(self.H, jnp.asarray(point)))

    def jacobian(self, point: Point) -> Matrix:
        """Of the drift, at a point."""
        return np.asarray(_jacobian(self.H, jnp.asarray(point)))

    def covariance(self, point: Point) -> Matrix:
        """Of the noise per unit of time, at a point."""
        return np.asarray(_covariance(self.H, jnp.asarray(point)))

    def same(self, one: Point, other: Point) -> bool:
        """Whether two points are one."""
        return bool(np.linalg.norm(one - other) <= _SAME * self.scale)

    def rest_near(self, start: Point, reach: float) -> Rest | None:
        """The point of rest to which Newton's method comes inside a ball around the start."""
        point = start
        for _ in range(_NEWTON_STEPS):
            J, b = self.jacobian(point), self.drift(point)
            if not np.isfinite(J).all() or not np.isfinite(b).all():
                return None
            move = -np.linalg.lstsq(J, b)[0]
            point = point + move
            if not np.linalg.norm(point - start) <= reach:
                return None
            if np.linalg.norm(move) <= _LAST * self.scale:
                return self._rest(point)
        return None

    def _rest(self, point: Point) -> Rest | None:
        growth = np.linalg.eigvals(self.jacobian(point)).real
        # A direction without any growth is that of a continuum, or a kink: no point by itself.
        sure = np.abs(growth) > _NONE * np.abs(growth).max()
        return Rest(point, int(np.sum(growth > 0))) if sure.all() else None

    def spread(self, rest: Rest, step: float | None = None) -> Matrix | None:
        r"""The covariance of the linear dynamics around a stable point; None if it is singular.

        :math:`JS + SJ^\top + \Sigma = 0`; with steps, :math:`S = (I + \eta J) S (I + \eta J)^\top
        + \eta \Sigma`. Close by the quasi-potential is :math:`\tfrac12 x^\top S^{-1} x`.
        """
        J, noise = self.jacobian(rest.point), self.covariance(rest.point)
        if step is None:
            S = scipy.linalg.solve_continuous_lyapunov(J, -noise)
        else:
            move = np.eye(rest.point.size) + step * J
            S = scipy.linalg.solve_discrete_lyapunov(move, step * noise)
        S = (S + S.T) / 2
        sizes = np.linalg.eigvalsh(S)
        regular = sizes[0] > _NONE * max(sizes[-1], _NONE * self.scale**2)
        return S if regular else None


@eqx.filter_jit
def _drift(H: AbstractHamiltonian, point: Vector) -> Array:
    return H.drift(point)


@eqx.filter_jit
def _jacobian(H: AbstractHamiltonian, point: Vector) -> Array:
    return jax.jacfwd(H.drift)(point)


@eqx.filter_jit
def _covariance(H: AbstractHamiltonian, point: Vector) -> Array:
    """Half of H is linear, half quadratic in small momenta."""
    return jax.hessian(H.value, argnums=1)(point, jnp.zeros_like(point))
