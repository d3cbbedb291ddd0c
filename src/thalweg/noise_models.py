r"""Noise of Ito equations by name: values for the ``covariance`` of :class:`thalweg.Diffusion`.

The covariance :math:`\Sigma` is per unit of time, without a factor 2: the density obeys
:math:`\partial_t p = -\nabla \cdot (p b) + \tfrac12 \partial_i \partial_j (\Sigma_{ij} p)`, and
:math:`\Sigma = c I` has the temperature c/2.

======================= ======================================== =================================
noise                   :math:`\Sigma`                           made by
======================= ======================================== =================================
isotropic               :math:`\gamma \beta / M\,I`              :func:`isotropic`
isotropic, by place     :math:`\gamma \beta(\theta) / M\,I`      :func:`isotropic`
isotropic, by time      :math:`\gamma(t) \beta / M(t)\,I`        :func:`isotropic`
proportional to loss    :math:`\eta \sigma f(\theta)\,I`, or 2   :func:`loss_scaled`
                        times it
diagonal, full matrix   an array or a function of params         ``Diffusion(drift, covariance,
                                                                 step)``
low rank                :math:`A A^\top`, A of shape (d, m)      ``Diffusion.from_factor``
of a sampler            :math:`\eta C(\theta)`                   :func:`thalweg.diffusion_limit`
any, varying in time    :math:`s(t) \Sigma(\theta)`              ``Diffusion.scheduled``
======================= ======================================== =================================

Low rank may also be given as a singular matrix; :func:`singular_directions` says what is singular.
Numbers are arrays of the compiled program: other numbers do not compile anew, and derivatives with
respect to them flow.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg.diffusion import Diffusion
from thalweg.errors import InputError, known
from thalweg.noise import (
    AbstractNoise,
    Covariance,
    Scaled,
    Scheduled,
    checked_number,
    function_of_params,
)
from thalweg.problem import Params

# Wojtowytsch's slides print both; the number multiplies step sigma f.
_CONVENTIONS = {"sde": 1.0, "fokker-planck": 2.0}


def isotropic(beta: Any, gamma: Any, batch_size: Any) -> AbstractNoise:
    r"""The noise :math:`\Sigma = \frac{\gamma(t)\,\beta(\theta)}{M(t)} I` of Dai and Zhu.

    Their equations (2.3) and (2.4): :math:`dW = -\nabla L\,dt + \sqrt{\gamma/M}\,\beta^{1/2} dB`
    with the learning rate :math:`\gamma`, the batch size M and the variance :math:`\beta` of one
    sample's gradient in every direction. The temperature is :math:`T = \gamma \beta/(2M)`, and with
    drift :math:`-\nabla L` the stationary density is

    - for numbers: :math:`e^{-L/T}/Z`;
    - for :math:`\beta(\theta)` with :math:`\nabla \beta` parallel to :math:`\nabla L`, as always in
      one dimension: :math:`\propto \frac1\beta \exp(-\frac{2M}\gamma \int \frac{dL}\beta)`. Else
      there is a stationary current and no closed form.

    Args:
        beta: A number, at least 0, or a function of params.
        gamma: A positive number, or a function of the time t.
        batch_size: A positive number, or a function of the time t; need not be whole.

    Raises:
        InputError: Numbers out of range. Of functions, at the beginning of a run.
    """
    # What is no function must be a number.
    beta = beta if callable(beta) else checked_number("beta", beta, "at least 0")
    ratio = TimeRatio(
        gamma if callable(gamma) else checked_number("gamma", gamma, "above 0"),
        batch_size if callable(batch_size) else checked_number("batch_size", batch_size, "above 0"),
    )
    if callable(gamma) or callable(batch_size):
        return Scheduled(Covariance(beta), ratio)
    return Covariance(beta).scaled(ratio(jnp.zeros(())))


def loss_scaled(f: Any, step: Any, sigma: Any, *, convention: str) -> Covariance:
    r"""Noise whose variance is proportional to the loss (Wojtowytsch): it vanishes where f does.

    The slides print an Ito equation and a Fokker-Planck equation that do not belong together, so
    it must be said which one is meant. With the drift :math:`-\nabla f`:

    - ``"sde"``: :math:`d\theta = -\nabla f\,dt + \sqrt{\eta \sigma f}\,dB`, his equation (1) with
      :math:`\Sigma = \sigma f I`. The density obeys :math:`\partial_t p = \nabla \cdot (p \nabla f)
      + \tfrac{\eta\sigma}2 \Delta(f p)` and the invariant law is :math:`f^{-1-2/(\eta\sigma)}`.
    - ``"fokker-planck"``: :math:`\partial_t p = \nabla \cdot (p \nabla f) + \eta\sigma \Delta(f p)`
      and :math:`f^{-1-1/(\eta\sigma)}` as printed. The equation they belong to is
      :math:`d\theta = -\nabla f\,dt + \sqrt{2 \eta \sigma f}\,dB`.

    One is the other at twice the sigma. The law is a density where it is integrable.

    Args:
        f: The loss, nowhere negative: a function of params, or a :class:`thalweg.FiniteSum`.
        step: :math:`\eta`, positive: SGD's, whatever the step of the diffusion.
        sigma: :math:`\sigma`, at least 0.
        convention: "sde" or "fokker-planck".

    Raises:
        InputError: f is no function, numbers out of range, another convention. Where f is negative
            the chain counts as diverged.
    """
    times = _CONVENTIONS[known(convention, _CONVENTIONS, "convention")]
    size = (
        times
        * checked_number("step", step, "above 0")
        * checked_number("sigma", sigma, "at least 0")
    )
    return Covariance(Scaled(function_of_params(f), size))


class TimeRatio(eqx.Module):
    r"""The function :math:`\gamma(t)/M(t)` of time; each a number or a function."""

    gamma: Any
    batch_size: Any

    def __call__(self, time: Float[Array, ""]) -> Float[Array, ""]:
        """The ratio at a time."""
        gamma, batch_size = (
            jnp.asarray(x(time) if callable(x) else x).astype(jnp.result_type(float))
            for x in (self.gamma, self.batch_size)
        )
        return gamma / batch_size


class SingularDirections(NamedTuple):
    """In which directions there is noise at a point, and in which there is none.

    Attributes:
        rank: The number of directions with noise.
        basis: An orthonormal basis of those without, as columns; parameters in the order of
            ``jax.flatten_util.ravel_pytree``.
        variances: All eigenvalues of the covariance, ascending.
    """

    rank: int
    basis: Float[Array, "d free"]
    variances: Float[Array, " d"]


def singular_directions(
    diffusion: Diffusion, params: Params, *, tolerance: float | None = None
) -> SingularDirections:
    r"""What is singular in the covariance :math:`\Sigma(\theta)` of a diffusion at a point.

    The drift alone moves the parameters in these directions; over longer times noise may reach them
    through the drift and through directions that change from point to point. For SGD on n samples
    they are at least d - n in number.

    Args:
        diffusion: The diffusion; if its noise varies in time ``diffusion.at(time)``.
        params: Where.
        tolerance: Variances up to this share of the largest count as none; 16 d times the rounding
            unit of the parameters' type unless given.

    Raises:
        InputError: A covariance that is indefinite or not a number there; a tolerance outside of
            [0, 1).

    Cost: one covariance and its eigenvalues, d^3.
    """
    theta, _ = ravel_pytree(params)
    matrix = diffusion.covariance(params)
    if tolerance is None:
        tolerance = 16 * theta.size * float(jnp.finfo(theta.dtype).eps)
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance is {tolerance!r}; expected a share from 0 to below 1")
    if not bool(jnp.all(jnp.isfinite(matrix))):
        raise InputError("the covariance at these parameters is not finite; expected numbers")
    variances, vectors = jnp.linalg.eigh(matrix)
    bound = tolerance * float(jnp.max(jnp.abs(variances)))
    if float(variances[0]) < -bound:
        raise InputError(
            f"the covariance at these parameters has the eigenvalue {float(variances[0]):g}; "
            "expected none below zero"
        )
    free = int(jnp.sum(variances <= bound))
    return SingularDirections(theta.size - free, vectors[:, :free], variances)
