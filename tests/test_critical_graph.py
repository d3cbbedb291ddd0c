"""Saddles, joins and barriers of landscapes that are known, or taken apart by other means."""

import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from helpers import counted_compilations
from thalweg import landscapes
from thalweg.critical import CriticalGraph, CriticalPoint, Search, critical_points
from thalweg.critical.box import Box
from thalweg.errors import InputError
from thalweg.landscapes.mueller_brown import gaussian_term
from thalweg.problem import FiniteSum

BOX = jnp.array([-1.5, -0.5]), jnp.array([1.25, 2.25])
# Newton steps below 1e-10 of the diagonal, and landscapes of diagonals below 7.
WHERE = 1e-9


def explored(landscape, seed=0):
    key = jax.random.key(seed)
    return critical_points(landscape.problem, landscape.lower, landscape.upper, key=key)


def rows(points):
    return np.stack([np.asarray(point.params) for point in points])


def assert_known(graph, landscape, joins):
    """The points of a landscape, which lists minima and saddles in the order of the graph."""
    known = sorted(landscape.minima, key=lambda point: point.value)
    for found, expected in ((graph.minima, known), (graph.saddles, landscape.saddles)):
        assert len(found) == len(expected)
        np.testing.assert_allclose(rows(found), rows(expected), rtol=0, atol=WHERE)
        values = [point.value for point in expected]
        np.testing.assert_allclose([point.value for point in found], values, rtol=1e-12)
    assert graph.joins == joins
    # A Newton step of 1e-10 of the diagonal (9.6) at the sharpness.
    for point in graph.minima + graph.saddles:
        assert point.residual < 9.6e-10 * float(np.abs(point.eigenvalues).max())
    assert [point.index for point in graph.saddles] == [1] * len(graph.saddles)


# Mueller-Brown and others of four Gaussians, and of a ridge at x = 0, share one compiled program.


def _term(position, row):
    return gaussian_term(position, row[:6]) - row[6] * jnp.abs(position[0])


def plane(rows, ridge=0.0):
    """A landscape in the box of Mueller-Brown."""
    rows = np.column_stack([rows, np.full(4, ridge)])
    return replace(landscapes.mueller_brown(), problem=FiniteSum(_term, rows))


def mueller_brown(a1=-150.0, **box):
    landscape = landscapes.mueller_brown(a1=a1)
    return replace(landscape, problem=plane(landscape.problem.data).problem, **box)


@pytest.fixture(scope="module")
def surface():
    return explored(mueller_brown())


def test_mueller_brown_every_time(surface):
    landscape = mueller_brown()
    printed = [-36.675, -19.760, -16.644, -14.393, -10.157]
    with counted_compilations() as count:
        for seed in range(24):
            graph = explored(landscape, seed)
            assert_known(graph, landscape, ((1, 2), (0, 1)))
            values = [point.value for point in graph.minima + graph.saddles]
            np.testing.assert_allclose(values, printed, rtol=0, atol=5e-4)
            # About a third of the 384 searches end at the rarer saddle.
            assert min(graph.search.hits) > 60
            assert graph.search.balanced
        assert count() == 0


def test_the_usual_mueller_brown():
    landscape = mueller_brown(-200.0)
    graph = explored(landscape)
    # The right well is deeper than the middle one here, and its pass the lower.
    assert_known(graph, landscape, ((1, 2), (0, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["repaired", "literal"])
def test_atoms(branch):
    landscape = landscapes.atoms(second_branch=branch)
    assert_known(explored(landscape), landscape, ((0, 1),))


@pytest.mark.parametrize("a1", [-150.0, -200.0])
def test_joins_agree_with_an_implicit_solver(surface, a1):
    # Down both sides of the saddles by LSODA.
    landscape = mueller_brown(a1)
    graph = surface if a1 == -150 else explored(landscape)
    field = jax.jit(landscape.problem.gradient)
    hessian = jax.jit(jax.jacfwd(landscape.problem.gradient))
    for saddle, joins in zip(graph.saddles, graph.joins, strict=True):
        direction = np.linalg.eigh(hessian(saddle.params))[1][:, 0]
        ends = []
        for side in (-1e-3, 1e-3):
            start = np.asarray(saddle.params) + side * direction
            way = solve_ivp(
                lambda _, p: -np.asarray(field(p)), (0, 1), start, "LSODA", rtol=1e-6, atol=1e-6
            )
            distances = np.linalg.norm(rows(graph.minima) - way.y[:, -1], axis=1)
            assert distances.min() < 1e-3
            ends.append(int(distances.argmin()))
        assert tuple(sorted(ends)) == joins


def test_barriers(surface):
    low, high = (point.value for point in surface.saddles)
    depth = [point.value for point in surface.minima]
    assert surface.barrier(0, 1) == high - depth[0]
    assert surface.barrier(1, 2) == low - depth[1]
    # By way of the middle well, over both.
    assert surface.barrier(2, 0) == high - depth[2]
    assert surface.barrier(1, 1) == 0
    assert surface.lowest_saddle(2, 0) is surface.saddles[1]
    first, second = surface.merges()
    assert first == (low, (1,), (2,), 0)
    assert second == (high, (0,), (1, 2), 1)


def test_counts_of_a_surface_with_maxima():
    # Three hills on the floor of a wide well; all critical points by Newton's method from a grid.
    data = np.array(
        [
            [-60.0, -0.4, 0.0, -0.4, 0.0, 0.9],
            [30.0, -8.0, 1.0, -6.0, 0.5, 0.9],
            [25.0, -7.0, 0.0, -9.0, -0.4, 1.3],
            [28.0, -6.0, -2.0, -8.0, -0.3, 0.4],
        ]
    )
    landscape = plane(data)
    gradient = jax.grad(landscape.problem.value)

    @jax.jit
    @jax.vmap
    def newton(point):
        def step(_, p):
            return p - jnp.linalg.solve(jax.jacfwd(gradient)(p), gradient(p))

        end = jax.lax.fori_loop(0, 40, step, point)
        return end, jnp.linalg.eigvalsh(jax.jacfwd(gradient)(end)), gradient(end)

    low, high = np.asarray(landscape.lower), np.asarray(landscape.upper)
    axes = (np.linspace(*ends, 60) for ends in zip(low, high, strict=True))
    starts = jnp.asarray(np.stack(np.meshgrid(*axes), -1).reshape(-1, 2))
    ends, curvatures, slopes = (np.asarray(x) for x in newton(starts))
    there = (np.linalg.norm(slopes, axis=1) < 1e-9) & ((low < ends) & (ends < high)).all(axis=1)
    signs = (curvatures[there] < 0).sum(axis=1)
    expected = [len(np.unique(ends[there][signs == i].round(7), axis=0)) for i in range(3)]
    graph = explored(landscape)
    found = [len(graph.minima), len(graph.saddles), graph.search.maxima]
    assert found == expected
    assert found[2] == 3
    assert graph.search.turns == 1
    assert found[0] - found[1] + found[2] == 1
    assert "as often as the gradient turns" in graph.search.confidence


def test_one_minimum_has_no_barrier():
    box = {"lower": jnp.array([-0.75, 1.2]), "upper": jnp.array([-0.35, 1.7])}
    graph = explored(mueller_brown(**box))
    assert (len(graph.minima), graph.saddles, graph.merges()) == (1, (), ())
    assert graph.search.unseen is graph.search.unseen_error is None
    assert graph.search.confidence.startswith("No saddle was found by 64 descents and 192 searches")
    said = (
        r"no minimum 1: 64 descents and 192 searches for saddles in the box from \[-0\.75 +1\.2"
        r" *\] to \[-0\.35 +1\.7 *\] found 1 in all"
    )
    with pytest.raises(InputError, match=said):
        graph.barrier(0, 1)
    with pytest.raises(InputError, match="expected two minima"):
        graph.lowest_saddle(0, 0)
    with pytest.raises(InputError, match="no minimum -1"):
        graph.barrier(-1, -1)


def test_minima_whose_pass_is_outside():
    box = {"lower": jnp.array([-0.7, 0.3]), "upper": jnp.array([0.2, 1.6])}
    graph = explored(mueller_brown(**box))
    assert [point.value for point in graph.minima] == pytest.approx([-36.675, -19.760], abs=5e-4)
    assert graph.barrier(0, 1) == math.inf
    assert not graph.search.joined
    assert "the way leads through outside" in graph.search.confidence
    with pytest.raises(InputError, match=r"192 searches for saddles in the box.*found no saddle"):
        graph.lowest_saddle(0, 1)


def test_kinks_between_minima_are_refused_in_the_plane():
    # One wide well, parted by a ridge: smooth minima on both sides.
    wells = np.zeros((4, 6))
    wells[0] = -60.0, -0.4, 0.0, -0.4, 0.0, 0.9
    with pytest.raises(InputError, match=r"searches for saddles were stuck at jumps.*kinks"):
        explored(plane(wells, ridge=5.0))


# Quartics along some of the axes of a rotated frame: minima and saddles are products.

_K, _D = 3, 10
_STEEP = np.array([1.0, 2.0, 3.0])
_FRAME = np.linalg.qr(np.random.default_rng(0).normal(size=(_D, _D)))[0]


def _product(params, centre):
    y = jnp.asarray(_FRAME) @ params - centre
    wells = jnp.sum(_STEEP * ((y[:_K] ** 2 - 1) ** 2 / 4 + 0.1 * y[:_K]))
    return wells + 0.5 * jnp.sum(jnp.linspace(1.0, 5.0, _D - _K) * y[_K:] ** 2)


@pytest.mark.slow
def test_a_rotated_product_of_double_wells():
    # Few starts: 8 descents cannot find all 8 minima, the saddles lead to the others.
    problem = FiniteSum(_product, np.zeros((1, _D)))
    corner = jnp.full(_D, 2.5)
    graph = critical_points(problem, -corner, corner, key=jax.random.key(0), starts=8)
    left, top, right = np.sort(np.roots([1.0, 0.0, -1.0, 0.1]).real)
    along = lambda x: (x**2 - 1) ** 2 / 4 + 0.1 * x  # noqa: E731

    def place(ends):
        return np.concatenate([ends, np.zeros(_D - _K)]) @ _FRAME

    wells = {
        ends: _STEEP @ along(np.array(ends)) for ends in itertools.product((left, right), repeat=3)
    }
    order = sorted(wells, key=wells.get)
    # Newton steps below 1e-10 of the diagonal, 15.8.
    places = [place(ends) for ends in order]
    np.testing.assert_allclose(rows(graph.minima), places, rtol=0, atol=2e-9)
    values = [point.value for point in graph.minima]
    np.testing.assert_allclose(values, [wells[ends] for ends in order], rtol=1e-12)
    assert sum(point.hits for point in graph.minima) == 8
    assert min(point.hits for point in graph.minima) == 0
    # A saddle is a maximum along one axis: it joins the two wells that differ there.
    assert len(graph.saddles) == 12
    expected = {}
    for axis, ends in itertools.product(range(_K), itertools.product((left, right), repeat=2)):
        middle, low, high = (np.insert(np.array(ends), axis, x) for x in (top, left, right))
        pair = sorted(order.index(tuple(x)) for x in (low, high))
        expected[tuple(pair)] = _STEEP @ along(middle), place(middle)
    assert set(graph.joins) == set(expected)
    for saddle, pair in zip(graph.saddles, graph.joins, strict=True):
        value, where = expected[pair]
        np.testing.assert_allclose(saddle.params, where, rtol=0, atol=2e-9)
        assert saddle.value == pytest.approx(value, rel=1e-12)
        assert saddle.index == 1
        assert saddle.hits >= 2
    assert len(graph.merges()) == 7
    # The two deepest differ along the flattest axis.
    assert graph.barrier(0, 1) == pytest.approx(along(top) - along(left), rel=1e-9)


@pytest.mark.slow
def test_all_saddles_of_a_chain_of_double_wells():
    # 64 minima and 6 * 32 saddles, by Newton's method from those of the uncoupled chain.
    def chain(params, _):
        wells = jnp.sum((params**2 - 1) ** 2 / 4 + 0.05 * params)
        return wells + 0.025 * jnp.sum((params[1:] - params[:-1]) ** 2)

    problem = FiniteSum(chain, jnp.zeros(1))
    field = jax.jit(problem.gradient)
    slope = jax.jit(jax.jacfwd(problem.gradient))
    expected = []
    for signs in itertools.product((-1.0, 0.0, 1.0), repeat=6):
        if signs.count(0.0) < 2:
            point = np.array(signs)
            for _ in range(20):
                point = point - np.linalg.solve(slope(point), field(point))
            expected.append((signs.count(0.0), point))
    corner = jnp.full(6, 1.6)
    for seed in range(3):
        graph = critical_points(problem, -corner, corner, key=jax.random.key(seed))
        for index, found in enumerate((graph.minima, graph.saddles)):
            known = np.stack([point for i, point in expected if i == index])
            distances = np.linalg.norm(rows(found)[:, None] - known, axis=2)
            assert distances.shape == ((64, 64), (192, 192))[index]
            assert distances.min(axis=1).max() < 1e-8
            assert distances.min(axis=0).max() < 1e-8
        assert len(graph.merges()) == 63


# Graphs made by hand.


def _point(value):
    return CriticalPoint(jnp.zeros(2), value, jnp.ones(2), 1.0, 0.0, 0.0, 2.0)


def _graph(depths, heights, joins):
    search = Search(box=Box(*BOX), descents=9, climbs=9, minima=len(depths), hits=(3,), joined=True)
    minima, saddles = (tuple(_point(float(v)) for v in values) for values in (depths, heights))
    return CriticalGraph(minima, saddles, tuple(joins), search)


@pytest.mark.parametrize("seed", range(5))
def test_barriers_are_minimax_over_all_paths(seed):
    rng = np.random.default_rng(seed)
    n, m = 6, 9
    depths, heights = np.sort(rng.normal(size=n)), np.sort(rng.uniform(4, 9, m))
    joins = [tuple(sorted(rng.integers(-1, n, 2).tolist())) for _ in range(m)]
    graph = _graph(depths, heights, joins)
    # All simple paths, one after the other.
    lowest = np.full((n, n), np.inf)
    for length in range(2, n + 1):
        for path in itertools.permutations(range(n), length):
            steps = [tuple(sorted(pair)) for pair in itertools.pairwise(path)]
            if all(step in joins for step in steps):
                height = max(heights[joins.index(step)] for step in steps)
                ends = path[0], path[-1]
                lowest[ends] = min(lowest[ends], height)
    for i, j in itertools.permutations(range(n), 2):
        assert graph.barrier(i, j) == lowest[i, j] - depths[i]
        if lowest[i, j] < np.inf:
            assert graph.lowest_saddle(i, j).value == lowest[i, j]
        else:
            with pytest.raises(InputError, match=f"joins minimum {i} and minimum {j}"):
                graph.lowest_saddle(i, j)


def test_tree_of_groups():
    # 0-1 at 1, 2-3 at 2 (3-2 again at 3, no news), both at 4; 4 apart.
    graph = _graph([-5, -4, -3, -2, -1], [1, 2, 3, 4, 5], [(0, 1), (2, 3), (2, 3), (1, 3), (-1, 4)])
    assert graph.merges() == (
        (1.0, (0,), (1,), 0),
        (2.0, (2,), (3,), 1),
        (4.0, (0, 1), (2, 3), 3),
    )


def test_the_share_of_unseen_saddles():
    # Good's estimate is unbiased but for O(1/N) and its error is that of samples from a known law.
    rng = np.random.default_rng(0)
    law, box = rng.dirichlet(np.full(30, 0.5)), Box(jnp.zeros(2), jnp.ones(2))
    misses, errors = [], []
    for counts in rng.multinomial(200, law, 1000):
        hits = tuple(int(c) for c in counts if c)
        found = Search(box, descents=0, climbs=200, minima=0, hits=hits, joined=True)
        misses.append(found.unseen - law[counts == 0].sum())
        errors.append(found.unseen_error)
    # The bias is at most 1/N = .005 (the mean of the estimate is the share unseen after N - 1).
    assert abs(np.mean(misses)) < 0.005 + 3 * np.std(misses) / math.sqrt(1000)
    # The root of the mean squared error itself is known to 1/sqrt(2 * 1000), 2 %; Esty's formula
    # leaves out terms of relative order 1/sqrt(N), 7 %.
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(misses), rel=0.15)
