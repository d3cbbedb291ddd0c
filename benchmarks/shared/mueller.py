"""The Mueller-Brown potential that all benchmarks share.

dX = -grad V dt + sqrt(2) dW with V = .05 sum_i A exp(a dx^2 + b dx dy + c dy^2).
"""

SCALE = 0.05
# A, a, b, c, x, y of each term.
TERMS = (
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)
# The global minimum, and a disc about the one on the right.
START = (-0.5582236346, 1.4417258418)
CENTRE = (0.6234994049, 0.0280377585)
RADIUS = 0.2
