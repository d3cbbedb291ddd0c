"""Section 2: the variances of the gradients of SGD and of RR in the four regions."""

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from thalweg.papers.an_ying.common import POPULATION
from thalweg.papers.checks import Check, above, both, is_so, near
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_A1, _A2, _EPSILON, _K = 0.4, 0.6, 0.1, 5.0
_PLACES = (-1.5, -0.5, 0.1, 0.3)
_SAMPLERS = {
    "sgd": ("SGD", tw.Minibatch(1)),
    "rr-population": ("RR of section 2", POPULATION),
    "rr": ("RR of section 3", tw.Reweighted(1)),
}
# Sums of a few numbers of the size of K.
_ROUNDING = 1e-12


@experiment(
    "an-ying/variances",
    "The variances of the gradients in the four regions, and their balance under RR",
    covers=("section 2, variances",),
    seconds=(3, 3),
)
def variances(setting: Setting) -> Outcome:
    """Exact means and variances of one draw of each sampler in each region."""
    problem = tw.landscapes.piecewise_linear(a1=_A1, epsilon=_EPSILON, K=_K).problem
    places = jnp.array(_PLACES)[:, None]
    found = {}
    drifts = {}
    for family, (_, sampler) in _SAMPLERS.items():
        found[family] = np.asarray(
            jax.vmap(lambda x, s=sampler: s.covariance(problem, x)[0, 0])(places)
        )
        drifts[family] = np.asarray(jax.vmap(lambda x, s=sampler: s.mean(problem, x)[0])(places))
    slopes = np.asarray(jax.vmap(problem.gradient)(places))[:, 0]
    table = {"region": np.arange(1, 5), "theta": np.array(_PLACES), **found}
    return Outcome(_claims(found, drifts, slopes), {"variances": table}, [_picture()])


def _same(found: np.ndarray, expected: np.ndarray) -> Check:
    return both(
        *(
            near(float(f), float(e), tolerance=_ROUNDING)
            for f, e in zip(found, expected, strict=True)
        )
    )


def _claims(
    found: dict[str, np.ndarray], drifts: dict[str, np.ndarray], slopes: np.ndarray
) -> list[Claim]:
    f1 = _A1 / (_A1 + _K * _A2)
    up, down = np.sqrt((1 - f1) / f1), np.sqrt(f1 / (1 - f1))
    first, second = _A1 * up, _A2 * down
    printed = np.array(
        [
            (first - _EPSILON * second) ** 2,
            (first + _EPSILON * second) ** 2,
            (_EPSILON * first + _K * second) ** 2,
            (_EPSILON * first - _K * second) ** 2,
        ]
    )
    differences = np.array([1 - _EPSILON, 1 + _EPSILON, _K + _EPSILON, _K - _EPSILON])
    population, sgd = found["rr-population"], found["sgd"]
    norms = found["rr"]
    uneven = {name: float(v[2:].mean() / v[:2].mean()) for name, v in found.items()}
    worst = max(float(np.abs(d - slopes).max()) for d in drifts.values())
    return [
        Claim(
            "appendix A",
            "SGD has the variances a₁a₂(1-ε)², a₁a₂(1+ε)², a₁a₂(K+ε)², a₁a₂(K-ε)²",
            _same(sgd, _A1 * _A2 * differences**2),
        ),
        Claim(
            "section 2",
            "RR has (a₁√(f₂/f₁) ∓ εa₂√(f₁/f₂))² left of 0 and (εa₁√(f₂/f₁) ± Ka₂√(f₁/f₂))² right "
            "of it",
            _same(population, printed),
        ),
        Claim(
            "section 2",
            "with f₁ = a₁/(a₁ + K a₂) the noise at the two minima is balanced (but for ε)",
            both(
                near(float(first), float(_K * second), tolerance=_ROUNDING),
                near(uneven["rr-population"], 1.0, tolerance=2 * _EPSILON),
                above(uneven["sgd"], 10.0),
            ),
        ),
        Claim(
            "section 2",
            "resampling and reweighting leave the mean as it is",
            is_so(worst < _ROUNDING, f"largest difference {worst:.1g}"),
        ),
        *_claims_on_norms(norms, population, uneven),
    ]


def _claims_on_norms(
    norms: np.ndarray, population: np.ndarray, uneven: dict[str, float]
) -> list[Claim]:
    """What is said of the scheme by gradient norms on this example."""
    return [
        Claim(
            "section 3",
            "the scheme of section 3, by gradient norms, is that of section 2 on its example",
            _same(norms, population),
            is_so(
                bool((np.abs(norms / population - 1) > 0.5).all() and (norms < population).all()),
                "variances "
                + ", ".join(f"{v:.3g}" for v in norms)
                + " instead of "
                + ", ".join(f"{v:.3g}" for v in population),
            ),
            correction="it is another algorithm there, with less noise everywhere",
        ),
        Claim(
            "section 3",
            "it balances the noise across the two minima",
            near(uneven["rr"], 1.0, tolerance=2 * _EPSILON),
            above(abs(float(np.log(uneven["rr"]))), np.log(1.5)),
            correction="it lowers the noise on either side; right over left variance becomes "
            f"{uneven['rr']:.3g} (SGD {uneven['sgd']:.3g})",
        ),
    ]


def _picture() -> Picture:
    series = [
        Series("variances", "region", family, label, family, "points")
        for family, (label, _) in _SAMPLERS.items()
    ]
    return Picture(
        "variances",
        "Variance of one gradient in the regions θ < -1, -1 < θ < 0, 0 < θ < 1/K and θ > 1/K. "
        "RR of section 3 has none in the outer two.",
        [Panel("region, from left to right", "variance", series, log="y", limits=(0.05, 10.0))],
    )
