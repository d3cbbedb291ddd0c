"""Gradients of a few samples from the pass that gave all their norms, against reverse mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from programs_gradnorms import CASES, all_in_one
from thalweg.gradnorms import reuse

# Parameters used in a scan: there the gradient takes a pass of its own.
SCANS = ["recurrent", "layers", "nested"]
OTHERS = [name for name in CASES if name not in SCANS]
INDEX, WEIGHTS = jnp.asarray([2, 0, 2]), jnp.asarray([0.5, -1.5, 0.25])


def scored(loss, params, data):
    @jax.jit
    def both(params, data):
        found = reuse.scored_with_gradient(loss, params, data)
        return found.losses, found.norms, found.gradient(INDEX, WEIGHTS)

    return both(params, data)


def expected(loss, params, data):
    @jax.jit
    def gradients(params, data):
        return jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0))(params, data)

    losses, each = gradients(params, data)
    leaves = [np.asarray(leaf, float).reshape(len(losses), -1) for leaf in jax.tree.leaves(each)]
    norms = np.sqrt(sum(np.square(leaf).sum(axis=1) for leaf in leaves))
    summed = jax.tree.map(
        lambda leaf: np.tensordot(WEIGHTS, np.asarray(leaf, float)[np.asarray(INDEX)], axes=1), each
    )
    return losses, norms, summed


@pytest.mark.parametrize(
    "names",
    [
        ["cast", "split", "tied", "look-up"],
        ["recurrent"],
        pytest.param(OTHERS, marks=pytest.mark.slow),
    ],
    ids=["few", "scans", "others"],
)
def test_programs(names, monkeypatch):
    passes = []
    own = reuse._in_two_passes
    monkeypatch.setattr(reuse, "_in_two_passes", lambda *args: passes.append(1) or own(*args))
    loss, params, data = all_in_one(names)
    got, true = scored(loss, params, data), expected(loss, params, data)
    assert len(passes) == ("recurrent" in names)
    np.testing.assert_allclose(got[0], true[0], rtol=1e-13)
    # One leaf is cast to single precision.
    np.testing.assert_allclose(got[1], true[1], rtol=1e-6)
    ways = jax.tree_util.tree_leaves_with_path(got[2])
    for (path, own), leaf in zip(ways, jax.tree.leaves(true[2]), strict=True):
        name = jax.tree_util.keystr(path)
        digits = 2**29 if "cast" in name else 1
        # Some thousand products of either sign, each right to a few roundings.
        scale = np.abs(leaf).max()
        np.testing.assert_allclose(own, leaf, rtol=0, atol=1e-12 * digits * scale, err_msg=name)
