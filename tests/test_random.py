"""The generator word for word against other implementations, and what is made of the words."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import random as reference
from scipy.stats import norm

from thalweg.random import Stream, _minus_two_log, _sine_cosine, threefry2x32

KEY = jax.random.key(3)
ENDS = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint32)
PI = 4 * np.arctan(np.longdouble(1))
# All pairs of extreme words, and many others.
WORDS = np.concatenate(
    [
        np.stack(np.meshgrid(ENDS, ENDS)).reshape(2, -1),
        np.random.default_rng(0).integers(0, 2**32, (2, 20_000), dtype=np.uint32),
    ],
    axis=1,
)


@pytest.fixture
def given_words(monkeypatch):
    """A stream whose words are WORDS."""
    monkeypatch.setattr(Stream, "words", lambda self, pairs: jnp.asarray(WORDS[:, :pairs]))
    return Stream.of(KEY)


# The words.


def test_threefry_equals_that_of_jax():
    rng = np.random.default_rng(1)
    keys = rng.integers(0, 2**32, (20, 2), dtype=np.uint32)
    counters = rng.integers(0, 2**32, (2, 50), dtype=np.uint32)
    for key in map(jnp.asarray, keys):
        got = threefry2x32((key[0], key[1]), tuple(map(jnp.asarray, counters)))
        assert np.ravel(got).tolist() == reference.threefry_2x32(key, counters.ravel()).tolist()


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(counter, key, answer):
    # threefry2x32 of 20 rounds in kat_vectors of Random123.
    got = threefry2x32(tuple(map(jnp.uint32, key)), tuple(map(jnp.uint32, counter)))
    assert tuple(map(int, got)) == answer


def test_words_of_chain_0_are_the_bits_of_jax():
    # jax.random.bits counts in 64 bits: the words (high, low) at place k are ours at step k.
    bits = jax.random.bits(jax.random.fold_in(KEY, 0), (100,), jnp.uint64)
    first, second = words_at(KEY, jnp.zeros(100, jnp.uint32), jnp.arange(100))
    expected = np.asarray(bits)
    assert (np.asarray(first).astype(np.uint64) << 32 | np.asarray(second)).tolist() == (
        expected.tolist()
    )


@jax.jit
def words_at(key, chain, step):
    words = jax.vmap(lambda j, k: Stream.of(key, j, k).words(1)[:, 0])(chain, step)
    return words[:, 0], words[:, 1]


def test_chain_and_step_are_whole_words():
    # The last counter of all, by the other implementation: nothing is cut off or carried.
    last = 2**32 - 1
    got = words_at(KEY, jnp.full(1, last, jnp.uint32), jnp.full(1, last, jnp.uint32))
    key = reference.threefry_2x32(jax.random.key_data(KEY), jnp.zeros(2, jnp.uint32))
    expected = reference.threefry_2x32(key, jnp.full(2, last, jnp.uint32))
    assert np.ravel(got).tolist() == expected.tolist()


@pytest.mark.slow
def test_no_two_streams_share_words():
    # Two of 4900 pairs of 64 bits are equal by chance once in 10^12.
    def pairs(key, chain, step):
        own = Stream.of(key, chain, step)
        streams = [own, own.folded(0), own.folded(1), own.folded(0).folded(0), own.folded(7)]
        keys = [jax.random.key_data(stream.jax_key())[None] for stream in streams]
        return jnp.concatenate([*(stream.words(4).T for stream in streams), *keys])

    counters = jnp.asarray([0, 1, 2, 3, 2**16, 2**31, 2**32 - 1], jnp.uint32)
    for axes in ((None, None, 0), (None, 0, None), (0, None, None)):
        pairs = jax.vmap(pairs, axes)
    many = jax.jit(pairs)(jax.random.split(KEY, 4), counters, counters).reshape(-1, 2)
    assert len(many) == 4 * 7 * 7 * 25
    assert len(np.unique(many, axis=0)) == len(many)


def test_a_stream_is_its_key_chain_and_step_however_it_is_run():
    def numbers(chain):
        stream = Stream.of(KEY, chain, 5)
        return stream.words(2), stream.below(10, 3), stream.uniform(2), stream.normal(3)

    together = jax.jit(jax.vmap(numbers))(jnp.arange(4))
    for j in range(4):
        alone = numbers(j)
        for one, all_of_them in zip(alone[:3], together[:3], strict=True):
            assert one.tolist() == all_of_them[j].tolist()
        # Compiled, a product and a sum may be rounded once instead of twice.
        np.testing.assert_allclose(alone[3], together[3][j], rtol=1e-13, atol=1e-15)


def test_the_same_numbers_without_64_bits():
    def numbers():
        stream = Stream.of(KEY, 2, 9)
        return stream.words(3), stream.below(10**9, 3), stream.uniform(3), stream.normal(3)

    words, indices, uniform, normal = numbers()
    with jax.enable_x64(False):
        narrow = numbers()
    assert narrow[0].tolist() == words.tolist()
    assert narrow[1].tolist() == indices.tolist()
    assert narrow[2].dtype == narrow[3].dtype == jnp.float32
    assert indices.dtype == narrow[1].dtype == jnp.int32
    # 23 bits of 52; normal numbers of size one, of the same pairs of words.
    np.testing.assert_allclose(narrow[2], uniform, rtol=0, atol=2.0**-23)
    np.testing.assert_allclose(narrow[3], normal, rtol=1e-5)


def test_more_numbers_begin_with_the_fewer():
    stream = Stream.of(KEY)
    for draw in (stream.uniform, stream.normal, lambda count: stream.below(1000, count)):
        assert draw(3).tolist() == draw(8)[:3].tolist()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_any_implementation(impl):
    made = [Stream.of(jax.random.key(seed, impl=impl)).words(1).tolist() for seed in (0, 1, 2**31)]
    assert made[0] != made[1] != made[2] != made[0]


def test_nothing_but_arithmetic():
    # What the loop over blocks of chains can take apart: no tables, loops or 64-bit integers.
    traced = jax.make_jaxpr(
        lambda stream: (stream.normal(3), stream.below(7, 2), stream.uniform(2), stream.folded(1))
    )(Stream.of(KEY))
    names, dtypes = set(), set()
    for equation in equations(traced.jaxpr):
        names.add(equation.primitive.name)
        dtypes.update(v.aval.dtype for v in equation.outvars)
    assert not names & {"gather", "scatter", "sort", "while", "scan", "cond", "dynamic_slice"}
    assert not any(name.startswith(("random", "threefry")) for name in names)
    assert not dtypes & {np.dtype(np.int64), np.dtype(np.uint64)}


def equations(jaxpr):
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr")
        if inner is None:
            yield equation
        else:
            yield from equations(inner.jaxpr)


# Uniform numbers.

BITS = {jnp.float16: 10, jnp.bfloat16: 7, jnp.float32: 23, jnp.float64: 52}


@pytest.mark.parametrize("dtype", BITS)
def test_uniform_numbers_are_exact_and_inside(dtype, given_words):
    bits = BITS[dtype]
    got = given_words.uniform(WORDS.shape[1], dtype)
    assert got.dtype == dtype
    whole = [(int(first) << 32 | int(second)) >> (64 - bits) for first, second in WORDS.T]
    for value, m in zip(np.asarray(got.astype(jnp.float64)).tolist(), whole, strict=True):
        assert Fraction(value) == Fraction(2 * m + 1, 2 ** (bits + 1))
        assert 0 < value < 1


# Indices.

SIZES = [1, 2, 3, 4, 7, 1000, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**29, 2**30, 2**31 - 1]


@pytest.mark.parametrize("n", SIZES)
def test_indices_are_the_integer_part_of_n_u(n, given_words):
    got = given_words.below(n, WORDS.shape[1])
    assert got.dtype == jnp.int32
    assert got.tolist() == [integer_part(n, *pair) for pair in WORDS.T]


@pytest.mark.parametrize("of", [np.asarray, jnp.asarray])
def test_indices_with_sizes_of_their_own(of, given_words):
    sizes = np.resize(np.array(SIZES, np.int32), WORDS.shape[1])
    got = given_words.below(of(sizes), len(sizes)).tolist()
    assert got == [integer_part(n, *pair) for n, pair in zip(sizes, WORDS.T, strict=True)]


def test_the_rest_of_an_index_is_the_next_word(given_words):
    for n in SIZES:
        _, rest = given_words.below_and_rest(n, WORDS.shape[1])
        whole = [int(first) << 32 | int(second) for first, second in WORDS.T]
        assert rest.tolist() == [(n * word >> 32) % 2**32 for word in whole]


def integer_part(n, first, second):
    return int(n) * (int(first) << 32 | int(second)) >> 64


# Normal numbers. Unit roundoffs u are 2^-24 and 2^-53.


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_normal_numbers_of_extreme_words(dtype, given_words):
    got = given_words.normal(2 * WORDS.shape[1], dtype)
    assert got.dtype == dtype
    got = np.asarray(got.astype(jnp.float64))
    assert np.isfinite(got).all()
    # sqrt(2 log 2^32) = 6.6604, at the word 0 and at the angle 0, and not a rounding beyond.
    largest = math.sqrt(2 * math.log(2) * 32)
    assert abs(np.abs(got).max() / largest - 1) < float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_normal_numbers_are_the_transform_of_their_pair(dtype, given_words):
    got = np.asarray(given_words.normal(2 * WORDS.shape[1], dtype)).reshape(-1, 2)
    first, second = WORDS.astype(np.longdouble)
    radius = np.sqrt(-2 * np.log((2 * np.floor(first / 2) + 1) / 2**32))
    angle = 2 * PI * np.where(second >= 2**31, second - 2**32, second) / 2**32
    u = float(jnp.finfo(dtype).eps) / 2
    # The errors below: of the angle's functions 22 u, and of the radius by that of its square.
    error = 22 * u * radius + squared_error(radius**2, u) / np.maximum(2 * radius, 1e-30)
    for z, exact in zip(got.T, (radius * np.sin(angle), radius * np.cos(angle)), strict=True):
        assert (np.abs(z - exact) <= error + 4 * u * radius).all()


def squared_error(square, u):
    """Bounds for -2 log u: the argument rounded once, then a logarithm to six units."""
    return 2 * u + 6 * u * square


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("p", [1e-5, 1e-6, 1e-7])
def test_tails_of_the_law_that_31_bits_make(dtype, p):
    # Every radius beyond the quantile q, 2900 of them for p = 1e-7, with the share of angles at
    # which R |cos| > q. The share is monotone in u: midpoints miss a cell at most.
    q = float(norm.isf(p / 2))
    cells = int(math.exp(-(q**2) / 2) * 2**31)
    radii = np.sqrt(_minus_two_log(jnp.arange(1, 2 * cells, 2, dtype=jnp.uint32), dtype))
    share = 2 / math.pi * np.arccos(np.minimum(1, q / radii.astype(float)))
    assert abs(share.sum() * 2.0**-31 / p - 1) < 1 / (p * 2**31)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_error_of_the_logarithm(dtype):
    words = np.concatenate([WORDS[0], np.arange(5, dtype=np.uint32) * 2 + 0xB504F330])
    exact = -2 * np.log((2 * (words // 2).astype(np.longdouble) + 1) / 2**32)
    got = np.asarray(_minus_two_log(jnp.asarray(words), dtype))
    u = float(jnp.finfo(dtype).eps) / 2
    if dtype == jnp.float32:
        assert (np.abs(got - exact) <= squared_error(exact, u)).all()
    else:
        # m - 1 is exact, m + 1 and the quotient are rounded, the series and its sum with
        # 2 k log 2 add five more; the two differ by a factor of up to three from their sum.
        assert (np.abs(got / exact - 1) <= 3 * 7 * u).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_error_of_sine_and_cosine(dtype):
    # Half the angle, up to pi/2, has three roundings: 4.7 u there, 9.4 u of the angle. Horner's
    # rule adds u times 2 cosh(pi/2) - 1 + 1.1 = 5.1 (cosine) or 2 sinh(pi/2) - pi/2 + 1.6 = 4.7
    # (sine), most of it where the term itself is small. Then 2 s c is wrong by 9.4 + 2 (5.1) + 1
    # units at the end of the interval, and 1 - 2 s^2 by 4 (4.7) + 3.
    words = WORDS[1]
    angle = 2 * PI * words.view(np.int32).astype(np.longdouble) / 2**32
    sine, cosine = map(np.asarray, _sine_cosine(jnp.asarray(words), dtype))
    bound = 22 * float(jnp.finfo(dtype).eps) / 2
    assert np.abs(sine - np.sin(angle)).max() < bound
    assert np.abs(cosine - np.cos(angle)).max() < bound
