"""What the document says of its networks, decided by the trainings that were made."""

from typing import Any, NamedTuple

import numpy as np

from thalweg.papers.checks import Check, above, below, both
from thalweg.papers.dai_zhu.trainings import PAIRS, Trainings
from thalweg.papers.estimates import Mean
from thalweg.papers.outcome import Claim, Panel, Picture, Series

# Sampler families whose colours the three pairs take: the document's red, blue and green.
_COLOURS = {"small": "sgd", "large": "rr", "twin": "rr-group"}
# "Very similar": within this share of what separates either from the smaller ratio.
_ALIKE = 0.25


def claims(trained: Trainings) -> list[Claim]:
    """The rows of Figures 3, 4 and 5."""
    # The document's Figures 3 and 4 end at 180 of 200 epochs.
    end = min(180, trained.epochs[-1])
    return [
        *_of_norms(trained, end),
        *_of_training(trained, end),
        *_of_generalization(trained, trained.epochs[-1]),
    ]


class _Values(NamedTuple):
    """One number a run for each pair: runs of one number have the same initial weights."""

    small: np.ndarray
    large: np.ndarray
    twin: np.ndarray

    @classmethod
    def of(cls, trained: Trainings, quantity: str, first: int, last: int) -> "_Values":
        """Means over the looks from one epoch to another, which single looks scatter around."""
        return cls(*(trained.over(name, quantity, first, last) for name in PAIRS))

    @property
    def gap(self) -> Mean:
        """The larger ratio minus the smaller."""
        return Mean.of((self.large + self.twin) / 2 - self.small)

    @property
    def spread(self) -> float:
        """The largest standard deviation over runs."""
        return max(float(row.std(ddof=1)) for row in self)

    def alike(self) -> Check:
        """Whether the pairs of one ratio differ by less than a share of what the ratios do."""
        same, other = Mean.of(self.twin - self.large), self.gap
        # The bound is measured, too.
        error = float(np.hypot(same.error, _ALIKE * other.error))
        return below(abs(same.value), _ALIKE * abs(other.value), error=error)


def _late(end: int) -> int:
    """The last part of a training, from where on numbers are averaged."""
    return round(0.7 * end)


def _of_norms(trained: Trainings, end: int) -> list[Claim]:
    quantity = "log norm"
    late = _Values.of(trained, quantity, _late(end), end)
    early = _Values.of(trained, quantity, end // 4, end // 2)
    falls = [
        Mean.of(row - trained.curves(name, quantity).max(axis=1))
        for name, row in zip(PAIRS, late, strict=True)
    ]
    at = f"mean of epochs {_late(end)} to {end}"
    return [
        Claim(
            "Figure 3, left",
            f"the runs behave alike: standard deviations of the log norm ({at}) are less than half "
            "of what separates the ratios",
            below(late.spread, abs(late.gap.value) / 2),
        ),
        Claim(
            "Figure 3, first",
            f"at equal γ/M the log norms are very similar ({at}): their difference is below "
            f"{_ALIKE} of that to the smaller ratio",
            late.alike(),
        ),
        Claim(
            "Figure 3, second",
            f"the larger ratio flattens faster: at epochs {end // 4} to {end // 2} its log norm is "
            "lower by more than .5",
            below(early.gap.value, -0.5, error=early.gap.error),
        ),
        Claim(
            "Figure 3, second",
            f"and it is the lower in the end ({at})",
            below(late.gap.value, 0.0, error=late.gap.error),
        ),
        Claim(
            "Figure 3, third",
            f"whatever the ratio, SGD goes to flatter minima: the log norm ({at}) is below its "
            "largest by more than .2 for each pair",
            both(*(below(fall.value, -0.2, error=fall.error) for fall in falls)),
        ),
    ]


def _of_training(trained: Trainings, end: int) -> list[Claim]:
    first = trained.settled
    accuracy = _Values.of(trained, "train", first, end)
    loss = _Values.of(trained, "log train loss", _late(end), end)
    return [
        Claim(
            "Figure 4",
            f"training accuracies are very close over the runs: standard deviations of the means "
            f"of epochs {first} to {end} are less than half of what separates the ratios",
            below(accuracy.spread, abs(accuracy.gap.value) / 2),
        ),
        Claim(
            "Figure 5, second",
            f"the larger ratio has the better training accuracy (mean of epochs {first} to {end})",
            above(accuracy.gap.value, 0.0, error=accuracy.gap.error),
        ),
        Claim(
            "Figure 5, second",
            f"and the smaller training loss (logarithm of the quotient, epochs {_late(end)} to "
            f"{end})",
            below(loss.gap.value, 0.0, error=loss.gap.error),
        ),
    ]


def _of_generalization(trained: Trainings, last: int) -> list[Claim]:
    first = _late(last)
    loss = _Values.of(trained, "test loss", first, last)
    accuracy = _Values.of(trained, "test", first, last)
    same, steps = Mean.of(accuracy.twin - accuracy.large), Mean.of(loss.twin - loss.large)
    small, large, twin = (trained.curves(name, "test loss").mean(axis=0) for name in PAIRS)
    crossed = np.flatnonzero((large + twin) / 2 < small)
    after = trained.epochs[crossed[-1]] if crossed.size else 0
    return [
        Claim(
            "Figure 5, first",
            f"at equal γ/M the training losses are very close, at epochs {first} to {last}: the "
            f"difference of the logarithms is below {_ALIKE} of that to the smaller ratio",
            _Values.of(trained, "log train loss", first, last).alike(),
        ),
        Claim(
            "Figure 5, first",
            f"and the test accuracies are within .003 (epochs {first} to {last})",
            below(abs(same.value), 0.003, error=same.error),
        ),
        Claim(
            "Figure 5, first",
            f"and the test losses are: the difference at epochs {first} to {last} is below "
            f"{_ALIKE} of that to the smaller ratio",
            loss.alike() if last > 100 else _too_early(last),
            above(steps.value, 0.0, error=steps.error) if last > 100 else _too_early(last),
            correction="at equal γ/M the larger learning rate ends with the larger test loss",
        ),
        Claim(
            "Figure 5, third",
            f"after a certain time the smaller ratio has the smaller test loss (difference at "
            f"epochs {first} to {last}; the means are in this order after epoch {after}, in the "
            "document after about 100)",
            above(loss.gap.value, 0.0, error=loss.gap.error) if last > 100 else _too_early(last),
        ),
    ]


def _too_early(epochs: int) -> Check:
    return Check(None, f"{epochs} epochs are too few")


def tables(trained: Trainings) -> dict[str, dict[str, Any]]:
    """Means with standard errors, and every run's log norm."""
    means: dict[str, Any] = {"epoch": trained.epochs}
    for name in PAIRS:
        for quantity in ("log norm", "train loss", "train", "test loss", "test"):
            rows = [Mean.of(column) for column in trained.curves(name, quantity).T]
            means[f"{name} {quantity}"] = [f"{row.value:.6g}" for row in rows]
            means[f"{name} {quantity} error"] = [f"{row.error:.2g}" for row in rows]
    means = {name: np.asarray(column, dtype=float) for name, column in means.items()}
    runs: dict[str, Any] = {"epoch": trained.epochs}
    losses: dict[str, Any] = {"epoch": trained.epochs}
    for name in PAIRS:
        for run in range(trained.runs):
            norms, own = (trained.curves(name, q)[run] for q in ("log norm", "train loss"))
            runs[f"{name} {run + 1}"] = np.round(norms, 3)
            losses[f"{name} {run + 1}"] = [float(f"{loss:.3g}") for loss in own]
    probes = {
        name: float(np.sqrt((trained.curves(name, "log norm error") ** 2).mean())) for name in PAIRS
    }
    error = {"pair": list(PAIRS), "log norm error of the probes": list(probes.values())}
    late = [epoch >= trained.settled for epoch in trained.epochs]
    zoomed = {name: np.asarray(column)[late] for name, column in means.items()}
    return {"means": means, "late": zoomed, "runs": runs, "losses": losses, "probes": error}


def pictures(runs: int) -> list[Picture]:
    """Figures 3, 4 and 5."""
    norm = "log ‖Hessian‖ (Frobenius)"
    return [
        Picture(
            "figure-3",
            "Logarithm of the Frobenius norm of the Hessian by epoch: single runs, and their mean "
            "with its standard error.",
            [
                Panel("epoch", norm, _of_runs("runs", runs)),
                Panel("epoch", norm, _of_means("means", "log norm")),
            ],
        ),
        Picture(
            "figure-4",
            "Training accuracy after the first 25 epochs, mean with its standard error, and "
            "training loss, single runs, by epoch.",
            [
                Panel("epoch", "training accuracy", _of_means("late", "train")),
                Panel("epoch", "cross-entropy, training", _of_runs("losses", runs), log="y"),
            ],
        ),
        Picture(
            "figure-5",
            "Accuracy and cross-entropy by epoch, on the training (dashed) and on the test images; "
            "right: without the first 25 epochs.",
            [
                Panel(
                    "epoch",
                    what,
                    [
                        *_of_means(table, f"test{suffix}"),
                        *_of_means(table, f"train{suffix}", dashed=True),
                    ],
                )
                for what, suffix in (("accuracy", ""), ("cross-entropy", " loss"))
                for table in ("means", "late")
            ],
        ),
    ]


def _of_runs(table: str, runs: int) -> list[Series]:
    return [
        Series(table, "epoch", f"{name} {run + 1}", pair.label * (run == 0), _COLOURS[name])
        for name, pair in PAIRS.items()
        for run in range(runs)
    ]


def _of_means(table: str, quantity: str, dashed: bool = False) -> list[Series]:
    return [
        Series(
            table,
            "epoch",
            f"{name} {quantity}",
            pair.label * (not dashed),
            _COLOURS[name],
            error=f"{name} {quantity} error",
            dashed=dashed,
        )
        for name, pair in PAIRS.items()
    ]
