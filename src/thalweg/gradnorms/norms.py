"""Norms of per-sample gradients in one backward pass."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from thalweg.errors import InputError
from thalweg.gradnorms.memory import _BUDGET
from thalweg.gradnorms.routes import Plan, Route, leaf_name, plan
from thalweg.gradnorms.squares import norm_dtype, squares_of_leaves
from thalweg.gradnorms.tracing import check_differentiable, common_length, trace
from thalweg.loops import over_chunks
from thalweg.problem import FiniteSum, Loss, Params

# Labels of the leaves: a name of a rule, a function of a leaf's path, or a pytree (a prefix).
Groups: TypeAlias = Any
Norms: TypeAlias = Array | dict[Any, Array]

# What meets parameters and the derivatives there, held at once, in numbers.
_FACTORS_BUDGET = 2**23
# At most so many chunks are written out in a program.
_UNROLLED_CHUNKS = 32
# Plans that are kept.
_KEPT_PLANS = 32


@dataclass(frozen=True)
class Explanation:
    """How norms were computed; ``str`` gives a line for each leaf.

    Attributes:
        routes: One for each leaf of params, in the order of its pytree.
        chunk_size: Samples at once.
    """

    routes: tuple[Route, ...]
    chunk_size: int

    def __str__(self) -> str:
        return "\n".join([*map(str, self.routes), f"samples at once: {self.chunk_size}"])


def sample_gradient_norms(
    loss: Loss,
    params: Params,
    data: PyTree[Any],
    *,
    chunk_size: int | None = None,
    groups: Groups = None,
    explain: bool = False,
) -> Any:
    r"""The Euclidean norms :math:`|\nabla f_i(\theta)|`, one a sample, in one backward pass.

    The loss is traced, and the products, convolutions and look-ups that a parameter enters are
    found in its program, however it is written. A weight that meets vectors :math:`a_p` at
    positions p (of an image, a sequence, a recurrence) and whose results have the derivatives
    :math:`\delta_p` has the gradient :math:`\sum_p a_p \delta_p^T`, so that

    .. math:: |\nabla_W f_i|^2 = \sum_{p, q} (a_p \cdot a_q) (\delta_p \cdot \delta_q)

    (Goodfellow, Efficient per-example gradient computations, 2015, arXiv:1510.01799, for one
    position; Rochette, Manoel & Tramel, 2019, arXiv:1912.06015, and Li et al., 2022,
    arXiv:2110.05679, for several). Where :math:`\sum_p a_p \delta_p^T` itself takes fewer
    operations, it is formed for this weight. Weights used several times (tied, in a derivative
    along a direction) get the terms of all pairs of uses. A leaf that enters anything else is
    differentiated sample by sample, in the same pass. The result is exact in every case; inner
    products of many positions that cancel lose half the digits, as squares do.

    Args:
        loss: ``loss(params, sample)``, a scalar; any JAX function.
        params: Where; any pytree of floating-point arrays.
        data: A pytree with leading axis n.
        chunk_size: Samples evaluated at once; all if they fit the memory unless given. Per-sample
            gradients of differentiated leaves take 1 MiB at most in float32.
        groups: None for the norms over all parameters. ``"leaf"``, ``"layer"`` (leaves whose paths
            differ in the last entry alone), a function of a leaf's path (``"dense/w"``) that
            returns its label, or a pytree of labels (or a prefix of one, of the shape of params):
            a norm for each label.
        explain: Also return how each leaf was treated, and why.

    Returns:
        Norms of shape (n,), in single precision at least; with ``groups`` a dictionary from
        labels to such arrays; with ``explain`` a pair of that and an :class:`Explanation`.

    Raises:
        InputError: Parameters without a gradient, data without samples, a loss that is not a
            scalar function of (params, sample) alone.

    Cost: .5 to 1.1 gradients of all samples together. Under ``jax.jit`` and ``jax.vmap``, too;
    otherwise the program is compiled and kept with ``loss``, as ``jax.jit`` would. To
    differentiate, take :func:`squared_gradient_norms`: a norm has no derivative where it is zero.
    """
    squares, explanation = _squares(loss, params, data, groups, chunk_size)
    if isinstance(squares, dict):
        # Not by jax.tree.map, which sorts the labels.
        norms: Norms = {label: _root(x) for label, x in squares.items()}
    else:
        norms = _root(squares)
    return (norms, explanation) if explain else norms


def squared_gradient_norms(
    loss: Loss,
    params: Params,
    data: PyTree[Any],
    *,
    chunk_size: int | None = None,
    groups: Groups = None,
) -> Any:
    r"""The squares :math:`|\nabla f_i(\theta)|^2`, which can be differentiated.

    Arguments, result and errors as for :func:`sample_gradient_norms`. The loss may close over
    what is traced: for :math:`\phi_i(\theta) = \frac{d}{dt} f_i(\theta + t v)|_{t = 0}` (a
    ``jax.jvp``) these are the :math:`|H_i v|^2`, and the gradient of
    :math:`\frac12 \sum_i a_i |H_i v|^2` by v is :math:`\sum_i a_i H_i^2 v`.
    """
    return _squares(loss, params, data, groups, chunk_size)[0]


def problem_gradient_norms(problem: FiniteSum, params: Params) -> Float[Array, " n"]:
    """:func:`sample_gradient_norms` of a finite sum's own loss and data."""
    return sample_gradient_norms(problem.loss, params, problem.data)


def _squares(
    loss: Loss, params: Params, data: PyTree[Any], groups: Groups, chunk_size: int | None
) -> tuple[Norms, Explanation]:
    n = common_length(data)
    check_differentiable(params)
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, got {chunk_size}")
    params, data = jax.tree.map(jnp.asarray, (params, data))
    own = _plan_of(loss, params, data)
    labels = _labels(groups, params)
    members = tuple(
        tuple(k for k, label in enumerate(labels) if label == name) for name in _distinct(labels)
    )
    arguments = (own.jaxpr.consts, jax.tree.leaves(params), jax.tree.leaves(data))
    size = chunk_size or _samples_at_once(own)
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments)):
        if own.convolutions and chunk_size is None:
            size = max(size, -(-n // _UNROLLED_CHUNKS))
        sums = _in_chunks(own, members, size, *arguments)
    elif own.convolutions:
        # XLA:CPU runs convolutions inside a compiled loop ten times slower.
        chunk = partial(_compiled, own, members, size, *arguments[:2])
        sums = over_chunks(chunk, arguments[2], n, size, compiled_loop=False)
    else:
        sums = _compiled(own, members, size, *arguments)
    explanation = Explanation(own.routes, min(size, n))
    if groups is None:
        return sums[0], explanation
    return dict(zip(_distinct(labels), sums, strict=True)), explanation


def _in_chunks(
    own: Plan,
    members: tuple[tuple[int, ...], ...],
    size: int,
    constants: Sequence[Any],
    leaves: Sequence[Any],
    data: Sequence[Any],
) -> list[Array]:
    """The squares of each group of leaves, ``size`` samples at once."""

    def chunk(data: Sequence[Any]) -> list[Array]:
        squares = squares_of_leaves(own, constants, leaves, data)
        return [_sum([squares[k] for k in group]) for group in members]

    n = data[0].shape[0]
    loop = not own.convolutions or n > _UNROLLED_CHUNKS * size
    return over_chunks(chunk, data, n, size, compiled_loop=loop)


_compiled = partial(jax.jit, static_argnums=(0, 1, 2))(_in_chunks)


def _root(squares: Array) -> Array:
    # Rounding may leave a sum that cancels below zero.
    return jnp.sqrt(jnp.maximum(squares, 0))


def _sum(squares: Sequence[Array]) -> Array:
    dtype = norm_dtype(*squares)
    return sum((x.astype(dtype) for x in squares[1:]), squares[0].astype(dtype))


def _samples_at_once(own: Plan) -> int:
    factors, gradients = own.held
    # Gradients no larger than what is there anyway do not count.
    by_gradients = _BUDGET // max(1, gradients - factors)
    return max(1, min(by_gradients, _FACTORS_BUDGET // max(1, factors + gradients)))


_plans: dict[Hashable, Plan] = {}


def _plan_of(loss: Loss, params: Params, data: PyTree[Any]) -> Plan:
    """The plan for a loss; kept, so that calls with the same loss and shapes share programs."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    sample = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data)
    leaves, tree = jax.tree.flatten((shapes, sample))
    # Whether 64 bits are on decides about what the loss makes itself.
    key = (loss, tree, tuple(leaves), jnp.result_type(float))
    try:
        if key in _plans:
            return _plans[key]
    except TypeError:
        # A loss that cannot be hashed, such as a module with arrays.
        return plan(trace(loss, shapes, sample), shapes)
    own = plan(trace(loss, shapes, sample), shapes)
    if not any(isinstance(x, jax.core.Tracer) for x in own.jaxpr.consts):
        if len(_plans) >= _KEPT_PLANS:
            del _plans[next(iter(_plans))]
        _plans[key] = own
    return own


def _labels(groups: Groups, params: Params) -> list[Any]:
    """The label of each leaf."""
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    if groups is None:
        return [None] * len(names)
    if isinstance(groups, str):
        rules: dict[str, Callable[[str], str]] = {
            "leaf": lambda name: name,
            "layer": lambda name: name.rpartition("/")[0],
        }
        if groups not in rules:
            raise InputError(
                f"groups is {groups!r}; expected 'leaf', 'layer', a function of a leaf's path or "
                "a pytree of labels"
            )
        return [rules[groups](name) for name in names]
    if callable(groups):
        return [groups(name) for name in names]
    try:
        return jax.tree.leaves(jax.tree.broadcast(groups, params))
    except ValueError as error:
        raise InputError(
            f"groups is a pytree of another shape than params ({error}); expected a label for "
            "each leaf, or for a subtree"
        ) from error


def _distinct(labels: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(labels))
