"""What is measured and what it must reach: one function a row of the table."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from statistics import median

from measure import Measured, Piece
from program import Check, Row

# Of the questions: samples, and the ratios to a gradient that are wanted.
_SAMPLES = {"multilayer": 1024, "conv": 64, "strided": 64}
_WANTED = {
    "product": {"multilayer": 1.9, "conv": 2.0},
    "product-again": {"multilayer": 1.5, "conv": 2.0},
    "largest": {"multilayer": 25, "conv": 15},
    "trace": {"multilayer": 50, "conv": 60},
    "density": {"multilayer": 100, "conv": 120},
    "nonuniformity": {"multilayer": 6, "conv": 7},
    "norms": {"multilayer": 1.6, "conv": 1.6},
}
_TITLES = {
    "product": "One product with the Hessian",
    "largest": "The largest eigenvalue of the Hessian to 1e-3, certified by its residual",
    "trace": "The trace of the Hessian, 30 probes",
    "density": "The density of eigenvalues, 50 steps of Lanczos",
    "nonuniformity": "One product with Sigma",
    "norms": "The norms |H_i v| of all samples",
}
# Pieces of peers, the package that they need, and whose gradient they are measured against.
_PEERS = {
    "product": [("torch-product", "torch"), ("curvlinops-product", "curvlinops")],
    "largest": [("arpack", "scipy"), ("pyhessian-largest", "pyhessian")],
    "trace": [("pyhessian-trace", "pyhessian")],
}
_VMAPPED = ("nonuniformity", "norms")
_LIMIT_S = 180


def row(work: str, net: str, quick: bool) -> Row:
    """A piece of work beside one gradient of the same data."""
    options = {"net": net, "samples": _SAMPLES[net] // (4 if quick else 1)}

    def piece(name: str, module: str = "ours") -> Piece:
        return Piece(name, module, name, options)

    own = (work, "product-again") if work == "product" else (work,)
    pieces = [piece("gradient"), *map(piece, own)]
    checks = [
        check
        for name in own
        for check in (
            Check(
                f"{name} / gradient",
                _cpu,
                name,
                "gradient",
                high=_WANTED[name]["multilayer" if net == "multilayer" else "conv"],
            ),
            Check(f"{name}: memory / gradient's", _memory, name, "gradient", high=3),
        )
    ]
    if work in _VMAPPED:
        pieces.append(piece(f"vmap-{work}"))
        checks.append(Check("by jax.vmap / gradient", _cpu, f"vmap-{work}", "gradient"))
    for name, package in _PEERS.get(work, []):
        if find_spec(package) is None:
            continue
        base = "gradient" if name == "arpack" else "torch-gradient"
        if base not in [one.name for one in pieces]:
            pieces.append(piece(base, "peers"))
        pieces.append(piece(name, "peers"))
        checks.append(Check(f"{name} / {base}", _cpu, name, base))
    return Row(f"{_TITLES[work]}, {net}", tuple(pieces), tuple(checks))


def experiment(quick: bool) -> Row:
    """The non-uniformity of Wu, Ma and E's experiment, the first call with its compilation."""
    piece = Piece("experiment", "ours", "experiment", {}, cores=2, once=True)
    checks = (
        Check("wall seconds", lambda m: m.outcome["seconds"], "experiment", high=_LIMIT_S),
        Check("residual / value", lambda m: m.outcome["residual"], "experiment", high=1e-2),
    )
    title = "The non-uniformity of 0.9M parameters on 1000 images of FashionMNIST to 1 per cent"
    return Row(title, (piece,), checks, repeated=False)


def _cpu(m: Measured) -> float:
    return median(m.cpu)


def _memory(m: Measured) -> float:
    """What a call held at most, compiled already."""
    return m.outcome["memory"]


ROWS: dict[str, Callable[[bool], Row]] = {
    f"{work}-{net}": partial(row, work, net) for work in _TITLES for net in _SAMPLES
} | {"experiment": experiment}
