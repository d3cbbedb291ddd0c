"""The graph of minima and the saddles between them: barriers and the disconnectivity tree."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from thalweg.critical.point import CriticalPoint
from thalweg.critical.search import Search
from thalweg.errors import InputError


class Merge(NamedTuple):
    """Two groups of minima that become one when a level rises to a saddle.

    Attributes:
        height: The objective at the saddle.
        left: The numbers of one group's minima, ascending; the one with the deeper minimum.
        right: Those of the other.
        saddle: The number of the saddle.
    """

    height: float
    left: tuple[int, ...]
    right: tuple[int, ...]
    saddle: int


@dataclass(frozen=True, eq=False)
class CriticalGraph:
    r"""Minima, the saddles of index one between them, and what was done to find them.

    Attributes:
        minima: The deepest first.
        saddles: The lowest first.
        joins: For each saddle the numbers of the two minima to which the gradient flow descends
            along its unstable direction, the smaller number first; equal if it comes back to one,
            -1 for a side that leaves the box or comes to rest at no isolated minimum.
        search: What was searched, and how sure it is that nothing is missing; its ``confidence``
            says so in words.
    """

    minima: tuple[CriticalPoint, ...]
    saddles: tuple[CriticalPoint, ...]
    joins: tuple[tuple[int, int], ...]
    search: Search

    def barrier(self, i: int, j: int) -> float:
        r"""How far f rises at least on the way from minimum i to minimum j.

        .. math::

            \min_{\text{paths } i \to j} \; \max_{\text{saddles on the path}} f - f(\theta_i),

        0 for i = j and infinite where no saddle that was found joins them, directly or by way of
        others.

        Raises:
            InputError: No such minimum.
        """
        if i == j:
            self._check(i, j)
            return 0.0
        merge = self._merge(i, j)
        return math.inf if merge is None else merge.height - self.minima[i].value

    def lowest_saddle(self, i: int, j: int) -> CriticalPoint:
        """The highest saddle on the lowest way from minimum i to minimum j.

        Raises:
            InputError: No such minimum, i = j, or no saddle that joins them (says what was
                searched).
        """
        merge = self._merge(i, j)
        if merge is None:
            raise InputError(
                f"{self.search.searched} found no saddle that joins minimum {i} and minimum {j}; "
                "expected minima that are joined: a larger box may hold the pass, more starts may "
                "find it"
            )
        return self.saddles[merge.saddle]

    def merges(self) -> tuple[Merge, ...]:
        """The disconnectivity tree: which groups of minima a rising level joins, lowest first.

        Groups that nothing joins stay apart, so m minima have at most m - 1 merges. Source: Becker
        and Karplus, J. Chem. Phys. 106, 1495 (1997).
        """
        groups: dict[int, tuple[int, ...]] = {i: (i,) for i in range(len(self.minima))}
        merges = []
        for number, (saddle, ends) in enumerate(zip(self.saddles, self.joins, strict=True)):
            if min(ends) < 0 or groups[ends[0]] == groups[ends[1]]:
                continue
            left, right = sorted((groups[ends[0]], groups[ends[1]]))
            merges.append(Merge(saddle.value, left, right, number))
            union = tuple(sorted(left + right))
            groups.update(dict.fromkeys(union, union))
        return tuple(merges)

    def _merge(self, i: int, j: int) -> Merge | None:
        """The merge that brings two minima together."""
        self._check(i, j)
        if i == j:
            raise InputError(f"minimum {i} twice; expected two minima, between which a saddle is")
        for merge in self.merges():
            sides = merge.left, merge.right
            if any(i in one and j in other for one, other in (sides, sides[::-1])):
                return merge
        return None

    def _check(self, *numbers: int) -> None:
        count = len(self.minima)
        for number in numbers:
            if not 0 <= number < count:
                raise InputError(
                    f"there is no minimum {number}: {self.search.searched} found {count} in all; "
                    "expected a number below that: a larger box or more starts may find others"
                )
