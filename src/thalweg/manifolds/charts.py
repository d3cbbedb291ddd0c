"""The selection density on a curve or a surface of minimisers that is given by a chart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import roots_legendre

from thalweg.errors import InputError
from thalweg.manifolds.normal_space import normal_space
from thalweg.problem import FiniteSum, describe

Chart = Callable[[Float[Array, " m"]], Float[Array, " d"]]

# Nodes along each axis, doubled until the integral settles: the first, and the most for curves and
# for surfaces.
_FIRST_NODES = 32
_MOST_NODES = {1: 1024, 2: 256}
_SETTLED = 1e-10
# An integral that does not settle to this has not been found.
_FOUND = 1e-3
# Nodes evaluated by one call: one shape is compiled.
_BLOCK = 256
# Where the density grows like distance^-p towards an end, with less than this it is integrable.
_INTEGRABLE = 0.98


class _Axis(NamedTuple):
    """One coordinate of a chart."""

    lower: float
    upper: float
    periodic: bool


@dataclass(frozen=True, eq=False)
class ChartSelection:
    r"""The selection density on a part of a manifold, by quadrature.

    Attributes:
        coordinates: The nodes u, shape (nodes, m).
        points: :math:`\theta(u)`, shape (nodes, d).
        probabilities: Of the nodes; their sum is one.
        log_normaliser: :math:`\log \int \det(H_\perp)^{-1/2} dS` over the chart; the weights of
            several components of the minimisers are in the ratio of these integrals.
        error: The relative difference of the integral to that with half as many nodes an axis.
    """

    coordinates: Float[Array, "nodes m"]
    points: Float[Array, "nodes d"]
    probabilities: Float[Array, " nodes"]
    log_normaliser: float
    error: float
    _log_density: Callable[[Any], Array] = field(repr=False)

    def average(self, function: Callable[[Any], Any]) -> Array:
        """The mean of a function of a point of shape (d,), with the error of a smooth integrand."""
        values = jax.vmap(function)(self.points)
        return jnp.tensordot(self.probabilities.astype(values.dtype), values, axes=1)

    def density(self, coordinates: Float[Array, "*batch m"]) -> Float[Array, "*batch"]:
        r"""The probability density in the coordinates of the chart, :math:`\int p(u)\,du = 1`."""
        rows = coordinates.reshape(-1, coordinates.shape[-1])
        log = self._log_density(rows) - self.log_normaliser
        return jnp.exp(log).reshape(coordinates.shape[:-1])


def chart_selection(
    problem: FiniteSum,
    chart: Chart,
    lower: Any,
    upper: Any,
    *,
    periodic: bool | Sequence[bool] = False,
) -> ChartSelection:
    r"""The selection density in the coordinates of a chart :math:`\theta(u)` of one or two numbers.

    .. math:: p(u) \propto \det\big(H_\perp(\theta(u))\big)^{-1/2} \det(J^\top J)^{1/2},
              \qquad J = \partial\theta/\partial u,

    see :func:`thalweg.manifolds.selection_log_density`. Integrals are by the trapezoidal rule along
    axes that are periodic and Gauss and Legendre's along the others, with twice as many nodes until
    the normaliser changes by less than 1e-10, or 1024 nodes along a curve and 256 along each axis
    of a surface.

    Args:
        problem: The objective, of params of shape (d,).
        chart: The function from u, of shape (m,), to minimisers, of shape (d,): one to one up to
            sets of measure zero. It need not be defined at the ends.
        lower: The lower ends of u, a number or one for each axis; may be infinite.
        upper: The upper ends.
        periodic: Whether the ends of an axis are one point.

    Raises:
        InputError: Ends that make no interval, a chart that leaves the minimisers or has another
            dimension than they, a density that is not integrable towards an end, or whose integral
            does not settle to 1e-3.

    Cost: one d x d Hessian with its eigenvalues a node.
    """
    axes = _axes(lower, upper, periodic)
    _check_chart(chart, len(axes))
    count, before = _FIRST_NODES, -np.inf
    while True:
        nodes, log_weights = _rule(axes, count)
        points, logs = _on_manifold(problem, chart, nodes)
        logs = logs + log_weights
        total = float(np.logaddexp.reduce(logs))
        _check_ends(axes, logs.reshape((count,) * len(axes)))
        error = float(abs(np.expm1(before - total)))
        if error < _SETTLED or count >= _MOST_NODES[len(axes)]:
            break
        count, before = 2 * count, total
    if not error < _FOUND:
        raise InputError(
            f"the integral of the density still changes by {error:.1e} at {count} nodes an axis; "
            "expected a density that is integrable and smooth between the ends: part the chart "
            "where it is singular, or give narrower ends"
        )
    return ChartSelection(
        coordinates=jnp.asarray(nodes),
        points=jnp.asarray(points),
        probabilities=jnp.asarray(np.exp(logs - total)),
        log_normaliser=total,
        error=error,
        _log_density=lambda u: jnp.asarray(_on_manifold(problem, chart, np.asarray(u))[1]),
    )


def _on_manifold(
    problem: FiniteSum, chart: Chart, nodes: Float[np.ndarray, "n m"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """The points of a chart and the log of the density, not normalised, in its coordinates."""
    found = []
    for first in range(0, len(nodes), _BLOCK):
        part = nodes[first : first + _BLOCK]
        rows = np.concatenate([part, np.repeat(part[-1:], _BLOCK - len(part), axis=0)])
        points, log_areas = _charted(chart, jnp.asarray(rows, jnp.result_type(float)))
        try:
            space = normal_space(problem, points)
        except InputError as error:
            raise InputError(f"the chart does not keep to smooth minimisers: {error}") from error
        dimension = points.shape[1] - space.codimension
        if dimension != nodes.shape[1]:
            raise InputError(
                f"the chart has {nodes.shape[1]} coordinates and the minimisers have the dimension "
                f"{dimension}; expected as many"
            )
        logs = np.asarray(log_areas) - np.asarray(space.log_det) / 2
        found.append((np.asarray(points)[: len(part)], logs[: len(part)]))
    points, logs = (np.concatenate(x) for x in zip(*found, strict=True))
    return points, logs


@partial(jax.jit, static_argnums=0)
def _charted(chart: Chart, nodes: Float[Array, "n m"]) -> tuple[Array, Array]:
    """Points, and the logs of the areas that a unit of the coordinates covers."""

    def one(u: Array) -> tuple[Array, Array]:
        jacobian = jax.jacfwd(chart)(u)
        return chart(u), jnp.linalg.slogdet(jacobian.T @ jacobian)[1] / 2

    return jax.vmap(one)(nodes)


def _check_chart(chart: Chart, dimension: int) -> None:
    coordinates = jax.ShapeDtypeStruct((dimension,), jnp.result_type(float))
    try:
        out = jax.eval_shape(chart, coordinates)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise InputError(
            f"the chart cannot be evaluated on {dimension} coordinates: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if len(getattr(out, "shape", ())) != 1:
        raise InputError(f"the chart returns {describe(out)}; expected params of shape (d,)")


def _axes(lower: Any, upper: Any, periodic: bool | Sequence[bool]) -> list[_Axis]:
    lower, upper, round_ = np.broadcast_arrays(
        np.atleast_1d(np.asarray(lower, float)), np.asarray(upper, float), np.asarray(periodic)
    )
    if lower.ndim != 1 or lower.size not in _MOST_NODES:
        raise InputError(
            f"the chart has ends of shape {lower.shape}; expected one or two coordinates (use "
            "thalweg.manifolds.sample_selection for manifolds of more dimensions)"
        )
    axes = [
        _Axis(float(a), float(b), bool(p)) for a, b, p in zip(lower, upper, round_, strict=True)
    ]
    for axis in axes:
        if not axis.lower < axis.upper or (
            axis.periodic and not np.isfinite(axis.upper - axis.lower)
        ):
            raise InputError(
                f"a coordinate from {axis.lower:g} to {axis.upper:g}; expected lower < upper, and "
                "finite ends where it is periodic"
            )
    return axes


def _rule(
    axes: list[_Axis], count: int
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, " n"]]:
    """Nodes in all coordinates and the logs of their weights."""
    each = [_nodes(axis, count) for axis in axes]
    nodes = np.stack([x.ravel() for x in np.meshgrid(*(u for u, _ in each), indexing="ij")], axis=1)
    weights = np.meshgrid(*(np.log(w) for _, w in each), indexing="ij")
    return nodes, np.sum(weights, axis=0).ravel()


def _nodes(axis: _Axis, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights along an axis; what is infinite is mapped to x in (-1, 1)."""
    length = axis.upper - axis.lower
    if axis.periodic:
        return axis.lower + length * np.arange(count) / count, np.full(count, length / count)
    x, w = roots_legendre(count)
    if np.isfinite(length):
        return axis.lower + length * (1 + x) / 2, w * length / 2
    if np.isfinite(axis.lower):
        return axis.lower + (1 + x) / (1 - x), 2 * w / (1 - x) ** 2
    if np.isfinite(axis.upper):
        return axis.upper - (1 - x) / (1 + x), 2 * w / (1 + x) ** 2
    return x / (1 - x**2), w * (1 + x**2) / (1 - x**2) ** 2


def _check_ends(axes: list[_Axis], logs: Float[np.ndarray, "..."]) -> None:
    """Whether the density, in the x of the quadrature, is integrable towards each end."""
    for number, axis in enumerate(axes):
        if axis.periodic:
            continue
        x, w = roots_legendre(logs.shape[number])
        others = tuple(k for k in range(logs.ndim) if k != number)
        along = np.logaddexp.reduce(logs, axis=others) if others else logs
        for end, pair in ((axis.lower, [0, 1]), (axis.upper, [-1, -2])):
            slopes = np.diff((along - np.log(w))[pair]) / np.diff(np.log(1 - np.abs(x[pair])))
            if -float(slopes[0]) > _INTEGRABLE:
                raise InputError(
                    f"the density is not integrable towards u = {end:g}, coordinate {number}: the "
                    "minimisers are not compact there (or meet others), and there is no law; "
                    "expected narrower ends, on which it is conditioned then"
                )
