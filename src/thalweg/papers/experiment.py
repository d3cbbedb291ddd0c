"""An experiment: one figure, table or statement of a document as a program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jax
from jaxtyping import Array, Key

from thalweg import datasets
from thalweg.papers.outcome import Outcome

Value = TypeVar("Value")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Setting:
    """How an experiment is run.

    Attributes:
        quick: Less of everything, so that it ends within a minute on two cores.
        seed: Of all random numbers.
        data_dir: Where data files are; None for ``THALWEG_DATA`` or a download.
        folder: Where a long run keeps checkpoints; None to keep none.
        progress: Told label, done, total.
    """

    quick: bool = False
    seed: int = 0
    data_dir: str | Path | None = None
    folder: Path | None = None
    progress: Progress | None = None

    @property
    def key(self) -> Key[Array, ""]:
        """The random key of the seed."""
        return jax.random.key(self.seed)

    def choose(self, quick: Value, full: Value) -> Value:
        """A number of trials or steps: the one for the quick run, or as in the document."""
        return quick if self.quick else full

    def checkpoint(self, label: str) -> Path | None:
        """The file from which the simulation of this label goes on after a kill."""
        if self.folder is None:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / ("".join(c if c.isalnum() else "-" for c in label.lower()) + ".npz")

    def progress_of(self, label: str) -> Callable[[int, int], None] | None:
        """The progress callback of one simulation."""
        report = self.progress
        return None if report is None else lambda done, total: report(label, done, total)

    def load(self, name: str) -> datasets.Dataset:
        """A data set by name, from where the setting says."""
        return datasets.load(name, self.data_dir)


@dataclass(frozen=True)
class Experiment:
    """A program with claims; call it to run it.

    Attributes:
        name: ``document/figure``, as on the command line.
        title: One line.
        covers: The numbered statements, figures and tables of the document that it has rows for.
        seconds: Time on two cores, quick and in full.
        function: The program.
        needs: Data sets by name.
        float64: Whether it is computed in 64 bits (analytic work), else in 32 (networks).
    """

    name: str
    title: str
    covers: Sequence[str]
    seconds: tuple[float, float]
    function: Callable[[Setting], Outcome] = field(repr=False)
    needs: Sequence[str] = ()
    float64: bool = True

    @property
    def document(self) -> str:
        """The document's short name."""
        return self.name.partition("/")[0]

    @property
    def times(self) -> str:
        """Its times on two cores in words."""
        quick, full = (_words(seconds) for seconds in self.seconds)
        return f"quick {quick}, in full {full}"

    def __call__(self, **setting: Any) -> Outcome:
        """Run it; the options are the fields of :class:`Setting`."""
        with jax.enable_x64(self.float64):
            return self.function(Setting(**setting))


def experiment(
    name: str,
    title: str,
    *,
    covers: Sequence[str],
    seconds: tuple[float, float],
    needs: Sequence[str] = (),
    float64: bool = True,
) -> Callable[[Callable[[Setting], Outcome]], Experiment]:
    """Make an :class:`Experiment` of a function of a :class:`Setting`; the same attributes."""

    def made(function: Callable[[Setting], Outcome]) -> Experiment:
        return Experiment(name, title, covers, seconds, function, needs, float64)

    return made


def _words(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
