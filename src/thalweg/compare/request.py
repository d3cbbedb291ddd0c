"""What a comparison is asked to do."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array, Key

from thalweg.errors import InputError, known

ProgressOf = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Request:
    """The options of :func:`thalweg.compare.compare`; None stands for the problem's own setting.

    ``work`` makes the folder for checkpoints. It is called once the request has been found to make
    sense, and before any work.
    """

    samplers: tuple[str, ...] | None = None
    step: float | None = None
    batch: tuple[int, ...] | None = None
    trials: int | None = None
    steps: int | None = None
    starts: str = "common"
    refresh: int | None = None
    seed: int = 0
    data: str | None = None
    data_dir: str | Path | None = None
    quick: bool = False
    track: float | None = None
    work: Callable[[], Path] | None = None
    folder: Path | None = None
    progress: ProgressOf | None = None

    def __post_init__(self) -> None:
        known(self.starts, ("common", "random"), "kind of starts")
        if self.track is not None and not self.track > 0:
            raise InputError(f"track must be a positive number of products, got {self.track}")
        for name in ("trials", "steps", "refresh"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")

    def get(self, name: str, own: Any) -> Any:
        """An option, or the problem's own setting if it is not given."""
        value = getattr(self, name)
        return own if value is None else value

    def begun(self) -> "Request":
        """The request with its folder made."""
        return self if self.work is None else replace(self, folder=self.work())

    @property
    def key(self) -> Key[Array, ""]:
        """The random key of the seed."""
        return jax.random.key(self.seed)

    def checkpoint(self, label: str) -> Path | None:
        """The file from which the simulation of this label goes on after a kill."""
        if self.folder is None:
            return None
        name = "".join(c if c.isalnum() else "-" for c in label.lower())
        return self.folder / f"{name}.npz"

    def progress_of(self, label: str) -> Callable[[int, int], None] | None:
        """The progress callback of the simulation of this label."""
        report = self.progress
        if report is None:
            return None
        return lambda done, total: report(label, done, total)
