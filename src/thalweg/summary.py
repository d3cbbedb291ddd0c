"""Numbers with their errors."""

from typing import Any

import numpy as np


def mean_and_error(values: Any) -> dict[str, float]:
    r"""The mean over trials and its standard error :math:`s/\sqrt N` (0 for one trial)."""
    values = np.asarray(values, dtype=float)
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else 0.0
    return {"mean": float(values.mean()), "error": float(error)}


def fraction_and_error(hits: Any) -> dict[str, float]:
    r"""The fraction of trials that hit and its standard error :math:`\sqrt{p(1-p)/N}`."""
    hits = np.asarray(hits, dtype=bool)
    p = float(hits.mean())
    return {"fraction": p, "error": float(np.sqrt(p * (1 - p) / hits.size))}


def band(values: Any) -> dict[str, list[float]]:
    """Mean and the band of 16 to 84 percent over trials, along the second axis."""
    values = np.asarray(values, dtype=float)
    low, high = np.quantile(values, [0.16, 0.84], axis=0)
    return {"mean": values.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}
