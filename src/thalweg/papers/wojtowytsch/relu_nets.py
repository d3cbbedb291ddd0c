"""Two-layer nets fit any values, and how many ways ReLU nets have to be the same function."""

from typing import Any

import numpy as np
from scipy.integrate import quad

from thalweg.papers.checks import above, below, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_COUNT, _INPUTS = 24, 5
Layer = tuple[np.ndarray, np.ndarray, np.ndarray]


@experiment(
    "wojtowytsch/relu-nets",
    "Two-layer nets with as many units as data fit any values; ReLU nets are not unique",
    covers=("Theorem, two-layer nets", "Remark, deep nets", "ReLU identities"),
    seconds=(1, 1),
)
def relu_nets(setting: Setting) -> Outcome:
    """The construction of the proof, on random points and values."""
    draw = np.random.default_rng(setting.seed)
    x, y = draw.normal(size=(_COUNT, _INPUTS)), 100 * draw.normal(size=_COUNT)
    net = _fitted(x, y, draw)
    claims = [*_fit_claims(x, y, net, draw), _deep(net, draw), *_identities(net, draw)]
    line = np.linspace(-2.6, 2.6, 261)
    along = (np.linspace(-2.4, 2.4, 10) + draw.uniform(-0.2, 0.2, 10))[:, None]
    values = draw.normal(size=10)
    curve = _evaluate(_fitted(along, values, draw), line[:, None])
    tables = {
        "curve": {"x": line, "f": curve},
        "data": {"x": along[:, 0], "y": values},
        "representation": _representation(),
    }
    return Outcome(claims, tables, [_picture()])


def _relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0)


def _evaluate(net: Layer, x: np.ndarray) -> np.ndarray:
    a, w, b = net
    return _relu(x @ w.T + b) @ a


def _fitted(x: np.ndarray, y: np.ndarray, draw: np.random.Generator) -> Layer:
    """One direction for all units, kinks between the projected points: a triangular system."""
    w = draw.normal(size=x.shape[1])
    z = x @ w
    order = np.argsort(z)
    z = z[order]
    b = -np.concatenate([[z[0] - 1], (z[1:] + z[:-1]) / 2])
    features = _relu(z[:, None] + b)
    a = np.linalg.solve(features, y[order])
    return a, np.tile(w, (len(y), 1)), b


def _fit_claims(x: np.ndarray, y: np.ndarray, net: Layer, draw: np.random.Generator) -> list[Claim]:
    size = float(abs(y).max())
    worst = float(abs(_evaluate(net, x) - y).max()) / size
    fewer = _relu(x @ net[1].T + net[2])[:, 1:]
    missed = np.linalg.lstsq(fewer, y, rcond=None)[0]
    left = float(abs(fewer @ missed - y).max()) / size
    units = 10
    w, b = draw.normal(size=(units, _INPUTS)), draw.normal(size=units)
    a = draw.normal(size=units)
    hidden = x @ w.T + b
    jacobian = np.hstack(
        [_relu(hidden), (hidden > 0) * a] + [(hidden > 0) * a * x[:, [k]] for k in range(_INPUTS)]
    )
    return [
        Claim(
            "Theorem (two-layer nets)",
            f"with m = n units any n values are fitted at n points: n = {_COUNT} points in "
            f"R^{_INPUTS}, one direction for all units; the largest miss, as a share of the "
            "largest value",
            below(worst, 1e-9),
        ),
        Claim(
            "Theorem (two-layer nets)",
            "with n - 1 units of that construction random values are missed: the best fit's miss",
            above(left, 1e-3),
        ),
        Claim(
            "Theorem (two-layer nets)",
            "m ≥ n is enough and not necessary: with ten units of free directions the values at "
            f"the {_COUNT} points depend on the weights with full rank",
            near(int(np.linalg.matrix_rank(jacobian)), _COUNT, tolerance=0),
        ),
    ]


def _deep(net: Layer, draw: np.random.Generator) -> Claim:
    """One unit a layer: h passes the input on and adds the unit's share to a sum."""
    a, w, b = net
    x = draw.normal(size=(200, _INPUTS))
    state = np.hstack([x, np.zeros((200, 1))])
    weights = 0
    for unit in range(len(a)):
        inner, outer = np.append(w[unit], 0.0), np.append(np.zeros(_INPUTS), a[unit])
        state = state + _relu(state @ inner + b[unit])[:, None] * outer
        weights += inner.size + outer.size + 1
    shallow = _evaluate(net, x)
    apart = float(abs(state[:, -1] - shallow).max() / abs(shallow).max())
    return Claim(
        "Remark (deep nets)",
        "certain deep nets with at most four times as many parameters have the function of a "
        f"two-layer net: residual, {len(a)} layers of one unit (difference, ratio of parameters)",
        both(below(apart, 1e-10), below(weights / (a.size + w.size + b.size), 4.0)),
    )


def _bell(t: Any) -> Any:
    return np.exp(-(t**2))


def _bell_curvature(t: Any) -> Any:
    return (4 * t**2 - 2) * np.exp(-(t**2))


def _integral(x: float, *, printed: bool) -> float:
    """The representation of exp(-t^2), which starts at 1 with slope 0."""
    ends = (x, np.inf) if printed else (0.0, x)
    return 1.0 + quad(lambda t: _bell_curvature(t) * abs(t - x), *ends)[0]


def _representation() -> dict[str, Any]:
    x = np.linspace(0.05, 2.5, 50)
    return {
        "x": x,
        "f": _bell(x),
        "printed": [_integral(v, printed=True) for v in x],
        "corrected": [_integral(v, printed=False) for v in x],
    }


def _identities(net: Layer, draw: np.random.Generator) -> list[Claim]:
    a, w, b = net
    x = draw.normal(size=(100, _INPUTS))
    before = _evaluate(net, x)
    order, mu = draw.permutation(len(a)), draw.uniform(0.5, 2.0, len(a))
    pair = (np.append(a, [7.0, -7.0]), np.vstack([w, w[:1], w[:1]]), np.append(b, [0.3, 0.3]))
    same = {
        "permuted": (a[order], w[order], b[order]),
        "pair": pair,
        "rescaled": (a / mu, w * mu[:, None], b * mu),
    }
    scale = float(abs(before).max())
    apart = [float(abs(_evaluate(n, x) - before).max()) / scale for n in same.values()]
    minus = float(abs(_relu(-2 * x) / -2 - _relu(x)).max())
    z = x[:, 0]
    sums = [_relu(z) - _relu(-z) + 1, _relu(z + 1) - _relu(-(z + 1))]
    table = _representation()
    errors = {
        name: float(abs(np.array(table[name]) - table["f"]).max())
        for name in ("printed", "corrected")
    }
    return [
        Claim(
            "ReLU nets, 1 to 3",
            "the function is the same after permuting units, adding two that cancel, and moving a "
            "factor μ between layers: differences",
            both(*(below(value, 1e-9) for value in apart)),
        ),
        Claim(
            "ReLU nets, 3",
            "σ(z) = σ(μz)/μ for every μ: the largest difference at μ = -2",
            below(minus, 1e-12),
            above(minus, 0.1),
            reading="for μ > 0 (as in the line before)",
        ),
        Claim(
            "ReLU nets, 4",
            "z + 1 is σ(z) - σ(-z) + σ(1) and σ(z + 1) - σ(-(z + 1)): differences",
            both(*(below(float(abs(s - z - 1).max()), 1e-12) for s in sums)),
        ),
        Claim(
            "ReLU nets, 5",
            "f(x) = f(0) + f'(0)σ(x) + ∫₀^∞ f''(t) σ(t - x) dt for x > 0: the largest error for "
            "f = exp(-x²)",
            below(errors["printed"], 1e-6),
            both(above(errors["printed"], 0.1), below(errors["corrected"], 1e-6)),
            correction="with σ(x - t)",
        ),
        _square(draw),
    ]


def _square(draw: np.random.Generator) -> Claim:
    """|x|^2 from second differences of ReLU along axes, rotated axes, and all directions."""
    knots = np.linspace(-6, 6, 2401)
    x = draw.normal(size=(50, 2))
    turn = np.arange(32) * np.pi / 32
    frames = {
        "axes": np.eye(2),
        "rotated": np.array([[0.6, 0.8], [-0.8, 0.6]]),
        "all directions": np.stack([np.cos(turn), np.sin(turn)], axis=1) * (2 / 32) ** 0.5,
    }

    def bowl(z: np.ndarray) -> np.ndarray:
        # z^2 = 36 - 12 (z + 6) + 2 int sigma(z - t) dt, by the trapezoidal rule.
        weights = np.full(knots.size, 2 * (knots[1] - knots[0]))
        weights[[0, -1]] /= 2
        return 36 - 12 * (z + 6) + _relu(z[:, :, None] - knots) @ weights

    square = (x**2).sum(axis=1)
    apart = []
    for frame in frames.values():
        scale = np.linalg.norm(frame, axis=1)
        found = (bowl(x @ (frame / scale[:, None]).T) * scale**2).sum(axis=1)
        apart.append(float(abs(found - square).max()))
    # Half a knot's spacing squared for each direction.
    return Claim(
        "ReLU nets, 5",
        "|x|² is represented along the axes, along rotated ones and along all directions alike: "
        "differences on 50 points",
        both(*(below(value, 1e-4) for value in apart)),
    )


def _picture() -> Picture:
    fit = [
        Series("curve", "x", "f", "two-layer net, m = n = 10"),
        Series("data", "x", "y", "data", "", "points"),
    ]
    identity = [
        Series("representation", "x", "f", "f = exp(-x²)"),
        Series("representation", "x", "printed", "as printed, σ(t - x)", dashed=True),
        Series("representation", "x", "corrected", "with σ(x - t)", dashed=True),
    ]
    return Picture(
        "relu-nets",
        "A two-layer ReLU net through ten random values; the integral representation of a smooth "
        "function by ReLUs as printed and corrected.",
        [Panel("x", "f(x)", fit), Panel("x", "f(x)", identity)],
    )
