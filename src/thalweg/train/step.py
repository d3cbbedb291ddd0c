"""One step of training: scores, draw, gradient, update; written once, for one member."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from thalweg.gradnorms import scored_with_gradient
from thalweg.problem import FiniteSum, Params
from thalweg.random import Stream
from thalweg.sampling import AbstractSampler, Draw, Full
from thalweg.sampling.presampled import Presampled
from thalweg.sampling.scored import AbstractScored
from thalweg.steps import as_transformation
from thalweg.train.objective import Objective
from thalweg.train.parallel import Devices, constrained, whole

Score = Callable[[Params, Any, Any], Array]


class Carry(NamedTuple):
    """What a member carries from step to step.

    Attributes:
        params: The parameters.
        state: What the model keeps.
        optimizer: The Optax state.
        sampler: The sampler's state.
        loss: The weighted losses of the places of a batch, added up since the last record. Added
            over a batch by the host: programs differ in the order in which they do it.
        bad: The first step whose loss was not finite; -1 if there was none.
        active: Whether the member still moves.
    """

    params: Params
    state: Any
    optimizer: Any
    sampler: Any
    loss: Float[Array, "... draws"]
    bad: Int[Array, "..."]
    active: Bool[Array, "..."]


class Member(NamedTuple):
    """Who a member is: all that its numbers depend on, beside the key.

    Attributes:
        number: Its number, the ``chain`` of its stream.
        hyper: Its hyper-parameters by name.
    """

    number: UInt32[Array, "..."]
    hyper: dict[str, Array]


class Setting(NamedTuple):
    """The arrays that all members share.

    Attributes:
        key: Two words, of the run's key.
        population: What samplers draw from; for data in memory, the data as well.
    """

    key: UInt32[Array, " 2"]
    population: FiniteSum


@dataclass(frozen=True)
class Work:
    """All that decides a step but arrays; equal ones share compiled programs.

    Attributes:
        objective: What is trained, in the precision it is computed in.
        sampler: Who draws.
        score: What scores samples, if the sampler asks for scores.
        one_pass: Whether the pass that scores samples by the norms of their gradients could have
            the gradient of a step as well: each sample's loss in training is its own.
        rule: An Optax transformation, a schedule or a step, or a function of hyper-parameters that
            returns one.
        tuned: Whether ``rule`` is a function of hyper-parameters.
        accumulate: Parts a draw is divided into.
        written_out: Whether these parts are written out instead of looped over.
        freezes: Whether members may stop while others move.
        devices: The devices that batches are divided among; None for a single one.
    """

    objective: Objective
    sampler: AbstractSampler
    score: Score | None
    one_pass: bool
    rule: Any
    tuned: bool
    accumulate: int
    written_out: bool
    freezes: bool
    devices: Devices | None = None

    @property
    def reuses(self) -> bool:
        """Whether gradients come from the pass that scored the candidates.

        Several devices would have to send each other what the pass keeps of those drawn.
        """
        return self.one_pass and self.devices is None and isinstance(self.sampler, Presampled)

    def transformation(self, hyper: dict[str, Array]) -> optax.GradientTransformation:
        """The optimiser of a member."""
        return as_transformation(self.rule(**hyper) if self.tuned else self.rule)


def drawn(
    work: Work,
    setting: Setting,
    member: Member,
    carry: Carry,
    step: Any,
    samples: Callable[[Array], Any],
) -> tuple[Draw, Any]:
    """The draw of a step and the sampler's state after it.

    Args:
        work: What is done.
        setting: What members share.
        member: Who draws.
        carry: Where it is.
        step: The number of the step.
        samples: The samples at some places.
    """
    sampler, population, state = work.sampler, setting.population, carry.sampler
    stream = stream_of(setting, member, step)
    if not isinstance(sampler, AbstractScored):
        return sampler.draw(population, carry.params, state, stream, step)

    def score(index: Array | None) -> Array:
        assert work.score is not None
        places = population.data if index is None else samples(index)
        return whole(work.devices, work.score(carry.params, carry.state, places))

    draw, kept = sampler.sampled(population, score, state, stream, step)
    # Scores taken anew at every step come from outside of the step, which leaves them as they are.
    return draw, kept if sampler.keeps else state


def updated(
    work: Work,
    member: Member,
    carry: Carry,
    sampler: Any,
    batch: PyTree[Array],
    weights: Float[Array, " draws"],
    step: Any,
) -> Carry:
    """The carry after a step on a batch.

    Args:
        work: What is done.
        member: Who steps.
        carry: Where it is.
        sampler: The sampler's state after the draw.
        batch: The samples drawn.
        weights: Their weights.
        step: The number of the step.
    """
    losses, state, gradient = _gradient(work, carry.params, carry.state, batch, weights)
    moved = _moved(work, member, carry, losses, gradient, step)
    return _frozen(work, carry, moved._replace(state=state, sampler=sampler))


def reused(
    work: Work,
    setting: Setting,
    member: Member,
    carry: Carry,
    candidates: Int[Array, " m"],
    samples: PyTree[Array],
    step: Any,
) -> Carry:
    """The carry after a step of a sampler that keeps nothing, on some of its candidates.

    Their scores and the gradient of those drawn come from one backward pass.

    Args:
        work: What is done; ``work.reuses``.
        setting: What members share.
        member: Who steps.
        carry: Where it is.
        candidates: The samples it has asked for.
        samples: Those samples.
        step: The number of the step.
    """
    sampler, population = work.sampler, setting.population
    assert isinstance(sampler, AbstractScored)
    scored = scored_with_gradient(
        lambda params, sample: work.objective.sample_loss(params, carry.state, sample),
        carry.params,
        samples,
    )
    # Numbered among themselves, so that the draw says where in the pass its samples are.
    own = jnp.arange(candidates.size, dtype=jnp.int32)
    state = sampler.told(population, carry.sampler, own, scored.norms)
    draw = sampler.drawn(population, state, stream_of(setting, member, step), step)
    assert draw.index is not None
    assert draw.weights is not None
    losses = _weighted(draw.weights, scored.losses[draw.index])
    gradient = scored.gradient(draw.index, draw.weights)
    return _frozen(work, carry, _moved(work, member, carry, losses, gradient, step))


def _moved(
    work: Work, member: Member, carry: Carry, losses: Array, gradient: Params, step: Any
) -> Carry:
    """The carry after the optimiser's update by a gradient; state and sampler as they were."""
    # Optax relies on standard promotion (Adam raises a number to the power of an integer).
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer = work.transformation(member.hyper).update(
            gradient, carry.optimizer, carry.params
        )
        params = optax.apply_updates(carry.params, updates)
    first_bad = (carry.bad < 0) & ~jnp.all(jnp.isfinite(losses))
    bad = jnp.where(first_bad, jnp.asarray(step, carry.bad.dtype), carry.bad)
    loss = carry.loss + losses.astype(carry.loss.dtype)
    return carry._replace(params=params, optimizer=optimizer, loss=loss, bad=bad)


def _frozen(work: Work, before: Carry, after: Carry) -> Carry:
    """The carry after a step, of a member that has stopped the one before it."""
    if not work.freezes:
        return after
    moves = before.active & (after.bad < 0)
    kept = jax.tree.map(lambda new, old: jnp.where(moves, new, old), after, before)
    return kept._replace(bad=jnp.where(before.active, after.bad, before.bad))


def fresh(work: Work, setting: Setting, member: Member, params: Params, state: Any) -> Carry:
    """A member before its first step."""
    sampler, population = work.sampler, setting.population
    kept = sampler.init(population, params)
    if isinstance(sampler, AbstractScored) and sampler.refresh is not None and kept is None:
        # Room for scores that are taken before every step.
        kept = sampler.told(population, None, None, jnp.zeros(population.n, _type(params)))
    with jax.numpy_dtype_promotion("standard"):
        optimizer = work.transformation(member.hyper).init(params)
    carry = Carry(
        params=params,
        state=state,
        optimizer=optimizer,
        sampler=kept,
        loss=jnp.zeros(batch_size(sampler, population.n), _precise(params)),
        bad=jnp.full((), -1, jnp.int32),
        active=jnp.ones((), bool),
    )
    # Not weakly typed: what a step gives back is not, and would be another program's argument.
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), carry)


def carry_sharding(devices: Devices, many: bool, carry: Carry) -> Carry:
    """Where each array of a carry belongs: scores and losses divided, the rest on all devices."""
    axis = int(many)
    everywhere = jax.tree.map(lambda _: devices.sharding(), carry)
    return everywhere._replace(
        sampler=jax.tree.map(lambda x: devices.of_table(x.shape, axis), carry.sampler),
        loss=devices.of_rows(carry.loss.shape, axis),
    )


def batch_size(sampler: AbstractSampler, n: int) -> int:
    """How many samples a step draws."""
    return n if isinstance(sampler, Full) else int(getattr(sampler, "size", n))


def _type(params: Params) -> Any:
    return jnp.result_type(*jax.tree.leaves(params))


def _precise(params: Params) -> Any:
    """Single precision at least."""
    return jnp.float32 if _type(params).itemsize < 4 else _type(params)


def stream_of(setting: Setting, member: Member, step: Any) -> Stream:
    """The random words of a member's step."""
    return Stream(setting.key, member.number, jnp.asarray(step, jnp.uint32))


def _gradient(
    work: Work, params: Params, state: Any, batch: Any, weights: Array
) -> tuple[Array, Any, Params]:
    """The weighted losses of a batch, the model's state after it, and the gradient of their sum."""

    def loss(params: Params, state: Any, part: Any, weights: Array) -> tuple[Array, Any]:
        losses, new = work.objective.losses(params, state, part)
        weighted = _weighted(weights, losses)
        return jnp.sum(weighted), (weighted, new)

    derivative = jax.grad(loss, has_aux=True)
    if work.accumulate == 1:
        gradient, (losses, state) = derivative(params, state, batch, weights)
        return losses, state, gradient
    parts = jax.tree.map(
        lambda x: x.reshape(work.accumulate, x.shape[0] // work.accumulate, *x.shape[1:]),
        (batch, weights),
    )
    parts = constrained(work.devices, parts, axis=1)

    def add(kept: Any, part: Any) -> tuple[Any, Array]:
        gradient, state = kept
        further, (losses, state) = derivative(params, state, *part)
        return (jax.tree.map(jnp.add, gradient, further), state), losses

    nothing = jax.tree.map(jnp.zeros_like, params)
    unroll = work.accumulate if work.written_out else 1
    (gradient, state), losses = jax.lax.scan(add, (nothing, state), parts, unroll=unroll)
    return losses.reshape(-1), state, gradient


def _weighted(weights: Array, losses: Array) -> Array:
    """The weighted losses, in single precision at least."""
    precise = losses.astype(jnp.float32) if losses.dtype.itemsize < 4 else losses
    return weights.astype(precise.dtype) * precise
