"""The string method: a curve between two points goes down to the floor of the valleys."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from thalweg.flow import in_blocks
from thalweg.paths.curves import respaced
from thalweg.problem import FiniteSum

# In distances of neighbouring images: how far one moves at once, ...
_LIMIT = 0.5
# ... and how little all have to move for the string to be at rest.
_STILL = 2e-3
# A string this many times its first length away from where it was has left.
_FAR = 10.0
# A slope below which an image stays where it is, lest zero be multiplied by an infinite time.
_FLAT = 1e-100
# Iterations for each image: news of a saddle travels half an image an iteration.
_ITERATIONS = 100


class String(NamedTuple):
    """A string where the method stopped.

    Attributes:
        points: The images.
        moved: How far the farthest moved in the last iteration, in distances of neighbours.
        left: Whether it went far away, or to where the objective is not finite.
        iterations: How many were made.
    """

    points: Float[Array, "images d"]
    moved: Float[Array, ""]
    left: Bool[Array, ""]
    iterations: Int[Array, ""]

    @property
    def at_rest(self) -> bool:
        """Whether the method converged."""
        return bool(self.moved <= _STILL) and not bool(self.left)


@jax.jit
def string(problem: FiniteSum, start: Float[Array, "images d"]) -> String:
    r"""The simplified string method from a first curve, whose ends stay.

    In turn every image follows the gradient flow for a while, and all are put at equal distances
    on the polygon through them. The while is a step of the exponential Rosenbrock-Euler method
    (:mod:`thalweg.flow`), which stiffness does not hold back, and lasts :math:`\delta/(2|\nabla
    f|)` with the distance :math:`\delta` of neighbours: along the curve what is known at the saddle
    comes down half an image an iteration wherever f is steep or flat. A common time step would be
    limited by the steepest place.

    The polygon cuts corners, hence at rest the images lie beside the path: by
    :math:`O(\delta^2)` in steep valleys, :math:`O(\delta)` in wide ones.

    Cost of an iteration: a gradient, a d x d Hessian and its eigenvectors for each image.

    Source: W. E, W. Ren and E. Vanden-Eijnden, J. Chem. Phys. 126, 164103 (2007).
    """
    centre, scale = jnp.mean(start, axis=0), _length(start)

    def going(state: String) -> Array:
        few = state.iterations < _ITERATIONS * len(start)
        return few & (state.moved > _STILL) & ~state.left

    def iterate(state: String) -> String:
        before = state.points
        apart = _length(before) / (len(before) - 1)
        inside = in_blocks(problem, partial(_slid, problem, _LIMIT * apart), before[1:-1])
        after = respaced(jnp.concatenate([before[:1], inside, before[-1:]]), len(before))
        moved = jnp.max(jnp.linalg.norm(after - before, axis=1)) / apart
        near = jnp.all(jnp.linalg.norm(after - centre, axis=1) <= _FAR * scale)
        return String(after, moved, ~near, state.iterations + 1)

    moved = jnp.asarray(jnp.inf, start.dtype)
    return jax.lax.while_loop(
        going, iterate, String(start, moved, jnp.asarray(False), jnp.asarray(0))
    )


def _length(points: Array) -> Array:
    return jnp.sum(jnp.linalg.norm(jnp.diff(points, axis=0), axis=1))


def _slid(problem: FiniteSum, limit: Array, point: Array) -> Array:
    """The point moved along the flow for the time limit/slope, by no more than the limit."""
    slope = problem.gradient(point)
    time = limit / jnp.maximum(jnp.linalg.norm(slope), _FLAT)
    curvatures, vectors = jnp.linalg.eigh(jax.jacfwd(problem.gradient)(point))
    move = vectors @ (-time * _phi(-time * curvatures) * (vectors.T @ slope))
    return point + move * limit / jnp.maximum(jnp.linalg.norm(move), limit)


def _phi(z: Array) -> Array:
    """(e^z - 1)/z."""
    # Bounded next to a saddle, where the time is long: the length of a move is limited anyway.
    z = jnp.minimum(z, 30.0)
    small = jnp.abs(z) < 1e-6
    return jnp.where(small, 1 + z / 2, jnp.expm1(z) / jnp.where(small, 1, z))
