r"""The diffusion limit of SGD, and its correction for steps that are not small."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from thalweg import roots
from thalweg.diffusion import Diffusion
from thalweg.dynamics import Descent
from thalweg.errors import InputError
from thalweg.noise import AbstractNoise, Covariance, Unravel, checked_number, function_of_params
from thalweg.problem import FiniteSum, Params
from thalweg.sampling.base import AbstractMemoryless, centred
from thalweg.sampling.scored import AbstractScored
from thalweg.schemes import Field, Full, Noise, Numbers, Vector


def diffusion_limit(descent: Descent, *, order: int = 1) -> Diffusion:
    r"""The Ito equation :math:`d\Theta = -\nabla f\,dt + \sqrt{\eta}\,C(\Theta)^{1/2}\,dW` of SGD.

    C is the sampler's exact covariance of one stochastic gradient, batch and replacement included;
    time is :math:`t = \eta k`, and the step of the diffusion is :math:`\eta`: Euler's step has the
    mean and the covariance of SGD's, so that ``simulate`` runs SGD with Gaussian noise. For the
    equation itself take finer steps: ``Diffusion(limit.drift, limit.noise, step / 10)``.

    As :math:`\eta \to 0` at a fixed time, expectations of smooth functions under SGD are those of
    the equation up to :math:`O(\eta)`; with ``order=2``, which is :func:`modified_equation` of it,
    up to :math:`O(\eta^2)` (Q. Li, C. Tai and W. E, ICML 2017).

    Up to four parameters (and samples at least as many) the noise is a matrix, whose root is
    written out. Else it is a sum over samples, :math:`\sqrt{\eta v} \sum_i \sqrt{p_i} (w_i g_i - m)
    \,dW^i` with the batch's factor v and the probability and weight of one draw: a weighted
    gradient with n + 1 normal numbers, and no matrix.

    Args:
        descent: SGD with a constant step and a memoryless sampler: ``Full`` (no noise),
            ``Minibatch``, ``Resampled``, ``Reweighted`` with fresh scores.
        order: 1 or 2, the weak order in :math:`\eta`.

    Returns:
        A diffusion, differentiable with respect to the step, the data and the weights (for
        ``Reweighted`` not where the gradient of a sample vanishes, for its norm has a kink there).

    Raises:
        InputError: Draws that depend on earlier ones, scores that are kept, a step that is not a
            constant number, another order.

    Cost of a step: 3 n gradients; for gradient norms n more.
    """
    if isinstance(order, bool) or order not in (1, 2):
        raise InputError(f"order is {order!r}; expected 1 or 2, the weak order in the step")
    problem, sampler, step = descent.problem, _checked_sampler(descent), _checked_step(descent)
    noise: AbstractNoise = GradientNoise(GradientCovariance(problem, sampler, step))
    if sampler.variance_factor(problem) == 0:
        noise = Covariance(0.0)
    limit = Diffusion(MeanDescent(problem), noise, step)
    return limit if order == 1 else modified_equation(limit)


def modified_equation(diffusion: Diffusion) -> Diffusion:
    r"""The Ito equation that Euler's chain of another one follows to second order in its step.

    For :math:`\theta_{k+1} = \theta_k + \eta b + \sqrt\eta\,\Sigma^{1/2} \xi_k`, with independent
    :math:`\xi_k` of mean 0 and covariance I, it has

    .. math:: \text{drift } b - \tfrac\eta2 \big(Db\,b + \tfrac12 \Sigma : D^2 b\big), \qquad
              \text{covariance } (I - \tfrac\eta2 Db)\,\Sigma\,(I - \tfrac\eta2 Db)^\top.

    Expectations of smooth functions at a fixed time differ by :math:`O(\eta^2)` where

    - :math:`\Sigma = \eta C` is of the order of the step, as for SGD: the terms with
      :math:`\Sigma` are beyond the order then, and with :math:`b = -\nabla f` what counts is
      :math:`-\nabla(f + \tfrac\eta4 |\nabla f|^2)` (Q. Li, C. Tai and W. E, ICML 2017);
    - or :math:`\Sigma` is constant, of any size, and :math:`\xi` Gaussian (or has its first five
      moments): then all terms count.

    For :math:`\Sigma(\theta)` of a fixed size no diffusion does it: the chain's generator has the
    third derivatives :math:`-\tfrac\eta4 \Sigma_{ij}\,\partial_i \Sigma_{kl}\,\partial_{jkl}`.

    The derivation compares :math:`E u(\theta_1) = u + \eta L u + \eta^2 A_2 u + \dots`, with the
    generator L, and :math:`e^{\eta (L + \eta L_1)} u`: :math:`L_1 = A_2 - L^2/2`.

    Args:
        diffusion: The drift b, the covariance :math:`\Sigma` and the step :math:`\eta`. Simulate
            the result with finer steps, for Euler's own error is what has been put in.

    Raises:
        InputError: Noise that varies in time.

    Cost: a drift with d second directional derivatives, and a product with Db; evaluations of
    :math:`\Sigma` as a matrix (none if it is zero).
    """
    if diffusion.varies:
        raise InputError(
            "the second-order equation is for noise that does not vary in time; give "
            "diffusion.at(time), or leave the noise unscheduled"
        )
    vanishes = _vanishes(diffusion.noise)
    noise = diffusion.noise if vanishes else ModifiedNoise(ModifiedCovariance(diffusion))
    return Diffusion(ModifiedDrift(diffusion), noise, diffusion.step)


def corrected_potential(f: Any, step: Any, temperature: Any) -> "CorrectedPotential":
    r"""The potential :math:`U = f - \tfrac\eta4 |\nabla f|^2 + \tfrac{\eta T}2 \Delta f`.

    The chain :math:`\theta_{k+1} = \theta_k - \eta \nabla f + \sqrt{2 \eta T}\,\xi_k` with Gaussian
    :math:`\xi_k` has the stationary density :math:`e^{-U/T}/Z` to :math:`O(\eta^2)`, where that of
    its diffusion limit, :math:`e^{-f/T}/Z`, is right to :math:`O(\eta)` only. It is the stationary
    density of :func:`modified_equation` to the same order: sharp places empty first.

    Args:
        f: A function of params, or a :class:`thalweg.FiniteSum`.
        step: :math:`\eta`.
        temperature: T; for noise of covariance :math:`\Sigma = c I` per unit of time, T = c/2.

    Returns:
        A function of params. Cost: a gradient and P products with the Hessian.

    Raises:
        InputError: A step or a temperature that is not positive and finite, f no function.
    """
    step = checked_number("step", step, "above 0")
    temperature = checked_number("temperature", temperature, "above 0")
    return CorrectedPotential(function_of_params(f), step, temperature)


class MeanDescent(eqx.Module):
    r"""The drift :math:`-\nabla f`."""

    problem: FiniteSum

    def __call__(self, params: Params) -> Params:
        """A pytree like params."""
        return jax.tree.map(jnp.negative, self.problem.gradient(params))


class GradientCovariance(eqx.Module):
    r"""The covariance :math:`s\,C(\theta)`: a function of params.

    Attributes:
        problem: The objective.
        sampler: What has the covariance C.
        scale: s, the step of SGD.
    """

    problem: FiniteSum
    sampler: AbstractMemoryless
    scale: Float[Array, ""]

    def __call__(self, params: Params) -> Array:
        """Of shape (1,) for one parameter, else (d, d)."""
        matrix = self.sampler.covariance(self.problem, params)
        matrix = self.scale.astype(matrix.dtype) * matrix
        return matrix[0] if matrix.size == 1 else matrix

    def times(self, params: Params, dw: Numbers) -> Vector:
        """A root of shape (d, n + 1), which is never made, times n + 1 numbers."""
        moments = self.sampler.moments(self.problem, params)
        mean = ravel_pytree(self.problem.gradient(params, weights=moments.first))[0]
        law = jax.tree.map(lambda x: x.astype(mean.dtype), centred(moments))
        shares = jnp.sqrt(law.probabilities) * dw[:-1]
        drawn = ravel_pytree(self.problem.gradient(params, weights=shares * law.weights))[0]
        moved = drawn + (jnp.sqrt(law.rest) * dw[-1] - jnp.sum(shares)) * mean
        size = self.scale.astype(mean.dtype) * self.sampler.variance_factor(self.problem)
        return jnp.sqrt(size) * moved


class GradientNoise(AbstractNoise):
    """The noise of stochastic gradients."""

    value: GradientCovariance

    def check(self, theta: Float[Array, " d"], unravel: Unravel) -> None:
        """The loss on these parameters is a scalar."""
        self.value.problem.check_params(unravel(theta))

    def on(self, theta: Float[Array, " d"], unravel: Unravel, smooth: bool) -> Noise:
        """By a matrix where its root is written out, and narrower than the samples are many."""
        n = self.value.problem.n
        if theta.size <= min(roots.UNROLLED, n):
            return Covariance(self.value).on(theta, unravel, smooth)
        return _Applied(lambda x, dw: self.value.times(unravel(x), dw), n + 1)

    def dense(self, theta: Float[Array, " d"], unravel: Unravel) -> Float[Array, "d d"]:
        """The covariance as a matrix."""
        return self.field(unravel)(theta).reshape(theta.size, theta.size)

    def symmetric(self, theta: Float[Array, " d"], unravel: Unravel) -> Bool[Array, ""]:
        """By construction."""
        return jnp.asarray(True)

    def scaled(self, factor: Float[Array, ""]) -> "GradientNoise":
        """With another scale."""
        return GradientNoise(eqx.tree_at(lambda c: c.scale, self.value, self.value.scale * factor))


class ModifiedDrift(eqx.Module):
    """The drift of :func:`modified_equation`."""

    diffusion: Diffusion

    def __call__(self, params: Params) -> Params:
        """A pytree like params."""
        theta, unravel = ravel_pytree(params)
        b = self.diffusion.flat_drift(unravel)
        value, derivative = jax.linearize(b, theta)
        bent = derivative(value)
        if not _vanishes(self.diffusion.noise):
            covariance = self.diffusion.noise.dense(theta, unravel)
            unit = jnp.eye(theta.size, dtype=theta.dtype)
            seconds = jax.vmap(lambda u, w: _second(b, theta, u, w))(unit, covariance)
            bent = bent + jnp.sum(seconds, axis=0) / 2
        return unravel(value - self.diffusion.step.astype(theta.dtype) / 2 * bent)


class ModifiedCovariance(eqx.Module):
    """The covariance of :func:`modified_equation`: a function of params."""

    diffusion: Diffusion

    def __call__(self, params: Params) -> Array:
        """Of shape (1,) for one parameter, else (d, d)."""
        theta, unravel = ravel_pytree(params)
        moved = jax.vmap(lambda v: self.moved(theta, unravel, v))
        # Rows of a symmetric matrix are its columns.
        matrix = moved(moved(self.diffusion.noise.dense(theta, unravel)).T)
        return matrix[0] if matrix.size == 1 else matrix

    def moved(self, theta: Vector, unravel: Unravel, v: Vector) -> Vector:
        """The matrix I - (step/2) Db times a vector."""
        slope = jax.jvp(self.diffusion.flat_drift(unravel), (theta,), (v,))[1]
        return v - self.diffusion.step.astype(theta.dtype) / 2 * slope


class ModifiedNoise(AbstractNoise):
    """The noise of :func:`modified_equation`."""

    value: ModifiedCovariance

    def check(self, theta: Float[Array, " d"], unravel: Unravel) -> None:
        """That of the noise that is modified."""
        self.value.diffusion.noise.check(theta, unravel)

    def on(self, theta: Float[Array, " d"], unravel: Unravel, smooth: bool) -> Noise:
        """The noise that is modified, then the product with its matrix."""
        noise = self.value.diffusion.noise.on(theta, unravel, smooth)

        def times(theta: Vector, dw: Numbers) -> Vector:
            return self.value.moved(theta, unravel, noise.times(theta, dw))

        return _Applied(times, noise.count)

    def dense(self, theta: Float[Array, " d"], unravel: Unravel) -> Float[Array, "d d"]:
        """The covariance as a matrix."""
        return self.field(unravel)(theta).reshape(theta.size, theta.size)

    def symmetric(self, theta: Float[Array, " d"], unravel: Unravel) -> Bool[Array, ""]:
        """Whether the noise that is modified is."""
        return self.value.diffusion.noise.symmetric(theta, unravel)

    def scaled(self, factor: Float[Array, ""]) -> "ModifiedNoise":
        """Refused: the drift of the second-order equation depends on the size of the noise."""
        raise InputError(
            "the drift of the second-order equation depends on its noise, which can therefore not "
            "be scheduled; schedule the equation of order 1"
        )


class CorrectedPotential(eqx.Module):
    """What :func:`corrected_potential` returns."""

    f: Callable[[Params], Array]
    step: Float[Array, ""]
    temperature: Float[Array, ""]

    def __call__(self, params: Params) -> Float[Array, ""]:
        """U at params."""
        theta, unravel = ravel_pytree(params)
        step, temperature = (x.astype(theta.dtype) for x in (self.step, self.temperature))

        def value(theta: Vector) -> Array:
            return self.f(unravel(theta))

        def curvature(direction: Vector) -> Array:
            return jnp.vdot(direction, jax.jvp(jax.grad(value), (theta,), (direction,))[1])

        height, slope = jax.value_and_grad(value)(theta)
        laplacian = jnp.sum(jax.vmap(curvature)(jnp.eye(theta.size, dtype=theta.dtype)))
        return height + step * (temperature / 2 * laplacian - jnp.vdot(slope, slope) / 4)


class _Applied(Full):
    """Noise known by its product with normal numbers; the matrix where Milstein's scheme asks."""

    def __init__(self, times: Callable[[Vector, Numbers], Vector], count: int):
        def root(theta: Vector) -> Array:
            unit = jnp.eye(count, dtype=theta.dtype)
            return jax.vmap(lambda dw: times(theta, dw), out_axes=1)(unit)

        super().__init__(root, count)
        self._times = times

    def times(self, theta: Vector, dw: Numbers) -> Vector:
        """Sigma times the numbers."""
        return self._times(theta, dw)


def _second(b: Field, theta: Vector, u: Vector, w: Vector) -> Vector:
    """The second derivative of b in two directions."""
    return jax.jvp(lambda x: jax.jvp(b, (x,), (u,))[1], (theta,), (w,))[1]


def _vanishes(noise: AbstractNoise) -> bool:
    """Whether the noise is known to be zero everywhere."""
    value = noise.value if noise.constant else None
    known = value is not None and not isinstance(value, jax.core.Tracer)
    return known and not np.any(np.asarray(value))


def _checked_sampler(descent: Descent) -> AbstractMemoryless:
    sampler = descent.sampler
    name = type(sampler).__name__
    if not isinstance(sampler, AbstractMemoryless):
        raise InputError(
            f"{name} has no diffusion limit: the draws of a pass depend on each other, so that no "
            "covariance of a single one describes the noise; use Minibatch, Resampled or "
            "Reweighted(refresh=1)"
        )
    if isinstance(sampler, AbstractScored) and sampler.keeps:
        bias = "" if sampler.unbiased else ", and its mean is not the gradient"
        raise InputError(
            f"{name} with kept scores has no diffusion limit: its noise depends on "
            f"where the scores were taken and not on the parameters alone{bias}; use "
            "Reweighted(refresh=1)"
        )
    return sampler


def _checked_step(descent: Descent) -> Float[Array, ""]:
    step = descent.step
    if callable(step) or isinstance(step, optax.GradientTransformation):
        raise InputError(
            "the diffusion limit needs a number as the step, and this descent has a schedule or an "
            "Optax transformation; for steps eta(t) that vary take the limit of the first, eta(0), "
            "and its .scheduled(lambda t: eta(t) / eta(0)), with the time t as the sum of the steps"
        )
    return jnp.asarray(step, jnp.result_type(float))
