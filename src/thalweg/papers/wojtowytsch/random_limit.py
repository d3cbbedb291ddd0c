"""Convergence with a fixed step, to a point of the set of minimisers that chance picks."""

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.estimates import Mean
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series
from thalweg.papers.wojtowytsch.common import slope, two_factors

_TIME = 20.0
_STEP = 0.02
_STARTS = ((2.0, 0.1), (1.5, 0.1))
_SHOWN = 300


@experiment(
    "wojtowytsch/random-limit",
    "SGD with a small fixed step converges to a random minimiser that depends on its start",
    covers=(
        *("small positive step", "limit depends on the start", "summary, linear convergence"),
        *("open problem 2, overparametrised", "open problem 5, realistic growth"),
        "open problem 1, continuum model",
    ),
    seconds=(9, 11),
)
def random_limit(setting: Setting) -> Outcome:
    r"""SGD, and its diffusion limit, on :math:`f_i = x_i^2 (ab - 1)^2/2`.

    The gradient flow keeps :math:`a^2 - b^2`; SGD multiplies it by :math:`1 - (\eta x_i^2 r)^2`
    with :math:`r = ab - 1`, so that its limit on the hyperbola is random, by the order
    :math:`\eta^{3/2}` in :math:`\log(a^2 - b^2)`.
    """
    chains = setting.choose(2000, 20_000)
    ends = {
        (step, start): _end(setting, _descent(step), start, chains)
        for step, start in ((_STEP, 0), (_STEP / 2, 0), (_STEP, 1))
    }
    limit = tw.diffusion_limit(_descent(_STEP))
    fine = tw.Diffusion(limit.drift, limit.noise, _STEP / 16)
    continuous = _end(setting, fine, 0, chains // 4)
    losses = _losses(setting)
    claims = [
        *_convergence(ends, losses),
        *_where(ends, _linear_spread(setting)),
        *_beyond(ends[_STEP, 0], continuous),
        _bounded_noise(setting),
    ]
    t = np.geomspace(0.4, 2.2, 100)
    tables = {
        "minimisers": {"a": t, "b": 1 / t},
        **{
            f"ends {start}": dict(zip("ab", ends[_STEP, start][:_SHOWN].T, strict=True))
            for start in (0, 1)
        },
        "starts": dict(zip("ab", np.transpose(_STARTS), strict=True)),
        "losses": losses,
        "spread": _histogram(ends),
    }
    return Outcome(claims, tables, [_picture()])


def _descent(step: float) -> tw.Descent:
    return tw.Descent(two_factors(), tw.Minibatch(1), step)


def _end(
    setting: Setting, dynamics: tw.Descent | tw.Diffusion, start: int, chains: int
) -> np.ndarray:
    steps = round(_TIME / float(np.asarray(dynamics.step)))
    begin = jnp.asarray(_STARTS[start])
    run = tw.simulate(dynamics, begin, steps=steps, key=setting.key, chains=chains)
    return np.asarray(run.params)


def _losses(setting: Setting) -> dict[str, np.ndarray]:
    """The median of the loss on the way."""
    problem = two_factors()
    record = tw.Record(every=10, values={"loss": problem.value})
    run = tw.simulate(
        _descent(_STEP),
        jnp.asarray(_STARTS[0]),
        steps=400,
        key=setting.key,
        chains=256,
        record=record,
    )
    losses = np.asarray(run.records["loss"])
    low, middle, high = np.quantile(losses, [0.16, 0.5, 0.84], axis=0)
    return {"step": run.record_steps, "low": low, "median": middle, "high": high}


def _kept(ends: np.ndarray) -> np.ndarray:
    return np.log(ends[:, 0] ** 2 - ends[:, 1] ** 2)


def _histogram(ends: dict[tuple[float, int], np.ndarray]) -> dict[str, np.ndarray]:
    """The densities of the limits around their means, at two steps."""
    around = {step: _kept(ends[step, 0]) for step in (_STEP, _STEP / 2)}
    around = {step: 1e4 * (values - values.mean()) for step, values in around.items()}
    edges = np.linspace(-3, 6, 61)
    return {
        "place": (edges[1:] + edges[:-1]) / 2,
        **{f"{s:g}": np.histogram(v, edges, density=True)[0] for s, v in around.items()},
    }


def _convergence(
    ends: dict[tuple[float, int], np.ndarray], losses: dict[str, np.ndarray]
) -> list[Claim]:
    worst = max(float(abs(e.prod(axis=1) - 1).max()) for e in ends.values())
    # At the limit one step multiplies r by 1 - eta x_i^2 (a^2 + b^2).
    squares = (ends[_STEP, 0] ** 2).sum(axis=1)[:, None] * np.array([0.25, 2.25])
    rate = float(2 * np.log(abs(1 - _STEP * squares)).mean())
    part = slice(10, 30)
    found = slope(losses["step"][part], np.log(losses["median"][part]))
    return [
        Claim(
            "expectation 1",
            "with a small, strictly positive step SGD converges, without steps that go to zero: "
            "the largest |ab - 1| at the end of all chains",
            below(worst, 1e-11),
        ),
        Claim(
            "expectation 1",
            "exponentially fast: the slope of log f by the step is 2 E log|1 - η x²(a² + b²)|, the "
            "exponent of the chain at its limits",
            # Of the median of 256 chains over 200 steps: its walk has a deviation of some 5 %.
            both(below(found, 0.0), near(found, rate, tolerance=0.1 * abs(rate))),
        ),
    ]


def _where(ends: dict[tuple[float, int], np.ndarray], linear: float) -> list[Claim]:
    kept = {name: _kept(points) for name, points in ends.items()}
    spreads = [float(kept[step, 0].std(ddof=1)) for step in (_STEP, _STEP / 2)]
    count = len(kept[_STEP, 0])
    ratio = spreads[0] / spreads[1]
    other = Mean.of(kept[_STEP, 1])
    apart = abs(Mean.of(kept[_STEP, 0])[0] - other[0]) / spreads[0]
    return [
        Claim(
            "Lemma and Theorem, θ_∞",
            "the limit in the set of minimisers is random: log(a² - b²) has a deviation there, "
            "which falls as η^(3/2) (ratio at η and η/2)",
            both(
                above(spreads[1], 0.0, error=spreads[1] / (2 * count) ** 0.5),
                # The next order of eta adds some per cent.
                near(ratio, 2**1.5, error=ratio / count**0.5, tolerance=0.1 * 2**1.5),
            ),
        ),
        Claim(
            "Lemma and Theorem, θ_∞",
            "the limit is random for every such objective; for linear least squares: its largest "
            "deviation",
            above(linear, 1e-12),
            below(linear, 1e-12),
            correction="a random variable that may be constant: with linear models every chain "
            "ends at the projection of its start",
        ),
        Claim(
            "expectation 3",
            "the limit depends on the start: distance between the mean limits of two starts, in "
            "deviations of one",
            above(apart, 5.0, error=1 / count**0.5),
        ),
    ]


def _linear_spread(setting: Setting) -> float:
    """Of the limits of SGD on two equations with three unknowns."""
    rows = jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]])
    problem = tw.FiniteSum(
        lambda p, xy: (jnp.dot(xy[0], p) - xy[1]) ** 2 / 2, (rows, jnp.array([1.0, -1.0]))
    )
    run = tw.simulate(
        tw.Descent(problem, tw.Minibatch(1), 0.2),
        jnp.array([1.0, 0.5, 2.0]),
        steps=1000,
        key=setting.key,
        chains=64,
    )
    return float(np.asarray(run.params).std(axis=0).max())


def _beyond(discrete: np.ndarray, continuous: np.ndarray) -> list[Claim]:
    problem = two_factors()
    # Along the minimisers (t, 1/t) the curvature is E x^2 (t^2 + t^-2): 1.25 times that.
    points = jnp.array([[1.0, 1.0], [10.0, 0.1]])
    curvatures = np.asarray(tw.manifolds.normal_space(problem, points).curvatures)[:, 0]
    saddle = float(jnp.sum(problem.gradient(jnp.zeros(2)) ** 2) / problem.value(jnp.zeros(2)))
    ratio = float(_kept(continuous).std() / _kept(discrete).std())
    error = ratio * (0.5 / len(continuous) + 0.5 / len(discrete)) ** 0.5
    return [
        Claim(
            "Lemma, hypotheses; open problem 5",
            "the gradient is Lipschitz with one constant, and Λf ≤ |∇f|²: curvature at the "
            "minimisers (1, 1) and (10, 1/10), |∇f|²/f at the origin",
            both(near(curvatures[1] / curvatures[0], 1.0, tolerance=0.5), above(saddle, 0.0)),
            both(
                near(curvatures[1] / curvatures[0], 50.005, tolerance=1e-6),
                near(saddle, 0.0, tolerance=1e-12),
            ),
            correction="neither holds globally for as little as a product of two factors; what is "
            "needed is that chains stay where both do",
        ),
        Claim(
            "open problem 2",
            "continuous time SGD in an overparametrised landscape converges as well: the largest "
            "|ab - 1| of all paths of the diffusion limit",
            below(float(abs(continuous.prod(axis=1) - 1).max()), 1e-11),
        ),
        Claim(
            "open problem 1",
            "the limits of the diffusion are spread as SGD's are: ratio of the deviations of "
            "log(a² - b²)",
            near(ratio, 1.0, error=error, tolerance=0.1),
            above(ratio, 1.2, error=error),
            correction="they are wider, at a deviation of the order η^(3/2), which is beyond what "
            "the diffusion limit promises: in SGD a large x² both moves the chain along the "
            "minimisers and brings it closer to them",
        ),
    ]


def _bounded_noise(setting: Setting) -> Claim:
    landscape = tw.landscapes.three_quadratics(start="minimum")
    step = 0.1
    run = tw.simulate(
        tw.Descent(landscape.problem, tw.Minibatch(1), step),
        landscape.start,
        steps=400,
        key=setting.key,
        chains=512,
    )
    square, error = Mean.of((np.asarray(run.params) ** 2).sum(axis=1))
    return Claim(
        "expectation 1",
        "unlike SGD whose noise does not vanish at the solution: three quadratics without a common "
        "minimiser keep E|θ|² = η/(2 - η) for good (η = .1)",
        near(square, step / (2 - step), error=error),
    )


def _picture() -> Picture:
    ends = [
        Series("minimisers", "a", "b", "minimisers ab = 1", "gd"),
        Series("ends 0", "a", "b", "limits from (2, .1)", "sgd", "points"),
        Series("ends 1", "a", "b", "limits from (1.5, .1)", "rr", "points"),
        Series("starts", "a", "b", "starts", "", "points"),
    ]
    decay = [
        Series("losses", "step", "low", "", "sgd", "band", upper="high"),
        Series("losses", "step", "median", "median loss, 16 to 84 % shaded", "sgd"),
    ]
    spread = [
        Series("spread", "place", "0.02", "limits, η = .02", "sgd", "steps"),
        Series("spread", "place", "0.01", "limits, η = .01", "sgd-half", "steps"),
    ]
    return Picture(
        "random-limit",
        "Limits of 300 chains of SGD from each of two starts, on two factors with η = .02, the "
        "loss on the way, and where on the hyperbola the chains from (2, .1) end.",
        [
            Panel("a", "b", ends),
            Panel("steps", "f", decay, log="y"),
            Panel("10⁴ × log(a² - b²) at the limits, around the mean", "density", spread),
        ],
    )
