"""What is measured at a point: against dense matrices, from files, folders and the command line."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from thalweg import reference, report
from thalweg.cli import run
from thalweg.compare import Output
from thalweg.compare.network import load_network
from thalweg.errors import InputError
from thalweg.measure import measure
from thalweg.report.tables import tables

FILE = """
import jax.numpy as jnp
import numpy as np
import thalweg as tw

rows = jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0], [1.0, -1.0]])
problem = tw.FiniteSum(lambda p, x: jnp.dot(x, p) ** 2 / 2, rows)
four = problem, jnp.zeros(2)

def loss(p, sample):
    x, y = sample
    return (jnp.tanh(x @ p["first"]["W"] + p["first"]["b"]) @ p["last"] - y) ** 2 / 2

rng = np.random.default_rng(0)
net = tw.FiniteSum(loss, (rng.standard_normal((30, 5)), rng.standard_normal(30)))
number = 3

def well():
    return tw.landscapes.double_well()
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A network of 97 parameters at a random point, measured, and the same by dense matrices."""
    folder = tmp_path_factory.mktemp("net")
    (folder / "mine.py").write_text(FILE)
    rng = np.random.default_rng(1)
    shapes = {"first/W": (5, 13), "first/b": (13,), "last": (13,)}
    leaves = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    np.savez(folder / "params.npz", **leaves)
    target, params = f"{folder}/mine.py:net", str(folder / "params.npz")
    return target, params, measure(target, params=params, batch=(4, 30), quick=True)


def test_four_samples_have_the_known_thresholds(file):
    found = measure(f"{file}:four", step=0.3)
    by_size = {row["batch_size"]: row for row in found["batches"]}
    assert set(by_size) == {1, 4}
    # The reference numbers: exact threshold, condition (4), gradient descent.
    assert by_size[1]["lower"] == pytest.approx(0.261643, rel=2e-4)
    assert by_size[1]["upper"] == pytest.approx(0.261643, abs=1e-6)
    assert by_size[1]["sufficient"] == pytest.approx(0.25, abs=1e-9)
    assert by_size[4]["upper"] == pytest.approx(0.714759, abs=1e-6)
    assert by_size[1]["stable"] is False
    assert by_size[4]["stable"] is True
    assert by_size[1]["critical_batch"] == 2
    assert found["interpolates"]
    assert found["exact"]["whole"]
    assert found["alignment"] is None
    assert found["batch_sharpness"] is None
    assert "unstable with B = 1" in found["sentences"][-2]
    assert found["sentences"][-1].startswith("Stable for SGD with B = 1 up to η = 0.2616, unstable")


def test_a_network_agrees_with_dense_matrices(net):
    target, params, found = net
    problem = _problem(target)
    with np.load(params) as saved:
        point = {
            "first": {"W": saved["first/W"], "b": saved["first/b"]},
            "last": saved["last"],
        }
    hessians = np.asarray(reference.sample_hessians(problem, point))
    H = hessians.mean(axis=0)
    values = np.linalg.eigvalsh(H)
    # Eigenvalues are right to the square of the residual, 1e-6, over the gaps.
    assert found["sharpness"] == pytest.approx(values[-1], rel=1e-4)
    spread = np.einsum("nab,nbc->ac", hessians, hessians) / 30 - H @ H
    assert found["nonuniformity"] == pytest.approx(np.linalg.eigvalsh(spread)[-1] ** 0.5, rel=1e-4)
    for name, exact in (("trace", np.trace(H)), ("frobenius", np.linalg.norm(H))):
        assert abs(found[name]["mean"] - exact) < 3.5 * found[name]["error"]
    gradients = jax.vmap(lambda g: ravel_pytree(g)[0])(problem.gradients(point))
    norms = np.linalg.norm(gradients, axis=1)
    assert found["max_sample_gradient"] == pytest.approx(norms.max(), rel=1e-9)
    C = np.cov(gradients, rowvar=False, bias=True)
    cosine = np.sum(C * H) / np.linalg.norm(C) / np.linalg.norm(H)
    assert abs(found["alignment"]["mean"] - cosine) < 3.5 * found["alignment"]["error"]
    # Counts, and the density: all eigenvalues, with bells of a hundredth of the spread.
    assert sum(found["samples"]["gradient_norms"]["counts"]) == 30
    at, density = found["spectrum"]["at"], found["spectrum"]["density"]
    assert np.trapezoid(density, at) == pytest.approx(len(values), rel=1e-2)
    assert not found["interpolates"]


def _problem(target):
    import runpy

    path, _, name = target.rpartition(":")
    return runpy.run_path(path)[name]


def test_the_alignment_of_a_small_problem_is_exact():
    found = measure("robust-classification")
    # One parameter: C and H are numbers of the same sign.
    assert found["alignment"] == {"mean": pytest.approx(1.0, abs=1e-12), "error": 0.0}
    assert found["step"] == 0.015
    assert found["spectrum"]["at"] is None
    assert measure("robust-classification", point="flat")["sharpness"] < found["sharpness"]


def test_a_function_and_a_landscape(file):
    found = measure(f"{file}:well", quick=True)
    assert found["sharpness"] == pytest.approx(2.0, rel=1e-9)


def test_files_and_page(net, tmp_path, capsys):
    target, params, found = net
    folder = tmp_path / "out"
    arguments = ["measure", target, "--params", params, "--batch", "4,30", "--quick"]
    assert run([*arguments, "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "Stable for SGD with B = 4 up to" in " ".join(out.split())
    saved = json.loads((folder / "result.json").read_text())
    assert saved["sharpness"] == pytest.approx(found["sharpness"], rel=1e-6)
    assert {f.name for f in (folder / "figures").iterdir()} == {
        "diagram.svg",
        "spectrum.svg",
        "samples.svg",
    }
    page = (folder / "report.html").read_text()
    assert "thalweg measure" in page
    assert "--params" in page
    # The same numbers again, from the file alone.
    assert report.write(saved, tmp_path / "again")[-1].read_text() == page
    assert [t.title for t in tables(saved)] == ["Which steps keep the point", "The point"]
    # Another command with the same words does not take the folder for its own.
    assert run(["compare", "toy-pair", "--out", str(folder)]) == 2


@pytest.mark.slow
def test_points_of_a_comparison_of_a_network(tmp_path):
    network = load_network("digits", None)
    with jax.enable_x64(False):
        start = network.model.init(jax.random.key(3))
        flat = np.asarray(ravel_pytree(start)[0], dtype=np.float32)
    row = {"label": "SGD, B=8", "step": "0.2", "batch_size": 8, "family": "sgd"}
    output = Output.at(tmp_path / "run", {"problem": "digits"})
    output.open()
    output.save(
        {
            "schema": "thalweg.compare/1",
            "kind": "network",
            "arguments": {"problem": "digits"},
            "rows": [row],
            "source": "Wu",
            "points": {"start": flat, "SGD, B=8": flat},
        }
    )
    assert "points" not in json.loads((tmp_path / "run" / "result.json").read_text())
    found = measure(str(tmp_path / "run"), point="SGD, B=8", batch=(8,), quick=True)
    assert (found["parameters"], found["n"], found["step"]) == (2410, 1437, 0.2)
    with jax.enable_x64(False):
        loss = float(network.problem.value(start))
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    with pytest.raises(InputError, match=r"unknown point 'GD'.*expected one of"):
        measure(str(tmp_path / "run"), point="GD")


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("number", {}, "mine.py:number is a int; expected a thalweg.Landscape, a pair"),
        ("other", {}, "has no 'other'; expected"),
        ("problem", {}, "without parameters; give --params"),
        ("problem", {"params": "none.npz"}, "there is no file none.npz"),
        ("four", {"params": "none.npz"}, "brings parameters"),
        ("four", {"point": "flat"}, "--point is for what has several points"),
        ("four", {"batch": (5,)}, "--batch has 5; expected sizes from 1 to n = 4"),
        ("four", {"step": -1.0}, "--step is -1.0; expected a positive number"),
        ("well", {"point": "deep"}, "unknown point 'deep'"),
    ],
)
def test_requests_that_make_no_sense(file, name, options, match):
    with pytest.raises(InputError, match=match):
        measure(f"{file}:{name}", **options, work=lambda: pytest.fail("work was begun"))


def test_folders_that_hold_no_comparison(tmp_path):
    with pytest.raises(InputError, match=r"holds no result\.json"):
        measure(str(tmp_path))
    (tmp_path / "result.json").write_text(json.dumps({"schema": "thalweg.measure/1"}))
    with pytest.raises(InputError, match=r"holds a result of thalweg\.measure/1"):
        measure(str(tmp_path))
    with pytest.raises(InputError, match="unknown landscape"):
        measure("no-such-thing")
    (tmp_path / "p.npz").write_text("no zip")
    (tmp_path / "mine.py").write_text(FILE)
    with pytest.raises(InputError, match=r"is no \.npz file"):
        measure(f"{tmp_path}/mine.py:problem", params=str(tmp_path / "p.npz"))


def test_parameters_in_one_array(file, tmp_path):
    np.savez(tmp_path / "p.npz", params=np.zeros(2))
    found = measure(f"{file}:problem", params=str(tmp_path / "p.npz"), batch=(2,))
    assert found["batches"][0]["upper"] == pytest.approx(0.457655, abs=1e-6)
    assert math.isclose(found["loss"], 0.0)
    assert jnp.ndim(found["loss"]) == 0
