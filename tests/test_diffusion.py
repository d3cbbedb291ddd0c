"""Ito equations: against plain loops, exact laws, fitted orders, and what must be refused.

Orders are measured without random numbers: one step of ``advance`` is evaluated at the nodes of
Gauss and Hermite, and expectations over many steps follow from it by linear algebra.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm

import thalweg as tw
from thalweg.errors import InputError
from thalweg.random import Stream

KEY = jax.random.key(0)
START = jnp.asarray([1.0, -0.5])
STABLE = np.array([[1.0, 0.3], [-0.2, 0.7]])
CORRELATED = np.array([[1.0, 0.6], [0.6, 2.0]])
COLUMN = np.array([[1.0], [0.5]])


def linear(x):
    return -jnp.asarray(STABLE, x.dtype) @ x


def bent(x):
    return -jnp.sin(x)


class Given(Stream):
    """Numbers of the test's own in the place of random ones."""

    numbers: jax.Array

    def normal(self, count, dtype=float):
        assert self.numbers.shape == (count,)
        return self.numbers.astype(dtype)


def stepped(diffusion, points, numbers, k=0):
    """Step k from each of the points with each row of numbers: (points, rows, ...)."""
    return _stepped(diffusion, points, np.asarray(numbers), jnp.asarray(k, jnp.int32))


@eqx.filter_jit
def _stepped(diffusion, points, numbers, k):
    word = jnp.zeros((), jnp.uint32)

    def one(x, z):
        stream = Given(jnp.zeros(2, jnp.uint32), word, word, z)
        return diffusion.advance(diffusion.init(x), stream, k).params

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(points, numbers)


def hermite(nodes, m=1):
    """Nodes, shape (rows, m), and weights for expectations over m standard normal numbers."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(*[z] * m, indexing="ij"), axis=-1).reshape(-1, m)
    weights = np.stack(np.meshgrid(*[w] * m, indexing="ij"), axis=-1).reshape(-1, m).prod(axis=1)
    return grid, weights / weights.sum()


# Against a plain loop.


def tilted(x):
    """A covariance that depends on the parameters and is full."""
    c = 1 + jnp.square(x[0])
    return jnp.asarray(CORRELATED, x.dtype) * c


def low(x):
    return jnp.stack([x[0], 0.5 * jnp.ones_like(x[0])])[:, None]


DT = 0.05
PATHS = {
    "number": (
        tw.Diffusion(bent, 0.3, DT),
        lambda x, dw: x - np.sin(x) * DT + np.sqrt(0.3) * dw,
    ),
    "diagonal": (
        tw.Diffusion(bent, [0.3, 2.0], DT),
        lambda x, dw: x - np.sin(x) * DT + np.sqrt([0.3, 2.0]) * dw,
    ),
    "matrix": (
        tw.Diffusion(bent, CORRELATED, DT),
        lambda x, dw: x - np.sin(x) * DT + np.linalg.cholesky(CORRELATED) @ dw,
    ),
    "function to a number": (
        tw.Diffusion(bent, lambda x: 1 + jnp.sum(jnp.square(x)), DT),
        lambda x, dw: x - np.sin(x) * DT + np.sqrt(1 + x @ x) * dw,
    ),
    "function to a diagonal": (
        tw.Diffusion(bent, lambda x: 1 + jnp.square(x[::-1]), DT),
        lambda x, dw: x - np.sin(x) * DT + np.sqrt(1 + x[::-1] ** 2) * dw,
    ),
    "function to a matrix": (
        tw.Diffusion(bent, tilted, DT),
        lambda x, dw: x - np.sin(x) * DT + np.linalg.cholesky(CORRELATED * (1 + x[0] ** 2)) @ dw,
    ),
    "factor": (
        tw.Diffusion.from_factor(bent, COLUMN, DT),
        lambda x, dw: x - np.sin(x) * DT + COLUMN @ dw,
    ),
    "function to a factor": (
        tw.Diffusion.from_factor(bent, low, DT),
        lambda x, dw: x - np.sin(x) * DT + np.array([x[0], 0.5]) * dw,
    ),
    "heun": (
        tw.Diffusion(bent, 0.3, DT, method="heun"),
        lambda x, dw: (
            x
            - (np.sin(x) + np.sin(x - np.sin(x) * DT + np.sqrt(0.3) * dw)) * DT / 2
            + np.sqrt(0.3) * dw
        ),
    ),
    "milstein, constant": (
        tw.Diffusion(bent, 0.3, DT, method="milstein"),
        lambda x, dw: x - np.sin(x) * DT + np.sqrt(0.3) * dw,
    ),
    "milstein, diagonal": (
        tw.Diffusion(bent, lambda x: 1 + jnp.square(x), DT, method="milstein"),
        # A quarter of the derivative of the variance, times dW^2 - dt.
        lambda x, dw: x - np.sin(x) * DT + np.sqrt(1 + x**2) * dw + x / 2 * (dw**2 - DT),
    ),
    "milstein, scalar": (
        tw.Diffusion.from_factor(bent, low, DT, method="milstein"),
        # The derivative of (x, 1/2) along itself is (x, 0).
        lambda x, dw: (
            x
            - np.sin(x) * DT
            + np.array([x[0], 0.5]) * dw
            + np.array([x[0], 0.0]) / 2 * (dw**2 - DT)
        ),
    ),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_equal_a_plain_loop(name):
    diffusion, step = PATHS[name]
    steps, chains = 20, 3
    run = tw.simulate(diffusion, START, steps=steps, key=KEY, chains=chains, record=tw.Record(1))
    count = 1 if "factor" in name or "scalar" in name else 2
    x = np.tile(START, (chains, 1))
    for k in range(steps):
        normals = [Stream.of(KEY, j, k).normal(count) for j in range(chains)]
        x = np.array([step(x[j], np.sqrt(DT) * np.asarray(normals[j])) for j in range(chains)])
        # Twenty steps of numbers of size one: some hundred roundings.
        np.testing.assert_allclose(run.records["params"][:, k + 1], x, rtol=1e-13, atol=1e-13)


def test_trees_and_numbers_are_as_good_as_vectors():
    def tree_drift(p):
        flat = linear(jnp.concatenate([p["a"][None], p["b"]]))
        return {"a": flat[0], "b": flat[1:]}

    numbers = np.random.default_rng(0).normal(size=(4, 2))
    whole = stepped(tw.Diffusion(linear, CORRELATED, DT), START[None], numbers)
    diffusion = tw.Diffusion(tree_drift, CORRELATED, DT)
    diffusion.check({"a": START[0], "b": START[1:]})
    tree = stepped(diffusion, {"a": START[:1], "b": START[None, 1:]}, numbers)
    np.testing.assert_array_equal(jnp.stack([tree["a"], tree["b"][..., 0]], axis=-1), whole)
    # A plain number, and functions that return Python numbers.
    point = tw.Diffusion(lambda x: -1.0, lambda x: 1.0, DT)
    point.check(0.5)
    np.testing.assert_allclose(
        stepped(point, jnp.asarray([0.5]), [[2.0]]), [[0.5 - DT + 2 * np.sqrt(DT)]], rtol=1e-15
    )


@pytest.mark.parametrize("method", ["euler-maruyama", "heun", "milstein"])
def test_the_type_is_that_of_the_parameters(method):
    for covariance in (0.5, CORRELATED, lambda x: 1 + jnp.square(x)):
        if callable(covariance) and method == "heun":
            continue
        diffusion = tw.Diffusion(linear, covariance, DT, method=method)
        diffusion.check(START.astype(jnp.float32))
        numbers = np.ones((1, 2))
        single = stepped(diffusion, START[None].astype(jnp.float32), numbers)
        assert single.dtype == jnp.float32
        # A few roundings of single precision.
        np.testing.assert_allclose(single, stepped(diffusion, START[None], numbers), rtol=2e-6)


# Laws of the chain itself.

PLANE = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
LAWS = {
    "number": (tw.Diffusion(linear, 0.5, 0.1), 0.5 * np.eye(2), STABLE),
    "matrix": (tw.Diffusion(linear, CORRELATED, 0.1), CORRELATED, STABLE),
    "function": (tw.Diffusion(linear, lambda x: CORRELATED, 0.1), CORRELATED, STABLE),
    "factor": (tw.Diffusion.from_factor(linear, COLUMN, 0.1), COLUMN @ COLUMN.T, STABLE),
    "plane": (
        tw.Diffusion(lambda x: -x, lambda x: PLANE @ PLANE.T, 0.1),
        PLANE @ PLANE.T,
        np.eye(3),
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_law_of_eulers_chain_for_linear_drift(name):
    """Gaussian with mean (I - A dt)^n x and P <- (I - A dt) P (I - A dt)^T + dt Sigma."""
    diffusion, covariance, matrix = LAWS[name]
    steps, chains, dt = 12, 20_000, 0.1
    start = jnp.asarray([1.0, -0.5, 0.3])[: len(matrix)]
    run = tw.simulate(diffusion, start, steps=steps, key=KEY, chains=chains)
    move = np.eye(len(matrix)) - dt * matrix
    mean, spread = np.asarray(start), np.zeros_like(matrix)
    for _ in range(steps):
        mean, spread = move @ mean, move @ spread @ move.T + dt * covariance
    # Four standard errors: sqrt(P_ii / N), and sqrt((P_ii P_jj + P_ij^2) / N) for a covariance of
    # Gaussian numbers.
    variances = np.diag(spread)
    mean_error = np.sqrt(variances / chains)
    spread_error = np.sqrt((np.outer(variances, variances) + spread**2) / chains)
    assert (np.abs(run.params.mean(axis=0) - mean) <= 4 * mean_error).all()
    assert (np.abs(np.cov(run.params.T) - spread) <= 4 * spread_error).all()


@pytest.mark.slow
def test_noise_of_low_rank_stays_on_its_line():
    """Multiplication by two is exact, and so is the line y = 2 x."""
    line = np.array([[1.0, 2.0], [2.0, 4.0]])
    given = [
        tw.Diffusion(bent_line, line, DT),
        tw.Diffusion(bent_line, lambda x: line * (1 + jnp.square(x[0])), DT),
        tw.Diffusion(bent_line, line, DT, method="heun"),
        tw.Diffusion(bent_line, lambda x: line * (1 + jnp.square(x[0])), DT, method="milstein"),
        tw.Diffusion.from_factor(bent_line, [[1.0], [2.0]], DT),
    ]
    for diffusion in given:
        run = tw.simulate(diffusion, jnp.asarray([0.5, 1.0]), steps=200, key=KEY, chains=5)
        x, y = np.asarray(run.params).T
        np.testing.assert_array_equal(y, 2 * x)
        assert np.std(x) > 0.1


def bent_line(x):
    return -jnp.sin(x[0]) * jnp.asarray([1.0, 2.0], x.dtype)


@pytest.mark.parametrize("d", [3, 6])
def test_noise_of_low_rank_stays_on_its_plane(d):
    columns = np.random.default_rng(d).normal(size=(d, 2))
    normal = np.linalg.svd(columns.T)[2][-1]
    diffusion = tw.Diffusion(lambda x: -x, lambda x: columns @ columns.T * (1 + x @ x), 0.01)
    run = tw.simulate(diffusion, jnp.zeros(d), steps=100, key=KEY, chains=20)
    # Up to four dimensions the columns of the factor are in the plane to rounding. The symmetric
    # root of six has eigenvectors with errors of a few roundings; the path's length is about ten.
    away = np.abs(run.params @ normal)
    assert away.max() <= 1e-13 * np.abs(run.params).max()
    assert np.abs(run.params).max() > 1


# Weak orders.


def back(x):
    return -x


def slope(errors):
    """The order that two errors show, of steps h and h / 2."""
    coarse, fine = errors
    return np.log2(abs(coarse) / abs(fine))


@pytest.mark.parametrize(("method", "order"), [("euler-maruyama", 1), ("heun", 2)])
def test_the_weak_order_on_the_second_moment_of_ornstein_and_uhlenbeck(method, order):
    """dX = -X dt + dW from 1: E X^2 = exp(-2 t) + (1 - exp(-2 t)) / 2; steps are affine in x, z."""
    z, w = hermite(5)
    errors = []
    for n in (64, 128):
        diffusion = tw.Diffusion(back, 1.0, 1 / n, method=method)
        squares = np.square(stepped(diffusion, np.array([0.0, 1.0]), z)) @ w
        added, factor = squares[0], squares[1] - squares[0]
        moment = 1.0
        for _ in range(n):
            moment = factor * moment + added
        errors.append(moment - (np.exp(-2) + (1 - np.exp(-2)) / 2))
    # The error is C h^p (1 + K h) with K of size one, and K h / log 4 is .01.
    assert abs(slope(errors) - order) < 0.02


def along(x):
    return jnp.cos(x) - jnp.sin(2 * x) / 2


def wave(x):
    return 1 + 0.5 * jnp.cos(x)


WEAK = {
    "euler, constant noise": (1.0, "euler-maruyama", 1),
    "heun, constant noise": (1.0, "heun", 2),
    "euler, any noise": (wave, "euler-maruyama", 1),
    "milstein, any noise": (wave, "milstein", 1),
}


@pytest.mark.parametrize("name", WEAK)
def test_the_weak_order_on_a_circle(name):
    """dX = (cos X - sin 2 X / 2) dt + v(X)^{1/2} dW; E cos X_1 from every point of the circle.

    Functions on the circle are their values at 48 points. The exact expectation solves u' = L u
    with the generator L = b d/dx + v/2 d^2/dx^2; the chain's is a power of u -> E u(step(x)), with
    u between the points by its Fourier series. Both converge faster than any power of the points.
    """
    covariance, method, order = WEAK[name]
    points = 48
    x = 2 * np.pi * np.arange(points) / points
    waves = np.arange(-points // 2 + 1, points // 2)
    series = np.exp(-1j * np.outer(waves, x)) / points
    v = np.broadcast_to(covariance(x) if callable(covariance) else covariance, x.shape)
    first, second = ((np.exp(1j * np.outer(x, waves)) * (1j * waves) ** p) @ series for p in (1, 2))
    generator = (np.asarray(along(x))[:, None] * first + v[:, None] / 2 * second).real
    exact = expm(generator) @ np.cos(x)
    z, w = hermite(60)
    errors = []
    for n in (32, 64):
        ends = np.asarray(stepped(tw.Diffusion(along, covariance, 1 / n, method=method), x, z))
        mean = np.einsum("q,xqm->xm", w, np.exp(1j * ends[:, :, None] * waves))
        kernel = (mean @ series).real
        errors.append(np.abs(np.linalg.matrix_power(kernel, n) @ np.cos(x) - exact).max())
    # The error is C h^p (1 + K h) with K of size five: K h / log 4 is .1.
    assert abs(slope(errors) - order) < 0.1


# Noise that varies in time.


def course(t):
    """From 1/2 to 1: Dai and Zhu's remark on Theorem 2.4 has T(t) = 1 / (2 (1 + 1 / (1 + t)))."""
    return (1 + t) / (2 + t)


COURSES = {
    "number": (
        tw.Diffusion(bent, 0.3, DT).scheduled(course),
        lambda x, dw, t: x - np.sin(x) * DT + np.sqrt(0.3 * course(t)) * dw,
    ),
    "function to a diagonal": (
        tw.Diffusion(bent, lambda x: 1 + jnp.square(x[::-1]), DT).scheduled(course),
        lambda x, dw, t: x - np.sin(x) * DT + np.sqrt((1 + x[::-1] ** 2) * course(t)) * dw,
    ),
    "matrix, twice": (
        tw.Diffusion(bent, CORRELATED, DT).scheduled(course).scheduled(lambda t: 2.0),
        lambda x, dw, t: (
            x - np.sin(x) * DT + np.sqrt(2 * course(t)) * (np.linalg.cholesky(CORRELATED) @ dw)
        ),
    ),
    "factor": (
        tw.Diffusion.from_factor(bent, low, DT).scheduled(course),
        lambda x, dw, t: x - np.sin(x) * DT + np.sqrt(course(t)) * np.array([x[0], 0.5]) * dw,
    ),
    "milstein": (
        tw.Diffusion(bent, lambda x: 1 + jnp.square(x), DT, method="milstein").scheduled(course),
        lambda x, dw, t: (
            x
            - np.sin(x) * DT
            + np.sqrt((1 + x**2) * course(t)) * dw
            + course(t) * x / 2 * (dw**2 - DT)
        ),
    ),
    "heun": (
        tw.Diffusion(bent, 0.3, DT, method="heun").scheduled(course),
        lambda x, dw, t: (
            x - (np.sin(x) + np.sin(x - np.sin(x) * DT + middle(t) * dw)) * DT / 2 + middle(t) * dw
        ),
    ),
}


def middle(t):
    return np.sqrt(0.3 * course(t + DT / 2))


@pytest.mark.parametrize("name", COURSES)
def test_paths_with_noise_that_varies_equal_a_plain_loop(name):
    diffusion, step = COURSES[name]
    run = tw.simulate(diffusion, START, steps=7, key=KEY)
    run = tw.simulate(diffusion, run, steps=20)
    count = 1 if name == "factor" else 2
    x = START
    for k in range(20):
        x = step(x, np.sqrt(DT) * np.asarray(Stream.of(KEY, 0, k).normal(count)), k * DT)
    # As for constant noise.
    np.testing.assert_allclose(run.params[0], x, rtol=1e-13, atol=1e-13)


def test_the_noise_of_a_time():
    varied = tw.Diffusion(bent, CORRELATED, DT).scheduled(course)
    assert varied.varies
    frozen = varied.at(3.0)
    assert not frozen.varies
    assert frozen.at(1.0) is frozen
    np.testing.assert_allclose(frozen.covariance(START), 0.8 * CORRELATED, rtol=1e-15)
    np.testing.assert_allclose(varied.covariance(START), 0.5 * CORRELATED, rtol=1e-15)
    # The root goes along: a step of the frozen equation is that of an equation made for it.
    same = tw.Diffusion(bent, 0.8 * CORRELATED, DT)
    ends = (stepped(d, np.array([START]), [[1.0, -2.0]]) for d in (frozen, same))
    np.testing.assert_allclose(*ends, rtol=1e-14)


def exact_variance(t):
    """Of dX = -X dt + s(t)^{1/2} dW from 0: v' = -2 v + s(t), by quadrature."""
    return quad(lambda u: np.exp(-2 * (t - u)) * course(u), 0, t, epsabs=1e-13)[0]


@pytest.mark.parametrize(("method", "order"), [("euler-maruyama", 1), ("heun", 2)])
def test_the_weak_order_with_noise_that_varies(method, order):
    """Steps are affine in x and z, so variances follow from steps from 0 and 1 with z = 0, 1."""
    errors = []
    for n in (64, 128):
        h, diffusion = 1 / n, tw.Diffusion(back, 1.0, 1 / n, method=method).scheduled(course)
        variance = plain = 0.0
        for k in range(n):
            ends = np.asarray(stepped(diffusion, np.array([0.0, 1.0]), [[0.0], [1.0]], k))
            variance = ends[1, 0] ** 2 * variance + ends[0, 1] ** 2
            plain = (1 - h) ** 2 * plain + h * course(k * h)
        errors.append(variance - exact_variance(1.0))
        if order == 1:
            # Three roundings a step, damped.
            np.testing.assert_allclose(variance, plain, rtol=n * 1e-15)
    # As with constant noise.
    assert abs(slope(errors) - order) < 0.02


def test_the_variance_with_noise_that_varies_is_that_of_its_equation():
    diffusion = tw.Diffusion(back, 1.0, 0.02, method="heun").scheduled(course)
    run = tw.simulate(diffusion, jnp.zeros(1), steps=100, key=KEY, chains=20_000)
    assert run.stats["route"] == "lanes"
    exact = exact_variance(2.0)
    # Four standard errors, v (2 / N)^{1/2}: .04 v; Heun's own error is h^2/6 = 1e-4 of v. Without a
    # course, v would be 1/2 (1 - exp(-4)) times 1 or 1/2: .49 or .25 against .34.
    error = exact * np.sqrt(2 / 20_000)
    assert abs(np.var(run.params) - exact) < 4 * error


def test_chains_whose_schedule_becomes_negative_have_diverged():
    diffusion = tw.Diffusion(linear, 1.0, 0.1).scheduled(lambda t: 0.25 - t)
    run = tw.simulate(diffusion, START, steps=9, key=KEY, chains=2)
    # Steps begin at t = 0, .1, .2 and .3, where it is -.05.
    assert run.diverged_step.tolist() == [4, 4]
    with pytest.raises(InputError, match=r"-0.05 at the time 0.3"):
        diffusion.at(0.3)


# Strong orders.

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
ONE, OTHER = 0.5 * np.eye(2) + 0.4 * TURN, 0.3 * np.eye(2) - 0.6 * TURN
FALL = -0.8 * np.eye(2) + 0.5 * TURN
RATES = np.array([0.6, 0.9])


def geometric(step, method):
    return tw.Diffusion(lambda x: -0.5 * x, lambda x: jnp.square(0.8 * x), step, method=method)


def diagonal(step, method):
    return tw.Diffusion(lambda x: -0.5 * x, lambda x: jnp.square(RATES * x), step, method=method)


def with_columns(*matrices):
    """The noise of columns B_1 x, B_2 x, ..."""

    def make(step, method):
        def factor(x):
            return jnp.stack([jnp.asarray(b) @ x for b in matrices], axis=1)

        return tw.Diffusion.from_factor(lambda x: FALL @ x, factor, step, method=method)

    return make


# Of dX = A X dt + sum_j B_j X dW_j: A and the B_j.
LINEAR = {
    "geometric": (geometric, [[-0.5]], [[[0.8]]]),
    "diagonal": (
        diagonal,
        -0.5 * np.eye(2),
        [np.diag([RATES[0], 0]), np.diag([0, RATES[1]])],
    ),
    "scalar": (with_columns(ONE), FALL, [ONE]),
    "commutative": (with_columns(ONE, OTHER), FALL, [ONE, OTHER]),
}


def mean_square_error(diffusion, drift, columns, n):
    """The root of E |X - Y|^2 after n steps to t = 1, from (1, ..., 1).

    A and the B_j commute, so X is multiplied by exp((A - sum_j B_j^2 / 2) h + sum_j B_j dW_j) in a
    step, and the scheme's Y by the matrix of the steps from the unit vectors. Expected products of
    the two over a step are Kronecker products at the nodes.
    """
    drift, columns = np.asarray(drift), np.asarray(columns)
    d = len(drift)
    z, w = hermite(16, len(columns))
    moved = (drift - (columns @ columns).sum(axis=0) / 2) / n
    exact = expm(moved + np.einsum("qj,jkl->qkl", z / np.sqrt(n), columns))
    scheme = np.asarray(stepped(diffusion, np.eye(d), z)).transpose(1, 2, 0)

    def product(a, b):
        pair = np.einsum("q,qik,qjl->ijkl", w, a, b).reshape(d * d, d * d)
        return np.trace((np.linalg.matrix_power(pair, n) @ np.ones(d * d)).reshape(d, d))

    return np.sqrt(product(exact, exact) - 2 * product(exact, scheme) + product(scheme, scheme))


@pytest.mark.parametrize(("method", "order"), [("euler-maruyama", 0.5), ("milstein", 1)])
@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.slow
def test_the_strong_order(name, method, order):
    make, drift, columns = LINEAR[name]
    diffusion = make(1 / 64, method)
    diffusion.check(jnp.ones(len(drift)))
    halved = eqx.tree_at(lambda tree: tree.step, diffusion, diffusion.step / 2)
    errors = [mean_square_error(x, drift, columns, n) for x, n in ((diffusion, 64), (halved, 128))]
    # The square of the error is C h^{2p} (1 + K h) with K of size five, which moves the slope by
    # K h / (2 log 4) = .03. Rounding is 1e-16 x 128 against squares above 1e-6.
    assert abs(slope(errors) - order) < 0.05


@pytest.mark.parametrize("method", ["euler-maruyama", "heun"])
def test_the_strong_order_with_constant_noise_is_one(method):
    """dX = -X dt + dW: the exact step is exp(-h) X + I, with E I dW = 1 - exp(-h)."""
    errors = []
    for n in (64, 128):
        h, q = 1 / n, np.exp(-1 / n)
        diffusion = tw.Diffusion(back, 1.0, h, method=method)
        steps = np.asarray(stepped(diffusion, np.array([0.0, 1.0]), [[0.0], [1.0]]))
        a, b = steps[1, 0], steps[0, 1] / np.sqrt(h)
        xx = xy = yy = 1.0
        for _ in range(n):
            xx = q * q * xx + (1 - q * q) / 2
            xy, yy = q * a * xy + (1 - q) * b, a * a * yy + b * b * h
        errors.append(np.sqrt(xx - 2 * xy + yy))
    # As above.
    assert abs(slope(errors) - 1) < 0.05


def test_milstein_takes_a_diagonal_as_a_matrix_or_as_a_factor():
    def variances(x):
        return jnp.square(RATES * x)

    points, numbers = (
        np.array([[1.0, 2.0], [0.3, 0.1]]),
        np.random.default_rng(0).normal(size=(9, 2)),
    )
    forms = [
        tw.Diffusion(linear, variances, DT, method="milstein"),
        tw.Diffusion(linear, lambda x: jnp.diag(variances(x)), DT, method="milstein"),
        tw.Diffusion.from_factor(linear, lambda x: jnp.diag(RATES * x), DT, method="milstein"),
    ]
    first, *others = (np.asarray(stepped(form, points, numbers)) for form in forms)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-13)


def test_milstein_where_the_noise_vanishes():
    """v = x^2 at 0: its root has no derivative there, the scheme needs none."""
    for form in (jnp.square, lambda x: jnp.square(x)[:, None]):
        diffusion = tw.Diffusion(lambda x: 1 - x, form, DT, method="milstein")
        diffusion.check(jnp.zeros(1))
        assert np.asarray(stepped(diffusion, np.zeros((1, 1)), [[2.0]])).tolist() == [[[DT]]]


# What the equation knows of itself.


def test_the_covariance_per_unit_of_time():
    x = jnp.asarray([0.5, 2.0])
    values = {
        "number": (tw.Diffusion(linear, 3, DT), 3 * np.eye(2)),
        "diagonal": (tw.Diffusion(linear, lambda x: jnp.square(x), DT), np.diag([0.25, 4.0])),
        "matrix": (tw.Diffusion(linear, CORRELATED, DT), CORRELATED),
        "factor": (tw.Diffusion.from_factor(linear, low, DT), [[0.25, 0.25], [0.25, 0.25]]),
    }
    for diffusion, expected in values.values():
        np.testing.assert_allclose(diffusion.covariance(x), expected, rtol=1e-15)


def test_derivatives_with_respect_to_noise_and_step():
    """Of E x^2 after one step: 1 - 2 h + h^2 + c h, for dX = -X dt + sqrt(c) dW from 1."""
    z, w = hermite(5)

    def second(c, h):
        diffusion = tw.Diffusion(lambda x: -x, c, h)
        return jnp.square(stepped(diffusion, np.ones(1), z)[0]) @ jnp.asarray(w)

    by_noise, by_step = jax.grad(second, argnums=(0, 1))(0.7, 0.1)
    np.testing.assert_allclose([by_noise, by_step], [0.1, -2 + 2 * 0.1 + 0.7], rtol=1e-13)


def tiny(x):
    return 1e-12 * x[0]


FALLING = {
    "number": tw.Diffusion(lambda x: -jnp.ones(2), tiny, 0.1),
    "diagonal": tw.Diffusion(lambda x: -jnp.ones(2), lambda x: jnp.full(2, tiny(x)), 0.1),
    "matrix": tw.Diffusion(lambda x: -jnp.ones(2), lambda x: tiny(x) * jnp.eye(2), 0.1),
    "one of two": tw.Diffusion(
        lambda x: -jnp.ones(2), lambda x: jnp.diag(jnp.asarray([1e-12, tiny(x)])), 0.1
    ),
    "milstein": tw.Diffusion(
        lambda x: -jnp.ones(1), lambda x: tiny(x)[None], 0.1, method="milstein"
    ),
}


@pytest.mark.parametrize("name", FALLING)
def test_a_chain_whose_covariance_becomes_negative_has_diverged(name):
    start = 0.95 * jnp.ones(1 if name == "milstein" else 2)
    run = tw.simulate(FALLING[name], start, steps=20, key=KEY, chains=3)
    # At -0.05 after ten steps, with noise of 1e-6; the eleventh has no root.
    assert run.diverged_step.tolist() == [11] * 3
    np.testing.assert_allclose(run.params, -0.05, atol=1e-5)


# Bad input.


def off_axis(x):
    """Columns (1, 0) and (0, x_0), which do not commute."""
    return jnp.stack([jnp.stack([jnp.ones_like(x[0]), 0 * x[0]]), jnp.stack([0 * x[0], x[0]])])


AT_ONCE = {
    "drift is no function": (lambda: tw.Diffusion(1.0, 1.0, DT), "function of params"),
    "step zero": (lambda: tw.Diffusion(linear, 1.0, 0.0), "positive and finite"),
    "step not a number": (lambda: tw.Diffusion(linear, 1.0, float("nan")), "positive and finite"),
    "a schedule": (lambda: tw.Diffusion(linear, 1.0, lambda k: 0.1), "positive number"),
    "method": (lambda: tw.Diffusion(linear, 1.0, DT, method="milstien"), "did you mean 'milstein'"),
    "negative": (lambda: tw.Diffusion(linear, -1.0, DT), "eigenvalue -1"),
    "negative entry": (lambda: tw.Diffusion(linear, [1.0, -2.0], DT), "eigenvalue -2"),
    "indefinite": (lambda: tw.Diffusion(linear, [[1, 2], [2, 1]], DT), "eigenvalue -1"),
    "not symmetric": (lambda: tw.Diffusion(linear, [[1, 0.2], [0.3, 1]], DT), "not symmetric"),
    "not finite": (lambda: tw.Diffusion(linear, np.inf, DT), "not finite"),
    "text": (lambda: tw.Diffusion(linear, "much", DT), "real numbers"),
    "complex": (lambda: tw.Diffusion(linear, 1j, DT), "real numbers"),
    "not square": (lambda: tw.Diffusion(linear, np.ones((2, 1)), DT), "from_factor"),
    "heun": (lambda: tw.Diffusion(linear, wave, DT, method="heun"), "constant noise only"),
    "heun, factor": (
        lambda: tw.Diffusion.from_factor(linear, low, DT, method="heun"),
        "constant noise only",
    ),
    "a number as the schedule": (
        lambda: tw.Diffusion(linear, 1.0, DT).scheduled(0.5),
        "function of time, got 0.5",
    ),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_is_refused_at_once(name):
    make, message = AT_ONCE[name]
    with pytest.raises(InputError, match=message):
        make()


def skew(x):
    return jnp.asarray([[1.0, 0.3], [0.1, 1.0]], x.dtype)


AT_THE_START = {
    "drift's shape": (tw.Diffusion(lambda x: x[0], 1.0, DT), r"got float64\[\]"),
    "drift fails": (tw.Diffusion(lambda x: x["a"], 1.0, DT), "cannot be evaluated"),
    "drift not finite": (tw.Diffusion(lambda x: jnp.log(x), 1.0, DT), "drift at the start"),
    "wrong diagonal": (tw.Diffusion(linear, [1.0, 2.0, 3.0], DT), r"got \(3,\)"),
    "wrong matrix": (tw.Diffusion(linear, np.eye(3), DT), r"got \(3, 3\)"),
    "column": (tw.Diffusion(linear, lambda x: x[:, None], DT), "from_factor"),
    "noise fails": (tw.Diffusion(linear, lambda x: x["a"], DT), "cannot be evaluated"),
    "wrong factor": (tw.Diffusion.from_factor(linear, np.ones((3, 1)), DT), r"\(2, m\)"),
    "flat factor": (tw.Diffusion.from_factor(linear, lambda x: x, DT), r"\(2, m\)"),
    "negative": (tw.Diffusion(linear, lambda x: x, DT), "noise at the start"),
    "indefinite": (
        tw.Diffusion(linear, lambda x: jnp.asarray([[1.0, 2.0], [2.0, 1.0]]), DT),
        "noise at the start",
    ),
    "not symmetric": (tw.Diffusion(linear, skew, DT), "not symmetric"),
    "isotropic": (
        tw.Diffusion(linear, lambda x: 1 + x @ x, DT, method="milstein"),
        "commutative",
    ),
    "crossed": (
        tw.Diffusion(linear, lambda x: 1 + jnp.square(x[::-1]), DT, method="milstein"),
        "commutative",
    ),
    "columns": (
        tw.Diffusion.from_factor(linear, off_axis, DT, method="milstein"),
        "commutative",
    ),
    "schedule negative": (
        tw.Diffusion(linear, 1.0, DT).scheduled(lambda t: t - 1),
        "schedule is -1 at the time 0",
    ),
    "schedule's shape": (
        tw.Diffusion(linear, 1.0, DT).scheduled(lambda t: jnp.ones(2)),
        r"one real number, got float64\[2\]",
    ),
    "schedule fails": (
        tw.Diffusion(linear, 1.0, DT).scheduled(lambda t: t[0]),
        "schedule cannot be evaluated",
    ),
    "under a schedule": (
        tw.Diffusion(linear, np.eye(3), DT).scheduled(course),
        r"got \(3, 3\)",
    ),
}


@pytest.mark.parametrize("name", AT_THE_START)
def test_what_is_refused_at_the_start(name):
    diffusion, message = AT_THE_START[name]
    with pytest.raises(InputError, match=message):
        tw.simulate(diffusion, START, steps=1, key=KEY)


def test_more_that_is_refused_at_the_start():
    with pytest.raises(InputError, match="one floating-point type"):
        tw.Diffusion(linear, 1.0, DT).check(jnp.arange(2))
    big = tw.Diffusion(lambda x: -x, lambda x: jnp.eye(5), DT, method="milstein")
    with pytest.raises(InputError, match="up to 4 parameters and there are 5"):
        big.check(jnp.ones(5))


def test_a_domain_that_ends_near_the_start_is_no_fault():
    diffusion = tw.Diffusion(lambda x: 1 - x, lambda x: x, 1e-3, method="milstein")
    run = tw.simulate(diffusion, jnp.asarray([0.01, 1.0]), steps=10, key=KEY, chains=3)
    assert run.params.shape == (3, 2)
