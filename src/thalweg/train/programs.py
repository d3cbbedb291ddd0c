"""The compiled programs of training: steps in memory, and their parts for streamed data."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from thalweg.problem import FiniteSum, Params
from thalweg.sampling import Draw
from thalweg.sampling.scored import AbstractScored
from thalweg.train.parallel import constrained, whole
from thalweg.train.step import (
    Carry,
    Member,
    Setting,
    Work,
    carry_sharding,
    drawn,
    fresh,
    reused,
    stream_of,
    updated,
)


@partial(jax.jit, static_argnums=(0, 1))
def begun(
    work: Work, many: bool, setting: Setting, member: Member, params: Params, state: Any
) -> Carry:
    """Members before their first step."""
    one = partial(fresh, work, setting)
    carry = _over_members(many, one, 3, shared=0)(member, params, state)
    return _settled(work, many, carry)


@partial(jax.jit, static_argnums=(0, 1))
def handed_over(work: Work, many: bool, setting: Setting, member: Member, carry: Carry) -> Carry:
    """The carry with the state of a sampler that begins."""

    def of_member(member: Member, carry: Carry) -> Carry:
        own = fresh(work, setting, member, carry.params, carry.state)
        return carry._replace(sampler=own.sampler)

    carry = _over_members(many, of_member, 2, shared=0)(member, carry)
    return _settled(work, many, carry)


@partial(jax.jit, static_argnums=(0, 1))
def segment(
    work: Work, many: bool, setting: Setting, member: Member, carry: Carry, begin: Any, end: Any
) -> Carry:
    """Steps ``begin`` to ``end`` on data in memory.

    The bounds are arrays, so that one program runs segments of any length.
    """
    one = _over_members(many, partial(_step, work, setting), 2)

    def after(k: Any, kept: Carry) -> Carry:
        return _settled(work, many, one(member, kept, k))

    return _over_members(many, _marked, 1)(jax.lax.fori_loop(begin, end, after, carry), end)


@partial(jax.jit, static_argnums=(0, 1))
def single(
    work: Work, many: bool, setting: Setting, member: Member, carry: Carry, step: Any
) -> Carry:
    """One step on data in memory, for programs that are slow inside of a compiled loop."""
    carry = _over_members(many, partial(_step, work, setting), 2)(member, carry, step)
    return _settled(work, many, carry)


@partial(jax.jit, static_argnums=0)
def places(work: Work, setting: Setting, member: Member, carry: Carry, step: Any) -> Array:
    """What a member draws from data in memory."""
    draw, _ = drawn(work, setting, member, carry, step, setting.population.samples)
    return indexed(setting.population, draw)[0]


@partial(jax.jit, static_argnums=0)
def marked(many: bool, carry: Carry, end: Any) -> Carry:
    """The carry, bad at step ``end`` if its parameters are not finite: the next loss would show."""
    return _over_members(many, _marked, 1)(carry, end)


@partial(jax.jit, static_argnums=(0, 1, 2))
def draws_ahead(
    work: Work,
    many: bool,
    room: int,
    setting: Setting,
    member: Member,
    carry: Carry,
    begin: Any,
    end: Any,
) -> tuple[Array, Array, Any]:
    """Indices and weights of steps ``begin`` to ``end``, at most ``room``, and the sampler's state.

    For samplers that do not look at the parameters.
    """

    def of_member(member: Member, carry: Carry) -> tuple[Array, Array, Any]:
        def one(sampler: Any, step: Any) -> tuple[tuple[Array, Array], Any]:
            draw, after = drawn(
                work, setting, member, carry._replace(sampler=sampler), step, _no_samples
            )
            return indexed(setting.population, draw), after

        blank = jax.tree.map(
            lambda x: jnp.zeros((room, *x.shape), x.dtype),
            jax.eval_shape(lambda s: one(s, begin)[0], carry.sampler),
        )

        def body(step: Any, kept: Any) -> Any:
            rows, sampler = kept
            row, sampler = one(sampler, step)
            return jax.tree.map(lambda x, r: x.at[step - begin].set(r), rows, row), sampler

        (index, weights), sampler = jax.lax.fori_loop(begin, end, body, (blank, carry.sampler))
        return index, weights, sampler

    index, weights, sampler = _over_members(many, of_member, 2, shared=0)(member, carry)
    after = _settled(work, many, carry._replace(sampler=sampler))
    return *whole(work.devices, (index, weights)), after.sampler


@partial(jax.jit, static_argnums=(0, 1))
def asked(
    work: Work, many: bool, setting: Setting, member: Member, carry: Carry, step: Any
) -> Array | None:
    """The samples whose scores a step begins with."""
    asked = _over_members(many, partial(_asked, work, setting), 2)(member, carry, step)
    return whole(work.devices, asked)


@partial(jax.jit, static_argnums=(0, 1))
def drawn_after(
    work: Work,
    many: bool,
    setting: Setting,
    member: Member,
    carry: Carry,
    index: Array | None,
    samples: Any,
    step: Any,
) -> tuple[Draw, Any]:
    """The draw, before corrections, once the samples asked for are there; the sampler's state."""

    def of_member(
        member: Member, carry: Carry, index: Any, samples: Any, step: Any
    ) -> tuple[Draw, Any]:
        assert isinstance(work.sampler, AbstractScored)
        assert work.score is not None
        sampler, population, state = work.sampler, setting.population, carry.sampler
        stream = stream_of(setting, member, step)
        if index is not None:
            scores = work.score(carry.params, carry.state, samples)
            state = sampler.told(population, state, index, scores)
        return sampler.drawn(population, state, stream, step), state

    draw, state = _over_members(many, of_member, 4)(member, carry, index, samples, step)
    return whole(work.devices, draw), state


@partial(jax.jit, static_argnums=(0, 1))
def after_candidates(
    work: Work,
    many: bool,
    setting: Setting,
    member: Member,
    carry: Carry,
    index: Array,
    samples: Any,
    step: Any,
) -> Carry:
    """The carry after a step on some of the candidates that were fetched."""

    def of_member(member: Member, carry: Carry, index: Array, samples: Any, step: Any) -> Carry:
        return reused(work, setting, member, carry, index, samples, step)

    carry = _over_members(many, of_member, 4)(member, carry, index, samples, step)
    return _settled(work, many, carry)


@partial(jax.jit, static_argnums=(0, 1))
def corrected(
    work: Work, many: bool, setting: Setting, carry: Carry, sampler: Any, draw: Draw, samples: Any
) -> Draw:
    """The draw with weights from current scores."""

    def of_member(carry: Carry, sampler: Any, draw: Draw, samples: Any) -> Draw:
        assert isinstance(work.sampler, AbstractScored)
        assert work.score is not None
        scores = work.score(carry.params, carry.state, samples)
        return work.sampler.corrected(setting.population, sampler, draw, scores)

    return _over_members(many, of_member, 4, shared=0)(carry, sampler, draw, samples)


@partial(jax.jit, static_argnums=(0, 1))
def after_batch(
    work: Work,
    many: bool,
    member: Member,
    carry: Carry,
    sampler: Any,
    batch: Any,
    weights: Array,
    step: Any,
) -> Carry:
    """The carry after a step on a batch that was fetched."""
    one = _over_members(many, partial(updated, work), 5)
    return _settled(work, many, one(member, carry, sampler, batch, weights, step))


@partial(jax.jit, static_argnums=(0, 1))
def anew(
    work: Work, many: bool, setting: Setting, member: Member, carry: Carry, step: Any
) -> Array | None:
    """The samples to score where scores are taken anew; None for all."""

    def of_member(member: Member, carry: Carry, step: Any) -> Array | None:
        assert isinstance(work.sampler, AbstractScored)
        return work.sampler.refreshed(setting.population, stream_of(setting, member, step))

    return whole(work.devices, _over_members(many, of_member, 2)(member, carry, step))


@partial(jax.jit, static_argnums=(0, 1, 2))
def scored(work: Work, many: bool, shared: bool, carry: Carry, samples: Any) -> Array:
    """The scores of some samples, the same for all members (axis 0 before members) or not."""

    def of_member(carry: Carry, samples: Any) -> Array:
        assert work.score is not None
        return work.score(carry.params, carry.state, samples)

    return _over_members(many, of_member, 1 if shared else 2, shared=int(shared))(carry, samples)


@partial(jax.jit, static_argnums=(0, 1))
def told(
    work: Work, many: bool, setting: Setting, carry: Carry, index: Array | None, scores: Array
) -> Any:
    """The sampler's state once it has these scores; ``index`` None: of all samples."""

    def of_member(state: Any, index: Array | None, scores: Array) -> Any:
        assert isinstance(work.sampler, AbstractScored)
        return work.sampler.told(setting.population, state, index, scores)

    sampler = _over_members(many, of_member, 3, shared=0)(carry.sampler, index, scores)
    return _settled(work, many, carry._replace(sampler=sampler)).sampler


def indexed(population: FiniteSum, draw: Draw) -> tuple[Array, Array]:
    """The places and weights of a draw, also where it is of all samples."""
    index = jnp.arange(population.n, dtype=jnp.int32) if draw.index is None else draw.index
    return index, population.weights if draw.weights is None else draw.weights


def _step(work: Work, setting: Setting, member: Member, carry: Carry, step: Any) -> Carry:
    if work.reuses:
        index = _asked(work, setting, member, carry, step)
        assert index is not None
        samples = _fetched(work, setting.population)(index)
        return reused(work, setting, member, carry, index, samples, step)
    population = setting.population
    draw, sampler = drawn(work, setting, member, carry, step, _fetched(work, population))
    draw = whole(work.devices, draw)
    _, weights = indexed(population, draw)
    if draw.index is None:
        # Where they are divided, the last sample may be there again.
        batch = jax.tree.map(lambda x: x[: population.n], population.data)
    else:
        batch = population.samples(draw.index)
    batch, weights = jax.lax.optimization_barrier((batch, weights))
    batch, weights = constrained(work.devices, (batch, weights))
    return updated(work, member, carry, sampler, batch, weights, step)


def _asked(work: Work, setting: Setting, member: Member, carry: Carry, step: Any) -> Array | None:
    assert isinstance(work.sampler, AbstractScored)
    stream = stream_of(setting, member, step)
    return work.sampler.asks(setting.population, carry.sampler, stream, step)


def _fetched(work: Work, population: FiniteSum) -> Callable[[Array], Any]:
    """The samples at some places, behind a wall.

    What comes after is then compiled, and rounded, as it is for samples that were read.
    """

    def fetched(index: Array) -> Any:
        samples = jax.lax.optimization_barrier(population.samples(whole(work.devices, index)))
        return constrained(work.devices, samples)

    return fetched


def _settled(work: Work, many: bool, carry: Carry) -> Carry:
    """The carry where it belongs: scores divided among the devices, the rest on all of them."""
    if work.devices is None:
        return carry
    return jax.lax.with_sharding_constraint(carry, carry_sharding(work.devices, many, carry))


def _marked(carry: Carry, end: Any) -> Carry:
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(carry.params)]))
    lost = (carry.bad < 0) & ~finite
    return carry._replace(bad=jnp.where(lost, jnp.asarray(end, carry.bad.dtype), carry.bad))


def _no_samples(index: Array) -> Any:
    raise AssertionError("a sampler that looks at no samples asked for some")


def _over_members(many: bool, function: Any, own: int, *, shared: int = 1) -> Any:
    """The function of all members: the first ``own`` arguments are theirs, the rest shared."""
    return jax.vmap(function, in_axes=(0,) * own + (None,) * shared) if many else function
