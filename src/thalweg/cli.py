"""The command line: parses, calls one function, writes and prints what it returns.

Everything heavy is imported inside the commands, so that ``--version`` and ``--help`` are quick.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from thalweg.errors import InputError

# The base of all errors of usage; the module it lives in depends on the version of Typer.
_UsageError: Any = typer.BadParameter.__bases__[0]
_INTERRUPTED = 130
# Experiments at a time: each takes a gigabyte.
_MOST = 4

app = typer.Typer(
    help="Which minimum does stochastic gradient descent select, why, and how do you change it?",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, 2 with one line on stderr for bad requests.

    Args:
        arguments: Those of the process if None; help is shown if there are none.
    """
    for stream in (sys.stdout, sys.stderr):
        # Greek letters must not end a run on a terminal that cannot show them.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status = app(args=arguments or ["--help"], prog_name="thalweg", standalone_mode=False)
    except InputError as error:
        return _failed(str(error), 2)
    except _UsageError as error:
        return _failed(f"{error.format_message()} (see thalweg --help)", 2)
    except OSError as error:
        return _failed(str(error), 1)
    return status or 0


def _failed(message: str, status: int) -> int:
    print("thalweg: error:", " ".join(message.split()), file=sys.stderr)
    return status


def _print_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"thalweg {version('thalweg')}")
        raise typer.Exit
    return asked


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of all commands."""


@app.command()
def compare(
    problem: Annotated[
        list[str],
        typer.Argument(
            help="A name that `thalweg problems` lists, or file.py:name; or folders of finished "
            "trainings, to be set side by side."
        ),
    ],
    samplers: Annotated[
        str | None,
        typer.Option(
            help="With commas: sgd, reshuffled, cyclic, rr, rr-fixed, rr-group, rr-population; "
            "gd and sgd-half always run."
        ),
    ] = None,
    step: Annotated[float | None, typer.Option(help="The step size η.")] = None,
    batch: Annotated[str | None, typer.Option(help="Batch sizes, as in 32,8,4.")] = None,
    trials: Annotated[int | None, typer.Option(help="Chains a sampler.")] = None,
    steps: Annotated[int | None, typer.Option(help="Iterations a chain.")] = None,
    starts: Annotated[
        str, typer.Option(help="common: one start; random: one a chain, alike for all samplers.")
    ] = "common",
    refresh: Annotated[
        int | None, typer.Option(help="Steps between two scores of RR (1; 50 on networks).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    data: Annotated[str | None, typer.Option(help="Data for the story of `digits`.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with data files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of other arguments in --out.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer trials and steps.")] = False,
    track: Annotated[
        float | None,
        typer.Option(
            help="On networks: follow sharpness, non-uniformity and thresholds along one chain a "
            "sampler, for so many Hessian products a step of it."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON instead of tables.")
    ] = False,
) -> None:
    """Which minimum does each sampler end in, from the same starts?"""
    options = {
        "samplers": _names(samplers),
        "step": step,
        "batch": _sizes(batch),
        "trials": trials,
        "steps": steps,
        "starts": starts,
        "refresh": refresh,
        "seed": seed,
        "data": data,
        "data_dir": data_dir,
        "quick": quick,
        "track": track,
    }
    from thalweg.compare import compare as compare_samplers
    from thalweg.train.files import is_training

    if all(is_training(name) for name in problem):
        return _show(_set_side_by_side(problem, options, out, overwrite), json)
    if len(problem) > 1:
        raise InputError(
            f"got {len(problem)} problems, {', '.join(problem)}; expected one, or folders of "
            "trainings"
        )
    return _show(_written(compare_samplers, None, problem[0], options, out, overwrite), json)


def _set_side_by_side(
    folders: list[str], options: dict[str, Any], out: Path | None, overwrite: bool
) -> Path:
    """Write the report of several trainings; the options are those of comparisons."""
    from thalweg.train.side_by_side import side_by_side

    given = [name for name, value in options.items() if value not in (None, False, 0, "common")]
    if given:
        raise InputError(f"--{given[0]} is for problems; trainings are shown as they are")

    def read(problem: str, work: Callable[[], Path], progress: Any, **_: Any) -> dict[str, Any]:
        result = side_by_side(folders)
        work()
        return result

    names = " ".join(str(Path(folder).resolve()) for folder in folders)
    return _written(read, "side-by-side", "trainings", {"folders": names}, out, overwrite)


def _workers(quick: bool) -> int:
    """Processes that run experiments: a core each, a few at most; one where progress is told."""
    import jax

    from thalweg.fleet import cores

    return min(cores(), _MOST) if quick and jax.default_backend() == "cpu" else 1


def _written(
    function: Callable[..., dict[str, Any]],
    command: str | None,
    problem: str,
    options: dict[str, Any],
    out: Path | None,
    overwrite: bool,
) -> Path:
    """Run a command's function and write its files; returns their folder."""
    # Before the work, so that a missing plotting library is noticed now.
    from thalweg import report
    from thalweg.compare import Output
    from thalweg.progress import shown

    named = {} if command is None else {"command": command}
    output = Output.at(out, {**named, "problem": problem, **options})
    try:
        with shown() as progress:
            result = function(
                problem, work=lambda: output.open(overwrite), progress=progress, **options
            )
        output.save(result)
        report.write(_saved(output.folder), output.folder)
    except KeyboardInterrupt:
        print(
            f"thalweg: interrupted; the same command goes on from what {output.folder} holds",
            file=sys.stderr,
        )
        raise typer.Exit(_INTERRUPTED) from None
    return output.folder


def _saved(folder: Path) -> dict[str, Any]:
    import json

    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def _show(folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo((folder / "result.json").read_text(encoding="utf-8"))
        typer.echo(folder / "report.html", err=True)
        return
    from thalweg.report.terminal import console, print_result

    print_result(_saved(folder), console())
    typer.echo(f"\n{folder / 'report.html'}")


def _names(text: str | None) -> tuple[str, ...] | None:
    """The names in a comma list."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InputError(f"--samplers is {text!r}; expected names with commas, as in sgd,rr,gd")
    return names


def _sizes(text: str | None) -> tuple[int, ...] | None:
    """The batch sizes in a comma list."""
    if text is None:
        return None
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise InputError(
            f"--batch is {text!r}; expected whole numbers with commas, as in 32,8,4"
        ) from None


@app.command()
def measure(
    target: Annotated[
        str,
        typer.Argument(
            help="The folder of a comparison, a landscape's name, or file.py:name with a problem."
        ),
    ],
    params: Annotated[
        str | None, typer.Option(help="An .npz file of parameters, for a problem without.")
    ] = None,
    point: Annotated[
        str | None, typer.Option(help="Which point, where there are several; the first.")
    ] = None,
    step: Annotated[float | None, typer.Option(help="The step size η asked about.")] = None,
    batch: Annotated[str | None, typer.Option(help="Batch sizes, as in 1,8,64.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of probes and batches.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with data files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of other arguments in --out.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer probes.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON instead of tables.")
    ] = False,
) -> None:
    """How curved is a point, and which steps and batches keep SGD there?"""
    from thalweg.measure import measure as measure_point

    options = {
        "params": params,
        "point": point,
        "step": step,
        "batch": _sizes(batch),
        "seed": seed,
        "data_dir": data_dir,
        "quick": quick,
    }
    _show(_written(measure_point, "measure", target, options, out, overwrite), json)


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(help="A TOML file, or the folder of a training to take it from.")
    ],
    track: Annotated[
        float | None,
        typer.Option(
            help="Follow sharpness, non-uniformity and thresholds along one seed of each row of "
            "SGD, for so many Hessian products a step of it."
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with data files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what --out holds; refuse to start anew.")
    ] = False,
    coordinator: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of the first of several processes that train together, each started "
            "with the same arguments; or auto, under Slurm or Open MPI."
        ),
    ] = None,
    processes: Annotated[int | None, typer.Option(help="How many processes there are.")] = None,
    process: Annotated[int | None, typer.Option(help="Which one this is, from 0.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of other arguments in --out.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON instead of tables.")
    ] = False,
) -> None:
    """Train a network with several samplers: does RR pay, and what is selected?"""
    from thalweg.train import together
    from thalweg.train.job import Job
    from thalweg.train.training import TrainingError

    together.join(coordinator, processes, process)
    if together.several() and track is not None:
        raise InputError("--track follows a training of one process; leave --track out")
    job = Job.of(config, data_dir=data_dir, track=track)
    folder = Path(together.agreed(lambda: str(job.folder(out, resume))))

    def trained(
        problem: str, work: Callable[[], Path], progress: Any, **arguments: Any
    ) -> dict[str, Any]:
        return job.run(Path(together.agreed(lambda: str(work().parent))), progress)

    try:
        if not together.first():
            return _train_with_the_first(job)
        made = _written(trained, "train", job.network.name, job.arguments, folder, overwrite)
    except TrainingError as error:
        raise typer.Exit(_failed(str(error), 1)) from None
    return _show(made, json)


def _train_with_the_first(job: Any) -> None:
    """Take part in a training whose result the first process writes."""
    # A missing plotting library is noticed by all processes now.
    from thalweg import report  # noqa: F401
    from thalweg.train import together

    together.agreed(str)
    with tempfile.TemporaryDirectory() as nowhere:
        job.run(Path(nowhere))


@app.command()
def reproduce(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(help="As --list shows them, an-ying/figure-1; or documents, an-ying."),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List the experiments, with their times on two cores.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Less of everything: each within a minute.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with data files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of other arguments in --out.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON instead of tables.")
    ] = False,
) -> None:
    """Which statements of the five documents hold, each measured?"""
    from thalweg import papers

    if listed:
        return _list([(one.name, f"{one.title} ({one.times})") for one in papers.experiments()])
    names = tuple(experiments or ())
    if bool(names) == everything:
        raise InputError(
            "expected the names of experiments or --all, and not both; --list shows the names"
        )
    papers.chosen(names)
    options = {"names": names, "quick": quick, "seed": seed, "data_dir": data_dir}

    def run(_: str, **given: Any) -> dict[str, Any]:
        return papers.reproduce(**given, workers=_workers(quick))

    folder = _written(run, "reproduce", " ".join(names) or "all", options, out, overwrite)
    _show(folder, json)
    failed = papers.failures(_saved(folder))
    if failed:
        raise typer.Exit(_failed(f"neither as printed nor as corrected: {'; '.join(failed)}", 1))
    return None


@app.command()
def problems() -> None:
    """List the problems there are."""
    from thalweg import landscapes
    from thalweg.compare import networks

    _list([*networks(), *landscapes.describe()])


@app.command()
def datasets() -> None:
    """List the data sets there are, and where each is taken from."""
    from thalweg.datasets import available

    _list([(data.name, f"{data.description} ({data.where})") for data in available()])


def _list(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        typer.echo(f"{name:<{width}}  {text}")
