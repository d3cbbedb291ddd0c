"""The three tables of step-size rules, row by row, and runs of our own with the same rules."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import Check, above, below, both, is_so
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson import nets
from thalweg.papers.giselsson.large_gradients import step_of
from thalweg.papers.giselsson.nets import Trained
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_SAMPLES, _NOISE = 30, 0.35
_PERIOD, _WARMUP = 50, 50
# Epoch, step, norm of the batch's gradient, norm of the full one: as printed.
_COMBINED = (
    (0, "4.8e-08", 2.1e7, 6.8e5),
    (10, "1.4e-05", 7.2e4, 1.4e4),
    (50, "0.097", 0.31, 1.4),
    (100, "0.016", 0.28, 3.2),
    (200, "0.012", 6.8e-5, 0.72),
    (300, "0.01", 0.33, 11.8),
    (500, "0.008", 0.0, 0.529),
    (700, "0.007", 1.2e-6, 0.0008),
    (1000, "0.006", 3.1e-6, 0.0003),
)
_UNDAMPED = ((1, "0.1", 1.2e6, 6.8e5),)
_CONSTANT = (
    (0, "1.4e-07", 7.0e6, 4.7e5),
    (10, "0.004", 257.0, 39.4),
    (50, "0.10", 6.2e-10, 4.1),
    (100, "0.087", 1.5, 1.3),
    (200, "0.089", 1.2, 0.26),
    (300, "0.1", 2.0e-12, 1.3),
    (500, "0.1", 5.1e-12, 0.198),
    (700, "0.1", 2.4e-13, 0.16),
    (1000, "0.087", 1.5, 0.013),
)
Rows = Sequence[tuple[int, str, float, float]]


@experiment(
    "giselsson/step-tables",
    "The three tables of step sizes, row by row, and the same rules on a net of 17 layers",
    covers=(
        *("step-size table 1", "step-size table 2", "step-size table 3"),
        "combined step-size rule",
    ),
    seconds=(30, 150),
    float64=False,
)
def step_tables(setting: Setting) -> Outcome:
    """Every printed step from the printed norm, and what the rules do on our net."""
    epochs, chains = setting.choose(300, 1000), setting.choose(6, 16)
    rules = {
        "combined": (_rule(nets.ALPHA, _slow, _SAMPLES), epochs),
        "undamped": (_rule(0.0, _slow, _SAMPLES), 3),
        "constant": (_rule(nets.ALPHA, None, _SAMPLES), epochs),
    }
    data = nets.moons(_SAMPLES, _NOISE, np.random.default_rng(setting.seed))
    points = tw.FiniteSum(nets.Residual(), data)
    trained = {
        name: nets.train(points, nets.LARGE, rule, count, chains, setting, name)
        for name, (rule, count) in rules.items()
    }
    claims = [
        *_rows("table 1", _COMBINED, nets.ALPHA, _slow),
        *_rows("table 2", _UNDAMPED, 0.0, _slow),
        *_rows("table 3", _CONSTANT, nets.ALPHA, None),
        *_exploded(trained["undamped"]),
        *_damped(trained),
    ]
    tables = {"own": _own(trained, epochs)}
    for name, rows in (("combined", _COMBINED), ("constant", _CONSTANT)):
        epoch, step, _, full = zip(*rows, strict=True)
        tables[f"slides {name}"] = {
            "epoch": epoch,
            "step": [float(s) for s in step],
            "full": full,
        }
    return Outcome(claims, tables, [_picture()])


def _slow(epoch: Any) -> Any:
    return 0.5 * jnp.sqrt(epoch)


def _rule(alpha: float, psi: Callable[[Any], Any] | None, per_epoch: int = 1) -> Any:
    return tw.steps.damped(nets.FIRST, alpha, psi=psi, warmup=_WARMUP, steps_per_epoch=per_epoch)


def _rows(table: str, rows: Rows, alpha: float, psi: Callable[[Any], Any] | None) -> list[Claim]:
    """One claim a row: with ψ(⌈k/K⌉) as it is printed, and with ψ(k) after a warm-up."""
    rule = _rule(alpha, psi)
    claims = []
    for epoch, printed, batch, _ in rows:
        slowed = 0.0 if psi is None else float(psi(jnp.array(math.ceil(epoch / _PERIOD) * 1.0)))
        literal = nets.FIRST / ((1 + slowed) * (alpha * batch + 1))
        # A gradient of norm 0, which is printed for one below the last digit, has no step.
        warmed = step_of(rule, batch or 1e-9, epoch)
        first, second = _as_printed(literal, printed), _as_printed(warmed, printed)
        where = f"Step-size rules and convergence, {table}, epoch {epoch}"
        statement = f"the step is {printed} where the batch's gradient has the norm {batch:g}"
        if first.holds:
            claims.append(Claim(where, statement, first))
            continue
        correction = "ψ = .5√k for epochs k > 50 and 0 before, not of ⌈k/K⌉: a warm-up"
        claims.append(Claim(where, statement, first, second, correction=correction))
    return claims


def _as_printed(step: float, printed: str) -> Check:
    """Whether a step has the printed digits."""
    places = len(printed.partition(".")[2])
    text = f"{step:.1e}" if "e" in printed else f"{step:.{places}f}"
    return is_so(text == printed, f"{step:.3g}, printed {printed}")


def _exploded(undamped: Trained) -> list[Claim]:
    steps = np.asarray(undamped.run.diverged_step)
    gone = (steps >= 0) & (steps < 2 * undamped.problem.n)
    # A net that explodes may also come to rest far away, with all its units silent.
    far = undamped.loss[:, 1] > 100 * undamped.loss[:, 0]
    text = (
        f"{np.mean(steps >= 0):.0%} of the nets beyond 1e10 or not finite within 2 epochs, "
        f"{np.mean(gone | far):.0%} exploded"
    )
    return [
        Claim(
            "Step-size rules and convergence, table 2, epochs 2 to 1000",
            "without adaptation to large gradients (α = 0) the gradient explodes: no number from "
            "epoch 2 on. Here: in most nets a parameter is beyond 1e10 or not finite by then",
            is_so(bool(np.mean(gone) > 0.5), text),
        ),
        Claim(
            "Step-size rules and convergence, table 2",
            "diminishing steps do of course not help: it happens before the first of them",
            is_so(bool(np.all(steps[gone] < _WARMUP * undamped.problem.n)), text),
        ),
    ]


def _damped(trained: dict[str, Trained]) -> list[Claim]:
    combined, constant = trained["combined"], trained["constant"]
    start = np.median(combined.norms[:, 0])
    ends = {name: _late(trained[name]) for name in ("combined", "constant")}
    middle = float(np.median(combined.full[:, 30:70]))
    return [
        Claim(
            "Step-size rules and convergence, tables 1 and 3",
            "large initial gradients are damped: the first steps are below γ0/20 and no net "
            "diverges",
            both(
                below(nets.FIRST / (nets.ALPHA * float(start) + 1), nets.FIRST / 20),
                is_so(
                    not np.any(np.asarray(combined.run.diverged))
                    and not np.any(np.asarray(constant.run.diverged)),
                    f"of {len(combined.loss)} nets with either rule none diverged",
                ),
            ),
        ),
        Claim(
            "Step-size rules and convergence, table 1",
            "the diminishing step gives local convergence: the full gradient's norm falls from "
            "what it is around epoch 50 (medians, the last tenth of the run)",
            below(ends["combined"], middle / 2),
        ),
        Claim(
            "Step-size rules and convergence, table 3",
            "the final full norm is larger without ψ, since γ_k does not diminish",
            above(ends["constant"], ends["combined"]),
            below(ends["constant"], ends["combined"]),
            correction="a single run. Where the net fits every sample constant steps converge, and "
            "faster: the final norm is smaller",
        ),
    ]


def _late(one: Trained) -> float:
    """The median over nets and the last tenth of the epochs."""
    return float(np.median(one.full[:, -(one.full.shape[1] // 10) :]))


def _own(trained: dict[str, Trained], epochs: int) -> dict[str, Any]:
    table: dict[str, Any] = {"epoch": np.arange(epochs + 1)}
    for name, alpha, psi in (("combined", nets.ALPHA, _slow), ("constant", nets.ALPHA, None)):
        one = trained[name]
        batch = np.median(one.norms.reshape(len(one.norms), epochs + 1, -1), axis=(0, 2))
        table[f"{name} batch"] = batch
        table[f"{name} full"] = np.median(one.full, axis=0)
        late = np.arange(epochs + 1) > _WARMUP
        slowed = 0.5 * np.sqrt(np.arange(epochs + 1)) * late if psi else np.zeros(epochs + 1)
        table[f"{name} step"] = nets.FIRST / ((1 + slowed) * (alpha * batch + 1))
        table[f"{name} loss"] = np.median(one.loss, axis=0)
    return table


def _picture() -> Picture:
    panels = []
    for what, y in (("step", "step γ_k"), ("full", "norm of the full gradient")):
        series = []
        for name, label in (("combined", "ψ = .5√k after epoch 50"), ("constant", "ψ = 0")):
            series.append(Series("own", "epoch", f"{name} {what}", f"our net, {label}"))
        for name, label in (("combined", "ψ = .5√k"), ("constant", "ψ = 0")):
            series.append(Series(f"slides {name}", "epoch", what, f"slides, {label}", "", "points"))
        panels.append(Panel("epoch", y, series, log="y"))
    return Picture(
        "step-tables",
        "Steps γ0/((1 + ψ)(α|g| + 1)) with α = γ0 = .1 on a residual net of 17 layers: lines are "
        "medians over our nets, with the median norm of a sample's gradient; points are the "
        "slides' rows.",
        panels,
    )
