"""Gradients by kernels, written so that they are fast."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Literal
from jax.lax import ConvDimensionNumbers
from jaxtyping import Array


def with_small_kernels(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    r"""The same function, its convolutions by whole images with the roles exchanged.

    The gradient of a strided convolution by its input is a convolution with gaps in the image, and
    JAX makes of the derivative of that by the kernel one in which the other image is the kernel.
    XLA:CPU has no fast way for gaps in the image: on a net with three strided layers these took
    four fifths of the time of a product with Sigma. Convolution commutes,

    .. math:: o_m = \sum_j l_j\, r_{jd + p - m} ,

    and with the reversed image r as the image and l as a kernel with gaps, o reversed is what the
    gradient of an ordinary layer by its kernel is.
    """

    def rewritten(argument: Array) -> Array:
        program = jax.make_jaxpr(function)(argument)
        (result,) = _evaluated(program.jaxpr, program.consts, [argument])
        return result

    return rewritten


def _evaluated(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        inputs = [value(variable) for variable in equation.invars]
        if equation.primitive.name == "jit":
            inner = equation.params["jaxpr"]
            results = _evaluated(inner.jaxpr, inner.consts, inputs)
        elif _by_an_image(equation):
            results = [_exchanged(equation, *inputs)]
        else:
            params = equation.primitive.get_bind_params(equation.params)
            results = equation.primitive.bind(*inputs, **params)
            results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def _by_an_image(equation: Any) -> bool:
    """Whether an image with gaps meets a kernel larger than the result."""
    if equation.primitive.name != "conv_general_dilated":
        return False
    params, numbers = equation.params, equation.params["dimension_numbers"]
    kernel, result = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    plain = {*params["window_strides"], *params["rhs_dilation"]} == {1}
    alone = params["feature_group_count"] == params["batch_group_count"] == 1
    spaces = zip(numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    larger = all(kernel[k] > result[o] for k, o in spaces)
    return plain and alone and larger and max(params["lhs_dilation"]) > 1


def _exchanged(equation: Any, image: Array, kernel: Array) -> Array:
    params, numbers = equation.params, equation.params["dimension_numbers"]
    lhs, rhs, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    result = equation.outvars[0].aval.shape
    padding = []
    for k, (low, _) in enumerate(params["padding"], start=2):
        length, before = result[out[k]], result[out[k]] - 1 - low
        reach = (image.shape[lhs[k]] - 1) * params["lhs_dilation"][k - 2]
        padding.append((before, length + reach - kernel.shape[rhs[k]] - before))
    swapped = jax.lax.conv_general_dilated(
        kernel,
        image,
        params["window_strides"],
        padding,
        rhs_dilation=params["lhs_dilation"],
        # The outputs of the kernel are now images of a batch, and the images outputs.
        dimension_numbers=ConvDimensionNumbers(rhs, lhs, (out[1], out[0], *out[2:])),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return jax.lax.rev(swapped, out[2:])
