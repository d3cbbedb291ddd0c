"""What is measured of Thalweg, and of plain JAX beside it."""

import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
from jax.flatten_util import ravel_pytree
from measure import Clock
from nets import Case

import thalweg as tw
from thalweg import curvature
from thalweg.datasets import first_of_classes, one_hot
from thalweg.models import mlp, squared_error, supervised

Piece = Callable[[], dict[str, Any]]
KEY = jax.random.key(0)
_SETTLED_S = 0.2
# Samples at once in the products sample by sample.
_AT_ONCE = {"multilayer": 32, "conv": 8}


def vector(params: Any) -> jax.Array:
    """A normal vector, the same for all pieces."""
    size = ravel_pytree(params)[0].size
    return jnp.asarray(np.random.default_rng(0).standard_normal(size), jnp.float32)


@contextmanager
def peak() -> Iterator[list[int]]:
    """Bytes that were held at most inside this context beyond those before: see peak.c."""
    counter, found = ctypes.CDLL(None), [0]
    counter.peak_bytes.restype = ctypes.c_long
    # XLA gives back what the last call held a moment after its result is there.
    gc.collect()
    time.sleep(_SETTLED_S)
    counter.peak_begin()
    yield found
    found[0] = counter.peak_bytes()


def question(answer: Callable[[Case], Callable[[], Any]]) -> Callable[..., Piece]:
    """A piece from a function of a case that returns what is to be called."""

    def prepare(*, net: str, samples: int) -> Piece:
        call = answer(nets.case(net, samples))

        def run() -> dict[str, Any]:
            clock = Clock()
            with peak() as memory, clock("call"):
                found = jax.block_until_ready(call())
            # Arrays are not kept: gradients are dictionaries, too.
            answers = found if isinstance(found, dict) else {}
            own = {key: x for key, x in answers.items() if isinstance(x, int | float)}
            return {"found": own, "memory": memory[0], **clock.times()}

        return run

    return prepare


def _gradient(case: Case) -> Callable[[], Any]:
    return lambda: nets.gradient(case.problem, case.params)


def _product(case: Case) -> Callable[[], Any]:
    v = vector(case.params)
    return lambda: curvature.hessian_product(case.problem, case.params, v)


def _product_again(case: Case) -> Callable[[], Any]:
    operator, v = curvature.hessian(case.problem, case.params), vector(case.params)
    return lambda: operator.matvec(v)


def _largest(case: Case) -> Callable[[], Any]:
    def run() -> dict[str, Any]:
        found = curvature.top_eigenvalues(curvature.hessian(case.problem, case.params), rtol=1e-3)
        return {
            "value": float(found.values[0]),
            "residual": float(found.residuals[0] / found.values[0]),
            "products": found.products,
        }

    return run


def _trace(case: Case) -> Callable[[], Any]:
    def run() -> dict[str, Any]:
        operator = curvature.hessian(case.problem, case.params)
        found = curvature.trace(operator, rtol=1e-9, budget=30, key=KEY)
        return {"value": found.value, "error": found.error, "probes": found.probes}

    return run


def _density(case: Case) -> Callable[[], Any]:
    def run() -> dict[str, Any]:
        operator = curvature.hessian(case.problem, case.params)
        found = curvature.spectral_density(operator, steps=50, key=KEY)
        return {"largest": found.largest.value, "residual": found.largest.error}

    return run


def _nonuniformity_product(case: Case) -> Callable[[], Any]:
    operator = curvature.nonuniformity_operator(case.problem, case.params)
    v = vector(case.params)
    return lambda: operator.matvec(v)


def _norms(case: Case) -> Callable[[], Any]:
    v = vector(case.params)
    return lambda: curvature.sample_hessian_norms(case.problem, case.params, v)


@partial(jax.jit, static_argnums=0)
def _sample_products(loss: Any, params: Any, data: Any, vectors: Any) -> Any:
    """H_i v_i of a batch, sample by sample."""
    unravel = ravel_pytree(params)[1]

    def one(sample: Any, v: jax.Array) -> jax.Array:
        slope = jax.grad(lambda p: loss(p, sample))
        return ravel_pytree(jax.jvp(slope, (params,), (unravel(v),))[1])[0]

    return jax.vmap(one)(data, vectors)


def _batches(case: Case, v: jax.Array, twice: bool) -> Any:
    problem, size = (
        case.problem,
        _AT_ONCE["multilayer" if case.problem.data[0].ndim == 2 else "conv"],
    )
    for first in range(0, problem.n, size):
        data = jax.tree.map(lambda x, k=first: x[k : k + size], problem.data)
        vectors = jnp.broadcast_to(v, (size, v.size))
        for _ in range(1 + twice):
            vectors = _sample_products(problem.loss, case.params, data, vectors)
        yield vectors


def _vmap_nonuniformity(case: Case) -> Callable[[], Any]:
    v = vector(case.params)

    def run() -> jax.Array:
        second = sum(jnp.sum(x, axis=0) for x in _batches(case, v, True)) / case.problem.n
        first = curvature.hessian_product(case.problem, case.params, v)
        return second - curvature.hessian_product(case.problem, case.params, first)

    return run


def _vmap_norms(case: Case) -> Callable[[], Any]:
    v = vector(case.params)
    return lambda: jnp.concatenate([jnp.linalg.norm(x, axis=1) for x in _batches(case, v, False)])


def _experiment() -> Piece:
    """Non-uniformity of a net of 0.9M parameters on 1000 images of two classes, to 1 per cent."""
    loaded = first_of_classes(tw.datasets.load("fashion-mnist"), (0, 1), 1000)
    x, y = loaded.train.x.reshape(1000, -1), one_hot(loaded.train.y, 2)
    model = mlp([784, 700, 440, 100, 2], activation="relu")
    params = model.init(KEY)
    problem = tw.FiniteSum(supervised(model, squared_error), (x, y))
    for _ in range(60):
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, nets.gradient(problem, params))

    def run() -> dict[str, Any]:
        begun = time.perf_counter()
        operator = curvature.nonuniformity_operator(problem, params)
        # The value is accurate to the square of the vector's, the residual certifies 1 per cent.
        found = curvature.top_eigenvalues(operator, rtol=1e-2)
        return {
            "parameters": operator.size,
            "nonuniformity": float(found.values[0]) ** 0.5,
            "residual": float(found.residuals[0] / found.values[0]),
            "products": found.products,
            "seconds": time.perf_counter() - begun,
        }

    return run


PIECES = {
    "gradient": question(_gradient),
    "product": question(_product),
    "product-again": question(_product_again),
    "largest": question(_largest),
    "trace": question(_trace),
    "density": question(_density),
    "nonuniformity": question(_nonuniformity_product),
    "norms": question(_norms),
    "vmap-nonuniformity": question(_vmap_nonuniformity),
    "vmap-norms": question(_vmap_norms),
    "experiment": lambda: _experiment(),
}
