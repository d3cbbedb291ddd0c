"""A statistical battery for the generator, and generators bad enough for it to reject."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom, chi2, kstest, norm, poisson

from thalweg.random import Stream

# Every test gives p-values, uniform in (0, 1) for a perfect generator. The smallest of K is below
# FALSE_ALARM / K for one key in ten thousand; those of a bad generator are zero.
FALSE_ALARM = 1e-4


# Generators: the words (2, ...) of keys (2, ...), chains and steps.


def ours(key, chain, step):
    many = jnp.broadcast_arrays(*key, chain, step)
    flat = [x.reshape(-1) for x in many]
    words = jax.vmap(lambda a, b, j, k: Stream(jnp.stack([a, b]), j, k).words(1)[:, 0])(*flat)
    return words.T.reshape(2, *many[0].shape)


def few_rounds(rounds, key, chain, step):
    """Threefry cut short."""
    schedule = (*key, key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    x, y = chain + schedule[0], step + schedule[1]
    for r in range(rounds):
        distance = (13, 15, 26, 6, 17, 29, 16, 24)[r % 8]
        x = x + y
        y = ((y << distance) | (y >> (32 - distance))) ^ x
        if r % 4 == 3:
            x = x + schedule[(r // 4 + 1) % 3]
            y = y + schedule[(r // 4 + 2) % 3] + jnp.uint32(r // 4 + 1)
    return jnp.stack(jnp.broadcast_arrays(x, y))


def congruential(key, chain, step):
    """A linear function modulo 2^32."""
    x = (step + key[0]) * 1664525 + chain * 1013904223 + key[1]
    return jnp.stack(jnp.broadcast_arrays(x, x * 22695477 + 1))


def hash_of_sum(key, chain, step):
    """A good hash of the sum of chain and step: each chain good, all of them the same numbers."""
    return few_rounds(20, key, jnp.zeros_like(chain), chain + step)


# p-values, of two sides: numbers that fit too well are not random, either.


def of_normal(z):
    return 2 * norm.sf(np.abs(z))


def of_counts(seen, expected):
    """Pearson's test of counts with the expectation ``expected`` each."""
    seen = np.ravel(seen)
    free = seen.size - 1
    statistic = np.square(seen - expected).sum() / expected
    return 2 * min(chi2.cdf(statistic, free), chi2.sf(statistic, free))


def of_bits(share, n):
    """Frequencies of bits in n places each: a sum of squares of normal numbers."""
    z = (np.ravel(share) - 0.5) * 2 * np.sqrt(n)
    statistic = np.square(z).sum()
    return 2 * min(chi2.cdf(statistic, z.size), chi2.sf(statistic, z.size))


def of_poisson(seen, expected):
    return min(1.0, 2 * min(poisson.cdf(seen, expected), poisson.sf(seen - 1, expected)))


# Tests of words of shape (2, chains, steps).


def bits_set(words):
    """Frequencies of ones in each of the 32 places."""
    return np.array([np.mean((words >> np.uint32(i)) & np.uint32(1)) for i in range(32)])


def uniformity(words):
    for word in words:
        yield of_bits(bits_set(word), word.size)
        for shift in (0, 8, 16, 24):
            seen = np.bincount(((word >> np.uint32(shift)) & np.uint32(255)).ravel(), minlength=256)
            yield of_counts(seen, word.size / 256)
        yield kstest(word.ravel()[: 2**20] / 2.0**32, "uniform").pvalue


def related(a, b):
    """Two equal arrays of words that ought to be independent."""
    yield of_bits(bits_set(a ^ b), a.size)
    # The product of two centred uniform numbers has the standard deviation 1/12.
    centred = [x.astype(np.float64) / 2**32 - 0.5 for x in (a, b)]
    yield of_normal(np.vdot(*centred) * 12 / np.sqrt(a.size))
    for shift in (26, 0):
        first, second = ((x >> np.uint32(shift)) & np.uint32(63) for x in (a, b))
        seen = np.bincount((first * np.uint32(64) + second).ravel(), minlength=4096)
        yield of_counts(seen, a.size / 4096)


def correlations(words):
    x, y = words
    yield from related(x, y)
    # From step to step, and words of one pair with those of the next.
    for lag in (1, 2, 64):
        yield from related(x[:, :-lag].copy(), x[:, lag:].copy())
    yield from related(y[:, :-1].copy(), x[:, 1:].copy())
    # From chain to chain; chain + step the same; chain and step swapped.
    for lag in (1, 2, 64):
        yield from related(x[:-lag], x[lag:])
    yield from related(x[1:, :-1].copy(), x[:-1, 1:].copy())
    above = np.triu_indices(len(x), 1)
    yield from related(x[above], x.T[above])


def birthday_spacings(words):
    """Equal spacings of 2^12 sorted numbers among 2^32: four each time (G. Marsaglia, 1985)."""
    for many in (words[0], words[0].T, words[1]):
        samples = many.reshape(-1, 4096)
        spacings = np.sort(np.diff(np.sort(samples, axis=1), axis=1), axis=1)
        equal = int((np.diff(spacings, axis=1) == 0).sum())
        yield of_poisson(equal, len(samples) * 4096**3 / 2.0**34)


def collisions(words):
    """Numbers that occur again among 2^22 in 2^32 places, and none among pairs of words."""
    for word in words:
        sample = word.ravel()[: 2**22]
        expected = sample.size**2 / 2.0**33
        # The variance is below the mean by their ratio to the sample's size, a thousandth.
        yield of_poisson(sample.size - np.unique(sample).size, expected)
    pairs = words[0].astype(np.uint64) << 32 | words[1]
    yield of_poisson(pairs.size - np.unique(pairs).size, pairs.size**2 / 2.0**65)


def avalanche(source, seed):
    """Each bit of key, chain and step turns each bit of the words half of the time."""
    samples = 2**12
    rng = np.random.default_rng(seed)
    # Small numbers, as keys, chains and steps are.
    before = rng.integers(0, 2**12, (4, samples, 1), dtype=np.uint32)
    flips = np.kron(np.eye(4, dtype=np.uint32), np.uint32(1) << np.arange(32, dtype=np.uint32))
    run = jax.jit(lambda a, b, j, k: source((a, b), j, k))
    changed = np.asarray(run(*(before ^ flips[:, None]))) ^ np.asarray(run(*before))
    turned = [np.mean((changed >> np.uint32(i)) & np.uint32(1), axis=1) for i in range(32)]
    yield of_bits(turned, samples)


def battery(source, size, keys):
    """All p-values, on a square of ``size`` chains and steps for every key."""
    grid = jax.jit(lambda a, b, j, k: source((a, b), j[:, None], k))
    numbers = jnp.arange(size, dtype=jnp.uint32)
    found = {}
    for seed in range(keys):
        words = np.asarray(grid(jnp.uint32(0), jnp.uint32(seed), numbers, numbers))
        for test in (uniformity, correlations, birthday_spacings, collisions):
            found.setdefault(test.__name__, []).extend(test(words))
        found.setdefault("avalanche", []).extend(avalanche(source, seed))
    return found


def rejecting(found):
    """The tests with a p-value too small for so many."""
    together = sum(map(len, found.values()))
    return {name for name, p in found.items() if min(p) < FALSE_ALARM / together}


BAD = {
    "threefry of 4 rounds": (
        partial(few_rounds, 4),
        {"uniformity", "correlations", "birthday_spacings", "avalanche"},
    ),
    "threefry of 8 rounds": (partial(few_rounds, 8), {"correlations", "avalanche"}),
    "congruential": (congruential, {"uniformity", "birthday_spacings", "avalanche"}),
    "hash of a sum": (hash_of_sum, {"correlations", "birthday_spacings", "collisions"}),
}


@pytest.mark.parametrize("name", BAD)
def test_the_battery_rejects(name):
    source, tests = BAD[name]
    assert rejecting(battery(source, 256, 1)) >= tests


def test_few_words_pass():
    assert not rejecting(battery(ours, 256, 1))


@pytest.mark.slow
def test_many_words_pass():
    # 2^24 pairs in all; the battery needs 9 rounds or fewer to notice a shorter threefry.
    assert not rejecting(battery(ours, 2048, 4))


# Normal numbers: a draw gives two, from (key, chain, step).

TAILS = 10.0 ** -np.arange(1, 8)
CHAINS = 2**14


def our_normals(key, chain, step, dtype):
    return Stream(key, chain, step).normal(2, dtype)


def of_four_bytes(key, chain, step, dtype):
    """Sums of four bytes each, of the same variance."""
    words = Stream(key, chain, step).words(1)[:, 0]
    total = sum(((words >> shift) & 255).astype(dtype) for shift in (0, 8, 16, 24))
    return (total - 510) / math.sqrt((2**16 - 1) / 3)


def of_short_words(key, chain, step, dtype):
    """The right transform of 16 bits: nothing beyond 4.9."""
    u, v = ((Stream(key, chain, step).words(1)[:, 0] >> 16).astype(dtype) + 0.5) * 2.0**-16
    radius, angle = jnp.sqrt(-2 * jnp.log(u)), 2 * jnp.pi * v
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


@partial(jax.jit, static_argnums=(0, 1))
def tally(draw, dtype, key, steps):
    """Counts beyond the quantiles on either side, and sums of powers and products."""
    chains, quantiles = jnp.arange(CHAINS, dtype=jnp.uint32), beyond(dtype)

    def count(condition):
        return jnp.sum(condition, dtype=jnp.int32)

    def body(k, totals):
        z = jax.vmap(lambda j: draw(key, j, k.astype(jnp.uint32), dtype))(chains)
        # Made once, then looked at many times.
        z = jax.lax.optimization_barrier(z.T)
        tails = jnp.stack([jnp.stack([count(z > q), count(z < -q)]) for q in quantiles])
        z = z.astype(jnp.float64)
        square = z * z
        powers = [z, square, square * z, square * square, z[0] * z[1], square[0] * square[1]]
        return totals[0] + tails.astype(jnp.int64), totals[1] + jnp.stack(
            [jnp.sum(power) for power in powers]
        )

    none = jnp.zeros((len(quantiles), 2), jnp.int64), jnp.zeros(6)
    return jax.lax.fori_loop(0, steps, body, none)


def beyond(dtype):
    """Two-sided quantiles, as numbers of this type."""
    return norm.isf(TAILS / 2).astype(dtype).tolist()


def normality(draw, dtype, steps):
    """p-values of the tails and the moments of 2^15 numbers a step."""
    tails, sums = map(np.asarray, tally(draw, dtype, Stream.of(jax.random.key(0)).key, steps))
    n = 2 * CHAINS * steps
    exact = np.repeat(norm.sf(beyond(dtype))[:, None], 2, axis=1)
    low, high = binom.cdf(tails, n, exact), binom.sf(tails - 1, n, exact)
    # The mean and the variance of z, z^2, z^3, z^4, and of products and products of squares.
    n, means, variances = np.array([n] * 4 + [n / 2] * 2), [0, 1, 0, 3, 0, 1], [1, 2, 15, 96, 1, 8]
    return {
        "tails": np.minimum(1, 2 * np.minimum(low, high)).ravel(),
        "moments": of_normal((sums / n - means) / np.sqrt(variances / n)),
    }


@pytest.mark.parametrize("draw", [of_four_bytes, of_short_words])
def test_bad_normal_numbers_are_noticed(draw):
    assert "tails" in rejecting(normality(draw, jnp.float32, 2**10))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_few_normal_numbers_pass(dtype):
    assert not rejecting(normality(our_normals, dtype, 2**10))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "steps"), [(jnp.float32, 2**17), (jnp.float64, 2**13)])
def test_many_normal_numbers_pass(dtype, steps):
    # In float32 four thousand million, of which 430 are beyond 5.33 (probability 1e-7).
    assert not rejecting(normality(our_normals, dtype, steps))


# Indices.


def one_word(key, chain, step, n):
    """The integer part of n u with u of 32 bits."""
    word = Stream(key, chain, step).words(1)[0, 0].astype(jnp.uint64)
    return (word * n >> 32).astype(jnp.int32)


def remainder(key, chain, step, n):
    return (Stream(key, chain, step).words(1)[0, 0] % n).astype(jnp.int32)


def our_indices(key, chain, step, n):
    return Stream(key, chain, step).below(n, 1)[0]


@partial(jax.jit, static_argnums=(0, 1))
def many_indices(draw, n, key, step):
    chains = jnp.arange(2**20, dtype=jnp.uint32)
    return jax.vmap(lambda j: draw(key, j, step, n))(chains)


def evenness(draw, steps):
    """p-values of 2^20 indices a step: all of few, and residues and parts of many."""
    large, key = 3 * 2**29, Stream.of(jax.random.key(1)).key
    seen = {"few": 0, "residues": 0, "parts": 0}
    for step in range(steps):
        few = np.asarray(many_indices(draw, 1000, key, jnp.uint32(step)))
        many = np.asarray(many_indices(draw, large, key, jnp.uint32(step)))
        seen["few"] += np.bincount(few, minlength=1000)
        seen["residues"] += np.bincount(many % 24, minlength=24)
        seen["parts"] += np.bincount(many >> 21, minlength=768)
    return {name: [of_counts(x, steps * 2**20 / x.size)] for name, x in seen.items()}


@pytest.mark.parametrize(("draw", "tests"), [(one_word, {"residues"}), (remainder, {"parts"})])
def test_uneven_indices_are_noticed(draw, tests):
    assert rejecting(evenness(draw, 1)) >= tests


def test_few_indices_pass():
    assert not rejecting(evenness(our_indices, 1))


@pytest.mark.slow
def test_many_indices_pass():
    assert not rejecting(evenness(our_indices, 2**8))
