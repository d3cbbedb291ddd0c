r"""A counter-based generator: the random words of (key, chain, step), whatever else is drawn.

Threefry-2x32 with 20 rounds maps a key and a counter to two words of 32 bits, with additions,
rotations and exclusive-ors alone (J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011). It is the construction of ``jax.random``; here the counter is (chain, step) itself,
so that a step costs one call for every two words and no keys are split on the way.
"""

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
# Pairs of words from which a step makes them beforehand: whoever needs one would compute it anew.
_MANY_PAIRS = 3
# What a key derived from a stream's own is for; the stream's own key never makes words.
_WORDS, _FOLDED, _KEYS = 0, 1, 2


# Inlined: a program's operations are what they were, and Python makes them once for each shape.
@partial(jax.jit, inline=True)
def threefry2x32(key: tuple[Array, Array], counter: tuple[Array, Array]) -> tuple[Array, Array]:
    """Two words of 32 bits from a key and a counter of two words each; all broadcast.

    Equal to ``jax.extend.random.threefry_2x32``, word for word. Cost: some hundred integer
    operations, all of them elementwise.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x = x + y
            y = _rotated(y, distance) ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


class Stream(eqx.Module):
    r"""The randomness of one step of one chain: a function of (key, chain, step) alone.

    Every method starts from the stream's beginning: two draws from one stream are made of the same
    words. Draw all that is needed at once, or take independent streams by :meth:`folded`.

    Attributes:
        key: Two words, from the key of the run.
        chain: The number of the chain.
        step: The number of the step.
    """

    key: UInt32[Array, " 2"]
    chain: UInt32[Array, ""]
    step: UInt32[Array, ""]

    @staticmethod
    def of(key: Key[Array, ""], chain: Any = 0, step: Any = 0) -> "Stream":
        """The stream of a JAX key (any implementation: its first and last words are taken)."""
        words = jax.random.key_data(key).astype(jnp.uint32).reshape(-1)
        return Stream(
            jnp.stack([words[0], words[-1]]),
            jnp.asarray(chain, jnp.uint32),
            jnp.asarray(step, jnp.uint32),
        )

    def folded(self, number: Any) -> "Stream":
        """An independent stream of the same chain and step."""
        return Stream(jnp.stack(self._derived(number, _FOLDED)), self.chain, self.step)

    def jax_key(self) -> Key[Array, ""]:
        """A key for ``jax.random``, for what this generator does not draw (permutations)."""
        words = threefry2x32(self._derived(0, _KEYS), (self.chain, self.step))
        return jax.random.wrap_key_data(jnp.stack(words), impl="threefry2x32")

    def words(self, pairs: int) -> UInt32[Array, "2 pairs"]:
        """Pairs of 32-bit words, each pair from one call under a key of its own.

        These keys depend on the stream's key alone: whoever runs many steps makes them once.
        """
        keys = self._derived(jnp.arange(pairs, dtype=jnp.uint32), _WORDS)
        first, second = threefry2x32(keys, (self.chain, self.step))
        if pairs >= _MANY_PAIRS:
            first, second = jax.lax.optimization_barrier((first, second))
        return jnp.stack([first, second])

    def uniform(self, count: int, dtype: Any = float) -> Float[Array, " count"]:
        """Uniform in the open interval (0, 1): 23 bits in float32, 52 in float64; one pair each.

        The points are :math:`(m + 1/2) 2^{-b}`: symmetric, and never rounded to 0 or 1.
        """
        first, second = self.words(count)
        dtype = jnp.dtype(jax.dtypes.canonicalize_dtype(dtype))
        bits = int(jnp.finfo(dtype).nmant)
        if dtype == jnp.float64:
            m = first.astype(dtype) * 2.0 ** (bits - 32) + (second >> (64 - bits)).astype(dtype)
        else:
            m = (first >> (32 - bits)).astype(dtype)
        return (m + 0.5) * 2.0**-bits

    def below(self, n: Any, count: int) -> Int[Array, " count"]:
        r"""Indices 0, ..., n - 1: the integer part of n u with u of 64 bits; one pair each.

        No modulo: the probabilities differ from 1/n by less than :math:`2^{-64}`. ``n`` is a
        number or one for each index, from 1 to :math:`2^{31} - 1`.
        """
        return self.below_and_rest(n, count)[0]

    def below_and_rest(
        self, n: Any, count: int
    ) -> tuple[Int[Array, " count"], UInt32[Array, " count"]]:
        r"""Indices as :meth:`below`, and the next 32 bits of n u: a uniform word for each."""
        first, second = self.words(count)
        size = jnp.asarray(n, jnp.uint32)
        # n (2^32 first + second) / 2^64: the low word of one product and the high word of the other
        # have the same weight, and their sum may overflow.
        low = first * size
        rest = low + _high_word(second, size)
        index = _high_word(first, size) + (rest < low).astype(jnp.uint32)
        return index.astype(jnp.int32), rest

    def normal(self, count: int, dtype: Any = float) -> Float[Array, " count"]:
        r"""Independent standard normal numbers, by Box and Muller's transform: one pair for two.

        :math:`\sqrt{-2 \log u} (\sin 2\pi v, \cos 2\pi v)` with u of 31 bits and v of 32: no number
        is beyond 6.66, which has the probability 3e-11. In half precision, rounded from float32.
        """
        dtype = jnp.dtype(jax.dtypes.canonicalize_dtype(dtype))
        exact = dtype if dtype == jnp.float64 else jnp.dtype(jnp.float32)
        first, second = self.words((count + 1) // 2)
        radius = jnp.sqrt(_minus_two_log(first, exact))
        sine, cosine = _sine_cosine(second, exact)
        both = jnp.stack([radius * sine, radius * cosine], axis=1).reshape(-1)
        return both[:count].astype(dtype)

    def _derived(self, number: Any, purpose: int) -> tuple[Array, Array]:
        counter = (jnp.asarray(number, jnp.uint32), jnp.uint32(purpose))
        return threefry2x32((self.key[0], self.key[1]), counter)


def _rotated(x: Array, distance: int) -> Array:
    return (x << distance) | (x >> (32 - distance))


def _high_word(x: Array, y: Array) -> Array:
    """The upper 32 bits of a product of two words, by halves: x64 may be off."""
    x_low, x_high, y_low, y_high = x & 0xFFFF, x >> 16, y & 0xFFFF, y >> 16
    middle = x_high * y_low + ((x_low * y_low) >> 16)
    other = x_low * y_high + (middle & 0xFFFF)
    return x_high * y_high + (middle >> 16) + (other >> 16)


def _minus_two_log(word: Array, dtype: Any) -> Array:
    r"""The number :math:`-2 \log u` for :math:`u = (\lfloor w/2 \rfloor + 1/2)\, 2^{-31}`.

    In float64 by a series, for XLA:CPU calls the C library there, one logarithm at a time.
    """
    odd = word | 1
    if dtype != jnp.float64:
        return -2 * jnp.log(odd.astype(dtype) * 2.0**-32)
    # u = m 2^-k with m in [1/sqrt 2, sqrt 2): no cancellation where u is close to 1.
    zeros = jax.lax.clz(odd)
    scaled = odd << zeros
    upper = scaled > int(2**31 * math.sqrt(2))
    m = scaled.astype(dtype) * jnp.where(upper, 2.0**-32, 2.0**-31)
    k = (zeros + (~upper).astype(jnp.uint32)).astype(dtype)
    # log m = 2 artanh s = 2 (s + s^3/3 + ...); s^2 < .0295, so ten terms leave 3e-17 of it.
    s = (m - 1) / (m + 1)
    series = _polynomial(s * s, [1 / (2 * j + 1) for j in range(10)])
    return 2 * math.log(2) * k - 4 * s * series


def _sine_cosine(word: Array, dtype: Any) -> tuple[Array, Array]:
    r"""Sine and cosine of the angle :math:`2 \pi w / 2^{32}`, by polynomials of half the angle.

    XLA:CPU calls the C library for each sine, one at a time: six times the price.
    """
    half = jax.lax.bitcast_convert_type(word, jnp.int32).astype(dtype) * (math.pi * 2.0**-32)
    square = half * half
    # Taylor's terms on [-pi/2, pi/2]; the first one left out is 2e-17 or 7e-9.
    terms = 11 if dtype == jnp.float64 else 7
    sine = half * _polynomial(square, [(-1) ** k / math.factorial(2 * k + 1) for k in range(terms)])
    cosine = _polynomial(square, [(-1) ** k / math.factorial(2 * k) for k in range(terms)])
    return 2 * sine * cosine, 1 - 2 * sine * sine


def _polynomial(x: Array, coefficients: list[float]) -> Array:
    """The polynomial with these coefficients, the constant one first."""
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
