"""The ensembles that are measured: numbers shared by the C program, the peers and Thalweg."""

import numpy as np

SEED = 7

# Mueller-Brown, dX = -grad V dt + sqrt(2) dW with V = .05 sum_i A exp(a dx^2 + b dx dy + c dy^2).
SCALE = 0.05
# A, a, b, c, x, y of each term.
TERMS = (
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)
START = (-0.5582236346, 1.4417258418)
CENTRE = (0.6234994049, 0.0280377585)
RADIUS = 0.2
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
