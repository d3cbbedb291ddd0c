"""The arguments of training, checked before any work."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from thalweg.errors import InputError
from thalweg.problem import FiniteSum, Params, describe
from thalweg.random import Stream
from thalweg.sampling.passes import AbstractPasses
from thalweg.steps import as_transformation, check_step
from thalweg.train.objective import Objective, check_labels
from thalweg.train.source import Source, is_source
from thalweg.train.step import Member

# No step of a run has this number: its words are for what comes before the first.
_BEFORE = 2**32 - 1


@dataclass(frozen=True, eq=False)
class Start:
    """The members before the first step, all with a leading axis.

    Attributes:
        members: Who they are.
        params: Their parameters.
        state: What their models keep.
        alone: Whether there is a single one, to be returned without that axis.
    """

    members: Member
    params: Params
    state: Any
    alone: bool

    @property
    def count(self) -> int:
        """How many members there are."""
        return len(self.members.number)

    @property
    def first(self) -> tuple[Params, Any]:
        """Parameters and state of the first member."""
        return jax.tree.map(lambda x: x[0], (self.params, self.state))


def checked_key(key: Any) -> Key[Array, ""]:
    """A typed key, from one or from its raw words; InputError for anything else."""
    if isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.ndim == 1:
        key = jax.random.wrap_key_data(key)
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or key.shape != ():
        raise InputError(f"train needs one key=, for example jax.random.key(0); got {key!r}")
    return key


def started(
    params: Any, state: Any, key: Array, members: int | None, hyper: Mapping[str, Any] | None
) -> Start:
    """All members at their start.

    Args:
        params: A pytree of arrays for all, or a function of a key.
        state: A pytree of arrays for all.
        key: The run's.
        members: How many, or None.
        hyper: Values by name, one a member, or None.

    Raises:
        InputError: Counts that differ, parameters that are not floating-point arrays.
    """
    count = _count(members, hyper)
    numbers = jnp.arange(count, dtype=jnp.uint32)
    if callable(params) and not any(map(_is_array, jax.tree.leaves(params))):
        keys = [Stream.of(key, j, _BEFORE).jax_key() for j in range(count)]
        own = [jax.tree.map(jnp.asarray, params(k)) for k in keys]
        _check_params(own[0])
        all_params = jax.tree.map(lambda *x: jnp.stack(x), *own)
    else:
        _check_params(params)
        all_params = _repeated(params, count)
    kind = jnp.result_type(*jax.tree.leaves(all_params))
    values = {name: _typed(v, kind) for name, v in (hyper or {}).items()}
    alone = members is None and hyper is None
    return Start(Member(numbers, values), all_params, _repeated(state, count), alone)


def population_of(data: Any, weights: Any, groups: Any) -> tuple[FiniteSum, Source | None]:
    """What samplers draw from, and the source of the samples if they are streamed.

    The samples of a streamed population are their own numbers.

    Raises:
        InputError: Data that are not finite or not of one length, weights or groups of another.
    """
    if is_source(data):
        source = Source(data)
        numbers = np.arange(source.n, dtype=np.int32)
        return FiniteSum(_unused, numbers, weights=weights, groups=groups), source
    return FiniteSum(_unused, data, weights=weights, groups=groups), None


def check_model(
    objective: Objective, start: Start, population: FiniteSum, source: Source | None, batch: int
) -> None:
    """Raise InputError unless the objective takes these samples and parameters.

    Traces the losses once; nothing is computed but the range of labels.
    """
    params, state = start.first
    problem = copy.copy(population)
    if source is not None:
        problem.data = jax.tree.map(lambda x: jnp.asarray(x)[None], source.first)
    problem.loss = lambda p, sample: objective.sample_loss(p, state, sample)
    problem.check_params(params)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), problem.data
    )
    try:
        losses, after = jax.eval_shape(objective.losses, params, state, shapes)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the losses of a batch ({describe(shapes)}) cannot be evaluated: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if losses.shape != (batch,) or not jnp.issubdtype(losses.dtype, jnp.floating):
        raise InputError(
            f"losses of a batch of {batch} are {describe(losses)}; expected one floating-point "
            "number a sample"
        )
    if describe(after) != describe(state):
        raise InputError(
            f"the state after a batch is {describe(after)} and before it {describe(state)}; "
            "expected the same shapes and types (state= is what the model keeps)"
        )
    check_labels(objective, params, state, problem.data)


def check_rule(optimizer: Any, start: Start, tuned: bool) -> None:
    """Raise InputError unless the optimiser is one, for the hyper-parameters if there are any."""
    if not tuned:
        check_step(optimizer)
        if callable(optimizer) and not isinstance(optimizer, optax.GradientTransformation):
            _check_schedule(optimizer)
        return
    first = jax.tree.map(lambda x: x[0], start.members.hyper)
    try:
        made = optimizer(**first)
        check_step(made)
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(as_transformation(made).init, start.first[0])
    except TypeError as error:
        raise InputError(
            f"with hyper= the optimizer is a function of {', '.join(sorted(first))}, for example "
            f"optax.sgd with hyper={{'learning_rate': [...]}}; calling it failed: {error}"
        ) from error


def check_numbers(steps: int, record_every: int, save_seconds: float, **every: int | None) -> None:
    """Raise InputError unless counts are whole numbers and in range."""
    counts = {"record_every": record_every, **{k: v for k, v in every.items() if v is not None}}
    for name, value in {"steps": steps, **counts}.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not int(name != "steps") <= value < 2**31 - 1:
            raise InputError(
                f"{name} must be a whole number of steps, at least {int(name != 'steps')}; "
                f"got {value!r}"
            )
    if not (save_seconds >= 0 and math.isfinite(save_seconds)):
        raise InputError(f"save_seconds must be a number of seconds, got {save_seconds!r}")


def check_parts(accumulate: int, size: int) -> None:
    """Raise InputError unless a batch can be divided into so many equal parts."""
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        raise InputError(f"accumulate is the number of parts of a batch, got {accumulate!r}")
    if size % accumulate:
        raise InputError(
            f"a batch of {size} samples cannot be divided into accumulate={accumulate} equal "
            "parts; give a divisor"
        )


def check_whole_batches(sampler: Any, n: int, state: Any) -> None:
    """Raise InputError if passes end in a short batch, and the model has a state.

    A short batch is filled up with repeats of weight zero. They move no parameter, but batch
    normalisation would count them.
    """
    short = n % sampler.size if isinstance(sampler, AbstractPasses) else 0
    if short and jax.tree.leaves(state):
        raise InputError(
            f"the last batch of a pass has {short} samples of {sampler.size}, and what fills it up "
            "would enter the state of the model (batch normalisation); take as many samples as "
            f"make whole batches ({n - short} of {n}), or Minibatch({sampler.size})"
        )


def compute_type(dtype: Any) -> Any:
    """The floating-point type that losses are computed in, None for the parameters' own."""
    if dtype is None:
        return None
    try:
        found = jnp.dtype(dtype)
    except TypeError as error:
        raise InputError(f"dtype is {dtype!r}; expected a floating-point type") from error
    if not jnp.issubdtype(found, jnp.floating):
        raise InputError(f"dtype is {found.name}; expected a floating-point type")
    return found


def _unused(params: Params, sample: Any) -> Array:
    raise AssertionError("samplers are told scores and evaluate no loss")


def _count(members: int | None, hyper: Mapping[str, Any] | None) -> int:
    if members is not None and (
        isinstance(members, bool) or not isinstance(members, int) or members < 1
    ):
        raise InputError(f"members must be a whole number of at least 1, got {members!r}")
    lengths = {name: np.shape(values) for name, values in (hyper or {}).items()}
    if hyper is not None and (
        not lengths or len(set(lengths.values())) != 1 or len(next(iter(lengths.values()))) != 1
    ):
        raise InputError(
            f"hyper must hold one list of values by name, all of one length; got {lengths}"
        )
    count = next(iter(lengths.values()))[0] if lengths else members or 1
    if (members is not None and count != members) or count == 0:
        raise InputError(
            f"hyper has {count} values and members is {members}; expected one value a member"
        )
    return count


def _typed(values: Any, kind: Any) -> Array:
    array = np.asarray(values)
    return jnp.asarray(array, kind if np.issubdtype(array.dtype, np.floating) else None)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, float))


def _check_params(params: Params) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not _is_array(leaf):
            raise InputError(
                f"params{jax.tree_util.keystr(path)} is {type(leaf).__name__!r}; expected a pytree "
                "of floating-point arrays (equinox.partition takes what is no array apart)"
            )


def _repeated(tree: Any, count: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (count, *jnp.shape(x))), tree)


def _check_schedule(schedule: Callable[[Any], Any]) -> None:
    try:
        with jax.numpy_dtype_promotion("standard"):
            shape = jax.eval_shape(schedule, jnp.zeros((), jnp.int32)).shape
    except (TypeError, AttributeError) as error:
        raise InputError(
            f"the optimizer is a function, and not a schedule of the step number ({error}); "
            "expected an Optax transformation or schedule, or hyper= for a function of these"
        ) from error
    if shape != ():
        raise InputError(f"the schedule gives shape {shape} at step 0; expected one number")
