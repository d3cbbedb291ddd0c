"""Small problems with dense answers, and what several test files look at in the same way."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw

COMPILED = "/jax/core/compile/backend_compile_duration"
_compilations: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: _compilations.append(event) if event == COMPILED else None
)


@contextmanager
def counted_compilations():
    """Yields a function that returns the number of programs compiled inside the block."""
    before = len(_compilations)
    yield lambda: len(_compilations) - before


def bowl(params, sample):
    """An anisotropic quadratic around its own centre, params of shape (d,)."""
    return 0.5 * jnp.sum(sample["curvature"] * jnp.square(params - sample["centre"]))


def bowls(n=5, d=2, *, weights=None, groups=None, seed=0, dtype=float, **options):
    """A finite sum of n quadratics, with gradients known in closed form."""
    rng = np.random.default_rng(seed)
    data = {
        "centre": rng.normal(size=(n, d)).astype(dtype),
        "curvature": rng.uniform(0.5, 2.0, size=(n, d)).astype(dtype),
    }
    return tw.FiniteSum(bowl, data, weights=weights, groups=groups, **options)


def bowl_gradients(problem, params):
    """The gradients of all samples, shape (n, d), by numpy."""
    centre, curvature = (np.asarray(problem.data[name]) for name in ("centre", "curvature"))
    return curvature * (np.asarray(params) - centre)


def bytes_of(tree):
    """Every array of a pytree, byte for byte; random keys as their data."""

    def raw(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf).tobytes()

    return [raw(leaf) for leaf in jax.tree.leaves(tree)]


def outcome(run):
    """What a run found, in a pytree of arrays with a leading axis of chains."""
    return {
        "params": run.params,
        "exit_step": run.exit_step,
        "diverged_step": run.diverged_step,
        "records": run.records,
        "means": run.means,
    }


def assert_same_run(run, other):
    """The two runs are equal bit for bit."""
    assert run.steps == other.steps
    assert run.record_steps.tolist() == other.record_steps.tolist()
    assert bytes_of(outcome(run)) == bytes_of(outcome(other))
