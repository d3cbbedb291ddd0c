"""Remark 1: how RR is related to the randomised Kaczmarz method."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both, is_so
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_ROWS, _COLUMNS, _STEPS = 40, 5, 400
_CHAINS = 2000


def _equation(x: Float[Array, " 5"], row: tuple[Array, Array]) -> Array:
    a, b = row
    return 0.5 * (jnp.dot(a, x) - b) ** 2


@experiment(
    "an-ying/remark-1",
    "On linear systems the scheme of section 2 is the randomised Kaczmarz method; (7) is not",
    covers=("Remark 1",),
    seconds=(6, 6),
)
def remark_1(setting: Setting) -> Outcome:
    """One step of either scheme on a consistent system, and their convergence."""
    random = np.random.default_rng(setting.seed)
    # Rows of unlike size, for equal ones make all schemes alike.
    A = random.normal(size=(_ROWS, _COLUMNS)) * np.repeat([1.0, 4.0], _ROWS // 2)[:, None]
    solution = random.normal(size=_COLUMNS)
    rows = np.sum(A**2, axis=1)
    problem = tw.FiniteSum(_equation, (A, A @ solution), groups=np.arange(_ROWS))
    step = 1 / rows.mean()
    start = jnp.asarray(solution + random.normal(size=_COLUMNS))
    samplers = {
        "rr-population": tw.Resampled(1, lipschitz=rows),
        "rr": tw.Reweighted(1),
        "sgd": tw.Minibatch(1),
    }
    distances: dict[str, np.ndarray] = {}
    residuals: dict[str, float] = {}
    x0 = float(jnp.sum((start - solution) ** 2))
    for family, sampler in samplers.items():
        # SGD's step is bounded by the largest row instead of the mean one.
        eta = 1 / rows.max() if family == "sgd" else step
        descent = tw.Descent(problem, sampler, eta)
        record = tw.Record(
            every=1, values={"square": lambda x: jnp.sum((x - jnp.asarray(solution)) ** 2)}
        )
        run = tw.simulate(
            descent, start, steps=_STEPS, key=setting.key, chains=_CHAINS, record=record
        )
        distances[family] = np.asarray(run.records["square"]).mean(axis=0) / x0
        one = tw.simulate(descent, start, steps=1, key=setting.key, chains=_CHAINS)
        left = np.abs((np.asarray(one.params) - solution) @ A.T) / np.sqrt(rows)
        residuals[family] = float(left.min(axis=1).max())
    rate = 1 - float(np.linalg.eigvalsh(A.T @ A)[0] / rows.sum())
    table = {"step": np.arange(_STEPS + 1), "bound": rate ** np.arange(_STEPS + 1), **distances}
    shown = {name: np.maximum(values, 1e-16)[:201] for name, values in table.items()}
    shown["step"] = table["step"][:201]
    return Outcome(_claims(distances, residuals, rate), {"distances": shown}, [_picture()])


def _claims(
    distances: dict[str, np.ndarray], residuals: dict[str, float], rate: float
) -> list[Claim]:
    steps = np.arange(1, 61)
    slack = float((distances["rr-population"][steps] / rate**steps).max())
    exact = residuals["rr-population"]
    return [
        Claim(
            "Remark 1",
            "(7) is similar to the randomised Kaczmarz method [21] on linear systems: each step "
            "solves one of the equations exactly",
            below(residuals["rr"], 1e-12),
            is_so(exact < 1e-12, f"largest residual after a step {exact:.1g}"),
            correction="the scheme of section 2 is that method, with L_i = |a_i|² and the step "
            "1/mean |a_i|²; (7) draws by |a_i| times the residual and solves none",
        ),
        Claim(
            "Remark 1, [21]",
            "it converges as E|x_k - x*|² ≤ (1 - σ_min²/|A|_F²)^k |x_0 - x*|² (Strohmer and "
            "Vershynin); largest quotient over 60 steps",
            below(slack, 1.0),
        ),
        Claim(
            "Remark 1, [18]",
            "and faster than SGD with the step that its largest row allows",
            both(
                above(
                    float(np.log10(distances["sgd"][60])),
                    float(np.log10(distances["rr-population"][60])),
                )
            ),
        ),
    ]


def _picture() -> Picture:
    labels = {
        "rr-population": "RR of section 2 (Kaczmarz)",
        "rr": "RR (7), same step",
        "sgd": "SGD, step 1/max |a|²",
    }
    series = [Series("distances", "step", f, label, f) for f, label in labels.items()]
    return Picture(
        "remark-1",
        "A consistent linear system of 40 equations with rows of two sizes: mean square distance "
        "from its solution, and Strohmer and Vershynin's bound.",
        [
            Panel(
                "iteration k",
                "E|x - x*|² over its start",
                [*series, Series("distances", "step", "bound", "bound", dashed=True)],
                log="y",
            )
        ],
    )
