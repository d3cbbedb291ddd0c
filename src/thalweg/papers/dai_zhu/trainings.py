"""What the networks' figures are made from: looks at trainings by pair, run and epoch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

FIGURES = ("Figure 3", "Figure 4", "Figure 5")
QUANTITIES = ("log norm", "log norm error", "train loss", "train", "test loss", "test")


class Pair(NamedTuple):
    """A learning rate and a batch size, and the document's colour for them."""

    gamma: float
    batch_size: int

    @property
    def label(self) -> str:
        """As in legends."""
        return f"γ = {self.gamma:g}, M = {self.batch_size}"


PAIRS = {"small": Pair(0.01, 128), "large": Pair(0.1, 128), "twin": Pair(0.2, 256)}


class Trainings(NamedTuple):
    """Looks at trainings.

    Attributes:
        epochs: When.
        numbers: By pair, shape (runs, epochs, quantities).
    """

    epochs: tuple[int, ...]
    numbers: dict[str, Float[np.ndarray, "runs epochs quantities"]]

    @classmethod
    def of(cls, epochs: Sequence[int], found: dict[str, list[np.ndarray]]) -> "Trainings":
        """Of the runs that all pairs have."""
        runs = min(len(one) for one in found.values())
        return cls(tuple(epochs), {name: np.stack(one[:runs]) for name, one in found.items()})

    @property
    def runs(self) -> int:
        """Runs of each pair."""
        return len(self.numbers["small"])

    def curves(self, name: str, quantity: str) -> Float[np.ndarray, "runs epochs"]:
        """A quantity by run and epoch; "log " before its name for its logarithm."""
        if quantity not in QUANTITIES:
            return np.log(self.curves(name, quantity.removeprefix("log ")))
        return self.numbers[name][..., QUANTITIES.index(quantity)]

    def over(self, name: str, quantity: str, first: int, last: int) -> Float[np.ndarray, " runs"]:
        """The mean of a quantity over the looks from one epoch to another, by run."""
        inside = [first <= epoch <= last for epoch in self.epochs]
        return self.curves(name, quantity)[:, inside].mean(axis=1)

    @property
    def settled(self) -> int:
        """The epoch from which the document's enlarged panels begin, and ours of fewer epochs."""
        return min(25, self.epochs[-1] // 4)
