"""The benchmark of grids asks all the same question; how fast they answer is not tested."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from thalweg.markov.multigrid import Multigrid

_FOLDER = Path(__file__).parents[1] / "benchmarks"
_MODULES = ("measure", "program", "mueller", "works", "ours", "peers", "references", "rows")
_CELLS = 64


@pytest.fixture(scope="module")
def grids() -> Iterator[SimpleNamespace]:
    """The benchmark's modules, which are scripts beside each other."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("shared", "grids"):
            patch.syspath_prepend(str(_FOLDER / folder))
        # It counts cycles.
        patch.setattr(Multigrid, "__call__", Multigrid.__call__)
        found = {name: importlib.import_module(name) for name in _MODULES}
        yield SimpleNamespace(**found)
        for name in _MODULES:
            del sys.modules[name]


def test_rows_measure_pieces_that_exist_and_check_pieces_that_are_measured(
    grids: SimpleNamespace,
) -> None:
    for row in (make(quick) for make in grids.rows.ROWS.values() for quick in (True, False)):
        for piece in row.pieces:
            module: ModuleType = getattr(grids, piece.module)
            inspect.signature(module.PIECES[piece.piece]).bind(**piece.options)
        names = {piece.name for piece in row.pieces}
        assert len(names) == len(row.pieces)
        assert {name for c in row.checks for name in (c.piece, c.over or c.piece)} <= names


def test_the_drift_is_that_of_the_potential_and_the_current_keeps_its_law(
    grids: SimpleNamespace,
) -> None:
    works, h = grids.works, 1e-4
    x, y = works.centres(6)
    V = works.potential
    slopes = (V(x - h, y) - V(x + h, y)) / (2 * h), (V(x, y - h) - V(x, y + h)) / (2 * h)
    # Differences are of second order, third derivatives below 1e5: 1e5 h^2 / 6.
    np.testing.assert_allclose(works.drift(x, y), slopes, atol=2e-4)

    def current(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        turning, plain = works.drift(x, y, circulation=1.0), works.drift(x, y)
        return np.exp(-V(x, y)) * (np.array(turning) - plain)

    out_x, out_y = current(x + h, y) - current(x - h, y), current(x, y + h) - current(x, y - h)
    divergence = (out_x[0] + out_y[1]) / (2 * h)
    size = np.abs(out_x[0]).max() / (2 * h)
    assert size > 1  # there is something to cancel
    assert np.abs(divergence).max() < 1e-4 * size


def test_the_stationary_law_of_thalweg_is_that_of_gibbs(grids: SimpleNamespace) -> None:
    # Four points of quadrature a face, of eighth order: 1.8e-10 on 24 cells an axis.
    assert grids.ours.stationary(cells=_CELLS)()["error"] < 1e-12


def test_the_stationary_law_of_the_peers_is_that_of_gibbs(grids: SimpleNamespace) -> None:
    pytest.importorskip("fplanck")
    pytest.importorskip("fipy")
    peers = grids.peers
    assert peers.fplanck_stationary(cells=_CELLS)()["error"] < 1e-10
    assert peers.fipy_stationary(cells=_CELLS, steps="tuned")()["error"] < 1e-10
    # The drift in the middle of faces: 4.1e-5 on 512 cells an axis, and 8^2 times that.
    error = peers.fipy_stationary(cells=_CELLS, steps="growing")()["error"]
    assert error == pytest.approx(4.1e-5 * 64, rel=0.05)


def test_the_density_of_thalweg_and_its_reference_agree(
    grids: SimpleNamespace, tmp_path: Path
) -> None:
    exact = str(tmp_path / "exact.npy")
    grids.references.ours_exactly(cells=_CELLS, save=exact)()
    assert np.load(exact).sum() == pytest.approx(1, abs=1e-12)
    # The contour is good to 1e-13, the Krylov space to 1e-10.
    assert grids.ours.density(cells=_CELLS, reference=exact)()["error"] < 1e-10


def test_implicit_steps_of_fipy_approach_the_exponential_of_its_matrix(
    grids: SimpleNamespace, tmp_path: Path
) -> None:
    pytest.importorskip("fipy")
    peers, exact = grids.peers, str(tmp_path / "exact.npy")
    # Nothing is lost: columns of rates up to 1e5 add up to nothing.
    assert np.abs(peers.fipy_matrix(_CELLS).sum(axis=0)).max() < 1e-9
    grids.references.fipy_exactly(cells=_CELLS, save=exact)()
    errors = [
        peers.fipy_density(cells=_CELLS, steps=steps, reference=exact, other=exact)()["error"]
        for steps in (20, 40)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # first order


def test_the_exit_time_is_that_of_the_factorisation(grids: SimpleNamespace) -> None:
    found = grids.ours.exit_time(cells=_CELLS)()["time"]
    for order in ("default", "symmetric"):
        assert grids.references.direct(cells=_CELLS, order=order)()["time"] == pytest.approx(
            found, rel=1e-10
        )
