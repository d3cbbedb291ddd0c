"""What the documents say of the invariant law, asked of the grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import thalweg as tw
from thalweg import markov
from thalweg.limit import corrected_potential
from thalweg.noise_models import isotropic, loss_scaled


def descends(f):
    """The drift -f' for f of a number, or of two."""
    return lambda theta: -jax.grad(lambda t: f(*t))(theta)


def law_of(diffusion, lower, upper, cells):
    chain = tw.discretise(diffusion, tw.Grid(lower, upper, cells))
    return chain, chain.stationary().density


def within(chain, density, centre, radius):
    """The probability of the interval or square around a point, whose border lies on edges."""
    near = jnp.asarray(centre, float)
    return float(chain.grid.integrate(density, lambda t: jnp.all(jnp.abs(t - near) < radius)))


# Wojtowytsch: noise scaled by the loss.


def parabola(x):
    return 1 + x * x


def scaled_by_loss(s, convention):
    noise = loss_scaled(lambda t: parabola(t[0]), s, 1.0, convention=convention)
    return tw.Diffusion(descends(parabola), noise, 0.1)


def probability_of_power(power, end):
    inner, whole = (
        quad(lambda x: parabola(x) ** -power, 0, e, epsabs=1e-12)[0] for e in (0.5, end)
    )
    return inner / whole


@pytest.mark.parametrize(("convention", "power"), [("sde", 5.0), ("fokker-planck", 3.0)])
def test_each_equation_has_its_own_power_of_the_loss(convention, power):
    # The slides pair the second power with the first equation; sigma eta = .5.
    chain, density = law_of(scaled_by_loss(0.5, convention), -20.0, 20.0, 4000)
    found = within(chain, density, [0.0], 0.5)
    # The sum over cells of width h = .01 is a midpoint rule: off by h^2/12 |p'(.5)| = 1.27e-5 for
    # the larger slope, 5 * 1.25^-6 / (35 pi / 128) = 1.53.
    assert found == pytest.approx(probability_of_power(power, 20.0), abs=1.4e-5)
    other = {5.0: 3.0, 3.0: 5.0}[power]
    assert abs(found - probability_of_power(other, 20.0)) > 0.05


def test_forgetting_the_factor_of_the_ito_term_would_be_seen():
    # Without 1/D the law is f^{-2/s} and not f^{-1-2/s}: in L1, for s = .5, .06 or more apart.
    chain, density = law_of(scaled_by_loss(0.5, "sde"), -20.0, 20.0, 4000)
    x = chain.grid.centres[0]
    right, wrong = (np.asarray(chain.grid.normalise(parabola(x) ** -a)) for a in (5.0, 4.0))
    assert 2 * markov.total_variation(chain.grid, density, right) < 1e-10
    assert 2 * markov.total_variation(chain.grid, density, wrong) > 0.06


def test_small_noise_scaled_by_the_loss_is_constant_noise():
    # f^{-1-2/s} and exp(-2f/s), f = 1 + x^2: with x = sqrt(s/4) y they are exp(-y^2/2) times
    # (1 + s (y^4/16 - y^2/4) + ...): the distance is of first order in s.
    distances = []
    for s in (0.2, 0.1, 0.05):
        chain, density = law_of(scaled_by_loss(s, "sde"), -2.0, 2.0, 2000)
        gibbs = chain.grid.normalise(np.exp(-2 * (parabola(chain.grid.centres[0]) - 1) / s))
        distances.append(markov.total_variation(chain.grid, density, gibbs))
    slopes = np.log2(np.array(distances[:-1]) / distances[1:])
    assert np.all((slopes > 0.85) & (slopes < 1.1))


def test_the_weighted_distance_decays_at_twice_the_gap():
    # D = s f, s = .5: gap 2, so the squared norm decays with rate 4 after the faster modes (the
    # next is 4 (2 - s) / 2 = 3 for k = 2: 2k - s k (k - 1)). Even densities have no odd mode: start
    # off centre. By t = 3 the ratio of the second mode to the first has fallen to e^-3.
    chain, law = law_of(scaled_by_loss(0.5, "fokker-planck"), -30.0, 30.0, 3000)
    assert chain.gap().rate == pytest.approx(2.0, rel=1e-3)
    start = chain.grid.normalise(np.exp(-((chain.grid.centres[0] - 0.5) ** 2)))
    times = [3.0, 4.0]
    later = chain.evolve(start, times).densities
    norms = [markov.weighted_l2(chain.grid, p, law, law) for p in later]
    # The second mode adds at most (c2/c1)^2 e^{-2 t} to the square, c2 < c1.
    assert 2 * np.log(norms[0] / norms[1]) == pytest.approx(4.0, rel=5e-3)


# Dai and Zhu, appendix H.


def three_wells(w):
    return (w + 1) ** 2 * w**2 * (w - 1.5) ** 2


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (1, (0.11075, 0.10783, 0.10263)),
        (10, (0.31640, 0.25588, 0.18962)),
        (100, (0.49841, 0.30038, 0.19961)),
    ],
)
def test_flat_minima_are_likelier_and_more_so_at_low_noise(ratio, expected):
    # Example 1: beta = 1, P(|w - w_j| < .1) at the minima of f'' = 4.5, 12.5 and 28.125.
    diffusion = tw.Diffusion(descends(three_wells), isotropic(1.0, 1.0, float(ratio)), 0.1)
    chain, density = law_of(diffusion, -2.5, 3.0, 2200)
    found = [within(chain, density, [w], 0.1) for w in (0.0, -1.0, 1.5)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_only_the_ratio_of_batch_to_step_and_variance_counts():
    # Example 2: beta = 5, M/gamma = 10 is beta = 1, M/gamma = 2, or gamma = .5, M = 1 ...
    found = []
    for beta, gamma, batch in ((5.0, 0.1, 1.0), (1.0, 0.5, 1.0), (5.0, 1.0, 10.0)):
        diffusion = tw.Diffusion(descends(three_wells), isotropic(beta, gamma, batch), 0.1)
        chain, density = law_of(diffusion, -2.5, 3.0, 2200)
        found.append(within(chain, density, [0.0], 0.1))
    assert found == pytest.approx([0.14793] * 3, abs=1e-5)


def two_minima(x, y):
    return (1.1 * x**2 + 0.01 * y**2) * ((x - 1) ** 2 + 0.1 * (y - 1) ** 2)


def test_probability_falls_with_the_product_of_eigenvalues():
    # Example 3: Hessians diag(2.42, .022) at (0, 0) and diag(2.22, .222) at (1, 1); beta = 1,
    # M/gamma = 400. Against adaptive quadrature of the Gibbs law over the same box.
    temperature = 1 / 800
    diffusion = tw.Diffusion(descends(two_minima), isotropic(1.0, 1.0, 400.0), 0.1)
    chain, density = law_of(diffusion, [-1.0, -2.0], [2.0, 3.0], (300, 250))
    found = [within(chain, density, p, 0.1) for p in ([0.0, 0.0], [1.0, 1.0])]
    x, y = np.meshgrid(*(np.linspace(a, b, 2401) for a, b in ((-1, 2), (-2, 3))), indexing="ij")
    weights = np.exp(-two_minima(x, y) / temperature)
    boxes = [(abs(x - a) < 0.1) & (abs(y - a) < 0.1) for a in (0, 1)]
    fine = [weights[box].sum() / weights.sum() for box in boxes]
    # Both are sums: the border of a box may cut one row of the finer, 2 % of its width.
    assert found == pytest.approx(fine, rel=0.03)
    # .245 and .203: the product of the eigenvalues is .053 at the first and .493 at the second.
    assert found[0] > 1.15 * found[1]


def test_the_order_of_the_two_limits_decides():
    # PAPERS: for equal depth the ratio of P(|w - w_j| < eps) tends to 1 as eps -> 0 at fixed noise,
    # to sqrt(det2/det1) as the noise -> 0 at fixed eps.
    ratios = {}
    for batch in (1.0, 1000.0):
        diffusion = tw.Diffusion(descends(three_wells), isotropic(1.0, 1.0, batch), 0.1)
        chain, density = law_of(diffusion, -2.5, 3.0, 5500)
        for radius in (0.2, 0.002):
            flat, sharp = (within(chain, density, [w], radius) for w in (0.0, 1.5))
            ratios[batch, radius] = flat / sharp
    # L(w) - (f''/2) w^2 is of third order: the box of .002 sees e^{-L/T}, T = .5, to 28 * 4e-6.
    assert ratios[1.0, 0.002] == pytest.approx(1.0, abs=1e-4)
    # sqrt(28.125/4.5) = 2.5 with a correction of the order T f''''/f''^2 = 2 %, T = 1/2000.
    assert ratios[1000.0, 0.2] == pytest.approx(2.5, rel=0.02)
    assert ratios[1000.0, 0.002] < 1.2


def test_noise_that_depends_on_the_place_changes_the_exponent():
    # L = (x^2 - 1)^2/4, beta = 1 + (x + 1)^2/2: beta p = exp(-(2M/gamma) int dL/beta), and that
    # integral from -1 to 0 is .2225185 in place of the barrier .25.
    diffusion = tw.Diffusion(
        descends(lambda x: (x * x - 1) ** 2 / 4),
        isotropic(lambda t: 1 + (t[0] + 1) ** 2 / 2, 0.2, 1.0),
        0.1,
    )
    chain, density = law_of(diffusion, -3.0, 3.0, 601)
    x, p = chain.grid.centres[0], np.asarray(density)
    fluxes = np.log(p * (1 + (x + 1) ** 2 / 2)) * 0.2 / 2
    at = [np.argmin(abs(x - place)) for place in (-1.0, 0.0)]
    # Centres are at -3 + .00998 (k + 1/2): the nearest to -1 is .003 off, where L has no slope:
    # f'' d^2/2 = 1e-5. Zero is a centre.
    assert fluxes[at[0]] - fluxes[at[1]] == pytest.approx(0.2225185, abs=2e-5)


# The chain and its diffusion limit.


def wavy(x):
    return x**2 / 2 + 0.4 * jnp.cos(2 * x)


def distances_at(step, temperature):
    """TV of the chain's stationary law to the Gibbs law, and to the corrected one."""
    size = float(np.sqrt(2 * temperature / step))
    problem = tw.FiniteSum.of(
        lambda t: wavy(t[0]) + size * t[0], lambda t: wavy(t[0]) - size * t[0]
    )
    grid = tw.Grid(-4.5, 4.5, 450)
    chain = tw.discretise(tw.Descent(problem, tw.Minibatch(1), step), grid, draws="gaussian")
    density = chain.stationary().density
    found = []
    for potential in (
        lambda t: wavy(t[0]),
        corrected_potential(lambda t: wavy(t[0]), step, temperature),
    ):
        gibbs = grid.normalise(grid.function(lambda t, u=potential: jnp.exp(-u(t) / temperature)))
        found.append(markov.total_variation(grid, density, gibbs))
    return found


def test_the_diffusion_limit_is_right_to_first_order_and_the_corrected_potential_to_second():
    # Gaussian noise of fixed temperature .3; gradients are Lipschitz (wavy'' between -.6 and 2.6).
    # Normal draws of seven cells' deviation and more are right to rounding on the grid.
    steps = (0.16, 0.08, 0.04)
    gibbs, corrected = np.array([distances_at(s, 0.3) for s in steps]).T
    first, second = (np.log2(d[:-1] / d[1:]) for d in (gibbs, corrected))
    # Slopes approach 1 and 2 from where the next order, eta f'' of .1 to .4, still shows.
    assert np.all(abs(first - 1) < 0.15)
    assert np.all(abs(second - 2) < 0.35)
    assert abs(second[-1] - 2) < abs(second[0] - 2) + 0.05
