"""What a point allows: the thresholds of a problem at its parameters, with few products."""

import contextlib
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.errors import InputError
from thalweg.estimate import Estimate
from thalweg.gradnorms import problem_gradient_norms, squared_norm
from thalweg.problem import FiniteSum, Params
from thalweg.stability.batch_sharpness import batch_sharpness
from thalweg.stability.batches import check_step, problem_factor
from thalweg.stability.forms import Forms, Spectra, forms, spectra
from thalweg.stability.mean_square import smallest_batch
from thalweg.stability.moments import Bracket, SecondMoments
from thalweg.stability.regular import stationary
from thalweg.stability.restricted import restricted_gradients
from thalweg.stability.span import Span, first_span

# A sample is fitted if its gradient is at most this share of sharpness times |theta|: a Newton
# step along the sharpest direction then moves by so small a share of the parameters.
_FITTED = 1e-3
# Batches drawn for the batch sharpness.
_BATCHES = 32
# An eigenvalue below minus this share of the sharpness is negative beyond the accuracy to which a
# network's is found.
_NEGATIVE = 2e-3


class Reduced(NamedTuple):
    """A point as the thresholds see it: enough for every batch and step.

    Attributes:
        forms: Condition (4).
        moments: The map of second moments on the directions worked on.
        noise: The covariance of one sample's gradient on them, in the eigenbasis of H.
    """

    forms: Forms
    moments: SecondMoments
    noise: Float[np.ndarray, "r r"]


class _Decision(NamedTuple):
    """The part of an :class:`Assessment` that depends on the batch and the step."""

    largest_step: float
    largest_step_necessary: float
    largest_step_gd: float
    mean_square: Bracket
    stable: bool | None
    critical_batch: int | None
    excess_loss: float


class Assessment(NamedTuple):
    r"""What :func:`assess` finds at a point.

    Attributes:
        sharpness: :math:`\lambda_{\max}(H)`.
        nonuniformity: :math:`\lambda_{\max}(\Sigma)^{1/2}`.
        smallest_eigenvalue: :math:`\lambda_{\min}(H)`, to about a thousandth of the sharpness on a
            network; clearly negative at a point that is no minimum.
        largest_step: By condition (4); see :func:`largest_step` for what that means on a network.
        largest_step_necessary: A bound beyond which SGD is unstable in mean square.
        largest_step_gd: :math:`2/\lambda_{\max}(H)`.
        mean_square: Between which steps the exact mean-square threshold lies, on the directions
            worked on: all of them up to 64 parameters, else the curved part of the span of the
            leading eigenvectors. The upper end holds on the whole space; directions left out can
            only lower the threshold (:func:`mean_square_bracket` takes more of them).
        stable: True if the step asked about is below that bracket, False if it is above (unstable
            in mean square whatever was left out), None in between.
        critical_batch: The smallest batch for which the step is stable by the same bracket; None if
            it is not even for full descent.
        interpolates: Whether every sample is fitted: no sample's gradient exceeds a thousandth of
            the sharpness times :math:`|\theta|`. If not, ``mean_square`` bounds a noise ball.
        excess_loss: The mean height of that ball at the step asked about,
            :math:`\operatorname{tr}(H M)/2` of :func:`limit_covariance` on the directions worked
            on; infinite where it has no bound, zero where the samples' gradients vanish.
        batch_sharpness: See :func:`batch_sharpness`; None without a key, or where gradients vanish.
        loss: The objective.
        gradient_norm: :math:`|\nabla f|`, zero at a critical point.
        mean_sample_gradient: The mean of :math:`|\nabla f_i|` with weights :math:`a_i`.
        max_sample_gradient: The largest of them. Both vanish exactly at an interpolating minimum,
            which the theory presumes; compare with the same numbers elsewhere, at the start say.
        hessian_vectors: Leading eigenvectors of H as columns, to start the next assessment.
        nonuniformity_vectors: Leading eigenvectors of :math:`\Sigma`, likewise.
        reduced: What :func:`reassess` takes for another batch or step.
    """

    sharpness: float
    nonuniformity: float
    smallest_eigenvalue: float
    largest_step: float
    largest_step_necessary: float
    largest_step_gd: float
    mean_square: Bracket
    stable: bool | None
    critical_batch: int | None
    interpolates: bool
    excess_loss: float
    batch_sharpness: Estimate | None
    loss: float
    gradient_norm: float
    mean_sample_gradient: float
    max_sample_gradient: float
    hessian_vectors: Float[Array, "size k"]
    nonuniformity_vectors: Float[Array, "size k"]
    reduced: Reduced

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to know before the thresholds are believed, in sentences; none at a clean point."""
        found = []
        if self.smallest_eigenvalue < -_NEGATIVE * abs(self.sharpness):
            found.append(
                f"H has the eigenvalue {self.smallest_eigenvalue:.4g}: no minimum, and no step is "
                "stable in that direction; the thresholds are those of the curved directions"
                if self.mean_square.upper > 0
                else f"H has the eigenvalue {self.smallest_eigenvalue:.4g}: no minimum, and no "
                "step is stable"
            )
        if not self.interpolates:
            height = f"; its mean height above the minimum is {self.excess_loss:.4g}"
            found.append(
                "the samples disagree: the norms of their gradients are "
                f"{self.mean_sample_gradient:.4g} in the mean, {self.max_sample_gradient:.4g} at "
                "most; SGD does not come to rest here, and its noise has a bound below the "
                f"threshold only{height if math.isfinite(self.excess_loss) else ''}"
            )
        return tuple(found)


def assess(
    problem: FiniteSum,
    params: Params,
    *,
    batch_size: int,
    step: float,
    replace: bool = False,
    directions: int = 8,
    previous: Assessment | None = None,
    key: Array | None = None,
) -> Assessment:
    r"""Sharpness, non-uniformity and stability of the point reached, with few products.

    Args:
        problem: The objective.
        params: Where.
        batch_size: The batch B.
        step: The step :math:`\eta` asked about.
        replace: Batches drawn with replacement.
        directions: Leading eigenvectors of H and of :math:`\Sigma` used; see :func:`largest_step`.
        previous: The assessment of a point nearby, whose eigenvectors start the search.
        key: Draws 32 batches for the batch sharpness, which is left out without one.

    Cost: that of :func:`largest_step`, and with k directions in the span (at most twice
    ``directions``) some 4 k^2 evaluations of the losses for the samples' Hessians on it.

    Raises:
        InputError: As for :func:`sufficient_condition`, or fewer than 1 direction.
    """
    problem_factor(problem, batch_size, replace)
    check_step(step)
    starts: tuple[Array | None, Array | None] = (None, None)
    if previous is not None:
        starts = (previous.hessian_vectors[:, 0], previous.nonuniformity_vectors[:, 0])
    found = spectra(problem, params, directions, starts)
    loss, gradient_norm, norms, length = _slopes(problem, params)
    sharpness, most = float(found.curved.values[0]), float(jnp.max(norms))
    lengths = max(float(length), math.sqrt(float(jnp.finfo(norms.dtype).eps)))
    span = first_span(problem, params, found)
    reduced = _reduced(problem, params, found, span)
    seen = None
    if key is not None and most > 0:
        # Refused where a drawn batch's gradient vanishes.
        with contextlib.suppress(InputError):
            seen = batch_sharpness(
                problem, params, batch_size=batch_size, key=key, replace=replace, batches=_BATCHES
            )
    return Assessment(
        sharpness=sharpness,
        nonuniformity=math.sqrt(max(0.0, float(found.uneven.values[0]))),
        smallest_eigenvalue=span.lowest,
        interpolates=most <= _FITTED * abs(sharpness) * lengths,
        batch_sharpness=seen,
        loss=float(loss),
        gradient_norm=float(gradient_norm),
        mean_sample_gradient=float(jnp.dot(problem.weights.astype(norms.dtype), norms)),
        max_sample_gradient=most,
        hessian_vectors=found.curved.vectors,
        nonuniformity_vectors=found.uneven.vectors,
        reduced=reduced,
        **_decision(problem, reduced, batch_size, step, replace)._asdict(),
    )


def reassess(
    problem: FiniteSum,
    assessment: Assessment,
    *,
    batch_size: int,
    step: float,
    replace: bool = False,
) -> Assessment:
    """The assessment of the same point for another batch or step, without a product.

    The batch sharpness, which would need products, is None.

    Raises:
        InputError: As for :func:`sufficient_condition`.
    """
    check_step(step)
    decision = _decision(problem, assessment.reduced, batch_size, step, replace)
    return assessment._replace(batch_sharpness=None, **decision._asdict())


def _reduced(problem: FiniteSum, params: Params, found: Spectra, span: Span) -> Reduced:
    moments = span.moments()
    slopes = restricted_gradients(problem, params, span.basis) @ span.curved() @ moments.basis
    slopes -= span.weights @ slopes
    noise = slopes.T @ (span.weights[:, None] * slopes)
    return Reduced(forms(found, problem.weights), moments, noise)


def _decision(
    problem: FiniteSum, reduced: Reduced, batch_size: int, step: float, replace: bool
) -> _Decision:
    factor = problem_factor(problem, batch_size, replace)
    bounds, moments = reduced.forms.bounds(factor), reduced.moments
    bracket = moments.bracket(factor)
    M = stationary(moments, factor, step, factor * reduced.noise)
    height = float(moments.curvatures @ np.diag(M)) / 2 if np.isfinite(M).all() else math.inf
    return _Decision(
        largest_step=bounds.sufficient,
        largest_step_necessary=bounds.necessary,
        largest_step_gd=bounds.descent,
        mean_square=bracket,
        stable=_verdict(step, bracket),
        critical_batch=smallest_batch(moments, problem.n, step, replace),
        excess_loss=height,
    )


def _verdict(step: float, bracket: Bracket) -> bool | None:
    if step <= bracket.lower:
        return True
    return False if step > bracket.upper else None


@jax.jit
def _slopes(problem: FiniteSum, params: Params) -> tuple[Array, Array, Array, Array]:
    """The objective, the norms of its gradient, of the samples' gradients and of the params."""
    norm = jnp.sqrt(squared_norm(problem.gradient(params)))
    length = jnp.sqrt(squared_norm(params))
    return problem.value(params), norm, problem_gradient_norms(problem, params), length
