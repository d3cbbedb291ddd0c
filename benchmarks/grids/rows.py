"""What is measured and what it must reach: one function a row of the table."""

import atexit
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from measure import Measured, Piece
from program import Check, Row

# Densities that pieces hand to each other; gone with the program.
_SCRATCH = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
# Cells along an axis.
_WIDE = 512


def cpu(m: Measured) -> float:
    """Median CPU seconds of a call."""
    return median(m.cpu)


def solution(m: Measured) -> float:
    """Median CPU seconds without the assembly."""
    return median(m.part("solution"))


def compilation(m: Measured) -> float:
    """CPU seconds of the first call above a further one."""
    return m.first["cpu"] - cpu(m)


def first(m: Measured) -> float:
    """CPU seconds of the first call."""
    return m.first["cpu"]


def memory(m: Measured) -> float:
    """Peak memory in GB."""
    return m.memory * 1e-9


def outcome(name: str) -> Callable[[Measured], float]:
    """What a piece returned by that name."""
    return lambda m: m.outcome[name]


error, time, cycles = outcome("error"), outcome("time"), outcome("cycles")


def stationary(quick: bool, cells: int = _WIDE) -> Row:
    """The stationary law beside fplanck and FiPy."""
    pieces = (
        _ours("thalweg", "stationary", cells),
        _peer("fplanck", "fplanck_stationary", cells),
        _peer("FiPy", "fipy_stationary", cells, steps="growing"),
        _peer("FiPy, tuned", "fipy_stationary", cells, steps="tuned"),
    )
    others = [piece.name for piece in pieces[1:]]
    checks = (
        *(_ratio(p, low=6.0) for p in others[:2]),
        _ratio(others[2]),
        *(Check(f"{p} / thalweg, in all", cpu, p, "thalweg") for p in others),
        Check("thalweg: L1 error", error, "thalweg", high=1e-12),
        *(Check(f"{p}: L1 error", error, p) for p in others),
        _first_call("thalweg"),
    )
    return Row(f"Stationary law, {cells} x {cells}, against Gibbs", pieces, checks)


def current(quick: bool, cells: int = _WIDE) -> Row:
    """The stationary law where there is no detailed balance."""
    pieces = (
        _ours("thalweg", "stationary", cells, current=True),
        _peer("fplanck", "fplanck_stationary", cells, current=True),
        _peer("FiPy, one step", "fipy_stationary", cells, steps="long", current=True),
    )
    others = [piece.name for piece in pieces[1:]]
    checks = (
        *(_ratio(p) for p in others),
        *(Check(f"{p}: L1 error", error, p) for p in ("thalweg", *others)),
        _first_call("thalweg"),
    )
    return Row(f"Stationary law with a current, {cells} x {cells}", pieces, checks)


def density(quick: bool, cells: int = _WIDE) -> Row:
    """The density at t = 1 beside implicit steps of FiPy."""
    ours, fipy, finer = (_scratch(f"{name}-{cells}.npy") for name in ("ours", "fipy", "finer"))
    pieces = (
        _reference("exact", "ours", cells, save=ours),
        _reference("exact, FiPy's matrix", "fipy", cells, save=fipy),
        _ours("thalweg, finer", "density", 2 * cells, once=True, save=finer),
        _ours("thalweg", "density", cells, reference=ours),
        _peer("FiPy, 20 steps", "fipy_density", cells, steps=20, reference=fipy, other=ours),
        _reference("exact beside finer", "between", cells, one=ours, other=finer),
    )
    peer = "FiPy, 20 steps"
    checks = (
        _ratio(peer, low=15.0),
        Check(f"{peer} / thalweg, in all", cpu, peer, "thalweg"),
        Check("thalweg: L1 error in time", error, "thalweg", high=2e-7),
        Check(f"{peer}: L1 error in time", error, peer),
        Check("between the two schemes in space (L1)", outcome("scheme"), peer),
        Check(f"thalweg, {cells} to {2 * cells} cells an axis (L1)", error, "exact beside finer"),
        _first_call("thalweg"),
    )
    return Row(f"Density at t = 1, {cells} x {cells}", pieces, checks)


def explicit(quick: bool, cells: int = 128) -> Row:
    """The density at t = 1 by explicit methods, on a small grid."""
    ours = _scratch(f"explicit-{cells}.npy")
    pieces = (
        _reference("exact", "ours", cells, save=ours),
        _ours("thalweg", "density", cells, reference=ours),
        _peer("py-pde", "pypde_density", cells, reference=ours, once=True),
        _peer("fplanck", "fplanck_density", cells, reference=ours, wide=_WIDE, once=True),
    )
    checks = (
        *(_ratio(p) for p in ("py-pde", "fplanck")),
        *(Check(f"{p}: L1 error", error, p) for p in ("thalweg", "py-pde", "fplanck")),
        Check(f"py-pde at {_WIDE}^2, extrapolated (s)", _by_cells, "py-pde"),
        Check(f"fplanck at {_WIDE}^2, extrapolated (s)", _by_norm, "fplanck"),
    )
    return Row(f"Density at t = 1, {cells} x {cells}, explicit methods", pieces, checks)


def exit_time(quick: bool, cells: int, low: float) -> Row:
    """The mean exit time beside a sparse direct solve of the same matrix."""
    pieces = (
        _ours("thalweg", "exit_time", cells),
        _reference("LU, default", "direct", cells, once=False, order="default"),
        _reference("LU, symmetric", "direct", cells, once=False, order="symmetric"),
    )
    orders = [piece.name for piece in pieces[1:]]
    checks = (
        *(_ratio(p, low=low) for p in orders),
        Check("thalweg / LU: time", time, "thalweg", orders[1], low=1 - 1e-9, high=1 + 1e-9),
        Check("thalweg: cycles of multigrid", cycles, "thalweg"),
        _first_call("thalweg"),
    )
    return Row(f"Mean exit time, {cells} x {cells}", pieces, checks)


def convergence(quick: bool, cells: int = _WIDE) -> Row:
    """The mean exit time and the cycles of multigrid in the number of cells."""
    sizes = [cells // 4, cells // 2, cells, 2 * cells] + [4 * cells] * (not quick)
    pieces = tuple(_ours(f"{n} x {n}", "exit_time", n, once=True) for n in sizes)
    names = [piece.name for piece in pieces]
    last = names[-1]
    checks = (
        Check(f"time, {names[2]} / {last}", time, names[2], last, low=1 - 3e-4, high=1 + 3e-4),
        *(Check(f"{name}: cycles", cycles, name) for name in names),
        Check(f"cycles, {names[3]} / {names[1]}", cycles, names[3], names[1], high=1.5),
    )
    return Row("Mean exit time in the width of cells", pieces, checks, repeated=False)


def exit_time_3d(quick: bool, cells: int = 96) -> Row:
    """The mean exit time in three dimensions, all of a process's time and memory."""
    full = f"{cells} x {cells} x {cells}"
    pieces = (
        _ours(full, "exit_time_3d", cells, once=True),
        _ours("half", "exit_time_3d", cells // 2, once=True),
        _ours("three quarters", "exit_time_3d", 3 * cells // 4, once=True),
    )
    checks = (
        Check("CPU seconds, compilation included", first, full, high=60.0),
        Check("peak memory (GB)", memory, full, high=6.0),
        Check("cycles of multigrid", cycles, full),
        Check("time, half / full", time, "half", full),
        Check("time, three quarters / full", time, "three quarters", full),
    )
    return Row(f"Mean exit time in three dimensions, {full}", pieces, checks, repeated=False)


def transition(quick: bool, cells: int = 256) -> Row:
    """The transition matrix of SGD."""
    checks = (
        Check("CPU seconds", cpu, "thalweg", high=10.0),
        Check("CPU seconds, compilation included", first, "thalweg", high=10.0),
        Check("entries a row", outcome("entries"), "thalweg"),
    )
    title = f"Transition matrix of SGD, {cells} x {cells}, four terms"
    return Row(title, (_ours("thalweg", "transition", cells),), checks)


def _by_cells(m: Measured) -> float:
    """Seconds with _WIDE cells an axis and the same steps in time, which are still stable."""
    return solution(m) * (_WIDE / m.piece.options["cells"]) ** 2


def _by_norm(m: Measured) -> float:
    """The same for products with a matrix, whose number is that of its norm."""
    return _by_cells(m) * m.outcome["growth"]


def _ratio(piece: str, low: float = -math.inf) -> Check:
    """How much longer a peer's solution takes; assembly apart, which would flatter Thalweg."""
    return Check(f"{piece} / thalweg, without assembly", solution, piece, "thalweg", low=low)


def _first_call(piece: str) -> Check:
    return Check(f"first call above others, {piece} (CPU s)", compilation, piece)


def _scratch(name: str) -> str:
    return str(_SCRATCH / name)


def _ours(name: str, piece: str, cells: int, *, once: bool = False, **options: Any) -> Piece:
    return Piece(name, "ours", piece, {"cells": cells} | options, once=once)


def _peer(name: str, piece: str, cells: int, *, once: bool = False, **options: Any) -> Piece:
    return Piece(name, "peers", piece, {"cells": cells} | options, once=once)


def _reference(name: str, piece: str, cells: int, *, once: bool = True, **options: Any) -> Piece:
    return Piece(name, "references", piece, {"cells": cells} | options, once=once)


ROWS: dict[str, Callable[[bool], Row]] = {
    "stationary": stationary,
    "stationary-current": current,
    "density": density,
    "explicit": explicit,
    "exit-512": lambda quick: exit_time(quick, 512, 1.5),
    "exit-1024": lambda quick: exit_time(quick, 1024, 2.5),
    "exit-convergence": convergence,
    "exit-3d": exit_time_3d,
    "sgd-matrix": transition,
}
