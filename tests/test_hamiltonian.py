"""Hamiltonians of SGD and of diffusions against sums over all draws, duality and closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import linprog

import thalweg as tw
from helpers import bowls
from thalweg.errors import InputError
from thalweg.paths.hamiltonian import QuadraticHamiltonian, hamiltonian

STEP = 0.3
THETA = jnp.array([0.2, -0.1])
ONE = jnp.zeros(1)


@eqx.filter_jit
def momenta(H, theta, vs):
    """The momentum, H and its slope there, for many directions."""

    def one(v):
        p = H.momentum(theta, v)
        return p, H.value(theta, p), jax.grad(H.value, argnums=1)(theta, p)

    return jax.vmap(one)(vs)


@eqx.filter_jit
def legendre(H, theta, vs):
    return jax.vmap(lambda v: H.rate(theta, v))(vs)


@eqx.filter_jit
def values(H, theta, ps):
    """For many momenta, and the drift."""
    return jax.vmap(lambda p: H.value(theta, p))(ps), H.drift(theta)


@eqx.filter_jit
def seen(problem, sampler):
    """The gradients, and the mean of what is drawn."""
    return problem.gradients(THETA), sampler.mean(problem, THETA)


def padded(rows):
    """Rows of one number for all tests, which share their programs."""
    return jnp.asarray(np.pad(rows, [(0, 40 - len(rows)), (0, 0)], mode="edge"))


def everything(H, theta, vs):
    """Lengths, from the momenta; momenta, H and its slopes there."""
    p, height, slope = (np.asarray(x)[: len(vs)] for x in momenta(H, theta, padded(vs)))
    reached = np.isfinite(p).all(axis=1)
    lengths = np.sum(np.where(reached[:, None], p, 0) * np.asarray(vs), axis=1)
    return np.where(reached, lengths, np.inf), p, height, slope


def rates(H, theta, vs):
    return np.asarray(legendre(H, theta, padded(vs)))[: len(vs)]


def on_circle(count):
    angle = 2 * np.pi * (np.arange(count) + 0.3) / count
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def slope(params, velocity):
    return -jnp.dot(velocity, params)


class Constant(eqx.Module):
    """A drift."""

    value: jax.Array

    def __call__(self, params):
        return self.value


def of_linear(velocities, weights=None, step=STEP):
    """A sum of linear terms: the velocities of single draws are these, wherever one is.

    Up to 25, with more that are never drawn and would change everything.
    """
    velocities, missing = np.asarray(velocities), 25 - len(velocities)
    weights = np.full(len(velocities), 1 / len(velocities)) if weights is None else weights
    velocities = np.pad(velocities, [(0, missing), (0, 0)], constant_values=-7.0)
    problem = tw.FiniteSum(slope, velocities, weights=np.pad(weights, (0, missing)))
    return tw.Descent(problem, tw.Minibatch(1), step)


WEIGHTED = bowls(5, weights=np.array([0.1, 0.3, 0.2, 0.25, 0.15]), groups=[0, 0, 1, 1, 1])
EQUAL = bowls(5, groups=[0, 0, 1, 1, 1])
SAMPLERS = [
    (WEIGHTED, tw.Minibatch(1)),
    (WEIGHTED, tw.Minibatch(3, replace=True)),
    (EQUAL, tw.Minibatch(2)),
    (EQUAL, tw.Minibatch(4)),
    (WEIGHTED, tw.Resampled(2, proportions=(0.3, 0.7))),
    (WEIGHTED, tw.Reweighted(2)),
    (WEIGHTED, tw.Reweighted(2, uniform=0.3)),
    (WEIGHTED, tw.Reweighted(2, by="group")),
    (WEIGHTED, tw.Presampled(2, 2)),
    (EQUAL, tw.Full()),
]


@pytest.mark.parametrize(("problem", "sampler"), SAMPLERS, ids=lambda x: str(x)[:30])
def test_values_are_sums_over_all_draws(problem, sampler):
    H = hamiltonian(tw.Descent(problem, sampler, STEP))
    law, (gradients, mean) = sampler.outcomes(problem, THETA), seen(problem, sampler)
    estimates = np.einsum("ob,obi->oi", law.weights, np.asarray(gradients)[law.index])
    ps = np.random.default_rng(0).normal(size=(20, 2)) * np.geomspace(1e-4, 30, 20)[:, None]
    sums = np.exp(-STEP * ps @ estimates.T) @ np.asarray(law.probabilities)
    # Rounding of the sum, which is near one for small p, over the step; relative beyond.
    got, drift = values(H, THETA, jnp.asarray(ps))
    np.testing.assert_allclose(got, np.log(sums) / STEP, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(drift, -mean, rtol=1e-13)


FIVE = np.random.default_rng(5).normal(size=(5, 2)) + np.array([0.3, -0.2])


@pytest.mark.parametrize(
    "dynamics",
    [
        of_linear(FIVE, [0.1, 0.3, 0.2, 0.25, 0.15]),
        pytest.param(tw.Descent(EQUAL, tw.Minibatch(2), STEP), marks=pytest.mark.slow),
    ],
    ids=["independent", "subset"],
)
def test_momentum_length_and_rate_are_dual(dynamics):
    H, vs = hamiltonian(dynamics), on_circle(12)
    lengths, ps, heights, slopes = everything(H, THETA, vs)
    reached = np.isfinite(lengths)
    assert reached.sum() >= 6
    # The border of the set, with its normal along v.
    np.testing.assert_allclose(heights[reached], 0, atol=1e-12)
    cosines = np.sum(slopes * vs, axis=1) / np.linalg.norm(slopes, axis=1)
    np.testing.assert_allclose(cosines[reached], 1, atol=1e-12)
    # The rate at the slope of H in p is its Legendre transform ...
    transforms = np.sum(ps * slopes, axis=1) - heights
    got = rates(H, THETA, slopes)
    np.testing.assert_allclose(got[reached], transforms[reached], rtol=1e-11, atol=1e-13)
    # ... and the length the least rate of any speed over the speed.
    shares = 2.0 ** (np.arange(-16, 17) / 8)
    speeds = shares * np.linalg.norm(slopes[reached][0])
    costs = rates(H, THETA, speeds[:, None] * vs[reached][0]) / speeds
    assert costs.argmin() == 16
    assert costs[16] == pytest.approx(lengths[reached][0], rel=1e-11)


def test_momentum_of_one_dimension_solves_the_scalar_equation():
    # .4 e^-k + .6 e^(k/10) = 1: An and Ying's section 2, where this makes the barrier of 5.08.
    H = hamiltonian(of_linear([[-1.0], [0.1]], [0.4, 0.6], step=1.0))
    lengths, ps, *_ = everything(H, ONE, np.array([[1.0], [-1.0]]))
    (k,) = ps[0]
    assert 0.4 * np.exp(-k) + 0.6 * np.exp(0.1 * k) == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(lengths, [5.083431, 0], rtol=1e-7, atol=1e-15)


def test_out_of_reach_is_infinite_as_linear_programming_says():
    random = np.random.default_rng(1)
    for d, count in ((2, 3), (3, 5)):
        velocities = random.normal(size=(count, d)) + 0.4
        H = hamiltonian(of_linear(velocities))
        vs = random.normal(size=(40, d))
        lengths, ps, heights, _ = everything(H, jnp.zeros(d), vs)
        cone = [linprog(np.zeros(count), A_eq=velocities.T, b_eq=v).status == 0 for v in vs]
        assert 0 < sum(cone) < 40
        np.testing.assert_array_equal(np.isfinite(lengths), cone)
        np.testing.assert_allclose(heights[np.array(cone)], 0, atol=1e-11)
        assert np.isinf(ps[~np.array(cone)]).all()
        targets = velocities.mean(axis=0) + 0.7 * vs
        hull = [
            linprog(
                np.zeros(count),
                A_eq=np.vstack([velocities.T, np.ones(count)]),
                b_eq=np.append(target, 1),
            ).status
            == 0
            for target in targets
        ]
        assert 0 < sum(hull) < 40
        np.testing.assert_array_equal(np.isfinite(rates(H, jnp.zeros(d), targets)), hull)


def test_what_only_one_draw_can_make_costs_its_logarithm():
    velocities = np.array([[1.0, 0.2], [-0.3, 1.0], [-0.6, -0.9]])
    weights = np.array([0.2, 0.5, 0.3])
    H = hamiltonian(of_linear(velocities, weights))
    # Rate of a corner of the hull: -log of its probability, a step.
    got = rates(H, THETA, velocities)
    np.testing.assert_allclose(got, -np.log(weights) / STEP, rtol=1e-12)
    # A ray of a pointed cone: the same for as many steps as it takes.
    H = hamiltonian(of_linear(velocities[:2], [0.3, 0.7]))
    lengths = everything(H, THETA, 3 * velocities[:2])[0]
    np.testing.assert_allclose(lengths, -3 * np.log([0.3, 0.7]) / STEP, rtol=1e-9)


def test_gaussian_draws_have_the_diffusions_answers():
    # Five nodes of Gauss and Hermite miss 5! of the tenth moment: 120/10! q^10 of the moment
    # generating function, with q below .2 deviations 1e-10 of q^2/2.
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    weights = weights / weights.sum()
    pairs = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    root, mean = np.array([[1.0, 0.3], [0.0, 0.5]]), np.array([-0.03, 0.02])
    draws = mean + pairs @ root.T, np.outer(weights, weights).ravel()
    H = hamiltonian(of_linear(*draws, step=1.0))
    Q = hamiltonian(tw.Diffusion(Constant(jnp.asarray(mean)), root @ root.T, 1.0))
    vs = on_circle(8)
    for got, expected in zip(everything(H, THETA, vs), everything(Q, THETA, vs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-11)
    targets = mean + 0.05 * vs
    np.testing.assert_allclose(rates(H, THETA, targets), rates(Q, THETA, targets), rtol=1e-10)


def test_the_diffusions_hamiltonian_is_the_second_order():
    descent = tw.Descent(WEIGHTED, tw.Reweighted(2), STEP)
    H, Q = hamiltonian(descent), hamiltonian(tw.diffusion_limit(descent))
    p = jnp.array([0.6, -0.8]) * jnp.asarray(np.geomspace(0.02, 0.2, 4))[:, None]
    differences = np.abs(values(H, THETA, p)[0] - values(Q, THETA, p)[0])
    slope = np.polyfit(np.log(np.linalg.norm(p, axis=1)), np.log(differences), 1)[0]
    assert slope == pytest.approx(3, abs=0.1)
    # And lengths agree where the mean is small against the noise; with no third moment, to second
    # order in it: the exact ratio is 1 + m^2/(6 s^2) + O(m^4) with fourth moment s^4.
    ratios = []
    for m in (0.1, 0.05):
        (chain,) = everything(hamiltonian(of_linear([[1 + m], [m - 1]])), ONE, -np.ones((1, 1)))[0]
        # The diffusion's is 2 m/(eta s^2) with s = 1.
        ratios.append(chain * STEP / (2 * m) - 1)
    assert ratios[0] / ratios[1] == pytest.approx(4, rel=0.01)


def test_length_vanishes_quadratically_at_the_drift():
    H = hamiltonian(of_linear(FIVE))
    b = np.asarray(H.drift(THETA))
    near = np.array([1e-2, 1e-3, 1e-4])[:, None] * np.array([-b[1], b[0]])
    lengths, *_ = everything(H, THETA, np.vstack([b + near, 5 * b]))
    assert lengths[-1] == pytest.approx(0, abs=1e-14)
    # Third order of the tilt; roundings over the tilt squared.
    np.testing.assert_allclose(lengths[:2] / lengths[1:3], 100, rtol=0.05)


@eqx.filter_jit
def answers(H, both):
    theta, v = both[:2], both[2:]
    slow = H.drift(theta) + 0.2 * v
    return jnp.append(H.momentum(theta, v), jnp.stack([H.length(theta, v), H.rate(theta, slow)]))


@eqx.filter_jit
def derivatives(H, both, direction):
    """Of the answers in a direction, and of the gradient of length and rate."""

    def gradient(both):
        return jax.grad(lambda x: jnp.sum(answers(H, x)[2:]))(both)

    first = jax.jvp(lambda x: answers(H, x), (both,), (direction,))[1]
    return first, *jax.jvp(gradient, (both,), (direction,))


CHAIN = tw.Descent(EQUAL, tw.Minibatch(2, replace=True), STEP)


def test_length_is_homogeneous_and_not_negative():
    H = hamiltonian(CHAIN)
    for v in on_circle(3):
        one, three = (float(answers(H, jnp.append(THETA, jnp.asarray(s * v)))[2]) for s in (1, 3))
        assert three == pytest.approx(3 * one, rel=1e-12)
        p = answers(H, jnp.append(THETA, jnp.asarray(v)))[:2]
        assert one == pytest.approx(max(float(p @ v), 0), rel=1e-12, abs=1e-14)
    assert answers(H, jnp.append(THETA, jnp.zeros(2)))[2] == 0


@pytest.mark.parametrize(
    "dynamics",
    [
        pytest.param(CHAIN, marks=pytest.mark.slow),
        pytest.param(
            tw.diffusion_limit(tw.Descent(EQUAL, tw.Minibatch(1), STEP)), marks=pytest.mark.slow
        ),
    ],
    ids=["chain", "diffusion"],
)
def test_derivatives_are_those_of_differences(dynamics):
    H, width = hamiltonian(dynamics), 1e-5
    both = jnp.append(THETA, jnp.array([0.8, 0.5]))
    for direction in np.random.default_rng(0).normal(size=(2, 4)):
        direction = jnp.asarray(direction)
        first, _, second = derivatives(H, both, direction)
        up, down = both + width * direction, both - width * direction
        # Roundings over the width, and its square.
        difference = (answers(H, up) - answers(H, down)) / (2 * width)
        np.testing.assert_allclose(first, difference, rtol=1e-7, atol=1e-7)
        slopes = [derivatives(H, x, direction)[1] for x in (up, down)]
        np.testing.assert_allclose(second, (slopes[0] - slopes[1]) / (2 * width), rtol=1e-6)


def test_singular_noise_goes_with_the_drift_along_its_null_directions():
    # Noise on the velocity alone: the place moves as the velocity says, or not at all.
    H = hamiltonian(tw.Diffusion(Constant(jnp.array([0.5, -1.0])), np.diag([0.0, 0.4]), 0.1))
    vs = np.array([[1.0, 0.7], [1.0, -2.0], [-1.0, 0.3], [0.0, 1.0]])
    lengths, _, heights, slopes = everything(H, THETA, vs)
    # In the time 2 that the first needs: (v_2 - 2 b_2)^2/(2 s 2).
    np.testing.assert_allclose(lengths, [2.7**2 / 1.6, 0, np.inf, np.inf], atol=1e-14)
    np.testing.assert_allclose(heights[:2], 0, atol=1e-14)
    np.testing.assert_allclose(2 * slopes[:2], vs[:2], rtol=1e-14)
    np.testing.assert_allclose(rates(H, THETA, np.array([[0.5, 1.0], [0.6, 1.0]])), [5, np.inf])
    # No drift there: what is beyond the noise is out of reach, whatever the range does.
    H = hamiltonian(tw.Diffusion(Constant(jnp.array([0.0, -1.0])), np.diag([0.0, 0.4]), 1.0))
    lengths = everything(H, THETA, np.array([[0.0, 1.0], [0.1, 1.0], [0.0, -1.0]]))[0]
    np.testing.assert_allclose(lengths, [5, np.inf, 0], atol=1e-14)


def test_without_noise_everything_off_the_drift_is_out_of_reach():
    for sampler in (tw.Full(), tw.Minibatch(5)):
        H = hamiltonian(tw.Descent(EQUAL, sampler, STEP))
        assert isinstance(H, QuadraticHamiltonian)
        b = np.asarray(H.drift(THETA))
        lengths = everything(H, THETA, np.stack([2 * b, -b, b + 0.01 * b[::-1]]))[0]
        np.testing.assert_array_equal(lengths, [0, np.inf, np.inf])
        np.testing.assert_array_equal(rates(H, THETA, np.stack([b, 2 * b])), [0, np.inf])


def test_a_step_of_exponents_is_the_steps_over_itself():
    # V is 1/eta of what does not depend on eta: lengths times steps agree.
    one, two = (hamiltonian(of_linear(FIVE, step=s)) for s in (0.1, 0.4))
    vs = on_circle(5)
    np.testing.assert_allclose(
        0.1 * everything(one, THETA, vs)[0], 0.4 * everything(two, THETA, vs)[0], rtol=1e-12
    )


def test_bad_input_is_refused():
    def refused(dynamics, words):
        with pytest.raises(InputError, match=words):
            hamiltonian(dynamics)

    one = tw.Minibatch(1)
    refused(tw.Descent(EQUAL, one, optax.constant_schedule(0.1)), "needs a number as the step")
    refused(tw.Descent(EQUAL, one, optax.sgd(0.1)), "needs a number as the step")
    refused(tw.Descent(EQUAL, tw.Reshuffled(1), 0.1), "a pass depend on those before")
    refused(tw.Descent(EQUAL, tw.Reweighted(1, refresh=3), 0.1), "use Reweighted")
    refused(tw.Descent(EQUAL, tw.Rolling(1), 0.1), "use Reweighted")
    big = bowls(4000, groups=np.arange(4000) % 2)
    refused(tw.Descent(big, tw.Reweighted(1, by="group"), 0.1), "by='sample'")
    noise = tw.Diffusion(lambda x: -x, 1.0, 0.1).scheduled(lambda t: 1 + t)
    refused(noise, "varies in time")
