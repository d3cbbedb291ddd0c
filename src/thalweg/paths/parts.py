"""The parts of a path of least action: climbs out of points of rest, and lines of the drift."""

import numpy as np

from thalweg.errors import InputError
from thalweg.paths.climbs import Chain, Climb, Points, diverges, measured, settled
from thalweg.paths.curves import bent_line, resampled, shown
from thalweg.paths.fields import Field, Matrix, Point, Rest
from thalweg.paths.flow_lines import FlowLine, flow_line
from thalweg.paths.hamiltonian import CramerHamiltonian

# Costs of two chains that differ by no more than this share of them belong to the same path.
_ALIKE = 0.02
# How often a curve is divided at points of rest that appear on it.
_DEPTH = 4


def joined(
    field: Field, start: Rest, end: Rest, images: int
) -> tuple[list[Climb | FlowLine], list[Rest]]:
    """The parts of the path between two points, and the knots between these.

    A first curve shows which points of rest the path passes. From one to the next it is then found
    anew, or is the line of the drift where that goes there.
    """
    line = bent_line(start.point, end.point, (images + 1) // 2)
    parts, knots = _from_to(field, start, end, line, images, _DEPTH)
    return parts, [start, *knots]


def _from_to(
    field: Field, here: Rest, there: Rest, curve: Points, images: int, depth: int
) -> tuple[list[Climb | FlowLine], list[Rest]]:
    """The parts near a curve and the knots they lead to."""
    if here.unstable == 1:
        down = _down(field, here, curve)
        if down is not None:
            foot = Rest(down.points[-1], 0)
            if field.same(foot.point, there.point):
                return [down], [there]
            curve = _between(curve, foot.point, there.point)
            parts, knots = _from_to(field, foot, there, curve, images, depth)
            return [down, *parts], [foot, *knots]
    metric = _metric(field, here)
    coarse = _least(field, curve, metric, images)
    via = _passed(field, coarse.points, here, there) if depth else []
    if not via:
        return [_climb(field, here, there, coarse, metric, images)], [there]
    parts, knots = [], []
    for knot in [*via, there]:
        part = _between(coarse.points, here.point, knot.point)
        more = _from_to(field, here, knot, part, images, depth - 1)
        parts, knots, here = parts + more[0], knots + more[1], knot
    return parts, knots


def _metric(field: Field, start: Rest) -> Matrix | None:
    """Of the quasi-potential around a stable point of rest around which the drift turns.

    The path then turns, too, as a spiral without end. Elsewhere it is as good without, and better
    where the noise varies a lot.
    """
    if start.unstable != 0:
        return None
    spread = field.spread(start)
    if spread is None:
        raise InputError(
            f"the noise at the point of rest {shown(start.point)} vanishes, or does in a direction "
            "into which the drift does not turn it: no path of finite action leaves it that way, "
            "and the quasi-potential around it is infinite; expected noise in all directions there"
        )
    turns = np.iscomplex(np.linalg.eigvals(field.jacobian(start.point))).any()
    return np.linalg.inv(spread) if turns else None


def _passed(field: Field, points: Points, start: Rest, end: Rest) -> list[Rest]:
    """The points of rest near the curve, in order, the ends left out."""
    speeds = np.array([np.linalg.norm(field.drift(point)) for point in points])
    slow = (speeds[1:-1] < speeds[:-2]) & (speeds[1:-1] <= speeds[2:])
    apart = float(np.linalg.norm(np.diff(points, axis=0), axis=1).mean())
    known = [start, end]
    found = []
    for point in points[1:-1][slow]:
        rest = field.rest_near(point, 2 * apart)
        if rest is None or rest.unstable is None or rest.unstable > 1:
            continue
        if not any(field.same(rest.point, other.point) for other in known):
            known.append(rest)
            found.append(rest)
    return found


def _down(field: Field, saddle: Rest, points: Points) -> FlowLine | None:
    """The line of the drift from a saddle, on the side to which the curve goes on."""
    near = _nearest(points, saddle.point)
    onwards = points[min(near + 1, len(points) - 1)] - points[max(near - 1, 0)]
    growths, vectors = np.linalg.eig(field.jacobian(saddle.point))
    side = vectors[:, np.argmax(growths.real)].real
    side = side * np.sign(side @ onwards) / np.linalg.norm(side)
    return flow_line(field.drift, field.jacobian, saddle.point, side, field.scale)


def _between(points: Points, here: Point, there: Point) -> Points:
    """The curve from one point near it to another, as many images; a line if it is not between."""
    first, last = _nearest(points, here), _nearest(points, there)
    if last - first < 2:
        return bent_line(here, there, len(points))
    part = np.vstack([here, points[first + 1 : last], there])
    return resampled(part, len(points))


def _nearest(points: Points, point: Point) -> int:
    return int(np.argmin(np.linalg.norm(points - point, axis=1)))


def _least(field: Field, start: Points, metric: Matrix | None, room: int) -> Chain:
    """The cheaper of the chains found from near the start, and from it by way of more noise."""
    found = [settled(field, start, metric, room, near=near) for near in (True, False)]
    return min(found, key=lambda chain: (not chain.rests, chain.cost))


def _climb(
    field: Field, here: Rest, there: Rest, found: Chain, metric: Matrix | None, images: int
) -> Climb:
    """From one point to another near a chain: with as many images as that, then with all."""
    start = resampled(found.points, images)
    again = settled(field, start, metric, images)
    if not again.rests or abs(again.cost - found.cost) > _ALIKE * again.cost:
        again = _least(field, start, metric, images)
    if not np.isfinite(again.cost):
        raise InputError(_out_of_reach(field, here.point, there.point))
    if not again.rests:
        raise InputError(
            f"the path from {shown(here.point)} to {shown(there.point)} did not come to rest in "
            f"{again.iterations} steps (an image still moves by {again.left:.2g} of the distance "
            "to the next); expected drift and noise that are smooth from image to image: take more "
            "images, or ends nearer to each other, as a saddle between them"
        )
    fine = measured(field, again.points, metric)
    if not np.isfinite(fine.spent[-1]):
        raise InputError(_out_of_reach(field, here.point, there.point))
    where = diverges(field, fine, metric)
    if where is not None:
        raise InputError(
            f"the action of the path from {shown(here.point)} to {shown(there.point)} grows "
            f"without end near {shown(where)}: the noise vanishes there while the drift goes "
            "against the path, so that the quasi-potential is infinite; expected noise along all "
            "of the path"
        )
    coarse = measured(field, found.points, metric).spent[-1]
    return fine._replace(error=float(abs(fine.spent[-1] - coarse)))


def _out_of_reach(field: Field, here: Point, there: Point) -> str:
    if isinstance(field.H, CramerHamiltonian):
        return (
            f"no path of finite action from {shown(here)} to {shown(there)} was found: at some "
            "places no draw of the gradient moves in the direction needed, also after Gaussian "
            "noise was added and taken away again, so that SGD with a small step does not come "
            "there; expected draws that reach, as of smaller batches, or take the diffusion limit"
        )
    shares = np.linspace(0, 1, 17)[:, None]
    least = [np.linalg.eigvalsh(field.covariance(x))[0] for x in here + shares * (there - here)]
    where = here + shares[int(np.argmin(least))] * (there - here)
    return (
        f"the action from {shown(here)} to {shown(there)} is infinite: the covariance of the noise "
        f"has the lowest eigenvalue {min(least):.3g} near {shown(where)}, and the drift does not "
        "go in the direction that is left without noise; expected noise in all directions on the "
        "way"
    )
