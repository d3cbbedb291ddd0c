"""The loss of one sample as a program, and what makes no sense as one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import PyTree

from thalweg.errors import InputError
from thalweg.problem import Loss, Params, describe


def common_length(data: PyTree[Any]) -> int:
    """The n that all leaves of the data begin with.

    Raises:
        InputError: Data without a common leading axis, or without a sample.
    """
    leaves = jax.tree_util.tree_leaves_with_path(data)
    lengths = {jnp.shape(leaf)[:1] for _, leaf in leaves}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise InputError(
            f"data must be arrays with a common leading axis of n samples, n at least 1; got "
            f"{describe(data)} (one sample x is x[None])"
        )
    return next(iter(lengths))[0]


def check_differentiable(params: Params) -> None:
    """Refuse parameters that have no gradient.

    Raises:
        InputError: No leaves, or leaves that are not floating-point arrays (which).
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise InputError("params holds no arrays; expected a pytree of floating-point arrays")
    for path, leaf in leaves:
        name = "params" + jax.tree_util.keystr(path)
        if not hasattr(leaf, "dtype") and not isinstance(leaf, float):
            raise InputError(
                f"{name} is of type {type(leaf).__name__} and has no gradient; keep floating-point "
                "arrays alone in params (equinox.partition(model, equinox.is_inexact_array), or "
                "nnx.split) and put the rest back inside the loss"
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise InputError(
                f"{name} is of type {jnp.result_type(leaf)} and has no gradient; expected floating "
                "point: write 1.0 instead of 1, or close over what is no parameter"
            )


def trace(loss: Loss, params: Params, sample: PyTree[Any]) -> core.ClosedJaxpr:
    """The program of the loss of one sample; nothing is computed.

    Args:
        loss: ``loss(params, sample)``.
        params: Arrays, or their shapes.
        sample: Shapes of one sample.

    Raises:
        InputError: A loss that is no function of (params, sample), not of one sample, or not one
            floating-point number.
    """
    # Another function each time: traces of the same one are kept by JAX.
    jaxpr, out = _traced(lambda *arguments: loss(*arguments), params, sample)
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape != ():
        raise InputError(
            "loss(params, sample) must return one floating-point number, got "
            f"{describe(out)}; reduce it over its axes (jnp.sum or jnp.mean), and if it returns "
            "new state as well (batch statistics, for instance), evaluate the model in inference "
            "mode: a sample has no gradient of its own where others change its loss"
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise InputError(f"loss must return floating point, got {out.dtype}")
    again, _ = _traced(lambda *arguments: loss(*arguments), params, sample)
    _check_deterministic(jaxpr, again)
    return jaxpr


def _traced(loss: Callable[..., Any], params: Params, sample: Any) -> tuple[Any, Any]:
    try:
        return jax.make_jaxpr(loss, return_shape=True)(params, sample)
    except NameError as error:
        if "axis name" not in str(error):
            raise
        raise InputError(
            f"the loss needs other samples of a batch ({error}): batch statistics, for instance. "
            "A gradient of one sample does not exist then; evaluate such layers in inference mode"
        ) from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the loss of one sample, {describe(sample)}, failed with {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error) else ''}. It is called without "
            "a batch axis (add one inside: x[None]), may change no state (put layers with batch "
            "statistics in inference mode), must give dropout a key from the sample or none at "
            "all, and cannot have shapes or branches that depend on numbers (jnp.where)"
        ) from error


def _check_deterministic(jaxpr: Any, again: Any) -> None:
    """Refuse what leaves traces of a state: numbers that differ, or effects."""
    effects = [str(e) for e in jaxpr.effects if "Debug" not in type(e).__name__]
    if effects:
        raise InputError(
            f"the loss has effects ({', '.join(effects)}): a callback or an array that it changes. "
            "Its value is then no function of (params, sample); return what is to be kept instead"
        )
    same = len(jaxpr.eqns) == len(again.eqns) and len(jaxpr.consts) == len(again.consts)
    if not (same and all(map(_same, _numbers(jaxpr), _numbers(again)))):
        raise InputError(
            "the loss is not deterministic: traced twice, it holds different numbers (dropout or "
            "augmentation from a hidden generator, for instance). Switch it off, or make the "
            "random key part of the sample"
        )


def _numbers(jaxpr: Any) -> list[Any]:
    """Constants, and the numbers written into the operations."""
    literals = [a.val for e in jaxpr.eqns for a in e.invars if isinstance(a, core.Literal)]
    return [*jaxpr.consts, *literals]


def _same(one: Any, other: Any) -> bool:
    if one is other or isinstance(one, jax.core.Tracer) or isinstance(other, jax.core.Tracer):
        return True
    if not (hasattr(one, "dtype") and jnp.issubdtype(one.dtype, jax.dtypes.prng_key)):
        return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=_may_be_nan(one))
    return bool(jnp.all(jax.random.key_data(one) == jax.random.key_data(other)))


def _may_be_nan(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)
