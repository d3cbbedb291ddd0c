"""From beside a manifold of minimisers to it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from thalweg.manifolds.local import Local, rounding, sharpest
from thalweg.problem import FiniteSum

_STEPS = 12


def landing(
    problem: FiniteSum, base: Float[Array, " d"], found: Local, flat: int
) -> tuple[Float[Array, " d"], Bool[Array, ""]]:
    r"""From beside the manifold to it, along the normal space of one of its points.

    Solves :math:`N^\top \nabla f(x + N a) = 0` for a by Broyden's method from a = 0 and the normal
    curvatures at the point: a gradient a step, which converges in five to ten from steps that are
    short against the bending of the manifold. Pure.

    Args:
        problem: The objective.
        base: x.
        found: At the point.
        flat: The dimension of the manifold; N are the other eigenvectors.

    Returns:
        x + N a, and whether the method converged, to a residual of :math:`\epsilon^{3/4}` times the
        sharpest curvature times 1 + \|x\|; the point may not be a minimiser.
    """
    normal = found.vectors[:, flat:]
    tolerance = rounding(base) ** 1.5 * sharpest(found) * (1 + jnp.linalg.norm(base))

    def residual(a: Array) -> Array:
        return normal.T @ problem.gradient(base + normal @ a)

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        a, r, inverse, count = state
        move = -inverse @ r
        new = residual(a + move)
        row = move @ inverse
        seen = inverse @ (new - r)
        inverse = inverse + jnp.outer(move - seen, row) / (row @ (new - r))
        return a + move, new, inverse, count + 1

    def going(state: tuple[Array, Array, Array, Array]) -> Array:
        _, r, _, count = state
        return (jnp.linalg.norm(r) > tolerance) & (count < _STEPS)

    start = jnp.zeros(normal.shape[1], base.dtype)
    begin = (
        start,
        residual(start),
        jnp.diag(1 / found.curvatures[flat:]),
        jnp.zeros((), jnp.int32),
    )
    a, r, _, _ = jax.lax.while_loop(going, step, begin)
    return base + normal @ a, jnp.linalg.norm(r) <= tolerance
