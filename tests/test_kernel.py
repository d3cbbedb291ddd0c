"""The kernel in interpret mode against the lanes route of the CPU, and its lowering for CUDA."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from helpers import bowls, bytes_of
from thalweg import engine, kernel
from thalweg.chains import Setting, begin_chain
from thalweg.dynamics import AbstractDynamics
from thalweg.random import Stream
from thalweg.record import Record

BLOCKS, LANES, STEPS = 3, 32, 200
# A program that XLA:CPU optimises as a whole rounds products and sums as it finds them, together
# (fused multiply-add) or in another order. Without these passes every operation is rounded by
# itself, and equal operations give equal bits.
ONE_BY_ONE = {"xla_disable_hlo_passes": "algsimp,fusion"}


def mueller_brown(params):
    """The surface of K. Mueller and L. D. Brown (1979)."""
    x, y = params
    return sum(
        height * jnp.exp(a * (x - p) ** 2 + b * (x - p) * (y - q) + c * (y - q) ** 2)
        for height, a, b, c, p, q in (
            (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
            (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
            (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
            (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
        )
    )


def descent(n, sampler, dtype):
    return tw.Descent(bowls(n, dtype=dtype), sampler, 0.05)


# Name to dynamics, exit and start.
CASES = {
    "sgd-4-terms": (functools.partial(descent, 4, tw.Minibatch(1)), None, [1.0, 2.0]),
    "sgd-1000-samples": (functools.partial(descent, 1000, tw.Minibatch(1)), None, [1.0, 2.0]),
    "gradient-norms": (functools.partial(descent, 4, tw.Reweighted(1)), None, [1.0, 2.0]),
    "kept-norms": (functools.partial(descent, 4, tw.Reweighted(1, refresh=5)), None, [1.0, 2.0]),
    "diffusion": (
        lambda dtype: tw.Diffusion(
            lambda p: jax.tree.map(jnp.negative, jax.grad(mueller_brown)(p)), 2000.0, 1e-4
        ),
        lambda p: (p[0] - 0.6) ** 2 + p[1] ** 2 < 0.1,
        [-0.5, 1.4],
    ),
}
# Those that the others contain: draws, and scores.
_CONTAINED = ("sgd-1000-samples", "gradient-norms")
every_case = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in _CONTAINED else []) for name in CASES],
)
both_types = pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)]
)


class Work(NamedTuple):
    route: Any
    arrays: Any
    group: Any
    index: Any


def work_of(dynamics, exit, start, *, first=0, lanes=LANES):
    key = Stream.of(jax.random.key(7)).key
    setting = Setting(dynamics, exit, Record(), jnp.asarray(1e3), key)
    chosen = engine.choose_route(setting, start)
    assert chosen.program is not None, chosen.reason
    route = engine.Route(chosen.static, chosen.program, lanes, chosen.reason)
    starts = jnp.broadcast_to(start, (BLOCKS, lanes, *start.shape))
    group = jax.vmap(jax.vmap(functools.partial(begin_chain, setting)))(starts)
    index = jnp.uint32(first) + lanes * jnp.arange(BLOCKS, dtype=jnp.uint32)
    return Work(route, eqx.filter(setting, eqx.is_array), group, index)


@functools.cache
def case(name, dtype, **options):
    make, exit, start = CASES[name]
    return work_of(make(dtype), exit, jnp.asarray(start, dtype), **options)


@functools.cache
def compiled(route):
    """The kernel and the lanes route of the engine: functions of arrays, chains, index, bounds."""

    def in_kernel(*arguments):
        return kernel.advance(route, *arguments, interpret=True)

    def on_lanes(*arguments):
        return engine._advance(route, *arguments)[0]

    return [jax.jit(f, compiler_options=ONE_BY_ONE) for f in (in_kernel, on_lanes)]


def bounds(begin, end):
    return jnp.int32(begin), jnp.int32(end)


@both_types
@every_case
def test_paths_are_those_of_the_lanes_route_to_the_last_bit(name, dtype):
    work = case(name, dtype)
    found, expected = (f(*work[1:], *bounds(0, STEPS)) for f in compiled(work.route))
    assert bytes_of(found) == bytes_of(expected)
    for leaf, before in zip(jax.tree.leaves(found), jax.tree.leaves(work.group), strict=True):
        assert (leaf.dtype, leaf.shape) == (before.dtype, before.shape)
    # Not because nothing moved: no place is that of two chains, except by rounding.
    assert len(np.unique(found.state.params[..., 0])) > BLOCKS * LANES / 2


def test_some_chains_leave_and_some_do_not():
    work = case("diffusion", np.float64)
    event = np.asarray(compiled(work.route)[0](*work[1:], *bounds(0, STEPS)).event)
    assert 0 < np.count_nonzero(event) < event.size
    assert len(np.unique(event)) > 10


@both_types
def test_two_launches_are_one(dtype):
    work = case("diffusion", dtype)
    in_kernel, _ = compiled(work.route)
    halfway = in_kernel(*work[1:], *bounds(0, 77))
    twice = in_kernel(work.arrays, halfway, work.index, *bounds(77, STEPS))
    assert bytes_of(twice) == bytes_of(in_kernel(*work[1:], *bounds(0, STEPS)))
    assert bytes_of(in_kernel(*work[1:], *bounds(0, 0))) == bytes_of(work.group)


def test_stopped_chains_stay():
    """A whole block that only fills the grid, and every other chain of the next."""
    work = case("diffusion", np.float32)
    in_kernel, _ = compiled(work.route)
    stopped = np.zeros((BLOCKS, LANES), bool)
    stopped[0], stopped[1, ::2] = True, True
    group = work.group._replace(event=jnp.where(stopped, 1, work.group.event))
    found = in_kernel(work.arrays, group, work.index, *bounds(0, STEPS))
    free = in_kernel(*work[1:], *bounds(0, STEPS))

    def parts(chains, which):
        return bytes_of(jax.tree.map(lambda x: x[which], chains))

    assert parts(found, stopped) == parts(group, stopped)
    assert parts(found, ~stopped) == parts(free, ~stopped)


def test_a_block_that_has_stopped_is_not_stepped():
    """Or this would take hours."""
    work = case("diffusion", np.float32)
    group = work.group._replace(event=jnp.ones_like(work.group.event))
    found = compiled(work.route)[0](work.arrays, group, work.index, *bounds(0, 2**31 - 2))
    assert bytes_of(found) == bytes_of(group)


class Seen(NamedTuple):
    params: Any
    words: Any
    number: Any
    flag: Any


class Looks(AbstractDynamics):
    """Keeps the words of the last step, and what it looked up by them in a table of 40 numbers."""

    table: Any
    mode: str = eqx.field(static=True)

    def check(self, start):
        return

    def init(self, start):
        return Seen(start, jnp.zeros((2, 3), jnp.uint32), jnp.float32(0), jnp.asarray(False))

    def advance(self, state, stream, step):
        place = stream.below(60, 1)[0] - 10
        number = jnp.take(self.table, place, mode=self.mode)
        return Seen(state.params + 1, stream.words(3), number, ~state.flag)

    def evaluations(self):
        return 1.0


def looks(mode):
    table = np.random.default_rng(0).normal(size=40).astype(np.float32)
    return work_of(Looks(jnp.asarray(table), mode), None, jnp.zeros(1), first=10**9), table


def taken(table, place, mode):
    """As ``jnp.take`` says; numbers from the end are places, too, unless they are clipped."""
    if mode == "clip":
        return table[min(max(place, 0), 39)]
    return table[place % 40] if mode == "wrap" or place < 40 else np.nan


@pytest.mark.parametrize(
    "mode", ["clip", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("fill", "wrap"))]
)
def test_words_are_those_of_the_stream_and_numbers_those_of_the_table(mode):
    work, table = looks(mode)
    found = compiled(work.route)[0](*work[1:], *bounds(3, 8)).state
    chains = 10**9 + np.arange(BLOCKS * LANES, dtype=np.uint32).reshape(BLOCKS, LANES)
    for block, lane in np.ndindex(BLOCKS, LANES):
        stream = Stream(work.arrays.key, jnp.uint32(chains[block, lane]), jnp.uint32(7))
        np.testing.assert_array_equal(found.words[block, lane], stream.words(3))
        place = int(stream.below(60, 1)[0]) - 10
        np.testing.assert_array_equal(found.number[block, lane], taken(table, place, mode))
    np.testing.assert_array_equal(found.params, 5.0)
    np.testing.assert_array_equal(found.flag, True)


def test_last_steps_of_all():
    work, _ = looks("clip")
    found = compiled(work.route)[0](*work[1:], *bounds(2**31 - 12, 2**31 - 2))
    np.testing.assert_array_equal(found.state.params, 10.0)


@both_types
@every_case
def test_lowers_to_one_kernel_for_cuda(name, dtype):
    work = case(name, dtype, lanes=128)
    advance = jax.jit(functools.partial(kernel.advance, work.route))
    arguments = (*work[1:], *bounds(0, STEPS))
    text = advance.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("__gpu$xla.gpu.triton") == 1
    assert f"grid_x = {BLOCKS} : i32" in text
    assert "num_warps = 4 : i32" in text
    # All the loop is in the kernel.
    assert "stablehlo.while" not in text


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(inner):
                yield from equations(getattr(inner, "jaxpr", inner))


def is_jaxpr(x):
    return hasattr(getattr(x, "jaxpr", x), "eqns")


def test_leading_zeros_are_those_of_signed_numbers():
    """Triton's lowering takes those of unsigned ones, which its compiler then refuses."""
    work = case("diffusion", np.float64)
    traced = jax.make_jaxpr(functools.partial(kernel.advance, work.route))(
        *work[1:], *bounds(0, STEPS)
    )
    found = [e for e in equations(traced.jaxpr) if e.primitive.name == "clz"]
    assert found
    assert all(e.invars[0].aval.dtype == jnp.int32 for e in found)


class OwnTable(Looks):
    """Looks up in numbers of the chain's own."""

    def advance(self, state, stream, step):
        place = stream.below(20, 1)[0]
        return state._replace(params=state.params.at[0].set(state.params[place]))


def test_what_it_cannot_is_refused():
    work = case("sgd-4-terms", np.float32)
    arguments = (*work[1:], *bounds(0, 1))
    batched = engine.Route(work.route.static, None, LANES, "a step is large")
    with pytest.raises(tw.InputError, match="needs a route by lanes, and a step is large"):
        kernel.advance(batched, *arguments)
    static = eqx.tree_at(lambda s: s.record, work.route.static, Record(every=10))
    recording = engine.Route(static, work.route.program, LANES, "")
    with pytest.raises(tw.InputError, match="makes no records"):
        kernel.advance(recording, *arguments)
    for lanes in (16, 48, 2048):
        other = case("sgd-4-terms", np.float32, lanes=lanes)
        with pytest.raises(tw.InputError, match=f"has {lanes} chains; expected a power of two"):
            kernel.advance(other.route, *other[1:], *bounds(0, 1))
    work = work_of(OwnTable(jnp.zeros(1), "clip"), None, jnp.zeros(20))
    with pytest.raises(tw.InputError, match="looks up single numbers in known tables"):
        kernel.advance(work.route, *work[1:], *bounds(0, 1))
