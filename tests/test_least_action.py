"""The documents' barriers, of SGD itself and of its diffusion limit."""

import pytest

import thalweg as tw
from thalweg.errors import InputError
from thalweg.paths import minimum_action_path, quasi_potential

PIECEWISE = tw.Descent(tw.landscapes.piecewise_linear().problem, tw.Minibatch(1), 1.0)
EQUATION = tw.diffusion_limit(PIECEWISE)


@pytest.mark.parametrize(
    ("start", "chain", "equation"), [(-1.0, 5.083, 2.3419), (0.2, 1.8326, 0.18967)]
)
def test_barriers_of_an_and_ying(start, chain, equation):
    # Gradients are constant on each side, so that V is the length of the way times p with
    # .4 e^(-p g_1) + .6 e^(-p g_2) = 1, and p = 2 b/C for the equation. On the right, uphill
    # from .2, g = (.1, -5): p = log(1/.4)/.1 a unit, 1.8326 in all, for e^(-5p) is below 1e-19.
    # At the step 1, the exponent of smaller ones is this over the step.
    grid = tw.Grid(-3.0, 2.0, 1000)
    for dynamics, expected in ((PIECEWISE, chain), (EQUATION, equation)):
        found = quasi_potential(dynamics, grid, start)
        assert found.at([0.0]) == pytest.approx(expected, abs=1e-3)
        barrier = found.barrier(lambda x: (x[0] < 0) == (start < 0))
        assert barrier.exponent == pytest.approx(found.at([0.0]), rel=1e-9)
        assert barrier.point == pytest.approx([0.0], abs=1e-9)


@pytest.mark.slow
def test_quasi_potentials_of_the_classification_problem():
    # The diffusion's are integrals of 2 f'/C: .0425 for SGD, ten times that for RR. The chains'
    # differ by a factor of two only.
    landscape = tw.landscapes.robust_classification()
    sharp, top = landscape.minima[0].params, landscape.saddles[0].params
    grid = tw.Grid(-0.5, 1.0, 300)
    found = {}
    for name, sampler in (("sgd", tw.Minibatch(1)), ("rr", tw.Reweighted(1))):
        descent = tw.Descent(landscape.problem, sampler, 1.0)
        found[name] = [
            quasi_potential(dynamics, grid, sharp).at(top)
            for dynamics in (descent, tw.diffusion_limit(descent))
        ]
    assert found["sgd"][1] == pytest.approx(0.0425, abs=5e-5)
    assert found["rr"][1] == pytest.approx(0.4386, abs=5e-5)
    assert found["rr"][0] / found["sgd"][0] < 2


def test_noise_that_vanishes_at_an_interpolating_minimum_is_refused():
    landscape = tw.landscapes.toy_pair()
    descent = tw.Descent(landscape.problem, tw.Minibatch(1), 0.1)
    with pytest.raises(InputError, match=r"noise at the point of rest .* vanishes"):
        minimum_action_path(descent, [1.0], landscape.saddles[0])
