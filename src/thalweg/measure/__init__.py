"""Curvature and stability of a point that training has reached: ``thalweg measure``."""

from thalweg.measure.job import measure as measure
