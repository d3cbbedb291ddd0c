"""Convolutions: the windows that meet the kernel."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from thalweg.gradnorms.factors import Factors, Size
from thalweg.gradnorms.rules import Layout
from thalweg.gradnorms.uses import Use


class Convolution:
    """A convolution with a kernel, of any dimension numbers, strides, dilations and groups."""

    def __init__(self, use: Use):
        self._params = use.eqn.params
        self._numbers = self._params["dimension_numbers"]
        self._axes = use.view.axes
        kernel = use.shapes[0]
        out, into, *space = self._numbers.rhs_spec
        self._groups = self._params["feature_group_count"]
        self._window = tuple(kernel[k] for k in space)
        self._into = kernel[into]
        self._out = kernel[out] // self._groups
        images, _, *positions = (use.shapes[2][k] for k in self._numbers.out_spec)
        self._result = tuple(positions)
        self._positions = images * math.prod(positions)

    def layout(self) -> Layout:
        """Which axes are rows (a window) and columns (the outputs of a group)."""
        return ("window", self._groups, *(self._axes[k] for k in self._numbers.rhs_spec))

    def size(self) -> Size:
        """From shapes alone."""
        rows = math.prod(self._window) * self._into
        return Size(self._groups, self._positions, rows, self._out, False)

    def factors(self, met: Array, delta: Array) -> Factors:
        """The windows, and the derivatives by the outputs."""
        batch, channel, *space = self._numbers.lhs_spec
        windows = self._windows(met.transpose(batch, *space, channel))
        shape = (self._positions, math.prod(self._window), self._groups, self._into)
        rows = jnp.moveaxis(windows.reshape(shape), 2, 0)
        batch, channel, *space = self._numbers.out_spec
        columns = delta.transpose(batch, *space, channel)
        columns = columns.reshape(self._positions, self._groups, self._out)
        return Factors(rows.reshape(self._groups, self._positions, -1), jnp.moveaxis(columns, 1, 0))

    def _windows(self, image: Array) -> Array:
        """The window of each position: (batch, *positions, *window, channels).

        One axis after the other, by slices: a convolution that copies is several times slower.
        """
        dilations = [d - 1 for d in self._params["lhs_dilation"]]
        padding = zip(*zip(*self._params["padding"], strict=True), dilations, strict=True)
        zero = jnp.zeros((), image.dtype)
        image = jax.lax.pad(image, zero, [(0, 0, 0), *padding, (0, 0, 0)])
        rank = len(self._window)
        for k, (offsets, length) in enumerate(zip(self._window, self._result, strict=True)):
            stride, dilation = self._params["window_strides"][k], self._params["rhs_dilation"][k]
            axis, last = 1 + k, stride * (length - 1) + 1
            parts = [
                jax.lax.slice_in_dim(image, o * dilation, o * dilation + last, stride, axis)
                for o in range(offsets)
            ]
            # The axes of the window come after those of the image, before the channels.
            image = jnp.stack(parts, axis=1 + rank + k)
        return image
