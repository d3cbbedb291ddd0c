r"""The mean exit time of a diffusion on a line, as an integral."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logsumexp

from thalweg.diffusion import Diffusion
from thalweg.errors import InputError
from thalweg.escape.evaluation import at_points
from thalweg.markov.fields import gauss_legendre, values_at
from thalweg.markov.grid import BOUNDARIES

# Gauss points of a panel, and panels on each side of the start to begin with.
_NODES, _FIRST = 10, 32
# A panel is halved until its halves change the potential by less than this, and the integral of
# 1/D by less than this share.
_TOLERANCE = 1e-12
# The most that the potential may change over a panel that counts.
_CHANGE = 2.0
# What is below the largest contribution by this exponent is lost in rounding: e^-50 = 2e-22.
_NEGLIGIBLE = 50.0
# Towards an infinite end one goes until the density has fallen by this exponent, at most so many
# doublings of the distance.
_FAR, _DOUBLINGS = 60.0, 100
# Panels narrower than this share of where they are hold no points.
_NARROWEST = 1e-14
_MOST = 2**17
# So many panels that are not resolved are kinks everywhere, as of gradient norms of many samples:
# each is small, and the error says what they add up to.
_MANY = 256
# A result that differs by more from that on wider panels is none.
_WRONG = 1e-3
_RULE = gauss_legendre(_NODES)

# From points to drift and noise.
Evaluate = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class LineExit:
    """The mean exit time from an interval.

    Attributes:
        time: In units of time; infinite beyond 1e308.
        log_time: Its natural logarithm, whatever its size.
        steps: Time over the step of the diffusion.
        error: Of ``log_time``, which is the relative error of the time: the difference to the
            result on panels twice as wide.
        points: Where drift and noise were evaluated, in number.
    """

    time: float
    log_time: float
    steps: float
    error: float
    points: int


class _Panels(NamedTuple):
    r"""Intervals side by side with what is known at their Gauss points.

    Attributes:
        left: Their left ends.
        width: Their widths.
        slope: :math:`\Phi' = -b/D`.
        log_noise: :math:`\log D`.
    """

    left: Float[np.ndarray, " panels"]
    width: Float[np.ndarray, " panels"]
    slope: Float[np.ndarray, "panels nodes"]
    log_noise: Float[np.ndarray, "panels nodes"]

    @property
    def change(self) -> Float[np.ndarray, " panels"]:
        r"""What :math:`\Phi` changes by."""
        return self.width * (self.slope @ _RULE.weights)

    @property
    def variation(self) -> Float[np.ndarray, " panels"]:
        r"""What :math:`\Phi` goes up and down by."""
        return self.width * (np.abs(self.slope) @ _RULE.weights)

    @property
    def slowness(self) -> Float[np.ndarray, " panels"]:
        """The integral of 1/D."""
        return self.width * (np.exp(-self.log_noise) @ _RULE.weights)

    def potential(self, zero: int = 0) -> Float[np.ndarray, "panels nodes"]:
        r""":math:`\Phi` at the Gauss points, zero at the left end of one panel.

        Summed from there to both sides, so that high walls far away cost no digits.
        """
        below, above = self.change[:zero], self.change[zero:]
        before = np.concatenate([-np.cumsum(below[::-1])[::-1], [0.0], np.cumsum(above)[:-1]])
        return before[:, None] + self.width[:, None] * (self.slope @ _UP_TO.T)

    def pick(self, which: Any) -> "_Panels":
        """Some of them."""
        return _Panels(*(part[which] for part in self))


def exit_time_on_line(
    diffusion: Diffusion,
    start: float,
    lower: float,
    upper: float,
    *,
    boundary: Any = "absorbing",
) -> LineExit:
    r"""The mean time until a diffusion on a line leaves an interval, exact but for quadrature.

    With the drift b, :math:`D = \Sigma/2` and :math:`\Phi' = -b/D`, from :math:`x_0` to the upper
    end when the lower one reflects or is infinite,

    .. math:: \tau = \int_{x_0}^{u} dy\, e^{\Phi(y)} \int_{l}^{y} dz\, \frac{e^{-\Phi(z)}}{D(z)}
                   = \int_l^u dz\, \frac{e^{-\Phi(z)}}{D(z)} \int_{\max(z, x_0)}^{u} e^{\Phi},

    the solution of :math:`b \tau' + D \tau'' = -1`. When both ends are left through, with
    :math:`S(a, b) = \int_a^b e^\Phi`, the inner integral is
    :math:`S(l, \min(z, x_0))\, S(\max(z, x_0), u) / S(l, u)`. All terms are positive and are summed
    by their logarithms, so that barriers of a thousand in the exponent neither overflow nor lose
    digits.

    Kinks and jumps of drift or noise are found by halving. A well narrower than 1/32 of the way
    from the start to an end may be missed.

    Args:
        diffusion: Drift and noise, params of shape (1,); Ito's reading.
        start: :math:`x_0`.
        lower: The lower end l; ``-math.inf`` if there is none. Then the drift has to confine the
            process; it is followed until its density has fallen by e^-60, and wells that lie beyond
            that are not seen.
        upper: The upper end u, likewise.
        boundary: "absorbing" (the ends are left through) or "reflecting", for both or a pair. It
            says nothing of an infinite end.

    Raises:
        InputError: Ends out of order; no end to leave through; a drift that does not confine; noise
            that vanishes or varies in time; drift or noise that is no number.

    Cost: ten points of drift and noise a panel, some 3 panels for each unit that the potential
    changes by where it counts: a second for exponents of thousands.

    Source: C. W. Gardiner, Stochastic Methods (2009), section 5.5.2.
    """
    sides = _checked(diffusion, start, lower, upper, boundary)
    evaluate = at_points(values_at, diffusion, np.array([start]))
    below, above = _way(evaluate, start, lower)[::-1], _way(evaluate, start, upper)
    edges = np.concatenate([below, above[1:]])
    panels = _refined(evaluate, _sampled(evaluate, edges[:-1], edges[1:]), start, sides)
    finer = _halved(evaluate, panels)
    coarse, log_time = (_log_time(each, start, sides) for each in (panels, finer))
    if not abs(log_time - coarse) < _WRONG:
        raise _unresolved(finer)
    time = math.exp(log_time) if log_time < math.log(np.finfo(float).max) else math.inf
    return LineExit(
        time=time,
        log_time=log_time,
        steps=time / float(diffusion.step),
        error=abs(log_time - coarse),
        points=finer.slope.size,
    )


def _checked(
    diffusion: Diffusion, start: float, lower: float, upper: float, boundary: Any
) -> tuple[bool, bool]:
    """Whether the lower and the upper end are left through."""
    if not (math.isfinite(start) and lower < start < upper):
        raise InputError(
            f"start is {start} and the ends are {lower} and {upper}; expected a finite start "
            "between them"
        )
    if not isinstance(diffusion, Diffusion):
        raise InputError(
            f"a {type(diffusion).__name__} is no Ito equation; expected a Diffusion, such as the "
            "diffusion_limit of a descent"
        )
    if diffusion.varies:
        raise InputError("the noise varies in time and so do mean times; give diffusion.at(time)")
    pair = (boundary, boundary) if isinstance(boundary, str) else tuple(boundary)
    if len(pair) != 2 or any(side not in BOUNDARIES for side in pair):
        raise InputError(
            f"boundary is {boundary!r}; expected 'absorbing', 'reflecting', or a pair of them"
        )
    sides = tuple(
        side == "absorbing" and math.isfinite(end)
        for side, end in zip(pair, (lower, upper), strict=True)
    )
    if not any(sides):
        raise InputError(
            f"the ends {lower} and {upper} with the boundary {boundary!r} cannot be left through; "
            "expected a finite absorbing one"
        )
    return sides[0], sides[1]


def _way(evaluate: Evaluate, start: float, end: float) -> Float[np.ndarray, " edges"]:
    """Edges of panels from the start to an end, or as far towards infinity as it counts."""
    if math.isfinite(end):
        return np.linspace(start, end, _FIRST + 1)
    sign = math.copysign(1.0, end)
    edges, level, lowest = [np.array([start])], 0.0, math.inf
    for reach in (1.0 + abs(start)) * 2.0 ** np.arange(-10, _DOUBLINGS):
        piece = np.linspace(edges[-1][-1], start + sign * reach, _FIRST // 4 + 1)
        panels = _sampled(evaluate, piece[:-1], piece[1:], sign)
        # Minus the logarithm of the mass of a panel.
        height = level + panels.potential() + panels.log_noise - np.log(panels.width)[:, None]
        level, lowest = level + float(panels.change.sum()), min(lowest, float(height.min()))
        edges.append(piece[1:])
        if height[-1, -1] > max(lowest + _FAR, height[0, 0]):
            return np.concatenate(edges)
    raise InputError(
        f"the drift does not confine the process towards {end}: its density falls by "
        f"{max(float(height[-1, -1]) - lowest, 0.0):.3g} in the exponent up to {piece[-1]:.3g}; "
        "give a finite end"
    )


def _sampled(
    evaluate: Evaluate,
    left: Float[np.ndarray, " panels"],
    right: Float[np.ndarray, " panels"],
    sign: float = 1.0,
) -> _Panels:
    """Panels with their values; with ``sign`` -1 the potential is that of the way back."""
    width = right - left
    points = left[:, None] + width[:, None] * _RULE.nodes
    width = np.abs(width)
    drift, tensor = evaluate(points.reshape(-1, 1))
    drift, noise = drift.reshape(points.shape), tensor.reshape(points.shape)
    bad = ~(np.isfinite(drift) & (noise > 0) & np.isfinite(noise))
    if bad.any():
        raise InputError(
            f"at x = {points[bad][0]:.6g} the drift is {drift[bad][0]:g} and the variance "
            f"{2 * noise[bad][0]:g}; expected a finite drift and noise that does not vanish (the "
            "process cannot pass where it does)"
        )
    return _Panels(left, width, -sign * drift / noise, np.log(noise))


def _halved(evaluate: Evaluate, panels: _Panels) -> _Panels:
    """Two panels for each, in order."""
    edges = np.stack([panels.left, panels.left + panels.width / 2], axis=1).ravel()
    widths = np.repeat(panels.width / 2, 2)
    return _sampled(evaluate, edges, edges + widths)


def _refined(
    evaluate: Evaluate, panels: _Panels, start: float, sides: tuple[bool, bool]
) -> _Panels:
    """Panels halved until drift and noise are resolved, and the potential where it counts."""
    settled = np.zeros(panels.left.size, bool)
    while True:
        counts = _counts(panels, start, sides)
        split = ~settled | (counts & (panels.variation > _CHANGE))
        narrow = panels.width <= _NARROWEST * np.maximum(np.abs(panels.left), np.ptp(panels.left))
        if (split & narrow & counts & (panels.variation > _CHANGE)).any() or split.size > _MOST:
            raise _unresolved(panels)
        split &= ~narrow
        if not split.any():
            return panels
        parents, halves = panels.pick(split), _halved(evaluate, panels.pick(split))
        done = np.repeat(_agree(parents, halves, counts[split]), 2)
        order = np.argsort(np.concatenate([panels.left[~split], halves.left]), kind="stable")
        settled = np.concatenate([settled[~split], done])[order]
        if (~settled).sum() > _MANY:
            settled[:] = True
        joined = zip(panels.pick(~split), halves, strict=True)
        panels = _Panels(*(np.concatenate(pair)[order] for pair in joined))


def _unresolved(panels: _Panels) -> InputError:
    worst = np.unravel_index(np.argmin(panels.log_noise), panels.log_noise.shape)[0]
    return InputError(
        f"{panels.left.size} panels do not resolve drift and noise; the noise is least, "
        f"{2 * math.exp(panels.log_noise.min()):.3g}, at x = {panels.left[worst]:.6g}; expected "
        "noise that does not vanish between the ends, and less of a barrier"
    )


def _agree(
    parents: _Panels, halves: _Panels, counts: Bool[np.ndarray, " panels"]
) -> Bool[np.ndarray, " panels"]:
    """Whether panels integrate as their halves do."""

    def gap(name: str) -> tuple[np.ndarray, np.ndarray]:
        both = getattr(halves, name).reshape(-1, 2).sum(axis=1)
        return np.abs(getattr(parents, name) - both), both

    rise, slow = gap("change")[0], gap("slowness")
    smooth = rise <= _TOLERANCE * np.maximum(1.0, parents.variation)
    return smooth & (~counts | (slow[0] <= _TOLERANCE * slow[1]))


def _counts(panels: _Panels, start: float, sides: tuple[bool, bool]) -> Bool[np.ndarray, " panels"]:
    """Which panels contribute: as places where time is spent, or as places to be climbed."""
    right = panels.left >= start
    potential = panels.potential(int(right.argmax()))
    high, low = potential.max(axis=1), (potential + panels.log_noise).min(axis=1)
    # The Gauss points do not reach the ends of a panel.
    high, low = high + panels.variation, low - panels.variation
    none = np.zeros_like(high)
    up = np.maximum.accumulate(np.where(right, -np.inf, high)) if sides[0] else none
    down = np.maximum.accumulate(np.where(right, high, -np.inf)[::-1])[::-1] if sides[1] else none
    spent = up + down - low
    stays = spent >= spent.max() - _NEGLIGIBLE
    climbed = np.zeros_like(stays)
    if sides[0]:
        needed = np.minimum.accumulate(np.where(stays, up, np.inf)[::-1])[::-1]
        climbed |= ~right & (high >= needed - _NEGLIGIBLE)
    if sides[1]:
        needed = np.minimum.accumulate(np.where(stays, down, np.inf))
        climbed |= right & (high >= needed - _NEGLIGIBLE)
    if all(sides):
        climbed |= high >= high.max() - _NEGLIGIBLE
    return stays | climbed


def _log_time(panels: _Panels, start: float, sides: tuple[bool, bool]) -> float:
    """The logarithm of the integral."""
    right = panels.left >= start
    potential = panels.potential(int(right.argmax()))
    log_weights = np.log(panels.width[:, None] * _RULE.weights)
    spent = log_weights - potential - panels.log_noise
    climb = _cumulative(potential, panels.width, _UP_TO, log_weights)
    back = _cumulative(potential[::-1], panels.width[::-1], _FROM, log_weights[::-1])[::-1]
    inner = np.zeros_like(potential)
    if sides[0]:
        whole = logsumexp((potential + log_weights)[~right])
        inner = inner + np.where(right[:, None], whole, climb)
    if sides[1]:
        whole = logsumexp((potential + log_weights)[right])
        inner = inner + np.where(right[:, None], back, whole)
    if all(sides):
        inner = inner - logsumexp(potential + log_weights)
    return float(logsumexp(spent + inner))


def _cumulative(
    potential: Float[np.ndarray, "panels nodes"],
    width: Float[np.ndarray, " panels"],
    matrix: Float[np.ndarray, "nodes nodes"],
    log_weights: Float[np.ndarray, "panels nodes"],
) -> Float[np.ndarray, "panels nodes"]:
    r"""The logarithm of the integral of :math:`e^\Phi` up to each Gauss point."""
    top = potential.max(axis=1, keepdims=True)
    # A panel that is not resolved, because nothing there counts, may have parts below zero.
    parts = np.maximum(width[:, None] * (np.exp(potential - top) @ matrix.T), 0.0)
    sums = np.logaddexp.accumulate(logsumexp(potential + log_weights, axis=1))
    before = np.concatenate([[-np.inf], sums[:-1]])
    with np.errstate(divide="ignore"):
        return np.logaddexp(before[:, None], top + np.log(parts))


def _integration_matrix() -> Float[np.ndarray, "nodes nodes"]:
    """Row i integrates the polynomial through the Gauss points from 0 to node i."""
    x = 2 * _RULE.nodes - 1
    degrees = np.arange(_NODES)
    # Legendre's polynomials diagonalise the interpolation: P_k has coefficient (2k + 1) sum w P_k.
    basis = np.polynomial.legendre.legvander(x, _NODES)
    transform = (2 * degrees[:, None] + 1) * (basis[:, :_NODES] * _RULE.weights[:, None]).T
    # The integral of P_k from -1 to x is (P_{k+1} - P_{k-1}) / (2k + 1), and x + 1 for k = 0.
    integrals = np.empty((_NODES, _NODES))
    integrals[:, 0] = x + 1
    integrals[:, 1:] = (basis[:, 2:] - basis[:, : _NODES - 1]) / (2 * degrees[1:] + 1)
    return integrals @ transform / 2


_UP_TO = _integration_matrix()
_FROM = _UP_TO[::-1, ::-1]
