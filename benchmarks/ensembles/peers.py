"""The same work by Diffrax, by torchsde and by the usual loop in JAX.

torchsde has no events and gives the final state only, which spares it the exit. Diffrax and
torchsde have the drift written by hand, as Thalweg; the loop in JAX takes the gradient by
``jax.grad``, as the loops that people write do.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import losses
import numpy as np
import works

Piece = Callable[[], dict[str, Any]]


def diffrax(*, chains: int, steps: int, noise: str, exit: bool) -> Piece:
    """Euler's method with increments drawn as they come, vmapped over keys; an event for the exit.

    The noise is a diagonal operator, as Diffrax's documentation has it, or a dense matrix, which is
    the faster here: XLA does not fuse a product with it and draws every increment once only.
    """
    import diffrax as dfx
    import lineax as lx

    deviations = jnp.full(2, 2.0**0.5)
    operator = lx.DiagonalLinearOperator if noise == "diagonal" else jnp.diag
    centre = jnp.array(works.CENTRE)

    def inside(t: Any, y: jax.Array, args: Any, **rest: Any) -> jax.Array:
        return jnp.sum((y - centre) ** 2) <= works.RADIUS**2

    def path(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        brownian = dfx.UnsafeBrownianPath(shape=(2,), key=key)
        terms = dfx.MultiTerm(
            dfx.ODETerm(lambda t, y, args: losses.by_hand(y)),
            dfx.ControlTerm(lambda t, y, args: operator(deviations), brownian),
        )
        solution = dfx.diffeqsolve(
            terms,
            dfx.Euler(),
            0.0,
            steps * works.DT,
            works.DT,
            jnp.array(works.START),
            max_steps=None,
            # The default refuses these paths.
            adjoint=dfx.ForwardMode(),
            event=dfx.Event(inside) if exit else None,
        )
        left = jnp.where(inside(0.0, solution.ys[-1], None), solution.stats["num_steps"], -1)
        return solution.ys[-1], left

    return _compiled(jax.vmap(path), jax.random.split(jax.random.key(works.SEED), chains))


def torchsde(*, chains: int, steps: int) -> Piece:
    """``sdeint`` by Euler's method with its own Brownian interval."""
    import os

    import torch
    import torchsde as sde

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    class Mueller(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Any, position: Any) -> Any:
            x, y = position[:, 0], position[:, 1]
            drift_x, drift_y = 0.0, 0.0
            for A, a, b, c, x0, y0 in works.TERMS:
                dx, dy = x - x0, y - y0
                bump = works.SCALE * A * torch.exp(a * dx * dx + b * dx * dy + c * dy * dy)
                drift_x = drift_x - bump * (2 * a * dx + b * dy)
                drift_y = drift_y - bump * (b * dx + 2 * c * dy)
            return torch.stack([drift_x, drift_y], dim=1)

        def g(self, t: Any, position: Any) -> Any:
            return torch.full_like(position, 2.0**0.5)

    equation, start = Mueller(), torch.tensor([works.START]).expand(chains, 2)
    times = torch.tensor([0.0, steps * works.DT])

    def run() -> dict[str, Any]:
        with torch.no_grad():
            final = sde.sdeint(equation, start, times, dt=works.DT, method="euler")[-1]
        return {"means": final.mean(dim=0).tolist()}

    return run


def scan(*, chains: int, steps: int) -> Piece:
    """``vmap`` of ``scan``: a key is split and two normals are drawn in every step."""
    centre = jnp.array(works.CENTRE)

    def path(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(carry: Any, k: jax.Array) -> tuple[Any, None]:
            position, left, key = carry
            key, own = jax.random.split(key)
            noise = jnp.sqrt(2 * works.DT) * jax.random.normal(own, (2,))
            moved = position - works.DT * jax.grad(losses.coordinates)(position) + noise
            position = jnp.where(left < 0, moved, position)
            inside = jnp.sum((position - centre) ** 2) <= works.RADIUS**2
            return (position, jnp.where((left < 0) & inside, k + 1, left), key), None

        begin = jnp.array(works.START), jnp.int32(-1), key
        (position, left, _), _ = jax.lax.scan(step, begin, jnp.arange(steps, dtype=jnp.int32))
        return position, left

    return _compiled(jax.vmap(path), jax.random.split(jax.random.key(works.SEED), chains))


def scan_descent(*, chains: int, steps: int, n: int) -> Piece:
    """``vmap`` of ``scan``: a key is split and an index drawn by ``randint`` in every step."""
    rows = jnp.asarray(works.quadratics(n), jnp.float32)

    def path(key: jax.Array) -> jax.Array:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            position, key = carry
            key, own = jax.random.split(key)
            index = jax.random.randint(own, (), 0, n)
            gradient = jax.grad(lambda p: losses.quadratic(p, rows[index]))(position)
            return (position - works.QUADRATICS_STEP * gradient, key), None

        return jax.lax.scan(step, (jnp.zeros(2), key), None, length=steps)[0][0]

    return _compiled(jax.vmap(path), jax.random.split(jax.random.key(works.SEED), chains))


def _compiled(paths: Callable[..., Any], keys: jax.Array) -> Piece:
    compiled = jax.jit(paths)

    def run() -> dict[str, Any]:
        outcome = jax.block_until_ready(compiled(keys))
        position, left = outcome if isinstance(outcome, tuple) else (outcome, None)
        summary: dict[str, Any] = {"means": np.mean(position, axis=0, dtype=float).tolist()}
        if left is not None:
            summary["exits"] = int((np.asarray(left) >= 0).sum())
        return summary

    return run


PIECES = {
    "diffrax": diffrax,
    "torchsde": torchsde,
    "scan": scan,
    "scan_descent": scan_descent,
}
