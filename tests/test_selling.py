"""Selling's decomposition: sums of squares of short offsets, and what is added to have one."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from thalweg.markov import selling

WEIGHTS = jax.jit(selling.weights)


def decomposed(tensors, radius=selling.RADIUS):
    """Offsets, weights and what is added, as NumPy arrays."""
    bases = selling.superbases(tensors, radius)
    weights, added = WEIGHTS(bases.vectors, bases.limiting, tensors)
    return selling.offsets(bases.vectors), np.asarray(weights), np.asarray(added)


def rotated(count, d, ratio, seed=0):
    """Tensors with the largest eigenvalue one and the smallest 1/ratio, in random directions."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=(count, d, d)))[0]
    values = np.ones((count, d))
    values[:, 0] = 1 / ratio
    if d == 3:
        values[:, 1] = ratio ** -random.uniform(size=count)
    return np.einsum("nij,nj,nkj->nik", axes, values, axes)


@pytest.mark.parametrize("d", [2, 3])
@settings(max_examples=20, deadline=None)
@given(ratio=st.floats(1.0, 1e6), seed=st.integers(0, 2**31))
def test_terms_add_up_to_the_tensor_and_what_was_added(d, ratio, seed):
    tensors = rotated(64, d, ratio, seed)
    offsets, weights, added = decomposed(tensors)
    whole = np.einsum("nk,nki,nkj->nij", weights, offsets, offsets)
    # Weights that rounding leaves below zero are left out: those come from products of vectors up
    # to 4 long that are zero within 1e-13 of their terms (of up to 48), times offsets squared (16).
    assert np.abs(whole - tensors - added[:, None, None] * np.eye(d)).max() < 1e-13 * 48 * 16
    assert (weights >= 0).all()
    assert np.abs(offsets).max() <= selling.RADIUS
    assert (added >= 0).all()
    # Primitive and not parallel: no jump passes over another, and none comes twice.
    flat = offsets.reshape(-1, d)
    assert (np.gcd.reduce(flat, axis=1) == 1).all()
    signs = np.sign(np.einsum("nki,i->nk", offsets, [100, 10, 1][:d]))
    for row in offsets * signs[..., None]:
        assert len({tuple(e) for e in row}) == len(row)


def test_closed_forms():
    tensors = np.array([np.diag([2.0, 3.0]), [[3, 1], [1, 2]], [[3, -1], [-1, 2]]])
    offsets, weights, added = decomposed(tensors)
    for row, weight, expected in zip(
        offsets,
        weights,
        (
            {(1, 0): 2.0, (0, 1): 3.0},
            {(1, 0): 2.0, (0, 1): 1.0, (1, 1): 1.0},
            {(1, 0): 2.0, (0, 1): 1.0, (1, -1): 1.0},
        ),
        strict=True,
    ):
        found = {
            tuple(e * (1 if e[0] > 0 or e[0] == 0 < e[1] else -1)): w
            for e, w in zip(row, weight, strict=True)
            if w > 0
        }
        assert found == expected
    assert (added == 0).all()


@pytest.mark.parametrize("v", [(1, 1), (2, 1), (-3, 4), (1, 2, -4), (3, 3, 1), (0, 1, 4)])
def test_rank_one_along_an_offset_is_exact(v):
    offsets, weights, added = decomposed(np.outer(v, v).astype(float)[None])
    assert added[0] == 0
    (used,) = np.flatnonzero(weights[0])
    assert weights[0, used] == 1
    assert tuple(offsets[0, used]) in (v, tuple(-x for x in v))


def primitive(d, radius):
    """All offsets within a radius, one of each pair of opposites."""
    grid = itertools.product(range(-radius, radius + 1), repeat=d)
    return np.array([e for e in grid if math.gcd(*e) == 1 and e > (0,) * d])


def least_addition(tensor, radius):
    """The least multiple of the identity that makes a sum of weighted offsets possible."""
    d = len(tensor)
    upper = np.triu_indices(d)
    squares = [np.outer(e, e)[upper] for e in primitive(d, radius)]
    system = np.column_stack([*squares, -np.eye(d)[upper]])
    cost = np.zeros(system.shape[1])
    cost[-1] = 1
    return linprog(cost, A_eq=system, b_eq=tensor[upper]).fun


def test_in_two_dimensions_the_least_is_added():
    tensors = rotated(12, 2, 1e4)
    added = decomposed(tensors)[2]
    least = [least_addition(tensor, selling.RADIUS) for tensor in tensors]
    # The solver is accurate to 1e-9 of numbers of the order one.
    np.testing.assert_allclose(added, least, rtol=0, atol=1e-8)
    assert (added > 0).sum() > 6


def test_the_largest_addition_is_that_of_the_widest_gap():
    # Tensors of trace one are a disc, those of rank one its edge at twice their angle; sums of the
    # two offsets (1, 0) and (4, 1) are a chord. In the middle of them the chord is cos(atan(1/4))
    # from the centre, and the identity leads there: 1 / cos(atan(1/4)) - 1 = 3.08 % of the trace.
    angle = math.atan(1 / 4) / 2
    v = np.array([math.cos(angle), math.sin(angle)])
    added = decomposed(np.outer(v, v)[None])[2]
    assert 2 * added[0] == pytest.approx(1 / math.cos(math.atan(1 / 4)) - 1, rel=1e-12)
    angles = np.linspace(0, np.pi, 2000)
    v = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    assert 2 * decomposed(v[:, :, None] * v[:, None, :])[2].max() < 0.0308


@pytest.mark.parametrize("ratio", [3.0, 1e4])
def test_weights_and_addition_are_differentiable(ratio):
    # Both are linear in the tensor where the superbase stays, so that differences are exact to
    # rounding: 1e-16 of weights of the order one over 1e-6.
    tensors, direction = rotated(8, 2, ratio), rotated(8, 2, 1.5, seed=1)
    bases = selling.superbases(tensors)
    assert (bases.limiting >= 0).any() == (ratio > 1000)

    def of(tensors):
        return jnp.concatenate([x.ravel() for x in WEIGHTS(*bases, tensors)])

    now, found = jax.jvp(of, (jnp.asarray(tensors),), (jnp.asarray(direction),))
    step = 1e-6
    differences = (of(tensors + step * direction) - of(tensors - step * direction)) / (2 * step)
    # What is zero stays so: weights by what was added, additions where there are none.
    alive = np.asarray(now) > 1e-4
    np.testing.assert_allclose(found[alive], differences[alive], rtol=0, atol=1e-8)
    assert alive.sum() >= 16
