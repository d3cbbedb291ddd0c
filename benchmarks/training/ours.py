"""Training by Thalweg."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import works

import thalweg as tw
from thalweg.random import Stream

Piece = Callable[[], dict[str, Any]]
_SGD = optax.sgd(works.STEP)


def stepped(sampler: Any, *, steps: int) -> Piece:
    """A step of a sampler."""
    loss, params = works.net(works.WIDTHS)
    data = jax.tree.map(jnp.asarray, works.samples(60_000, 784))
    run = partial(_trained, loss, params, data, sampler)
    return lambda: works.per_step(run, steps // 5, steps)


def epoch(*, n: int) -> Piece:
    """The gradients of an epoch, batch by batch."""
    loss, params = works.net(works.WIDTHS)
    data = jax.tree.map(jnp.asarray, works.samples(n, 784))

    @jax.jit
    def gradients(params: Any) -> Any:
        def body(k: Any, total: Any) -> Any:
            part = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, k * works.BATCH, works.BATCH), data
            )
            return jax.tree.map(jnp.add, total, jax.grad(works.mean)(params, loss, part))

        return jax.lax.fori_loop(0, n // works.BATCH, body, jax.tree.map(jnp.zeros_like, params))

    return lambda: jax.block_until_ready(gradients(params)) and {}


def refresh(*, n: int) -> Piece:
    """The scores of all samples, as RR takes them anew."""
    loss, params = works.net(works.WIDTHS)
    data = jax.tree.map(jnp.asarray, works.samples(n, 784))
    norms = jax.jit(lambda params: tw.sample_gradient_norms(loss, params, data))
    return lambda: {"mean": float(norms(params).mean())}


def together(*, steps: int) -> Piece:
    """All seeds in one program."""
    loss, params = works.net(works.SMALL)
    data = works.samples(1500, 64)
    sampler = tw.Minibatch(works.SMALL_BATCH)
    run = partial(_trained, loss, params, data, sampler, members=works.SEEDS)
    return lambda: works.per_step(run, steps // 5, steps)


def in_turn(*, steps: int) -> Piece:
    """One run for each seed, its steps in one program."""
    loss, params = works.net(works.SMALL)
    data = works.samples(1500, 64)
    sampler = tw.Minibatch(works.SMALL_BATCH)

    def run(steps: int) -> Any:
        seeds = range(works.SEEDS)
        return [_trained(loss, params, data, sampler, steps, seed=seed) for seed in seeds]

    return lambda: works.per_step(run, steps // 5, steps)


def save() -> Piece:
    """A checkpoint: of a run that saves at its end, less one that does not."""
    loss, params = works.net(works.WIDTHS)
    data = works.samples(1000, 784)

    def run(folder: Path | None) -> float:
        begun = time.perf_counter()
        tw.train(
            loss,
            params,
            data,
            sampler=tw.Minibatch(works.BATCH),
            optimizer=_ADAM,
            steps=1,
            key=jax.random.key(0),
            folder=folder,
        )
        return time.perf_counter() - begun

    def piece() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            saved = run(Path(folder) / "run")
        return {"cpu": 0.0, "wall": max(saved - run(None), 0.0)}

    return piece


_ADAM = optax.adam(1e-3)


def draw(*, n: int, draws: int) -> Piece:
    """Batches from a table of scores, some of which change before each."""
    sampler = tw.Rolling(32)
    problem = tw.FiniteSum(lambda params, x: params * x, jnp.zeros(n, jnp.float32))
    scores = np.random.default_rng(0).lognormal(0, 1, n).astype(np.float32)
    state = sampler.keep(problem, jnp.asarray(scores))

    @jax.jit
    def run(state: Any, begin: Any) -> Any:
        def body(k: Any, kept: Any) -> Any:
            state, total = kept
            stream = Stream.of(jax.random.key(0), 0, k)
            index = sampler.asks(problem, state, stream, k)
            changed = jnp.abs(jnp.sin(index.astype(jnp.float32) + k))
            state = sampler.told(problem, state, index, changed)
            drawn = sampler.drawn(problem, state, stream, k)
            return state, total + drawn.index.sum()

        return jax.lax.fori_loop(begin, begin + draws, body, (state, jnp.int32(0)))

    def piece() -> dict[str, Any]:
        cpu, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(run(state, 0))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"cpu": cpu / draws, "wall": wall / draws}

    return piece


def _trained(
    loss: Any,
    params: Any,
    data: Any,
    sampler: Any,
    steps: int,
    seed: int = 0,
    members: int | None = None,
) -> Any:
    return tw.train(
        loss,
        params,
        data,
        sampler=sampler,
        optimizer=_SGD,
        steps=steps,
        key=jax.random.key(seed),
        members=members,
        record_every=steps,
    ).params


PIECES = {
    "sgd": partial(stepped, tw.Minibatch(works.BATCH)),
    "rolling": partial(stepped, tw.Rolling(works.BATCH)),
    "presampled": partial(stepped, tw.Presampled(works.BATCH, 3)),
    "epoch": epoch,
    "refresh": refresh,
    "together": together,
    "in turn": in_turn,
    "save": save,
    "draw": draw,
}
