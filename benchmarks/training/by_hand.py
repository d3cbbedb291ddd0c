"""The loops one writes: Optax in a compiled loop, and a jitted step that Python calls."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import works

Piece = Callable[[], dict[str, Any]]


def _stepped(loss: Any, data: Any, batch: int) -> Any:
    rule = optax.sgd(works.STEP)

    def step(params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
        index = jax.random.randint(key, (batch,), 0, len(data[1]))
        chosen = jax.tree.map(lambda x: x[index], data)
        updates, state = rule.update(jax.grad(works.mean)(params, loss, chosen), state)
        return optax.apply_updates(params, updates), state

    return rule.init, step


def step(*, steps: int) -> Piece:
    """A compiled loop over the steps, of any number."""
    loss, params = works.net(works.WIDTHS)
    data = jax.tree.map(jnp.asarray, works.samples(60_000, 784))
    start, step = _stepped(loss, data, works.BATCH)

    @jax.jit
    def loop(params: Any, key: jax.Array, steps: Any) -> Any:
        def body(k: Any, kept: Any) -> Any:
            return step(*kept, jax.random.fold_in(key, k))

        return jax.lax.fori_loop(0, steps, body, (params, start(params)))[0]

    def run(steps: int) -> Any:
        return loop(params, jax.random.key(1), steps)

    return lambda: works.per_step(run, steps // 5, steps)


def seeds(*, steps: int) -> Piece:
    """Runs of a small net one after the other, a jitted step at a time."""
    loss, params = works.net(works.SMALL)
    data = jax.tree.map(jnp.asarray, works.samples(1500, 64))
    start, step = _stepped(loss, data, works.SMALL_BATCH)
    compiled = jax.jit(step)

    def run(steps: int) -> Any:
        ends = []
        for seed in range(works.SEEDS):
            kept = params, start(params)
            key = jax.random.key(seed)
            for _ in range(steps):
                key, own = jax.random.split(key)
                kept = compiled(*kept, own)
            ends.append(kept)
        return ends

    # Python's part does not depend on how many steps there are.
    return lambda: works.per_step(run, steps // 50, steps // 10)


PIECES = {"step": step, "seeds": seeds}
