"""A small classification, nets and loops by hand for the tests of training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import thalweg as tw
from thalweg import models
from thalweg.random import Stream
from thalweg.train import Objective, train

MODEL = models.mlp((4, 6, 3), "tanh")
LOSS = models.supervised(MODEL, models.cross_entropy)
KEY = jax.random.key(7)


def samples(n=40, dtype=np.float64):
    """Points in four dimensions with one of three labels."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 4)).astype(dtype)
    return x, np.argmax(x[:, :3] + 0.3 * rng.normal(size=(n, 3)), axis=1).astype(np.int32)


def start(key=KEY, dtype=jnp.float64):
    return MODEL.init(key, dtype)


def options(**changes):
    """Keyword arguments of a short training of the net."""
    usual = {
        "sampler": tw.Minibatch(8),
        "optimizer": SGD,
        "steps": 20,
        "key": KEY,
        "record_every": 5,
    }
    return {**usual, **changes}


# One object, so that its compiled program is shared.
SGD = optax.sgd(0.2)


def trained(**changes):
    """The short training."""
    return train(LOSS, start(), samples(), **options(**changes))


def by_hand(objective, params, data, sampler, optimizer, steps, key=KEY, chain=0, state=()):
    """The obvious loop, on data in memory; a list of batch losses comes with it.

    Returns parameters, the optimiser's state, the model's state and the losses.
    """
    objective = Objective.of(objective)
    problem = tw.FiniteSum(lambda p, sample: objective.sample_loss(p, state, sample), data)

    @jax.jit
    def step(params, kept, state, drawn, k):
        draw, drawn = sampler.draw(problem, params, drawn, Stream.of(key, chain, k), k)
        index = jnp.arange(problem.n) if draw.index is None else draw.index
        weights = problem.weights if draw.weights is None else draw.weights
        batch = problem.samples(index)

        def total(params):
            losses, new = objective.losses(params, state, batch)
            return jnp.sum(weights.astype(losses.dtype) * losses), new

        (loss, state_after), gradient = jax.value_and_grad(total, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, kept = optimizer.update(gradient, kept, params)
            params = optax.apply_updates(params, updates)
        return params, kept, state_after, drawn, loss

    kept, drawn, losses = optimizer.init(params), sampler.init(problem, params), []
    for k in range(steps):
        params, kept, state, drawn, loss = step(params, kept, state, drawn, jnp.int32(k))
        losses.append(float(loss))
    return params, kept, state, losses


def assert_close(found, expected, rtol=1e-11, atol=1e-13):
    """Leaf by leaf.

    Two programs for the same sums differ by some rounding units (2e-16) in each of some hundred
    operations a step; over tens of steps of a smooth loss they grow to 1e-13 or so.
    """
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)
