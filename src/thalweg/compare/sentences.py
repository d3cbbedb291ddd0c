"""What a result says in words, from its numbers alone."""

import math
from collections.abc import Sequence
from typing import Any

from thalweg.compare.escape_sentences import escape_sentences

Rows = Sequence[dict[str, Any]]
# Predicted fractions that differ by less are not worth a sentence.
_APART = 0.05


def landscape_sentences(result: dict[str, Any], starts: str) -> dict[str, list[str]]:
    """The sentences of a landscape (the last is the headline) and the notes under its table."""
    rows, minima = result["rows"], result["minima"]
    if len(minima) < 2:
        notes = _landscape_notes(minima) if minima else []
        return {"sentences": [_losses(rows)], "notes": notes}
    home = next((m["name"] for m in minima if m["start"]), None)
    # Where only neighbours of the start are known, nobody knows the deepest minimum.
    target, what = minima[0]["name"], "deepest"
    if home is not None and (result["local"] or _tied(minima)):
        target, what = home, "starting"
    sentences = []
    if home is not None:
        sentences.append(_kept(rows, home))
        if home != target:
            sentences.append(f"The start is not in the basin of the deepest minimum ({target}).")
    sentences += _diffusion_limits(rows, target)
    sentences += escape_sentences(rows, home)
    sentences.append(_against_descent(rows, target, what, starts))
    notes = _landscape_notes(minima)
    if any(len(row["ends"]) > len(minima) for row in rows):
        notes.append(
            f"None of these: {'in the basin of another minimum, ' if result['local'] else ''}"
            "diverged, or stranded on a plateau so flat that descent would need ten times the "
            "run's own time to reach a minimum. Losses are without those that diverged."
        )
    if result["local"]:
        notes.append(result["confidence"])
    return {"sentences": sentences, "notes": notes}


def network_sentences(result: dict[str, Any], step: float) -> dict[str, list[str]]:
    """The sentences of a network's story (the last is the headline) and the notes."""
    rows, start = result["rows"], result["start"]
    sentences = [
        f"Gradient descent with step {step:.4g} reached a minimum of sharpness "
        f"{start['sharpness']:.2f} (it cannot stay above 2/η = {2 / step:.4g}), "
        f"non-uniformity {start['nonuniformity']:.1f}, loss {start['loss']:.4f}.",
        _predictions(rows),
        _treatments(rows),
        _selected(rows),
    ]
    notes = [
        "stayed: the sharpness at the end is within a fifth of gradient descent's; RR keeps its "
        "scores for the refresh interval, and the threshold says nothing about it.",
        "'leaves' means that the step is beyond the exact mean-square threshold on the span of "
        "leading eigenvectors, which is unstable whatever the span leaves out; 'stays' that it is "
        "below it on that span; 'undecided' that rounding separates neither.",
        f"At the start the mean of |∇f_i| is {start['mean_sample_gradient']:.3g}; it is zero at an "
        "interpolating minimum, which linear stability presumes.",
    ]
    return {"sentences": [s for s in sentences if s], "notes": notes}


def _tied(minima: Sequence[dict[str, Any]]) -> bool:
    """Whether the two deepest minima are equally deep (to rounding)."""
    values = [m["value"] for m in minima]
    return len(values) > 1 and values[1] - values[0] <= 1e-9 * (1 + abs(values[0]))


def _row(rows: Rows, family: str) -> dict[str, Any] | None:
    found = [row for row in rows if row["family"] == family]
    return found[-1] if found else None


def _share(value: dict[str, float]) -> str:
    if value["fraction"] in (0, 1):
        return "all" if value["fraction"] else "none"
    return f"{value['fraction']:.3f} ± {value['error']:.3f}"


def _in(row: dict[str, Any], name: str) -> dict[str, float]:
    for end in row["ends"]:
        if end["minimum"] == name:
            return {"fraction": end["fraction"], "error": end["error"]}
    return {"fraction": 0.0, "error": 0.0}


def _kept(rows: Rows, home: str) -> str:
    parts = [f"{row['label']} {_share(_in(row, home))}" for row in rows]
    return f"Still in the basin of the start ({home}): " + "; ".join(parts) + "."


def _differ(a: dict[str, float], b: dict[str, float], trials: int) -> bool:
    """Whether two fractions differ by more than three standard errors of their difference."""
    # A fraction of 0 or 1 has the error 0; one chain more or less is the resolution.
    floor = 1 / trials
    return abs(a["fraction"] - b["fraction"]) > 3 * math.hypot(a["error"], b["error"], floor)


def _against_descent(rows: Rows, target: str, what: str, starts: str) -> str:
    gd, half = _row(rows, "gd"), _row(rows, "sgd-half")
    sgd = _row(rows, "sgd")
    rr = next((row for row in (_row(rows, family) for family in _RR) if row is not None), None)
    assert gd is not None  # GD and SGD at half the step are always among the rows
    assert half is not None
    first = rr or sgd or half
    mine, descent = _in(first, target), _in(gd, target)
    trials = min(first["trials"], gd["trials"]) if starts == "random" else first["trials"]
    same = not _differ(mine, descent, trials)
    relation = "as often as gradient descent, within error" if same else "unlike gradient descent"
    text = (
        f"{first['label']} ends in the {what} minimum ({target}) in {_share(mine)} of the "
        f"chains, {relation} ({_share(descent)})"
    )
    if sgd is not None and first is not sgd:
        text += f"; {sgd['label']} in {_share(_in(sgd, target))}"
    text += f", at half the step in {_share(_in(half, target))}."
    if rr is not None and same:
        text += " RR keeps the basin it starts in; it does not search for the deepest one."
    return text


_RR = ("rr", "rr-group", "rr-population", "rr-fixed")


def _diffusion_limits(rows: Rows, target: str) -> list[str]:
    """Where the grid's two predictions differ, and whom the simulation contradicts."""
    wrong, coarse = [], []
    for row in rows:
        chain, limit = (_predicted(row, route, target) for route in ("sgd", "diffusion"))
        seen = _in(row, target)
        if chain is not None and _contradicts(chain, seen, row["trials"]):
            coarse.append(f"{row['label']} ({chain['fraction']:.3f}, simulated {_share(seen)})")
        elif chain is not None and limit is not None and _apart(chain, limit):
            wrong.append(
                f"{limit['fraction']:.3f} for {row['label']}, where the sampler's own transition "
                f"matrix has {chain['fraction']:.3f} (simulated: {_share(seen)})"
            )
    sentences = []
    if wrong:
        sentences.append(
            f"At this step the diffusion limit is wrong about {target}: it predicts "
            + "; ".join(wrong)
            + ". Trust the chain."
        )
    if coarse:
        sentences.append(
            f"The simulation contradicts the transition matrix of {_list(coarse)}: the cells are "
            "too wide for its moves, or its draws not normal. Trust the simulation."
        )
    return sentences


def _apart(chain: dict[str, Any], limit: dict[str, Any]) -> bool:
    doubt = math.hypot(chain["error"], limit["error"])
    return abs(chain["fraction"] - limit["fraction"]) > max(_APART, 3 * doubt)


def _contradicts(predicted: dict[str, Any], seen: dict[str, float], trials: int) -> bool:
    """Whether a prediction is out of reach of the simulation's error and its own."""
    p = predicted["fraction"]
    doubt = math.hypot(predicted["error"], math.sqrt(max(p * (1 - p), 0.0) / trials), 1 / trials)
    return abs(p - seen["fraction"]) > max(_APART, 3 * math.hypot(doubt, seen["error"]))


def _predicted(row: dict[str, Any], route: str, name: str) -> dict[str, Any] | None:
    ends = row["grid"] and row["grid"][route]["ends"]
    return next((end for end in ends or [] if end["minimum"] == name), None)


def _landscape_notes(minima: Sequence[dict[str, Any]]) -> list[str]:
    notes = [
        "Sharpness and stability (in mean square, exact) are those of the minimum in which most "
        "chains of a row ended."
    ]
    if all(m["sharpness"] is None for m in minima):
        return ["The minima are kinks: there is no Hessian, hence no sharpness and no threshold."]
    worst = max(m["mean_sample_gradient"] or 0.0 for m in minima)
    if worst > 1e-6:
        notes.append(
            f"The samples disagree at the minima (mean |∇f_i| up to {worst:.3g}): the threshold "
            "then decides whether the noise around one stays bounded, not whether SGD leaves it."
        )
    return notes


def _losses(rows: Rows) -> str:
    parts = [f"{r['label']} {r['loss']['mean']:.4g} ± {r['loss']['error']:.2g}" for r in rows]
    return "Loss at the end: " + "; ".join(parts) + "."


def _predictions(rows: Rows) -> str:
    """How linear stability at the start did against what was seen."""
    told = [r for r in rows if r["predicted"] in ("stays", "leaves")]
    if not told:
        return ""
    right = [r for r in told if (r["predicted"] == "stays") == (r["stayed"]["fraction"] > 0.5)]
    moved = [r["label"] for r in told if r not in right and r["predicted"] == "stays"]
    kept = [r["label"] for r in told if r not in right and r["predicted"] == "leaves"]
    text = f"Linear stability at the start foretold {len(right)} of the {len(told)} it decides"
    if moved:
        text += f"; {_list(moved)} moved although stable (the samples disagree: noise drives it)"
    return text + (f"; {_list(kept)} stayed although unstable." if kept else ".")


def _treatments(rows: Rows) -> str:
    """The two treatments of stale probabilities beside each other."""
    unbiased, fixed = _row(rows, "rr"), _row(rows, "rr-fixed")
    if unbiased is None or fixed is None:
        return ""
    better = min((unbiased, fixed), key=lambda row: row["loss"]["mean"])
    return (
        f"With stale probabilities, unbiased weights end at loss {unbiased['loss']['mean']:.4f} ± "
        f"{unbiased['loss']['error']:.4f} and sharpness {unbiased['sharpness']['mean']:.1f}, steps "
        f"of fixed length at {fixed['loss']['mean']:.4f} ± {fixed['loss']['error']:.4f} and "
        f"{fixed['sharpness']['mean']:.1f}: {better['label']} is the lower here."
    )


def _selected(rows: Rows) -> str:
    gd = _row(rows, "gd")
    assert gd is not None
    others = [row for row in rows if row is not gd]
    stayed = [row["label"] for row in others if row["stayed"]["fraction"] > 0.5]
    left = [
        f"{row['label']} ({row['sharpness']['mean']:.1f} ± {row['sharpness']['error']:.1f})"
        for row in others
        if row["stayed"]["fraction"] <= 0.5
    ]
    text = f"From the same point, with sharpness {gd['sharpness']['mean']:.1f} kept by GD, "
    text += f"{_list(left)} left for minima of other sharpness" if left else "nobody left"
    text += f"; {_list(stayed)} stayed" if stayed else ""
    best = max(rows, key=lambda row: row["test_accuracy"]["mean"])
    text += f". Best test accuracy: {best['label']}, {100 * best['test_accuracy']['mean']:.1f} %"
    mine = f" (GD {100 * gd['test_accuracy']['mean']:.1f} %)" if best is not gd else ""
    return text + mine + "."


def _list(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
