"""A traced loss, evaluated with a change added to the result of each use of a parameter."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend.core import Literal

from thalweg.gradnorms.uses import Path, Use, body_of

# By the number of the use: what is added to its result, or what met the parameter in it.
ByUse = dict[int, Any]


class Probe:
    """The evaluation for a given list of uses.

    The derivative by the change at a use is what reverse mode brings back to the result of that
    use. Nothing is differentiated by the parameter, so that no gradient of its size is formed.
    """

    def __init__(self, uses: Sequence[Use]):
        self._uses = uses
        self._numbers = {use.path: k for k, use in enumerate(uses)}

    def evaluate(
        self,
        jaxpr: Any,
        constants: Sequence[Any],
        arguments: Sequence[Any],
        changes: ByUse,
        path: Path = (),
    ) -> tuple[list[Any], ByUse]:
        """The results, and for each use the argument that is not the parameter.

        Args:
            jaxpr: What to evaluate, open.
            constants: Its constants.
            arguments: Its inputs.
            changes: What to add to the result of each use below ``path``. A scan around a use
                adds a leading axis, to this and to what is returned.
            path: Where the jaxpr is in the loss.
        """
        values = dict(zip(jaxpr.constvars, constants, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        met: ByUse = {}

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for number, eqn in enumerate(jaxpr.eqns):
            here = (*path, number)
            inputs = [read(atom) for atom in eqn.invars]
            if here in self._numbers:
                k = self._numbers[here]
                outputs = [_bind(eqn, inputs)[0] + changes[k]]
                met[k] = inputs[self._uses[k].other]
            elif inside := self._below(here):
                outputs, below = self._body(eqn, inputs, {k: changes[k] for k in inside}, here)
                met.update(below)
            else:
                outputs = _bind(eqn, inputs)
            values.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars], met

    def _below(self, path: Path) -> list[int]:
        return [k for at, k in self._numbers.items() if at[: len(path)] == path]

    def _body(
        self, eqn: Any, inputs: list[Any], changes: ByUse, path: Path
    ) -> tuple[list[Any], ByUse]:
        """An operation with uses in its body."""
        if eqn.primitive.name == "scan":
            return self._scan(eqn, inputs, changes, path)

        def call(inputs: list[Any], changes: ByUse) -> tuple[list[Any], ByUse]:
            constants = getattr(eqn.params["jaxpr"], "consts", ())
            return self.evaluate(body_of(eqn), constants, inputs, changes, path)

        if eqn.primitive.name == "remat2":
            options = {name: eqn.params[name] for name in ("prevent_cse", "policy")}
            return jax.checkpoint(call, **options)(inputs, changes)
        return call(inputs, changes)

    def _scan(
        self, eqn: Any, inputs: list[Any], changes: ByUse, path: Path
    ) -> tuple[list[Any], ByUse]:
        first = eqn.params["num_consts"]
        carried = eqn.params["num_carry"]
        shared, entries = inputs[:first], inputs[first + carried :]
        body = eqn.params["jaxpr"]

        def turn(carry: list[Any], own: tuple[list[Any], ByUse]) -> tuple[list[Any], Any]:
            entries, changes = own
            arguments = [*shared, *carry, *entries]
            outputs, met = self.evaluate(body.jaxpr, body.consts, arguments, changes, path)
            return outputs[:carried], (outputs[carried:], met)

        options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
        start = inputs[first : first + carried]
        end, (outputs, met) = jax.lax.scan(turn, start, (entries, changes), **options)
        return [*end, *outputs], met


def _bind(eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(outputs) if eqn.primitive.multiple_results else [outputs]
