"""Scores of samples: what samplers draw by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from thalweg.errors import InputError, known
from thalweg.gradnorms import sample_gradient_norms
from thalweg.gradnorms.squares import norm_dtype
from thalweg.problem import Params
from thalweg.train.objective import Objective

SCORES = ("gradient", "loss", "logit")


Score = Callable[[Params, Any, Any], Float[Array, " m"]]


def scorer(objective: Objective, kind: str = "gradient") -> Score:
    r"""The function ``score(params, state, samples)``: scores :math:`s_i(\theta)` of a batch.

    They are taken in inference mode, in single precision at least. The function is traceable, and
    equal ones (of equal objectives and kinds) share compiled programs.

    - ``"gradient"``: :math:`|\nabla f_i|`, the scores that give the least variance
      (:func:`thalweg.sample_gradient_norms`: .5 to 1.1 gradients);
    - ``"logit"``: :math:`|\partial f_i/\partial z_i|` with the outputs :math:`z_i` of the model,
      for a forward pass. Up to a factor, a bound of the first (Katharopoulos & Fleuret 2018,
      section 3.2);
    - ``"loss"``: :math:`|f_i|`, for a forward pass (Loshchilov & Hutter 2015, arXiv:1511.06343,
      rank by it).

    The last two are for comparison: draws by them are unbiased where a score vanishes only
    together with its gradient, as for losses with the minimum zero, or with a share of uniform
    draws; the variance may be larger than SGD's.

    Args:
        objective: What is trained.
        kind: One of these names.

    Raises:
        InputError: An unknown kind, or "logit" for an objective whose outputs are not known.
    """
    known(kind, SCORES, "kind of scores")
    if kind == "logit" and (objective.outputs is None or objective.cost is None):
        raise InputError(
            "scores='logit' needs an objective whose outputs are known; make it with "
            "Objective.of_model, or take scores='gradient'"
        )
    return _Scorer(objective, kind)


@dataclass(frozen=True)
class _Scorer:
    objective: Objective
    kind: str

    def __call__(self, params: Params, state: Any, samples: Any) -> Float[Array, " m"]:
        if self.kind == "gradient":
            return sample_gradient_norms(
                lambda params, sample: self.objective.sample_loss(params, state, sample),
                params,
                samples,
            )
        one = self._loss if self.kind == "loss" else self._logit
        scores = jax.vmap(one, in_axes=(None, None, 0))(params, state, samples)
        return scores.astype(norm_dtype(scores))

    def _loss(self, params: Params, state: Any, sample: Any) -> Float[Array, ""]:
        return jnp.abs(self.objective.sample_loss(params, state, sample))

    def _logit(self, params: Params, state: Any, sample: Any) -> Float[Array, ""]:
        assert self.objective.outputs is not None
        assert self.objective.cost is not None
        outputs = self.objective.outputs(params, state, sample)
        slope = jax.grad(self.objective.cost)(outputs, sample)
        return jnp.linalg.norm(slope.astype(norm_dtype(slope)))
