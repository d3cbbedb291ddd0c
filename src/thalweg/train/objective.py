"""What is trained: losses of batches, and of samples."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg import models
from thalweg.errors import InputError
from thalweg.models import Model, State
from thalweg.problem import Loss, Params

Losses = Callable[[Params, State, Any], tuple[Array, State]]
SampleLoss = Callable[[Params, State, Any], Array]


@dataclass(frozen=True)
class Objective:
    r"""The losses :math:`f_i(\theta)` of a model that may keep a state of its own.

    Objectives made from equal functions are equal, and share compiled programs.

    Attributes:
        losses: ``losses(params, state, batch)``, the losses of a batch in training, shape (B,), and
            the state after it. ``batch`` is a pytree of samples with a leading axis.
        sample_loss: ``sample_loss(params, state, sample)``, the loss of one sample in inference, a
            number: for scores, curvature and evaluation.
        outputs: ``outputs(params, state, sample)``, what the model makes of a sample in inference,
            where it is known.
        cost: ``cost(outputs, sample)``, what outputs cost, where it is known.
        label_loss: The loss of outputs and label, where a sample is (x, label): labels that it
            cannot take are found before training.
        apart: Whether ``losses`` are those of ``sample_loss``, sample by sample, for models that
            keep no state: then one pass can give scores and gradients.
    """

    losses: Losses
    sample_loss: SampleLoss
    outputs: Callable[[Params, State, Any], Array] | None = None
    cost: Callable[[Array, Any], Array] | None = None
    label_loss: Callable[[Array, Any], Array] | None = None
    apart: bool = False

    @staticmethod
    def of(loss: "Loss | Objective") -> "Objective":
        """The objective of any per-sample loss ``loss(params, sample)``; it keeps no state.

        A loss that has ``outputs(params, sample)`` and ``cost(outputs, sample)``, as those of
        :func:`thalweg.models.supervised` do, passes them on.
        """
        if isinstance(loss, Objective):
            return loss
        plain = _Plain(_hashable(loss))
        known = callable(getattr(loss, "outputs", None)) and callable(getattr(loss, "cost", None))
        return Objective(
            _Part(plain, "losses"),
            _Part(plain, "sample_loss"),
            _Part(plain, "outputs") if known else None,
            _Part(plain, "cost") if known else None,
            getattr(loss, "loss", None) if known else None,
            apart=True,
        )

    @staticmethod
    def of_model(model: Model, loss: Callable[[Array, Any], Array]) -> "Objective":
        """A model of :mod:`thalweg.models` on samples (x, label), with ``loss(outputs, label)``.

        In training, batch normalisation takes the mean and the variance of the batch and moves the
        running ones; in inference it takes the running ones. Start from ``model.init_state()``.
        """
        own = _OfModel(model, loss)
        return Objective(
            _Part(own, "losses"),
            _Part(own, "sample_loss"),
            _Part(own, "outputs"),
            _Part(own, "cost"),
            loss,
            apart=True,
        )

    def computed_in(self, dtype: Any) -> "Objective":
        """The same losses, computed in a floating-point type from parameters of another.

        Parameters and the floating-point numbers of samples are rounded to it; the state keeps its
        own type. Derivatives come out in the type of the parameters.
        """
        inside = _ComputedIn(self, jnp.dtype(dtype))
        return replace(
            self,
            losses=_Part(inside, "losses"),
            sample_loss=_Part(inside, "sample_loss"),
            outputs=None if self.outputs is None else _Part(inside, "outputs"),
        )


@dataclass(frozen=True)
class _Part:
    """A method of an object that compares by value, which bound methods do not."""

    owner: Any
    name: str

    def __call__(self, *arguments: Any) -> Any:
        return getattr(self.owner, self.name)(*arguments)


@dataclass(frozen=True)
class _Plain:
    """A loss of samples that keeps nothing."""

    loss: Any

    def losses(self, params: Params, state: State, batch: Any) -> tuple[Array, State]:
        return jax.vmap(self.loss, in_axes=(None, 0))(params, batch), state

    def sample_loss(self, params: Params, state: State, sample: Any) -> Array:
        return self.loss(params, sample)

    def outputs(self, params: Params, state: State, sample: Any) -> Array:
        return self.loss.outputs(params, sample)

    def cost(self, outputs: Array, sample: Any) -> Array:
        return self.loss.cost(outputs, sample)


@dataclass(frozen=True)
class _OfModel:
    """A model on samples (x, label)."""

    model: Model
    loss: Callable[[Array, Any], Array]

    def losses(
        self, params: Params, state: State, batch: Any
    ) -> tuple[Float[Array, " batch"], State]:
        outputs, state = self.model.apply_batch(params, state, batch[0], True)
        return jax.vmap(self.loss)(outputs, batch[1]), state

    def sample_loss(self, params: Params, state: State, sample: Any) -> Float[Array, ""]:
        return self.cost(self.outputs(params, state, sample), sample)

    def outputs(self, params: Params, state: State, sample: Any) -> Array:
        return self.model.apply(params, sample[0], state)

    def cost(self, outputs: Array, sample: Any) -> Array:
        return self.loss(outputs, sample[1])


@dataclass(frozen=True)
class _ComputedIn:
    """An objective in lower precision."""

    objective: Objective
    dtype: Any

    def losses(self, params: Params, state: State, batch: Any) -> tuple[Array, State]:
        return self.objective.losses(self._rounded(params), state, self._rounded(batch))

    def sample_loss(self, params: Params, state: State, sample: Any) -> Array:
        return self.objective.sample_loss(self._rounded(params), state, self._rounded(sample))

    def outputs(self, params: Params, state: State, sample: Any) -> Array:
        assert self.objective.outputs is not None
        return self.objective.outputs(self._rounded(params), state, self._rounded(sample))

    def _rounded(self, tree: Any) -> Any:
        def rounded(leaf: Any) -> Any:
            floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
            return jnp.asarray(leaf, self.dtype) if floating else leaf

        return jax.tree.map(rounded, tree)


def _hashable(loss: Any) -> Any:
    """The loss as a static function; modules that hold arrays are wrapped."""
    try:
        hash(loss)
    except TypeError:
        return _Same(loss)
    return loss


class _Same:
    """A function that cannot be hashed, compared by identity."""

    def __init__(self, function: Any):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


def check_labels(objective: Objective, params: Params, state: State, data: Any) -> None:
    """Raise InputError for labels that a known loss cannot take: out of range for its outputs.

    Args:
        objective: What is trained.
        params: Any parameters that fit.
        state: Any state that fits.
        data: Samples (x, label), NumPy or JAX arrays.
    """
    if objective.label_loss not in (models.cross_entropy, models.logistic):
        return
    assert objective.outputs is not None
    labels = np.asarray(data[1])
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data)
    classes = jax.eval_shape(objective.outputs, params, state, first).size
    if objective.label_loss == models.logistic:
        classes = 2
    whole = labels == np.round(labels)
    wrong = np.flatnonzero(~whole | (labels < 0) | (labels >= classes))
    if wrong.size:
        i = int(wrong[0])
        raise InputError(
            f"label {i} is {labels[i]}, and {wrong.size} labels are not among 0, ..., "
            f"{classes - 1}, which is what this loss of these outputs takes; number the classes "
            "from 0, or give the model an output for each"
        )
