"""What an analytic problem says of itself."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.problem import FiniteSum


@dataclass(frozen=True, eq=False)
class KnownPoint:
    """A minimum or saddle that is known beforehand.

    Attributes:
        name: What the document calls it ("sharp, global", "flat").
        params: Where, shape (d,).
        value: The objective there.
    """

    name: str
    params: Float[Array, " d"]
    value: float


@dataclass(frozen=True, eq=False)
class Landscape:
    """A problem of low dimension with the setting of the experiment it comes from.

    Attributes:
        name: Its name on the command line.
        problem: The objective; params have shape (d,), also for d = 1.
        start: The common start of the experiment, shape (d,).
        step: The step size, or an Optax schedule of the iteration.
        steps: How many iterations the experiment takes.
        lower: Lower corner of the box in which minima are sought, random starts drawn and figures
            made, shape (d,).
        upper: Upper corner.
        source: The document, section or figure.
        batch_size: Draws a step.
        lipschitz: Lipschitz constants of the groups for the population scheme, if it applies.
        minima: Those known beforehand.
        saddles: Those known beforehand.
        smooth: False where the objective has kinks at its minima (no Hessian there).
        reading: How ambiguities of the document are read here, name to sentence.
    """

    name: str
    problem: FiniteSum
    start: Float[Array, " d"]
    step: float | Callable[[Any], Any]
    steps: int
    lower: Float[Array, " d"]
    upper: Float[Array, " d"]
    source: str
    batch_size: int = 1
    lipschitz: tuple[float, ...] | None = None
    minima: tuple[KnownPoint, ...] = ()
    saddles: tuple[KnownPoint, ...] = ()
    smooth: bool = True
    reading: Mapping[str, str] = field(default_factory=dict)


def positive(value: float, option: str) -> float:
    """Return an option that has to be a finite number above zero; InputError otherwise."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{option} is {value}; expected a finite number above zero")
    return value
