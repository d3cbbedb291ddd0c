"""What is measured and what it must reach: one function a row of the table."""

from collections.abc import Callable
from statistics import median
from typing import Any

from measure import Measured, Piece
from program import Check, Row

_BATCH = 256


def row(title: str, net: str, norms: float) -> Callable[[bool], Row]:
    """All pieces for a net; ``norms`` is what the norms must reach, in gradients."""

    def make(quick: bool) -> Row:
        options: dict[str, Any] = {"net": net, "size": _BATCH}
        own = ("gradient", "norms", "hessian-norms", "vmap")
        pieces = [Piece(name, "ours", name, options) for name in own]
        pieces += [Piece(f"torch {name}", "peers", name, options) for name in ("gradient", "norms")]
        checks = (
            Check("norms / gradient", _cpu, "norms", "gradient", high=norms),
            Check("all |H_i v| / gradient", _cpu, "hessian-norms", "gradient", high=1.6),
            Check("memory of the norms / gradient's", _temporary, "norms", "gradient", high=3),
            Check(
                "memory of |H_i v| / gradient's", _temporary, "hessian-norms", "gradient", high=3
            ),
            Check("vmap(grad) / gradient", _cpu, "vmap", "gradient"),
            Check("torch.func / torch's gradient", _cpu, "torch norms", "torch gradient"),
        )
        return Row(title, tuple(pieces), checks)

    return make


def _cpu(m: Measured) -> float:
    return median(m.cpu)


def _temporary(m: Measured) -> float:
    return m.outcome["temporary_mb"]


ROWS = {
    "multilayer": row("784-512-512-10, batch 256, float32", "multilayer", 0.75),
    "conv": row("Conv net of 299,158 parameters on 3x32x32, batch 256, float32", "conv", 1.1),
}
