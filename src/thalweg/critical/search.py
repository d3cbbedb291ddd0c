"""What was searched for critical points, and how sure it is that none is missing."""

import math
from dataclasses import dataclass

from thalweg.critical.box import Box


@dataclass(frozen=True, eq=False)
class Search:
    r"""What was done in a box, and how sure it is that nothing was missed.

    *Hits.* If of N successful searches :math:`N_1` saddles were found by exactly one, the next
    successful search finds a new saddle with a probability of about :math:`N_1/N`.

    *Topology*, independently: in the plane #minima - #saddles + #maxima is the number of turns that
    :math:`\nabla f` makes around the border of the box, 1 if f rises outwards all round. So nothing
    can be missing alone. In any dimension, if f rises outwards all round, saddles join all minima.

    On a line minima and maxima alternate, and none is missing but pairs inside one cell.

    Attributes:
        box: Where.
        descents: Random starts that descended to minima, 0 on a line.
        climbs: Searches for saddles, 0 on a line.
        minima: How many there are.
        hits: How many searches ended at each saddle in the box, in the order of the graph.
        joined: Whether the saddles join all minima to one graph.
        maxima: How many were found, in the plane; None elsewhere.
        turns: Of :math:`\nabla f` around the border (of the box enlarged by a hundredth), in the
            plane; None elsewhere, or where it vanishes on the border.
        cells: Of the line, between which signs of f' were compared; None in more dimensions.

    Source: Good, Biometrika 40, 237 (1953) for :math:`N_1/N`; Esty, Ann. Stat. 11, 905 (1983) for
    its error; Milnor, Topology from the Differentiable Viewpoint (1965), section 6 for the turns.
    """

    box: Box
    descents: int
    climbs: int
    minima: int
    hits: tuple[int, ...]
    joined: bool
    maxima: int | None = None
    turns: int | None = None
    cells: int | None = None

    @property
    def unseen(self) -> float | None:
        """The probability that the next successful search finds a new saddle; None without any."""
        total = sum(self.hits)
        return self.hits.count(1) / total if total else None

    @property
    def unseen_error(self) -> float | None:
        r"""Its standard error :math:`(N_1 (1 - N_1/N) + 2 N_2)^{1/2}/N`, but at least 1/N."""
        total = sum(self.hits)
        if not total:
            return None
        ones, twos = self.hits.count(1), self.hits.count(2)
        return math.sqrt(max(ones * (1 - ones / total) + 2 * twos, 1.0)) / total

    @property
    def balanced(self) -> bool | None:
        """Whether the counts obey the law of the plane; None where it does not apply."""
        if self.turns is None or self.maxima is None:
            return None
        return self.minima - len(self.hits) + self.maxima == self.turns

    @property
    def searched(self) -> str:
        """What was searched, for sentences."""
        if self.cells is not None:
            return f"{self.cells} cells of {self.box}"
        return f"{self.descents} descents and {self.climbs} searches for saddles in {self.box}"

    @property
    def confidence(self) -> str:
        """How sure it is that nothing is missing, in words."""
        if self.cells is not None:
            return (
                f"All changes of sign of f' between {self.cells} cells of {self.box} were found; "
                "two in one cell would be missed."
            )
        return " ".join(filter(None, (self._of_hits(), self._of_counts(), self._of_joins())))

    def _of_hits(self) -> str:
        if not self.hits:
            return f"No saddle was found by {self.searched}."
        return (
            f"{sum(self.hits)} of {self.climbs} searches in {self.box} ended at a saddle. Saddles "
            f"found: {len(self.hits)}, at least {min(self.hits)} times each; the next search to "
            f"end at one finds a new one with probability {self.unseen:.2g} +- "
            f"{self.unseen_error:.1g}."
        )

    def _of_counts(self) -> str:
        if self.balanced is None:
            return ""
        counts = f"minima - saddles + maxima = {self.minima} - {len(self.hits)} + {self.maxima}"
        if self.balanced:
            return f"{counts} = {self.turns}, as often as the gradient turns around the border."
        return f"{counts}, but the gradient turns {self.turns} times: something is missing."

    def _of_joins(self) -> str:
        if self.joined or self.minima < 2:
            return ""
        return "Not all minima are joined: a saddle is missing, or the way leads through outside."
