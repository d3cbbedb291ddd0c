r"""The map of SGD's second moments at a minimum, on dense matrices.

With batches of B, factor p (:func:`thalweg.stability.batch_factor`) and the quadratic model,
:math:`M_k = E[\theta_k \theta_k^\top]` moves by

.. math:: Q M = E[(I - \eta H_B) M (I - \eta H_B)] = M - 2 \eta\, C M + \eta^2 D M, \qquad
          C M = \tfrac12 (H M + M H), \quad D M = (1 - p) H M H + p \sum_i a_i H_i M H_i.

C, D and Q are self-adjoint for :math:`\langle A, B \rangle = \operatorname{tr} A B`, and Q maps
positive semidefinite matrices to such, so its spectral radius is its largest eigenvalue, with a
positive semidefinite eigenmatrix (Krein and Rutman). Mean-square stability is therefore
:math:`\eta \langle M, D M \rangle \le 2 \langle M, C M \rangle` for all symmetric M.

*Null directions.* Let H be positive semidefinite. C vanishes on the matrices supported on the null
space N of H, and only there; there the inequality asks that D vanish too, hence (a semidefinite
form with a zero in its diagonal has zeros in that row) that :math:`D M = 0`. That is so exactly if
p = 0 or every :math:`H_i` vanishes on N, for
:math:`\langle u u^\top, D v v^\top \rangle = p \sum_i a_i (u^\top H_i v)^2`. Otherwise no step is
stable. If it is so, mixed matrices (range times N) have D M = 0 as well, and what remains is the
range of H alone, where C is diagonal in H's eigenbasis with entries
:math:`(\lambda_a + \lambda_b)/2`: the threshold is :math:`2/\mu`, :math:`\mu` the largest
eigenvalue of :math:`C^{-1/2} D C^{-1/2}`, which is that of :math:`C^+ D`.

Source: R. Mulayoff and T. Michaeli, "Exact mean square linear stability analysis for SGD" (2024),
Theorem 5, with the null space derived here.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, eigh
from scipy.sparse.linalg import LinearOperator, cg, eigsh

from thalweg.errors import InputError
from thalweg.stability.batches import Family

Map = Callable[[np.ndarray], np.ndarray]

# Up to this many rows a map on matrices is written out: d^2 x d^2 numbers.
_WRITTEN_OUT = 12
# Up to this many, the sum over the samples is made once: d^4 numbers, 128 MiB.
_SUMMED = 64
# How far below the threshold the certificate of the lower end is taken, relatively.
_BELOW = 1e-4


class Bracket(NamedTuple):
    r"""Between which steps the exact mean-square threshold lies.

    Attributes:
        lower: Stable up to here *on the span worked on*: some positive definite M on it has
            :math:`C^{-1} D M \le \mu M`, which bounds the spectral radius from above (Collatz and
            Wielandt's bound for the cone of positive semidefinite matrices).
        upper: Unstable in mean square beyond, *on the whole space*: the quotient
            :math:`2 \langle M, C M \rangle / \langle M, D M \rangle` of one M bounds it.
    """

    lower: float
    upper: float


class Congruence:
    r"""The map :math:`M \to \sum_i w_i A_i M A_i^\top`.

    Cost of a product: :math:`d^4` operations if the sum over the n matrices has been made (up to 12
    rows, and up to 64 if n is larger than the rows), else :math:`4 n d^3`.
    """

    def __init__(self, matrices: np.ndarray, weights: np.ndarray):
        self.matrices, self.weights = matrices, weights
        n, d, _ = matrices.shape
        self._summed = None
        if d <= _WRITTEN_OUT or (d <= _SUMMED and n > d):
            flat = (np.sqrt(weights)[:, None, None] * matrices).reshape(n, d * d)
            pairs = (flat.T @ flat).reshape(d, d, d, d)
            self._summed = pairs.transpose(0, 2, 1, 3).reshape(d * d, d * d)

    def __call__(self, M: np.ndarray) -> np.ndarray:
        """The image of M; up to 12 rows of several, on leading axes."""
        n, d, _ = self.matrices.shape
        if self._summed is not None:
            return (M.reshape(-1, d * d) @ self._summed.T).reshape(M.shape)
        first = (self.matrices.reshape(n * d, d) @ M).reshape(n, d, d)
        first *= self.weights[:, None, None]
        second = self.matrices.transpose(0, 2, 1).reshape(n * d, d)
        return first.transpose(1, 0, 2).reshape(d, n * d) @ second


class SecondMoments:
    """C and D of a family of Hessians, on the range of their mean.

    Attributes:
        size: Rows of the matrices given.
        lowest: The smallest eigenvalue of H.
        indefinite: Whether it is negative beyond rounding.
        restless: Whether some sample's Hessian does not vanish in the null space of H.
        basis: The eigenvectors of H with positive eigenvalues, shape (d, r).
        curvatures: These eigenvalues, ascending, shape (r,).
    """

    def __init__(self, family: Family):
        hessians, weights, tolerance = family
        values, vectors = np.linalg.eigh(np.tensordot(weights, hessians, axes=1))
        scale = np.abs(hessians).max()
        self.size = len(values)
        self.lowest = float(values[0])
        self.indefinite = bool(values[0] < -tolerance * scale)
        curved = values > tolerance * scale
        self.curvatures, self.basis = values[curved], vectors[:, curved]
        moved = np.square(hessians @ vectors[:, ~curved]).sum(axis=1)
        in_flat = (weights @ moved).max(initial=0.0)
        self.restless = bool(in_flat > tolerance * scale**2 * self.size)
        self._carry = Congruence(self.basis.T @ hessians @ self.basis, weights)
        self._sums = self.curvatures[:, None] + self.curvatures

    def carried(self, M: np.ndarray, factor: float) -> np.ndarray:
        """D M, in the basis of H's eigenvectors."""
        mean = self.curvatures[:, None] * M * self.curvatures
        return (1 - factor) * mean + factor * self._carry(M)

    def threshold(self, factor: float) -> float:
        """The exact mean-square threshold for the batch factor p; 0 or infinite where it is."""
        if self.indefinite or (self.restless and factor > 0):
            return 0.0
        if not len(self.curvatures):
            return math.inf
        return 2 / largest_eigenvalue(self._scaled(factor), len(self.curvatures))[0]

    def leading(self, factor: float) -> np.ndarray:
        """The eigenmatrix at the threshold, positive semidefinite and of norm 1: what grows."""
        scaled = largest_eigenvalue(self._scaled(factor), len(self.curvatures))[1]
        values, vectors = np.linalg.eigh(np.sqrt(2 / self._sums) * scaled)
        # Where the largest eigenvalue is multiple, its matrices need not be semidefinite.
        M = (vectors * np.maximum(values, 0)) @ vectors.T
        return M / np.linalg.norm(M)

    def bracket(self, factor: float) -> Bracket:
        """The threshold with the proofs of both ends, which rounding alone can spoil."""
        threshold = self.threshold(factor)
        if not 0 < threshold < math.inf:
            return Bracket(threshold, threshold)
        # The noise that is amplified without end at the threshold: positive definite below it.
        M = self.covariance(factor, (1 - _BELOW) * threshold, np.eye(len(self.curvatures)))
        M /= np.linalg.norm(M)
        carried = self.carried(M, factor)
        upper = np.sum(M * self._sums * M) / np.sum(M * carried)
        least = min(self._cone_bound(M, factor), self._cone_bound(np.eye(len(M)), factor))
        return Bracket(float(2 / least), float(upper))

    def covariance(self, factor: float, step: float, noise: np.ndarray) -> np.ndarray:
        r"""The solution of :math:`M = Q M + \eta^2 G`, i.e. :math:`2 C M - \eta D M = \eta G`.

        G and M are on the range of H, in its eigenbasis; the step is below the threshold, so that
        the map is positive definite: conjugate gradients, to rounding.
        """
        r = len(self.curvatures)
        scaled = self._scaled(factor)
        root = np.sqrt(2 / self._sums)

        def product(vector: np.ndarray) -> np.ndarray:
            Y = vector.reshape(r, r)
            return (2 * Y - step * scaled(Y)).ravel()

        matrix = LinearOperator((r * r, r * r), matvec=product, dtype=np.float64)
        right = (step * root * noise).ravel()
        solution, failed = cg(matrix, right, rtol=1e-13, atol=0.0, maxiter=20 * r * r + 1000)
        if failed:
            raise InputError(
                f"step={step:.6g} is too close to the threshold of stability for the covariance to "
                "be found; expected a smaller step"
            )
        M = root * solution.reshape(r, r)
        return (M + M.T) / 2

    def _scaled(self, factor: float) -> Map:
        """The map C^(-1/2) D C^(-1/2)."""
        root = np.sqrt(2 / self._sums)
        return lambda Y: root * self.carried(root * Y, factor)

    def _cone_bound(self, M: np.ndarray, factor: float) -> float:
        """The least mu with C^(-1) D M <= mu M, infinite if M is not positive definite."""
        image = 2 * self.carried(M, factor) / self._sums
        try:
            return float(eigh((image + image.T) / 2, M, eigvals_only=True)[-1])
        except LinAlgError:
            return math.inf


def largest_eigenvalue(apply: Map, rows: int) -> tuple[float, np.ndarray]:
    """The largest eigenvalue, and its matrix, of a self-adjoint map that preserves the cone.

    Up to 12 rows the map is asked for the images of all units at once, on a leading axis.
    """
    size = rows * rows

    def product(vector: np.ndarray) -> np.ndarray:
        image = apply(vector.reshape(rows, rows))
        return ((image + image.T) / 2).ravel()

    if rows <= _WRITTEN_OUT:
        # Antisymmetric matrices are mapped to zero by the symmetric part and count for nothing.
        images = apply(np.eye(size).reshape(size, rows, rows))
        matrix = ((images + images.mT) / 2).reshape(size, size)
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        value, vector = values[-1], vectors[:, -1]
    else:
        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        start = np.eye(rows).ravel()
        found = eigsh(operator, 1, which="LA", v0=start, tol=0)
        value, vector = found[0][0], found[1][:, 0]
    top = vector.reshape(rows, rows)
    top = (top + top.T) / 2
    return float(value), top * np.sign(np.trace(top) or 1.0)
