"""Figure 1: SGD leaves the minimum that gradient descent has found, with the same step."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import thalweg as tw
from thalweg.papers.checks import above, below, both
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wu_ma_e.minima import fresh

# Records of the noisy steps, and what "quickly" is: so many passes.
_RECORDS, _QUICKLY = 50, 2
_TESTED = 5000
# Test accuracies that differ by less are alike.
_ALIKE = 0.02


class _Plan(NamedTuple):
    """Sizes: right and wrong labels, hidden layers, step, batch, runs, loss to stop at, passes."""

    clean: int
    wrong: int
    hidden: tuple[int, ...]
    step: float
    batch: int
    runs: int
    below: float
    passes: int


class _Escape(NamedTuple):
    """One run.

    Attributes:
        steps: Steps of gradient descent.
        before: What it found: loss, accuracies, sharpness, threshold of SGD.
        after: What SGD found from there.
        control: What gradient descent comes to if it goes on as long.
        loss: The training loss by time since the switch.
        tested: The test accuracy likewise.
        at: These times, in steps.
    """

    steps: int
    before: dict[str, float]
    after: dict[str, float]
    control: dict[str, float]
    loss: np.ndarray
    tested: np.ndarray
    at: np.ndarray


@experiment(
    "wu-ma-e/figure-1",
    "Wrong labels on FashionMNIST: SGD leaves what GD has fitted, and finds what tests better",
    covers=("Figure 1", "fast escape", "SGD's minimum generalizes better"),
    seconds=(20, 2500),
    needs=("fashion-mnist",),
    float64=False,
)
def figure_1(setting: Setting) -> Outcome:
    """GD until all is fitted, then SGD with the same step; several random starts."""
    plan = setting.choose(
        _Plan(100, 20, (64, 64), 0.2, 2, 3, 1e-3, 50),
        _Plan(1000, 200, (500, 500, 500), 0.1, 4, 3, 1e-3, 100),
    )
    model = tw.models.mlp((784, *plan.hidden, 10))
    train, tested = _data(setting, plan)
    look = _both(train, tested)
    # One object, so that all runs share compiled programs.
    optimizer = optax.sgd(plan.step)
    runs = [_run(plan, model, train, look, optimizer, run, setting) for run in range(plan.runs)]
    return Outcome(_claims(plan, runs), _tables(plan, runs), [_picture(plan)], [_note(plan)])


def _note(plan: _Plan) -> str:
    return (
        f"{plan.clean} right and {plan.wrong} wrong labels, {plan.runs} random starts, η = "
        f"{plan.step}; GD until its loss is below {plan.below:g}, then B = {plan.batch} for "
        f"{plan.passes} passes. Of the wrong labels each is another one than the true one."
    )


def _data(setting: Setting, plan: _Plan) -> tuple[Any, Any]:
    data = setting.load("fashion-mnist")
    n = plan.clean + plan.wrong
    x = data.train.x[:n].reshape(n, -1)
    labels = data.train.y[:n].copy()
    rng = np.random.default_rng(setting.seed)
    labels[plan.clean :] = (labels[plan.clean :] + rng.integers(1, 10, plan.wrong)) % 10
    tested = data.test.x[:_TESTED].reshape(_TESTED, -1), data.test.y[:_TESTED]
    return (x, tw.datasets.one_hot(labels, 10)), (tested[0], tw.datasets.one_hot(tested[1], 10))


def _both(train: Any, tested: Any) -> Any:
    """Training and test samples with weights, so that means over all are means over either."""
    n, m = len(train[0]), len(tested[0])
    weights = np.repeat([[(n + m) / n, 0.0], [0.0, (n + m) / m]], [n, m], axis=0)
    parts = [np.concatenate(pair) for pair in zip(train, tested, strict=True)]
    return (*parts, weights.astype(np.float32))


@dataclass(frozen=True)
class _Loss:
    """The squared error of a net, of samples that have weights beside."""

    model: tw.models.Model

    def outputs(self, params: Any, sample: Any) -> Float[Array, " k"]:
        """What the net makes of a sample."""
        return self.model.apply(params, sample[0])

    def cost(self, outputs: Float[Array, " k"], sample: Any) -> Float[Array, ""]:
        """What outputs cost."""
        return tw.models.squared_error(outputs, sample[1])

    def __call__(self, params: Any, sample: Any) -> Float[Array, ""]:
        """The loss of a sample."""
        return self.cost(self.outputs(params, sample), sample)


def _right(outputs: Float[Array, " k"], sample: Any) -> Float[Array, ""]:
    return (jnp.argmax(outputs) == jnp.argmax(sample[1])).astype(outputs.dtype)


_METRICS = {
    "train loss": lambda o, s: s[2][0] * tw.models.squared_error(o, s[1]),
    "train accuracy": lambda o, s: s[2][0] * _right(o, s),
    "test accuracy": lambda o, s: s[2][1] * _right(o, s),
}


def _run(
    plan: _Plan,
    model: tw.models.Model,
    train: Any,
    look: Any,
    optimizer: Any,
    run: int,
    setting: Setting,
) -> _Escape:
    n = len(train[0])
    key = jax.random.fold_in(setting.key, run)
    loss = _Loss(model)
    # Samples of training have weights as well, which the loss does not look at.
    data = (*train, np.ones((n, 2), np.float32))
    common = {"optimizer": optimizer, "key": key, "metrics": _METRICS, "validation": look}

    def trained(start: Any, sampler: Any, label: str, **options: Any) -> Any:
        path = setting.checkpoint(f"{label} {run}")
        folder = None if path is None else path.with_suffix("")
        return tw.train(loss, start, data, sampler=sampler, folder=folder, **common, **options)

    fitted = trained(
        fresh(model, key), tw.Full(), "gd", steps=100_000, record_every=50, stop_below=plan.below
    )
    steps = plan.passes * n // plan.batch
    noisy = trained(
        fitted.params,
        tw.Reshuffled(plan.batch),
        "sgd",
        steps=steps,
        evaluate_every=max(1, steps // _RECORDS),
    )
    calm = trained(fitted.params, tw.Full(), "control", steps=plan.passes)
    problem = tw.FiniteSum(loss, data)
    looks = noisy.history["evaluation"]
    return _Escape(
        fitted.step,
        before=_place(problem, fitted, plan),
        after=_place(problem, noisy, plan),
        control=_place(problem, calm, plan),
        loss=np.asarray(looks["train loss"], dtype=float),
        tested=np.asarray(looks["test accuracy"], dtype=float),
        at=np.asarray(looks["step"]),
    )


def _place(problem: tw.FiniteSum, training: Any, plan: _Plan) -> dict[str, float]:
    looks = training.history["evaluation"]
    about = tw.stability.assess(
        problem, training.params, batch_size=plan.batch, step=plan.step, directions=2
    )
    return {
        **{name: float(looks[name][-1]) for name in _METRICS},
        "sharpness": about.sharpness,
        "non-uniformity": about.nonuniformity,
        "threshold": about.mean_square.upper,
    }


def _claims(plan: _Plan, runs: list[_Escape]) -> list[Claim]:
    right = [run.before["train accuracy"] for run in runs]
    passes = [run.at * plan.batch / (plan.clean + plan.wrong) for run in runs]
    rises = [
        run.loss[at <= _QUICKLY].max() / run.loss[0] for run, at in zip(runs, passes, strict=True)
    ]
    calm = [run.control["train loss"] / run.before["train loss"] for run in runs]
    ends = [run.after["train loss"] / run.loss.max() for run in runs]
    flatter = [math.log(run.after["sharpness"] / run.before["sharpness"]) for run in runs]
    better = Mean.of([run.after["test accuracy"] - run.before["test accuracy"] for run in runs])
    waited = Mean.of([run.control["test accuracy"] - run.before["test accuracy"] for run in runs])
    before = [run.before["threshold"] for run in runs]
    after = [run.after["threshold"] for run in runs]
    flat = Mean.of(flatter)
    return [
        Claim(
            "Figure 1",
            "gradient descent fits all labels, the wrong ones too",
            above(min(right), 1 - 0.5 / (plan.clean + plan.wrong)),
        ),
        Claim(
            "Figure 1",
            f"switched to SGD with the same step the iterates escape quickly: within {_QUICKLY} "
            "passes the loss is ten times what it was, in every run",
            above(min(rises), 10.0),
        ),
        Claim(
            "Figure 1, control",
            "gradient descent that goes on instead for as many passes stays: its loss does not "
            "rise to thrice what it was",
            below(max(calm), 3.0),
        ),
        Claim(
            "Figure 1",
            "SGD comes to another global minimum: the loss falls again, to a tenth of its peak, "
            "and the place is flatter (mean logarithm of the quotient of sharpnesses)",
            both(below(max(ends), 0.1), below(flat[0], -0.2, error=flat[1])),
        ),
        Claim(
            "Figure 1",
            "the minimum that SGD found generalizes better: its test accuracy is higher (mean "
            "difference over runs)",
            above(better[0], 0.0, error=better[1]),
            below(abs(better[0]), _ALIKE, error=better[1]),
            correction=f"flatter as it is, it tests alike, within {_ALIKE} of the accuracy",
        ),
        Claim(
            "Figure 1, control",
            "gradient descent that goes on does not gain in the test what SGD gains: the "
            "difference of the two, if any, is within the same",
            below(waited[0] - better[0], _ALIKE, error=math.hypot(better[1], waited[1])),
        ),
        Claim(
            "Figure 1, exact",
            "the exact threshold of mean-square stability says so: where gradient descent ended it "
            "is below the step in every run, where SGD ends it is above",
            both(below(max(before), plan.step), above(min(after), 0.95 * plan.step)),
        ),
    ]


def _tables(plan: _Plan, runs: list[_Escape]) -> dict[str, dict[str, Any]]:
    n = plan.clean + plan.wrong
    ends: dict[str, Any] = {"run": list(range(len(runs))), "GD steps": [r.steps for r in runs]}
    for place in ("before", "after", "control"):
        for name in (*_METRICS, "sharpness", "non-uniformity", "threshold"):
            ends[f"{place}: {name}"] = [getattr(run, place)[name] for run in runs]
    tested = np.array([run.tested for run in runs])
    losses = np.array([run.loss for run in runs])
    curves = {
        "pass": runs[0].at * plan.batch / n,
        "loss": np.exp(np.log(losses).mean(axis=0)),
        "test accuracy": tested.mean(axis=0),
        "test accuracy error": tested.std(axis=0, ddof=1) / math.sqrt(len(runs)),
    }
    level = float(np.mean([run.before["test accuracy"] for run in runs]))
    stayed = {
        "pass": [0.0, float(plan.passes)],
        "loss": [
            float(np.exp(np.mean([math.log(getattr(run, w)["train loss"]) for run in runs])))
            for w in ("before", "control")
        ],
        "test accuracy": [level, float(np.mean([run.control["test accuracy"] for run in runs]))],
    }
    return {"ends": ends, "curves": curves, "gradient descent": stayed}


def _picture(plan: _Plan) -> Picture:
    def panel(column: str, y: str, log: Any, error: str, labelled: bool) -> Panel:
        gd, sgd = ("GD goes on", f"SGD, B = {plan.batch}") if labelled else ("", "")
        series = [
            Series("curves", "pass", column, sgd, "sgd", error=error),
            Series("gradient descent", "pass", column, gd, "gd"),
        ]
        return Panel("passes since the switch", y, series, log=log)

    return Picture(
        "figure-1",
        f"FashionMNIST with wrong labels, η = {plan.step}: gradient descent has fitted all and is "
        "switched to SGD. Training loss (geometric mean over runs) and test accuracy.",
        [
            panel("loss", "training loss", "y", "", True),
            panel("test accuracy", "test accuracy", "", "test accuracy error", False),
        ],
    )
