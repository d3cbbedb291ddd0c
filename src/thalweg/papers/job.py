"""Running experiments one after the other, each saved as it ends."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax

from thalweg.datasets import available
from thalweg.errors import known
from thalweg.output import environment, plain
from thalweg.papers.catalogue import DOCUMENTS, experiments
from thalweg.papers.experiment import Experiment, Progress

SCHEMA = "thalweg.reproduce/1"
_FINISHED = "outcome.json"
_COUNTED = {
    "holds": "hold",
    "holds when read as": "hold when read rightly",
    "does not hold as printed": "do not hold as printed and do as corrected",
    "undecided": "are undecided",
    "does not hold": "do not hold",
}


def chosen(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names: ``document/figure``, or all of a ``document``.

    Raises:
        InputError: A name that is neither, with the nearest.
    """
    there = {one.name: one for one in experiments()}
    found: list[Experiment] = []
    for name in names:
        known(name, [*there, *DOCUMENTS], "experiment")
        found += [one for key, one in there.items() if name in (key, one.document)]
    return list(dict.fromkeys(found))


def reproduce(
    names: Sequence[str],
    *,
    quick: bool = False,
    seed: int = 0,
    data_dir: str | Path | None = None,
    work: Callable[[], Path] | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Run experiments; those without their data are skipped, and counted as such.

    Args:
        names: Experiments or whole documents; all of them if empty.
        quick: The short version of each.
        seed: Of all random numbers.
        data_dir: Where data files are.
        work: Makes the folder for checkpoints; called once the request makes sense. Finished
            experiments are kept there, and not run again.
        progress: Told label, done, total.
        workers: Processes that run experiments side by side: most of the time of a short one is
            compilation, which one core does. Scripts that ask for more than one need the usual
            ``if __name__ == "__main__"``.

    Returns:
        The result; ``schema`` names its form.

    Raises:
        InputError: Before any work: an unknown name.
    """
    asked = chosen(names) if names else experiments()
    folder = None if work is None else work()
    given = folder, quick, seed, data_dir
    if workers > 1 and len(asked) > 1:
        done = _side_by_side(asked, given, workers, progress)
    else:
        done = []
        for place, one in enumerate(asked):
            if progress is not None:
                progress("experiments", place, len(asked))
            done.append(_finished(one, *given, progress))
    return {
        "schema": SCHEMA,
        "kind": "claims",
        "title": "Statements of the documents, measured",
        "description": f"{len(asked)} experiments, {'quick' if quick else 'in full'}",
        "source": "; ".join(DOCUMENTS[d].source for d in dict.fromkeys(e.document for e in asked)),
        "problem": {"name": "reproduce", "reading": {}},
        "arguments": {
            "problem": list(names) or ["--all"],
            "quick": quick,
            "seed": seed,
            "data_dir": None if data_dir is None else str(data_dir),
        },
        "environment": environment(),
        "experiments": done,
        "notes": [],
        "sentences": _sentences(done),
    }


def _side_by_side(
    asked: Sequence[Experiment], given: Any, workers: int, progress: Progress | None
) -> list[dict[str, Any]]:
    """What experiments found, several at a time, the longest begun first."""
    # Not forked: JAX has threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        first = sorted(asked, key=lambda one: -one.seconds[0])
        running = {pool.submit(partial(_by_name, one.name), *given): one.name for one in first}
        found: dict[str, dict[str, Any]] = {}
        for future in as_completed(running):
            found[running[future]] = future.result()
            if progress is not None:
                progress("experiments", len(found), len(asked))
    return [found[one.name] for one in asked]


def _by_name(
    name: str, folder: Path | None, quick: bool, seed: int, data_dir: str | Path | None
) -> dict[str, Any]:
    """What an experiment found, in a process that knows its name alone."""
    (one,) = chosen([name])
    return _finished(one, folder, quick, seed, data_dir, None)


def _finished(
    one: Experiment,
    folder: Path | None,
    quick: bool,
    seed: int,
    data_dir: str | Path | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """What an experiment found, from its file if it was finished before."""
    about = {"name": one.name, "title": one.title, "document": one.document}
    missing = _missing(one, data_dir)
    if missing:
        return {**about, "skipped": f"{missing} is not there (--data-dir or THALWEG_DATA)"}
    own = None if folder is None else folder / one.name
    kept = None if own is None else own / _FINISHED
    if kept is not None and kept.is_file():
        return json.loads(kept.read_text())
    start = time.perf_counter()
    outcome = one(quick=quick, seed=seed, data_dir=data_dir, folder=own, progress=progress)
    if not quick:
        # All programs together come to gigabytes; what few share costs a second to compile again.
        jax.clear_caches()
    found = {
        **about,
        "skipped": None,
        "covers": list(one.covers),
        "seconds": time.perf_counter() - start,
        **outcome.saved(),
    }
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(plain(found)))
        part.replace(kept)
    return found


def _missing(one: Experiment, data_dir: str | Path | None) -> str:
    """The first data set that is not on this machine; none that would have to be downloaded."""
    there = {data.name: data.where for data in available(data_dir)}
    return next((name for name in one.needs if there[name] == "to download"), "")


def counted(claims: Sequence[Mapping[str, Any]]) -> str:
    """How many claims hold, and how many do not, as a sentence."""
    verdicts = [claim["verdict"] for claim in claims]
    counts = {words: verdicts.count(verdict) for verdict, words in _COUNTED.items()}
    told = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    return f"Of {len(verdicts)} claims: {told or 'none was decided'}."


def _sentences(done: Sequence[dict[str, Any]]) -> list[str]:
    skipped = [one["name"] for one in done if one["skipped"]]
    sentences = [f"Skipped, for their data are not there: {', '.join(skipped)}."] if skipped else []
    return [*sentences, counted([claim for one in done for claim in one.get("claims", ())])]


def failures(result: dict[str, Any]) -> list[str]:
    """The claims that are false in print and as corrected, for the exit status."""
    return [
        f"{one['name']}, {claim['where']}"
        for one in result["experiments"]
        for claim in one.get("claims", ())
        if claim["verdict"] == "does not hold"
    ]
