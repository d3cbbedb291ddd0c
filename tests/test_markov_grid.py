"""One set of questions for SGD's chain and its diffusion, with errors and derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.errors import InputError
from thalweg.noise_models import isotropic


def double_well(t):
    return jnp.sum((t**2 - 1) ** 2) / 4


def brownian(variance=2.0):
    return tw.Diffusion(lambda t: jnp.zeros_like(t), variance, 0.01)


def tilted(size):
    return tw.FiniteSum.of(
        lambda t: double_well(t) + size * t[0], lambda t: double_well(t) - size * t[0]
    )


def left_of_one(t):
    return t[0] < 1.0


def test_grid_and_simulation_of_the_same_sgd_agree():
    # Step .2 of noise +-1, width of a cell .005: a sixth of h^2 against the noise, .04, is 1e-4.
    descent = tw.Descent(tilted(1.0), tw.Minibatch(1), 0.2)
    chain = tw.discretise(descent, tw.Grid(-2.5, 2.5, 1000))
    predicted = chain.exit_time(left_of_one, error=True)
    run = tw.simulate(
        descent,
        jnp.array([-1.0]),
        steps=20_000,
        key=jax.random.key(3),
        chains=4000,
        exit=lambda t: t[0] >= 1.0,
    )
    mean, error = run.mean_exit_step()
    steps = float(predicted.at([-1.0])) / 0.2
    doubt = float(predicted.error[np.argmin(abs(chain.grid.centres[0] + 1))]) / 0.2
    assert doubt < 0.02 * steps
    assert abs(steps - mean) < 4 * error + doubt


def test_the_difference_to_half_as_many_cells_is_three_times_the_error():
    # Brownian motion between reflecting walls, D = 1: pi^2, on the grid (2/h sin(pi h/2))^2, which
    # is pi^4 h^2/12 less; on cells twice as wide four times as much.
    gap = tw.discretise(brownian(), tw.Grid(0.0, 1.0, 64)).gap(error=True)
    assert gap.error / abs(gap.rate - np.pi**2) == pytest.approx(3.0, rel=2e-3)


def test_every_question_has_an_error_on_request():
    grid = tw.Grid(-2.5, 2.5, 80)
    chain = tw.discretise(tw.diffusion_limit(tw.Descent(tilted(1.0), tw.Minibatch(1), 0.2)), grid)
    start = grid.delta([-1.0])
    answers = {
        "law": chain.stationary(error=True).error,
        "evolution": chain.evolve(start, [1.0, 2.0], error=True).error[1],
        "exit": chain.exit_time(left_of_one, error=True).error[20],
        "committor": chain.committor(lambda t: t[0] < -1.0, lambda t: t[0] > 1.0, error=True).error[
            40
        ],
        "gap": chain.gap(error=True).error,
        "modes": chain.modes(3, error=True).error[1],
        "rate": chain.quasi_stationary(lambda t: t[0] < 0.0, error=True).error,
    }
    # Second order with 32 cells a unit of length: none is exact, none is far off.
    assert all(1e-12 < float(np.max(error)) < 0.5 for error in answers.values()), answers
    assert chain.stationary().error is None


def test_masses_are_halved_by_adding_them():
    grid = tw.Grid([0.0, 0.0], [1.0, 2.0], (8, 4))
    chain = tw.discretise(brownian(), grid)
    later = chain.evolve(grid.delta([0.3, 0.9]), [0.01], error=True)
    # Uniform: nothing changes, on either grid.
    flat = chain.evolve(jnp.full(grid.shape, 0.5), [1.0], error=True)
    assert 0 < later.error[0] < 1
    assert flat.error[0] < 1e-12


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("exit", marks=pytest.mark.slow),
        pytest.param("average", marks=pytest.mark.slow),
        "committor",
    ],
)
def test_derivatives_by_the_step_agree_with_differences(what):
    grid = tw.Grid(-2.2, 2.2, 60)
    problem = tilted(0.8)

    def answer(step):
        chain = tw.discretise(tw.diffusion_limit(tw.Descent(problem, tw.Minibatch(1), step)), grid)
        if what == "exit":
            return chain.exit_time(left_of_one).at([-1.0])
        if what == "committor":
            return chain.committor(lambda t: t[0] < -1, lambda t: t[0] > 1.5).at([0.3])
        return chain.average(lambda t: t[0] ** 2)

    # Central differences: h^2/6 of the third derivative and rounding 1e-12/h, h = 1e-4.
    found, h = jax.grad(answer)(0.2), 1e-4
    difference = (answer(0.2 + h) - answer(0.2 - h)) / (2 * h)
    assert float(found) == pytest.approx(float(difference), rel=2e-5)


def test_derivatives_by_noise_and_loss_agree_with_differences():
    grid = tw.Grid(-2.2, 2.2, 60)

    def answer(numbers):
        depth, beta = numbers
        drift = eqx.Partial(lambda depth, t: -depth * t * (t**2 - 1), depth)
        chain = tw.discretise(tw.Diffusion(drift, beta, 0.1), grid)
        return chain.exit_time(left_of_one).at([-1.0])

    at, h = jnp.array([1.0, 0.3]), 1e-4
    found = jax.grad(answer)(at)
    for axis in range(2):
        shift = jnp.zeros(2).at[axis].set(h)
        difference = (answer(at + shift) - answer(at - shift)) / (2 * h)
        assert float(found[axis]) == pytest.approx(float(difference), rel=2e-5)


def test_noise_that_varies_in_time_is_evolved_and_nothing_else():
    # Dai and Zhu, Theorem 2.4 with eta(t) = 2 (1 + 1/(1+t)): L = x^2/2, so a Gaussian start stays
    # Gaussian with v' = -2 v + 2/eta(t).
    noise = isotropic(1.0, lambda t: 1 / (1 + 1 / (1 + t)), 1.0)
    diffusion = tw.Diffusion(lambda t: -t, noise, 0.1)
    grid = tw.Grid(-5.0, 5.0, 250)
    chain = tw.discretise(diffusion, grid)
    start = lambda t: jnp.exp(-(t[0] ** 2))  # noqa: E731 -- a density like any other
    later = chain.evolve(start, [2.0]).densities[0]
    variance = float(grid.integrate(later * grid.centres[0] ** 2))
    v, dt = 0.5, 1e-4
    for k in range(20_000):
        s = (k + 0.5) * dt
        v = v * np.exp(-2 * dt) + (1 - np.exp(-2 * dt)) / 2 / (1 + 1 / (1 + s))
    # Finite volumes add at most h^2/12 * 4 = 5e-4 of the variance, .04 wide cells.
    assert variance == pytest.approx(v, rel=1e-3)
    with pytest.raises(InputError, match="varies in time"):
        chain.stationary()


def test_options_and_dynamics_that_do_not_fit_are_refused():
    grid = tw.Grid(-2.0, 2.0, 20)
    with pytest.raises(InputError, match="'draws' does not apply"):
        tw.discretise(brownian(), grid, draws="exact")
    with pytest.raises(InputError, match="'quadrature' does not apply"):
        tw.discretise(tw.Descent(tilted(1.0), tw.Minibatch(1), 0.1), grid, quadrature=1)
    chain = tw.discretise(brownian(), grid)
    with pytest.raises(InputError, match="array, which has no coarser version"):
        chain.exit_time(chain.grid.centres[0] < 1.0, error=True)
    odd = tw.discretise(brownian(), tw.Grid(-2.0, 2.0, 21))
    with pytest.raises(InputError, match="even number"):
        odd.exit_time(lambda t: t[0] < 1.0, error=True)
    with pytest.raises(InputError, match="holds no cell"):
        chain.exit_time(lambda t: t[0] > 5.0)
