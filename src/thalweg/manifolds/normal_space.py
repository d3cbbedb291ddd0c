r"""Tangent and normal spaces of a manifold of minimisers, from the spectrum of the Hessian."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from thalweg.errors import InputError
from thalweg.flow import in_blocks
from thalweg.manifolds.landing import landing
from thalweg.manifolds.local import (
    Local,
    checked_points,
    has_gap,
    is_critical,
    is_minimiser,
    local,
    padded,
    rounding,
    sharpest,
)
from thalweg.problem import FiniteSum

# Steps along a flat direction that try whether it leads along the minimisers. Of either, f that
# rises like its fourth or sixth power is seen; the shorter is for manifolds that bend closely.
_TRIALS = (0.03, 0.01)


@dataclass(frozen=True, eq=False)
class NormalSpace:
    r"""What a manifold of minimisers looks like at some of its points.

    Attributes:
        codimension: k, the rank of the Hessian; the manifold has the dimension d - k.
        curvatures: The k eigenvalues :math:`\lambda_j` of the Hessian on the normal space,
            ascending, shape (..., k).
        normal: Their unit eigenvectors as columns, shape (..., d, k).
        tangent: An orthonormal basis of the Hessian's kernel, shape (..., d, d - k).
        log_det: :math:`\log \det H_\perp = \sum_j \log \lambda_j`, shape (...).
        gap: The least normal curvature over the largest tangential one (in size), the smallest over
            the points; infinite where there is nothing to compare with.
    """

    codimension: int
    curvatures: Float[Array, "*batch k"]
    normal: Float[Array, "*batch d k"]
    tangent: Float[Array, "*batch d m"]
    log_det: Float[Array, "*batch"]
    gap: float


def normal_space(problem: FiniteSum, points: Float[Array, "*batch d"]) -> NormalSpace:
    r"""Tangent and normal spaces at minimisers, with the determinant of the normal Hessian.

    Where the minimisers form a manifold and f rises like the square of the distance from it (Morse
    and Bott's condition), the tangent space is the kernel of the Hessian. Eigenvalues up to
    :math:`\sqrt\epsilon\,\lambda_{\max}` in size count as zero (:math:`\epsilon` the unit of
    rounding: 1.5e-8 in float64), all others must be a hundred times larger. That the kernel leads
    along minimisers, and not where f rises like the fourth power, is tried at each point by steps
    of length .03 and .01 in a random flat direction and back to the manifold: parameters should be
    scaled so that it bends on larger lengths.

    Args:
        problem: The objective, of params of shape (d,).
        points: Minimisers, accurate to :math:`|\nabla f| \le \sqrt\epsilon\,\lambda_{\max}
            (1 + |\theta|)`; :func:`thalweg.manifolds.project` makes them.

    Raises:
        InputError: Points that are no minimisers, a spectrum without that gap, flat directions that
            lead off the minimisers, points with different codimensions.

    Cost: one d x d Hessian a point with its eigenvectors, and ten to thirty gradients.
    """
    flat = checked_points(problem, points)
    rows = padded(flat)
    found = _examined(problem, rows)
    seen = jax.tree.map(lambda x: np.asarray(x)[: len(flat)], found)
    d, k = flat.shape[1], _codimension(flat, seen)
    if k < d:
        leads = np.asarray(_leads_along(problem, rows, found.found, d - k))[: len(flat)]
        if not leads.all():
            raise InputError(
                f"the Hessian at {_at(flat, ~leads)} is zero along a direction that leads off the "
                "minimisers (f rises more slowly than the square there, or they bend within a "
                "length of .01); expected minimisers whose flat directions are tangents"
            )
    shape = points.shape[:-1]
    curvatures, vectors = seen.found.curvatures, seen.found.vectors
    flattest = np.abs(curvatures[:, : d - k]).max(axis=1, initial=0)
    with np.errstate(divide="ignore"):
        gap = float(np.min(curvatures[:, d - k] / flattest))
    curvatures = curvatures[:, d - k :].reshape(*shape, k)
    return NormalSpace(
        codimension=k,
        curvatures=jnp.asarray(curvatures),
        normal=jnp.asarray(vectors[:, :, d - k :].reshape(*shape, d, k)),
        tangent=jnp.asarray(vectors[:, :, : d - k].reshape(*shape, d, d - k)),
        log_det=jnp.asarray(np.log(curvatures).sum(axis=-1)),
        gap=gap,
    )


class _Seen(NamedTuple):
    """What is seen at points given as minimisers.

    Attributes:
        found: The derivatives.
        finite: Whether they are.
        slope: The size of the gradient.
        critical: Whether it is zero to rounding.
        rises: Whether no curvature is negative.
        rank: How many curvatures are positive.
        gap: Whether these are far from zero.
    """

    found: Local
    finite: Bool[Array, " n"]
    slope: Float[Array, " n"]
    critical: Bool[Array, " n"]
    rises: Bool[Array, " n"]
    rank: Int[Array, " n"]
    gap: Bool[Array, " n"]


@jax.jit
def _examined(problem: FiniteSum, points: Float[Array, "n d"]) -> _Seen:
    def one(point: Array) -> _Seen:
        found = local(problem, point)
        rank = jnp.sum(found.curvatures > rounding(point) * sharpest(found))
        return _Seen(
            found=found,
            finite=jnp.all(jnp.isfinite(found.gradient)) & jnp.all(jnp.isfinite(found.curvatures)),
            slope=jnp.linalg.norm(found.gradient),
            critical=is_critical(point, found),
            rises=is_minimiser(point, found),
            rank=rank,
            gap=has_gap(found, point.size - rank),
        )

    return in_blocks(problem, one, points)


def _codimension(points: Array, seen: Any) -> int:
    """The rank of the Hessians, the same for all points and beyond doubt."""
    least = rounding(points)
    if not seen.finite.all():
        raise InputError(
            f"gradient or Hessian at {_at(points, ~seen.finite)} are not finite; expected "
            "minimisers of a smooth f"
        )
    away = ~seen.critical
    if away.any():
        raise InputError(
            f"{away.sum()} of {len(points)} points are no minimisers, the first is "
            f"{_at(points, away)} with a gradient of {seen.slope[away][0]:.2g}; expected at most "
            f"{least:.1e} times the largest curvature: take them to the nearest ones with "
            "thalweg.manifolds.project"
        )
    if not seen.rises.all():
        raise InputError(
            f"{_at(points, ~seen.rises)} is critical and no minimiser, with the curvature "
            f"{seen.found.curvatures[~seen.rises][0, 0]:.3g}; expected no negative one"
        )
    rank = seen.rank
    if not rank.all():
        raise InputError(
            f"the Hessian at {_at(points, rank == 0)} is zero; expected minimisers across which f "
            "rises like the square of the distance"
        )
    if not seen.gap.all():
        listed = ", ".join(f"{c:.2g}" for c in seen.found.curvatures[~seen.gap][0])
        raise InputError(
            f"the spectrum at {_at(points, ~seen.gap)} has no gap between zero and the rest: "
            f"{listed} (zero is up to {least:.1e} of the largest, the rest a hundred times more); "
            "expected a Hessian of clear rank: rescale the parameters, or use float64"
        )
    if rank.min() != rank.max():
        raise InputError(
            f"the points lie on manifolds of different dimension, the Hessians have ranks from "
            f"{rank.min()} to {rank.max()}; expected one manifold: compare them one by one"
        )
    return int(rank[0])


@partial(jax.jit, static_argnums=3)
def _leads_along(
    problem: FiniteSum, points: Float[Array, "n d"], found: Any, flat: int
) -> Bool[Array, " n"]:
    """Whether a step along a random flat direction can be completed to a minimiser."""
    random = np.random.default_rng(0).normal(size=flat)
    direction = jnp.asarray(random / np.linalg.norm(random), points.dtype)

    def leads(point: Array, *derivatives: Array) -> Array:
        found = Local(*derivatives)
        # Eigenvectors of one eigenvalue are any basis: the direction differs from point to point.
        ahead = found.vectors[:, :flat] @ direction
        scale = sharpest(found)

        def leads_there(length: Array) -> Array:
            base = point + length * ahead
            end, landed = landing(problem, base, found, flat)
            # A landing is this exact in the normal directions; so must the others be.
            tolerance = 10 * rounding(point) ** 1.5 * scale * (1 + jnp.linalg.norm(end))
            return landed & (jnp.linalg.norm(problem.gradient(end)) <= tolerance)

        return jnp.any(jax.vmap(leads_there)(jnp.asarray(_TRIALS, point.dtype)))

    return in_blocks(problem, leads, points, *found)


def _at(points: Array, chosen: np.ndarray) -> str:
    """The first of the chosen points, for messages."""
    point = np.asarray(points)[np.flatnonzero(chosen)[0]]
    return np.array2string(point, precision=4, threshold=8)
