"""Weighted sums over samples: in memory or in batches that come one after the other."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from thalweg.errors import InputError
from thalweg.problem import FiniteSum, Loss, Params

# term(loss, params, data, weights, *more): the sum over the samples of data with these weights.
Term = Callable[..., Any]

# Below so many samples a chunk is not halved: its arrays are small beside the parameters.
_HALVED = 64


@dataclass(frozen=True, eq=False)
class Batches:
    """Samples of equal weight that come in batches, for data that do not fit in memory.

    Attributes:
        loss: ``loss(params, sample)``, as for :class:`thalweg.FiniteSum`.
        batches: An iterable of pytrees with a leading axis, which may differ from batch to batch;
            gone through once for each product, so no generator: a list, or an object whose
            ``__iter__`` starts anew. Samples weigh the same whatever batch they are in.
    """

    loss: Loss
    batches: Iterable[PyTree[Any]]

    def __post_init__(self) -> None:
        """Refuse what can be gone through only once."""
        if isinstance(self.batches, Iterator):
            raise InputError(
                f"batches is a {type(self.batches).__name__}, which is empty after one pass; "
                "expected a list or an object whose __iter__ starts anew, for every product goes "
                "through the data once"
            )

    def check_params(self, params: Params) -> None:
        """As :meth:`thalweg.FiniteSum.check_params`, on the first batch."""
        for batch in self.batches:
            FiniteSum(self.loss, batch).check_params(params)
            return
        raise InputError("batches holds no batch; expected at least one")


Source = FiniteSum | Batches


@contextmanager
def _along_directions() -> Iterator[None]:
    """Refuse losses that have reverse derivatives only."""
    try:
        yield
    except (TypeError, NotImplementedError) as error:
        if not _reverse_only(error):
            raise
        raise InputError(
            "the loss holds a jax.custom_vjp function, which has no derivative along a direction; "
            "give the function a jax.custom_jvp rule (Hessians of means alone do without)"
        ) from error


def _reverse_only(error: Exception) -> bool:
    # JAX's words, of the function and of the primitive it becomes, are all there is to go by.
    return any(word in str(error) for word in ("custom_vjp", "custom_lin"))


@_along_directions()
def summed(term: Term, source: Source, params: Params, *more: Any) -> Any:
    r"""The sum :math:`\sum_i a_i t_i` of a term over all samples of a source.

    In memory it is one compiled program if the samples fit in a chunk or if it is being traced;
    else, as for batches, a loop outside of the program: on the CPU convolutions inside of a
    compiled loop are ten times slower.

    Args:
        term: ``term(loss, params, data, weights, *more)``, a function of the module level: the
            sum over a batch, a pytree.
        source: The samples.
        params: Where.
        more: Further arguments of the term; pytrees of arrays.

    Raises:
        InputError: A loss that cannot be differentiated along a direction.
    """
    if isinstance(source, FiniteSum) and (source.n <= source.chunk_size or _traced(params, more)):
        return _at_once(term, source, params, more)
    total, mass = None, 0.0
    for part in parts(source):
        own = _part(term, source.loss, params, part.data, part.weights, more)
        total = own if total is None else jax.tree.map(jnp.add, total, own)
        mass += part.mass
    return jax.tree.map(lambda x: x / mass, total)


@_along_directions()
def stacked(function: Term, source: Source, params: Params, *more: Any) -> tuple[Array, Array]:
    """The numbers ``function(loss, params, data, *more)`` of all samples, and their weights.

    The function gives those of a batch, shape (n,); loops as for :func:`summed`.
    """
    if isinstance(source, FiniteSum) and (source.n <= source.chunk_size or _traced(params, more)):
        return _numbers_at_once(function, source, params, more), source.weights
    numbers, weights = [], []
    for part in parts(source):
        own = _numbers(function, source.loss, params, part.data, more)
        numbers.append(own[part.repeated :])
        weights.append(part.weights[part.repeated :])
    together = jnp.concatenate(weights)
    return jnp.concatenate(numbers), together / jnp.sum(together)


def has_slopes(source: Source, params: Params) -> bool:
    """Whether the losses can be differentiated along directions; traces one, computes nothing."""
    data = source.data if isinstance(source, FiniteSum) else next(iter(source.batches))
    sample = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data)

    def slope(params: Params, sample: Any) -> Array:
        return jax.jvp(lambda p: source.loss(p, sample), (params,), (params,))[1]

    try:
        # The first derivative alone fails late, when it is compiled.
        jax.eval_shape(lambda p, s: jax.jvp(lambda q: slope(q, s), (p,), (p,)), params, sample)
    except (TypeError, NotImplementedError) as error:
        if not _reverse_only(error):
            raise
        return False
    return True


class Part(NamedTuple):
    """Some samples.

    Attributes:
        data: A pytree with a leading axis.
        weights: Zero for samples that an earlier part has, too.
        mass: What is to be added up for the total to be divided by.
        repeated: How many samples at the beginning an earlier part has.
    """

    data: Any
    weights: Array
    mass: float
    repeated: int


def parts(source: Source) -> Iterator[Part]:
    """The samples in batches, or in chunks of one size, so that one program serves them all."""
    if isinstance(source, Batches):
        for batch in source.batches:
            count = jax.tree.leaves(batch)[0].shape[0]
            yield Part(jax.tree.map(jnp.asarray, batch), jnp.ones(count), float(count), 0)
        return
    count = -(-source.n // source.chunk_size)
    size = -(-source.n // count)
    for k in range(count):
        first = min(k * size, source.n - size)
        repeated = k * size - first
        part = slice(first, first + size)
        data = jax.tree.map(lambda x, part=part: x[part], source.data)
        weights = jnp.where(jnp.arange(size) < repeated, 0, source.weights[part])
        yield Part(data, weights, 1.0 if k == 0 else 0.0, repeated)


def halved(source: Source) -> Source:
    """The same in chunks half as large, for work that holds a few times what a gradient does."""
    if not isinstance(source, FiniteSum) or min(source.n, source.chunk_size) < _HALVED:
        return source
    # A copy, for a new problem would look through all data again.
    smaller = copy(source)
    smaller.chunk_size = -(-min(source.n, source.chunk_size) // 2)
    return smaller


def _traced(*trees: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


@partial(jax.jit, static_argnums=0)
def _at_once(term: Term, problem: FiniteSum, params: Params, more: tuple[Any, ...]) -> Any:
    def part(data: Any, weights: Array) -> Any:
        return term(problem.loss, params, data, weights, *more)

    return problem.sum_over_chunks(part, problem.data, problem.weights)


@partial(jax.jit, static_argnums=(0, 1))
def _part(
    term: Term, loss: Loss, params: Params, data: Any, weights: Array, more: tuple[Any, ...]
) -> Any:
    return term(loss, params, data, weights, *more)


@partial(jax.jit, static_argnums=0)
def _numbers_at_once(
    function: Term, problem: FiniteSum, params: Params, more: tuple[Any, ...]
) -> Array:
    return problem.over_chunks(
        lambda data: function(problem.loss, params, data, *more), problem.data
    )


@partial(jax.jit, static_argnums=(0, 1))
def _numbers(function: Term, loss: Loss, params: Params, data: Any, more: tuple[Any, ...]) -> Array:
    return function(loss, params, data, *more)
