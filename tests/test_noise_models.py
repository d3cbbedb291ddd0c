"""Noise by name: against the equations it is named for, and what is singular in it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from helpers import bowls, counted_compilations
from thalweg.errors import InputError
from thalweg.noise_models import isotropic, loss_scaled, singular_directions

KEY = jax.random.key(4)
X = jnp.asarray([0.7, -0.4, 0.2])
CURVATURE = np.array([1.0, 2.0, 0.5])


def bowl(x):
    return 0.5 * jnp.sum(jnp.asarray(CURVATURE, x.dtype) * jnp.square(x))


def lifted(x):
    """A loss without zeros, so that its powers are densities."""
    return 0.3 + bowl(x)


def round_bowl(x):
    return 0.5 * jnp.sum(jnp.square(x))


def descending(f, noise, step=0.1):
    return tw.Diffusion(lambda x: -jax.grad(f)(x), noise, step)


def generator(diffusion, function, x):
    r"""The rate b . grad u + Sigma : D^2 u / 2 at which the mean of u changes."""
    first, second = jax.grad(function)(x), jax.hessian(function)(x)
    return diffusion.drift(x) @ first + jnp.sum(diffusion.covariance(x) * second) / 2


def current(diffusion, log_density, x):
    r"""The probability current over the density, b - (div Sigma + Sigma grad log p) / 2."""
    divergence = jnp.trace(jax.jacfwd(diffusion.covariance)(x), axis1=1, axis2=2)
    return (
        diffusion.drift(x) - (divergence + diffusion.covariance(x) @ jax.grad(log_density)(x)) / 2
    )


# Of rounding: sums of a few numbers of size one.
ZERO = 1e-14

GAMMA, M, BETA = 0.4, 8.0, 3.0
STEP, SIGMA = 0.3, 1.7


def radial_beta(x):
    """With the gradient parallel to that of the round bowl."""
    return 1 + jnp.sum(jnp.square(x))


LAWS = {
    # The temperature is gamma beta / (2 M).
    "constant": (bowl, isotropic(BETA, GAMMA, M), lambda x: -2 * M / (GAMMA * BETA) * bowl(x)),
    # L = r^2 / 2 and beta = 1 + r^2: the integral of dL / beta is log(beta) / 2.
    "by place": (
        round_bowl,
        isotropic(radial_beta, GAMMA, M),
        lambda x: -(1 + M / GAMMA) * jnp.log(radial_beta(x)),
    ),
    "sde": (
        lifted,
        loss_scaled(lifted, STEP, SIGMA, convention="sde"),
        lambda x: -(1 + 2 / (STEP * SIGMA)) * jnp.log(lifted(x)),
    ),
    "fokker-planck": (
        lifted,
        loss_scaled(lifted, STEP, SIGMA, convention="fokker-planck"),
        lambda x: -(1 + 1 / (STEP * SIGMA)) * jnp.log(lifted(x)),
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_stationary_law_that_is_claimed_has_no_current(name):
    f, noise, log_density = LAWS[name]
    diffusion = descending(f, noise)
    np.testing.assert_allclose(current(diffusion, log_density, X), 0, atol=50 * ZERO)
    # The check can fail: the printed pairing, half or twice the temperature, has a current.
    assert np.abs(current(diffusion, lambda x: 2 * log_density(x), X)).max() > 0.1


def test_a_beta_that_is_not_a_function_of_the_loss_has_a_current():
    diffusion = descending(bowl, isotropic(lambda x: 1 + x[0] ** 2, GAMMA, M))

    def closed(x):
        """One-dimensional in x_0, where it would hold."""
        return -jnp.log(1 + x[0] ** 2) * (1 + M / GAMMA) - 2 * M / GAMMA * bowl(x.at[0].set(0.0))

    assert np.abs(current(diffusion, closed, X)).max() > 0.1


def test_the_rate_of_collapse_into_a_zero_of_the_loss():
    """Log |theta| grows at lam (eta sigma (m - 2) / 4 - 1) for f = lam |theta|^2 / 2 in m = 3."""
    lam = 0.8
    noise = loss_scaled(lambda x: lam * round_bowl(x), STEP, SIGMA, convention="sde")
    diffusion = descending(lambda x: lam * round_bowl(x), noise)
    rate = generator(diffusion, lambda x: jnp.log(jnp.linalg.norm(x)), X)
    assert abs(float(rate) - lam * (STEP * SIGMA / 4 - 1)) < ZERO


def test_noise_scaled_by_the_loss_of_a_sum_is_that_of_its_value():
    problem = bowls(5, 3)
    given = loss_scaled(problem, STEP, SIGMA, convention="sde")
    expected = STEP * SIGMA * problem.value(X) * np.eye(3)
    np.testing.assert_allclose(descending(bowl, given).covariance(X), expected, rtol=1e-14)

    # Its data are leaves, by which one can differentiate and which do not compile anew.
    def size(noise):
        return jnp.trace(descending(bowl, noise).covariance(X))

    slope = eqx.filter_grad(size)(given).value.function.args[0].data["centre"]
    curvature, centre = np.asarray(problem.data["curvature"]), np.asarray(problem.data["centre"])
    expected = 3 * STEP * SIGMA / 5 * curvature * (centre - np.asarray(X))
    np.testing.assert_allclose(slope, expected, rtol=1e-13, atol=1e-14)


def falling(t):
    return GAMMA / (1 + t)


def growing(t):
    return M + t


COURSES = {
    "gamma": (isotropic(BETA, falling, M), lambda t: BETA * falling(t) / M),
    "batch": (isotropic(BETA, GAMMA, growing), lambda t: BETA * GAMMA / growing(t)),
    "both": (
        isotropic(radial_beta, falling, growing),
        lambda t: radial_beta(X) * falling(t) / growing(t),
    ),
    "whole batches": (
        isotropic(BETA, GAMMA, lambda t: jnp.where(t < 1, 8, 16)),
        lambda t: BETA * GAMMA / (8 if t < 1 else 16),
    ),
}


@pytest.mark.parametrize("name", COURSES)
def test_learning_rate_and_batch_may_vary_in_time(name):
    noise, size = COURSES[name]
    diffusion = descending(bowl, noise)
    assert diffusion.varies
    for t in (0.0, 2.5):
        np.testing.assert_allclose(diffusion.at(t).covariance(X), size(t) * np.eye(3), rtol=1e-14)


@pytest.mark.slow
def test_other_numbers_do_not_compile_anew():
    def run(beta, gamma, sigma):
        noises = [
            isotropic(beta, gamma, M),
            isotropic(beta, gamma, growing),
            loss_scaled(bowl, gamma, sigma, convention="sde"),
        ]
        diffusions = [tw.Diffusion(negative, noise, gamma) for noise in noises]
        runs = [tw.simulate(x, X, steps=3, key=KEY) for x in diffusions]
        return [np.asarray(x.params) for x in runs]

    first = run(1.0, 0.1, 0.5)
    with counted_compilations() as count:
        second = run(2.0, 0.2, 0.7)
        assert count() == 0
    assert all((a != b).all() for a, b in zip(first, second, strict=True))


def test_derivatives_with_respect_to_the_numbers():
    def size(beta, gamma, batch):
        return jnp.trace(descending(bowl, isotropic(beta, gamma, batch)).covariance(X)) / 3

    slopes = jax.grad(size, argnums=(0, 1, 2))(BETA, GAMMA, M)
    expected = [GAMMA / M, BETA / M, -GAMMA * BETA / M**2]
    np.testing.assert_allclose(slopes, expected, rtol=1e-14)


# What is singular.


def test_the_directions_without_noise_of_a_factor():
    columns = np.random.default_rng(0).normal(size=(5, 2))
    for diffusion in (
        tw.Diffusion.from_factor(lambda x: -x, columns, 0.1),
        tw.Diffusion(lambda x: -x, columns @ columns.T, 0.1),
    ):
        found = singular_directions(diffusion, jnp.zeros(5))
        assert found.rank == 2
        assert found.basis.shape == (5, 3)
        # The kernel is known to the rounding of the matrix over its least other eigenvalue.
        np.testing.assert_allclose(found.basis.T @ columns, 0, atol=1e-12)
        np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(3), atol=1e-14)
        np.testing.assert_allclose(
            found.variances[3:], np.linalg.eigvalsh(columns.T @ columns), rtol=1e-13
        )


def test_the_noise_of_few_samples_has_few_directions():
    """Three gradients around their mean span a plane."""
    limit = tw.diffusion_limit(tw.Descent(bowls(3, 6), tw.Minibatch(1), 0.1))
    found = singular_directions(limit, jnp.arange(6.0))
    assert found.rank == 2
    deviations = limit.drift.problem.gradients(jnp.arange(6.0)) + limit.drift(jnp.arange(6.0))
    np.testing.assert_allclose(deviations @ found.basis, 0, atol=1e-12)


def test_no_noise_and_full_noise():
    still = tw.Diffusion(lambda x: -x, 0.0, 0.1)
    assert singular_directions(still, X).rank == 0
    assert singular_directions(still, X).basis.shape == (3, 3)
    nearly = tw.Diffusion(lambda x: -x, [1.0, 1e-6, 1.0], 0.1)
    assert singular_directions(nearly, X).rank == 3
    found = singular_directions(nearly, X, tolerance=1e-5)
    assert found.rank == 2
    np.testing.assert_allclose(np.abs(found.basis[:, 0]), [0, 1, 0], atol=1e-15)


def negative(x):
    return -jnp.ones_like(x)


REFUSED = {
    "beta negative": (lambda: isotropic(-1.0, GAMMA, M), "beta is -1; expected a finite number"),
    "beta text": (lambda: isotropic("much", GAMMA, M), "beta is 'much'; expected a number"),
    "beta many": (lambda: isotropic([1.0, 2.0], GAMMA, M), "beta is .* at least 0"),
    "gamma zero": (lambda: isotropic(BETA, 0.0, M), "gamma is 0; expected .* above 0"),
    "batch infinite": (lambda: isotropic(BETA, GAMMA, np.inf), "batch_size is inf"),
    "sigma": (lambda: loss_scaled(bowl, 0.1, -2.0, convention="sde"), "sigma is -2"),
    "step": (lambda: loss_scaled(bowl, 0.0, 1.0, convention="sde"), "step is 0"),
    "convention": (
        lambda: loss_scaled(bowl, 0.1, 1.0, convention="fokker"),
        "did you mean 'fokker-planck'",
    ),
    "no loss": (
        lambda: loss_scaled(1.0, 0.1, 1.0, convention="sde"),
        "function of params or a Fin",
    ),
    "negative loss": (
        lambda: tw.simulate(
            descending(bowl, loss_scaled(lambda x: -bowl(x), 0.1, 1.0, convention="sde")),
            X,
            steps=1,
            key=KEY,
        ),
        "noise at the start is not finite: the covariance there is negative",
    ),
    "negative beta": (
        lambda: descending(bowl, isotropic(lambda x: x[1], GAMMA, M)).check(X),
        "noise at the start is not finite: the covariance there is negative",
    ),
    "negative rate": (
        lambda: descending(bowl, isotropic(BETA, lambda t: t - 0.5, 1.0)).check(X),
        "schedule is -0.5 at the time 0",
    ),
    "indefinite": (
        lambda: singular_directions(tw.Diffusion(negative, negative, 0.1), X),
        "eigenvalue -1",
    ),
    "not finite": (
        lambda: singular_directions(tw.Diffusion(negative, lambda x: x / 0, 0.1), X),
        "not finite",
    ),
    "tolerance": (
        lambda: singular_directions(tw.Diffusion(negative, 1.0, 0.1), X, tolerance=1.0),
        "tolerance is 1.0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        make()
