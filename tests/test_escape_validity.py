"""When the law of Eyring and Kramers is not to be believed, and when there is none."""

import math
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import thalweg as tw
from thalweg.escape import eyring_kramers, in_parallel, kramers_law

KEY = jax.random.key(0)
LEFT, TOP = jnp.array([-1.0]), jnp.array([0.0])
LEFT_2, TOP_2 = jnp.array([-1.0, 0.0]), jnp.array([0.0, 0.0])


def quartic(t):
    """The drift of L = (x^2 - 1)^2 / 4."""
    return t - t**3


def upright(t):
    """The same in a straight valley."""
    return jnp.stack([t[0] - t[0] ** 3, -2 * t[1]])


@pytest.fixture(scope="module")
def points():
    """Minimum and top of the double well, described."""
    problem = tw.landscapes.double_well().problem
    return [tw.critical_point(problem, place) for place in (LEFT, TOP)]


@pytest.mark.parametrize(("T", "valid"), [(0.11, False), (0.099, True)])
def test_too_hot_is_hotter_than_two_fifths_of_the_barrier(points, T, valid):
    for rate in (
        kramers_law(*points, temperature=T),
        eyring_kramers(tw.Diffusion(quartic, 2 * T, 0.1), LEFT, TOP),
    ):
        assert rate.valid == valid
        assert rate.reason == "" if valid else "too hot for a rate" in rate.reason


def test_a_minimum_that_is_flat_for_its_depth_is_flagged():
    # V = x^4/4 - x^3/3 + .001 x^2 has a shallow Hessian at 0: corrections of the order of T/h^2.
    def flat(t):
        return -(0.05 * t + 4 * t**3 - 10 * t**9)

    top = brentq(lambda x: float(flat(jnp.array([x]))[0]), 0.5, 1.0)
    rate = eyring_kramers(tw.Diffusion(flat, 0.02, 0.1), jnp.array([0.0]), jnp.array([top]))
    assert rate.exponent > 2.5
    assert not rate.valid
    assert "the next order changes the time by -" in rate.reason


def test_without_noise_nothing_leaves(points):
    still = kramers_law(*points, temperature=0.0, step=0.1)
    full = eyring_kramers(
        tw.Descent(tw.landscapes.double_well().problem, tw.Full(), 0.1), LEFT, TOP
    )
    vanishing = eyring_kramers(tw.Diffusion(quartic, lambda t: (t + 1) ** 2, 0.1), LEFT, TOP)
    for rate in (still, full, vanishing):
        assert rate.time == rate.log_time == rate.steps == rate.prefactor == math.inf
        assert in_parallel(rate, rate) is rate
        assert not rate.valid
    assert "no noise at [-1.]" in vanishing.reason
    assert "temperature is 0" in still.reason


def test_a_degenerate_point_is_flagged(points):
    flat = SimpleNamespace(value=0.25, eigenvalues=np.array([-1.0, 1e-12]), params=TOP_2)
    deep = SimpleNamespace(value=0.0, eigenvalues=np.array([2.0, 2.0]), params=LEFT_2)
    rate = kramers_law(deep, flat, temperature=0.05)
    assert not rate.valid
    assert "the saddle is degenerate" in rate.reason
    flat_valley = tw.Diffusion(lambda t: jnp.array([1.0, 0.0]) * t - t**3, 0.08, 0.1)
    found = eyring_kramers(flat_valley, LEFT_2, TOP_2)
    assert not found.valid
    assert "degenerate" in found.reason
    assert found.correction is None


def test_what_is_no_saddle_has_no_rate(points):
    minimum, top = points
    diffusion = tw.Diffusion(quartic, 0.1, 0.1)
    with pytest.raises(tw.InputError, match="a minimum has none"):
        kramers_law(minimum, minimum, temperature=0.05)
    with pytest.raises(tw.InputError, match="expected a minimum"):
        kramers_law(top, top, temperature=0.05)
    with pytest.raises(tw.InputError, match="expected the saddle to be higher"):
        kramers_law(minimum, replace(top, value=-1.0), temperature=0.05)
    with pytest.raises(tw.InputError, match=r"the saddle at \[1.\] has 0 unstable directions"):
        eyring_kramers(diffusion, LEFT, jnp.array([1.0]))
    with pytest.raises(tw.InputError, match="expected a critical point"):
        eyring_kramers(diffusion, LEFT, jnp.array([0.1]))
    with pytest.raises(tw.InputError, match="two finite points apart"):
        eyring_kramers(diffusion, LEFT, LEFT)
    with pytest.raises(tw.InputError, match="shapes"):
        eyring_kramers(diffusion, LEFT, TOP_2)
    with pytest.raises(tw.InputError, match="expected a top"):
        kramers_law(minimum, SimpleNamespace(value=1.0, slopes=(-1.0, 1.0)), temperature=0.1)
    with pytest.raises(tw.InputError, match="finite number at least 0"):
        kramers_law(*points, temperature=-1.0)


def test_what_has_no_equation_has_no_rate():
    diffusion = tw.Diffusion(upright, lambda t: jnp.array([[1.0, 1.0], [1.0, 1.0]]), 0.1)
    with pytest.raises(tw.InputError, match="does not act in all directions"):
        eyring_kramers(diffusion, LEFT_2, TOP_2)
    with pytest.raises(tw.InputError, match="varies in time"):
        eyring_kramers(tw.Diffusion(quartic, 0.1, 0.1).scheduled(lambda t: 1 + t), LEFT, TOP)
    descent = tw.Descent(tw.landscapes.double_well().problem, tw.Cyclic(1), 0.1)
    with pytest.raises(tw.InputError, match="no diffusion limit"):
        eyring_kramers(descent, LEFT, TOP)
    with jax.enable_x64(False), pytest.raises(tw.InputError, match="64 bits"):
        eyring_kramers(tw.Diffusion(quartic, 0.1, 0.1), LEFT, TOP)


@pytest.mark.slow
def test_diffusions_leave_at_rates_a_hundred_times_apart_where_the_chains_do_not():
    # Robust classification at eta = .06, from the sharp minimum past the top: draws by gradient
    # norm instead of at random. The equations say 10.88 and 1881 steps, on 16,384 cells; on those
    # used here 1.5 % and .2 % more. One step of either chain crosses the well, and both are out in
    # some fifty: 48.1 and 56.0, 1.3 % less than on these cells.
    landscape = tw.landscapes.robust_classification()
    sharp, top = landscape.minima[0].params, landscape.saddles[0].params[0]
    box = jnp.array([-2.25]), jnp.array([2.75])
    means = {}
    for name, sampler, cells in (
        ("sgd", tw.Minibatch(1), 1024),
        ("rr", tw.Reweighted(1, by="sample"), 4096),
    ):
        descent = tw.Descent(landscape.problem, sampler, 0.06)
        limit = tw.discretise(tw.diffusion_limit(descent), tw.Grid(*box, cells), quadrature=2)
        chain = tw.discretise(descent, tw.Grid(*box, 1024), draws="exact", subcells=1)
        means[name] = [
            float(grid.exit_time(lambda x: x[..., 0] < top).at(sharp)) / 0.06
            for grid in (limit, chain)
        ]
        run = tw.simulate(
            descent, sharp, steps=1500, key=KEY, chains=200, exit=lambda x: x[0] > top
        )
        mean, error = run.mean_exit_step()
        assert means[name][1] == pytest.approx(mean, abs=3 * error + 0.013 * mean)
    (sgd_limit, sgd), (rr_limit, rr) = means["sgd"], means["rr"]
    assert rr_limit / sgd_limit == pytest.approx(1881 / 10.88, rel=0.02)
    assert 1.1 < rr / sgd < 1.2
