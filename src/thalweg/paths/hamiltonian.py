r"""The Hamiltonian of a dynamics: what its large deviations are made of."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from thalweg.diffusion import Diffusion
from thalweg.dynamics import AbstractDynamics, Descent
from thalweg.errors import InputError
from thalweg.limit import diffusion_limit
from thalweg.paths.convex import conjugate, farthest
from thalweg.paths.laws import AbstractLaw, Independent, Subset, Vector, whitened
from thalweg.problem import FiniteSum
from thalweg.sampling import Minibatch, Presampled, Reweighted
from thalweg.sampling.base import AbstractMemoryless, centred
from thalweg.sampling.scored import AbstractScored

# Parts of a direction or drift below this share of it are none.
_NONE = 1e-9


class Extreme(NamedTuple):
    r"""Where the momenta of :math:`H \le 0` are farthest in a direction v.

    Attributes:
        momentum: p, with :math:`H(\theta, p) = 0`; infinite where v is out of reach.
        duration: The time r in which the path passes v, :math:`r\,\partial_p H = v`; infinite where
            the dynamics rests.
    """

    momentum: Vector
    duration: Float[Array, ""]


class AbstractHamiltonian(eqx.Module):
    r"""A convex function :math:`H(\theta, p)` of the momentum with :math:`H(\theta, 0) = 0`.

    Params :math:`\theta`, momenta p and velocities v have shape (d,). All methods are pure: for
    ``jax.jit``, ``jax.vmap`` and ``jax.grad``, with derivatives that do not pass through iterations
    (first ones of the momentum, second ones of the length and the rate).
    """

    @abstractmethod
    def value(self, theta: Vector, p: Vector) -> Float[Array, ""]:
        r""":math:`H(\theta, p)`, per unit of time."""

    @abstractmethod
    def extreme(self, theta: Vector, v: Vector) -> Extreme:
        """The farthest momentum, without derivatives: see :meth:`momentum`."""

    @abstractmethod
    def steepest(self, theta: Vector, v: Vector) -> Vector:
        """The momentum of :meth:`rate`, without derivatives; infinite where v is out of reach."""

    def drift(self, theta: Vector) -> Vector:
        r"""The mean velocity :math:`\partial_p H(\theta, 0)`."""
        return jax.grad(self.value, argnums=1)(theta, jnp.zeros_like(theta))

    def momentum(self, theta: Vector, v: Vector) -> Vector:
        r"""The maximiser of :math:`p \cdot v` over :math:`H(\theta, p) \le 0`.

        There :math:`H = 0` and :math:`\partial_p H` is parallel to v. Zero if v has the direction
        of the drift, and infinite where no noise moves in the direction v.
        """
        return _extreme(self, theta, v).momentum

    def length(self, theta: Vector, v: Vector) -> Float[Array, ""]:
        r"""The geometric action density :math:`\max\{p \cdot v : H(\theta, p) \le 0\} \ge 0`.

        The integral of ``length(theta, dtheta)`` along a curve is the least action with which the
        dynamics follows it, at whatever speed (Heymann and Vanden-Eijnden, 2008). It is homogeneous
        of degree one in v, zero along the drift and infinite where no noise moves in the direction
        v.
        """
        return _length(self, theta, v)

    def rate(self, theta: Vector, v: Vector) -> Float[Array, ""]:
        r"""The rate function :math:`\sup_p\, p \cdot v - H(\theta, p)`, per unit of time.

        Zero for the drift; infinite for a velocity that the noise cannot make. For SGD the exponent
        of one step from :math:`\theta` to :math:`\theta'` is :math:`\eta` times the rate of
        :math:`(\theta' - \theta)/\eta`.
        """
        return _rate(self, theta, v)


class QuadraticHamiltonian(AbstractHamiltonian):
    r"""That of a diffusion, :math:`H = b \cdot p + \tfrac12 p^\top \Sigma p`.

    With :math:`|v|_\Sigma^2 = v^\top \Sigma^{-1} v` the length is :math:`|b|_\Sigma |v|_\Sigma -
    b^\top \Sigma^{-1} v` and the rate :math:`\tfrac12 |v - b|_\Sigma^2` (M. I. Freidlin and A. D.
    Wentzell, Random Perturbations of Dynamical Systems, chapter 5; M. Heymann and E.
    Vanden-Eijnden, Comm. Pure Appl. Math. 61, 2008).

    :math:`\Sigma` may be singular: along its null directions v has to go with the drift, at the
    speed of the drift, or it is out of reach. Null are eigenvalues below 1e-12 of the largest.
    Cost: an eigenvalue decomposition, written out up to two dimensions.
    """

    diffusion: Diffusion

    def value(self, theta: Vector, p: Vector) -> Float[Array, ""]:
        """From the drift and the covariance."""
        noise = jnp.vdot(p, self.diffusion.covariance(theta) @ p)
        return jnp.vdot(self.drift(theta), p) + noise / 2

    def drift(self, theta: Vector) -> Vector:
        """The drift b."""
        return self.diffusion.flat_drift(_same)(theta)

    def extreme(self, theta: Vector, v: Vector) -> Extreme:
        """In closed form."""
        b, frame, beyond = self._parts(theta)
        b_seen, v_seen, b_null, v_null = frame.T @ b, frame.T @ v, beyond @ b, beyond @ v
        regular = _regular(b_seen, v_seen)
        # Beyond the range the drift alone moves, and sets the time.
        drifts = jnp.linalg.norm(b_null) > _NONE * jnp.linalg.norm(b)
        square = jnp.where(drifts, jnp.vdot(b_null, b_null), 1)
        duration = jnp.vdot(b_null, v_null) / square
        driven = duration > 0
        time = jnp.where(driven, duration, 1)
        seen = v_seen / time - b_seen
        height = jnp.vdot(b_seen, seen) + jnp.vdot(seen, seen) / 2
        degenerate = frame @ seen - height / square * b_null
        rest = v_null - jnp.where(drifts & driven, duration, 0) * b_null
        reached = jnp.linalg.norm(rest) <= _NONE * jnp.linalg.norm(v)
        reached &= ~drifts | driven
        p = jnp.where(drifts, degenerate, frame @ regular.momentum)
        return Extreme(jnp.where(reached, p, jnp.inf), jnp.where(drifts, time, regular.duration))

    def steepest(self, theta: Vector, v: Vector) -> Vector:
        r""":math:`\Sigma^{-1} (v - b)`."""
        b, frame, beyond = self._parts(theta)
        scale = jnp.linalg.norm(v) + jnp.linalg.norm(b)
        reached = jnp.linalg.norm(beyond @ (v - b)) <= _NONE * scale
        return jnp.where(reached, frame @ (frame.T @ (v - b)), jnp.inf)

    def _parts(self, theta: Vector) -> tuple[Vector, Array, Array]:
        """The drift, the frame of the noise and what is beyond its range."""
        return self.drift(theta), *whitened(self.diffusion.covariance(theta))


class CramerHamiltonian(AbstractHamiltonian):
    r"""That of SGD itself, :math:`H = \frac1\eta \log E\,e^{-\eta\,p \cdot \hat g(\theta)}`.

    The expectation is that over the draws of a step, exactly. For B independent draws it is B times
    the logarithm for one, at :math:`p/B`; for a subset, an elementary symmetric polynomial.

    Cost of a value: n gradients, and for a subset n B operations. Momentum, length and rate take
    some 3 to 10 iterations of n d^2 operations more.
    """

    problem: FiniteSum
    sampler: AbstractMemoryless
    step: Float[Array, ""]
    draws: Int[Array, "outcomes draws ..."] | None

    def value(self, theta: Vector, p: Vector) -> Float[Array, ""]:
        """By the cumulant generating function."""
        law = self.law(theta)
        return law.cumulant(law.scale * p) / law.scale

    def drift(self, theta: Vector) -> Vector:
        """The mean of the law."""
        return -self.sampler.mean(self.problem, theta)

    def extreme(self, theta: Vector, v: Vector) -> Extreme:
        """By ellipsoids: see :func:`thalweg.paths.convex.farthest`."""
        law = self.law(theta)
        found = farthest(law, v)
        speed = jnp.linalg.norm(law.model(found.q).mean)
        duration = jnp.linalg.norm(v) / speed
        p = jnp.where(found.exists, found.q / law.scale, jnp.inf)
        return Extreme(p, jnp.where(found.exists, duration, 1))

    def steepest(self, theta: Vector, v: Vector) -> Vector:
        """By Newton's method: see :func:`thalweg.paths.convex.conjugate`."""
        law = self.law(theta)
        found = conjugate(law, v)
        return jnp.where(found.exists, found.q / law.scale, jnp.inf)

    def law(self, theta: Vector) -> AbstractLaw:
        """The law of the velocity of a step."""
        step = self.step.astype(theta.dtype)
        gradients = self.problem.gradients(theta)
        if (
            isinstance(self.sampler, Minibatch)
            and self.sampler.size > 1
            and not self.sampler.replace
        ):
            return Subset(-gradients, step, self.sampler.size)
        scale = step / self.sampler.size
        if self.draws is not None:
            outcomes = _single(self.sampler).outcomes(self.problem, theta, self.draws)
            velocities = -outcomes.weights * gradients[outcomes.index[:, 0]]
            return Independent(velocities, outcomes.probabilities, scale)
        one = centred(self.sampler.moments(self.problem, theta))
        weights, probabilities = (x.astype(theta.dtype) for x in (one.weights, one.probabilities))
        return Independent(-weights[:, None] * gradients, probabilities, scale)


def hamiltonian(dynamics: AbstractDynamics) -> AbstractHamiltonian:
    r"""The Hamiltonian of a dynamics, per unit of time :math:`t = \eta k`.

    Of a diffusion :math:`H = b \cdot p + \tfrac12 p^\top \Sigma p`, of SGD :math:`H = \frac1\eta
    \log E\,e^{-\eta\,p \cdot \hat g}`. The exponent of a path is :math:`\int \sup_p (p \cdot
    \dot\theta - H)\,dt`, and the quasi-potential V its least value: mean exit times are
    :math:`e^{V}` up to factors that are not exponential.

    **In which limit.** For SGD: :math:`\eta \to 0` with the law of the gradients fixed; then V is
    :math:`1/\eta` times a function that does not depend on the step, and :math:`\eta \log E \tau
    \to \eta V` (slow Markov walks: Freidlin and Wentzell, chapter 5; A. Dembo and O. Zeitouni,
    Large Deviations Techniques and Applications, section 5.7). Many steps are then made while the
    law of the gradients hardly changes; how far one step goes is not compared with the landscape.
    The diffusion's H is the second order of SGD's in p, and its V agrees where the momenta
    :math:`\eta\,|p \cdot \hat g|` are small: for gradients whose noise is large against their mean,
    :math:`|\nabla f|^2 \ll \operatorname{tr} C`. Otherwise it is wrong at any step, however small.
    At a finite step, the exponent of single steps is :math:`\eta` times
    :meth:`AbstractHamiltonian.rate`.

    Without noise (``Full``) it is :math:`-\nabla f \cdot p`: everything off the drift is out of
    reach.

    Args:
        dynamics: :class:`thalweg.Diffusion`; or :class:`thalweg.Descent` with a number as its step
            and a sampler without memory: ``Full``, ``Minibatch``, ``Resampled``, ``Reweighted``
            with fresh scores.

    Raises:
        InputError: Noise that varies in time, a schedule or optimiser, a sampler with memory, more
            single draws by group than can be listed.
    """
    if isinstance(dynamics, Diffusion):
        if dynamics.varies:
            raise InputError(
                "the noise varies in time, and a Hamiltonian is of constant coefficients; take "
                "that of dynamics.at(time)"
            )
        return QuadraticHamiltonian(dynamics)
    if not isinstance(dynamics, Descent):
        raise InputError(
            f"dynamics is a {type(dynamics).__name__}; expected a Descent or a Diffusion"
        )
    sampler, step = _checked_sampler(dynamics), _checked_step(dynamics)
    if sampler.variance_factor(dynamics.problem) == 0:
        return QuadraticHamiltonian(diffusion_limit(dynamics))
    return CramerHamiltonian(dynamics.problem, sampler, step, _draws(dynamics.problem, sampler))


@eqx.filter_custom_jvp
def _extreme(H: AbstractHamiltonian, theta: Vector, v: Vector) -> Extreme:
    return H.extreme(theta, v)


@_extreme.def_jvp
def _extreme_jvp(primals: Any, tangents: Any) -> tuple[Extreme, Extreme]:
    """From the conditions r dH/dp = v and H = 0."""
    H, theta, v = primals
    found = _extreme(H, theta, v)
    p, r, regular = _finite(found)
    gradient = jax.grad(H.value, argnums=1)

    def conditions(H: AbstractHamiltonian, theta: Vector, v: Vector) -> Array:
        slope = jax.grad(H.value, argnums=1)(theta, p)
        return jnp.append(r * slope - v, H.value(theta, p))

    _, change = eqx.filter_jvp(conditions, primals, tangents)
    slope, curvature = gradient(theta, p), jax.jacfwd(gradient, argnums=1)(theta, p)
    top = jnp.concatenate([r * curvature, slope[:, None]], axis=1)
    matrix = jnp.concatenate([top, jnp.append(slope, 0)[None]])
    moved = -jnp.linalg.pinv(matrix, hermitian=True) @ change
    moved = jnp.where(regular, moved, 0)
    return found, Extreme(moved[:-1], moved[-1])


@eqx.filter_custom_jvp
def _length(H: AbstractHamiltonian, theta: Vector, v: Vector) -> Float[Array, ""]:
    p = _extreme(H, theta, v).momentum
    return _scalar(p, v)


@_length.def_jvp
def _length_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """Of the Lagrangian p v - r H, which is stationary in p and r."""
    H, theta, v = primals
    found = _extreme(H, theta, v)
    p, r, regular = _finite(found)

    def lagrangian(H: AbstractHamiltonian, theta: Vector, v: Vector) -> Array:
        return jnp.vdot(p, v) - jnp.where(regular, r * H.value(theta, p), 0)

    _, change = eqx.filter_jvp(lagrangian, primals, tangents)
    return _scalar(found.momentum, v), change


@eqx.filter_custom_jvp
def _steepest(H: AbstractHamiltonian, theta: Vector, v: Vector) -> Vector:
    return H.steepest(theta, v)


@_steepest.def_jvp
def _steepest_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """From the condition dH/dp = v."""
    H, theta, v = primals
    found = _steepest(H, theta, v)
    p = jnp.where(jnp.isfinite(found), found, 0)

    def condition(H: AbstractHamiltonian, theta: Vector, v: Vector) -> Array:
        return jax.grad(H.value, argnums=1)(theta, p) - v

    _, change = eqx.filter_jvp(condition, primals, tangents)
    curvature = jax.jacfwd(jax.grad(H.value, argnums=1), argnums=1)(theta, p)
    moved = -jnp.linalg.pinv(curvature, hermitian=True) @ change
    return found, jnp.where(jnp.isfinite(found), moved, 0)


def _rate(H: AbstractHamiltonian, theta: Vector, v: Vector) -> Float[Array, ""]:
    found = _steepest(H, theta, v)
    reached = jnp.all(jnp.isfinite(found))
    p = jnp.where(reached, found, 0)
    return jnp.where(reached, jnp.vdot(p, v) - H.value(theta, p), jnp.inf)


def _finite(found: Extreme) -> tuple[Vector, Array, Array]:
    """Momentum and duration, zero and one where they are not finite; whether they are."""
    regular = jnp.all(jnp.isfinite(found.momentum)) & jnp.isfinite(found.duration)
    return jnp.where(regular, found.momentum, 0), jnp.where(regular, found.duration, 1), regular


def _scalar(p: Vector, v: Vector) -> Array:
    """The product, infinite if p is, and not below zero by rounding."""
    reached = jnp.all(jnp.isfinite(p)) | jnp.all(v == 0)
    product = jnp.vdot(jnp.where(jnp.isfinite(p), p, 0), v)
    return jnp.where(reached, jnp.maximum(product, 0), jnp.inf)


def _regular(b: Vector, v: Vector) -> Extreme:
    """Of b p + p^2/2: the farthest point of a sphere through 0."""
    speed, size = jnp.linalg.norm(b), jnp.linalg.norm(v)
    p = v * (speed / jnp.where(size > 0, size, 1)) - b
    return Extreme(p, size / speed)


def _same(theta: Vector) -> Vector:
    return theta


def _single(sampler: AbstractMemoryless) -> AbstractMemoryless:
    """The sampler of one draw of those whose weights depend on what else was drawn."""
    if isinstance(sampler, Presampled):
        return Presampled(1, sampler.candidates)
    return Reweighted(1, by="group")


def _draws(problem: FiniteSum, sampler: AbstractMemoryless) -> Array | None:
    """All single draws, where a sample's weight depends on what else was drawn."""
    by_group = isinstance(sampler, Reweighted) and sampler.by == "group"
    if not by_group and not isinstance(sampler, Presampled):
        return None
    try:
        return jnp.asarray(_single(sampler).all_draws(problem))
    except InputError as error:
        raise InputError(
            "a single draw takes one sample of each group, or several candidates, and all of "
            f"these are listed for the Hamiltonian of SGD: {error}; or take "
            "Reweighted(by='sample'), or the diffusion limit"
        ) from error


def _checked_step(descent: Descent) -> Float[Array, ""]:
    if not eqx.is_array(descent.step):
        raise InputError(
            "the Hamiltonian of SGD needs a number as the step: with a schedule the exponents "
            "change from step to step, and an optimiser has memory; give the step of one time"
        )
    return descent.step


def _checked_sampler(descent: Descent) -> AbstractMemoryless:
    sampler, name = descent.sampler, type(descent.sampler).__name__
    if not isinstance(sampler, AbstractMemoryless):
        raise InputError(
            f"{name} has no Hamiltonian: the draws of a pass depend on those before, so that a "
            "step has no law of its own; use Minibatch, Resampled or Reweighted(refresh=1)"
        )
    if isinstance(sampler, AbstractScored) and sampler.keeps:
        raise InputError(
            f"{name} with kept scores has no Hamiltonian: its draws depend on where "
            "the scores were taken and not on the parameters alone; use Reweighted(refresh=1)"
        )
    return sampler
