"""Drift and diffusion tensor at points, and integrals of them along segments."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.diffusion import Diffusion
from thalweg.errors import InputError
from thalweg.markov.chunks import in_chunks

Points = Float[Array | np.ndarray, "points d"]


class Rule(NamedTuple):
    """A quadrature rule on (0, 1), symmetric about the middle.

    Attributes:
        nodes: Where.
        weights: They sum to one.
    """

    nodes: Float[np.ndarray, " nodes"]
    weights: Float[np.ndarray, " nodes"]


def gauss_legendre(count: Any) -> Rule:
    """Gauss and Legendre's rule, exact for polynomials of degree 2 count - 1.

    Raises:
        InputError: Not a positive whole number.
    """
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise InputError(
            f"quadrature is {count!r}; expected a positive whole number of points between cells (1 "
            "is the midpoint)"
        )
    nodes, weights = np.polynomial.legendre.leggauss(int(count))
    return Rule((1 + nodes) / 2, weights / 2)


class Values(NamedTuple):
    r"""Drift and diffusion tensor at points.

    Attributes:
        drift: b.
        tensor: :math:`D = \Sigma/2`.
    """

    drift: Float[Any, "points d"]
    tensor: Float[Any, "points d d"]


def values_at(diffusion: Diffusion, point: Float[Array, " d"]) -> tuple[Array, Array]:
    """Drift and tensor at one point."""
    drift = jnp.asarray(diffusion.drift(point)).astype(point.dtype)
    return drift, diffusion.covariance(point) / 2


@eqx.filter_jit
def values(diffusion: Diffusion, points: Points) -> Values:
    """Drift and tensor at points: the only program that holds the user's functions."""
    # For a derivative it keeps the points only, not the way to the drift.
    each = jax.checkpoint(partial(values_at, diffusion))
    return Values(*jax.vmap(each)(jnp.asarray(points)))


def along(
    diffusion: Diffusion,
    rule: Rule,
    finish: Callable[..., Any],
    segments: tuple[Float[np.ndarray, "segments d"], Float[np.ndarray, "segments d"]],
    rows: tuple[Any, ...],
    width: int,
) -> Any:
    """``finish(weights, values, *rows)`` with the values at the nodes of a rule along segments.

    Args:
        diffusion: The equation.
        rule: The rule.
        finish: A compiled function; ``values`` is a tuple of :class:`Values`, one for each node.
        segments: One end of each and the displacement from there to the other.
        rows: More arguments, pytrees of arrays with a row for each segment.
        width: See :func:`thalweg.markov.chunks.in_chunks`.
    """

    def piece(start: np.ndarray, displacement: np.ndarray, *more: Any) -> Any:
        at = tuple(values(diffusion, start + node * displacement) for node in rule.nodes)
        return finish(rule.weights, at, *more)

    return in_chunks(piece, (*segments, *rows), width)
