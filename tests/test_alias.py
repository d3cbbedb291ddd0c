"""Alias tables: their exact law against the weights."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from thalweg.alias import alias_table, draw_in_groups
from thalweg.random import Stream

KEY = jax.random.key(2)


def law(table):
    """The probability of each entry in its group, exactly, from the columns."""
    columns, start, size = (np.asarray(x).tolist() for x in table)
    p = [Fraction(0)] * len(columns)
    for begin, m in zip(start, size, strict=True):
        for threshold, below, beyond in columns[begin : begin + m]:
            p[below] += Fraction(threshold, 2**32 * m)
            p[beyond] += Fraction(2**32 - threshold, 2**32 * m)
    return p


def random_weights(rng, n):
    """Even, of few sizes with zeros among them, or over many orders of magnitude."""
    kinds = [np.ones(n), rng.integers(0, 4, n).astype(float), np.exp(rng.normal(0, 8, n))]
    return kinds[rng.integers(3)]


def test_tables_have_the_law_of_the_weights():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 30))
        groups = np.unique(rng.integers(0, rng.integers(1, 6), n), return_inverse=True)[1]
        weights = random_weights(rng, n)
        p = law(alias_table(weights, groups))
        for group in range(groups.max() + 1):
            members = np.flatnonzero(groups == group)
            assert sum(p[i] for i in members) == 1
            total = sum(Fraction(weights[i]) for i in members)
            if total == 0:
                assert [p[i] for i in members] == [Fraction(1, len(members))] * len(members)
                continue
            exact = [Fraction(weights[i]) / total for i in members]
            # Half a unit an entry, and what the last one takes: 2^-33 in all (and 64 bits' error).
            distance = sum(abs(p[i] - q) for i, q in zip(members, exact, strict=True)) / 2
            assert distance <= Fraction(1, 2**33) + Fraction(1, 2**50)
            assert all(p[i] == 0 for i in members if weights[i] == 0)


@pytest.mark.parametrize("x64", [True, False])
def test_draws_have_the_law_of_the_table(x64):
    weights = np.array([0.0, 3, 1, 6, 0, 2, 2, 0.5])
    groups = np.array([0, 0, 1, 0, 1, 1, 1, 0])
    with jax.enable_x64(x64):
        table = alias_table(weights, groups)
        both = jnp.asarray([1, 0], jnp.int32)
        many = jax.jit(jax.vmap(lambda j: draw_in_groups(Stream.of(KEY, j), table, both)))
        drawn = np.asarray(many(jnp.arange(200_000)))
    assert drawn.dtype == np.int32
    for column, group in zip(drawn.T, (1, 0), strict=True):
        seen, expected = np.bincount(column, minlength=8), weights * (groups == group)
        assert (seen[expected == 0] == 0).all()
        kept = expected > 0
        assert chisquare(seen[kept], 200_000 * expected[kept] / expected.sum()).pvalue > 1e-4
