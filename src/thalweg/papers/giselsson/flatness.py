"""Two like minima, one of which is a minimum of every term: which of them SGD leaves."""

from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.checks import Check, above, below, both, is_so, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.giselsson.common import batch_gradients, losses_on, step_size
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_LEFT, _TOP, _RIGHT = 0.8, 1.6, 2.4
_TERMS = 4
_PRINTED_GRADIENT, _PRINTED_NEXT = -2.77, 2.18


@experiment(
    "giselsson/flatness",
    "SGD leaves the minimum at which its terms disagree, and stays where they agree",
    covers=(
        *("step length", "flatness of minima", "flatness and mini-batches"),
        "fixed step at a solution",
    ),
    seconds=(9, 12),
)
def flatness(setting: Setting) -> Outcome:
    """The share of chains beyond the top between the minima, by step, batch and start."""
    landscape = tw.landscapes.flat_or_not()
    ours = landscape.problem
    # The same mean with four equal terms.
    alike = tw.FiniteSum(ours.loss, np.zeros(_TERMS))
    runs = {
        "SGD left": (ours, tw.Minibatch(1), _LEFT),
        "SGD right": (ours, tw.Minibatch(1), _RIGHT),
        "pairs": (ours, tw.Minibatch(2), _LEFT),
        "triples": (ours, tw.Minibatch(3), _LEFT),
        "GD left": (ours, tw.Full(), _LEFT),
        "GD right": (ours, tw.Full(), _RIGHT),
        "alike": (alike, tw.Minibatch(1), _LEFT),
    }
    chains = setting.choose(300, 2000)
    paths = {}
    for name, (problem, sampler, start) in runs.items():
        run = tw.simulate(
            tw.Descent(problem, sampler, landscape.step),
            jnp.array([start]),
            steps=landscape.steps,
            key=setting.key,
            chains=chains,
            record=tw.Record(every=1),
        )
        paths[name] = np.asarray(run.records["params"])[:, :, 0]
    tables = _tables(landscape, paths)
    return Outcome(_claims(landscape, paths), tables, [_picture()])


def _tables(landscape: tw.Landscape, paths: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    x = np.linspace(0.0, 3.0, 301)
    losses = losses_on(landscape.problem, x)
    table: dict[str, Any] = {"step": np.arange(landscape.steps + 1)}
    for name in ("SGD left", "pairs", "triples", "GD left"):
        table[name] = np.mean(paths[name] > _TOP, axis=0)
    first = np.array([_LEFT, _LEFT + step_size(landscape) * -_PRINTED_GRADIENT])
    heights = [float(landscape.problem.value(jnp.array([v]))) for v in first]
    return {
        "terms": {"x": x, "alike": losses[:, 0], "fourth": losses[:, 3], "f": losses.mean(axis=1)},
        "shares": table,
        "step": {"x": first, "f": heights},
    }


def _claims(landscape: tw.Landscape, paths: dict[str, np.ndarray]) -> list[Claim]:
    gamma = step_size(landscape)
    at_left = np.asarray(landscape.problem.gradients(jnp.array([_LEFT])))[:, 0]
    moves = np.unique(np.round(np.abs(np.diff(paths["SGD left"][:, :2], axis=1)), 9))
    lengths = np.unique(np.round(gamma * np.abs(at_left), 9))
    left, error = _share(paths["SGD left"])
    return [
        Claim(
            "Step-length",
            "a step of SGD has the length γ|∇f_i|: from .8 two lengths are met",
            is_so(bool(np.array_equal(moves, lengths)), f"met {moves}, expected {lengths}"),
        ),
        Claim(
            "Flatness of minima, example",
            "with x = .8, γ = .5 and i = 4 the gradient is -2.77, and the next point 2.18",
            both(
                near(float(at_left[3]), _PRINTED_GRADIENT, tolerance=5e-3),
                # Half of the last digits of 2.18, and of -2.77 times γ.
                near(
                    _LEFT - gamma * float(at_left[3]), _PRINTED_NEXT, tolerance=5e-3 + gamma * 5e-3
                ),
            ),
        ),
        Claim(
            "Flatness of minima",
            "GD stays in both minima",
            both(*(_stays(paths[name]) for name in ("GD left", "GD right"))),
        ),
        Claim("Flatness of minima", "SGD stays in the right one", _stays(paths["SGD right"])),
        Claim(
            "Flatness of minima",
            "SGD may escape the left one: of all chains more than .9 have within 100 steps",
            above(left, 0.9, error=error),
        ),
        Claim(
            "Flatness of minima",
            "from the mean loss alone it is impossible to say: with four equal terms and the same "
            "mean SGD stays in the left one",
            both(_stays(paths["alike"]), above(left, 0.9, error=error)),
        ),
        *_batches(landscape, paths),
    ]


def _batches(landscape: tw.Landscape, paths: dict[str, np.ndarray]) -> list[Claim]:
    point = jnp.array([_LEFT])
    sizes = []
    for batch in range(1, _TERMS + 1):
        gradients, _ = batch_gradients(landscape.problem, batch, point)
        sizes.append(float(np.sqrt(np.mean(gradients**2))))
    single, error = _share(paths["SGD left"])
    checks = [below(*_bounded(paths[name], 0.01)) for name in ("pairs", "triples")]
    return [
        Claim(
            "Mini-batch setting",
            "larger batches have smaller gradients: at .8 their root mean square falls with B = 1, "
            "2, 3, 4",
            both(*(below(b, a) for a, b in pairwise(sizes))),
        ),
        Claim(
            "Mini-batch setting",
            "larger batches are worse at escaping: batches of 2 and 3 stay in the left minimum "
            "(less than .01 leave)",
            both(*checks),
        ),
        Claim(
            "Mini-batch setting",
            "single samples are better at escaping than pairs",
            above(single - _share(paths["pairs"])[0], 0.0, error=error),
        ),
    ]


def _share(path: np.ndarray) -> tuple[float, float]:
    """The share beyond the top at the end; a share of 0 or 1 is known to one chain."""
    share = float(np.mean(path[:, -1] > _TOP))
    return share, max(float(np.sqrt(share * (1 - share) / len(path))), 1 / len(path))


def _bounded(path: np.ndarray, bound: float) -> tuple[float, float]:
    share = float(np.mean(np.any(path > _TOP, axis=1)))
    return share, bound


def _stays(path: np.ndarray) -> Check:
    return near(float(np.abs(path - path[:, :1]).max()), 0.0, tolerance=1e-9)


def _picture() -> Picture:
    terms = [
        Series("terms", "x", "alike", "f₁ = f₂ = f₃"),
        Series("terms", "x", "fourth", "f₄"),
        Series("terms", "x", "f", "their mean", "gd"),
        Series("step", "x", "f", "one step with i = 4", "sgd", "points"),
    ]
    shares = [
        Series("shares", "step", "SGD left", "SGD, B = 1", "sgd"),
        Series("shares", "step", "pairs", "SGD, B = 2", "sgd-half"),
        Series("shares", "step", "GD left", "GD", "gd", dashed=True),
    ]
    return Picture(
        "flatness",
        "Left: four terms and their mean, with minima at .8, where the terms disagree, and 2.4, "
        "where each is least. Right: the share of chains that have left .8, γ = .5.",
        [
            Panel("x", "loss", terms, limits=(-1.5, 3)),
            Panel("step k", "share beyond 1.6", shares, limits=(-0.05, 1.05)),
        ],
    )
