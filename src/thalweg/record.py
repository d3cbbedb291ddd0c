"""What a simulation looks at while it runs."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx

from thalweg.errors import InputError

Observable = Callable[[Any], Any]


def parameters(params: Any) -> Any:
    """The parameters themselves, as an observable."""
    return params


class Record(eqx.Module):
    r"""Observables of a chain: some every so many steps, some averaged over all steps.

    Args:
        every: Steps between records; step 0 (the start) is recorded, too.
        values: Name to function of params, recorded every so many steps; the parameters under the
            name "params" unless given. Functions of one chain, ordinary JAX.
        means: Name to function of params, averaged over steps k > ``burn_in`` while the chain runs:
            :math:`\frac{1}{m} \sum_k F(\theta_k)`.
        burn_in: Steps left out of the means.

    Raises:
        InputError: ``every`` below 1 or ``burn_in`` negative.
    """

    every: int | None = eqx.field(static=True)
    values: dict[str, Observable]
    means: dict[str, Observable]
    burn_in: int = eqx.field(static=True)

    def __init__(
        self,
        every: int | None = None,
        values: Mapping[str, Observable] | None = None,
        *,
        means: Mapping[str, Observable] | None = None,
        burn_in: int = 0,
    ):
        if every is not None and every < 1:
            raise InputError(f"record every {every} steps: expected at least 1")
        if every is None and values:
            raise InputError("values to record need every=, the steps between two records")
        if burn_in < 0:
            raise InputError(f"burn_in is a number of steps, got {burn_in}")
        self.every = every
        self.values = dict(values or {"params": parameters}) if every else {}
        self.means = dict(means or {})
        self.burn_in = burn_in
