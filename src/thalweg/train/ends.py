"""Where a training ends: parameters of one seed, and the objective there."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg.models import State
from thalweg.problem import FiniteSum, Params
from thalweg.train.networks import Network
from thalweg.train.objective import Objective


@dataclass(frozen=True, eq=False)
class _Held:
    """A state, compared by identity: arrays cannot be hashed."""

    state: State


@dataclass(frozen=True)
class _AtState:
    """The loss of a sample in inference, for a state that stays as it is."""

    objective: Objective
    held: _Held | None

    @property
    def state(self) -> State:
        """What the model keeps; nothing where objectives share their programs."""
        return () if self.held is None else self.held.state

    def __call__(self, params: Params, sample: Any) -> Array:
        return self.objective.sample_loss(params, self.state, sample)

    def outputs(self, params: Params, sample: Any) -> Array:
        """What the model makes of a sample."""
        assert self.objective.outputs is not None
        return self.objective.outputs(params, self.state, sample)

    def cost(self, outputs: Array, sample: Any) -> Array:
        """What outputs cost, given the label."""
        assert self.objective.cost is not None
        return self.objective.cost(outputs, sample)


def problem_at(
    network: Network, state: State, samples: int | None = None, like: FiniteSum | None = None
) -> FiniteSum:
    """The objective on the first training samples, for a state that stays as it is.

    Args:
        network: What is trained.
        state: Of one seed.
        samples: How many samples; all of them if None or if there are no more.
        like: The same for another seed, whose data are shared.
    """
    keeps = bool(jax.tree.leaves(state))
    if like is not None and not keeps:
        return like
    loss = _AtState(network.objective, _Held(state) if keeps else None)
    data = jax.tree.map(lambda x: x[:samples], network.train) if like is None else like.data
    return FiniteSum(loss, data)


def member(tree: Any, seed: int) -> Any:
    """The part of one seed, in single precision at least."""

    def of(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf[seed])
        return leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf

    return jax.tree.map(of, tree)


def flat(tree: Any, seeds: int) -> Float[np.ndarray, "seeds numbers"]:
    """A row of numbers for each seed, in the order of ``ravel_pytree``."""
    leaves = [
        np.asarray(leaf, dtype=np.float32 if leaf.dtype == jnp.bfloat16 else leaf.dtype).reshape(
            seeds, -1
        )
        for leaf in jax.tree.leaves(tree)
    ]
    return np.concatenate(leaves, axis=1) if leaves else np.zeros((seeds, 0), dtype=np.float32)


def restored(network: Network, row: Float[np.ndarray, " numbers"], state: bool = False) -> Any:
    """The parameters (or the state) that :func:`flat` made a row of."""
    like = network.state if state else jax.eval_shape(network.init, jax.random.key(0))
    template = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return ravel_pytree(template)[1](jnp.asarray(row))
