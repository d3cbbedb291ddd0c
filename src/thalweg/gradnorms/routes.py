"""Which way each parameter leaf takes to its part of the norms, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from thalweg.gradnorms.decomposition import layout, size_of
from thalweg.gradnorms.factors import Size, explicit_cost, gram_cost
from thalweg.gradnorms.uses import Use, find_uses
from thalweg.gradnorms.views import disjoint

# Leaves up to this size are differentiated: nothing is saved.
_SMALL = 64


@dataclass(frozen=True)
class Part:
    """Uses whose gradients add up; those of different parts of a leaf are orthogonal.

    Attributes:
        uses: Their numbers.
        sizes: Of their factors.
    """

    uses: tuple[int, ...]
    sizes: tuple[Size, ...]

    @property
    def gram(self) -> bool:
        """Whether inner products take fewer operations than the gradient itself."""
        return gram_cost(self.sizes) <= explicit_cost(self.sizes)

    @property
    def entries(self) -> int:
        """Of the gradient."""
        return self.sizes[0].blocks * self.sizes[0].rows * self.sizes[0].columns


@dataclass(frozen=True)
class Route:
    """The way of one leaf.

    Attributes:
        leaf: Its path in params, as ``layer/w``.
        shape: Its shape.
        way: ``"factors"`` (from what meets it and the derivatives by the results: no per-sample
            gradient, or at most this leaf's), ``"differentiated"`` (per-sample gradients of this
            leaf by reverse mode, of some samples at a time) or ``"unused"`` (zero).
        reason: Why, in words.
        parts: Its uses, if the way is by factors.
    """

    leaf: str
    shape: tuple[int, ...]
    way: str
    reason: str
    parts: tuple[Part, ...] = ()

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        return f"{self.leaf or 'params'} ({shape}): {self.way}, {self.reason}"


@dataclass(frozen=True, eq=False)
class Plan:
    """How the norms of a loss are computed.

    Attributes:
        jaxpr: The loss of one sample: leaves of params, then of the sample.
        uses: The uses that are probed.
        routes: One for each leaf.
        convolutions: Whether the loss holds one: these are slow inside compiled loops.
    """

    jaxpr: Any
    uses: tuple[Use, ...]
    routes: tuple[Route, ...]
    convolutions: bool

    @property
    def differentiated(self) -> list[int]:
        """The leaves that are."""
        return [k for k, route in enumerate(self.routes) if route.way == "differentiated"]

    @property
    def held(self) -> tuple[int, int]:
        """Numbers held for a sample: factors, and gradients."""
        outs = [math.prod(change_shape(use)) for use in self.uses]
        mets = [math.prod((*(n for n, _ in use.view.loops), *use.shapes[1])) for use in self.uses]
        gradients = sum(math.prod(self.routes[k].shape) for k in self.differentiated)
        return sum(outs) + sum(mets), gradients


def leaf_name(path: tuple[Any, ...]) -> str:
    """The path of a leaf as ``layer/w``, without what Flax's variables add to it."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")


def change_shape(use: Use) -> tuple[int, ...]:
    """The shape of a change to the results of a use in all turns of the scans around it."""
    return (*(length for length, _ in use.view.loops), *use.shapes[2])


def plan(jaxpr: Any, params: Any) -> Plan:
    """Find the uses of all leaves and choose their routes."""
    named = jax.tree_util.tree_leaves_with_path(params)
    found = find_uses(jaxpr.jaxpr, len(named))
    uses: list[Use] = []
    routes = []
    for k, (path, leaf) in enumerate(named):
        own = [use for use in found.uses if use.view.leaf == k]
        name = leaf_name(path)
        routes.append(_route(name, leaf.shape, own, found.reasons.get(k), len(uses)))
        if routes[-1].parts:
            uses += own
    return Plan(jaxpr, tuple(uses), tuple(routes), found.convolutions)


def _route(
    name: str, shape: tuple[int, ...], uses: Sequence[Use], reason: str | None, first: int
) -> Route:
    if reason is not None:
        return Route(name, shape, "differentiated", f"for it {reason}")
    if not uses:
        return Route(name, shape, "unused", "its gradient is zero")
    size, results = math.prod(shape), sum(math.prod(change_shape(use)) for use in uses)
    if size <= _SMALL:
        return Route(name, shape, "differentiated", "for it is small")
    parts = _parts(uses, first)
    if parts is None:
        reason = "for its uses see it in shapes that do not fit together"
        return Route(name, shape, "differentiated", reason)
    convolved = any(use.eqn.primitive.name == "conv_general_dilated" for use in uses)
    if size <= results and not convolved and not any(part.gram for part in parts):
        reason = "for it is no larger than the derivatives by its results"
        return Route(name, shape, "differentiated", reason)
    return Route(name, shape, "factors", "; ".join(map(_words, parts)), parts)


def _parts(uses: Sequence[Use], first: int) -> tuple[Part, ...] | None:
    """Uses by the part of the leaf that they see; None if parts overlap or layouts differ."""
    chains: dict[Any, list[int]] = {}
    for k, use in enumerate(uses):
        chains.setdefault(use.view.chain, []).append(k)
    heads = [uses[members[0]].view for members in chains.values()]
    apart = all(disjoint(a, b) for k, a in enumerate(heads) for b in heads[:k])
    alike = all(len({layout(uses[k]) for k in members}) == 1 for members in chains.values())
    if not (apart and alike):
        return None
    return tuple(
        Part(tuple(first + k for k in members), tuple(size_of(uses[k]) for k in members))
        for members in chains.values()
    )


def _words(part: Part) -> str:
    positions = sum(size.positions for size in part.sizes)
    uses = "one use" if len(part.uses) == 1 else f"{len(part.uses)} uses"
    where = f"{uses}, {positions} position{'s' if positions > 1 else ''}"
    if not part.gram:
        return f"the gradient itself ({where})"
    return f"{'product of two norms' if positions == 1 else 'inner products'} ({where})"
