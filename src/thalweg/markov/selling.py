r"""Selling's decomposition of symmetric tensors: diffusion as jumps to cells of a lattice.

A superbase of :math:`\mathbb Z^d` (d = 2, 3) is a basis :math:`v_1, \dots, v_d` of determinant
:math:`\pm 1` with :math:`v_0 = -\sum v_i`. If it is obtuse, :math:`v_i^\top D v_j \le 0` for all
pairs, then

.. math:: D = \sum_{i<j} (-v_i^\top D v_j)\, e_{ij} e_{ij}^\top, \qquad
   e_{ij} = v_k^\perp \ (d = 2), \quad v_k \times v_l \ (d = 3),

with k, l the other indices: three or six offsets with weights that are not negative. Every positive
definite D has one. The longest offset grows with the ratio of the eigenvalues, without bound for a
singular D.

E. Selling, Journal fuer die reine und angewandte Mathematik 77 (1874); J. H. Conway and N. J. A.
Sloane, Proceedings of the Royal Society A 436 (1992). For stencils: J. F. Bonnans, E. Ottenwaelter
and H. Zidani, ESAIM M2AN 38 (2004); J. Fehrenbach and J.-M. Mirebeau, Journal of Mathematical
Imaging and Vision 49 (2014).
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Offsets reach so many cells along an axis at most.
RADIUS = 4
# Products of the superbase so far above zero, as a share of their terms, are zero to rounding.
_ROUNDING = 1e-13


class Superbases(NamedTuple):
    """One superbase a tensor.

    Attributes:
        vectors: The vectors.
        limiting: The pair of vectors, as a place among all pairs, whose product has to be made zero
            by adding to the tensor; -1 if nothing is added.
    """

    vectors: Int[np.ndarray, "cells vectors d"]
    limiting: Int[np.ndarray, " cells"]


def superbases(tensors: Float[np.ndarray, "cells d d"], radius: int = RADIUS) -> Superbases:
    r"""Superbases obtuse for :math:`D + \epsilon I`, with zero or a small :math:`\epsilon`.

    Selling's algorithm along the path :math:`D + \epsilon I` with :math:`\epsilon` falling from
    infinity: the pair whose product passes zero first is exchanged, which leaves the set of
    products at that :math:`\epsilon` as it was, so that each superbase is obtuse on an interval.
    The path ends at :math:`\epsilon = 0`, or where the next superbase has an offset beyond the
    radius. In two dimensions the tensors within the radius are a convex cone, and
    :math:`\epsilon` is the least that leads there. In three, sums of other offsets of that
    radius can do with less, by a factor of five in the worst cases seen.

    Args:
        tensors: D, positive semidefinite, d = 2 or 3.
        radius: The largest :math:`|e_k|_\infty`.

    Cost: up to about ten passes over the tensors for the default radius.
    """
    count, d = tensors.shape[:2]
    standard = np.concatenate([-np.ones((1, d), np.int32), np.eye(d, dtype=np.int32)])
    vectors = np.tile(standard, (count, 1, 1))
    limiting = np.full(count, -1)
    active = np.arange(count)
    while active.size:
        here = vectors[active]
        level = _levels(here, tensors[active])
        pair = level.argmax(axis=1)
        going = level.max(axis=1) > 0
        active, here, pair = active[going], here[going], pair[going]
        after = _exchanged(here, pair)
        beyond = np.abs(offsets(after)).max(axis=(1, 2), initial=0) > radius
        limiting[active[beyond]] = pair[beyond]
        active = active[~beyond]
        vectors[active] = after[~beyond]
    return Superbases(vectors, limiting)


def offsets(vectors: Int[np.ndarray, "cells vectors d"]) -> Int[np.ndarray, "cells terms d"]:
    """The offsets of superbases, one for each pair."""
    if vectors.shape[2] == 2:
        others = vectors[:, [2, 1, 0]]
        return np.stack([-others[..., 1], others[..., 0]], axis=-1)
    rest = [[k for k in range(4) if k not in pair] for pair in _pairs(3)]
    first, second = np.transpose(rest)
    return np.cross(vectors[:, first], vectors[:, second])


def weights(
    vectors: Int[Array, "cells vectors d"],
    limiting: Int[Array, " cells"],
    tensors: Float[Array, "cells d d"],
) -> tuple[Float[Array, "cells terms"], Float[Array, " cells"]]:
    r"""The weights of the offsets, and the least :math:`\epsilon` with which none is negative.

    Both are linear in the tensors as long as the superbase is the right one, and differentiable.

    Args:
        vectors: As in :class:`Superbases`.
        limiting: Likewise.
        tensors: D.
    """
    first, second = np.transpose(_pairs(tensors.shape[1]))
    bases = jnp.asarray(vectors, float)
    v, w = bases[:, first], bases[:, second]
    products = jnp.sum((v[..., :, None] * w[..., None, :]) * tensors[:, None], axis=(-2, -1))
    lengths = jnp.sum(v * w, axis=-1)
    limited = jnp.arange(first.size) == jnp.asarray(limiting)[:, None]
    each = jnp.where(limited, products / jnp.where(limited, -lengths, 1.0), 0.0)
    added = jnp.sum(each, axis=1)
    left = -products - added[:, None] * lengths
    # What is below zero is rounding, and the limiting product is zero by construction.
    return jnp.where((left > 0) & ~limited, left, 0.0), added


def _pairs(d: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(d + 1), 2))


def _levels(
    vectors: Int[np.ndarray, "cells vectors d"], tensors: Float[np.ndarray, "cells d d"]
) -> Float[np.ndarray, "cells pairs"]:
    r"""The :math:`\epsilon` at which each product becomes positive as it falls, else zero."""
    first, second = np.transpose(_pairs(vectors.shape[2]))
    v, w = vectors[:, first].astype(float), vectors[:, second].astype(float)
    products = np.einsum("nki,nki->nk", v @ tensors, w)
    terms = np.einsum("nki,nki->nk", np.abs(v) @ np.abs(tensors), np.abs(w))
    lengths = np.einsum("nki,nki->nk", v, w)
    positive = products > _ROUNDING * terms
    falling = lengths < 0
    level = np.divide(products, -lengths, out=np.full_like(products, np.inf), where=falling)
    return np.where(positive, level, 0.0)


def _exchanged(
    vectors: Int[np.ndarray, "cells vectors d"], pair: Int[np.ndarray, " cells"]
) -> Int[np.ndarray, "cells vectors d"]:
    """Selling's exchange: the first of the pair turns round, all but the second are moved by it."""
    d = vectors.shape[2]
    rows = np.arange(len(vectors))
    first, second = np.asarray(_pairs(d))[pair].T
    turned = vectors[rows, first]
    # v_k + v_i in three dimensions; in two v_i - v_j, which is v_k + 2 v_i.
    after = vectors + (4 - d) * turned[:, None]
    after[rows, first] = -turned
    after[rows, second] = vectors[rows, second]
    return after
