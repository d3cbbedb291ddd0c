r"""Linear stability of SGD at a minimum: which minima a step and a batch size allow.

Near a minimum where every sample's gradient vanishes, SGD with batches of B moves by
:math:`\theta \to (I - \eta H_B) \theta` with a random mean :math:`H_B` of B samples' Hessians
:math:`H_i`. Here :math:`H = \sum_i a_i H_i`, :math:`\Sigma = \sum_i a_i H_i^2 - H^2` and the batch
factor p is that of :func:`batch_factor`. Wu, Ma and E's condition (4), "How SGD selects the global
minima" (2018), is :math:`(I - \eta H)^2 + \eta^2 p \Sigma \le I`: sufficient for mean-square
stability, and necessary too in one dimension. Where the samples' gradients do not vanish, the same
thresholds decide whether the noise around the minimum stays bounded.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.curvature import (
    DENSE_SIZE,
    Eigenpairs,
    Operator,
    hessian,
    hessian_product,
    nonuniformity_operator,
    nonuniformity_product,
    operator_at,
    sample_curvatures,
    top_eigenvalues,
)
from thalweg.errors import InputError
from thalweg.gradnorms import problem_gradient_norms, squared_norm
from thalweg.problem import FiniteSum, Params

# On a span of eigenvectors, directions with less than this share of the largest curvature are left
# out: at a point reached by training they cannot be told from slightly negative ones.
_FLAT = 1e-2


class Rectangle(NamedTuple):
    """The corner of the region that Wu, Ma and E draw in the sharpness/non-uniformity plane."""

    sharpness: float
    nonuniformity: float


class StepBounds(NamedTuple):
    r"""How large a step a minimum allows.

    Attributes:
        sufficient: The largest step for which condition (4) holds.
        necessary: No larger step is stable in mean square:
            :math:`2 \lambda / (\lambda^2 + p \sum_i a_i (v^\top H_i v - \lambda)^2)` with
            :math:`\lambda, v` the top eigenpair of H.
        descent: :math:`2/\lambda_{\max}(H)`, the limit of full gradient descent.
    """

    sufficient: float
    necessary: float
    descent: float


class Reduced(NamedTuple):
    r"""Condition (4) on the directions it is asked of: all, or the curved part of a span.

    Attributes:
        hessian: H on these directions, shape (k, k).
        square: :math:`H^2` on them (not the square of ``hessian`` on a span).
        spread: :math:`\Sigma` on them.
        variance: :math:`\sum_i a_i (v^\top H_i v - \lambda)^2` of the top eigenpair of H.
        sharpness: :math:`\lambda`.
        rounding: The relative size below which a number is none.
    """

    hessian: Float[np.ndarray, "k k"]
    square: Float[np.ndarray, "k k"]
    spread: Float[np.ndarray, "k k"]
    variance: float
    sharpness: float
    rounding: float

    def bounds(self, factor: float) -> StepBounds:
        """The step bounds for a batch factor p."""
        return StepBounds(
            sufficient=_threshold(self.hessian, self.square + factor * self.spread, self.rounding),
            necessary=_limit(self.sharpness, self.sharpness**2 + factor * self.variance),
            descent=_limit(self.sharpness, self.sharpness**2),
        )


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
        stable: True if condition (4) holds for the step asked about, False if the necessary bound
            is exceeded, None in between, where neither decides.
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
    stable: bool | None
    loss: float
    gradient_norm: float
    mean_sample_gradient: float
    max_sample_gradient: float
    hessian_vectors: Float[Array, "size k"]
    nonuniformity_vectors: Float[Array, "size k"]
    reduced: Reduced


class _Spectra(NamedTuple):
    """The two operators, their leading eigenpairs, and all v'H_i v along the sharpest v."""

    hessian: Operator
    nonuniformity: Operator
    curved: Eigenpairs
    uneven: Eigenpairs
    along: Array


def batch_factor(n: int, batch_size: int, replace: bool = False) -> float:
    r"""The factor p by which a batch carries the spread of one draw.

    :math:`p = (n - B)/(B (n - 1))` without replacement, :math:`1/B` with.

    Raises:
        InputError: A batch size below 1, or above n without replacement.
    """
    if n < 1 or batch_size < 1 or (batch_size > n and not replace):
        limit = "at least 1" if replace else f"1 to n={n} (draw with replace=True for more)"
        raise InputError(f"batch_size={batch_size} of n={n} samples; expected {limit}")
    if replace:
        return 1 / batch_size
    return (n - batch_size) / (batch_size * max(1, n - 1))


def rectangle(n: int, *, batch_size: int, step: float, replace: bool = False) -> Rectangle:
    r"""The rectangle :math:`a \le 2/\eta`, :math:`s \le 1/(\eta \sqrt p)`.

    It is drawn in Wu, Ma and E's diagram of sharpness a against non-uniformity s (their Figure 2).
    Inside it a minimum may be unstable and outside it stable: it is **neither sufficient nor
    necessary**, a guide to the eye. Use :func:`largest_step` to decide.

    Raises:
        InputError: A step that is not positive and finite, or as :func:`batch_factor`.
    """
    factor = batch_factor(n, batch_size, replace)
    _check_step(step)
    return Rectangle(2 / step, 1 / (step * math.sqrt(factor)) if factor else math.inf)


def sufficient_condition(
    problem: FiniteSum,
    params: Params,
    *,
    batch_size: int,
    step: float,
    replace: bool = False,
    rtol: float = 1e-3,
) -> float:
    r"""The left side of condition (4), :math:`\lambda_{\max}((I - \eta H)^2 + \eta^2 p \Sigma)`.

    The minimum is stable in mean square if it is at most 1. Along a flat direction it is 1 exactly
    and along a slightly negative one slightly more, so at the end of training compare with 1 plus
    a tolerance, or use :func:`largest_step`.

    Cost: at least 20 products with H twice and with :math:`\Sigma` once; ``rtol`` is that of
    :func:`thalweg.curvature.top_eigenvalues`.

    Raises:
        InputError: A step that is not positive and finite, a batch size out of range, or unequal
            weights without replacement for B > 1.
    """
    factor = _problem_factor(problem, batch_size, replace)
    _check_step(step)
    operator = operator_at(
        _sufficient_product, problem, params, jnp.asarray(step), jnp.asarray(factor)
    )
    return float(top_eigenvalues(operator, rtol=rtol).values[0])


def sufficient_threshold(
    hessians: Float[Array, "n d d"], batch_size: int, replace: bool = False
) -> float:
    r"""The largest step for which condition (4) holds, from dense samples' Hessians.

    Condition (4) reads :math:`\eta (H^2 + p \Sigma) \le 2 H`, hence the threshold is :math:`2/\mu`
    with :math:`\mu` the largest eigenvalue of :math:`H^{-1/2} (H^2 + p \Sigma) H^{-1/2}` on the
    range of H. It is 0 if H has a negative eigenvalue, or a null direction in which
    :math:`\Sigma` is positive, and infinite if all :math:`H_i` vanish.

    Source: derived from Wu, Ma and E (2018), equation (4); samples weigh 1/n.

    Raises:
        InputError: Hessians that are not symmetric or not finite, or a batch size out of range.
    """
    factor = batch_factor(hessians.shape[0], batch_size, replace)
    matrices = np.asarray(hessians, dtype=float)
    tolerance = 100 * float(jnp.finfo(hessians.dtype).eps)
    scale = np.abs(matrices).max()
    if not np.isfinite(scale) or np.abs(matrices - matrices.mT).max() > tolerance * scale:
        raise InputError("hessians are not finite and symmetric; expected matrices H_i = H_i'")
    H = matrices.mean(axis=0)
    deviations = matrices - H
    return _threshold(H, H @ H + factor * (deviations @ deviations).mean(axis=0), tolerance)


def largest_step(
    problem: FiniteSum,
    params: Params,
    *,
    batch_size: int,
    replace: bool = False,
    directions: int = 8,
) -> StepBounds:
    r"""How large a step the minimum allows, by condition (4), by necessity and for full descent.

    Up to 64 parameters condition (4) is decided exactly, as by :func:`sufficient_threshold`.
    Beyond, it is asked only of vectors in the span of the leading ``directions`` eigenvectors of H
    and of :math:`\Sigma`, without those that have less than a hundredth of the sharpness as
    curvature (where training stops, H is usually slightly indefinite, and then (4) itself fails at
    every step). A condition asked of fewer vectors holds more often: this is an **upper bound** of
    (4)'s own threshold, and it comes down as the span grows.

    Cost: 2 x ``directions`` products with H and :math:`\Sigma` besides the two Lanczos runs.

    Raises:
        InputError: As for :func:`sufficient_condition`, or fewer than 1 direction.
    """
    factor = _problem_factor(problem, batch_size, replace)
    return _reduced(_spectra(problem, params, directions, None), problem.weights).bounds(factor)


def assess(
    problem: FiniteSum,
    params: Params,
    *,
    batch_size: int,
    step: float,
    replace: bool = False,
    directions: int = 8,
    previous: Assessment | None = None,
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

    Raises:
        InputError: As for :func:`sufficient_condition`, or fewer than 1 direction.
    """
    factor = _problem_factor(problem, batch_size, replace)
    _check_step(step)
    spectra = _spectra(problem, params, directions, previous)
    reduced = _reduced(spectra, problem.weights)
    bounds = reduced.bounds(factor)
    lowest = top_eigenvalues(spectra.hessian, largest=False).values[0]
    loss, gradient_norm, norms = _slopes(problem, params)
    weights = problem.weights.astype(norms.dtype)
    return Assessment(
        sharpness=float(spectra.curved.values[0]),
        nonuniformity=math.sqrt(max(0.0, float(spectra.uneven.values[0]))),
        smallest_eigenvalue=float(lowest),
        largest_step=bounds.sufficient,
        largest_step_necessary=bounds.necessary,
        largest_step_gd=bounds.descent,
        stable=_verdict(step, bounds),
        loss=float(loss),
        gradient_norm=float(gradient_norm),
        mean_sample_gradient=float(jnp.dot(weights, norms)),
        max_sample_gradient=float(jnp.max(norms)),
        hessian_vectors=spectra.curved.vectors,
        nonuniformity_vectors=spectra.uneven.vectors,
        reduced=reduced,
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

    Raises:
        InputError: As for :func:`sufficient_condition`.
    """
    factor = _problem_factor(problem, batch_size, replace)
    _check_step(step)
    bounds = assessment.reduced.bounds(factor)
    return assessment._replace(
        largest_step=bounds.sufficient,
        largest_step_necessary=bounds.necessary,
        largest_step_gd=bounds.descent,
        stable=_verdict(step, bounds),
    )


def _sufficient_product(
    problem: FiniteSum, params: Params, step: Array, factor: Array, vector: Array
) -> Array:
    def contract(v: Array) -> Array:
        return v - step.astype(v.dtype) * hessian_product(problem, params, v)

    noise = nonuniformity_product(problem, params, vector)
    return contract(contract(vector)) + (step**2 * factor).astype(noise.dtype) * noise


def _spectra(
    problem: FiniteSum, params: Params, directions: int, previous: Assessment | None
) -> _Spectra:
    if directions < 1:
        raise InputError(f"directions={directions}; expected at least 1 eigenvector")
    curved, uneven = hessian(problem, params), nonuniformity_operator(problem, params)
    k = min(directions, curved.size)
    starts: tuple[Array | None, Array | None] = (None, None)
    if previous is not None:
        starts = (previous.hessian_vectors[:, 0], previous.nonuniformity_vectors[:, 0])
    top = top_eigenvalues(curved, k, start=starts[0])
    along = sample_curvatures(problem, params, top.vectors[:, 0])
    return _Spectra(curved, uneven, top, top_eigenvalues(uneven, k, start=starts[1]), along)


def _reduced(spectra: _Spectra, weights: Array) -> Reduced:
    sharpness = float(spectra.curved.values[0])
    deviations = np.asarray(spectra.along, dtype=float) - sharpness
    exact = spectra.hessian.size <= DENSE_SIZE
    return Reduced(
        *(_whole(spectra) if exact else _on_span(spectra)),
        variance=float(np.dot(np.asarray(weights, dtype=float), deviations**2)),
        sharpness=sharpness,
        rounding=100 * float(jnp.finfo(spectra.hessian.dtype).eps),
    )


def _whole(spectra: _Spectra) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    H = np.asarray(spectra.hessian.dense(), dtype=float)
    return H, H @ H, np.asarray(spectra.nonuniformity.dense(), dtype=float)


def _on_span(spectra: _Spectra) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H, H^2 and Sigma on the curved part of the span of the leading eigenvectors."""
    vectors = np.hstack([spectra.curved.vectors, spectra.uneven.vectors]).astype(float)
    basis = np.linalg.qr(vectors)[0]
    HQ = spectra.hessian.matmat(basis)
    curvatures, rotation = np.linalg.eigh(basis.T @ HQ)
    rotation = rotation[:, curvatures > _FLAT * curvatures[-1]]
    basis, HQ = basis @ rotation, HQ @ rotation
    noise = basis.T @ spectra.nonuniformity.matmat(basis)
    return basis.T @ HQ, HQ.T @ HQ, (noise + noise.T) / 2


def _threshold(H: np.ndarray, square: np.ndarray, tolerance: float) -> float:
    """The largest eta with eta * square <= 2 H as quadratic forms; both are symmetric."""
    curvatures, vectors = np.linalg.eigh(H)
    floor = tolerance * np.abs(curvatures).max()
    flat = vectors[:, curvatures <= floor]
    in_flat = np.abs(flat.T @ square @ flat).max(initial=0.0)
    if curvatures[0] < -floor or in_flat > tolerance * np.abs(square).max():
        return 0.0
    if flat.shape[1] == len(H):
        return math.inf
    scaled = vectors[:, curvatures > floor] / np.sqrt(curvatures[curvatures > floor])
    return float(2 / np.linalg.eigvalsh(scaled.T @ square @ scaled)[-1])


def _limit(slope: float, square: float) -> float:
    """The largest eta >= 0 with eta * square <= 2 * slope."""
    if square == 0:
        return math.inf
    return max(0.0, 2 * slope / square)


def _verdict(step: float, bounds: StepBounds) -> bool | None:
    if step <= bounds.sufficient:
        return True
    return False if step > bounds.necessary else None


@jax.jit
def _slopes(problem: FiniteSum, params: Params) -> tuple[Array, Array, Array]:
    """The objective, the norm of its gradient and the norms of the samples' gradients."""
    norm = jnp.sqrt(squared_norm(problem.gradient(params)))
    return problem.value(params), norm, problem_gradient_norms(problem, params)


def _problem_factor(problem: FiniteSum, batch_size: int, replace: bool) -> float:
    if not replace and batch_size > 1 and not problem.uniform:
        raise InputError(
            f"batches of {batch_size} without replacement need equal weights, and they differ; "
            "pass replace=True (draws with the weights as probabilities)"
        )
    return batch_factor(problem.n, batch_size, replace)


def _check_step(step: float) -> None:
    if not (math.isfinite(step) and step > 0):
        raise InputError(f"step={step}; expected a positive finite number")
