"""Boxes cut into cells: geometry, integrals, interpolation, masks, and what must be refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thalweg.errors import InputError
from thalweg.markov.grid import Grid

STRETCHED = (np.array([0.0, 0.1, 0.3, 0.7, 1.5]), np.array([-1.0, -0.5, 0.25, 1.0]))


def disc(x):
    return jnp.sum(x**2) < 1.0


def plane(x):
    return 1.0 + 2.0 * x[0] - 0.5 * x[1]


def holed():
    return Grid([-1, -1], [1, 1], [8, 8], mask=lambda x: jnp.sum(x**2) > 0.3)


# Geometry.


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_number_stands_for_every_axis(d):
    grid = Grid([0.0] * d, 1.0, 4)
    assert grid.shape == (4,) * d
    assert grid.dimension == d
    assert grid.boundary == (("reflecting", "reflecting"),) * d
    assert grid.uniform
    assert grid.cells.size == 4**d
    np.testing.assert_allclose(grid.volumes, 0.25**d, rtol=1e-15)
    assert f"shape={grid.shape}" in repr(grid)


def test_points_follow_the_order_of_ravel():
    grid = Grid([0.0, 10.0], [2.0, 13.0], [2, 3])
    assert grid.points.shape == (6, 2)
    np.testing.assert_array_equal(grid.points[1 * 3 + 2], [1.5, 12.5])
    np.testing.assert_array_equal(grid.points[:, 0].reshape(2, 3)[:, 0], grid.centres[0])


def test_edges_of_unequal_width_are_kept():
    grid = Grid.of_edges(*STRETCHED)
    assert grid.shape == (4, 3)
    assert not grid.uniform
    np.testing.assert_array_equal(grid.edges[0], STRETCHED[0])
    np.testing.assert_allclose(grid.widths[0], [0.1, 0.2, 0.4, 0.8], rtol=1e-15)
    np.testing.assert_allclose(grid.centres[1], [-0.75, -0.125, 0.625], rtol=1e-15)
    np.testing.assert_allclose(grid.volumes, np.outer(grid.widths[0], grid.widths[1]))
    # The cells fill the box.
    np.testing.assert_allclose(grid.volumes.sum(), 1.5 * 2.0, rtol=1e-15)


def test_boundaries_are_given_for_all_sides_an_axis_or_a_side():
    box = ([0.0, 0.0], [1.0, 1.0], [2, 2])
    assert Grid(*box, boundary="absorbing").boundary == (("absorbing",) * 2,) * 2
    mixed = Grid(*box, boundary=["reflecting", ("absorbing", "reflecting")])
    assert mixed.boundary == (("reflecting", "reflecting"), ("absorbing", "reflecting"))
    assert Grid(0, 1, 2, boundary=[["reflecting", "absorbing"]]).boundary[0][1] == "absorbing"


def test_a_mask_leaves_the_cells_whose_centres_are_inside():
    grid = Grid([-1, -1], [1, 1], [10, 10], mask=disc)
    expected = (grid.points**2).sum(axis=1) < 1.0
    np.testing.assert_array_equal(grid.inside.ravel(), expected)
    np.testing.assert_array_equal(grid.cells, np.flatnonzero(expected))
    np.testing.assert_array_equal(grid.numbers.ravel()[grid.cells], np.arange(grid.cells.size))
    assert (grid.numbers.ravel()[~expected] == -1).all()
    same = Grid([-1, -1], [1, 1], [10, 10], mask=expected.reshape(10, 10))
    np.testing.assert_array_equal(same.inside, grid.inside)


def test_states_and_functions_are_inverse_to_each_other():
    for grid in (holed(), Grid.of_edges(*STRETCHED)):
        values = jnp.arange(1.0, grid.cells.size + 1)
        spread = grid.spread(values)
        assert spread.shape == grid.shape
        np.testing.assert_array_equal(grid.gather(spread), values)
        assert not np.asarray(spread)[~grid.inside].any()
        np.testing.assert_array_equal(grid.spread(np.asarray(values)), spread)


# Functions and regions.


def test_a_function_is_taken_at_the_centres_and_is_zero_outside_of_the_mask():
    grid = holed()
    values = grid.function(plane)
    exact = 1 + 2 * grid.points[:, 0] - 0.5 * grid.points[:, 1]
    # jnp and np may differ in the order of the sum: some roundings of numbers up to 4.
    np.testing.assert_allclose(values, np.where(grid.inside, exact.reshape(8, 8), 0.0), atol=4e-15)
    np.testing.assert_array_equal(grid.function(np.asarray(values)), values)
    assert grid.function(np.ones((8, 8), int)).dtype == float


def test_a_function_can_be_differentiated_through():
    grid = Grid([0, 0], [1, 1], [4, 4])
    slope = jax.grad(lambda a: grid.integrate(grid.function(lambda x: a * x[0])))(3.0)
    # The integral of x over the unit square.
    np.testing.assert_allclose(slope, 0.5, rtol=1e-14)


def test_regions_are_predicates_or_arrays():
    grid = holed()
    here = grid.where(lambda x: x[0] > 0)
    np.testing.assert_array_equal(grid.where(here), here)
    np.testing.assert_array_equal(grid.region(here), here.ravel()[grid.cells])
    assert here.shape == grid.shape
    assert here.dtype == bool


# Integrals.


def test_integrals_keep_leading_axes_and_leave_out_what_is_masked():
    grid = Grid.of_edges(*STRETCHED, mask=lambda x: x[0] < 0.7)
    values = np.stack([np.ones(grid.shape), 2 * np.ones(grid.shape)])
    np.testing.assert_allclose(grid.integrate(values), [1.4, 2.8], rtol=1e-14)
    right = grid.integrate(values[0], lambda x: x[1] > 0.3)
    np.testing.assert_allclose(right, 0.7 * 0.75, rtol=1e-14)


def test_the_midpoint_rule_is_of_second_order():
    exact = (np.e - 1) ** 2
    errors = []
    for n in (8, 16):
        grid = Grid([0, 0], [1, 1], [n, n])
        found = grid.integrate(grid.function(lambda x: jnp.exp(x[0] + x[1])))
        errors.append(abs(float(found) - exact))
    # h^2 (1 + O(h^2)): 4 up to some per cent.
    assert 3.9 < errors[0] / errors[1] < 4.1


def test_a_normalised_density_has_mass_one_and_nothing_outside():
    grid = holed()
    density = grid.normalise(np.full(grid.shape, 7.0))
    np.testing.assert_allclose(grid.integrate(density), 1.0, rtol=1e-14)
    assert not np.asarray(density)[~grid.inside].any()
    np.testing.assert_allclose(
        grid.masses(density), (np.asarray(density) * grid.volumes).ravel()[grid.cells]
    )


def test_marginals_integrate_the_other_parameters_out():
    edges = (*STRETCHED, np.array([0.0, 0.2, 1.0]))
    grid = Grid.of_edges(*edges)
    parts = [np.arange(1.0, n + 1) for n in grid.shape]
    density = np.einsum("i,j,k->ijk", *parts)
    sums = [part @ widths for part, widths in zip(parts, grid.widths, strict=True)]
    np.testing.assert_allclose(grid.marginal(density, 1), parts[1] * sums[0] * sums[2])
    np.testing.assert_allclose(
        grid.marginal(density, (0, 2)), np.outer(parts[0], parts[2]) * sums[1]
    )
    np.testing.assert_allclose(grid.marginal(density, (0, 1, 2)), density)
    # Marginals have the mass of the density.
    total = float(grid.integrate(density))
    np.testing.assert_allclose(grid.marginal(density, 0) @ grid.widths[0], total, rtol=1e-14)


# Points.


def test_interpolation_is_exact_for_linear_functions():
    grid = Grid.of_edges(*STRETCHED)
    values = grid.function(plane)
    low = [c[0] for c in grid.centres]
    high = [c[-1] for c in grid.centres]
    points = np.random.default_rng(0).uniform(low, high, size=(3, 5, 2))
    found = grid.interpolate(values, points)
    # Eight products of numbers up to 4.
    np.testing.assert_allclose(found, jax.vmap(jax.vmap(plane))(points), atol=2e-14)
    on_centres = grid.interpolate(values, grid.points)
    np.testing.assert_allclose(on_centres, np.asarray(values).ravel(), atol=2e-14)


def test_interpolation_is_constant_beyond_the_outer_centres():
    grid = Grid([0.0], [1.0], [4])
    found = grid.interpolate(np.array([1.0, 2.0, 3.0, 4.0]), np.array([[0.0], [0.05], [1.0]]))
    np.testing.assert_array_equal(found, [1.0, 1.0, 4.0])


def test_interpolation_next_to_a_mask_uses_the_cells_inside():
    grid = Grid([0.0], [1.0], [4], mask=lambda x: x[0] > 0.25)
    values = np.array([0.0, 5.0, 6.0, 7.0])
    np.testing.assert_array_equal(grid.interpolate(values, [[0.3]]), [5.0])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_point_mass_has_mass_one_and_its_mean(d):
    edges = (np.array([-2.0, -1.0, 0.2, 0.7, 2.0]), *STRETCHED)[:d]
    grid = Grid.of_edges(*edges)
    point = np.array([-0.3, 0.4, 0.1])[:d]
    density = grid.delta(point)
    np.testing.assert_allclose(grid.integrate(density), 1.0, rtol=1e-14)
    mean = [grid.integrate(np.asarray(density) * x.reshape(grid.shape)) for x in grid.points.T]
    np.testing.assert_allclose(mean, point, rtol=1e-13)
    assert np.count_nonzero(density) == 2**d


def test_a_point_mass_in_one_dimension_may_be_a_number():
    grid = Grid(0.0, 1.0, 4)
    np.testing.assert_array_equal(grid.delta(0.375), [0.0, 4.0, 0.0, 0.0])


# Half as many cells.


def test_the_coarser_grid_joins_cells_in_pairs():
    edges = (STRETCHED[0], np.linspace(0, 1, 7))
    grid = Grid.of_edges(*edges, boundary=["absorbing", "reflecting"], mask=disc)
    coarse = grid.coarser()
    np.testing.assert_array_equal(coarse.edges[0], STRETCHED[0][::2])
    assert coarse.shape == (2, 3)
    assert coarse.boundary == grid.boundary
    np.testing.assert_array_equal(coarse.inside, coarse.where(disc))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (lambda: Grid(0, 1, 5), "needs an even number"),
        (lambda: Grid(0, 1, 2), "at least 4"),
        (lambda: Grid(0, 1, 4, mask=np.arange(4) > 1), "as a function of params"),
    ],
)
def test_grids_without_a_half_say_so(grid, message):
    with pytest.raises(InputError, match=message):
        grid().coarser()


# What makes no sense.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grid([0, 0], [1, 1, 1], 4), "2, 3 and 1 entries"),
        (lambda: Grid(0, 1, [[4]]), "entries"),
        (lambda: Grid(0, 1, 1), "at least 2 an axis"),
        (lambda: Grid(0, 1, 4.0), "whole numbers of cells"),
        (lambda: Grid(0, 1, []), "entries|whole numbers"),
        (lambda: Grid(1, 1, 4), "is not below"),
        (lambda: Grid(0, np.inf, 4), "upper is inf"),
        (lambda: Grid("a", 1, 4), "lower is 'a'"),
        (lambda: Grid([0] * 4, 1, 4), "4 dimensions"),
        (lambda: Grid([0] * 3, 1, 500), "GiB"),
        (lambda: Grid(0, 1, 4, boundary="periodic"), "unknown boundary 'periodic'"),
        (lambda: Grid(0, 1, 4, boundary=["reflecting"] * 2), "for each of the 1 axes"),
        (lambda: Grid(0, 1, 4, boundary=None), "boundary is None"),
        (lambda: Grid(0, 1, 4, boundary=[["absorbing"] * 3]), "pair of words"),
        (lambda: Grid(0, 1, 4, boundary=[3]), "pair of words"),
        (lambda: Grid(0, 1, 4, boundary=[(None, "absorbing")]), "unknown boundary 'None'"),
        (lambda: Grid(0, 1, 4, mask=lambda x: x[0] > 2), "leaves no cell"),
        (lambda: Grid(0, 1, 4, mask=lambda x: x), "one truth value"),
        (lambda: Grid(0, 1, 4, mask=lambda x: x > 0), "one truth value"),
        (lambda: Grid(0, 1, 4, mask=np.ones(4)), "got float64"),
        (lambda: Grid(0, 1, 4, mask=lambda x: bool(x[0] > 0)), "cannot be asked of params"),
        (lambda: Grid.of_edges([0, 1]), "at least three"),
        (lambda: Grid.of_edges([0, 1, 1]), "ascending"),
        (lambda: Grid.of_edges([0, 1, np.nan]), "finite"),
        (lambda: Grid.of_edges(["a", "b", "c"]), "finite"),
        (lambda: Grid.of_edges(), "0 dimensions"),
    ],
)
def test_grids_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


SMALL = Grid([0, 0], [1, 1], [2, 3])
HALF = Grid([0, 0], [1, 1], [4, 4], mask=lambda x: x[0] > 0.5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: SMALL.region(lambda x: x[0] > 2), "holds no cell of the grid"),
        (lambda: SMALL.where(np.ones((3, 2), bool), "region"), "the region must be"),
        (lambda: SMALL.function(lambda x: x), "one real number"),
        (lambda: SMALL.function(lambda x: x[0] > 0), "got bool"),
        (lambda: SMALL.function(lambda x: jax.lax.complex(*x)), "got complex128"),
        (lambda: SMALL.function(lambda x: (x[0], x[1])), "returns a tuple"),
        (lambda: SMALL.function(lambda x, y: x[0]), "cannot be asked"),
        (lambda: SMALL.function(np.ones((3, 2))), r"of shape \(3, 2\)"),
        (lambda: SMALL.normalise(np.ones((3, 2))), r"expected the grid's \(2, 3\)"),
        (lambda: SMALL.normalise(np.ones((2, 2, 3))), r"\(2, 2, 3\)"),
        (lambda: SMALL.normalise(-np.ones((2, 3))), "negative or infinite"),
        (lambda: SMALL.normalise(np.full((2, 3), np.nan)), "negative or infinite"),
        (lambda: SMALL.normalise(np.zeros((2, 3))), "mass of 0"),
        (lambda: SMALL.masses(np.full((2, 3), np.inf), "law"), "the law has negative"),
        (lambda: SMALL.integrate(np.ones(6)), "shape"),
        (lambda: SMALL.marginal(np.ones((2, 3)), 2), "axes from 0 to 1"),
        (lambda: SMALL.marginal(np.ones((2, 3)), (1, 0)), "ascending"),
        (lambda: SMALL.marginal(np.ones((3, 2)), 0), "shape"),
        (lambda: SMALL.interpolate(np.ones((3, 2)), [[0.5, 0.5]]), "shape"),
        (lambda: SMALL.interpolate(np.ones((2, 3)), [0.5]), "last axis of 2"),
        (lambda: SMALL.interpolate(np.ones((2, 3)), [[0.5, 1.5]]), "coordinate 1 outside"),
        (lambda: SMALL.interpolate(np.ones((2, 3)), [[0.5, np.nan]]), "outside"),
        (lambda: SMALL.delta([0.5]), "one number for each of the 2 axes"),
        (lambda: SMALL.delta([0.5, -0.1]), "from 0 to 1"),
        (lambda: HALF.delta([0.1, 0.5]), "outside of the mask"),
    ],
)
def test_questions_that_make_no_sense_are_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


def test_without_64_bits_there_is_no_grid():
    with jax.enable_x64(False), pytest.raises(InputError, match="jax_enable_x64"):
        Grid(0, 1, 4)
