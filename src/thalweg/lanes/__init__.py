"""A function of one chain on a block of chains, an array of lanes for every single number.

A chain has few numbers and a block many chains. Vectors of a chain as small trailing axes leave the
processor's vector units idle; so every array of the function is taken apart, and each of its
entries becomes one array with the chains of the block along it (structure of arrays). Sums,
products and reshapes of small arrays then cost what their arithmetic costs, and however a loss is
written, coordinate by coordinate or with vectors, what runs is the same.

A value is *apart* (an array of objects, each of them lanes or a scalar) where it differs from chain
to chain, and an ordinary array where it does not, or has no entries.
"""

from thalweg.lanes.program import Program
from thalweg.lanes.values import (
    apart,
    entries,
    in_one_pass,
    is_apart,
    repacked,
    together,
    without_passes,
)

__all__ = [
    "Program",
    "apart",
    "entries",
    "in_one_pass",
    "is_apart",
    "repacked",
    "together",
    "without_passes",
]
