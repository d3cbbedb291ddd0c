"""The exact mean-square threshold of a problem, matrix-free, on a span that is enlarged."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from thalweg.curvature import DENSE_SIZE, hessian, top_eigenvalues
from thalweg.errors import InputError
from thalweg.problem import FiniteSum, Params
from thalweg.stability.batches import ROUNDING, Family, problem_factor
from thalweg.stability.forms import Spectra, spectra
from thalweg.stability.moments import SecondMoments
from thalweg.stability.restricted import pushed, restricted_hessians

# Numbers of the samples' Hessians that are held at once: half a GiB.
_HELD = 2**26
# Directions that a round adds at most, and the share of the largest below which none is worth it.
_ADDED, _MINOR = 8, 1e-3
# Directions with less than this share of the largest curvature are left out, and those that are not
# more curved than twice what the most negative one is: they cannot be told from it.
_FLAT, _DOUBT = 1e-5, 2.0


class Span(NamedTuple):
    """A span and the samples' Hessians on it.

    Attributes:
        basis: Orthonormal columns, shape (P, k).
        hessians: Shape (n, k, k).
        weights: The samples' weights.
        rounding: The relative size below which a number is none.
        lowest: The smallest eigenvalue of H on the whole space.
    """

    basis: np.ndarray
    hessians: np.ndarray
    weights: np.ndarray
    rounding: float
    lowest: float

    @property
    def whole(self) -> bool:
        """Whether it holds all directions there are."""
        return self.basis.shape[0] == self.basis.shape[1]

    def curved(self) -> np.ndarray:
        """The directions kept of it: all of a whole space, the curved ones of a span."""
        if self.whole:
            return np.eye(len(self.basis))
        values, vectors = np.linalg.eigh(np.tensordot(self.weights, self.hessians, axes=1))
        return vectors[:, values > max(_FLAT * values[-1], -_DOUBT * self.lowest)]

    def moments(self) -> SecondMoments:
        """The map of second moments on the directions kept."""
        kept = self.curved()
        return SecondMoments(Family(kept.T @ self.hessians @ kept, self.weights, self.rounding))


class SpanBracket(NamedTuple):
    r"""The exact mean-square threshold of a problem, as far as a span shows it.

    Attributes:
        lower: SGD is stable in mean square up to here *if it keeps to the span* (Collatz and
            Wielandt's bound for one positive definite matrix on it).
        upper: SGD is unstable in mean square beyond, on the whole space: a proof, whatever the
            span leaves out.
        directions: How many were kept of the span.
        change: By how much, relatively, the last two enlargements lowered the threshold; infinite
            before there were two, 0 on the whole space.
        closed: Whether the bracket and the last change are within the accuracy asked for.
        whole: Whether the span is the whole space: both ends then hold without reservation.
        lowest: The smallest eigenvalue of H, to about a thousandth of the largest. If it is
            negative beyond that the point is no minimum; SGD leaves in its direction at every step,
            and the bracket is that of the directions with more than twice its size as curvature.
    """

    lower: float
    upper: float
    directions: int
    change: float
    closed: bool
    whole: bool
    lowest: float

    def __str__(self) -> str:
        where = "on the whole space" if self.whole else f"on {self.directions} directions"
        state = "" if self.closed else f", not closed: it still moved by {self.change:.1%}"
        return f"eta_var in [{self.lower:.6g}, {self.upper:.6g}] {where}{state}"


def mean_square_bracket(
    problem: FiniteSum,
    params: Params,
    *,
    batch_size: int,
    replace: bool = False,
    rtol: float = 0.02,
    directions: int = 8,
    largest_span: int = 64,
) -> SpanBracket:
    r"""The exact mean-square threshold at an interpolating minimum, without a P x P matrix.

    With V an orthonormal basis of a span and the samples' Hessians :math:`V^\top H_i V` on it,
    :func:`mean_square_threshold` of these is, as the largest quotient
    :math:`\langle M, D M \rangle/\langle M, C M \rangle` over the matrices :math:`M = V m V^\top`
    only, an **upper bound on the whole space**. Its maximiser, of low rank and positive
    semidefinite, says where to go on: the span is enlarged by the leading part of
    :math:`D M V` outside of it (a Rayleigh-Ritz step of the power iteration
    :math:`M \to C^{-1} D M`), until two rounds together lower the threshold by less than
    ``rtol`` / 2. It begins with the leading eigenvectors of H and :math:`\Sigma`. Directions with
    less than 1e-5 of the sharpness as curvature, or than twice the size of a negative eigenvalue,
    are left out, for at a point reached by training they cannot be told from descending ones.

    *What holds for the whole space.* The upper end does. The lower end does not: directions that
    were never met can only lower the threshold, and that enlarging the span no longer does so is
    evidence, as the residual is for an eigenvalue of Lanczos, and no proof. If all
    :math:`H_i \ge 0`, every step up to :math:`2/((1-p) \lambda_{\max}(H) + p \max_i
    \lambda_{\max}(H_i))` is stable, for then :math:`H_i^2 \le \lambda_{\max}(H_i) H_i`, hence
    condition (4). Up to 64 parameters the span is the whole space.

    Args:
        problem: The objective.
        params: An interpolating minimum.
        batch_size: The batch B.
        replace: Batches drawn with replacement.
        rtol: The accuracy asked for, of the bracket and of the last change.
        directions: Leading eigenvectors of H and of :math:`\Sigma` to begin with.
        largest_span: The budget: no more directions than that. What has been reached by then is
            returned, with ``closed`` False.

    Cost: with k directions in the end, some :math:`4 k^2` evaluations of the losses, memory
    :math:`n k^2` numbers; a round adds up to eight directions at some :math:`6 k` evaluations each.

    Raises:
        InputError: As for :func:`largest_step`; an rtol outside (0, 1).
    """
    factor = problem_factor(problem, batch_size, replace)
    if not 0 < rtol < 1:
        raise InputError(f"rtol={rtol}; expected an accuracy between 0 and 1")
    span = first_span(problem, params, directions)
    limit = min(largest_span, int(math.sqrt(_HELD / problem.n)))
    moments = span.moments()
    threshold = moments.threshold(factor)
    changes = [math.inf, math.inf]
    while sum(changes[-2:]) > rtol / 2 and 0 < threshold < math.inf and not span.whole:
        if span.basis.shape[1] >= min(limit, span.basis.shape[0]):
            break
        span = _enlarged(problem, params, span, moments.leading(factor), factor, limit)
        moments = span.moments()
        changes.append(abs(1 - moments.threshold(factor) / threshold))
        threshold = moments.threshold(factor)
    lower, upper = moments.bracket(factor)
    change = 0.0 if span.whole else sum(changes[-2:])
    return SpanBracket(
        lower=lower,
        upper=upper,
        directions=len(moments.curvatures),
        change=change,
        closed=threshold == 0 or (change <= rtol / 2 and upper - lower <= rtol * upper),
        whole=span.whole,
        lowest=span.lowest,
    )


def first_span(problem: FiniteSum, params: Params, first: int | Spectra) -> Span:
    """The whole space if it is small, else the span of so many leading eigenvectors of each."""
    problem.check_params(params)
    flat = jax.eval_shape(lambda p: ravel_pytree(p)[0], params)
    rounding = ROUNDING * float(jnp.finfo(flat.dtype).eps)
    weights = np.asarray(problem.weights, dtype=float)
    if flat.size <= DENSE_SIZE and problem.n * flat.size**2 <= _HELD:
        basis = np.eye(flat.size)
    else:
        basis = (spectra(problem, params, first) if isinstance(first, int) else first).basis
    ends = top_eigenvalues(hessian(problem, params), largest=False)
    lowest = float(ends.checked().values[0])
    hessians = restricted_hessians(problem, params, basis, basis)
    return Span(basis, (hessians + hessians.mT) / 2, weights, rounding, lowest)


def _enlarged(
    problem: FiniteSum, params: Params, span: Span, leading: np.ndarray, factor: float, limit: int
) -> Span:
    """The span with what its top moments are carried to, up to a size; the same if nothing is."""
    V = span.basis
    room = min(_ADDED, limit - V.shape[1])
    inside = span.curved() @ span.moments().basis
    M = inside @ leading @ inside.T
    sizes, vectors = np.linalg.eigh(M)
    images = []
    for size, c in zip(sizes[: -room - 1 : -1], vectors.T[: -room - 1 : -1], strict=True):
        # H_i V m V' H_i u for u = V c: the directions V z_i with z_i = m (V' H_i V) c.
        z = span.hessians @ c @ M
        mixed = factor * z + (1 - factor) * (span.weights @ z)
        images.append(size * pushed(problem, params, V, mixed))
    outside = np.stack(images, axis=1)
    before = np.linalg.norm(outside)
    for _ in range(2):  # once leaves rounding along V that is large against what is small
        outside -= V @ (V.T @ outside)
    left, values, _ = np.linalg.svd(outside, full_matrices=False)
    new = left[:, values > max(_MINOR * values[0], span.rounding * before)]
    return _with(problem, params, span, new) if new.shape[1] else span


def _with(problem: FiniteSum, params: Params, span: Span, new: np.ndarray) -> Span:
    """The span with more directions: only the pairs that are new are computed."""
    basis = np.hstack([span.basis, new])
    columns = restricted_hessians(problem, params, new, basis)
    k, more = span.basis.shape[1], new.shape[1]
    hessians = np.zeros((problem.n, k + more, k + more))
    hessians[:, :k, :k] = span.hessians
    hessians[:, k:, :] = columns
    hessians[:, :k, k:] = columns[:, :, :k].transpose(0, 2, 1)
    corner = hessians[:, k:, k:]
    hessians[:, k:, k:] = (corner + corner.mT) / 2
    return span._replace(basis=basis, hessians=hessians)
