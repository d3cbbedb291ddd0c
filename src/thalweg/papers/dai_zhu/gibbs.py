"""The landscapes of appendix H, and probabilities by their Gibbs law."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import thalweg as tw

Loss = Callable[[Float[Array, " d"]], Float[Array, ""]]
# Half the side of the boxes of appendix H.
RADIUS = 0.1
# Nodes of a Gauss rule along each axis, by dimension: a well a hundredth as wide is resolved.
_NODES = {1: 400, 2: 60}


class Example(NamedTuple):
    """A loss with minima of depth 0.

    Attributes:
        loss: Of params of shape (d,).
        minima: Where.
        hessians: The diagonals of the Hessians there, as the document has them.
        lower: A corner of a box outside of which there is nothing.
        upper: The other.
        cells: Cells along each axis.
    """

    loss: Loss
    minima: Sequence[tuple[float, ...]]
    hessians: Sequence[tuple[float, ...]]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    cells: int

    def grid(self) -> tw.Grid:
        """The box in cells."""
        return tw.Grid(self.lower, self.upper, self.cells)

    def diffusion(self, eta: float) -> tw.Diffusion:
        """The equation dW = -grad L dt + sqrt(2/eta) dB with eta = 2M/(gamma beta)."""
        noise = tw.noise_models.isotropic(1.0, 2 / eta, 1.0)
        return tw.Diffusion(lambda w: -jax.grad(self.loss)(w), noise, 0.1)

    def boxes(self, etas: Any, radius: float = RADIUS) -> Float[np.ndarray, "minima etas"]:
        r"""P(|w_j| <= radius for all j) around each minimum, by quadrature of the Gibbs law."""
        etas = np.asarray(etas, dtype=float)
        total = self._masses(self.grid().points, etas) * np.prod(
            np.subtract(self.upper, self.lower) / self.cells
        )
        d = len(self.lower)
        node, weight = np.polynomial.legendre.leggauss(_NODES[d])
        nodes = np.stack(np.meshgrid(*[node] * d, indexing="ij"), axis=-1).reshape(-1, d)
        weights = np.prod(np.stack(np.meshgrid(*[weight] * d)), axis=0).ravel() * radius**d
        inside = [
            self._masses(np.asarray(at) + radius * nodes, etas, weights) for at in self.minima
        ]
        return np.array(inside) / total

    def basins(self, eta: float) -> Float[np.ndarray, " minima"]:
        """The masses of the intervals around the minima of a loss on a line, in their order."""
        grid = self.grid()
        w = grid.centres[0]
        masses = np.exp(-eta * self.values(w[:, None]))
        order = np.argsort([at[0] for at in self.minima])
        places = np.array([at[0] for at in self.minima])[order]
        # Between two minima the border is where the loss is largest.
        borders = [
            w[(w > a) & (w < b)][np.argmax(self.values(w[(w > a) & (w < b), None]))]
            for a, b in pairwise(places)
        ]
        shares = np.array([part.sum() for part in np.split(masses, np.searchsorted(w, borders))])
        found = np.empty_like(shares)
        found[order] = shares / shares.sum()
        return found

    def values(self, points: Any) -> Float[np.ndarray, " points"]:
        """The loss at points, shape (points, d)."""
        return np.asarray(_at(self.loss, jnp.asarray(points)))

    def _masses(self, points: Any, etas: np.ndarray, weights: Any = 1.0) -> np.ndarray:
        values = self.values(points)
        return np.array([np.sum(weights * np.exp(-eta * values)) for eta in etas])


@partial(jax.jit, static_argnums=0)
def _at(loss: Loss, points: Float[Array, "points d"]) -> Float[Array, " points"]:
    return jax.vmap(loss)(points)


def _wells(w: Float[Array, " 1"]) -> Float[Array, ""]:
    return (w[0] + 1) ** 2 * w[0] ** 2 * (w[0] - 1.5) ** 2


def _two(w: Float[Array, " 2"]) -> Float[Array, ""]:
    x, y = w
    return (1.1 * x**2 + 0.01 * y**2) * ((x - 1) ** 2 + 0.1 * (y - 1) ** 2)


_PAIRS = ((15.0, 20.0), (14.22, 42.66), (102.13, 25.53))
_CENTRES = ((0.0, 0.0), (1.0, -1.2263828), (-3.4203604, 1.0))


def _three(w: Float[Array, " 2"]) -> Float[Array, ""]:
    away = (w - jnp.asarray(_CENTRES)) ** 2
    return 5.2264868e-6 * jnp.prod(jnp.sum(jnp.asarray(_PAIRS) * away, axis=1))


WELLS = Example(
    _wells, ((0.0,), (-1.0,), (1.5,)), ((4.5,), (12.5,), (28.125,)), (-2.5,), (3.0,), 22_000
)
TWO = Example(
    _two, ((0.0, 0.0), (1.0, 1.0)), ((2.42, 0.022), (2.22, 0.222)), (-4.0, -14.0), (5.0, 15.0), 1200
)
THREE = Example(_three, _CENTRES, _PAIRS, (-5.2, -3.6), (2.8, 3.6), 1000)
