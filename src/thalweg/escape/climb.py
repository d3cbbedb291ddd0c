r"""What a diffusion has to climb on its way from a minimum to a saddle."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from thalweg.errors import InputError
from thalweg.markov.fields import gauss_legendre

_RULE = gauss_legendre(10)
# Intervals of a path to begin with; they are halved until that changes an integral by less than
# this, or they are too narrow for more.
_FIRST, _TOLERANCE, _NARROWEST = 16, 1e-10, 1e-13
# So many intervals that are not resolved are kinks everywhere, of gradient norms of many samples:
# each is small, all of them together change an exponent by 1e-5.
_MANY = 256
# Noise below this share of the largest on the way is none.
_NONE = 1e-12
# Points of the way at which detailed balance is tried, there and so far beside it, as a share of
# its length; and the asymmetry that counts as none.
_TRIED, _BESIDE, _SYMMETRIC = 32, 0.05, 1e-2
_DIFFERENCE = 1e-5

Points = Float[np.ndarray, "points d"]
# From points to drift and tensor.
Fields = Callable[[Points], tuple[Points, np.ndarray]]
Parameters = Float[np.ndarray, " points"]


class Climb(NamedTuple):
    r"""Integrals along a way, with the tensor :math:`A = \Sigma/2` and the drift b.

    Attributes:
        exponent: :math:`-\int A^{-1} b \cdot d\theta`; without detailed balance the action
            :math:`\tfrac12 \int |b|\,|d\theta| - b \cdot d\theta`, all in the metric
            :math:`A^{-1}`, which is never less. Infinite where there is no noise.
        log_density: By how much the logarithm of the amplitude z of the stationary density
            :math:`z\,e^{-V}` changes, :math:`-\int A^{-1} (\nabla \cdot A) \cdot d\theta`. Zero
            on a line, where it is known at the ends; without detailed balance the guess
            :math:`z = \det(A)^{-1/d}`, which is right for isotropic noise.
        asymmetry: The antisymmetric part of the Jacobian of :math:`A^{-1} b` relative to its size,
            at most, on the way and beside it: zero with detailed balance.
        anisotropy: The largest ratio of two variances at a point.
        without_noise: Where there is none, if anywhere.
    """

    exponent: float
    log_density: float
    asymmetry: float
    anisotropy: float
    without_noise: Float[np.ndarray, " d"] | None = None

    @property
    def balanced(self) -> bool:
        """Whether there is detailed balance."""
        return self.asymmetry <= _SYMMETRIC


class _NoNoiseError(Exception):
    """Raised with the point where there is no noise."""


def climb(fields: Fields, path: Points) -> Climb:
    """The integrals along a path through some points.

    Args:
        fields: Drift and tensor at points.
        path: The points.

    Raises:
        InputError: Drift or noise that are no numbers on the way; noise in some directions only.
    """
    curve = _curve(path)
    length = float(np.linalg.norm(np.ptp(path, axis=0)))
    anisotropies = [1.0]

    def densities(s: Parameters) -> Float[np.ndarray, "points 3"]:
        points = curve(s)
        drift, tensor = fields(points)
        anisotropies.append(_checked_anisotropy(points, drift, tensor))
        line = points.shape[1] == 1
        spread = np.zeros_like(drift) if line else divergence(fields, points, length)
        return _densities(drift, tensor, curve(s, 1), spread)

    try:
        densities(np.array([0.0, 1.0]))
        line, action, amplitude = _integral(densities, max(_FIRST, len(path) - 1))
    except _NoNoiseError as error:
        return Climb(np.inf, 0.0, 0.0, np.inf, error.args[0])
    asymmetry = _asymmetry(fields, curve(np.linspace(0, 1, _TRIED)))
    anisotropy = max(anisotropies)
    if asymmetry <= _SYMMETRIC:
        return Climb(float(line), float(-amplitude), asymmetry, anisotropy)
    _, tensors = fields(path[[0, -1]])
    guess = -np.diff(np.linalg.slogdet(tensors)[1]).item() / path.shape[1]
    return Climb(float(action), guess, asymmetry, anisotropy)


def _curve(path: Points) -> Callable[..., Points]:
    """A smooth curve through points, as a function on [0, 1]; with 1 as well its derivative."""
    chords = np.linalg.norm(np.diff(path, axis=0), axis=1)
    distinct = path[np.append(True, chords > 0)]
    length = np.append(0.0, np.cumsum(chords[chords > 0]))
    if len(distinct) > 2:
        return CubicSpline(length / length[-1], distinct)
    step = distinct[1] - distinct[0]

    def straight(s: Parameters, order: int = 0) -> Points:
        return (
            np.broadcast_to(step, (s.size, step.size)) if order else distinct[0] + s[:, None] * step
        )

    return straight


def divergence(fields: Fields, points: Points, length: float) -> Points:
    r"""The divergence :math:`\partial_i A_{ij}` by central differences, on a way of some length.

    Norms of gradients, in the noise of some samplers, have kinks where no derivative would be.
    """
    d, distance = points.shape[1], _DIFFERENCE * length
    unit = distance * np.eye(d)
    around = np.stack([points[:, None] + unit, points[:, None] - unit])
    ahead, behind = fields(around.reshape(-1, d))[1].reshape(2, -1, d, d, d)
    return np.einsum("niij->nj", ahead - behind) / (2 * distance)


def _checked_anisotropy(
    points: Points, drift: Points, tensor: Float[np.ndarray, "points d d"]
) -> float:
    """The largest ratio of two variances; raises where there is no noise, or not in all."""
    bad = ~(np.isfinite(drift).all(axis=1) & np.isfinite(tensor).all(axis=(1, 2)))
    if bad.any():
        raise InputError(
            f"drift or noise at {points[bad][0]} is no number; expected finite ones on the way to "
            "the saddle"
        )
    least, most = np.linalg.eigvalsh(tensor)[:, [0, -1]].T
    none = most <= _NONE * most.max()
    if none.any():
        raise _NoNoiseError(points[none][0])
    thin = least <= _NONE * most
    if thin.any():
        raise InputError(
            f"the noise at {points[thin][0]} does not act in all directions; expected a covariance "
            "with an inverse: ask minimum_action_path or simulate"
        )
    return float((most / least).max())


def _densities(
    drift: Points, tensor: Float[np.ndarray, "points d d"], speed: Points, spread: Points
) -> Float[np.ndarray, "points 3"]:
    """What is integrated for the line integral, the action and the amplitude."""
    metric = np.linalg.inv(tensor)

    def product(u: Points, v: Points) -> Float[np.ndarray, " points"]:
        return np.einsum("ni,nij,nj->n", u, metric, v)

    line = -product(drift, speed)
    size = np.sqrt(product(drift, drift) * product(speed, speed))
    return np.stack([line, (size + line) / 2, product(spread, speed)], axis=1)


def _integral(
    function: Callable[[Parameters], Float[np.ndarray, "points q"]], count: int
) -> Float[np.ndarray, " q"]:
    """The integrals over (0, 1) of functions, by halving intervals."""

    def pieces(left: Parameters, size: Parameters) -> Float[np.ndarray, "intervals q"]:
        values = function((left[:, None] + size[:, None] * _RULE.nodes).ravel())
        values = values.reshape(left.size, _RULE.nodes.size, -1)
        return size[:, None] * np.einsum("n,inq->iq", _RULE.weights, values)

    left, size = np.arange(count) / count, np.full(count, 1 / count)
    whole = pieces(left, size)
    total = np.zeros(whole.shape[1])
    while left.size:
        size = np.repeat(size / 2, 2)
        left = np.stack([left, left + size[::2]], axis=1).ravel()
        parts = pieces(left, size)
        both = parts.reshape(-1, 2, total.size).sum(axis=1)
        error = np.abs(whole - both).max(axis=1)
        largest = np.maximum(1.0, np.abs(both).max(axis=1))
        fine = (error <= _TOLERANCE * largest) | (size[::2] <= _NARROWEST)
        if (~fine).sum() > _MANY:
            fine[:] = True
        total += both[fine].sum(axis=0)
        left, size, whole = (x[np.repeat(~fine, 2)] for x in (left, size, parts))
    return total


def _asymmetry(fields: Fields, points: Points) -> float:
    """The antisymmetric part of the Jacobian at points and beside them, relative to its size."""
    d = points.shape[1]
    if d == 1:
        return 0.0
    length = np.linalg.norm(np.ptp(points, axis=0))
    shifts = np.random.default_rng(0).normal(size=points.shape)
    tried = np.concatenate([points, points + _BESIDE * length / np.sqrt(d) * shifts])
    unit = _DIFFERENCE * length * np.eye(d)
    around = np.stack([tried[:, None] + unit, tried[:, None] - unit])
    drift, tensor = fields(around.reshape(-1, d))
    with np.errstate(all="ignore"):  # beside the path there may be the end of the domain
        singular = ~(np.abs(np.linalg.det(tensor)) > 0)
        tensor = np.where(singular[:, None, None], np.nan, tensor)
        uphill = np.linalg.solve(tensor, drift[..., None]).reshape(around.shape)
        jacobian = uphill[0] - uphill[1]
        found = np.linalg.norm(jacobian - np.swapaxes(jacobian, 1, 2), axis=(1, 2))
        found = found / np.linalg.norm(jacobian, axis=(1, 2))
    return float(np.max(found[np.isfinite(found)], initial=0.0))
