"""Factors of covariance matrices: the matrix again, whatever its rank; NaN if it is indefinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thalweg.roots import UNROLLED, cholesky, factor, is_symmetric, symmetric_root


def gram(rng, d, rank, dtype, count=2000):
    """Matrices of a rank with badly scaled variables, the first two of them nearly dependent."""
    columns = rng.normal(size=(count, d, rank))
    if min(d, rank) > 1:
        apart = 10.0 ** rng.uniform(-9, 0, size=(count, 1))
        columns[:, 1] = rng.normal(size=(count, 1)) * columns[:, 0] + apart * columns[:, 1]
    columns = (columns * 10.0 ** rng.uniform(-3, 3, size=(count, d, 1))).astype(dtype)
    return columns @ columns.swapaxes(1, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", range(1, UNROLLED + 1))
def test_a_factor_gives_the_matrix_again(d, dtype):
    rng = np.random.default_rng(d)
    factors = jax.jit(jax.vmap(factor))
    for rank in range(1, d + 1):
        matrices = gram(rng, d, rank, dtype)
        roots = np.asarray(factors(matrices))
        sizes = np.sqrt(np.einsum("nii->ni", matrices))
        errors = np.abs(roots @ roots.swapaxes(1, 2) - matrices) / (
            sizes[:, :, None] * sizes[:, None, :]
        )
        # What is dropped is a share of 16 d eps; sums of d products round d times more.
        assert errors.max() <= 17 * d * np.finfo(dtype).eps
        # No column is made of rounding errors.
        assert (np.any(roots != 0, axis=1).sum(axis=1) <= rank).all()


def test_the_order_of_the_pivots_is_that_of_shares_of_the_variance():
    # The second variable has nothing of its own, the third has half, in units a million smaller.
    matrix = jnp.asarray([[1.0, 1.0, 0.5e-6], [1.0, 1.0, 0.5e-6], [0.5e-6, 0.5e-6, 0.5e-12]])
    root = factor(matrix)
    expected = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5e-6, 0.5e-6, 0.0]]
    np.testing.assert_allclose(root, expected, rtol=1e-15)


@pytest.mark.parametrize("d", [2, 3, UNROLLED])
def test_cholesky_is_that_of_numpy(d):
    columns = np.random.default_rng(0).normal(size=(50, d, d + 2))
    matrices = columns @ columns.swapaxes(1, 2)
    # The condition of these matrices is below 1e4.
    assert np.linalg.cond(matrices).max() < 1e4
    np.testing.assert_allclose(
        jax.vmap(cholesky)(matrices), np.linalg.cholesky(matrices), rtol=1e-11, atol=1e-11
    )


def test_cholesky_of_low_rank():
    columns = np.random.default_rng(0).normal(size=(500, 3, 2))
    matrices = columns @ columns.swapaxes(1, 2)
    roots = np.asarray(jax.vmap(cholesky)(matrices))
    assert (roots[:, :, 2] == 0).all()
    # The error is the rounding unit over the second pivot's share.
    share = roots[:, 1, 1] ** 2 / matrices[:, 1, 1]
    errors = np.abs(roots @ roots.swapaxes(1, 2) - matrices).max(axis=(1, 2))
    sizes = matrices.max(axis=(1, 2))
    assert (errors <= 50 * np.finfo(float).eps / share * sizes).all()


def test_the_derivative_of_cholesky():
    """Of L(t) with L L^T = A + t B: central differences."""
    a, b = jnp.asarray([[2.0, 0.5], [0.5, 1.0]]), jnp.asarray([[0.3, -0.2], [-0.2, 0.7]])
    _, slope = jax.jvp(cholesky, (a,), (b,))
    h = 1e-5
    difference = (np.linalg.cholesky(a + h * b) - np.linalg.cholesky(a - h * b)) / (2 * h)
    # Third derivatives of size one times h^2 / 6, and roundings over h: 2e-11.
    np.testing.assert_allclose(slope, difference, atol=1e-9)
    # At constant rank the derivative exists, too: c [[1, 2], [2, 4]] has the factor sqrt(c) (1, 2).
    line = jnp.asarray([[1.0, 2.0], [2.0, 4.0]])
    _, slope = jax.jvp(lambda c: cholesky(c * line), (jnp.asarray(4.0),), (jnp.asarray(1.0),))
    np.testing.assert_allclose(slope, [[0.25, 0.0], [0.5, 0.0]], rtol=1e-15)


def test_the_symmetric_root():
    columns = np.random.default_rng(0).normal(size=(20, 6, 4))
    matrices = columns @ columns.swapaxes(1, 2)
    roots = np.asarray(jax.vmap(symmetric_root)(matrices))
    sizes = matrices.max(axis=(1, 2), keepdims=True)
    assert (np.abs(roots @ roots - matrices) <= 1e-13 * sizes).all()
    np.testing.assert_array_equal(roots, jax.vmap(factor)(matrices))


INDEFINITE = {
    "negative": [[-1.0]],
    "negative in two": [[1.0, 0.0], [0.0, -1e-3]],
    "both signs": [[1.0, 2.0], [2.0, 1.0]],
    "zero with a covariance": [[0.0, 1e-3], [1e-3, 1.0]],
    "first zero, then a covariance": [[1.0, 0.0, 0.0], [0.0, 0.0, 1e-3], [0.0, 1e-3, 1.0]],
    "a share of zero": [[1.0, 1.0, 0.0], [1.0, 1.0, 1e-2], [0.0, 1e-2, 1.0]],
    "pairwise possible": [[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]],
    "not a number": [[1.0, np.nan], [np.nan, 1.0]],
    "negative in five": np.diag([1.0, 1.0, 1.0, 1.0, -1e-3]).tolist(),
}


@pytest.mark.parametrize("name", INDEFINITE)
@pytest.mark.parametrize("root", [factor, cholesky])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_indefinite_matrix_has_none(name, root, dtype):
    assert np.isnan(root(jnp.asarray(INDEFINITE[name], dtype))).all()


def test_zero_is_a_covariance():
    for root in (factor, cholesky):
        for d in (1, 2, 3, 5):
            assert (np.asarray(root(jnp.zeros((d, d)))) == 0).all()


def test_what_counts_as_symmetric():
    assert is_symmetric(jnp.asarray([[1.0, 0.3], [0.3 + 1e-12, 1.0]]))
    assert not is_symmetric(jnp.asarray([[1.0, 0.3], [0.2, 1.0]]))
