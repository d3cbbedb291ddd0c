"""What is measured and what it must reach: one function a row of the table."""

from collections.abc import Callable
from statistics import median
from typing import Any

from measure import Measured, Piece
from program import Check, Row

# A relative error of ten per cent takes so many exits of chains that are simulated directly.
_EXITS = 100


def row(title: str, case: str) -> Callable[[bool], Row]:
    """Splitting of a case beside direct simulation."""

    def make(quick: bool) -> Row:
        pieces = tuple(
            Piece(name, "ours", name, {"case": case}, cores=2) for name in ("split", "direct")
        )
        checks = (
            Check("wall seconds of the first call", lambda m: m.first["wall"], "split", high=120),
            Check("largest relative error", outcome("largest_error"), "split", high=0.1),
            Check("largest |difference| in standard errors", outcome("largest_z"), "split", high=3),
            Check("the mean of all calls, in standard errors", outcome("over_all"), "split"),
            Check("steps of chains, direct / splitting", _saved, "split"),
            Check("seconds of a direct simulation", _directly, "direct"),
        )
        return Row(title, pieces, checks)

    return make


def outcome(name: str) -> Callable[[Measured], Any]:
    """What a piece returned by that name."""
    return lambda m: m.outcome[name]


def _saved(m: Measured) -> float:
    return _EXITS * m.outcome["known"] / median(m.outcome["chain_steps"])


def _directly(m: Measured) -> float:
    """Extrapolated from the steps that were taken."""
    return median(m.wall) * _EXITS * m.outcome["known"] / 1e8


ROWS = {
    "plane": row("Diffusion in the plane over two passes, to 10 per cent", "plane"),
    "plane-cold": row("The same at half the temperature", "plane-cold"),
    "mueller-brown": row("Mueller-Brown, deep well to right well, to 10 per cent", "mueller"),
    "sgd": row("SGD at the step .0314, piecewise linear, to 10 per cent", "sgd"),
    "population-rr": row("Population RR at the step .04, the same, to 10 per cent", "population"),
}
