"""The objective: a weighted mean of per-sample losses."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from thalweg.alias import AliasTable, alias_table
from thalweg.errors import InputError
from thalweg.loops import holds_convolution, over_chunks

# Any pytree of floating-point arrays.
Params: TypeAlias = Any
Loss: TypeAlias = Callable[[Any, Any], Array]

# Written out up to this many chunks, and with convolutions always.
_UNROLLED_CHUNKS = 8


@jax.tree_util.register_pytree_with_keys_class
class FiniteSum:
    r"""The objective :math:`f(\theta) = \sum_{i=1}^n a_i f_i(\theta)`: a mean, never a plain sum.

    ``loss(params, sample)`` is :math:`f_i(\theta)`, a scalar; ``params`` is any pytree of floating
    point arrays, ``data`` any pytree of arrays with a leading axis of length n, of which a sample
    is one entry. Losses say for themselves whether they hold a factor 1/2.

    All methods are pure and can be used under ``jax.jit``, ``jax.vmap`` and ``jax.grad``. Sums over
    the data run in chunks of ``chunk_size`` samples (any n, the last chunk may be smaller), so that
    memory is bounded by a chunk and nothing of size n x P is made (P parameters).

    Args:
        loss: The per-sample loss.
        data: The samples; finite.
        weights: The :math:`a_i`, non-negative with sum one; 1/n each unless given. They are the
            population's proportions: a sampler draws sample i with probability :math:`a_i`.
        groups: A label for each sample, of any type, or None. Group j has the proportion
            :math:`A_j = \sum_{i \in j} a_i` and is numbered in the sorted order of the labels.
        chunk_size: Samples evaluated at once.

    Raises:
        InputError: Data without a common leading axis or not finite (which leaf, which sample),
            weights that are negative or do not sum to one, labels of another length.
    """

    # A plain class, not an Equinox module: hashed by identity, so that jax.jit(f.value) works.
    loss: Loss
    data: PyTree[Array]
    weights: Float[Array, " n"]
    groups: Int[Array, " n"] | None
    table: AliasTable | None
    group_table: AliasTable | None
    n: int
    n_groups: int
    uniform: bool
    chunk_size: int
    _LEAVES = ("data", "weights", "groups", "table", "group_table")
    _STATIC = ("loss", "n", "n_groups", "uniform", "chunk_size")

    def __init__(
        self,
        loss: Loss,
        data: PyTree[Any],
        weights: Any = None,
        groups: Any = None,
        *,
        chunk_size: int = 4096,
    ):
        self.n = _common_length(data)
        self.loss = _hashable(loss)
        self.data = jax.tree.map(jnp.asarray, data)
        _check_finite(self.data)
        self.weights, self.uniform = _checked_weights(weights, self.n)
        self.groups, self.n_groups = _numbered_groups(groups, self.n)
        self.table, self.group_table = _tables(self.weights, self.uniform, self.groups)
        if chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1, got {chunk_size}")
        self.chunk_size = chunk_size

    @staticmethod
    def of(*terms: Callable[[Any], Array], weights: Any = None) -> "FiniteSum":
        r"""A sum of a few unlike terms, :math:`f = \sum_j a_j f_j`, each a function of params.

        Every term is a group of its own. Evaluating one drawn term costs all of them under
        ``jax.vmap`` (a select), which is cheap for the handful of terms this is for.
        """
        if not terms:
            raise InputError("FiniteSum.of needs at least one term, got none")
        index = np.arange(len(terms), dtype=np.int32)
        return FiniteSum(_OneOf(terms), index, weights=weights, groups=index)

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The arrays as leaves (data, weights, groups, tables), everything else static."""
        keys = (jax.tree_util.GetAttrKey(name) for name in self._LEAVES)
        leaves = (getattr(self, name) for name in self._LEAVES)
        return tuple(zip(keys, leaves, strict=True)), tuple(getattr(self, s) for s in self._STATIC)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], leaves: tuple[Any, ...]) -> "FiniteSum":
        """The inverse of flattening; checks nothing, for the leaves may be tracers."""
        self = object.__new__(cls)
        for name, value in zip(cls._LEAVES + cls._STATIC, (*leaves, *static), strict=True):
            setattr(self, name, value)
        return self

    @property
    def group_weights(self) -> Float[Array, " n_groups"]:
        r"""The proportions :math:`A_j` of the groups, in the order of their sorted labels."""
        return jax.ops.segment_sum(self.weights, self.require_groups(), self.n_groups)

    def require_groups(self) -> Int[Array, " n"]:
        """The group number of each sample; InputError if the problem has no groups."""
        if self.groups is None:
            raise InputError(
                "this needs the samples' groups and the problem has none; "
                "pass groups= to FiniteSum, one label a sample"
            )
        return self.groups

    def require_table(self) -> AliasTable:
        """The table for drawing from a population of unequal weights."""
        assert self.table is not None
        return self.table

    def require_group_table(self) -> AliasTable:
        """The table for drawing inside a group; InputError if the problem has no groups."""
        self.require_groups()
        assert self.group_table is not None
        return self.group_table

    def value(self, params: Params) -> Float[Array, ""]:
        r"""The objective :math:`f(\theta)`."""

        def part(data: Any, weights: Array) -> Array:
            return _weighted(self.loss, params, data, weights)

        return self.sum_over_chunks(part, self.data, self.weights)

    def gradient(
        self,
        params: Params,
        index: Int[Array, " draws"] | None = None,
        weights: Float[Array, " draws"] | None = None,
    ) -> Params:
        r"""The gradient :math:`\nabla f`, or the estimate :math:`\sum_b w_b \nabla f_{i_b}`.

        Args:
            params: Where.
            index: The samples drawn; all of them, with weights :math:`a_i`, if None.
            weights: The :math:`w_b` of the samples drawn.

        One backward pass a chunk; per-sample gradients are never stored.
        """
        data = self.data if index is None else self.samples(index)
        weights = self.weights if weights is None else weights

        def part(data: Any, weights: Array) -> Any:
            return jax.grad(lambda p: _weighted(self.loss, p, data, weights))(params)

        return self.sum_over_chunks(part, data, weights)

    def losses(self, params: Params) -> Float[Array, " n"]:
        r"""The per-sample losses :math:`f_i(\theta)`."""
        return self.over_samples(lambda sample: self.loss(params, sample), self.data)

    def gradients(self, params: Params, index: Int[Array, " draws"] | None = None) -> Params:
        r"""The gradients :math:`\nabla f_i(\theta)` of chosen samples, stacked on a leading axis.

        The result itself has size draws x P: ask for a few, or use
        :func:`thalweg.sample_gradient_norms` and the samplers' moments, which store none.
        """
        data = self.data if index is None else self.samples(index)
        return self.over_samples(lambda sample: jax.grad(self.loss)(params, sample), data)

    def samples(self, index: Int[Array, "..."]) -> PyTree[Array]:
        """The chosen samples."""
        return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0, mode="clip"), self.data)

    def over_samples(
        self, function: Callable[[Any], Any], data: PyTree[Array], size: int | None = None
    ) -> Any:
        """Map ``function`` over samples, ``size`` (or ``chunk_size``) at once; stacked."""
        return self.over_chunks(jax.vmap(function), data, size)

    def over_chunks(
        self, function: Callable[[Any], Any], data: PyTree[Array], size: int | None = None
    ) -> Any:
        """``function`` of a batch, on ``size`` (or ``chunk_size``) samples at once; joined."""
        n, size = _common_length(data), size or self.chunk_size
        if n <= size:
            return function(data)
        return over_chunks(function, data, n, size, compiled_loop=_loops(function, size, data))

    def sum_over_samples(
        self, function: Callable[[Any], Any], coefficients: Float[Array, " n"], size: int
    ) -> Any:
        r"""The sum :math:`\sum_i c_i F(i)` of any function of a sample, ``size`` at once."""

        def part(data: Any, coefficients: Array) -> Any:
            values = jax.vmap(function)(data)
            return jax.tree.map(
                lambda v: jnp.tensordot(coefficients.astype(v.dtype), v, axes=1), values
            )

        return self.sum_over_chunks(part, self.data, coefficients, size)

    def check_params(self, params: Params) -> None:
        """Raise InputError unless the loss of one sample at ``params`` is a floating-point scalar.

        Traces the loss once; nothing is computed.
        """
        _check_floating(params)
        sample = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.data
        )
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
        try:
            out = jax.eval_shape(self.loss, shapes, sample)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            remedy = ""
            if isinstance(error, (jax.errors.JAXTypeError, jax.errors.JAXIndexError)):
                remedy = "; shapes and branches cannot depend on the numbers, use jnp.where"
            raise InputError(
                f"the loss cannot be evaluated on these parameters ({describe(params)}) and a "
                f"sample ({describe(sample)}): {str(error).splitlines()[0]}{remedy}"
            ) from error
        if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
            raise InputError(
                "loss(params, sample) must return one floating-point number, got "
                f"{describe(out)}; reduce it over its axes (jnp.sum or jnp.mean)"
            )

    def sum_over_chunks(
        self,
        part: Callable[[Any, Array], Any],
        data: PyTree[Array],
        weights: Array,
        size: int | None = None,
    ) -> Any:
        """Sum ``part(chunk of data, chunk of weights)`` over chunks of ``size`` samples."""
        size = size or self.chunk_size
        n = weights.shape[0]
        if n <= size:
            return part(data, weights)
        chunks = n // size

        def body(total: Any, chunk: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, part(*chunk)), None

        head = jax.tree.map(
            lambda x: x[: chunks * size].reshape(chunks, size, *x.shape[1:]), (data, weights)
        )
        first = jax.tree.map(lambda x: x[0], head)
        rest = jax.tree.map(lambda x: x[1:], head)
        written_out = chunks <= _UNROLLED_CHUNKS or not _loops(part, size, data, weights)
        unroll = chunks if written_out else 1
        total, _ = jax.lax.scan(body, part(*first), rest, unroll=unroll)
        if chunks * size < n:
            tail = jax.tree.map(lambda x: x[chunks * size :], (data, weights))
            total = jax.tree.map(jnp.add, total, part(*tail))
        return total


class _OneOf:
    """The loss of :meth:`FiniteSum.of`: the sample is the number of the term."""

    def __init__(self, terms: tuple[Callable[[Any], Array], ...]):
        self.terms = terms

    def __call__(self, params: Params, term: Int[Array, ""]) -> Array:
        return jax.lax.switch(term, self.terms, params)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OneOf) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)


def describe(tree: PyTree[Any]) -> str:
    """Shapes and types of a pytree's leaves, for messages: ``['w']: float64[3, 2]``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    parts = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        shape = ", ".join(map(str, jnp.shape(leaf)))
        dtype = getattr(leaf, "dtype", type(leaf).__name__)
        parts.append(f"{name}: {dtype}[{shape}]" if name else f"{dtype}[{shape}]")
    return "; ".join(parts) or "an empty pytree"


def _loops(function: Callable[..., Any], size: int, *arguments: Any) -> bool:
    """Whether chunks of so many samples are to go through a loop of the compiled program."""
    if jax.default_backend() != "cpu":
        return True
    chunk = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), arguments)
    return not holds_convolution(function, *chunk)


def _weighted(loss: Loss, params: Params, data: Any, weights: Array) -> Array:
    losses = jax.vmap(loss, in_axes=(None, 0))(params, data)
    return jnp.dot(weights.astype(losses.dtype), losses)


def _hashable(loss: Loss) -> Loss:
    """The loss as a static (hashable) function; modules that hold arrays are wrapped."""
    try:
        hash(loss)
    except TypeError:
        return lambda params, sample: loss(params, sample)
    return loss


def _common_length(data: PyTree[Any]) -> int:
    leaves = jax.tree_util.tree_leaves_with_path(data)
    if not leaves:
        raise InputError("data holds no arrays; expected a pytree of arrays with a leading axis n")
    lengths = {}
    for path, leaf in leaves:
        name = "data" + jax.tree_util.keystr(path)
        if jnp.ndim(leaf) == 0:
            raise InputError(f"{name} is a scalar; expected a leading axis of n samples")
        lengths[name] = jnp.shape(leaf)[0]
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InputError(f"the leading axes of data differ ({listed}); expected n for every leaf")
    n = next(iter(lengths.values()))
    if n == 0:
        raise InputError("data holds no samples (leading axis of length 0)")
    return n


def _check_floating(params: Params) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise InputError("params holds no arrays; expected a pytree of floating-point arrays")
    for path, leaf in leaves:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(
                f"params{jax.tree_util.keystr(path)} has type {dtype}; expected floating point "
                "(write 1.0 instead of 1)"
            )


def _check_finite(data: PyTree[Array]) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if isinstance(leaf, jax.core.Tracer) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        bad = ~np.isfinite(np.asarray(leaf))
        if bad.any():
            first = ", ".join(map(str, np.argwhere(bad)[0]))
            raise InputError(
                f"data{jax.tree_util.keystr(path)} is not finite in {int(bad.sum())} places, "
                f"the first at [{first}]; remove or repair these samples"
            )


def _checked_weights(weights: Any, n: int) -> tuple[Array, bool]:
    if weights is None:
        return jnp.full(n, 1.0 / n), True
    values = np.asarray(weights, dtype=float)
    if values.shape != (n,):
        raise InputError(f"weights has shape {values.shape}; expected ({n},), one a sample")
    if not np.isfinite(values).all() or (values < 0).any():
        worst = int(np.argmax(~np.isfinite(values) | (values < 0)))
        raise InputError(
            f"weights[{worst}] is {values[worst]}; expected non-negative finite numbers"
        )
    if abs(values.sum() - 1) > 1e-6:
        raise InputError(
            f"weights sum to {values.sum():.8g}; the objective is a mean, expected 1 "
            "(divide them by their sum)"
        )
    # The sum is mended to rounding, so that draws and means agree.
    values = values / values.sum()
    return jnp.asarray(values, dtype=jnp.result_type(float)), bool(np.ptp(values) == 0)


def _numbered_groups(groups: Any, n: int) -> tuple[Array | None, int]:
    if groups is None:
        return None, 0
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise InputError(f"groups has shape {labels.shape}; expected ({n},), one label a sample")
    names, numbers = np.unique(labels, return_inverse=True)
    return jnp.asarray(numbers, dtype=jnp.int32), len(names)


def _tables(
    weights: Array, uniform: bool, groups: Array | None
) -> tuple[AliasTable | None, AliasTable | None]:
    """For draws from the population, where the weights differ, and for draws inside a group."""
    of_all = None if uniform else alias_table(np.asarray(weights), np.zeros(len(weights), int))
    in_groups = None if groups is None else alias_table(np.asarray(weights), np.asarray(groups))
    return of_all, in_groups
