"""Where chains leave."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from thalweg.errors import InputError
from thalweg.problem import Params
from thalweg.run import Run


@dataclass(frozen=True, eq=False)
class ExitPoints:
    r"""The law of the parameters at the exit, as points with weights.

    Points come in independent groups: the chains of a run, the replications of a splitting. With
    :math:`w_g(R)` the weight of the points of group g in a set R, the probability to leave in R is
    :math:`\sum_g w_g(R) / \sum_g w_g`, and its standard error that of a ratio of means,

    .. math:: \sqrt{\tfrac{G}{G-1} \sum_g (w_g(R) - p\,w_g)^2} \Big/ \sum_g w_g.

    For chains of equal weight that is :math:`\sqrt{p(1-p)/(N-1)}`.

    Attributes:
        params: The points, on a leading axis.
        weights: Their weights.
        groups: The number of the group of each.
        count: The number G of groups, those without points included.
    """

    params: Params
    weights: Float[np.ndarray, " points"]
    groups: Int[np.ndarray, " points"]
    count: int

    def probability(self, region: Callable[[Any], Any]) -> tuple[float, float]:
        """The probability to leave in a region, and its standard error.

        Args:
            region: A predicate on the params of one chain.

        Raises:
            InputError: No points at all.
        """
        inside = np.asarray(jax.vmap(region)(self.params), dtype=float)
        probabilities, errors = self._shares(inside[:, None])
        return float(probabilities[0]), float(errors[0])

    def histogram(
        self, function: Callable[[Any], Any], edges: Any
    ) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
        """The probabilities of bins of a function of the params, and their standard errors.

        What lies outside of all bins counts in the whole: probabilities sum to one or less.

        Args:
            function: From the params of one chain to a number, such as a coordinate or an angle.
            edges: The edges of the bins, increasing; a bin holds its lower edge, the last one both.

        Raises:
            InputError: No points at all, edges that do not increase.
        """
        edges = np.asarray(edges, dtype=float)
        if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
            raise InputError(f"edges are {edges}; expected two or more increasing numbers")
        values = np.asarray(jax.vmap(function)(self.params), dtype=float)
        bins = np.searchsorted(edges, values, side="right") - 1
        bins = np.where(values == edges[-1], edges.size - 2, bins)
        return self._shares(bins[:, None] == np.arange(edges.size - 1))

    def _shares(
        self, member: np.ndarray
    ) -> tuple[Float[np.ndarray, " sets"], Float[np.ndarray, " sets"]]:
        if not self.weights.size:
            raise InputError("no chain left, so there is no law of the exit points; run longer")
        own = np.stack(
            [np.bincount(self.groups, self.weights * x, self.count) for x in member.T], axis=1
        )
        total = np.bincount(self.groups, self.weights, self.count)
        shares = own.sum(axis=0) / total.sum()
        off = own - total[:, None] * shares
        inflated = self.count / max(self.count - 1, 1)
        return shares, np.sqrt(inflated * np.square(off).sum(axis=0)) / total.sum()


def exit_points(run: Run) -> ExitPoints:
    """Where the chains of a run left: one point for each that did, with equal weights.

    Chains that were still inside, or diverged, have none: with censoring it is the law of the exits
    within the run's steps, which is that of all exits where these are exponential.

    Raises:
        InputError: No chain left.
    """
    left = np.flatnonzero(np.asarray(run.exited))
    if not left.size:
        raise InputError(
            f"none of {run.exit_step.shape[0]} chains left within {run.steps} steps; run longer, "
            "or take splitting()"
        )
    points = jax.tree.map(lambda leaf: np.asarray(leaf)[left], run.params)
    return ExitPoints(points, np.ones(left.size), np.arange(left.size), left.size)
