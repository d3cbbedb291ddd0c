"""The one entry of ``thalweg train``: a configuration to the result of training by it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from thalweg.errors import InputError
from thalweg.output import Output, environment
from thalweg.sampling import Cyclic, Full, Reshuffled
from thalweg.train.arguments import check_whole_batches
from thalweg.train.auto import Auto
from thalweg.train.config import Config
from thalweg.train.curvature_path import check_followed, followed
from thalweg.train.ends import flat
from thalweg.train.files import ROWS, SCHEMA, is_training
from thalweg.train.folder import Origin, points_of
from thalweg.train.loop import Training, train
from thalweg.train.networks import Network, is_correct, load_network
from thalweg.train.record import add_costs, add_targets, failed_record, row_record
from thalweg.train.rows import GAUGES, Row, rows_of
from thalweg.train.sentences import training_sentences
from thalweg.train.training import TrainingError

Progress = Callable[[str, int, int], None] | None
# Looks along a run, where the configuration says nothing.
_EVALUATIONS, _RECORDS = 50, 100


@dataclass(frozen=True, eq=False)
class Job:
    """A training that makes sense: its data are there, its model fits them.

    Attributes:
        target: The configuration or the run folder, as it was asked for.
        origin: The configuration and where it comes from.
        network: What is trained.
        rows: By which samplers.
        data_dir: Where the data are.
        track: Products with the Hessian that following may take for a step, None for none.
    """

    target: str
    origin: Origin
    network: Network
    rows: list[Row]
    data_dir: str | None
    track: float | None

    @staticmethod
    def of(
        target: str | Path, *, data_dir: str | Path | None = None, track: float | None = None
    ) -> "Job":
        """The training that a configuration file, or the folder of a training, describes.

        Raises:
            InputError: Before any work: what is wrong with the configuration, with its line; data
                that are missing or do not fit; a budget that is not positive.
        """
        if track is not None and not track > 0:
            raise InputError(f"track must be a positive number of products, got {track}")
        origin = Origin.of(str(target))
        where = origin.data_dir if data_dir is None else str(Path(data_dir).resolve())
        network = load_network(origin.request, where, origin.beside)
        if track is not None:
            check_followed(network)
        rows = rows_of(origin.request, network.n, network.groups)
        for row in rows:
            check_whole_batches(row.sampler, network.n, network.state)
        return Job(str(target), origin, network, rows, where, track)

    @property
    def arguments(self) -> dict[str, Any]:
        """What decides the result; comments and the place of the file do not."""
        return {
            "config": self.origin.request.config.model_dump(mode="json"),
            "own": self.origin.own_digest(),
            "track": self.track,
        }

    def folder(self, out: Path | None, resume: bool = False) -> Path:
        """Where the result goes: ``out``, the folder it was taken from, or one named after it.

        Raises:
            InputError: Nothing there to ``resume``.
        """
        named = {"command": "train", "problem": self.network.name, **self.arguments}
        folder = Output.at(out or self.origin.home, named).folder
        if resume and not is_training(folder):
            raise InputError(
                f"--resume: {folder} holds no training to go on with; leave --resume out to begin "
                "one, or give its folder as --out"
            )
        return folder

    def run(self, folder: Path, progress: Progress = None) -> dict[str, Any]:
        """Train every row in its own folder, from which a killed run goes on.

        A row whose seeds have all diverged is told about in the result.

        Args:
            folder: The folder of the result, which is there.
            progress: Told about each row, ``progress(label, done, total)``.

        Returns:
            The result as a dictionary of plain numbers, texts and arrays; ``schema`` names its
            form. It is computed in single precision.

        Raises:
            TrainingError: Every row has diverged: what the first one says about it.
        """
        self.origin.keep(folder, self.data_dir)
        with jax.enable_x64(False):
            made = [self._row(row, folder / ROWS / row.folder, progress) for row in self.rows]
        ends = {row.label: end for row, (_, end) in zip(self.rows, made, strict=True) if end}
        rows = [record for record, _ in made]
        if not ends:
            first = rows[0]
            raise TrainingError(
                f"every row has diverged; {first['label']}: {first['failure']}",
                first["steps"],
                None,
                {},
            )
        add_targets(rows)
        add_costs(rows)
        network, config = self.network, self.origin.request.config
        size = next(iter(ends.values()))[0].shape[1]
        seeds = "one seed" if config.seeds == 1 else f"{config.seeds} seeds"
        return {
            "schema": SCHEMA,
            "kind": "training",
            "title": network.title,
            "description": f"{seeds} a row, {size} parameters, {_optimizer(config)}",
            "source": "",
            "problem": {
                "name": network.name,
                "n": network.n,
                "parameters": size,
                "reading": {},
            },
            "arguments": {
                "problem": self.target,
                "data_dir": self.data_dir,
                "track": self.track,
            },
            "config": config.model_dump(mode="json"),
            "configuration": self.origin.request.file.text,
            "environment": environment(),
            "rows": rows,
            "points": points_of(ends),
            **training_sentences(rows),
        }

    def _row(
        self, row: Row, folder: Path, progress: Progress
    ) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray] | None]:
        """The record of a row, and parameters and states at its end if there is one."""

        def trained(steps: int) -> Training:
            return self._trained(row, steps, folder, progress)

        config, track = self.origin.request.config, None
        try:
            if self.track is not None and row.plain:
                track = followed(self.network, row, config.assess, self.track, folder, trained)
            training = trained(row.steps)
        except TrainingError as error:
            return failed_record(row, config, error), None
        record = row_record(self.network, row, training, config)
        ends = flat(training.params, config.seeds), flat(training.state, config.seeds)
        return {**record, "track": track}, ends

    def _trained(self, row: Row, steps: int, folder: Path, progress: Progress) -> Training:
        config, network = self.origin.request.config, self.network
        return train(
            network.objective,
            network.init,
            network.train,
            sampler=row.sampler,
            optimizer=row.optimizer,
            steps=steps,
            key=jax.random.key(config.seed),
            state=network.state,
            members=config.seeds,
            groups=network.groups,
            scores=row.scores,
            accumulate=config.accumulate,
            dtype=None if config.dtype == "float32" else config.dtype,
            validation=network.test,
            metrics={"accuracy": is_correct} if network.classified else None,
            evaluate_every=config.evaluate_every or max(1, row.steps // _EVALUATIONS),
            record_every=max(1, row.steps // _RECORDS),
            stop_below=config.stop_below,
            gauge_every=_gauge_every(config, row),
            folder=folder,
            progress=_told(progress, row),
        )


def _gauge_every(config: Config, row: Row) -> int | None:
    """Steps between two looks of the gauge; None where it can tell nothing, or is asked anyway."""
    passes = isinstance(row.sampler, (Full, Cyclic, Reshuffled))
    by_group = getattr(row.sampler, "by", "sample") == "group"
    if passes or by_group or not row.unbiased or isinstance(row.sampler, Auto):
        return None
    return config.gauge_every or max(1, row.steps // GAUGES)


def _told(progress: Progress, row: Row) -> Callable[[int, int, str], None] | None:
    """Progress of a row; of the whole row, whatever part of it is trained now."""
    if progress is None:
        return None
    return lambda done, total, text: progress(row.label, done, row.steps)


def _optimizer(config: Config) -> str:
    passes = f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs"
    return f"{config.optimizer.name}, {passes}"
