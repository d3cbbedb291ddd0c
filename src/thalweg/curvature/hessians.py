r"""The Hessian and the Gauss-Newton matrix of the objective."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg.curvature.operator import Operator, check_point, check_size, flat_size
from thalweg.curvature.sums import Source, halved, has_slopes, parts, stacked, summed
from thalweg.errors import InputError
from thalweg.loops import holds_convolution
from thalweg.problem import FiniteSum, Loss, Params


def hessian(problem: Source, params: Params) -> Operator:
    r"""The Hessian :math:`H = \nabla^2 f(\theta)` of the objective.

    Args:
        problem: A :class:`thalweg.FiniteSum`, or :class:`Batches` for data out of memory.
        params: Where.

    A product differentiates the gradient along the vector (forward over reverse): about 1.9
    gradients. Samples that fit in one chunk are linearised once, with the first product, and the
    others take 1.5 to 1.7; what they share is kept, about as much as the gradient holds.

    Raises:
        InputError: Parameters that the loss does not take.
    """
    size, dtype = check_point(problem, params)
    slopes = has_slopes(problem, params)
    along = partial(_along, problem, params) if slopes else None
    # What has no derivative along a direction cannot be kept linearised either.
    if slopes and isinstance(problem, FiniteSum) and problem.n <= problem.chunk_size:
        kept = _Linearised(problem, params)
        return Operator(kept, size, dtype, along, kept.gradient)
    guess = partial(summed, _gradient_term, problem, params)
    return Operator(partial(hessian_product, problem, params), size, dtype, along, guess)


def hessian_product(
    problem: Source, params: Params, vector: Float[Array, " size"]
) -> Float[Array, " size"]:
    """The product of :func:`hessian` with a flat vector, in the problem's own chunks."""
    return summed(_hessian_term, problem, params, vector)


def sample_curvatures(
    problem: Source, params: Params, vector: Float[Array, " size"]
) -> Float[Array, " n"]:
    r"""The second derivatives :math:`v^\top H_i v` of all samples along one direction, shape (n,).

    Forward over forward: about four evaluations of the losses, and nothing of size n x P.

    Raises:
        InputError: Parameters that the loss does not take, or a vector of another size.
    """
    size, _ = check_point(problem, params)
    check_size(vector, size, "vector")
    return _along(problem, params, vector)[0]


def gauss_newton(
    problem: Source,
    params: Params,
    *,
    outputs: Callable[[Params, Any], Any] | None = None,
    cost: Callable[[Any, Any], Array] | None = None,
) -> Operator:
    r"""The Gauss-Newton matrix :math:`G = \sum_i a_i J_i^\top B_i J_i`.

    The loss of sample i is a cost of the outputs :math:`z_i(\theta)` of a model, :math:`J_i` the
    Jacobian of the outputs and :math:`B_i` the Hessian of the cost by them. What it lacks of the
    Hessian are the curvatures of the outputs, :math:`\sum_i a_i \sum_k \partial_k c_i \nabla^2
    z_{ik}`, which vanish where a squared error does. About 1.5 gradients a product.

    Args:
        problem: The objective.
        params: Where.
        outputs: ``outputs(params, sample)``, the model; that of a loss made by
            :func:`thalweg.models.supervised` unless given.
        cost: ``cost(outputs, sample)``, a scalar; likewise.

    Raises:
        InputError: Parameters that the loss does not take; a loss of which the two parts are not
            known, or whose value at the first sample they do not give.
    """
    size, dtype = check_point(problem, params)
    if outputs is None or cost is None:
        outputs, cost = getattr(problem.loss, "outputs", None), getattr(problem.loss, "cost", None)
    if outputs is None or cost is None:
        raise InputError(
            "the Gauss-Newton matrix needs the loss in two parts, and this loss does not say what "
            "they are; pass outputs=f(params, sample) and cost=c(outputs, sample) with "
            "loss = c(f(params, sample), sample)"
        )
    _check_parts(problem, params, outputs, cost)
    product, numbers = _Product(outputs, cost), _Numbers(outputs, cost)
    return Operator(
        lambda vector: summed(product, problem, params, vector),
        size,
        dtype,
        lambda vector: stacked(numbers, problem, params, vector),
    )


class _Linearised:
    """Products with the Hessian of samples in memory, which re-use what the first one made.

    Where there are convolutions, whose images are larger than their kernels, it is in two halves:
    what a product holds beside is half as much then. On dense layers the parameters count.
    """

    def __init__(self, problem: FiniteSum, params: Params):
        self._problem, self._params = problem, params
        self._found: list[tuple[Array, Any]] = []

    def __call__(self, vector: Array) -> Array:
        """The product."""
        if isinstance(vector, jax.core.Tracer):
            return hessian_product(self._problem, self._params, vector)
        return reduce(jnp.add, (_pushed(linear, vector) for _, linear in self._parts()))

    def gradient(self) -> Array:
        """The gradient of the objective, which comes with it."""
        return reduce(jnp.add, (gradient for gradient, _ in self._parts()))

    def _parts(self) -> list[tuple[Array, Any]]:
        if not self._found:
            problem, params = self._problem, self._params
            sample = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), problem.data
            )
            source = halved(problem) if holds_convolution(problem.loss, params, sample) else problem
            self._found = [
                _linearised(problem.loss, params, part.data, part.weights) for part in parts(source)
            ]
        return self._found


@partial(jax.jit, static_argnums=0)
def _linearised(loss: Loss, params: Params, data: Any, weights: Array) -> tuple[Array, Any]:
    flat, unravel = ravel_pytree(params)

    def gradient(v: Array) -> Array:
        return _gradient_term(loss, unravel(v), data, weights)

    return jax.linearize(jax.checkpoint(gradient, policy=_is_kept, prevent_cse=False), flat)


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    """All but constants in the shape of activations, half of the memory of a net with ReLU."""
    return bool(primitive.name != "broadcast_in_dim")


@jax.jit
def _pushed(linear: Any, vector: Array) -> Array:
    return linear(vector)


def weighted_losses(loss: Loss, params: Params, data: Any, weights: Array) -> Array:
    r"""The sum :math:`\sum_i a_i f_i(\theta)` over a batch."""
    losses = jax.vmap(loss, in_axes=(None, 0))(params, data)
    return jnp.dot(weights.astype(losses.dtype), losses)


def _gradient_term(loss: Loss, params: Params, data: Any, weights: Array) -> Array:
    return ravel_pytree(jax.grad(lambda p: weighted_losses(loss, p, data, weights))(params))[0]


def _hessian_term(loss: Loss, params: Params, data: Any, weights: Array, vector: Array) -> Array:
    unravel = ravel_pytree(params)[1]
    gradient = jax.grad(lambda p: weighted_losses(loss, p, data, weights))
    return ravel_pytree(jax.jvp(gradient, (params,), (unravel(vector),))[1])[0]


def _along(problem: Source, params: Params, vector: Array) -> tuple[Array, Array]:
    return stacked(curvatures, problem, params, vector)


def curvatures(loss: Loss, params: Params, data: Any, vector: Array) -> Array:
    r"""All :math:`v^\top H_i v` of a batch."""
    direction = ravel_pytree(params)[1](vector)

    def losses(p: Params) -> Array:
        return jax.vmap(loss, in_axes=(None, 0))(p, data)

    def slopes(p: Params) -> Array:
        return jax.jvp(losses, (p,), (direction,))[1]

    return jax.jvp(slopes, (params,), (direction,))[1]


@dataclass(frozen=True)
class _Product:
    """Products with the Gauss-Newton matrix of a batch, of a loss in two parts."""

    outputs: Callable[..., Any]
    cost: Callable[..., Array]

    def __call__(
        self, loss: Loss, params: Params, data: Any, weights: Array, vector: Array
    ) -> Array:
        flat, unravel = ravel_pytree(params)

        def model(p: Array) -> Any:
            return jax.vmap(self.outputs, in_axes=(None, 0))(unravel(p), data)

        def total(z: Any) -> Array:
            costs = jax.vmap(self.cost)(z, data)
            return jnp.dot(weights.astype(costs.dtype), costs)

        z, back = jax.vjp(model, flat)
        moved = jax.jvp(model, (flat,), (vector,))[1]
        return back(jax.jvp(jax.grad(total), (z,), (moved,))[1])[0]


@dataclass(frozen=True)
class _Numbers:
    """The numbers along a direction of the Gauss-Newton matrices of a batch."""

    outputs: Callable[..., Any]
    cost: Callable[..., Array]

    def __call__(self, loss: Loss, params: Params, data: Any, vector: Array) -> Array:
        direction = ravel_pytree(params)[1](vector)

        def one(sample: Any) -> Array:
            z, moved = jax.jvp(lambda p: self.outputs(p, sample), (params,), (direction,))

            def slope(z: Any) -> Array:
                return jax.jvp(lambda y: self.cost(y, sample), (z,), (moved,))[1]

            return jax.jvp(slope, (z,), (moved,))[1]

        return jax.vmap(one)(data)


def _check_parts(
    problem: Source, params: Params, outputs: Callable[..., Any], cost: Callable[..., Array]
) -> None:
    data = problem.data if isinstance(problem, FiniteSum) else next(iter(problem.batches))
    sample = jax.tree.map(lambda x: jnp.asarray(x)[0], data)
    whole, parts = problem.loss(params, sample), cost(outputs(params, sample), sample)
    _, dtype = flat_size(params)
    if not jnp.allclose(whole, parts, rtol=1e3 * float(jnp.finfo(dtype).eps)):
        raise InputError(
            f"the loss of the first sample is {float(whole):.6g}, and cost(outputs(params, sample)"
            f", sample) is {float(parts):.6g}; expected the same number"
        )
