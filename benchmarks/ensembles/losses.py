"""Losses and drifts as ordinary JAX functions of one chain, for Thalweg and for the peers."""

import jax
import jax.numpy as jnp
import works


def quadratic(position: jax.Array, row: jax.Array) -> jax.Array:
    """A quadratic of the plane with the row (k, l, c, d)."""
    return 0.5 * jnp.sum(row[:2] * (position - row[2:]) ** 2)


def by_hand(position: jax.Array) -> jax.Array:
    """The drift of the Mueller-Brown potential, its gradient taken by hand."""
    x, y = position
    drift_x, drift_y = 0.0, 0.0
    for A, a, b, c, x0, y0 in works.TERMS:
        dx, dy = x - x0, y - y0
        bump = works.SCALE * A * jnp.exp(a * dx * dx + b * dx * dy + c * dy * dy)
        drift_x -= bump * (2 * a * dx + b * dy)
        drift_y -= bump * (b * dx + 2 * c * dy)
    return jnp.stack([drift_x, drift_y])


def coordinates(position: jax.Array) -> jax.Array:
    """The Mueller-Brown potential, coordinate by coordinate."""
    x, y = position
    return sum(
        works.SCALE * A * jnp.exp(a * (x - x0) ** 2 + b * (x - x0) * (y - y0) + c * (y - y0) ** 2)
        for A, a, b, c, x0, y0 in works.TERMS
    )


def vectors(position: jax.Array) -> jax.Array:
    """The Mueller-Brown potential with vectors of four terms."""
    A, a, b, c, x0, y0 = jnp.array(works.TERMS).T
    dx, dy = position[0] - x0, position[1] - y0
    return works.SCALE * jnp.sum(A * jnp.exp(a * dx**2 + b * dx * dy + c * dy**2))
