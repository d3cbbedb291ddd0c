"""The toy example: two minima of one sharpness, of which SGD leaves the non-uniform one."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.stats import binom

import thalweg as tw
from thalweg.papers.checks import above, below, both, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

# The second derivatives of the two terms at the minima.
_RIGHT, _LEFT = (0.2, 3.8), (2.0, 2.0)
_STEP, _START = 0.7, 1.1
# Where both terms have the branches of the right minimum.
_ROOT = math.sqrt(1.9)
_BRANCHES = (_ROOT / (_ROOT + 1), _ROOT / (_ROOT - 1))
# Between the thresholds of mean square and of almost every path, and for so many steps.
_BETWEEN, _LONG, _PATHS = 0.556, 2000, 4000
# How far from the right minimum chains start that are to stay; the thresholds lie between these
# steps.
_CLOSE = 1e-3
_STEPS = (0.3, 0.4, 0.45, 0.48, 0.5, 0.52, 0.54, 0.55, 0.556, 0.565, 0.58, 0.6, 0.65, 0.7)


class _Found(NamedTuple):
    """What was measured.

    Attributes:
        exit: The mean number of steps until the branches are left at the step .7, and its error.
        times: Numbers of steps.
        within: The share of chains within the branches by then.
        exact: The same, exactly.
        mean: The mean number of steps, exactly.
        kept: The share of chains at the right minimum in the end, by the step.
        gd: Where gradient descent ends with the step .7.
        closer: The share of paths of the linear chain that are closer than at the start, between
            the thresholds: simulated, and exactly.
    """

    exit: tuple[float, float]
    times: Int[np.ndarray, " times"]
    within: Float[np.ndarray, " times"]
    exact: Float[np.ndarray, " times"]
    mean: float
    kept: Float[np.ndarray, " steps"]
    gd: float
    closer: tuple[float, float]


@experiment(
    "wu-ma-e/toy",
    "Two quarrelling terms: SGD leaves the minimum that is stable for gradient descent",
    covers=("toy example", "linear stability", "escape time"),
    seconds=(5, 8),
)
def toy(setting: Setting) -> Outcome:
    """Thresholds, exit times and shares that stay, for the pair of functions of the document."""
    landscape = tw.landscapes.toy_pair()
    chains = setting.choose(20_000, 400_000)
    descent = tw.Descent(landscape.problem, tw.Minibatch(1), _STEP)
    run = tw.simulate(
        descent,
        landscape.start,
        steps=400,
        key=setting.key,
        chains=chains,
        exit=tw.stopping.LeftBox(*_BRANCHES),
    )
    times = np.arange(0, 61, 2)
    exits = np.asarray(run.exit_step)
    within = np.array([(exits > t).mean() for t in times])
    survival = _survival(1000)
    gd = tw.simulate(
        tw.Descent(landscape.problem, tw.Full(), _STEP), landscape.start, steps=500, key=setting.key
    )
    found = _Found(
        exit=run.mean_exit_step(),
        times=times,
        within=within,
        exact=survival[times],
        mean=float(survival.sum()),
        kept=_kept(landscape, setting),
        gd=float(gd.params[0, 0]),
        closer=_closer(setting),
    )
    note = f"{chains} chains from {_START}; the branches of the right minimum hold on " + (
        f"({_BRANCHES[0]:.7f}, {_BRANCHES[1]:.7f}). No start is stated in the document."
    )
    return Outcome(_claims(found, chains), _tables(landscape, found), [_picture()], [note])


def _survival(steps: int) -> Float[np.ndarray, " steps"]:
    """P(no exit by step k) for k = 0, ..., exactly.

    After k steps, j of them with the curved term, the distance is .1 times a^(k - j) b^j with the
    factors a and b of the terms: paths are summed by j.
    """
    flat, curved = (1 - _STEP * h for h in _RIGHT)
    law, left = np.ones(1), [1.0]
    for k in range(1, steps):
        law = (np.append(law, 0.0) + np.append(0.0, law)) / 2
        j = np.arange(k + 1)
        place = 1 + (_START - 1) * flat ** (k - j) * curved**j
        law = np.where((place >= _BRANCHES[0]) & (place <= _BRANCHES[1]), law, 0.0)
        left.append(law.sum())
    return np.array(left)


def _kept(landscape: tw.Landscape, setting: Setting) -> Float[np.ndarray, " steps"]:
    """The share of chains that are at the right minimum in the end, from close to it."""
    shares = []
    for step in _STEPS:
        run = tw.simulate(
            tw.Descent(landscape.problem, tw.Minibatch(1), step),
            jnp.array([1 + _CLOSE]),
            steps=_LONG,
            key=setting.key,
            chains=setting.choose(500, 4000),
        )
        shares.append(float(np.mean(np.abs(np.asarray(run.params)[:, 0] - 1) < 0.1)))
    return np.array(shares)


def _closer(setting: Setting) -> tuple[float, float]:
    """The share of paths of the linear chain that come closer, and the law of this share."""
    curvatures = jnp.array(_RIGHT)
    linear = tw.FiniteSum(lambda x, h: 0.5 * h.astype(x.dtype) * jnp.sum(x**2), curvatures)
    run = tw.simulate(
        tw.Descent(linear, tw.Minibatch(1), _BETWEEN),
        jnp.array([1.0]),
        steps=_LONG,
        key=setting.key,
        chains=_PATHS,
        bound=1e300,
    )
    flat, curved = (math.log(abs(1 - _BETWEEN * h)) for h in _RIGHT)
    # (k - j) log|a| + j log|b| < 0 for so many j.
    most = math.ceil(-_LONG * flat / (curved - flat)) - 1
    share = float(np.mean(np.abs(np.asarray(run.params)[:, 0]) < 1))
    return share, float(binom.cdf(most, _LONG, 0.5))


def _claims(found: _Found, chains: int) -> list[Claim]:
    return [*_thresholds(found), *_escape(found, chains), *_lost(found)]


def _dense(curvatures: tuple[float, float]) -> Float[Array, "2 1 1"]:
    return jnp.array(curvatures)[:, None, None]


def _mean_square() -> float:
    """Where the right minimum ceases to be stable in mean square."""
    return tw.stability.mean_square_threshold(_dense(_RIGHT), 1)


def _almost_sure() -> float:
    """Where almost every path begins to leave it; exact on a line, whatever the key."""
    return tw.stability.almost_sure_threshold(_dense(_RIGHT), 1, key=jax.random.key(0)).value


def _exponent(step: float) -> float:
    return tw.stability.lyapunov_exponent(_dense(_RIGHT), step, 1, key=jax.random.key(0)).value


def _thresholds(found: _Found) -> list[Claim]:
    growth = tw.stability.mean_square_radius(_dense(_RIGHT), _STEP, 1)
    return [
        Claim(
            "Toy example",
            "SGD with step .7 escapes the right minimum because it is unstable: E A² = 1.7476 and "
            "the Lyapunov exponent .177997 are beyond 1 and 0",
            both(
                near(growth, 1.7476, tolerance=5e-5),
                near(_exponent(_STEP), 0.177997, tolerance=5e-7),
            ),
        ),
        Claim(
            "Toy example",
            "gradient descent with this step stays, and SGD would at the left minimum: both are "
            "stable up to 1",
            both(
                near(found.gd, 1.0, tolerance=1e-6),
                near(2 / float(np.mean(_RIGHT)), 1.0, tolerance=1e-12),
                near(tw.stability.mean_square_threshold(_dense(_LEFT), 1), 1.0, tolerance=1e-9),
            ),
        ),
        Claim(
            "Toy example, thresholds",
            "mean-square stability of the right minimum ends at 4/7.24 = .5524862, that of almost "
            "every path at (4 - √9.92)/1.52 = .5594716",
            both(
                near(_mean_square(), 4 / 7.24, tolerance=1e-9),
                near(_almost_sure(), (4 - math.sqrt(9.92)) / 1.52, tolerance=1e-9),
            ),
        ),
    ]


def _escape(found: _Found, chains: int) -> list[Claim]:
    errors = np.sqrt(np.maximum(found.exact * (1 - found.exact), 1 / chains) / chains)
    worst = float(np.max(np.abs(found.within - found.exact) / errors))
    return [
        Claim(
            "Toy example, escape time",
            "from 1.1 the branches of the right minimum are left after 10.449 steps in the mean",
            both(
                near(found.mean, 10.449, tolerance=5e-4),
                near(found.exit[0], found.mean, error=found.exit[1]),
            ),
        ),
        Claim(
            "Toy example, escape time",
            "the times are distributed as the sum over all paths says (largest of "
            f"{len(found.times)} deviations, in standard errors)",
            below(worst, 4.5),
        ),
    ]


def _lost(found: _Found) -> list[Claim]:
    growth = tw.stability.mean_square_radius(_dense(_RIGHT), _BETWEEN, 1)
    simulated, law = found.closer
    spread = math.sqrt(law * (1 - law) / _PATHS)
    steps = np.array(_STEPS)
    between = float(found.kept[(steps > _mean_square()) & (steps < _almost_sure())].min())
    return [
        Claim(
            "(3)",
            "a minimum that is not linearly stable is left: of the chains that start close to it "
            "most are lost as soon as the step is beyond the mean-square threshold",
            below(between, 0.5),
            both(
                above(between, 0.5),
                below(float(found.kept[steps > 0.58].max()), 0.5),
                near(float(found.kept[steps < 0.5].min()), 1.0, tolerance=0.01),
            ),
            correction="between .5525 and .5595 second moments explode while most paths converge; "
            "beyond, nearly all are lost",
        ),
        Claim(
            "(3)",
            f"at η = {_BETWEEN} E|x|² grows by {growth:.4f} a step, and yet almost every path of "
            "the linear chain shrinks: the share that has come closer is the binomial one",
            both(
                above(growth, 1.0),
                below(_exponent(_BETWEEN), 0.0),
                near(simulated, law, error=spread),
                above(simulated, 0.95, error=spread),
            ),
        ),
    ]


def _tables(landscape: tw.Landscape, found: _Found) -> dict[str, dict[str, Any]]:
    x = np.linspace(-0.6, 1.8, 161)
    terms = np.asarray(jax.vmap(landscape.problem.losses)(jnp.asarray(x)[:, None]))
    return {
        "functions": {"x": x, "f1": terms[:, 0], "f2": terms[:, 1], "f": terms.mean(axis=1)},
        "exit": {"step": found.times, "simulated": found.within, "exact": found.exact},
        "kept": {"step size": _STEPS, "share": found.kept},
    }


def _picture() -> Picture:
    functions = [
        Series("functions", "x", name, label)
        for name, label in (("f1", "f₁"), ("f2", "f₂"), ("f", "their mean"))
    ]
    exits = [
        Series("exit", "step", "exact", "all paths", "0"),
        Series("exit", "step", "simulated", "SGD", "sgd", "points"),
    ]
    kept = [Series("kept", "step size", "share", "", "sgd", "points")]
    return Picture(
        "toy",
        "The two functions; the share of chains that have not left the branches of the right "
        "minimum, η = .7; the share that is there in the end, by the step, from close by.",
        [
            Panel("x", "f(x)", functions, limits=(0.0, 1.2)),
            Panel("iteration k", "share inside", exits, log="y", limits=(1e-3, 1.2)),
            Panel(
                "step η",
                "share that stays",
                kept,
                marks=((4 / 7.24, ""), (0.5594716, " almost surely")),
            ),
        ],
    )
