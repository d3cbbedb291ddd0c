"""The ensembles that are measured: numbers shared by the C program, the peers and Thalweg."""

import numpy as np
from mueller import CENTRE as CENTRE
from mueller import RADIUS as RADIUS
from mueller import SCALE as SCALE
from mueller import START as START
from mueller import TERMS as TERMS

SEED = 7

DT = 1e-3
# Mean exit time by Scharfetter and Gummel's finite volumes, 256^2, reflecting box
# [-1.5, 1.1] x [-.4, 2]; 26.815 on 128^2 and 26.774 on 512^2.
EXIT_TIME = 26.782

# SGD on f_i = k (x - c)^2/2 + l (y - d)^2/2 from the origin.
QUADRATICS_STEP = 0.1

REGRESSION_STEP = 10.0
_REGRESSION_ROW = 16


def quadratics(n: int) -> np.ndarray:
    """Rows (k, l, c, d), shape (n, 4)."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(0.5, 2.0, (n, 2)), rng.normal(size=(n, 2))], axis=1)


def regression() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (2800, 10), responses and the start of the landscape robust-regression."""
    import thalweg

    landscape = thalweg.landscapes.robust_regression(start="near")
    x, y = (np.asarray(part, dtype=float) for part in landscape.problem.data)
    return x, y, np.asarray(landscape.start, dtype=float)


def regression_rows() -> np.ndarray:
    """For the C program: rows (x, y, zeros) of sixteen numbers, then the start; flat."""
    x, y, start = regression()
    rows = np.zeros((len(y), _REGRESSION_ROW))
    rows[:, :10], rows[:, 10] = x, y
    return np.concatenate([rows.ravel(), start])
