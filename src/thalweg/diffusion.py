"""Ito equations as dynamics."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from thalweg.dynamics import AbstractDynamics
from thalweg.errors import InputError, known
from thalweg.noise import AbstractNoise, Covariance, Factor, Scheduled, Unravel
from thalweg.problem import Params, describe
from thalweg.random import Stream
from thalweg.schemes import SCHEMES, Field, Noise

# Where noise is looked at before a run: the start and points about a tenth of its size away.
_POINTS = 5
_DISTANCE = 0.1
# Where in a step, as a share of it, a scheme takes noise that varies in time: with its middle
# Heun's stays of second order, for the integral of s over the step is dt s(t + dt/2) + O(dt^3).
_TAKEN_AT = {"heun": 0.5}


class DiffusionState(NamedTuple):
    """The parameters: a diffusion has no memory."""

    params: Params


class Diffusion(AbstractDynamics):
    r"""The Ito equation :math:`d\Theta = b(\Theta)\,dt + \Sigma(\Theta)^{1/2}\,dW` in fixed steps.

    Step k goes from the time t = k dt to (k + 1) dt, with increments dW of variance dt. The density
    obeys :math:`\partial_t p = -\nabla \cdot (p b) + \tfrac12 \partial_i \partial_j
    (\Sigma_{ij} p)`: :math:`\Sigma` is the covariance per unit of time, without a factor 2. The
    limit of SGD with the step :math:`\eta` and gradients of covariance C has :math:`b = -\nabla f`
    and :math:`\Sigma = \eta C`; Euler's step with dt = :math:`\eta` then has the mean and the
    covariance of a step of SGD.

    ================== =========================================================== ====== ====
    method             noise                                                       strong weak
    ================== =========================================================== ====== ====
    ``euler-maruyama`` any                                                         1/2    1
    ``heun``           constant                                                    1      2
    ``milstein``       scalar (m = 1), diagonal, or commutative in another way     1      1
    ================== =========================================================== ====== ====

    The orders are those for smooth coefficients with bounded derivatives (P. E. Kloeden and E.
    Platen, Numerical Solution of Stochastic Differential Equations, 1992, sections 10.2 and 14.1,
    15.1, 10.3; G. Maruyama, 1955; G. N. Milstein, 1974). With constant noise Milstein's scheme is
    Euler's, which then has the strong order 1.

    * Euler-Maruyama: :math:`\theta + b\,dt + \sigma\,dW`.
    * Heun: :math:`\theta + \tfrac12(b(\theta) + b(\theta^*))\,dt + \sigma\,dW` with Euler's step
      :math:`\theta^*`; Kloeden and Platen's explicit weak scheme of order 2 for additive noise.
    * Milstein: Euler's step and :math:`\tfrac12 \sum_{ij} (D\sigma^j)[\sigma^i]\,
      (dW^i dW^j - \delta_{ij}\,dt)`. Commutative means :math:`(D\sigma^j)[\sigma^i] =
      (D\sigma^i)[\sigma^j]`, as for variances that depend each on its own parameter alone. Noise
      :math:`\sqrt{c(\theta)}\,dW` in several dimensions is not, unless c is constant.

    Args:
        drift: The function b from params to a pytree like params.
        covariance: :math:`\Sigma`: a number c for c times the identity, an array of shape (d,) for
            a diagonal or (d, d), or a function of params that returns one of these; d counts the
            parameters in the order of ``jax.flatten_util.ravel_pytree``. It may be singular. Where
            a function returns a negative variance or an indefinite matrix the step is NaN: the
            chain stops and counts as diverged. Or one of :mod:`thalweg.noise_models`.
        step: dt, positive.
        method: One of the table.

    The root of a diagonal is that of its entries. Of a full matrix it is Cholesky's factor up to
    four dimensions and the symmetric root beyond; what is zero to rounding is zero, so that noise
    of low rank stays on its plane. With pivots, from three dimensions on, the factor jumps where
    their order changes: without effect on laws, but not on paths of given normal numbers. For
    Milstein's scheme it is the smooth one without pivots. Where the factor is known give it
    instead, see :meth:`from_factor`. Noise may also vary in time, see :meth:`scheduled`.

    Cost of a step: the drift (Heun: twice), the covariance with its root, d normal numbers;
    Milstein a derivative of the variances more, or m + 1 derivatives of the root of a matrix.

    Raises:
        InputError: A step that is not positive and finite, an unknown method, a constant
            covariance that is not symmetric and positive semidefinite, Heun's method for noise that
            depends on the parameters. At the beginning of a run: a drift or covariance of another
            shape or without a value at the start; a covariance that is not symmetric, or noise
            that is not commutative for Milstein's scheme, at the start or at four points around it.
    """

    drift: Callable[[Any], Any]
    noise: AbstractNoise
    step: Float[Array, ""]
    method: str = eqx.field(static=True)

    def __init__(self, drift: Any, covariance: Any, step: Any, *, method: str = "euler-maruyama"):
        if not callable(drift):
            raise InputError(f"drift must be a function of params, got {drift!r}")
        self.drift = drift
        is_noise = isinstance(covariance, AbstractNoise)
        self.noise = covariance if is_noise else Covariance(covariance)
        self.step = _checked_step(step)
        self.method = known(method, SCHEMES, "method")
        if method == "heun" and not self.noise.constant:
            raise InputError(
                "method 'heun' is of second order for constant noise only, and this noise is a "
                "function of params; give an array, or use 'euler-maruyama' or 'milstein'"
            )

    @classmethod
    def from_factor(
        cls, drift: Any, factor: Any, step: Any, *, method: str = "euler-maruyama"
    ) -> "Diffusion":
        r"""The Ito equation :math:`d\Theta = b(\Theta)\,dt + \sigma(\Theta)\,dW`.

        Args:
            drift: As for the class.
            factor: :math:`\sigma`: an array of shape (d, m), or a function of params that returns
                one. :math:`\Sigma = \sigma \sigma^\top`, singular if m < d. A step costs m normal
                numbers.
            step: As for the class.
            method: As for the class.
        """
        return cls(drift, Factor(factor), step, method=method)

    def scheduled(self, schedule: Any) -> "Diffusion":
        r"""The same with noise that varies in time: :math:`s(t)\,\Sigma(\theta)`.

        Step k takes s from its beginning, t = k dt, or by Heun's method from its middle: the orders
        of the table stay (for s with two continuous derivatives). s is evaluated once a step for
        all chains.

        Args:
            schedule: The function s from the time t (an array of shape ()) to a number, at least
                0. Where it is negative the chains stop and count as diverged. For steps and
                batches that vary, s is :math:`\gamma(t)/M(t)` over that of the start (Dai and Zhu,
                equation (2.3)).

        Raises:
            InputError: Not a function. At the beginning of a run: it does not return a number, or
                returns a negative one at the time 0.
        """
        return self._with(Scheduled(self.noise, schedule))

    @property
    def varies(self) -> bool:
        """Whether the noise varies in time."""
        return self.noise.varies

    def at(self, time: Any) -> "Diffusion":
        """The diffusion with the noise of one time for all times."""
        return self._with(self.noise.at(time)) if self.varies else self

    def covariance(self, params: Params) -> Float[Array, "P P"]:
        r"""The matrix :math:`\Sigma(\theta)`, per unit of time.

        Of noise that varies in time it is the one at t = 0: ``diffusion.at(t).covariance(params)``.
        """
        theta, unravel = ravel_pytree(params)
        return self.noise.dense(theta, unravel)

    def check(self, start: Params) -> None:
        """Shapes, numbers at the start, and the noise at the start and around it."""
        _check_floating(start)
        self.check_drift(start)
        theta, unravel = ravel_pytree(start)
        self.noise.check(theta, unravel)
        count = self.noise.on(theta, unravel, self.method == "milstein").count
        points = 1 if self.noise.constant else _POINTS
        shifts, directions = _looks(np.asarray(theta), count, points)
        seen = _examined(self, start, shifts, directions)
        if not bool(seen.drift[0]):
            raise InputError("the drift at the start is not finite; expected numbers")
        if not bool(seen.noise[0]):
            raise InputError(
                "the noise at the start is not finite: the covariance there is negative, "
                "indefinite or not a number; expected a positive semidefinite one"
            )
        if not bool(jnp.all(seen.symmetric)):
            raise InputError(
                "the covariance is not symmetric at or near the start; expected a symmetric matrix"
            )
        if self.method == "milstein" and not bool(jnp.all(seen.commutative)):
            raise InputError(
                "method 'milstein' needs commutative noise and this is not: the derivative of "
                "column j of the factor along column i differs from that of i along j (so it does "
                "for c(params) times the identity, and for a variance that depends on the other "
                "parameters); use 'euler-maruyama'"
            )

    def init(self, start: Params) -> DiffusionState:
        """The start."""
        return DiffusionState(start)

    def advance(self, state: DiffusionState, stream: Stream, step: Any) -> DiffusionState:
        """One step of the method."""
        theta, unravel = ravel_pytree(state.params)
        time = (
            jnp.asarray(step).astype(self.step.dtype) + _TAKEN_AT.get(self.method, 0.0)
        ) * self.step
        noise = self.noise.at(time).on(theta, unravel, self.method == "milstein")
        dt = self.step.astype(theta.dtype)
        dw = jnp.sqrt(dt) * stream.normal(noise.count, theta.dtype)
        moved = SCHEMES[self.method](self.flat_drift(unravel), noise, theta, dt, dw)
        return DiffusionState(unravel(moved))

    def evaluations(self) -> float:
        """Drifts a step."""
        return 2.0 if self.method == "heun" else 1.0

    def flat_drift(self, unravel: Unravel) -> Field:
        """The drift as a function of flat parameters, in their type."""

        def field(theta: Float[Array, " d"]) -> Float[Array, " d"]:
            out = self.drift(unravel(theta))
            return ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x).astype(theta.dtype), out))[0]

        return field

    def _with(self, noise: AbstractNoise) -> "Diffusion":
        return Diffusion(self.drift, noise, self.step, method=self.method)

    def check_drift(self, start: Params) -> None:
        """Raise InputError unless the drift takes these params and returns a pytree like them."""
        try:
            out = jax.eval_shape(self.drift, start)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise InputError(
                f"the drift cannot be evaluated on these parameters ({describe(start)}): "
                f"{str(error).splitlines()[0]}"
            ) from error
        if _shapes(out) != _shapes(start):
            raise InputError(
                f"drift must return a pytree like params, {describe(start)}; got {describe(out)}"
            )


class _Seen(NamedTuple):
    """What was seen at the start (the first point) and around it.

    Attributes:
        drift: Whether the drift is finite.
        noise: Whether the noise is.
        symmetric: Whether the covariance is, if it is a number at all.
        commutative: Whether the noise is, likewise.
    """

    drift: Bool[Array, " points"]
    noise: Bool[Array, " points"]
    symmetric: Bool[Array, " points"]
    commutative: Bool[Array, " points"]


@eqx.filter_jit
def _examined(
    diffusion: Diffusion,
    start: Params,
    shifts: Float[Array, "points d"],
    directions: Float[Array, "points 2 m"],
) -> _Seen:
    """What is seen at the start moved by each of the shifts."""
    theta, unravel = ravel_pytree(start)
    smooth = diffusion.method == "milstein"

    def seen(shift: Float[Array, " d"], pair: Float[Array, "2 m"]) -> _Seen:
        point = theta + shift
        noise = diffusion.noise.on(point, unravel, smooth)
        return _Seen(
            jnp.all(jnp.isfinite(diffusion.flat_drift(unravel)(point))),
            jnp.all(jnp.isfinite(noise.times(point, pair[0]))),
            diffusion.noise.symmetric(point, unravel),
            _commutes(noise, point, pair) if smooth else jnp.asarray(True),
        )

    return jax.vmap(seen)(shifts, directions)


def _looks(
    theta: Float[np.ndarray, " d"], count: int, points: int
) -> tuple[Float[Array, "points d"], Float[Array, "points 2 m"]]:
    """From the start to the points looked at, itself first, and two random directions at each."""
    random = np.random.default_rng(0)
    shifts = random.normal(size=(points, theta.size)) * _DISTANCE * (1 + np.abs(theta).max())
    shifts[0] = 0
    directions = random.normal(size=(points, 2, count))
    return jnp.asarray(shifts, theta.dtype), jnp.asarray(directions, theta.dtype)


def _commutes(
    noise: Noise, point: Float[Array, " d"], directions: Float[Array, "2 m"]
) -> Bool[Array, ""]:
    difference, terms = noise.commutator(point, *directions)
    tolerance = jnp.finfo(point.dtype).eps ** 0.5 * jnp.max(terms)
    # Beyond the end of the domain nothing is a number, and that is no fault.
    return ~(jnp.max(jnp.abs(difference)) > tolerance)


def _checked_step(step: Any) -> Float[Array, ""]:
    try:
        value = jnp.asarray(step, jnp.result_type(float))
    except (TypeError, ValueError):
        value = None
    if value is None or value.shape != ():
        raise InputError(f"step is {step!r}; expected a positive number, the time of a step")
    if not isinstance(value, jax.core.Tracer) and not 0 < float(value) < math.inf:
        raise InputError(f"step must be positive and finite, got {step!r}")
    return value


def _check_floating(start: Params) -> None:
    kinds = {jnp.result_type(leaf) for leaf in jax.tree.leaves(start)}
    if len(kinds) != 1 or not jnp.issubdtype(kinds.pop(), jnp.floating):
        raise InputError(
            f"the parameters of a diffusion must be of one floating-point type, got "
            f"{describe(start)}"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
