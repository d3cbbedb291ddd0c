"""Curves given by points: their lengths, points at equal distances on them, where they begin."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg.errors import InputError

# Sidewards share of the length by which a straight line is bent.
_BEND = 0.02


def checked_ends(a: Any, b: Any) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Two points of one shape (d,), given as arrays or as anything with ``params``.

    Raises:
        InputError: Other shapes, not finite, the same point twice; 32 bits.
    """
    if not jax.config.read("jax_enable_x64"):
        raise InputError(
            "paths need 64 bits and JAX has 32; call jax.config.update('jax_enable_x64', True) "
            "before any array is made"
        )
    a, b = (np.asarray(getattr(end, "params", end), dtype=float) for end in (a, b))
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(f"the ends have shapes {a.shape} and {b.shape}; expected (d,) for both")
    if not 0 < np.linalg.norm(b - a) < np.inf:
        raise InputError(f"the ends are {shown(a)} and {shown(b)}; expected two different points")
    return a, b


def shown(point: Float[np.ndarray, " d"]) -> str:
    """A point for a message of one line; of many numbers the first and last."""
    return np.array2string(point, precision=6, threshold=8, max_line_width=1000)


def lengths(points: Float[np.ndarray, "images d"]) -> Float[np.ndarray, " images"]:
    """The length of the polygon up to each of its points."""
    return np.append(0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))


def resampled(points: Float[np.ndarray, "images d"], count: int) -> Float[np.ndarray, "count d"]:
    """So many points at equal distances on the polygon."""
    arc = lengths(points)
    places = np.linspace(0, arc[-1], count)
    inside = np.column_stack([np.interp(places, arc, values) for values in points.T])
    inside[0], inside[-1] = points[0], points[-1]
    return inside


def respaced(
    points: Float[Array, "images d"],
    count: Int[Array, ""] | int,
    gap: float = 1.0,
) -> Float[Array, "images d"]:
    """The same for ``jax.jit``: the first points are at equal distances, the rest at the end.

    Args:
        points: The polygon.
        count: How many are spaced; all after them are the last point.
        gap: The first distance, in terms of the others.
    """
    pieces = jnp.linalg.norm(jnp.diff(points, axis=0), axis=1)
    arc = jnp.append(0.0, jnp.cumsum(pieces))
    steps = jnp.append(0.0, gap + jnp.arange(len(points) - 1, dtype=points.dtype))
    places = jnp.minimum(steps / (gap + count - 2), 1.0) * arc[-1]
    inside = jax.vmap(lambda values: jnp.interp(places, arc, values), 1, 1)(points)
    at_end = (jnp.arange(len(points)) >= count - 1)[:, None]
    # The ends stay to the last bit.
    return jnp.where(at_end, points[-1], inside).at[0].set(points[0])


def bent_line(
    a: Float[np.ndarray, " d"], b: Float[np.ndarray, " d"], images: int
) -> Float[np.ndarray, "images d"]:
    """From a to b on a line that is bent by a few hundredths of its length.

    A straight one may lie on a ridge between two ways that are each other's mirror image, and no
    descent would leave it. On a line there is no other way.
    """
    share = np.linspace(0.0, 1.0, images)[:, None]
    along = b - a
    sideways = np.random.default_rng(0).normal(size=(2, a.size))
    sideways -= np.outer(sideways @ along / (along @ along), along)
    lengths = np.linalg.norm(sideways, axis=1, keepdims=True)
    size = _BEND * np.linalg.norm(along) if a.size > 1 else 0.0
    one, two = size * sideways / np.maximum(lengths, np.finfo(float).tiny)
    return a + share * along + np.sin(np.pi * share) * one + np.sin(2 * np.pi * share) * two
