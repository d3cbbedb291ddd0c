"""Which step rules have the sums that convergence proofs ask for."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import Check, above, below, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_FIRST, _PERIOD = 0.1, 50
_DOUBLINGS = 7


def _slow(epoch: Any) -> Any:
    return 0.5 * jnp.sqrt(epoch)


@experiment(
    "giselsson/summable-steps",
    "Sums of the step rules, and of their squares: which diverge, which do not",
    covers=("summable steps", "refined conditions", "combined step-size rule"),
    seconds=(2, 5),
)
def summable_steps(setting: Setting) -> Outcome:
    r"""Partial sums of :math:`\gamma_k` and :math:`\gamma_k^2` over doubled numbers of epochs."""
    longest = setting.choose(2**20, 2**23)
    epochs = jnp.arange(longest)
    periods = jnp.ceil(epochs / _PERIOD)
    rules: dict[str, Callable[[], Any]] = {
        "inverse": lambda: tw.steps.inverse_time(_FIRST, _PERIOD)(epochs),
        "root": lambda: tw.steps.inverse_sqrt_time(_FIRST, _PERIOD)(epochs),
        "table": lambda: _FIRST / (1 + _slow(epochs)),
        # psi as the slides print it; in epoch 0, where it is not defined, the step is gamma_0.
        "1/x": lambda: _FIRST / (1 + jnp.where(periods > 0, 1 / jnp.maximum(periods, 1), 0)),
        "1/sqrt x": lambda: (
            _FIRST / (1 + jnp.where(periods > 0, 1 / jnp.sqrt(jnp.maximum(periods, 1)), 0))
        ),
    }
    marks = longest // 2 ** np.arange(_DOUBLINGS, -1, -1)
    sums = {name: _sums(np.asarray(rule()), marks) for name, rule in rules.items()}
    tables = {"sums": {"epochs": marks}}
    for name, (first, second) in sums.items():
        tables["sums"][f"{name} sum"] = first
        tables["sums"][f"{name} squares"] = second
        tables["sums"][f"{name} ratio"] = first / second
    return Outcome(_claims(sums), tables, [_picture()])


def _sums(steps: np.ndarray, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum(steps)[marks - 1], np.cumsum(steps**2)[marks - 1]


def _diverges(sums: np.ndarray) -> Check:
    """Whether a doubling adds no less than the one before, as it does for 1/k and slower."""
    added = np.diff(sums)
    return above(float(added[-1] / added[-2]), 0.99)


def _converges(sums: np.ndarray) -> Check:
    """Whether a doubling adds so much less than the one before that the rest is finite."""
    added = np.diff(sums)
    return below(float(added[-1] / added[-2]), 0.75)


def _claims(sums: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[Claim]:
    first, second = sums["inverse"], sums["root"]
    # 1 + K (pi^2/6 - 1) for ceil(k/K): epoch 0, then K epochs of each number.
    total = _FIRST**2 * (1 + _PERIOD * (math.pi**2 / 6 - 1))
    return [
        Claim(
            "Step-sizes",
            "Σγ_k = ∞ and Σγ_k² < ∞ for γ0/(1 + ⌈k/K⌉), as a doubling of the epochs adds γ0 K log "
            "2 to the first, and the second tends to γ0²(1 + K(π²/6 - 1))",
            both(
                _diverges(first[0]),
                near(
                    float(np.diff(first[0])[-1]),
                    _FIRST * _PERIOD * math.log(2),
                    tolerance=1e-3,
                ),
                _converges(first[1]),
                near(float(first[1][-1]), total, tolerance=1e-3 * total),
            ),
        ),
        Claim(
            "Step-sizes",
            "not so for γ0/(1 + √⌈k/K⌉): its squares have no finite sum",
            both(_diverges(second[0]), _diverges(second[1])),
        ),
        *(
            Claim(
                "Step-sizes",
                f"Σγ_k = ∞ and Σγ_k/Σγ_k² = ∞ for {told}",
                both(_diverges(sums[name][0]), _grows(sums[name])),
            )
            for name, told in (
                ("inverse", "γ0/(1 + ⌈k/K⌉)"),
                ("root", "γ0/(1 + √⌈k/K⌉)"),
                ("table", "the tables' rule, γ0/(1 + √k/2)"),
            )
        ),
        Claim(
            "Combined step-size rule",
            "with ψ(x) = 1/x or 1/√x, small gradients get diminishing steps γ0/(1 + ψ(⌈k/K⌉)), "
            "with Σγ_k/Σγ_k² = ∞",
            both(_grows(sums["1/x"]), _grows(sums["1/sqrt x"])),
            both(_grows(sums["inverse"]), _grows(sums["root"])),
            correction="ψ(x) = x or √x; with 1/x the step grows back to γ0 and the ratio tends to "
            "1/γ0",
        ),
        Claim(
            "Combined step-size rule",
            "ψ = 1/x ends in constant steps: Σγ_k/Σγ_k² → 1/γ0 = 10",
            near(float(sums["1/x"][0][-1] / sums["1/x"][1][-1]), 1 / _FIRST, tolerance=0.05),
        ),
    ]


def _grows(sums: tuple[np.ndarray, np.ndarray]) -> Check:
    """Whether the ratio goes on growing, by no less in a doubling than in the one before."""
    added = np.diff(sums[0] / sums[1])
    return both(
        above(float(added[-1] / added[-2]), 0.9),
        above(float(added[-1] / (sums[0] / sums[1])[-1]), 0.01),
    )


def _picture() -> Picture:
    names = {
        "inverse": "γ0/(1 + ⌈k/K⌉)",
        "root": "γ0/(1 + √⌈k/K⌉)",
        "table": "γ0/(1 + √k/2)",
        "1/x": "γ0/(1 + 1/⌈k/K⌉)",
    }
    left = [Series("sums", "epochs", f"{name} squares", told) for name, told in names.items()]
    right = [Series("sums", "epochs", f"{name} ratio") for name in names]
    return Picture(
        "summable-steps",
        "Sums over the epochs with γ0 = .1, K = 50, for four step rules: of the squares, and the "
        "ratio of the sum to that of the squares.",
        [
            Panel("epochs", "Σγ_k²", left, log="xy"),
            Panel("epochs", "Σγ_k / Σγ_k²", right, log="xy"),
        ],
    )
