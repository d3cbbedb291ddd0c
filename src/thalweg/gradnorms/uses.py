"""Where the parameters enter a traced loss: products, convolutions, look-ups."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Literal, jaxprs_in_params
from jax.lax import GatherScatterMode

from thalweg.gradnorms.views import View, moved

Path = tuple[int, ...]


@dataclass(frozen=True)
class Use:
    """An operation that is linear in a parameter leaf and mixes it with something of the sample.

    Attributes:
        path: Where the operation is: its number among the operations of the loss, then among those
            of the body it is in, and so on.
        eqn: The operation, with one result.
        position: Which of its arguments is the leaf.
        other: Which of its arguments meets it there.
        view: What the first of these is of the leaf.
    """

    path: Path
    eqn: Any
    position: int
    other: int
    view: View

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Of the view, of what meets it and of the result."""
        atoms = self.eqn.invars[self.position], self.eqn.invars[self.other], self.eqn.outvars[0]
        mine, other, result = (atom.aval.shape for atom in atoms)
        return mine, other, result


@dataclass
class Found:
    """What a walk through a traced loss has found.

    Attributes:
        uses: The uses that are understood.
        reasons: For each leaf that also enters something else, what that is.
        convolutions: Whether there is a convolution.
    """

    uses: list[Use] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    convolutions: bool = False

    def give_up(self, views: Sequence[View | None], reason: str) -> None:
        """These leaves enter something that is not understood."""
        for view in views:
            if view is not None:
                self.reasons.setdefault(view.leaf, reason)


def find_uses(jaxpr: Any, leaves: int) -> Found:
    """Follow the first ``leaves`` inputs of a jaxpr, which are the parameters."""
    found = Found()
    views = [View.of(k, v.aval.shape) for k, v in enumerate(jaxpr.invars[:leaves])]
    outputs = _walk(jaxpr, [*views, *[None] * (len(jaxpr.invars) - leaves)], (), found)
    found.give_up(outputs, "is itself the loss")
    return found


def _walk(jaxpr: Any, views: Sequence[View | None], path: Path, found: Found) -> list[View | None]:
    """Follow views through the operations of a jaxpr; returns the views that it gives back."""
    known = {v: view for v, view in zip(jaxpr.invars, views, strict=True) if view is not None}

    def view_of(atom: Any) -> View | None:
        return None if isinstance(atom, Literal) else known.get(atom)

    for number, eqn in enumerate(jaxpr.eqns):
        found.convolutions |= eqn.primitive.name == "conv_general_dilated"
        inputs = [view_of(atom) for atom in eqn.invars]
        if not any(inputs):
            _look_for_convolutions(eqn, found)
            continue
        outputs = _follow(eqn, inputs, (*path, number), found)
        known.update((v, o) for v, o in zip(eqn.outvars, outputs, strict=False) if o is not None)
    return [view_of(atom) for atom in jaxpr.outvars]


def _follow(
    eqn: Any, inputs: Sequence[View | None], path: Path, found: Found
) -> Sequence[View | None]:
    """The views among the results of an operation; records what it does with its arguments."""
    name = eqn.primitive.name
    if name in _BODY_WALKS:
        return _BODY_WALKS[name](eqn, inputs, path, found)
    if name == "stop_gradient" or not any(map(_differentiable, eqn.outvars)):
        return []
    positions = [k for k, view in enumerate(inputs) if view is not None]
    view = inputs[positions[0]]
    if len(positions) == 1 and view is not None:
        results = moved(eqn, view, positions[0])
        if results is not None:
            return results
        other = _LINEAR[name](eqn, positions[0]) if name in _LINEAR else None
        if other is not None:
            found.uses.append(Use(path, eqn, positions[0], other, view))
            return []
    found.give_up(inputs, f"enters {name}")
    _look_for_convolutions(eqn, found)
    return []


def _look_for_convolutions(eqn: Any, found: Found) -> None:
    if not found.convolutions:
        for body in jaxprs_in_params(eqn.params):
            if any(e.primitive.name == "conv_general_dilated" for e in body.eqns):
                found.convolutions = True
            for inner in body.eqns:
                _look_for_convolutions(inner, found)


def _differentiable(v: Any) -> bool:
    return jnp.issubdtype(v.aval.dtype, jnp.inexact)


def _walk_call(
    eqn: Any, inputs: Sequence[View | None], path: Path, found: Found
) -> Sequence[View | None]:
    return _walk(body_of(eqn), inputs, path, found)


def _walk_scan(
    eqn: Any, inputs: Sequence[View | None], path: Path, found: Found
) -> Sequence[View | None]:
    """Constants of a scan are seen whole by each turn, of its inputs each turn sees an entry."""
    constants, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    length = eqn.params["length"]
    found.give_up(inputs[constants : constants + carried], "is carried by a scan")
    inside: list[View | None] = []
    for k, view in enumerate(inputs):
        is_carried = constants <= k < constants + carried
        skip = view is None or is_carried
        inside.append(None if skip else view.in_loop(length, k >= constants))  # type: ignore[union-attr]
    outputs = _walk(body_of(eqn), inside, path, found)
    found.give_up(outputs, "is given on by a scan")
    return []


def body_of(eqn: Any) -> Any:
    """The open jaxpr of a call, a rematerialised call or a scan."""
    body = eqn.params["jaxpr"]
    return getattr(body, "jaxpr", body)


_BODY_WALKS: dict[str, Callable[..., Sequence[View | None]]] = {
    "jit": _walk_call,
    "remat2": _walk_call,
    "scan": _walk_scan,
}


def _in_convolution(eqn: Any, position: int) -> int | None:
    return 0 if position == 1 and eqn.params["batch_group_count"] == 1 else None


def _in_gather(eqn: Any, position: int) -> int | None:
    """Whole rows along one axis; other components of an index must have no choice."""
    numbers = eqn.params["dimension_numbers"]
    row = _only_row(eqn) if position == 0 else None
    drops = eqn.params["mode"] == GatherScatterMode.FILL_OR_DROP
    understood = (
        row in numbers.start_index_map
        and (len(numbers.start_index_map) == 1 or not drops)
        and set(numbers.collapsed_slice_dims) <= {row}
        and not numbers.operand_batching_dims
    )
    return 1 if understood else None


def _in_dynamic_slice(eqn: Any, position: int) -> int | None:
    """One row along one axis; the other starts have no choice."""
    row = _only_row(eqn) if position == 0 else None
    return None if row is None else 1 + row


def _only_row(eqn: Any) -> int | None:
    """The axis of which single entries are taken, if all others are taken whole."""
    shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
    cut = [k for k in range(len(shape)) if sizes[k] != shape[k]]
    return cut[0] if len(cut) == 1 and sizes[cut[0]] == 1 else None


# The operations that are linear in an argument and understood: what meets a parameter there.
_LINEAR: dict[str, Callable[[Any, int], int | None]] = {
    "dot_general": lambda eqn, position: 1 - position,
    "conv_general_dilated": _in_convolution,
    "gather": _in_gather,
    "dynamic_slice": _in_dynamic_slice,
}
