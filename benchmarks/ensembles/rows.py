"""What is measured and what it must reach: one function a row of the issue's table."""

import math
from collections.abc import Callable
from statistics import median
from typing import Any

import works
from measure import Measured, Piece
from program import Check, Row

CHAINS = 10_240


def chain_steps(m: Measured) -> int:
    """Chains times steps of a call."""
    return m.piece.options["chains"] * m.piece.options["steps"]


def cpu(m: Measured) -> float:
    """Median CPU nanoseconds a chain-step."""
    return 1e9 * median(m.cpu) / chain_steps(m)


def wall(m: Measured) -> float:
    """Median wall nanoseconds a chain-step."""
    return 1e9 * median(m.wall) / chain_steps(m)


def compilation(m: Measured) -> float:
    """CPU seconds of the first call above a further one."""
    return m.first["cpu"] - median(m.cpu)


def memory(m: Measured) -> float:
    """Peak memory in MB."""
    return m.memory * 1e-6


def added_memory(m: Measured) -> float:
    """Peak memory in MB above what the process had before the first call."""
    return (m.memory - m.idle) * 1e-6


def exit_error(m: Measured) -> float:
    """Mean exit time less the grid's, in standard errors."""
    return (mean_exit_time(m) / works.EXIT_TIME - 1) * math.sqrt(m.outcome["exits"])


def mean_exit_time(m: Measured) -> float:
    """Total time over exits, the estimator for exponential times however short the horizon."""
    return m.piece.options["dt"] * m.outcome["steps_taken"] / m.outcome["exits"]


def mean(m: Measured) -> float:
    """Mean over chains of the first coordinate at the end."""
    return m.outcome["means"][0]


def exits(m: Measured) -> float:
    """Chains that left."""
    return m.outcome["exits"]


def _c(name: str, work: str, steps: int, **options: Any) -> Piece:
    cores = options.get("threads", 1)
    options |= {"work": work, "chains": CHAINS, "steps": steps}
    return Piece(name, "floor", "floor", options, cores=cores)


def _ours(
    name: str, piece: str, steps: int, *, flags: bool = False, cores: int = 1, **options: Any
) -> Piece:
    options = {"chains": CHAINS, "steps": steps} | options
    return Piece(name, "ours", piece, options, flags, cores)


def _peer(name: str, piece: str, steps: int, **options: Any) -> Piece:
    return Piece(name, "peers", piece, {"chains": CHAINS, "steps": steps} | options)


def _first_call(*pieces: str) -> tuple[Check, ...]:
    return tuple(Check(f"first call, {p} (CPU s)", compilation, p, high=3.0) for p in pieces)


def mueller_c(quick: bool) -> Row:
    """Euler-Maruyama and first exit against C."""
    steps = 3_000 if quick else 10_000
    pieces = (
        _c("C", "mueller", steps),
        _ours("thalweg", "mueller", steps),
        _ours("thalweg, flags", "mueller", steps, flags=True),
        _c("C, 2 threads", "mueller", steps, threads=2),
        _ours("thalweg, 2 cores", "mueller", steps, cores=2),
        _ours("thalweg, flags, 2 cores", "mueller", steps, flags=True, cores=2),
    )
    checks = (
        Check("thalweg / C", cpu, "thalweg", "C", high=1.5),
        Check("thalweg with flags / C", cpu, "thalweg, flags", "C", high=1.15),
        Check("wall, two cores: thalweg / C", wall, "thalweg, 2 cores", "C, 2 threads", high=1.5),
        Check(
            "wall, two cores: thalweg with flags / C",
            wall,
            "thalweg, flags, 2 cores",
            "C, 2 threads",
            high=1.15,
        ),
        Check("exits: thalweg / C", exits, "thalweg", "C", low=0.99, high=1.01),
    )
    title = "Mueller-Brown Euler-Maruyama, final state and first exit, threefry"
    return Row(title, pieces, checks + _first_call("thalweg", "thalweg, flags"))


def mueller_peers(quick: bool) -> Row:
    """The same against other libraries."""
    steps = 200 if quick else 1_000
    pieces = (
        _ours("thalweg", "mueller", 3_000 if quick else 10_000),
        _peer("Diffrax", "diffrax", steps, noise="diagonal", exit=True),
        _peer("Diffrax, dense", "diffrax", steps, noise="dense", exit=True),
        _peer("Diffrax, dense, no exit", "diffrax", steps, noise="dense", exit=False),
        # Its Brownian tree grows: a step of 100 costs half of one of 1000.
        _peer("torchsde, no exit", "torchsde", steps),
        _peer("JAX scan + vmap", "scan", steps),
    )
    checks = (
        Check("Diffrax / thalweg", cpu, "Diffrax", "thalweg", low=25),
        Check("Diffrax with a dense matrix / thalweg", cpu, "Diffrax, dense", "thalweg", low=25),
        Check("torchsde / thalweg", cpu, "torchsde, no exit", "thalweg", low=20),
        Check("JAX scan + vmap / thalweg", cpu, "JAX scan + vmap", "thalweg", low=25),
    )
    return Row("The same against Diffrax, torchsde and JAX scan + vmap", pieces, checks)


def mueller_user(quick: bool) -> Row:
    """The user's loss, differentiated by JAX."""
    steps = 3_000 if quick else 10_000
    pieces = (
        _ours("by hand", "mueller", steps),
        _ours("coordinates", "mueller", steps, drift="coordinates"),
        _ours("vectors", "mueller", steps, drift="vectors"),
    )
    checks = (
        Check("coordinate by coordinate / by hand", cpu, "coordinates", "by hand", high=1.25),
        Check("vectors and jnp.sum / by hand", cpu, "vectors", "by hand", high=1.75),
    )
    title = "The same, the loss an ordinary JAX function"
    return Row(title, pieces, checks + _first_call("coordinates", "vectors"))


def descent(n: int, quick: bool) -> Row:
    """SGD in the plane against C and the usual loop."""
    steps = 5_000 if quick else 20_000
    others = ("quadratics-rows", "quadratics-select") if n == 4 else ("quadratics-rows",)
    pieces = (
        _c("C", "quadratics", steps, n=n),
        _ours("thalweg", "quadratics", steps, n=n),
        _ours("thalweg, flags", "quadratics", steps, n=n, flags=True),
        _peer("JAX scan + vmap", "scan_descent", 200 if quick else 1_000, n=n),
        *(_c(f"C, {work.split('-')[1]}", work, steps, n=n) for work in others),
        _c("C, 2 threads", "quadratics", steps, n=n, threads=2),
        _ours("thalweg, 2 cores", "quadratics", steps, n=n, cores=2),
    )
    checks = (
        Check("thalweg / C with gathers", cpu, "thalweg", "C", high=1.0),
        Check("thalweg with flags / C with gathers", cpu, "thalweg, flags", "C", high=1.0),
        Check("JAX scan + vmap / thalweg", cpu, "JAX scan + vmap", "thalweg", low=40),
        Check("wall, two cores: thalweg / C", wall, "thalweg, 2 cores", "C, 2 threads", high=1.0),
        # The same samples drawn, so that means differ by rounding; a mean of others by .01.
        Check("mean: thalweg / C", mean, "thalweg", "C", low=0.999, high=1.001),
    )
    return Row(f"Discrete SGD, n = {n}, d = 2", pieces, checks + _first_call("thalweg"))


def resampling(quick: bool) -> Row:
    """RR against SGD."""
    steps = 5_000 if quick else 20_000
    pieces = tuple(
        _ours(name, "quadratics", steps, n=4, sampler=name)
        for name in ("sgd", "population", "norms")
    )
    checks = (
        Check("population RR / SGD", cpu, "population", "sgd", high=1.2),
        Check("gradient-norm RR / SGD", cpu, "norms", "sgd", high=5.0),
    )
    return Row("RR, n = 4", pieces, checks + _first_call("population", "norms"))


def float64(quick: bool) -> Row:
    """Double against single precision."""
    steps = 2_000 if quick else 10_000
    pieces = (
        _ours("mueller, 32", "mueller", steps),
        _ours("mueller, 64", "mueller", steps, dtype="float64"),
        _ours("sgd, 32", "quadratics", steps, n=1000),
        _ours("sgd, 64", "quadratics", steps, n=1000, dtype="float64"),
        _c("C, mueller, 32", "mueller", steps),
        _c("C, mueller, 64", "mueller", steps, dtype="float64"),
    )
    checks = (
        Check("Mueller-Brown, float64 / float32", cpu, "mueller, 64", "mueller, 32", high=2.6),
        Check("SGD, n = 1000, float64 / float32", cpu, "sgd, 64", "sgd, 32", high=2.6),
    )
    return Row("float64", pieces, checks + _first_call("mueller, 64", "sgd, 64"))


def regression(quick: bool) -> Row:
    """Ten dimensions and 2800 samples."""
    steps = 1_000 if quick else 5_000
    pieces = (
        _c("C", "regression", steps, n=2800),
        _ours("thalweg", "regression", steps),
        _ours("thalweg, flags", "regression", steps, flags=True),
        _c("C, gathers", "regression-gathers", steps, n=2800),
    )
    checks = (
        Check("thalweg / C", cpu, "thalweg", "C", high=2.0),
        Check("thalweg with flags / C", cpu, "thalweg, flags", "C", high=2.0),
    )
    title = "Robust regression, d = 10, n = 2800"
    return Row(title, pieces, checks + _first_call("thalweg"))


def linear(quick: bool) -> Row:
    """Cost in chains and in steps, and memory."""
    many = 100_000 if quick else 1_000_000
    pieces = (
        _ours("10,240 x 1e3", "mueller", 1_000, exit=False),
        _ours("1,024,000 x 1e3", "mueller", 1_000, exit=False, chains=1_024_000),
        _ours(f"10,240 x {many:.0e}", "mueller", many, exit=False),
        _ours("1,000,000 x 200", "mueller", 200, exit=False, chains=1_000_000),
    )
    few, chains, steps, memories = (piece.name for piece in pieces)
    checks = (
        Check("cost a chain-step, 100 x the chains", cpu, chains, few, low=0.9, high=1.1),
        Check(f"cost a chain-step, {many / 1e3:g} x the steps", cpu, steps, few, low=0.9, high=1.1),
        Check(f"memory, {many / 1e3:g} x the steps", memory, steps, few, low=0.9, high=1.1),
        Check("memory of 10^6 chains, MB above idle", added_memory, memories, high=300),
        Check("memory of 10^6 chains, MB in all", memory, memories),
    )
    return Row("Chains and steps", pieces, checks)


def exit_time(quick: bool) -> Row:
    """Mean exit time against the grid, to t = 100."""
    fine = 5e-4 if quick else 2.5e-4
    steps, fine_steps = round(100 / works.DT), round(100 / fine)
    pieces = (
        _c("C", "mueller", fine_steps, dt=fine),
        _ours("thalweg", "mueller", fine_steps, dt=fine),
        _ours("thalweg, Heun, dt = 1e-3", "mueller", steps, dt=works.DT, method="heun"),
        _ours("thalweg, dt = 1e-3", "mueller", steps, dt=works.DT),
    )
    *unbiased, biased = (piece.name for piece in pieces)
    checks = tuple(
        Check(f"{p}: errors off the grid", exit_error, p, low=-3, high=3) for p in unbiased
    )
    # Ten runs of C: 26.18 +- .08, the bias of Euler-Maruyama at this step in the narrow well.
    return Row(
        "Mean exit time to t = 100",
        pieces,
        (*checks, *(Check(f"{p}: mean exit time", mean_exit_time, p) for p in (*unbiased, biased))),
        repeated=False,
    )


ROWS: dict[str, Callable[[bool], Row]] = {
    "mueller-c": mueller_c,
    "mueller-peers": mueller_peers,
    "mueller-user": mueller_user,
    "sgd-4": lambda quick: descent(4, quick),
    "sgd-1000": lambda quick: descent(1000, quick),
    "rr": resampling,
    "float64": float64,
    "regression": regression,
    "linear": linear,
    "exit-time": exit_time,
}
