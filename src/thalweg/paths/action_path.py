"""The path of least action between two points, for any noise: how a dynamics leaves a minimum."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg.diffusion import Diffusion
from thalweg.dynamics import AbstractDynamics, Descent
from thalweg.errors import InputError
from thalweg.paths.climbs import Climb
from thalweg.paths.curves import checked_ends, lengths
from thalweg.paths.fields import Field, Point, Rest
from thalweg.paths.flow_lines import FlowLine
from thalweg.paths.hamiltonian import hamiltonian
from thalweg.paths.parts import joined

_FEWEST = 9
# How far a given start may be from the point of rest it names, as a share of the distance of ends.
_GIVEN = 1e-2
# The same for the end, which need not be one.
_GIVEN_END = 1e-5

Points = Float[np.ndarray, "images d"]


@dataclass(frozen=True, eq=False)
class ActionPath:
    r"""A path of least action.

    Attributes:
        points: From the start to the end.
        arc: The length of the path up to each point.
        momenta: p at each point, :math:`\nabla V` where V is smooth; zero where the path goes with
            the drift.
        spent: The action up to each point.
        action: The action V of the whole path, a number without unit: mean times of exit are
            :math:`e^V` up to factors that are not exponential.
        error: How far it is from that of half as many images: some fifteen times its error where
            all is smooth.
        rests: The points where the drift vanishes, in the order in which the path passes them, its
            ends among them if they are such.
    """

    points: Points
    arc: Float[np.ndarray, " images"]
    momenta: Points
    spent: Float[np.ndarray, " images"]
    action: float
    error: float
    rests: tuple[Point, ...]


def minimum_action_path(
    dynamics: AbstractDynamics, a: Any, b: Any, *, images: int = 64
) -> ActionPath:
    r"""The path on which a dynamics goes from a to b most probably, as its noise becomes small.

    It minimises the geometric action

    .. math:: S[\varphi] = \int_0^1 \max\{p \cdot \varphi' : H(\varphi, p) \le 0\}\,d\alpha, \qquad
              \varphi(0) = a,\ \varphi(1) = b,

    with the Hamiltonian of :func:`thalweg.paths.hamiltonian`: of a :class:`thalweg.Diffusion`,
    whose noise may depend on where it is, or of SGD itself (:class:`thalweg.Descent`), whose draws
    are taken as they are. With :math:`b = -\nabla f` and :math:`\Sigma = c I` the path is one of
    minimum energy and :math:`V = 2 (f(b) - f(a))/c` for a saddle b; for the limit of SGD with
    isotropic noise c is :math:`\eta` times the variance, and :math:`V = (f(b) - f(a))/T`.

    **Choosing b.** A saddle: V is the exponent of the time to leave the basin over it. Another
    minimum: the path climbs to a saddle, which it finds, and goes down from there with the drift,
    at no cost. Any other point of the basin: V is the quasi-potential there, and
    :math:`e^{-V}` the stationary density near a. As with any path found by descent there may be
    others; what is found is near the straight line.

    From a straight line, bent a little, Newton's method for all images at once leads to the
    discrete minimum (:mod:`thalweg.paths.relaxation`). Where the noise depends on the place,
    Gaussian noise is added at first and taken away step by step: so places of strong noise are
    found, and ways around those where no draw of the gradient has the direction needed. Points of
    rest on the way are found by Newton's method; between them the path is found anew, or followed
    down along the drift. The action is that of the cubic spline through the images: of fourth order
    in their distance where path and coefficients are smooth.

    Where the drift turns around a, the path does so without end. Up to its first image the action
    is then that of the linear dynamics, :math:`\tfrac12 x^\top S^{-1} x` with Lyapunov's S.

    Args:
        dynamics: See :func:`thalweg.paths.hamiltonian` for what has a Hamiltonian.
        a: The stable point of rest to start from: shape (d,), or anything with ``params``. Newton's
            method adds the digits that are missing; a kink is taken as given.
        b: The end.
        images: How many points each part of the path has, from one point of rest to the next.

    Raises:
        InputError: Ends of different shapes or the same; noise that vanishes at a or somewhere on
            the path, or directions that no draw reaches, so that V is infinite; a path that did not
            come to rest; less than 9 images; 32 bits.

    Cost: some 20 to 100 Newton steps, each with third derivatives of the loss (SGD) or second ones
    of the coefficients for all images, and images x d^3 operations.

    Source: M. Heymann and E. Vanden-Eijnden, Comm. Pure Appl. Math. 61, 1052 (2008); T. Grafke, T.
    Schaefer and E. Vanden-Eijnden, Springer INdAM 2017.
    """
    if isinstance(images, bool) or not isinstance(images, int) or images < _FEWEST:
        raise InputError(f"images is {images!r}; expected a whole number, at least {_FEWEST}")
    a, b = checked_ends(a, b)
    field = field_between(dynamics, a, b)
    start = field.rest_near(a, _GIVEN * field.scale) or Rest(a, None)
    end = field.rest_near(b, _GIVEN_END * field.scale) or Rest(b, None)
    parts, knots = joined(field, start, end, images)
    return _assembled(parts, [knot.point for knot in knots if knot.unstable is not None], images)


def _assembled(parts: list[Climb | FlowLine], rests: list[Point], images: int) -> ActionPath:
    """One part after the other."""
    climbs = [part if isinstance(part, Climb) else _at_no_cost(part, images) for part in parts]
    before = np.cumsum([0.0, *(climb.spent[-1] for climb in climbs)])
    points = np.vstack([climbs[0].points[:1], *(climb.points[1:] for climb in climbs)])
    spent = [climb.spent[1:] + so_far for climb, so_far in zip(climbs, before, strict=False)]
    return ActionPath(
        points=points,
        arc=lengths(points),
        momenta=np.vstack([climbs[0].momenta[:1], *(climb.momenta[1:] for climb in climbs)]),
        spent=np.concatenate([[0.0], *spent]),
        action=float(before[-1]),
        error=sum(climb.error for climb in climbs),
        rests=tuple(rests),
    )


def _at_no_cost(line: FlowLine, images: int) -> Climb:
    points = line.spaced(images - 1)
    return Climb(points, np.zeros_like(points), np.zeros(images), 0.0)


def field_between(dynamics: AbstractDynamics, a: Point, b: Point) -> Field:
    """The dynamics with the distance of two points as its length.

    Raises:
        InputError: A dynamics that has no Hamiltonian, or cannot run from a.
    """
    if isinstance(dynamics, Descent):
        dynamics.problem.check_params(jnp.asarray(a))
    elif isinstance(dynamics, Diffusion):
        dynamics.check(jnp.asarray(a))
    return Field(hamiltonian(dynamics), float(np.linalg.norm(b - a)))
