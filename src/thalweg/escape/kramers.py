r"""The law of Eyring and Kramers: how long a minimum is kept when the noise is low."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.diffusion import Diffusion
from thalweg.dynamics import AbstractDynamics, Descent
from thalweg.errors import InputError
from thalweg.escape.anharmonic import LARGEST, flow_correction, mass_correction
from thalweg.escape.climb import Climb, Fields, climb, divergence
from thalweg.escape.evaluation import at_points
from thalweg.escape.laplace import log_mass, slopes_of
from thalweg.escape.rate import Rate, judged, never
from thalweg.limit import diffusion_limit
from thalweg.markov.fields import values_at
from thalweg.noise import checked_number

# An eigenvalue below this share of the largest is none.
_DEGENERATE = 1e-9
# A point is critical if Newton's step from it is at most this share of the way to the other.
_NEAR = 1e-3
# Where the two sides of a kink are looked at, as a share of that way.
_BESIDE = 1e-7


def kramers_law(
    minimum: Any, saddle: Any, *, temperature: float, step: float | None = None
) -> Rate:
    r"""The law of Eyring and Kramers for constant isotropic noise of covariance 2T per unit time.

    .. math:: \tau = \frac{2 \pi}{\lambda_*} \sqrt{\frac{|\det H_*|}{\det H_1}}\,
              e^{(f_* - f_1)/T}

    with the only negative eigenvalue :math:`-\lambda_*` at the saddle: the mean time to the *other*
    minimum; to the saddle, from where half of the paths come back, it is half. The relative error
    is of the order of T (3T/2 for :math:`(x^2-1)^2/4`). At a kink on a line
    :math:`\sqrt{2 \pi T/|h|}` becomes :math:`T (1/|s_-| + 1/|s_+|)` with the slopes on both sides,
    at the minimum and at the top alike.

    Leave through several saddles by :func:`in_parallel`; between several minima by
    :func:`jump_process`. :func:`eyring_kramers` takes the noise from a dynamics, and has the next
    order.

    Args:
        minimum: A :class:`thalweg.CriticalPoint`: its ``value`` and ``eigenvalues``, or ``slopes``
            (left, right) and ``params`` where it is a kink on a line.
        saddle: Likewise, with one negative eigenvalue.
        temperature: T, in units of f; 0 for an infinite time.
        step: :math:`\eta`, for the number of steps.

    Raises:
        InputError: Points of another index, a saddle below the minimum, numbers out of range.

    Source: H. Eyring (1935); H. A. Kramers, Physica 7 (1940); A. Bovier, M. Eckhoff, V. Gayrard
    and M. Klein, J. Eur. Math. Soc. 6 (2004); Dai and Zhu, theorem 2.2.
    """
    T = float(checked_number("temperature", temperature, "at least 0"))
    size = None if step is None else float(checked_number("step", step, "above 0"))
    height = float(saddle.value) - float(minimum.value)
    conductance = log_conductance(saddle, T or 1.0)
    mass = log_mass(minimum, T or 1.0)
    if not height > 0:
        raise InputError(
            f"the saddle is at {saddle.value:g} and the minimum at {minimum.value:g}; expected "
            "the saddle to be higher"
        )
    if T == 0:
        return never("the temperature is 0: without noise a minimum is kept for ever", size)
    log_time = height / T + mass - conductance
    return judged(log_time, height / T, _share(minimum, saddle), size, _flat(minimum, saddle))


def eyring_kramers(
    dynamics: AbstractDynamics, minimum: Any, saddle: Any, *, path: Any = None
) -> Rate:
    r"""The law of Eyring and Kramers for the noise of a dynamics, which may depend on the place.

    With the drift b, :math:`A = \Sigma/2`, the amplitude z of the stationary density
    :math:`z\,e^{-V}` and the only positive eigenvalue :math:`\lambda_*` of the Jacobian Db at the
    saddle

    .. math:: \tau = \frac{2 \pi}{\lambda_*} \frac{z_1}{z_*}
        \sqrt{\frac{|\det A_*^{-1} Db_*|}{|\det A_1^{-1} Db_1|}}\, e^{V_* - V_1}, \qquad
        V_* - V_1 = -\int A^{-1} b \cdot d\theta, \qquad
        \log \frac{z_1}{z_*} = \int A^{-1} (\nabla \cdot A) \cdot d\theta

    along the path. For :math:`\Sigma = \eta\,c(\theta) I` and :math:`b = -\nabla f` this is

    .. math:: \tau = \frac{2 \pi}{\lambda_*} \Big(\frac{c_*}{c_1}\Big)^{1 - d/2}
        \sqrt{\frac{|\det H_*|}{\det H_1}}\, \exp \int \frac{2\,df}{\eta\,c}

    with the factor :math:`\sqrt{c_*/c_1}` on a line and none in the plane. It presumes detailed
    balance, that is, :math:`A^{-1} b` is a gradient: always on a line, for constant isotropic
    noise, and where :math:`\nabla c` is parallel to :math:`\nabla f`. Tried on the path and beside
    it; elsewhere the result is not valid, its exponent is the action along the path, at least that
    of the path of least action, and its prefactor is a guess. Kinks at the ends, on a line, are
    allowed where the points have ``slopes``.

    On a line :func:`exit_time_on_line` has the mean time without asymptotics. Of SGD this is the
    diffusion limit, whose exponent is wrong at steps that are not small.

    Args:
        dynamics: A :class:`thalweg.Diffusion`, or a :class:`thalweg.Descent` for its diffusion
            limit.
        minimum: Where from: params of shape (d,), or what has them, as a
            :class:`thalweg.CriticalPoint` does.
        saddle: Likewise.
        path: The minimum energy path between them, or on beyond the saddle, shape (images, d);
            a straight line unless given, which will do with detailed balance.

    Raises:
        InputError: Points that are not critical, or of another index; noise that does not act in
            all directions, or varies in time; a path elsewhere; a dynamics without a diffusion
            limit.

    Cost: drift and noise at some hundred points of the path and 2 d around each and, up to 64
    parameters, around 4 d^2 points at both ends. A second to compile for SGD.

    Source: as :func:`kramers_law`; for :math:`\Sigma(\theta)` derived from F. Bouchet and J.
    Reygner, Annales Henri Poincare 17 (2016), with the Ito drift; Dai and Zhu, theorem 2.2, for a
    constant c.
    """
    diffusion = _steady(dynamics)
    ends = _ends(minimum, saddle)
    fields = at_points(values_at, diffusion, ends[0])
    way = climb(fields, _cut(ends, path))
    step = float(diffusion.step)
    if way.without_noise is not None:
        reason = (
            f"there is no noise at {way.without_noise}: a diffusion does not reach the saddle (SGD "
            "may leave a minimum without noise, where its step is beyond the linear stability)"
        )
        return never(reason, step)
    kinked = [slopes_of(point) is not None for point in (minimum, saddle)]
    gap = float(np.linalg.norm(ends[1] - ends[0]))
    bottom, top = (
        (_beside if kink else _at)(diffusion, end, index, gap, way)
        for index, (end, kink) in enumerate(zip(ends, kinked, strict=True))
    )
    log_time = way.exponent + bottom.log_size + top.log_size
    correction = None
    doubts = [bottom.doubt, top.doubt, _imbalance(way)]
    if not any(doubts) and not any(kinked) and ends.shape[1] <= LARGEST:
        correction = _correction(diffusion, fields, ends)
    share = top.share if ends[0, 0] < ends[1, 0] else 1 - top.share
    return judged(log_time, way.exponent, share, step, *doubts, correction=correction)


def log_conductance(saddle: Any, temperature: float) -> float:
    r"""The logarithm of the rate through a saddle where :math:`e^{-(f - f_*)/T}` is the law.

    The flow from side to side is :math:`\frac{\lambda_*}{2 \pi} (2 \pi T)^{d/2} |\det
    H_*|^{-1/2}`.

    Raises:
        InputError: The point is no saddle.
    """
    slopes = slopes_of(saddle)
    if slopes is not None:
        if not slopes[0] > 0 > slopes[1]:
            raise InputError(
                f"the point has the slopes {slopes[0]:g} and {slopes[1]:g}; expected a top, where "
                "f rises and falls again"
            )
        return -math.log(1 / slopes[0] - 1 / slopes[1])
    curvatures = np.asarray(saddle.eigenvalues)
    if int((curvatures < 0).sum()) != 1:
        raise InputError(
            f"the saddle has {int((curvatures < 0).sum())} negative eigenvalues of the Hessian; "
            "expected one: a minimum has none"
        )
    gauss = 0.5 * np.log(2 * math.pi * temperature / np.abs(curvatures)).sum()
    return float(math.log(-curvatures.min() / (2 * math.pi)) + gauss)


class _Local(NamedTuple):
    """What an end of the path contributes.

    Attributes:
        log_size: To the logarithm of the time.
        share: At the top, the part of its integral on the lower side of the line.
        doubt: Why not to believe it, else empty.
    """

    log_size: float
    share: float
    doubt: str


def _at(diffusion: Diffusion, theta: np.ndarray, index: int, gap: float, way: Climb) -> _Local:
    """A smooth end: the minimum has the index 0, the saddle 1."""
    drift, tensor, jacobian = (np.asarray(x) for x in _linear(diffusion, jnp.asarray(theta)))
    values = np.linalg.eigvals(jacobian)
    name = ("minimum", "saddle")[index]
    doubt = _flatness(values, name)
    off = 0.0 if doubt else float(np.linalg.norm(np.linalg.solve(jacobian, drift)))
    if off > _NEAR * gap:
        raise InputError(
            f"the {name} at {theta} has the drift {drift}; expected a critical point (a kink needs "
            "slopes, see kramers_law)"
        )
    if int((values.real > 0).sum()) != index:
        raise InputError(
            f"the {name} at {theta} has {int((values.real > 0).sum())} unstable directions; "
            f"expected {index}"
        )
    d = theta.size
    # That of a degenerate point is not believed, and need only be a number.
    sizes = np.maximum(np.abs(values), _DEGENERATE * np.abs(values).max())
    half = 0.5 * (np.log(sizes).sum() - np.linalg.slogdet(tensor)[1])
    # On a line the amplitude of the density is 1/D, also where D jumps.
    density = -math.log(tensor[0, 0]) if d == 1 else index * way.log_density
    log_mass = 0.5 * d * math.log(2 * math.pi) - half + density
    if index == 0:
        return _Local(log_mass, 0.5, doubt)
    return _Local(math.log(2 * math.pi / values.real.max()) - log_mass, 0.5, doubt)


def _beside(diffusion: Diffusion, theta: np.ndarray, index: int, gap: float, way: Climb) -> _Local:
    """A kink on a line."""
    sides = [theta - _BESIDE * gap, theta + _BESIDE * gap]
    found = [_linear(diffusion, jnp.asarray(side)) for side in sides]
    forces = [float(drift[0]) for drift, _, _ in found]
    outwards = forces[0] < 0 < forces[1]
    if not (outwards if index else forces[0] > 0 > forces[1]):
        raise InputError(
            f"the drift is {forces[0]:g} to the left of {theta[0]:g} and {forces[1]:g} to the "
            f"right; expected {'a top, away from it' if index else 'a minimum, towards it'}"
        )
    noise = [float(tensor[0, 0]) if index else 1.0 for _, tensor, _ in found]
    sizes = [D / abs(b) for D, b in zip(noise, forces, strict=True)]
    return _Local(math.log(sum(sizes)), sizes[0] / sum(sizes), "")


@eqx.filter_jit
def _linear(diffusion: Diffusion, theta: Float[Array, " d"]) -> tuple[Array, Array, Array]:
    """Drift, tensor and the drift's Jacobian."""
    drift, tensor = values_at(diffusion, theta)
    return drift, tensor, jax.jacfwd(lambda x: values_at(diffusion, x)[0])(theta)


def _correction(diffusion: Diffusion, fields: Fields, ends: Float[np.ndarray, "2 d"]) -> float:
    """The next order of the mass of the minimum, less that of the flow over the saddle."""
    length = float(np.linalg.norm(ends[1] - ends[0]))

    def slopes(points: Float[np.ndarray, "points d"]) -> tuple[np.ndarray, np.ndarray]:
        drift, tensor = fields(points)
        spread = divergence(fields, points, length)
        both = -np.linalg.solve(tensor, np.stack([drift, spread], axis=-1))
        return both[..., 0], both[..., 1]

    def at(theta: Float[np.ndarray, " d"]) -> tuple[np.ndarray, np.ndarray]:
        _, tensor, jacobian = (np.asarray(x) for x in _linear(diffusion, jnp.asarray(theta)))
        H = -np.linalg.solve(tensor, jacobian)
        return (H + H.T) / 2, tensor

    (H, _), saddle = at(ends[0]), at(ends[1])
    return mass_correction(slopes, ends[0], H) - flow_correction(slopes, ends[1], *saddle)


def _steady(dynamics: AbstractDynamics) -> Diffusion:
    """The equation whose rates are asked for."""
    diffusion = diffusion_limit(dynamics) if isinstance(dynamics, Descent) else dynamics
    if not isinstance(diffusion, Diffusion):
        raise InputError(
            f"a {type(dynamics).__name__} has no rates; expected a Diffusion or a Descent"
        )
    if diffusion.varies:
        raise InputError("the noise varies in time and so do rates; give diffusion.at(time)")
    return diffusion


def _ends(minimum: Any, saddle: Any) -> Float[np.ndarray, "2 d"]:
    places = [np.asarray(getattr(point, "params", point), float) for point in (minimum, saddle)]
    if places[0].ndim != 1 or places[0].shape != places[1].shape:
        raise InputError(
            f"minimum and saddle have the shapes {places[0].shape} and {places[1].shape}; "
            "expected params of shape (d,)"
        )
    if not np.isfinite(places).all() or (places[0] == places[1]).all():
        raise InputError(
            f"minimum {places[0]} and saddle {places[1]}; expected two finite points apart"
        )
    return np.stack(places)


def _cut(ends: Float[np.ndarray, "2 d"], path: Any) -> Float[np.ndarray, "points d"]:
    """The path from the minimum to the saddle, without what is beyond."""
    if path is None:
        return ends
    images = np.asarray(path, float)
    if images.ndim != 2 or images.shape[1:] != ends.shape[1:] or not np.isfinite(images).all():
        raise InputError(
            f"path has the shape {images.shape}; expected finite points, shape (images, "
            f"{ends.shape[1]})"
        )
    far = np.linalg.norm(images[:, None] - ends, axis=2)
    last, gap = int(far[:, 1].argmin()), np.linalg.norm(ends[1] - ends[0])
    spacing = np.linalg.norm(np.diff(images, axis=0), axis=1).max(initial=0.0)
    if far[0, 0] > _NEAR * gap or far[last, 1] > spacing + _NEAR * gap:
        raise InputError(
            f"the path begins at {images[0]} and comes to {images[last]} at the nearest; expected "
            f"one from the minimum {ends[0]} to the saddle {ends[1]}"
        )
    inner = images[1:last]
    # An image at the saddle, or as near as its neighbours are, would fold the curve.
    inner = inner[np.linalg.norm(inner - ends[1], axis=1) > 0.5 * far[last, 1] + _NEAR * spacing]
    return np.concatenate([ends[:1], inner, ends[1:]])


def _share(minimum: Any, saddle: Any) -> float:
    """The part of the integral over the top that lies before it: half, unless it is a kink."""
    slopes = slopes_of(saddle)
    if slopes is None:
        return 0.5
    lower = 1 / slopes[0] / (1 / slopes[0] - 1 / slopes[1])
    places = (float(np.asarray(point.params)[0]) for point in (minimum, saddle))
    return lower if next(places) < next(places) else 1 - lower


def _flat(minimum: Any, saddle: Any) -> str:
    points = {"minimum": minimum, "saddle": saddle}
    doubts = (
        _flatness(np.asarray(point.eigenvalues), name)
        for name, point in points.items()
        if slopes_of(point) is None
    )
    return next(filter(None, doubts), "")


def _flatness(values: np.ndarray, name: str) -> str:
    sizes = np.abs(values)
    if sizes.min() > _DEGENERATE * sizes.max():
        return ""
    return f"the {name} is degenerate, with an eigenvalue of {sizes.min():.2g}: it has no Gaussian"


def _imbalance(way: Climb) -> str:
    if way.balanced:
        return ""
    return (
        f"there is no detailed balance: the noise is not isotropic (variances differ by a factor "
        f"{way.anisotropy:.3g}) or varies across the path, and the field 2 Sigma^-1 b has an "
        f"antisymmetric part of {100 * way.asymmetry:.2g} %; the exponent is the action along the "
        "path given, an upper bound, and the prefactor a guess: ask minimum_action_path, the grid "
        "or a simulation"
    )
