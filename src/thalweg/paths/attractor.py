"""The quasi-potential near the rest point that it starts from, as a power series."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import solve_continuous_lyapunov

from thalweg.errors import InputError
from thalweg.paths.hamiltonian import AbstractHamiltonian
from thalweg.paths.laws import Vector

# A Newton step to the rest point shorter than this share of a length says that one is there.
_REST = 1e-2
# A variance below this share of the largest is none.
_NONE = 1e-9


class Near(NamedTuple):
    r""":math:`V = \tfrac12 x^\top Q x + \tfrac16 W(x, x, x) + O(x^4)`, x from the rest point.

    Attributes:
        point: The rest point.
        quadratic: Q.
        cubic: W.
    """

    point: Float[np.ndarray, " d"]
    quadratic: Float[np.ndarray, "d d"]
    cubic: Float[np.ndarray, "d d d"]

    def values(self, points: Float[np.ndarray, "points d"]) -> Float[np.ndarray, " points"]:
        """V at points.

        Raises:
            InputError: Points so far away that the series says nothing.
        """
        x = points - self.point
        second = np.einsum("ij,ni,nj->n", self.quadratic, x, x) / 2
        third = np.einsum("ijk,ni,nj,nk->n", self.cubic, x, x, x) / 6
        if (np.abs(third) > second / 2).any():
            raise InputError(
                f"the grid is too coarse around {_written(self.point)}: within two cells the "
                "quasi-potential is no longer nearly quadratic; take more cells, or a smaller box"
            )
        return second + third


def near(
    H: AbstractHamiltonian, point: Float[np.ndarray, " d"], length: Float[np.ndarray, " d"]
) -> Near:
    r"""The quasi-potential at a rest point to third order.

    With B and :math:`\Sigma` the derivatives of the drift and the covariance at the point, P of
    :math:`B P + P B^\top + \Sigma = 0` is the covariance of the linear equation's stationary law
    and :math:`Q = P^{-1}` (Freidlin and Wentzell, chapter 4, for linear drifts). The third order of
    :math:`H(x, \nabla V) = 0` is linear in W: :math:`\nabla W \cdot M x` and the third order of
    :math:`H(x, Qx)` cancel, with :math:`M = B + \Sigma Q`.

    Args:
        H: The Hamiltonian.
        point: Where.
        length: A distance in each coordinate that counts as small.

    Raises:
        InputError: Not at rest, not stable, or noise that does not move in all directions.
    """
    theta = jnp.asarray(point)
    drift, B, S = (np.asarray(x) for x in _linear(H, theta))
    _check_noise(point, S)
    _check_rest(point, drift, B, length)
    Q = np.linalg.inv(solve_continuous_lyapunov(B, -S))
    Q = (Q + Q.T) / 2
    third = np.asarray(_third(H, theta, jnp.asarray(Q)))
    # Where third derivatives do not exist the second order has to do.
    cubic = np.zeros(third.shape) if not np.isfinite(third).all() else _cubic(B + S @ Q, third)
    return Near(point, Q, cubic)


def _check_noise(point: Float[np.ndarray, " d"], covariance: Float[np.ndarray, "d d"]) -> None:
    """Raise InputError unless there is noise in all directions at the rest point."""
    values = np.linalg.eigvalsh(covariance)
    if not values[0] > _NONE * values[-1]:
        where = "in some direction " if values[-1] > 0 else ""
        raise InputError(
            f"the noise vanishes {where}at the rest point {_written(point)} (its covariance there "
            f"has the eigenvalues {_written(values)}): no path of finite action leaves it so, and "
            "the quasi-potential is infinite; expected noise that moves in all directions"
        )


def unstable(
    point: Float[np.ndarray, " d"], drift: Float[np.ndarray, " drifts"], reason: str
) -> InputError:
    """The error of a point that is not a stable rest point."""
    return InputError(
        f"the quasi-potential starts from a stable rest point of the drift, and {_written(point)} "
        f"is none: {reason} (the drift there is {_written(drift)}); give a minimum, to all digits"
    )


def _check_rest(
    point: Float[np.ndarray, " d"],
    drift: Float[np.ndarray, " d"],
    B: Float[np.ndarray, "d d"],
    length: Float[np.ndarray, " d"],
) -> None:
    if not np.isfinite(B).all():
        raise unstable(point, drift, "the drift has no derivative there")
    largest = np.linalg.eigvals(B).real.max()
    if not largest < 0:
        raise unstable(
            point, drift, f"an eigenvalue of its derivative has the real part {largest:.3g}"
        )
    step = np.abs(np.linalg.solve(B, drift))
    if not (step <= _REST * length).all():
        raise unstable(point, drift, f"it is {_written(step)} away from rest")


def _cubic(
    M: Float[np.ndarray, "d d"], third: Float[np.ndarray, "d d d"]
) -> Float[np.ndarray, "d d d"]:
    """W with the derivative of W(x, x, x) along M x equal to minus the third order."""
    d, unit = len(M), np.eye(len(M))
    sum_of_slots = (
        np.einsum("ai,bj,ck->ijkabc", M, unit, unit)
        + np.einsum("ai,bj,ck->ijkabc", unit, M, unit)
        + np.einsum("ai,bj,ck->ijkabc", unit, unit, M)
    )
    found = np.linalg.solve(sum_of_slots.reshape(d**3, d**3), -third.ravel())
    return found.reshape(d, d, d)


def _written(values: Float[np.ndarray, " d"]) -> str:
    return str([float(f"{x:.6g}") for x in values])


@eqx.filter_jit
def _linear(H: AbstractHamiltonian, theta: Vector) -> tuple[Array, Array, Array]:
    """The drift, its derivative and the covariance."""
    zero = jnp.zeros_like(theta)
    covariance = jax.hessian(H.value, argnums=1)(theta, zero)
    return H.drift(theta), jax.jacfwd(H.drift)(theta), covariance


@eqx.filter_jit
def _third(H: AbstractHamiltonian, theta: Vector, Q: Float[Array, "d d"]) -> Float[Array, "d d d"]:
    """The third derivative of H(x, Qx)."""

    def along(x: Vector) -> Array:
        return H.value(theta + x, Q @ x)

    return jax.jacfwd(jax.jacfwd(jax.jacfwd(along)))(jnp.zeros_like(theta))
