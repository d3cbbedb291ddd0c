"""Functions of a dynamics at many points, as NumPy arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.diffusion import Diffusion
from thalweg.errors import InputError
from thalweg.markov.chunks import in_chunks, width


def at_points(
    function: Callable[..., Any], owner: Any, point: Float[np.ndarray, " d"]
) -> Callable[[Float[np.ndarray, "points d"]], Any]:
    """``function(owner, theta)`` as a function of points, in compiled pieces of a few sizes.

    Args:
        function: Defined in a module, so that it is compiled once; returns a pytree of arrays.
        owner: A problem or a dynamics.
        point: One of the points, for the memory that the function takes.

    Raises:
        InputError: 64 bits not enabled in JAX; drift or noise of another shape than the point's.
    """
    if not jax.config.read("jax_enable_x64"):
        raise InputError(
            "rates need 64 bits and JAX has 32; call jax.config.update('jax_enable_x64', True) at "
            "the start of the program"
        )
    start = jnp.asarray(point)
    if isinstance(owner, Diffusion):
        owner.check_drift(start)
        owner.noise.check(start, lambda theta: theta)
    widest = width(partial(function, owner), start)
    return lambda points: in_chunks(partial(_mapped, function, owner), (points,), widest)


@eqx.filter_jit
def _mapped(function: Callable[..., Any], owner: Any, points: Float[Array, "points d"]) -> Any:
    return jax.vmap(partial(function, owner))(jnp.asarray(points))
