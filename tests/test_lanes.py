"""Functions taken apart into lanes: rule by rule against ``jax.vmap`` of the same function."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from thalweg.lanes import Program, apart, entries, in_one_pass, is_apart, repacked, together
from thalweg.lanes.arithmetic import ELEMENTWISE

LANES = 9
RNG = np.random.default_rng(0)


def whole(*shape, dtype=float):
    """Whole numbers: their sums and products are exact in any order."""
    return jnp.asarray(RNG.integers(-3, 4, size=(LANES, *shape))).astype(dtype)


def index(low, high, *shape, dtype=jnp.int32):
    return jnp.asarray(RNG.integers(low, high, size=(LANES, *shape))).astype(dtype)


def real(*shape, dtype=float):
    return jnp.asarray(RNG.normal(size=(LANES, *shape))).astype(dtype)


def one_of(own):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), own)


def evaluated(program, fixed, shared, own):
    """The program on all chains, with a leading axis of chains."""
    result = program.evaluate(program.prepare(fixed), shared, jax.tree.map(apart, own), LANES)
    return jax.tree.map(lambda x: together(x, LANES), result, is_leaf=is_apart)


def both(function, *own, fixed=None, shared=None):
    """What lanes make of ``function(fixed, shared, *own)``, and what a map over chains does."""

    def of_own(fixed, shared, own):
        return function(fixed, shared, *own)

    program = Program(of_own, fixed, shared, one_of(own))
    assert program.obstacle is None
    ours = jax.jit(lambda *arguments: evaluated(program, *arguments))(fixed, shared, own)
    mapped = jax.vmap(of_own, in_axes=(None, None, 0), axis_size=LANES)
    return ours, jax.jit(mapped)(fixed, shared, own)


def assert_same(ours, theirs, ulps=0):
    """Equal shapes and types, and values but for so many units of rounding (of 1, if small)."""
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    for x, y in zip(ours, theirs, strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        tolerance = 0.0
        if jnp.issubdtype(x.dtype, jnp.inexact):
            tolerance = ulps * float(jnp.finfo(x.dtype).eps)
            wide = complex if jnp.issubdtype(x.dtype, jnp.complexfloating) else float
            x, y = x.astype(wide), y.astype(wide)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


class Case(NamedTuple):
    """A function of fixed, shared and own arguments."""

    function: Any
    own: Any
    fixed: Any = None
    shared: Any = None


def of(function, *own):
    """A function of own arguments alone."""
    return Case(lambda fixed, shared, *own: function(*own), own)


def table(function, rows, *own):
    """A function of a fixed table and own arguments."""
    return Case(lambda fixed, shared, *own: function(fixed, *own), own, fixed=rows)


def beside(function, shared, *own):
    """A function of a shared argument and own ones."""
    return Case(lambda fixed, shared, *own: function(shared, *own), own, shared=shared)


# Without rounding: moving entries, choosing among them, and whole numbers. No tolerance.

X3, X23, X234, S = whole(3), whole(2, 3), whole(2, 3, 4), whole()
ANY = index(-4, 9)
FEW, MANY = jnp.arange(10.0).reshape(5, 2), jnp.arange(40.0).reshape(20, 2) ** 2
CONSTANT = np.arange(40.0).reshape(20, 2)
PAIRS = np.triu_indices(3, 1)
ROW = lax.GatherDimensionNumbers((0,), (0,), (0,))
MODES = lax.GatherScatterMode


def row(mode, fill_value=None):
    return lambda rows, i: lax.gather(rows, i[None], ROW, (1, 2), mode=mode, fill_value=fill_value)


def padded(*config):
    return of(lambda x: lax.pad(x, -7.0, config), X23)


def triple(x, y):
    return x + 3 * y


def nested(i, x):
    def inner(x):
        return lax.switch(i, [lambda x: x, lambda x: lax.scan(added, 0.0, x)[1], lambda x: -x], x)

    return lax.cond(i > 0, inner, lambda x: 2 * x, x)


def added(total, y):
    return total + y, total * y


def counted(carry, y):
    n, product = carry
    return (n + 1, product * jnp.sum(y)), (n, product, 2 * y)


def pair_energy(x):
    i, j = PAIRS
    return jnp.sum(jnp.square(x[i] - x[j]))


def set_here_and_there(x):
    return x.at[0].set(5.0).at[1:].add(x[:2]).at[jnp.array([2, 0])].multiply(3.0)


def own_updates(x, i, s):
    window = lax.dynamic_update_slice(x, x[:2] + s, (i,))
    return x.at[i].add(s, mode="clip"), x.at[i].set(s), x.at[jnp.stack([i, i])].max(x[:2]), window


def outside(x):
    # One place is outside: this update is dropped.
    return x.at[jnp.array([1, 7])].max(2.0, mode="drop").at[jnp.array([0, 0])].min(-1.0)


EXACT = {
    "pad": padded((1, 2, 0), (0, 1, 2)),
    "pad negative": padded((-1, 0, 0), (0, -2, 0)),
    "pad negative inside": padded((-1, 2, 1), (2, -3, 2)),
    "pad all away": padded((-2, 3, 0), (0, 0, 0)),
    "pad by a number": of(lambda x, s: lax.pad(x, s, [(1, 1, 1)]), X3, S),
    "pad what is shared": beside(lambda x, s: lax.pad(x, s, [(1, 1, 1)]), jnp.arange(3.0), S),
    "pad a number": of(lambda s: lax.pad(s, 0.0, []), S),
    "slices": of(lambda x: (x[:, 1], x[::-1, ::2], x[-1], x[0, 1:]), X23),
    "reshapes": of(lambda x: (x.T, x.reshape(3, 2), x[None, :, None], jnp.flip(x)), X23),
    "squeeze": of(lambda x: jnp.squeeze(x[:, :1], 1), X23),
    "pieces": of(lambda x: (jnp.split(x, [1, 2]), jnp.unstack(x), jnp.tile(x, (2, 2))), X3),
    "unstack": of(lambda x: jnp.unstack(x, axis=1), X23),
    "join": of(lambda x, s: (jnp.stack([x, -x], 1), jnp.append(x, s), jnp.append(x, 1.0)), X3, S),
    "join with shared": beside(lambda y, x: jnp.concatenate([y, x, y]), jnp.arange(2.0), X3),
    "broadcast": of(lambda s: (jnp.broadcast_to(s, (2, 3)), jnp.ones((2, 3)) * s), S),
    "broadcast axes": of(lambda x: lax.broadcast_in_dim(x, (4, 3, 2), (1,)), X3),
    "select": of(lambda x: (jnp.where(x > 0, x, 0.0), lax.select_n(x[0] > 0, x, -x)), X3),
    "select of three": of(
        lambda x: lax.select_n(jnp.sign(x).astype(jnp.int32) + 1, x, 2 * x, 3 * x), X3
    ),
    "clamp": of(lambda x, s: (lax.clamp(-1.0, x, 1.0), jnp.clip(x, s, s + 1)), X3, S),
    "events": of(
        lambda x: (jnp.all(x > 0, 0), jnp.any(x > 0, 1), lax.reduce_xor(x > 0, (0,))), X23
    ),
    "largest": of(
        lambda x: (jnp.max(x, (0, 2)), jnp.min(x), jnp.argmax(x, 1), jnp.argmin(x)), X234
    ),
    "sums": of(lambda x: [lax.reduce_sum(x, axes) for axes in [(), (1,), (0, 2), (2, 0, 1)]], X234),
    "products": of(lambda x: [lax.reduce_prod(x, axes) for axes in [(), (1,), (0, 2)]], X234),
    "running": of(
        lambda x: [
            f(x, axis=axis, reverse=reverse)
            for f in (lax.cumsum, lax.cumprod, lax.cummax, lax.cummin)
            for axis in (0, 1)
            for reverse in (False, True)
        ],
        X23,
    ),
    "dot": of(lambda x, y: (x @ y, jnp.outer(x, y), jnp.vdot(x, y)), X3, whole(3)),
    "matrices": of(lambda x, y: (x @ y, y.T @ x.T, x[0] @ y), X23, whole(3, 2)),
    "batches": of(
        lambda x, y: jnp.einsum("bijk,bjkl->lbi", x, y), whole(2, 3, 2, 2), whole(2, 2, 2, 3)
    ),
    "fixed matrix": table(lambda a, x: a @ x, jnp.arange(6.0).reshape(2, 3), X3),
    "wider products": of(
        lambda x, y: lax.dot(100 * x, y, preferred_element_type=jnp.int32),
        whole(3, dtype=jnp.int8),
        whole(3, dtype=jnp.int8),
    ),
    "no entries": of(
        lambda x: (
            jnp.sum(x[:0]),
            jnp.prod(x[:0], axis=0),
            jnp.all(x[:, :0], axis=1),
            jnp.max(x[:0], initial=2.0),
            jnp.cumsum(x[:0]),
            x[:, :0].T @ x,
            x[:, :0] @ x[:0, :],
            jnp.concatenate([x[:0], x]),
            lax.cond(x[0, 0] > 0, lambda: (x[:0], x), lambda: (x[2:], -x)),
        ),
        X23,
    ),
    "rows": table(row(MODES.CLIP), MANY, index(-4, 25)),
    "rows, small index": table(row(MODES.CLIP), MANY, index(-4, 25, dtype=jnp.int8)),
    "rows, unsigned": table(row(MODES.CLIP), MANY, index(0, 25, dtype=jnp.uint32)),
    "rows or NaN": table(row(MODES.FILL_OR_DROP), MANY, index(-4, 25)),
    "rows or 7": table(row(MODES.FILL_OR_DROP, 7.0), MANY, index(-4, 25)),
    "rows or least": table(row(MODES.FILL_OR_DROP), MANY.astype(int), index(-4, 25)),
    "rows in range": table(row(MODES.PROMISE_IN_BOUNDS), MANY, index(0, 20)),
    "few rows": table(row(MODES.CLIP), FEW, index(-4, 9)),
    "few rows, unsigned": table(row(MODES.CLIP), FEW, index(0, 9, dtype=jnp.uint8)),
    "few rows or NaN": table(row(MODES.FILL_OR_DROP), FEW, index(-4, 9)),
    "one row": table(row(MODES.CLIP), FEW[:1], index(-4, 9)),
    "rows by an array": table(
        lambda rows, i: jnp.take(rows, i, axis=0, mode="clip"), MANY, index(-4, 25, 2, 3)
    ),
    "rows, one for all": table(
        lambda rows, i: jnp.take(rows, jnp.stack([i, jnp.int32(3)]), axis=0, mode="clip"),
        MANY,
        ANY,
    ),
    "columns": table(lambda rows, i: jnp.take(rows, i, axis=1, mode="clip"), MANY, ANY),
    "rows of a constant": of(lambda i: jnp.take(CONSTANT, i, axis=0, mode="clip"), ANY),
    "rows, Python's index": table(lambda rows, i: rows[i], MANY, index(-20, 20)),
    "own entry": of(lambda x, i: x[i], X3, index(-3, 3)),
    "own entry or NaN": of(lambda x, i: x.at[i].get(mode="fill"), X3, ANY),
    "shared entry": beside(lambda k, x: x[k], jnp.int32(-1), X3),
    "own window": of(lambda x, i: lax.dynamic_slice(x, (i, i - 1), (1, 2)), X23, ANY),
    "own window of many": of(lambda x, i: lax.dynamic_slice(x, (i,), (2,)), whole(12), ANY),
    "gradient of an entry": of(jax.grad(lambda x, i: x[i] ** 2), X3, index(-3, 3)),
    "gradient, one of many": of(jax.grad(lambda x, i: x[i] ** 2), whole(12), index(-12, 12)),
    "known entries": of(lambda x: (x[jnp.array([2, -1, 0])], x[jnp.array([[0], [1]])]), X3),
    "known entry": of(
        lambda x: lax.gather(
            x, jnp.array([1]), lax.GatherDimensionNumbers((), (0,), (0,)), (1,), mode="clip"
        ),
        X3,
    ),
    "known or NaN": of(lambda x: x.at[jnp.array([1, 5])].get(mode="fill"), X3),
    "pairs": of(jax.value_and_grad(pair_energy), X3),
    "pairs in a branch": of(lambda i, x: lax.cond(i > 0, pair_energy, jnp.sum, x), ANY, X3),
    "updates": of(set_here_and_there, X3),
    "updates outside": of(outside, X3),
    "updated rows": of(lambda x: x.at[:, jnp.array([2, 0])].set(x[:, :2]), X23),
    "applied": of(lambda x: x.at[jnp.array([1])].apply(jnp.negative), X3),
    "own updates": of(own_updates, X3, index(-4, 6), S),
    "own rows": of(lambda x, i: x.at[i].set(x[1]).at[:, i].multiply(x[:, 0]), X23, ANY),
    "own updates or none": of(
        lambda x, i, s: x.at[i].add(s, mode="drop", wrap_negative_indices=False), X3, ANY, S
    ),
    "batch of entries": of(
        jax.grad(lambda x, i: jnp.sum(jax.vmap(lambda i: x[i] ** 2)(i))), X3, index(0, 3, 4)
    ),
    "switch": of(lambda i, x: lax.switch(i, [lambda x: x, lambda x: 2 * x, jnp.flip], x), ANY, X3),
    "cond": of(lambda x: lax.cond(x[0] > 0, jnp.flip, jnp.negative, x), X3),
    "cond, same for all": of(
        lambda s: lax.cond(s > 0, lambda: (jnp.arange(3), 1.0), lambda: (jnp.zeros(3, int), 2.0)), S
    ),
    "shared cond": beside(
        lambda b, x: lax.cond(b, lambda x: (x, 1.0), lambda x: (-x, 2.0), x), jnp.asarray(True), X3
    ),
    "shared switch": beside(
        lambda i, x: lax.switch(i, [lambda x: x, jnp.flip, jnp.negative], x), jnp.int32(7), X3
    ),
    "nested": of(nested, ANY, X3),
    "scan": of(lambda x: lax.scan(added, 1.0, x), X3),
    "scan reversed": of(lambda x: lax.scan(added, 1.0, x, reverse=True), X3),
    "scan of trees": of(lambda x, s: lax.scan(counted, (0, s), x, reverse=True), X23, S),
    "scan of shared": beside(
        lambda y, s: lax.scan(counted, (0, s), y), jnp.arange(6.0).reshape(3, 2), S
    ),
    "scan of nothing": of(lambda x: lax.scan(counted, (0, x[0]), jnp.zeros((0, 2))), X3),
    "scan without rows": of(lambda x: lax.scan(lambda c, _: (2 * c, None), x, length=3), X3),
    "loop": of(lambda x: lax.fori_loop(0, 3, lambda i, c: c + i * x[i], x), X3),
    "constant results": of(lambda x: (x, np.arange(3), jnp.ones(2), x[0] > 0, 2.0), X3),
    "shared results": beside(lambda y, x: (y, 2 * y, x), jnp.arange(4.0), X3),
    "barrier": of(lambda x, y: lax.optimization_barrier((x, y, -x)), X3, whole(3, dtype=int)),
    "barrier of unlike": of(lambda x, s: lax.optimization_barrier((x, s)), X3, S),
    "calls": of(lambda x: jax.jit(lambda x: jax.checkpoint(jax.nn.relu)(x) + 1)(x), X3),
    "other widths": of(
        lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.uint32) ^ 1, float), X3
    ),
    "complex": of(lambda x: (lambda z: (z @ z, z * z, jnp.conj(z).sum()))(lax.complex(x, -x)), X3),
    "single": of(lambda x: (x + 1, x @ x, jnp.sum(x)), whole(3, dtype=jnp.float32)),
    "half": of(lambda x: (x + 1, x @ x, jnp.sum(x)), whole(3, dtype=jnp.float16)),
    "bfloat16": of(lambda x: (x + 1, x @ x, jnp.sum(x)), whole(3, dtype=jnp.bfloat16)),
    "small integers": of(lambda x: (x * x, jnp.sum(x), x @ x), whole(3, dtype=jnp.int8)),
    "unsigned": of(lambda x: (x - 5, x >> 3, ~x), whole(3, dtype=jnp.uint32)),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_same_as_mapped(name):
    case = EXACT[name]
    assert_same(*both(case.function, *case.own, fixed=case.fixed, shared=case.shared))


# With rounding.


def test_elementwise_operations():
    x, y, n = real(), real(), whole(dtype=int)
    u, z = jax.nn.sigmoid(x), lax.complex(x, y)

    def rounded(x, y, u, z, n):
        positive = jnp.square(x) + 1
        return (
            [f(x) for f in UNARY],
            [f(u) for f in (lax.acos, lax.asin, lax.atanh, lax.erf_inv)],
            [f(positive) for f in (lax.acosh, lax.log, lax.sqrt, lax.rsqrt, lax.bessel_i0e)],
            [f(x, y) for f in (lax.add, lax.sub, lax.mul, lax.div, lax.atan2, lax.rem)],
            [f(x, y) for f in (lax.max, lax.min, lax.nextafter, lax.eq, lax.ne, lax.lt)],
            [f(x, y) for f in (lax.le, lax.gt, lax.ge)],
            [f(positive, u) for f in (lax.igamma, lax.igammac, lax.igamma_grad_a, lax.pow)],
            lax.zeta(positive + 1, u),
            lax.polygamma(jnp.ones_like(x), positive),
            lax.betainc(positive, positive, u),
            [f(n, n + 1) for f in (lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor)],
            [f(n) for f in (lax.bitwise_not, lax.clz, lax.population_count)],
            [f(n, 2 + 0 * n) for f in (lax.shift_left, lax.shift_right_logical)],
            lax.shift_right_arithmetic(n, 2 + 0 * n),
            lax.mulhi(n, n + 5),
            [lax.real(z), lax.imag(z), lax.conj(z), lax.complex(x, y), lax.abs(z), lax.exp(z)],
            [lax.expm1(z), lax.log1p(z)],
            [
                lax.integer_pow(x, -3),
                lax.reduce_precision(x, 5, 10),
                lax.convert_element_type(x, jnp.float32),
            ],
            [lax.clamp(x, y, x + 1), lax.select(x > y, x, y), jnp.array(x, copy=True)],
            [checkpoint_name(x, "x"), lax.stop_gradient(x), jax.grad(lambda x: jnp.sum(x * x))(x)],
        )

    own = (x, y, u, z, n)
    traced = jax.make_jaxpr(rounded)(*(x[0] for x in own))
    assert {e.primitive.name for e in traced.eqns} >= ELEMENTWISE
    # The same operations, but what runs over chains may contract a product and a sum: the special
    # functions are series of some ten of them.
    assert_same(*both(lambda fixed, shared, *own: rounded(*own), *own), ulps=64)


UNARY = (
    *(lax.abs, lax.asinh, lax.atan, lax.bessel_i1e, lax.cbrt, lax.ceil, lax.cos, lax.cosh),
    *(lax.digamma, lax.erf, lax.erfc, lax.exp, lax.exp2, lax.expm1, lax.floor, lax.is_finite),
    *(lax.lgamma, lax.logistic, lax.neg, lax.round, lax.sign, lax.sin, lax.sinh, lax.square),
    *(lax.tan, lax.tanh, lambda x: lax.log1p(lax.abs(x))),
)

SMOOTH = {
    "softplus": jax.nn.softplus,
    "logsumexp": jax.scipy.special.logsumexp,
    "log_softmax": jax.nn.log_softmax,
    "norm": jnp.linalg.norm,
    "std": jnp.std,
    "checkpoint": jax.checkpoint(lambda x: jnp.prod(jnp.sin(x))),
    "powers": lambda x: x**3 + jnp.abs(x) ** 0.3,
    "det": lambda x: jnp.linalg.det(jnp.outer(x, x) + jnp.eye(2)),
    "polynomial": lambda x: jnp.polyval(x, x),
    "chain": lambda x: jnp.diff(x) ** 2 + jnp.roll(x, 1)[:1],
    "running": lax.cumlogsumexp,
    "network": lambda x: jnp.tanh(jnp.outer(x, x) @ jnp.tanh(x)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_and_hessians(name):
    def loss(x):
        return jnp.sum(jnp.sin(SMOOTH[name](x)))

    def function(fixed, shared, x):
        return jax.grad(loss)(x), jax.hessian(loss)(x)

    # Each of some hundred operations rounds by half a unit; derivatives are below 100 here.
    assert_same(*both(function, 0.5 + jnp.abs(real(2))), ulps=2**14)


def test_custom_derivatives():
    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, g: (3 * x * g,))

    def function(fixed, shared, x):
        return square(x), jax.grad(square)(x)

    ours, theirs = both(function, S)
    assert_same(ours, theirs)
    np.testing.assert_array_equal(ours[1], 3 * S)


def test_without_64_bits():
    with jax.enable_x64(False):
        ours, theirs = both(
            lambda rows, k, x, i: (rows[i] @ x, lax.switch(i, [jnp.sum, jnp.max], x), i + k),
            whole(2, dtype=jnp.float32),
            index(0, 5),
            fixed=FEW.astype(jnp.float32),
            shared=jnp.int32(3),
        )
    assert_same(ours, theirs)
    assert ours[0].dtype == jnp.float32


# Random compositions. Integers wrap around: exact in any order.

MOVES = (
    lambda x, i: x + x[::-1],
    lambda x, i: x * (x - 2),
    lambda x, i: jnp.maximum(x, i),
    lambda x, i: x.T.reshape(2, 3),
    lambda x, i: jnp.cumsum(x, axis=1) - jnp.sum(x, axis=0, keepdims=True, dtype=x.dtype),
    lambda x, i: (x @ x.T) @ x,
    lambda x, i: jnp.roll(x, 1, axis=1).at[0].add(x[1]),
    lambda x, i: jnp.where(x > i, x, -x),
    lambda x, i: x[:, jnp.array([2, 0, 2])] + x[i],
    lambda x, i: lax.pad(x[:, 1:], i, [(0, 0, 0), (1, 0, 0)]),
    lambda x, i: lax.switch(i, [lambda x: x + 1, jnp.negative, lambda x: x ^ 5], x),
    lambda x, i: lax.scan(lambda c, row: (c * row + i, c - row), x[0], x)[1],
    lambda x, i: jnp.stack([jnp.max(x, axis=0), jnp.full(3, jnp.argmin(x), x.dtype)]),
    lambda x, i: jnp.take(jnp.arange(20, dtype=x.dtype), x, mode="clip"),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(range(len(MOVES))), min_size=1, max_size=6))
def test_random_compositions(numbers):
    def function(fixed, shared, x, i):
        for number in numbers:
            x = MOVES[number](x, i)
        return x

    assert_same(*both(function, index(-9, 9, 2, 3), index(-1, 4)))


# What is left to compute.


def names(function, *arguments):
    return [e.primitive.name for e in jax.make_jaxpr(function)(*arguments).eqns]


def test_nothing_but_lanes_reaches_the_compiler():
    def loss(x, data):
        return jnp.log1p(jnp.sum(jnp.square(data @ jnp.tanh(x) - x[:2])))

    def step(data, k, x):
        return x - 0.1 * jax.grad(loss)(x, data)

    data = jnp.arange(6.0).reshape(2, 3)
    program = Program(step, data, None, one_of(X3))
    known = program.prepare(data)
    traced = jax.make_jaxpr(lambda known, x: program.evaluate(known, None, apart(x), LANES)[0])(
        known, X3
    )
    moved = {"broadcast_in_dim", "slice", "squeeze", "jit"}
    assert {e.primitive.name for e in traced.eqns} <= ELEMENTWISE | moved
    # Every number computed is one of a chain: no axes but that of the chains.
    for equation in traced.eqns:
        if equation.primitive.name not in moved:
            assert equation.outvars[0].aval.shape == (LANES,)
    # And not many more than the loss has: two products of 2 x 3, each some six operations.
    assert program.cost < 100


def test_what_is_fixed_is_computed_beforehand():
    def function(fixed, shared, x):
        return x * jnp.sin(fixed) + jnp.cos(shared) * jnp.tan(jnp.float64(2))

    program = Program(function, 1.0, 2.0, one_of(S))
    assert {"sin", "tan"} <= set(names(program.prepare, 1.0))
    known = program.prepare(1.0)
    left = names(lambda known, k, x: program.evaluate(known, k, apart(x), LANES)[()], known, 2.0, S)
    assert left.count("cos") == 1
    assert not {"sin", "tan"} & set(left)


def test_what_is_not_needed_is_dropped():
    def function(fixed, shared, x):
        jnp.sort(jnp.exp(x))
        return 2 * x

    program = Program(function, None, None, one_of(X3))
    assert program.obstacle is None
    known = program.prepare(None)
    assert "exp" not in names(lambda x: program.evaluate(known, None, apart(x), LANES)[0], X3)


# What cannot be taken apart.


def sorted_sum(x):
    return jnp.sum(jnp.sort(x) * x)


def late(x):
    """The own number comes to the sort on the third turn."""

    def body(carry, _):
        first, second = carry
        return (second, second * x[0]), jnp.sort(first)

    return lax.scan(body, (jnp.zeros(3), jnp.zeros(3)), length=3)[1]


def called(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((3,), float), x)


def printed(x):
    jax.debug.print("{}", x)
    return 2 * x


OBSTACLES = {
    "sort": (jnp.median, "sort", False),
    "while": (lambda x: lax.while_loop(lambda x: x[0] < 3, lambda x: x + 1, x), "while", False),
    "scatter": (lambda x: jnp.tile(x, 3).at[x[0].astype(int)].add(1.0), "scatter-add", False),
    "in a branch": (lambda x: lax.cond(x[0] > 0, sorted_sum, jnp.sum, x), "sort", False),
    "in a loop": (late, "sort", False),
    "linear algebra": (lambda x: jnp.linalg.cholesky(jnp.outer(x, x)), "cholesky", False),
    "callback": (called, "pure_callback", True),
    "callback after another": (lambda x: called(jnp.sort(x)), "pure_callback", True),
    "callback in a loop": (
        lambda x: lax.while_loop(lambda x: x[0] < 3, lambda x: called(x) + 3, x),
        "pure_callback",
        True,
    ),
    "print": (printed, "debug_print", True),
    "print in a loop": (
        lambda x: lax.scan(lambda c, y: (c, printed(y)), 0.0, x),
        "debug_print",
        True,
    ),
    "print of nothing own": (
        lambda x: (jax.debug.print("hello"), x)[1],
        "debug_print",
        True,
    ),
    "no entries": (lambda x: (x[0], jnp.zeros(0)), None, False),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_obstacles(name):
    function, obstacle, opaque = OBSTACLES[name]
    program = Program(lambda fixed, shared, x: function(x), None, None, one_of(X3))
    assert (program.obstacle, program.opaque) == (obstacle, opaque)


def test_an_own_array_without_entries_is_an_obstacle():
    program = Program(lambda fixed, shared, x: x, None, None, jnp.zeros((0, 2)))
    assert program.obstacle == "on an array without entries"


def test_what_is_the_same_for_all_chains_is_no_obstacle():
    def function(fixed, k, x):
        middle = jnp.median(fixed)
        loop = lax.while_loop(lambda k: k < 5, lambda k: k + 1, k)
        in_branch = lax.cond(x[0] > 0, lambda: jnp.sort(fixed), lambda: -fixed)
        in_loop = lax.scan(lambda c, y: (jnp.sort(c), jnp.sum(c) * y), fixed, x)[1]
        return x * middle + loop + in_branch + in_loop

    ours, theirs = both(function, X3, fixed=jnp.asarray([3.0, 1.0, 2.0]), shared=1.0)
    assert_same(ours, theirs)


# What it costs.


def cost(function, own=X3, fixed=None):
    return Program(lambda fixed, shared, x: function(fixed, x), fixed, None, one_of(own)).cost


def test_costs():
    assert cost(lambda fixed, x: x) == 0
    assert cost(lambda fixed, x: jnp.sin(x)) == 3
    # A reduction of three, and moving entries about for nothing.
    assert cost(lambda fixed, x: jnp.sum(x[::-1])) == 3
    # Products of (4, 2, 3) and (4, 3, 5): 4 x 2 x 3 x 5 of them, on top of the larger operand.
    products = cost(lambda right, x: x @ right, whole(4, 2, 3), jnp.ones((4, 3, 5)))
    assert products == 4 * 2 * 3 * 5 + 4 * 2 * 5
    # Both branches, their index and the choice.
    assert cost(lambda fixed, x: lax.cond(True, jnp.sin, jnp.cos, x)) == 3 + 3 + 3
    # Of a fixed table only the rows drawn.
    drawn = cost(lambda rows, i: jnp.take(rows, i, axis=0, mode="clip"), ANY, jnp.zeros((1000, 2)))
    assert drawn == 2
    assert (
        cost(
            lambda fixed, x: lax.cond(x[0] > 0, lambda: jnp.sort(fixed), lambda: fixed),
            X3,
            jnp.zeros(100),
        )
        < 110
    )


def test_a_long_loop_is_measured_without_writing_it_out():
    def inner(x, _):
        return lax.scan(lambda x, _: (jnp.sin(x), None), x, length=10**6)[0], None

    turns = cost(lambda fixed, x: lax.scan(inner, x, length=10**6)[0])
    assert turns == pytest.approx(3e12, rel=1e-5)


# The parts.


def test_apart_and_together():
    x, matrix = whole(), whole(2, 3)
    for leaf in (x, matrix):
        parts = apart(leaf)
        assert is_apart(parts)
        assert parts.shape == leaf.shape[1:]
        np.testing.assert_array_equal(together(parts, LANES), leaf)
    columns = [*entries(apart(x), LANES), *entries(apart(matrix), LANES)]
    assert len(columns) == 7
    again = repacked(columns, [(), (2, 3)])
    np.testing.assert_array_equal(together(again[0], LANES), x)
    np.testing.assert_array_equal(together(again[1], LANES), matrix)
    # What is the same for all chains is repeated.
    assert not is_apart(jnp.arange(2.0))
    assert together(jnp.arange(2.0), 3).tolist() == [[0, 1]] * 3
    assert [x.tolist() for x in entries(jnp.arange(2.0), 3)] == [[0] * 3, [1] * 3]


SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.5, -3e4, 65504.0]
TYPES = ["bool", "int8", "int32", "int64", "uint8", "uint32", "uint64", "float16", "bfloat16"]
TYPES += ["float32", "float64", "complex64", "complex128"]


def test_in_one_pass_changes_no_bit():
    columns = [special(jnp.dtype(name)) for name in TYPES]
    for column, passed in zip(columns, jax.jit(in_one_pass)(columns), strict=True):
        assert passed.dtype == column.dtype
        assert np.asarray(passed).tobytes() == column.tobytes()


def special(dtype):
    """Eight numbers of a type that a sum might not leave alone."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.asarray([complex(x, y) for x in SPECIAL[1:5] for y in (-0.0, 1.0)], dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(SPECIAL).astype(dtype)
    if jnp.issubdtype(dtype, jnp.bool_):
        return np.asarray([True, False] * 4)
    limits = np.iinfo(dtype)
    return np.asarray([limits.min, 0, 1, limits.max] * 2, dtype)
