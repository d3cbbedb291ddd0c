"""The tables of a measured point."""

from collections.abc import Callable, Mapping
from typing import Any

from thalweg.report.notation import MISSING, error_notation, plain
from thalweg.report.table import Table

_VERDICTS = {True: "yes", False: "no", None: "undecided"}


def measure_tables(result: Mapping[str, Any]) -> list[Table]:
    """What the point is like, and which steps keep it."""
    return [_thresholds(result), _point(result)]


def _thresholds(result: Mapping[str, Any]) -> Table:
    asked = result["step"] is not None
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("batch", lambda row: str(row["batch_size"])),
        ("safe by (4)", lambda row: _step(row["sufficient"])),
        ("stable to", lambda row: _step(row["lower"])),
        ("unstable from", lambda row: _step(row["upper"])),
        ("GD: 2/λ", lambda row: _step(row["descent"])),
    ]
    if asked:
        columns += [
            (f"keeps η={result['step']:g}", lambda row: _VERDICTS[row["stable"]]),
            ("noise height", lambda row: plain(row["excess_loss"])),
        ]
    caption = (
        "Steps η by batch size. Safe by (4): what Wu, Ma and E's condition, which is sufficient, "
        "vouches for. Stable to, unstable from: between these two steps lies the exact threshold, "
        "beyond which the mean square of the distance grows. GD: the limit of gradient descent"
    )
    if not result["exact"]["whole"]:
        caption += (
            f". The threshold of B = {result['exact']['batch_size']} is on "
            f"{result['exact']['directions']} directions of parameter space; the others, on the "
            "leading ones alone, may be some per cent too high"
        )
    if asked:
        caption += (
            f". Noise height: the mean loss above the minimum at η = {result['step']:g}, without "
            "a bound (–) where it is unstable"
        )
    rows = [[cell(row) for _, cell in columns] for row in result["batches"]]
    return Table("Which steps keep the point", caption + ".", [n for n, _ in columns], rows)


def _point(result: Mapping[str, Any]) -> Table:
    rows = [
        ("loss f", plain(result["loss"]), ""),
        ("|∇f|", plain(result["gradient_norm"]), ""),
        ("mean |∇f_i|", plain(result["mean_sample_gradient"]), ""),
        ("largest |∇f_i|", plain(result["max_sample_gradient"]), ""),
        (
            "sharpness λ_max(H)",
            plain(result["sharpness"]),
            _data(result["sharpness_data_error"]),
        ),
        ("non-uniformity s", plain(result["nonuniformity"]), ""),
        ("λ_min(H)", plain(result["smallest_eigenvalue"]), ""),
        ("trace of H", _probed(result["trace"]), _data(result["trace"]["data_error"])),
        ("|H| (Frobenius)", _probed(result["frobenius"]), ""),
        ("cosine of C and H", _given(result["alignment"]), ""),
        ("batch sharpness", _given(result["batch_sharpness"]), ""),
    ]
    caption = (
        "In brackets the standard error by probes or batches, in units of the last digits; data "
        "error: what as many other samples of the same kind would change. Batch sharpness: the "
        "mean of g·Hg/|g|² over batches of the first size; it is what settles at 2/η under SGD."
    )
    return Table("The point", caption, ["", "value", "data error"], [list(row) for row in rows])


def _step(value: float | None) -> str:
    """To four digits, in the form of all other numbers."""
    if value is None:
        return MISSING
    text = f"{value:.4g}" if value >= 1e-4 else f"{value:.3e}".replace("e-0", "e-")
    return text.removeprefix("0") if text.startswith("0.") else text


def _probed(estimate: Mapping[str, Any]) -> str:
    return error_notation(estimate["mean"], estimate["error"])


def _given(estimate: Mapping[str, Any] | None) -> str:
    return MISSING if estimate is None else error_notation(estimate["mean"], estimate["error"])


def _data(error: float | None) -> str:
    return MISSING if error is None else plain(error)
