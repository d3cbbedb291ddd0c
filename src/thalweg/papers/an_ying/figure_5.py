"""Figure 5: the loss of a network over two of its weights, on MNIST."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import expit

import thalweg as tw
from thalweg.papers.an_ying.common import values
from thalweg.papers.checks import above, below, both, is_so, near
from thalweg.papers.estimates import Share, apart
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

# The code that the document names in its footnote: 784-50-500-10 without biases, a sigmoid in all
# layers, weights from NumPy's generator with this seed, the first images, two weights into one
# output, and the step 10 for half the squared error.
_WIDTHS = (784, 50, 500, 10)
_SEED, _IMAGES, _CLASS, _UNITS = 135, 100, 5, (250, 251)
_STEP, _STEPS = 10.0, 10_000
_START = (-5.0, 15.0)
_SAMPLERS = {
    "gd": ("gradient descent", tw.Full()),
    "sgd": ("SGD", tw.Minibatch(1)),
    "rr": ("RR", tw.Reweighted(1)),
}
# Costs that differ by less are the same; the two minima of the figure differ by .015.
_SAME = 0.003
_LOWER, _UPPER = jnp.array([-20.0, -30.0]), jnp.array([45.0, 25.0])


class _Slice(NamedTuple):
    """The problem in the two weights, and what the other outputs add to the costs."""

    problem: tw.FiniteSum
    others: float

    def costs(self, points: Any) -> np.ndarray:
        """The squared error, summed over outputs: twice the objective and the others' part."""
        return 2 * values(self.problem, points) + self.others


def _loss(weights: Float[Array, " 2"], sample: tuple[Array, Array, Array]) -> Array:
    """Half the squared error of the output that the two weights lead to."""
    activations, rest, target = sample
    return 0.5 * (jax.nn.sigmoid(rest + jnp.dot(weights, activations)) - target) ** 2


@experiment(
    "an-ying/figure-5",
    "A network over two weights: SGD drifts to a flat, shallow minimum, RR to the deep one",
    covers=("Figure 5",),
    seconds=(54, 250),
    needs=("mnist",),
)
def figure_5(setting: Setting) -> Outcome:
    """Ends from (-5, 15) of the footnote's network, and of others with other random weights."""
    data = setting.load("mnist")
    images = data.train.x[:_IMAGES].reshape(_IMAGES, -1).astype(float)
    labels = data.train.y[:_IMAGES]
    here = _slice(images, labels, _SEED)
    minima = sorted(
        tw.minima(here.problem, _LOWER, _UPPER, key=setting.key), key=lambda m: float(m.value)
    )
    # RR asks all images for the norm of their gradient at every step.
    chains = {"gd": 1, "sgd": 400, "rr": setting.choose(20, 200)}
    tables: dict[str, dict[str, Any]] = {"paths": {}, "costs": {}}
    shares: dict[str, Share] = {}
    for family, (label, sampler) in _SAMPLERS.items():
        run = _run(here.problem, sampler, setting, chains[family], label)
        shares[family] = Share.of(np.asarray(tw.basin(here.problem, minima, run.params)) == 0)
        paths = np.asarray(run.records["params"])[:10]
        tables["paths"][f"{family} a"], tables["paths"][f"{family} b"] = paths[0].T
        costs = here.costs(paths.reshape(-1, 2)).reshape(paths.shape[:2])
        tables["costs"]["step"] = run.record_steps
        tables["costs"][family] = costs.mean(axis=0)
        tables["costs"][f"{family} deviation"] = costs.std(axis=0)
    tables["minima"] = {
        "w_a": [float(m.params[0]) for m in minima],
        "w_b": [float(m.params[1]) for m in minima],
        "costs": [2 * float(m.value) + here.others for m in minima],
        "sharpness": [float(m.sharpness) for m in minima],
    }
    tables["landscape"] = _surface(here)
    tables["slices"] = _other_slices(setting, images, labels)
    return Outcome(
        [*_claims(tables["minima"], shares), *_of_slices(tables["slices"])],
        tables,
        [_picture()],
        [
            f"The network, seed {_SEED}, and the first {_IMAGES} images are those of the code that "
            f"the document names; {_STEPS} iterations of {chains['sgd']} chains of SGD and "
            f"{chains['rr']} of RR."
        ],
    )


def _slice(images: np.ndarray, labels: np.ndarray, seed: int) -> _Slice:
    random = np.random.RandomState(seed)
    pairs = zip(_WIDTHS[1:], _WIDTHS, strict=False)
    first, second, last = (random.randn(*pair) for pair in pairs)
    hidden = expit(second @ expit(first @ images.T))
    targets = np.eye(_WIDTHS[-1])[labels].T
    own = last[_CLASS].copy()
    own[list(_UNITS)] = 0.0
    errors = np.delete((expit(last @ hidden) - targets) ** 2, _CLASS, axis=0)
    sample = (hidden[list(_UNITS)].T, own @ hidden, targets[_CLASS])
    return _Slice(tw.FiniteSum(_loss, sample), float(errors.sum(axis=0).mean()))


def _run(problem: tw.FiniteSum, sampler: Any, setting: Setting, chains: int, label: str) -> tw.Run:
    return tw.simulate(
        tw.Descent(problem, sampler, _STEP),
        jnp.array(_START),
        steps=_STEPS,
        key=setting.key,
        chains=chains,
        record=tw.Record(every=100),
        progress=setting.progress_of(label),
    )


def _surface(here: _Slice) -> dict[str, np.ndarray]:
    a, b = np.linspace(-10.0, 24.0, 86), np.linspace(-12.0, 18.0, 76)
    points = np.stack(np.meshgrid(a, b), axis=-1).reshape(-1, 2)
    return {"a": a, "b": b, "costs": here.costs(points)}


def _other_slices(
    setting: Setting, images: np.ndarray, labels: np.ndarray
) -> dict[str, list[float]]:
    """Other random weights: where SGD and RR end, by what gradient descent finds from there."""
    rows: dict[str, list[float]] = {"seed": [], "gd": [], "sgd": [], "rr": []}
    for seed in range(setting.choose(12, 100)):
        other = _slice(images, labels, seed)
        rows["seed"].append(seed)
        for family, (label, sampler) in _SAMPLERS.items():
            chains = 1 if family == "gd" else 2
            run = _run(other.problem, sampler, setting, chains, f"seed {seed}, {label}")
            rows[family].append(float(other.costs(run.params).mean()))
    return rows


def _claims(minima: dict[str, list[float]], shares: dict[str, Share]) -> list[Claim]:
    (deep, *others), sharp = minima["costs"], minima["sharpness"]
    sgd, rr = shares["sgd"], shares["rr"]
    return [
        Claim(
            "Figure 5",
            "there are a sharper, deeper minimum and a flatter, shallower one next to it",
            both(
                near(len(others), 1),
                is_so(deep < others[0], f"costs {deep:.4f} and {others[0]:.4f}"),
                is_so(sharp[0] > 10 * sharp[1], f"sharpness {sharp[0]:.2g} and {sharp[1]:.2g}"),
            ),
        ),
        Claim(
            "Figure 5",
            "RR takes the way to the sharper and deeper minimum",
            above(rr.value, 0.7, error=rr.error),
        ),
        Claim(
            "Figure 5",
            "SGD diverges from it to the flatter and shallower one (difference of the shares that "
            "come to the deep one)",
            above(rr.value - sgd.value, 0.2, error=apart(rr, sgd)),
        ),
        Claim(
            "Figure 5",
            "this is consistent over multiple runs: no run of SGD comes to the deep one",
            near(sgd.value, 0.0, error=1 / 400),
            both(above(sgd.value, 0.3, error=sgd.error), below(sgd.value, 0.7, error=sgd.error)),
            correction="about half of the runs of SGD do",
        ),
        Claim(
            "Figure 5, control",
            "gradient descent, without noise, goes to the deep minimum as RR does",
            near(shares["gd"].value, 1.0),
        ),
    ]


def _of_slices(rows: dict[str, list[float]]) -> list[Claim]:
    sgd, rr = np.array(rows["sgd"]), np.array(rows["rr"])
    differ = np.abs(sgd - rr) > _SAME
    alike, better = Share.of(~differ), Share.of(rr < sgd - _SAME)
    lower, higher = int((rr < sgd)[differ].sum()), int((rr > sgd)[differ].sum())
    return [
        Claim(
            "section 4.3",
            "importance sampling is more likely to find the deeper minimum: with other random "
            "weights, too, RR ends lower than SGD",
            above(better.value, 0.5, error=better.error),
            both(
                above(alike.value, 0.5, error=alike.error),
                is_so(
                    lower > 0 and higher > 0,
                    f"of {differ.size} networks RR is lower in {lower} and SGD in {higher}",
                ),
            ),
            correction=f"in most networks both end with the same costs (to {_SAME}); where they "
            "do not, either may end lower",
        ),
    ]


def _picture() -> Picture:
    paths = [Series("landscape", "a", "b", z="costs", kind="contour")] + [
        Series("paths", f"{family} a", f"{family} b", label, family)
        for family, (label, _) in _SAMPLERS.items()
    ]
    costs = [
        Series("costs", "step", family, "", family, error=f"{family} deviation")
        for family in _SAMPLERS
    ]
    return Picture(
        "figure-5",
        "A network on MNIST over two weights of one output, η = 10, from (-5, 15). Left: one path "
        "of each sampler over lines of equal costs; the flat minimum is a plateau below. Right: "
        "the costs over ten trials, mean and deviation.",
        [Panel("w_a", "w_b", paths), Panel("iteration k", "costs", costs)],
    )
