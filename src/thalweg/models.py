"""The networks of the experiments as plain functions on pytrees, and their losses."""

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError, known
from thalweg.problem import Params

State: TypeAlias = Any
"""A pytree of arrays: the running statistics of batch normalisation."""

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
}
# The variance of a weight, from the number of inputs of its unit.
_VARIANCES: dict[str, Callable[[int], float]] = {
    "he": lambda inputs: 2 / inputs,
    "lecun": lambda inputs: 1 / inputs,
    "normal": lambda inputs: 1.0,
}
_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_MOMENTUM = 0.9


class Model(abc.ABC):
    """A network: parameters from a key, outputs from parameters.

    Parameters are a pytree of one dict a layer and fix the floating-point type of all that is
    computed; the input is converted to it. A model holds no arrays, compares by value and can be
    hashed, so that ``jax.jit`` compiles equal models once.

    Only batch normalisation has a state (its running statistics); for the other models the state
    is the empty tuple, and :meth:`apply` needs none.
    """

    @abc.abstractmethod
    def init(self, key: Array, dtype: Any = jnp.float32) -> Params:
        """Fresh parameters of a floating-point type; biases are zero."""

    @abc.abstractmethod
    def apply(self, params: Params, x: Any, state: State | None = None) -> Float[Array, " outputs"]:
        """The outputs for one sample, as they are in inference; vmap it over samples."""

    def init_state(self, dtype: Any = jnp.float32) -> State:
        """The state before training."""
        return ()

    def apply_batch(
        self, params: Params, state: State, x: Any, train: bool
    ) -> tuple[Float[Array, "batch outputs"], State]:
        """The outputs for a batch, and the state after it (the same one unless ``train``)."""
        return jax.vmap(self.apply, in_axes=(None, 0))(params, x), state


def mlp(
    widths: Sequence[int],
    activation: str = "relu",
    residual: bool = False,
    batch_norm: bool = False,
    init: str | None = None,
) -> Model:
    r"""A multilayer net: affine maps with an activation between them, none after the last.

    With :math:`h_0` the sample, flattened, and :math:`\phi` the activation, hidden layers are
    :math:`h_k = \phi(h_{k-1} W_k + b_k)` and the output is :math:`h_{L-1} W_L + b_L`; ``W_k`` has
    shape (widths[k-1], widths[k]).

    * ``residual``: :math:`h_k = h_{k-1} + \phi(h_{k-1} W_k + b_k)` in the hidden layers whose width
      is that of the layer before. Giselsson's nets, given as "residual, ReLU, 15x25,2,1 widths (17
      layers)" for samples of two features, are read as ``mlp((2, *15 * [25], 2, 1),
      residual=True)``: a connection around 14 of the layers, a plain affine output.
    * ``batch_norm``: hidden layers are :math:`\phi(s_k \hat z + b_k)`, where :math:`\hat z` is
      :math:`z = h_{k-1} W_k` minus its mean, divided by :math:`\sqrt{v + 10^{-5}}`, feature by
      feature (Ioffe and Szegedy 2015). In training the mean and the variance v (divisor B) are the
      batch's; in inference the running ones of the state, which training moves by
      :math:`r \leftarrow 0.9 r + 0.1 \times` (batch mean, or batch variance with divisor B - 1).
      Samples of a batch then depend on each other: train with :meth:`Model.apply_batch`, and give
      :meth:`Model.apply` the state.

    Args:
        widths: Inputs, hidden layers, outputs; two numbers at least.
        activation: relu, tanh or sigmoid.
        residual: Add the residual connections.
        batch_norm: Normalise before each activation.
        init: The variance of the weights, normal in all layers: "he" 2/inputs of the unit (He et
            al. 2015), "lecun" 1/inputs, "normal" 1 (An and Ying, section 4.3). He for ReLU and
            LeCun otherwise unless given.

    Raises:
        InputError: Fewer than two widths, a width below one, an unknown name; when used, a sample
            whose size is not widths[0], and for ``batch_norm`` a missing state or a batch of one
            in training.
    """
    known(activation, _ACTIVATIONS, "activation")
    init = init or ("he" if activation == "relu" else "lecun")
    known(init, _VARIANCES, "initialisation")
    if len(widths) < 2 or min(widths) < 1:
        raise InputError(
            f"widths is {tuple(widths)}; expected at least two positive numbers: inputs, hidden "
            "layers if any, outputs"
        )
    return _Mlp(tuple(widths), activation, residual, batch_norm, init)


def vgg11_small() -> Model:
    """The small VGG11 of Wu, Ma and E (2018) for two classes of 32x32x3 images: 71,410 parameters.

    Five times a 3x3 convolution (same padding; 16, 16, 32, 64 and 64 channels), ReLU and 2x2
    max-pooling, which leaves 1x1x64; then fully connected layers 64-128-2 with ReLU between.
    Weights are He-normal (see :func:`mlp`). The layout is that of the authors' code.

    A sample has shape (32, 32, 3); ``apply`` raises InputError for another.
    """
    return _Vgg((16, 16, 32, 64, 64), (128, 2))


def squared_error(
    outputs: Float[Array, "..."], target: Any, reduction: str = "mean"
) -> Float[Array, ""]:
    r"""The mean :math:`\frac1k \sum_j (o_j - t_j)^2` over the k outputs, or the sum; no factor 1/2.

    Wu, Ma and E use the mean. The target has as many numbers as there are outputs.
    """
    known(reduction, ("mean", "sum"), "reduction")
    target = jnp.asarray(target)
    if target.size != outputs.size:
        raise InputError(
            f"the outputs have shape {outputs.shape} and the target {target.shape}; expected as "
            "many numbers (turn labels into vectors with datasets.one_hot)"
        )
    square = jnp.square(outputs - target.astype(outputs.dtype).reshape(outputs.shape))
    return jnp.mean(square) if reduction == "mean" else jnp.sum(square)


def cross_entropy(logits: Float[Array, " classes"], label: Any) -> Float[Array, ""]:
    r"""The cross-entropy :math:`\log \sum_j e^{o_j} - o_y` of the softmax, for a label y.

    A label outside 0, ..., classes - 1 gives NaN, for a traced label cannot raise.
    """
    label = jnp.asarray(label)
    inside = (label >= 0) & (label < logits.size)
    loss = jax.nn.logsumexp(logits) - logits[jnp.where(inside, label, 0)]
    return jnp.where(inside, loss, jnp.nan)


def logistic(logit: Float[Array, "..."], label: Any) -> Float[Array, ""]:
    r"""The logistic loss :math:`\log(1 + e^o) - y o` of one output, for a label y of 0 or 1.

    With the margin :math:`m = (2y - 1) o` this is :math:`\log(1 + e^{-m})`.
    """
    if logit.size != 1:
        raise InputError(
            f"the logistic loss is of one output, got the shape {logit.shape}; use cross_entropy"
        )
    logit = logit.reshape(())
    return jax.nn.softplus(logit) - jnp.asarray(label).astype(logit.dtype) * logit


def supervised(
    model: Model, loss: Callable[[Array, Any], Array], state: State | None = None
) -> Callable[[Params, tuple[Any, Any]], Array]:
    """The per-sample loss ``f(params, (x, y)) = loss(model.apply(params, x), y)``.

    This is what :class:`thalweg.problem.FiniteSum` takes, with data ``(x, y)``. For a model with
    batch normalisation the state is needed and stays fixed (inference).
    """
    return _Supervised(model, loss, state)


def accuracy(
    model: Model,
    params: Params,
    x: Any,
    y: Any,
    state: State | None = None,
    chunk_size: int = 1000,
) -> Float[Array, ""]:
    """The fraction of samples whose largest output is that of their label.

    With one output, label 1 is predicted where it is positive and 0 elsewhere. Evaluates
    ``chunk_size`` samples at once; the state is that of batch normalisation.
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    n = len(y)
    if y.ndim != 1 or len(x) != n or n == 0:
        raise InputError(
            f"got {len(x)} samples and labels of shape {y.shape}; expected one label a "
            "sample, and one sample at least"
        )
    correct = jnp.zeros((), dtype=jnp.int32)
    for first in range(0, n, chunk_size):
        part = slice(first, first + chunk_size)
        correct = correct + _correct(
            model, params, state, jnp.asarray(x[part]), jnp.asarray(y[part])
        )
    return correct / n


@partial(jax.jit, static_argnums=0)
def _correct(model: Model, params: Params, state: State | None, x: Array, y: Array) -> Array:
    outputs = jax.vmap(lambda sample: model.apply(params, sample, state))(x)
    if outputs.shape[1] == 1:
        predicted = (outputs[:, 0] > 0).astype(y.dtype)
    else:
        predicted = jnp.argmax(outputs, axis=1).astype(y.dtype)
    return jnp.sum(predicted == y, dtype=jnp.int32)


@dataclass(frozen=True)
class _Supervised:
    model: Model
    loss: Callable[[Array, Any], Array]
    state: State | None

    def __call__(self, params: Params, sample: tuple[Any, Any]) -> Array:
        return self.cost(self.outputs(params, sample), sample)

    def outputs(self, params: Params, sample: tuple[Any, Any]) -> Array:
        """What the model makes of a sample."""
        return self.model.apply(params, sample[0], self.state)

    def cost(self, outputs: Array, sample: tuple[Any, Any]) -> Array:
        """What outputs cost, given the label."""
        return self.loss(outputs, sample[1])


@dataclass(frozen=True)
class _Mlp(Model):
    widths: tuple[int, ...]
    activation: str
    residual: bool
    batch_norm: bool
    initialisation: str

    def init(self, key: Array, dtype: Any = jnp.float32) -> Params:
        shapes = tuple(zip(self.widths, self.widths[1:], strict=False))
        layers = _fresh(key, shapes, self.initialisation, dtype)
        if self.batch_norm:
            for layer in layers[:-1]:
                layer["scale"] = jnp.ones_like(layer["b"])
        return tuple(layers)

    def init_state(self, dtype: Any = jnp.float32) -> State:
        if not self.batch_norm:
            return ()
        return tuple(
            {"mean": jnp.zeros(width, dtype), "variance": jnp.ones(width, dtype)}
            for width in self.widths[1:-1]
        )

    def apply(self, params: Params, x: Any, state: State | None = None) -> Float[Array, " outputs"]:
        if self.batch_norm and state is None:
            raise InputError(
                "a model with batch normalisation evaluates one sample with running statistics: "
                "give apply the state, or use apply_batch"
            )
        return self._forward(params, jnp.ravel(jnp.asarray(x)), state, _by_running)[0]

    def apply_batch(
        self, params: Params, state: State, x: Any, train: bool
    ) -> tuple[Float[Array, "batch outputs"], State]:
        x = jnp.asarray(x)
        if train and self.batch_norm and len(x) < 2:
            raise InputError(
                "batch normalisation trains on two samples at least, got a batch of one"
            )
        normalise = _by_batch if train else _by_running
        return self._forward(params, x.reshape(len(x), -1), state, normalise)

    def _forward(
        self, params: Params, h: Array, state: State, normalise: Callable[..., Any]
    ) -> tuple[Array, State]:
        """Outputs and new state for a sample, shape (inputs,), or a batch, shape (B, inputs)."""
        if h.shape[-1] != self.widths[0]:
            raise InputError(
                f"a sample has {h.shape[-1]} numbers; expected {self.widths[0]}, the first width"
            )
        *hidden, last = params
        h = h.astype(last["w"].dtype)
        states = []
        for k, layer in enumerate(hidden):
            z = h @ layer["w"]
            if self.batch_norm:
                z, new = normalise(z, state[k])
                states.append(new)
                z = z * layer["scale"]
            a = _ACTIVATIONS[self.activation](z + layer["b"])
            h = h + a if self.residual and h.shape == a.shape else a
        return h @ last["w"] + last["b"], tuple(states)


@dataclass(frozen=True)
class _Vgg(Model):
    channels: tuple[int, ...]
    widths: tuple[int, ...]

    def init(self, key: Array, dtype: Any = jnp.float32) -> Params:
        maps = zip((3, *self.channels), self.channels, strict=False)
        shapes: list[tuple[int, ...]] = [(3, 3, *pair) for pair in maps]
        shapes += list(zip((self.channels[-1], *self.widths), self.widths, strict=False))
        return tuple(_fresh(key, tuple(shapes), "he", dtype))

    def apply(self, params: Params, x: Any, state: State | None = None) -> Float[Array, " outputs"]:
        h = jnp.asarray(x)
        if h.shape != (32, 32, 3):
            raise InputError(f"a sample has shape {h.shape}; expected (32, 32, 3)")
        h = h.astype(params[0]["w"].dtype)
        for layer in params[: len(self.channels)]:
            h = _max_pool(jax.nn.relu(_convolve(h, layer["w"]) + layer["b"]))
        h = jnp.ravel(h)
        *hidden, last = params[len(self.channels) :]
        for layer in hidden:
            h = jax.nn.relu(h @ layer["w"] + layer["b"])
        return h @ last["w"] + last["b"]


@partial(jax.jit, static_argnums=(1, 2, 3))
def _fresh(
    key: Array, shapes: tuple[tuple[int, ...], ...], initialisation: str, dtype: Any
) -> list[dict[str, Array]]:
    """Layers with kernels of the given shapes, the last axis being the outputs, and zero biases.

    All weights are one draw: XLA takes about a second to compile each draw of another shape.
    """
    sizes = [math.prod(shape) for shape in shapes]
    draws = jnp.split(jax.random.normal(key, (sum(sizes),), dtype), np.cumsum(sizes)[:-1])
    variance = _VARIANCES[initialisation]
    return [
        {
            "w": draw.reshape(shape) * math.sqrt(variance(math.prod(shape[:-1]))),
            "b": jnp.zeros(shape[-1], dtype),
        }
        for draw, shape in zip(draws, shapes, strict=True)
    ]


def _by_running(z: Array, state: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
    mean, variance = state["mean"].astype(z.dtype), state["variance"].astype(z.dtype)
    return _standardise(z, mean, variance), state


def _by_batch(z: Array, state: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
    size = z.shape[0]
    mean, variance = jnp.mean(z, axis=0), jnp.var(z, axis=0)
    seen = {"mean": mean, "variance": variance * (size / (size - 1))}
    kept = _BATCH_NORM_MOMENTUM
    new = jax.tree.map(
        lambda old, now: kept * old + (1 - kept) * now.astype(old.dtype), state, seen
    )
    return _standardise(z, mean, variance), new


def _standardise(z: Array, mean: Array, variance: Array) -> Array:
    return (z - mean) * jax.lax.rsqrt(variance + _BATCH_NORM_EPSILON)


def _convolve(image: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        image[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def _max_pool(image: Array) -> Array:
    return jax.lax.reduce_window(image, -jnp.inf, jax.lax.max, (2, 2, 1), (2, 2, 1), "VALID")
