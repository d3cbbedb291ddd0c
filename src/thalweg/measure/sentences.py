"""What the numbers of a point say, in sentences; the last one is the answer."""

import math
from collections.abc import Mapping
from typing import Any


def sentences(result: Mapping[str, Any], step: float | None) -> dict[str, list[str]]:
    """Sentences and notes; the answer is the last sentence."""
    found = _of_samples(result)
    if step is not None:
        found.append(_of_step(result, step))
    return {"sentences": [*found, _answer(result)], "notes": _notes(result)}


def _of_samples(result: Mapping[str, Any]) -> list[str]:
    if result["remarks"]:
        return [f"{remark[0].upper()}{remark[1:]}." for remark in result["remarks"]]
    return [
        "Every sample is fitted: the largest gradient of one has the norm "
        f"{_number(result['max_sample_gradient'])}, and SGD can come to rest here."
    ]


def _first(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The batch size asked about first."""
    size = result["exact"]["batch_size"]
    return next(row for row in result["batches"] if row["batch_size"] == size)


def _of_step(result: Mapping[str, Any], step: float) -> str:
    first = _first(result)
    size = first["batch_size"]
    verdict = {
        True: f"is stable with B = {size}",
        False: f"is unstable with B = {size}, in mean square",
        None: f"is too near to the threshold of B = {size} to be called stable or not",
    }[first["stable"]]
    least = first["critical_batch"]
    smallest = (
        "no batch would keep it here"
        if least is None
        else f"the smallest batch that keeps it here is {least}"
    )
    return f"At the step η = {step:g} SGD {verdict}; {smallest}."


def _answer(result: Mapping[str, Any]) -> str:
    exact, first = result["exact"], _first(result)
    size = exact["batch_size"]
    if exact["upper"] <= 0:
        lowest = _number(result["smallest_eigenvalue"])
        return f"No step is stable here: H has the eigenvalue {lowest}."
    if not math.isfinite(exact["upper"]):
        return "The samples have no curvature here: every step is stable."
    where = "" if exact["whole"] else f", as far as {exact['directions']} directions show"
    accuracy = "" if exact["closed"] else " (the bracket did not close)"
    return (
        f"Stable for SGD with B = {size} up to η = {_number(exact['lower'])}, unstable from "
        f"{_number(exact['upper'])} on{accuracy}{where}; condition (4) vouches for "
        f"{_number(first['sufficient'])}, and gradient descent allows {_number(first['descent'])}."
    )


def _notes(result: Mapping[str, Any]) -> list[str]:
    notes = []
    if result["replace"]:
        notes.append("Batches are drawn with replacement, for the weights of the samples differ.")
    if not result["exact"]["whole"]:
        notes.append(
            "Beyond 64 parameters the upper ends hold on the whole space, and the lower ones on "
            "the directions worked on: directions left out can only lower the thresholds."
        )
    for name, words in (("trace", "trace"), ("frobenius", "Frobenius norm")):
        if not result[name]["reached"]:
            notes.append(
                f"{result[name]['probes']} probes leave the {words} of H uncertain by more than "
                "5 %; the error beside it says by how much."
            )
    return notes


def _number(value: float) -> str:
    return f"{value:.4g}"
