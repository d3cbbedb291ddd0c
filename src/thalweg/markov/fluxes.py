r"""Exponentially fitted fluxes: what passes a face between two cells.

Along the segment from cell i to its neighbour j of distance h the flux of :math:`p_t = -(b p)' +
(D p)''` is :math:`J = b p - (D p)' = (b/D) q - q'` with :math:`q = D p`. If it is constant, then
:math:`J = (B(V) q_i - B(-V) q_j) / h` with :math:`V = -\int_i^j (b/D) dx` and Bernoulli's function
:math:`B(z) = z / (e^z - 1)`, so that J = 0 for :math:`q_j = q_i e^{-V}` whatever the width of the
cells. D. L. Scharfetter and H. K. Gummel, IEEE Transactions on Electron Devices 16 (1969), for
constant D; with q it is right for D that varies.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Below this the closed form loses digits of its derivative; the series is exact to rounding there.
_SERIES = 0.1
# Beyond this the exponential is zero.
_STEEP = 700.0


def bernoulli(z: Float[Array, "*faces"]) -> Float[Array, "*faces"]:
    r"""Bernoulli's function :math:`B(z) = z / (e^z - 1)`, B(0) = 1, for :math:`|z| \le 10^{300}`.

    :math:`B(z) / B(-z) = e^{-z}` to rounding. The derivative is finite everywhere.
    """
    small = jnp.abs(z) < _SERIES
    size = jnp.where(small, 1.0, jnp.abs(z))
    closed = size / -jnp.expm1(-size) * jnp.where(z > 0, jnp.exp(-size), 1.0)
    return jnp.where(small, _series(jnp.where(small, z, 0.0)), closed)


def flux(
    diffusion: Float[Array, "*faces"],
    drop: Float[Array, "*faces"],
    local: Float[Array, "*faces"],
    fitted: Bool[Array, "..."],
) -> Float[Array, "*faces"]:
    r"""The product :math:`D\,B(V)`: what leaves a cell for another, times their distance h and D/q.

    Args:
        diffusion: :math:`D \ge 0` at the centre of the cell that is left.
        drop: :math:`V = -\int (b/D) dx` towards the other cell.
        local: :math:`y = -\bar b h`, with the mean drift towards the other cell.
        fitted: Where V is used; elsewhere :math:`D\,B(y/D)`, which is the upwind flux
            :math:`\max(-y, 0)` exactly for D = 0, and keeps q continuous where D jumps.
    """
    steep = ~fitted & (jnp.abs(local) > _STEEP * diffusion)
    divisor = jnp.where(fitted | steep | (diffusion <= 0), 1.0, diffusion)
    z = jnp.where(fitted, drop, jnp.where(steep, 0.0, local) / divisor)
    return jnp.where(steep, jnp.maximum(-local, 0.0), diffusion * bernoulli(z))


def _series(z: Float[Array, "*faces"]) -> Float[Array, "*faces"]:
    """Bernoulli's numbers; the next term is below 2e-18."""
    square = z * z
    even = square * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
    return 1.0 - z / 2 + even
