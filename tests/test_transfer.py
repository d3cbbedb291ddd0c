"""SGD's transition matrix against enumeration, exact laws of linear chains, and simulation."""

import itertools
import math
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csgraph
from scipy.stats import norm

import thalweg as tw
from helpers import bowl_gradients, bowls
from thalweg.errors import InputError
from thalweg.landscapes import piecewise_linear, toy_pair
from thalweg.markov import elimination, memory
from thalweg.markov.gaussian_kernel import cell_masses
from thalweg.markov.grid import Grid
from thalweg.markov.lattice import lattice
from thalweg.markov.transfer import transfer

KEY = jax.random.key(3)
LINE = piecewise_linear().problem
PLANE = bowls(4, groups=[0, 1, 1, 0])


def matrix(jumps):
    """The matrix P, and what leaves in a step."""
    P = jumps.step * jumps.matrix().toarray()
    np.fill_diagonal(P, np.diag(P) + 1)
    return P, jumps.step * jumps.leaving


def descent_1d(slopes, step, curvature=0.0):
    """Terms with these slopes and one curvature: moves that are known."""

    def loss(params, slope):
        return slope * params[0] + 0.5 * curvature * params[0] ** 2

    return tw.Descent(tw.FiniteSum(loss, np.asarray(slopes, float)), tw.Minibatch(1), step)


def share(lower, upper, a, b):
    return max(0.0, min(b, upper) - max(a, lower)) / (upper - lower)


def enumerated(grid, parts, step, gradients):
    """Ulam's matrix of SGD with equal samples, cell by cell: the slow truth."""
    edges = grid.edges
    extended = [np.concatenate([[-np.inf], e[1:-1], [np.inf]]) for e in edges]
    P = np.zeros((grid.cells.size,) * 2)
    for state, place in enumerate(grid.cells):
        cell = np.unravel_index(place, grid.shape)
        low = np.array([e[c] for e, c in zip(edges, cell, strict=True)])
        width = np.array([w[c] for w, c in zip(grid.widths, cell, strict=True)]) / parts
        for part in itertools.product(range(parts), repeat=grid.dimension):
            centre = low + (np.array(part) + 0.5) * width
            samples = gradients(centre)
            for gradient in samples:
                image = centre - step * gradient
                for other in np.ndindex(*grid.shape):
                    mass = math.prod(
                        share(y - w / 2, y + w / 2, e[c], e[c + 1])
                        for y, w, e, c in zip(image, width, extended, other, strict=True)
                    )
                    number = grid.numbers[other]
                    target = state if number < 0 else number
                    P[state, target] += mass / len(samples) / parts**grid.dimension
    return P


@pytest.mark.parametrize("parts", [1, 3])
def test_the_matrix_is_the_enumeration_of_draws_parts_and_overlaps(parts):
    # Unequal cells and a mask; reflecting sides, which are reached.
    grid = Grid.of_edges(
        [-1.0, -0.7, -0.1, 0.2, 0.9, 1.5],
        np.linspace(-1, 1, 5),
        mask=lambda x: jnp.sum(jnp.abs(x - 0.9)) > 0.5,
    )
    assert grid.cells.size < 20
    P, leaving = matrix(transfer(tw.Descent(PLANE, tw.Minibatch(1), 0.4), grid, subcells=parts))
    expected = enumerated(grid, parts, 0.4, lambda x: bowl_gradients(PLANE, x))
    # Shares of lengths near .1 of coordinates near 1, and slivers of 1e-14 that are left out.
    np.testing.assert_allclose(P, expected, atol=1e-13)
    assert (leaving == 0).all()


def test_the_matrix_in_three_dimensions():
    problem = bowls(2, 3)
    grid = Grid([-1.0] * 3, [1.0, 1.2, 0.9], (3, 2, 3))
    P, _ = matrix(transfer(tw.Descent(problem, tw.Minibatch(1), 0.3), grid, subcells=2))
    expected = enumerated(grid, 2, 0.3, lambda x: bowl_gradients(problem, x))
    np.testing.assert_allclose(P, expected, atol=1e-13)


SAMPLERS = {
    "full": (tw.Full(), "auto"),
    "one": (tw.Minibatch(1), "auto"),
    "pairs": (tw.Minibatch(2), "exact"),
    "norms": (tw.Reweighted(1), "auto"),
    "groups": (tw.Reweighted(1, by="group"), "auto"),
    "population": (tw.Resampled(2, proportions=(0.3, 0.7)), "auto"),
    "normal": (tw.Minibatch(1), "gaussian"),
    "normal of groups": (tw.Reweighted(1, by="group"), "gaussian"),
}
SIDES = ["reflecting", "absorbing", ("absorbing", "reflecting"), (("absorbing", "reflecting"),) * 2]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.sampled_from(sorted(SAMPLERS)),
    st.sampled_from(SIDES),
    st.tuples(st.integers(2, 9), st.integers(2, 9)),
    st.floats(0.01, 1.5),
    st.sampled_from([None, 1, 3]),
)
def test_rows_are_probabilities(name, sides, shape, step, parts):
    sampler, draws = SAMPLERS[name]
    grid = Grid([-1.0, -1.5], [1.2, 1.0], shape, boundary=sides)
    jumps = transfer(tw.Descent(PLANE, sampler, step), grid, subcells=parts, draws=draws)
    P, leaving = matrix(jumps)
    # A row of some hundred entries; the diagonal is one less the others.
    np.testing.assert_allclose(P.sum(axis=1) + leaving, 1, atol=1e-14)
    assert P.min() > -1e-15
    assert (jumps.rates > 0).all()
    assert (jumps.source != jumps.target).all()
    pairs = jumps.source.astype(np.int64) * jumps.count + jumps.target
    assert np.unique(pairs).size == pairs.size
    assert (jumps.clamped >= 0).all()
    assert (jumps.clamped + leaving <= 1 + 1e-14).all()
    if sides == "reflecting":
        assert (leaving == 0).all()
    if sides == "absorbing":
        assert (jumps.clamped == 0).all()


def test_the_mean_step_of_exact_draws_is_exact():
    # Inside a box that no draw leaves; the cells' centres stand for what is in them.
    grid = Grid([-4.0, -4.0], [4.0, 4.0], (23, 31))
    jumps = transfer(tw.Descent(PLANE, tw.Minibatch(1), 0.05), grid, subcells=1)
    P, _ = matrix(jumps)
    inner = np.abs(grid.points).max(axis=1) < 3
    drift = (P @ grid.points - grid.points) / 0.05
    exact = -bowl_gradients(PLANE, grid.points[:, None]).mean(axis=1)
    assert (jumps.clamped[inner] == 0).all()
    # Some ten roundings of numbers of size 4, over the step.
    np.testing.assert_allclose(drift[inner], exact[inner], atol=1e-12)


def test_gradient_descent_has_one_closed_class_for_each_minimum():
    # Steps much shorter than a cell: points that stay within it would never arrive.
    def loss(params, sample):
        return sample * (params[0] ** 2 - 1) ** 2 / 4

    problem = tw.FiniteSum(loss, np.ones(1))
    jumps = transfer(tw.Descent(problem, tw.Full(), 0.01), Grid(-2.0, 2.0, 50))
    pieces, piece = csgraph.connected_components(jumps.matrix(), connection="strong")
    left = piece[jumps.source[piece[jumps.source] != piece[jumps.target]]]
    closed = [np.flatnonzero(piece == p) for p in range(pieces) if p not in left]
    centres = jumps.grid.centres[0]
    # The unstable point lies on an edge, and belongs to neither.
    assert sorted(float(np.abs(np.abs(centres[c]) - 1).max()) < 0.1 for c in closed) == [True, True]


def test_a_map_that_moves_nothing_is_the_identity():
    # Coordinates that rounding disturbs: no sliver may join the cells.
    grid = Grid([0.1, 100.3], [0.7, 100.9], (7, 11))
    flat = tw.FiniteSum(lambda params, sample: 0.0 * sample * jnp.sum(params), np.ones(2))
    for draws in ("exact", "gaussian"):
        jumps = transfer(tw.Descent(flat, tw.Minibatch(1), 0.1), grid, draws=draws)
        assert jumps.rates.size == 0


def test_sides_and_masks():
    # Cells of width .1; a draw moves by .25 to either side.
    descent = descent_1d([1.0, -1.0], 0.25)
    P, _ = matrix(transfer(descent, Grid(0.0, 1.0, 10)))
    np.testing.assert_allclose(P[0, :4], [0.5, 0, 0.25, 0.25], atol=1e-15)
    np.testing.assert_allclose(P[2, :6], [0.5, 0, 0, 0, 0.25, 0.25], atol=1e-14)
    jumps = transfer(descent, Grid(0.0, 1.0, 10))
    np.testing.assert_allclose(
        jumps.clamped, [0.5, 0.5, 0.25, *[0] * 4, 0.25, 0.5, 0.5], atol=1e-15
    )
    box = Grid(0.0, 1.0, 10, boundary=[("absorbing", "reflecting")])
    jumps = transfer(descent, box)
    np.testing.assert_allclose(
        jumps.leaving, np.array([0.5, 0.5, 0.25, *[0] * 7]) / 0.25, atol=1e-14
    )
    np.testing.assert_allclose(jumps.clamped, [0] * 7 + [0.25, 0.5, 0.5], atol=1e-15)
    wall = Grid(0.0, 1.0, 10, mask=lambda x: x[0] < 0.7)
    P, _ = matrix(transfer(descent, wall))
    assert P.shape == (7, 7)
    # From .6 to .7 all that goes right stays.
    np.testing.assert_allclose(P[6], [0, 0, 0, 0.25, 0.25, 0, 0.5], atol=1e-14)


def test_large_problems_in_pieces(monkeypatch):
    grid = Grid([-2.0, -2.0], [2.0, 2.0], (12, 14), boundary="absorbing")
    descents = tw.Descent(PLANE, tw.Minibatch(1), 0.3)
    module = import_module("thalweg.markov.transfer")
    for draws, at_once in (("exact", 4000), ("gaussian", 3000)):
        one = transfer(descents, grid, draws=draws)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_AT_ONCE", at_once)
            patch.setattr(module, "_IN_CACHE", at_once)
            patch.setattr("thalweg.markov.landing._AT_ONCE", 1000)
            pieces = transfer(descents, grid, draws=draws)
        for name in ("source", "target"):
            np.testing.assert_array_equal(getattr(pieces, name), getattr(one, name))
        np.testing.assert_allclose(pieces.rates, one.rates, rtol=1e-13)
        np.testing.assert_allclose(pieces.leaving, one.leaving, rtol=1e-13)


# Normal draws.

COVARIANCE = np.array([[0.5, -0.3], [-0.3, 0.4]])


def masses(covariance, h, mean=(0.03, -0.02), span=3.0):
    """Masses of a normal law in squares of side h, by the kernel and by quadrature."""
    edges = np.arange(-span, span + h / 2, h)
    got = cell_masses(np.asarray(mean), covariance, (edges,) * 2)
    nodes, weights = np.polynomial.legendre.leggauss(20)
    x = ((edges[1:] + edges[:-1]) / 2)[:, None] + nodes * h / 2
    (a, b), (_, c) = covariance
    conditional = mean[1] + b / a * (x - mean[0]), (c - b * b / a) ** 0.5
    inner = np.diff(norm.cdf(edges[:, None, None], *conditional), axis=0)
    density = norm.pdf(x, mean[0], a**0.5) * weights * h / 2
    return got, np.einsum("ik,jik->ij", density, inner)


def test_correlated_masses_are_of_second_order_in_the_strips():
    errors = []
    for h in (0.4, 0.2, 0.1):
        got, exact = masses(COVARIANCE, h)
        errors.append(np.abs(got - exact).sum())
        # A strip along the second axis gets what it should, but for what the box cuts off.
        np.testing.assert_allclose(got.sum(axis=1), exact.sum(axis=1), atol=1e-5)
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert (orders > 1.8).all()
    assert errors[-1] < 2e-3


def test_masses_in_three_dimensions():
    # Marginals of a law whose every pair is correlated: means and covariances of cells.
    covariance = np.array([[0.5, 0.2, -0.1], [0.2, 0.4, 0.15], [-0.1, 0.15, 0.3]])
    mean = np.array([0.1, -0.2, 0.05])
    edges = np.linspace(-5, 5, 31)
    centres = (edges[1:] + edges[:-1]) / 2
    got = cell_masses(mean, covariance, (edges,) * 3)
    points = np.stack(np.meshgrid(*(centres,) * 3, indexing="ij"), axis=-1)
    first = np.einsum("ijk,ijkd->d", got, points)
    second = np.einsum("ijk,ijkd,ijke->de", got, points - first, points - first)
    # Binning adds a variance of h^2/12 and an alias of e^(-2 pi^2 sigma^2/h^2) = 1e-23; tails
    # beyond six deviations 1e-8.
    np.testing.assert_allclose(first, mean, atol=1e-7)
    np.testing.assert_allclose(second, covariance + np.eye(3) / 9 / 12, atol=1e-6)
    np.testing.assert_allclose(
        got.sum(axis=(1, 2)), np.diff(norm.cdf(edges, 0.1, 0.5**0.5)), atol=1e-14
    )


def test_tails_keep_their_relative_accuracy():
    edges = np.linspace(-7.9, 7.9, 80)
    got = cell_masses(np.zeros(1), np.eye(1), (edges,))
    right = np.diff(norm.sf(edges[40:]))
    # A difference of two numbers whose ratio is e^(-x h) < .8: ten roundings.
    np.testing.assert_allclose(got[40:], -right, rtol=1e-13)
    np.testing.assert_allclose(got, got[::-1], rtol=1e-12)
    assert 0 < got[-1] < 1e-14


def test_directions_without_noise():
    # A singular covariance along the diagonal, along an axis, and none.
    edges = np.linspace(-3, 3, 61)
    pair = (edges,) * 2
    mean = np.array([0.02, 0.31])
    line = cell_masses(mean, np.ones((2, 2)), pair)
    strips = np.diff(norm.cdf(edges, 0.02))
    np.testing.assert_allclose(line.sum(axis=1), strips, atol=2e-3)
    i, j = np.nonzero(line > 1e-4)
    # Within a strip the other coordinate spreads over .1 too: its law's deviation is .03.
    assert np.abs(edges[j] - edges[i] - 0.29).max() < 0.25
    flat = cell_masses(mean, np.diag([0.0, 1.0]), pair)
    np.testing.assert_allclose(flat[30], np.diff(norm.cdf(edges, 0.31)), atol=1e-15)
    assert flat[30].sum() == flat.sum()
    point = cell_masses(mean, np.zeros((2, 2)), pair)
    assert point[30, 33] == point.sum() == 1


def test_one_normal_step_has_the_mean_and_covariance_of_the_sampler():
    problem = bowls(40)
    descent = tw.Descent(problem, tw.Minibatch(3), 0.6)
    grid = Grid([-4.0, -4.0], [4.0, 4.0], 38)
    jumps = transfer(descent, grid, draws="gaussian")
    P, _ = matrix(jumps)
    at = int(np.argmin(np.abs(grid.points - [0.4, -0.7]).sum(axis=1)))
    theta = jnp.asarray(grid.points[at])
    mean = P[at] @ grid.points
    centred = grid.points - mean
    covariance = (centred * P[at, :, None]).T @ centred
    expected = 0.36 * np.asarray(descent.sampler.covariance(problem, theta))
    assert jumps.clamped[at] < 1e-15
    assert abs(expected[0, 1]) > 0.05 * expected[0, 0]
    # Cells of a deviation: the alias of binning is below 1e-8 and eight deviations lose 1e-15.
    assert (np.sqrt(np.diag(expected)) / grid.widths[0][0] > 1.04).all()
    np.testing.assert_allclose(mean, theta - 0.6 * problem.gradient(theta), atol=1e-8)
    np.testing.assert_allclose(covariance, expected, atol=1e-8)


def test_cells_are_cut_where_the_noise_is_less_than_a_cell():
    # Noise that vanishes at the origin, where all samples agree.
    rng = np.random.default_rng(2)
    data = {"centre": np.zeros((30, 2)), "curvature": rng.uniform(0.2, 2.0, (30, 2))}
    descent = tw.Descent(tw.FiniteSum(PLANE.loss, data), tw.Minibatch(1), 0.5)
    grid = Grid([-3.0, -3.0], [3.0, 3.0], (16, 18))
    chosen, one, four = (
        matrix(transfer(descent, grid, draws="gaussian", subcells=parts))[0]
        for parts in (None, 1, 4)
    )
    theta = jnp.asarray(grid.points)
    noise = 0.25 * np.asarray(
        jax.vmap(lambda x: descent.sampler.covariance(descent.problem, x))(theta)
    )
    widths = np.array([w[0] for w in grid.widths])
    wide = np.linalg.eigvalsh(noise / np.outer(widths, widths))[:, 0] >= 1
    assert 10 < wide.sum() < wide.size - 10
    np.testing.assert_allclose(chosen, np.where(wide[:, None], one, four), atol=1e-15)
    # Beside the origin, half a cell from it, the noise is a ninth of a cell.
    at = int(np.argmin(np.abs(grid.points).sum(axis=1)))
    assert one[at, at] > 0.9


# Linear chains: x' = (1 - eta h) x + eta s, of variance eta^2 c/(1 - (1 - eta h)^2) in the end.


def variance(draws, cells, eta=0.1, parts=None):
    slopes = np.random.default_rng(0).normal(size=20)
    slopes = (slopes - slopes.mean()) / slopes.std()
    exact = eta**2 / (1 - (1 - eta) ** 2)
    # Nine deviations.
    grid = Grid(-9 * exact**0.5, 9 * exact**0.5, cells)
    jumps = transfer(descent_1d(slopes, eta, 1.0), grid, subcells=parts, draws=draws)
    masses = elimination.stationary_masses(jumps)
    return masses @ grid.centres[0] ** 2 / exact - 1


def test_the_stationary_variance_with_normal_draws():
    # The noise is 1.2 cells on 50: the alias e^(-2 pi^2 1.2^2) = 5e-13, against 1 - .81.
    assert abs(variance("gaussian", 50)) < 1e-10
    # Cut into parts the cells add (1 - 1/K^2) h^2/12 a step for the place in the cell left.
    cut = [variance("gaussian", n, parts=4) for n in (50, 100, 200)]
    np.testing.assert_allclose(np.log2(np.divide(cut[:-1], cut[1:])), 2, atol=0.05)


def test_the_stationary_variance_with_exact_draws_is_of_second_order():
    errors = [variance("exact", n) for n in (50, 100, 200)]
    assert 0 < errors[-1] < 0.01
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.2)
    # A sixth of a cell's width squared a step, in units of the noise, over 1 - .81 of it.
    exact = 0.01 / (1 - 0.81)
    h = 18 * exact**0.5 / 200
    assert errors[-1] == pytest.approx(h * h / 6 / 0.01, rel=0.1)


# Lattices: An and Ying's section 2.

SGD = tw.Minibatch(1, replace=True)
POPULATION = tw.Resampled(1, lipschitz=(1.0, 5.0))
NORMS = tw.Reweighted(1)


def exited(sampler, steps):
    """Fractions that have been below -.5 by some steps from .25, exactly."""
    descent = tw.Descent(LINE, sampler, 0.04)
    own = lattice(descent, -2.0, 1.0, 0.25)
    jumps = transfer(descent, own)
    left = own.positions < -0.5
    P = 0.04 * jumps.matrix()
    law = np.zeros(left.size)
    law[np.argmin(np.abs(own.positions - 0.25))] = 1
    fractions = []
    for step in range(1, max(steps) + 1):
        law = np.where(left, 0, law + law @ P)
        if step in steps:
            fractions.append(1 - law.sum())
    return np.array(fractions)


@pytest.mark.parametrize(
    ("sampler", "unit"), [(SGD, 0.004), (POPULATION, 0.00272), (NORMS, 0.0008)]
)
def test_the_unit_of_all_moves(sampler, unit):
    # eps eta; eps w_2 eta with w_2 = .68; the steps eta S of length .0184 and .1216.
    own = lattice(tw.Descent(LINE, sampler, 0.04), -2.0, 1.0, 0.25)
    assert own.unit == pytest.approx(unit, rel=1e-15)
    np.testing.assert_array_equal(own.positions, own.centres[0])
    assert own.positions[0] >= -2
    assert own.positions[-1] <= 1
    assert np.abs(own.beside(own.positions)).max() < 1e-9
    assert (own.positions == 0.25).sum() == 1


def test_exited_fractions_of_an_and_ying():
    # Simulated there, with standard errors: figure 1.
    steps = (100, 1000, 10_000)
    sgd, rr, norms = exited(SGD, steps), exited(POPULATION, steps), exited(NORMS, steps)
    assert (np.abs(sgd[:2] - [0.318, 0.951]) < 4 * np.array([0.007, 0.003])).all()
    assert sgd[2] == pytest.approx(1, abs=1e-10)
    assert (rr[:2] < 1e-4).all()
    assert abs(rr[2] - 0.0008) < 4 * 0.0004
    assert (np.abs(norms - [0.009, 0.081, 0.568]) < 4 * np.array([0.002, 0.004, 0.008])).all()


def test_exited_fractions_of_simulated_chains():
    chains, steps = 8192, 300
    run = tw.simulate(
        tw.Descent(LINE, NORMS, 0.04),
        jnp.asarray([0.25]),
        steps=steps,
        key=KEY,
        chains=chains,
        exit=lambda params: params[0] < -0.5,
    )
    expected = exited(NORMS, (steps,))[0]
    assert 0.01 < expected < 0.5
    error = (expected * (1 - expected) / chains) ** 0.5
    assert abs(float(np.mean(np.asarray(run.exited))) - expected) < 4 * error


def test_a_lattice_through_a_kink_meets_it_exactly():
    # 1/K = .2 is a multiple of .004, and there the derivative is that of the left piece.
    descent = tw.Descent(LINE, SGD, 0.04)
    own = lattice(descent, -1.5, 1.0, 0.0)
    for kink in (-1.0, 0.0, 0.2):
        assert kink in own.positions
    P, _ = matrix(transfer(descent, own))
    at = {x: int(np.flatnonzero(own.positions == x)[0]) for x in (0.0, 0.2)}
    # At .2: eps and -K, moves of -1 and 50 units; at 0: 1 and -eps, of -10 and 1.
    np.testing.assert_allclose(P[at[0.2], [at[0.2] - 1, at[0.2] + 50]], [0.4, 0.6], rtol=1e-15)
    np.testing.assert_allclose(P[at[0.0], [at[0.0] - 10, at[0.0] + 1]], [0.4, 0.6], rtol=1e-15)


def test_absorbing_ends_of_a_lattice():
    descent = descent_1d([1.0, -2.0], 0.1)
    own = lattice(descent, 0.0, 1.0, 0.5, boundary="absorbing")
    assert own.shape == (11,)
    _, leaving = matrix(transfer(descent, own))
    np.testing.assert_allclose(leaving, [0.5, *[0] * 8, 0.5, 0.5], atol=1e-15)


def test_no_lattice_no_chain_on_it():
    with pytest.raises(
        InputError, match=r"moves are not multiples of a unit: they have .* lengths"
    ):
        lattice(tw.Descent(bowls(3, 1), SGD, 0.1), -1.0, 1.0, 0.0)
    with pytest.raises(
        InputError, match=r"not multiples of a unit: they have the lengths 0.1, 0.14"
    ):
        lattice(descent_1d([1.0, -(2**0.5)], 0.1), -1.0, 1.0, 0.0)
    with pytest.raises(InputError, match="does not move"):
        lattice(descent_1d([0.0, 0.0], 0.1), -1.0, 1.0, 0.0)
    descent = descent_1d([1.0, -2.0], 0.1)
    with pytest.raises(InputError, match="lower below upper"):
        lattice(descent, 1.0, -1.0, 0.0)
    with pytest.raises(InputError, match=r"1 points of the lattice of unit 0.1"):
        lattice(descent, -0.05, 0.05, 0.0)
    own = lattice(descent, -1.0, 1.0, 0.0)
    with pytest.raises(InputError, match="a lattice has no coarser version"):
        own.coarser()
    with pytest.raises(InputError, match="subcells is 2; on a lattice"):
        transfer(descent, own, subcells=2)
    with pytest.raises(InputError, match="draws on a lattice must be exact"):
        transfer(descent, own, draws="gaussian")
    other = descent_1d([1.0, -1.3], 0.1)
    with pytest.raises(
        InputError, match=r"from -1 a step goes to -0.87, which is 0.3 units beside"
    ):
        transfer(other, own)


# The toy pair of Wu, Ma and E at eta = .7.

LEFT, RIGHT = 0.5795501 - 1, 3.6426721 - 1


def toy_grid(depth):
    """Edges at the border and where it is reached from, which the exit time jumps across."""
    i, j = np.meshgrid(np.arange(2 * depth + 1), np.arange(depth + 1), indexing="ij")
    back = 0.86**-i * (-1 / 1.66) ** j
    y = np.concatenate([(LEFT * back).ravel(), (RIGHT * back).ravel(), [-1e-3, 1e-3]])
    y = np.unique(y[(y >= LEFT) & (y <= RIGHT) & (np.abs(y) >= 1e-3)])
    y = y[np.append(True, np.diff(y) > 1e-9)]
    beyond = [np.linspace(-4, LEFT, 10)[:-1], y, np.linspace(RIGHT, 7, 10)[1:]]
    return Grid.of_edges(1 + np.concatenate(beyond))


def test_sgd_leaves_the_right_minimum_of_the_toy_pair():
    # From 1.1 the exit from the branches at 1 takes 10.449 steps, by enumeration of all paths;
    # 5e-6 to the left it jumps to 10.511, so that a grid has to know where it jumps.
    descent = tw.Descent(toy_pair().problem, tw.Minibatch(1), 0.7)
    errors = []
    for depth, parts in ((8, 8), (12, 32)):
        grid = toy_grid(depth)
        jumps = transfer(descent, grid, subcells=parts)
        inside = (grid.centres[0] > 1 + LEFT) & (grid.centres[0] < 1 + RIGHT)
        time = elimination.mean_times(jumps, inside)
        cell = np.searchsorted(grid.edges[0], 1.1) - 1
        errors.append(abs(time[cell] / 0.7 - 10.449242))
    assert errors[1] < errors[0]
    assert errors[1] < 0.002


# Requests that make no sense.


def test_what_has_no_transition_matrix_is_refused():
    grid = Grid(-1.0, 1.0, 4)
    problem = bowls(4, 1, groups=[0, 1, 1, 0])
    for sampler in (tw.Reshuffled(2), tw.Cyclic(2)):
        with pytest.raises(InputError, match=r"is not Markov in the parameters.*use Minibatch"):
            transfer(tw.Descent(problem, sampler, 0.1), grid)
    with pytest.raises(InputError, match=r"keeps scores.*use refresh=1"):
        transfer(tw.Descent(problem, tw.Reweighted(1, refresh=10), 0.1), grid)
    for step in (optax.constant_schedule(0.1), optax.adam(0.1)):
        with pytest.raises(InputError, match="needs a number as the step"):
            transfer(tw.Descent(problem, SGD, step), grid)

    def traced(step):
        return jnp.sum(jnp.asarray(transfer(tw.Descent(problem, SGD, step), grid).rates))

    with pytest.raises(InputError, match="not differentiable"):
        jax.grad(traced)(0.1)
    with pytest.raises(InputError, match="cannot be evaluated on these parameters"):
        transfer(tw.Descent(bowls(4, 3), SGD, 0.1), Grid([0.0] * 2, [1.0] * 2, 4))


def test_options_out_of_range_are_refused():
    descent, grid = tw.Descent(bowls(4, 1), SGD, 0.1), Grid(-1.0, 1.0, 4)
    with pytest.raises(InputError, match="unknown kind of draws"):
        transfer(descent, grid, draws="normal")
    for parts in (0, -2, True):
        with pytest.raises(InputError, match=r"subcells is .*; expected a whole number"):
            transfer(descent, grid, subcells=parts)
    with pytest.raises(InputError, match="possible draws; expected at most 1000000"):
        transfer(tw.Descent(bowls(60, 1), tw.Minibatch(20), 0.1), grid, draws="exact")


def test_gradients_that_are_not_finite_are_shown():
    problem = tw.FiniteSum(lambda params, sample: sample * jnp.sqrt(params[0]), np.ones(2))
    for draws in ("exact", "gaussian"):
        with pytest.raises(InputError, match=r"the gradient at \[-0.416667\] is not finite"):
            transfer(
                tw.Descent(problem, tw.Minibatch(1, replace=True), 0.1),
                Grid(-1.0, 1.5, 5, mask=lambda x: x[0] > -0.4),
                subcells=3,
                draws=draws,
            )


def test_matrices_beyond_memory_are_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    descent = tw.Descent(bowls(40), tw.Minibatch(1), 0.6)
    with pytest.raises(
        InputError, match=r"entries takes about .* GiB and 0.000977 GiB are available"
    ):
        transfer(descent, Grid([-3.0] * 2, [3.0] * 2, 40), draws="gaussian")
