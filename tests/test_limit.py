"""The diffusion limit of SGD and its second order: exact moments, exact kernels, no random numbers.

Random numbers are in one test only, which looks at one step of the two processes.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.linalg import expm

import enumeration
import thalweg as tw
from helpers import bowl_gradients, bowls
from thalweg.errors import InputError
from thalweg.landscapes import mueller_brown, toy_pair
from thalweg.limit import corrected_potential, modified_equation

KEY = jax.random.key(8)
STEP = 0.1
LABELS = ["b", "a", "b", "c", "a"]
GROUPS = np.array([1, 0, 1, 2, 0])
A = np.array([0.1, 0.3, 0.2, 0.25, 0.15])
F = np.array([0.2, 0.7, 0.1])


def population(a, g):
    return enumeration.one_sample(a, np.ones_like(a), g)


# A sampler, whether its problem has equal weights, and the law of its draws.
ROWS = {
    "one": (tw.Minibatch(1), False, population),
    "two of five": (tw.Minibatch(2), True, lambda a, g: enumeration.subsets(g, 2)),
    "two with replacement": (
        tw.Minibatch(2, replace=True),
        False,
        lambda a, g: enumeration.mean_of(population(a, g), 2),
    ),
    "proportions": (
        tw.Resampled(1, proportions=F),
        False,
        lambda a, g: enumeration.fixed_groups(a, g, GROUPS, F),
    ),
    "by sample": (tw.Reweighted(1), False, enumeration.by_sample),
    "by sample, mixed": (
        tw.Reweighted(2, uniform=0.3),
        False,
        lambda a, g: enumeration.mean_of(enumeration.by_sample(a, g, 0.3), 2),
    ),
    "by group": (
        tw.Reweighted(1, by="group"),
        False,
        lambda a, g: enumeration.by_group(a, g, GROUPS),
    ),
}


def limit_of(name, d):
    """The limit, a point, and the gradient's mean and covariance there by enumeration."""
    sampler, equal, law = ROWS[name]
    problem = bowls(5, d, weights=None if equal else A, groups=LABELS)
    theta = jnp.asarray(np.linspace(-0.7, 0.4, d))
    mean, covariance = enumeration.moments(
        law(np.asarray(problem.weights), bowl_gradients(problem, theta))
    )
    return tw.diffusion_limit(tw.Descent(problem, sampler, STEP)), theta, mean, covariance


@eqx.filter_jit
def seen(diffusion, params, smooth=False):
    """Drift, covariance, and what multiplies the normal numbers of a step, as a matrix."""
    theta, unravel = ravel_pytree(params)
    noise = diffusion.noise.on(theta, unravel, smooth)
    root = jax.vmap(lambda dw: noise.times(theta, dw), out_axes=1)(jnp.eye(noise.count))
    return ravel_pytree(diffusion.drift(params))[0], diffusion.covariance(params), root


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("name", ROWS)
def test_drift_and_covariance_are_those_of_the_draws(name, d):
    limit, theta, mean, covariance = limit_of(name, d)
    drift, found, root = seen(limit, theta)
    np.testing.assert_allclose(drift, -mean, rtol=1e-13, atol=1e-14)
    # Five products and a sum; in the root of a matrix they are under a square root of pivots.
    close = {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(found, STEP * covariance, **close)
    # A matrix of up to four parameters; else a number for each sample, and one.
    assert root.shape == (d, 6 if d == 7 else d)
    np.testing.assert_allclose(root @ root.T, STEP * covariance, **close)


@pytest.mark.parametrize(("name", "d"), [("two of five", 2), ("by sample", 5)])
@pytest.mark.slow
def test_a_step_of_the_limit_has_the_moments_of_a_step_of_sgd(name, d):
    limit, theta, mean, covariance = limit_of(name, d)
    descent = tw.Descent(limit.drift.problem, ROWS[name][0], STEP)
    chains = 20_000
    for dynamics in (limit, descent):
        ends = tw.simulate(dynamics, theta, steps=1, key=KEY, chains=chains).params
        moved = np.asarray(ends - theta + STEP * mean)
        products = moved[:, :, None] * moved[:, None, :]
        # Four standard errors from the sample itself.
        error = 4 / np.sqrt(chains)
        assert (np.abs(moved.mean(axis=0)) < error * moved.std(axis=0)).all()
        off = np.abs(products.mean(axis=0) - STEP**2 * covariance)
        assert (off < error * products.std(axis=0)).all()


# Covariances that are small against the mean.


def test_gradients_that_nearly_agree():
    """Gradients 1 - k_i 2^-20, exact; their variance is 2^-40 that of k."""
    k = np.array([0.0, 3.0, -1.0, 2.0, 5.0])
    problem = tw.FiniteSum(lambda x, c: 0.5 * jnp.square(x[0] - c), k * 2.0**-20, weights=A)
    exact = 2.0**-40 * (A @ k**2 - (A @ k) ** 2)
    g = 1 - k * 2.0**-20
    limit = tw.diffusion_limit(tw.Descent(problem, tw.Minibatch(1), 1.0))
    found = float(limit.covariance(jnp.ones(1))[0, 0])
    # The mean is off by a rounding unit, which enters squared, 1e-32 to 1e-12; the weights by one.
    assert abs(found / exact - 1) < 1e-14
    # The difference of the moments has lost ten digits.
    assert abs((A @ g**2 - (A @ g) ** 2) / exact - 1) > 1e-7


def test_reweighted_gradients_of_one_sign_have_no_noise():
    """All draws are then the mean: near an interpolating minimum on a line SGD becomes descent."""
    h = np.array([0.5, 1.0, 3.0])
    problem = tw.FiniteSum(lambda x, h: 0.5 * h * jnp.square(x[0]), h)
    limit = tw.diffusion_limit(tw.Descent(problem, tw.Reweighted(1), STEP))
    points = jnp.logspace(-12, 0, 200)[:, None]
    sizes = jax.jit(jax.vmap(limit.covariance))(points)[:, 0, 0]
    # Of rounding, squared.
    assert (sizes >= 0).all()
    assert (sizes <= STEP * (4e-16 * 1.5 * points[:, 0]) ** 2).all()
    # The difference of the moments: sum_i a_i S s_i - (sum_i a_i g_i)^2, negative at some points.
    g = h * np.asarray(points)
    naive = (g * g.mean(axis=1, keepdims=True)).mean(axis=1) - np.square(g @ np.ones(3) / 3)
    assert naive.min() < 0
    run = tw.simulate(limit, jnp.ones(1), steps=300, key=KEY, chains=4)
    assert not run.diverged.any()
    # Relative roundings of 300 steps.
    np.testing.assert_allclose(run.params, (1 - 1.5 * STEP) ** 300, rtol=1e-13)


def test_the_whole_gradient_has_no_noise():
    problem, theta = bowls(5, 3), jnp.asarray([0.4, -0.7, 1.0])
    for sampler in (tw.Full(), tw.Minibatch(5)):
        limit = tw.diffusion_limit(tw.Descent(problem, sampler, STEP))
        assert not limit.covariance(theta).any()
    run = tw.simulate(limit, theta, steps=20, key=KEY)
    x = np.asarray(theta)
    for _ in range(20):
        x = x - STEP * bowl_gradients(problem, x).mean(axis=0)
    np.testing.assert_allclose(run.params[0], x, rtol=1e-14)
    # With the correction it is the gradient flow of f + eta/4 |grad f|^2 (Li, Tai and E), and any
    # method will do.
    second = tw.diffusion_limit(tw.Descent(problem, tw.Full(), STEP), order=2)
    tw.Diffusion(second.drift, second.noise, STEP, method="heun").check(theta)

    def corrected(x):
        return problem.value(x) + STEP / 4 * jnp.sum(jnp.square(problem.gradient(x)))

    drift = jax.jit(jax.grad(corrected))(theta)
    np.testing.assert_allclose(seen(second, theta)[0], -drift, rtol=1e-13)


# In use.


def test_limits_of_few_terms_take_lanes():
    for sampler, landscape, start in (
        (tw.Minibatch(1), mueller_brown, [-0.5, 1.4]),
        (tw.Reweighted(1), mueller_brown, [-0.5, 1.4]),
        (tw.Reweighted(1), toy_pair, [1.0]),
    ):
        limit = tw.diffusion_limit(tw.Descent(landscape().problem, sampler, 1e-3))
        run = tw.simulate(limit, jnp.asarray(start), steps=0, key=KEY)
        assert run.stats["route"] == "lanes"


def test_many_parameters_need_no_matrix():
    problem = bowls(3, 5000)
    limit = tw.diffusion_limit(tw.Descent(problem, tw.Minibatch(1), STEP))
    start = jnp.zeros(5000)
    with pytest.raises(InputError, match="dense 5000 x 5000 matrix"):
        limit.covariance(start)
    run = tw.simulate(limit, start, steps=1, key=KEY, chains=6)
    # What is left of the drift lies in the plane of the three gradients around their mean.
    moved = np.asarray(run.params - start - STEP * limit.drift(start))
    deviations = np.asarray(problem.gradients(start) + limit.drift(start))
    left = moved.T - deviations.T @ np.linalg.lstsq(deviations.T, moved.T, rcond=1e-10)[0]
    assert np.abs(left).max() < 1e-13
    assert np.std(moved) > 0.01


def test_trees_of_parameters():
    flat = bowls(4, 3)
    tree = tw.FiniteSum(
        lambda p, s: flat.loss(jnp.concatenate([p["a"], p["b"][None]]), s), flat.data
    )
    limits = [tw.diffusion_limit(tw.Descent(x, tw.Minibatch(1), STEP)) for x in (flat, tree)]
    theta = jnp.asarray([0.4, -0.7, 1.0])
    split = {"a": theta[:2], "b": theta[2]}
    for one, other in zip(seen(limits[1], split), seen(limits[0], theta), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
    limits[1].check(split)


def test_derivatives_with_respect_to_the_step():
    limit, theta, _, covariance = limit_of("one", 2)
    descent = tw.Descent(limit.drift.problem, tw.Minibatch(1), STEP)
    slope = -jax.jacfwd(limit.drift.problem.gradient)(theta)

    @jax.jit
    @jax.jacfwd
    def slopes(step):
        changed = eqx.tree_at(lambda d: d.step, descent, step)
        limits = [tw.diffusion_limit(changed, order=order) for order in (1, 2)]
        return [x.covariance(theta) for x in limits], limits[0].step

    (first, second), own = slopes(descent.step)
    assert own == 1
    np.testing.assert_allclose(first, covariance, rtol=1e-12)
    # Of eta J C J' with J = 1 - eta/2 Db.
    J = np.eye(2) - STEP / 2 * slope
    turned = STEP / 2 * (slope @ covariance @ J.T + J @ covariance @ slope.T)
    np.testing.assert_allclose(second, J @ covariance @ J.T - turned, rtol=1e-12)


def test_a_limit_may_be_scheduled():
    """A batch that grows, or steps that fall: the covariance is eta(t) C."""
    limit, theta, _, covariance = limit_of("one", 2)
    varied = limit.scheduled(lambda t: 1 / (1 + t))
    _, matrix, root = seen(varied.at(3.0), theta)
    for found in (matrix, root @ root.T):
        np.testing.assert_allclose(found, STEP / 4 * covariance, rtol=1e-12)


# The second order.


def wavy(x, sample):
    """A loss with third derivatives that do not vanish, and mixed ones."""
    moved = sample["curvature"] * (x - sample["centre"])
    return jnp.sum(jnp.log(jnp.cosh(moved))) + jnp.sin(jnp.sum(x * sample["centre"]))


@pytest.mark.parametrize(("n", "d"), [(6, 3), (3, 5), (4, 1)])
def test_the_modified_equation_is_its_formula(n, d):
    problem = tw.FiniteSum(wavy, bowls(n, d).data)
    theta = jnp.asarray(np.linspace(-0.5, 0.8, d))
    second = tw.diffusion_limit(tw.Descent(problem, tw.Minibatch(1), STEP), order=2)

    @jax.jit
    def formula(theta):
        def b(x):
            return -problem.gradient(x)

        slope, bend = jax.jacfwd(b)(theta), jax.jacfwd(jax.jacfwd(b))(theta)
        covariance = STEP * tw.Minibatch(1).covariance(problem, theta)
        drift = slope @ b(theta) + jnp.einsum("ijk,jk->i", bend, covariance) / 2
        matrix = jnp.eye(d) - STEP / 2 * slope
        return b(theta) - STEP / 2 * drift, matrix @ covariance @ matrix.T

    # Some ten roundings of numbers of size one.
    close = {"rtol": 1e-12, "atol": 1e-15}
    drift, covariance = formula(theta)
    for smooth in (False, d == 1):
        found = seen(second, theta, smooth)
        np.testing.assert_allclose(found[0], drift, **close)
        np.testing.assert_allclose(found[1], covariance, **close)
        np.testing.assert_allclose(found[2] @ found[2].T, covariance, **close)


def slope_of(errors):
    """The order that two errors show, of steps h and h / 2."""
    coarse, fine = errors
    return np.log2(abs(coarse) / abs(fine))


@pytest.mark.parametrize("order", [1, 2])
def test_the_weak_order_against_sgd_on_quadratics(order):
    """E theta and E theta^2 at t = 1 solve linear equations for SGD and for the limit."""
    problem = bowls(3, 1)
    h, c = (np.asarray(problem.data[name])[:, 0] for name in ("curvature", "centre"))
    points = np.array([-1.0, 0.0, 1.0])
    errors = []
    for n in (32, 64):
        eta = 1 / n
        limit = tw.diffusion_limit(tw.Descent(problem, tw.Minibatch(1), eta), order=order)
        drift, covariance = jax.jit(
            lambda x, limit=limit: jax.vmap(lambda x: (limit.drift(x), limit.covariance(x)))(x)
        )(points[:, None])
        # The drift is linear and the covariance of second degree.
        b = np.polynomial.polynomial.polyfit(points, np.asarray(drift)[:, 0], 2)
        s = np.polynomial.polynomial.polyfit(points, np.asarray(covariance)[:, 0, 0], 2)
        generator = np.array([[0, 0, 0], [b[0], b[1], 0], [s[0], 2 * b[0] + s[1], 2 * b[1] + s[2]]])
        u, v = 1 - eta * h, eta * h * c
        step = np.mean([np.ones_like(u), v, u, v * v, 2 * u * v, u * u], axis=1)
        chain = np.array([[1, 0, 0], [step[1], step[2], 0], step[3:]])
        start = np.array([1.0, 2.0, 4.0])
        errors.append((expm(generator) - np.linalg.matrix_power(chain, n)) @ start)
    # The errors are C eta^p (1 + K eta) with K of size five, and K eta / log 4 is .1.
    for moment in (1, 2):
        assert abs(slope_of([e[moment] for e in errors]) - order) < 0.1


@pytest.mark.parametrize(("corrected", "order"), [(False, 1), (True, 2)])
def test_the_stationary_variance_of_the_chain(corrected, order):
    """On h x^2 / 2 at temperature T it is (T / h) / (1 - eta h / 2)."""
    h, temperature, errors = 1.5, 0.7, []
    for eta in (1 / 32, 1 / 64):
        diffusion = tw.Diffusion(lambda x: -h * x, 2 * temperature, eta)
        if corrected:
            diffusion = modified_equation(diffusion)
        rate, size = -diffusion.drift(jnp.ones(1))[0], diffusion.covariance(jnp.zeros(1))[0, 0]
        errors.append(float(size / (2 * rate)) - temperature / h / (1 - eta * h / 2))
    # The relative error is (eta h / 2)^p (1 + eta h / 2 + ...): .02.
    assert abs(slope_of(errors) - order) < 0.03


def along(x):
    return jnp.cos(x) - jnp.sin(2 * x) / 2


def potential(x):
    return -jnp.sin(x) - jnp.cos(2 * x) / 4


def wave(x):
    return 1 + 0.5 * jnp.cos(x)


POINTS = 48
CIRCLE = 2 * np.pi * np.arange(POINTS) / POINTS
WAVES = np.arange(-POINTS // 2 + 1, POINTS // 2)
SERIES = np.exp(-1j * np.outer(WAVES, CIRCLE)) / POINTS


def kernel_of(eta, covariance):
    """Euler's step on functions on the circle, given by their values at the points.

    The mean of exp(i m theta) over a Gaussian step is exp(i m mean - m^2 variance / 2).
    """
    mean = CIRCLE + eta * np.asarray(along(CIRCLE))
    v = np.broadcast_to(covariance(CIRCLE) if callable(covariance) else covariance, CIRCLE.shape)
    after = np.exp(1j * np.outer(mean, WAVES) - eta / 2 * np.outer(v, WAVES**2))
    return (after @ SERIES).real


def generator_of(diffusion):
    first, second = (
        (np.exp(1j * np.outer(CIRCLE, WAVES)) * (1j * WAVES) ** p) @ SERIES for p in (1, 2)
    )
    drift, covariance = jax.jit(
        jax.vmap(lambda x: (diffusion.drift(x), diffusion.covariance(x)[0, 0]))
    )(jnp.asarray(CIRCLE))
    return (np.asarray(drift)[:, None] * first + np.asarray(covariance)[:, None] / 2 * second).real


@pytest.mark.parametrize(
    ("covariance", "corrected", "order"),
    [(1.0, False, 1), (1.0, True, 2), (wave, True, 1)],
    ids=["as it is", "corrected", "corrected, noise that depends on the place"],
)
def test_the_weak_order_on_a_circle(covariance, corrected, order):
    """E cos theta at t = 1 from every point: powers of the kernel against exp of the generator."""
    errors = []
    for n in (32, 64):
        diffusion = tw.Diffusion(along, covariance, 1 / n)
        if corrected:
            diffusion = modified_equation(diffusion)
        exact = np.linalg.matrix_power(kernel_of(1 / n, covariance), n) @ np.cos(CIRCLE)
        errors.append(np.abs(expm(generator_of(diffusion)) @ np.cos(CIRCLE) - exact).max())
    # C eta^p (1 + K eta) with K of size five: .1. Noise that depends on the place at a fixed size
    # has no second-order diffusion.
    assert abs(slope_of(errors) - order) < 0.1


@pytest.mark.parametrize(("corrected", "order"), [(False, 1), (True, 2)])
def test_the_corrected_potential_on_a_circle(corrected, order):
    """Its Gibbs law against the stationary law of the chain: E sin theta."""
    temperature, errors = 0.5, []
    for eta in (1 / 32, 1 / 64):
        values, vectors = np.linalg.eig(kernel_of(eta, 2 * temperature).T)
        law = vectors[:, np.argmin(np.abs(values - 1))].real
        u = corrected_potential(potential, eta, temperature) if corrected else potential
        gibbs = np.exp(-np.asarray(jax.jit(jax.vmap(u))(jnp.asarray(CIRCLE))) / temperature)
        means = [p @ np.sin(CIRCLE) / p.sum() for p in (law, gibbs)]
        errors.append(means[1] - means[0])
    # As above.
    assert abs(slope_of(errors) - order) < 0.1


def test_the_corrected_potential_is_its_formula():
    problem, theta = tw.FiniteSum(wavy, bowls(4, 3).data), jnp.asarray([0.3, -0.2, 0.9])
    value, slope, bend = jax.jit(
        lambda x: (problem.value(x), problem.gradient(x), jax.hessian(problem.value)(x))
    )(theta)
    expected = value - STEP / 4 * slope @ slope + STEP * 0.7 / 2 * jnp.trace(bend)

    @jax.jit
    def found(temperature):
        return [corrected_potential(f, STEP, temperature)(theta) for f in (problem, problem.value)]

    np.testing.assert_allclose(found(0.7), [expected] * 2, rtol=1e-13)
    by_temperature = jax.jacfwd(found)(0.7)
    np.testing.assert_allclose(by_temperature, [STEP / 2 * jnp.trace(bend)] * 2, rtol=1e-12)


# What has no limit.


def descent(sampler, step=STEP):
    return tw.Descent(bowls(4, 2, groups=[0, 0, 1, 1]), sampler, step)


def varied():
    return tw.Diffusion(along, 1.0, STEP).scheduled(lambda t: 1 / (1 + t))


REFUSED = {
    "a pass": (
        lambda: tw.diffusion_limit(descent(tw.Reshuffled(1))),
        "Reshuffled has no diffusion",
    ),
    "an order": (lambda: tw.diffusion_limit(descent(tw.Cyclic(2))), "draws of a pass depend"),
    "stale": (
        lambda: tw.diffusion_limit(descent(tw.Reweighted(1, refresh=10))),
        "with kept scores has no diffusion limit: its noise depends on where the scores were taken",
    ),
    "biased": (
        lambda: tw.diffusion_limit(
            descent(tw.Reweighted(1, by="group", refresh=2, stale="fixed-length"))
        ),
        "and its mean is not the gradient; use Reweighted",
    ),
    "schedule": (
        lambda: tw.diffusion_limit(descent(tw.Full(), tw.steps.inverse_time(0.1, 5.0))),
        "needs a number as the step",
    ),
    "optimiser": (
        lambda: tw.diffusion_limit(descent(tw.Full(), optax.adam(0.1))),
        "needs a number as the step",
    ),
    "order": (lambda: tw.diffusion_limit(descent(tw.Full()), order=3), "order is 3; expected 1 or"),
    "varying": (lambda: modified_equation(varied()), "does not vary in time"),
    "scheduled": (
        lambda: modified_equation(tw.Diffusion(along, 1.0, STEP)).scheduled(lambda t: t).at(1.0),
        "schedule the equation of order 1",
    ),
    "temperature": (lambda: corrected_potential(potential, STEP, 0.0), "temperature is 0"),
    "step": (lambda: corrected_potential(potential, "small", 1.0), "step is 'small'"),
    "potential": (lambda: corrected_potential(2.0, STEP, 1.0), "function of params"),
    "other parameters": (
        lambda: tw.simulate(
            tw.diffusion_limit(descent(tw.Minibatch(1))), jnp.zeros(3), steps=1, key=KEY
        ),
        "cannot be evaluated",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        make()
