"""A parameter under another shape: what moves its entries about without mixing them."""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal


@dataclass(frozen=True)
class View:
    """An array whose entries are some entries of one parameter leaf, times a number.

    The way from the leaf is a chain of steps and then a permutation of axes, which is kept apart
    so that a matrix and its transpose are known to have the same rows and columns.

    Attributes:
        leaf: The number of the leaf.
        chain: The steps, in order. A step is a tuple that begins with its kind: ``box`` (a part,
            with its bounds), ``entry`` (one after the other along an axis, in a scan) or ``shape``.
        base: The shape after the last step.
        axes: Axis k of the array is axis ``axes[k]`` of the base.
        scale: The number.
        loops: The scans around the place where it is seen, outermost first: their lengths, and
            whether each turn sees an entry of its own (or all turns the same).
    """

    leaf: int
    chain: tuple[Any, ...]
    base: tuple[int, ...]
    axes: tuple[int, ...]
    scale: float = 1.0
    loops: tuple[tuple[int, bool], ...] = ()

    @classmethod
    def of(cls, leaf: int, shape: tuple[int, ...]) -> "View":
        """The leaf itself."""
        return cls(leaf, (), shape, tuple(range(len(shape))))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(self.base[axis] for axis in self.axes)

    def then(self, step: tuple[Any, ...], shape: tuple[int, ...]) -> "View":
        """After a step that does not follow the axes; the permutation so far is part of it."""
        chain = (*self.chain, (*step, self.axes, shape))
        return replace(self, chain=chain, base=shape, axes=tuple(range(len(shape))))

    def part(self, starts: tuple[int, ...], stops: tuple[int, ...]) -> "View":
        """The entries between bounds given for the axes of the array."""
        if all(start == 0 for start in starts) and stops == self.shape:
            return self
        bounds = [(0, size) for size in self.base]
        for axis, start, stop in zip(self.axes, starts, stops, strict=True):
            bounds[axis] = (start, stop)
        base = tuple(stop - start for start, stop in bounds)
        return replace(self, chain=(*self.chain, ("box", tuple(bounds))), base=base)

    def in_loop(self, length: int, entries: bool) -> "View":
        """As the body of a scan sees it: whole, or (``entries``) one entry of axis 0 a turn."""
        loops = (*self.loops, (length, entries))
        if not entries:
            return replace(self, loops=loops)
        first = self.axes[0]
        base = self.base[:first] + self.base[first + 1 :]
        axes = tuple(axis - (axis > first) for axis in self.axes[1:])
        return replace(
            self, chain=(*self.chain, ("entry", first)), base=base, axes=axes, loops=loops
        )


def disjoint(one: View, other: View) -> bool:
    """Whether two views of a leaf have no entry in common, as far as their chains tell."""
    for a, b in zip(one.chain, other.chain, strict=False):
        if a != b:
            return a[0] == b[0] == "box" and any(
                p[1] <= q[0] or q[1] <= p[0] for p, q in zip(a[1], b[1], strict=True)
            )
    return False


def moved(eqn: Any, view: View, position: int) -> list[View] | None:
    """The views that an operation makes of one of its arguments; None if it does something else."""
    rule = _RULES.get(eqn.primitive.name)
    return None if rule is None else rule(eqn, view, position)


def _same(eqn: Any, view: View, position: int) -> list[View] | None:
    return [view] if len(eqn.outvars) == 1 else None


def _converted(eqn: Any, view: View, position: int) -> list[View] | None:
    real = jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating)
    return [view] if real else None


def _transposed(eqn: Any, view: View, position: int) -> list[View]:
    return [replace(view, axes=tuple(view.axes[k] for k in eqn.params["permutation"]))]


def _reshaped(eqn: Any, view: View, position: int) -> list[View] | None:
    shape = eqn.outvars[0].aval.shape
    if shape == view.shape:
        return [view]
    return [view.then(("shape",), shape)]


def _broadcast(eqn: Any, view: View, position: int) -> list[View] | None:
    """New axes of length one alone: everything else repeats entries."""
    if eqn.outvars[0].aval.size != np.prod(view.shape, dtype=int):
        return None
    return _reshaped(eqn, view, position)


def _reversed(eqn: Any, view: View, position: int) -> list[View]:
    return [view.then(("reversed", eqn.params["dimensions"]), view.shape)]


def _sliced(eqn: Any, view: View, position: int) -> list[View] | None:
    strides = eqn.params["strides"]
    if strides is not None and any(stride != 1 for stride in strides):
        return None
    return [view.part(eqn.params["start_indices"], eqn.params["limit_indices"])]


def _split(eqn: Any, view: View, position: int) -> list[View]:
    axis, at, parts = eqn.params["axis"], 0, []
    for size in eqn.params["sizes"]:
        starts, stops = [0] * len(view.shape), list(view.shape)
        starts[axis], stops[axis] = at, at + int(size)
        parts.append(view.part(tuple(starts), tuple(stops)))
        at += int(size)
    return parts


def _scaled(eqn: Any, view: View, position: int) -> list[View] | None:
    """Times a number that is written into the program, or divided by one."""
    other = eqn.invars[1 - position]
    if not isinstance(other, Literal) or np.ndim(other.val) != 0:
        return None
    if eqn.primitive.name == "mul":
        return [replace(view, scale=view.scale * float(other.val))]
    return [replace(view, scale=view.scale / float(other.val))] if position == 0 else None


def _negated(eqn: Any, view: View, position: int) -> list[View]:
    return [replace(view, scale=-view.scale)]


_RULES = {
    "copy": _same,
    "copy_p": _same,
    "name": _same,
    "optimization_barrier": _same,
    "sharding_constraint": _same,
    "convert_element_type": _converted,
    "transpose": _transposed,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "broadcast_in_dim": _broadcast,
    "rev": _reversed,
    "slice": _sliced,
    "split": _split,
    "mul": _scaled,
    "div": _scaled,
    "neg": _negated,
}
