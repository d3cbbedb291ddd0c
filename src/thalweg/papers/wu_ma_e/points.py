"""The document's own numbers: its table, and points read off its figures."""

import csv
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thalweg.papers.experiment import Setting


class Cloud(NamedTuple):
    """Points of a figure.

    Attributes:
        sharpness: Their place along.
        nonuniformity: Their place upwards.
    """

    sharpness: np.ndarray
    nonuniformity: np.ndarray


# Table 1: sharpness and its deviation over runs, by data and step.
TABLE_1 = {
    "fashionmnist-1000": {0.01: (53.5, 4.3), 0.05: (39.3, 0.5), 0.1: (19.6, 0.15), 0.5: (3.9, 0.0)},
    "cifar10-2class-1000": {
        0.01: (198.9, 0.6),
        0.05: (39.8, 0.2),
        0.1: (19.8, 0.1),
        0.5: (3.6, 0.4),
    },
}


# Figure 3: means and deviations of sharpness and non-uniformity, by data and batch (1000 is GD).
FIGURE_3 = {
    "fashionmnist-1000": {
        1000: ((3.785, 0.224), (12.845, 0.639)),
        25: ((2.300, 0.692), (7.975, 1.862)),
        10: ((1.243, 0.286), (4.270, 0.947)),
        4: ((0.732, 0.052), (2.268, 0.074)),
    },
    "cifar10-2class-1000": {
        1000: ((17.051, 2.007), (50.835, 9.416)),
        25: ((9.663, 2.299), (25.743, 9.402)),
        10: ((5.134, 0.802), (9.158, 2.214)),
        4: ((6.854, 1.167), (11.099, 2.227)),
    },
}


def clouds(setting: Setting, figure: str) -> dict[tuple[str, str], Cloud]:
    """The digitised points of "fig3" or "fig4" by task and batch; none without their file.

    The file is ``wu2018-poster/points.csv`` in the folder of data.
    """
    folder = setting.data_dir or os.environ.get("THALWEG_DATA")
    path = None if not folder else Path(folder) / "wu2018-poster" / "points.csv"
    if path is None or not path.is_file():
        return {}
    with path.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["figure"] == figure]
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        values = float(row["sharpness"]), float(row["nonuniformity"])
        groups.setdefault((row["task"], row["batch_size"]), []).append(values)
    return {key: Cloud(*np.array(values).T) for key, values in groups.items()}
