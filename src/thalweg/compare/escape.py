"""How long until a sampler leaves the minimum of the start for another: answers side by side."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from thalweg.compare.entries import Entry
from thalweg.compare.known import Points
from thalweg.compare.request import Request
from thalweg.critical import CriticalPoint
from thalweg.diffusion import Diffusion
from thalweg.dynamics import AbstractDynamics, Descent
from thalweg.errors import InputError
from thalweg.escape import eyring_kramers, in_parallel, splitting
from thalweg.escape.coordinates import coordinate_to
from thalweg.landscapes import Landscape
from thalweg.limit import diffusion_limit
from thalweg.simulate import simulate
from thalweg.stopping import EnteredBall

# Another minimum is reached at this share of the way from its nearest saddle to it.
_REACHED = 0.5
# The equation is simulated with steps so many times finer than SGD's: Euler's errors are then small
# beside what the two differ by.
_FINER = 10
# Gradients of samples that the simulation of a row may cost, and chains that are worth it.
_BUDGET, _QUICK_BUDGET, _FEWEST = 3e8, 3e7, 8
# With fewer exits the mean is left to splitting, if its gradients of samples are cheap.
_ENOUGH, _SPLIT_BUDGET, _CHEAP = 20, 2e8, 100
# Where no chain of all leaves in so many steps, the mean is longer than a third of them (95 %).
_RULE_OF_THREE = 3.0
# Where only neighbours are known, a chain has left, too, at so many times the distance of the
# farthest: hot ones pass all of them by.
_BEYOND = 2.0
Cell = dict[str, Any]
_UNKNOWN = "steps of a schedule change from one to the next: simulated alone"


class Away(eqx.Module):
    """True near one of other minima, and far from home."""

    others: EnteredBall
    home: Float[Array, " d"]
    far: Float[Array, ""]

    def __call__(self, params: Float[Array, " d"]) -> Bool[Array, ""]:
        """Whether a chain is there."""
        gone = jnp.sum(jnp.square(params - self.home.astype(params.dtype)))
        return self.others(params) | (gone >= jnp.square(self.far).astype(params.dtype))


@dataclass(frozen=True)
class Escape:
    """The question: from the start to the neighbourhood of another minimum.

    Attributes:
        landscape: The landscape.
        home: The minimum in whose basin the start lies.
        saddles: Those over which it is left for another one, the lowest first.
        other: The minimum on the other side of the lowest.
        near: True near the other minima.
        exit: The same, where all minima are known; else also far from home.
    """

    landscape: Landscape
    home: CriticalPoint
    saddles: tuple[CriticalPoint, ...]
    other: CriticalPoint
    near: EnteredBall
    exit: EnteredBall | Away

    @staticmethod
    def of(landscape: Landscape, graph: Points, home: int) -> "Escape | None":
        """The question on a landscape; None where no known saddle leads to another minimum."""
        ways = [
            (saddle, sum(pair) - home)
            for saddle, pair in zip(graph.saddles, graph.joins, strict=True)
            if home in pair and min(pair) >= 0 and pair[0] != pair[1]
        ]
        centres, radii = [], []
        for place, minimum in enumerate(graph.minima):
            near = [
                float(jnp.linalg.norm(saddle.params - minimum.params))
                for saddle, pair in zip(graph.saddles, graph.joins, strict=True)
                if place in pair
            ]
            if place != home and near:
                centres.append(np.asarray(minimum.params))
                radii.append(_REACHED * min(near))
        if not ways or not centres:
            return None
        balls = EnteredBall(np.stack(centres), np.array(radii))
        begin, minima = graph.minima[home].params, graph.minima
        far = _BEYOND * max(float(jnp.linalg.norm(center - begin)) for center in balls.center)
        exit = Away(balls, begin, jnp.asarray(far)) if graph.local else balls
        if bool(exit(landscape.start)):
            return None
        saddles = tuple(saddle for saddle, _ in ways)
        return Escape(landscape, minima[home], saddles, minima[ways[0][1]], balls, exit)

    def row(self, entry: Entry, steps: int, trials: int, request: Request) -> Cell | None:
        """Simulated and asymptotic answers for a sampler; None where all chains are the same."""
        if entry.deterministic:
            return None
        problem = self.landscape.problem
        descent = Descent(problem, entry.sampler, entry.step)
        cost = entry.sampler.evaluations(problem)
        found = {
            **unanswered(_UNKNOWN),
            "sgd": self._simulated(descent, steps, trials, cost, request),
        }
        if callable(entry.step):
            return found
        try:
            limit = diffusion_limit(descent)
        except InputError as error:
            return {**found, "diffusion": _nothing(str(error)), "law": _no_law("")}
        finer = Diffusion(limit.drift, limit.noise, limit.step / _FINER)
        # Its covariance costs a product with each gradient for each parameter.
        dear = problem.n * self.landscape.start.size
        return {
            **found,
            "diffusion": self._simulated(finer, steps * _FINER, trials, dear, request),
            "law": self._law(limit),
        }

    def _simulated(
        self, dynamics: AbstractDynamics, steps: int, trials: int, cost: float, request: Request
    ) -> Cell:
        """The mean in SGD's steps: of chains that run or, if few of them leave, by splitting."""
        budget = (_QUICK_BUDGET if request.quick else _BUDGET) / cost
        chains = min(trials, max(_FEWEST, int(budget / steps)))
        steps = min(steps, max(1, int(budget / chains)))
        key = jax.random.fold_in(request.key, 3)
        run = simulate(
            dynamics, self.landscape.start, steps=steps, chains=chains, key=key, exit=self.exit
        )
        unit = _FINER if isinstance(dynamics, Diffusion) else 1
        left = int(run.exited.sum())
        scheduled = isinstance(dynamics, Descent) and callable(dynamics.step)
        rare = left < min(_ENOUGH, chains) and not (request.quick or scheduled)
        if rare and cost <= _CHEAP:
            split = self._split(dynamics, cost, request)
            if split is not None:
                mean, error = split
                return {**_nothing(""), "steps": mean / unit, "error": error / unit, "by": "split"}
        if left == 0:
            taken = chains * steps / _RULE_OF_THREE / unit
            return {**_nothing(""), "steps": taken, "by": "bound"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says how few they were
            mean, error = run.mean_exit_step()
        return {**_nothing(""), "steps": mean / unit, "error": error / unit, "by": "direct"}

    def _split(
        self, dynamics: AbstractDynamics, cost: float, request: Request
    ) -> tuple[float, float] | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the budget ended shows in the error
                found = splitting(
                    dynamics,
                    self.landscape.start,
                    exit=self.exit,
                    coordinate=coordinate_to(self.near, self.landscape.start),
                    key=jax.random.fold_in(request.key, 4),
                    budget=_SPLIT_BUDGET / cost,
                )
        except InputError:
            return None
        known = math.isfinite(found.mean_exit_steps) and found.error < found.mean_exit_steps
        return (found.mean_exit_steps, found.error) if known else None

    def _law(self, limit: Diffusion) -> Cell:
        """The law of Eyring and Kramers for the diffusion limit, over all saddles."""
        try:
            rates = [eyring_kramers(limit, self.home, saddle) for saddle in self.saddles]
        except InputError as error:
            return _no_law(str(error))
        rate = in_parallel(*rates)
        steps = rate.steps if rate.steps is not None and math.isfinite(rate.steps) else None
        found = {"steps": steps, "by": "law", "valid": rate.valid, "exponent": rate.exponent}
        return {**_nothing(rate.reason), **found}


def unanswered(remark: str) -> Cell:
    """A row without answers, and why."""
    return {"sgd": _nothing(remark), "diffusion": _nothing(remark), "law": _no_law(remark)}


def _no_law(remark: str) -> Cell:
    return {**_nothing(remark), "valid": False, "exponent": None}


def _nothing(remark: str) -> Cell:
    return {"steps": None, "error": None, "by": None, "remark": remark or None}
