"""What is measured and what it must reach: one function a row of the table."""

from statistics import median

from measure import Measured, Piece
from program import Check, Row


def step(quick: bool) -> Row:
    """A step of each sampler."""
    options = {"steps": 40 if quick else 150}
    names = ("sgd", "rolling", "presampled")
    pieces = [Piece("by hand", "by_hand", "step", options)]
    pieces += [Piece(name, "ours", name, options) for name in names]
    return Row(
        "A step of SGD on 784-500-500-500-10, 128 of 60,000 samples, float32",
        tuple(pieces),
        (
            Check("SGD / a compiled loop by hand", _cpu, "sgd", "by hand", high=1.05),
            Check("RR, rolling scores / SGD", _cpu, "rolling", "sgd", high=1.25),
            Check("RR, presampled x3 / SGD", _cpu, "presampled", "sgd", high=2.2),
        ),
    )


def refresh(quick: bool) -> Row:
    """Scores of everybody, against an epoch of gradients."""
    options = {"n": 12_800 if quick else 60_000}
    pieces = [Piece(name, "ours", name, options) for name in ("epoch", "refresh")]
    check = Check("scores / gradients", _cpu, "refresh", "epoch", high=0.7)
    return Row(
        f"All {options['n']:,} scores of that net, against its gradients batch by batch",
        tuple(pieces),
        (check,),
    )


def seeds(quick: bool) -> Row:
    """Many runs of a small net at once."""
    options = {"steps": 300 if quick else 1000}
    ours = ("together", "in turn")
    pieces = [Piece(name, "ours", name, options) for name in ours]
    pieces.append(Piece("steps by Python", "by_hand", "seeds", options))
    return Row(
        "30 seeds of 64-32-10, B=32, float32: all, for one step of each",
        tuple(pieces),
        (
            Check("compiled runs in turn / together", _cpu, "in turn", "together", low=5),
            Check(
                "jitted steps called in turn / together", _cpu, "steps by Python", "together", low=5
            ),
        ),
    )


def checkpoint(quick: bool) -> Row:
    """A checkpoint of the net and Adam's moments."""
    check = Check("seconds a minute", _wall, "save", high=3.0)
    return Row("A checkpoint of that net with Adam", (Piece("save", "ours", "save", {}),), (check,))


def draws(quick: bool) -> Row:
    """A batch from ten million scores."""
    options = {"n": 10**7, "draws": 200 if quick else 1000}
    check = Check("milliseconds a draw", lambda m: 1e3 * _wall(m), "draw", high=1.0)
    return Row(
        "A batch of 32 from 10,000,000 scores, 32 of them changed before",
        (Piece("draw", "ours", "draw", options),),
        (check,),
    )


def _cpu(m: Measured) -> float:
    return median(m.cpu)


def _wall(m: Measured) -> float:
    return median(m.wall)


ROWS = {
    "step": step,
    "refresh": refresh,
    "seeds": seeds,
    "checkpoint": checkpoint,
    "draws": draws,
}
