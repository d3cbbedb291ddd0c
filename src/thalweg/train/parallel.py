"""Devices that train together: each has a part of the samples, and all of everything else.

The random words of a step are the same on all devices, so that a step draws the batch that one
device draws. Its samples are divided among the devices, each of which takes the gradient of its
part, and XLA adds these: the numbers are those of one device but for the order of sums.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from thalweg.errors import InputError
from thalweg.problem import FiniteSum

_AXIS = "samples"


@dataclass(frozen=True)
class Devices:
    """Some devices, of one process or of several.

    Samples are divided evenly; where they do not divide, the last one is repeated, and never
    drawn or counted. Tables of n scores are divided where n divides, else kept on all devices.

    Attributes:
        mesh: The devices in a row, those of a process side by side.
        n: The number of samples.
    """

    mesh: Mesh
    n: int

    @staticmethod
    def of(devices: Sequence[jax.Device] | None, n: int) -> "Devices | None":
        """The devices that were asked for; by default all, if there are several processes.

        Args:
            devices: Which, or None.
            n: The number of samples.

        Raises:
            InputError: No devices, one twice, or a process without one.
        """
        if devices is None:
            if jax.process_count() == 1:
                return None
            devices = jax.devices()
        devices = list(devices)
        if not devices or not all(isinstance(device, jax.Device) for device in devices):
            raise InputError(f"devices= is a list of devices, as jax.devices(); got {devices!r}")
        if len(set(devices)) != len(devices):
            raise InputError(f"devices= has a device twice: {devices}")
        without = set(range(jax.process_count())) - {device.process_index for device in devices}
        if without:
            raise InputError(
                f"devices= has none of process {min(without)}, and all of {jax.process_count()} "
                "processes train together; expected jax.devices()"
            )
        row = np.array(sorted(devices, key=lambda device: (device.process_index, device.id)))
        return Devices(Mesh(row, (_AXIS,), axis_types=(AxisType.Auto,)), n)

    @property
    def count(self) -> int:
        """How many there are."""
        return self.mesh.size

    def placed(self, tree: Any, where: Any = None) -> Any:
        """Arrays that every process has, on the devices: whole, or as these shardings say."""
        if where is None:
            where = jax.tree.map(lambda _: self.sharding(), tree)
        return jax.tree.map(_placed, tree, where)

    def population(self, population: FiniteSum) -> FiniteSum:
        """A population whose data are divided; weights, groups and tables for draws are whole."""
        placed = copy.copy(population)
        placed.data = self.divided(population.data)
        for name in ("weights", "groups", "table", "group_table"):
            setattr(placed, name, self.placed(getattr(population, name)))
        return placed

    def own(self, size: int) -> slice:
        """Which of so many rows are on devices of this process; all, if they do not divide."""
        if size % self.count:
            return slice(size)
        places = [
            place
            for place, device in enumerate(self.mesh.devices)
            if device.process_index == jax.process_index()
        ]
        share = size // self.count
        return slice(share * places[0], share * (places[-1] + 1))

    def joined(self, own: Any, shape: tuple[int, ...]) -> Any:
        """The samples at an index of this shape, from each process's :meth:`own` of its last axis.

        Divided along that axis if it divides, else whole on all devices.
        """
        axis = len(shape) - 1
        where = self.of_rows(shape, axis)
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(
                where, x, (*shape, *x.shape[axis + 1 :])
            ),
            own,
        )

    def divided(self, samples: Any) -> Any:
        """Samples that every process has, a part on each device; with repetitions of the last."""

        def part(leaf: Any) -> Array:
            leaf = np.asarray(leaf)
            missing = -len(leaf) % self.count
            if missing:
                leaf = np.concatenate([leaf, np.repeat(leaf[-1:], missing, axis=0)])
            return _placed(leaf, self.sharding(0))

        return jax.tree.map(part, samples)

    def local(self, tree: Any) -> Any:
        """Arrays on the devices, as arrays of this process; all processes call it together."""
        whole = _whole(tree, self.sharding())
        return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), whole)

    def constrained(self, tree: Any, axis: int = 0) -> Any:
        """Inside of a program: a batch with this axis divided, whether it divides or not."""
        sharding = self.sharding(axis)
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)

    def of_table(self, shape: tuple[int, ...], axis: int) -> NamedSharding:
        """Where a sampler's array belongs: divided, if it has n entries that divide."""
        entries = len(shape) > axis and shape[axis] == self.n
        return self.of_rows(shape, axis) if entries else self.sharding()

    def of_rows(self, shape: tuple[int, ...], axis: int) -> NamedSharding:
        """Where an array belongs that is divided along an axis, if that divides."""
        return self.sharding(axis if shape[axis] % self.count == 0 else None)

    def sharding(self, axis: int | None = None) -> NamedSharding:
        """Divided along an axis; or whole on all devices."""
        parts = () if axis is None else (*[None] * axis, _AXIS)
        return NamedSharding(self.mesh, PartitionSpec(*parts))


def on_host(devices: Any) -> AbstractContextManager[Any]:
    """Where arrays are made that are to be divided among devices, none of which need hold all."""
    if devices is None and jax.process_count() == 1:
        return nullcontext()
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to leave the CPU alone
        return nullcontext()


def constrained(devices: Devices | None, tree: Any, axis: int = 0) -> Any:
    """Inside of a program: a batch, divided if there are several devices."""
    return tree if devices is None else devices.constrained(tree, axis)


def whole(devices: Devices | None, tree: Any) -> Any:
    """Inside of a program: what all devices need, or the host reads, on all of them."""
    if devices is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, devices.sharding())


@dataclass(frozen=True, eq=False)
class Divided:
    """Samples in memory on several devices.

    Attributes:
        devices: Which.
        data: A pytree of arrays with a leading axis, divided.
        n: How many are samples, and no repetitions.
    """

    devices: Devices
    data: Any
    n: int

    @staticmethod
    def of(devices: Devices, data: Any) -> "Divided":
        """Samples that every process has."""
        return Divided(devices, devices.divided(data), len(jax.tree.leaves(data)[0]))

    def chunks(self, size: int) -> Iterator[tuple[Any, Int[np.ndarray, "devices size"]]]:
        """All samples, so many of each device at a time, and which they are: no device asks others.

        A number is -1 where a sample is repeated, as the last chunk does to be full.
        """
        count = self.devices.count
        rows = -(-self.n // count)
        size = min(size, rows)
        for begin in range(0, rows, size):
            first = min(begin, rows - size)
            column = np.arange(first, first + size)
            number = np.arange(count)[:, None] * rows + column
            new = (column >= begin) & (number < self.n)
            chunk = _columns(self.devices, size, self.data, np.int32(first))
            yield chunk, np.where(new, number, -1)


def _placed(leaf: Any, sharding: NamedSharding) -> Array:
    """An array on devices, of which every process makes its part."""
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])


@partial(jax.jit, static_argnums=(0, 1))
def _columns(devices: Devices, size: int, data: Any, first: Any) -> Any:
    def columns(leaf: Array) -> Array:
        rows = leaf.reshape(devices.count, -1, *leaf.shape[1:])
        part = jax.lax.dynamic_slice_in_dim(rows, first, size, axis=1)
        return part.reshape(-1, *leaf.shape[1:])

    return devices.constrained(jax.tree.map(columns, data))


@partial(jax.jit, static_argnums=1)
def _whole(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)
