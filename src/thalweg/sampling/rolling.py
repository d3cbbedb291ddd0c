"""Resampling-reweighting with scores taken slice by slice."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from thalweg.errors import InputError
from thalweg.problem import FiniteSum
from thalweg.random import Stream
from thalweg.sampling.base import check_size, sample_in
from thalweg.sampling.scored import AbstractKept, check_options


class Rolling(AbstractKept):
    r"""Samples drawn by kept scores, of which a slice is taken anew in each step, in turn.

    Every step costs the same, and no score is older than n/slice steps. Before step k the samples
    :math:`k m, \dots, k m + m - 1` (modulo n, with the slice m) are scored; then B samples are
    drawn, i with probability :math:`a_i r_i` and weight :math:`1/(B r_i)`, where
    :math:`r_i = (1-u) s_i/S + u` with the kept score :math:`s_i`, the mean S of all known scores
    and the share u of uniform draws. A sample whose turn has not come yet has :math:`s_i = S`, so
    that the first steps are SGD's and no first pass over the data is needed.

    Given the table, the covariance is

    .. math:: C = \frac1B \Big(\sum_i \frac{a_i}{r_i} g_i g_i^\top - \nabla f \nabla f^\top\Big),

    and u bounds it: no weight is above 1/(u B), so that it is at most SGD's second moment over u,
    however old the scores are.

    ``by="group"``: one score a group. The slice is of groups, in each of which a sample is drawn
    and scored; groups are drawn by :math:`A_j s_j`, and in them a sample.

    Args:
        size: The batch size B; draws are independent.
        slice: Scores taken in a step; a quarter of B, at least one, unless given.
        by: "sample" or "group".
        stale: "unbiased", or "fixed-length": weights from the *current* norms of the drawn
            samples, which cost B more; **biased** (see :class:`Reweighted`).
        uniform: The share u of draws from the population, from 0 to 1.
        smoothing: :math:`\lambda` of :math:`s^2 \leftarrow \lambda s^2_{old} + (1-\lambda)
            s^2_{new}`, below 1.

    Raises:
        InputError: An unknown option, a number outside its range, a slice larger than n.

    Cost: B gradients and a slice of norms in a step; a draw takes :math:`\sqrt n` operations.
    """

    size: int = eqx.field(static=True)
    slice: int = eqx.field(static=True)
    by: str = eqx.field(static=True)
    stale: str = eqx.field(static=True)
    uniform: float = eqx.field(static=True)
    smoothing: float = eqx.field(static=True)
    refresh: ClassVar[None] = None
    keeps: ClassVar[bool] = True

    def __init__(
        self,
        size: int,
        slice: int | None = None,
        *,
        by: str = "sample",
        stale: str = "unbiased",
        uniform: float = 0.1,
        smoothing: float = 0.0,
    ):
        check_size("Rolling", size)
        check_options("Rolling", by, stale, uniform, smoothing)
        own = max(1, size // 4) if slice is None else slice
        if isinstance(own, bool) or not isinstance(own, int) or own < 1:
            raise InputError(f"slice is a whole number of samples, at least 1; got {slice!r}")
        self.size = size
        self.slice = own
        self.by = by
        self.stale = stale
        self.uniform = float(uniform)
        self.smoothing = float(smoothing)

    @property
    def needs_current(self) -> bool:  # type: ignore[override]
        """Whether kept scores are corrected by current ones."""
        return self.stale == "fixed-length"

    def check(self, problem: FiniteSum) -> None:
        """The slice against n; groups, if drawn by group."""
        super().check(problem)
        if self.by == "sample" and self.slice > problem.n:
            raise InputError(
                f"Rolling takes a slice of {self.slice} samples in a step but the problem has "
                f"n = {problem.n}; expected at most {problem.n} (slice=)"
            )

    def asks(
        self, problem: FiniteSum, state: Any, stream: Stream, step: Any
    ) -> Int[Array, " slice"]:
        """The slice whose turn it is; by group, a sample of each of these groups."""
        count = self._count(problem)
        start = jnp.asarray(step % -(-count // self.slice), dtype=jnp.int32) * self.slice
        entries = (start + jnp.arange(self.slice, dtype=jnp.int32)) % count
        if self.by == "sample":
            return entries
        return sample_in(problem, stream.folded(0), entries)

    def evaluations(self, problem: FiniteSum) -> float:
        """B gradients, a slice of norms, and B current norms where these are used."""
        return float(self.size + self.slice + (self.size if self.needs_current else 0))
