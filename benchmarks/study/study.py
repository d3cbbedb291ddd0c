"""Does resampling-reweighting pay in training? Five data sets, as they are and made harder.

python benchmarks/study/study.py [--only NAME] [--quick] [--out FOLDER]

Each setting is a file for `thalweg train`, written into its folder; a study that was killed goes
on. The summary goes to results/study.json and, as tables and figures, to docs/study.md. Seconds
are CPU seconds on one core, which other work on the machine does not change.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
from settings import SETTINGS, Setting
from summary import machine, summary
from tables import written
from timing import step_seconds

from thalweg.train.files import ROWS
from thalweg.train.job import Job

_RESULT = Path(__file__).parents[1] / "results" / "study.json"


def main() -> None:
    """Run the settings asked for, and write what they say together with those run before."""
    arguments = _arguments()
    _pinned()
    kept = json.loads(_RESULT.read_text())["settings"] if _RESULT.exists() else {}
    chosen = [arguments.only] if arguments.only else list(SETTINGS)
    for name in chosen:
        setting = SETTINGS[name]
        kept[name] = _summary(setting, arguments.out / name, arguments.quick)
        settings = {key: kept[key] for key in SETTINGS if key in kept}
        text = json.dumps({"machine": machine(), "settings": settings}, indent=1)
        _RESULT.write_text(text + "\n")
        written(settings)
        print(f"{name}: " + "; ".join(f"{r['label']} {r['verdict']}" for r in kept[name]["rows"]))


def _pinned() -> None:
    """One core, and the clocks of training count its time alone."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    time.perf_counter = time.process_time


def _summary(setting: Setting, folder: Path, quick: bool) -> dict[str, Any]:
    """Train by all samplers, or read what was trained; and time their steps."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "setting.toml"
    config.write_text(setting.text(quick))
    job = Job.of(config)
    result = job.run(folder)
    records = [folder / ROWS / row.folder / "metrics.jsonl" for row in job.rows]
    about = [None if r["failure"] else 1 / r["steps_per_second"] for r in result["rows"]]
    with jax.enable_x64(False):
        seconds = step_seconds(job, about)
    return summary(setting, result, records, seconds, quick)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SETTINGS, help="this setting alone")
    parser.add_argument("--quick", action="store_true", help="two seeds and a tenth of the steps")
    parser.add_argument("--out", type=Path, default=Path("study"), help="folder of the trainings")
    return parser.parse_args()


if __name__ == "__main__":
    main()
