"""The minimum energy path between two minima."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg.critical import CriticalPoint, critical_point
from thalweg.errors import InputError
from thalweg.paths.curves import bent_line, checked_ends, shown
from thalweg.paths.legs import Chart, Leg, Surface, leg_over, tops
from thalweg.paths.strings import String, string
from thalweg.problem import FiniteSum

_FEWEST = 8
# How far a given end may be from the minimum it names, as a share of the distance of the ends.
_GIVEN = 1e-2
# Strings drawn where the lines from the saddles found leave a gap.
_STRINGS = 8


@dataclass(frozen=True, eq=False)
class EnergyPath:
    r"""A minimum energy path: along it the gradient is tangent to it.

    Attributes:
        points: From the first minimum to the last; the critical points on the way are among them,
            and between these they stand at equal distances.
        arc: The length of the path up to each point.
        values: The objective there.
        saddles: Those on the way, in order, each of index 1.
        minima: The ends, and what minima lie on the way, in order: one more than saddles.
        residual: The largest component of the gradient perpendicular to the path, at the points.
            The path is on lines of the flow, so what is left is the error of the tangent, which is
            taken from three neighbours: it falls with the square of their distance.
    """

    points: Float[np.ndarray, "images d"]
    arc: Float[np.ndarray, " images"]
    values: Float[np.ndarray, " images"]
    saddles: tuple[CriticalPoint, ...]
    minima: tuple[CriticalPoint, ...]
    residual: float

    @property
    def barriers(self) -> tuple[float, float]:
        """The height of the highest saddle over the first minimum, and over the last."""
        top = max(saddle.value for saddle in self.saddles)
        return top - self.minima[0].value, top - self.minima[-1].value


def minimum_energy_path(problem: FiniteSum, a: Any, b: Any, *, images: int = 64) -> EnergyPath:
    r"""A path of least height from one minimum to another: :math:`\nabla f` is tangent to it.

    From near the straight line the string method (:mod:`thalweg.paths.strings`) lets a curve down
    into the valleys. From its tops Newton's method goes to the saddles, up in the direction of
    least curvature and down in all others, and from every saddle both lines of the gradient flow
    are followed to the minima by a solver for stiff equations. These lines are the path. So it is
    right to about 1e-9 of its length whatever ``images`` is, and it is shown, not presumed, that
    its saddles join the two. Minima on the way belong to it; where the lines leave a gap, another
    string is let down there.

    There may be other paths, also lower ones: :func:`thalweg.critical_points` looks for all saddles
    in a box. It is a path for noise of one size in all directions; for other noise see
    :func:`thalweg.minimum_action_path`.

    Args:
        problem: The objective, of params of shape (d,), twice differentiable.
        a: The minimum to start from: a :class:`thalweg.CriticalPoint` or anything else with
            ``params``, or an array. Newton's method adds the digits that are missing.
        b: The minimum to end at.
        images: How many images the string has, and about how many points the path.

    Raises:
        InputError: An end that is no minimum, both ends the same; a string that went to infinity;
            tops that lead to no saddle, or saddles whose lines do not join the two; less than 8
            images; 32 bits.

    Cost: some 50 to 100 iterations of the string, of a d x d Hessian with its eigenvectors for
    each image; some hundreds of Hessians for each line.

    Source: W. E, W. Ren and E. Vanden-Eijnden, J. Chem. Phys. 126, 164103 (2007). The tops go to
    saddles as the climbing image of G. Henkelman, B. P. Uberuaga and H. Jonsson, J. Chem. Phys.
    113, 9901 (2000), does.
    """
    surface, a, b = _checked(problem, a, b, images)
    legs: list[Leg] = []
    gap = (a, b)
    for _ in range(_STRINGS):
        drawn = string(problem, jnp.asarray(bent_line(*gap, images)))
        if bool(drawn.left):
            raise InputError(_lost(gap, drawn))
        known = [leg.saddle for leg in legs]
        new = [s for s in tops(surface, np.asarray(drawn.points)) if not surface.among(s, known)]
        legs += [leg for leg in (leg_over(surface, saddle) for saddle in new) if leg is not None]
        chart = Chart(surface, legs, a, b)
        way = chart.way()
        if way is not None:
            return _assembled(surface, way, images)
        if len(legs) == len(known):
            break
        gap = chart.gap()
    raise InputError(_unjoined(gap, legs, new, drawn))


def _assembled(surface: Surface, way: list[Leg], images: int) -> EnergyPath:
    """The lines up and down, with images shared out by length."""
    lines = [line for leg in way for line in leg.lines]
    lengths = np.array([line.arc[-1] for line in lines])
    ends = np.rint((images - 1) * np.cumsum(lengths) / lengths.sum()).astype(int)
    shares = np.maximum(2, np.diff(ends, prepend=0))
    parts = [line.spaced(int(share)) for line, share in zip(lines, shares, strict=True)]
    residual = max(_across(surface, part) for part in parts)
    # Up to a saddle a line is followed against the flow.
    parts = [part[::-1] if number % 2 == 0 else part for number, part in enumerate(parts)]
    places = np.concatenate([np.arange(1, share + 1) / share for share in shares])
    before = np.repeat(np.cumsum(lengths) - lengths, shares)
    points = np.vstack([parts[0][:1], *(part[1:] for part in parts)])
    minima = [way[0].ends[0], *(leg.ends[1] for leg in way)]
    problem = surface.problem
    return EnergyPath(
        points=points,
        arc=np.append(0.0, before + places * np.repeat(lengths, shares)),
        values=surface.values(points),
        saddles=tuple(critical_point(problem, jnp.asarray(leg.saddle)) for leg in way),
        minima=tuple(critical_point(problem, jnp.asarray(point)) for point in minima),
        residual=residual,
    )


def _across(surface: Surface, points: Float[np.ndarray, "n d"]) -> float:
    """The largest gradient perpendicular to the line through points at equal distances."""
    tangents = points[2:] - points[:-2]
    tangents = tangents / np.linalg.norm(tangents, axis=1, keepdims=True)
    gradients = np.array([surface.gradient(point) for point in points[1:-1]])
    along = np.sum(gradients * tangents, axis=1, keepdims=True)
    return float(np.linalg.norm(gradients - along * tangents, axis=1).max())


def _checked(
    problem: FiniteSum, a: Any, b: Any, images: int
) -> tuple[Surface, Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    if isinstance(images, bool) or not isinstance(images, int) or images < _FEWEST:
        raise InputError(f"images is {images!r}; expected a whole number, at least {_FEWEST}")
    a, b = checked_ends(a, b)
    problem.check_params(jnp.asarray(a))
    surface = Surface(problem, float(np.linalg.norm(b - a)))
    first, last = (_minimum(surface, end, name) for end, name in zip((a, b), "ab", strict=True))
    if surface.same(first, last):
        raise InputError(
            f"a and b are the same minimum {shown(first)}; expected two different ones"
        )
    return surface, first, last


def _minimum(surface: Surface, end: Float[np.ndarray, " d"], name: str) -> np.ndarray:
    found = surface.critical_near(end, 0, _GIVEN * surface.scale)
    if found is None or np.linalg.norm(found - end) > _GIVEN * surface.scale:
        slope = np.linalg.norm(surface.gradient(end))
        lowest = np.linalg.eigvalsh(surface.hessian(end))[0]
        raise InputError(
            f"{name} = {shown(end)} is no smooth minimum: the gradient there has length "
            f"{slope:.3g} and the Hessian the lowest eigenvalue {lowest:.3g}; expected 0 and a "
            "positive one. Take ends from thalweg.minima; between kinked minima there is no such "
            "path"
        )
    return found


def _lost(gap: tuple[np.ndarray, np.ndarray], drawn: String) -> str:
    far = np.linalg.norm(np.asarray(drawn.points) - gap[0], axis=1).max()
    return (
        f"the string from {shown(gap[0])} to {shown(gap[1])} went away, to a distance of "
        f"{far:.3g}, in {int(drawn.iterations)} iterations: the objective falls without end beside "
        "the straight line, so that the lowest path leads through infinity; expected two minima in "
        "a landscape that rises around them"
    )


def _unjoined(
    gap: tuple[np.ndarray, np.ndarray], legs: list[Leg], new: list[np.ndarray], drawn: String
) -> str:
    rest = "came to rest" if drawn.at_rest else f"still moved (by {float(drawn.moved):.2g})"
    tops_led = "; ".join(map(shown, new)) or "none"
    joined = "; ".join(shown(leg.saddle) for leg in legs) or "none"
    return (
        f"no path from {shown(gap[0])} to {shown(gap[1])}: the string between them {rest} after "
        f"{int(drawn.iterations)} iterations, its tops led to the saddles: {tops_led}, and those "
        f"with lines to two minima are: {joined}; expected saddles that join the two. Where the "
        "string still moves or a line leads to infinity or to another saddle, look for other ways "
        "with thalweg.critical_points, or take more images"
    )
